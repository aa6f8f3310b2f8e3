//! What counts as an answer: each grammar says when an entry is complete and what it means.

use jiff::civil::Date;
use zeroize::Zeroizing;

use crate::instrument::{Brand, Cvv, Expiry, Pan, PanError};
use crate::money::{Currency, Money};
use crate::prompt::Prompt;

/// How far an entry has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// More keys must follow.
    Short,
    /// May end here: `#` or a short silence ends it.
    Enough,
    /// Cannot go on: it ends now, without `#`.
    Full,
}

/// Why an entry was not taken: the phrase that tells the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject(pub &'static str);

/// The language of one field. Keys are ASCII digits only; `*` and `#` never reach a grammar.
pub trait Grammar {
    type Value;
    fn extent(&self, keys: &str) -> Extent;
    fn parse(&self, keys: &str) -> Result<Self::Value, Reject>;

    /// What the caller is told: the phrase, with what it needs to be a sentence.
    fn explain(&self, reject: Reject) -> Vec<Prompt> {
        vec![Prompt::Phrase(reject.0)]
    }
}

/// A grammar without its value: what the dialogue needs to run the question.
pub trait Check: Send {
    fn extent(&self, keys: &str) -> Extent;
    fn check(&self, keys: &str) -> Result<(), Reject>;
    fn explain(&self, reject: Reject) -> Vec<Prompt>;
}

impl<G: Grammar + Send> Check for G {
    fn extent(&self, keys: &str) -> Extent {
        Grammar::extent(self, keys)
    }

    fn check(&self, keys: &str) -> Result<(), Reject> {
        self.parse(keys).map(drop)
    }

    fn explain(&self, reject: Reject) -> Vec<Prompt> {
        Grammar::explain(self, reject)
    }
}

/// One of a few keys, each with what it means.
#[derive(Clone)]
pub struct Menu<T: Copy>(pub Vec<(char, T)>);

impl<T: Copy> Grammar for Menu<T> {
    type Value = T;

    fn extent(&self, keys: &str) -> Extent {
        if keys.is_empty() { Extent::Short } else { Extent::Full }
    }

    fn parse(&self, keys: &str) -> Result<T, Reject> {
        let choice = self.0.iter().find(|(key, _)| keys.len() == 1 && keys.starts_with(*key));
        choice.map(|(_, value)| *value).ok_or(Reject("error.choice"))
    }
}

/// A card number of one of the accepted brands. It ends by itself where the brand allows no
/// longer number, or at a length at which the checksum is already right and a longer one is rare.
#[derive(Clone)]
pub struct CardNumber {
    pub accepted: Vec<Brand>,
}

/// No brand issues longer numbers.
const PAN_LEN_MAX: usize = 19;

impl Grammar for CardNumber {
    type Value = Pan;

    fn extent(&self, keys: &str) -> Extent {
        let Some(brand) = Brand::of(keys) else {
            return if keys.len() < PAN_LEN_MAX { Extent::Short } else { Extent::Full };
        };
        let lengths = brand.lengths();
        // Visa has not issued 13 digits for decades, but one 16-digit number in ten passes the
        // checksum there: such an entry ends by `#` or the longer timer only.
        if (brand, keys.len()) == (Brand::Visa, 13) {
            return Extent::Short;
        }
        match (lengths.contains(&keys.len()), lengths.last()) {
            (_, Some(longest)) if keys.len() >= *longest => Extent::Full,
            (true, _) => Extent::Enough,
            _ => Extent::Short,
        }
    }

    fn parse(&self, keys: &str) -> Result<Pan, Reject> {
        let pan = Pan::parse(keys).map_err(|why| match why {
            PanError::UnknownBrand => Reject("card.not_accepted"),
            _ => Reject("card.invalid"),
        })?;
        if !self.accepted.contains(&pan.brand()) {
            return Err(Reject("card.not_accepted"));
        }
        Ok(pan)
    }
}

/// `MMYY` or `MYY`, not in the past.
#[derive(Clone)]
pub struct ExpiryDate {
    pub today: Date,
}

impl Grammar for ExpiryDate {
    type Value = Expiry;

    fn extent(&self, keys: &str) -> Extent {
        match keys.len() {
            0..=2 => Extent::Short,
            // `930` is whole: no month starts with a digit above 1.
            3 => Extent::Enough,
            _ => Extent::Full,
        }
    }

    fn parse(&self, keys: &str) -> Result<Expiry, Reject> {
        Expiry::parse(keys, self.today).map_err(|_| Reject("expiry.invalid"))
    }
}

/// The security code of a brand.
#[derive(Clone)]
pub struct SecurityCode {
    pub brand: Brand,
}

impl Grammar for SecurityCode {
    type Value = Cvv;

    fn extent(&self, keys: &str) -> Extent {
        if keys.len() < self.brand.cvv_len() { Extent::Short } else { Extent::Full }
    }

    fn parse(&self, keys: &str) -> Result<Cvv, Reject> {
        Cvv::parse(keys, self.brand).ok_or(Reject("cvv.invalid"))
    }
}

/// A five-digit ZIP code.
#[derive(Clone)]
pub struct ZipCode;

impl Grammar for ZipCode {
    type Value = Zeroizing<String>;

    fn extent(&self, keys: &str) -> Extent {
        if keys.len() < 5 { Extent::Short } else { Extent::Full }
    }

    fn parse(&self, keys: &str) -> Result<Zeroizing<String>, Reject> {
        let five = keys.len() == 5;
        five.then(|| Zeroizing::new(keys.to_string())).ok_or(Reject("zip.invalid"))
    }
}

/// An account number: its length is the biller's business, so `#` or a silence ends it.
#[derive(Clone)]
pub struct AccountNumber {
    pub len_max: usize,
}

impl Grammar for AccountNumber {
    type Value = String;

    fn extent(&self, keys: &str) -> Extent {
        match keys.len() {
            0 => Extent::Short,
            len if len < self.len_max => Extent::Enough,
            _ => Extent::Full,
        }
    }

    fn parse(&self, keys: &str) -> Result<String, Reject> {
        let right = !keys.is_empty() && keys.len() <= self.len_max;
        right.then(|| keys.to_string()).ok_or(Reject("error.invalid"))
    }
}

/// An amount keyed in minor units: `2000` is twenty dollars. Never zero, whatever the bounds.
#[derive(Clone)]
pub struct Amount {
    pub min: Money,
    pub max: Money,
    /// Why less, or more, is not taken; the bound is said after it.
    pub low: Reject,
    pub high: Reject,
}

impl Grammar for Amount {
    type Value = Money;

    fn extent(&self, keys: &str) -> Extent {
        match keys.len() {
            0 => Extent::Short,
            1..=8 => Extent::Enough,
            _ => Extent::Full,
        }
    }

    fn parse(&self, keys: &str) -> Result<Money, Reject> {
        let minor = keys.parse().map_err(|_| Reject("error.invalid"))?;
        let amount = Money::new(minor, self.currency());
        if amount.minor < self.least().minor {
            return Err(self.low);
        }
        if amount.minor > self.max.minor {
            return Err(self.high);
        }
        Ok(amount)
    }

    fn explain(&self, reject: Reject) -> Vec<Prompt> {
        let bound = match reject {
            low if low == self.low => Some(self.least()),
            high if high == self.high => Some(self.max),
            _ => None,
        };
        let phrase = Prompt::Phrase(reject.0);
        [phrase].into_iter().chain(bound.map(Prompt::Amount)).collect()
    }
}

pub const TOO_LOW: Reject = Reject("amount.too_low");
pub const TOO_HIGH: Reject = Reject("amount.too_high");

impl Amount {
    /// Within the least and most of any payment.
    pub fn within(min: Money, max: Money) -> Amount {
        Amount { min, max, low: TOO_LOW, high: TOO_HIGH }
    }

    fn currency(&self) -> Currency {
        self.min.currency
    }

    fn least(&self) -> Money {
        Money::new(self.min.minor.max(1), self.currency())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_number_ends_where_its_brand_ends() {
        let grammar = CardNumber { accepted: Brand::ALL.to_vec() };
        for (keys, extent) in [
            ("", Extent::Short),
            ("411111111111111", Extent::Short),
            ("4111111111111111", Extent::Enough),
            ("4111111111111111111", Extent::Full),
            ("378282246310005", Extent::Full),
            ("5555555555554444", Extent::Full),
            ("9999999999999999", Extent::Short),
            ("9999999999999999999", Extent::Full),
        ] {
            assert_eq!(Grammar::extent(&grammar, keys), extent, "{} keys", keys.len());
        }
    }

    #[test]
    fn a_brand_the_biller_does_not_take_is_named_as_such() {
        let grammar = CardNumber { accepted: vec![Brand::Visa] };
        assert!(grammar.parse("4111111111111111").is_ok());
        let amex = grammar.parse("378282246310005").err();
        assert_eq!(amex, Some(Reject("card.not_accepted")));
        assert_eq!(grammar.parse("4111111111111112").err(), Some(Reject("card.invalid")));
    }

    #[test]
    fn an_amount_is_keyed_in_cents_within_bounds() {
        let grammar = Amount::within(Money::usd(100), Money::usd(50_000));
        assert_eq!(grammar.parse("2000"), Ok(Money::usd(2000)));
        assert_eq!(grammar.parse("99"), Err(Reject("amount.too_low")));
        assert_eq!(grammar.parse("50001"), Err(Reject("amount.too_high")));
        // Both phrases want the bound after them.
        let told = |keys| Grammar::explain(&grammar, grammar.parse(keys).err().unwrap());
        let (least, most) = (Prompt::Amount(Money::usd(100)), Prompt::Amount(Money::usd(50_000)));
        assert_eq!(told("99"), [Prompt::Phrase("amount.too_low"), least]);
        assert_eq!(told("50001"), [Prompt::Phrase("amount.too_high"), most]);
        let free = Amount::within(Money::usd(0), Money::usd(50_000));
        assert_eq!(free.parse("0"), Err(Reject("amount.too_low")));
    }

    #[test]
    fn a_menu_takes_one_of_its_keys() {
        let grammar = Menu(vec![('1', true), ('2', false)]);
        assert_eq!(grammar.parse("2"), Ok(false));
        assert_eq!(grammar.parse("3"), Err(Reject("error.choice")));
        assert_eq!(grammar.parse("12"), Err(Reject("error.choice")));
    }
}
