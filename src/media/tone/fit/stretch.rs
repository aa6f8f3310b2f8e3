//! The sums a fit is made of, on as many lanes as the processor has: hops lie side by side, a lane
//! each, so that a wave's value at one sample serves them all and nothing is summed across. What
//! works on lanes must be inlined, for which a closure is not good enough: a function left by
//! itself is compiled for any processor, and called for each product.

use fearless_simd::{Level, Simd, SimdBase, dispatch, f32x8};

use super::super::bank::{HOP, Hop, RADIANS};

const LANES: usize = 8;
/// Lanes for a long window.
const GROUPS: usize = 2;
/// Pairs of samples as far before and after a hop's middle.
const PAIRS: usize = HOP / 2;

/// A value of each hop.
pub type Lanes = [f32; GROUPS * LANES];

/// A wave `Re(amplitude e^jwt)`, t from the middle of the stretch in samples.
#[derive(Clone, Copy, Default)]
pub struct Wave {
    /// Radians per sample.
    pub omega: f32,
    pub re: f32,
    pub im: f32,
}

impl Wave {
    /// Yet without strength.
    pub fn near(hz: f32) -> Wave {
        Wave { omega: hz * RADIANS, re: 0.0, im: 0.0 }
    }

    pub fn hz(&self) -> f32 {
        self.omega / RADIANS
    }

    /// Its complex amplitude at this time.
    pub fn at(&self, time: f32) -> (f32, f32) {
        let (sin, cos) = (self.omega * time).sin_cos();
        (self.re * cos - self.im * sin, self.re * sin + self.im * cos)
    }

    /// Mean square.
    pub fn power(&self) -> f32 {
        (self.re * self.re + self.im * self.im) / 2.0
    }
}

/// Hops, which may have holes between them: time is known. Seen from its middle a hop is an even
/// part, which cosines see, and an odd one.
pub struct Stretch {
    even: [Lanes; PAIRS],
    odd: [Lanes; PAIRS],
    /// The middle of each hop, counted from the middle of them all, in samples.
    times: Lanes,
    /// 1 where there is a hop.
    present: Lanes,
    hops: usize,
    /// The sum of `times` squared.
    spread: f32,
}

/// What some waves leave of a stretch.
pub struct Left<const W: usize> {
    /// Energy of each hop.
    pub energy: Lanes,
    /// How much each wave is stronger in each hop than fitted, and how far it is turned: the
    /// products of what is left with the wave, and with the wave a quarter later.
    pub along: [Lanes; W],
    pub across: [Lanes; W],
    pub turns: [Turns; W],
    /// Twice the waves' complex amplitudes in each hop's middle.
    re: [Lanes; W],
    im: [Lanes; W],
}

impl<const W: usize> Left<W> {
    /// The waves' complex amplitudes in a hop's middle.
    pub fn at(&self, hop: usize) -> [(f32, f32); W] {
        std::array::from_fn(|nth| (self.re[nth][hop] / 2.0, self.im[nth][hop] / 2.0))
    }
}

/// What a step of a fit sees of one wave: correlations of what is left, plain and with time.
#[derive(Clone, Copy, Default)]
struct Slope {
    re: f32,
    im: f32,
    time_re: f32,
    time_im: f32,
}

impl Stretch {
    /// Of as many hops as there are lanes, at most; the oldest first.
    pub fn of(hops: &[&Hop]) -> Stretch {
        let first = hops[0].start;
        let offset = |hop: &Hop| hop.start.wrapping_sub(first) as f32;
        let middle = hops.iter().map(|hop| offset(hop)).sum::<f32>() / hops.len() as f32;
        let mut stretch = Stretch {
            even: [[0.0; GROUPS * LANES]; PAIRS],
            odd: [[0.0; GROUPS * LANES]; PAIRS],
            times: [0.0; GROUPS * LANES],
            present: [0.0; GROUPS * LANES],
            hops: hops.len(),
            spread: 0.0,
        };
        for (lane, hop) in hops.iter().enumerate() {
            let time = offset(hop) - middle;
            stretch.times[lane] = time;
            stretch.present[lane] = 1.0;
            stretch.spread += time * time;
            for pair in 0..PAIRS {
                let (after, before) = (hop.samples[PAIRS + pair], hop.samples[PAIRS - 1 - pair]);
                stretch.even[pair][lane] = after + before;
                stretch.odd[pair][lane] = after - before;
            }
        }
        stretch
    }

    pub fn hops(&self) -> usize {
        self.hops
    }

    pub fn samples(&self) -> f32 {
        (self.hops * HOP) as f32
    }

    /// A hop's sound.
    pub fn hop(&self, hop: usize) -> [f32; HOP] {
        std::array::from_fn(|at| {
            let (pair, sign) = if at < PAIRS { (PAIRS - 1 - at, -0.5) } else { (at - PAIRS, 0.5) };
            0.5 * self.even[pair][hop] + sign * self.odd[pair][hop]
        })
    }

    /// When the middle of a hop is, from the middle of them all.
    pub fn time(&self, hop: usize) -> f32 {
        self.times[hop]
    }

    /// Finds amplitudes, and then corrects them and the frequencies so many times; what is left.
    pub fn fit<const W: usize>(&self, waves: &mut [Wave; W], steps: usize) -> Left<W> {
        self.fit_by(Level::new(), waves, steps)
    }

    /// The same by the instructions of this level: to the same bits by all.
    fn fit_by<const W: usize>(&self, level: Level, waves: &mut [Wave; W], steps: usize) -> Left<W> {
        dispatch!(level, simd => {
            for _ in 0..=steps {
                self.step(simd, waves);
            }
            self.left(simd, waves)
        })
    }

    #[inline(always)]
    fn step<S: Simd, const W: usize>(&self, simd: S, waves: &mut [Wave; W]) {
        let turns = Turns::all(simd, waves);
        let mut slopes = [Slope::default(); W];
        for group in 0..self.hops.div_ceil(LANES) {
            let at = Place::all(simd, self, group, waves);
            let (along, across, _) = self.correlate(simd, group, &turns, &at, false);
            let times = lanes(simd, &self.times, group);
            for nth in 0..W {
                let slope = &mut slopes[nth];
                let Place { cos, sin, .. } = at[nth];
                let re = along[nth] * cos + across[nth] * sin;
                let im = across[nth] * cos - along[nth] * sin;
                slope.re += sum(re);
                slope.im += sum(im);
                slope.time_re += sum(times * re);
                slope.time_im += sum(times * im);
            }
        }
        let samples = self.samples();
        for (wave, slope) in waves.iter_mut().zip(&slopes) {
            let power = wave.re * wave.re + wave.im * wave.im;
            if power > 0.0 {
                let turn = wave.re * slope.time_im - wave.im * slope.time_re;
                wave.omega += 2.0 * turn / (power * self.spread * HOP as f32);
            }
            wave.re += 2.0 * slope.re / samples;
            wave.im += 2.0 * slope.im / samples;
        }
    }

    #[inline(always)]
    fn left<S: Simd, const W: usize>(&self, simd: S, waves: &[Wave; W]) -> Left<W> {
        let turns = Turns::all(simd, waves);
        let none = [[0.0; GROUPS * LANES]; W];
        let energy = [0.0; GROUPS * LANES];
        let mut left = Left { energy, along: none, across: none, turns, re: none, im: none };
        for group in 0..self.hops.div_ceil(LANES) {
            let at = Place::all(simd, self, group, waves);
            let (along, across, energy) = self.correlate(simd, group, &turns, &at, true);
            let part = group * LANES..(group + 1) * LANES;
            energy.store_slice(&mut left.energy[part.clone()]);
            for nth in 0..W {
                let Place { re, im, .. } = at[nth];
                let half = f32x8::splat(simd, 0.5);
                let turned = (along[nth] * re + across[nth] * im) * half;
                turned.store_slice(&mut left.along[nth][part.clone()]);
                let turned = (across[nth] * re - along[nth] * im) * half;
                turned.store_slice(&mut left.across[nth][part.clone()]);
                re.store_slice(&mut left.re[nth][part.clone()]);
                im.store_slice(&mut left.im[nth][part.clone()]);
            }
        }
        left
    }

    /// The products of what all waves leave in a group of hops with each wave of amplitude 1 and
    /// phase 0 in a hop's middle; and its energy, if wanted.
    #[inline(always)]
    fn correlate<S: Simd, const W: usize>(
        &self,
        simd: S,
        group: usize,
        turns: &[Turns; W],
        at: &[Place<S>; W],
        energy: bool,
    ) -> ([f32x8<S>; W], [f32x8<S>; W], f32x8<S>) {
        let zero = f32x8::splat(simd, 0.0);
        let (mut along, mut across, mut energies) = ([zero; W], [zero; W], zero);
        for pair in 0..PAIRS {
            let mut even = lanes(simd, &self.even[pair], group);
            let mut odd = lanes(simd, &self.odd[pair], group);
            for nth in 0..W {
                even -= at[nth].re * f32x8::splat(simd, turns[nth].cos[pair]);
                odd += at[nth].im * f32x8::splat(simd, turns[nth].sin[pair]);
            }
            for nth in 0..W {
                along[nth] += even * f32x8::splat(simd, turns[nth].cos[pair]);
                across[nth] -= odd * f32x8::splat(simd, turns[nth].sin[pair]);
            }
            if energy {
                energies += even * even + odd * odd;
            }
        }
        (along, across, energies * f32x8::splat(simd, 0.5))
    }
}

/// Where a wave is in the middle of each hop of a group, and twice its complex amplitude there.
/// Nowhere where there is no hop.
#[derive(Clone, Copy)]
struct Place<S: Simd> {
    cos: f32x8<S>,
    sin: f32x8<S>,
    re: f32x8<S>,
    im: f32x8<S>,
}

impl<S: Simd> Place<S> {
    #[inline(always)]
    fn all<const W: usize>(
        simd: S,
        stretch: &Stretch,
        group: usize,
        waves: &[Wave; W],
    ) -> [Place<S>; W] {
        let zero = f32x8::splat(simd, 0.0);
        let times = lanes(simd, &stretch.times, group);
        let present = lanes(simd, &stretch.present, group);
        let mut all = [Place { cos: zero, sin: zero, re: zero, im: zero }; W];
        for nth in 0..W {
            let wave = waves[nth];
            let (sin, cos) = sin_cos(simd, times * f32x8::splat(simd, wave.omega));
            let (sin, cos) = (sin * present, cos * present);
            let re = f32x8::splat(simd, 2.0 * wave.re);
            let im = f32x8::splat(simd, 2.0 * wave.im);
            all[nth] = Place { cos, sin, re: re * cos - im * sin, im: re * sin + im * cos };
        }
        all
    }
}

/// A wave of amplitude 1 after a hop's middle, where its phase is 0.
#[derive(Clone, Copy)]
pub struct Turns {
    cos: Lanes,
    sin: Lanes,
}

impl Turns {
    /// Adds a wave that has this complex amplitude in the hop's middle.
    pub fn add(&self, sound: &mut [f32; HOP], re: f32, im: f32) {
        for pair in 0..PAIRS {
            let (even, odd) = (re * self.cos[pair], im * self.sin[pair]);
            sound[PAIRS + pair] += even - odd;
            sound[PAIRS - 1 - pair] += even + odd;
        }
    }

    #[inline(always)]
    fn all<S: Simd, const W: usize>(simd: S, waves: &[Wave; W]) -> [Turns; W] {
        let none = [0.0; GROUPS * LANES];
        let mut all = [Turns { cos: none, sin: none }; W];
        for nth in 0..W {
            let omega = f32x8::splat(simd, waves[nth].omega);
            for group in 0..GROUPS {
                let (sin, cos) = sin_cos(simd, lanes(simd, &AFTER, group) * omega);
                sin.store_slice(&mut all[nth].sin[group * LANES..][..LANES]);
                cos.store_slice(&mut all[nth].cos[group * LANES..][..LANES]);
            }
        }
        all
    }
}

/// Samples from a hop's middle to each sample after it.
const AFTER: Lanes = {
    let mut after = [0.5; GROUPS * LANES];
    let mut at = 1;
    while at < after.len() {
        after[at] = after[at - 1] + 1.0;
        at += 1;
    }
    after
};

/// The lanes of a group.
#[inline(always)]
fn lanes<S: Simd>(simd: S, all: &Lanes, group: usize) -> f32x8<S> {
    f32x8::from_slice(simd, &all[group * LANES..][..LANES])
}

#[inline(always)]
fn sum<S: Simd>(lanes: f32x8<S>) -> f32 {
    lanes.to_array().iter().sum()
}

/// To a few 1e-6 for angles of some dozen turns: by the series of half the angle less whole turns,
/// then doubled.
#[inline(always)]
fn sin_cos<S: Simd>(simd: S, angle: f32x8<S>) -> (f32x8<S>, f32x8<S>) {
    use std::f32::consts::TAU;
    /// Added to a number and taken away again it leaves a whole one.
    const WHOLE: f32 = 12_582_912.0;
    /// 2 pi in two parts: small multiples of the first are exact.
    const TAU_HEAD: f32 = 6.28125;
    const TAU_TAIL: f32 = (std::f64::consts::TAU - TAU_HEAD as f64) as f32;
    const SIN: [f32; 6] =
        [1.0, -1.0 / 6.0, 1.0 / 120.0, -1.0 / 5040.0, 1.0 / 362_880.0, -1.0 / 39_916_800.0];
    const COS: [f32; 7] = [
        1.0,
        -1.0 / 2.0,
        1.0 / 24.0,
        -1.0 / 720.0,
        1.0 / 40_320.0,
        -1.0 / 3_628_800.0,
        1.0 / 479_001_600.0,
    ];
    let turns = (angle * f32x8::splat(simd, 1.0 / TAU) + f32x8::splat(simd, WHOLE))
        - f32x8::splat(simd, WHOLE);
    let half =
        (angle - turns * f32x8::splat(simd, TAU_HEAD) - turns * f32x8::splat(simd, TAU_TAIL))
            * f32x8::splat(simd, 0.5);
    let square = half * half;
    let mut sin = f32x8::splat(simd, SIN[SIN.len() - 1]);
    for factor in SIN[..SIN.len() - 1].iter().rev() {
        sin = sin * square + f32x8::splat(simd, *factor);
    }
    let sin = sin * half;
    let mut cos = f32x8::splat(simd, COS[COS.len() - 1]);
    for factor in COS[..COS.len() - 1].iter().rev() {
        cos = cos * square + f32x8::splat(simd, *factor);
    }
    let double = sin + sin;
    (double * cos, f32x8::splat(simd, 1.0) - double * sin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_of_some_dozen_turns_have_their_sine_and_cosine() {
        dispatch!(Level::new(), simd => {
            for nth in 0..20_000 {
                let angle = (nth - 10_000) as f32 * 0.031;
                let (sin, cos) = sin_cos(simd, f32x8::splat(simd, angle));
                let expected = f64::from(angle).sin_cos();
                let told = (sin.to_array()[3], cos.to_array()[3]);
                let off = (f64::from(told.0) - expected.0, f64::from(told.1) - expected.1);
                assert!(off.0.abs().max(off.1.abs()) < 4e-6, "{angle}: {told:?}");
            }
        });
    }

    /// Two waves and a little noise; the second half comes 7 samples later.
    fn hops(count: usize, waves: [Wave; 2]) -> Vec<Hop> {
        let hops = (0..count).map(|nth| {
            let start = (nth * HOP) as u32 + if nth >= count / 2 { 7 } else { 0 };
            let sample = |at: usize| {
                let time = start as f32 + at as f32;
                let noise = ((time * 7919.0) % 17.0 - 8.0) / 4000.0;
                waves.iter().map(|wave| wave.at(time).0).sum::<f32>() + noise
            };
            Hop { start, samples: std::array::from_fn(sample), ..Hop::SILENT }
        });
        hops.collect()
    }

    #[test]
    fn every_processor_fits_the_same() {
        let key = [(697.0, 0.3, 0.1), (1477.0, -0.1, 0.2)];
        let key = key.map(|(hz, re, im)| Wave { re, im, ..Wave::near(hz) });
        for count in [3, 8, 9, 15] {
            let hops = hops(count, key);
            let stretch = Stretch::of(&hops.iter().collect::<Vec<_>>());
            let by = |level| {
                let mut waves = [690.0, 1480.0, 350.0].map(Wave::near);
                let left = stretch.fit_by(level, &mut waves, 6);
                let all = waves.map(|wave| [wave.omega, wave.re, wave.im]);
                (all, left.energy, left.along, left.across, left.re, left.im)
            };
            let (waves, energy, ..) = by(Level::new());
            assert!(by(Level::new()) == by(Level::baseline()), "{count} hops");
            if count >= 8 {
                assert!((waves[0][0] - key[0].omega).abs() < 2e-4, "{waves:?}");
                assert!((waves[1][0] - key[1].omega).abs() < 2e-4, "{waves:?}");
            }
            assert!(energy[count..].iter().all(|energy| *energy == 0.0), "{energy:?}");
        }
    }

    #[test]
    fn a_hop_is_what_it_was() {
        let hops = hops(4, [Wave::near(700.0), Wave { re: 0.5, ..Wave::near(1200.0) }]);
        let stretch = Stretch::of(&hops.iter().collect::<Vec<_>>());
        for (nth, hop) in hops.iter().enumerate() {
            for (was, is) in hop.samples.iter().zip(stretch.hop(nth)) {
                assert!((was - is).abs() < 1e-6);
            }
        }
    }
}
