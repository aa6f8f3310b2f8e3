//! What the biller accepts and charges: `[payment]` in the configuration.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use super::fee::Fee;
use super::partial::PartialSettings;
use super::surcharge::SurchargeSettings;
use crate::gateway::Fixable;
use crate::instrument::{Brand, Means};
use crate::ledger::FeeFailure;
use crate::ledger::velocity::Limits;
use crate::money::{Currency, Money};

mod bank; // paying from a bank account
mod later; // paying later with a kept card

pub use bank::{BankSettings, Phone, Zone};
pub use later::{Every, LaterSettings, PlanSettings};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Short name in file names and gateway references: letters, digits, `-`.
    pub biller: String,
    /// Convenience fee, added to the amount and charged in one total. Zero: none.
    pub fee: Fee,
    /// Another fee for cards of these brands.
    #[serde(deserialize_with = "by_brand")]
    pub card_fees: Vec<(Brand, Fee)>,
    /// What paying by credit card costs besides. Unset: nothing.
    pub surcharge: Option<SurchargeSettings>,
    /// How the fee is told from the payment.
    pub fee_mode: FeeMode,
    /// With `two_mid`: the id of the gateway that charges the fee, and nothing else.
    pub fee_gateway: Option<String>,
    /// With `two_mid`: what becomes of the payment when its fee cannot be charged.
    #[serde(deserialize_with = "failure")]
    pub fee_failure: FeeFailure,
    /// With `two_mid`: who is said to be paid by each charge. Unset: it is not said.
    pub payee: Option<String>,
    pub fee_payee: Option<String>,
    #[serde(deserialize_with = "amount")]
    pub min_payment: Money,
    #[serde(deserialize_with = "amount")]
    pub max_payment: Money,
    /// Less or more than what is due.
    pub partial: PartialSettings,
    /// Callers may pay up to [`super::ACCOUNTS_MAX`] accounts in one payment, by card.
    pub several_accounts: bool,
    #[serde(deserialize_with = "brands")]
    pub cards: Vec<Brand>,
    /// Ask for the security code.
    pub cvv: bool,
    /// Ask for the card's billing ZIP.
    pub zip: bool,
    /// Callers may pay from a bank account. Unset: by card alone.
    pub bank: Option<BankSettings>,
    /// Callers may have a card kept for their next payments. Unset: every card is keyed.
    pub saved: Option<SavedSettings>,
    /// Callers may have a kept card charged later. Unset: on the call alone.
    pub later: Option<LaterSettings>,
    /// Longest account number that callers key.
    pub account_len_max: usize,
    /// Charges tried in one call before the agent takes over.
    pub declines_max: u8,
    /// Wrong account and ZIP pairs before the agent takes over.
    pub authentications_max: u8,
    /// A payment of the same amount for the same account within this time is asked about before
    /// it is made again. Zero: never.
    pub duplicate_window_minutes: u32,
    /// Which payments are taken for the same.
    pub duplicate_match: DuplicateMatch,
    /// How often may be tried: against those who try cards.
    pub velocity: Limits,
    /// No answer from the gateway within this time is an unknown outcome.
    pub gateway_limit_ms: u64,
}

/// How a fee is told from the payment it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeeMode {
    /// One charge of both, told apart in the ledger and the reconciliation file.
    Ledger,
    /// One charge of both, which the gateway splits.
    Single,
    /// Two charges, at two gateways.
    TwoMid,
}

/// `[payment.saved]`: cards that the gateway keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SavedSettings {
    /// Ask for the security code each time such a card is charged.
    pub cvv: bool,
}

/// What a payment of the same amount for the same account must also have to be taken for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DuplicateMatch {
    /// Nothing: whatever was paid with.
    Account,
    /// The same card or bank account.
    Method,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            biller: "biller".into(),
            fee: Fee::flat(Money::usd(0)),
            card_fees: Vec::new(),
            surcharge: None,
            fee_mode: FeeMode::Ledger,
            fee_gateway: None,
            fee_failure: FeeFailure::Void,
            payee: None,
            fee_payee: None,
            min_payment: Money::usd(100),
            max_payment: Money::usd(500_000),
            partial: PartialSettings::default(),
            several_accounts: false,
            cards: Brand::ALL.to_vec(),
            cvv: true,
            zip: true,
            bank: None,
            saved: None,
            later: None,
            account_len_max: 20,
            declines_max: 3,
            authentications_max: 3,
            duplicate_window_minutes: 24 * 60,
            duplicate_match: DuplicateMatch::Account,
            velocity: Limits::default(),
            gateway_limit_ms: 45_000,
        }
    }
}

impl Settings {
    pub fn currency(&self) -> Currency {
        self.min_payment.currency
    }

    /// The fee for paying an amount with such a card or account; `None` if it does not fit.
    pub(super) fn fee(&self, means: Means, amount: Money) -> Option<Money> {
        let own = match means {
            Means::Card(brand) => self.card_fees.iter().find(|(of, _)| *of == brand).map(|f| &f.1),
            Means::Bank(_) => self.bank.as_ref().and_then(|bank| bank.fee.as_ref()),
        };
        own.unwrap_or(&self.fee).of(amount)
    }

    /// What becomes of a payment whose fee fails, if fees are charged by themselves.
    pub(super) fn fee_apart(&self) -> Option<FeeFailure> {
        (self.fee_mode == FeeMode::TwoMid).then_some(self.fee_failure)
    }

    /// Some payment has a fee, or may have.
    pub fn has_fees(&self) -> bool {
        let mut bank = self.bank.iter().filter_map(|bank| bank.fee.as_ref());
        self.has_card_fees() || bank.any(Fee::may_be_due)
    }

    /// Some payment by card has a fee, or may have.
    pub fn has_card_fees(&self) -> bool {
        let mut all = [&self.fee].into_iter().chain(self.card_fees.iter().map(|(_, fee)| fee));
        all.any(Fee::may_be_due)
    }

    /// Whether callers are asked for this field of their card.
    pub(super) fn asks(&self, field: Fixable) -> bool {
        match field {
            Fixable::Number | Fixable::Expiry => true,
            Fixable::Cvv => self.cvv,
            Fixable::Zip => self.zip,
            Fixable::Routing | Fixable::Account => false,
        }
    }
}

fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Money, D::Error> {
    deserializer.deserialize_str(Amount)
}

/// Amounts are text: a TOML float would not be exact, and an integer could mean cents.
struct Amount;

impl Visitor<'_> for Amount {
    type Value = Money;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an amount in quotes, such as \"2.00\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Money, E> {
        amount_of(text)
    }
}

/// An amount of nothing or more.
pub(super) fn amount_of<E: Error>(text: &str) -> Result<Money, E> {
    match Money::parse(text, Currency::USD) {
        Ok(money) if money.minor >= 0 => Ok(money),
        _ => Err(E::custom(format!("`{text}` is no amount: write \"2.00\""))),
    }
}

fn failure<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FeeFailure, D::Error> {
    let name = String::deserialize(deserializer)?;
    let wrong = || D::Error::custom(format!("`{name}`: write \"void\" or \"waive\""));
    FeeFailure::parse(&name).ok_or_else(wrong)
}

fn by_brand<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(Brand, Fee)>, D::Error> {
    let fees = BTreeMap::<String, Fee>::deserialize(deserializer)?;
    fees.into_iter().map(|(name, fee)| Ok((brand(&name)?, fee))).collect()
}

pub(super) fn brands<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Brand>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    names.iter().map(|name| brand(name)).collect()
}

/// A list of brands that may be left out: add `default`.
pub fn brands_if_any<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<Brand>>, D::Error> {
    brands(deserializer).map(Some)
}

fn brand<E: Error>(name: &str) -> Result<Brand, E> {
    let known = || Brand::ALL.map(Brand::name).join(", ");
    let brand = Brand::ALL.into_iter().find(|brand| brand.name() == name);
    brand.ok_or_else(|| E::custom(format!("unknown card `{name}`: use {}", known())))
}
