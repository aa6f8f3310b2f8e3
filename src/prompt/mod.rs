//! What we say: prompts without a language, turned into words for people and clips for the wire.

use std::fmt;
use std::path::PathBuf;

use jiff::civil::Date;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::money::Money;

pub mod catalog; // phrase ids and their text, per language
pub mod numerals; // money, numbers, digits and dates as pieces
pub mod clip; // FLAC or WAV -> 8 kHz, both laws, once at start
pub mod library; // catalogue and clips put together
pub mod synthesis; // names by an external command

pub use library::Library;

/// The voice of the payment line.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Language tag of the prompts, for example `en-US`.
    pub language: String,
    /// Your own recordings and texts, laid out as `prompts/en-US`; what is not in it is taken
    /// from the bundled placeholder voice.
    pub folder: Option<PathBuf>,
    /// How to say names nobody has recorded; without it they are left out.
    pub synthesis: Option<synthesis::Settings>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { language: "en-US".into(), folder: None, synthesis: None }
    }
}

/// Something we may say. A spoken sentence is a list of these.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// A phrase of the catalogue by its id, for example `card.ask`.
    Phrase(&'static str),
    /// `$321.72`: three hundred twenty-one dollars and seventy-two cents.
    Amount(Money),
    Number(u32),
    /// Digits one by one: `1 1 1 1`. Never more than eight: see [`Prompt::digits`].
    Digits(String),
    /// The same for the caller's ears only: shown as dots, wiped when dropped.
    Private(Private),
    /// A reference in groups of three with pauses: `482, 915, 037`. `slow` when repeated.
    Groups {
        digits: String,
        slow: bool,
    },
    /// March third.
    Date(Date),
    /// A person's name: a recorded clip, or one synthesised for this call, or left out.
    Name(String),
    Pause {
        ms: u16,
    },
}

/// Digits that are said and not shown.
#[derive(Clone, PartialEq)]
pub struct Private(Zeroizing<String>);

impl Private {
    pub fn new(digits: &str) -> Private {
        Private(Zeroizing::new(digits.to_string()))
    }

    /// Every use is a place to review: it must end in what is played.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Prompt {
    /// Digits that may be read aloud: at most eight, so that no card number ever is.
    pub fn digits(digits: &str) -> Option<Prompt> {
        let few = digits.len() <= 8 && digits.bytes().all(|b| b.is_ascii_digit());
        few.then(|| Prompt::Digits(digits.to_string()))
    }
}
