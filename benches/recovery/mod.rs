//! What packets of Opus that hold lost ones bring: keys pressed as tones, a voice, and the price.

use std::f32::consts::TAU;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringtill::media::Digit;
use ringtill::media::codec::{self, Transcoder};
use ringtill::media::digit::{HIGH_HZ, LOW_HZ};
use ringtill::media::ear::{Ear, Sound};
use ringtill::rtp::reorder::Unit;
use ringtill::sip::offer::{Codec, Law, Opus};

use crate::cpu::cpu_ns;

const PACKET: usize = 160;
const CALLS: u64 = 100;
const KEYS: usize = 16;

/// Of a line that loses packets one by one, at random.
pub fn measure(voice: &[u8]) {
    for percent in [5, 10] {
        for recovers in [false, true] {
            let (mut missed, mut added, mut all) = (0, 0, 0);
            let mut line = Line::default();
            for seed in 0..CALLS {
                let (keys, sound) = keyed(seed);
                let heard = line.hear(&sound, seed, percent, recovers);
                let common = in_common(keys.as_bytes(), heard.as_bytes());
                missed += keys.len() - common;
                added += heard.len() - common;
                all += keys.len();
            }
            let Line { lost, recovered, .. } = line;
            println!(
                "  keys over Opus, {percent} % lost, copies {recovers}: of {all} {missed} missed, \
                 {added} told twice; {recovered} of {lost} lost packets recovered"
            );
        }
        let mut line = Line::default();
        for seed in 0..CALLS {
            line.hear(&voice.repeat(4), seed, percent, true);
        }
        let Line { lost, recovered, alike, ns } = line;
        let count = f64::from(recovered);
        println!(
            "  a voice over Opus, {percent} % lost: {recovered} of {lost} lost packets recovered, \
             correlation {:.3} with what is heard without loss, {:.1} us each",
            alike / count,
            ns as f64 / count / 1e3
        );
    }
}

/// What became of packets, over all calls.
#[derive(Default)]
struct Line {
    lost: u32,
    recovered: u32,
    /// Correlations of recovered packets with what is heard without loss, all together.
    alike: f64,
    /// CPU time to recover them.
    ns: u64,
}

impl Line {
    /// The keys that are heard.
    fn hear(&mut self, sound: &[u8], seed: u64, percent: u8, recovers: bool) -> String {
        let coder =
            || Transcoder::of(Codec::Opus, Some(Opus { recovers: true, ..Opus::default() }));
        let [mut theirs, mut ours, mut whole] = [(); 3].map(|()| coder().unwrap());
        theirs.expect_loss(percent);
        let (mut ear, mut heard, mut missing) = (Ear::new(false), String::new(), 0);
        let mut unlost = vec![];
        let mut chance = StdRng::seed_from_u64(seed ^ 0x6f70_7573);
        let mut listen = |unit: Unit<'_>| {
            ear.hear(unit, Law::Mu, true, None, |sound| {
                if let Sound::Tone { digit, .. } = sound {
                    heard.push(char::from(digit.expose()));
                }
            });
        };
        for (nth, said) in sound.chunks_exact(PACKET).enumerate() {
            let packet = theirs.encode(said);
            let heard_last = std::mem::replace(&mut unlost, whole.decode(packet).unwrap().to_vec());
            if nth > 0 && chance.random_range(0..100) < percent {
                ours.lose(1);
                listen(Unit::Lost { packets: 1 });
                self.lost += 1;
                missing += PACKET;
                continue;
            }
            let start = nth * PACKET;
            if missing > 0 {
                let before = cpu_ns();
                let recovered = if recovers { ours.recover(packet, missing) } else { None };
                let spent = cpu_ns() - before;
                if let Some(copy) = recovered {
                    self.ns += spent;
                    self.recovered += 1;
                    self.alike += correlation(copy, &heard_last[PACKET - copy.len()..]);
                    listen(audio(start - copy.len(), copy));
                }
            }
            missing = 0;
            listen(audio(start, ours.decode(packet).unwrap()));
        }
        heard
    }
}

fn audio(at: usize, payload: &[u8]) -> Unit<'_> {
    Unit::Audio { payload_type: 0, timestamp: at as u32, payload }
}

/// Keys of 50 to 110 ms with as long pauses, and what they sound like.
fn keyed(seed: u64) -> (String, Vec<u8>) {
    let mut chance = StdRng::seed_from_u64(seed);
    let mut keys = String::new();
    let mut sound = vec![0xff; 1_600];
    for _ in 0..KEYS {
        let (row, column) = (chance.random_range(0..4), chance.random_range(0..3));
        keys.push(char::from(Digit::at(row, column).expose()));
        let [on, off] = [(); 2].map(|()| chance.random_range(400..880));
        sound.extend((0..on).map(|n| {
            let sine = |hz: f32| (n as f32 * hz * TAU / 8_000.0).sin();
            let both = sine(LOW_HZ[row]) * 0.8 + sine(HIGH_HZ[column]);
            codec::encode(Law::Mu, (both * 6_000.0) as i16)
        }));
        sound.resize(sound.len() + off, 0xff);
    }
    sound.resize(sound.len() + 1_600, 0xff);
    (keys, sound)
}

/// The most keys that both have in the same order.
fn in_common(a: &[u8], b: &[u8]) -> usize {
    let mut best = vec![0; b.len() + 1];
    for key in a {
        let mut before = 0;
        for (at, other) in b.iter().enumerate() {
            let here = best[at + 1];
            best[at + 1] = if key == other { before + 1 } else { best[at].max(here) };
            before = here;
        }
    }
    best[b.len()]
}

fn correlation(a: &[u8], b: &[u8]) -> f64 {
    let sample = |code: &u8| f64::from(codec::decode(Law::Mu, *code));
    let dot = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| sample(a) * sample(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1.0)
}
