//! In-band DTMF, streaming: a key is told 25 ms after it begins and released 25 ms after it ends.
//! Every 2.5 ms a cheap gate looks for a row and a column in the last 25 ms; only what passes is
//! fitted and judged. It is told which samples were lost, and judges on what is left.

use std::f32::consts::TAU;
use std::sync::LazyLock;

use super::digit::Digit;
use crate::sip::offer::Law;

mod bank;
mod fit;

use bank::{Bank, DIAL_PAIR, DIAL_SINGLE, HOP, Hop, LINES, Sums, TONES};
use fit::{BEFORE, Fit, WINDOW, Window};

use super::codec;

/// A full-scale sine is +3.17 dBm0.
const FULL_SCALE_DBM0: f32 = 3.17;
/// The weakest tone heard, between -29 (must, MT8870) and -55 (must not, AT&T) of Q.24.
const LEVEL_MIN_DBM0: f32 = -36.0;
/// Must be within 1.5 %, must not beyond 3.5 %; senders may be 1.8 % off (Q.23, Q.24).
const FREQUENCY_OFF_MAX: f32 = 0.022;
/// How much louder the low tone may be, and the high tone, in dB.
const TWIST_LOW_MAX_DB: f32 = 10.0;
const TWIST_HIGH_MAX_DB: f32 = 8.0;
/// What the two tones may leave unexplained, as a share of the energy. A key begins at once; what
/// swells or goes on may be a voice, and so may what is far off frequency: those must be purer.
const RESIDUAL_MAX: f32 = 0.09;
const RESIDUAL_DOUBTFUL_MAX: f32 = 0.045;
const RESIDUAL_SWELLING_MAX: f32 = 0.015;
/// Further off frequency than this counts as far.
const FREQUENCY_FAR: f32 = 0.012;
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
/// A dial tone is looked for if the key has this share, the dial tone that, and both together
/// this much.
const DIAL_KEYS_SHARE: f32 = 0.07;
const DIAL_SHARE: f32 = 0.04;
const DIAL_WHOLE: f32 = 0.7;
/// A window may span one lost packet of 20 ms.
const SPAN_MAX: u32 = ((WINDOW + 8) * HOP) as u32;

/// Hops a held key's tones are looked for in: 10 ms.
const PRESENCE: usize = 4;
/// Below this share of its own power a held tone counts as absent.
const PRESENT_MIN: f32 = 0.1;
/// Absence that ends a key, in half hops: 25 ms.
const RELEASE: u32 = 20;
/// After this the same key may be weaker again: what comes sooner may be its echo. 80 ms.
const ECHO_SAMPLES: u32 = 640;
const ECHO_MIN: f32 = 0.1;

const RING: usize = WINDOW + BEFORE;

/// Hears keys in the sound of one call.
pub struct Detector {
    bank: Bank,
    /// The last hops, a ring.
    hops: [Hop; RING],
    /// How many hops there have been since the last hole too long to bridge.
    count: usize,
    /// Position of the oldest of them in the ring.
    oldest: usize,
    held: Option<Held>,
    last: Option<Released>,
    /// Half hops of time lost since the last hop.
    lost: u32,
}

/// A key heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    pub digit: Digit,
    /// Samples from the tone's start to the end of what was pushed.
    pub ago: u32,
}

/// The key that sounds now.
struct Held {
    row: usize,
    column: usize,
    /// Power of its low and high tone.
    power: [f32; 2],
    /// For how long it has been gone, in half hops.
    absent: u32,
}

struct Released {
    digit: Digit,
    power: f32,
    at: u32,
}

/// A row and column worth a fit, and the frequencies they seem to have.
struct Candidate {
    row: usize,
    column: usize,
    hz: [f32; 2],
    /// Whether they are most of what is heard.
    alone: bool,
    /// Lines of a dial tone that may sound as well.
    dial: &'static [usize],
    /// Samples from the middle of the window's first half to that of the second.
    stride: f32,
}

impl Detector {
    pub fn new() -> Detector {
        Detector {
            bank: Bank::new(),
            hops: [Hop::SILENT; RING],
            count: 0,
            oldest: 0,
            held: None,
            last: None,
            lost: 0,
        }
    }

    /// Takes sound as it arrives, at most 20 ms at once: no two keys can begin in it.
    pub fn push(&mut self, law: Law, codes: &[u8]) -> Option<Hit> {
        let samples = &SAMPLES[usize::from(law == Law::A)];
        let mut codes = codes;
        let mut told = None;
        while !codes.is_empty() {
            let (taken, full) = self.bank.fill(samples, codes);
            codes = &codes[taken..];
            if full && let Some(key) = self.hop() {
                told = Some(key);
            }
        }
        let (digit, start) = told?;
        Some(Hit { digit, ago: self.bank.position().wrapping_sub(start) })
    }

    /// Whether a key that was told still sounds.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// This much sound never came.
    pub fn lose(&mut self, samples: u32) {
        self.bank.skip(samples);
        self.lost = self.lost.saturating_add(samples * 2 / HOP as u32);
    }

    /// One hop further; a new key and where its tone began.
    fn hop(&mut self) -> Option<(Digit, u32)> {
        let newest = self.oldest;
        self.bank.finish(&mut self.hops[newest]);
        let mut half = self.hops[newest].sums;
        for back in 1..WINDOW / 2 {
            half.add(&self.hops[(newest + RING - back) % RING].sums);
        }
        self.hops[newest].half = half;
        let now = self.hops[newest].start;
        self.oldest = (self.oldest + 1) % RING;
        self.count = (self.count + 1).min(RING);
        self.watch_held();
        let nth = |nth: usize| &self.hops[(self.oldest + nth) % RING];
        let window: Window<'_> = std::array::from_fn(|at| nth(BEFORE + at));
        let span = now.wrapping_sub(window[0].start);
        if self.count < WINDOW || span >= SPAN_MAX {
            return None;
        }
        let candidate = candidate(&window)?;
        let held = |held: &Held| (held.row, held.column) == (candidate.row, candidate.column);
        if self.held.as_ref().is_some_and(held) {
            return None;
        }
        let before = Some(nth(0)).filter(|hop| {
            self.count == RING && window[0].start.wrapping_sub(hop.start) == (BEFORE * HOP) as u32
        });
        let fit = judged(&window, before, &candidate, span)?;
        let digit = Digit::at(candidate.row, candidate.column);
        let start = window[0].start;
        if self.is_echo(digit, &fit, start) {
            return None;
        }
        let power = [fit.low.power, fit.high.power];
        let Candidate { row, column, .. } = candidate;
        self.held = Some(Held { row, column, power, absent: 0 });
        Some((digit, start))
    }

    /// Releases the held key once its tones have been gone for long enough.
    fn watch_held(&mut self) {
        let lost = std::mem::take(&mut self.lost);
        let Some(held) = &mut self.held else { return };
        let newest = |nth: usize| &self.hops[(self.oldest + RING - 1 - nth) % RING];
        let now = newest(0).start;
        let mut sums = Sums::default();
        let mut hops = 0;
        // Hops from before a hole say nothing about now.
        while hops < PRESENCE && now.wrapping_sub(newest(hops).start) < (PRESENCE * HOP) as u32 {
            sums.add(&newest(hops).sums);
            hops += 1;
        }
        let powers = sums.powers();
        let scale = 2.0 / (hops * HOP).pow(2) as f32;
        let present = powers[held.row] * scale >= PRESENT_MIN * held.power[0]
            && powers[4 + held.column] * scale >= PRESENT_MIN * held.power[1];
        if present {
            held.absent = 0;
            return;
        }
        // What was lost next to an absence was half likely part of it.
        held.absent += 2 + lost / 2;
        if held.absent >= RELEASE {
            self.last = Some(Released {
                digit: Digit::at(held.row, held.column),
                power: held.power[0] + held.power[1],
                at: now,
            });
            self.held = None;
        }
    }

    /// Whether this is the tail of the key just released, coming back over the line.
    fn is_echo(&self, digit: Digit, fit: &Fit, start: u32) -> bool {
        self.last.as_ref().is_some_and(|last| {
            let since = start.wrapping_sub(last.at) as i32;
            last.digit == digit
                && since < ECHO_SAMPLES as i32
                && fit.low.power + fit.high.power < ECHO_MIN * last.power
        })
    }
}

impl Default for Detector {
    fn default() -> Detector {
        Detector::new()
    }
}

/// The gate: the strongest row and column, if they are most of what is heard.
fn candidate(window: &Window<'_>) -> Option<Candidate> {
    static ENERGY_MIN: LazyLock<f32> =
        LazyLock::new(|| 2.0 * power_of(LEVEL_MIN_DBM0) * (WINDOW * HOP) as f32);
    let energy: f32 = window.iter().map(|hop| hop.energy).sum();
    let edge = window[0].energy.min(window[WINDOW - 1].energy);
    if energy < *ENERGY_MIN || edge < GATE_EDGE * energy / WINDOW as f32 {
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
    if whole && off(0, row).max(off(1, 4 + column)) > GATE_OFF_MAX {
        return None;
    }
    let alone = low + high >= GATE_SHARE;
    Some(Candidate { row, column, hz, alone, dial, stride })
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

fn strongest(powers: &[f32]) -> usize {
    (1..powers.len()).fold(0, |best, at| if powers[at] > powers[best] { at } else { best })
}

/// The fit of a candidate that is a key: by itself, or over a dial tone.
fn judged(
    window: &Window<'_>,
    before: Option<&Hop>,
    candidate: &Candidate,
    span: u32,
) -> Option<Fit> {
    if candidate.alone {
        let fit = best_fit(window, before, candidate, &[], span);
        if is_key(&fit, candidate, false) {
            return Some(fit);
        }
        // A dial tone would explain what is left over, but nothing else.
        if fit.residual < DIAL_SHARE || fit.edges.iter().any(|&gain| gain < EDGE_MIN / 2.0) {
            return None;
        }
    }
    if candidate.dial.is_empty() {
        return None;
    }
    let fit = best_fit(window, before, candidate, candidate.dial, span);
    is_key(&fit, candidate, true).then_some(fit)
}

/// Fits the candidate. Over a hole the phase has advanced by an unknown number of turns, so the
/// neighbouring frequencies are tried as well.
fn best_fit(
    window: &Window<'_>,
    before: Option<&Hop>,
    candidate: &Candidate,
    dial: &[usize],
    span: u32,
) -> Fit {
    let fit = |low: f32, high: f32| {
        let mut hz = [candidate.hz[0] + low, candidate.hz[1] + high, 0.0, 0.0];
        for (hz, &line) in hz[2..].iter_mut().zip(dial) {
            *hz = TONES[line];
        }
        fit::fit(window, before, &hz[..2 + dial.len()])
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
    } else {
        RESIDUAL_MAX
    };
    let twist_db = 10.0 * (fit.low.power / fit.high.power).log10();
    fit.residual < residual_max
        && off <= FREQUENCY_OFF_MAX
        && fit.low.power.min(fit.high.power) >= power_of(LEVEL_MIN_DBM0)
        && (-TWIST_HIGH_MAX_DB..=TWIST_LOW_MAX_DB).contains(&twist_db)
        && fit.edges.iter().all(|&gain| gain >= EDGE_MIN)
        && fit.edges[1].min(fit.edges[2]) >= EDGE_HOP_MIN
        && [fit.low, fit.high].iter().all(|sine| {
            sine.bend.abs() <= BEND_MAX
                && sine.thirds.iter().all(|third| (THIRD_MIN..=THIRD_MAX).contains(third))
        })
}

/// Mean square of a sine at this level.
fn power_of(dbm0: f32) -> f32 {
    0.5 * 10f32.powf((dbm0 - FULL_SCALE_DBM0) / 10.0)
}

/// Codes as numbers around 0, of both laws.
static SAMPLES: LazyLock<[[f32; 256]; 2]> = LazyLock::new(|| {
    [Law::Mu, Law::A].map(|law| codec::samples(law).map(|sample| f32::from(sample) / 32768.0))
});

#[cfg(test)]
mod tests;
