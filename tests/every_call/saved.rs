//! Cards that are kept: only with their holder's consent, only what was approved, charged where
//! they are kept and nowhere else.

use std::collections::BTreeSet;

use ringtill::gateway::Exchange;
use ringtill::ledger::{Entry, Split, State, Wallet};
use ringtill::payment::CARD_TERMS;

use super::World;
use super::scenes::{Gateways, KEPT};
use super::words::response;

/// What the caller said of keeping cards on this call, and what became of it.
#[derive(Default)]
pub struct Keeping {
    /// The card at hand, and those whose holder agreed to the terms; a wish alone is none.
    card: &'static str,
    agreed: BTreeSet<&'static str>,
    wished: bool,
    /// The last way to pay that was chosen is the kept card.
    chosen: bool,
    /// The gateway was asked to keep the card that is charged.
    asked: bool,
    /// The gateway keeps it.
    there: bool,
    /// It is to be dropped: refused for good.
    spent: bool,
    /// The gateway says that it does not know the kept card.
    not_known: bool,
    recorded: bool,
    /// The ledger has said so.
    pub stored: bool,
    dropped: bool,
}

impl Keeping {
    pub fn answered(&mut self, question: &str, keyed: Option<&'static str>) {
        match question {
            "saved" => self.chosen = keyed == Some("1"),
            "method" => self.chosen = false,
            "card" => (self.card, self.chosen) = (keyed.unwrap_or_default(), false),
            "keep" => {
                self.wished = keyed == Some("1");
                self.agreed.remove(self.card);
            }
            "keep_terms" => {
                assert!(self.wished, "terms of what nobody wished for");
                self.agreed.extend(Some(self.card).filter(|_| keyed == Some("1")));
            }
            _ => {}
        }
    }

    /// The holder of the card at hand agreed that it is kept.
    pub fn is_agreed(&self) -> bool {
        !self.chosen && self.agreed.contains(self.card)
    }
}

impl World<'_> {
    /// Keys at the menu of ways to pay.
    pub fn ways(&self) -> &'static [&'static str] {
        match self.scene.settings.bank {
            Some(_) => &["1", "2", "3"],
            None => &["1", "2"],
        }
    }

    pub fn wallet(&mut self, account: &str) -> Option<Wallet> {
        assert!(!self.scene.caller.name_withheld, "asked for somebody who hides");
        // From here on it may be another account's.
        self.keeping.agreed.clear();
        match self.choices.pick(2) {
            0 => self.journal.wallet(&self.scene.settings.biller, account),
            // Nothing is lost by it: the caller keys a card.
            _ => {
                self.arranging.blind = true;
                None
            }
        }
    }

    /// A sale is of what the caller chose, where it can be.
    pub fn check_way(&mut self, route: &str, how: &[&str]) {
        let how = how.get(2).copied().unwrap_or_default();
        let token = how.starts_with("token");
        assert_eq!(token, self.keeping.chosen, "another card than the caller chose");
        if token {
            assert_eq!(self.scene.kept_at, Some(route), "a token for another gateway");
            let code = self.scene.settings.saved.as_ref().is_some_and(|saved| saved.cvv);
            assert_eq!(how == "token+cvv", code);
            let refused = self.keeping.spent || self.keeping.not_known;
            assert!(!refused, "charged again after it was refused for good");
        }
        let saves = !(self.scene.gateways != Gateways::One && route == "second");
        assert_eq!(how == "save", self.keeping.is_agreed() && saves, "kept unasked: {how}");
        self.keeping.asked = how == "save";
    }

    /// The gateway keeps the card, or not.
    pub fn keep_there(&mut self, reference: &str) -> Exchange {
        let approved = self.truth.approved();
        let approved = approved.iter().any(|(r, _)| *r == reference);
        assert!(self.keeping.asked && (approved || self.arranging.is_verified(reference)));
        match self.choices.pick(3) {
            0 => {
                self.keeping.there = true;
                response("approved")
            }
            1 => Exchange::NoAnswer("closed".into()),
            _ => response("config"),
        }
    }

    /// What is written down of cards is what happened.
    pub fn check_kept(&mut self, entry: &Entry) {
        match entry {
            Entry::Keep(card) => {
                let agreed = self.keeping.is_agreed() && card.consent.said == CARD_TERMS;
                assert!(agreed && self.keeping.there, "kept without consent, or not there");
                let payment = self.journal.intent(&card.consent.payment);
                let (intent, state) = payment.unwrap();
                let verified = intent.split == Split::Verification;
                let right = match verified {
                    true => matches!(state, State::NotCharged(_)),
                    false => state.approval().is_some(),
                };
                assert!(right || self.store_failed, "kept with a payment that is none");
                let first = (&*card.first.reference, card.first.total_minor == 0);
                assert_eq!(first, ("g1", verified));
                let same = (intent.fingerprint, &intent.gateway, &intent.account_id);
                assert_eq!(same, (Some(card.fingerprint), &card.gateway, &card.account_id));
                self.keeping.recorded = true;
            }
            Entry::Drop { card, .. } => {
                assert!(self.keeping.chosen && card == KEPT, "another card is dropped");
                assert!(self.keeping.spent, "dropped without a cause");
                self.keeping.dropped = true;
            }
            _ => {}
        }
    }

    /// What the gateway decided of the sale at hand.
    pub fn decided(&mut self, decision: &str) {
        self.keeping.spent |= self.keeping.chosen && decision == "hard";
        self.keeping.not_known |= self.keeping.chosen && decision == "number";
    }

    pub fn check_keeping(&self, (paid, open): (bool, bool), path: &str) {
        let said = |id| self.said.contains(&id);
        let kept = said("saved.kept");
        // Nothing was paid: a card that was never charged was to be, later.
        let put_off = said("later.arranged") || said("later.not_arranged");
        let paid = paid || (put_off && self.keeping.is_agreed());
        let biller = &self.scene.settings.biller;
        let wallet = self.journal.wallet(biller, &self.scene.accounts[0].id);
        let wallet = wallet.unwrap_or_default().cards;
        let new = wallet.iter().any(|card| !["kept", "expired"].contains(&&*card.id));
        assert!(!kept || (paid && new), "told that a card is kept that is not: {path}");
        assert!(!new || kept || self.store_failed, "kept, and not told: {path}");
        let failed = said("saved.not_kept");
        assert!(
            !failed || ((paid || open) && self.keeping.is_agreed()),
            "told of what nobody wanted: {path}"
        );
        let wanted = (paid || open) && self.keeping.is_agreed();
        assert_eq!(wanted, kept || failed, "not told whether the card is kept: {path}");
        if self.keeping.dropped && !self.store_failed {
            assert!(wallet.iter().all(|card| card.id != KEPT), "dropped and kept: {path}");
        }
        let spent = self.keeping.spent && !self.store_failed;
        assert_eq!(spent, self.keeping.dropped && !self.store_failed, "not dropped: {path}");
    }
}
