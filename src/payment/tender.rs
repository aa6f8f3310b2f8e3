//! What the caller pays with: a card, keyed or kept, or a bank account, whole or as far as it is
//! known.

use super::saved::{self, Tendered, Way};
use super::{Desk, Leave, Line, Settings, bank, card};
use crate::account::Account;
use crate::gateway::Fixable;
use crate::instrument::{Card, Debit, Expiry, Fingerprint, Instrument, Last4, Means, Method};

/// Sensitive: lives as long as the charge it is for.
pub(super) enum Tender {
    Card(Card),
    Bank(Debit),
    Saved(Box<Tendered>),
}

pub(super) enum Draft {
    Card(card::Draft),
    Bank(bank::Draft),
    Saved(saved::Draft),
}

impl Tender {
    pub(super) fn instrument(&self) -> Instrument<'_> {
        match self {
            Tender::Card(card) => Instrument::Card(card),
            Tender::Bank(debit) => Instrument::Bank(debit),
            Tender::Saved(kept) => Instrument::Token(&kept.instrument),
        }
    }

    pub(super) fn means(&self) -> Means {
        match self {
            Tender::Card(card) => Means::Card(card.pan.brand()),
            Tender::Bank(debit) => Means::Bank(debit.account.kind),
            Tender::Saved(kept) => Means::Card(kept.card.brand),
        }
    }

    pub(super) fn last4(&self) -> Last4 {
        match self {
            Tender::Card(card) => card.pan.last4(),
            Tender::Bank(debit) => debit.account.last4(),
            Tender::Saved(kept) => kept.card.last4,
        }
    }

    /// Of a card.
    pub(super) fn expiry(&self) -> Option<Expiry> {
        match self {
            Tender::Card(card) => Some(card.expiry),
            Tender::Bank(_) => None,
            Tender::Saved(kept) => Some(kept.card.expiry),
        }
    }

    pub(super) fn fingerprint(&self, desk: &Desk) -> Fingerprint {
        match self {
            Tender::Card(card) => desk.fingerprints.card(&card.pan),
            Tender::Bank(debit) => desk.fingerprints.bank(&debit.account),
            Tender::Saved(kept) => kept.card.fingerprint,
        }
    }

    /// Of whoever issued the card.
    pub(super) fn issuer(&self, desk: &Desk) -> Option<Fingerprint> {
        match self {
            Tender::Card(card) => Some(desk.fingerprints.issuer(&card.pan)),
            Tender::Bank(_) => None,
            Tender::Saved(kept) => kept.card.issuer,
        }
    }

    /// The gateway that alone can charge it; `None`: any that takes it.
    pub(super) fn gateway(&self) -> Option<&str> {
        match self {
            Tender::Saved(kept) => Some(&kept.card.gateway),
            Tender::Card(_) | Tender::Bank(_) => None,
        }
    }

    /// Id of the kept card.
    pub(super) fn kept(&self) -> Option<&str> {
        match self {
            Tender::Saved(kept) => Some(&kept.card.id),
            Tender::Card(_) | Tender::Bank(_) => None,
        }
    }

    /// A gateway's text without the number of the account, should it quote it: one is too short to
    /// be told from other numbers once nobody knows it any more, as cards can.
    pub(super) fn hide(&self, text: &str) -> String {
        let Tender::Bank(debit) = self else { return text.to_string() };
        let number = debit.account.expose();
        let significant = number.trim_start_matches('0');
        let hidden = text.replace(number, "***");
        // Three digits are in any text, and less than the last four that may be shown.
        if significant.len() > 4 { hidden.replace(significant, "***") } else { hidden }
    }

    /// Whether the caller was asked for this field: what was not cannot be asked again.
    pub(super) fn has_asked(&self, field: Fixable, settings: &Settings) -> bool {
        match (self, field) {
            (Tender::Card(_), field) => settings.asks(field),
            (Tender::Bank(_), Fixable::Routing | Fixable::Account) => true,
            (Tender::Bank(_), _) => false,
            (Tender::Saved(kept), Fixable::Cvv) => kept.instrument.cvv.is_some(),
            (Tender::Saved(_), _) => false,
        }
    }
}

impl Draft {
    pub(super) fn new(way: &Way) -> Draft {
        match way {
            Way::Key(Method::Card) => Draft::Card(card::Draft::default()),
            Way::Key(Method::Bank) => Draft::Bank(bank::Draft::default()),
            Way::Saved(card) => Draft::Saved(saved::Draft { card: card.clone(), left: false }),
        }
    }

    /// Without a field that the gateway did not like.
    pub(super) fn without(tender: Tender, field: Fixable) -> Draft {
        match tender {
            Tender::Card(card) => Draft::Card(card::Draft::without(card, field)),
            Tender::Bank(debit) => Draft::Bank(bank::Draft::without(debit, field)),
            Tender::Saved(kept) => Draft::Saved(saved::Draft { card: kept.card, left: false }),
        }
    }

    /// One field back from the end.
    pub(super) fn back(tender: Tender, settings: &Settings) -> Draft {
        match tender {
            Tender::Card(card) => Draft::Card(card::Draft::back(card, settings)),
            Tender::Bank(debit) => Draft::Bank(bank::Draft::back(debit)),
            Tender::Saved(kept) => Draft::Saved(saved::Draft { card: kept.card, left: true }),
        }
    }

    /// A yes given for it holds. An authorisation is of one debit from one account, always.
    pub(super) fn keeps_consent(&self) -> bool {
        match self {
            Draft::Card(draft) => draft.has_number(),
            Draft::Saved(_) => true,
            Draft::Bank(_) => false,
        }
    }

    /// Asks for what is not known. [`Leave::Back`]: the caller went back past the first field.
    pub(super) async fn take(
        self,
        line: &mut Line,
        desk: &Desk,
        account: &Account,
    ) -> Result<Tender, Leave> {
        match self {
            Draft::Card(draft) => card::take(line, desk, draft).await.map(Tender::Card),
            Draft::Bank(draft) => bank::take(line, desk, account, draft).await.map(Tender::Bank),
            Draft::Saved(draft) => {
                saved::take(line, desk, draft).await.map(|kept| Tender::Saved(Box::new(kept)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instrument::{AccountKind, BankAccount, HolderKind, RoutingNumber};

    #[test]
    fn an_account_number_that_a_gateway_quotes_is_hidden() {
        let debit = |number: &str| {
            let routing = RoutingNumber::parse("021000021").unwrap();
            let account = BankAccount::parse(routing, number, AccountKind::Checking).unwrap();
            let holder = "James Walker".to_string().into();
            Tender::Bank(Debit { account, holder, holder_kind: HolderKind::Personal })
        };
        for (number, text, want) in [
            ("0012345678", "no account 0012345678 here", "no account *** here"),
            ("0012345678", "account 12345678", "account ***"),
            ("4321", "code 51, account=4321.", "code 51, account=***."),
            ("000001", "account 000001, code 1", "account ***, code 1"),
            ("12345678", "code 51, ref 987", "code 51, ref 987"),
        ] {
            assert_eq!(debit(number).hide(text), want);
        }
    }
}
