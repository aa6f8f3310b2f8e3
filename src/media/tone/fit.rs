//! Sines of free frequency, amplitude and phase fitted to a window by least squares
//! (Gauss-Newton): a key's two, and a dial tone's if one sounds. What is left over, and where,
//! tells keys from speech.

use super::bank::{HOP, Hop, RADIANS};

/// Hops in a window: 25 ms.
pub const WINDOW: usize = 10;
/// A window, oldest hop first. There may be holes between hops; time is known.
pub type Window<'a> = [&'a Hop; WINDOW];

/// Hops in a long window, which is looked at in noise: 37.5 ms.
pub const LONG: usize = 15;

/// How many hops before the window [`Fit::before`] looks.
pub const BEFORE: usize = 3;

/// Corrections of amplitude and frequency before the fit is judged.
const STEPS: usize = 3;
/// A part takes as many again, unless it leaves so much over by then.
const HOPELESS: f32 = 0.1;

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

/// A sine `Re(amplitude e^jwt)`, t from the middle of the window in samples.
#[derive(Clone, Copy)]
struct Wave {
    /// Radians per sample.
    omega: f32,
    re: f32,
    im: f32,
}

/// Correlations of what is left with a wave: plain, and weighted with time.
#[derive(Clone, Copy, Default)]
struct Slope {
    re: f32,
    im: f32,
    time_re: f32,
    time_im: f32,
}

/// The most sines fitted: a key's two, a dial tone's two.
pub const SINES_MAX: usize = 4;

/// Fits sines near these frequencies, a key's low and high one first; the nearer the better: 10 Hz
/// converge to a tenth. `before` is the hop that ended 5 ms before the window, if there is one.
pub fn fit(window: &Window<'_>, before: Option<&Hop>, near_hz: &[f32]) -> Fit {
    let mut times = [0.0; WINDOW];
    centre(window, &mut times);
    let mut waves = waves(near_hz);
    let waves = &mut waves[..near_hz.len().min(SINES_MAX)];
    // Neighbouring sines see each other: each step clears the air for the next.
    let steps = if waves.len() > 2 { 2 * STEPS } else { STEPS };
    solve(window, &times, waves, steps);
    let mut fit = judge(window, &times, waves);
    fit.before = before.map(|hop| {
        let time = times[0] - (BEFORE * HOP) as f32;
        sounded(hop, waves, time, fit.noise())
    });
    fit
}

/// The same for a key's two sines in a shorter stretch without holes, 3 hops at least.
pub fn fit_part(hops: &[&Hop], near_hz: [f32; 2]) -> Part {
    let mut times = [0.0; WINDOW];
    let times = &mut times[..hops.len()];
    centre(hops, times);
    let mut waves = waves(&near_hz);
    solve(hops, times, &mut waves[..2], STEPS);
    let part = Part::of(hops, times, &waves[..2]);
    if part.residual >= HOPELESS {
        return part;
    }
    solve(hops, times, &mut waves[..2], STEPS - 1);
    Part::of(hops, times, &waves[..2])
}

/// The same for a key's two sines in a long window without holes.
pub fn fit_long(window: &[&Hop; LONG], near_hz: [f32; 2]) -> Long {
    let mut times = [0.0; LONG];
    centre(window, &mut times);
    let mut waves = waves(&near_hz);
    let waves = &mut waves[..2];
    solve(window, &times, waves, STEPS);
    Long::of(window, &times, waves)
}

fn waves(near_hz: &[f32]) -> [Wave; SINES_MAX] {
    let omega = |at: usize| near_hz.get(at).map_or(0.0, |hz| hz * RADIANS);
    std::array::from_fn(|at| Wave { omega: omega(at), re: 0.0, im: 0.0 })
}

/// The middle of each hop, counted from the middle of them all, in samples.
fn centre(hops: &[&Hop], times: &mut [f32]) {
    let first = hops[0].start;
    let offset = |hop: &Hop| hop.start.wrapping_sub(first) as f32;
    let middle = hops.iter().map(|hop| offset(hop)).sum::<f32>() / hops.len() as f32;
    for (time, hop) in times.iter_mut().zip(hops) {
        *time = offset(hop) - middle;
    }
}

/// Finds amplitudes, and then corrects them and the frequencies this many times.
fn solve(hops: &[&Hop], times: &[f32], waves: &mut [Wave], steps: usize) {
    let spread: f32 = times.iter().map(|time| time * time).sum::<f32>() * HOP as f32;
    let samples = (hops.len() * HOP) as f32;
    for _ in 0..=steps {
        let slopes = slopes(hops, times, waves);
        for (wave, slope) in waves.iter_mut().zip(&slopes) {
            let power = wave.re * wave.re + wave.im * wave.im;
            if power > 0.0 {
                let turn = wave.re * slope.time_im - wave.im * slope.time_re;
                wave.omega += 2.0 * turn / (power * spread);
            }
            wave.re += 2.0 * slope.re / samples;
            wave.im += 2.0 * slope.im / samples;
        }
    }
}

/// How much of a key's sines is in a hop outside of what was fitted.
fn sounded(hop: &Hop, waves: &[Wave], time: f32, noise: f32) -> f32 {
    let (key, rest) = split(hop, waves, &turns(waves), time);
    gain(&rest, &key, noise)
}

impl Fit {
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
    fn of(hops: &[&Hop], times: &[f32], waves: &[Wave]) -> Part {
        let turns = turns(waves);
        let power = [0, 1].map(|at| waves[at].power());
        let left = |hop: &Hop, time: f32| {
            let (key, sound) = split(hop, waves, &turns, time);
            let rest: [f32; HOP] = std::array::from_fn(|at| sound[at] - key[at]);
            dot(&rest, &rest)
        };
        let left: f32 = hops.iter().zip(times).map(|(hop, &time)| left(hop, time)).sum();
        let noise = left / (hops.len() * HOP) as f32;
        let edge = |nth: usize| {
            let (key, sound) = split(hops[nth], waves, &turns, times[nth]);
            gain(&sound, &key, noise)
        };
        let whole = left + (power[0] + power[1]) * (hops.len() * HOP) as f32;
        Part {
            hz: [0, 1].map(|at| waves[at].omega / RADIANS),
            power,
            residual: left / whole.max(f32::MIN_POSITIVE),
            edges: [edge(0), edge(hops.len() - 1)],
        }
    }
}

/// A long window as fitted by a key's two sines.
pub struct Long {
    pub low: Sine,
    pub high: Sine,
    pub residual: f32,
    /// What is left over.
    pub rest: [f32; LONG * HOP],
}

impl Long {
    fn of(window: &[&Hop; LONG], times: &[f32; LONG], waves: &[Wave]) -> Long {
        let turns = turns(waves);
        let mut rest = [0.0; LONG * HOP];
        let mut thirds = [[Slope::default(); 3]; 2];
        for (nth, (hop, &time)) in window.iter().zip(times).enumerate() {
            let (key, sound) = split(hop, waves, &turns, time);
            let left: [f32; HOP] = std::array::from_fn(|at| sound[at] - key[at]);
            rest[nth * HOP..][..HOP].copy_from_slice(&left);
            for (wave, (turns, thirds)) in waves.iter().zip(turns.iter().zip(&mut thirds)) {
                thirds[nth * 3 / LONG].follow(wave, turns, time, &left);
            }
        }
        let left: f32 = rest.iter().map(|rest| rest * rest).sum();
        let hops = [LONG as f32 / 3.0; 3];
        let expected = (waves[0].power() + waves[1].power()) * (LONG * HOP) as f32;
        Long {
            low: Sine::of(&waves[0], &thirds[0], hops),
            high: Sine::of(&waves[1], &thirds[1], hops),
            residual: left / (left + expected).max(f32::MIN_POSITIVE),
            rest,
        }
    }
}

impl Slope {
    /// Adds what is left in a hop, relative to the wave's own phase and strength.
    fn follow(&mut self, wave: &Wave, turns: &Turns, time: f32, rest: &[f32; HOP]) {
        let (re, im) = wave.at(Phase::new(wave.omega * time));
        let (along, across) = (dot(rest, &turns.cos), -dot(rest, &turns.sin));
        self.re += along * re + across * im;
        self.im += across * re - along * im;
    }
}

impl Sine {
    /// With what each third of the window, of so many hops, has left over.
    fn of(wave: &Wave, thirds: &[Slope; 3], hops: [f32; 3]) -> Sine {
        let power = wave.power();
        let share = |third: usize| {
            let whole = hops[third] * HOP as f32 * power.max(f32::MIN_POSITIVE);
            (1.0 + thirds[third].re / whole, thirds[third].im / whole)
        };
        let thirds = [share(0), share(1), share(2)];
        let phase = |(re, im): (f32, f32)| im.atan2(re);
        Sine {
            hz: wave.omega / RADIANS,
            power,
            bend: phase(thirds[0]) + phase(thirds[2]) - 2.0 * phase(thirds[1]),
            thirds: thirds.map(|(re, im)| re.hypot(im)),
        }
    }
}

/// A wave of amplitude 1 over a hop, counted from the hop's middle.
#[derive(Clone, Copy)]
struct Turns {
    cos: [f32; HOP],
    sin: [f32; HOP],
}

impl Turns {
    const NONE: Turns = Turns { cos: [0.0; HOP], sin: [0.0; HOP] };

    fn new(omega: f32) -> Turns {
        let mut turns = Turns::NONE;
        let half = Phase::new(omega / 2.0);
        let step = half.turned(half);
        let mut phase = half;
        // The second half of the hop, and the first as its mirror image.
        for after in 0..HOP / 2 {
            let (at, mirror) = (HOP / 2 + after, HOP / 2 - 1 - after);
            (turns.cos[at], turns.sin[at]) = (phase.cos, phase.sin);
            (turns.cos[mirror], turns.sin[mirror]) = (phase.cos, -phase.sin);
            phase = phase.turned(step);
        }
        turns
    }
}

/// An angle on the unit circle.
#[derive(Clone, Copy, Default)]
struct Phase {
    cos: f32,
    sin: f32,
}

impl Phase {
    fn new(angle: f32) -> Phase {
        let (sin, cos) = angle.sin_cos();
        Phase { cos, sin }
    }

    fn turned(self, by: Phase) -> Phase {
        Phase {
            cos: self.cos * by.cos - self.sin * by.sin,
            sin: self.cos * by.sin + self.sin * by.cos,
        }
    }
}

/// Where a wave is in the middle of each hop. Hops mostly follow one another: then it is turned by
/// as much each time.
fn phases(omega: f32, times: &[f32]) -> [Phase; LONG] {
    let mut phases = [Phase::default(); LONG];
    let step = Phase::new(omega * HOP as f32);
    let mut last = None;
    for (phase, &time) in phases.iter_mut().zip(times) {
        *phase = match last {
            Some((last, before)) if time - before == HOP as f32 => Phase::turned(last, step),
            _ => Phase::new(omega * time),
        };
        last = Some((*phase, time));
    }
    phases
}

impl Wave {
    /// Mean square.
    fn power(&self) -> f32 {
        (self.re * self.re + self.im * self.im) / 2.0
    }

    /// Its complex amplitude where it has this phase.
    fn at(&self, phase: Phase) -> (f32, f32) {
        (self.re * phase.cos - self.im * phase.sin, self.re * phase.sin + self.im * phase.cos)
    }
}

fn turns(waves: &[Wave]) -> [Turns; SINES_MAX] {
    let mut turns = [Turns::NONE; SINES_MAX];
    for (turns, wave) in turns.iter_mut().zip(waves) {
        *turns = Turns::new(wave.omega);
    }
    turns
}

/// A hop as the key's own sines would have it, and as it sounds without the dial tone's.
fn split(hop: &Hop, waves: &[Wave], turns: &[Turns], time: f32) -> ([f32; HOP], [f32; HOP]) {
    let mut key = [0.0; HOP];
    let mut sound = hop.samples;
    for (nth, (wave, turns)) in waves.iter().zip(turns).enumerate() {
        let amplitude = wave.at(Phase::new(wave.omega * time));
        match nth {
            0 | 1 => add(&mut key, amplitude, turns),
            _ => add(&mut sound, (-amplitude.0, -amplitude.1), turns),
        }
    }
    (key, sound)
}

/// Adds a wave that has this complex amplitude in the hop's middle.
fn add(sound: &mut [f32; HOP], (re, im): (f32, f32), turns: &Turns) {
    for ((sound, cos), sin) in sound.iter_mut().zip(&turns.cos).zip(&turns.sin) {
        *sound += re * cos - im * sin;
    }
}

fn slopes(hops: &[&Hop], times: &[f32], waves: &[Wave]) -> [Slope; SINES_MAX] {
    let turns = turns(waves);
    let mut at_hops = [[Phase::default(); LONG]; SINES_MAX];
    for (phases_of, wave) in at_hops.iter_mut().zip(waves) {
        *phases_of = phases(wave.omega, times);
    }
    let mut slopes = [Slope::default(); SINES_MAX];
    for (nth, (hop, &time)) in hops.iter().zip(times).enumerate() {
        let mut left = hop.samples;
        for ((wave, turns), phases) in waves.iter().zip(&turns).zip(&at_hops) {
            let (re, im) = wave.at(phases[nth]);
            add(&mut left, (-re, -im), turns);
        }
        for ((slope, turns), phases) in slopes.iter_mut().zip(&turns).zip(&at_hops[..waves.len()]) {
            let (re, im) = (dot(&left, &turns.cos), -dot(&left, &turns.sin));
            let Phase { cos, sin } = phases[nth];
            let (re, im) = (re * cos + im * sin, im * cos - re * sin);
            slope.re += re;
            slope.im += im;
            slope.time_re += time * re;
            slope.time_im += time * im;
        }
    }
    slopes
}

/// Hops in each third of a window.
const THIRDS: [f32; 3] = [3.0, 4.0, 3.0];

fn judge(window: &Window<'_>, times: &[f32; WINDOW], waves: &[Wave]) -> Fit {
    let turns = turns(waves);
    let expected = waves[0].power() + waves[1].power();
    let (mut left, mut inside) = (0.0, 0.0);
    let mut thirds = [[Slope::default(); 3]; 2];
    for (nth, (hop, &time)) in window.iter().zip(times).enumerate() {
        let (key, sound) = split(hop, waves, &turns, time);
        let rest: [f32; HOP] = std::array::from_fn(|at| sound[at] - key[at]);
        let energy = dot(&rest, &rest);
        left += energy;
        if (1..WINDOW - 1).contains(&nth) {
            inside += energy;
        }
        for (wave, (turns, thirds)) in waves.iter().zip(turns.iter().zip(&mut thirds)) {
            let third = usize::from(nth > 2) + usize::from(nth > 6);
            thirds[third].follow(wave, turns, time, &rest);
        }
    }
    let edge = |nth: usize| split(window[nth], waves, &turns, times[nth]);
    let edges = edges(edge(0), edge(WINDOW - 1), inside / ((WINDOW - 2) * HOP) as f32);
    Fit {
        low: Sine::of(&waves[0], &thirds[0], THIRDS),
        high: Sine::of(&waves[1], &thirds[1], THIRDS),
        residual: left / (left + expected * (WINDOW * HOP) as f32).max(f32::MIN_POSITIVE),
        edges,
        before: None,
    }
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

/// Four sums side by side, as the machine likes them.
fn dot(a: &[f32; HOP], b: &[f32; HOP]) -> f32 {
    let mut sums = [0.0; 4];
    for (a, b) in a.chunks_exact(4).zip(b.chunks_exact(4)) {
        for lane in 0..4 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn finds_frequency_and_power_and_leaves_nothing_over() {
        for (skip, tolerance) in [(0, 0.3), (160, 0.3)] {
            for offset in [-0.02f32, -0.005, 0.0, 0.015, 0.02] {
                for amplitudes in [[0.3, 0.3], [0.3, 0.15], [0.05, 0.12]] {
                    let hz = [770.0 * (1.0 + offset), 1477.0 * (1.0 + offset)];
                    let hops = window(hz, amplitudes, skip);
                    let fit = fit(
                        &std::array::from_fn(|at| &hops[at]),
                        None,
                        &[hz[0] + 5.0, hz[1] - 5.0],
                    );
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
        let early = fit(&std::array::from_fn(|at| &hops[at]), None, &[770.0, 1336.0]);
        assert!(early.edges[0] < 0.4 && early.edges[3] > 0.9, "{early:?}");
    }
}
