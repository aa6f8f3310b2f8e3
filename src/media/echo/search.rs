//! Where in what we sent the echo lies: the delay at which both correlate best, whitened.

use super::SAMPLES;

/// Delays looked at: 250 ms, of which 40 seem to come before what they are the echo of. That
/// happens if it was the first packet heard, by which the clocks are compared, that came late.
const DELAYS: usize = 2000;
const AHEAD: usize = 320;
/// Samples of ours that a frame is compared with.
pub const SPAN: usize = DELAYS + SAMPLES;
/// Every so manyth sample of theirs is compared.
const EVERY: usize = 4;
/// Frames before a delay is believed, and the share of what is heard that it must explain.
const FRAMES_MIN: u32 = 4;
const EXPLAINED_MIN: f32 = 0.3;
/// Neighbouring delays that one echo is spread over: 4 ms.
const SMEAR: usize = 32;

pub struct Search {
    /// By how much of the span is skipped: the longest delay comes first.
    product: [f32; DELAYS],
    /// Energy of ours at each.
    ours: [f32; DELAYS],
    theirs: f32,
    frames: u32,
}

impl Search {
    /// Where the span that belongs to a frame begins.
    pub fn first(at: u32) -> u32 {
        at.wrapping_sub((DELAYS - AHEAD) as u32)
    }

    pub fn study(&mut self, ours: &[f32; SPAN], sound: &[f32; SAMPLES]) {
        let predictor = Predictor::of(ours);
        let (span, frame) = (predictor.rest(ours), predictor.rest(sound));
        let mut energy: f32 = span[..SAMPLES].iter().map(|sample| sample * sample).sum();
        for (at, total) in self.ours.iter_mut().enumerate() {
            *total += energy.max(0.0);
            energy += span[at + SAMPLES].powi(2) - span[at].powi(2);
        }
        for (nth, &sample) in frame.iter().enumerate().step_by(EVERY) {
            self.theirs += sample * sample;
            for (product, ours) in self.product.iter_mut().zip(&span[nth..]) {
                *product += sample * ours;
            }
        }
        self.frames += 1;
    }

    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// The shortest delay in samples, once it is clear.
    pub fn found(&self) -> Option<i32> {
        if self.frames < FRAMES_MIN {
            return None;
        }
        // Where we were almost silent anything correlates.
        let least = 0.1 * self.ours.iter().fold(f32::MIN_POSITIVE, |most, &one| most.max(one));
        let explained: [f32; DELAYS] = std::array::from_fn(|at| {
            EVERY as f32 * self.product[at].powi(2) / self.ours[at].max(least)
        });
        // An echo is smeared.
        let (mut sum, mut best, mut most) = (0.0, 0, 0.0);
        for at in 0..DELAYS {
            sum += explained[at] - if at < SMEAR { 0.0 } else { explained[at - SMEAR] };
            if sum > most {
                (best, most) = (at, sum);
            }
        }
        let delay = DELAYS as i32 - AHEAD as i32 - best as i32;
        (most >= EXPLAINED_MIN * self.theirs).then_some(delay)
    }
}

impl Default for Search {
    fn default() -> Search {
        Search { product: [0.0; DELAYS], ours: [0.0; DELAYS], theirs: 0.0, frames: 0 }
    }
}

/// What linear prediction makes of a sample from those before it: what is left of a voice when it
/// is taken off has no pitch to take one delay for another.
struct Predictor([f32; ORDER]);

const ORDER: usize = 8;

impl Predictor {
    /// By Levinson's and Durbin's recursion.
    fn of(sound: &[f32]) -> Predictor {
        let product: [f32; ORDER + 1] = std::array::from_fn(|lag| dot(sound, &sound[lag..]));
        let mut left = product[0] * 1.001 + f32::MIN_POSITIVE;
        let mut weights = [0.0; ORDER];
        for order in 0..ORDER {
            let known: f32 = (0..order).map(|at| weights[at] * product[order - at]).sum();
            let reflected = (product[order + 1] - known) / left;
            let before = weights;
            weights[order] = reflected;
            for at in 0..order {
                weights[at] = before[at] - reflected * before[order - 1 - at];
            }
            left *= 1.0 - reflected * reflected;
        }
        Predictor(weights)
    }

    /// What is not predicted.
    fn rest<const LEN: usize>(&self, sound: &[f32; LEN]) -> [f32; LEN] {
        let mut rest = *sound;
        for (back, weight) in self.0.iter().enumerate() {
            for (rest, past) in rest[back + 1..].iter_mut().zip(sound) {
                *rest -= weight * past;
            }
        }
        rest
    }
}

/// Eight sums side by side, as the machine likes them.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; 8];
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum()
}
