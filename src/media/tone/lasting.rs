//! Keys that begin together with a voice, or beside a harmonic of it that makes a tone waver: 37.5
//! ms don't tell these from the voice itself. Two looks 30 ms apart do, at 67.5 ms in all: for that
//! long a key's tones keep their frequencies and strengths, and a voice's don't. And what they
//! leave is another's voice: it repeats with a pitch of which they are no harmonics.

use std::f32::consts::TAU;

use super::bank::{HOP, RADIANS, TONES};
use super::fit::{EVERY, Long};
use super::judge::{self, Limits, Pair};
use super::periodic::{PERIODS, alike};

/// How many looks the second window is after the first.
const LOOKS: usize = 3;
/// The same in samples: 30 ms.
pub const APART: u32 = LOOKS as u32 * EVERY * HOP as u32;

/// What the tones may be like in one window: a harmonic beside a tone alters it by as much.
const IN_WINDOW: Limits =
    Limits { off_max: [0.005, 0.005], third_min: 0.5, third_max: 1.5, bend_max: 1.3 };
/// How far off frequency they may be by what they turn from one window to the other. A voice is
/// strong about the low one, and alters it more.
const OFF_MAX: [f32; 2] = [0.0025, 0.0015];
/// How unsteady both may be together: see [`Seen::unsteadiness`]. Keys 6 dB above a voice are at
/// most that, chords on a key 1.3 at least, and speech 2.
const UNSTEADY_MAX: f32 = 1.1;
/// How much of them may sound right before the first of the windows.
pub const BEGUN_MAX: f32 = 0.5;
/// How like itself a voice is after a pitch period, at least.
const VOICE_MIN: f32 = 0.4;
/// A tone whose period fits a voice's pitch this well may be a harmonic: the cosine of what it
/// turns in one.
const HARMONIC_MIN: f32 = 0.7;
/// How much of a single tone, and so no voice, what is left may be: the sum of the squares of what
/// its lines have of it. Third tones beside a key have 0.9.
const SINGLE_MAX: f32 = 0.85;
/// Of what is left so much is looked at: a key that ends within the window leaves of itself.
const REST: usize = 200; // samples: 25 ms

/// The last looks, as far as they may have seen the first of two windows.
#[derive(Default)]
pub struct Lasting {
    seen: [Option<Seen>; LOOKS],
    next: usize,
}

/// The tones of what may be a key, as one window has them.
#[derive(Clone, Copy)]
pub struct Seen {
    /// Where its last hop began.
    at: u32,
    row: usize,
    column: usize,
    /// How much of them sounded right before the window: the sum of both shares.
    before: f32,
    tones: [Tone; 2],
}

#[derive(Clone, Copy)]
struct Tone {
    /// Amplitude in each third.
    strengths: [f32; 3],
    /// In the window's middle.
    phase: f32,
}

impl Lasting {
    /// The window of which one that ends `now` may be the second.
    pub fn first(&self, now: u32, row: usize, column: usize) -> Option<&Seen> {
        let place = |seen: &&Seen| (seen.row, seen.column) == (row, column);
        self.seen.iter().flatten().filter(place).find(|seen| now.wrapping_sub(seen.at) == APART)
    }

    pub fn keep(&mut self, seen: Option<Seen>) {
        self.seen[self.next] = seen;
        self.next = (self.next + 1) % LOOKS;
    }
}

impl Seen {
    /// `None` if the tones are too unsteady even for one window, or sounded before it.
    pub fn of(at: u32, row: usize, column: usize, long: &Long, before: f32) -> Option<Seen> {
        if !IN_WINDOW.admit(long, [TONES[row], TONES[4 + column]]) {
            return None;
        }
        let phases = long.phases();
        let sines = [&long.low, &long.high];
        let tones = std::array::from_fn(|nth| Tone {
            strengths: sines[nth].thirds.map(|third| third * sines[nth].power.sqrt()),
            phase: phases[nth],
        });
        Some(Seen { at, row, column, before, tones })
    }

    /// Whether the tones go on as a key's would, from the first window to `later`.
    pub fn lasts(&self, later: &Seen) -> bool {
        self.unsteadiness(later).is_some_and(|unsteadiness| unsteadiness <= UNSTEADY_MAX)
    }

    /// By how many radians both tones turn against the nominal ones from window to window, how
    /// far the strongest and weakest third of each differ, as a share, and how much of them
    /// sounded before: all of it added up. `None` if they are off frequency.
    fn unsteadiness(&self, later: &Seen) -> Option<f32> {
        let nominal = [TONES[self.row], TONES[4 + self.column]];
        let mut all = self.before;
        for (nth, hz) in nominal.into_iter().enumerate() {
            let [first, second] = [&self.tones[nth], &later.tones[nth]];
            let cycles = (second.phase - first.phase) / TAU - hz * (APART as f32 / 8000.0);
            let turned = TAU * (cycles - cycles.round()).abs();
            if turned > OFF_MAX[nth] * hz * RADIANS * APART as f32 {
                return None;
            }
            let strengths = || first.strengths.iter().chain(&second.strengths).copied();
            let mean = strengths().sum::<f32>() / 6.0;
            let spread = strengths().fold(0.0, f32::max) - strengths().fold(f32::MAX, f32::min);
            all += turned + spread / mean.max(f32::MIN_POSITIVE);
        }
        Some(all)
    }
}

/// Whether what the tones leave is a voice, and another one's.
pub fn is_under_voice(long: &Long, pair: &Pair) -> bool {
    let mut alike_after = [0.0; PERIODS.end - PERIODS.start];
    for (after, alike) in alike_after.iter_mut().zip(alike(&long.rest()[..REST])) {
        *after = alike;
    }
    // A line of share p is a cosine of height p here.
    let squares: f32 = alike_after.iter().map(|alike| alike * alike).sum();
    let single = 2.0 * squares / alike_after.len() as f32;
    let most = judge::strongest(&alike_after);
    let period = (PERIODS.start + most) as f32 + summit(&alike_after, most);
    let harmonic = |hz: f32| (hz * RADIANS * period).cos() >= HARMONIC_MIN;
    alike_after[most] >= VOICE_MIN && single <= SINGLE_MAX && !pair.hz.into_iter().all(harmonic)
}

/// How far from the highest of some values the summit lies that a parabola through it and its
/// neighbours has, in places.
fn summit(values: &[f32], highest: usize) -> f32 {
    let (Some(before), Some(after)) =
        (highest.checked_sub(1).map(|before| values[before]), values.get(highest + 1))
    else {
        return 0.0;
    };
    let curve = before - 2.0 * values[highest] + after;
    if curve < 0.0 { 0.5 * (before - after) / curve } else { 0.0 }
}
