//! The surcharge for paying by credit card: `[payment.surcharge]`. Only where the operator's file
//! says that the card is a credit card and the billing ZIP is in a state that allows it.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

use super::fee::share;
use crate::instrument::{Brand, Card};
use crate::money::Money;

pub mod bins; // whose cards are credit cards
pub mod state; // which state a ZIP code is in

pub use bins::Bins;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SurchargeSettings {
    /// Hundredths of a percent of the amount.
    #[serde(deserialize_with = "percent")]
    pub percent: u16,
    /// What is known of cards: lines of `first six to eight digits,funding[,brand]`.
    pub bins: PathBuf,
    /// Cards it is put on. Unset: Visa, Mastercard and Discover.
    #[serde(default = "cards", deserialize_with = "super::settings::brands")]
    pub cards: Vec<Brand>,
    /// States in which nobody is surcharged, by their postal letters.
    #[serde(default = "states_refused", deserialize_with = "states")]
    pub states_refused: Vec<String>,
}

/// The most, in hundredths of a percent, that each network allows in the United States, whatever
/// accepting its cards costs.
pub const MOST_VISA: u16 = 300;
pub const MOST: u16 = 400;

fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    share(&String::deserialize(deserializer)?)
}

fn cards() -> Vec<Brand> {
    vec![Brand::Visa, Brand::Mastercard, Brand::Discover]
}

/// States whose law forbids it, or caps it below what the networks allow (Colorado).
fn states_refused() -> Vec<String> {
    ["CO", "CT", "MA", "ME", "PR"].map(String::from).to_vec()
}

fn states<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let all = Vec::<String>::deserialize(deserializer)?;
    match all.iter().find(|letters| !state::is_known(letters)) {
        None => Ok(all),
        Some(other) => Err(serde::de::Error::custom(format!(
            "`{other}` is no state: write its two postal letters, such as \"CT\""
        ))),
    }
}

impl SurchargeSettings {
    /// What is put on a payment of `amount` by this card, rounded down so that it is never more
    /// than its share; nothing unless all that decides it is known. `None` if it does not fit.
    pub fn of(&self, bins: Option<&Bins>, card: &Card, amount: Money) -> Option<Money> {
        let none = Money::new(0, amount.currency);
        let credit = bins.is_some_and(|bins| bins.is_credit(&card.pan));
        if !self.cards.contains(&card.pan.brand()) || !credit {
            return Some(none);
        }
        let state = card.zip.as_ref().and_then(|zip| state::of_zip(zip));
        if state.is_none_or(|state| self.states_refused.iter().any(|refused| refused == state)) {
            return Some(none);
        }
        let share = i128::from(amount.minor) * i128::from(self.percent) / 10_000;
        Some(Money::new(i64::try_from(share).ok()?, amount.currency))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instrument::{Expiry, Pan};

    fn card(number: &str, zip: Option<&str>) -> Card {
        let expiry = Expiry::parse("1239", jiff::civil::date(2026, 6, 1)).unwrap();
        let zip = zip.map(|zip| zip.to_string().into());
        Card { pan: Pan::parse(number).unwrap(), expiry, cvv: None, zip }
    }

    fn settings(text: &str) -> Result<SurchargeSettings, String> {
        let text = format!("bins = \"bins.csv\"\n{text}");
        toml::from_str(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn only_known_credit_cards_where_it_is_allowed_are_surcharged() {
        let settings = settings("percent = \"3\"").unwrap();
        let bins = Bins::parse("411111,credit\n41111112,debit\n555555,debit\n378282,credit\n");
        let bins = bins.unwrap();
        let of = |number: &str, zip| {
            let card = card(number, zip);
            settings.of(Some(&bins), &card, Money::usd(10_050)).map(|money| money.minor)
        };
        let visa = "4111111111111111";
        assert_eq!(of(visa, Some("46201")), Some(301)); // 301.5: never more than three percent
        assert_eq!(of(visa, Some("06101")), Some(0)); // Connecticut
        assert_eq!(of(visa, Some("80202")), Some(0)); // Colorado
        assert_eq!(of(visa, Some("00001")), Some(0)); // nowhere
        assert_eq!(of(visa, None), Some(0));
        assert_eq!(of("5555555555554444", Some("46201")), Some(0)); // debit
        assert_eq!(of("4012888888881881", Some("46201")), Some(0)); // unknown
        assert_eq!(of("378282246310005", Some("46201")), Some(0)); // no such brand in the settings
        let without = settings.of(None, &card(visa, Some("46201")), Money::usd(10_000));
        assert_eq!(without, Some(Money::usd(0)));
        let most = settings.of(Some(&bins), &card(visa, Some("46201")), Money::usd(i64::MAX));
        assert!(most.is_some_and(|most| most.is_positive()));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, want) in [
            ("percent = \"3.001\"", "is no percentage"),
            ("", "missing field `percent`"),
            ("percent = \"3\"\nstates_refused = [\"Texas\"]", "`Texas` is no state"),
            ("percent = \"3\"\ncards = [\"vise\"]", "unknown card `vise`"),
        ] {
            let error = settings(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
        assert_eq!(settings("percent = \"2.5\"").unwrap().percent, 250);
    }
}
