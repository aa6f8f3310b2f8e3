//! Amounts, told in cents: "two hundred dollars and five cents", "two hundred five", "two
//! zero zero dollars", "forty-two point five zero".

use super::{Extent, Grammar, Meaning};
use crate::speech::word::Word;

/// No amount is higher: 999,999 dollars.
const DOLLARS_MAX: u32 = 999_999;

pub struct Amount;

impl Grammar for Amount {
    fn read(&self, words: &[Word], meaning: &mut Meaning) -> Option<Extent> {
        let mut amount = Reader::default();
        for word in words {
            amount.take(*word)?;
        }
        let Some(cents) = amount.cents() else { return Some(Extent::Short) };
        let written = meaning.push_number(cents);
        (written && cents > 0).then_some(if amount.is_full() {
            Extent::Full
        } else {
            Extent::Enough
        })
    }
}

/// Reads an amount word by word.
#[derive(Default)]
struct Reader {
    dollars: Option<u32>,
    part: Part,
    /// The number being said.
    number: Figure,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Part {
    /// Dollars, or an amount whose unit is not said.
    #[default]
    First,
    /// What follows "dollars".
    Cents,
    /// What follows "point": two digits.
    Decimals,
    Done,
}

/// A number of words: digits one by one, or hundreds, tens and ones.
#[derive(Clone, Copy, Default)]
struct Figure {
    /// Thousands that were said, and what follows them.
    thousands: u32,
    rest: u32,
    digits: u8,
    kind: Kind,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Nothing,
    /// Digits one by one.
    Digits,
    /// The last word was a hundred or thousand, a ten, a one or a teen.
    Open,
    Tens,
    Ones,
}

impl Reader {
    fn take(&mut self, word: Word) -> Option<()> {
        match word {
            Word::Other => {}
            Word::And if self.number.kind != Kind::Nothing || self.dollars.is_some() => {}
            Word::Dollars if self.part == Part::First => {
                self.dollars = Some(self.number.value()?);
                (self.part, self.number) = (Part::Cents, Figure::default());
            }
            Word::Point if self.part == Part::First => {
                self.dollars = Some(self.number.value().unwrap_or(0));
                (self.part, self.number) = (Part::Decimals, Figure::default());
            }
            Word::Cents if self.part != Part::Done => {
                self.number.value().filter(|cents| *cents < 100)?;
                self.dollars.get_or_insert(0);
                self.part = Part::Done;
            }
            Word::Dollars if self.part == Part::Decimals && self.number.digits == 2 => {
                self.part = Part::Done;
            }
            _ if self.part == Part::Done => return None,
            word => {
                self.number.take(word)?;
                let small = self.part == Part::First || self.number.value()? < 100;
                (small && self.number.value()? <= DOLLARS_MAX).then_some(())?;
            }
        }
        Some(())
    }

    /// `None` while more must follow.
    fn cents(&self) -> Option<u32> {
        let small = self.number.value();
        match self.part {
            Part::First => small.map(|dollars| dollars * 100),
            Part::Decimals if self.number.digits < 2 => None,
            _ => self.dollars.map(|dollars| dollars * 100 + small.unwrap_or(0)),
        }
    }

    fn is_full(&self) -> bool {
        self.part == Part::Done
    }
}

impl Figure {
    fn value(self) -> Option<u32> {
        (self.kind != Kind::Nothing).then_some(self.thousands * 1000 + self.rest)
    }

    fn take(&mut self, word: Word) -> Option<()> {
        const DIGITS_MAX: u8 = 6;
        match (word, self.kind) {
            (Word::Digit(digit), Kind::Nothing) => {
                (self.rest, self.digits, self.kind) = (u32::from(digit), 1, Kind::Digits);
            }
            (Word::Digit(digit), Kind::Digits) if self.digits < DIGITS_MAX => {
                self.rest = self.rest * 10 + u32::from(digit);
                self.digits += 1;
            }
            (Word::Digit(digit), Kind::Open | Kind::Tens) if digit > 0 => {
                self.rest += u32::from(digit);
                self.kind = Kind::Ones;
            }
            (Word::Teen(number), Kind::Nothing | Kind::Open) => {
                self.rest += u32::from(number);
                (self.digits, self.kind) = (2, Kind::Ones);
            }
            (Word::Tens(number), Kind::Nothing | Kind::Open) => {
                self.rest += u32::from(number);
                (self.digits, self.kind) = (2, Kind::Tens);
            }
            (Word::Hundred, Kind::Digits | Kind::Ones) if (1..=99).contains(&self.rest) => {
                // "four five hundred" is nobody's number.
                (self.kind != Kind::Digits || self.digits == 1).then_some(())?;
                self.rest *= 100;
                self.kind = Kind::Open;
            }
            (Word::Thousand, kind) if self.thousands == 0 && self.rest > 0 => {
                (kind != Kind::Digits || self.digits == 1).then_some(())?;
                (self.thousands, self.rest, self.kind) = (self.rest, 0, Kind::Open);
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{builds_up, said};
    use super::*;
    use crate::speech::Field;

    #[test]
    fn amounts_are_said_in_many_ways() {
        for (text, cents) in [
            ("two hundred dollars and five cents", "20005"),
            ("two hundred five", "20500"),
            ("two hundred dollars", "20000"),
            ("two zero five dollars", "20500"),
            ("one thousand two hundred dollars five zero cents", "120050"),
            ("twenty dollars and fifty cents", "2050"),
            ("forty two point five oh", "4250"),
            ("one hundred and twelve dollars", "11200"),
            ("fifty cents", "50"),
            ("twelve hundred dollars", "120000"),
        ] {
            let told = builds_up(Field::Amount, text).map(|(value, _)| value);
            assert_eq!(told.as_deref(), Some(cents), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_none() {
        for text in [
            "dollars",
            "hundred",
            "two dollars three dollars",
            "zero cents",
            "five cents two",
            "two hundred cents",
            "four five hundred",
        ] {
            assert_eq!(said(Field::Amount, "", text), None, "{text}");
        }
        let short = said(Field::Amount, "", "forty point five").map(|(_, extent)| extent);
        assert_eq!(short, Some(Extent::Short));
    }
}
