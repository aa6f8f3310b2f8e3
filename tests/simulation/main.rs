//! Whole calls on a virtual clock: SIP and RTP bytes pass between the test phone and Ringtill over
//! a network that loses, delays and reorders by a seed. A failing seed is printed and replays with
//! `RINGTILL_SEED=<seed> cargo test --test simulation`.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use ringtill::dial::listen::Index;
use ringtill::dial::phone::{Output, Phone, Setup};
use ringtill::dial::script::{Keying, Script};
use ringtill::gateway::bogus::{Fault, Outcome as Sold};
use ringtill::ledger::State;
use ringtill::media::Method;
use ringtill::payment::Outcome;
use ringtill::prompt::{self, Library};
use ringtill::sip::offer::{Law, SrtpPolicy};

mod network;
mod opus;
mod routing;
mod saved; // a card that is kept pays with three keys
mod spoken; // callers who say what they are asked for
mod transfer; // a caller passed on to an agent
mod server;

use network::{Datagram, Network, Weather};
use server::Server;

const CALLS: u64 = 1_000;
const CALLS_INBAND: u64 = 50;
const CALL_MAX: Duration = Duration::from_secs(400);

const ROUGH: Weather = Weather {
    loss: 0.03,
    delay: Duration::from_millis(40),
    jitter: Duration::from_millis(30),
    duplicated: 0.005,
};
const CLEAR: Weather = Weather {
    loss: 0.0,
    delay: Duration::from_millis(10),
    jitter: Duration::from_millis(2),
    duplicated: 0.0,
};

/// One kind of call and how it must end.
struct Scenario {
    name: &'static str,
    /// User part of From.
    from: &'static str,
    script: String,
    fault: Option<Fault>,
    expected: Expected,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Expected {
    Paid { account: &'static str, total: i64 },
    Pending { account: &'static str },
    NothingCharged,
}

/// James pays his balance with his card, up to the consent.
const FULL_BALANCE: &str = "\
    hear greet.due, key 1, hear-start card.ask, key 4111111111111111#,
    hear-start expiry.ask, key 1230, hear-start cvv.ask_three, key 123,
    hear-start zip.ask, key 46201, ";

const JAMES: &str = "+13175550123";
const STRANGER: &str = "+13175550199";

fn scenarios() -> Vec<Scenario> {
    let scenario = |name, from, script: &str, fault, expected| Scenario {
        name,
        from,
        script: script.to_string(),
        fault,
        expected,
    };
    let full = Expected::Paid { account: "1001", total: 32_372 };
    vec![
        scenario(
            "full balance, known by caller id",
            JAMES,
            &format!(
                "{FULL_BALANCE}hear consent.will_be, hear-start consent.accept, key 1, hear result.approved 60, wait-end 90"
            ),
            None,
            full,
        ),
        scenario(
            "stranger, another amount, one mistyped card",
            STRANGER,
            "hear account.ask, key 1002#, hear-start zip.verify_ask, key 46204,
             hear-start menu.amount, key 2, hear-start amount.ask, key 2500#,
             hear-start confirm.yes_no, key 1, hear-start card.ask, key 4111111111111112#,
             hear-start card.invalid, pause 500, key 4111111111111111#,
             hear-start expiry.ask, key 1230, hear-start cvv.ask_three, key 123,
             hear-start zip.ask, key 46204, hear consent.will_be, hear-start consent.accept, key 1,
             hear result.approved 60, hear-start result.repeat, key 9,
             hear-start result.confirmation, wait-end 90",
            None,
            Expected::Paid { account: "1002", total: 2_700 },
        ),
        scenario(
            "everything keyed ahead but the consent",
            JAMES,
            "hear-start greet.hello, key 1, key 5555555555554444#, key 1230 123 46201,
             hear-start consent.accept 60, key 1, hear result.approved 60, wait-end 90",
            None,
            full,
        ),
        scenario(
            "hangs up before the consent",
            JAMES,
            "hear greet.due, key 1, hear-start card.ask, key 4111111111111111#,
             hear-start expiry.ask, hangup",
            None,
            Expected::NothingCharged,
        ),
        scenario(
            "hangs up right after the consent",
            JAMES,
            &format!("{FULL_BALANCE}hear-start consent.accept 60, key 1, pause 700, hangup"),
            None,
            full,
        ),
        scenario(
            "says no to the total",
            JAMES,
            &format!(
                "{FULL_BALANCE}hear-start consent.accept 60, key 2, hear consent.cancelled, wait-end 60"
            ),
            None,
            Expected::NothingCharged,
        ),
        scenario(
            "one card is declined, the next is not",
            JAMES,
            "hear greet.due, key 1, hear-start card.ask, key 4000000000000002#,
             hear-start expiry.ask, key 1230, hear-start cvv.ask_three, key 123,
             hear-start zip.ask, key 46201, hear-start consent.accept 60, key 1,
             hear result.declined 60, hear-start retry.other_card, key 1,
             hear-start card.ask, key 378282246310005, hear-start expiry.ask, key 1230,
             hear-start cvv.ask_four, key 1234, hear-start zip.ask, key 46201,
             hear-start consent.accept 60, key 1, hear result.approved 60, wait-end 90",
            None,
            full,
        ),
        scenario(
            "never presses a key",
            JAMES,
            "hear agent.unavailable 120, wait-end 60",
            None,
            Expected::NothingCharged,
        ),
        scenario(
            "the gateway's answer is lost after it has charged",
            JAMES,
            &format!(
                "{FULL_BALANCE}hear-start consent.accept 60, key 1, hear result.approved 60, wait-end 90"
            ),
            Some(Fault::CloseAfterProcessing),
            full,
        ),
        scenario(
            "the gateway never got the request, and cannot say so",
            JAMES,
            &format!(
                "{FULL_BALANCE}hear-start consent.accept 60, key 1, hear result.pending 60, wait-end 90"
            ),
            Some(Fault::CloseUnprocessed),
            Expected::Pending { account: "1001" },
        ),
    ]
}

#[test]
fn calls_on_a_rough_network_end_correctly_and_lose_no_key() {
    run_all(CALLS, ROUGH, Method::Events);
}

#[test]
fn calls_with_tones_in_the_audio_end_correctly() {
    run_all(CALLS_INBAND, CLEAR, Method::InBand);
}

fn run_all(calls: u64, weather: Weather, method: Method) {
    let only = std::env::var("RINGTILL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..calls, |seed: u64| seed..seed + 1);
    let (next, end) = (AtomicU64::new(seeds.start), seeds.end);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let run = AssertUnwindSafe(|| run(seed, weather, method));
                    if catch_unwind(run).is_err() {
                        failures.lock().unwrap().push(seed);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {calls} calls failed, seeds {failures:?}", failures.len());
}

fn run(seed: u64, weather: Weather, method: Method) {
    let scenarios = scenarios();
    let scenario = &scenarios[(seed % scenarios.len() as u64) as usize];
    let now = start();
    let mut server = Server::new(now, library().clone(), seed);
    if let Some(fault) = scenario.fault {
        server.simulator.fail_next(fault);
    }
    let mut network = Network::new(weather, seed);
    let phone = phone(scenario, &server, seed, method);
    let mut call = Simulation { now, server, network: &mut network, phone: Phone::new(phone, now) };
    let reports = call.run(now + CALL_MAX);
    let context = format!("seed {seed}, {}:\n{}", scenario.name, reports.join("\n"));
    call.check(scenario, &context);
    call.die_out();
    assert_eq!(call.server.legs(), 0, "a leg is left behind\n{context}");
}

/// The clock starts anywhere: only differences matter.
#[allow(clippy::disallowed_methods)]
fn start() -> Instant {
    Instant::now()
}

fn library() -> &'static Arc<Library> {
    static LIBRARY: OnceLock<Arc<Library>> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let library = ringtill::server::prompts::load(&prompt::Settings::default());
        Arc::new(library.unwrap_or_else(|problems| panic!("{problems:?}")))
    })
}

fn index(law: Law) -> Arc<Index> {
    static INDEX: OnceLock<[Arc<Index>; 2]> = OnceLock::new();
    let both =
        INDEX.get_or_init(|| [Law::Mu, Law::A].map(|law| Arc::new(Index::of(library(), law))));
    both[usize::from(law == Law::A)].clone()
}

fn phone(scenario: &Scenario, server: &Server, seed: u64, method: Method) -> Setup {
    let script = Script::parse(&scenario.script, &|id| library().catalog().entry(id).is_some());
    let law = if seed.is_multiple_of(2) { Law::Mu } else { Law::A };
    let mut bytes = [1; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    Setup {
        target: format!("sip:pay@{}", server.sip_address),
        destination: server.sip_address,
        from: format!("sip:{}@192.0.2.9", scenario.from),
        headers: Vec::new(),
        sip: "192.0.2.9:5060".parse().unwrap(),
        rtp: "192.0.2.9:30000".parse().unwrap(),
        prompts: vec![index(law)],
        codecs: Vec::new(),
        script: script.unwrap_or_else(|error| panic!("{}: {error}", scenario.name)),
        keying: Keying { method, on_ms: 90, off_ms: 70 },
        srtp: SrtpPolicy::Off,
        seed: bytes,
        call_max: CALL_MAX,
    }
}

struct Simulation<'a> {
    now: Instant,
    server: Server,
    network: &'a mut Network,
    phone: Phone,
}

impl Simulation<'_> {
    /// Runs to the end of the call on both sides; what the phone reported.
    fn run(&mut self, end: Instant) -> Vec<String> {
        let start = self.now;
        let mut reports = Vec::new();
        loop {
            while let Some(output) = self.phone.poll() {
                let send = |source: SocketAddr, destination, bytes: &[u8]| Datagram {
                    source,
                    destination,
                    bytes: bytes.to_vec(),
                };
                match output {
                    Output::Sip { destination, bytes } => {
                        let source = "192.0.2.9:5060".parse().unwrap();
                        self.network.send(self.now, send(source, destination, &bytes));
                    }
                    Output::Rtp { destination, bytes } => {
                        let source = "192.0.2.9:30000".parse().unwrap();
                        self.network.send(self.now, send(source, destination, &bytes));
                    }
                    Output::Sound(_) => {}
                    Output::Report(report) => {
                        let at = self.now.duration_since(start).as_secs_f32();
                        reports.push(format!("{at:7.2} {report}"));
                    }
                }
            }
            self.server.run(self.now, self.network);
            if self.phone.finished().is_some() && self.server.outcome.is_some() {
                return reports;
            }
            let next = [self.network.deadline(), self.phone.deadline(), self.server.deadline()];
            let next = next.into_iter().flatten().min().expect("somebody waits for something");
            assert!(next < end, "the call does not end:\n{}", reports.join("\n"));
            self.now = next.max(self.now);
            self.arrivals();
            if self.phone.deadline().is_some_and(|at| at <= self.now) {
                self.phone.tick(self.now);
            }
        }
    }

    fn arrivals(&mut self) {
        while let Some(datagram) = self.network.arrived(self.now) {
            match datagram.destination.to_string().as_str() {
                "192.0.2.9:5060" => {
                    self.phone.sip(self.now, datagram.source, datagram.bytes.into());
                }
                "192.0.2.9:30000" => self.phone.rtp(self.now, datagram.source, &datagram.bytes),
                _ => self.server.receive(self.now, &datagram),
            }
        }
    }

    fn check(&self, scenario: &Scenario, context: &str) {
        if let Some(Err(failure)) = self.phone.finished() {
            panic!("the phone: {failure}\n{context}");
        }
        let outcome = self.server.outcome.as_ref().expect("run waits for it");
        let sales = self.server.simulator.sales();
        let approved: Vec<i64> =
            sales.iter().filter(|s| s.outcome == Sold::Approved).map(|s| s.total.minor).collect();
        let states = self.server.states();
        match scenario.expected {
            Expected::Paid { account, total } => {
                assert!(matches!(outcome, Outcome::Paid { .. }), "{outcome:?}\n{context}");
                assert_eq!(approved, [total], "{context}");
                assert!(matches!(states[account], State::Approved(_)), "{states:?}\n{context}");
            }
            Expected::Pending { account } => {
                assert!(matches!(outcome, Outcome::Pending { .. }), "{outcome:?}\n{context}");
                assert_eq!(approved, [0i64; 0], "{context}");
                assert!(matches!(states[account], State::Unknown(_)), "{states:?}\n{context}");
            }
            Expected::NothingCharged => {
                assert!(!matches!(outcome, Outcome::Paid { .. }), "{outcome:?}\n{context}");
                assert!(sales.is_empty() && states.is_empty(), "{states:?}\n{context}");
            }
        }
        let pressed = pressed(&scenario.script);
        assert_eq!(self.server.keys, pressed, "keys lost, doubled or invented\n{context}");
    }

    /// Lets retransmissions and transactions end (RFC 3261 timers run for 32 s).
    fn die_out(&mut self) {
        let end = self.now + Duration::from_secs(80);
        while let Some(next) =
            [self.network.deadline(), self.server.deadline()].into_iter().flatten().min()
            && next < end
        {
            self.now = next.max(self.now);
            self.arrivals();
            self.server.run(self.now, self.network);
        }
    }
}

/// The keys of a script in order.
fn pressed(script: &str) -> String {
    let steps = script.split([',', '\n']).map(str::trim);
    let keys = steps.filter_map(|step| step.strip_prefix("key "));
    keys.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect()
}
