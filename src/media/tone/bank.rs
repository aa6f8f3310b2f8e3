//! Sound in hops of 2.5 ms, and each hop's correlation with the eight DTMF tones and with dial
//! tones: hops combine coherently into windows of any length, so no tone straddles a block.

use std::f32::consts::TAU;
use std::sync::LazyLock;

use crate::media::digit::{HIGH_HZ, LOW_HZ};

/// Samples in a hop.
pub const HOP: usize = 20;
/// Radians per sample of 1 Hz.
pub const RADIANS: f32 = TAU / 8000.0;

/// Rows, columns, and the dial tones of Europe (either of two) and North America (both of two).
/// Whole hertz, all of them.
pub const TONES: [f32; LINES] = [
    LOW_HZ[0], LOW_HZ[1], LOW_HZ[2], LOW_HZ[3], HIGH_HZ[0], HIGH_HZ[1], HIGH_HZ[2], HIGH_HZ[3],
    400.0, 425.0, 350.0, 440.0,
];
pub const LINES: usize = 12;
/// Where in [`TONES`] dial tones begin.
pub const DIAL_SINGLE: [usize; 2] = [8, 9];
pub const DIAL_PAIR: [usize; 2] = [10, 11];

/// 2.5 ms of sound; a full-scale sine has amplitude 1.
#[derive(Clone, Copy)]
pub struct Hop {
    /// Position of the first sample in the stream, wrapping.
    pub start: u32,
    pub samples: [f32; HOP],
    /// Whether a packet began with it.
    pub begins: bool,
    pub energy: f32,
    /// Correlation with each tone, phases referred to one origin for all hops.
    pub sums: Sums,
    /// `sums` of this hop and the four before, half a window.
    pub half: Sums,
}

impl Hop {
    pub const SILENT: Hop = Hop {
        start: 0,
        samples: [0.0; HOP],
        begins: false,
        energy: 0.0,
        sums: Sums { re: [0.0; LINES], im: [0.0; LINES] },
        half: Sums { re: [0.0; LINES], im: [0.0; LINES] },
    };
}

/// A complex number per tone.
#[derive(Clone, Copy, Default)]
pub struct Sums {
    pub re: [f32; LINES],
    pub im: [f32; LINES],
}

/// Turns samples into hops.
pub struct Bank {
    samples: [f32; HOP],
    filled: usize,
    /// Whether a packet began with the hop.
    begins: bool,
    start: u32,
    /// Each tone's phase at `start`.
    phase: Sums,
    /// Hops until the phases are computed anew, before rounding tells.
    exact_for: u32,
}

impl Bank {
    pub fn new() -> Bank {
        Bank {
            samples: [0.0; HOP],
            filled: 0,
            begins: false,
            start: 0,
            phase: phases(0),
            exact_for: EXACT_FOR,
        }
    }

    /// A packet begins with the next sample.
    pub fn begin(&mut self) {
        self.begins |= self.filled == 0;
    }

    /// Whether the next sample begins a hop.
    pub fn is_between(&self) -> bool {
        self.filled == 0
    }

    /// Takes samples from the front of `sound` up to the end of the hop; how many, and whether the
    /// hop is full: then [`Bank::finish`] it.
    pub fn fill(&mut self, sound: &[f32]) -> (usize, bool) {
        let taken = (HOP - self.filled).min(sound.len());
        self.samples[self.filled..self.filled + taken].copy_from_slice(&sound[..taken]);
        self.filled += taken;
        (taken, self.filled == HOP)
    }

    /// The last samples of the hop before, if no new one has begun.
    pub fn last(&self) -> Option<&[f32; HOP]> {
        (self.filled == 0).then_some(&self.samples)
    }

    /// Leaves out `samples` of time, and the hop begun.
    pub fn skip(&mut self, samples: u32) {
        self.start = self.start.wrapping_add(self.filled as u32).wrapping_add(samples);
        self.filled = 0;
        self.begins = false;
        self.phase = phases(self.start);
    }

    /// Position of the next sample.
    pub fn position(&self) -> u32 {
        self.start.wrapping_add(self.filled as u32)
    }

    /// Writes the full hop to where it is kept.
    pub fn finish(&mut self, hop: &mut Hop) {
        let tables = &*TABLES;
        // Seen from its middle the hop is an even part, which cosines see, and an odd one.
        let mut even = [0.0; HOP / 2];
        let mut odd = [0.0; HOP / 2];
        for at in 0..HOP / 2 {
            let (after, before) = (self.samples[HOP / 2 + at], self.samples[HOP / 2 - 1 - at]);
            (even[at], odd[at]) = (after + before, after - before);
        }
        let mut sums = Sums::default();
        for ((even, odd), wave) in even.iter().zip(&odd).zip(&tables.waves) {
            for tone in 0..LINES {
                sums.re[tone] += even * wave.re[tone];
                sums.im[tone] += odd * wave.im[tone];
            }
        }
        hop.start = self.start;
        hop.samples = self.samples;
        hop.begins = std::mem::take(&mut self.begins);
        hop.energy = energy(&self.samples);
        hop.sums = product(&sums, &self.phase);
        self.filled = 0;
        self.start = self.start.wrapping_add(HOP as u32);
        self.exact_for -= 1;
        if self.exact_for == 0 {
            self.exact_for = EXACT_FOR;
            self.phase = phases(self.start);
        } else {
            self.phase = product(&self.phase, &tables.turn);
        }
    }
}

impl Sums {
    pub fn add(&mut self, other: &Sums) {
        for tone in 0..LINES {
            self.re[tone] += other.re[tone];
            self.im[tone] += other.im[tone];
        }
    }

    /// Squared magnitudes.
    pub fn powers(&self) -> [f32; LINES] {
        std::array::from_fn(|tone| self.re[tone].powi(2) + self.im[tone].powi(2))
    }
}

const EXACT_FOR: u32 = 400;

struct Tables {
    /// `e^-jwt` of each tone over the second half of a hop, counted from its middle.
    waves: [Sums; HOP / 2],
    /// What a phase turns by per hop.
    turn: Sums,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| Tables {
    waves: std::array::from_fn(|at| {
        let angle = |tone: usize| -(at as f32 + 0.5) * TONES[tone] * RADIANS;
        Sums {
            re: std::array::from_fn(|tone| angle(tone).cos()),
            im: std::array::from_fn(|tone| angle(tone).sin()),
        }
    }),
    turn: phases(HOP as u32),
});

/// `e^-jwt` of each tone at a position; with whole hertz the phase repeats every second.
fn phases(position: u32) -> Sums {
    let angle = |tone: usize| {
        let cycles = u64::from(position) * TONES[tone] as u64 % 8000;
        -(cycles as f32) * RADIANS
    };
    Sums {
        re: std::array::from_fn(|tone| angle(tone).cos()),
        im: std::array::from_fn(|tone| angle(tone).sin()),
    }
}

/// Four sums side by side, as the machine likes them.
pub fn energy(samples: &[f32; HOP]) -> f32 {
    let mut sums = [0.0; 4];
    for samples in samples.as_chunks::<4>().0 {
        for lane in 0..4 {
            sums[lane] += samples[lane] * samples[lane];
        }
    }
    sums.iter().sum()
}

fn product(a: &Sums, b: &Sums) -> Sums {
    Sums {
        re: std::array::from_fn(|at| a.re[at] * b.re[at] - a.im[at] * b.im[at]),
        im: std::array::from_fn(|at| a.re[at] * b.im[at] + a.im[at] * b.re[at]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_of_a_tone_add_up_coherently_even_across_a_hole() {
        let mut bank = Bank::new();
        let mut hop = Hop::SILENT;
        let mut total = Sums::default();
        let mut hops = 0;
        for n in 0..40_000u32 {
            if n == 20_010 {
                bank.skip(163);
            }
            let at = if n >= 20_010 { n + 163 } else { n };
            let cycles = u64::from(at) * 941 % 8000;
            let (taken, full) = bank.fill(&[(cycles as f32 * RADIANS).cos()]);
            assert_eq!(taken, 1);
            if full {
                bank.finish(&mut hop);
                total.add(&hop.sums);
                hops += 1;
            }
        }
        let expected = (hops * HOP as u32) as f32 / 2.0;
        let powers = total.powers();
        assert!((powers[3].sqrt() / expected - 1.0).abs() < 0.001, "{}", powers[3].sqrt());
        assert!(powers[4].sqrt() < 0.01 * expected);
    }
}
