//! DTMF tones in mu-law audio, made here from two sines, independently of Ringtill's own.

use std::f64::consts::TAU;

const RATE: f64 = 8_000.0;
const SILENCE: u8 = 0xff;

/// Keys at their times in seconds, then one last entry, `seconds` of audio in all.
pub fn timeline(keys: &[(f64, &str)], last: (f64, &str), seconds: f64) -> Vec<u8> {
    let mut audio = vec![SILENCE; (seconds * RATE) as usize];
    for (start, entry) in keys.iter().chain([&last]) {
        for (place, key) in entry.chars().enumerate() {
            let at = ((start + 0.2 * place as f64) * RATE) as usize;
            press(&mut audio[at..at + 800], key);
        }
    }
    audio
}

/// 100 ms of one key, each tone at -10 dBm0.
fn press(audio: &mut [u8], key: char) {
    let place = "123A456B789C*0#D".find(key).expect("a key");
    let low = [697.0, 770.0, 852.0, 941.0][place / 4];
    let high = [1209.0, 1336.0, 1477.0, 1633.0][place % 4];
    for (n, code) in audio.iter_mut().enumerate() {
        let t = n as f64 / RATE;
        let sample = 7_000.0 * ((TAU * low * t).sin() + (TAU * high * t).sin());
        *code = mu_law(sample as i32);
    }
}

/// ITU-T G.711 mu-law by the segment formula.
fn mu_law(sample: i32) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let biased = sample.abs().min(32_635) + 132;
    let segment = 31 - (biased as u32 >> 7).leading_zeros();
    let step = (biased >> (segment + 3)) & 0xf;
    !(sign | (segment << 4) as u8 | step as u8)
}
