//! Money: a whole number of minor units (cents) with its ISO 4217 currency.

use std::fmt;

pub use iso_currency::Currency;

/// An amount in minor units, never a float. Arithmetic is checked: `None` on overflow or when the
/// currencies differ.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    pub minor: i64,
    pub currency: Currency,
}

#[derive(Debug, PartialEq, Eq)]
pub enum MoneyError {
    NotANumber,
    TooManyDecimals,
    TooLarge,
}

impl Money {
    pub fn new(minor: i64, currency: Currency) -> Money {
        Money { minor, currency }
    }

    pub fn usd(minor: i64) -> Money {
        Money::new(minor, Currency::USD)
    }

    /// Reads `321.72`, `321.7`, `321` or `-5.00`, with an optional leading `$` and thousands
    /// commas.
    pub fn parse(text: &str, currency: Currency) -> Result<Money, MoneyError> {
        let text = text.trim();
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let text = text.strip_prefix('$').unwrap_or(text).replace(',', "");
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) {
            return Err(MoneyError::NotANumber);
        }
        let exponent = exponent(currency);
        if fraction.len() > exponent {
            return Err(MoneyError::TooManyDecimals);
        }
        let minor = format!("{whole}{fraction:0<exponent$}");
        let minor: i64 = minor.parse().map_err(|_| MoneyError::TooLarge)?;
        Ok(Money::new(if negative { -minor } else { minor }, currency))
    }

    pub fn checked_add(self, other: Money) -> Option<Money> {
        if self.currency != other.currency {
            return None;
        }
        Some(Money::new(self.minor.checked_add(other.minor)?, self.currency))
    }

    pub fn is_positive(self) -> bool {
        self.minor > 0
    }

    /// Whole units and minor units of the absolute amount: 321.72 is `(321, 72)`.
    pub fn parts(self) -> (u64, u64) {
        let scale = 10u64.pow(exponent(self.currency) as u32);
        let minor = self.minor.unsigned_abs();
        (minor / scale, minor % scale)
    }

    /// The decimal form gateways and files use: `321.72`.
    pub fn decimal(self) -> String {
        let (whole, part) = self.parts();
        let sign = if self.minor < 0 { "-" } else { "" };
        match exponent(self.currency) {
            0 => format!("{sign}{whole}"),
            exponent => format!("{sign}{whole}.{part:0exponent$}"),
        }
    }
}

fn exponent(currency: Currency) -> usize {
    currency.exponent().unwrap_or(2).into()
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.currency {
            Currency::USD => write!(f, "${}", self.decimal()),
            other => write!(f, "{} {}", self.decimal(), other.code()),
        }
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_decimals() {
        for (text, minor) in [("321.72", 32172), ("$1,000", 100_000), ("0.5", 50), ("-5.00", -500)]
        {
            assert_eq!(Money::parse(text, Currency::USD), Ok(Money::usd(minor)), "{text}");
        }
        assert_eq!(Money::usd(5).decimal(), "0.05");
        assert_eq!(Money::usd(32172).to_string(), "$321.72");
        assert_eq!(Money::parse("500", Currency::JPY).map(Money::decimal), Ok("500".into()));
    }

    #[test]
    fn refuses_what_is_no_amount() {
        for (text, why) in [
            ("", MoneyError::NotANumber),
            ("12.345", MoneyError::TooManyDecimals),
            ("1e5", MoneyError::NotANumber),
            ("99999999999999999999", MoneyError::TooLarge),
        ] {
            assert_eq!(Money::parse(text, Currency::USD), Err(why), "{text}");
        }
        assert_eq!(Money::usd(1).checked_add(Money::new(1, Currency::EUR)), None);
        assert_eq!(Money::usd(i64::MAX).checked_add(Money::usd(1)), None);
    }
}
