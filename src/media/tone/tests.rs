//! Keyed digits as the line may bend them, and voices that must not be taken for keys.

use super::judge::FULL_SCALE_DBM0;
use super::*;

mod line;
mod noise;
mod quiet;

/// A deterministic source of chance.
struct Chance(u32);

impl Chance {
    /// 0 to 1.
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as f32 / (1 << 24) as f32
    }

    fn within(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.next()
    }

    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.next()).sum::<f32>() - 6.0
    }
}

#[derive(Clone, Copy)]
struct Keying {
    on_ms: f32,
    off_ms: f32,
    low_dbm0: f32,
    high_dbm0: f32,
    /// Relative frequency error of each tone.
    low_off: f32,
    high_off: f32,
}

const PLAIN: Keying = Keying {
    on_ms: 50.0,
    off_ms: 50.0,
    low_dbm0: -10.0,
    high_dbm0: -10.0,
    low_off: 0.0,
    high_off: 0.0,
};

const ALL: &str = "123A456B789C*0#D5599";

fn amplitude(dbm0: f32) -> f32 {
    10f32.powf((dbm0 - FULL_SCALE_DBM0) / 20.0)
}

/// Keys at every alignment to the hops and frames: the pauses vary by up to 13 ms.
fn keyed(keys: &str, keying: Keying, chance: &mut Chance) -> Vec<f32> {
    let mut sound = vec![0.0; 800];
    for key in keys.chars() {
        let (row, column) = Digit::from_key(key).unwrap().place();
        let turn = [
            TONES[row] * (1.0 + keying.low_off) * TAU / 8000.0,
            TONES[4 + column] * (1.0 + keying.high_off) * TAU / 8000.0,
        ];
        let amplitudes = [amplitude(keying.low_dbm0), amplitude(keying.high_dbm0)];
        let phases = [chance.within(0.0, TAU), chance.within(0.0, TAU)];
        for n in 0..(keying.on_ms * 8.0) as usize {
            let wave = |i: usize| amplitudes[i] * (turn[i] * n as f32 + phases[i]).sin();
            sound.push(wave(0) + wave(1));
        }
        let pause = keying.off_ms + chance.within(0.0, 13.0);
        sound.extend(vec![0.0; (pause * 8.0) as usize]);
    }
    sound.extend(vec![0.0; 800]);
    sound
}

fn encoded(law: Law, sound: &[f32]) -> Vec<u8> {
    sound.iter().map(|&value| codec::encode(law, (value * 32767.0) as i16)).collect()
}

fn heard(law: Law, sound: &[f32]) -> String {
    heard_without(law, sound, |_| false)
}

/// Frames for which `lost` is true never come, and the detector is told.
fn heard_without(law: Law, sound: &[f32], lost: impl Fn(usize) -> bool) -> String {
    let mut detector = Detector::new();
    let mut keys = String::new();
    for (nth, frame) in encoded(law, sound).chunks(160).enumerate() {
        if lost(nth) {
            detector.lose(frame.len() as u32);
        } else if let Some(hit) = detector.push(law, frame) {
            keys.push(char::from(hit.digit.expose()));
        }
    }
    keys
}

fn assert_heard(keying: Keying, about: &str) {
    for law in [Law::Mu, Law::A] {
        for seed in 0..4 {
            let sound = keyed(ALL, keying, &mut Chance(seed));
            assert_eq!(heard(law, &sound), ALL, "{about}, {law:?}, seed {seed}");
        }
    }
}

#[test]
fn keys_from_40_to_100_ms_in_both_laws() {
    for ms in [40.0, 46.5, 50.0, 65.0, 100.0] {
        assert_heard(Keying { on_ms: ms, off_ms: ms, ..PLAIN }, &format!("{ms} ms"));
    }
}

#[test]
fn levels_from_0_to_minus_29_dbm0() {
    for level in [0.0, -3.0, -10.0, -20.0, -25.0, -29.0] {
        let keying = Keying { low_dbm0: level, high_dbm0: level, ..PLAIN };
        assert_heard(keying, &format!("{level} dBm0"));
    }
}

#[test]
fn nothing_at_minus_45_dbm0_and_below() {
    for level in [-45.0, -55.0] {
        let keying = Keying { low_dbm0: level, high_dbm0: level, ..PLAIN };
        assert_eq!(heard(Law::Mu, &keyed(ALL, keying, &mut Chance(1))), "");
    }
}

#[test]
fn frequencies_within_one_and_a_half_percent() {
    for (low_off, high_off) in [(1, 1), (-1, -1), (1, -1), (-1, 1), (1, 0), (0, -1)] {
        let (low_off, high_off) = (low_off as f32 * 0.015, high_off as f32 * 0.015);
        let keying = Keying { low_off, high_off, ..PLAIN };
        assert_heard(keying, &format!("{low_off} {high_off}"));
    }
}

#[test]
fn frequencies_beyond_three_and_a_half_percent_are_no_keys() {
    for (low_off, high_off) in [(1, 1), (-1, -1), (1, -1), (-1, 0), (1, 0), (0, -1), (0, 1)] {
        let (low_off, high_off) = (low_off as f32 * 0.035, high_off as f32 * 0.035);
        let keying = Keying { low_off, high_off, ..PLAIN };
        let sound = keyed(ALL, keying, &mut Chance(1));
        assert_eq!(heard(Law::Mu, &sound), "", "{low_off} {high_off}");
    }
}

#[test]
fn twist_from_plus_8_to_minus_4_db() {
    for twist in [8.0, 4.0, -4.0, -6.0] {
        let high_dbm0 = -10.0 - twist;
        assert_heard(Keying { high_dbm0, ..PLAIN }, &format!("twist {twist}"));
    }
    for twist in [12.0, -12.0] {
        let (low_dbm0, high_dbm0) = (-12.0, -12.0 - twist);
        let sound = keyed(ALL, Keying { low_dbm0, high_dbm0, ..PLAIN }, &mut Chance(1));
        assert_eq!(heard(Law::Mu, &sound), "", "twist {twist}");
    }
}

#[test]
fn bursts_of_23_ms_are_no_keys() {
    for seed in 0..8 {
        let keying = Keying { on_ms: 23.0, off_ms: 70.0, ..PLAIN };
        let sound = keyed(ALL, keying, &mut Chance(seed));
        assert_eq!(heard(Law::Mu, &sound), "", "seed {seed}");
    }
}

#[test]
fn breaks_of_10_ms_do_not_double() {
    for seed in 0..8 {
        let chance = &mut Chance(seed);
        let mut sound = keyed(ALL, Keying { on_ms: 110.0, off_ms: 70.0, ..PLAIN }, chance);
        let mut at = 800;
        while at + 880 < sound.len() {
            // The middle of each tone, wherever it is: silence shows where tones begin.
            let Some(start) = sound[at..].iter().position(|&value| value != 0.0) else { break };
            let from = at + start + chance.within(360.0, 480.0) as usize;
            sound[from..from + 80].fill(0.0);
            at += start + 900;
        }
        assert_eq!(heard(Law::Mu, &sound), ALL, "seed {seed}");
    }
}

#[test]
fn noise_15_db_down() {
    for seed in 0..4 {
        let chance = &mut Chance(seed);
        let mut sound = keyed(ALL, PLAIN, chance);
        let noise = amplitude(-25.0) / 2f32.sqrt();
        sound.iter_mut().for_each(|value| *value += noise * chance.normal());
        assert_eq!(heard(Law::Mu, &sound), ALL, "seed {seed}");
    }
}

#[test]
fn a_lost_packet_neither_doubles_nor_hides_a_key() {
    for (on_ms, off_ms) in [(100.0, 100.0), (80.0, 60.0), (50.0, 50.0)] {
        for nth in 0..200 {
            let sound = keyed(ALL, Keying { on_ms, off_ms, ..PLAIN }, &mut Chance(nth as u32));
            let keys = heard_without(Law::Mu, &sound, |frame| frame % 23 == nth % 23);
            if on_ms > 50.0 {
                assert_eq!(keys, ALL, "{on_ms}/{off_ms} ms, frame {nth}");
            } else {
                // 50 ms less 20 may leave too little; but nothing comes twice or wrong.
                assert!(is_part_of(&keys, ALL), "{on_ms}/{off_ms} ms, frame {nth}: {keys}");
            }
        }
    }
}

#[test]
fn a_packet_played_as_silence_upstream_does_not_double() {
    for nth in 0..40 {
        let keying = Keying { on_ms: 100.0, off_ms: 100.0, ..PLAIN };
        let mut sound = keyed(ALL, keying, &mut Chance(nth as u32));
        for frame in sound.chunks_mut(160).skip(nth % 23).step_by(23) {
            frame.fill(0.0);
        }
        let keys = heard(Law::Mu, &sound);
        assert_eq!(keys, ALL, "frame {nth}");
    }
}

fn is_part_of(keys: &str, all: &str) -> bool {
    let mut rest = all.chars();
    keys.chars().all(|key| rest.any(|other| other == key))
}

#[test]
fn the_same_key_again_after_40_ms_is_two() {
    for seed in 0..8 {
        let keying = Keying { off_ms: 40.0, ..PLAIN };
        let sound = keyed("5555555555", keying, &mut Chance(seed));
        assert_eq!(heard(Law::Mu, &sound), "5555555555", "seed {seed}");
    }
}

#[test]
fn a_long_key_is_one() {
    let sound = keyed("5#", Keying { on_ms: 5000.0, ..PLAIN }, &mut Chance(1));
    assert_eq!(heard(Law::Mu, &sound), "5#");
}

#[test]
fn an_echo_is_no_key() {
    for (delay_ms, gain) in [(20, 0.316), (35, 0.158), (60, 0.2)] {
        let keying = Keying { off_ms: 90.0, ..PLAIN };
        let sound = keyed(ALL, keying, &mut Chance(3));
        let echo = |at: usize| if at < delay_ms * 8 { 0.0 } else { sound[at - delay_ms * 8] };
        let mixed: Vec<f32> = (0..sound.len()).map(|at| sound[at] + gain * echo(at)).collect();
        assert_eq!(heard(Law::Mu, &mixed), ALL, "{delay_ms} ms");
    }
}

#[test]
fn start_is_told_within_5_ms() {
    let chance = &mut Chance(5);
    let sound = keyed(ALL, PLAIN, chance);
    let mut starts = vec![];
    let mut silent = 800;
    for (at, &value) in sound.iter().enumerate() {
        if value != 0.0 && silent > 160 {
            starts.push(at as i64);
        }
        silent = if value == 0.0 { silent + 1 } else { 0 };
    }
    let mut detector = Detector::new();
    let mut told = vec![];
    for (nth, frame) in encoded(Law::Mu, &sound).chunks(160).enumerate() {
        if let Some(hit) = detector.push(Law::Mu, frame) {
            let end = (nth * 160 + frame.len()) as i64;
            told.push(end - i64::from(hit.ago));
            assert!(end - starts[told.len() - 1] <= 47 * 8, "told later than 47 ms");
        }
    }
    assert_eq!(told.len(), starts.len());
    assert!(told.iter().zip(&starts).all(|(told, start)| (told - start).abs() <= 40));
}

/// A vowel: harmonics of a wavering pitch under three formants over a floor, with breath noise.
fn vowel(chance: &mut Chance, ms: f32) -> Vec<f32> {
    let pitch = chance.within(80.0, 280.0);
    let formants = [
        (chance.within(250.0, 950.0), 60.0, 1.0),
        (chance.within(800.0, 2300.0), 90.0, chance.within(0.3, 1.2)),
        (chance.within(2200.0, 3200.0), 140.0, chance.within(0.05, 0.4)),
    ];
    let glide = chance.within(-0.15, 0.15);
    let vibrato = (chance.within(0.0, 0.02), chance.within(3.0, 7.0));
    let len = (ms * 8.0) as usize;
    let harmonics = (3400.0 / pitch) as usize;
    let mut phase = 0.0;
    let mut sound = Vec::with_capacity(len);
    let offsets: Vec<f32> = (0..=harmonics).map(|_| chance.within(0.0, TAU)).collect();
    let gains: Vec<f32> = (0..=harmonics)
        .map(|harmonic| {
            let hz = harmonic as f32 * pitch;
            let near =
                |&(at, width, gain): &(f32, f32, f32)| gain / (1.0 + ((hz - at) / width).powi(2));
            (0.06 + formants.iter().map(near).sum::<f32>()) / (harmonic.max(1) as f32).sqrt()
        })
        .collect();
    for n in 0..len {
        let t = n as f32 / len as f32;
        let waver = vibrato.0 * (TAU * vibrato.1 * n as f32 / 8000.0).sin();
        phase += TAU * pitch * (1.0 + glide * t + waver) / 8000.0;
        let voice: f32 = (1..=harmonics)
            .map(|harmonic| gains[harmonic] * (phase * harmonic as f32 + offsets[harmonic]).sin())
            .sum();
        let envelope = (t * 12.0).min((1.0 - t) * 12.0).min(1.0);
        sound.push(envelope * (voice + 0.01 * chance.normal()));
    }
    let loudest = sound.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let gain = chance.within(0.05, 0.7) / loudest.max(1e-6);
    sound.iter().map(|value| value * gain).collect()
}

#[test]
fn vowels_are_no_keys() {
    // Ten minutes of voice.
    let chance = &mut Chance(20);
    let mut detector = Detector::new();
    let mut hits = 0;
    for _ in 0..3000 {
        let ms = chance.within(60.0, 340.0);
        let sound = vowel(chance, ms);
        for frame in encoded(Law::Mu, &sound).chunks(160) {
            hits += usize::from(detector.push(Law::Mu, frame).is_some());
        }
    }
    assert_eq!(hits, 0);
}

#[test]
fn single_and_triple_tones_are_no_keys() {
    let chance = &mut Chance(4);
    for pair in [[697.0, 770.0], [1209.0, 1477.0], [350.0, 440.0], [480.0, 620.0], [941.0, 2100.0]]
    {
        let mut sound = vec![0.0; 400];
        for third in [0.0, 1336.0] {
            let phase = chance.within(0.0, TAU);
            sound.extend((0..1600).map(|n| {
                let wave = |hz: f32| 0.2 * (TAU * hz * n as f32 / 8000.0 + phase).sin();
                wave(pair[0]) + if third == 0.0 { 0.0 } else { wave(pair[1]) + wave(third) }
            }));
            sound.extend(vec![0.0; 400]);
        }
        assert_eq!(heard(Law::Mu, &sound), "", "{pair:?}");
    }
}

#[test]
fn glides_through_a_pair_are_no_keys() {
    let mut detector = Detector::new();
    for nth in 0..400 {
        let digit = Digit::at(nth, nth / 4);
        let (row, column) = digit.place();
        // One tone rests on the row, the other sweeps across the column, or vice versa.
        let rates = if nth % 2 == 0 { [0.0, 1.6] } else { [-2.2, 0.0] };
        let mut phase = [0.0; 2];
        let mut sound = vec![0.0; 400];
        for n in 0..800 {
            let t = (n - 400) as f32 / 8000.0;
            let mut value = 0.0;
            for (i, nominal) in [TONES[row], TONES[4 + column]].into_iter().enumerate() {
                phase[i] += TAU * nominal * (1.0 + rates[i] * t) / 8000.0;
                // The crossing tone is the weaker: it leaves little in the residual.
                let gain = if rates[i] == 0.0 { 0.3 } else { 0.12 };
                value += gain * f32::sin(phase[i]);
            }
            sound.push(value);
        }
        for frame in encoded(Law::Mu, &sound).chunks(160) {
            assert_eq!(detector.push(Law::Mu, frame), None, "{rates:?} {nth}");
        }
    }
}

#[test]
fn keys_are_heard_through_a_dial_tone() {
    for (lines, gain) in [(&[350.0, 440.0][..], 1.0), (&[425.0], 1.0), (&[400.0], 2.0)] {
        for seed in 0..4 {
            let mut sound = keyed(ALL, PLAIN, &mut Chance(seed));
            let level = gain * amplitude(PLAIN.low_dbm0);
            for (n, value) in sound.iter_mut().enumerate() {
                let wave = |hz: &f32| level * (TAU * hz * n as f32 / 8000.0 + 1.0).sin();
                *value += lines.iter().map(wave).sum::<f32>();
            }
            assert_eq!(heard(Law::Mu, &sound), ALL, "{lines:?} Hz, seed {seed}");
        }
    }
}
