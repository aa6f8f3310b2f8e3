//! Card numbers: a known issuer, a length it issues, the Luhn sum right.

use std::sync::LazyLock;

use super::Extent;
use super::number::Rule;
use crate::instrument::Brand;

pub struct Card;

impl Rule for Card {
    fn extent(&self, digits: &[u8]) -> Option<Extent> {
        let beginnings = &*BEGINNINGS;
        let known = digits.len().min(DECIDING);
        if !beginnings.exists[known][number(&digits[..known])] {
            return None;
        }
        if digits.len() < DECIDING {
            return Some(Extent::Short);
        }
        let brand = beginnings.brands[number(&digits[..DECIDING])]?;
        let last = *issued(brand).last()?;
        if digits.len() > last {
            return None;
        }
        let whole = issued(brand).contains(&digits.len()) && luhn(digits);
        match (whole, digits.len() == last) {
            (true, true) => Some(Extent::Full),
            (true, false) => Some(Extent::Enough),
            (false, true) => None,
            (false, false) => Some(Extent::Short),
        }
    }

    /// Lengths that brands may issue but hardly do.
    fn prior(&self, digits: &[u8]) -> f32 {
        const RARE: f32 = -5.0;
        let usual = match BEGINNINGS.brands[number(&digits[..DECIDING.min(digits.len())])] {
            Some(Brand::Amex) => 15,
            Some(Brand::Diners) => 14,
            _ => 16,
        };
        if digits.len() == usual { 0.0 } else { RARE }
    }
}

/// Visa has not issued 13 digits for decades, but one longer number in ten has a right sum there.
fn issued(brand: Brand) -> &'static [usize] {
    if brand == Brand::Visa { &[16, 19] } else { brand.lengths() }
}

/// Digits that tell a brand.
const DECIDING: usize = 4;

struct Beginnings {
    /// By the first four digits.
    brands: Vec<Option<Brand>>,
    /// By how many digits there are, and their number: whether a card begins so.
    exists: [Vec<bool>; DECIDING + 1],
}

static BEGINNINGS: LazyLock<Beginnings> = LazyLock::new(|| {
    let brands: Vec<_> = (0..10_000).map(|four| Brand::of(&format!("{four:04}"))).collect();
    let exists = std::array::from_fn(|len| {
        let span = 10usize.pow((DECIDING - len) as u32);
        brands.chunks(span).map(|same| same.iter().any(Option::is_some)).collect()
    });
    Beginnings { brands, exists }
});

/// As [`crate::instrument::luhn`], on digits instead of text.
fn luhn(digits: &[u8]) -> bool {
    let term = |(from_right, &digit): (usize, &u8)| match (from_right % 2, digit * 2) {
        (0, _) => u32::from(digit),
        (_, doubled) => u32::from(doubled / 10 + doubled % 10),
    };
    digits.iter().rev().enumerate().map(term).sum::<u32>().is_multiple_of(10)
}

fn number(digits: &[u8]) -> usize {
    digits.iter().fold(0, |number, digit| number * 10 + usize::from(*digit))
}

#[cfg(test)]
mod tests {
    use super::super::tests::builds_up;
    use super::*;
    use crate::instrument::Pan;
    use crate::speech::Field;

    #[test]
    fn numbers_follow_the_same_rule_as_keyed_ones() {
        let mut taken = 0;
        for nth in 0..60_000u64 {
            let len = 13 + (nth % 7) as usize;
            let digits = format!("{:019}", nth.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 10u64.pow(19));
            let digits = &digits[..len];
            let values: Vec<u8> = digits.bytes().map(|byte| byte - b'0').collect();
            let whole = matches!(Card.extent(&values), Some(Extent::Enough | Extent::Full));
            let old_visa = digits.starts_with('4') && len == 13;
            assert_eq!(whole, Pan::parse(digits).is_ok() && !old_visa, "{digits}");
            taken += u32::from(whole);
        }
        assert!(taken > 200, "{taken} of 60000 are cards");
    }

    #[test]
    fn every_beginning_of_a_card_is_one() {
        for digits in ["4111111111111111", "2720990000000007", "378282246310005", "30569309025904"]
        {
            let words: Vec<&str> = digits
                .bytes()
                .map(|byte| {
                    ["oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
                        [usize::from(byte - b'0')]
                })
                .collect();
            let told = builds_up(Field::Card, &words.join(" "));
            assert!(told.is_some_and(|(value, extent)| value == digits && extent != Extent::Short));
        }
    }

    #[test]
    fn nothing_begins_with_what_nobody_issues() {
        for digits in [
            &[1][..],
            &[0],
            &[9],
            &[2, 1],
            &[2, 2, 2, 0],
            &[4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0],
        ] {
            assert_eq!(Card.extent(digits), None, "{digits:?}");
        }
    }
}
