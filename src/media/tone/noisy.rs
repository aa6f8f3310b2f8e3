//! Keys in noise as loud as their tones, while somebody speaks, or bent by a codec made for voices:
//! 25 ms tell too little there, so 37.5 are fitted. What the tones leave must have been there
//! before them: noise, or a voice that goes on while two tones of the very frequencies of a key
//! begin. A voice of its own begins with all its harmonics. Or the tones begin out of silence and
//! waver, each in its own way: so a codec leaves them, and no voice. What one window doesn't tell
//! from a voice, [`lasting`] may.

use super::bank::{HOP, Hop, TONES};
use super::fit::{self, EVERY, LONG, Long};
use super::judge::{self, Limits, Pair};
use super::lasting::{self, Lasting, Seen};
use super::periodic::periodicity;

/// A long window, oldest hop first, without holes.
pub type Window<'a> = [&'a Hop; LONG];

/// How many looks ago the noise before the window was heard: 12.5 ms ended as long before it.
pub const LOOKS: usize = 5;
/// And how many ago what ended 2.5 ms before the window.
const LOOKS_NEAR: usize = 4;
/// Hops in a third of a window, of which each knows the sums.
const THIRD: usize = LONG / 3;

/// What the two tones must have of what is heard to be worth a fit, and what that may leave.
const LIKELY_MIN: f32 = 0.45;
const LIKELY_RESIDUAL_MAX: f32 = 0.55;
/// The same of a key told by one window: at 0 dB they have two thirds.
const SHARE_MIN: f32 = 0.5;
/// The same in the last third alone, which is looked at first.
const SHARE_ROUGH_MIN: f32 = 0.35;
/// What each third must have of a tone, of a third of its power: the fit decides on more.
const THIRD_ROUGH_MIN: f32 = 0.15;
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

/// And if a codec for voices (GSM 06.10) carried them, which can't follow two tones at once.
const IN_CODEC: Limits =
    Limits { off_max: [0.009, 0.009], third_min: 0.2, third_max: 1.9, bend_max: 2.0 };
const IN_CODEC_RESIDUAL_MAX: f32 = 0.15;
const IN_CODEC_SHARE_MIN: f32 = 0.8;
/// How differently their strengths must go in some third: harmonics of one voice swell together.
const IN_CODEC_APART_MIN: f32 = 0.2;
/// And if a codec that follows them better did (G.729): it blurs when they begin and end, and adds
/// what is no voice: that is like itself a pitch period later, of tones so blurred half as much.
const IN_BLUR: Limits =
    Limits { off_max: [0.004, 0.004], third_min: 0.7, third_max: 1.3, bend_max: 0.5 };
const IN_BLUR_RESIDUAL_MAX: f32 = 0.14;
const IN_BLUR_PERIODIC_MAX: f32 = 0.5;
/// What begins out of silence has this much more energy than the four hops before together.
pub const OUT_OF_SILENCE: f32 = 2.0;
/// For so many hops of it a long window may be looked at, first one that begins a hop before it,
/// for a codec may let a key swell; the first 37.5 ms may be bent too much.
pub const FRESH: std::ops::Range<usize> = LONG - 1..LONG + 8;

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

/// What was heard before a window: 12.5 ms that ended 2.5 ms before it, 12.5 ms before it, and
/// 10 ms before those; the last is silence if it is not known.
pub struct Before {
    near: View,
    last: View,
    older: View,
}

/// What is heard now, and was before.
pub struct Look {
    at: u32,
    view: View,
    before: Option<Before>,
}

/// What a look at a long window tells.
pub enum Told {
    Nothing,
    /// What may turn out to be a key if it lasts.
    Perhaps(Seen),
    Key(Key),
}

/// A key's row, column and tones, and how many samples before the window it was there.
pub struct Key {
    pub row: usize,
    pub column: usize,
    pub pair: Pair,
    pub ago: u32,
}

impl Earlier {
    /// Keeps a view for later; what was seen before the window is known if nothing was lost since.
    pub fn look(&mut self, view: View, now: u32) -> Look {
        let older = std::mem::replace(&mut self.looks[self.next], (now, view));
        self.next = (self.next + 1) % (LOOKS + 1);
        let nth = |looks: usize| self.looks[(self.next + LOOKS - looks) % (LOOKS + 1)];
        let seen = |(at, view): (u32, View), looks: usize| {
            (now.wrapping_sub(at) == looks as u32 * EVERY * HOP as u32).then_some(view)
        };
        let older = seen(older, LOOKS + 1).unwrap_or_default();
        let near = seen(nth(LOOKS_NEAR), LOOKS_NEAR);
        let before = seen(nth(LOOKS), LOOKS).zip(near);
        let before = before.map(|(last, near)| Before { near, last, older });
        Look { at: now, view, before }
    }
}

/// The tones of a key that are most of what a long window holds, and their shares.
struct Likely {
    row: usize,
    column: usize,
    low: f32,
    high: f32,
    /// Energy per hop.
    energy: f32,
}

impl Likely {
    fn of(window: &Window<'_>, last: &View) -> Option<Likely> {
        if last.loudest() < SHARE_ROUGH_MIN * last.energy {
            return None;
        }
        let views = [View::nth(window, 0), View::nth(window, 1), *last];
        let power: [f32; KEYS] =
            std::array::from_fn(|at| views.iter().map(|of| of.powers[at]).sum());
        let energy = views.iter().map(|view| view.energy).sum::<f32>() / 3.0;
        let (row, column) = (judge::strongest(&power[..4]), judge::strongest(&power[4..]));
        let share = |tone| views.iter().map(|view| view.share(tone, energy)).sum::<f32>() / 3.0;
        let (low, high) = (share(row), share(4 + column));
        let lasts = |tone: usize| {
            views.iter().all(|view| view.powers[tone] >= THIRD_ROUGH_MIN * power[tone] / 3.0)
        };
        let enough = low + high >= LIKELY_MIN && low.min(high) >= TONE_MIN;
        let enough = enough && lasts(row) && lasts(4 + column);
        enough.then_some(Likely { row, column, low, high, energy })
    }

    fn share(&self) -> f32 {
        self.low + self.high
    }

    /// How much of it there was before, of both together.
    fn sounded(&self, before: &View) -> f32 {
        before.share(self.row, self.energy) + before.share(4 + self.column, self.energy)
    }

    /// How much of each tone there was before: the sum of both shares.
    fn sounded_apart(&self, before: &View) -> f32 {
        before.share(self.row, self.energy) / self.low
            + before.share(4 + self.column, self.energy) / self.high
    }

    /// Whether it begins, and what else there is sounded before as well, roughly.
    fn is_over_noise(&self, before: &View) -> bool {
        let other = (1.0 - self.share()).max(ELSE_MIN) * self.energy;
        self.share() >= SHARE_MIN
            && self.sounded(before) <= BEFORE_MAX * self.share()
            && differ_by(other, before.energy, STEADY_ROUGH_MAX)
    }

    /// Whether it is a key in noise, or under a voice that goes on.
    fn is_key(&self, long: &Long, before: &Before) -> bool {
        let noise = before.last.energy;
        let left = long.energy / LONG as f32;
        let in_noise = || {
            IN_NOISE.admit(long, self.near())
                && differ_by(left, noise, STEADY_MAX)
                && periodicity(&long.rest()) <= PERIODIC_MAX
        };
        let in_voice = || {
            IN_VOICE.admit(long, self.near())
                && self.sounded(&before.last) <= IN_VOICE_BEFORE_MAX * self.share()
                && left <= LOUDER_MAX * noise.min(before.older.energy)
                && noise <= FAINTER_MAX * left
        };
        in_noise() || in_voice()
    }

    fn near(&self) -> [f32; 2] {
        [TONES[self.row], TONES[4 + self.column]]
    }

    fn fit(&self, window: &Window<'_>) -> Option<(Long, Pair)> {
        let long = fit::fit_long(window, self.near());
        let pair =
            Pair { hz: [long.low.hz, long.high.hz], power: [long.low.power, long.high.power] };
        (long.residual < LIKELY_RESIDUAL_MAX && pair.is_balanced()).then_some((long, pair))
    }
}

/// Whether a window holds a key in noise, or under a voice.
pub fn key(window: &Window<'_>, look: &Look, lasting: &Lasting) -> Told {
    heard(window, look, lasting).unwrap_or(Told::Nothing)
}

fn heard(window: &Window<'_>, look: &Look, lasting: &Lasting) -> Option<Told> {
    let before = look.before.as_ref()?;
    let likely = Likely::of(window, &look.view)?;
    let (row, column) = (likely.row, likely.column);
    let first = lasting.first(look.at, row, column);
    let begun = likely.sounded_apart(&before.near);
    let over_noise = likely.is_over_noise(&before.last);
    if !over_noise && first.is_none() && begun > lasting::BEGUN_MAX {
        return None;
    }
    let (long, pair) = likely.fit(window)?;
    let key = |ago: u32| Some(Told::Key(Key { row, column, pair, ago }));
    if over_noise && long.residual < RESIDUAL_MAX && likely.is_key(&long, before) {
        return key(0);
    }
    let seen = Seen::of(look.at, row, column, &long, begun)?;
    if first.is_some_and(|first| first.lasts(&seen)) && lasting::is_under_voice(&long, &pair) {
        return key(lasting::APART);
    }
    (begun <= lasting::BEGUN_MAX).then_some(Told::Perhaps(seen))
}

/// The same of a key that begins out of silence and was bent by a codec.
pub fn bent_key(window: &Window<'_>) -> Option<(usize, usize, Pair)> {
    let likely = Likely::of(window, &View::of(window))
        .filter(|likely| likely.share() >= IN_CODEC_SHARE_MIN)?;
    let (long, pair) = likely.fit(window)?;
    let mut thirds = long.low.thirds.iter().zip(&long.high.thirds);
    let bent = long.residual <= IN_CODEC_RESIDUAL_MAX
        && IN_CODEC.admit(&long, likely.near())
        && thirds.any(|(low, high)| (low - high).abs() >= IN_CODEC_APART_MIN);
    let blurred = || {
        long.residual <= IN_BLUR_RESIDUAL_MAX
            && IN_BLUR.admit(&long, likely.near())
            && periodicity(&long.rest()) <= IN_BLUR_PERIODIC_MAX
    };
    (bent || blurred()).then_some((likely.row, likely.column, pair))
}

/// Whether two powers differ by no more than this factor.
fn differ_by(a: f32, b: f32, most: f32) -> bool {
    b <= most * a && a <= most * b
}
