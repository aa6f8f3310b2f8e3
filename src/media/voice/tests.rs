//! Voices, tones and noise made here: what begins speech, and what does not.

use std::f32::consts::TAU;

use super::*;
use crate::media::codec;
use crate::media::echo::Canceller;
use crate::sip::offer::Law;

/// A small generator: no two runs differ.
struct Chance(u64);

impl Chance {
    /// -1 to 1.
    fn next(&mut self) -> f32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f32 / (1u64 << 30) as f32 - 1.0
    }
}

/// A vowel with falling pitch and three formants; mean level about -20 dB of full scale.
fn vowel(ms: usize, pitch: f32) -> Vec<f32> {
    let mut phase = 0.0;
    (0..ms * 8)
        .map(|n| {
            let t = n as f32 / (ms * 8) as f32;
            phase += TAU * pitch * (1.1 - 0.2 * t) / 8000.0;
            let near = |hz: f32, at: f32, width: f32| 1.0 / (1.0 + ((hz - at) / width).powi(2));
            let voice: f32 = (1..=(3400.0 / pitch) as usize)
                .map(|harmonic| {
                    let hz = harmonic as f32 * pitch;
                    let gain = near(hz, 600.0, 80.0)
                        + 0.6 * near(hz, 1300.0, 100.0)
                        + 0.2 * near(hz, 2500.0, 150.0);
                    gain * (phase * harmonic as f32).sin()
                })
                .sum();
            0.09 * voice * (t * 10.0).min((1.0 - t) * 10.0).min(1.0)
        })
        .collect()
}

fn noise(ms: usize, level_db: f32, chance: &mut Chance) -> Vec<f32> {
    // Uniform noise has a third of its peak's power.
    let peak = (3.0 * 10f32.powf(level_db / 10.0)).sqrt();
    (0..ms * 8).map(|_| peak * chance.next()).collect()
}

fn tones(ms: usize, hz: &[f32]) -> Vec<f32> {
    let wave = |n: usize| hz.iter().map(|hz| 0.15 * (TAU * hz * n as f32 / 8000.0).sin()).sum();
    (0..ms * 8).map(wave).collect()
}

/// As it comes over the wire.
fn coded(sound: &[f32]) -> Vec<i16> {
    let code = |sample: &f32| codec::encode(Law::Mu, (sample * 32767.0) as i16);
    sound.iter().map(|sample| codec::decode(Law::Mu, code(sample))).collect()
}

/// After how many milliseconds speech has begun.
fn begins(sound: &[f32]) -> Option<usize> {
    let mut voice = Voice::new();
    for (nth, frame) in coded(sound).as_chunks::<SAMPLES>().0.iter().enumerate() {
        voice.hear(frame, Line::default());
        if voice.has_begun() {
            return Some((nth + 1) * 20);
        }
    }
    None
}

fn mixed(mut a: Vec<f32>, b: &[f32]) -> Vec<f32> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    a
}

#[test]
fn speech_has_begun_300_ms_after_it_began() {
    let chance = &mut Chance(1);
    for level in [-90.0, -50.0, -35.0, -30.0] {
        for pitch in [90.0, 130.0, 220.0] {
            let speech = [vec![0.0; 16_000], vowel(400, pitch), vec![0.0; 4000]].concat();
            let noise = noise(speech.len() / 8, level, chance);
            let ms = begins(&mixed(speech, &noise)).map(|ms| ms as i64 - 2000);
            assert!(
                ms.is_some_and(|ms| (60..=300).contains(&ms)),
                "{ms:?} at {level} dB, {pitch} Hz"
            );
        }
    }
}

#[test]
fn noise_tones_and_clicks_are_no_speech() {
    let chance = &mut Chance(2);
    for level in [-60.0, -45.0, -35.0, -25.0] {
        let begun = begins(&noise(20_000, level, chance));
        assert_eq!(begun, None, "noise of {level} dB");
    }
    for hz in [
        &[440.0, 480.0][..],
        &[350.0, 440.0],
        &[697.0, 1209.0],
        &[941.0, 1477.0],
        &[480.0, 620.0],
        &[425.0],
        &[1100.0],
        &[2100.0],
    ] {
        let ringing = [vec![0.0; 8000], tones(2000, hz), vec![0.0; 8000], tones(2000, hz)].concat();
        assert_eq!(begins(&ringing), None, "{hz:?} Hz");
        let noisy = noise(ringing.len() / 8, -50.0, chance);
        assert_eq!(begins(&mixed(ringing, &noisy)), None, "{hz:?} Hz and noise");
    }
    let mut clicks = noise(4000, -50.0, chance);
    clicks.iter_mut().step_by(4000).for_each(|sample| *sample = 0.9);
    assert_eq!(begins(&clicks), None);
}

#[test]
fn silence_is_counted_from_the_end_of_speech() {
    let mut voice = Voice::new();
    let sound = [vowel(400, 120.0), vec![0.0; 8000]].concat();
    for frame in coded(&sound).as_chunks::<SAMPLES>().0 {
        voice.hear(frame, Line::default());
    }
    assert!((1000..=1080).contains(&voice.quiet_ms()), "{}", voice.quiet_ms());
    assert!(!voice.is_active());
}

/// Words with pauses, as a prompt.
fn prompt(words: usize, pitch: f32) -> Vec<f32> {
    (0..words)
        .flat_map(|nth| {
            [vowel(250 + nth % 3 * 60, pitch + (nth % 5) as f32 * 7.0), vec![0.0; 480]].concat()
        })
        .collect()
}

/// Our own prompt comes back `loss` decibels weaker; the caller speaks at `at_ms`, if at all. When
/// speech has begun.
fn with_echo(loss: f32, at_ms: Option<usize>, cancelled: bool) -> Option<usize> {
    let sent = prompt(30, 170.0);
    let mut heard = vec![0.0; sent.len()];
    let gain = 10f32.powf(-loss / 20.0);
    for (n, sample) in sent.iter().enumerate() {
        for (delay, part) in [(240, 0.8), (251, -0.4), (300, 0.2)] {
            if let Some(place) = heard.get_mut(n + delay) {
                *place += gain * part * sample;
            }
        }
    }
    if let Some(ms) = at_ms {
        for (place, sample) in heard[ms * 8..].iter_mut().zip(vowel(500, 110.0)) {
            *place += sample;
        }
    }
    let heard = coded(&mixed(heard, &noise(sent.len() / 8, -52.0, &mut Chance(3))));
    let (mut canceller, mut voice) = (Canceller::new(), Voice::new());
    for (nth, (ours, theirs)) in
        sent.chunks_exact(SAMPLES).zip(heard.as_chunks::<SAMPLES>().0).enumerate()
    {
        let codes: [u8; SAMPLES] =
            std::array::from_fn(|n| codec::encode(Law::Mu, (ours[n] * 32767.0) as i16));
        canceller.sent(Law::Mu, &codes);
        let mut sound = theirs.map(|sample| f32::from(sample) / 32768.0);
        if cancelled {
            canceller.remove((nth * SAMPLES) as u32, &mut sound);
            canceller.learn(false);
        }
        let line = Line { tone: false, sent: dot(ours, ours) / SAMPLES as f32 };
        voice.hear(&sound.map(|sample| (sample * 32768.0) as i16), line);
        if voice.has_begun() {
            return Some((nth + 1) * 20);
        }
    }
    None
}

#[test]
fn our_own_echo_is_no_speech_and_the_caller_is_heard_over_it() {
    for loss in [10.0, 14.0, 18.0, 24.0] {
        for cancelled in [false, true] {
            assert_eq!(with_echo(loss, None, cancelled), None, "{loss} dB, {cancelled}");
        }
        for at_ms in [3000, 5000] {
            let begun = with_echo(loss, Some(at_ms), true).map(|ms| ms as i64 - at_ms as i64);
            assert!(begun.is_some_and(|ms| (0..=300).contains(&ms)), "{loss} dB: {begun:?} ms");
        }
    }
}
