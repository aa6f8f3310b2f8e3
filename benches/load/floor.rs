//! The floor under every server here: as many sockets, packets and slots, and nothing done with
//! what comes. What a server costs beyond it is its own; the floor is the kernel's and the machine's.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::callers::{self, Caller, Callers, Keying};
use super::{HOST, SERVER, cpu_ns};

/// What the variable [`SERVER`] says to the child.
pub const FLOOR: &str = "floor";
const SLOTS: usize = 20;
const SLOT: Duration = Duration::from_millis(1);
/// Turns from one time that a socket is emptied to the next; in others one datagram is taken, as
/// the server's media threads do with a steady peer.
const DRAIN_TURNS: u32 = 8;
const CALLERS: Ipv4Addr = Ipv4Addr::new(127, 0, 7, 100);
/// Before the figure is taken.
const SETTLING: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(5);

/// The same callers at a process that only receives and sends: its user and system time, in per
/// cent of a core.
pub fn measure(calls: usize, keying: Keying) -> f64 {
    let child = Command::new(std::env::current_exe().unwrap())
        .env(SERVER, FLOOR)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Ended(child);
    let sockets: Vec<UdpSocket> = (0..calls).map(|_| callers::socket(CALLERS.into())).collect();
    let ports = sockets.iter().map(|socket| socket.local_addr().unwrap().port().to_string());
    let line = ports.collect::<Vec<_>>().join(" ") + "\n";
    child.0.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    let answered = read_ports(child.0.stdout.as_mut().unwrap());
    let callers = Callers::start(keying);
    for (nth, (socket, port)) in sockets.into_iter().zip(answered).enumerate() {
        socket.connect((HOST, port)).unwrap();
        callers.add(Caller::new(nth, socket, false));
    }
    std::thread::sleep(SETTLING);
    callers.begin();
    let (begin, before) = (Instant::now(), cpu_ns(child.0.id()));
    std::thread::sleep(MEASURED);
    let used = cpu_ns(child.0.id()) - before;
    let percent = 100.0 * used as f64 / begin.elapsed().as_nanos() as f64;
    let tally = callers.finish().tally;
    let expected = calls as f64 * MEASURED.as_secs_f64() * 50.0;
    assert!(tally.received as f64 > 0.9 * expected, "{} of {expected} came", tally.received);
    percent
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The child: a line with the callers' ports in, one with its own out, and then turns.
pub fn serve() {
    let sockets: Vec<UdpSocket> = read_ports(std::io::stdin())
        .into_iter()
        .map(|port| {
            let socket = UdpSocket::bind((HOST, 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket.connect(SocketAddr::from((CALLERS, port))).unwrap();
            socket
        })
        .collect();
    let ports = sockets.iter().map(|socket| socket.local_addr().unwrap().port().to_string());
    println!("{}", ports.collect::<Vec<_>>().join(" "));
    callers::be_prompt();
    let (mut datagram, mut packet) = ([0; 1_500], [0xff; 172]);
    let (mut due, mut turn) = (Instant::now(), 0u32);
    loop {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // All that the callers look at, so that they tell what is missing.
        packet[2..4].copy_from_slice(&((turn / SLOTS as u32) as u16).to_be_bytes());
        for (nth, socket) in sockets.iter().enumerate().skip(turn as usize % SLOTS).step_by(SLOTS) {
            let drains = (turn / SLOTS as u32 + nth as u32).is_multiple_of(DRAIN_TURNS);
            while recv(socket, &mut datagram[..], RecvFlags::empty()).is_ok() && drains {}
            let _ = send(socket, &packet, SendFlags::empty());
        }
        due += SLOT;
        turn = turn.wrapping_add(1);
    }
}

fn read_ports(from: impl std::io::Read) -> Vec<u16> {
    let mut line = String::new();
    BufReader::new(from).read_line(&mut line).unwrap();
    line.split_whitespace().map(|port| port.parse().unwrap()).collect()
}
