//! What is arranged for later: only what was read out and agreed to by a key, told with its number,
//! and cancelled only if the caller said so twice.

use jiff::civil::date;
use ringtill::dialogue::Question;
use ringtill::gateway::Exchange;
use ringtill::instrument::luhn_check_digit;
use ringtill::ledger::arrangement::{Agreement, Kind};
use ringtill::ledger::{Arrangement, Entry, Instalment, Split, State};
use ringtill::money::Money;
use ringtill::payment::Outcome;
use ringtill::prompt::Prompt;

use super::World;
use super::scenes::{EARLIER, KEPT, Scene};
use crate::NOW_MS;

/// What the caller agreed to on this call, and what became of it.
#[derive(Default)]
pub struct Arranging {
    /// What was read out before the key that agreed.
    agreed: Option<Vec<Prompt>>,
    /// The caller asked to cancel, and was sure.
    cancel: bool,
    sure: bool,
    /// Numbers of what was arranged, as far as anybody knows.
    made: Vec<String>,
    /// What became of verifications, by reference: those that the gateway told us of.
    verified: Vec<(String, &'static str)>,
    /// The ledger could not be asked what is arranged.
    pub blind: bool,
}

/// The number of what was arranged before this call.
pub const STANDING: &str = "standing";

/// An arrangement of before this call.
pub fn standing(scene: &Scene) -> Entry {
    let stem = "30000000";
    Entry::Arrange(Box::new(Arrangement {
        id: STANDING.into(),
        number: format!("{stem}{}", luhn_check_digit(stem)),
        biller: scene.settings.biller.clone(),
        account_id: scene.accounts[0].id.clone(),
        card: KEPT.into(),
        kind: Kind::Once,
        limit: Money::usd(5_200),
        agreement: Agreement { said: String::new(), at_ms: NOW_MS, call_id: EARLIER.into() },
        instalments: vec![Instalment {
            position: 1,
            due: date(2026, 12, 1),
            at_ms: NOW_MS + 1,
            amount: Money::usd(5_000),
            fee: Money::usd(200),
        }],
        created_ms: NOW_MS - 60_000,
    }))
}

impl Arranging {
    /// The gateway has said that a card is good.
    pub fn is_verified(&self, reference: &str) -> bool {
        self.verified.iter().any(|(one, word)| one == reference && *word == "approved")
    }
}

impl World<'_> {
    /// Keys at the question when to pay: good callers pay as the scene is for.
    pub fn when(&self) -> &'static [&'static str] {
        let later = self.scene.settings.later.as_ref().unwrap();
        match (later.days_max > 0, later.plan.is_some()) {
            (true, false) => &["2", "1"],
            _ => &["3", "1"],
        }
    }

    pub fn arranging(&mut self, question: &Question, keyed: Option<&str>) {
        match question.name {
            "later_agree" => {
                assert!(question.voice.is_none(), "agreed by voice");
                self.arranging.agreed = (keyed == Some("1")).then(|| question.notice.clone());
            }
            "standing" => {
                self.arranging.cancel = keyed == Some("2");
                self.arranging.sure = false;
            }
            "standing_cancel" => self.arranging.sure = keyed == Some("1"),
            _ => {}
        }
    }

    /// A card is verified that is to be charged later: only what was read out and agreed to.
    pub fn verify(&mut self, reference: &str, card: &str) -> Exchange {
        let (intent, state) = self.journal.intent(reference).cloned().expect("not in the ledger");
        assert_eq!((state, intent.split), (State::Sending, Split::Verification));
        assert_eq!((intent.amount.minor, intent.fee.minor), (0, 0), "money for nothing");
        let heard = self.arranging.agreed.as_ref().expect("verified unasked");
        let ending = Prompt::Digits(card[card.len() - 4..].into());
        assert!(heard.contains(&ending), "another card than was agreed to");
        assert!(heard.contains(&Prompt::Amount(self.scene.accounts[0].amount_due)) || self.less());
        const WORDS: [&str; 8] =
            ["approved", "hard", "soft", "cvv", "zip", "number", "held", "config"];
        let (exchange, decision) = self.reply(reference, WORDS);
        let heard =
            matches!(&exchange, Exchange::Response(response) if response.body() != b"<html>");
        if let Some(decision) = decision.filter(|_| heard) {
            self.arranging.verified.push((reference.to_string(), decision));
        }
        // A yes is to one card, and for one that is good.
        if decision != Some("approved") || !heard {
            self.arranging.agreed = self.arranging.agreed.take().filter(|_| decision.is_none());
        }
        exchange
    }

    fn less(&self) -> bool {
        self.asked.contains(&"amount")
    }

    /// What is written down is what was heard.
    pub fn check_arranged(&mut self, entry: &Entry) {
        match entry {
            Entry::Arrange(new) => {
                let heard = self.arranging.agreed.as_ref().expect("arranged unasked");
                let has = |wanted: &Prompt| heard.contains(wanted);
                for one in &new.instalments {
                    assert!(has(&Prompt::Amount(one.amount)), "{one:?} was not heard");
                    assert!(has(&Prompt::Date(one.due)), "{one:?} was not heard");
                    assert!(one.at_ms > NOW_MS, "{one:?} is not later");
                    let total = one.amount.checked_add(one.fee).unwrap();
                    assert!(total.minor <= new.limit.minor);
                    let first = new.kind == Kind::Once;
                    assert!(first || one.fee.minor == 0, "a fee for nothing on a call");
                    assert!(!first || has(&Prompt::Amount(total)), "the total was not heard");
                }
                let other = Prompt::Digits("4444".into());
                assert!(has(&Prompt::Digits("1111".into())) || has(&other));
                let wallet = self.journal.wallet(&new.biller, &new.account_id).unwrap_or_default();
                let before = wallet.cards.iter().any(|card| card.id == KEPT && card.id == new.card);
                assert!(before || self.keeping.stored, "arranged with a card that is not kept");
                match new.kind {
                    Kind::Once => assert_eq!(new.instalments[0].due, date(2026, 12, 5)),
                    Kind::Plan => {
                        let rest: i64 = new.instalments.iter().map(|one| one.amount.minor).sum();
                        let first = self.charged_with.as_ref().unwrap().0;
                        let fee = self.scene.settings.fee.of(Money::usd(0)).unwrap().minor;
                        let due = self.scene.accounts[0].amount_due.minor;
                        let whole = first - fee + rest;
                        assert!([due, 2_500].contains(&whole), "{first} and {rest}");
                        let paid = self.truth.approved().len() == 1;
                        assert!(paid, "a plan without its first payment");
                    }
                    Kind::AutoPay => {
                        assert!(new.instalments.is_empty() && has(&Prompt::Amount(new.limit)));
                        assert!(self.said.contains(&"result.approved"), "AutoPay before paying");
                    }
                }
                self.arranging.made.push(new.number.clone());
            }
            Entry::Cancel { arrangement, .. } if arrangement == STANDING => {
                assert!(self.arranging.cancel && self.arranging.sure, "cancelled unasked");
            }
            // What could not be confirmed.
            Entry::Cancel { .. } => assert!(self.store_failed),
            _ => {}
        }
    }

    /// A number that was said besides that of the payment.
    pub fn is_arranged(&self, number: &str) -> bool {
        self.active().iter().any(|one| one.number == number && one.id != STANDING)
    }

    fn active(&self) -> Vec<Arrangement> {
        let (biller, account) = (&self.scene.settings.biller, &self.scene.accounts[0].id);
        self.journal.wallet(biller, account).unwrap_or_default().arrangements
    }

    pub fn check_arranging(&self, outcome: &Outcome, path: &str) {
        let said = |id| self.said.contains(&id);
        let active = self.active();
        let new: Vec<_> = active.iter().filter(|one| one.id != STANDING).collect();
        assert!(new.len() <= 1, "arranged twice: {path}");
        let told = said("later.arranged") || said("later.plan_number") || said("later.autopay_on");
        assert!(!told || new.len() == 1, "told of an arrangement that is none: {path}");
        assert!(told || new.is_empty() || self.store_failed, "arranged, and not told: {path}");
        if let Outcome::Arranged { number } = outcome {
            assert!(new.iter().any(|one| one.number == *number), "{path}");
            assert!(self.truth.approved().is_empty(), "charged and put off: {path}");
        }
        // What was refused counts, whoever tries cards and however.
        for (reference, word) in &self.arranging.verified {
            let state = self.journal.intent(reference).map(|(_, state)| state.name());
            let want = match *word {
                "hard" | "soft" | "cvv" | "zip" | "number" => "declined",
                _ => "not_charged",
            };
            assert!(state == Some(want) || self.store_failed, "{state:?} of a {word} card: {path}");
        }
        let once = new.iter().any(|one| one.kind == Kind::Once);
        let arranged = matches!(outcome, Outcome::Arranged { .. });
        assert!(!once || arranged || self.store_failed, "another outcome: {path}");
        if self.scene.standing {
            let stands = active.iter().any(|one| one.id == STANDING);
            let ended = said("later.cancelled") || (said("later.stopped") && !self.store_failed);
            assert!(!ended || !stands, "not cancelled, and told so: {path}");
            let told = said("later.cancelled") || said("later.stopped");
            let told = told || self.store_failed || self.arranging.blind;
            assert!(stands || told, "cancelled, and not told: {path}");
            // Whoever asks for an agent in vain is asked the same again.
            let asked = self.asked.chunk_by(|a, b| a == b);
            let asked = asked.filter(|names| names[0] == "standing").count();
            assert!(asked <= 1, "told of it again and again: {path}");
        }
    }
}
