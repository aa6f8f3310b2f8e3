//! Payments whose outcome is unknown are looked up at their gateway until it is known; never sent
//! again. Payments whose call was lost on the way become unknown here.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::gateway::Gateways;
use super::store::{Recovered, Store, StoreError, Unresolved};
use super::{clock, pairs};
use crate::gateway::{
    Act, Exchange, Found, Lookup, Modification, Purpose, Repeat, Request, Route, Routes, Search,
};
use crate::ledger::{Change, Entry, Intent, Progress, Recorded, State};

pub struct Resolver {
    store: Arc<Store>,
    gateways: Arc<Gateways>,
}

/// What one round of lookups did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Now known: approved, declined, held or never charged.
    pub resolved: usize,
    /// To be asked again.
    pub deferred: usize,
    /// Given up on: a person must decide.
    pub manual: usize,
}

impl Round {
    fn add(&mut self, other: Round) {
        self.resolved += other.resolved;
        self.deferred += other.deferred;
        self.manual += other.manual;
    }
}

const LOOKUP_LIMIT: Duration = Duration::from_secs(20);
const ROUND_EVERY: Duration = Duration::from_secs(1);
/// A gateway that says it never processed a sale is believed only this long after we lost sight
/// of it: until then the request may still be on its way.
pub const ABSENT_AFTER_MS: i64 = 60_000;

/// An intent that has been on its way for longer than this has no call any more: consent, three
/// tries of `payment.gateway_limit_ms` (60 s at most) and the writes between them take less.
pub const LOST_AFTER_MS: i64 = 5 * 60_000;

impl Resolver {
    pub fn new(store: Arc<Store>, gateways: Arc<Gateways>) -> Resolver {
        Resolver { store, gateways }
    }

    /// Looks up whatever is due, for ever. It may be dropped at any time.
    pub async fn run(&self) {
        loop {
            match self.step(clock::wall_ms()).await {
                Ok(round) if round != Round::default() => {
                    info!(resolved = round.resolved, deferred = round.deferred, "looked up");
                    if round.manual > 0 {
                        error!(payments = round.manual, "no answer in 72 hours: decide by hand");
                    }
                }
                Ok(_) => {}
                Err(error) => error!(%error, "cannot look up unknown payments"),
            }
            tokio::time::sleep(ROUND_EVERY).await;
        }
    }

    /// One round at `now_ms` (Unix).
    pub async fn step(&self, now_ms: i64) -> Result<Round, StoreError> {
        let lost = self.store.recover_lost(now_ms - LOST_AFTER_MS, now_ms).await?;
        if lost != Recovered::default() {
            let Recovered { not_charged, unknown } = lost;
            error!(fault = "ringtill", not_charged, unknown, "calls were lost while paying");
        }
        let send = |route: &Route, request: Request| {
            let (gateways, id) = (self.gateways.clone(), route.id.clone());
            async move { gateways.send(&id, request, LOOKUP_LIMIT).await }
        };
        let routes = &self.gateways.routes;
        let mut all = round(&self.store, routes, now_ms, send).await?;
        all.add(changes(&self.store, routes, now_ms, send).await?);
        let pairs = pairs::step(&self.store, routes, now_ms, send).await?;
        all.resolved += pairs.ended + pairs.voided;
        Ok(all)
    }
}

/// Asks again for voids and refunds without a definitive answer: with the same reference, where
/// the gateway knows it again. Elsewhere a second refund would be another one, so a person looks.
pub(super) async fn changes<F: Future<Output = Exchange>>(
    store: &Store,
    routes: &Routes,
    now_ms: i64,
    mut send: impl FnMut(&Route, Request) -> F,
) -> Result<Round, StoreError> {
    let mut round = Round::default();
    for due in store.open_changes(now_ms).await? {
        let progress = match routes.by_id(&due.intent.gateway) {
            Some(route) if route.gateway.capabilities().repeat == Repeat::Replays => {
                let change = modification(&due.change, &due.intent, &due.state, now_ms);
                match route.gateway.modify(&change) {
                    Ok(request) => {
                        let exchange = send(route, request).await;
                        route.gateway.modified(&change, &exchange).into()
                    }
                    Err(cannot) => Progress::Unknown(cannot.0.into()),
                }
            }
            Some(_) => Progress::Manual("look it up at the gateway".into()),
            None => Progress::Unknown("this gateway is not configured".into()),
        };
        let undecided = matches!(progress, Progress::Unknown(_) | Progress::NotSent(_));
        if !undecided && store.progress(&due.change, &progress, now_ms).await? {
            match progress {
                Progress::Manual(_) => round.manual += 1,
                _ => round.resolved += 1,
            }
        } else if undecided {
            match store.defer_change(&due, now_ms).await? {
                true => round.manual += 1,
                false => round.deferred += 1,
            }
        }
    }
    Ok(round)
}

/// What the gateway is asked to undo.
pub fn modification<'a>(
    change: &'a Change,
    intent: &Intent,
    state: &'a State,
    now_ms: i64,
) -> Modification<'a> {
    let approval = match state {
        State::Held(_, approval) => approval.as_ref(),
        state => state.approval(),
    };
    Modification {
        // Only what a gateway is asked for is ever without an answer.
        act: change.act.act().unwrap_or(Act::Refund),
        reference: &change.id,
        original: approval.map_or("", |approval| &approval.gateway_reference),
        purpose: Purpose::Sale,
        amount: change.amount,
        method: intent.means.method(),
        last4: intent.last4,
        at_ms: now_ms,
    }
}

/// Looks up everything due, one after the other, sending by `send`.
pub(super) async fn round<F: Future<Output = Exchange>>(
    store: &Store,
    routes: &Routes,
    now_ms: i64,
    mut send: impl FnMut(&Route, Request) -> F,
) -> Result<Round, StoreError> {
    let mut round = Round::default();
    // A gateway that does not answer is asked once a round: others must not wait for it.
    let mut silent = HashSet::new();
    for due in store.unresolved(now_ms).await? {
        if silent.contains(&due.intent.gateway) {
            continue;
        }
        let found = match routes.by_id(&due.intent.gateway) {
            Some(route) => {
                let mut search = Search::new(&*route.gateway, lookup(&due, now_ms));
                while let Some(request) = search.request() {
                    let exchange = send(route, request).await;
                    if !matches!(exchange, Exchange::Response(_)) {
                        silent.insert(due.intent.gateway.clone());
                    }
                    search.answered(&exchange);
                }
                search.found()
            }
            None => {
                warn!(gateway = due.intent.gateway, "an unknown payment needs this gateway");
                Found::NotYet
            }
        };
        let Some(to) = settled(found, &due, now_ms) else {
            match store.defer(&due, now_ms).await? {
                true => round.manual += 1,
                false => round.deferred += 1,
            }
            continue;
        };
        let entry = Entry::Move { id: due.intent.id, to };
        match store.record(entry, now_ms).await {
            Recorded::Stored => round.resolved += 1,
            Recorded::Failed(why) => return Err(StoreError::Database(why)),
            // Somebody decided it meanwhile.
            Recorded::Illegal | Recorded::Conflict => {}
        }
    }
    Ok(round)
}

fn lookup(due: &Unresolved, now_ms: i64) -> Lookup<'_> {
    let intent = &due.intent;
    Lookup {
        purpose: Purpose::Sale,
        reference: &intent.id,
        total: intent.total().unwrap_or(intent.amount),
        method: intent.means.method(),
        started_ms: intent.created_ms,
        at_ms: now_ms,
        step: String::new(),
    }
}

/// The state an answer leads to, `None` while it proves nothing.
fn settled(found: Found, due: &Unresolved, now_ms: i64) -> Option<State> {
    match found {
        Found::Absent if now_ms - due.since_ms >= ABSENT_AFTER_MS => {
            Some(State::NotCharged("the gateway never received it".into()))
        }
        found => found.verdict().map(|verdict| State::from(&verdict)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::bogus::{Bogus, Fault, Outcome, Settings, Simulator};
    use crate::gateway::{Charge, Initiator, Verdict};
    use crate::gateway::{Dialect, Gateway};
    use crate::instrument::{Card, Expiry, Instrument, Pan};
    use crate::ledger::sample;
    use crate::secret::Secret;
    use crate::server::bogus::BogusHost;
    use crate::server::http_client::{Connections, HttpClient};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    /// 2026-06-01T00:00:00Z
    const NOW: i64 = 1_780_272_000_000;

    fn gateway(base_url: &str) -> Arc<dyn Gateway> {
        let api_key = Secret::new("key".to_string());
        Arc::new(Bogus::open(Settings { base_url: base_url.into(), api_key }).unwrap())
    }

    fn client(roots: &[Vec<u8>]) -> HttpClient {
        HttpClient::new(roots, Connections::Kept).unwrap()
    }

    fn card(number: &str) -> Card {
        let expiry = Expiry::parse("1239", jiff::civil::date(2026, 6, 1)).unwrap();
        Card { pan: Pan::parse(number).unwrap(), expiry, cvv: None, zip: None }
    }

    struct Bench {
        _directory: tempfile::TempDir,
        store: Store,
        simulator: Simulator,
        routes: Routes,
    }

    impl Bench {
        async fn new() -> Bench {
            let directory = tempfile::tempdir().unwrap();
            let place = directory.path().join("ledger.db");
            let store = Store::open(place.to_str().unwrap()).await.unwrap();
            let routes = Routes::one(gateway("https://gateway.example"));
            Bench { _directory: directory, store, simulator: Simulator::new("key", 1), routes }
        }

        /// A payment as the script makes it: consent, sending, whatever came back.
        async fn pay(&mut self, n: u64, number: &str, now_ms: i64) -> Intent {
            let intent = Intent { created_ms: now_ms, ..sample::intent(n, &format!("A{n}")) };
            self.record(Entry::Consent(Box::new(intent.clone())), now_ms).await;
            self.step(&intent, State::Sending, now_ms).await;
            let card = card(number);
            let sale = Charge {
                purpose: Purpose::Sale,
                reference: &intent.id,
                total: intent.total().unwrap(),
                fee: intent.fee,
                surcharge: false,
                instrument: Instrument::Card(&card),
                account_id: &intent.account_id,
                save: false,
                initiator: Initiator::Customer,
                at_ms: now_ms,
            };
            let gateway = &self.routes.all()[0].gateway;
            let request = gateway.charge(&sale).unwrap();
            let exchange = self.simulator.exchange(now_ms, request);
            let verdict = gateway.verdict(&sale, &exchange);
            self.step(&intent, State::from(&verdict), now_ms).await;
            intent
        }

        async fn record(&self, entry: Entry, now_ms: i64) {
            assert_eq!(self.store.record(entry, now_ms).await, Recorded::Stored);
        }

        async fn step(&self, intent: &Intent, to: State, now_ms: i64) {
            self.record(Entry::Move { id: intent.id.clone(), to }, now_ms).await;
        }

        async fn round(&mut self, now_ms: i64) -> Round {
            let simulator = &mut self.simulator;
            let send = |_: &Route, request| std::future::ready(simulator.exchange(now_ms, request));
            round(&self.store, &self.routes, now_ms, send).await.unwrap()
        }

        async fn state(&self, intent: &Intent) -> State {
            self.store.intent(&intent.id).await.unwrap().unwrap().1
        }
    }

    const GOOD: &str = "4111111111111111";
    const DECLINED: &str = "4000000000000002";

    #[tokio::test]
    async fn a_lost_answer_is_found_by_reference() {
        let mut bench = Bench::new().await;
        bench.simulator.fail_next(Fault::CloseAfterProcessing);
        let paid = bench.pay(1, GOOD, NOW).await;
        bench.simulator.fail_next(Fault::Garbled);
        let declined = bench.pay(2, DECLINED, NOW).await;
        assert_eq!(bench.state(&paid).await.name(), "unknown");
        assert_eq!(bench.round(NOW + 1_999).await, Round::default());
        assert_eq!(bench.round(NOW + 2_000).await, Round { resolved: 2, ..Round::default() });
        assert_eq!(bench.state(&paid).await.name(), "approved");
        assert_eq!(bench.state(&declined).await.name(), "declined");
        assert_eq!(bench.simulator.sales().len(), 2);
    }

    #[tokio::test]
    async fn absent_is_believed_only_after_a_minute() {
        let mut bench = Bench::new().await;
        bench.simulator.fail_next(Fault::CloseUnprocessed);
        let lost = bench.pay(1, GOOD, NOW).await;
        bench.simulator.fail_next(Fault::Late);
        let late = bench.pay(2, GOOD, NOW).await;
        let deferred = Round { deferred: 2, ..Round::default() };
        assert_eq!(bench.round(NOW + 2_000).await, deferred);
        assert_eq!(bench.round(NOW + 7_000).await, deferred);
        // The late one was processed ten seconds after we lost sight of it.
        let one = Round { resolved: 1, deferred: 1, manual: 0 };
        assert_eq!(bench.round(NOW + 22_000).await, one);
        assert_eq!(bench.state(&late).await.name(), "approved");
        assert_eq!(bench.round(NOW + 82_000).await, Round { resolved: 1, ..Round::default() });
        assert_eq!(bench.state(&lost).await.name(), "not_charged");
    }

    #[tokio::test]
    async fn without_an_answer_in_three_days_a_person_decides() {
        let mut bench = Bench::new().await;
        bench.simulator.fail_next(Fault::CloseAfterProcessing);
        let intent = bench.pay(1, GOOD, NOW).await;
        bench.routes = Routes::new(Vec::new());
        assert_eq!(bench.round(NOW + 2_000).await, Round { deferred: 1, ..Round::default() });
        let days = 72 * 3_600_000;
        assert_eq!(bench.round(NOW + days).await, Round { manual: 1, ..Round::default() });
        assert_eq!(bench.state(&intent).await, State::Manual);
    }

    /// Random faults on sales and lookups: in the end the ledger says what the gateway's books say.
    #[tokio::test]
    async fn ledger_and_gateway_agree_in_the_end() {
        for seed in 0..4 {
            let mut bench = Bench::new().await;
            let mut rng = StdRng::seed_from_u64(seed);
            bench.simulator.fail_randomly(seed, 60);
            let mut now_ms = NOW;
            let mut intents = Vec::new();
            for n in 1..=40 {
                let number = if rng.random_bool(0.3) { DECLINED } else { GOOD };
                intents.push(bench.pay(n, number, now_ms).await);
                now_ms += rng.random_range(0..5_000);
                bench.round(now_ms).await;
            }
            for _ in 0..300 {
                now_ms += 60_000;
                bench.round(now_ms).await;
            }
            for intent in &intents {
                let state = bench.state(intent).await;
                let mut sales = bench.simulator.sales().iter();
                let sale = sales.find(|sale| sale.reference == intent.id);
                let want = match sale.map(|sale| sale.outcome) {
                    None => "not_charged",
                    Some(Outcome::Approved) => "approved",
                    Some(_) => "declined",
                };
                assert_eq!(state.name(), want, "seed {seed} {}: {sale:?}", intent.id);
            }
        }
    }

    /// A call task died between `Sending` and the verdict, another one before; the server lives.
    #[tokio::test]
    async fn payments_of_lost_calls_do_not_wait_for_a_restart() {
        let bench = Bench::new().await;
        let intents: Vec<Intent> = (1..=3)
            .map(|n| Intent { created_ms: NOW, ..sample::intent(n, &format!("A{n}")) })
            .collect();
        for intent in &intents {
            bench.record(Entry::Consent(Box::new(intent.clone())), NOW).await;
        }
        bench.step(&intents[1], State::Sending, NOW).await;
        // This one is alive: its last step is young, though its consent is old.
        bench.step(&intents[2], State::Sending, NOW + 1_000).await;
        let store = Arc::new(bench.store);
        let gateways = Gateways::one(gateway("https://gateway.invalid"), client(&[]));
        let resolver = Resolver::new(store.clone(), Arc::new(gateways));
        let states = async || {
            let all = store.intents().await.unwrap();
            all.iter().map(|(_, state)| state.name()).collect::<Vec<_>>()
        };
        resolver.step(NOW + LOST_AFTER_MS).await.unwrap();
        assert_eq!(states().await, ["consented", "sending", "sending"]);
        resolver.step(NOW + LOST_AFTER_MS + 1).await.unwrap();
        assert_eq!(states().await, ["not_charged", "unknown", "sending"]);
        // A late verdict of a call that lives after all still counts.
        let late = Entry::Move { id: intents[1].id.clone(), to: State::from(&approved()) };
        assert_eq!(store.record(late, NOW + LOST_AFTER_MS + 2).await, Recorded::Stored);
    }

    fn approved() -> Verdict {
        Verdict::Approved(sample::approval())
    }

    #[tokio::test]
    async fn it_works_over_real_sockets() {
        let mut bench = Bench::new().await;
        bench.simulator.fail_next(Fault::CloseAfterProcessing);
        let intent = bench.pay(1, GOOD, NOW).await;
        let Bench { _directory, store, simulator, .. } = bench;
        let host = BogusHost::start(simulator).await.unwrap();
        let client = client(&[host.certificate_pem.clone().into_bytes()]);
        let store = Arc::new(store);
        let gateways = Gateways::one(gateway(&host.base_url()), client);
        let resolver = Resolver::new(store.clone(), Arc::new(gateways));
        let round = resolver.step(NOW + 2_000).await.unwrap();
        assert_eq!(round, Round { resolved: 1, ..Round::default() });
        assert_eq!(store.intent(&intent.id).await.unwrap().unwrap().1.name(), "approved");
    }
}
