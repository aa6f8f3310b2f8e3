//! Card and bank processors as pure request and response: no sockets here.

use zeroize::Zeroizing;

use crate::instrument::Card;
use crate::money::Money;

pub mod bogus; // the in-tree gateway and its stateful simulator

/// An HTTPS request whose body may hold card data: zeroed when dropped, never logged.
pub struct Request {
    pub head: http::request::Parts,
    pub body: Zeroizing<Vec<u8>>,
}

/// What became of a request, as the HTTP client reports it.
pub enum Exchange {
    Response(http::Response<Vec<u8>>),
    /// Not one byte of the request left us: safe to send again.
    NotSent(String),
    /// Bytes left and no whole answer came back.
    NoAnswer(String),
}

/// One sale. `reference` is ours, stable over every try and lookup, and the idempotency key.
pub struct Sale<'a> {
    pub reference: &'a str,
    /// What is charged, fee included.
    pub total: Money,
    /// How much of `total` is the convenience fee.
    pub fee: Money,
    pub card: &'a Card,
    pub account_id: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    pub gateway_reference: String,
    pub auth_code: String,
    pub avs: Option<String>,
    pub cvv: Option<String>,
}

/// A field the caller can correct.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fixable {
    Number,
    Expiry,
    Cvv,
    Zip,
}

/// The outcome of a request that may have moved money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Approved(Approval),
    /// Never with this card again.
    DeclinedHard,
    /// Another card or a lower amount may work.
    DeclinedSoft,
    Fixable(Fixable),
    /// Held for review by a person.
    Held(String),
    /// Certainly not processed.
    NotSent(String),
    /// No definitive answer: look up, never resend.
    Unknown(String),
    /// Our set-up is wrong (credentials, currency): no caller can fix it.
    Config(String),
}

/// What a lookup by our reference found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Settled(Verdict),
    /// The gateway is sure it never processed this reference.
    Absent,
    /// Ask again later.
    NotYet,
}

/// One processor's dialect.
pub trait Gateway: Send + Sync {
    fn name(&self) -> &'static str;
    fn sale(&self, sale: &Sale<'_>) -> Request;
    fn verdict(&self, exchange: &Exchange) -> Verdict;
    /// Asks what became of `reference`.
    fn lookup(&self, reference: &str) -> Request;
    fn found(&self, exchange: &Exchange) -> Found;
    /// Undoes an approved sale that has not settled.
    fn void(&self, gateway_reference: &str) -> Request;
    /// Pays back part or all of a settled sale.
    fn refund(&self, gateway_reference: &str, amount: Money) -> Request;
}
