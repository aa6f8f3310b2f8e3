//! The front-end: sound at 8 kHz to 32 mel bands every 10 ms, brought to one level by a gain that
//! knows only the past. `training/FEATURES.md` says it exactly; `training/` does the same.

use std::f32::consts::TAU;
use std::sync::{Arc, LazyLock};

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};
use zeroize::Zeroize;

/// Values in a feature vector.
pub const BANDS: usize = 32;
/// Samples from one vector to the next.
pub const HOP: usize = 80;
/// Samples a vector is made of.
pub const WINDOW: usize = 200;

const FFT: usize = 256;
const BINS: usize = FFT / 2 + 1;
const LOW_HZ: f32 = 125.0;
const HIGH_HZ: f32 = 3700.0;
/// Below any sound.
const FLOOR: f32 = 1e-6;
/// The least level a voice is thought to have, and where it starts.
const LEVEL_MIN: f32 = -5.0;
/// How fast the level follows what is louder, and falls by itself, each 10 ms.
const ATTACK: f32 = 0.3;
const RELEASE: f32 = 0.0046;

/// How long a speaker's vocal tract is taken to be: formants lie lower or higher, and with them all
/// bands.
#[derive(Clone, Copy)]
pub enum Tract {
    Usual,
    Long,
    Longer,
    Longest,
    Short,
    Shorter,
    Shortest,
}

/// What bands lie higher by, by tract.
const WARPS: [f64; 7] = [1.0, 0.92, 0.88, 0.84, 1.08, 1.12, 1.16];

/// The front-end of one call.
pub struct Mel {
    tract: Tract,
    /// The last samples, those of the next window first.
    sound: [f32; WINDOW],
    filled: usize,
    level: f32,
    windowed: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    features: [f32; BANDS],
}

impl Mel {
    pub fn new(tract: Tract) -> Mel {
        let tables = &*TABLES;
        Mel {
            tract,
            sound: [0.0; WINDOW],
            filled: 0,
            level: LEVEL_MIN,
            windowed: tables.fft.make_input_vec(),
            spectrum: tables.fft.make_output_vec(),
            scratch: tables.fft.make_scratch_vec(),
            features: [0.0; BANDS],
        }
    }

    /// Adds samples; `each` gets every vector that is whole.
    pub fn push(&mut self, mut samples: &[i16], mut each: impl FnMut(&[f32; BANDS])) {
        while !samples.is_empty() {
            let (now, later) = samples.split_at(samples.len().min(WINDOW - self.filled));
            for (place, sample) in self.sound[self.filled..].iter_mut().zip(now) {
                *place = f32::from(*sample) / 32768.0;
            }
            self.filled += now.len();
            samples = later;
            if self.filled == WINDOW {
                self.analyse();
                each(&self.features);
                self.sound.copy_within(HOP.., 0);
                self.filled = WINDOW - HOP;
            }
        }
    }

    fn analyse(&mut self) {
        let tables = &*TABLES;
        self.windowed.fill(0.0);
        for ((place, sample), weight) in
            self.windowed.iter_mut().zip(&self.sound).zip(&tables.window)
        {
            *place = sample * weight;
        }
        let Mel { windowed, spectrum, scratch, .. } = self;
        // Fails for buffers of a wrong length only; these were made by the plan.
        let _ = tables.fft.process_with_scratch(windowed, spectrum, scratch);
        let mut sum = 0.0;
        for (feature, band) in self.features.iter_mut().zip(&tables.bands[self.tract as usize]) {
            let bins = self.spectrum[band.first..].iter().zip(&band.weights);
            let power: f32 = bins.map(|(bin, weight)| bin.norm_sqr() * weight).sum();
            sum += power;
            *feature = (power + FLOOR).ln();
        }
        let heard = (sum / BANDS as f32 + FLOOR).ln();
        self.level = if heard > self.level {
            self.level + ATTACK * (heard - self.level)
        } else {
            (self.level - RELEASE).max(LEVEL_MIN)
        };
        for feature in &mut self.features {
            *feature = ((*feature - self.level) / 4.0 + 2.0).clamp(-1.0, 4.0);
        }
    }
}

impl Drop for Mel {
    fn drop(&mut self) {
        self.sound.zeroize();
        self.windowed.zeroize();
        self.features.zeroize();
        let wipe = |bins: &mut [Complex<f32>]| {
            bins.iter_mut().for_each(|bin| (bin.re.zeroize(), bin.im.zeroize()).1);
        };
        wipe(&mut self.spectrum);
        wipe(&mut self.scratch);
    }
}

struct Tables {
    fft: Arc<dyn RealToComplex<f32>>,
    /// Hann, periodic.
    window: [f32; WINDOW],
    /// By tract.
    bands: [Vec<Band>; WARPS.len()],
}

/// A triangle over the spectrum.
struct Band {
    first: usize,
    weights: Vec<f32>,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let hann = |n: usize| 0.5 - 0.5 * (TAU * n as f32 / WINDOW as f32).cos();
    Tables {
        fft: RealFftPlanner::new().plan_fft_forward(FFT),
        window: std::array::from_fn(hann),
        bands: WARPS.map(|warp| (0..BANDS).map(|nth| band(nth, warp)).collect()),
    }
});

/// In f64, as both sides compute it once. All edges are `warp` times as high, as far as there is a
/// spectrum.
fn band(nth: usize, warp: f64) -> Band {
    let mel = |hz: f64| 2595.0 * (1.0 + hz / 700.0).log10();
    let hz = |mel: f64| 700.0 * (10f64.powf(mel / 2595.0) - 1.0);
    let (low, high) = (mel(f64::from(LOW_HZ)), mel(f64::from(HIGH_HZ)));
    let part = |nth: usize| nth as f64 / (BANDS + 1) as f64;
    let edge =
        |nth: usize| (warp * hz(low + (high - low) * part(nth))).min(3900.0 + 100.0 * part(nth));
    let (left, middle, right) = (edge(nth), edge(nth + 1), edge(nth + 2));
    let weight = |bin: usize| {
        let hz = bin as f64 * 8000.0 / FFT as f64;
        ((hz - left) / (middle - left)).min((right - hz) / (right - middle)).max(0.0) as f32
    };
    let weights: Vec<f32> = (0..BINS).map(weight).collect();
    let first = weights.iter().position(|weight| *weight > 0.0).unwrap_or(0);
    let last = weights.iter().rposition(|weight| *weight > 0.0).unwrap_or(0);
    Band { first, weights: weights[first..=last].to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(sound: &[i16], piece: usize) -> Vec<[f32; BANDS]> {
        let mut mel = Mel::new(Tract::Usual);
        let mut all = vec![];
        sound.chunks(piece).for_each(|piece| mel.push(piece, |features| all.push(*features)));
        all
    }

    #[test]
    fn a_vector_comes_every_10_ms_once_its_25_are_there() {
        let sound: Vec<i16> = (0..1600).map(|n| ((n * 7919) % 2000 - 1000) as i16).collect();
        assert_eq!(features(&sound[..199], 199).len(), 0);
        assert_eq!(features(&sound[..200], 200).len(), 1);
        let whole = features(&sound, 1600);
        assert_eq!(whole.len(), (1600 - 200) / 80 + 1);
        for piece in [1, 7, 80, 160, 333] {
            assert!(features(&sound, piece) == whole, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_tone_stands_out_in_its_band_whatever_its_level() {
        for amplitude in [300.0, 3000.0, 30000.0] {
            let tone = |n: i32| (amplitude * (TAU * 1000.0 * n as f32 / 8000.0).sin()) as i16;
            let sound: Vec<i16> = (0..8000).map(tone).collect();
            let last = *features(&sound, 160).last().unwrap();
            let loudest = (0..BANDS).max_by(|a, b| last[*a].total_cmp(&last[*b])).unwrap();
            assert!((11..=14).contains(&loudest), "band {loudest}");
            assert!((2.0..=4.0).contains(&last[loudest]), "{}", last[loudest]);
        }
    }

    #[test]
    fn the_shorter_a_tract_the_higher_its_bands() {
        use Tract::*;
        let longest_first = [Longest, Longer, Long, Usual, Short, Shorter, Shortest];
        let first = longest_first.map(|tract| TABLES.bands[tract as usize][BANDS - 4].first);
        assert!(first.is_sorted_by(|a, b| a < b), "{first:?}");
    }

    #[test]
    fn silence_is_the_floor() {
        let last = *features(&[0; 1600], 160).last().unwrap();
        let floor = (FLOOR.ln() - LEVEL_MIN) / 4.0 + 2.0;
        assert!(last.iter().all(|value| (value - floor.max(-1.0)).abs() < 1e-5));
    }
}
