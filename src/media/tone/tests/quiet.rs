//! Quiet sound is put off by whole frames, and by no less: in halves all is looked at as it comes.

use super::*;

/// Pushes sound in pieces of so many samples; where each key began, and how long it has been silent
/// after each frame.
fn told(sound: &[f32], piece: usize, lost: impl Fn(usize) -> bool) -> Vec<(char, u32, u32)> {
    let mut detector = Detector::new();
    let (mut told, mut put_off) = (vec![], 0);
    for (nth, frame) in sound.chunks_exact(frame::SAMPLES).enumerate() {
        let end = ((nth + 1) * frame::SAMPLES) as u32;
        if lost(nth) {
            detector.lose(frame::SAMPLES as u32);
            continue;
        }
        for (part, piece) in frame.chunks(piece).enumerate() {
            if let Some(hit) = detector.hear(piece) {
                let heard = nth * frame::SAMPLES + (part + 1) * piece.len();
                let start = (heard as u32).wrapping_sub(hit.ago);
                told.push((char::from(hit.digit.expose()), start, 0));
            }
        }
        put_off += usize::from(!detector.backlog.is_empty());
        told.extend(detector.silent_for().map(|silent| ('-', end, silent)));
    }
    assert_eq!(put_off > 0, piece == frame::SAMPLES, "{put_off} frames were put off");
    told
}

#[test]
fn what_is_put_off_changes_nothing() {
    for seed in 0..12 {
        let mut chance = Chance(seed);
        let mut sound = vec![0.0; 16_000];
        for key in ALL.chars() {
            let level = chance.within(-27.0, -8.0);
            let keying = Keying {
                on_ms: chance.within(38.0, 90.0),
                low_dbm0: level,
                high_dbm0: level,
                ..PLAIN
            };
            sound.extend(keyed(&key.to_string(), keying, &mut chance));
            let pause = chance.within(0.0, 3_000.0);
            sound.extend(vec![0.0; pause as usize]);
        }
        // Up to what is just too quiet for a key; never as silent as what may stand for a loss.
        let noise = amplitude(chance.within(-60.0, -40.0));
        let sound: Vec<f32> = sound.iter().map(|at| at + noise * chance.normal()).collect();
        let sound: Vec<f32> = encoded(Law::Mu, &sound)
            .chunks(frame::SAMPLES)
            .flat_map(|codes| amplitudes(Law::Mu, codes, &mut [0.0; frame::SAMPLES]).to_vec())
            .collect();
        let lost = |nth: usize| seed % 3 == 0 && nth % 37 == 5;
        let at_once = told(&sound, frame::SAMPLES / 2, lost);
        assert!(at_once.iter().filter(|(key, ..)| *key != '-').count() >= 10, "seed {seed}");
        let put_off = told(&sound, frame::SAMPLES, lost);
        let differ = put_off.iter().zip(&at_once).find(|(put_off, at_once)| put_off != at_once);
        assert_eq!(differ, None, "seed {seed}");
        assert_eq!(put_off.len(), at_once.len(), "seed {seed}");
    }
}
