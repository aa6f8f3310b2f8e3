//! Fees that are charges of their own: none without its bill, and what the caller is told of both is
//! what became of both.

use ringtill::gateway::Exchange;
use ringtill::ledger::{FeeFailure, Intent, Split};

use super::World;
use crate::scenes::Gateways;
use crate::words::response;

/// What is known of the two charges of a call.
#[derive(Default)]
pub struct Pair {
    /// What was agreed to when the bill was sent: minor units of both, and the card.
    agreed: Option<(i64, String)>,
}

impl World<'_> {
    /// Whether the caller agreed to this charge: to all of it, or to it and its other half.
    pub fn check_agreed(&mut self, intent: &Intent, minor: i64, card: &str) {
        if self.scene.bins.is_some() {
            let surcharged = card.starts_with("visa");
            assert_eq!(intent.split == Split::Surcharge, surcharged, "{card}");
            // Three percent and never more.
            let fee = if surcharged { intent.amount.minor * 3 / 100 } else { 0 };
            assert_eq!(intent.fee.minor, fee);
            // Of a card that was not agreed to in the end it may have been said too.
            assert!(!surcharged || self.said.contains(&"consent.surcharge"), "unsaid");
        }
        let all = match &intent.split {
            Split::Bill { fee, .. } => minor + fee.minor,
            Split::FeeOf(bill) => {
                let (word, of_bill) = self.truth.processed[bill.as_str()];
                assert_eq!(word, "approved", "a fee is charged without its bill");
                assert_eq!(self.journal.undone(bill).minor, 0, "and its bill went back");
                let both = Some((minor + of_bill, card.to_string()));
                assert_eq!(self.pair.agreed, both, "charged what was not agreed to");
                return;
            }
            _ => minor,
        };
        let agreed = Some((all, card.to_string()));
        assert_eq!(self.consented, agreed, "charged what was not consented to");
        self.pair.agreed = agreed;
    }

    /// The gateway voids a sale, or is not heard.
    pub fn void(&mut self, route: &str, reference: &str, original: &str) -> Exchange {
        assert_eq!(route, "first", "the fee is not voided");
        let changes = self.journal.changes();
        let begun = changes.iter().find(|(change, _)| change.id == reference);
        let bill = begun.map(|(change, _)| change.intent_id.clone());
        let bill = bill.expect("a void leaves before the ledger knows");
        assert_eq!((original, self.is_fee(&bill)), ("g1", false));
        let undone = self.journal.undone(&bill);
        assert!(undone.open, "it was done before");
        let approved = self.truth.approved();
        let fees = approved.iter().filter(|(reference, _)| self.is_fee(reference));
        assert_eq!(fees.count(), 0, "voided although its fee was charged");
        const REFUSED: usize = 1;
        const NOT_SENT: usize = 2;
        const LOST_BEFORE: usize = 3;
        const LOST_AFTER: usize = 4;
        let way = self.choices.pick(5);
        let done = !matches!(way, REFUSED | NOT_SENT | LOST_BEFORE);
        if done && let Some(sale) = self.truth.processed.get_mut(&bill) {
            sale.0 = "voided";
        }
        match way {
            REFUSED => response("late"),
            NOT_SENT => Exchange::NotSent("refused".into()),
            LOST_BEFORE | LOST_AFTER => Exchange::NoAnswer("closed".into()),
            _ => response("voided"),
        }
    }

    pub fn is_fee(&self, reference: &str) -> bool {
        let intent = self.journal.intent(reference);
        intent.is_some_and(|(intent, _)| intent.split.bill().is_some())
    }

    /// What was told of bill and fee against what became of them.
    pub fn check_pair(&self, paid: bool, pending: bool, path: &str) {
        let said = |id| self.said.contains(&id);
        let approved = self.truth.approved();
        let fees = approved.iter().filter(|(reference, _)| self.is_fee(reference)).count();
        let bills = approved.len() - fees;
        assert!(fees <= 1 && fees <= bills, "a fee without its bill: {path}");
        let apart = self.scene.gateways == Gateways::Apart;
        let told = [
            "result.fee_apart",
            "result.fee_waived",
            "result.fee_open",
            "result.given_back",
            "result.giving_back",
        ]
        .map(said);
        let [both, waived, open, back, going] = told;
        if !apart {
            assert_eq!(told, [false; 5], "{path}");
            return;
        }
        let void = self.scene.settings.fee_failure == FeeFailure::Void;
        assert_eq!(both, paid && fees > 0 && !open, "{path}");
        assert!(!waived || (fees == 0 && !void && paid), "{path}");
        assert!(!open || (paid && !void), "{path}");
        assert!(!paid || both || waived || open, "nothing was said of the fee: {path}");
        if void {
            assert!(!paid || fees > 0, "paid without its fee: {path}");
        }
        assert!(!back || void, "{path}");
        let last = self.said.iter().rfind(|id| id.starts_with("result."));
        assert!(last != Some(&"result.given_back") || bills == 0, "charged all the same: {path}");
        assert!(!going || (void && pending && fees == 0), "{path}");
    }
}
