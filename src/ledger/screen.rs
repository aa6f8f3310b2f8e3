//! What the ledger knows against a payment before it is made: one like it, approved or open.

use super::{Intent, State};
use crate::instrument::Fingerprint;
use crate::money::Money;

/// May this be paid?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Screening {
    pub biller: String,
    pub account_id: String,
    pub amount: Money,
    /// Only a payment with this card or account is a like one; `None`: with any.
    pub fingerprint: Option<Fingerprint>,
    /// Payments begun before this are no concern, unless they are open. Unix milliseconds.
    pub since_ms: i64,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Screened {
    /// The latest payment like the one to be made.
    pub earlier: Option<Earlier>,
}

/// A payment like the one to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    pub id: String,
    pub confirmation: String,
    pub amount: Money,
    /// Not approved, but it may be yet.
    pub open: bool,
}

impl Screening {
    /// What an intent has to do with the payment to be made. Open: any of the account, for it may
    /// be what the caller wants to pay; else one of the same amount.
    pub fn earlier(&self, intent: &Intent, state: &State) -> Option<Earlier> {
        let same_account = intent.biller == self.biller && intent.account_id == self.account_id;
        let alike = self.fingerprint.is_none_or(|one| intent.fingerprint == Some(one));
        let recent = intent.created_ms >= self.since_ms && intent.amount == self.amount;
        let open = match state {
            State::Consented | State::Sending | State::Unknown(_) => true,
            State::Held(..) | State::Manual if recent => true,
            State::Approved(_) | State::Posted(_) if recent => false,
            _ => return None,
        };
        (same_account && alike).then(|| Earlier {
            id: intent.id.clone(),
            confirmation: intent.confirmation.clone(),
            amount: intent.amount,
            open,
        })
    }
}
