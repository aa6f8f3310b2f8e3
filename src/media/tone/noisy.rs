//! Keys in noise as loud as their tones, or while somebody speaks: 25 ms tell too little there, so
//! 37.5 are fitted. What the tones leave must have been there before them: noise, or a voice that
//! goes on while two tones of the very frequencies of a key begin. A voice of its own begins with
//! all its harmonics.

use super::bank::{HOP, Hop, TONES};
use super::fit::{self, LONG, Long};
use super::judge::{self, Pair};

/// A long window, oldest hop first, without holes.
pub type Window<'a> = [&'a Hop; LONG];

/// Looked for once in so many hops: a key of 50 ms leaves five to choose from.
pub const EVERY: u32 = 4;
/// How many looks ago the noise before the window was heard: 12.5 ms ended as long before it.
const LOOKS: usize = 5;
/// Hops in a third of a window, of which each knows the sums.
const THIRD: usize = LONG / 3;

/// What the two tones must have of what is heard: at 0 dB they have two thirds.
const SHARE_MIN: f32 = 0.5;
/// The same in the last third alone, which is looked at first.
const SHARE_ROUGH_MIN: f32 = 0.35;
/// What one tone must have.
const TONE_MIN: f32 = 0.12;
const RESIDUAL_MAX: f32 = 0.45;
/// How much of them may be there before the window.
const BEFORE_MAX: f32 = 0.35;
/// By what factor the noise may differ before and in the window, in power.
const STEADY_MAX: f32 = 2.2;
/// The same by the tones' share, a rough measure of what else there is, at least this.
const STEADY_ROUGH_MAX: f32 = 4.4;
const ELSE_MIN: f32 = 0.02;
/// How like itself what noise leaves may be a pitch period later: of 300 samples 0.2 at most.
const PERIODIC_MAX: f32 = 0.25;
/// Pitch periods looked for, in samples: 500 to 70 Hz.
const LAGS: std::ops::RangeInclusive<usize> = 16..=114;

/// What one of two tones may be like. Noise of 0 dB alters them by a third of this.
const IN_NOISE: Limits =
    Limits { off_max: [0.004, 0.004], third_min: 0.6, third_max: 1.4, bend_max: 0.8 };
/// And if what they leave is a voice.
const IN_VOICE: Limits =
    Limits { off_max: [0.0018, 0.001], third_min: 0.82, third_max: 1.18, bend_max: 0.5 };
/// There they may not sound before, and the voice may be so much louder now, and fainter.
const IN_VOICE_BEFORE_MAX: f32 = 0.05;
const LOUDER_MAX: f32 = 3.0;
const FAINTER_MAX: f32 = 4.0;

/// How far off frequency each may be, and as in [`fit::Sine`].
struct Limits {
    off_max: [f32; 2],
    third_min: f32,
    third_max: f32,
    bend_max: f32,
}

/// A third of a window: energy per hop, and the power of each row and column, summed coherently.
#[derive(Clone, Copy, Default)]
pub struct View {
    energy: f32,
    powers: [f32; KEYS],
}

/// Rows and columns.
const KEYS: usize = 8;

/// Energy per hop of a tone whose sum over a third has power 1: it sums to amplitude * samples / 2.
const OF_SUM: f32 = 2.0 / (THIRD * THIRD * HOP) as f32;

impl View {
    /// The last third.
    pub fn of(window: &Window<'_>) -> View {
        View::nth(window, 2)
    }

    fn nth(window: &Window<'_>, third: usize) -> View {
        let hops = &window[third * THIRD..][..THIRD];
        let sums = &hops[THIRD - 1].half;
        View {
            energy: hops.iter().map(|hop| hop.energy).sum::<f32>() / THIRD as f32,
            powers: std::array::from_fn(|tone| sums.re[tone].powi(2) + sums.im[tone].powi(2)),
        }
    }

    /// The energy per hop of the strongest row and column.
    fn loudest(&self) -> f32 {
        let [low, high] =
            [0..4, 4..KEYS].map(|at| self.powers[at].iter().copied().fold(0.0, f32::max));
        (low + high) * OF_SUM
    }

    /// The share of energy that a tone has: 1 if nothing else sounds.
    fn share(&self, tone: usize, energy: f32) -> f32 {
        self.powers[tone] * OF_SUM / energy
    }
}

/// The last looks, and when each was: the place of the last hop.
#[derive(Default)]
pub struct Earlier {
    looks: [(u32, View); LOOKS + 1],
    next: usize,
}

/// What was heard before a window: 12.5 ms that ended 12.5 ms before it, and 10 ms before those;
/// silence if that is not known.
pub struct Before {
    last: View,
    older: View,
}

impl Earlier {
    /// Keeps a look for later, and finds what was seen long enough ago, if nothing was lost since.
    pub fn keep(&mut self, view: &View, now: u32) -> Option<Before> {
        let older = std::mem::replace(&mut self.looks[self.next], (now, *view));
        self.next = (self.next + 1) % (LOOKS + 1);
        let last = self.looks[self.next];
        let seen = |(at, view): (u32, View), looks: usize| {
            (now.wrapping_sub(at) == looks as u32 * EVERY * HOP as u32).then_some(view)
        };
        let older = seen(older, LOOKS + 1).unwrap_or_default();
        seen(last, LOOKS).map(|last| Before { last, older })
    }
}

/// The row, column and tones of a key.
pub fn key(window: &Window<'_>, last: &View, before: &Before) -> Option<(usize, usize, Pair)> {
    if last.loudest() < SHARE_ROUGH_MIN * last.energy {
        return None;
    }
    let views = [View::nth(window, 0), View::nth(window, 1), *last];
    let power: [f32; KEYS] = std::array::from_fn(|at| views.iter().map(|of| of.powers[at]).sum());
    let energy = views.iter().map(|view| view.energy).sum::<f32>() / 3.0;
    let (row, column) = (judge::strongest(&power[..4]), judge::strongest(&power[4..]));
    let share = |tone| views.iter().map(|view| view.share(tone, energy)).sum::<f32>() / 3.0;
    let (low, high) = (share(row), share(4 + column));
    if low + high < SHARE_MIN || low.min(high) < TONE_MIN {
        return None;
    }
    let noise = before.last.energy;
    let steady = |other: f32, most: f32| noise <= most * other && other <= most * noise;
    let sounded = before.last.share(row, energy) + before.last.share(4 + column, energy);
    let other = (1.0 - low - high).max(ELSE_MIN) * energy;
    if sounded > BEFORE_MAX * (low + high) || !steady(other, STEADY_ROUGH_MAX) {
        return None;
    }
    let near = [TONES[row], TONES[4 + column]];
    let long = fit::fit_long(window, near);
    let pair = Pair { hz: [long.low.hz, long.high.hz], power: [long.low.power, long.high.power] };
    if long.residual >= RESIDUAL_MAX || !pair.is_balanced() {
        return None;
    }
    let left = long.rest.iter().map(|rest| rest * rest).sum::<f32>() / LONG as f32;
    let in_noise = || {
        IN_NOISE.admit(&long, near)
            && steady(left, STEADY_MAX)
            && periodicity(&long.rest) <= PERIODIC_MAX
    };
    let in_voice = || {
        IN_VOICE.admit(&long, near)
            && sounded <= IN_VOICE_BEFORE_MAX * (low + high)
            && left <= LOUDER_MAX * noise.min(before.older.energy)
            && noise <= FAINTER_MAX * left
    };
    (in_noise() || in_voice()).then_some((row, column, pair))
}

impl Limits {
    fn admit(&self, long: &Long, near: [f32; 2]) -> bool {
        [&long.low, &long.high].iter().zip(near).zip(self.off_max).all(|((sine, near), off_max)| {
            (sine.hz / near - 1.0).abs() <= off_max
                && sine.bend.abs() <= self.bend_max
                && sine.thirds.iter().all(|third| (self.third_min..=self.third_max).contains(third))
        })
    }
}

/// How like itself what no tone explains is after a pitch period: 1 is entirely, noise about 0.
fn periodicity(rest: &[f32]) -> f32 {
    let energy: f32 = rest.iter().map(|rest| rest * rest).sum();
    let alike = |lag: usize| {
        let product: f32 = rest.iter().zip(&rest[lag..]).map(|(a, b)| a * b).sum();
        product / (rest.len() - lag) as f32
    };
    let most = LAGS.map(alike).fold(0.0, f32::max);
    most * rest.len() as f32 / energy.max(f32::MIN_POSITIVE)
}
