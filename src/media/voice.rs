//! Whether somebody speaks: 20 ms of sound in, speech begun, going on, or how long ago out. It
//! follows the noise of the line and the echo of what we say, and is deaf to tones.

use zeroize::Zeroize;

use super::frame::{FRAME_MS, SAMPLES, dot};

/// Follows the sound of one call, the echo of what we say removed as far as it could be.
pub struct Voice {
    floor: Floor,
    echo: Echo,
    /// Of the frame before: its end, high-passed.
    high_pass: (f32, f32),
    /// The last 40 ms at 4 kHz: pitch is looked for in them.
    slow: [f32; 2 * SLOW],
    /// The last frames that were speech, one bit each, the newest lowest; and those with a pitch.
    active: u32,
    voiced: u32,
    /// Frames since the last with speech.
    quiet: u32,
}

/// What else is known about 20 ms.
#[derive(Clone, Copy, Default)]
pub struct Line {
    /// The tone detector suspects a key in it.
    pub tone: bool,
    /// Mean square of what we send meanwhile, full scale is 1; 0 is silence.
    pub sent: f32,
}

/// Samples of a frame at 4 kHz.
const SLOW: usize = SAMPLES / 2;
/// Decibels over the noise that are speech.
const OVER_NOISE: f32 = 7.0;
/// Decibels over what may be left of our echo.
const OVER_ECHO: f32 = 3.0;
/// Frames, of the last 15, that must be speech before it has begun, and that must have a pitch.
const RECENT: u32 = 0x7fff;
const ACTIVE_MIN: u32 = 6;
const VOICED_MIN: u32 = 3;
/// How much alike one period and the next of a voice are.
const PITCH_MIN: f32 = 0.5;
/// What is left of a sound by two sines is less than this part of it: tones, no speech.
const TONE_MAX: f32 = 0.0126;

impl Voice {
    pub fn new() -> Voice {
        Voice {
            floor: Floor::new(),
            echo: Echo::new(),
            high_pass: (0.0, 0.0),
            slow: [0.0; 2 * SLOW],
            active: 0,
            voiced: 0,
            quiet: u32::MAX,
        }
    }

    pub fn hear(&mut self, sound: &[i16; SAMPLES], line: Line) {
        let sound = self.high_passed(sound);
        let level = decibels(dot(&sound, &sound) / SAMPLES as f32);
        self.keep_slow(&sound);
        let echo = self.echo.level(level, decibels(line.sent));
        let loud = level > self.floor.level() + OVER_NOISE && level > echo + OVER_ECHO;
        let active = loud && !line.tone && !is_tone(&sound);
        self.floor.hear(level);
        self.active = self.active << 1 | u32::from(active);
        self.voiced = self.voiced << 1 | u32::from(active && self.has_pitch());
        self.quiet = if active { 0 } else { self.quiet.saturating_add(1) };
    }

    /// Nothing came.
    pub fn lose(&mut self) {
        self.quiet = self.quiet.saturating_add(1);
        self.active <<= 1;
        self.voiced <<= 1;
    }

    /// Whether the last 20 ms were speech.
    pub fn is_active(&self) -> bool {
        self.active & 1 == 1
    }

    /// Whether somebody has begun to speak: what we say should stop.
    pub fn has_begun(&self) -> bool {
        (self.active & RECENT).count_ones() >= ACTIVE_MIN
            && (self.voiced & RECENT).count_ones() >= VOICED_MIN
    }

    /// Milliseconds since the last speech; at most what can be counted before any.
    pub fn quiet_ms(&self) -> u32 {
        self.quiet.saturating_mul(FRAME_MS)
    }

    /// Without hum: what is below a voice on the phone.
    fn high_passed(&mut self, sound: &[i16; SAMPLES]) -> [f32; SAMPLES] {
        const POLE: f32 = 0.9;
        let (mut before, mut out) = self.high_pass;
        let passed = sound.map(|sample| {
            let sample = f32::from(sample) / 32768.0;
            out = sample - before + POLE * out;
            before = sample;
            out
        });
        self.high_pass = (before, out);
        passed
    }

    fn keep_slow(&mut self, sound: &[f32; SAMPLES]) {
        self.slow.copy_within(SLOW.., 0);
        for (place, pair) in self.slow[SLOW..].iter_mut().zip(sound.chunks_exact(2)) {
            *place = (pair[0] + pair[1]) / 2.0;
        }
    }

    /// Whether the last 20 ms repeat, 60 to 400 times a second, what was before.
    fn has_pitch(&self) -> bool {
        const LAGS: std::ops::RangeInclusive<usize> = 10..=66;
        let new = &self.slow[SLOW..];
        let power = dot(new, new);
        LAGS.into_iter().any(|lag| {
            let old = &self.slow[SLOW - lag..2 * SLOW - lag];
            let both = dot(new, old);
            both > 0.0 && both * both > PITCH_MIN * PITCH_MIN * power * dot(old, old)
        })
    }
}

impl Default for Voice {
    fn default() -> Voice {
        Voice::new()
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.slow.zeroize();
    }
}

/// The noise of the line: the least level of the last one and a half seconds.
struct Floor {
    /// The least of each half second, the one going on first.
    least: [f32; 3],
    /// A level that follows quickly.
    smooth: f32,
    frames: u32,
}

/// Before anything was heard, and whatever is heard, in decibels of full scale.
const FLOOR_FIRST: f32 = -48.0;
const FLOOR_MIN: f32 = -62.0;
const FLOOR_MAX: f32 = -22.0;

impl Floor {
    fn new() -> Floor {
        Floor { least: [FLOOR_FIRST; 3], smooth: FLOOR_FIRST, frames: 0 }
    }

    fn hear(&mut self, level: f32) {
        const PART: u32 = 25;
        self.smooth += 0.4 * (level - self.smooth);
        if self.frames == PART {
            self.least.rotate_right(1);
            self.least[0] = self.smooth;
            self.frames = 0;
        }
        self.frames += 1;
        self.least[0] = self.least[0].min(self.smooth);
    }

    fn level(&self) -> f32 {
        let least = self.least.iter().copied().fold(f32::MAX, f32::min);
        least.clamp(FLOOR_MIN, FLOOR_MAX)
    }
}

/// How loud what is left of our echo may be. It is learned from what comes back while we speak:
/// quickly when that is less than thought, slowly when it is more, for that may be the caller.
struct Echo {
    /// Decibels between what we send and what is left of it.
    coupling: f32,
    /// The peaks of what we sent and of what came back lately.
    sent: f32,
    heard: f32,
}

/// Every line loses at least so much on the way back. What is learned from one sound is too little
/// for the next, where it is little: nobody who is heard speaks so far below a prompt.
const COUPLING_FIRST: f32 = -9.0;
const COUPLING_MIN: f32 = -28.0;
/// Level of ours below which nothing is learned.
const SENT_MIN: f32 = -40.0;

impl Echo {
    fn new() -> Echo {
        Echo { coupling: COUPLING_FIRST, sent: -100.0, heard: -100.0 }
    }

    /// What is left of our echo at most, now that `sent` goes out and `level` comes in.
    fn level(&mut self, level: f32, sent: f32) -> f32 {
        /// Decibels a frame: echoes come 20 to 300 ms later, and rooms ring.
        const FADES: f32 = 1.0;
        const LEARNS: f32 = 0.2;
        const DOUBTS: f32 = 0.02;
        const MARGIN: f32 = 5.0;
        self.sent = sent.max(self.sent - FADES);
        self.heard = level.max(self.heard - FADES);
        if self.sent > SENT_MIN {
            let coupling = self.heard - self.sent + MARGIN;
            let step = if coupling < self.coupling { -LEARNS } else { DOUBTS };
            self.coupling = (self.coupling + step).clamp(COUPLING_MIN, COUPLING_FIRST);
        }
        self.sent + self.coupling
    }
}

/// Whether one or two sines are all there is: keys, ringing, dial tones.
fn is_tone(sound: &[f32; SAMPLES]) -> bool {
    /// Two sines are predicted by four samples before; from six, two apart, in noise as well.
    const ORDER: usize = 6;
    let at = |lag: usize| &sound[2 * (ORDER - lag)..SAMPLES - 2 * lag];
    let product = |a: usize, b: usize| f64::from(dot(at(a), at(b)));
    let power = product(0, 0);
    // Keeps a single sine, of which two samples are enough, solvable.
    let matrix = |row: usize, column: usize| {
        let more = if row == column { 1e-5 * power + 1e-12 } else { 0.0 };
        product(row.min(column) + 1, row.max(column) + 1) + more
    };
    let matrix = std::array::from_fn(|row| std::array::from_fn(|column| matrix(row, column)));
    let right: [f64; ORDER] = std::array::from_fn(|row| product(0, row + 1));
    let explained = solve(matrix, right).iter().zip(&right).map(|(a, b)| a * b).sum::<f64>();
    power - explained < f64::from(TONE_MAX) * power
}

/// Gauss without pivots: the matrix is symmetric and positive.
fn solve<const N: usize>(mut matrix: [[f64; N]; N], mut right: [f64; N]) -> [f64; N] {
    for pivot in 0..N {
        let known = matrix[pivot];
        for row in pivot + 1..N {
            let factor = matrix[row][pivot] / known[pivot];
            for (value, known) in matrix[row].iter_mut().zip(&known) {
                *value -= factor * known;
            }
            right[row] -= factor * right[pivot];
        }
    }
    for row in (0..N).rev() {
        let known: f64 = (row + 1..N).map(|column| matrix[row][column] * right[column]).sum();
        right[row] = (right[row] - known) / matrix[row][row];
    }
    right
}

fn decibels(mean_square: f32) -> f32 {
    10.0 * (mean_square + 1e-10).log10()
}

#[cfg(test)]
mod tests;
