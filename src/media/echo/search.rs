//! Where in what we sent the echo lies: the delay at which both correlate best, whitened and each
//! frame as loud as any other, so that a frame is one more sum of products of small numbers. The
//! lower half of the band tells: voices are there, and there is half as much to keep.

use super::SAMPLES;
use crate::media::frame::dot;

/// Samples of the call for each one looked at.
const HALF: usize = 2;
/// Delays looked at, in pairs of samples: 250 ms, of which 40 seem to come before what they are the
/// echo of. That happens if it was the first packet heard, by which the clocks are compared, that
/// came early.
const DELAYS: usize = 1000;
const AHEAD: usize = 160;
/// Samples of ours that a frame is compared with.
pub const SPAN: usize = DELAYS * HALF + SAMPLES;
/// Samples compared, of a frame.
const COMPARED: usize = SAMPLES / HALF;
/// Those of ours kept whitened: whole frames, of which the newest may be two too new.
const KEPT: usize = (SPAN / SAMPLES + 3) * COMPARED;
/// Root of the mean square of what is whitened, and what is left off the products: so that what
/// all frames sum up to has room in 16 bits.
const LEVEL: f32 = 64.0;
const SHIFT: u32 = 9;
const FULL: f32 = COMPARED as f32 * LEVEL * LEVEL / (1 << SHIFT) as f32;
/// Frames before the first look for a delay.
const LOOK_FIRST: u32 = 4;
/// How much more than any other a delay must explain, and the frames after which it need not.
const CLEAR_MIN: f32 = 1.2;
const LOOK_LAST: u32 = 8;
/// The share of what is heard that a delay must explain, and what chance explains in one frame.
const EXPLAINED_MIN: f32 = 0.2;
const CHANCE: f32 = 0.9;
/// The share of it that the first delay of an echo explains.
const BEGINS_MIN: f32 = 0.1;
/// Neighbouring delays that one echo is spread over: 4 ms.
const SMEAR: usize = 16;

pub struct Search {
    /// By delay, from -`AHEAD` on.
    products: [i16; DELAYS],
    frames: u32,
    /// How much of ours is whitened: up to this count.
    until: Option<u32>,
    ours: [i16; KEPT],
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
        // What came before matters little to so few samples.
        let mut heard = [0.0; LEAD + SAMPLES];
        heard[LEAD..].copy_from_slice(sound);
        let theirs = whitened(&heard);
        // Where in ours the shortest delay's samples would begin.
        let ago = count.wrapping_sub(at) as i32 / HALF as i32;
        let newest = KEPT as i32 - ago + AHEAD as i32;
        for (delay, product) in self.products.iter_mut().enumerate() {
            let Ok(start) = usize::try_from(newest - delay as i32) else { break };
            if let Some(ours) = self.ours.get(start..start + COMPARED) {
                *product = product.saturating_add((products(ours, &theirs) >> SHIFT) as i16);
            }
        }
        self.frames += 1;
    }

    /// Whitens what was sent since the last time.
    fn follow(&mut self, count: u32, reference: impl Fn(u32, &mut [f32])) {
        let since = self.until.map_or(u32::MAX, |until| count.wrapping_sub(until)) as usize;
        let new = (since / SAMPLES).min(KEPT / COMPARED);
        self.until = Some(count);
        self.ours.copy_within(new * COMPARED.., 0);
        let (_, ours) = self.ours.split_at_mut(KEPT - new * COMPARED);
        for (ours, back) in ours.chunks_exact_mut(COMPARED).zip((1..=new).rev()) {
            let mut sound = [0.0; LEAD + SAMPLES];
            reference(count.wrapping_sub((back * SAMPLES + LEAD) as u32), &mut sound);
            ours.copy_from_slice(&whitened(&sound));
        }
    }

    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// The shortest delay in samples, once it is clear.
    pub fn found(&self) -> Option<i32> {
        if self.frames < LOOK_FIRST {
            return None;
        }
        let frames = self.frames as f32;
        let explained = |at: usize| (f32::from(self.products[at]) / (FULL * frames)).powi(2);
        // An echo is smeared: over this delay and those after it.
        let mut sums = [0.0; DELAYS - SMEAR];
        let mut sum: f32 = (0..SMEAR).map(explained).sum();
        for (at, stretch) in sums.iter_mut().enumerate() {
            *stretch = sum;
            sum += explained(at + SMEAR) - explained(at);
        }
        let most_of = |sums: &[f32]| sums.iter().copied().fold(0.0, f32::max);
        let most = most_of(&sums);
        let best = sums.iter().position(|&sum| sum >= most).unwrap_or(0);
        if most < EXPLAINED_MIN + CHANCE / frames {
            return None;
        }
        // A voice is like itself one period of its pitch earlier and later.
        let before = most_of(&sums[..best.saturating_sub(SMEAR)]);
        let after = most_of(sums.get(best + SMEAR..).unwrap_or_default());
        if self.frames < LOOK_LAST && most < CLEAR_MIN * before.max(after) {
            return None;
        }
        // Many stretches hold a short echo: it begins where the best one is no longer chance.
        let begins = |&at: &usize| explained(at) >= BEGINS_MIN * most;
        let first = (best..best + SMEAR).find(begins).unwrap_or(best);
        Some((first as i32 - AHEAD as i32) * HALF as i32)
    }
}

impl Default for Search {
    fn default() -> Search {
        Search { products: [0; DELAYS], frames: 0, until: None, ours: [0; KEPT] }
    }
}

/// Kept apart from its caller, who knows how many there are: unrolled it is not done side by side.
#[inline(never)]
fn products(a: &[i16], b: &[i16]) -> i32 {
    a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
}

const ORDER: usize = 8;
/// Samples before a frame that tell what in it was to be expected.
const LEAD: usize = ORDER * HALF + LOWPASS.len() - 1;
/// Lets half of the band pass: a half-band filter of seven taps.
const LOWPASS: [f32; 7] = [-0.03125, 0.0, 0.28125, 0.5, 0.28125, 0.0, -0.03125];
/// A mean square below which there is nothing to whiten.
const POWER_MIN: f32 = 1e-7;

/// What linear prediction, by Levinson's and Durbin's recursion, cannot make of a sample from
/// those before it: what is left of a voice has no tone to take one delay for another.
fn whitened(sound: &[f32; LEAD + SAMPLES]) -> [i16; COMPARED] {
    let half: [f32; ORDER + COMPARED] = std::array::from_fn(|at| {
        let sound = &sound[at * HALF..at * HALF + LOWPASS.len()];
        sound.iter().zip(&LOWPASS).map(|(sample, tap)| sample * tap).sum()
    });
    let product: [f32; ORDER + 1] = std::array::from_fn(|lag| dot(&half, &half[lag..]));
    if product[0] < POWER_MIN * COMPARED as f32 {
        return [0; COMPARED];
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
    let mut rest = [0.0; COMPARED];
    rest.copy_from_slice(&half[ORDER..]);
    for (back, weight) in weights.iter().enumerate() {
        for (rest, past) in rest.iter_mut().zip(&half[ORDER - 1 - back..]) {
            *rest -= weight * past;
        }
    }
    let scale = LEVEL / (dot(&rest, &rest) / COMPARED as f32 + f32::MIN_POSITIVE).sqrt();
    // A click must not outweigh the rest, nor overflow the sums.
    rest.map(|sample| (sample * scale).clamp(-4.0 * LEVEL, 4.0 * LEVEL) as i16)
}
