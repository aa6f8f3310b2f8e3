//! What may be said at a question, as a function of the words heard so far: one file a field.

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::super::Field;
use super::super::word::{Command, Word};
use crate::secret::Keys;

mod amount; // "two hundred dollars and five cents"
mod card; // issuer, length, Luhn
mod expiry; // MMYY, "September two eight"
mod number; // digits, "double five"; ZIP, security code, routing, free digits
mod yes_no; // yes, no

use number::Number;

/// How far an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// More must follow.
    Short,
    /// An answer, and more may follow.
    Enough,
    /// An answer that cannot go on.
    Full,
}

/// The most digits an answer has, a slip included.
pub const DIGITS_MAX: usize = 20;

/// What words mean: digits, yes or no, a command. Zeroed on drop.
#[derive(Clone, Copy, Default, PartialEq, Eq, Zeroize)]
pub struct Meaning {
    /// 0 to 9 each.
    digits: [u8; DIGITS_MAX],
    len: u8,
    /// Yes, no or a command instead of digits.
    #[zeroize(skip)]
    word: Option<Spoken>,
}

/// An answer that is a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    Yes,
    No,
    Command(Command),
}

impl Meaning {
    pub fn digits(&self) -> &[u8] {
        &self.digits[..usize::from(self.len)]
    }

    pub fn word(&self) -> Option<Spoken> {
        self.word
    }

    /// Adds a digit; false when there is no room.
    fn push(&mut self, digit: u8) -> bool {
        let Some(place) = self.digits.get_mut(usize::from(self.len)) else { return false };
        *place = digit;
        self.len += 1;
        true
    }

    /// Writes a number, without leading zeros but with at least one digit.
    fn push_number(&mut self, number: u32) -> bool {
        let higher = number / 10;
        (higher == 0 || self.push_number(higher)) && self.push((number % 10) as u8)
    }

    #[cfg(test)]
    pub(crate) fn of(keys: &str, word: Option<Spoken>) -> Meaning {
        let mut meaning = Meaning { word, ..Meaning::default() };
        assert!(keys.bytes().all(|key| meaning.push(key - b'0')));
        meaning
    }

    fn clear(&mut self) {
        self.zeroize();
        self.word = None;
    }
}

/// The language of a field.
pub trait Grammar: Send {
    /// What `words` mean so far, written to `meaning`, and whether that is an answer; `None` when
    /// nobody answers so. Without words, how far what was keyed before has come.
    fn read(&self, words: &[Word], meaning: &mut Meaning) -> Option<Extent>;

    /// How likely an answer is before anything was heard, as a natural logarithm.
    fn prior(&self, meaning: &Meaning) -> f32 {
        let _ = meaning;
        0.0
    }
}

/// The grammar of `field` after the digits that were keyed before the caller began to speak.
pub fn of(field: Field, keyed: &Keys) -> Box<dyn Grammar> {
    match field {
        Field::Card => Box::new(Number::new(card::Card, keyed)),
        Field::Routing => Box::new(Number::new(number::Routing, keyed)),
        Field::Zip => Box::new(Number::new(number::Exactly(5), keyed)),
        Field::Cvv(lengths) => Box::new(Number::new(number::Between(lengths), keyed)),
        Field::Digit => Box::new(Number::new(number::Exactly(1), keyed)),
        Field::Digits { min, max } => Box::new(Number::new(number::Between((min, max)), keyed)),
        Field::Expiry(years) => Box::new(expiry::Expiry::new(years, keyed)),
        Field::Amount => Box::new(amount::Amount),
        Field::YesNo => Box::new(yes_no::YesNo),
    }
}

/// A command instead of an answer.
pub struct Commands;

impl Grammar for Commands {
    fn read(&self, words: &[Word], meaning: &mut Meaning) -> Option<Extent> {
        let mut said = words.iter().filter(|word| **word != Word::Other);
        match said.next() {
            None => return Some(Extent::Short),
            Some(Word::Command(command)) => meaning.word = Some(Spoken::Command(*command)),
            Some(_) => return None,
        }
        // "Go back" is one command of two words, "agent, agent" the same said twice.
        said.all(|word| matches!(word, Word::Command(_))).then_some(Extent::Enough)
    }
}

/// Wipes what a search leaves in a place that is used again.
#[derive(Default, ZeroizeOnDrop)]
pub struct Scratch(pub Meaning);

impl Scratch {
    /// Reads into a place that is wiped afterwards.
    pub fn read<T>(
        &mut self,
        grammar: &dyn Grammar,
        words: &[Word],
        then: impl FnOnce(Extent, &Meaning) -> T,
    ) -> Option<T> {
        self.0.clear();
        let extent = grammar.read(words, &mut self.0)?;
        let told = then(extent, &self.0);
        self.0.clear();
        Some(told)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::speech::word::english;

    /// What `text` means in `field`, and how far it has come; `None`: not in the grammar.
    pub fn said(field: Field, keyed: &str, text: &str) -> Option<(String, Extent)> {
        let keyed: Keys = keyed.bytes().collect();
        let words: Vec<Word> =
            text.split_whitespace().map(|name| english::word(name).unwrap()).collect();
        let mut meaning = Meaning::default();
        let extent = of(field, &keyed).read(&words, &mut meaning)?;
        let digits = meaning.digits().iter().map(|digit| char::from(b'0' + digit)).collect();
        Some((digits, extent))
    }

    /// Every beginning of `text` must be in the grammar.
    pub fn builds_up(field: Field, text: &str) -> Option<(String, Extent)> {
        let words: Vec<&str> = text.split_whitespace().collect();
        for len in 0..words.len() {
            assert!(said(field, "", &words[..len].join(" ")).is_some(), "{text}: {len} words");
        }
        said(field, "", text)
    }
}
