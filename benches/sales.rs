//! Sales at a steady rate through the real ledger (SQLite, every step synced) and the HTTPS client,
//! against the simulated gateway: how long each waits for us, the gateway's time left out.
//! `cargo bench --bench sales`; `-- 40 60` for 40 a second over 60 seconds. The ledger is written
//! to the folder of `TMPDIR`: a RAM disk would tell nothing.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringtill::gateway::bogus::Simulator;
use ringtill::gateway::{self, Charge, Gateway, Initiator, Purpose, Verdict};
use ringtill::instrument::{Card, Expiry, FingerprintKey, Instrument, Means, Pan};
use ringtill::ledger::velocity::Limits;
use ringtill::ledger::{Entry, Intent, Origin, Recorded, Screening, State};
use ringtill::money::Money;
use ringtill::server::bogus::BogusHost;
use ringtill::server::http_client::{Connections, HttpClient};
use ringtill::server::store::Store;

const KEY: &str = "sk_bogus_bench";
const BILLER: &str = "bench";
/// Payments in the ledger before it begins: a month of them is 600,000.
const BEFORE: u32 = 2_000;

fn main() {
    let numbers: Vec<u32> = std::env::args().filter_map(|text| text.parse().ok()).collect();
    let (rate, seconds) = match numbers[..] {
        [rate, seconds, ..] => (rate, seconds),
        _ => (20, 30),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run(rate, seconds));
}

struct Desk {
    store: Store,
    gateway: Arc<dyn Gateway>,
    http: HttpClient,
    key: FingerprintKey,
}

async fn run(rate: u32, seconds: u32) {
    let folder = tempfile::tempdir().unwrap();
    let host = BogusHost::start(Simulator::new(KEY, 1)).await.unwrap();
    let mut table = toml::Table::new();
    table.insert("base_url".into(), host.base_url().into());
    table.insert("api_key".into(), KEY.into());
    let desk = Arc::new(Desk {
        store: Store::open(folder.path().join("ledger.db").to_str().unwrap()).await.unwrap(),
        gateway: gateway::open("bogus", table).unwrap(),
        http: HttpClient::new(&[host.certificate_pem.clone().into_bytes()], Connections::Kept)
            .unwrap(),
        key: FingerprintKey::new(&[1; 32]).unwrap(),
    });
    for n in 0..BEFORE {
        let intent = intent(&desk.key, n);
        let id = intent.id.clone();
        steps(&desk.store, Entry::Consent(Box::new(intent))).await;
        // One in twenty is refused.
        let end = match n % 20 {
            0 => State::Declined("soft".into()),
            _ => State::NotCharged("hung up".into()),
        };
        for to in [State::Sending, end] {
            steps(&desk.store, Entry::Move { id: id.clone(), to }).await;
        }
    }
    // As in the server: what is final is written to files meanwhile.
    let (poster, out) = (desk.clone(), folder.path().join("posting"));
    let posting = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            poster.store.post(&out, BILLER, now_ms()).await.unwrap();
            poster.store.checkpoint().await.unwrap();
        }
    });
    let mut clock = tokio::time::interval(Duration::from_secs(1) / rate);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let began = Instant::now();
    let mut running = Vec::new();
    for n in 0..rate * seconds {
        clock.tick().await;
        let desk = desk.clone();
        running.push(tokio::spawn(async move { sale(&desk, BEFORE + n).await }));
    }
    let mut own = Vec::new();
    for sale in running {
        own.push(sale.await.unwrap());
    }
    let wall = began.elapsed().as_secs_f64();
    posting.abort();
    assert_eq!(host.sales().len(), own.len());
    println!("sales: {} in {wall:.1} s ({:.1}/s)", own.len(), own.len() as f64 / wall);
    let parts = ["our own part", "  screened", "  consent and sending", "  outcome"];
    for (part, name) in parts.into_iter().enumerate() {
        let mut took: Vec<f64> = own.iter().map(|own| own[part].as_secs_f64() * 1e3).collect();
        took.sort_by(f64::total_cmp);
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
        let (half, most, all) = (at(0.5), at(0.99), at(1.0));
        println!("{name:<22}p50 {half:5.1} ms, p99 {most:5.1} ms, most {all:5.1} ms");
    }
    let mut floor = floor(folder.path(), own.len(), Duration::from_secs(1) / rate).await;
    floor.sort_by(f64::total_cmp);
    let at = |share: f64| floor[((floor.len() - 1) as f64 * share) as usize];
    let (half, most, all) = (at(0.5), at(0.99), at(1.0));
    println!("the disk alone        p50 {half:5.1} ms, p99 {most:5.1} ms, most {all:5.1} ms");
}

/// What the disk takes for as many synced appends as a sale has, of a few pages each, at the same
/// rate: nobody is faster.
async fn floor(folder: &Path, sales: usize, interval: Duration) -> Vec<f64> {
    use std::io::Write;
    const APPENDS: usize = 2;
    let mut file = std::fs::File::create(folder.join("floor")).unwrap();
    let mut clock = tokio::time::interval(interval);
    let mut took = Vec::new();
    for _ in 0..sales {
        clock.tick().await;
        let began = Instant::now();
        for _ in 0..APPENDS {
            file.write_all(&[7; 3 * 4096]).unwrap();
            file.sync_data().unwrap();
        }
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    took
}

/// One sale as the script makes it: how long it took without the gateway, and parts of that.
async fn sale(desk: &Desk, n: u32) -> [Duration; 4] {
    let began = Instant::now();
    let intent = intent(&desk.key, n);
    for fingerprint in [None, intent.fingerprint] {
        let screening = Screening {
            biller: BILLER.into(),
            account_id: intent.account_id.clone(),
            amount: intent.amount,
            fingerprint,
            since_ms: now_ms() - 86_400_000,
            origin: intent.origin.clone(),
            limits: Limits::default(),
            at_ms: now_ms(),
        };
        assert_eq!(desk.store.screen(&screening).await.unwrap().earlier, None);
    }
    let screened = began.elapsed();
    let (id, card) = (intent.id.clone(), card());
    let (total, fee) = (intent.total().unwrap(), intent.fee);
    let account_id = intent.account_id.clone();
    steps(&desk.store, Entry::Sending(Box::new(intent))).await;
    let journalled = began.elapsed();
    let charge = Charge {
        purpose: Purpose::Sale,
        reference: &id,
        total,
        fee,
        surcharge: false,
        instrument: Instrument::Card(&card),
        account_id: &account_id,
        save: false,
        initiator: Initiator::Customer,
        at_ms: now_ms(),
    };
    let request = desk.gateway.charge(&charge).unwrap();
    let sent = Instant::now();
    let exchange = desk.http.send(request, Duration::from_secs(10)).await;
    let away = sent.elapsed();
    let verdict = desk.gateway.verdict(&charge, &exchange);
    assert!(matches!(verdict, Verdict::Approved(_)), "{verdict:?}");
    let answered = Instant::now();
    steps(&desk.store, Entry::Move { id: id.clone(), to: State::from(&verdict) }).await;
    [began.elapsed() - away, screened, journalled - screened, answered.elapsed()]
}

async fn steps(store: &Store, entry: Entry) {
    assert_eq!(store.record(entry, now_ms()).await, Recorded::Stored);
}

fn intent(key: &FingerprintKey, n: u32) -> Intent {
    let card = card();
    Intent {
        id: format!("intent-{n}"),
        confirmation: format!("{n:09}"),
        biller: BILLER.into(),
        account_id: format!("account-{n}"),
        amount: Money::usd(10_000),
        allocations: Vec::new(),
        fee: Money::usd(200),
        split: Default::default(),
        means: Means::Card(card.pan.brand()),
        last4: card.pan.last4(),
        fingerprint: Some(key.card(&card.pan)),
        gateway: "bogus".into(),
        call_id: "bench".into(),
        origin: Origin {
            caller: Some(key.caller(&format!("+1317{n:07}"))),
            issuer: Some(key.issuer(&card.pan)),
            trunk: "carrier".into(),
        },
        created_ms: now_ms(),
    }
}

fn card() -> Card {
    let pan = Pan::parse("4111111111111111").unwrap();
    let expiry = Expiry::parse("1239", jiff::civil::date(2026, 6, 1)).unwrap();
    Card { pan, expiry, cvv: None, zip: None }
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}
