//! What calls cost the whole server, and what loss and floods do to it: the real binary on
//! loopback. `cargo bench --bench calls [-- rate loss flood voice]`; the machine should be idle.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ringtill::dial::phone::Report;
use ringtill::dial::script::{Keying, Script};
use ringtill::ledger::State;
use ringtill::prompt::{self, Library};
use ringtill::server::clock::now;
use ringtill::server::store::Store;
use ringtill::server::{dial, prompts};
use ringtill::sip::Transport;
use ringtill::sip::offer::{Law, SrtpPolicy};
use thread_priority::{RealtimeThreadSchedulePolicy, ThreadSchedulePolicy};
use thread_priority::{ThreadPriority, ThreadPriorityValue};
use tokio::runtime::{Builder, Runtime};

#[path = "../tests/system/load/callers.rs"]
mod callers;
#[path = "../tests/system/load/flood.rs"]
mod flood;
#[path = "../tests/system/load/relay.rs"]
mod relay;
#[path = "calls/voice.rs"]
mod voice;

use callers::{Callers, Tally};
use flood::Flood;
use relay::{Relay, Side};

const CALLS: u32 = 10_000;
/// Room for that many, and for as long as transactions are remembered.
const ROOMY: &str = "calls_max = 20000\ncalls_per_second = 100000\n\
                     messages_per_second = 1000000";
const FLOOD: Duration = Duration::from_secs(10);
const FLOOD_PER_SECOND: u32 = 50_000;

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let is_chosen = |part: &str| chosen.is_empty() || chosen.iter().any(|one| one == part);
    let runtime = Runtime::new().unwrap();
    if is_chosen("rate") {
        rate();
    }
    if is_chosen("loss") {
        loss(&runtime);
    }
    if is_chosen("voice") {
        voice::speaking(&runtime);
    }
    if is_chosen("flood") {
        flood(&runtime, "stranger", "");
        let trunk = "[[trunk]]\nname = \"flooding\"\nsources = [\"127.0.0.66/32\"]\n";
        flood(&runtime, "trunk", trunk);
    }
}

/// INVITE to BYE without a pause, and what memory is left in use.
fn rate() {
    // Like SIPp the caller has one thread: it takes no more of the machine than it must.
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let server = Server::start(ROOMY, "");
    let callers = runtime.block_on(Callers::bind(Transport::Udp, ip(1), ip(1)));
    let mut resident = Vec::new();
    for per_second in [1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 500] {
        let (cpu, begin) = (server.cpu_ms(), now());
        let tally = runtime.block_on(callers.place(server.address, CALLS, per_second));
        let reached = f64::from(CALLS) / begin.elapsed().as_secs_f64();
        let us = (server.cpu_ms() - cpu) as f64 * 1e3 / f64::from(CALLS);
        resident.push(server.resident_mb());
        println!(
            "rate: {CALLS} calls at {per_second}/s (reached {reached:.0}/s): {}, {us:.0} us CPU a \
             call, {:.1} MB resident",
            outcome(&tally),
            server.resident_mb()
        );
    }
    let grown = |from: usize, to: usize| (resident[to - 1] / resident[from - 1] - 1.0) * 100.0;
    println!(
        "rate: memory from round 1 to 3: {:+.1} %, 4 to 6: {:+.1} %",
        grown(1, 3),
        grown(4, 6)
    );
    sipp(&server);
}

/// The same calls by SIPp, if it is there: its INVITE has fewer headers, and its ACK and BYE come
/// together.
fn sipp(server: &Server) {
    let folder = tempfile::tempdir().unwrap();
    let cpu = server.cpu_ms();
    let ended = Command::new("sipp")
        .args(["-sn", "uac", "-d", "0", "-r", "1000", "-l", "5000", "-i", "127.0.0.1"])
        .args(["-m", &CALLS.to_string(), "-nostdin", &server.address.to_string()])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let us = (server.cpu_ms() - cpu) as f64 * 1e3 / f64::from(CALLS);
    match ended {
        Ok(ended) if ended.success() => {
            println!("rate: {CALLS} calls of SIPp at 1000/s: 0 failed, {us:.0} us CPU a call");
        }
        Ok(ended) => println!("rate: SIPp's calls FAILED: {ended}"),
        Err(_) => println!("rate: SIPp is not here (Debian: sip-tester)"),
    }
}

/// Calls through a network that loses a tenth of all datagrams each way.
fn loss(runtime: &Runtime) {
    const CALLS: u32 = 1_000;
    const SEED: u64 = 1;
    let server = Server::start(&format!("{ROOMY}\npublic_address = \"127.0.0.2\""), "");
    let callers = runtime.block_on(Callers::bind(Transport::Udp, ip(1), ip(3)));
    let port = callers.sip.local().port();
    let known_as = SocketAddr::new(ip(2), server.address.port());
    let sides = [
        Side { real: server.address, known_as },
        Side { real: callers.sip.local(), known_as: SocketAddr::new(ip(3), port) },
    ];
    let relay = Relay::between(sides, 0.1, SEED);
    let begin = now();
    let tally = runtime.block_on(callers.place(known_as, CALLS, 100));
    let (passed, lost) = relay.counts();
    println!(
        "loss: {} of {CALLS} calls completed ({}) in {:.1} s; {lost} of {} datagrams lost, seed \
         {SEED}",
        tally.completed,
        outcome(&tally),
        begin.elapsed().as_secs_f64(),
        passed + lost
    );
}

/// INVITEs from one address while a caller pays and another listens.
fn flood(runtime: &Runtime, who: &str, trunk: &str) {
    let server = Server::start("", trunk);
    let library = prompts::load(&prompt::Settings::default()).unwrap();
    let rtp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let callers = runtime.block_on(Callers::bind(Transport::Udp, ip(1), ip(1)));
    let _listening = runtime.block_on(callers.call(server.address, rtp.local_addr().unwrap()));
    let listener = thread::spawn(move || arrivals(&rtp));
    let (keying, first_key) = mpsc::channel();
    let paying = runtime.spawn(pay(library, server.address, keying));
    let quiet = now();
    first_key.recv().unwrap();
    let (cpu, begin) = (server.cpu_ms(), now());
    let flood = Flood::of("127.0.0.66", server.address, FLOOD_PER_SECOND, FLOOD);
    let cpu = (server.cpu_ms() - cpu) as f64 / begin.elapsed().as_secs_f64() / 10.0;
    let paid = runtime.block_on(paying).unwrap();
    let arrivals = listener.join().unwrap();
    let (ledger, log) = server.stop(runtime);
    println!(
        "flood by a {who}: {} INVITEs in {:.1} s ({:.0}/s), {} answered ({}), server {cpu:.0} % \
         of a core",
        flood.sent,
        flood.took.as_secs_f64(),
        flood.sent as f64 / flood.took.as_secs_f64(),
        flood.answered(),
        statuses(&flood),
    );
    println!("flood by a {who}: payment {paid}, ledger {ledger:?}");
    println!("flood by a {who}: pacing before: {}", pacing(&arrivals, quiet, begin));
    println!("flood by a {who}: pacing during: {}", pacing(&arrivals, begin, begin + FLOOD));
    let security = log.matches("SECURITY").count();
    let late = log.matches("media is late").count();
    println!("flood by a {who}: {security} security lines, media late {late} times");
}

fn statuses(flood: &Flood) -> String {
    let each = flood.answers.keys().map(|status| format!("{status}: {}", flood.with(*status)));
    each.collect::<Vec<_>>().join(", ")
}

/// Pays by card, says so at the first key, and tells how it went.
async fn pay(library: Library, server: SocketAddr, keying: mpsc::Sender<()>) -> String {
    let script = "hear-start menu.amount, pause 400, key 1,
        hear-start card.ask, pause 400, key 4111111111111111#,
        hear-start expiry.ask, pause 400, key 1235, hear-start cvv.ask_three, pause 400, key 123,
        hear-start zip.ask, pause 400, key 46201, hear-start consent.accept 60, pause 400, key 1,
        hear result.approved 60, hear-start result.repeat 60, hangup";
    let call = dial::Call {
        target: format!("sip:pay@{server}"),
        from: Some("+13175550123".into()),
        headers: Vec::new(),
        prompts: dial::indexes(&library, &[Law::Mu]),
        script: Script::parse(script, &|id| dial::knows(&library, id)).unwrap(),
        keying: Keying::default(),
        srtp: SrtpPolicy::Off,
        local: None,
        call_max: Duration::from_secs(120),
        person: None,
    };
    let mut report = |_: Duration, report: &Report| {
        if let Report::Keys { .. } = report {
            let _ = keying.send(());
        }
    };
    match Box::pin(dial::place(call, &mut report)).await {
        Ok(()) => "approved, every key taken at once".into(),
        Err(error) => error.to_string(),
    }
}

/// When RTP packets come, until none has come for a second.
fn arrivals(rtp: &UdpSocket) -> Vec<Instant> {
    // Ours would be the delays that are measured.
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let priority = ThreadPriority::Crossplatform(ThreadPriorityValue::try_from(9).unwrap());
    let own = thread_priority::thread_native_id();
    if thread_priority::set_thread_priority_and_policy(own, priority, policy).is_err() {
        println!("flood: the listener has no real-time priority: its own delays are counted");
    }
    let (mut times, mut buffer) = (Vec::new(), [0; 2048]);
    rtp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    while rtp.recv(&mut buffer).is_ok() {
        if times.is_empty() {
            rtp.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        }
        times.push(now());
    }
    times
}

/// How far intervals between packets were from 20 ms.
fn pacing(arrivals: &[Instant], from: Instant, to: Instant) -> String {
    let within: Vec<&Instant> = arrivals.iter().filter(|at| (from..to).contains(*at)).collect();
    let intervals = within.windows(2).map(|pair| pair[1].duration_since(*pair[0]));
    let mut off: Vec<f64> = intervals.map(|i| (i.as_secs_f64() * 1e3 - 20.0).abs()).collect();
    off.sort_by(f64::total_cmp);
    let Some(max) = off.last() else { return "nothing came".into() };
    let at = |share: f64| off[(off.len() as f64 * share) as usize];
    let (median, p99) = (at(0.5), at(0.99));
    format!(
        "{} packets of {:.0}, off by {median:.2} ms (median), {p99:.2} ms (p99), {max:.2} ms (max)",
        within.len(),
        to.duration_since(from).as_secs_f64() * 50.0
    )
}

fn outcome(tally: &Tally) -> String {
    let failed: u32 = tally.failed.values().sum();
    match failed {
        0 => "0 failed".into(),
        _ => format!("{failed} FAILED: {:?}", tally.failed),
    }
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, last])
}

/// `ringtill serve` in a folder of its own.
struct Server {
    folder: tempfile::TempDir,
    address: SocketAddr,
    child: Child,
}

impl Server {
    fn start(sip: &str, trunks: &str) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let free = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let at = |name: &str| folder.path().join(name);
        let accounts = "account_id,name_first,name_last,phone1,verify_zip,amount_due,due_date\n\
                        1001,James,Walker,+13175550123,46201,321.72,2026-12-05\n";
        fs::write(at("accounts.csv"), accounts).unwrap();
        let config = format!(
            "[sip]\nlisten = \"{address}\"\ndrain_minutes = 0\n{sip}\n\
             [media]\nports = [10000, 59999]\n[accounts]\nfile = \"accounts.csv\"\n\
             [store]\nfile = \"ledger.db\"\n\
             [log]\nlevel = \"warn,ringtill::server=info,ringtill::server::call_task=warn\"\n\
             [[trunk]]\nname = \"callers\"\nsources = [\"127.0.0.0/29\"]\ntrust_caller_id = true\n\
             {trunks}"
        );
        fs::write(at("ringtill.toml"), config).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_ringtill"))
            .args(["serve", "-c", "ringtill.toml"])
            .current_dir(folder.path())
            .stderr(File::create(at("log")).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Server { folder, address, child };
        let until = now() + Duration::from_secs(20);
        while !server.log().contains("taking calls") {
            assert!(now() < until, "the server does not start:\n{}", server.log());
            thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// User and system time so far; the kernel counts in hundredths of a second.
    fn cpu_ms(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let after_name = stat.rsplit(") ").next().unwrap();
        let fields: Vec<&str> = after_name.split(' ').collect();
        [fields[11], fields[12]].iter().map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum()
    }

    fn resident_mb(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }

    /// Stops it; the states of payments in its ledger, and its log.
    fn stop(mut self, runtime: &Runtime) -> (Vec<State>, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap();
        let ledger = self.folder.path().join("ledger.db");
        let intents = runtime.block_on(async {
            Store::open(&ledger.to_string_lossy()).await.unwrap().intents().await.unwrap()
        });
        (intents.into_iter().map(|(_, state)| state).collect(), self.log())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
