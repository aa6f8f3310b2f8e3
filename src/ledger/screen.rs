//! What the ledger knows against a payment before it is made: one like it, approved or open, and
//! too many tries before it.

use super::velocity::{Counted, Limits, Lock};
use super::{Intent, Origin, State};
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
    /// Whose tries are counted; without an issuer the card is not known yet.
    pub origin: Origin,
    pub limits: Limits,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Screened {
    /// The latest payment like the one to be made.
    pub earlier: Option<Earlier>,
    /// Too much was tried: nothing is paid until then.
    pub lock: Option<Lock>,
    /// Enough was refused: refusals are to sound the same.
    pub quiet: bool,
}

/// A payment like the one to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    pub id: String,
    pub confirmation: String,
    /// What of it was for this account.
    pub amount: Money,
    /// Not approved, but it may be yet.
    pub open: bool,
}

impl Screening {
    /// Lock and quietness, by the times of attempts and refusals of each that is counted.
    pub fn tried(
        &self,
        counted: Counted,
        attempts: &[i64],
        declines: &[i64],
        so_far: &mut Screened,
    ) {
        let lock = self.limits.lock(counted, attempts, declines, self.at_ms);
        so_far.lock = [so_far.lock, lock].into_iter().flatten().max_by_key(|lock| lock.until_ms);
        if counted.attempts() {
            so_far.quiet |= self.limits.is_quiet(declines, self.at_ms);
        }
    }

    /// Whether an intent counts.
    pub fn counts(&self, counted: Counted, intent: &Intent) -> bool {
        let same = |ours: &Option<Fingerprint>, theirs: &Option<Fingerprint>| {
            ours.is_some() && ours == theirs
        };
        let (ours, theirs) = (&self.origin, &intent.origin);
        match counted {
            Counted::Caller => same(&ours.caller, &theirs.caller),
            Counted::Account => {
                self.biller == intent.biller && intent.part_of(&self.account_id).is_some()
            }
            Counted::Issuer => same(&ours.issuer, &theirs.issuer),
            Counted::Trunk => !ours.trunk.is_empty() && ours.trunk == theirs.trunk,
        }
    }

    /// What an intent has to do with the payment to be made. Open: any of the account, for it may
    /// be what the caller wants to pay; else one of the same amount.
    pub fn earlier(&self, intent: &Intent, state: &State) -> Option<Earlier> {
        let part = intent.part_of(&self.account_id).filter(|_| intent.biller == self.biller)?;
        let alike = self.fingerprint.is_none_or(|one| intent.fingerprint == Some(one));
        let recent = intent.created_ms >= self.since_ms && part == self.amount;
        let open = match state {
            State::Consented | State::Sending | State::Unknown(_) => true,
            State::Held(..) | State::Manual if recent => true,
            State::Approved(_) | State::Posted(_) if recent => false,
            _ => return None,
        };
        alike.then(|| Earlier {
            id: intent.id.clone(),
            confirmation: intent.confirmation.clone(),
            amount: part,
            open,
        })
    }
}
