//! What was intended and what happened: the payment states, durable before anything leaves us.

use crate::gateway::Approval;
use crate::instrument::{Brand, Last4};
use crate::money::Money;

pub mod confirmation; // numbers a caller can write down, with a check digit
pub mod journal; // the state machine: which entry may follow which
pub mod reconcile; // the biller's file: header, rows, trailer

/// One payment, from consent to its end. No card data: brand and last four only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Our reference at the gateway and its idempotency key; minted once.
    pub id: String,
    pub confirmation: String,
    pub biller: String,
    pub account_id: String,
    pub amount: Money,
    pub fee: Money,
    pub brand: Brand,
    pub last4: Last4,
    pub gateway: String,
    pub call_id: String,
    /// Unix milliseconds, UTC.
    pub created_ms: i64,
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
    Held(String),
    /// No definitive answer; being looked up.
    Unknown(String),
    /// Proven never processed (not sent, or absent at the gateway).
    NotCharged(String),
    /// Lookups ended without an answer: a person must decide.
    Manual,
    /// Approved and written to the biller's reconciliation file.
    Posted(Approval),
}

/// One step, applied conditionally: it is refused unless the intent is in a state it may follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Consent(Box<Intent>),
    Move { id: String, to: State },
}

/// What the store did with an entry. Only `Stored` means durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    Stored,
    /// The account has another payment whose outcome is open, or this id exists.
    Conflict,
    /// The entry may not follow the intent's present state.
    Illegal,
    /// The disk or the database failed: nothing is known to be stored.
    Failed(String),
}
