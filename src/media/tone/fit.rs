//! Sines of free frequency, amplitude and phase fitted to a window by least squares
//! (Gauss-Newton): a key's two, and a dial tone's if one sounds. What is left over, and where,
//! tells keys from speech.

use super::bank::{HOP, Hop, TONES};

mod stretch; // hops side by side, and waves fitted to them

pub use stretch::Stretch;
use stretch::{Left, Turns, Wave};

/// Hops in a window: 25 ms.
pub const WINDOW: usize = 10;
/// A window, oldest hop first. There may be holes between hops; time is known.
pub type Window<'a> = [&'a Hop; WINDOW];

/// Hops in a long window, which is looked at in noise: 37.5 ms.
pub const LONG: usize = 15;
/// Looked at once in so many hops: a key of 50 ms leaves five to choose from.
pub const EVERY: u32 = 4;

/// How many hops before the window [`Fit::before`] looks.
pub const BEFORE: usize = 3;

/// Corrections of amplitude and frequency before the fit is judged.
const STEPS: usize = 3;
/// A part takes as many again, unless it leaves so much over by then.
const HOPELESS: f32 = 0.1;

/// Hops in each third of a window, and of a long one.
const THIRDS: [usize; 3] = [3, 4, 3];
const LONG_THIRDS: [usize; 3] = [LONG / 3; 3];

#[derive(Clone, Copy, Debug)]
pub struct Fit {
    pub low: Sine,
    pub high: Sine,
    /// Share that no sine explains, of the energy a dial tone leaves.
    pub residual: f32,
    /// How much of the fitted sines is present in the first 1.25 and 2.5 ms and in the last 2.5
    /// and 1.25 ms; 1 is all of it.
    pub edges: [f32; 4],
    /// How much of them sounded already 7.5 to 5 ms before the window; `None` if not known.
    pub before: Option<f32>,
}

#[derive(Clone, Copy, Debug)]
pub struct Sine {
    pub hz: f32,
    /// Mean square.
    pub power: f32,
    /// How far its phase in the outer thirds runs from a straight line, in radians: a glide.
    pub bend: f32,
    /// Its strength in each third of the window; 1 is as fitted.
    pub thirds: [f32; 3],
}

/// Fits a key's sines near these frequencies, the nearer the better: 10 Hz converge to a tenth; and
/// those of a dial tone, two of [`TONES`] at most. `before` is the hop that ended 5 ms before the
/// window, if there is one.
pub fn fit(window: &Stretch, before: Option<&Hop>, key_hz: [f32; 2], dial: &[usize]) -> Fit {
    let [low, high] = key_hz;
    // Neighbouring sines see each other: each step clears the air for the next.
    match *dial {
        [] => fit_all(window, before, [low, high], STEPS),
        [line] => fit_all(window, before, [low, high, TONES[line]], 2 * STEPS),
        [line, other, ..] => {
            fit_all(window, before, [low, high, TONES[line], TONES[other]], 2 * STEPS)
        }
    }
}

fn fit_all<const W: usize>(
    window: &Stretch,
    before: Option<&Hop>,
    near_hz: [f32; W],
    steps: usize,
) -> Fit {
    let mut waves = near_hz.map(Wave::near);
    let left = window.fit(&mut waves, steps);
    let mut fit = Fit::of(window, &waves, &left);
    fit.before = before.map(|hop| {
        let at = waves.map(|wave| wave.at(window.time(0) - (BEFORE * HOP) as f32));
        let (key, rest) = split(&hop.samples, &left.turns, &at);
        gain(&rest, &key, fit.noise())
    });
    fit
}

/// The same for a key's two sines in a shorter stretch without holes, 3 hops at least.
pub fn fit_part(hops: &[&Hop], near_hz: [f32; 2]) -> Part {
    let stretch = Stretch::of(hops);
    let mut waves = near_hz.map(Wave::near);
    let left = stretch.fit(&mut waves, STEPS);
    let part = Part::of(&stretch, &waves, &left);
    if part.residual >= HOPELESS {
        return part;
    }
    let left = stretch.fit(&mut waves, STEPS - 1);
    Part::of(&stretch, &waves, &left)
}

/// The same for a key's two sines in a long window without holes.
pub fn fit_long(window: &[&Hop; LONG], near_hz: [f32; 2]) -> Long {
    let stretch = Stretch::of(window);
    let mut waves = near_hz.map(Wave::near);
    let left = stretch.fit(&mut waves, STEPS);
    let energy = total(&left.energy);
    let expected = (waves[0].power() + waves[1].power()) * stretch.samples();
    Long {
        low: Sine::of(0, &waves, &left, LONG_THIRDS),
        high: Sine::of(1, &waves, &left, LONG_THIRDS),
        residual: energy / (energy + expected).max(f32::MIN_POSITIVE),
        energy,
        stretch,
        left,
    }
}

impl Fit {
    fn of<const W: usize>(window: &Stretch, waves: &[Wave; W], left: &Left<W>) -> Fit {
        let energy = total(&left.energy);
        let expected = (waves[0].power() + waves[1].power()) * window.samples();
        let inside = total(&left.energy[1..WINDOW - 1]) / ((WINDOW - 2) * HOP) as f32;
        let edge = |nth: usize| split(&window.hop(nth), &left.turns, &left.at(nth));
        Fit {
            low: Sine::of(0, waves, left, THIRDS),
            high: Sine::of(1, waves, left, THIRDS),
            residual: energy / (energy + expected).max(f32::MIN_POSITIVE),
            edges: edges(edge(0), edge(WINDOW - 1), inside),
            before: None,
        }
    }

    /// Mean square of what no sine explains.
    fn noise(&self) -> f32 {
        self.residual * (self.low.power + self.high.power) / (1.0 - self.residual).max(1e-3)
    }
}

/// A part of a window as fitted by a key's two sines.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub hz: [f32; 2],
    /// Mean squares.
    pub power: [f32; 2],
    pub residual: f32,
    /// As in [`Fit::edges`]: the first and last 2.5 ms.
    pub edges: [f32; 2],
}

impl Part {
    fn of(stretch: &Stretch, waves: &[Wave; 2], left: &Left<2>) -> Part {
        let power = waves.map(|wave| wave.power());
        let energy = total(&left.energy);
        let noise = energy / stretch.samples();
        let edge = |nth: usize| {
            let (key, sound) = split(&stretch.hop(nth), &left.turns, &left.at(nth));
            gain(&sound, &key, noise)
        };
        let whole = energy + (power[0] + power[1]) * stretch.samples();
        Part {
            hz: waves.map(|wave| wave.hz()),
            power,
            residual: energy / whole.max(f32::MIN_POSITIVE),
            edges: [edge(0), edge(stretch.hops() - 1)],
        }
    }
}

/// A long window as fitted by a key's two sines.
pub struct Long {
    pub low: Sine,
    pub high: Sine,
    pub residual: f32,
    /// Energy of what is left over.
    pub energy: f32,
    stretch: Stretch,
    left: Left<2>,
}

impl Long {
    /// The phase of each sine in the middle of the window.
    pub fn phases(&self) -> [f32; 2] {
        self.left.at(LONG / 2).map(|(re, im)| im.atan2(re))
    }

    /// What is left over.
    pub fn rest(&self) -> [f32; LONG * HOP] {
        let mut rest = [0.0; LONG * HOP];
        for (nth, rest) in rest.as_chunks_mut::<HOP>().0.iter_mut().enumerate() {
            let (key, sound) = split(&self.stretch.hop(nth), &self.left.turns, &self.left.at(nth));
            *rest = std::array::from_fn(|at| sound[at] - key[at]);
        }
        rest
    }
}

impl Sine {
    /// With what each third of the window, of so many hops, has left over.
    fn of<const W: usize>(nth: usize, waves: &[Wave; W], left: &Left<W>, hops: [usize; 3]) -> Sine {
        let power = waves[nth].power();
        let mut first = 0;
        let thirds = hops.map(|hops| {
            let third = first..first + hops;
            first += hops;
            let whole = (hops * HOP) as f32 * power.max(f32::MIN_POSITIVE);
            let along = total(&left.along[nth][third.clone()]);
            (1.0 + along / whole, total(&left.across[nth][third]) / whole)
        });
        let phase = |(re, im): (f32, f32)| im.atan2(re);
        Sine {
            hz: waves[nth].hz(),
            power,
            bend: phase(thirds[0]) + phase(thirds[2]) - 2.0 * phase(thirds[1]),
            thirds: thirds.map(|(re, im)| re.hypot(im)),
        }
    }
}

fn total(values: &[f32]) -> f32 {
    values.iter().sum()
}

/// A hop as the key's own sines, the first two, would have it, and as it sounds without the others;
/// `at` are their complex amplitudes in its middle.
fn split<const W: usize>(
    sound: &[f32; HOP],
    turns: &[Turns; W],
    at: &[(f32, f32); W],
) -> ([f32; HOP], [f32; HOP]) {
    let mut key = [0.0; HOP];
    let mut sound = *sound;
    for (nth, (turns, &(re, im))) in turns.iter().zip(at).enumerate() {
        match nth {
            0 | 1 => turns.add(&mut key, re, im),
            _ => turns.add(&mut sound, -re, -im),
        }
    }
    (key, sound)
}

/// [`Fit::edges`] of a window's first and last hop, each as the sines would have it and as it
/// sounds, in noise of this power.
fn edges(first: ([f32; HOP], [f32; HOP]), last: ([f32; HOP], [f32; HOP]), noise: f32) -> [f32; 4] {
    let (head, tail) = (..HOP / 2, HOP / 2..);
    [
        gain(&first.1[head], &first.0[head], noise),
        gain(&first.1, &first.0, noise),
        gain(&last.1, &last.0, noise),
        gain(&last.1[tail.clone()], &last.0[tail], noise),
    ]
}

/// How much of `model` is in `samples`. Where the two sines cancel there may be too little to
/// tell: less than makes the answer certain to a seventh.
fn gain(samples: &[f32], model: &[f32], noise: f32) -> f32 {
    let all: f32 = model.iter().map(|value| value * value).sum();
    let got: f32 = samples.iter().zip(model).map(|(sample, value)| sample * value).sum();
    if all <= 50.0 * noise { 1.0 } else { got / all }
}

#[cfg(test)]
mod tests {
    use super::super::bank::RADIANS;
    use super::*;

    /// A window of two sines; `skip` samples are missing after its fourth hop.
    fn window(hz: [f32; 2], amplitudes: [f32; 2], skip: u32) -> Vec<Hop> {
        let mut hops = vec![Hop::SILENT; WINDOW];
        for (nth, hop) in hops.iter_mut().enumerate() {
            hop.start = (nth * HOP) as u32 + if nth >= 4 { skip } else { 0 };
            for (at, sample) in hop.samples.iter_mut().enumerate() {
                let t = hop.start as f32 + at as f32;
                let wave = |i: usize| amplitudes[i] * (hz[i] * RADIANS * t + 0.7).sin();
                *sample = wave(0) + wave(1);
            }
        }
        hops
    }

    fn stretch(hops: &[Hop]) -> Stretch {
        Stretch::of(&hops.iter().collect::<Vec<_>>())
    }

    #[test]
    fn finds_frequency_and_power_and_leaves_nothing_over() {
        for (skip, tolerance) in [(0, 0.3), (160, 0.3)] {
            for offset in [-0.02f32, -0.005, 0.0, 0.015, 0.02] {
                for amplitudes in [[0.3, 0.3], [0.3, 0.15], [0.05, 0.12]] {
                    let hz = [770.0 * (1.0 + offset), 1477.0 * (1.0 + offset)];
                    let hops = window(hz, amplitudes, skip);
                    let fit = fit(&stretch(&hops), None, [hz[0] + 5.0, hz[1] - 5.0], &[]);
                    let about = format!("{offset} {amplitudes:?} {skip} {fit:?}");
                    assert!((fit.low.hz - hz[0]).abs() < tolerance, "{about}");
                    assert!((fit.high.hz - hz[1]).abs() < tolerance, "{about}");
                    assert!(fit.residual < 0.003, "{about}");
                    let power = amplitudes[0] * amplitudes[0] / 2.0;
                    assert!((fit.low.power / power - 1.0).abs() < 0.05, "{about}");
                    assert!(fit.edges.iter().all(|gain| (gain - 1.0).abs() < 0.1), "{about}");
                }
            }
        }
    }

    #[test]
    fn a_millisecond_missing_at_an_edge_shows() {
        let mut hops = window([770.0, 1336.0], [0.3, 0.3], 0);
        hops[0].samples[..8].fill(0.0);
        let early = fit(&stretch(&hops), None, [770.0, 1336.0], &[]);
        assert!(early.edges[0] < 0.4 && early.edges[3] > 0.9, "{early:?}");
    }
}
