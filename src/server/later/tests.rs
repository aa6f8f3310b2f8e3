//! What is arranged is charged once: on a virtual clock, against the simulated processor, with
//! crashes at every write.

use sqlx::{AnyConnection, Connection, Executor};

use super::*;
use crate::account::{Account, May, directory};
use crate::gateway::bogus::{Bogus, Outcome, Settings as BogusSettings, Simulator};
use crate::gateway::simulator::Fault;
use crate::gateway::{Dialect, Verdict};
use crate::instrument::{Brand, Card, Expiry, Fingerprint, Pan};
use crate::ledger::arrangement::CARD_DROPPED;
use crate::ledger::{Arrangement, Consent, sample};
use crate::secret::Secret;
use crate::server::resolver;
use jiff::civil::{Date, date};

mod first; // what comes before it: other payments, the account file, the clock

/// 2026-06-01T12:00:00Z, eight o'clock in New York.
const NOW: i64 = 1_780_315_200_000;
const HOUR_MS: i64 = 3_600_000;
const BILLER: &str = "acme-water";
const GOOD: &str = "4111111111111111";

struct Bench {
    folder: tempfile::TempDir,
    store: Arc<Store>,
    saboteur: AnyConnection,
    simulator: Simulator,
    routes: Routes,
    directory: Arc<ArcSwap<Directory>>,
    settings: Settings,
    scheduler: Scheduler,
    now_ms: i64,
    /// Requests that left us since the card was kept.
    sent: usize,
}

impl Bench {
    /// A card is kept for account A1, which owes what it says in the file.
    async fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(open(&folder).await);
        let api_key = Secret::new("key".to_string());
        let base_url = "https://gateway.example".into();
        let gateway = Arc::new(Bogus::open(BogusSettings { base_url, api_key }).unwrap());
        let later = "time_zone = \"eastern\"\nautopay_max = \"100.00\"\nretries = [1, 3]\n";
        let settings = Settings {
            biller: BILLER.into(),
            later: Some(toml::from_str(later).unwrap()),
            ..Settings::default()
        };
        let directory = Arc::new(ArcSwap::from_pointee(Directory::default()));
        let accounts = (directory.clone(), None);
        let scheduler = Scheduler::new(store.clone(), accounts, &settings).unwrap();
        let mut bench = Bench {
            saboteur: saboteur(&folder).await,
            folder,
            store,
            simulator: Simulator::new("key", 1),
            routes: Routes::one(gateway),
            directory,
            settings,
            scheduler,
            now_ms: NOW,
            sent: 0,
        };
        bench.keep(GOOD).await;
        bench.owes(50_000, None);
        bench
    }

    /// By the payment that is `intent-1`, a week ago.
    async fn keep(&mut self, number: &str) {
        let at_ms = NOW - 7 * DAY_MS;
        let intent = Intent { created_ms: at_ms, ..sample::intent(1, "A1") };
        let expiry = Expiry::parse("1239", date(2026, 6, 1)).unwrap();
        let pan = Pan::parse(number).unwrap();
        let card = Card { pan, expiry, cvv: None, zip: None };
        let sale = Charge {
            purpose: Purpose::Sale,
            reference: &intent.id,
            total: intent.total().unwrap(),
            fee: intent.fee,
            surcharge: false,
            instrument: Instrument::Card(&card),
            account_id: "A1",
            save: true,
            initiator: Initiator::Customer,
            at_ms,
        };
        let gateway = &self.routes.all()[0].gateway;
        let exchange = self.simulator.exchange(at_ms, gateway.charge(&sale).unwrap());
        let Verdict::Approved(approval) = gateway.verdict(&sale, &exchange) else { panic!() };
        let token = approval.token.clone().unwrap();
        let first = FirstCharge {
            reference: approval.gateway_reference.clone(),
            network: approval.network.clone().unwrap(),
            total_minor: sale.total.minor,
        };
        let consent = consent(&intent.id);
        let card = SavedCard { token, consent, first, ..sample::card(1, "a") };
        for entry in [
            Entry::Consent(Box::new(intent.clone())),
            Entry::Move { id: intent.id.clone(), to: State::Sending },
            Entry::Move { id: intent.id.clone(), to: State::from(&Verdict::Approved(approval)) },
            Entry::Keep(Box::new(card)),
        ] {
            self.record(entry, at_ms).await;
        }
    }

    async fn record(&self, entry: Entry, at_ms: i64) {
        assert_eq!(self.store.record(entry, at_ms).await, Recorded::Stored);
    }

    async fn arrange(&self, kind: Kind, instalments: Vec<Instalment>) -> Arrangement {
        let mut arrangement = Arrangement { instalments, ..sample::arrangement(1, kind, 1) };
        arrangement.limit = Money::usd(10_000);
        arrangement.agreement.at_ms = NOW;
        self.record(Entry::Arrange(Box::new(arrangement.clone())), NOW).await;
        arrangement
    }

    /// $50.00 and a fee of $2.00, on a day at nine o'clock there.
    fn instalment(&self, position: i64, due: Date) -> Instalment {
        let at_ms = self.scheduler.later.instant(due).unwrap();
        Instalment { position, due, at_ms, amount: Money::usd(5_000), fee: Money::usd(200) }
    }

    async fn step(&mut self) -> Result<Round, StoreError> {
        let (simulator, now_ms, sent) = (&mut self.simulator, self.now_ms, &mut self.sent);
        let send = |_: &Route, request| {
            *sent += 1;
            std::future::ready(simulator.exchange(now_ms, request))
        };
        self.scheduler.step(&self.routes, &|| now_ms, send).await
    }

    /// Lets the hours pass, with lookups of what is unknown.
    async fn pass(&mut self, hours: i64) -> Round {
        let mut all = Round::default();
        for _ in 0..hours * 6 {
            self.now_ms += 10 * MINUTE_MS;
            let (simulator, now_ms) = (&mut self.simulator, self.now_ms);
            let send = |_: &Route, request| std::future::ready(simulator.exchange(now_ms, request));
            resolver::round(&self.store, &self.routes, now_ms, send).await.unwrap();
            let round = self.step().await.unwrap();
            all.paid += round.paid;
            all.skipped += round.skipped;
            all.again += round.again;
            all.stopped += round.stopped;
        }
        all
    }

    async fn until(&mut self, at_ms: i64) -> Round {
        let hours = (at_ms - self.now_ms) / HOUR_MS;
        self.pass(hours).await
    }

    /// What was charged by us, in minor units, and when.
    fn charged(&self) -> Vec<(i64, i64)> {
        let sales = self.simulator.sales().iter().skip(1);
        let approved = sales.filter(|sale| sale.outcome == Outcome::Approved);
        approved.map(|sale| (sale.total.minor, sale.at_ms)).collect()
    }

    /// State of the arrangement and of its instalments.
    async fn state(&self) -> String {
        let listed = self.store.list_arrangements(BILLER, None, true).await.unwrap();
        let one = &listed[0];
        let each = one.instalments.iter().map(|one| one.state.as_str()).collect::<Vec<_>>();
        let why = one.ended.as_ref().map_or("", |(_, why)| why);
        format!("{} [{}] {why}", one.state, each.join(" ")).trim().to_string()
    }

    fn owes(&self, minor: i64, due: Option<Date>) {
        let account = Account {
            id: "A1".into(),
            name_first: None,
            name_last: None,
            phones: Vec::new(),
            verify_zip: None,
            amount_due: Money::usd(minor),
            past_due: None,
            min_payment: None,
            max_payment: None,
            due_date: due,
            may: May::default(),
        };
        let mut builder = directory::Builder::new(crate::money::Currency::USD);
        assert!(builder.push(&account));
        self.directory.store(Arc::new(builder.finish().0));
    }

    /// From now on each write fails after so many; -1: none does.
    async fn sabotage(&mut self, writes_left: i64) {
        let sql = sqlx::query("update fault set writes_left = $1").bind(writes_left);
        sql.execute(&mut self.saboteur).await.unwrap();
    }

    /// The process is gone, and another one starts.
    async fn restart(&mut self) {
        self.sabotage(-1).await;
        self.store = Arc::new(open(&self.folder).await);
        self.store.recover(self.now_ms).await.unwrap();
        let accounts = (self.directory.clone(), None);
        self.scheduler = Scheduler::new(self.store.clone(), accounts, &self.settings).unwrap();
    }
}

async fn open(folder: &tempfile::TempDir) -> Store {
    Store::open(folder.path().join("ledger.db").to_str().unwrap()).await.unwrap()
}

async fn saboteur(folder: &tempfile::TempDir) -> AnyConnection {
    let url = format!("sqlite://{}?mode=rw", folder.path().join("ledger.db").display());
    let mut saboteur = AnyConnection::connect(&url).await.unwrap();
    saboteur.execute("pragma busy_timeout = 5000").await.unwrap();
    saboteur.execute("create table fault (writes_left bigint not null)").await.unwrap();
    saboteur.execute("insert into fault values (-1)").await.unwrap();
    for table in ["intent", "step", "arrangement", "instalment", "arrangement_event", "card"] {
        for write in ["insert", "update"] {
            let sql = format!(
                "create trigger fail_{table}_{write} before {write} on {table} begin \
                 select raise(abort, 'disk I/O error (injected)') from fault \
                     where writes_left = 0; \
                 update fault set writes_left = writes_left - 1 where writes_left > 0; end"
            );
            saboteur.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
        }
    }
    saboteur
}

fn consent(payment: &str) -> Consent {
    let said = crate::payment::CARD_TERMS.to_vec();
    Consent { said, at_ms: NOW, call_id: "call".into(), payment: payment.into() }
}

#[tokio::test]
async fn a_payment_on_a_date_is_charged_on_that_day_once() {
    let mut bench = Bench::new().await;
    let due = bench.instalment(1, date(2026, 6, 5));
    bench.arrange(Kind::Once, vec![due.clone()]).await;
    bench.until(due.at_ms - HOUR_MS).await;
    assert_eq!((bench.charged(), bench.sent), (vec![], 0));
    let round = bench.pass(72).await;
    assert_eq!((round.paid, bench.sent), (1, 1));
    let [(total, at_ms)] = bench.charged()[..] else { panic!("{:?}", bench.charged()) };
    assert!(total == 5_200 && (at_ms - due.at_ms) < HOUR_MS && at_ms >= due.at_ms);
    assert_eq!(bench.state().await, "done [paid]");
    // It is a payment as any other: in the ledger, and in the biller's file.
    let (intent, state) = bench.store.intents().await.unwrap().pop().unwrap();
    assert_eq!((intent.amount, intent.fee, state.name()), (due.amount, due.fee, "approved"));
    assert_eq!((&*intent.call_id, &*intent.account_id), ("later-200000016", "A1"));
    let out = bench.folder.path().join("out");
    let file = bench.store.post(&out, BILLER, bench.now_ms).await.unwrap().unwrap();
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(&format!("PMT,{},", intent.confirmation)), "{text}");
}

/// The process dies at any of its writes: what was sent is found again, what was not is sent.
#[tokio::test]
async fn whatever_write_fails_it_is_charged_once() {
    let mut crashes = 0;
    for writes in 0.. {
        let mut bench = Bench::new().await;
        let due = bench.instalment(1, date(2026, 6, 5));
        bench.arrange(Kind::Once, vec![due.clone()]).await;
        bench.now_ms = due.at_ms;
        bench.sabotage(writes).await;
        let crashed = bench.step().await.is_err();
        bench.restart().await;
        bench.pass(8).await;
        let told = format!("after {writes} writes: {:?}", bench.charged());
        assert_eq!(bench.charged().len(), 1, "{told}");
        assert_eq!(bench.state().await, "done [paid]", "{told}");
        crashes += usize::from(crashed);
        if !crashed {
            break;
        }
    }
    assert!(crashes >= 8, "only {crashes} writes");
}

#[tokio::test]
async fn whatever_the_network_does_it_is_charged_once() {
    for fault in Fault::ALL {
        let mut bench = Bench::new().await;
        let due = bench.instalment(1, date(2026, 6, 5));
        bench.arrange(Kind::Once, vec![due.clone()]).await;
        bench.now_ms = due.at_ms;
        bench.simulator.fail_next(fault);
        bench.step().await.unwrap();
        bench.pass(24).await;
        assert_eq!(bench.charged().len(), 1, "{fault:?}");
        assert_eq!(bench.state().await, "done [paid]", "{fault:?}");
    }
}

#[tokio::test]
async fn a_decline_is_tried_again_as_often_as_configured() {
    let soft = Outcome::Declined("insufficient_funds", "other", "");
    let mut bench = Bench::new().await;
    let due = bench.instalment(1, date(2026, 6, 5));
    bench.arrange(Kind::Once, vec![due.clone()]).await;
    bench.simulator.judge_kept(soft);
    bench.until(due.at_ms + HOUR_MS).await;
    assert_eq!((bench.sent, &*bench.state().await), (1, "active [waiting]"));
    // One day later, and three days after that; every time on the day's hour.
    bench.until(due.at_ms + 23 * HOUR_MS).await;
    assert_eq!(bench.sent, 1);
    bench.until(due.at_ms + 95 * HOUR_MS).await;
    assert_eq!(bench.sent, 2);
    let round = bench.until(due.at_ms + 200 * HOUR_MS).await;
    assert_eq!((bench.sent, round.stopped), (3, 1));
    assert_eq!(bench.state().await, "stopped [failed] it was declined 3 times");
    // The card itself may be good for less.
    assert!(bench.store.card("card-1").await.unwrap().is_some());

    let mut bench = Bench::new().await;
    bench.arrange(Kind::Once, vec![due.clone()]).await;
    bench.simulator.judge_kept(soft);
    bench.until(due.at_ms + HOUR_MS).await;
    bench.simulator.judge_kept(Outcome::Approved);
    bench.pass(48).await;
    assert_eq!((bench.charged().len(), &*bench.state().await), (1, "done [paid]"));
}

#[tokio::test]
async fn a_card_that_is_refused_for_good_is_dropped() {
    let mut bench = Bench::new().await;
    let due = bench.instalment(1, date(2026, 6, 5));
    bench.arrange(Kind::Once, vec![due.clone()]).await;
    bench.simulator.judge_kept(Outcome::Declined("stolen_card", "never", ""));
    bench.until(due.at_ms + 200 * HOUR_MS).await;
    assert_eq!((bench.sent, &*bench.state().await), (1, &*format!("stopped [failed] {REFUSED}")));
    assert!(bench.store.card("card-1").await.unwrap().is_none());
}

#[tokio::test]
async fn what_is_cancelled_or_has_lost_its_card_is_not_charged() {
    for drop_card in [false, true] {
        let mut bench = Bench::new().await;
        let due = bench.instalment(1, date(2026, 6, 5));
        let arrangement = bench.arrange(Kind::Once, vec![due.clone()]).await;
        bench.until(due.at_ms - HOUR_MS).await;
        let (who, why) = ("ann".to_string(), "asked".to_string());
        let entry = match drop_card {
            true => Entry::Drop { card: "card-1".into(), who, why },
            false => Entry::Cancel { arrangement: arrangement.id.clone(), who, why },
        };
        bench.record(entry, bench.now_ms).await;
        bench.pass(72).await;
        assert_eq!(bench.sent, 0);
        let want = match drop_card {
            true => format!("stopped [void] {CARD_DROPPED}"),
            false => "cancelled [void] asked".into(),
        };
        assert_eq!(bench.state().await, want);
    }
}

/// What is on its way cannot be cancelled; once it is known that it was not charged, it can.
#[tokio::test]
async fn what_is_being_charged_is_not_cancelled() {
    let mut bench = Bench::new().await;
    let due = bench.instalment(1, date(2026, 6, 5));
    let arrangement = bench.arrange(Kind::Once, vec![due.clone()]).await;
    bench.now_ms = due.at_ms;
    bench.simulator.fail_next(Fault::CloseUnprocessed);
    bench.step().await.unwrap();
    let (who, why) = (String::new(), "by the caller".to_string());
    let cancel = Entry::Cancel { arrangement: arrangement.id.clone(), who, why };
    assert_eq!(bench.store.record(cancel.clone(), bench.now_ms).await, Recorded::Illegal);
    bench.now_ms += 10 * MINUTE_MS;
    let (simulator, now_ms) = (&mut bench.simulator, bench.now_ms);
    let send = |_: &Route, request| std::future::ready(simulator.exchange(now_ms, request));
    resolver::round(&bench.store, &bench.routes, now_ms, send).await.unwrap();
    bench.record(cancel, bench.now_ms).await;
    bench.pass(48).await;
    assert_eq!(
        (bench.charged(), &*bench.state().await),
        (vec![], "cancelled [void] by the caller")
    );
}

#[tokio::test]
async fn after_downtime_it_is_charged_late_but_not_too_late() {
    for (days, want) in
        [(2, "done [paid]"), (4, "stopped [failed] it could not be charged within 3 days")]
    {
        let mut bench = Bench::new().await;
        let due = bench.instalment(1, date(2026, 6, 5));
        bench.arrange(Kind::Once, vec![due.clone()]).await;
        bench.now_ms = due.at_ms + days * DAY_MS;
        bench.restart().await;
        bench.pass(4).await;
        assert_eq!(bench.state().await, want);
        assert_eq!(bench.charged().len(), usize::from(days == 2));
    }
}

/// What is charged later names the charge that the card was kept with, or none if it is not known.
#[tokio::test]
async fn the_first_charge_is_named() {
    for (network, want) in [
        (None, "done [paid]"),
        (Some(""), "done [paid]"),
        (Some("NT999999"), "stopped [failed] it was declined 3 times"),
    ] {
        let mut bench = Bench::new().await;
        if let Some(network) = network {
            let query = "update card set first_network = $1";
            let query = sqlx::query(query).bind(network);
            query.execute(&mut bench.saboteur).await.unwrap();
        }
        let due = bench.instalment(1, date(2026, 6, 5));
        bench.arrange(Kind::Once, vec![due.clone()]).await;
        bench.until(due.at_ms + 7 * DAY_MS).await;
        assert_eq!(bench.state().await, want, "{network:?}");
    }
}

#[tokio::test]
async fn a_payment_by_phone_comes_first() {
    let mut bench = Bench::new().await;
    let due = bench.instalment(1, date(2026, 6, 5));
    bench.arrange(Kind::Once, vec![due.clone()]).await;
    bench.now_ms = due.at_ms;
    // Somebody is paying at this moment, by another card.
    let fingerprint = Fingerprint::parse(&"d".repeat(32));
    let by_phone = Intent {
        amount: due.amount,
        means: Means::Card(Brand::Amex),
        fingerprint,
        created_ms: due.at_ms - MINUTE_MS,
        ..sample::intent(2, "A1")
    };
    let id = by_phone.id.clone();
    bench.record(Entry::Consent(Box::new(by_phone.clone())), bench.now_ms).await;
    bench.record(Entry::Move { id: id.clone(), to: State::Sending }, bench.now_ms).await;
    assert_eq!(bench.step().await.unwrap(), Round { postponed: 1, ..Round::default() });
    let approved = State::Approved(sample::approval());
    bench.record(Entry::Move { id, to: approved }, bench.now_ms).await;
    // They have paid the same: it is not charged again.
    bench.pass(24).await;
    assert_eq!((bench.sent, &*bench.state().await), (0, "done [skipped]"));
}

#[tokio::test]
async fn a_plan_is_charged_on_each_of_its_days() {
    let mut bench = Bench::new().await;
    let days = [date(2026, 6, 5), date(2026, 7, 5), date(2026, 8, 5)];
    let all: Vec<_> = days.into_iter().zip(1..).map(|(due, n)| bench.instalment(n, due)).collect();
    bench.arrange(Kind::Plan, all.clone()).await;
    bench.until(all[1].at_ms + 2 * HOUR_MS).await;
    assert_eq!(bench.state().await, "active [paid paid waiting]");
    bench.until(all[2].at_ms + 2 * HOUR_MS).await;
    assert_eq!(bench.state().await, "done [paid paid paid]");
    let when: Vec<bool> =
        bench.charged().iter().zip(&all).map(|((_, at), due)| at - due.at_ms < HOUR_MS).collect();
    assert_eq!(when, [true, true, true]);
}

/// A balance that is paid otherwise is not paid twice.
#[tokio::test]
async fn what_is_arranged_otherwise_or_not_due_is_not_charged() {
    let mut bench = Bench::new().await;
    bench.owes(5_000, Some(date(2026, 6, 5)));
    bench.arrange(Kind::AutoPay, Vec::new()).await;
    let instalments = vec![bench.instalment(1, date(2026, 6, 8))];
    let once = Arrangement { instalments, ..sample::arrangement(2, Kind::Once, 1) };
    bench.record(Entry::Arrange(Box::new(once)), NOW).await;
    bench.pass(10 * 24).await;
    assert_eq!(bench.charged().iter().map(|(minor, _)| *minor).collect::<Vec<_>>(), [5_200]);
    let listed = bench.store.list_arrangements(BILLER, None, false).await.unwrap();
    let detail = &listed[0].instalments[0].detail;
    assert!(detail.contains("as arranged by 20000002"), "{detail}");

    let mut bench = Bench::new().await;
    let days = [date(2026, 6, 5), date(2026, 7, 5)];
    let all = days.into_iter().zip(1..).map(|(due, n)| bench.instalment(n, due)).collect();
    bench.arrange(Kind::Plan, all).await;
    bench.owes(5_000, None);
    bench.pass(5 * 24).await;
    bench.owes(0, None);
    bench.pass(31 * 24).await;
    assert_eq!((bench.charged().len(), &*bench.state().await), (1, "done [paid skipped]"));
}

#[tokio::test]
async fn what_a_person_has_declined_is_not_tried_again() {
    let mut bench = Bench::new().await;
    let due = bench.instalment(1, date(2026, 6, 5));
    bench.arrange(Kind::Once, vec![due.clone()]).await;
    bench.simulator.judge_kept(Outcome::Held("manual_review"));
    bench.until(due.at_ms + 30 * HOUR_MS).await;
    assert_eq!((bench.sent, &*bench.state().await), (1, "active [waiting]"));
    let (intent, state) = bench.store.intents().await.unwrap().pop().unwrap();
    assert_eq!(state.name(), "held");
    let to = State::Declined("no".into());
    bench.record(Entry::Move { id: intent.id, to }, bench.now_ms).await;
    bench.pass(30).await;
    assert_eq!(
        (bench.sent, &*bench.state().await),
        (1, "stopped [failed] its payment was ended: no")
    );
}

#[tokio::test]
async fn autopay_charges_the_balance_of_each_due_date() {
    let mut bench = Bench::new().await;
    bench.owes(7_700, Some(date(2026, 6, 10)));
    bench.arrange(Kind::AutoPay, Vec::new()).await;
    let at = |bench: &Bench, day| bench.scheduler.later.instant(day).unwrap();
    bench.step().await.unwrap();
    assert_eq!(bench.state().await, "active [waiting]");
    // The balance of that day counts, not that of the day it was agreed to.
    bench.owes(4_200, Some(date(2026, 6, 10)));
    bench.until(at(&bench, date(2026, 6, 11))).await;
    assert_eq!(bench.charged().iter().map(|(minor, _)| *minor).collect::<Vec<_>>(), [4_200]);
    assert_eq!(bench.state().await, "active [paid]");
    // Nothing happens until the file names another date; what is paid by then is not charged.
    bench.pass(48).await;
    bench.owes(5_000, Some(date(2026, 7, 10)));
    bench.pass(1).await;
    bench.owes(0, Some(date(2026, 7, 10)));
    bench.until(at(&bench, date(2026, 7, 11))).await;
    assert_eq!(bench.state().await, "active [paid skipped]");
    // More than was agreed to is for the caller to pay.
    bench.owes(10_001, Some(date(2026, 8, 10)));
    bench.until(at(&bench, date(2026, 8, 11))).await;
    assert_eq!((bench.charged().len(), bench.sent), (1, 1));
    // The due date moves away before it has come.
    bench.owes(3_000, Some(date(2026, 9, 10)));
    bench.pass(1).await;
    bench.owes(3_000, Some(date(2026, 9, 20)));
    bench.until(at(&bench, date(2026, 9, 19))).await;
    assert_eq!(bench.charged().len(), 1);
    bench.until(at(&bench, date(2026, 9, 21))).await;
    assert_eq!(bench.state().await, "active [paid skipped skipped skipped paid]");
    // The account is gone from the file, and does not come back.
    bench.owes(3_000, Some(date(2026, 10, 20)));
    bench.pass(1).await;
    bench.directory.store(Arc::new(Directory::default()));
    bench.until(at(&bench, date(2026, 10, 25))).await;
    assert_eq!(bench.charged().len(), 2);
    assert!(bench.state().await.ends_with("it could not be charged within 3 days"));
}
