//! The path of an echo: 6 ms of it, found by least squares.

use super::SAMPLES;
use crate::media::frame::dot;

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
const PROVEN: u32 = 3;
/// No echo is louder than this many times what was sent.
const GAIN_MAX: f32 = 2.0;
/// A frame of which it leaves more than this is someone speaking, who spoils what is learned; so
/// many more of those than of others, and the path has changed, or is another.
const LEFT_MAX: f32 = 0.5;
const SPOILT_MAX: u32 = 12;
/// After so many frames nothing more is learned, and one in every so many is looked at.
const SETTLED: u32 = 50;
const EVERY: u32 = 8;
/// What is added to the energies, so that what we hardly ever send stays out of the path.
const RIDGE: f32 = 3e-4;
/// The share of the path that its ends may have and be left out.
const TRIMMED: f32 = 1e-4;
/// Samples worked on side by side.
const LANES: usize = 16;

pub struct Path {
    /// Delay of the last tap.
    delay: i32,
    /// Those that are not next to nothing.
    first: usize,
    end: usize,
    spoilt: u32,
    /// Frames foretold in a row, and whether the path is believed.
    proven: u32,
    known: bool,
    lost: bool,
    /// The longest delay comes first, as in what was sent.
    taps: [f32; TAPS],
    /// Until the path has settled.
    products: Option<Box<Products>>,
}

/// What the path is solved from.
struct Products {
    /// Of ours with ours: the upper half, row by row.
    ours: [f32; TAPS * (TAPS + 1) / 2],
    /// Of ours with theirs.
    both: [f32; TAPS],
    frames: u32,
    solve_at: u32,
}

impl Path {
    /// Around a delay in samples.
    pub fn new(delay: i32) -> Path {
        let products = Products {
            ours: [0.0; TAPS * (TAPS + 1) / 2],
            both: [0.0; TAPS],
            frames: 0,
            solve_at: SOLVE_FIRST,
        };
        Path {
            delay: delay - LEAD,
            first: 0,
            end: 0,
            spoilt: 0,
            proven: 0,
            known: false,
            lost: false,
            taps: [0.0; TAPS],
            products: Some(Box::new(products)),
        }
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

    /// What is left of a frame without its echo.
    pub fn removed(&self, ours: &[f32; REACH], sound: &[f32; SAMPLES]) -> [f32; SAMPLES] {
        let mut left = *sound;
        let taps = &self.taps[self.first..self.end];
        for (nth, left) in left.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let ours = ours[nth * LANES + self.first..].windows(LANES);
            for (tap, ours) in taps.iter().zip(ours) {
                for (left, ours) in left.iter_mut().zip(ours) {
                    *left -= tap * ours;
                }
            }
        }
        left
    }

    /// Whether a frame may be left out: a path that is known is looked after now and then.
    pub fn is_settled(&self, count: u32) -> bool {
        self.products.is_none() && self.spoilt == 0 && !count.is_multiple_of(EVERY)
    }

    pub fn study(&mut self, ours: &[f32; REACH], sound: &[f32; SAMPLES]) {
        if self.end > 0 {
            let left = self.removed(ours, sound);
            if dot(&left, &left) > LEFT_MAX * dot(sound, sound) {
                self.proven = 0;
                self.spoilt += 1;
                if self.known {
                    self.lost = self.spoilt > SPOILT_MAX;
                    return;
                }
            } else {
                self.spoilt = self.spoilt.saturating_sub(1);
                self.proven += 1;
                self.known |= self.proven >= PROVEN;
            }
        }
        let Some(products) = &mut self.products else { return };
        products.add(ours, sound);
        if products.frames >= products.solve_at {
            products.solve_at += (products.frames / 2).clamp(2, SOLVE_AFTER_MAX);
            let (taps, gain) = products.solve();
            self.taps = taps;
            self.lost = gain > GAIN_MAX;
            (self.first, self.end) = trimmed(&taps);
            if self.known && products.frames > SETTLED {
                self.products = None;
            }
        }
    }
}

impl Products {
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
        let mut totals = self.ours.as_mut_slice();
        for first in 0..TAPS {
            let (totals_row, further) = totals.split_at_mut(TAPS - first);
            totals = further;
            for (total, row) in totals_row.iter_mut().zip(&row) {
                *total = *total * FADE + row;
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
        self.frames += 1;
    }

    /// The path, and how much louder than what was sent its echo would be.
    fn solve(&self) -> ([f32; TAPS], f32) {
        let mut rows = [[0.0; TAPS]; TAPS];
        let mut totals = self.ours.as_slice();
        for (first, row) in rows.iter_mut().enumerate() {
            let (totals_row, further) = totals.split_at(TAPS - first);
            row[first..].copy_from_slice(totals_row);
            totals = further;
        }
        let mean = (0..TAPS).map(|tap| rows[tap][tap]).sum::<f32>() / TAPS as f32;
        let taps = least_squares(rows, self.both, RIDGE * mean + f32::MIN_POSITIVE);
        let echo: f32 = taps.iter().zip(&self.both).map(|(tap, both)| tap * both).sum();
        (taps, echo / (mean + f32::MIN_POSITIVE))
    }
}

/// From where to where the taps are that matter.
fn trimmed(taps: &[f32; TAPS]) -> (usize, usize) {
    let most = TRIMMED * dot(taps, taps);
    let first = (1..TAPS).find(|&at| dot(&taps[..at], &taps[..at]) > most).map_or(0, |at| at - 1);
    let end = (1..TAPS).rev().find(|&at| dot(&taps[at..], &taps[at..]) > most);
    (first, end.map_or(TAPS, |at| at + 1))
}

/// Solves `(matrix + ridge) x = right` by Cholesky's decomposition; the upper half is read.
fn least_squares(matrix: [[f32; TAPS]; TAPS], right: [f32; TAPS], ridge: f32) -> [f32; TAPS] {
    // Row by row what is left of the matrix once earlier unknowns are eliminated.
    let mut rows = matrix;
    let mut right = right;
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
