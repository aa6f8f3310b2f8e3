//! What a person following a call of the test phone is told.

use std::fmt;

use crate::media::Method;
use crate::sip::offer;

/// What a person following the call wants to know. Shows no key that may not be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    Ringing {
        status: u16,
    },
    Answered {
        codec: offer::Codec,
        events: bool,
        secured: bool,
    },
    /// Prompts of ours, in their words. `cut` when they did not come to their end.
    Heard {
        words: String,
        cut: bool,
    },
    /// Something else was said, for this long.
    Speech {
        ms: u64,
    },
    /// Keys on their way, as far as they may be shown.
    Keys {
        shown: String,
        method: Method,
    },
    /// We say what is called so.
    Says {
        name: String,
    },
    HungUp,
    TheyHungUp,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::Ringing { status } => write!(f, "ringing ({status})"),
            Report::Answered { codec, events, secured } => {
                let codec = codec.encoding();
                let events = if *events { " and telephone-event" } else { "" };
                let secured = if *secured { ", encrypted" } else { "" };
                write!(f, "answered, {codec}{events}{secured}")
            }
            Report::Heard { words, cut: false } => write!(f, "heard \"{words}\""),
            Report::Heard { words, cut: true } => write!(f, "heard \"{words} ...\""),
            Report::Speech { ms } => {
                write!(f, "heard {}.{} s of sound we do not know", ms / 1000, ms % 1000 / 100)
            }
            Report::Keys { shown, method: Method::Events } => write!(f, "keys {shown}"),
            Report::Keys { shown, method: Method::InBand } => write!(f, "keys {shown} as tones"),
            Report::Says { name } => write!(f, "says {name}"),
            Report::HungUp => f.write_str("we hung up"),
            Report::TheyHungUp => f.write_str("the other side hung up"),
        }
    }
}
