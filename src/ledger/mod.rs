//! What was intended and what happened: the payment states, durable before anything leaves us.

use crate::gateway::{Approval, Verdict};
use crate::instrument::{Fingerprint, Last4, Means};
use crate::money::Money;

pub mod journal; // the state machine: which entry may follow which
pub mod confirmation; // numbers a caller can write down, with a check digit
pub mod change; // voids, refunds and returns
pub mod allocation; // one payment for several accounts
pub mod split; // a bill and its fee, in one charge or in two
pub mod card; // cards that callers have kept for their next payments
pub mod arrangement; // payments by kept cards that are arranged for later
pub mod velocity; // how fast cards are tried
pub mod screen; // what is known against a payment before it is made
pub mod reconcile; // the biller's file: header, rows, trailer

pub use allocation::Allocation;
pub use arrangement::{Arrangement, Instalment, Wallet};
pub use card::{Consent, SavedCard};
pub use change::{Change, Progress, Undo};
pub use screen::{Earlier, Screened, Screening};
pub use split::{FeeFailure, Pairing, Split};

/// One payment, from consent to its end. No card data: what kind it was, the last four digits, and
/// fingerprints that mean nothing without their key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Our reference at the gateway and its idempotency key; minted once.
    pub id: String,
    pub confirmation: String,
    pub biller: String,
    pub account_id: String,
    pub amount: Money,
    /// Of a payment for several accounts what is for each, `account_id` first; else empty.
    pub allocations: Vec<Allocation>,
    pub fee: Money,
    pub split: Split,
    pub means: Means,
    pub last4: Last4,
    /// Of the card or account; `None` in payments of before there were any.
    pub fingerprint: Option<Fingerprint>,
    pub gateway: String,
    pub call_id: String,
    pub origin: Origin,
    /// Unix milliseconds, UTC.
    pub created_ms: i64,
}

/// Where a payment came from, so that attempts can be counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Of the caller's number.
    pub caller: Option<Fingerprint>,
    /// Of whoever issued the card.
    pub issuer: Option<Fingerprint>,
    pub trunk: String,
}

/// `Consented -> Sending -> Approved | Declined | Held | Unknown -> ... -> Posted`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The caller said yes; nothing has been sent.
    Consented,
    /// The request may have left. After a crash this is `Unknown`.
    Sending,
    Approved(Approval),
    Declined(String),
    /// For a person to decide: why, and what was approved if anything was.
    Held(String, Option<Approval>),
    /// No definitive answer; being looked up.
    Unknown(String),
    /// Proven never processed (not sent, or absent at the gateway).
    NotCharged(String),
    /// Lookups ended without an answer: a person must decide.
    Manual,
    /// Approved and written to the biller's reconciliation file.
    Posted(Approval),
}

impl State {
    /// The name used in the store and in files.
    pub fn name(&self) -> &'static str {
        match self {
            State::Consented => "consented",
            State::Sending => "sending",
            State::Approved(_) => "approved",
            State::Declined(_) => "declined",
            State::Held(..) => "held",
            State::Unknown(_) => "unknown",
            State::NotCharged(_) => "not_charged",
            State::Manual => "manual",
            State::Posted(_) => "posted",
        }
    }

    /// Whether money may still move or have moved without our knowing: the account takes no other
    /// payment meanwhile.
    pub fn is_open(&self) -> bool {
        matches!(self, State::Consented | State::Sending | State::Unknown(_))
    }

    /// What the gateway approved, posted or not.
    pub fn approval(&self) -> Option<&Approval> {
        match self {
            State::Approved(approval) | State::Posted(approval) => Some(approval),
            _ => None,
        }
    }
}

impl From<&Verdict> for State {
    /// Where a sale's verdict leads from `Sending`. A token is kept with its card, if at all.
    fn from(verdict: &Verdict) -> State {
        match verdict {
            Verdict::Approved(approval @ Approval { partial: Some(part), .. }) => {
                // Nobody was asked whether less will do: a person takes the rest or voids it.
                let why = format!("approved for {part} only, as {}", approval.gateway_reference);
                State::Held(why, Some(approval.bare()))
            }
            Verdict::Approved(approval) => State::Approved(approval.bare()),
            Verdict::DeclinedHard => State::Declined(FOR_GOOD.into()),
            Verdict::DeclinedSoft => State::Declined("declined".into()),
            Verdict::Fixable(field) => State::Declined(format!("wrong {field:?}").to_lowercase()),
            Verdict::Held(why) => State::Held(why.clone(), None),
            Verdict::Unknown(why) => State::Unknown(why.clone()),
            Verdict::Duplicate { .. } => State::Unknown("the gateway has had the same".into()),
            // Both say for certain that nothing was processed.
            Verdict::NotSent(why) | Verdict::Config(why) => State::NotCharged(why.clone()),
        }
    }
}

/// Why a payment was declined whose card will never be charged again.
pub const FOR_GOOD: &str = "declined for good";

impl Intent {
    /// What the card is charged, fee included; `None` if it does not fit.
    pub fn total(&self) -> Option<Money> {
        self.amount.checked_add(self.fee)
    }
}

/// One step, applied conditionally: it is refused unless the intent is in a state it may follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Consent(Box<Intent>),
    /// Consent to what needs nothing else before its request leaves: [`Entry::Consent`] and the
    /// move to [`State::Sending`] in one, for the caller waits for each.
    Sending(Box<Intent>),
    Move {
        id: String,
        to: State,
    },
    /// A card is kept, as its holder agreed.
    Keep(Box<SavedCard>),
    /// A payment is to be given back, all that is left of it.
    Undo(Box<Change>),
    /// How giving it back goes on.
    Undone {
        change: Box<Change>,
        to: Progress,
    },
    /// A card of this id is charged no more: who says so, and why.
    Drop {
        card: String,
        who: String,
        why: String,
    },
    /// What a caller arranged for later.
    Arrange(Box<Arrangement>),
    /// An arrangement of this id ends before its time: who says so (nobody: a caller), and why.
    Cancel {
        arrangement: String,
        who: String,
        why: String,
    },
}

/// What the store did with an entry. Only `Stored` means durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    Stored,
    /// The account has another payment whose outcome is open, or an arrangement of this kind, or
    /// this id exists.
    Conflict,
    /// The entry may not follow the intent's present state, or contradicts itself.
    Illegal,
    /// The disk or the database failed: nothing is known to be stored.
    Failed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_than_the_total_is_no_payment() {
        let part = Approval { partial: Some(Money::usd(5_000)), ..sample::approval() };
        let state = State::from(&Verdict::Approved(part.clone()));
        let why = "approved for $50.00 only, as sale_000001".to_string();
        assert_eq!(state, State::Held(why, Some(part)));
        let whole = State::from(&Verdict::Approved(sample::approval()));
        assert_eq!(whole, State::Approved(sample::approval()));
    }
}

/// Intents and states for the tests of this crate.
#[cfg(test)]
pub(crate) mod sample {
    use super::arrangement::{Agreement, Kind};
    use super::card::FirstCharge;
    use super::{Arrangement, Consent, Instalment, Intent, Origin, SavedCard, Split, State};
    use crate::gateway::Approval;
    use crate::instrument::{Brand, Expiry, Fingerprint, Last4, Means, Token, luhn_check_digit};
    use crate::money::Money;

    /// One of each card of the samples.
    pub fn fingerprint(letter: &str) -> Option<Fingerprint> {
        Fingerprint::parse(&letter.repeat(32))
    }

    pub fn intent(n: u64, account: &str) -> Intent {
        let stem = (10_000_000 + n).to_string();
        Intent {
            id: format!("intent-{n}"),
            confirmation: format!("{stem}{}", luhn_check_digit(&stem)),
            biller: "acme-water".into(),
            account_id: account.into(),
            amount: Money::usd(32_172),
            allocations: Vec::new(),
            fee: Money::usd(200),
            split: Split::Total,
            means: Means::Card(Brand::Visa),
            last4: Last4::parse("1111").unwrap(),
            fingerprint: fingerprint("a"),
            gateway: "bogus".into(),
            call_id: format!("call-{n}@example.invalid"),
            origin: Origin {
                caller: fingerprint("b"),
                issuer: fingerprint("c"),
                trunk: "carrier".into(),
            },
            created_ms: 1_780_000_000_000 + n as i64,
        }
    }

    /// A card of account A1 that `letter` stands for.
    pub fn card(n: u64, letter: &str) -> SavedCard {
        SavedCard {
            id: format!("card-{n}"),
            biller: "acme-water".into(),
            account_id: "A1".into(),
            gateway: "bogus".into(),
            token: Token::parse(&format!("tok_{letter}")).unwrap(),
            brand: Brand::Visa,
            last4: Last4::parse("1111").unwrap(),
            expiry: Expiry::kept(2030, 9).unwrap(),
            fingerprint: fingerprint(letter).unwrap(),
            issuer: fingerprint("c"),
            consent: Consent {
                said: vec!["saved.terms", "saved.agree"],
                at_ms: 1_780_000_000_000,
                call_id: format!("call-{n}"),
                payment: format!("intent-{n}"),
            },
            first: FirstCharge { total_minor: 32_372, ..FirstCharge::default() },
            created_ms: 1_780_000_000_000 + n as i64,
        }
    }

    /// One payment of account A1 by card `card-<card>` on a day of June 2026.
    pub fn arrangement(n: u64, kind: Kind, card: u64) -> Arrangement {
        let stem = (20_000_000 + n).to_string();
        Arrangement {
            id: format!("arrangement-{n}"),
            number: format!("{stem}{}", luhn_check_digit(&stem)),
            biller: "acme-water".into(),
            account_id: "A1".into(),
            card: format!("card-{card}"),
            kind,
            limit: Money::usd(5_200),
            agreement: Agreement {
                said: "later.charged_on later.agree".into(),
                at_ms: 1_780_000_000_000,
                call_id: format!("call-{n}"),
            },
            instalments: vec![Instalment {
                position: 1,
                due: jiff::civil::date(2026, 6, 5),
                at_ms: 1_780_664_400_000,
                amount: Money::usd(5_000),
                fee: Money::usd(200),
            }],
            created_ms: 1_780_000_000_000 + n as i64,
        }
    }

    pub fn approval() -> Approval {
        Approval {
            gateway_reference: "sale_000001".into(),
            auth_code: "A00001".into(),
            avs: Some("Y".into()),
            cvv: None,
            ..Approval::default()
        }
    }

    /// One of each state.
    pub fn states() -> Vec<State> {
        vec![
            State::Consented,
            State::Sending,
            State::Approved(approval()),
            State::Declined("insufficient funds".into()),
            State::Held("under review".into(), None),
            State::Unknown("no answer".into()),
            State::NotCharged("absent".into()),
            State::Manual,
            State::Posted(approval()),
        ]
    }
}
