//! The convenience fee: none, flat, a share of the amount, or both, within bounds.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::settings::amount_of;
use crate::money::Money;

/// In the configuration `"2.00"`, or `{ flat = "0.30", percent = "2.5", min = "1.00", max = "9.95" }`
/// of which each key may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fee {
    flat: Money,
    /// Hundredths of a percent of the amount.
    share: u16,
    min: Money,
    max: Option<Money>,
}

/// A share of all of it.
const WHOLE: u16 = 10_000;

impl Fee {
    pub fn flat(flat: Money) -> Fee {
        Fee { flat, share: 0, min: Money::new(0, flat.currency), max: None }
    }

    /// There are payments for which it is more than nothing.
    pub fn may_be_due(&self) -> bool {
        self.flat.is_positive() || self.share > 0 || self.min.is_positive()
    }

    /// The fee for paying `amount`, half a minor unit rounded up; `None` if it does not fit.
    pub fn of(&self, amount: Money) -> Option<Money> {
        let share = i128::from(amount.minor) * i128::from(self.share);
        let share = (share + i128::from(WHOLE / 2)).div_euclid(i128::from(WHOLE));
        let share = Money::new(i64::try_from(share).ok()?, amount.currency);
        let fee = self.flat.checked_add(share)?;
        let minor = fee.minor.max(self.min.minor);
        Some(Money::new(self.max.map_or(minor, |max| minor.min(max.minor)), fee.currency))
    }
}

impl<'de> Deserialize<'de> for Fee {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fee, D::Error> {
        deserializer.deserialize_any(Written)
    }
}

struct Written;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    flat: Option<String>,
    percent: Option<String>,
    min: Option<String>,
    max: Option<String>,
}

impl<'de> Visitor<'de> for Written {
    type Value = Fee;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an amount in quotes, such as \"2.00\", or { percent = \"2.5\" }")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Fee, E> {
        Ok(Fee::flat(amount_of(text)?))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Fee, A::Error> {
        let Keys { flat, percent, min, max } = Keys::deserialize(MapAccessDeserializer::new(map))?;
        if flat.is_none() && percent.is_none() {
            return Err(A::Error::custom("say `flat`, `percent` or both"));
        }
        let amount = |text: Option<String>| text.map(|text| amount_of(&text)).transpose();
        let zero = || amount_of("0.00");
        let fee = Fee {
            flat: amount(flat)?.map_or_else(zero, Ok)?,
            share: percent.map_or(Ok(0), |text| share(&text))?,
            min: amount(min)?.map_or_else(zero, Ok)?,
            max: amount(max)?,
        };
        match fee.max {
            Some(max) if max.minor < fee.min.minor => Err(A::Error::custom(format!(
                "the most, {}, is less than the least, {}: correct `min` or `max`",
                max.decimal(),
                fee.min.decimal()
            ))),
            _ => Ok(fee),
        }
    }
}

/// `2.75` percent in hundredths of a percent.
pub(super) fn share<E: Error>(text: &str) -> Result<u16, E> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let hundredths = match !whole.is_empty() && part.len() <= 2 && digits(whole) && digits(part) {
        true => format!("{whole}{part:0<2}").parse().ok(),
        false => None,
    };
    hundredths.filter(|&share| share <= WHOLE).ok_or_else(|| {
        E::custom(format!("`{text}` is no percentage: write \"2.5\", two decimals at most"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instrument::{AccountKind, Brand, Means};
    use crate::payment::Settings;

    fn fee(text: &str) -> Result<Fee, String> {
        #[derive(Deserialize)]
        struct Table {
            fee: Fee,
        }
        let table: Result<Table, _> = toml::from_str(&format!("fee = {text}"));
        table.map(|table| table.fee).map_err(|error| error.to_string())
    }

    #[test]
    fn fees_are_rounded_half_up_and_kept_within_bounds() {
        for (text, amount, want) in [
            ("\"2.00\"", 32_172, 200),
            ("\"0\"", 32_172, 0),
            ("{ percent = \"2.5\" }", 10_000, 250),
            ("{ percent = \"2.5\" }", 32_172, 804), // 804.3
            ("{ percent = \"2.75\" }", 200, 6),     // 5.5
            ("{ percent = \"2.75\" }", 199, 5),     // 5.47
            ("{ flat = \"0.30\", percent = \"2.9\" }", 10_000, 320),
            ("{ percent = \"1\", min = \"1.00\", max = \"9.95\" }", 5_000, 100),
            ("{ percent = \"1\", min = \"1.00\", max = \"9.95\" }", 50_000, 500),
            ("{ percent = \"1\", min = \"1.00\", max = \"9.95\" }", 500_000, 995),
            ("{ percent = \"100\" }", 777, 777),
        ] {
            let fee = fee(text).unwrap();
            assert_eq!(fee.of(Money::usd(amount)), Some(Money::usd(want)), "{text} of {amount}");
        }
        assert_eq!(
            fee("{ percent = \"100\", flat = \"1\" }").unwrap().of(Money::usd(i64::MAX)),
            None
        );
    }

    #[test]
    fn a_brand_may_cost_another_fee() {
        let text = "fee = \"2.00\"\ncard_fees.amex = { percent = \"3\" }\n";
        let settings: Settings = toml::from_str(text).unwrap();
        let amount = Money::usd(10_000);
        let fee = |means| settings.fee(means, amount);
        assert_eq!(fee(Means::Card(Brand::Amex)), Some(Money::usd(300)));
        assert_eq!(fee(Means::Card(Brand::Visa)), Some(Money::usd(200)));
        assert_eq!(fee(Means::Bank(AccountKind::Savings)), Some(Money::usd(200)));
        let bank = "[bank]\ncompany = \"A\"\nphone = \"8005550100\"\ntime_zone = \"eastern\"\n";
        let settings: Settings = toml::from_str(&format!("{text}{bank}fee = \"0.50\"")).unwrap();
        assert_eq!(settings.fee(Means::Card(Brand::Visa), amount), Some(Money::usd(200)));
        let bank = Means::Bank(AccountKind::Savings);
        assert_eq!(settings.fee(bank, amount), Some(Money::usd(50)));
        let wrong = toml::from_str::<Settings>("card_fees.amx = \"1\"").unwrap_err().to_string();
        assert!(wrong.contains("unknown card `amx`"), "{wrong}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, want) in [
            ("2", "expected an amount in quotes"),
            ("\"two\"", "write \"2.00\""),
            ("{ percent = \"101\" }", "is no percentage"),
            ("{ percent = \"2.555\" }", "two decimals at most"),
            ("{ percent = \"-1\" }", "is no percentage"),
            ("{ percnt = \"1\" }", "unknown field"),
            ("{ min = \"1\" }", "say `flat`, `percent` or both"),
            ("{ percent = \"1\", min = \"2\", max = \"1\" }", "correct `min` or `max`"),
        ] {
            let error = fee(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
