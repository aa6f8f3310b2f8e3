//! From the telephone's 8 kHz to Whisper's 16: every other sample is what a low-pass filter makes
//! of its neighbours.

use std::f32::consts::PI;

/// Neighbours on each side.
const REACH: usize = 16;

/// Writes `sound` at twice its rate, -1 to 1, to the beginning of `wide`, as far as it has room.
pub fn double(sound: &[i16], wide: &mut [f32]) {
    let weights: [f32; REACH] = std::array::from_fn(|nth| {
        // The ideal filter halfway between samples, under a Hann window.
        let away = nth as f32 + 0.5;
        let window = 0.5 + 0.5 * (PI * away / REACH as f32).cos();
        (PI * away).sin() / (PI * away) * window
    });
    let at = |nth: isize| {
        let sample = usize::try_from(nth).ok().and_then(|nth| sound.get(nth));
        sample.map_or(0.0, |sample| f32::from(*sample) / 32_768.0)
    };
    for (nth, pair) in wide.chunks_exact_mut(2).take(sound.len()).enumerate() {
        let here = nth as isize;
        let between = (0..REACH as isize).zip(weights);
        pair[0] = at(here);
        pair[1] =
            between.map(|(away, weight)| weight * (at(here - away) + at(here + 1 + away))).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_stays_itself() {
        for hertz in [200.0, 1_000.0, 3_000.0] {
            let wave = |nth: usize, rate: f32| (2.0 * PI * hertz * nth as f32 / rate).sin();
            let sound: Vec<i16> =
                (0..800).map(|nth| (wave(nth, 8_000.0) * 16_384.0) as i16).collect();
            let mut wide = vec![0.0; 1_600];
            double(&sound, &mut wide);
            let middle = 100..1_500;
            let error = middle.clone().map(|nth| (wide[nth] - 0.5 * wave(nth, 16_000.0)).abs());
            let error = error.fold(0.0, f32::max);
            assert!(error < 0.005, "{hertz} Hz: off by {error}");
        }
    }
}
