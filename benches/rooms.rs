//! What signalling, ledger, accounts and prompts cost, in CPU time (user and system) per unit.
//! `cargo bench --bench rooms`; figures of a busy machine are for comparison only.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringtill::account::{Query, csv};
use ringtill::instrument::{Brand, Last4, Means};
use ringtill::ledger::{Entry, Intent, Origin, Recorded, State};
use ringtill::money::Money;
use ringtill::prompt;
use ringtill::server::{prompts, store::Store};
use ringtill::sip::agent::{self, Agent, Placement};
use ringtill::sip::{Command, Event, Input, Output, Peer};

mod cpu;

use cpu::cpu_ns;

fn main() {
    let calls = 5_000;
    let (ns, ()) = measure(|| signalling(calls));
    println!("signalling: {:.0} us a call (INVITE to BYE, both sides)", us(ns, calls));
    let payments = 300;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let start = Instant::now();
    let (ns, ()) = measure(|| runtime.block_on(ledger(payments)));
    let wall_ms = start.elapsed().as_secs_f64() * 1e3 / f64::from(payments);
    println!(
        "ledger: {:.0} us a payment (4 durable steps), {wall_ms:.2} ms wall",
        us(ns, payments)
    );
    let rows = 1_000_000;
    let file = account_file(rows);
    let (ns, directory) =
        measure(|| csv::parse(&file, &csv::Options::default()).unwrap().directory);
    let size = directory.size() >> 20;
    println!("accounts: {rows} rows in {:.2} s, {size} MiB", ns as f64 / 1e9);
    let lookups = 200_000;
    let (ns, ()) = measure(|| {
        for n in 0..lookups {
            let query = Query::Phone(format!("+1317{:07}", 2_000_000 + n));
            assert_eq!(directory.answer(&query).len(), 1);
        }
    });
    println!("accounts: {:.2} us a look-up by phone", us(ns, lookups));
    let (ns, _) = measure(|| prompts::load(&prompt::Settings::default()).unwrap());
    println!("prompts: {:.0} ms to load", ns as f64 / 1e6);
}

fn measure<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let before = cpu_ns();
    let done = work();
    (cpu_ns() - before, done)
}

fn us(ns: u64, units: u32) -> f64 {
    ns as f64 / 1e3 / f64::from(units)
}

/// Calls between two agents that hand each other their datagrams.
fn signalling(calls: u32) {
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let agent = |port, seed| {
        let settings = agent::Settings::new(address(port), "bench", 100_000);
        Agent::new(settings, [seed; 32])
    };
    let mut sides = [(agent(5060, 1), address(5060)), (agent(5062, 2), address(5062))];
    let mut now = Instant::now();
    let sdp = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
        m=audio 20000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n";
    for _ in 0..calls {
        now += Duration::from_millis(20);
        let leg = sides[1].0.next_leg();
        let call = Box::new(Placement {
            target: "sip:pay@127.0.0.1:5060".into(),
            destinations: vec![Peer::udp(address(5060))],
            from: "sip:+13175550123@127.0.0.1".into(),
            headers: Vec::new(),
            sdp: sdp.to_vec(),
            trunk: Arc::default(),
        });
        let invite = Command::Invite { leg, call };
        sides[1].0.handle(now, Input::Command(invite));
        let mut ended = 0;
        while ended < 2 {
            for side in 0..2 {
                sides[side].0.handle(now, Input::Tick);
                while let Some(output) = sides[side].0.poll() {
                    let (source, other) = (sides[side].1, 1 - side);
                    match output {
                        Output::Transmit { bytes, .. } => {
                            let datagram = Input::datagram(source, bytes);
                            sides[other].0.handle(now, datagram);
                        }
                        Output::Event(Event::Offered { leg, .. }) => {
                            let answer = Command::Answer { leg, sdp: sdp.to_vec() };
                            sides[side].0.handle(now, Input::Command(answer));
                        }
                        Output::Event(Event::Established { leg, .. }) => {
                            let hangup = Command::Hangup { leg, reason: None };
                            sides[side].0.handle(now, Input::Command(hangup));
                        }
                        Output::Event(Event::Ended { .. }) => ended += 1,
                        Output::Event(_)
                        | Output::Intrusion(_)
                        | Output::Registered { .. }
                        | Output::Reachable { .. } => {}
                    }
                }
            }
        }
    }
}

async fn ledger(payments: u32) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.db");
    let store = Store::open(&file.to_string_lossy()).await.unwrap();
    for n in 0..payments {
        let intent = Intent {
            id: format!("intent-{n}"),
            confirmation: format!("{n:09}"),
            biller: "bench".into(),
            account_id: format!("account-{n}"),
            amount: Money::usd(10_000),
            allocations: Vec::new(),
            fee: Money::usd(200),
            split: Default::default(),
            means: Means::Card(Brand::Visa),
            last4: Last4::parse("1111").unwrap(),
            fingerprint: None,
            gateway: "bogus".into(),
            call_id: "bench".into(),
            origin: Origin::default(),
            created_ms: i64::from(n),
        };
        let id = intent.id.clone();
        let move_to = |to| Entry::Move { id: id.clone(), to };
        let steps = [
            Entry::Consent(Box::new(intent)),
            move_to(State::Sending),
            move_to(State::Unknown("no answer".into())),
            move_to(State::Declined("soft".into())),
        ];
        for step in steps {
            assert_eq!(store.record(step, i64::from(n)).await, Recorded::Stored);
        }
    }
    store.close().await;
}

fn account_file(rows: u32) -> Vec<u8> {
    let mut file = "account_id,name_first,phone1,verify_zip,amount_due,due_date\n".to_string();
    for n in 0..rows {
        let phone = 2_000_000 + n;
        writeln!(file, "A{n},James,+1317{phone:07},46201,{}.{:02},2026-12-05", n % 900, n % 100)
            .unwrap();
    }
    file.into_bytes()
}
