//! What lines, gateways and rooms add to keys, or leave of them.

use super::*;

const LONG: Keying = Keying { on_ms: 100.0, off_ms: 100.0, ..PLAIN };

fn add(sound: &mut [f32], what: impl Fn(f32) -> f32) {
    sound.iter_mut().enumerate().for_each(|(n, value)| *value += what(n as f32 / 8000.0));
}

fn sine(dbm0: f32, hz: f32, seconds: f32) -> f32 {
    amplitude(dbm0) * (TAU * hz * seconds).sin()
}

#[test]
fn an_overdriven_line_clips_keys_and_they_are_heard() {
    let keying = Keying { low_dbm0: 3.0, high_dbm0: 3.0, ..PLAIN };
    assert_heard(keying, "+3 dBm0 each");
}

#[test]
fn crackle_and_hum() {
    for seed in 0..4 {
        let chance = &mut Chance(seed);
        let mut sound = keyed(ALL, Keying { on_ms: 60.0, off_ms: 60.0, ..PLAIN }, chance);
        for _ in 0..sound.len() * 6 / 8000 {
            let at = chance.within(0.0, sound.len() as f32 - 24.0) as usize;
            let sign = if chance.next() < 0.5 { -1.0 } else { 1.0 };
            for n in 0..chance.within(1.0, 24.0) as usize {
                sound[at + n] += sign * amplitude(-3.0) * (-(n as f32) / 6.0).exp();
            }
        }
        assert_eq!(heard(Law::Mu, &sound), ALL, "crackle, seed {seed}");
        let mut sound = keyed(ALL, PLAIN, chance);
        for (times, dbm0) in [(1.0, -20.0), (3.0, -26.0), (5.0, -32.0)] {
            add(&mut sound, |t| sine(dbm0, 50.0 * times, t));
        }
        assert_eq!(heard(Law::Mu, &sound), ALL, "hum, seed {seed}");
    }
}

#[test]
fn a_third_tone_16_db_down() {
    for seed in 0..8 {
        let chance = &mut Chance(seed);
        let mut sound = keyed(ALL, PLAIN, chance);
        let hz = chance.within(300.0, 3400.0);
        add(&mut sound, |t| sine(-26.0, hz, t));
        assert_eq!(heard(Law::Mu, &sound), ALL, "{hz} Hz, seed {seed}");
    }
}

#[test]
fn someone_speaks_meanwhile() {
    for seed in 0..4 {
        let chance = &mut Chance(seed);
        let mut sound = keyed(ALL, Keying { on_ms: 80.0, off_ms: 80.0, ..PLAIN }, chance);
        let mut at = 0;
        while at < sound.len() {
            // A vowel's loudest is at 0.05 to 0.7 of full scale.
            for value in vowel(chance, 250.0) {
                if let Some(sample) = sound.get_mut(at) {
                    *sample += 0.04 * value;
                }
                at += 1;
            }
        }
        assert_eq!(heard(Law::Mu, &sound), ALL, "seed {seed}");
    }
}

#[test]
fn both_laws_in_tandem() {
    for seed in 0..4 {
        let sound = keyed(ALL, PLAIN, &mut Chance(seed));
        let again: Vec<f32> = encoded(Law::A, &sound)
            .iter()
            .map(|&code| f32::from(codec::decode(Law::A, code)) / 32768.0)
            .collect();
        assert_eq!(heard(Law::Mu, &again), ALL, "seed {seed}");
    }
}

/// What a gateway before us does about frames that were lost to it.
fn concealed(sound: &[f32], lost: impl Fn(usize) -> bool, how: &str) -> Vec<f32> {
    let mut out: Vec<f32> = vec![];
    for (nth, frame) in sound.chunks(160).enumerate() {
        match how {
            _ if !lost(nth) => out.extend(frame),
            "silence" => out.extend(vec![0.0; frame.len()]),
            "repeat" => out.extend(out[out.len().saturating_sub(160)..].to_vec()),
            _ => {}
        }
    }
    out
}

#[test]
fn frames_lost_upstream_neither_double_nor_hide_a_key() {
    for how in ["silence", "repeat", "leave out"] {
        for nth in 0..46 {
            let sound = keyed(ALL, LONG, &mut Chance(nth as u32));
            // One frame in 23, then two in a row.
            let lost = |frame: usize| frame % 23 == nth % 23 || nth >= 23 && frame % 23 == nth % 22;
            let keys = heard(Law::Mu, &concealed(&sound, lost, how));
            assert_eq!(keys, ALL, "{how}, frame {nth}");
        }
    }
}

#[test]
fn two_frames_of_silence_in_a_key_are_a_loss_and_between_two_keys_a_pause() {
    for seed in 0..20 {
        let key = Keying { on_ms: 120.0, off_ms: 0.0, ..PLAIN };
        let one = keyed("5", key, &mut Chance(seed));
        let mut torn = one.clone();
        torn[800 + 320..800 + 640].fill(0.0);
        assert_eq!(heard(Law::Mu, &torn), "5", "seed {seed}");
        // The same length, but what follows is pressed anew, half a turn later.
        let mut two = torn;
        two[800 + 640..].iter_mut().for_each(|value| *value = -*value);
        assert_eq!(heard(Law::Mu, &two), "55", "seed {seed}");
    }
}

#[test]
fn samples_left_out_or_played_twice_within_a_key() {
    for seed in 0..8 {
        for twice in [false, true] {
            let chance = &mut Chance(seed);
            let sound = keyed("1", LONG, chance);
            let at = 800 + chance.within(160.0, 640.0) as usize;
            let by = chance.within(1.0, 80.0) as usize;
            let rest = if twice { at - by } else { at + by };
            let slipped = [&sound[..at], &sound[rest..]].concat();
            assert_eq!(heard(Law::Mu, &slipped), "1", "seed {seed}, {by} samples, {twice}");
        }
    }
}

#[test]
fn bursts_of_23_ms_whose_tones_cancel_at_both_ends_are_no_keys() {
    for seed in 0..40 {
        let keying = Keying { on_ms: 23.0, off_ms: 70.0, ..PLAIN };
        let sound = keyed("**********", keying, &mut Chance(seed));
        assert_eq!(heard(Law::Mu, &sound), "", "seed {seed}");
    }
}

#[test]
fn chords_tones_of_machines_and_noise_are_no_keys() {
    let chance = &mut Chance(8);
    let mut detector = Detector::new();
    let mut hear = |sound: &[f32], about: &str| {
        for frame in encoded(Law::Mu, sound).chunks(160) {
            assert_eq!(detector.push(Law::Mu, frame), None, "{about}");
        }
    };
    for _ in 0..600 {
        let root = 110.0 * 2f32.powi(chance.within(0.0, 3.0) as i32);
        let fade = chance.within(0.5, 8.0);
        let mut sound = vec![0.0; 2400];
        for step in [0.0, 3.0 + chance.next().round(), 7.0, 12.0, 16.0] {
            for harmonic in 1..=8 {
                let hz = root * 2f32.powf(step / 12.0) * harmonic as f32;
                let level = chance.within(-30.0, -12.0) - 6.0 * (harmonic as f32).log2();
                if hz < 3600.0 {
                    add(&mut sound, |t| (-t * fade).exp() * sine(level, hz, t));
                }
            }
        }
        hear(&sound, &format!("chord on {root} Hz"));
    }
    for tones in
        [[480.0, 620.0], [1100.0, 1100.0], [2100.0, 2100.0], [700.0, 900.0], [900.0, 1500.0]]
    {
        let mut sound = vec![0.0; 4000];
        tones.iter().for_each(|&hz| add(&mut sound, |t| sine(-12.0, hz, t)));
        hear(&sound, &format!("{tones:?} Hz"));
        hear(&[0.0; 800], "silence");
    }
    let noise: Vec<f32> = (0..240_000).map(|_| 0.15 * chance.normal()).collect();
    hear(&noise, "noise");
}

#[test]
fn a_key_is_suspected_before_it_is_told_and_a_voice_is_not() {
    let mut detector = Detector::new();
    let (mut suspected, mut told, mut ahead) = (0, 0, 0);
    let mut waits = false;
    for frame in encoded(Law::Mu, &keyed(ALL, PLAIN, &mut Chance(1))).chunks(160) {
        if detector.push(Law::Mu, frame).is_some() {
            told += 1;
            ahead += usize::from(waits);
            waits = false;
        } else if detector.begins() {
            suspected += 1;
            waits = true;
        }
    }
    assert_eq!((told, ahead), (ALL.len(), suspected), "each suspicion was right");
    // With frames of 20 ms more than half are suspected a frame before they are told.
    assert!(ahead * 2 > told, "{ahead} of {told}");
    let chance = &mut Chance(20);
    for _ in 0..1000 {
        let ms = chance.within(60.0, 340.0);
        for frame in encoded(Law::Mu, &vowel(chance, ms)).chunks(160) {
            detector.push(Law::Mu, frame);
            assert!(!detector.begins());
        }
    }
}
