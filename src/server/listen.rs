//! `ringtill listen`: what is said in recordings, by the code that listens on a call.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc;

use serde::Serialize;

use super::clock;
use crate::media::ListenId;
use crate::media::codec;
use crate::media::ear::Ear;
use crate::media::frame::SAMPLES;
use crate::prompt::clip::{ClipError, Converter};
use crate::rtp::reorder::Unit;
use crate::secret::Keys;
use crate::sip::offer::Law;
use crate::speech::{
    self, Answer, Answers, Engine, Field, Frame, Heard, Hypothesis, Listener, Outcome, Spoken,
};

#[cfg(test)]
mod tests;

/// What a caller was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Asked {
    Card,
    Routing,
    Zip,
    Expiry,
    Cvv,
    Amount,
    Yesno,
    /// One digit
    Digit,
    /// A bank account's number: 4 to 17 digits
    Account,
    /// 1 to 20 digits
    Digits,
}

/// Why nothing can be listened to, ready to print.
#[derive(Debug)]
pub enum Error {
    Engine(speech::OpenError),
    /// The file of an engine's model.
    Model(PathBuf, io::Error),
    Output(io::Error),
    #[cfg(feature = "headset")]
    Headset(super::headset::HeadsetError),
}

/// Why one file cannot be listened to.
enum Unheard {
    Unreadable(io::Error),
    NoSound(ClipError),
}

/// A recording may last so long.
const SECONDS_MAX: usize = 900;
/// Of the line before a recording.
const BEFORE_FRAMES: usize = 20;
/// Expiry years before this one: recordings are not always new.
const YEARS_PAST: i16 = 2;
const YEARS_AHEAD: i16 = 20;

/// Prints a line of JSON for each file, in their order; files that cannot be read are told on
/// `problems`. Whether all could.
pub fn listen(
    files: &[PathBuf],
    asked: Asked,
    engine: &str,
    out: &mut dyn Write,
    problems: &mut dyn Write,
) -> Result<bool, Error> {
    let engine = open(engine)?;
    let waiting: Mutex<VecDeque<(usize, &PathBuf)>> =
        Mutex::new(files.iter().enumerate().collect());
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(files.len());
    let (told, tell) = mpsc::channel();
    let mut whole = true;
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let (told, waiting, engine) = (told.clone(), &waiting, &*engine);
            scope.spawn(move || {
                let mut converter = Converter::default();
                let next = || waiting.lock().ok().and_then(|mut files| files.pop_front());
                while let Some((nth, file)) = next() {
                    let heard = hear_file(&mut converter, file, asked.field(), engine);
                    if told.send((nth, heard)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(told);
        // Files are heard in parallel and told in order.
        let mut early = std::collections::BTreeMap::new();
        let mut due = 0;
        for (nth, heard) in tell {
            early.insert(nth, heard);
            while let Some(heard) = early.remove(&due) {
                match heard {
                    Ok(said) => {
                        let line = said.line(&files[due])?;
                        writeln!(out, "{line}").map_err(Error::Output)?;
                    }
                    Err(why) => {
                        whole = false;
                        writeln!(problems, "error: {}: {why}", files[due].display())
                            .map_err(Error::Output)?;
                    }
                }
                due += 1;
            }
        }
        Ok(whole)
    })
}

pub(super) fn open(engine: &str) -> Result<std::sync::Arc<dyn Engine>, Error> {
    let (name, path) = match engine.split_once(':') {
        Some((name, path)) => (name, Some(Path::new(path))),
        None => (engine, None),
    };
    let read = |path: &Path| std::fs::read(path).map_err(|error| Error::Model(path.into(), error));
    let model = match path {
        // What is not built in cannot be opened, whatever the file.
        Some(path) if speech::NAMES.contains(&name) => Some(read(path)?),
        _ => None,
    };
    speech::open(name, model).map_err(Error::Engine)
}

impl Asked {
    /// What callers call it.
    pub fn name(self) -> &'static str {
        match self {
            Asked::Card => "card number",
            Asked::Routing => "routing number",
            Asked::Zip => "ZIP code",
            Asked::Expiry => "month and year of expiry",
            Asked::Cvv => "security code",
            Asked::Amount => "sum",
            Asked::Yesno => "yes or no",
            Asked::Digit => "digit",
            Asked::Account => "account number",
            Asked::Digits => "number",
        }
    }

    pub(super) fn field(self) -> Field {
        match self {
            Asked::Card => Field::Card,
            Asked::Routing => Field::Routing,
            Asked::Zip => Field::Zip,
            Asked::Expiry => {
                let year = clock::year();
                let digits = |year: i16| year.rem_euclid(100) as u8;
                Field::Expiry((digits(year - YEARS_PAST), digits(year + YEARS_AHEAD)))
            }
            Asked::Cvv => Field::Cvv((3, 4)),
            Asked::Amount => Field::Amount,
            Asked::Yesno => Field::YesNo,
            Asked::Digit => Field::Digit,
            Asked::Account => Field::Digits { min: 4, max: 17 },
            Asked::Digits => Field::Digits { min: 1, max: 20 },
        }
    }
}

fn hear_file(
    converter: &mut Converter,
    file: &Path,
    field: Field,
    engine: &dyn Engine,
) -> Result<Said, Unheard> {
    let bytes = std::fs::read(file).map_err(Unheard::Unreadable)?;
    let samples = converter.sound(bytes.into(), SECONDS_MAX).map_err(Unheard::NoSound)?;
    let codes: Vec<u8> = samples.iter().map(|&sample| codec::encode(Law::Mu, sample)).collect();
    Ok(hear(&codes, field, engine))
}

/// What was said in a recording: the first answer that is good for anything, as on a call where
/// any other is asked for again.
#[derive(Default)]
struct Said {
    answer: Option<Answer>,
    /// Digits in all answers that are good for anything, and in the best if there is none.
    digits: usize,
}

/// What was said in mu-law sound.
fn hear(codes: &[u8], field: Field, engine: &dyn Engine) -> Said {
    let mut said = Said::default();
    each_answer(codes, field, engine, |answers| said.add(answers.judge()));
    said
}

/// Every answer in mu-law sound, heard as on a call: from when speech begins until it ends. A call
/// has always been up before somebody speaks: a recording may be cut where a word begins.
pub fn each_answer(
    codes: &[u8],
    field: Field,
    engine: &dyn Engine,
    mut each: impl FnMut(&Answers),
) {
    let mut listening = Listening::new(field, engine);
    let quiet = [codec::encode(Law::Mu, 0); SAMPLES];
    for codes in iter::repeat_n(&quiet[..], BEFORE_FRAMES).chain(codes.chunks(SAMPLES)) {
        listening.hear(codes, &mut each);
    }
    listening.end(&mut each);
}

/// Sound as it comes, and every answer in it.
pub struct Listening<'e> {
    field: Field,
    engine: &'e dyn Engine,
    ear: Ear,
    listener: Option<Listener>,
    /// RTP timestamp of the next frame.
    timestamp: u32,
}

const ID: ListenId = ListenId(0);

impl<'e> Listening<'e> {
    pub fn new(field: Field, engine: &'e dyn Engine) -> Listening<'e> {
        let mut ear = Ear::new(false);
        ear.hear_speech();
        if let Some(hearing) = ear.hearing() {
            hearing.listen(Some(ID));
        }
        Listening { field, engine, ear, listener: None, timestamp: 0 }
    }

    /// The next 20 ms, in mu-law.
    pub fn hear(&mut self, codes: &[u8], each: &mut impl FnMut(&Answers)) {
        let unit = Unit::Audio { payload_type: 0, timestamp: self.timestamp, payload: codes };
        self.timestamp = self.timestamp.wrapping_add(SAMPLES as u32);
        self.ear.hear(unit, Law::Mu, true, None, |_| ());
        let Some(hearing) = self.ear.hearing() else { return };
        while let Some(spoken) = hearing.take() {
            let listening = self
                .listener
                .get_or_insert_with(|| Listener::new(self.engine, self.field, &Keys::new()));
            let heard = listening.hear(Frame::of(&spoken.sound), spoken.quiet_ms);
            if let Some(Heard::Answer) = heard {
                each(&listening.answers());
            }
            if heard.is_some() {
                self.listener = None;
                hearing.listen(Some(ID));
            }
        }
    }

    /// No more comes: what was being said is over.
    pub fn end(&mut self, each: &mut impl FnMut(&Answers)) {
        if let Some(mut listener) = self.listener.take() {
            each(&listener.answers());
        }
    }
}

/// An answer as a line of JSON; `file` tells where the sound is from.
#[cfg(feature = "headset")]
pub(super) fn line(file: &str, answer: Answer) -> Result<String, Error> {
    let mut said = Said::default();
    said.add(answer);
    said.line(Path::new(file))
}

impl Said {
    fn add(&mut self, answer: Answer) {
        let good = answer.outcome != Outcome::Again;
        if good {
            self.digits += answer.best.as_ref().map_or(0, |best| best.keys().len());
        }
        let better = match &self.answer {
            None => true,
            Some(known) if known.outcome == Outcome::Again => {
                good || answer.confidence > known.confidence
            }
            Some(_) => false,
        };
        if better {
            self.answer = Some(answer);
        }
    }

    /// `file`: where the sound is from.
    fn line(&self, file: &Path) -> Result<String, Error> {
        let best = self.answer.as_ref().and_then(|answer| answer.best.as_ref());
        let value = best.map(value);
        let line = JsonLine {
            file: &file.to_string_lossy(),
            value: value.as_deref(),
            outcome: self.answer.as_ref().map_or(Outcome::Again, |answer| answer.outcome).name(),
            confidence: self.answer.as_ref().map_or(0.0, |answer| answer.confidence),
            digits: self.digits,
            times: best.map(Hypothesis::times_ms).unwrap_or_default(),
        };
        serde_json::to_string(&line).map_err(|error| Error::Output(error.into()))
    }
}

/// Digits, or the word.
fn value(best: &Hypothesis) -> String {
    match best.word() {
        Some(Spoken::Yes) => "yes".into(),
        Some(Spoken::No) => "no".into(),
        Some(Spoken::Command(command)) => command.name().into(),
        None => best.keys().expose().to_string(),
    }
}

#[derive(Serialize)]
struct JsonLine<'a> {
    file: &'a str,
    value: Option<&'a str>,
    outcome: &'a str,
    confidence: f32,
    digits: usize,
    /// When each word was told, in milliseconds from the start of the answer's sound.
    times: &'a [u32],
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Engine(error) => write!(f, "--engine: {error}"),
            Error::Model(path, error) => write!(f, "--engine: {}: {error}", path.display()),
            Error::Output(error) => write!(f, "{error}"),
            #[cfg(feature = "headset")]
            Error::Headset(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Unheard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unheard::Unreadable(error) => error.fmt(f),
            Unheard::NoSound(error) => error.fmt(f),
        }
    }
}
