//! What the recognizer knows of each answer, for `training/calibrate.py`: reads lines of
//! `field <tab> label <tab> split <tab> file`, writes the same with whether the answer is right
//! and what its confidence is computed from. `evidence MODEL` hears with these weights instead
//! of the committed ones, `evidence whisper:MODEL`
//! also with a Whisper model.
#![allow(clippy::unwrap_used)]

use std::io::BufRead;
use std::sync::Arc;

use ringtill::media::codec;
use ringtill::prompt::clip::Converter;
use ringtill::server::listen::each_answer;
use ringtill::sip::offer::Law;
use ringtill::speech::decode::confidence;
use ringtill::speech::digits::Digits;
use ringtill::speech::{Answers, Engine, Field, Spoken};

fn main() {
    let engine = engine(std::env::args().skip(1));
    let mut converter = Converter::default();
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let Some((field, label, file)) = parts(&line) else { continue };
        let sound = converter.sound(std::fs::read(file).unwrap().into(), 900).unwrap();
        let codes: Vec<u8> = sound.iter().map(|sample| codec::encode(Law::Mu, *sample)).collect();
        each_answer(&codes, field, &*engine, |answers| {
            let right = value(answers).is_some_and(|value| value == label);
            let [margin, behind, word] = confidence::features(&answers.evidence());
            if !answers.list().is_empty() {
                println!("{line}\t{}\t{margin}\t{behind}\t{word}", u8::from(right));
            }
        });
    }
}

/// The built-in one, or with other weights, or beside a Whisper model.
fn engine(arguments: impl Iterator<Item = String>) -> Arc<dyn Engine> {
    let mut built_in = Digits::new().unwrap();
    let mut whisper = None;
    for argument in arguments {
        match argument.strip_prefix("whisper:") {
            Some(model) => whisper = Some(std::fs::read(model).unwrap()),
            None => built_in = Digits::with(&std::fs::read(argument).unwrap()).unwrap(),
        }
    }
    match whisper {
        None => Arc::new(built_in),
        #[cfg(feature = "whisper")]
        Some(model) => {
            Arc::new(ringtill::speech::whisper::Whisper::beside(built_in, &model).unwrap())
        }
        #[cfg(not(feature = "whisper"))]
        Some(_) => panic!("build this with `--features whisper`"),
    }
}

fn parts(line: &str) -> Option<(Field, &str, &str)> {
    let [field, label, _, file] = line.split('\t').collect::<Vec<_>>()[..] else { return None };
    let field = match field {
        "card" => Field::Card,
        "routing" => Field::Routing,
        "zip" => Field::Zip,
        "expiry" => Field::Expiry((24, 46)),
        "cvv" => Field::Cvv((3, 4)),
        "yesno" => Field::YesNo,
        "digit" => Field::Digit,
        "digits" => Field::Digits { min: 1, max: 20 },
        _ => return None,
    };
    Some((field, label, file))
}

fn value(answers: &Answers) -> Option<String> {
    let best = answers.list().first()?;
    Some(match best.word() {
        None => best.keys().expose().to_string(),
        Some(Spoken::Yes) => "yes".into(),
        Some(Spoken::No) => "no".into(),
        Some(Spoken::Command(command)) => command.name().into(),
    })
}
