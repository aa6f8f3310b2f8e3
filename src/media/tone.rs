//! In-band DTMF, streaming: a key is told 25 ms after it begins and released 25 ms after it ends.
//! Every 2.5 ms a cheap gate looks for a row and a column in the last 25 ms; only what passes is
//! fitted and judged. In noise, or under a voice, a key takes 37.5 ms, looked at every 10 ms, or
//! 67.5 if the voice makes it doubtful. It is told which samples were lost, and judges on what is
//! left.

use std::f32::consts::TAU;
use std::sync::LazyLock;

use super::digit::Digit;
use super::{codec, frame};
use crate::near;
use crate::sip::offer::Law;

mod backlog;
mod bank;
mod fit;
mod judge;
mod lasting;
mod noisy;
mod periodic;

use backlog::Backlog;
use bank::{Bank, HOP, Hop, Sums, TONES};
use fit::{BEFORE, EVERY, LONG, WINDOW, Window};
use judge::{Onset, Pair};
use noisy::Told;

/// Hops a held key's tones are looked for in: 10 ms.
const PRESENCE: usize = 4;
/// Below this share of its own power a held tone counts as absent.
const PRESENT_MIN: f32 = 0.1;
/// Absence that ends a key, in half hops: 25 ms.
const RELEASE: u32 = 20;
/// After this the same key may be weaker again: what comes sooner may be its echo. 80 ms.
const ECHO_SAMPLES: u32 = 640;
const ECHO_MIN: f32 = 0.1;

/// Samples at a packet's edge that tell whether sound ends or begins there.
const EDGE: usize = 4;
/// Digital silence is at most this, in both laws.
const IDLE_MAX: f32 = 9.0 / 32768.0;
/// Silence of up to three packets may stand for what was lost on the way to us.
const GAP_MAX: u32 = 480;
/// A tone goes on after it if it has at least this share of its power, and its phase is off by at
/// most this part of a turn.
const ALIKE_MIN: f32 = 0.5;
const TURN_MAX: f32 = 0.07;
/// A tone with this share of its power sounds in full.
const WHOLE_MIN: f32 = 0.8;

/// Hops kept: a long window, and less than a shorter one and what is looked at before it.
const RING: usize = LONG;
/// Where in them the shorter window begins.
const SHORT: usize = RING - WINDOW;

/// Hears keys in the sound of one call.
pub struct Detector {
    bank: Bank,
    /// What came after the last hop and was too quiet to matter yet.
    backlog: Backlog,
    /// The last hops, a ring.
    hops: [Hop; RING],
    /// How many hops there have been since the last hole too long to bridge.
    count: usize,
    /// Position of the oldest of them in the ring.
    oldest: usize,
    /// How many of them in a row, up to the last, were too quiet for a key.
    quiet: usize,
    earlier: noisy::Earlier,
    lasting: lasting::Lasting,
    /// How many hops ago sound began out of silence.
    fresh: usize,
    held: Option<Held>,
    last: Option<Released>,
    /// Half hops of time lost since the last hop.
    lost: u32,
    /// Samples of a silence that may stand for lost packets, not yet heard.
    gap: u32,
    /// Where sound went on after such a silence that was long enough for a pause.
    resumed: Option<u32>,
    /// What was pushed last holds what may be a tone, and what may be the beginning of a key.
    suspected: bool,
    begun: bool,
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
    trace: Trace,
}

/// A key found, and where its tones began.
struct Found {
    digit: Digit,
    pair: Pair,
    trace: Trace,
    start: u32,
}

impl Found {
    fn of((row, column, pair): (usize, usize, Pair), window: &[&Hop]) -> Found {
        let trace = Trace::of(row, column, window);
        Found { digit: Digit::at(row, column), pair, trace, start: window[0].start }
    }
}

struct Released {
    digit: Digit,
    power: f32,
    at: u32,
    trace: Trace,
}

/// The phases of a key's tones when they last sounded in full.
#[derive(Clone, Copy, Default)]
struct Trace {
    /// Real and imaginary part of the low and the high tone.
    low: [f32; 2],
    high: [f32; 2],
    /// Position of the middle of what was measured.
    at: u32,
}

impl Detector {
    pub fn new() -> Detector {
        Detector {
            bank: Bank::new(),
            backlog: Backlog::new(),
            hops: [Hop::SILENT; RING],
            count: 0,
            oldest: 0,
            quiet: 0,
            earlier: noisy::Earlier::default(),
            lasting: lasting::Lasting::default(),
            fresh: 0,
            held: None,
            last: None,
            lost: 0,
            gap: 0,
            resumed: None,
            suspected: false,
            begun: false,
        }
    }

    /// As [`Stream::fetch_first`](super::Stream::fetch_first).
    #[inline(always)]
    pub fn fetch_first(&self) {
        let Detector { bank, count, quiet, held, last, gap, begun, .. } = self;
        near::bring(bank);
        near::bring(count);
        near::bring(quiet);
        near::bring(held);
        near::bring(last);
        near::bring(gap);
        near::bring(begun);
        self.backlog.fetch_first();
    }

    /// As [`Stream::fetch`](super::Stream::fetch).
    #[inline(always)]
    pub fn fetch(&self) {
        if self.backlog.is_empty() {
            near::bring(&self.hops);
            near::bring(&self.earlier);
        } else {
            self.backlog.fetch();
        }
    }

    /// Takes a packet's sound as it arrives.
    pub fn push(&mut self, law: Law, codes: &[u8]) -> Option<Hit> {
        let mut room = [0.0; frame::SAMPLES];
        let mut told = None;
        for codes in codes.chunks(frame::SAMPLES) {
            told = self.hear(amplitudes(law, codes, &mut room)).or(told);
        }
        told
    }

    /// The same with [`amplitudes`], at most 20 ms at once: no two keys can begin in that.
    pub fn hear(&mut self, sound: &[f32]) -> Option<Hit> {
        let silent = !sound.chunks(HOP).any(sounds);
        let gap = self.gap + sound.len() as u32;
        if silent && gap <= GAP_MAX && (self.gap > 0 || self.breaks_off()) {
            self.gap = gap;
            (self.suspected, self.begun) = (false, false);
            return None;
        }
        self.close_gap(sound);
        let (digit, start) = self.take(sound)?;
        Some(Hit { digit, ago: self.position().wrapping_sub(start) })
    }

    /// Of the next sample.
    fn position(&self) -> u32 {
        self.bank.position().wrapping_add(self.backlog.span())
    }

    /// Whether what was heard last ended with sound.
    fn breaks_off(&self) -> bool {
        if let Some(end) = self.backlog.end::<EDGE>() {
            return sounds(&end);
        }
        self.bank.last().is_some_and(|hop| sounds(&hop[HOP - EDGE..]))
    }

    /// Decides on a silence of whole packets, now that it is known what follows: sound that breaks
    /// off at the end of a packet and goes on at the start of another was lost in between and
    /// played as silence by someone before us.
    fn close_gap(&mut self, sound: &[f32]) {
        let gap = std::mem::take(&mut self.gap);
        if gap == 0 {
            return;
        }
        let resumes = sound.get(..EDGE).is_some_and(sounds);
        if resumes && gap <= frame::SAMPLES as u32 {
            return self.lose(gap);
        }
        let silence = [0.0; HOP];
        for len in (0..gap).step_by(HOP).map(|at| (gap - at).min(HOP as u32)) {
            self.take(&silence[..len as usize]);
        }
        if resumes {
            self.resumed = Some(self.position());
        }
    }

    fn take(&mut self, sound: &[f32]) -> Option<(Digit, u32)> {
        (self.suspected, self.begun) = (false, false);
        if let Some(quiet) = self.puts_off(sound) {
            self.backlog.put(quiet);
            return None;
        }
        self.catch_up();
        self.look_for_key(sound)
    }

    /// The sound if it is a frame that can be put off: as quiet as all of the window before it, so
    /// that it can be no part of a key, nor end one.
    fn puts_off<'a>(&self, sound: &'a [f32]) -> Option<&'a [f32; frame::SAMPLES]> {
        let waits = self.quiet >= WINDOW && self.held.is_none() && self.bank.is_between();
        let frame = sound.try_into().ok().filter(|_| waits)?;
        let (hops, []) = sound.as_chunks::<HOP>() else { return None };
        let loudest = hops.iter().map(bank::energy).fold(0.0, f32::max);
        judge::is_quiet(loudest).then_some(frame)
    }

    /// Looks at what was put off. None of it is a key.
    fn catch_up(&mut self) {
        let left_out = self.backlog.take_left_out();
        if left_out > 0 {
            self.bank.skip(left_out);
        }
        while let Some(quiet) = self.backlog.take() {
            self.look_for_key(&quiet);
        }
    }

    fn look_for_key(&mut self, sound: &[f32]) -> Option<(Digit, u32)> {
        self.bank.begin();
        let mut sound = sound;
        let mut told = None;
        while !sound.is_empty() {
            let (taken, full) = self.bank.fill(sound);
            sound = &sound[taken..];
            if full && let Some(key) = self.hop() {
                told = Some(key);
            }
        }
        told
    }

    /// Whether a key that was told still sounds.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Samples since the last key's tones ended; `None` while one sounds.
    pub fn silent_for(&self) -> Option<u32> {
        let last = self.last.as_ref().filter(|_| self.held.is_none())?;
        let released = self.position().wrapping_sub(last.at);
        Some(released.saturating_add(RELEASE * HOP as u32 / 2))
    }

    /// Whether there is, or may be, a tone in what was pushed last.
    pub fn suspects(&self) -> bool {
        self.held.is_some() || self.suspected
    }

    /// Whether a key seems to begin in what was pushed last: told from its first 12.5 ms. It may
    /// turn out to be none.
    pub fn begins(&self) -> bool {
        self.begun
    }

    /// This much sound never came.
    pub fn lose(&mut self, samples: u32) {
        self.catch_up();
        self.bank.skip(samples);
        self.lost = self.lost.saturating_add(samples * 2 / HOP as u32);
    }

    /// One hop further; a new key and where its tone began.
    fn hop(&mut self) -> Option<(Digit, u32)> {
        let newest = self.oldest;
        self.bank.finish(&mut self.hops[newest]);
        let mut half = self.hops[newest].sums;
        let mut before = 0.0;
        for back in 1..WINDOW / 2 {
            let hop = &self.hops[(newest + RING - back) % RING];
            half.add(&hop.sums);
            before += hop.energy;
        }
        let rises = self.hops[newest].energy > noisy::OUT_OF_SILENCE * before;
        self.fresh = if rises { 1 } else { (self.fresh + 1).min(noisy::FRESH.end) };
        self.hops[newest].half = half;
        let now = self.hops[newest].start;
        self.oldest = (self.oldest + 1) % RING;
        self.count = (self.count + 1).min(RING);
        self.quiet = if judge::is_quiet(self.hops[newest].energy) { self.quiet + 1 } else { 0 };
        self.watch_held();
        // Half a window, or a whole one, of such hops is as much too quiet.
        if self.quiet < WINDOW / 2 {
            self.watch_onset();
        }
        let look = self.look(now);
        if self.quiet >= WINDOW {
            return None;
        }
        let in_noise = |detector: &mut Detector| detector.in_noise(&look?, now);
        let found = self.at_once(now).or_else(|| in_noise(self)).or_else(|| self.bent(now))?;
        let Found { digit, pair, trace, start } = found;
        if self.is_echo(digit, &pair, start) {
            return None;
        }
        let (row, column) = digit.place();
        let goes_on = self.goes_on(digit, &pair, &trace, start);
        self.held = Some(Held { row, column, power: pair.power, absent: 0, trace });
        (!goes_on).then_some((digit, start))
    }

    /// A key not held that the last 25 ms tell; `now` is where the last hop began.
    fn at_once(&self, now: u32) -> Option<Found> {
        let window: Window<'_> = std::array::from_fn(|at| self.nth(SHORT + at));
        let start = window[0].start;
        let span = now.wrapping_sub(start);
        if self.count < WINDOW || span >= judge::SPAN_MAX {
            return None;
        }
        let candidate = judge::candidate(&window)?;
        let (row, column) = (candidate.row, candidate.column);
        if self.held.as_ref().is_some_and(|held| (held.row, held.column) == (row, column)) {
            return None;
        }
        let before = Some(self.nth(SHORT - BEFORE)).filter(|hop| {
            self.count >= WINDOW + BEFORE && start.wrapping_sub(hop.start) == (BEFORE * HOP) as u32
        });
        let pair = judge::key(&window, before, &candidate, span)?;
        Some(Found::of((row, column, pair), &window))
    }

    /// A look at the last 37.5 ms, every 10 ms.
    fn look(&mut self, now: u32) -> Option<noisy::Look> {
        if !(now / HOP as u32).is_multiple_of(EVERY) {
            return None;
        }
        let view = noisy::View::of(&self.long());
        Some(self.earlier.look(view, now))
    }

    /// A key that takes longer to tell, for noise or a voice; nothing may have been lost meanwhile.
    fn in_noise(&mut self, look: &noisy::Look, now: u32) -> Option<Found> {
        let window = self.whole(now)?;
        let told = noisy::key(&window, look, &self.lasting);
        let (found, seen) = match told {
            Told::Nothing => (None, None),
            Told::Perhaps(seen) => (None, Some(seen)),
            Told::Key(key) => {
                let found = Found::of((key.row, key.column, key.pair), &window);
                (Some(Found { start: found.start.wrapping_sub(key.ago), ..found }), None)
            }
        };
        self.lasting.keep(seen);
        found
    }

    /// The same of a key that a codec has bent.
    fn bent(&self, now: u32) -> Option<Found> {
        if !noisy::FRESH.contains(&self.fresh) {
            return None;
        }
        let window = self.whole(now)?;
        let key = noisy::bent_key(&window)?;
        Some(Found::of(key, &window))
    }

    /// The last 37.5 ms.
    fn long(&self) -> noisy::Window<'_> {
        std::array::from_fn(|at| self.nth(at))
    }

    /// The same if nothing was lost of them and no key is held.
    fn whole(&self, now: u32) -> Option<noisy::Window<'_>> {
        let window = self.long();
        let spaced = now.wrapping_sub(window[0].start) == ((RING - 1) * HOP) as u32;
        (self.count == RING && spaced && self.held.is_none()).then_some(window)
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
            let whole = (0..2).all(|tone| {
                powers[[held.row, 4 + held.column][tone]] * scale >= WHOLE_MIN * held.power[tone]
            });
            if hops == PRESENCE && whole {
                let hops: [&Hop; PRESENCE] = std::array::from_fn(newest);
                held.trace = Trace::of(held.row, held.column, &hops);
            }
            return;
        }
        // What was lost next to an absence was half likely part of it.
        held.absent += 2 + lost / 2;
        if held.absent >= RELEASE {
            self.last = Some(Released {
                digit: Digit::at(held.row, held.column),
                power: held.power[0] + held.power[1],
                at: now,
                trace: held.trace,
            });
            self.held = None;
        }
    }

    /// Looks at the last 12.5 ms for the beginning of a key.
    fn watch_onset(&mut self) {
        const LEN: usize = WINDOW / 2;
        let half: [&Hop; LEN] = std::array::from_fn(|at| self.nth(RING - LEN + at));
        let spaced = half[LEN - 1].start.wrapping_sub(half[0].start) as usize;
        if self.held.is_some() || spaced != (LEN - 1) * HOP {
            return;
        }
        let before = Some(self.nth(RING - LEN - 2)).filter(|_| self.count > LEN + 1);
        let onset = judge::onset(&half, before);
        self.suspected |= onset != Onset::Nothing;
        self.begun |= onset == Onset::Key;
    }

    /// The hop at this place of the ring, the oldest first.
    fn nth(&self, nth: usize) -> &Hop {
        &self.hops[(self.oldest + nth) % RING]
    }

    /// Whether this is the key just released, after a silence that stood for lost packets: then
    /// its tones go on in the phases they would have by now.
    fn goes_on(&self, digit: Digit, pair: &Pair, trace: &Trace, start: u32) -> bool {
        let (Some(last), Some(resumed)) = (&self.last, self.resumed) else { return false };
        let power = pair.whole() / last.power;
        last.digit == digit
            && start.wrapping_sub(resumed) <= 2 * HOP as u32
            && (ALIKE_MIN..=1.0 / ALIKE_MIN).contains(&power)
            && trace.follows(&last.trace, digit, pair)
    }

    /// Whether this is the tail of the key just released, coming back over the line.
    fn is_echo(&self, digit: Digit, pair: &Pair, start: u32) -> bool {
        self.last.as_ref().is_some_and(|last| {
            let since = start.wrapping_sub(last.at) as i32;
            last.digit == digit
                && since < ECHO_SAMPLES as i32
                && pair.whole() < ECHO_MIN * last.power
        })
    }
}

impl Default for Detector {
    fn default() -> Detector {
        Detector::new()
    }
}

impl Trace {
    fn of(row: usize, column: usize, hops: &[&Hop]) -> Trace {
        let mut sums = Sums::default();
        let first = hops[0].start;
        let mut offset = 0.0;
        for hop in hops {
            sums.add(&hop.sums);
            offset += hop.start.wrapping_sub(first) as i32 as f32;
        }
        let tone = |tone: usize| [sums.re[tone], sums.im[tone]];
        let at = first.wrapping_add((offset / hops.len() as f32) as i32 as u32);
        Trace { low: tone(row), high: tone(4 + column), at }
    }

    /// Whether both tones have the phases that `earlier` leads to.
    fn follows(&self, earlier: &Trace, digit: Digit, pair: &Pair) -> bool {
        let (row, column) = digit.place();
        let time = self.at.wrapping_sub(earlier.at) as f32;
        // Phases are those of the nominal tones: what they run on by is what these are off.
        let off = |now: [f32; 2], then: [f32; 2], hz: f32, nominal: f32| {
            let turned = now[1].atan2(now[0]) - then[1].atan2(then[0]);
            let turns = turned / TAU - (hz - nominal) * time / 8000.0;
            (turns - turns.round()).abs()
        };
        off(self.low, earlier.low, pair.hz[0], TONES[row]) <= TURN_MAX
            && off(self.high, earlier.high, pair.hz[1], TONES[4 + column]) <= TURN_MAX
    }
}

/// G.711 as numbers, of which a full-scale sine has amplitude 1: as many as there are of both.
pub fn amplitudes<'a>(law: Law, codes: &[u8], room: &'a mut [f32]) -> &'a mut [f32] {
    let table = &AMPLITUDES[usize::from(law == Law::A)];
    let count = codes.len().min(room.len());
    let first = codes.first().copied().unwrap_or_default();
    if codes.iter().fold(0, |any, &code| any | (code ^ first)) == 0 {
        // One code all along, as in digital silence: looked up once.
        room[..count].fill(table[usize::from(first)]);
        return &mut room[..count];
    }
    for (sample, &code) in room.iter_mut().zip(codes) {
        *sample = table[usize::from(code)];
    }
    &mut room[..count]
}

/// Whether there is any sound: digital silence is none.
fn sounds(sound: &[f32]) -> bool {
    sound.iter().fold(false, |any, sample| any | (sample.abs() > IDLE_MAX))
}

/// Codes as numbers around 0, of both laws.
static AMPLITUDES: LazyLock<[[f32; 256]; 2]> = LazyLock::new(|| {
    [Law::Mu, Law::A].map(|law| codec::samples(law).map(|sample| f32::from(sample) / 32768.0))
});

#[cfg(test)]
mod tests;
