//! Whole calls whose fee is a charge of its own, on the real ledger, against two simulated
//! gateways: the server dies at every write and every request, answers get lost, the disk fails,
//! callers hang up. In the end the gateways' books, the ledger and what the caller was told agree.

use std::sync::Arc;

use super::super::resolver;
use super::*;
use crate::account::{Account, Caller, May};
use crate::dialogue::{Heard, Question};
use crate::gateway::bogus::{Bogus, Outcome as Judged, Settings as BogusSettings, Simulator};
use crate::gateway::simulator::Fault;
use crate::gateway::{Dialect, Exchange};
use crate::instrument::FingerprintKey;
use crate::ledger::arrangement::Wallet;
use crate::ledger::{Entry, FeeFailure, Pairing, Recorded, State};
use crate::money::Money;
use crate::payment::{
    Desk, FeeMode, Flow, Outcome, Reply, Request as Wanted, Settings, Step, script,
};
use crate::prompt::Prompt;
use crate::secret::{Keys, Secret};
use crate::server::store::Decision;

/// 2026-06-01T00:00:00Z
const NOW: i64 = 1_780_272_000_000;
const DECLINED: Judged = Judged::Declined("do_not_honor", "other", "");
const HELD: Judged = Judged::Held("manual_review");

/// What goes wrong, and when: at the nth write, the nth request, the nth question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mishap {
    None,
    /// The server dies before, or after, this write.
    DiesBeforeWrite(usize),
    DiesAfterWrite(usize),
    /// The write fails, and is not there or is there all the same.
    WriteFails(usize),
    WriteFailsStored(usize),
    /// From this write on every one fails.
    DiskFull(usize),
    DiesAfterSend(usize),
    Fault(usize, Fault),
    HangsUp(usize),
}

#[derive(Clone, Copy, Debug)]
struct Case {
    failure: FeeFailure,
    bill: Judged,
    fee: Judged,
    mishap: Mishap,
}

struct Bench {
    directory: tempfile::TempDir,
    store: Store,
    routes: Arc<Routes>,
    bills: Simulator,
    fees: Simulator,
    now_ms: i64,
    writes: usize,
    sends: usize,
    questions: usize,
    said: Vec<&'static str>,
    mishap: Mishap,
}

fn route(id: &str) -> Route {
    let api_key = Secret::new("key".to_string());
    let settings = BogusSettings { base_url: "https://gateway.example".into(), api_key };
    Route::new(id, Arc::new(Bogus::open(settings).unwrap()))
}

async fn opened(directory: &tempfile::TempDir) -> Store {
    Store::open(directory.path().join("ledger.db").to_str().unwrap()).await.unwrap()
}

impl Bench {
    async fn new(case: Case) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let store = opened(&directory).await;
        let mut fees = route("fees");
        fees.takes.cards.clear();
        let routes = Arc::new(Routes::new(vec![route("main"), fees]));
        let (mut bills, mut fees) = (Simulator::new("key", 1), Simulator::new("key", 2));
        bills.judge_next(case.bill);
        fees.judge_next(case.fee);
        Bench {
            directory,
            store,
            routes,
            bills,
            fees,
            now_ms: NOW,
            writes: 0,
            sends: 0,
            questions: 0,
            said: Vec::new(),
            mishap: case.mishap,
        }
    }

    fn simulator(&mut self, route: &str) -> &mut Simulator {
        if route == "fees" { &mut self.fees } else { &mut self.bills }
    }

    /// One call to its end; `None`: the server died on the way.
    async fn call(&mut self, failure: FeeFailure) -> Option<Outcome> {
        let settings = Settings {
            fee: crate::payment::Fee::flat(Money::usd(200)),
            fee_mode: FeeMode::TwoMid,
            fee_gateway: Some("fees".into()),
            fee_failure: failure,
            cvv: false,
            zip: false,
            declines_max: 1,
            ..Settings::default()
        };
        let number = Some("+13175550123".to_string());
        let desk = Desk {
            settings: Arc::new(settings),
            routes: self.routes.clone(),
            fingerprints: Arc::new(FingerprintKey::new(&[9; 32]).unwrap()),
            banks: None,
            bins: None,
            authorisations_recorded: false,
            caller: Caller { number, trusted: true, ..Caller::default() },
            caller_placed: true,
            trunk: "trunk".into(),
            call_id: "call".into(),
            agent: false,
        };
        let mut flow = Flow::new([7; 32], |line| script(line, desk));
        let mut step = flow.start(self.now_ms);
        loop {
            let request = match step {
                Step::Ended(outcome) => return Some(outcome),
                Step::Request(request) => request,
            };
            let reply = self.serve(request).await?;
            step = flow.resume(self.now_ms, reply);
        }
    }

    async fn serve(&mut self, request: Wanted) -> Option<Reply> {
        self.now_ms += 10;
        Some(match request {
            Wanted::Ask(question) => Reply::Ask(self.answer(&question)),
            Wanted::Say { prompts, .. } => {
                self.hear(&prompts);
                Reply::Say
            }
            Wanted::Lookup(_) => Reply::Lookup(vec![account()]),
            Wanted::Name(_) => Reply::Name(true),
            Wanted::Screen(screening) => Reply::Screen(self.store.screen(&screening).await.ok()),
            Wanted::Wallet { .. } => Reply::Wallet(Some(Wallet::default())),
            Wanted::Record(entry) => Reply::Record(self.record(entry).await?),
            Wanted::Keep(_) => panic!("nothing is debited"),
            Wanted::Send { gateway, request, .. } => {
                let nth = self.sends;
                self.sends += 1;
                if let Mishap::Fault(at, fault) = self.mishap
                    && at == nth
                {
                    self.simulator(&gateway).fail_next(fault);
                }
                let now_ms = self.now_ms;
                let exchange = self.simulator(&gateway).exchange(now_ms, request);
                if self.mishap == Mishap::DiesAfterSend(nth) {
                    return None;
                }
                Reply::Send(exchange)
            }
            Wanted::Wait(time) => {
                self.now_ms += i64::try_from(time.as_millis()).unwrap();
                Reply::Wait
            }
            Wanted::Transfer => Reply::Transfer(false),
        })
    }

    async fn record(&mut self, entry: Entry) -> Option<Recorded> {
        let nth = self.writes;
        self.writes += 1;
        let failed = Recorded::Failed("injected".into());
        match self.mishap {
            Mishap::DiesBeforeWrite(at) if at == nth => return None,
            Mishap::WriteFails(at) if at == nth => return Some(failed),
            Mishap::DiskFull(at) if at <= nth => return Some(failed),
            _ => {}
        }
        let recorded = self.store.record(entry, self.now_ms).await;
        match self.mishap {
            Mishap::DiesAfterWrite(at) if at == nth => None,
            Mishap::WriteFailsStored(at) if at == nth => Some(failed),
            _ => Some(recorded),
        }
    }

    fn answer(&mut self, question: &Question) -> Heard {
        self.hear(&question.notice);
        let nth = self.questions;
        self.questions += 1;
        if matches!(self.mishap, Mishap::HangsUp(at) if at <= nth) {
            return Heard::Hangup;
        }
        let keyed = match question.name {
            "choice" | "consent" => "1",
            "card" => "4111111111111111",
            "expiry" => "1239",
            "retry" | "repeat" => return Heard::Failed,
            other => panic!("no caller knows the question `{other}`"),
        };
        Heard::Keyed(keyed.bytes().collect::<Keys>())
    }

    fn hear(&mut self, prompts: &[Prompt]) {
        self.said.extend(prompts.iter().filter_map(|prompt| match prompt {
            Prompt::Phrase(id) => Some(*id),
            _ => None,
        }));
    }

    /// The server starts anew and does its rounds for two hours.
    async fn recover(&mut self) {
        let gone = std::mem::replace(&mut self.store, opened(&self.directory).await);
        gone.close().await;
        self.store.recover(self.now_ms).await.unwrap();
        for _ in 0..16 {
            self.now_ms += 180_000;
            self.round().await;
        }
    }

    async fn round(&mut self) {
        let (now_ms, routes) = (self.now_ms, self.routes.clone());
        let (bills, fees) = (&mut self.bills, &mut self.fees);
        let mut send = |route: &Route, request| {
            let simulator = if &*route.id == "fees" { &mut *fees } else { &mut *bills };
            std::future::ready(simulator.exchange(now_ms, request))
        };
        let lost_before_ms = now_ms - resolver::LOST_AFTER_MS;
        self.store.recover_lost(lost_before_ms, now_ms).await.unwrap();
        resolver::round(&self.store, &routes, now_ms, &mut send).await.unwrap();
        resolver::changes(&self.store, &routes, now_ms, &mut send).await.unwrap();
        step(&self.store, &routes, now_ms, &mut send).await.unwrap();
    }

    /// A person finds out that what is held was refused.
    async fn decide(&mut self) {
        for (intent, state) in self.store.intents().await.unwrap() {
            if matches!(state, State::Held(..)) {
                let decision = Decision::Declined;
                let settled = self.store.settle(&intent.id, &decision, "by ann: no", self.now_ms);
                settled.await.unwrap().unwrap();
            }
        }
    }

    /// What the gateways have: minor units of bill and fee that stand.
    fn books(&self) -> (i64, i64) {
        let standing = |simulator: &Simulator| {
            let approved = simulator.sales().iter().filter(|one| one.outcome == Judged::Approved);
            approved.map(|one| one.total.minor - one.refunded).sum()
        };
        (standing(&self.bills), standing(&self.fees))
    }
}

fn account() -> Account {
    Account {
        id: "1001".into(),
        name_first: None,
        name_last: None,
        phones: vec!["+13175550123".into()],
        verify_zip: Some("46201".into()),
        amount_due: Money::usd(20_000),
        past_due: None,
        min_payment: None,
        max_payment: None,
        due_date: None,
        may: May::default(),
    }
}

/// Runs a case; how many writes, requests and questions its call had.
async fn run(case: Case) -> (usize, usize, usize) {
    let mut bench = Bench::new(case).await;
    let outcome = bench.call(case.failure).await;
    let counts = (bench.writes, bench.sends, bench.questions);
    bench.recover().await;
    bench.decide().await;
    for _ in 0..4 {
        bench.now_ms += 180_000;
        bench.round().await;
    }
    check(case, &bench, outcome.as_ref()).await;
    counts
}

async fn check(case: Case, bench: &Bench, outcome: Option<&Outcome>) {
    let (bill, fee) = bench.books();
    let what = format!("{case:?}: {outcome:?} {bill} {fee} {:?}", bench.said);
    let said = |id| bench.said.contains(&id);
    assert!(bench.bills.sales().len() <= 1 && bench.fees.sales().len() <= 1, "{what}");
    let stands = match (bill, fee) {
        (20_000, 200) => Pairing::Both,
        (20_000, 0) => Pairing::Waived,
        (0, 0) => Pairing::Neither,
        _ => panic!("a fee without its bill: {what}"),
    };
    let failure = case.failure;
    assert!(stands != Pairing::Waived || failure == FeeFailure::Waive, "no fee: {what}");
    let mut waited = false;
    for (intent, _) in bench.store.intents().await.unwrap() {
        let Some(pair) = bench.store.pair(&intent.id).await.unwrap() else { continue };
        waited = true;
        let (pairing, end) = (pair.pairing(), pair.end.as_str());
        let agrees = match pairing {
            Pairing::GivenBack => stands == Pairing::Neither && failure == FeeFailure::Void,
            other => other == stands,
        };
        assert!(agrees, "{pairing:?}, {:?}, {:?}: {what}", pair.bill_state, pair.fee_state);
        let want = match pairing {
            Pairing::Both => "charged",
            Pairing::Waived => "waived",
            Pairing::GivenBack => "given_back",
            _ => "due",
        };
        assert_eq!(end, want, "{what}");
        if pairing == Pairing::GivenBack {
            assert!(pair.changes.iter().all(|(change, ..)| change.act == Undo::Void), "{what}");
        }
    }
    assert!(waited || stands == Pairing::Neither, "{what}");
    let Some(outcome) = outcome else { return };
    let paid = matches!(outcome, Outcome::Paid { .. });
    assert_eq!(paid, said("result.approved"), "{what}");
    assert_eq!(
        said("result.fee_apart"),
        paid && stands == Pairing::Both && !said("result.fee_open"),
        "{what}"
    );
    if said("result.fee_waived") {
        assert_eq!(stands, Pairing::Waived, "{what}");
    }
    if paid {
        assert_ne!(stands, Pairing::Neither, "{what}");
    }
    if said("result.given_back") || said("result.not_charged") || said("result.declined") {
        assert_eq!(stands, Pairing::Neither, "{what}");
    }
    if said("result.giving_back") {
        assert!(matches!(outcome, Outcome::Pending { .. }), "{what}");
        assert_eq!(stands, Pairing::Neither, "{what}");
    }
    if paid && failure == FeeFailure::Void {
        assert_eq!(stands, Pairing::Both, "{what}");
    }
}

#[tokio::test]
async fn whatever_goes_wrong_there_is_never_a_fee_without_its_bill() {
    let (void, waive) = (FeeFailure::Void, FeeFailure::Waive);
    let yes = Judged::Approved;
    let mut cases = 0;
    for (failure, bill, fee) in [
        (void, yes, yes),
        (void, yes, DECLINED),
        (void, yes, HELD),
        (waive, yes, yes),
        (waive, yes, DECLINED),
        (waive, yes, HELD),
        (void, DECLINED, yes),
        (waive, HELD, yes),
    ] {
        let case = |mishap| Case { failure, bill, fee, mishap };
        let (writes, sends, questions) = run(case(Mishap::None)).await;
        assert!(writes >= 4 && sends >= 1 && questions >= 4);
        let mut mishaps = Vec::new();
        for at in 0..writes {
            mishaps.extend([Mishap::DiesBeforeWrite(at), Mishap::DiesAfterWrite(at)]);
            mishaps.extend([Mishap::WriteFails(at), Mishap::WriteFailsStored(at)]);
            mishaps.push(Mishap::DiskFull(at));
        }
        for at in 0..sends {
            mishaps.push(Mishap::DiesAfterSend(at));
            mishaps.extend(Fault::ALL.map(|fault| Mishap::Fault(at, fault)));
        }
        mishaps.extend((0..questions).map(Mishap::HangsUp));
        cases += mishaps.len();
        for mishap in mishaps {
            run(case(mishap)).await;
        }
    }
    assert!(cases > 300, "only {cases} cases");
}

#[tokio::test]
async fn both_charges_are_made_and_told() {
    let yes = Judged::Approved;
    let case = Case { failure: FeeFailure::Void, bill: yes, fee: yes, mishap: Mishap::None };
    let mut bench = Bench::new(case).await;
    let outcome = bench.call(case.failure).await.unwrap();
    assert_eq!(bench.books(), (20_000, 200));
    assert!(bench.said.contains(&"result.fee_apart") && bench.said.contains(&"consent.second"));
    let all = bench.store.intents().await.unwrap();
    let told = |at: usize| {
        let (intent, state) = &all[at];
        (&*intent.gateway, intent.amount.minor, intent.fee.minor, state.name())
    };
    assert_eq!(all.len(), 2);
    assert_eq!(told(0), ("main", 20_000, 0, "approved"));
    assert_eq!(told(1), ("fees", 0, 200, "approved"));
    let confirmation = all[0].0.confirmation.clone();
    assert_eq!(outcome, Outcome::Paid { confirmation });
    // The bill may not go back while its fee stands.
    let change = Change {
        id: "c1".into(),
        intent_id: all[0].0.id.clone(),
        act: Undo::Void,
        amount: all[0].0.amount,
        who: "ann".into(),
        why: "asked".into(),
        created_ms: NOW,
    };
    let Begun::Refused(why) = bench.store.begin_change(change.clone(), None, false).await.unwrap()
    else {
        panic!("a fee without its bill")
    };
    assert!(why.contains("give that back first"), "{why}");
    let fee = Change { id: "c2".into(), intent_id: all[1].0.id.clone(), ..change.clone() };
    let Begun::Stored(fee) = bench.store.begin_change(fee, None, false).await.unwrap() else {
        panic!("the fee may go back")
    };
    let done = Progress::Done("v".into());
    assert!(bench.store.progress(&fee, &done, NOW).await.unwrap());
    let begun = bench.store.begin_change(change, None, false).await.unwrap();
    assert!(matches!(begun, Begun::Stored(_)), "{begun:?}");
}

#[tokio::test]
async fn what_cannot_be_voided_is_left_to_a_person() {
    let case = Case {
        failure: FeeFailure::Void,
        bill: Judged::Approved,
        fee: DECLINED,
        // After the bill: bill and fee consented, bill sending, approved.
        mishap: Mishap::DiesAfterWrite(3),
    };
    let mut bench = Bench::new(case).await;
    assert_eq!(bench.call(case.failure).await, None);
    // The server stood still for two days: the bill has settled.
    bench.now_ms += 2 * 24 * 3_600_000;
    bench.recover().await;
    assert_eq!(bench.books(), (20_000, 0));
    let (bill, _) = bench.store.intents().await.unwrap()[0].clone();
    let pair = bench.store.pair(&bill.id).await.unwrap().unwrap();
    assert_eq!((pair.pairing(), &*pair.end), (Pairing::ToVoid, "person"));
    assert_eq!(pair.changes.len(), 1, "{:?}", pair.changes);
    let now_ms = bench.now_ms;
    bench.store.waive_fee(&bill, "by ann: fee waived: kind", now_ms).await.unwrap().unwrap();
    let pair = bench.store.pair(&bill.id).await.unwrap().unwrap();
    assert_eq!((pair.pairing(), &*pair.end), (Pairing::Waived, "stands"));
    let again = bench.store.waive_fee(&bill, "by ann: again", now_ms).await.unwrap();
    assert_eq!(again, Err("its fee is waived already".into()));
}

#[tokio::test]
async fn a_void_that_reaches_nobody_is_sent_again() {
    let case = Case {
        failure: FeeFailure::Void,
        bill: Judged::Approved,
        fee: DECLINED,
        mishap: Mishap::DiesAfterWrite(3),
    };
    let mut bench = Bench::new(case).await;
    assert_eq!(bench.call(case.failure).await, None);
    bench.store.recover(bench.now_ms).await.unwrap();
    let (at, routes) = (bench.now_ms + 300_000, bench.routes.clone());
    let away = |_: &Route, _| std::future::ready(Exchange::NotSent("no route".into()));
    assert_eq!(step(&bench.store, &routes, at, away).await.unwrap().voided, 1);
    // Not at once, and then less and less often.
    assert_eq!(step(&bench.store, &routes, at + 59_000, away).await.unwrap().voided, 0);
    assert_eq!(step(&bench.store, &routes, at + 60_000, away).await.unwrap().voided, 1);
    assert_eq!(step(&bench.store, &routes, at + 170_000, away).await.unwrap().voided, 0);
    bench.now_ms = at;
    bench.recover().await;
    assert_eq!(bench.books(), (0, 0));
}
