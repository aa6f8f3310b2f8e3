//! The server is killed at random instants while callers pay, and started again each time: in the
//! end ledger, gateway and reconciliation files must agree, and nobody was told what is not so.
//!
//! `RINGTILL_TESTS_KILLS` says how often in all (8), each in its turn of a chain of [`KILLS`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringtill::dial::script::Keying;
use ringtill::gateway::bogus::{Charge, Outcome, Simulator};
use ringtill::ledger::reconcile::{self, Status};
use ringtill::ledger::{Intent, State};
use ringtill::server::bogus::BogusHost;
use ringtill::server::store::Store;
use tokio::runtime::Runtime;

use crate::binary::{Binary, beside_others, config, deadline, expiry, now};
use crate::caller::{Line, words};

/// Kills in one chain, with the same ledger and the same gateway.
const KILLS: usize = 4;
/// Chains at once: 70 calls between them.
const CHAINS: usize = 12;
/// What callers owe: totals at which the gateway does nothing special, answers slowly, charges
/// without an answer, charges late, stays in processing, stalls (`gateway::bogus::simulator`).
const DUE: [&str; 6] = ["41.00", "9001.06", "9001.01", "9001.10", "9001.11", "9001.07"];
/// When callers come in, and when the server dies, in milliseconds: they pay 17 to 27 s from the
/// start.
const CALLS: u64 = 4_000;
const DEATH: [u64; 2] = [17_000, 28_000];
const KEY: &str = "sk_bogus_crash";
/// An outcome is unknown for 60 s at least before its absence is believed.
const SETTLED: Duration = Duration::from_secs(150);

#[test]
fn nothing_is_lost_or_charged_twice_however_often_the_server_dies() {
    let _turn = beside_others();
    let kills: usize =
        std::env::var("RINGTILL_TESTS_KILLS").map_or(8, |text| text.parse().expect("a number"));
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let runtime = Runtime::new().expect("a runtime");
    let mut chains = (0..kills.div_ceil(KILLS)).map(|nth| seed.wrapping_add(nth as u64)).peekable();
    let mut sum = Tally::default();
    while chains.peek().is_some() {
        let some: Vec<u64> = chains.by_ref().take(CHAINS).collect();
        let tallies: Vec<Tally> = thread::scope(|scope| {
            let runtime = &runtime;
            let started: Vec<_> = (0..)
                .zip(some)
                .map(|(nth, seed)| scope.spawn(move || chain(runtime, seed, nth)))
                .collect();
            started.into_iter().map(|chain| chain.join().expect("a chain agrees")).collect()
        });
        tallies.iter().for_each(|tally| sum.add(tally));
        println!("so far: {sum:?}");
    }
    // Otherwise nothing was tried.
    assert!(sum.approved > 0 && sum.kills >= kills, "{sum:?}");
}

/// What was seen, so that a run shows what it tried.
#[derive(Debug, Default)]
struct Tally {
    kills: usize,
    /// Intents that the kill found in the midst of things.
    open_at_death: usize,
    approved: usize,
    not_charged: usize,
    heard: usize,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.kills += other.kills;
        self.open_at_death += other.open_at_death;
        self.approved += other.approved;
        self.not_charged += other.not_charged;
        self.heard += other.heard;
    }
}

/// Starts a server and its gateway, kills the one [`KILLS`] times, lets it settle, compares.
fn chain(runtime: &Runtime, seed: u64, nth: u16) -> Tally {
    let mut rng = StdRng::seed_from_u64(seed);
    let host = runtime.block_on(BogusHost::start(Simulator::new(KEY, seed))).expect("a gateway");
    let mut binary =
        Binary::launch(&accounts(), |folder, port| configured(folder, port, nth, &host));
    let mut tally = Tally::default();
    // By account: how often somebody heard that it was paid.
    let mut heard: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..KILLS {
        let death = Duration::from_millis(rng.random_range(DEATH[0]..DEATH[1]));
        for account in pay_until(&binary, death, &mut rng) {
            *heard.entry(account).or_default() += 1;
        }
        binary.kill();
        tally.kills += 1;
        tally.open_at_death +=
            intents(runtime, &binary).iter().filter(|(_, state)| state.is_open()).count();
        binary.start_again();
    }
    let limit = deadline(SETTLED);
    let unsettled = |(_, state): &(Intent, State)| {
        state.is_open() || matches!(state, State::Approved(_) | State::Held(..))
    };
    while intents(runtime, &binary).iter().any(unsettled) {
        assert!(now() < limit, "seed {seed}: {:#?}", intents(runtime, &binary));
        thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(binary.stop(), Some(0), "seed {seed}: {}", binary.log.join("\n"));
    let intents = intents(runtime, &binary);
    agree(seed, &intents, &host.sales(), &posted(&binary), &heard);
    tally.approved = intents.iter().filter(|(_, state)| state.approval().is_some()).count();
    tally.not_charged =
        intents.iter().filter(|(_, state)| matches!(state, State::NotCharged(_))).count();
    tally.heard = heard.values().sum();
    tally
}

/// One call of each account; the accounts whose caller heard that it was approved before the end.
fn pay_until(binary: &Binary, death: Duration, rng: &mut StdRng) -> Vec<String> {
    let death = deadline(death);
    let script = format!(
        "hear-start greet.hello, key 1, hear-start card.ask, key 4012888888881881#,
         hear-start expiry.ask, key {}, hear-start consent.accept 60, key 1,
         hear result.approved 60, hear-start result.confirmation, hangup",
        expiry()
    );
    let mut due: Vec<_> = (0..DUE.len())
        .map(|nth| (deadline(Duration::from_millis(rng.random_range(0..CALLS))), nth))
        .collect();
    let mut lines: Vec<(usize, Line, bool)> = Vec::new();
    while now() < death {
        while let Some(at) = due.iter().position(|(at, _)| *at <= now()) {
            let (_, nth) = due.swap_remove(at);
            let line = Line::place(binary.port, &phone(nth), &script, Keying::default());
            lines.push((nth, line, false));
        }
        for (_, line, over) in lines.iter_mut().filter(|(_, _, over)| !over) {
            // A caller of a payment that is pending, or whose account is locked by one, hears so
            // and not what the script expects: no failure here.
            *over = line.turn().is_some();
        }
        thread::sleep(Duration::from_millis(2));
    }
    let approved = words("result.approved");
    let heard = |line: &Line| line.reports.iter().any(|report| report.contains(approved));
    lines.iter().filter(|(_, line, _)| heard(line)).map(|(nth, ..)| account(*nth)).collect()
}

/// Ledger, gateway, files and what was spoken tell the same.
fn agree(
    seed: u64,
    intents: &[(Intent, State)],
    sales: &[Charge],
    files: &[reconcile::Row],
    heard: &BTreeMap<String, usize>,
) {
    let known = format!("seed {seed}: {intents:#?}\n{sales:#?}");
    let money: Vec<_> = sales.iter().filter(|sale| sale.outcome == Outcome::Approved).collect();
    let charged: BTreeMap<&str, i64> =
        money.iter().map(|sale| (sale.reference.as_str(), sale.total.minor)).collect();
    assert_eq!(charged.len(), money.len(), "one reference was charged twice, {known}");
    let booked: BTreeMap<&str, i64> = intents
        .iter()
        .filter(|(_, state)| state.approval().is_some())
        .map(|(intent, _)| (intent.id.as_str(), intent.total().expect("it fits").minor))
        .collect();
    assert_eq!(charged, booked, "{known}");
    let received: Vec<_> = files.iter().filter(|row| row.status == Status::Approved).collect();
    let posted: BTreeMap<&str, i64> = received
        .iter()
        .map(|row| (row.intent.id.as_str(), row.received().expect("it fits").minor))
        .collect();
    assert_eq!(posted.len(), received.len(), "one payment was posted twice, {known}");
    assert_eq!(posted, booked, "{known}");
    let calls: BTreeSet<_> = intents
        .iter()
        .filter(|(_, state)| state.approval().is_some())
        .map(|(intent, _)| &intent.call_id)
        .collect();
    assert_eq!(calls.len(), booked.len(), "one call was charged twice, {known}");
    for (account, heard) in heard {
        let paid = intents
            .iter()
            .filter(|(intent, state)| &intent.account_id == account && state.approval().is_some());
        assert!(paid.count() >= *heard, "{account} heard of {heard} approvals, {known}");
    }
}

fn intents(runtime: &Runtime, binary: &Binary) -> Vec<(Intent, State)> {
    let place = binary.path("ledger.db");
    runtime.block_on(async {
        let store = Store::open(place.to_str().expect("UTF-8")).await.expect("opens");
        let intents = store.intents().await.expect("reads");
        store.close().await;
        intents
    })
}

/// The rows of all reconciliation files, which must follow each other without a gap.
fn posted(binary: &Binary) -> Vec<reconcile::Row> {
    let directory = fs::read_dir(binary.path("posting")).expect("a folder");
    let mut files: Vec<_> = directory
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "csv"))
        .map(|path| reconcile::read(&fs::read(path).expect("read")).expect("whole"))
        .collect();
    files.sort_by_key(|file| file.sequence);
    let sequences: Vec<u64> = files.iter().map(|file| file.sequence).collect();
    assert_eq!(sequences, (1..=files.len() as u64).collect::<Vec<_>>());
    files.into_iter().flat_map(|file| file.rows).collect()
}

fn configured(folder: &Path, port: u16, nth: u16, host: &BogusHost) -> String {
    fs::write(folder.join("ca.pem"), &host.certificate_pem).expect("written");
    let first = 31_000 + nth * 80;
    let gateway = format!(
        "[gateway]\nname = \"bogus\"\nca_file = \"ca.pem\"\n\
         [gateway.settings]\nbase_url = \"{}\"\napi_key = \"{KEY}\"\n",
        host.base_url()
    );
    config(folder, port, "info", &gateway)
        .replace("[31000, 31999]", &format!("[{first}, {}]", first + 79))
        .replace(
            "fee = \"2.00\"\n",
            "fee = \"0.00\"\ncvv = false\nzip = false\nmax_payment = \"20000.00\"\n\
             gateway_limit_ms = 6000\n",
        )
}

fn accounts() -> String {
    let row = |nth: usize| {
        format!("{},James,Walker,{},46201,{},2030-12-01\n", account(nth), phone(nth), DUE[nth])
    };
    let rows: String = (0..DUE.len()).map(row).collect();
    format!("account_id,name_first,name_last,phone1,verify_zip,amount_due,due_date\n{rows}")
}

fn account(nth: usize) -> String {
    format!("20{nth:02}")
}

fn phone(nth: usize) -> String {
    format!("+131755501{:02}", 10 + nth)
}
