//! Cards that callers have kept for their next payments: the gateway's token, and what may be
//! known of the card beside it. No card number.

use crate::instrument::{Brand, Expiry, Fingerprint, Last4, Token};

/// A card that a gateway keeps, for one account. Its token is that gateway's for ever.
#[derive(Clone, PartialEq, Eq)]
pub struct SavedCard {
    pub id: String,
    pub biller: String,
    pub account_id: String,
    /// The gateway that keeps it, by the operator's id.
    pub gateway: String,
    pub token: Token,
    pub brand: Brand,
    pub last4: Last4,
    pub expiry: Expiry,
    /// Of its number and its issuer, so that a payment by it counts as one with the card.
    pub fingerprint: Fingerprint,
    pub issuer: Option<Fingerprint>,
    pub consent: Consent,
    pub first: FirstCharge,
    /// Unix milliseconds, UTC.
    pub created_ms: i64,
}

/// What the holder of a card agreed to when it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    /// Ids of the phrases that were said before the key that agreed.
    pub said: Vec<&'static str>,
    /// When it was pressed, Unix milliseconds.
    pub at_ms: i64,
    pub call_id: String,
    /// Reference of the payment it was kept with.
    pub payment: String,
}

/// The charge that a card was kept with: charges by the merchant name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirstCharge {
    /// The gateway's reference.
    pub reference: String,
    /// The card network's transaction id; empty if the gateway told none.
    pub network: String,
    /// What was charged, minor units; zero if the card was only verified.
    pub total_minor: i64,
}

/// Why a card was dropped that was kept again.
pub const KEPT_ANEW: &str = "kept anew";

impl SavedCard {
    /// Kept anew: the same card for the same account.
    pub fn replaces(&self, other: &SavedCard) -> bool {
        let place = |card: &SavedCard| {
            (card.biller.clone(), card.account_id.clone(), card.gateway.clone(), card.fingerprint)
        };
        place(self) == place(other)
    }
}

impl std::fmt::Debug for SavedCard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let SavedCard { id, account_id, brand, last4, gateway, .. } = self;
        write!(f, "{id}: {} {last4:?} of {account_id} at {gateway}", brand.name())
    }
}
