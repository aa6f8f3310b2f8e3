//! Confirmation numbers: short enough to write down while listening, with a check digit so that a
//! number read back wrong is noticed.

use rand::{Rng, RngExt};

use crate::instrument::{luhn, luhn_check_digit};

/// Digits of a confirmation number, the check digit included.
pub const LEN: usize = 9;

/// Nine digits: no leading zero, the last one a Luhn check digit. Whether it is taken is for the
/// ledger to say.
pub fn mint<R: Rng + ?Sized>(rng: &mut R) -> String {
    let stem = rng.random_range(10_000_000u32..=99_999_999).to_string();
    let check = luhn_check_digit(&stem);
    format!("{stem}{check}")
}

/// Whether `text` could have been minted here.
pub fn is_valid(text: &str) -> bool {
    text.len() == LEN && !text.starts_with('0') && luhn(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn minted_numbers_are_valid_and_differ() {
        let mut rng = StdRng::seed_from_u64(7);
        let minted: std::collections::BTreeSet<String> =
            (0..1000).map(|_| mint(&mut rng)).collect();
        assert!(minted.iter().all(|number| is_valid(number)));
        assert!(minted.len() > 990, "{} distinct", minted.len());
    }

    #[test]
    fn one_wrong_digit_or_two_swapped_are_noticed() {
        let number = mint(&mut StdRng::seed_from_u64(1));
        let bytes = number.as_bytes();
        for at in 0..LEN {
            let mut wrong = bytes.to_vec();
            wrong[at] = if wrong[at] == b'9' { b'1' } else { wrong[at] + 1 };
            assert!(!is_valid(std::str::from_utf8(&wrong).unwrap()), "digit {at}");
        }
        assert!(!is_valid("12345678"));
        assert!(!is_valid("000000000"));
        assert!(!is_valid("48291503x"));
    }
}
