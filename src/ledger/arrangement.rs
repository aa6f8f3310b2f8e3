//! Payments by a kept card that its holder has arranged for later: once on a date, the balance on
//! each due date (AutoPay), or a plan of instalments.

use jiff::civil::Date;

use super::SavedCard;
use crate::money::Money;

/// What a caller agreed to, and what of it is still to be charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrangement {
    pub id: String,
    /// What the caller was told to write down: nine digits, unique among arrangements.
    pub number: String,
    pub biller: String,
    pub account_id: String,
    /// Id of the kept card that is charged.
    pub card: String,
    pub kind: Kind,
    /// The most that is charged at a time, fees included.
    pub limit: Money,
    pub agreement: Agreement,
    /// Those that are still to come, by date. Of AutoPay the next one at most: its dates come with
    /// the account file.
    pub instalments: Vec<Instalment>,
    /// Unix milliseconds, UTC.
    pub created_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// One payment on a date.
    Once,
    /// The balance on each due date.
    AutoPay,
    /// Equal payments on dates.
    Plan,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Once, Kind::AutoPay, Kind::Plan];

    /// The name used in the store and for people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Once => "once",
            Kind::AutoPay => "autopay",
            Kind::Plan => "plan",
        }
    }

    pub fn parse(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What was said before the key that agreed, when, and on which call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Ids of the phrases, with a space between.
    pub said: String,
    /// Unix milliseconds.
    pub at_ms: i64,
    pub call_id: String,
}

/// One payment of an arrangement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instalment {
    /// Counts from 1.
    pub position: i64,
    /// The day where the biller is.
    pub due: Date,
    /// When it is charged at the earliest, Unix milliseconds.
    pub at_ms: i64,
    /// Of AutoPay nothing: what is charged is the balance of that day.
    pub amount: Money,
    pub fee: Money,
}

/// What is kept for an account: cards, newest first, and what was arranged with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wallet {
    pub cards: Vec<SavedCard>,
    /// The active ones.
    pub arrangements: Vec<Arrangement>,
}

impl Wallet {
    pub fn has(&self, kind: Kind) -> bool {
        self.arrangements.iter().any(|one| one.kind == kind)
    }
}

/// Why an arrangement was stopped whose card is charged no more.
pub const CARD_DROPPED: &str = "its card was deleted";

/// The id of the payment that is one attempt at an instalment, the first one 0: the same however
/// often it is asked for, so that the ledger and the gateway know it again.
pub fn intent_id(arrangement: &str, position: i64, attempt: i64) -> String {
    let text = format!("{arrangement}/{position}/{attempt}");
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_ref()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// The arrangements of a ledger in memory, with the rules of the real one.
#[derive(Default)]
pub(super) struct Arrangements(Vec<(Arrangement, bool)>);

impl Arrangements {
    /// False: its id or number is taken, or the account has another one of its kind.
    pub(super) fn add(&mut self, new: Arrangement) -> bool {
        let account = (&new.biller, &new.account_id, new.kind);
        let taken = self.0.iter().any(|(one, active)| {
            one.id == new.id
                || one.number == new.number
                || (*active && (&one.biller, &one.account_id, one.kind) == account)
        });
        if !taken {
            self.0.push((new, true));
        }
        !taken
    }

    /// False: none such is active.
    pub(super) fn end(&mut self, id: &str) -> bool {
        match self.0.iter_mut().find(|(one, active)| *active && one.id == id) {
            Some((_, active)) => {
                *active = false;
                true
            }
            None => false,
        }
    }

    /// A card is charged no more; or, kept anew, is another one now.
    pub(super) fn without_card(&mut self, card: &str, anew: Option<&str>) {
        let theirs = self.0.iter_mut().filter(|(one, active)| *active && one.card == card);
        theirs.for_each(|(one, active)| match anew {
            Some(new) => one.card = new.into(),
            None => *active = false,
        });
    }

    /// The active ones of an account, as they were made.
    pub(super) fn of(&self, biller: &str, account_id: &str) -> Vec<Arrangement> {
        let theirs = self.0.iter().filter(|(one, active)| {
            *active && one.biller == biller && one.account_id == account_id
        });
        theirs.map(|(one, _)| one.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_has_one_id_for_ever() {
        let id = intent_id("a", 1, 0);
        assert_eq!(id, intent_id("a", 1, 0));
        let others = [intent_id("a", 1, 1), intent_id("a", 2, 0), intent_id("b", 1, 0)];
        assert!(!others.contains(&id));
        assert_eq!(id.len(), 36);
        assert!(id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'), "{id}");
    }
}
