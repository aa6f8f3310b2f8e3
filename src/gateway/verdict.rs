//! What a gateway's answer means: of a charge, of a change to one, of a lookup.

use crate::instrument::Token;
use crate::money::Money;

use super::{Cannot, Silence};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Approval {
    pub gateway_reference: String,
    pub auth_code: String,
    /// Address and ZIP, as the gateway codes them.
    pub avs: Option<String>,
    /// The security code, as the gateway codes it.
    pub cvv: Option<String>,
    /// What was approved, if it is less than what was asked.
    pub partial: Option<Money>,
    /// What to charge later, if [`super::Charge::save`] was asked and granted.
    pub token: Option<Token>,
    /// The card network's transaction id, where the gateway tells it: kept with the card.
    pub network: Option<String>,
}

impl Approval {
    /// Without what is kept with a card, if at all.
    pub fn bare(&self) -> Approval {
        Approval { token: None, network: None, ..self.clone() }
    }
}

/// A field the caller can correct.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fixable {
    Number,
    Expiry,
    Cvv,
    Zip,
    /// The bank's routing number.
    Routing,
    /// The number of the bank account.
    Account,
}

/// The outcome of a request that may have moved money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done, or done in part: see [`Approval::partial`].
    Approved(Approval),
    /// Never with this card or account again.
    DeclinedHard,
    /// Another card or a lower amount may work.
    DeclinedSoft,
    Fixable(Fixable),
    /// Held for review by a person.
    Held(String),
    /// The gateway took it for the same as one it has had, and did nothing. Which one, if it
    /// tells: a gateway that compares contents may mean another payment. Look up.
    Duplicate {
        original: Option<String>,
    },
    /// Certainly not processed.
    NotSent(String),
    /// No definitive answer: look up, never resend.
    Unknown(String),
    /// Our set-up is wrong (credentials, currency): no caller can fix it. Not processed.
    Config(String),
}

impl From<Silence> for Verdict {
    fn from(silence: Silence) -> Verdict {
        match silence {
            Silence::NotSent(why) => Verdict::NotSent(why),
            Silence::NoAnswer(why) => Verdict::Unknown(why),
        }
    }
}

impl From<Cannot> for Verdict {
    fn from(cannot: Cannot) -> Verdict {
        Verdict::Config(cannot.0.into())
    }
}

/// What a lookup by our reference found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Settled(Verdict),
    /// The gateway is sure it never processed this reference.
    Absent,
    /// Ask again later.
    NotYet,
    /// Ask again now, with this as [`super::Lookup::step`].
    More(String),
}

impl Found {
    /// What this proves of the charge. A verdict on the lookup itself (not sent, wrong
    /// credentials) proves nothing, and neither does absence by itself: the charge may still be
    /// on its way.
    pub fn verdict(self) -> Option<Verdict> {
        match self {
            Found::Settled(
                Verdict::Unknown(_)
                | Verdict::Config(_)
                | Verdict::NotSent(_)
                | Verdict::Duplicate { .. },
            ) => None,
            Found::Settled(verdict) => Some(verdict),
            Found::Absent | Found::NotYet | Found::More(_) => None,
        }
    }
}

/// What became of a capture, void or refund.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Modified {
    /// Done; the gateway's reference for it, which may be that of the charge.
    Done(String),
    /// Taken in; the gateway decides later and tells it elsewhere. Its reference.
    Accepted(String),
    /// The gateway will not, e.g. a void after settlement.
    Refused(String),
    /// Certainly not processed: safe to send again.
    NotSent(String),
    /// No definitive answer.
    Unknown(String),
    /// Our set-up is wrong. Not processed.
    Config(String),
}

impl From<Silence> for Modified {
    fn from(silence: Silence) -> Modified {
        Verdict::from(silence).into()
    }
}

impl From<Verdict> for Modified {
    fn from(verdict: Verdict) -> Modified {
        match verdict {
            Verdict::Approved(approval) => Modified::Done(approval.gateway_reference),
            Verdict::DeclinedHard | Verdict::DeclinedSoft => Modified::Refused("declined".into()),
            Verdict::Fixable(field) => Modified::Refused(format!("wrong {field:?}").to_lowercase()),
            Verdict::Held(why) => Modified::Refused(why),
            Verdict::Duplicate { .. } => Modified::Unknown("the gateway has had the same".into()),
            Verdict::NotSent(why) => Modified::NotSent(why),
            Verdict::Unknown(why) => Modified::Unknown(why),
            Verdict::Config(why) => Modified::Config(why),
        }
    }
}
