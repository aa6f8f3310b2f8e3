//! What listening to a caller costs: voice activity, network and decoder, as parts of a core.
//! `cargo bench --bench speech`; figures of a busy machine are for comparison only.
#![allow(clippy::unwrap_used)]

use ringtill::media::frame::SAMPLES;
use ringtill::media::voice::{Line, Voice};
use ringtill::secret::Keys;
use ringtill::speech::{self, Field, Frame, Heard, Listener};

mod cpu;

use cpu::cpu_ns;

/// Spoken digits, 3 s.
const WAVE: &[u8] = include_bytes!("../tests/vectors/speech/wave.i16");
const SECONDS: usize = 300;

fn main() {
    let spoken: Vec<i16> =
        WAVE.as_chunks::<2>().0.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect();
    let silence = vec![0i16; 8000];
    println!("{SECONDS} s of sound, CPU as a part of one core:");
    for (what, sound) in [("silence", &silence), ("digits", &spoken)] {
        let frames: Vec<[i16; SAMPLES]> =
            sound.as_chunks::<SAMPLES>().0.iter().copied().cycle().take(SECONDS * 50).collect();
        voice(what, &frames);
        for field in [Field::Card, Field::Zip, Field::YesNo] {
            recognizer(what, field, &frames);
        }
        listener(what, &frames);
    }
}

fn voice(what: &str, frames: &[[i16; SAMPLES]]) {
    let mut voice = Voice::new();
    let before = cpu_ns();
    let active = frames.iter().filter(|frame| {
        voice.hear(frame, Line::default());
        voice.is_active()
    });
    let active = active.count();
    told(&format!("voice activity, {what}"), before, &format!("{active} frames active"));
}

/// An answer every 12 s, which is a long one.
fn recognizer(what: &str, field: Field, frames: &[[i16; SAMPLES]]) {
    let engine = speech::open("digits", None).unwrap();
    let before = cpu_ns();
    let mut answers = 0;
    for frames in frames.chunks(600) {
        let mut recognizer = engine.recognizer(field, &Keys::new());
        for frame in frames {
            recognizer.take(Frame::Sound(frame));
        }
        answers += recognizer.answers().list().len();
    }
    told(&format!("recognizer, {field:?}, {what}"), before, &format!("{answers} hypotheses"));
}

fn listener(what: &str, frames: &[[i16; SAMPLES]]) {
    let engine = speech::open("digits", None).unwrap();
    let listen = || Listener::new(&*engine, Field::Card, &Keys::new());
    let mut listener = listen();
    let mut answers = 0;
    let before = cpu_ns();
    for frame in frames {
        if let Some(Heard::Answer) = listener.hear(Frame::Sound(frame), 0) {
            drop(listener.answers());
            answers += 1;
            listener = listen();
        }
    }
    told(&format!("listener, card, {what}"), before, &format!("{answers} answers"));
}

fn told(what: &str, before: u64, counted: &str) {
    let share = (cpu_ns() - before) as f64 / 1e9 / SECONDS as f64;
    println!("  {what}: {:.3} % of a core ({counted})", 100.0 * share);
}
