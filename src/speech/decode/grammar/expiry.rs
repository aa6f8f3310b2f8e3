//! When a card ends: "oh nine two eight", "nine two eight", "September two eight", "twelve
//! twenty-eight", "zero nine two zero two eight". Always told as MMYY.

use super::{Extent, Grammar, Meaning};
use crate::secret::Keys;
use crate::speech::word::Word;

pub struct Expiry {
    /// First and last year there is, two digits each.
    years: (u8, u8),
    keyed: Keys,
}

impl Expiry {
    pub fn new(years: (u8, u8), keyed: &Keys) -> Expiry {
        Expiry { years, keyed: keyed.expose().bytes().collect() }
    }

    fn date(&self, month: Option<u8>, digits: &[u8], meaning: &mut Meaning) -> Option<Extent> {
        match month {
            Some(month) => self.tell(month, self.year(digits)?, meaning),
            None => self.plain(digits, meaning),
        }
    }

    /// What digits without a month's name say: MMYY, MYY, MMYYYY, MYYYY.
    fn plain(&self, digits: &[u8], meaning: &mut Meaning) -> Option<Extent> {
        let months = match digits {
            [] => return Some(Extent::Short),
            // `1` alone may be the beginning of 10, 11 or 12.
            [0, ..] => &digits[..digits.len().min(2)],
            [1, 0..=2, rest @ ..] if self.year(rest).is_some() => &digits[..2],
            [_, ..] => &digits[..1],
        };
        let month = months.iter().fold(0, |month, digit| month * 10 + digit);
        if month == 0 {
            return (digits.len() == 1).then_some(Extent::Short);
        }
        if digits == [1] {
            return Some(Extent::Short);
        }
        let year = self.year(&digits[months.len()..])?;
        self.tell(month, year, meaning)
    }

    /// A year's digits so far, `28` or `2028`: the year once it is known.
    fn year(&self, digits: &[u8]) -> Option<Option<u8>> {
        let (first, last) = self.years;
        match *digits {
            [] => Some(None),
            [tens] => (tens == 2 || (first / 10..=last / 10).contains(&tens)).then_some(None),
            [2, 0] if !(first..=last).contains(&20) => Some(None),
            [tens, ones] => self.in_range(tens * 10 + ones).map(Some),
            [2, 0, tens] => (first / 10..=last / 10).contains(&tens).then_some(None),
            [2, 0, tens, ones] => self.in_range(tens * 10 + ones).map(Some),
            _ => None,
        }
    }

    fn in_range(&self, year: u8) -> Option<u8> {
        (self.years.0..=self.years.1).contains(&year).then_some(year)
    }

    fn tell(&self, month: u8, year: Option<u8>, meaning: &mut Meaning) -> Option<Extent> {
        let Some(year) = year else { return Some(Extent::Short) };
        for digit in [month / 10, month % 10, year / 10, year % 10] {
            meaning.push(digit).then_some(())?;
        }
        // "nine two zero" may go on: "nine twenty twenty-eight".
        Some(if year == 20 { Extent::Enough } else { Extent::Full })
    }
}

/// Digits of a date, before they are told apart.
#[derive(Default)]
struct Digits {
    values: [u8; 8],
    len: usize,
}

impl Digits {
    fn push(&mut self, digit: u8) -> Option<()> {
        *self.values.get_mut(self.len)? = digit;
        self.len += 1;
        Some(())
    }
}

impl Grammar for Expiry {
    fn read(&self, words: &[Word], meaning: &mut Meaning) -> Option<Extent> {
        let mut month = None;
        let mut digits = Digits::default();
        for key in self.keyed.expose().bytes() {
            digits.push(key.checked_sub(b'0').filter(|digit| *digit < 10)?)?;
        }
        let mut times = 1;
        let mut open_tens = false;
        for word in words {
            match *word {
                Word::Other | Word::And => {}
                Word::Month(named) if digits.len == 0 && month.is_none() => month = Some(named),
                Word::Digit(digit) if open_tens && digit > 0 => {
                    digits.values[digits.len - 1] = digit;
                    open_tens = false;
                }
                Word::Digit(digit) => {
                    for _ in 0..times {
                        digits.push(digit)?;
                    }
                    (times, open_tens) = (1, false);
                }
                Word::Times(n) if times == 1 => times = n,
                Word::Teen(number) | Word::Tens(number) if times == 1 => {
                    digits.push(number / 10)?;
                    digits.push(number % 10)?;
                    open_tens = matches!(word, Word::Tens(_));
                }
                _ => return None,
            }
        }
        let said = &digits.values[..digits.len];
        let extent = self.date(month, said, meaning).or_else(|| {
            // "nine twenty twenty": the last ten is not whole yet.
            let begun = open_tens && self.date(month, &said[..said.len() - 1], meaning).is_some();
            begun.then_some(Extent::Short)
        })?;
        match (times > 1, extent) {
            (true, Extent::Full) => None,
            (true, _) => Some(Extent::Short),
            // "twenty" may become "twenty-eight".
            (false, Extent::Full) if open_tens => Some(Extent::Enough),
            (false, extent) => Some(extent),
        }
    }

    /// Cards may be good for twenty years, and hardly any is for more than eight.
    fn prior(&self, meaning: &Meaning) -> f32 {
        const USUAL: u8 = 9;
        const LATE: f32 = -3.0;
        let late = match *meaning.digits() {
            [_, _, tens, ones] => tens * 10 + ones > self.years.0 + USUAL,
            _ => false,
        };
        if late { LATE } else { 0.0 }
    }
}

impl Drop for Digits {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.values);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{builds_up, said};
    use super::*;
    use crate::speech::Field;

    const FIELD: Field = Field::Expiry((24, 49));

    #[test]
    fn dates_are_said_in_many_ways() {
        for (text, value) in [
            ("oh nine two eight", "0928"),
            ("nine two eight", "0928"),
            ("one two two eight", "1228"),
            ("one two eight", "0128"),
            ("one one three zero", "1130"),
            ("september two eight", "0928"),
            ("september two zero two eight", "0928"),
            ("zero nine two oh two eight", "0928"),
            ("oh nine double two", "0922"),
            ("twelve twenty eight", "1228"),
            ("nine twenty twenty eight", "0928"),
            ("may thirty", "0530"),
        ] {
            let field = if value == "0922" { Field::Expiry((20, 49)) } else { FIELD };
            let told = builds_up(field, text).map(|(value, _)| value);
            assert_eq!(told.as_deref(), Some(value), "{text}");
        }
    }

    #[test]
    fn dates_that_no_card_has_are_none() {
        for text in
            ["one three two eight", "zero zero two eight", "oh nine one two", "two eight nine nine"]
        {
            assert_eq!(said(FIELD, "", text), None, "{text}");
        }
        assert_eq!(said(FIELD, "09", "two eight"), Some(("0928".into(), Extent::Full)));
    }
}
