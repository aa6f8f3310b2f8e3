//! Much at once, from peers and from attackers: nothing is lost, left over or without bound.

use std::collections::HashSet;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use ringtill::dial::script::Keying;
use ringtill::sip::Transport;

use crate::binary::{Binary, alone, deadline, expiry, now, uninterrupted};
use crate::caller::{JAMES, Line, Sip, words};
use crate::sipp::expect_one_payment;

mod callers;
mod flood;
mod relay;

use callers::Callers;
use flood::Flood;
use relay::{Relay, Side};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}

fn server(binary: &Binary) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], binary.port))
}

/// How many lines of the log have this in them.
fn lines(binary: &Binary, part: &str) -> usize {
    binary.log.iter().filter(|line| line.contains(part)).count()
}

/// The calls named in lines with this in them, each once.
fn calls_in(binary: &Binary, part: &str) -> HashSet<String> {
    let lines = binary.log.iter().filter(|line| line.contains(part));
    let calls = lines.filter_map(|line| line.split("call=").nth(1)?.split(' ').next());
    calls.map(str::to_string).collect()
}

#[test]
fn every_call_completes_when_a_tenth_of_the_datagrams_is_lost() {
    const CALLS: u32 = 300;
    const SEED: u64 = 3;
    let _turn = alone();
    // Either side knows the other by an address of the relay's.
    let sip = "public_address = \"127.0.0.2\"";
    let from = "[[trunk]]\nname = \"lossy\"\nsources = [\"127.0.0.3/32\"]\n";
    let mut binary = Binary::start_sip("info", sip, from);
    let runtime = runtime();
    let callers = Callers::bind(Transport::Udp, ip("127.0.0.1"), ip("127.0.0.3"));
    let callers = runtime.block_on(callers);
    let known_as = SocketAddr::new(ip("127.0.0.2"), binary.port);
    let server = Side { real: server(&binary), known_as };
    let local = callers.sip.local();
    let caller = Side { real: local, known_as: SocketAddr::new(ip("127.0.0.3"), local.port()) };
    let relay = Relay::between([server, caller], 0.1, SEED);
    let tally = runtime.block_on(callers.place(known_as, CALLS, 60));
    let context = format!("seed {SEED}: {tally:?}, {:?} passed and lost", relay.counts());
    assert_eq!(tally.completed, CALLS, "{context}");
    let (passed, lost) = relay.counts();
    assert!(lost > passed / 15 && passed + lost > u64::from(6 * CALLS), "{context}");
    while lines(&binary, "call ended") < CALLS as usize {
        binary.wait_for("call ended");
    }
    assert_eq!(binary.stop(), Some(0), "{}", binary.log.join("\n"));
    for part in ["call offered", "call ended"] {
        let (told, calls) = (lines(&binary, part), calls_in(&binary, part).len());
        assert_eq!((told, calls), (CALLS as usize, CALLS as usize), "{part}: {context}");
    }
    for part in ["new ones get 503 calls=0", &format!("stopped calls={CALLS} aborted=0")] {
        assert_eq!(lines(&binary, part), 1, "{part}\n{}", binary.log.join("\n"));
    }
}

#[test]
fn a_strangers_flood_does_not_disturb_a_payment() {
    const STRANGER: &str = "127.0.0.66";
    /// What a stranger may send: a twentieth of a trunk's rate, two seconds' worth at once.
    const PER_SECOND: f64 = 50.0;
    let _turn = alone();
    let mut binary = Binary::start_sip("info", "messages_per_second = 1000", "");
    let script = format!(
        "hear-start menu.amount, pause 400, key 1,
         hear-start card.ask, pause 400, key 4111111111111111#,
         hear-start expiry.ask, pause 400, key {}, hear-start cvv.ask_three, pause 400, key 123,
         hear-start zip.ask, pause 400, key 46201,
         hear-start consent.accept 60, pause 400, key 1, hear result.approved 60,
         hear-start result.repeat 60, hangup",
        expiry()
    );
    let mut line = Line::place(binary.port, JAMES, &script, Keying::default());
    line.run_until(words("menu.amount"));
    let server = server(&binary);
    let long = Duration::from_secs(2);
    let flooding = thread::spawn(move || Flood::of(STRANGER, server, 1_000_000, long));
    assert_eq!(line.run(), Ok(()), "{}", line.log());
    let flood = flooding.join().expect("it ends");
    let (sent, answered) = (flood.sent, flood.answered());
    // What was sent last may have been read later than that.
    let seconds = flood.took.as_secs_f64() + 1.0;
    let most = (PER_SECOND * (2.0 + seconds)) as usize;
    eprintln!("{sent} INVITEs in {:?}, {answered} answered", flood.took);
    assert!(sent > 10_000, "{sent} INVITEs are no flood");
    assert!((1..=most).contains(&answered), "{answered} of {sent} were answered");
    assert_eq!(flood.with(403), answered, "{:?}", flood.answers.keys());
    assert_eq!(Sip::at("127.0.0.1", binary.port).options().status, 200);
    assert_eq!(binary.stop(), Some(0), "{}", binary.log.join("\n"));
    let told = lines(&binary, &format!("SECURITY rejected proto=udp src={STRANGER}"));
    assert!((1..=seconds as usize + 1).contains(&told), "{told} lines about one stranger");
    assert_eq!(calls_in(&binary, "call offered").len(), 1);
    expect_one_payment(&binary, "1001", 32_172);
}

#[test]
fn half_open_calls_are_bounded_and_service_goes_on() {
    const CALLS_MAX: usize = 100;
    let _turn = alone();
    let sip = format!("calls_max = {CALLS_MAX}\ndrain_minutes = 0");
    let mut binary = Binary::start_sip("info", &sip, "");
    let burst = Flood::of("127.0.0.1", server(&binary), 3_000, Duration::from_secs(1));
    let (taken, refused) = (burst.with(200), burst.with(503));
    eprintln!("{} INVITEs, {taken} calls, {refused} refused", burst.sent);
    assert!(burst.sent > 1_500, "{} INVITEs are no burst", burst.sent);
    assert!((1..=CALLS_MAX).contains(&taken), "{taken} calls");
    assert!(refused > CALLS_MAX, "{refused} refused");
    assert_eq!(burst.with(100), taken, "calls that were begun were answered");
    let (_, refusal) = &burst.answers[&503];
    assert!(refusal.contains("\r\nRetry-After: "), "{refusal}");
    assert_eq!(Sip::at("127.0.0.1", binary.port).options().status, 200);
    assert_eq!(binary.stop(), Some(0), "{}", binary.log.join("\n"));
    let stopped = format!("stopped calls={taken} aborted=0");
    assert_eq!(lines(&binary, &stopped), 1, "{stopped}\n{}", binary.log.join("\n"));
    assert_eq!(calls_in(&binary, "call ended").len(), taken);
}

#[test]
fn connections_of_one_source_are_limited_and_idle_ones_closed() {
    const PER_SOURCE: usize = 40;
    let turn = alone();
    let sip = format!("connections_per_source = {PER_SOURCE}\nidle_minutes = 1");
    let other = "[[trunk]]\nname = \"other\"\nsources = [\"127.0.0.2/32\"]\n";
    let mut binary = Binary::start_sip("info", &sip, other);
    let open: Vec<TcpStream> = (0..500)
        .map(|_| TcpStream::connect(server(&binary)).expect("the kernel accepts"))
        .collect();
    let (kept, turned_away) = open.split_at(PER_SOURCE);
    expect_closed(turned_away, Duration::from_secs(20));
    expect_open(kept);
    runtime().block_on(expect_a_call_over_tcp(server(&binary)));
    binary.wait_for("call ended");
    // Nothing happens for a minute: others may have their turn.
    drop(turn);
    expect_closed(kept, Duration::from_secs(120));
    assert_eq!(binary.stop(), Some(0), "{}", binary.log.join("\n"));
}

fn expect_closed(connections: &[TcpStream], limit: Duration) {
    let until = deadline(limit);
    for mut connection in connections {
        let left = until.saturating_duration_since(now()).max(Duration::from_millis(1));
        connection.set_read_timeout(Some(left)).expect("a timeout");
        let read = uninterrupted(|| connection.read(&mut [0; 16]));
        assert!(matches!(read, Ok(0)), "a connection is open still: {read:?}");
    }
}

fn expect_open(connections: &[TcpStream]) {
    for mut connection in connections {
        connection.set_nonblocking(true).expect("nonblocking");
        let read = connection.read(&mut [0; 16]);
        let waits = read.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        assert!(waits, "a connection was closed: {read:?}");
        connection.set_nonblocking(false).expect("blocking");
    }
}

/// Answered and hung up, from another address than the crowd's.
async fn expect_a_call_over_tcp(server: SocketAddr) {
    let us = ip("127.0.0.2");
    let callers = Callers::bind(Transport::Tcp, us, us).await;
    let tally = callers.place(server, 1, 1).await;
    assert_eq!(tally.completed, 1, "{tally:?}");
}
