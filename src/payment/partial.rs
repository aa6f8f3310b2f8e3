//! Less or more than what is due: what the biller lets callers pay. `[payment.partial]`.

use serde::{Deserialize, Deserializer};

use super::fee::share;
use super::settings::amount_of;
use crate::account::Account;
use crate::dialogue::grammar::{Amount, Reject, TOO_LOW};
use crate::money::Money;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PartialSettings {
    /// Less than what is due.
    pub allow: Allow,
    /// More than what is due, or something where nothing is.
    pub over: Over,
    /// The least that is less than what is due.
    #[serde(deserialize_with = "amount")]
    pub min: Option<Money>,
    /// The same in hundredths of a percent of what is due.
    #[serde(deserialize_with = "percent")]
    pub min_percent: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allow {
    #[default]
    Any,
    /// What is past due must be paid.
    PastDue,
    None,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    #[default]
    Any,
    None,
}

fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Money>, D::Error> {
    amount_of(&String::deserialize(deserializer)?).map(Some)
}

fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    share(&String::deserialize(deserializer)?)
}

impl PartialSettings {
    /// Whether a payment is taken for an account that owes nothing.
    pub(super) fn takes_in_advance(&self) -> bool {
        self.over == Over::Any
    }

    /// What may be paid of an account, within the least and most of any payment, and why no less
    /// and no more. All that is due may always be paid, unless it is above the most.
    pub(super) fn bounds(&self, account: &Account, [least, most]: [Money; 2]) -> Amount {
        let due = account.amount_due;
        let mut bounds = Amount::within(least, most);
        if !due.is_positive() {
            return bounds;
        }
        let past_due = account.past_due.filter(|past| past.is_positive());
        let part = i128::from(due.minor) * i128::from(self.min_percent);
        let part = part.div_euclid(10_000) + i128::from(part.rem_euclid(10_000) > 0);
        let part = i64::try_from(part).unwrap_or(due.minor);
        let floors = [
            (self.min.map_or(0, |min| min.minor), TOO_LOW),
            (part, TOO_LOW),
            match self.allow {
                Allow::Any => (0, TOO_LOW),
                Allow::PastDue => (past_due.map_or(0, |past| past.minor), NOT_PAST_DUE),
                Allow::None => (due.minor, NOT_IN_PART),
            },
        ];
        for (minor, low) in floors {
            let floor = minor.min(due.minor).min(most.minor);
            if floor > bounds.min.minor {
                bounds = Amount { min: Money::new(floor, due.currency), low, ..bounds };
            }
        }
        if self.over == Over::None && due.minor < most.minor {
            let max = Money::new(due.minor, due.currency);
            // Who owes less than the least of any payment pays what they owe.
            let min = Money::new(bounds.min.minor.min(due.minor), due.currency);
            bounds = Amount { min, max, high: NOT_OVER, ..bounds };
        }
        bounds
    }
}

const NOT_IN_PART: Reject = Reject("amount.not_in_part");
const NOT_PAST_DUE: Reject = Reject("amount.not_past_due");
const NOT_OVER: Reject = Reject("amount.not_over");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::May;
    use crate::dialogue::grammar::TOO_HIGH;

    fn account(due: i64, past_due: Option<i64>) -> Account {
        Account {
            id: "1001".into(),
            name_first: None,
            name_last: None,
            phones: Vec::new(),
            verify_zip: None,
            amount_due: Money::usd(due),
            past_due: past_due.map(Money::usd),
            min_payment: None,
            max_payment: None,
            due_date: None,
            may: May::default(),
        }
    }

    #[test]
    fn each_rule_keeps_to_what_is_due() {
        for (rules, due, past_due, want) in [
            ("", 10_000, None, (100, TOO_LOW, 500_000, TOO_HIGH)),
            ("allow = \"none\"", 10_000, None, (10_000, NOT_IN_PART, 500_000, TOO_HIGH)),
            (
                "allow = \"none\"\nover = \"none\"",
                10_000,
                None,
                (10_000, NOT_IN_PART, 10_000, NOT_OVER),
            ),
            ("allow = \"past_due\"", 10_000, Some(4_000), (4_000, NOT_PAST_DUE, 500_000, TOO_HIGH)),
            ("allow = \"past_due\"", 10_000, None, (100, TOO_LOW, 500_000, TOO_HIGH)),
            ("min = \"25.00\"", 10_000, None, (2_500, TOO_LOW, 500_000, TOO_HIGH)),
            // Who owes less pays that.
            ("min = \"25.00\"", 1_000, None, (1_000, TOO_LOW, 500_000, TOO_HIGH)),
            ("min_percent = \"33.33\"", 10_001, None, (3_334, TOO_LOW, 500_000, TOO_HIGH)),
            (
                "min_percent = \"10\"\nmin = \"25\"",
                10_000,
                None,
                (2_500, TOO_LOW, 500_000, TOO_HIGH),
            ),
            ("over = \"none\"", 10_000, None, (100, TOO_LOW, 10_000, NOT_OVER)),
            ("over = \"none\"", 50, None, (50, TOO_LOW, 50, NOT_OVER)),
            ("over = \"none\"", 600_000, None, (100, TOO_LOW, 500_000, TOO_HIGH)),
            ("allow = \"none\"", 600_000, None, (500_000, NOT_IN_PART, 500_000, TOO_HIGH)),
            ("allow = \"none\"\nover = \"none\"", 0, None, (100, TOO_LOW, 500_000, TOO_HIGH)),
        ] {
            let settings: PartialSettings = toml::from_str(rules).unwrap();
            let most = [Money::usd(100), Money::usd(500_000)];
            let Amount { min, low, max, high } = settings.bounds(&account(due, past_due), most);
            assert_eq!((min.minor, low, max.minor, high), want, "{rules} of {due}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, want) in [
            ("allow = \"some\"", "unknown variant `some`"),
            ("over = \"past_due\"", "unknown variant `past_due`"),
            ("min = \"-1\"", "is no amount"),
            ("min_percent = \"101\"", "is no percentage"),
            ("least = \"1\"", "unknown field `least`"),
        ] {
            let error = toml::from_str::<PartialSettings>(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
