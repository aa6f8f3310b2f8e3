//! The path of an echo: 6 ms of it, found by least squares.

use super::SAMPLES;

/// Samples of the path.
const TAPS: usize = 48;
/// How many of them lie before the delay that was found.
const LEAD: i32 = 8;
/// Samples of ours that matter to a frame.
pub const REACH: usize = SAMPLES + TAPS - 1;
/// What is learned fades by this per frame.
const FADE: f32 = 0.98;
/// Frames before the path is solved for, and between two times it is.
const SOLVE_FIRST: u32 = 3;
const SOLVE_AFTER_MAX: u32 = 25;
/// It is believed once it foretold so many frames in a row.
const PROVEN: u32 = 2;
/// No echo is louder than this many times what was sent.
const GAIN_MAX: f32 = 2.0;
/// A frame of which it leaves more than this is someone speaking, who spoils what is learned; so
/// many of those in a row, and the path has changed.
const LEFT_MAX: f32 = 0.5;
const SPOILT_MAX: u32 = 25;
/// After so many frames one in every so many is learned from.
const SETTLED: u32 = 50;
const EVERY: u32 = 8;
/// What is added to the energies, so that what we hardly ever send stays out of the path.
const RIDGE: f32 = 3e-4;

pub struct Path {
    /// Delay of the last tap.
    delay: i32,
    /// The longest delay comes first, as in what was sent.
    taps: [f32; TAPS],
    /// Products of ours with ours, and with theirs.
    ours: [[f32; TAPS]; TAPS],
    both: [f32; TAPS],
    frames: u32,
    solve_at: u32,
    spoilt: u32,
    /// Frames foretold in a row, and whether the path is believed.
    proven: u32,
    known: bool,
    lost: bool,
}

impl Path {
    /// Around a delay in samples.
    pub fn new(delay: i32) -> Path {
        Path {
            delay: delay - LEAD,
            taps: [0.0; TAPS],
            ours: [[0.0; TAPS]; TAPS],
            both: [0.0; TAPS],
            frames: 0,
            solve_at: SOLVE_FIRST,
            spoilt: 0,
            proven: 0,
            known: false,
            lost: false,
        }
    }

    /// Whether a delay that was found is well within it.
    pub fn has(&self, delay: i32) -> bool {
        (self.delay + LEAD / 2..self.delay + 2 * LEAD).contains(&delay)
    }

    /// Where what matters to a frame begins.
    pub fn first(&self, at: u32) -> u32 {
        at.wrapping_sub((self.delay + TAPS as i32 - 1) as u32)
    }

    /// Whether this is no echo's path, or no longer.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether the path is believed.
    pub fn is_known(&self) -> bool {
        self.known
    }

    pub fn remove(&self, ours: &[f32; REACH], sound: &mut [f32; SAMPLES]) {
        for (nth, tap) in self.taps.iter().enumerate() {
            for (sample, ours) in sound.iter_mut().zip(&ours[nth..]) {
                *sample -= tap * ours;
            }
        }
    }

    /// Whether a frame may be left out: a path that is known is looked after now and then.
    pub fn is_settled(&self, count: u32) -> bool {
        self.known && self.frames > SETTLED && self.spoilt == 0 && !count.is_multiple_of(EVERY)
    }

    pub fn study(&mut self, ours: &[f32; REACH], sound: &[f32; SAMPLES]) {
        let energy = |sound: &[f32]| sound.iter().map(|sample| sample * sample).sum::<f32>();
        let heard = energy(sound);
        if self.frames >= SOLVE_FIRST {
            let mut left = *sound;
            self.remove(ours, &mut left);
            if energy(&left) > LEFT_MAX * heard {
                self.proven = 0;
                self.spoilt += 1;
                if self.known {
                    self.lost = self.spoilt > SPOILT_MAX;
                    return;
                }
            } else {
                self.spoilt = 0;
                self.proven += 1;
                self.known |= self.proven >= PROVEN;
            }
        }
        self.add(ours, sound);
        self.frames += 1;
        if self.frames >= self.solve_at {
            self.solve_at = self.frames + (self.frames / 2).clamp(2, SOLVE_AFTER_MAX);
            self.solve();
        }
    }

    fn add(&mut self, ours: &[f32; REACH], sound: &[f32; SAMPLES]) {
        let mut row = [0.0; TAPS];
        let mut both = [0.0; TAPS];
        for (nth, &sample) in sound.iter().enumerate() {
            let reach: &[f32; TAPS] = ours[nth..].first_chunk().unwrap_or(&[0.0; TAPS]);
            for tap in 0..TAPS {
                row[tap] += reach[0] * reach[tap];
                both[tap] += sample * reach[tap];
            }
        }
        // Further rows differ from the first by what leaves and what enters.
        for first in 0..TAPS {
            for second in first..TAPS {
                let total = &mut self.ours[first][second];
                *total = *total * FADE + row[second - first];
            }
            let (leaves, enters) = (ours[first], ours.get(SAMPLES + first).copied());
            let Some(enters) = enters else { break };
            for apart in 0..TAPS - first - 1 {
                row[apart] += enters * ours[SAMPLES + first + apart] - leaves * ours[first + apart];
            }
        }
        for (total, both) in self.both.iter_mut().zip(&both) {
            *total = *total * FADE + both;
        }
    }

    fn solve(&mut self) {
        let mean = (0..TAPS).map(|tap| self.ours[tap][tap]).sum::<f32>() / TAPS as f32;
        self.taps = least_squares(&self.ours, &self.both, RIDGE * mean + f32::MIN_POSITIVE);
        let echo: f32 = self.taps.iter().zip(&self.both).map(|(tap, both)| tap * both).sum();
        self.lost = echo > GAIN_MAX * mean;
    }
}

/// Solves `(matrix + ridge) x = right` by Cholesky's decomposition; the upper half is read.
fn least_squares(matrix: &[[f32; TAPS]; TAPS], right: &[f32; TAPS], ridge: f32) -> [f32; TAPS] {
    // Row by row what is left of the matrix once earlier unknowns are eliminated.
    let mut rows = *matrix;
    let mut right = *right;
    for pivot in 0..TAPS {
        let (done, rest) = rows.split_at_mut(pivot + 1);
        let done = &mut done[pivot];
        done[pivot] = (done[pivot] + ridge).max(ridge);
        for (below, row) in rest.iter_mut().enumerate() {
            let at = pivot + 1 + below;
            let factor = done[at] / done[pivot];
            for (value, eliminated) in row[at..].iter_mut().zip(&done[at..]) {
                *value -= factor * eliminated;
            }
            right[at] -= factor * right[pivot];
        }
    }
    for at in (0..TAPS).rev() {
        let known: f32 = (at + 1..TAPS).map(|later| rows[at][later] * right[later]).sum();
        right[at] = (right[at] - known) / rows[at][at];
    }
    right
}
