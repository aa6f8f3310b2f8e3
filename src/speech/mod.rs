//! What the caller said: sound in, the likeliest answers to one question out, with how sure it is.
//!
//! A [`Listener`] is what a call uses: it hears when an answer ends and asks a [`Recognizer`]
//! what was said. Nothing here shows or keeps what it heard: audio, features,
//! posteriors and answers are wiped when dropped, and have no `Debug`.

use std::sync::Arc;

use crate::media::frame::SAMPLES;
use crate::media::hearing::Sound;
use crate::secret::Keys;

pub mod word; // what a word means, whatever the language
pub mod decode; // words that make an answer of a field
pub mod digits; // the built-in engine: front-end, network
#[cfg(feature = "whisper")]
pub mod whisper; // the engine of an operator's model
pub mod listener; // when an answer is over, and what it was
pub mod offered; // which fields callers may say

pub use decode::answer::{Answer, Answers, Hypothesis, Outcome};
pub use decode::fuse::fuse;
pub use decode::grammar::{DIGITS_MAX, Extent, Meaning, Spoken};
pub use listener::{Heard, Listener};
pub use offered::Fields;
pub use word::Command;

/// What is asked for. It says which answers there are and how sure one must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Card,
    Routing,
    Zip,
    /// First and last year that a card may end in, two digits each.
    Expiry((u8, u8)),
    /// The least and most digits: the brand's, if it is known.
    Cvv((u8, u8)),
    Amount,
    YesNo,
    Digit,
    /// An account number, or a group of a longer number.
    Digits {
        min: u8,
        max: u8,
    },
}

/// 20 ms as they came.
#[derive(Clone, Copy)]
pub enum Frame<'a> {
    /// 8 kHz, the echo of what we say removed.
    Sound(&'a [i16; SAMPLES]),
    /// The packet never came.
    Lost,
}

impl Frame<'_> {
    /// What came of a packet.
    pub fn of(sound: &Option<Sound>) -> Frame<'_> {
        sound.as_ref().map_or(Frame::Lost, |sound| Frame::Sound(sound))
    }
}

/// Something that understands speech, one for each question.
pub trait Recognizer: Send {
    /// Takes the next 20 ms.
    fn take(&mut self, frame: Frame<'_>);
    /// How far the answer has come.
    fn progress(&self) -> Progress;
    /// What was said until now. Takes as long as the engine needs: [`Engine::is_quick`] says
    /// whether that is short enough for the thread of a call.
    fn answers(&mut self) -> Answers;
}

/// How far an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Words heard, meaningless ones included.
    pub words: usize,
    pub extent: Extent,
    /// Milliseconds of sound since the last word was told; `None` before the first.
    pub quiet_ms: Option<u32>,
}

/// A kind of recognizer.
pub trait Engine: Send + Sync {
    fn name(&self) -> &'static str;
    /// Whether its recognizers answer within a millisecond.
    fn is_quick(&self) -> bool;
    /// Begins to listen for an answer that continues what was keyed.
    fn recognizer(&self, field: Field, keyed: &Keys) -> Box<dyn Recognizer>;
}

/// The engines there are.
pub const NAMES: [&str; 2] = ["digits", "whisper"];

/// Whether there is such an engine, and whether it wants a model as it is given one.
pub fn check(name: &str, with_model: bool) -> Result<(), OpenError> {
    match (name, with_model) {
        ("digits", false) => Ok(()),
        ("digits", true) => Err(OpenError::Unwanted),
        ("whisper", false) => Err(OpenError::NoModel),
        ("whisper", true) if cfg!(feature = "whisper") => Ok(()),
        ("whisper", true) => Err(OpenError::NotBuilt),
        (other, _) => Err(OpenError::UnknownName(other.to_string())),
    }
}

/// Opens an engine by its name; `model` is the operator's file for those that need one.
pub fn open(name: &str, model: Option<Vec<u8>>) -> Result<Arc<dyn Engine>, OpenError> {
    check(name, model.is_some())?;
    match model {
        #[cfg(feature = "whisper")]
        Some(model) => Ok(Arc::new(whisper::Whisper::open(&model).map_err(OpenError::Whisper)?)),
        _ => Ok(Arc::new(digits::Digits::new().map_err(OpenError::BuiltIn)?)),
    }
}

/// Why an engine cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    UnknownName(String),
    /// The built-in engine has its own model.
    Unwanted,
    /// No model was given.
    NoModel,
    /// Its feature was off when this program was built.
    NotBuilt,
    /// The operator's file.
    #[cfg(feature = "whisper")]
    Whisper(whisper::OpenFault),
    /// The built-in model is damaged.
    BuiltIn(digits::ModelError),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::UnknownName(name) => {
                write!(f, "no engine is called `{name}`; write one of: digits, whisper:PATH")
            }
            OpenError::Unwanted => f.write_str("`digits` has its own model: write it without one"),
            OpenError::NoModel => f.write_str("whisper wants a ggml model: write whisper:PATH"),
            #[cfg(feature = "whisper")]
            OpenError::Whisper(fault) => write!(f, "the file of whisper {fault}"),
            OpenError::NotBuilt => f.write_str(
                "this program was built without whisper: build it with `--features whisper`, \
                 or use `digits`",
            ),
            OpenError::BuiltIn(error) => {
                write!(f, "the built-in model {error}: this program is damaged")
            }
        }
    }
}

impl std::error::Error for OpenError {}
