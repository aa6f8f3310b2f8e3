//! Which 25 ms of sound are a key: a cheap gate looks for a row and a column in them, and what
//! passes is fitted and held against the limits.

use std::f32::consts::TAU;
use std::sync::LazyLock;

use super::bank::{DIAL_PAIR, DIAL_SINGLE, HOP, Hop, LINES, TONES};
use super::fit::{self, Fit, Long, Part, Stretch, WINDOW, Window};

/// A full-scale sine is +3.17 dBm0.
pub const FULL_SCALE_DBM0: f32 = 3.17;
/// The weakest tone heard, between -29 (must, MT8870) and -55 (must not, AT&T) of Q.24.
const LEVEL_MIN_DBM0: f32 = -36.0;
/// Must be within 1.5 %, must not beyond 3.5 %; senders may be 1.8 % off (Q.23, Q.24).
const FREQUENCY_OFF_MAX: f32 = 0.022;
/// How much louder the low tone may be, and the high tone, in dB.
const TWIST_LOW_MAX_DB: f32 = 10.0;
const TWIST_HIGH_MAX_DB: f32 = 8.0;
/// What the two tones may leave unexplained, as a share of the energy. A key begins at once; what
/// swells or goes on may be a voice, and so may what is far off frequency: those must be purer.
/// With the exact frequencies it may sound in noise: 6 dB less than either tone.
const RESIDUAL_MAX: f32 = 0.06;
const RESIDUAL_EXACT_MAX: f32 = 0.15;
const RESIDUAL_DOUBTFUL_MAX: f32 = 0.04;
const RESIDUAL_SWELLING_MAX: f32 = 0.015;
/// Two parts are more easily explained than one.
const RESIDUAL_SPLICED_MAX: f32 = 0.015;
/// By how much the frequency of a tone may change where it is spliced: a glide's does.
const APART_MAX: f32 = 0.008;
/// What must be most of what is heard for a key to begin, and may be left of it.
const BEGUN_SHARE: f32 = 0.7;
const BEGUN_RESIDUAL_MAX: f32 = 0.04;
/// Further off frequency than this counts as far, and nearer than that as exact.
const FREQUENCY_FAR: f32 = 0.012;
const FREQUENCY_EXACT: f32 = 0.0018;
/// Growing more than this from the window's first hop to its last is doubtful.
const GROWTH_MAX: f32 = 0.2;
/// More of the tones than this before the window counts as swelling.
const BEFORE_MAX: f32 = 0.25;
/// How much of the tones must be there in the 1.25 ms at either edge, and in the 2.5 ms, should
/// they cancel in the former: tells 23 ms from 25.
const EDGE_MIN: f32 = 0.5;
const EDGE_HOP_MIN: f32 = 0.75;
/// How far each tone's strength may differ in either third of the window.
const THIRD_MIN: f32 = 0.6;
const THIRD_MAX: f32 = 1.4;
/// How far its phase may bend: a voice glides, a key does not.
const BEND_MAX: f32 = 0.6;
/// The gate: the share of energy in the best row and column, how much the one may have of the
/// other (13 dB), and how far off they may seem to be: the fit decides on what is nearer.
const GATE_SHARE: f32 = 0.55;
const GATE_TWIST: f32 = 20.0;
const GATE_OFF_MAX: f32 = 0.03;
/// The energy its first and last hop must have, as a share of the mean: less is an edge.
const GATE_EDGE: f32 = 0.1;
/// So little of a tone is not taken to show all of it.
const SEEN_MIN: f32 = 0.2;
/// A dial tone is looked for if the key has this share, the dial tone that, and both together
/// this much.
const DIAL_KEYS_SHARE: f32 = 0.07;
const DIAL_SHARE: f32 = 0.04;
const DIAL_WHOLE: f32 = 0.7;
/// Of what is heard, what the tones must have at the frequencies they seem to have to be worth a
/// fit, and with a dial tone's. Those of keys have 0.83 and 0.88 at least.
const WORTH_SHARE: f32 = 0.8;
const WORTH_DIAL_SHARE: f32 = 0.85;
/// A window may span one lost packet of 20 ms.
pub const SPAN_MAX: u32 = ((WINDOW + 8) * HOP) as u32;

/// The hops of a window at which a packet may begin that does not go on from the one before.
const CUTS: [usize; 5] = [3, 4, 5, 6, 7];

/// A key's two tones.
#[derive(Clone, Copy)]
pub struct Pair {
    pub hz: [f32; 2],
    /// Mean squares.
    pub power: [f32; 2],
}

/// A row and column worth a fit, and the frequencies they seem to have.
pub struct Candidate {
    pub row: usize,
    pub column: usize,
    hz: [f32; 2],
    /// Whether they are most of what is heard.
    alone: bool,
    /// Lines of a dial tone that may sound as well.
    dial: &'static [usize],
    /// The share of energy that the tones have at these frequencies, and that with the dial tone.
    share: f32,
    dial_share: f32,
    /// Samples from the middle of the window's first half to that of the second.
    stride: f32,
    /// The hop within the window at which a packet begins, if it is not too near its edge.
    cut: Option<usize>,
    /// The frequencies cannot be those of one sine each.
    torn: bool,
}

impl Pair {
    fn of(fit: &Fit) -> Pair {
        Pair { hz: [fit.low.hz, fit.high.hz], power: [fit.low.power, fit.high.power] }
    }

    pub fn whole(&self) -> f32 {
        self.power[0] + self.power[1]
    }

    /// Whether both are loud enough, and neither too loud for the other.
    pub fn is_balanced(&self) -> bool {
        let [low, high] = self.power;
        let twist_db = 10.0 * (low / high).log10();
        low.min(high) >= power_of(LEVEL_MIN_DBM0)
            && (-TWIST_HIGH_MAX_DB..=TWIST_LOW_MAX_DB).contains(&twist_db)
    }
}

/// The energy of a hop of two tones of the weakest level.
static QUIET: LazyLock<f32> = LazyLock::new(|| 2.0 * power_of(LEVEL_MIN_DBM0) * HOP as f32);

/// Whether a hop of this energy has less than a key's on average.
pub fn is_quiet(energy: f32) -> bool {
    energy < *QUIET
}

/// The gate: the strongest row and column, if they are most of what is heard.
pub fn candidate(window: &Window<'_>) -> Option<Candidate> {
    let energy: f32 = window.iter().map(|hop| hop.energy).sum();
    let edge = window[0].energy.min(window[WINDOW - 1].energy);
    if energy < *QUIET * WINDOW as f32 || edge < GATE_EDGE * energy / WINDOW as f32 {
        return None;
    }
    let halves = [&window[WINDOW / 2 - 1].half, &window[WINDOW - 1].half];
    let (first, second) = (halves[0].powers(), halves[1].powers());
    let power: [f32; LINES] = std::array::from_fn(|tone| first[tone] + second[tone]);
    let (row, column) = (strongest(&power[..4]), strongest(&power[4..8]));
    // A pure tone's share is 1: each half sums to amplitude * samples / 4.
    let share = |tone: usize| power[tone] * 4.0 / ((WINDOW * HOP) as f32 * energy);
    let (low, high) = (share(row), share(4 + column));
    if low > GATE_TWIST * high || high > GATE_TWIST * low {
        return None;
    }
    let dial = dial_tone(low + high, share);
    if low + high < GATE_SHARE && dial.is_empty() {
        return None;
    }
    let middle = |hops: &[&Hop]| {
        let offset = |hop: &&Hop| hop.start.wrapping_sub(window[0].start) as f32;
        hops.iter().map(offset).sum::<f32>() / hops.len() as f32
    };
    let stride = middle(&window[WINDOW / 2..]) - middle(&window[..WINDOW / 2]);
    let hz = [row, 4 + column].map(|tone| {
        let [a, b] = halves;
        let re = b.re[tone] * a.re[tone] + b.im[tone] * a.im[tone];
        let im = b.im[tone] * a.re[tone] - b.re[tone] * a.im[tone];
        TONES[tone] + im.atan2(re) / (TAU * stride / 8000.0)
    });
    let off = |at: usize, tone: usize| (hz[at] / TONES[tone] - 1.0).abs();
    let whole = stride < (WINDOW * HOP) as f32 / 2.0 + 1.0;
    let torn = whole && off(0, row).max(off(1, 4 + column)) > GATE_OFF_MAX;
    let cut = CUTS.into_iter().find(|&at| window[at].begins).filter(|_| whole);
    if torn && cut.is_none() {
        return None;
    }
    let whole_of = |at: usize, tone: usize| share(tone) / seen_at(hz[at] - TONES[tone]);
    let tones = whole_of(0, row) + whole_of(1, 4 + column);
    Some(Candidate {
        row,
        column,
        hz,
        alone: low + high >= GATE_SHARE,
        dial,
        share: tones,
        dial_share: tones + dial.iter().map(|&line| share(line)).sum::<f32>(),
        stride,
        cut,
        torn,
    })
}

/// How much of its power half a window shows of a tone that is so many Hz off: its main lobe.
fn seen_at(off: f32) -> f32 {
    let angle = TAU / 2.0 * off * (WINDOW / 2 * HOP) as f32 / 8000.0;
    if angle.abs() < 1e-3 { 1.0 } else { (angle.sin() / angle).powi(2).max(SEEN_MIN) }
}

/// The lines of the dial tone that, with the keys' share, is most of what is heard.
fn dial_tone(keys: f32, share: impl Fn(usize) -> f32) -> &'static [usize] {
    let [low, high] = DIAL_PAIR.map(&share);
    let [single, other] = DIAL_SINGLE.map(&share);
    let (lines, dial): (&[usize], f32) = if low + high > single.max(other) {
        (&DIAL_PAIR, low + high)
    } else if single > other {
        (&DIAL_SINGLE[..1], single)
    } else {
        (&DIAL_SINGLE[1..], other)
    };
    let sounds = keys >= DIAL_KEYS_SHARE && dial >= DIAL_SHARE && keys + dial >= DIAL_WHOLE;
    if sounds { lines } else { &[] }
}

/// What half a window seems to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Onset {
    Nothing,
    /// Perhaps a tone.
    Tone,
    /// The beginning of a key.
    Key,
}

/// Looks at the last 12.5 ms. `before` is the hop that ended 2.5 ms before: a key begins at once.
pub fn onset(half: &[&Hop; WINDOW / 2], before: Option<&Hop>) -> Onset {
    let energy: f32 = half.iter().map(|hop| hop.energy).sum();
    if energy < *QUIET * half.len() as f32 {
        return Onset::Nothing;
    }
    let power = half[WINDOW / 2 - 1].half.powers();
    let (row, column) = (strongest(&power[..4]), 4 + strongest(&power[4..8]));
    // Each tone sums to amplitude * samples / 2.
    let share = |tone: usize| power[tone] * 4.0 / ((WINDOW * HOP) as f32 * energy);
    let (low, high) = (share(row), share(column));
    if low + high < BEGUN_SHARE || low > GATE_TWIST * high || high > GATE_TWIST * low {
        return Onset::Nothing;
    }
    let quiet = |hop: &Hop| hop.energy < BEFORE_MAX * energy / half.len() as f32;
    if !before.is_some_and(quiet) {
        return Onset::Tone;
    }
    let near = [row, column].map(|tone| TONES[tone]);
    let part = fit::fit_part(half, near);
    let begins = is_pure(&part, near, BEGUN_RESIDUAL_MAX)
        && part.edges.iter().all(|&gain| gain >= EDGE_HOP_MIN);
    if begins { Onset::Key } else { Onset::Tone }
}

pub fn strongest(powers: &[f32]) -> usize {
    (1..powers.len()).fold(0, |best, at| if powers[at] > powers[best] { at } else { best })
}

/// The tones of a candidate that is a key: whole, or with a packet missing or played twice.
/// `before` is the hop that ended 5 ms before the window, `span` how much time lies between the
/// start of the window's first hop and of its last.
pub fn key(
    window: &Window<'_>,
    before: Option<&Hop>,
    candidate: &Candidate,
    span: u32,
) -> Option<Pair> {
    judged(&Stretch::of(window), before, candidate, span).or_else(|| spliced(window, candidate))
}

/// The same by itself, or over a dial tone.
fn judged(
    window: &Stretch,
    before: Option<&Hop>,
    candidate: &Candidate,
    span: u32,
) -> Option<Pair> {
    if candidate.torn {
        return None;
    }
    if candidate.alone && candidate.share >= WORTH_SHARE {
        let fit = best_fit(window, before, candidate, &[], span);
        if is_key(&fit, candidate, false) {
            return Some(Pair::of(&fit));
        }
        // A dial tone would explain what is left over, but nothing else.
        if fit.residual < DIAL_SHARE || fit.edges.iter().any(|&gain| gain < EDGE_MIN / 2.0) {
            return None;
        }
    }
    if candidate.dial.is_empty() || candidate.dial_share < WORTH_DIAL_SHARE {
        return None;
    }
    let fit = best_fit(window, before, candidate, candidate.dial, span);
    is_key(&fit, candidate, true).then(|| Pair::of(&fit))
}

/// A candidate that is a key but for a packet that was left out, or played twice, on the way to
/// us: the same tones on either side, but in phases of their own.
fn spliced(window: &Window<'_>, candidate: &Candidate) -> Option<Pair> {
    let cut = candidate.cut.filter(|_| candidate.alone)?;
    let near = [candidate.row, 4 + candidate.column].map(|tone| TONES[tone]);
    let (first, second) = window.split_at(cut);
    let pure = |hops| {
        Some(fit::fit_part(hops, near)).filter(|part| is_pure(part, near, RESIDUAL_SPLICED_MAX))
    };
    let (first, second) = (pure(first)?, pure(second)?);
    let alike = (0..2).all(|tone| {
        let power = second.power[tone] / first.power[tone];
        let apart = (second.hz[tone] - first.hz[tone]).abs() / near[tone];
        (THIRD_MIN.powi(2)..=THIRD_MAX.powi(2)).contains(&power) && apart <= APART_MAX
    });
    let longer = if cut < WINDOW / 2 { second } else { first };
    let whole = first.edges[0].min(second.edges[1]) >= EDGE_HOP_MIN;
    (alike && whole).then_some(Pair { hz: longer.hz, power: longer.power })
}

fn is_pure(part: &Part, near: [f32; 2], residual_max: f32) -> bool {
    let off = |at: usize| (part.hz[at] / near[at] - 1.0).abs();
    part.residual < residual_max
        && off(0).max(off(1)) <= FREQUENCY_OFF_MAX
        && Pair { hz: part.hz, power: part.power }.is_balanced()
}

/// Fits the candidate. Over a hole the phase has advanced by an unknown number of turns, so the
/// neighbouring frequencies are tried as well.
fn best_fit(
    window: &Stretch,
    before: Option<&Hop>,
    candidate: &Candidate,
    dial: &[usize],
    span: u32,
) -> Fit {
    let fit = |low: f32, high: f32| {
        let hz = [candidate.hz[0] + low, candidate.hz[1] + high];
        fit::fit(window, before, hz, dial)
    };
    let mut best = fit(0.0, 0.0);
    if span < (WINDOW * HOP) as u32 {
        return best;
    }
    let turn = 8000.0 / candidate.stride;
    for low in [-turn, 0.0, turn] {
        for high in [-turn, 0.0, turn] {
            let other = fit(low, high);
            if other.residual < best.residual {
                best = other;
            }
        }
    }
    best
}

fn is_key(fit: &Fit, candidate: &Candidate, dial: bool) -> bool {
    let off = |hz: f32, nominal: f32| (hz / nominal - 1.0).abs();
    let off =
        off(fit.low.hz, TONES[candidate.row]).max(off(fit.high.hz, TONES[4 + candidate.column]));
    let residual_max = if fit.before.is_some_and(|gain| gain > BEFORE_MAX) {
        RESIDUAL_SWELLING_MAX
    } else if dial || off > FREQUENCY_FAR || fit.edges[2] - fit.edges[1] > GROWTH_MAX {
        RESIDUAL_DOUBTFUL_MAX
    } else if off <= FREQUENCY_EXACT {
        RESIDUAL_EXACT_MAX
    } else {
        RESIDUAL_MAX
    };
    fit.residual < residual_max
        && off <= FREQUENCY_OFF_MAX
        && Pair::of(fit).is_balanced()
        && fit.edges.iter().all(|&gain| gain >= EDGE_MIN)
        && fit.edges[1].min(fit.edges[2]) >= EDGE_HOP_MIN
        && [fit.low, fit.high].iter().all(|sine| {
            sine.bend.abs() <= BEND_MAX
                && sine.thirds.iter().all(|third| (THIRD_MIN..=THIRD_MAX).contains(third))
        })
}

/// What each of a long window's tones may be like: how far off frequency, and as in [`fit::Sine`].
pub struct Limits {
    pub off_max: [f32; 2],
    pub third_min: f32,
    pub third_max: f32,
    pub bend_max: f32,
}

impl Limits {
    pub fn admit(&self, long: &Long, near: [f32; 2]) -> bool {
        [&long.low, &long.high].iter().zip(near).zip(self.off_max).all(|((sine, near), off_max)| {
            (sine.hz / near - 1.0).abs() <= off_max
                && sine.bend.abs() <= self.bend_max
                && sine.thirds.iter().all(|third| (self.third_min..=self.third_max).contains(third))
        })
    }
}

/// Mean square of a sine at this level.
fn power_of(dbm0: f32) -> f32 {
    0.5 * 10f32.powf((dbm0 - FULL_SCALE_DBM0) / 10.0)
}
