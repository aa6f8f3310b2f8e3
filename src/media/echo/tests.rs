//! Something like a voice, sent, and what comes back of it.

use std::f32::consts::TAU;

use super::*;

/// A deterministic source of chance, -1 to 1.
struct Chance(u32);

impl Chance {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Syllables of voice and of breath, with pauses.
fn voice(seed: u32, seconds: usize) -> Vec<f32> {
    let mut chance = Chance(seed);
    let mut phase = 0.0f32;
    let pitch = 150.0 + 50.0 * chance.next();
    let mut formants = [(500.0, 1500.0); 1];
    (0..seconds * 8000)
        .map(|n| {
            let t = n as f32 / 8000.0;
            if n % 1600 == 0 {
                formants[0] = (500.0 + 250.0 * chance.next(), 1600.0 + 600.0 * chance.next());
            }
            phase += TAU * (pitch + 20.0 * (t * 1.3).sin()) / 8000.0;
            let near = |hz: f32, at: f32| 1.0 / (1.0 + ((hz - at) / 90.0).powi(2));
            let voiced: f32 = (1..20)
                .map(|h| {
                    let hz = h as f32 * 140.0;
                    let gain = near(hz, formants[0].0) + 0.5 * near(hz, formants[0].1);
                    gain * (phase * h as f32).sin()
                })
                .sum();
            let syllable = (t * 12.0).sin().max(0.0);
            let breath = 0.3 * chance.next() * (t * 12.0 + 2.0).sin().max(0.0);
            0.1 * (voiced * syllable + breath)
        })
        .collect()
}

fn encoded(sound: &[f32]) -> Vec<u8> {
    sound.iter().map(|&value| codec::encode(Law::Mu, (value * 32767.0) as i16)).collect()
}

fn decoded(codes: &[u8]) -> Vec<f32> {
    codes.iter().map(|&code| f32::from(codec::decode(Law::Mu, code)) / 32768.0).collect()
}

/// An echo through a path of 4 ms, `delay` samples late.
fn echo(sent: &[f32], delay: usize, gain: f32, seed: u32) -> Vec<f32> {
    let mut chance = Chance(seed);
    let path: Vec<f32> =
        (0..32).map(|tap| gain * chance.next() * (-(tap as f32) / 8.0).exp()).collect();
    let at = |n: usize, tap: usize| n.checked_sub(delay + tap).map_or(0.0, |at| sent[at]);
    (0..sent.len()).map(|n| path.iter().enumerate().map(|(tap, h)| h * at(n, tap)).sum()).collect()
}

/// Runs a call; the energy heard and what is left of it in each second.
fn run(sent: &[u8], heard: &[u8], first_timestamp: u32) -> Vec<[f32; 2]> {
    let mut canceller = Canceller::new();
    let mut seconds = vec![[0.0; 2]; heard.len() / 8000];
    for (nth, (ours, theirs)) in sent.chunks(160).zip(heard.chunks(160)).enumerate() {
        canceller.sent(Law::Mu, ours.try_into().unwrap());
        let mut sound = decoded(theirs);
        seconds[nth / 50][0] += power(&sound);
        canceller.remove(first_timestamp.wrapping_add(nth as u32 * 160), &mut sound);
        canceller.learn(false);
        seconds[nth / 50][1] += power(&sound);
    }
    seconds
}

#[test]
fn an_echo_is_gone_within_a_second_whatever_its_delay() {
    for (seed, delay, gain) in [(1, 200, 0.5), (2, 777, 0.2), (3, 1500, 0.8), (4, 30, 0.5)] {
        let sent = encoded(&voice(seed, 4));
        let heard = encoded(&echo(&decoded(&sent), delay, gain, seed));
        // The clock of what is heard wraps meanwhile.
        let seconds = run(&sent, &heard, u32::MAX - 9_999);
        for [before, after] in &seconds[1..] {
            assert!(*after < before / 100.0, "seed {seed}, {delay} samples: {seconds:?}");
        }
    }
}

#[test]
fn what_is_no_echo_stays_as_it_is() {
    let sent = encoded(&voice(1, 3));
    let heard = encoded(&voice(2, 3));
    for [before, after] in run(&sent, &heard, 0) {
        assert!((after / before - 1.0).abs() < 0.02, "{before} {after}");
    }
    // Neither does a recording vanish that is given as what was sent.
    for [before, after] in run(&sent, &sent, 0) {
        assert_eq!(before, after);
    }
}

#[test]
fn an_echo_whose_path_changes_is_found_again() {
    let sent = encoded(&voice(5, 8));
    let mut heard = echo(&decoded(&sent), 400, 0.5, 1);
    heard[16_000..].copy_from_slice(&echo(&decoded(&sent), 900, 0.4, 2)[16_000..]);
    let seconds = run(&sent, &encoded(&heard), 0);
    for second in [1, 7] {
        let [before, after] = seconds[second];
        assert!(after < before / 100.0, "second {second}: {seconds:?}");
    }
}

#[test]
fn nothing_is_learned_from_frames_with_tones() {
    let sent = encoded(&voice(1, 2));
    let heard = encoded(&echo(&decoded(&sent), 400, 0.5, 1));
    let mut canceller = Canceller::new();
    for (nth, (ours, theirs)) in sent.chunks(160).zip(heard.chunks(160)).enumerate() {
        canceller.sent(Law::Mu, ours.try_into().unwrap());
        let mut sound = decoded(theirs);
        canceller.remove(nth as u32 * 160, &mut sound);
        assert_eq!(sound, decoded(theirs));
        // A tone in every other frame leaves none without a neighbour that has one.
        canceller.learn(nth % 2 == 0);
    }
}

#[test]
fn a_quiet_line_is_not_searched_and_a_loud_one_is() {
    let searched = |rms: f32| {
        let mut canceller = Canceller::new();
        let mut state = 1u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 16) as f32 / 65_536.0 - 0.5) * 12f32.sqrt() * rms
        };
        (0..100u32).any(|nth| {
            canceller.sent(Law::Mu, &[0x90; SAMPLES]);
            let mut sound: [f32; SAMPLES] = std::array::from_fn(|_| noise());
            canceller.remove(nth * SAMPLES as u32, &mut sound);
            canceller.learn(false);
            !matches!(canceller.state, State::Resting(_))
        })
    };
    let rms = SEARCHED_MIN.sqrt();
    assert!(!searched(rms * 0.8), "-47 dBm0");
    assert!(searched(rms * 1.3), "-43 dBm0");
}
