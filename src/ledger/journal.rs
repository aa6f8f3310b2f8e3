//! Which entry may follow which, and the ledger as it behaves in memory: the model the SQL store
//! is tested against, and the ledger of simulated calls.

use std::collections::{BTreeMap, BTreeSet};

use super::arrangement::{Arrangement, Arrangements, Wallet};
use super::card::KEPT_ANEW;
use super::change::may_change;
use super::split::{Undone, may_charge_fee, may_give_back};
use super::velocity::Counted;
use super::{
    Change, Entry, Intent, Progress, Recorded, SavedCard, Screened, Screening, Split, State,
};
use crate::gateway::Approval;
use crate::instrument::Fingerprint;
use crate::money::Money;

/// Names of the states `to` may follow; a new intent follows nothing and must be `Consented`.
///
/// `Sending` is never left for `Consented`, and nothing leads back to `Sending`: a request whose
/// fate is open is looked up, never sent again.
pub fn predecessors(to: &State) -> &'static [&'static str] {
    match to {
        State::Consented => &[],
        State::Sending => &["consented"],
        State::Unknown(_) => &["sending"],
        State::Held(..) => &["sending", "unknown", "manual"],
        State::Approved(_) | State::Declined(_) => &["sending", "unknown", "held", "manual"],
        State::NotCharged(_) => &["consented", "sending", "unknown", "manual"],
        State::Manual => &["unknown"],
        State::Posted(_) => &["approved"],
    }
}

/// Whether an intent in state `from` (`None`: not yet recorded) may go to state `to`.
pub fn may_follow(from: Option<&State>, to: &State) -> bool {
    match from {
        None => matches!(to, State::Consented),
        Some(from) => predecessors(to).contains(&from.name()),
    }
}

/// The same text with every run of twelve or more digits, spaced or dashed as card numbers are,
/// replaced by `***`, and cut to 200 characters: gateways have echoed card numbers in their texts.
pub fn masked(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(TEXT_MAX));
    let mut run = String::new();
    let mut digits = 0;
    for c in text.chars().chain(['\0']) {
        let separator = matches!(c, ' ' | '-' | '.') && digits > 0;
        if c.is_ascii_digit() || separator {
            run.push(c);
            digits += usize::from(c.is_ascii_digit());
            continue;
        }
        if digits >= DIGITS_MAX {
            let kept = run.trim_end_matches([' ', '-', '.']).len();
            out.push_str("***");
            out.push_str(&run[kept..]);
        } else {
            out.push_str(&run);
        }
        run.clear();
        digits = 0;
        if !c.is_control() {
            out.push(c);
        }
    }
    out.chars().take(TEXT_MAX).collect()
}

const TEXT_MAX: usize = 200;
/// The shortest run of digits that is hidden: card numbers have thirteen or more.
const DIGITS_MAX: usize = 12;

/// The state as it is kept: texts from outside masked, empty results absent.
pub fn kept(state: State) -> State {
    match state {
        State::Approved(approval) => State::Approved(kept_approval(approval)),
        State::Posted(approval) => State::Posted(kept_approval(approval)),
        State::Declined(why) => State::Declined(masked(&why)),
        State::Held(why, approval) => State::Held(masked(&why), approval.map(kept_approval)),
        State::Unknown(why) => State::Unknown(masked(&why)),
        State::NotCharged(why) => State::NotCharged(masked(&why)),
        other => other,
    }
}

fn kept_approval(approval: Approval) -> Approval {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    Approval { avs: given(approval.avs), cvv: given(approval.cvv), ..approval }
}

/// Why an intent found `Consented` at start was not charged.
pub const STOPPED_BEFORE_SENDING: &str = "the server stopped before anything was sent";
/// Why an intent found `Sending` at start is unknown.
pub const STOPPED_WHILE_SENDING: &str = "the server stopped while the request was on its way";

/// Why a payment that was held for a person is declined, once it was given back.
pub const GIVEN_BACK: &str = "given back";

/// Why an intent whose call died is unknown, or was not charged.
pub const CALL_LOST: &str = "the call was lost before an outcome was recorded";

/// A ledger in memory with the rules of the real one.
#[derive(Default)]
pub struct Journal {
    intents: BTreeMap<String, (Intent, State)>,
    /// Of every open intent.
    open: BTreeSet<Open>,
    confirmations: BTreeSet<String>,
    history: Vec<(String, State)>,
    /// Oldest first.
    changes: Vec<(Change, Progress)>,
    /// Each with why it is charged no more, if so.
    cards: Vec<(SavedCard, Option<String>)>,
    arrangements: Arrangements,
    fault: Option<Fault>,
}

/// Biller, account and what is paid with: one payment at a time.
type Open = (String, String, Option<Fingerprint>);

/// One of each account. None: a fee is as open as its bill.
fn open(intent: &Intent) -> Vec<Open> {
    if intent.split.bill().is_some() {
        return Vec::new();
    }
    let open = |(of, _): (&str, Money)| (intent.biller.clone(), of.into(), intent.fingerprint);
    intent.parts().map(open).collect()
}

#[derive(Clone, Copy)]
struct Fault {
    writes_left: u64,
    stores_anyway: bool,
}

/// A journal takes no more intents than this.
pub const INTENTS_MAX: usize = 1_000_000;

impl Journal {
    pub fn new() -> Journal {
        Journal::default()
    }

    /// After `writes` more entries every write fails. With `stores_anyway` the entry is kept
    /// although the caller is told it failed, as when a disk dies between write and reply.
    pub fn fail_after(&mut self, writes: u64, stores_anyway: bool) {
        self.fault = Some(Fault { writes_left: writes, stores_anyway });
    }

    /// Ends what [`Journal::fail_after`] began.
    pub fn repair(&mut self) {
        self.fault = None;
    }

    pub fn record(&mut self, entry: Entry) -> Recorded {
        if let Some(fault) = &mut self.fault {
            if fault.writes_left == 0 {
                if fault.stores_anyway {
                    self.apply(entry);
                }
                return Recorded::Failed("disk failed (injected)".into());
            }
            fault.writes_left -= 1;
        }
        self.apply(entry)
    }

    fn apply(&mut self, entry: Entry) -> Recorded {
        match entry {
            Entry::Consent(intent) => self.consent(*intent),
            Entry::Sending(intent) => {
                let id = intent.id.clone();
                match self.consent(*intent) {
                    Recorded::Stored => {
                        let told = self.step(&id, State::Sending);
                        if told != Recorded::Stored {
                            self.forget(&id);
                        }
                        told
                    }
                    refused => refused,
                }
            }
            Entry::Move { id, to } => self.step(&id, kept(to)),
            Entry::Undo(change) => self.undo(*change),
            Entry::Undone { change, to } => self.progress(&change, to),
            Entry::Keep(card) => self.keep(*card),
            Entry::Drop { card, why, .. } => self.drop_card(&card, &why),
            Entry::Arrange(arrangement) => self.arrange(*arrangement),
            Entry::Cancel { arrangement, .. } => match self.arrangements.end(&arrangement) {
                true => Recorded::Stored,
                false => Recorded::Illegal,
            },
        }
    }

    /// Only with a card that is kept for the account.
    fn arrange(&mut self, new: Arrangement) -> Recorded {
        let kept = self.cards.iter().any(|(card, dropped)| {
            dropped.is_none()
                && (&card.id, &card.biller, &card.account_id)
                    == (&new.card, &new.biller, &new.account_id)
        });
        match kept {
            false => Recorded::Illegal,
            true if self.arrangements.add(new) => Recorded::Stored,
            true => Recorded::Conflict,
        }
    }

    fn keep(&mut self, card: SavedCard) -> Recorded {
        if self.cards.iter().any(|(other, _)| other.id == card.id) {
            return Recorded::Conflict;
        }
        if self.cards.len() >= INTENTS_MAX {
            return Recorded::Failed("the journal is full".into());
        }
        for (other, dropped) in &mut self.cards {
            if dropped.is_none() && card.replaces(other) {
                *dropped = Some(KEPT_ANEW.into());
                self.arrangements.without_card(&other.id, Some(&card.id));
            }
        }
        self.cards.push((card, None));
        Recorded::Stored
    }

    fn drop_card(&mut self, id: &str, why: &str) -> Recorded {
        match self.cards.iter_mut().find(|(card, dropped)| card.id == id && dropped.is_none()) {
            Some((_, dropped)) => {
                *dropped = Some(masked(why));
                self.arrangements.without_card(id, None);
                Recorded::Stored
            }
            None => Recorded::Illegal,
        }
    }

    /// What is kept for an account; `None` while the disk fails.
    pub fn wallet(&self, biller: &str, account_id: &str) -> Option<Wallet> {
        if self.fault.is_some_and(|fault| fault.writes_left == 0) {
            return None;
        }
        let kept = self.cards.iter().rev().filter(|(card, dropped)| {
            dropped.is_none() && card.biller == biller && card.account_id == account_id
        });
        let cards = kept.map(|(card, _)| card.clone()).collect();
        Some(Wallet { cards, arrangements: self.arrangements.of(biller, account_id) })
    }

    fn consent(&mut self, intent: Intent) -> Recorded {
        if !intent.is_allocated() {
            return Recorded::Illegal;
        }
        let open = open(&intent);
        if self.intents.contains_key(&intent.id)
            || self.confirmations.contains(&intent.confirmation)
            || open.iter().any(|open| self.open.contains(open))
            || intent.split.bill().is_some_and(|bill| self.fee_of(bill).is_some())
        {
            return Recorded::Conflict;
        }
        if self.intents.len() >= INTENTS_MAX {
            return Recorded::Failed("the journal is full".into());
        }
        self.open.extend(open);
        self.confirmations.insert(intent.confirmation.clone());
        self.history.push((intent.id.clone(), State::Consented));
        self.intents.insert(intent.id.clone(), (intent, State::Consented));
        Recorded::Stored
    }

    /// What was consented to last is not in the ledger after all.
    fn forget(&mut self, id: &str) {
        let Some((intent, _)) = self.intents.remove(id) else { return };
        self.confirmations.remove(&intent.confirmation);
        for open in open(&intent) {
            self.open.remove(&open);
        }
        self.history.pop();
    }

    fn step(&mut self, id: &str, to: State) -> Recorded {
        let bill = self.intents.get(id).and_then(|(intent, _)| intent.split.bill());
        if let (State::Sending, Some(bill)) = (&to, bill) {
            let charged = self.intents.get(bill).map(|(_, state)| state);
            if !charged.is_some_and(|state| may_charge_fee(state, self.undone(bill))) {
                return Recorded::Illegal;
            }
        }
        let Some((intent, state)) = self.intents.get_mut(id) else { return Recorded::Illegal };
        if !may_follow(Some(state), &to) || !intent.split.may_be(&to) {
            return Recorded::Illegal;
        }
        // Posting repeats the approval it posts: another one is a mistake.
        if matches!(to, State::Posted(_)) && state.approval() != to.approval() {
            return Recorded::Illegal;
        }
        if state.is_open() && !to.is_open() {
            for open in open(intent) {
                self.open.remove(&open);
            }
        }
        *state = to.clone();
        self.history.push((id.to_string(), to));
        Recorded::Stored
    }

    /// Gives a payment back, all that is left of it.
    fn undo(&mut self, change: Change) -> Recorded {
        let known = self.changes.iter().any(|(other, _)| other.id == change.id);
        let Some(paid) = self.intents.get(&change.intent_id) else { return Recorded::Illegal };
        let undone = self.undone(&change.intent_id);
        let gone = Money::new(undone.minor, paid.0.amount.currency);
        let Ok(amount) = may_change((&paid.0, &paid.1), gone, change.act, None) else {
            return Recorded::Illegal;
        };
        let fee = self.fee_of(&change.intent_id);
        let fee = fee.map(|fee| may_give_back((&fee.0, &fee.1), self.undone(&fee.0.id)));
        if known || undone.open || fee.is_some_and(|may| may.is_err()) {
            return Recorded::Illegal;
        }
        self.changes.push((Change { amount, ..change }, Progress::Sending));
        Recorded::Stored
    }

    fn progress(&mut self, change: &Change, to: Progress) -> Recorded {
        let found = self.changes.iter_mut().find(|(other, _)| other.id == change.id);
        let id = match found.filter(|(_, from)| to.predecessors().contains(&from.name())) {
            Some((change, progress)) => {
                *progress = to.clone();
                change.intent_id.clone()
            }
            None => return Recorded::Illegal,
        };
        let held = matches!(self.intents.get(&id), Some((_, State::Held(..))));
        if to.took_effect() && held {
            return self.step(&id, State::Declined(GIVEN_BACK.into()));
        }
        Recorded::Stored
    }

    /// What went back of a payment.
    pub fn undone(&self, id: &str) -> Undone {
        let mut undone = Undone::default();
        for (change, progress) in self.changes.iter().filter(|(one, _)| one.intent_id == id) {
            undone.open |= progress.is_open();
            if progress.took_effect() {
                undone.minor += change.act.sign() * change.amount.minor;
            }
        }
        undone
    }

    /// Every change to a payment, oldest first.
    pub fn changes(&self) -> &[(Change, Progress)] {
        &self.changes
    }

    /// The fee of a bill, if that is a charge of its own.
    pub fn fee_of(&self, bill: &str) -> Option<&(Intent, State)> {
        self.intents.values().find(|(intent, _)| intent.split.bill() == Some(bill))
    }

    pub fn intent(&self, id: &str) -> Option<&(Intent, State)> {
        self.intents.get(id)
    }

    /// Every intent, oldest first.
    pub fn intents(&self) -> Vec<(Intent, State)> {
        let mut all: Vec<_> = self.intents.values().cloned().collect();
        all.sort_by(|(a, _), (b, _)| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
        all
    }

    /// What is known against a payment; `None` while the disk fails.
    pub fn screen(&self, screening: &Screening) -> Option<Screened> {
        if self.fault.is_some_and(|fault| fault.writes_left == 0) {
            return None;
        }
        let mut all = self.intents();
        // A fee is one with its bill: neither asked about nor counted.
        all.retain(|(intent, _)| intent.split.bill().is_none());
        let back = |intent: &Intent| {
            let total = intent.total().map_or(i64::MAX, |total| total.minor);
            self.undone(&intent.id).minor >= total
        };
        // Who verified a card has not paid.
        let alike = all
            .iter()
            .rev()
            .filter(|(intent, _)| intent.split != Split::Verification && !back(intent));
        let earlier = alike.filter_map(|(intent, state)| screening.earlier(intent, state)).next();
        let mut found = Screened { earlier, ..Screened::default() };
        let since_ms = screening.limits.since_ms(screening.at_ms);
        for counted in Counted::ALL {
            let tried = all.iter().filter(|(intent, _)| {
                intent.created_ms >= since_ms && screening.counts(counted, intent)
            });
            let refused = tried.clone().filter(|(_, state)| matches!(state, State::Declined(_)));
            let attempts: Vec<i64> = tried.map(|(intent, _)| intent.created_ms).collect();
            let declines: Vec<i64> = refused.map(|(intent, _)| intent.created_ms).collect();
            screening.tried(counted, &attempts, &declines, &mut found);
        }
        Some(found)
    }

    /// Every step ever taken, in order.
    pub fn history(&self) -> &[(String, State)] {
        &self.history
    }

    /// What a start after a crash does: nothing was sent for `Consented`, anything may have
    /// happened to `Sending`. The number of intents moved.
    pub fn recover(&mut self) -> usize {
        let moves: Vec<Entry> = self
            .intents
            .iter()
            .filter_map(|(id, (intent, state))| {
                let to = match state {
                    State::Sending if intent.split == Split::Verification => {
                        State::NotCharged(STOPPED_WHILE_SENDING.into())
                    }
                    State::Consented => State::NotCharged(STOPPED_BEFORE_SENDING.into()),
                    State::Sending => State::Unknown(STOPPED_WHILE_SENDING.into()),
                    _ => return None,
                };
                Some(Entry::Move { id: id.clone(), to })
            })
            .collect();
        moves.into_iter().filter(|entry| self.apply(entry.clone()) == Recorded::Stored).count()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn moved(id: &str, to: State) -> Entry {
        Entry::Move { id: id.into(), to }
    }

    #[test]
    fn the_table_is_the_documented_one() {
        let all = sample::states();
        let mut allowed = Vec::new();
        for from in &all {
            for to in &all {
                if may_follow(Some(from), to) {
                    allowed.push(format!("{} {}", from.name(), to.name()));
                }
            }
        }
        let expected = "consented sending, consented not_charged, sending approved, \
             sending declined, sending held, sending unknown, sending not_charged, held approved, \
             held declined, unknown approved, unknown declined, unknown held, \
             unknown not_charged, unknown manual, manual approved, manual declined, manual held, \
             manual not_charged, approved posted";
        let mut expected: Vec<_> = expected.split(", ").map(String::from).collect();
        expected.sort();
        allowed.sort();
        assert_eq!(allowed, expected);
        assert!(all.iter().filter(|to| may_follow(None, to)).count() == 1);
    }

    #[test]
    fn an_account_has_one_open_payment() {
        let mut journal = Journal::new();
        let first = sample::intent(1, "A1");
        let second = sample::intent(2, "A1");
        assert_eq!(journal.record(Entry::Consent(Box::new(first))), Recorded::Stored);
        assert_eq!(journal.record(Entry::Consent(Box::new(second.clone()))), Recorded::Conflict);
        let other = sample::intent(3, "A2");
        assert_eq!(journal.record(Entry::Consent(Box::new(other))), Recorded::Stored);
        let id = sample::intent(1, "A1").id;
        assert_eq!(journal.record(moved(&id, State::Sending)), Recorded::Stored);
        assert_eq!(journal.record(moved(&id, State::Sending)), Recorded::Illegal);
        assert_eq!(journal.record(moved(&id, State::Unknown("t".into()))), Recorded::Stored);
        assert_eq!(journal.record(Entry::Consent(Box::new(second.clone()))), Recorded::Conflict);
        assert_eq!(journal.record(moved(&id, State::Declined("no".into()))), Recorded::Stored);
        assert_eq!(journal.record(Entry::Consent(Box::new(second))), Recorded::Stored);
        assert_eq!(journal.record(moved("nobody", State::Sending)), Recorded::Illegal);
    }

    #[test]
    fn a_failed_write_stores_nothing_or_everything() {
        for stores_anyway in [false, true] {
            let mut journal = Journal::new();
            journal.fail_after(1, stores_anyway);
            let intent = sample::intent(1, "A1");
            let id = intent.id.clone();
            assert_eq!(journal.record(Entry::Consent(Box::new(intent))), Recorded::Stored);
            let failed = journal.record(moved(&id, State::Sending));
            assert!(matches!(failed, Recorded::Failed(_)));
            let state = &journal.intent(&id).unwrap().1;
            assert_eq!(state == &State::Sending, stores_anyway);
        }
    }

    #[test]
    fn after_a_crash_nothing_is_sent_again() {
        let mut journal = Journal::new();
        for n in 1..=2 {
            let intent = sample::intent(n, &format!("A{n}"));
            journal.record(Entry::Consent(Box::new(intent)));
        }
        let (first, second) = (sample::intent(1, "").id, sample::intent(2, "").id);
        journal.record(moved(&second, State::Sending));
        assert_eq!(journal.recover(), 2);
        assert_eq!(journal.intent(&first).unwrap().1.name(), "not_charged");
        assert_eq!(journal.intent(&second).unwrap().1.name(), "unknown");
        assert_eq!(journal.recover(), 0);
    }

    #[test]
    fn card_numbers_in_gateway_texts_are_masked() {
        for (text, want) in [
            ("card 4111111111111111 refused", "card *** refused"),
            ("card 4111 1111 1111 1111.", "card ***."),
            ("4111-1111-1111-1111", "***"),
            ("code 51, 12345678901 units", "code 51, 12345678901 units"),
            ("line\r\nfeed", "linefeed"),
        ] {
            assert_eq!(masked(text), want);
        }
        assert_eq!(masked(&"x".repeat(500)).len(), 200);
        let state = kept(State::Declined("no 4111111111111111".into()));
        assert_eq!(state, State::Declined("no ***".into()));
    }
}
