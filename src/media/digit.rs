//! One key press, whichever detector heard it.

use std::fmt;

/// A DTMF key: `0`-`9`, `*`, `#`, `A`-`D`. Prints as `*`: a key may be part of a card number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digit(u8);

/// Which detector reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// RFC 4733 telephone-event.
    Event,
    /// DTMF tone in the audio.
    Tone,
}

const KEYS: &[u8; 16] = b"0123456789*#ABCD";

impl Digit {
    /// From the character on the key; lower-case letters are taken too.
    pub fn from_key(key: char) -> Option<Digit> {
        let key = key.to_ascii_uppercase();
        KEYS.iter().find(|&&k| char::from(k) == key).map(|&k| Digit(k))
    }

    /// From an RFC 4733 event code: 0-15 are DTMF keys, everything else is not.
    pub fn from_event(code: u8) -> Option<Digit> {
        KEYS.get(usize::from(code)).map(|&key| Digit(key))
    }

    /// The RFC 4733 event code, 0 to 15.
    pub fn event(self) -> u8 {
        KEYS.iter().position(|&k| k == self.0).unwrap_or_default() as u8
    }

    /// The key as an ASCII byte. Every use is a place to review.
    pub fn expose(self) -> u8 {
        self.0
    }
}

impl fmt::Debug for Digit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("*")
    }
}
