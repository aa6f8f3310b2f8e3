//! Where in what we sent the echo lies: the delay at which both correlate best, whitened and each
//! frame as loud as any other, so that a frame is one more sum of products of small numbers.

use super::SAMPLES;
use super::dot;

/// Delays looked at: 250 ms, of which 40 seem to come before what they are the echo of. That
/// happens if it was the first packet heard, by which the clocks are compared, that came early.
const DELAYS: usize = 2000;
const AHEAD: usize = 320;
/// Samples of ours that a frame is compared with.
pub const SPAN: usize = DELAYS + SAMPLES;
/// Samples of ours kept whitened: whole frames, of which the newest may be two too new.
const KEPT: usize = (SPAN / SAMPLES + 3) * SAMPLES;
/// Every so manyth sample of theirs is compared.
const EVERY: usize = 4;
const COMPARED: usize = SAMPLES / EVERY;
/// Root of the mean square of what is whitened, and what is left off the products: so that what
/// all frames sum up to has room in 16 bits.
const LEVEL: f32 = 64.0;
const SHIFT: u32 = 8;
const FULL: f32 = COMPARED as f32 * LEVEL * LEVEL / (1 << SHIFT) as f32;
/// Frames before the first look for a delay, and from one to the next.
const LOOK_FIRST: u32 = 4;
const LOOK_EVERY: u32 = 1;
/// The share of what is heard that a delay must explain, and what chance explains in one frame.
const EXPLAINED_MIN: f32 = 0.2;
const CHANCE: f32 = 1.2;
/// Neighbouring delays that one echo is spread over: 4 ms.
const SMEAR: usize = 32;

pub struct Search {
    /// By delay, from -`AHEAD` on.
    products: [i16; DELAYS],
    frames: u32,
    /// How much of ours is whitened: up to this count.
    until: Option<u32>,
    /// Ours, whitened; each `EVERY`th sample together.
    ours: [[i16; KEPT / EVERY]; EVERY],
}

impl Search {
    /// Compares a frame of theirs that began at the count `at`. Ours are sent up to `count`;
    /// `reference` gives them from a count on.
    pub fn study(
        &mut self,
        count: u32,
        reference: impl Fn(u32, &mut [f32]),
        at: u32,
        sound: &[f32; SAMPLES],
    ) {
        self.follow(count, reference);
        let mut padded = [0.0; ORDER + SAMPLES];
        padded[ORDER..].copy_from_slice(sound);
        let white = whitened(&padded);
        let theirs: [i16; COMPARED] = std::array::from_fn(|nth| white[nth * EVERY]);
        // Where in ours the shortest delay's samples would begin.
        let newest = KEPT as i32 - count.wrapping_sub(at) as i32 + AHEAD as i32;
        for (delay, product) in self.products.iter_mut().enumerate() {
            let Ok(start) = usize::try_from(newest - delay as i32) else { break };
            let ours = &self.ours[start % EVERY];
            let start = start / EVERY..start / EVERY + COMPARED;
            if let Some(ours) = ours.get(start) {
                *product = product.saturating_add((products(ours, &theirs) >> SHIFT) as i16);
            }
        }
        self.frames += 1;
    }

    /// Whitens what was sent since the last time.
    fn follow(&mut self, count: u32, reference: impl Fn(u32, &mut [f32])) {
        let since = self.until.map_or(u32::MAX, |until| count.wrapping_sub(until)) as usize;
        let new = since.min(KEPT) / SAMPLES;
        self.until = Some(count);
        for ours in &mut self.ours {
            ours.copy_within(new * COMPARED.., 0);
        }
        for back in (1..=new).rev() {
            let mut sound = [0.0; ORDER + SAMPLES];
            reference(count.wrapping_sub((back * SAMPLES + ORDER) as u32), &mut sound);
            let white = whitened(&sound);
            let start = (KEPT - back * SAMPLES) / EVERY;
            for (nth, ours) in self.ours.iter_mut().enumerate() {
                for (at, ours) in ours[start..start + COMPARED].iter_mut().enumerate() {
                    *ours = white[at * EVERY + nth];
                }
            }
        }
    }

    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// The shortest delay in samples, once it is clear.
    pub fn found(&self) -> Option<i32> {
        if self.frames < LOOK_FIRST || !self.frames.is_multiple_of(LOOK_EVERY) {
            return None;
        }
        let frames = self.frames as f32;
        let explained = |at: usize| (f32::from(self.products[at]) / (FULL * frames)).powi(2);
        // An echo is smeared: over this delay and those after it.
        let mut sum: f32 = (0..SMEAR).map(explained).sum();
        let (mut best, mut most) = (0, 0.0);
        for at in 0..DELAYS - SMEAR {
            if sum > most {
                (best, most) = (at, sum);
            }
            sum += explained(at + SMEAR) - explained(at);
        }
        let least = EXPLAINED_MIN + CHANCE / frames;
        (most >= least).then_some(best as i32 - AHEAD as i32)
    }
}

impl Default for Search {
    fn default() -> Search {
        Search { products: [0; DELAYS], frames: 0, until: None, ours: [[0; KEPT / EVERY]; EVERY] }
    }
}

/// Kept apart from its caller, who knows how many there are: unrolled it is not done side by side.
#[inline(never)]
fn products(a: &[i16], b: &[i16]) -> i32 {
    a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
}

const ORDER: usize = 8;
/// A mean square below which there is nothing to whiten.
const POWER_MIN: f32 = 1e-7;

/// What linear prediction, by Levinson's and Durbin's recursion, cannot make of a sample from
/// those before it: what is left of a voice has no tone to take one delay for another.
fn whitened(sound: &[f32; ORDER + SAMPLES]) -> [i16; SAMPLES] {
    let product: [f32; ORDER + 1] = std::array::from_fn(|lag| dot(sound, &sound[lag..]));
    if product[0] < POWER_MIN * SAMPLES as f32 {
        return [0; SAMPLES];
    }
    let mut left = product[0] * 1.001;
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
    let mut rest = [0.0; SAMPLES];
    rest.copy_from_slice(&sound[ORDER..]);
    for (back, weight) in weights.iter().enumerate() {
        for (rest, past) in rest.iter_mut().zip(&sound[ORDER - 1 - back..]) {
            *rest -= weight * past;
        }
    }
    let scale = LEVEL / (dot(&rest, &rest) / SAMPLES as f32 + f32::MIN_POSITIVE).sqrt();
    // A click must not outweigh the rest, nor overflow the sums.
    rest.map(|sample| (sample * scale).clamp(-4.0 * LEVEL, 4.0 * LEVEL) as i16)
}
