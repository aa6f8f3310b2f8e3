//! Load: N calls at once to the small IVR of `examples/collect.rs`, sound both ways, 16 keys each.
//! Tells what the server costs (its process alone), also as a multiple of what as many sockets and
//! packets cost by themselves, how evenly its packets come, and which keys got lost or doubled.
//! `cargo bench --bench load -- [tones|events|both] [SVG] CALLS...`, or with callers who say a card
//! number beside those who key: `cargo bench --bench load -- speaking SPEAKING KEYING`
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringtill::server::sip::{Commands, Sip};
use ringtill::sip::agent::{Placement, Settings};
use ringtill::sip::{Cause, Event, Peer};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::callers::{Caller, Callers, Keying, Tally, socket};

mod callers; // the callers' sound
#[path = "../../examples/collect.rs"]
mod collect;
mod floor; // what the kernel alone costs
mod plot; // the figures drawn

/// Set in the child that is the server.
const SERVER: &str = "RINGTILL_LOAD_SERVER";
const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 7, 9);
/// As the README says.
const SPEAKING_PER_THREAD: usize = 30;
/// As a configuration with this `calls_max` would have it.
const CALLS_PER_THREAD: usize = 1_250;
/// New calls a second while the load is built up.
const RAMP: f64 = 400.0;
/// How long a caller takes to key everything in, and some.
const KEYING: Duration = Duration::from_millis(8_000);
/// How long the server has to hang up after that.
const ENDING: Duration = Duration::from_secs(15);

fn main() {
    match std::env::var(SERVER).as_deref() {
        Ok(floor::FLOOR) => return floor::serve(),
        Ok(_) => return collect::main().unwrap(),
        Err(_) => {}
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let counts: Vec<usize> = arguments.iter().filter_map(|one| one.parse().ok()).collect();
    let mut loads: Vec<Load> = counts.iter().map(|&keying| Load { speaking: 0, keying }).collect();
    if arguments.iter().any(|one| one == "speaking") {
        // The same without those who speak first: what they cost is the difference.
        let (speaking, keying) = (*counts.first().unwrap(), *counts.get(1).unwrap());
        loads = vec![Load { speaking: 0, keying }, Load { speaking, keying }];
    }
    if loads.is_empty() {
        loads = [100, 500, 1_000].map(|keying| Load { speaking: 0, keying }).into();
    }
    let keying = arguments.iter().find_map(|one| Keying::parse(one)).unwrap_or(Keying::Tones);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut rows = Vec::new();
    for load in loads {
        // The machine may be another one a minute later: measured before and after.
        let before = floor::measure(load.calls(), keying);
        let mut row = runtime.block_on(run(load, keying));
        row.floor_percent = f64::midpoint(before, floor::measure(load.calls(), keying));
        row.print(keying);
        rows.push(row);
    }
    if let Some(path) = arguments.iter().find(|one| one.ends_with(".svg")) {
        fs::write(path, plot::draw(&rows)).unwrap();
    }
}

/// How many callers say what the others key.
#[derive(Clone, Copy)]
struct Load {
    speaking: usize,
    keying: usize,
}

impl Load {
    fn calls(self) -> usize {
        self.speaking + self.keying
    }
}

/// What one run showed.
pub struct Row {
    pub calls: usize,
    said: Said,
    /// User and system time of the server, of one core, while all calls were up.
    pub cpu_percent: f64,
    /// The same of a process that only receives and sends as many packets.
    floor_percent: f64,
    /// What each call added to the server's resident memory.
    pub memory_kb: f64,
    failed: usize,
    lost_keys: usize,
    more_keys: usize,
    setup_ms: f64,
    tally: Tally,
}

impl Row {
    fn print(&self, keying: Keying) {
        let Row { calls, cpu_percent, memory_kb, failed, lost_keys, more_keys, setup_ms, .. } =
            self;
        let per_1000 = cpu_percent * 1e3 / *calls as f64;
        let (floor, times) = (self.floor_percent, cpu_percent / self.floor_percent);
        let (pacing, late) = (&self.tally.pacing, &self.tally.late);
        println!(
            "load: {calls} calls, {keying:?}: {cpu_percent:.1} % of a core ({per_1000:.1} % per \
             1,000), {times:.2} times the floor of {floor:.1} %, {setup_ms:.2} ms CPU to set one up, {memory_kb:.1} KB a call, packets off by \
             {:.2}/{:.2}/{:.1} ms (p50/p99/max), {} of {} missing, {lost_keys} keys lost, \
             {more_keys} too many, {failed} calls failed; callers late by {:.2} ms (p99)",
            pacing.quantile_ms(0.5),
            pacing.quantile_ms(0.99),
            pacing.max_ms(),
            self.tally.missing,
            self.tally.received + self.tally.missing,
            late.quantile_ms(0.99),
        );
        let Said { speaking, right, wrong, late, decided_ms } = &self.said;
        if *speaking > 0 {
            let at = |share: f64| decided_ms[((decided_ms.len() - 1) as f64 * share) as usize];
            println!(
                "load: of {speaking} who spoke {right} were heard right, {wrong} otherwise, {late} \
                 too late or not at all; from the end of speech to the decision {}/{}/{} ms \
                 (p50/p99/max)",
                at(0.5),
                at(0.99),
                at(1.0),
            );
        }
    }

    pub fn pacing_p99_ms(&self) -> f64 {
        self.tally.pacing.quantile_ms(0.99)
    }
}

/// What was heard of those who spoke.
#[derive(Default)]
struct Said {
    speaking: usize,
    right: usize,
    wrong: usize,
    late: usize,
    /// From the end of speech to the decision, in order; one zero where nobody was heard.
    decided_ms: Vec<u64>,
}

impl Said {
    /// Lines `SAID <caller> <Unix ms> <last four digits>`, and when each caller had finished.
    fn read(log: &str, ended_ms: &HashMap<usize, u64>) -> Said {
        let mut said = Said { speaking: ended_ms.len(), ..Said::default() };
        for line in log.lines().filter_map(|line| line.strip_prefix("SAID ")) {
            let words: Vec<&str> = line.split(' ').collect();
            let [caller, at, digits] = words[..] else { continue };
            match digits {
                "late" => continue,
                _ if callers::CARD.ends_with(digits) => said.right += 1,
                _ => said.wrong += 1,
            }
            let ended = ended_ms.get(&caller.parse().unwrap_or_default());
            let after = |ended: &u64| at.parse::<u64>().ok()?.checked_sub(*ended);
            said.decided_ms.extend(ended.and_then(after));
        }
        said.late = said.speaking - said.right - said.wrong;
        said.decided_ms.sort_unstable();
        if said.decided_ms.is_empty() {
            said.decided_ms.push(0);
        }
        said
    }
}

async fn run(load: Load, keying: Keying) -> Row {
    let calls = load.calls();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(
        folder.path(),
        calls.div_ceil(CALLS_PER_THREAD),
        load.speaking.div_ceil(SPEAKING_PER_THREAD).max(1),
    )
    .await;
    let (idle_kb, before_ramp) = (server.resident_kb(), server.cpu_ns());
    let callers = Callers::start(keying);
    let (up, mut phones) = ramp(load, server.address, &callers).await;
    let setup_ns = server.cpu_ns() - before_ramp;
    // What comes in the first moments belongs to the set-up.
    sleep(Duration::from_secs(1)).await;
    callers.begin();
    let (begin, before) = (Instant::now(), server.cpu_ns());
    sleep(KEYING).await;
    let used_ns = server.cpu_ns() - before;
    let cpu_percent = 100.0 * used_ns as f64 / begin.elapsed().as_nanos() as f64;
    let memory_kb = server.resident_kb().saturating_sub(idle_kb) as f64 / calls as f64;
    let keyed = callers.finish();
    let mut ended = 0;
    let all_end = async {
        while let Some(phone) = phones.join_next().await {
            ended += usize::from(phone.unwrap());
        }
    };
    let _ = timeout(ENDING, all_end).await;
    let log = fs::read_to_string(folder.path().join("digits.log")).unwrap_or_default();
    let heard = heard(&log);
    let said = Said::read(&log, &keyed.ended_ms);
    let (mut lost_keys, mut more_keys) = (0, 0);
    for (caller, keys) in &keyed.keys {
        let heard = heard.get(caller).map_or("", String::as_str);
        let right = keys.bytes().zip(heard.bytes()).filter(|(a, b)| a == b).count();
        lost_keys += keys.len() - right;
        more_keys += heard.len() - right;
    }
    let idle_share = cpu_percent / 1e2 * (calls as f64 / RAMP) / 2.0;
    let setup_ms = (setup_ns as f64 / 1e9 - idle_share).max(0.0) * 1e3 / calls as f64;
    let failed = calls - ended.min(up);
    let tally = keyed.tally;
    let floor_percent = f64::NAN;
    Row {
        calls,
        said,
        cpu_percent,
        floor_percent,
        memory_kb,
        failed,
        lost_keys,
        more_keys,
        setup_ms,
        tally,
    }
}

/// Places the calls one after the other; how many are up, and the tasks that wait for their ends.
async fn ramp(load: Load, server: SocketAddr, callers: &Callers) -> (usize, JoinSet<bool>) {
    let calls = load.calls();
    let any = SocketAddr::from((Ipv4Addr::new(127, 0, 7, 100), 0));
    let (sip, _offers) =
        Sip::bind(any, Settings::new(any, "Load", calls + 1), [5; 32]).await.unwrap();
    let sip = Arc::new(sip);
    let mut placed = JoinSet::new();
    let begin = Instant::now();
    for nth in 0..calls {
        let due = begin + Duration::from_secs_f64(nth as f64 / RAMP);
        tokio::time::sleep_until(due.into()).await;
        placed.spawn(place(sip.commands(), sip.local(), server, nth, nth < load.speaking));
    }
    let (mut up, mut phones) = (0, JoinSet::new());
    while let Some(call) = placed.join_next().await {
        let Some((caller, mut events)) = call.unwrap() else { continue };
        up += 1;
        callers.add(caller);
        let sip = sip.clone();
        phones.spawn(async move {
            let _alive = sip;
            loop {
                match events.recv().await {
                    Some(Event::Ended { cause, .. }) => return cause == Cause::PeerHungUp,
                    Some(_) => {}
                    None => return false,
                }
            }
        });
    }
    (up, phones)
}

async fn place(
    commands: Commands,
    local: SocketAddr,
    server: SocketAddr,
    nth: usize,
    speaks: bool,
) -> Option<(Caller, tokio::sync::mpsc::Receiver<Event>)> {
    let socket = socket(local.ip());
    let port = socket.local_addr().unwrap().port();
    let ip = local.ip();
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"
    );
    let call = Placement {
        target: format!("sip:{}@{server}", if speaks { "speak" } else { "pay" }),
        destinations: vec![Peer::udp(server)],
        from: format!("sip:{nth}@{local}"),
        headers: Vec::new(),
        sdp: sdp.into_bytes(),
        trunk: Arc::default(),
    };
    let (_, mut events) = commands.invite(call).await.ok()?;
    loop {
        match timeout(Duration::from_secs(40), events.recv()).await.ok()?? {
            Event::Answered { sdp, .. } => {
                let text = String::from_utf8(sdp).ok()?;
                let line = text.lines().find_map(|line| line.strip_prefix("m=audio "))?;
                let remote = line.split(' ').next()?.parse().ok()?;
                socket.connect((server.ip(), remote)).ok()?;
                return Some((Caller::new(nth, socket, speaks), events));
            }
            Event::Ended { .. } => return None,
            _ => {}
        }
    }
}

/// Keys by caller, from the lines that the IVR writes.
fn heard(log: &str) -> HashMap<usize, String> {
    let of = |line: &str| {
        let mut words = line.strip_prefix("DIGITS ")?.split(' ');
        Some((words.next()?.parse().ok()?, words.next()?.to_string()))
    };
    log.lines().filter_map(of).collect()
}

/// The IVR in a process of its own.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    async fn start(folder: &Path, threads: usize, listeners: usize) -> Server {
        let wav = |name: &str, ms: usize| {
            let path = folder.join(name);
            fs::write(&path, callers::wav(ms)).unwrap();
            path
        };
        let free = std::net::UdpSocket::bind((HOST, 0)).unwrap().local_addr().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .env(SERVER, "1")
            .args(["--listen", &free.to_string(), "--calls-max", "20000"])
            .args(["--threads", &threads.to_string(), "--listeners", &listeners.to_string()])
            .args(["--prompt1".into(), wav("1.wav", 60_000), "--prompt2".into(), wav("2.wav", 400)])
            .args(["--log".into(), folder.join("digits.log")])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Server { child, address: free };
        sleep(Duration::from_secs(1)).await;
        server
    }

    fn cpu_ns(&self) -> u64 {
        cpu_ns(self.child.id())
    }

    fn resident_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

/// CPU time of all threads of a process, by the scheduler's own account.
fn cpu_ns(process: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .filter_map(|stat| stat.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
