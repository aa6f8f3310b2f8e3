//! Keys pressed into a prompt of ours that comes back from the line.

use super::*;
use crate::media::digit::{HIGH_HZ, LOW_HZ};

const RADIANS: f32 = std::f32::consts::TAU / 8000.0;

/// Something like a voice: harmonics whose pitch and strength waver, with breath.
fn prompt(len: usize) -> Vec<u8> {
    let (mut phase, mut random) = (0.0f32, 1u32);
    let sample = |n: usize| {
        let t = n as f32 / 8000.0;
        phase += RADIANS * (150.0 + 30.0 * (t * 2.1).sin());
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let voice: f32 = (1..18)
            .map(|h| (phase * h as f32).sin() * (t * 3.0 * (1.0 + h as f32 * 0.37)).sin() / 4.0)
            .sum();
        let breath = (random >> 8) as f32 / (1 << 23) as f32 - 1.0;
        let value = 3000.0 * (voice * (t * 9.0).sin().abs() + 0.2 * breath);
        codec::encode(Law::Mu, value as i16)
    };
    (0..len).map(sample).collect()
}

/// `keys`, 70 ms each 140 ms from one second on, over the prompt's echo 50 ms late, 6 dB down:
/// louder than a tone.
fn line(sent: &[u8], keys: &str) -> Vec<u8> {
    let echo = |n: usize| {
        let at = |back: usize| {
            let code = n.checked_sub(400 + back).map_or(0xff, |at| sent[at]);
            f32::from(codec::decode(Law::Mu, code))
        };
        0.4 * at(0) - 0.25 * at(3) + 0.2 * at(9)
    };
    let tone = |n: usize| {
        let key = n.checked_sub(8000).and_then(|n| keys.chars().nth(n / 1120));
        let Some(key) = key.filter(|_| (n - 8000) % 1120 < 560) else { return 0.0 };
        let (row, column) = Digit::from_key(key).unwrap().place();
        let wave = |hz: f32| 1200.0 * (hz * RADIANS * n as f32).sin();
        wave(LOW_HZ[row]) + wave(HIGH_HZ[column])
    };
    (0..sent.len()).map(|n| codec::encode(Law::Mu, (echo(n) + tone(n)) as i16)).collect()
}

/// The keys heard, and how many tones seemed to begin.
fn heard(sent: Option<&[u8]>, sound: &[u8]) -> (String, usize) {
    let mut ear = Ear::new(false);
    let (mut keys, mut begun) = (String::new(), 0);
    for (nth, payload) in sound.chunks(SAMPLES).enumerate() {
        if let Some(sent) = sent {
            ear.sent(Law::Mu, sent[nth * SAMPLES..][..SAMPLES].try_into().unwrap());
        }
        let unit = Unit::Audio { payload_type: 0, timestamp: nth as u32 * 160, payload };
        ear.hear(unit, Law::Mu, true, None, |sound| match sound {
            Sound::Tone { digit, .. } => keys.push(char::from(digit.expose())),
            Sound::Begun => begun += 1,
            Sound::Frame(_) | Sound::Speech(_) => {}
        });
    }
    (keys, begun)
}

const KEYS: &str = "1234567890*#4111111111111111";

#[test]
fn keys_are_heard_through_the_echo_of_our_own_prompt() {
    let sent = prompt(SAMPLES * 280);
    let sound = line(&sent, KEYS);
    assert_eq!(heard(Some(&sent), &sound).0, KEYS);
    assert_ne!(heard(None, &sound).0, KEYS, "the echo is loud enough to matter");
}

#[test]
fn what_begins_and_is_no_key_is_told_as_begun_and_nothing_follows() {
    let silence = vec![0xff; SAMPLES * 280];
    let mut sound = line(&silence, KEYS);
    assert_eq!(heard(None, &sound).0, KEYS);
    assert!(heard(None, &sound).1 > KEYS.len() / 2);
    // Each key breaks off after 18 ms.
    for start in (8000..sound.len() - 1120).step_by(1120) {
        sound[start + 144..start + 1120].fill(0xff);
    }
    let (keys, begun) = heard(None, &sound);
    assert_eq!(keys, "");
    assert!(begun > KEYS.len() / 2, "{begun}");
}
