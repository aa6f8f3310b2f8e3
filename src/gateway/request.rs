//! What a gateway is asked, and what came of asking.

use zeroize::Zeroizing;

use crate::instrument::{Instrument, Last4, Method};
use crate::money::Money;

/// An HTTPS request whose body may hold card data: zeroed when dropped. Printed, it shows what may
/// be logged.
pub struct Request {
    pub head: http::request::Parts,
    pub body: Zeroizing<Vec<u8>>,
    /// Names of the members of the body whose values may be logged.
    pub shown: &'static [&'static str],
}

/// What became of a request, as the HTTP client reports it.
pub enum Exchange {
    Response(http::Response<Vec<u8>>),
    /// Not one byte of the request left us: safe to send again.
    NotSent(String),
    /// Bytes left and no whole answer came back.
    NoAnswer(String),
}

impl Exchange {
    /// The answer, or what it means for the request that there is none.
    pub fn response(&self) -> Result<&http::Response<Vec<u8>>, Silence> {
        match self {
            Exchange::Response(response) => Ok(response),
            Exchange::NotSent(why) => Err(Silence::NotSent(why.clone())),
            Exchange::NoAnswer(why) => Err(Silence::NoAnswer(why.clone())),
        }
    }
}

/// An exchange without an answer.
pub enum Silence {
    NotSent(String),
    NoAnswer(String),
}

/// Each thing a gateway may be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Verify,
    Sale,
    Authorize,
    Capture,
    Void,
    Refund,
    Lookup,
}

impl Operation {
    pub const ALL: [Operation; 7] = [
        Operation::Verify,
        Operation::Sale,
        Operation::Authorize,
        Operation::Capture,
        Operation::Void,
        Operation::Refund,
        Operation::Lookup,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Operation::Verify => "verify",
            Operation::Sale => "sale",
            Operation::Authorize => "authorize",
            Operation::Capture => "capture",
            Operation::Void => "void",
            Operation::Refund => "refund",
            Operation::Lookup => "lookup",
        }
    }
}

/// Money taken by phone, or the question whether it could be.
pub struct Charge<'a> {
    pub purpose: Purpose,
    /// Ours, stable over every try and lookup, and the idempotency key.
    pub reference: &'a str,
    /// What is charged, fee included; zero to verify.
    pub total: Money,
    /// How much of `total` is the convenience fee, or the surcharge.
    pub fee: Money,
    /// `fee` is a surcharge.
    pub surcharge: bool,
    pub instrument: Instrument<'a>,
    pub account_id: &'a str,
    /// Ask for a token that can be charged later: the card's holder has agreed to be kept.
    pub save: bool,
    /// Who begins it: a card that is kept may be charged without its holder.
    pub initiator: Initiator<'a>,
    /// When it is sent, Unix milliseconds: some dialects sign it.
    pub at_ms: i64,
}

/// Who begins a charge. Card networks want to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initiator<'a> {
    /// The customer, on the phone.
    Customer,
    /// The merchant, with a card that its holder has had kept for this. `first`: the charge it was
    /// kept with.
    Merchant { series: Series, first: First<'a> },
}

/// The charge by its holder that a card was kept with. Networks want it named with those that
/// follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First<'a> {
    /// The gateway's reference for it; empty if there is none.
    pub reference: &'a str,
    /// The card network's transaction id; empty if the gateway told none.
    pub network: &'a str,
    /// What was charged, zero if the card was only verified.
    pub total: Money,
}

impl<'a> First<'a> {
    /// The network's id, if there is one.
    pub fn network(&self) -> Option<&'a str> {
        Some(self.network).filter(|id| !id.is_empty())
    }
}

/// What a charge by the merchant is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    /// One payment on a date that the customer named.
    Once,
    /// Payments without an end.
    Recurring,
    /// Payments of a plan.
    Instalment,
}

impl Charge<'_> {
    /// The convenience fee, if there is one.
    pub fn convenience_fee(&self) -> Option<Money> {
        Some(self.fee).filter(|fee| fee.is_positive() && !self.surcharge)
    }

    /// The surcharge, if there is one.
    pub fn surcharge(&self) -> Option<Money> {
        Some(self.fee).filter(|fee| fee.is_positive() && self.surcharge)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Whether the issuer knows the card; no money moves.
    Verify,
    /// Authorised and captured at once.
    Sale,
    /// Reserved, to be captured or voided.
    Authorize,
}

/// A change to what was approved before.
pub struct Modification<'a> {
    pub act: Act,
    /// Ours for this change, another than the charge's: its idempotency key, stable over every
    /// try.
    pub reference: &'a str,
    /// The gateway's for the charge.
    pub original: &'a str,
    /// How it was charged: what was only reserved is undone otherwise than what was taken.
    pub purpose: Purpose,
    /// What to capture or refund; the whole charge to void.
    pub amount: Money,
    /// How the charge was paid.
    pub method: Method,
    /// Of the card or account that was charged: some gateways want it to pay back.
    pub last4: Last4,
    pub at_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// Takes what was authorised.
    Capture,
    /// Undoes a charge that has not settled.
    Void,
    /// Pays back part or all of a settled charge.
    Refund,
}

impl From<Purpose> for Operation {
    fn from(purpose: Purpose) -> Operation {
        match purpose {
            Purpose::Verify => Operation::Verify,
            Purpose::Sale => Operation::Sale,
            Purpose::Authorize => Operation::Authorize,
        }
    }
}

impl From<Act> for Operation {
    fn from(act: Act) -> Operation {
        match act {
            Act::Capture => Operation::Capture,
            Act::Void => Operation::Void,
            Act::Refund => Operation::Refund,
        }
    }
}

/// What became of a charge?
#[derive(Clone, Debug)]
pub struct Lookup<'a> {
    pub purpose: Purpose,
    pub reference: &'a str,
    pub total: Money,
    pub method: Method,
    /// When the charge was begun, Unix milliseconds.
    pub started_ms: i64,
    pub at_ms: i64,
    /// Empty at first; then what [`super::Found::More`] said.
    pub step: String,
}

/// What a gateway can do, so that the configuration is refused rather than a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    pub operations: &'static [Operation],
    /// Debits bank accounts (ACH, SEC code TEL).
    pub bank: bool,
    /// Keeps a card or account and gives a token for it, which can be charged.
    pub tokens: bool,
    /// Keeps a card with a verification too: one that nothing was charged to.
    pub verify_keeps: bool,
    /// A token can be charged together with the card's security code.
    pub token_cvv: bool,
    /// Is told which part of a charge is a surcharge.
    pub surcharge: bool,
    pub repeat: Repeat,
}

/// What the gateway makes of a charge it has had before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It answers as it did the first time, by our reference.
    Replays,
    /// It refuses the same content for so many seconds.
    Refuses { window_s: u32 },
    /// It charges again.
    Charges,
}

/// What a gateway was asked and cannot do; for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cannot(pub &'static str);

impl Capabilities {
    pub fn can(&self, operation: Operation) -> bool {
        self.operations.contains(&operation)
    }

    /// Refuses a charge that is beyond these.
    pub fn allow(&self, charge: &Charge<'_>) -> Result<(), Cannot> {
        self.allow_operation(charge.purpose.into())?;
        match charge.instrument {
            Instrument::Bank(_) if !self.bank => {
                Err(Cannot("this gateway debits no bank accounts"))
            }
            Instrument::Token(_) if !self.tokens => Err(Cannot("this gateway keeps no cards")),
            Instrument::Token(saved) if saved.cvv.is_some() && !self.token_cvv => {
                Err(Cannot("this gateway takes no security code with a card it keeps"))
            }
            _ if charge.surcharge().is_some() && !self.surcharge => {
                Err(Cannot("this gateway cannot be told of a surcharge"))
            }
            _ if charge.save && !self.tokens => Err(Cannot("this gateway keeps no cards")),
            _ if charge.save && charge.purpose == Purpose::Verify && !self.verify_keeps => {
                Err(Cannot("this gateway keeps no card that it does not charge"))
            }
            _ => Ok(()),
        }
    }

    pub fn allow_operation(&self, operation: Operation) -> Result<(), Cannot> {
        if self.can(operation) {
            return Ok(());
        }
        Err(Cannot(match operation {
            Operation::Verify => "this gateway has no verification",
            Operation::Sale => "this gateway has no sale",
            Operation::Authorize => "this gateway has no authorisation without capture",
            Operation::Capture => "this gateway has no capture",
            Operation::Void => "this gateway has no void: ask its operator",
            Operation::Refund => "this gateway has no refund: ask its operator",
            Operation::Lookup => "this gateway cannot be asked what became of a charge",
        }))
    }
}
