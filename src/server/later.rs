//! Charges what callers have arranged for later, each payment once: its intent is in the ledger
//! before it is sent, an open one is looked up and never sent again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tracing::{error, info, warn};

use super::clock;
use super::gateway::Gateways;
use super::store::arrangement::due::{Due, Next};
use super::store::{Store, StoreError};
use crate::account::{Account, Directory};
use crate::gateway::{Charge, Exchange, First, Initiator, Purpose, Request, Route, Routes, Series};
use crate::instrument::{Instrument, Means, Method, Saved};
use crate::ledger::arrangement::{Kind, intent_id};
use crate::ledger::card::FirstCharge;
use crate::ledger::journal::kept;
use crate::ledger::{
    Entry, FOR_GOOD, Instalment, Intent, Origin, Recorded, SavedCard, Screening, Split, State,
    confirmation,
};
use crate::money::Money;
use crate::payment::{DuplicateMatch, LaterSettings, Settings};

pub mod command; // `ringtill later`

/// Looks at what is due, one after the other.
pub struct Scheduler {
    store: Arc<Store>,
    directory: Arc<ArcSwap<Directory>>,
    settings: Settings,
    later: LaterSettings,
    /// The day and the account file that AutoPay was planned by.
    planned: Option<(jiff::civil::Date, Arc<Directory>)>,
    /// Where the accounts are from.
    file: Option<PathBuf>,
}

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    pub paid: usize,
    pub skipped: usize,
    /// Declined or not charged, and to be tried again.
    pub again: usize,
    /// Arrangements that were stopped.
    pub stopped: usize,
    /// To be looked at again: a payment is open, or the gateway is not there.
    pub postponed: usize,
}

const EVERY: Duration = Duration::from_secs(30);
/// Looked at in one round.
const ROUND_MAX: i64 = 50;
const AUTOPAY_MAX: i64 = 500;
const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

impl Scheduler {
    /// `None`: nothing is charged later.
    pub fn new(
        store: Arc<Store>,
        (directory, file): (Arc<ArcSwap<Directory>>, Option<PathBuf>),
        settings: &Settings,
    ) -> Option<Scheduler> {
        let later = settings.later.clone()?;
        let (settings, planned) = (settings.clone(), None);
        Some(Scheduler { store, directory, settings, later, planned, file })
    }

    /// Charges whatever is due, for ever. It may be dropped at any time: what was under way then is
    /// looked up.
    pub async fn run(mut self, gateways: Arc<Gateways>) {
        loop {
            let send = |route: &Route, request: Request| {
                let (gateways, id, limit) = (gateways.clone(), route.id.clone(), route.limit);
                async move { gateways.send(&id, request, limit).await }
            };
            match self.step(&gateways.routes, &clock::wall_ms, send).await {
                Ok(round) if round != Round::default() => {
                    let Round { paid, skipped, again, stopped, postponed } = round;
                    info!(paid, skipped, again, stopped, postponed, "arranged payments");
                }
                Ok(_) => {}
                Err(error) => error!(%error, "arranged payments cannot be charged"),
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// One round, sending by `send`. Gateways answer in their own time: what `now_ms` (Unix) is, is
    /// asked again for whatever is written down.
    pub async fn step<F: Future<Output = Exchange>>(
        &mut self,
        routes: &Routes,
        now_ms: &impl Fn() -> i64,
        mut send: impl FnMut(&Route, Request) -> F,
    ) -> Result<Round, StoreError> {
        self.plan_autopay(now_ms()).await?;
        let mut round = Round::default();
        for due in self.store.due(&self.settings.biller, now_ms(), ROUND_MAX).await? {
            match self.look_at(&due, routes, now_ms, &mut send).await? {
                Some(next) => self.end_attempt(&due, &next, &mut round, now_ms()).await?,
                None => round.postponed += 1,
            }
        }
        Ok(round)
    }

    /// What becomes of an instalment; `None`: it is to be looked at again.
    async fn look_at<F: Future<Output = Exchange>>(
        &self,
        due: &Due,
        routes: &Routes,
        clock: &impl Fn() -> i64,
        send: &mut impl FnMut(&Route, Request) -> F,
    ) -> Result<Option<Next>, StoreError> {
        let now_ms = clock();
        if let Some(id) = &due.intent {
            let found = self.store.intent(id).await?;
            let state = found.map_or(State::Manual, |(_, state)| state);
            return self.settled(due, &state, now_ms).await;
        }
        if !due.active {
            return Ok(Some(Next::Skipped("it was ended".into())));
        }
        if self.is_too_late(due.planned_ms, now_ms) {
            let days = self.later.late_days_max;
            return Ok(Some(Next::Stopped(format!("it could not be charged within {days} days"))));
        }
        let Some(account) = self.directory.load().by_id(&due.account_id) else {
            // A file may lack a row for a while.
            let number = &due.number;
            warn!(number, "its account is not in the account file: it waits");
            return self.postpone(due, now_ms + 60 * MINUTE_MS).await;
        };
        let amount = match self.amount(due, &account, now_ms).await? {
            Ok(amount) => amount,
            Err(why) => return Ok(Some(Next::Skipped(why))),
        };
        let Some(card) = self.store.card(&due.card).await? else {
            // Dropped with what was arranged, or kept anew since this round began.
            return self.postpone(due, now_ms + MINUTE_MS).await;
        };
        if card.expiry.is_over(self.later.today(now_ms)) {
            return Ok(Some(Next::Stopped("its card has expired".into())));
        }
        let Some(route) = routes.by_id(&card.gateway) else {
            let gateway = card.gateway;
            error!(fault = "configuration", gateway, "cards are kept there: configure it");
            return self.postpone(due, now_ms + 60 * MINUTE_MS).await;
        };
        match self.paid_otherwise(due, amount, &card, now_ms).await? {
            Paid::Not => {}
            Paid::Yes(why) => return Ok(Some(Next::Skipped(why))),
            Paid::Unknown => return self.postpone(due, now_ms + 60 * MINUTE_MS).await,
        }
        if !route.admits(now_ms) {
            return self.postpone(due, now_ms + 5 * MINUTE_MS).await;
        }
        let intent = intent(due, amount, &card, now_ms);
        match self.store.begin(due, &intent, now_ms).await {
            Recorded::Stored => {}
            // Somebody pays for the account by phone just now.
            Recorded::Conflict => return self.postpone(due, now_ms + 5 * MINUTE_MS).await,
            // It was ended meanwhile.
            Recorded::Illegal => return Ok(None),
            Recorded::Failed(why) => return Err(StoreError::Database(why)),
        }
        let state = self.charge(due, &intent, (route, card), clock, send).await?;
        let begun = Due { intent: Some(intent.id), ..due.clone() };
        self.settled(&begun, &state, clock()).await
    }

    /// Counted in days where the biller is.
    fn is_too_late(&self, planned_ms: i64, now_ms: i64) -> bool {
        let (planned, today) = (self.later.today(planned_ms), self.later.today(now_ms));
        let days = i64::from(self.later.late_days_max);
        planned.checked_add(jiff::Span::new().days(days)).is_ok_and(|last| today > last)
    }

    /// What is charged; else why nothing is.
    async fn amount(
        &self,
        due: &Due,
        account: &Account,
        now_ms: i64,
    ) -> Result<Result<Money, String>, StoreError> {
        if !account.may.pay_by_card {
            return Ok(Err("cards are not taken for this account".into()));
        }
        Ok(match due.kind {
            // It has been paid otherwise.
            Kind::Once | Kind::Plan if !account.amount_due.is_positive() => {
                Err("nothing is due".into())
            }
            Kind::Once | Kind::Plan => Ok(due.amount),
            Kind::AutoPay => {
                let wallet = self.store.wallet(&due.biller, &due.account_id).await?;
                let mut others = wallet.arrangements.iter().filter(|one| one.id != due.arrangement);
                match others.find(|one| !one.instalments.is_empty()) {
                    // Together they would be more than the balance.
                    Some(other) => Err(format!("it is to be paid as arranged by {}", other.number)),
                    None => {
                        let received = self.store.received(
                            (&due.biller, &due.account_id),
                            self.as_of_ms(now_ms).unwrap_or(due.agreed_ms),
                        );
                        balance(due, account, received.await?)
                    }
                }
            }
        })
    }

    /// Since when the account file may not know of payments: it tells of a day or so before it was
    /// written. Accounts that are from no file are of two days ago.
    fn as_of_ms(&self, now_ms: i64) -> Option<i64> {
        let Some(file) = &self.file else { return Some(now_ms - 2 * DAY_MS) };
        let written = std::fs::metadata(file).and_then(|file| file.modified()).ok()?;
        let written = written.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis();
        Some(i64::try_from(written).ok()? - DAY_MS)
    }

    /// Whether the same was paid by phone since it was agreed to.
    async fn paid_otherwise(
        &self,
        due: &Due,
        amount: Money,
        card: &SavedCard,
        now_ms: i64,
    ) -> Result<Paid, StoreError> {
        // The payments of a plan are alike.
        if due.kind == Kind::Plan {
            return Ok(Paid::Not);
        }
        let by_method = self.settings.duplicate_match == DuplicateMatch::Method;
        let window_ms = i64::from(self.settings.duplicate_window_minutes) * MINUTE_MS;
        let screening = Screening {
            biller: due.biller.clone(),
            account_id: due.account_id.clone(),
            amount,
            fingerprint: Some(card.fingerprint).filter(|_| by_method),
            since_ms: (now_ms - window_ms).max(due.agreed_ms + 1),
            origin: Origin::default(),
            limits: self.settings.velocity,
            at_ms: now_ms,
        };
        Ok(match self.store.screen(&screening).await?.earlier {
            None => Paid::Not,
            Some(earlier) if earlier.open => Paid::Unknown,
            Some(earlier) => {
                Paid::Yes(format!("it was paid by phone, confirmation {}", earlier.confirmation))
            }
        })
    }

    /// Sends what is in the ledger; the state it has come to.
    async fn charge<F: Future<Output = Exchange>>(
        &self,
        due: &Due,
        intent: &Intent,
        (route, card): (&Route, SavedCard),
        clock: &impl Fn() -> i64,
        send: &mut impl FnMut(&Route, Request) -> F,
    ) -> Result<State, StoreError> {
        self.move_to(intent, State::Sending, clock()).await?;
        let expiry = Some(card.expiry);
        let saved = Saved { token: card.token.clone(), method: Method::Card, expiry, cvv: None };
        let series = match due.kind {
            Kind::Once => Series::Once,
            Kind::AutoPay => Series::Recurring,
            Kind::Plan => Series::Instalment,
        };
        let FirstCharge { reference, network, total_minor } = &card.first;
        let total = Money::new(*total_minor, intent.amount.currency);
        let first = First { reference, network, total };
        let charge = Charge {
            purpose: Purpose::Sale,
            reference: &intent.id,
            total: intent.total().unwrap_or(intent.amount),
            fee: intent.fee,
            surcharge: false,
            instrument: Instrument::Token(&saved),
            account_id: &intent.account_id,
            save: false,
            initiator: Initiator::Merchant { series, first },
            at_ms: clock(),
        };
        let (number, confirmation) = (&due.number, &intent.confirmation);
        info!(number, confirmation, gateway = &*route.id, "charging what was arranged");
        let verdict = match route.gateway.charge(&charge) {
            Ok(request) => {
                let exchange = send(route, request).await;
                route.report(&exchange, clock());
                route.gateway.verdict(&charge, &exchange)
            }
            Err(cannot) => cannot.into(),
        };
        // What a gateway writes may quote a card: as the ledger keeps it, here too.
        let state = kept(State::from(&verdict));
        self.move_to(intent, state.clone(), clock()).await?;
        Ok(state)
    }

    async fn move_to(&self, intent: &Intent, to: State, now_ms: i64) -> Result<(), StoreError> {
        let name = to.name();
        match self.store.record(Entry::Move { id: intent.id.clone(), to }, now_ms).await {
            Recorded::Stored => Ok(()),
            Recorded::Failed(why) => Err(StoreError::Database(why)),
            told => Err(StoreError::Database(format!("{}: not {name}: {told:?}", intent.id))),
        }
    }

    /// What the state of its payment means for an instalment.
    async fn settled(
        &self,
        due: &Due,
        state: &State,
        now_ms: i64,
    ) -> Result<Option<Next>, StoreError> {
        Ok(Some(match state {
            State::Approved(_) | State::Posted(_) => Next::Paid,
            State::Declined(why) if is_for_good(why) => Next::Stopped(REFUSED.into()),
            // A person did, or gave back what was held.
            State::Declined(why) if !SOFT.contains(&why.as_str()) => {
                Next::Stopped(format!("its payment was ended: {why}"))
            }
            State::Declined(why) => {
                if why == NOT_KNOWN {
                    let number = &due.number;
                    error!(number, "the gateway does not know the card: are its keys right?");
                }
                let days = usize::try_from(due.declines).ok();
                let days = days.and_then(|nth| self.later.retries.get(nth));
                match days.and_then(|days| self.later.days_after(now_ms, *days)) {
                    Some(again_ms) => Next::Declined { again_ms },
                    None => Next::Stopped(format!("it was declined {} times", due.declines + 1)),
                }
            }
            State::NotCharged(why) => {
                Next::NotCharged { again_ms: now_ms + 60 * MINUTE_MS, why: why.clone() }
            }
            // The resolver looks them up.
            State::Consented | State::Sending | State::Unknown(_) => {
                return self.postpone(due, now_ms + MINUTE_MS).await;
            }
            // A person decides.
            State::Held(..) | State::Manual => {
                return self.postpone(due, now_ms + 60 * MINUTE_MS).await;
            }
        }))
    }

    async fn postpone(&self, due: &Due, until_ms: i64) -> Result<Option<Next>, StoreError> {
        self.store.postpone(due, until_ms).await?;
        Ok(None)
    }

    async fn end_attempt(
        &self,
        due: &Due,
        next: &Next,
        round: &mut Round,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        // As it is now: it may have begun in this round.
        let intent = due.intent.clone().or_else(|| {
            let begun = !matches!(next, Next::Skipped(_));
            begun.then(|| intent_id(&due.arrangement, due.position, due.attempt))
        });
        let known = match &intent {
            Some(id) => self.store.intent(id).await?.is_some(),
            None => false,
        };
        let due = &Due { intent: intent.filter(|_| known), ..due.clone() };
        if !self.store.end_attempt(due, next, now_ms).await? {
            return Ok(());
        }
        let number = &due.number;
        match next {
            Next::Paid => round.paid += 1,
            Next::Skipped(why) => {
                round.skipped += 1;
                warn!(number, why, "nothing is charged of what was arranged");
            }
            Next::Declined { .. } | Next::NotCharged { .. } => round.again += 1,
            Next::Stopped(why) => {
                round.stopped += 1;
                error!(number, why, "an arrangement was stopped: its caller must be told");
            }
        }
        if matches!(next, Next::Stopped(why) if why == REFUSED) {
            let (card, why) = (due.card.clone(), "refused for good by the gateway".into());
            self.store.record(Entry::Drop { card, who: String::new(), why }, now_ms).await;
        }
        Ok(())
    }

    /// Gives AutoPay its next instalment, when the account file names another due date.
    async fn plan_autopay(&mut self, now_ms: i64) -> Result<(), StoreError> {
        let (today, directory) = (self.later.today(now_ms), self.directory.load_full());
        if let Some((day, by)) = &self.planned
            && *day == today
            && Arc::ptr_eq(by, &directory)
        {
            return Ok(());
        }
        let mut after = String::new();
        loop {
            let page = self.store.idle_autopay(&self.settings.biller, &after, AUTOPAY_MAX).await?;
            let Some(last) = page.last() else { break };
            after.clone_from(&last.arrangement);
            for idle in &page {
                let due = directory.by_id(&idle.account_id).and_then(|account| account.due_date);
                let due = due.filter(|due| {
                    *due > self.later.today(idle.agreed_ms)
                        && idle.last_due.is_none_or(|last| *due > last)
                });
                let Some((due, at_ms)) = due.and_then(|due| Some((due, self.later.instant(due)?)))
                else {
                    continue;
                };
                // A bill of long ago is for a person.
                if self.is_too_late(at_ms, now_ms) {
                    continue;
                }
                let none = Money::new(0, self.settings.currency());
                let position = idle.instalments + 1;
                let new = Instalment { position, due, at_ms, amount: none, fee: none };
                self.store.plan(idle, &new).await?;
            }
        }
        self.planned = Some((today, directory));
        Ok(())
    }
}

/// Whether something was paid otherwise.
enum Paid {
    Not,
    Yes(String),
    /// It may have been: a person or a gateway has to say.
    Unknown,
}

/// What AutoPay charges on a due date; else why nothing. `received_minor`: what the file may not
/// know of.
fn balance(due: &Due, account: &Account, received_minor: i64) -> Result<Money, String> {
    let owed = account.amount_due;
    let balance = Money::new(owed.minor.saturating_sub(received_minor), owed.currency);
    match account.due_date {
        _ if owed.is_positive() && !balance.is_positive() => Err("it was paid by phone".into()),
        _ if !balance.is_positive() => Err("nothing is due".into()),
        Some(date) if date > due.due => Err(format!("it is due on {date} now")),
        _ if balance.currency != due.limit.currency => Err("it is of another currency".into()),
        _ if balance.minor > due.limit.minor => {
            Err(format!("{balance} is due, and no more than {} was agreed to", due.limit))
        }
        _ => Ok(balance),
    }
}

/// Why an arrangement was stopped whose card will never be charged again.
const REFUSED: &str = "its card was refused for good";

/// What a gateway declines that may go through another day.
const SOFT: [&str; 4] = ["declined", "wrong cvv", "wrong zip", NOT_KNOWN];
/// The gateway does not know the card: its keys may be another merchant's.
const NOT_KNOWN: &str = "wrong number";

/// Whether what the gateway did not like about a kept card is wrong with it for good. One that it
/// does not know may be known again, with the keys of the right merchant.
fn is_for_good(why: &str) -> bool {
    [FOR_GOOD, "wrong expiry"].contains(&why)
}

fn intent(due: &Due, amount: Money, card: &SavedCard, now_ms: i64) -> Intent {
    Intent {
        id: intent_id(&due.arrangement, due.position, due.attempt),
        confirmation: confirmation::mint(&mut rand::rng()),
        biller: due.biller.clone(),
        account_id: due.account_id.clone(),
        amount,
        allocations: Vec::new(),
        fee: due.fee,
        split: Split::Total,
        means: Means::Card(card.brand),
        last4: card.last4,
        fingerprint: Some(card.fingerprint),
        gateway: card.gateway.clone(),
        // No call: what it was arranged as.
        call_id: format!("later-{}", due.number),
        origin: Origin { issuer: card.issuer, ..Origin::default() },
        created_ms: now_ms,
    }
}

#[cfg(test)]
mod tests;
