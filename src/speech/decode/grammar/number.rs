//! Numbers said digit by digit, with "oh", "double five" and "triple nine"; which numbers there
//! are is the rule's.

use super::{DIGITS_MAX, Extent, Grammar, Meaning};
use crate::secret::Keys;
use crate::speech::word::Word;

/// Which numbers there are.
pub trait Rule: Send {
    /// `None` when no number begins with these digits, 0 to 9 each.
    fn extent(&self, digits: &[u8]) -> Option<Extent>;

    /// As [`Grammar::prior`].
    fn prior(&self, digits: &[u8]) -> f32 {
        let _ = digits;
        0.0
    }
}

/// Digits of a rule, some of which may have been keyed before.
pub struct Number<R> {
    rule: R,
    keyed: Keys,
}

impl<R: Rule> Number<R> {
    pub fn new(rule: R, keyed: &Keys) -> Number<R> {
        Number { rule, keyed: keyed.expose().bytes().collect() }
    }
}

impl<R: Rule> Grammar for Number<R> {
    fn read(&self, words: &[Word], meaning: &mut Meaning) -> Option<Extent> {
        let waits = read_digits(&self.keyed, words, meaning)?;
        let extent = self.rule.extent(meaning.digits())?;
        match (waits, extent) {
            // "double" at the end of a full number goes nowhere.
            (true, Extent::Full) => None,
            (true, _) => Some(Extent::Short),
            (false, extent) => Some(extent),
        }
    }

    fn prior(&self, meaning: &Meaning) -> f32 {
        self.rule.prior(meaning.digits())
    }
}

/// Writes keyed and spoken digits; whether "double" or "triple" waits for its digit.
pub fn read_digits(keyed: &Keys, words: &[Word], meaning: &mut Meaning) -> Option<bool> {
    for key in keyed.expose().bytes() {
        let digit = key.checked_sub(b'0').filter(|digit| *digit < 10)?;
        meaning.push(digit).then_some(())?;
    }
    let mut times = 1;
    for word in words {
        match *word {
            Word::Digit(digit) => {
                for _ in 0..times {
                    meaning.push(digit).then_some(())?;
                }
                times = 1;
            }
            Word::Times(n) if times == 1 => times = n,
            Word::Other => {}
            _ => return None,
        }
    }
    Some(times > 1)
}

/// So many digits.
pub struct Exactly(pub u8);

impl Rule for Exactly {
    fn extent(&self, digits: &[u8]) -> Option<Extent> {
        Between((self.0, self.0)).extent(digits)
    }
}

/// At least and at most so many digits.
pub struct Between(pub (u8, u8));

impl Rule for Between {
    fn extent(&self, digits: &[u8]) -> Option<Extent> {
        let (min, max) = (usize::from(self.0.0), usize::from(self.0.1).min(DIGITS_MAX));
        match digits.len() {
            len if len > max => None,
            len if len == max => Some(Extent::Full),
            len if len >= min && len > 0 => Some(Extent::Enough),
            _ => Some(Extent::Short),
        }
    }
}

/// Nine digits whose weighted sum is divisible by ten (ABA).
pub struct Routing;

impl Rule for Routing {
    fn extent(&self, digits: &[u8]) -> Option<Extent> {
        const LEN: usize = 9;
        if digits.len() < LEN {
            return Some(Extent::Short);
        }
        let weighted = digits.iter().zip([3, 7, 1].into_iter().cycle());
        let sum: u32 = weighted.map(|(digit, weight)| u32::from(*digit) * weight).sum();
        (digits.len() == LEN && sum > 0 && sum.is_multiple_of(10)).then_some(Extent::Full)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{builds_up, said};
    use super::*;
    use crate::instrument::RoutingNumber;
    use crate::speech::Field;

    #[test]
    fn digits_are_said_in_many_ways() {
        for (text, digits) in [
            ("four six two oh one", "46201"),
            ("double four double two one", "44221"),
            ("triple zero one two", "00012"),
            ("one triple nine two", "19992"),
        ] {
            let full = Some((digits.to_string(), Extent::Full));
            assert_eq!(builds_up(Field::Zip, text), full, "{text}");
        }
        for wrong in ["double double one", "one two three four five six"] {
            assert_eq!(said(Field::Zip, "", wrong), None, "{wrong}");
        }
        let short = said(Field::Zip, "", "double four double").map(|(_, extent)| extent);
        assert_eq!(short, Some(Extent::Short));
    }

    #[test]
    fn keyed_digits_come_first() {
        let full = Some(("46201".to_string(), Extent::Full));
        assert_eq!(said(Field::Zip, "462", "oh one"), full);
        assert_eq!(said(Field::Zip, "462", "oh one two"), None);
    }

    #[test]
    fn routing_numbers_follow_the_same_rule_as_keyed_ones() {
        for stem in 0..2000u32 {
            let digits: Vec<u8> = format!("{:09}", stem * 499_979 % 1_000_000_000)
                .bytes()
                .map(|b| b - b'0')
                .collect();
            let text: String = digits.iter().map(|digit| char::from(b'0' + digit)).collect();
            let full = Routing.extent(&digits) == Some(Extent::Full);
            assert_eq!(full, RoutingNumber::parse(&text).is_some(), "{text}");
        }
    }
}
