//! A sale in the simulator's books, and how the issuer judges a card.
//!
//! Every Luhn-valid card is approved, except:
//!
//! | card | outcome |
//! |---|---|
//! | 4000000000000002 | declined, another card may work |
//! | 4000000000009995 | declined, insufficient funds: another card or less may work |
//! | 4000000000009979 | declined for ever: stolen |
//! | 4000000000000069 | correct the expiry |
//! | 4000000000000127 | correct the security code |
//! | 4000000000000010 | correct the ZIP code |
//! | 4000000000000119 | correct the number |
//! | 4000000000009235 | held for review |
//!
//! Every bank account is approved, except:
//!
//! | account | outcome |
//! |---|---|
//! | 000111111116 | declined, another way to pay may work |
//! | 000111111113 | declined for ever: closed |
//! | 000111111117 | correct the routing number |
//! | 000111111118 | correct the account number |

use serde::Deserialize;
use serde_json::{Value, json};

use crate::gateway::simulator::{self, Case};
use crate::instrument::{Brand, Last4, Pan, RoutingNumber, luhn};
use crate::money::Money;

/// A sale in the simulator's books, as tests compare it with the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    pub id: String,
    pub reference: String,
    pub total: Money,
    pub fee: Money,
    pub brand: Option<Brand>,
    /// A bank account was debited.
    pub bank: bool,
    pub last4: Option<Last4>,
    pub outcome: Outcome,
    /// The name the card was given, as it was asked to be kept.
    pub token: Option<String>,
    pub at_ms: i64,
    /// Minor units paid back.
    pub refunded: i64,
    /// Lookups say `processing` before this.
    pub(super) processing_until_ms: i64,
    /// Keyed hash of the whole request: same key, other request is an error.
    pub(super) fingerprint: [u8; 16],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Approved,
    /// code, retry, field
    Declined(&'static str, &'static str, &'static str),
    Held(&'static str),
    Voided,
}

/// Declined, held or correctable: (card, status, code, retry, field).
pub(super) const TRIGGER_CARDS: [(&str, Outcome); 8] = [
    ("4000000000000002", Outcome::Declined("do_not_honor", "other", "")),
    ("4000000000009995", Outcome::Declined("insufficient_funds", "other", "")),
    ("4000000000009979", Outcome::Declined("stolen_card", "never", "")),
    ("4000000000000069", Outcome::Declined("expired_card", "fix", "expiry")),
    ("4000000000000127", Outcome::Declined("incorrect_cvv", "fix", "cvv")),
    ("4000000000000010", Outcome::Declined("incorrect_zip", "fix", "zip")),
    ("4000000000000119", Outcome::Declined("incorrect_number", "fix", "number")),
    ("4000000000009235", Outcome::Held("manual_review")),
];

/// Borrowed from the request, so that no copy of the card stays behind.
#[derive(Deserialize)]
pub(super) struct CardRequest<'a> {
    pub number: &'a str,
    pub exp_month: u8,
    pub exp_year: u16,
}

/// Borrowed from the request too.
#[derive(Deserialize)]
pub(super) struct BankRequest<'a> {
    pub entry_class: &'a str,
    pub routing: &'a str,
    pub number: &'a str,
}

/// A card that is kept here.
#[derive(Deserialize)]
pub(super) struct SavedRequest<'a> {
    pub token: &'a str,
}

/// What is known of a card that is kept, and how it is judged.
#[derive(Clone, Debug)]
pub(super) struct Vaulted {
    pub brand: Option<Brand>,
    pub last4: Option<Last4>,
    pub outcome: Outcome,
    /// The network's id of the charge it was kept with.
    pub network_id: String,
}

/// A charge by the merchant that names another than the first.
pub(super) const NOT_THE_FIRST: Outcome = Outcome::Declined("wrong_network_id", "other", "");

/// A token that stands for nothing here.
pub(super) const NO_SUCH_TOKEN: Outcome = Outcome::Declined("no_such_token", "never", "");

/// Letters alone, so that nobody takes it for a card number.
pub(super) fn token(fingerprint: &[u8; 16]) -> String {
    let letters = fingerprint.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    "tok_".chars().chain(letters.map(|nibble| char::from(b'a' + nibble))).collect()
}

pub(super) fn judged_account(account: &BankRequest<'_>) -> Outcome {
    if RoutingNumber::parse(account.routing).is_none() {
        return Outcome::Declined("invalid_routing", "fix", "routing");
    }
    match simulator::judged(account.number, true) {
        Case::DeclinedSoft => Outcome::Declined("insufficient_funds", "other", ""),
        Case::DeclinedHard => Outcome::Declined("account_closed", "never", ""),
        Case::Routing => Outcome::Declined("invalid_routing", "fix", "routing"),
        Case::Account => Outcome::Declined("invalid_account", "fix", "account"),
        _ => Outcome::Approved,
    }
}

pub(super) fn judged(card: &CardRequest<'_>, now_ms: i64) -> Outcome {
    if let Some((_, outcome)) = TRIGGER_CARDS.iter().find(|(number, _)| *number == card.number) {
        return *outcome;
    }
    if !luhn(card.number) || Pan::parse(card.number).is_err() {
        return Outcome::Declined("incorrect_number", "fix", "number");
    }
    let expired = jiff::Timestamp::from_millisecond(now_ms).is_ok_and(|now| {
        let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
        (i32::from(card.exp_year), i32::from(card.exp_month))
            < (i32::from(today.year()), i32::from(today.month()))
    });
    if expired || !(1..=12).contains(&card.exp_month) {
        return Outcome::Declined("expired_card", "fix", "expiry");
    }
    Outcome::Approved
}

pub(super) fn sale_json(charge: &Charge, now_ms: i64) -> Value {
    let mut sale = json!({
        "id": charge.id,
        "reference": charge.reference,
        "amount": charge.total.minor,
        "currency": charge.total.currency.code(),
        "last4": charge.last4.as_ref().map(|last4| last4.as_str()),
    });
    let rest = match charge.outcome {
        _ if now_ms < charge.processing_until_ms => json!({ "status": "processing" }),
        Outcome::Approved if charge.refunded > 0 => {
            json!({ "status": "refunded", "refunded": charge.refunded,
                "auth_code": auth_code(charge) })
        }
        Outcome::Approved => {
            json!({ "status": "approved", "auth_code": auth_code(charge), "avs": "Y", "cvv": "M" })
        }
        Outcome::Declined(code, retry, field) => {
            json!({ "status": "declined", "code": code, "retry": retry, "field": field })
        }
        Outcome::Held(code) => json!({ "status": "held", "code": code }),
        Outcome::Voided => json!({ "status": "voided" }),
    };
    if charge.outcome == Outcome::Approved && !charge.bank {
        sale["network_id"] = network_id(charge).into();
    }
    if let (Outcome::Approved, Some(token)) = (charge.outcome, &charge.token) {
        sale["token"] = token.as_str().into();
    }
    if let (Value::Object(sale), Value::Object(rest)) = (&mut sale, rest) {
        sale.extend(rest);
    }
    sale
}

/// What the card network calls it.
pub(super) fn network_id(charge: &Charge) -> String {
    charge.id.replace("sale_", "NT")
}

/// Six characters, as issuers give them.
fn auth_code(charge: &Charge) -> String {
    format!(
        "{:02X}{:02X}{:02X}",
        charge.fingerprint[0], charge.fingerprint[1], charge.fingerprint[2]
    )
}
