//! INVITEs by the thousand from one address, each of a call of its own that nobody pursues.

use std::collections::{BTreeMap, HashSet};
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use ringtill::server::clock;

/// How long answers may still come once nothing is sent any more.
const QUIET: Duration = Duration::from_millis(500);
/// Sent in one go before the clock is looked at and answers are taken.
const BATCH: u64 = 32;

/// What was sent, and what came back.
#[derive(Default)]
pub struct Flood {
    pub sent: u64,
    pub took: Duration,
    /// The calls that got each status, and the last such response.
    pub answers: BTreeMap<u16, (HashSet<u64>, String)>,
}

impl Flood {
    /// Sends from `address` for as long as `limit`, at most `per_second`.
    pub fn of(address: &str, server: SocketAddr, per_second: u32, limit: Duration) -> Flood {
        let socket = UdpSocket::bind((address, 0)).expect("a port");
        socket.set_nonblocking(true).expect("nonblocking");
        let us = socket.local_addr().expect("bound");
        let (mut flood, begin) = (Flood::default(), clock::now());
        loop {
            let passed = clock::now().saturating_duration_since(begin);
            if passed >= limit {
                break;
            }
            let due = (passed.as_secs_f64() * f64::from(per_second)) as u64;
            for _ in 0..due.saturating_sub(flood.sent).min(BATCH) {
                let _ = socket.send_to(invite(us, server, flood.sent).as_bytes(), server);
                flood.sent += 1;
            }
            flood.receive(&socket);
            if flood.sent >= due {
                thread::sleep(Duration::from_micros(500));
            }
        }
        flood.took = clock::now().saturating_duration_since(begin);
        let mut heard = clock::now();
        while clock::now().saturating_duration_since(heard) < QUIET {
            if flood.receive(&socket) {
                heard = clock::now();
            }
            thread::sleep(Duration::from_millis(1));
        }
        flood
    }

    /// The calls that got this status.
    pub fn with(&self, status: u16) -> usize {
        self.answers.get(&status).map_or(0, |(calls, _)| calls.len())
    }

    /// The calls that got any answer.
    pub fn answered(&self) -> usize {
        let calls: HashSet<&u64> = self.answers.values().flat_map(|(calls, _)| calls).collect();
        calls.len()
    }

    /// Takes what has come; whether anything is new.
    fn receive(&mut self, socket: &UdpSocket) -> bool {
        let (mut buffer, mut news) = ([0; 4096], false);
        while let Ok(length) = socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            let status = text.get(8..11).and_then(|status| status.parse().ok());
            let call = text.split("Call-ID: ").nth(1).and_then(|rest| rest.split('@').next());
            let call = call.and_then(|call| call.parse().ok());
            let (Some(status), Some(call)) = (status, call) else { continue };
            let (calls, last) = self.answers.entry(status).or_default();
            news |= calls.insert(call);
            *last = text.into_owned();
        }
        news
    }
}

fn invite(us: SocketAddr, server: SocketAddr, call: u64) -> String {
    let ip = us.ip();
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=audio 9 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"
    );
    format!(
        "INVITE sip:{call}@{server} SIP/2.0\r\n\
         Via: SIP/2.0/UDP {us};branch=z9hG4bK-{call}\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:+12025550199@{us}>;tag=f{call}\r\n\
         To: <sip:{call}@{server}>\r\n\
         Call-ID: {call}@{us}\r\n\
         CSeq: 1 INVITE\r\n\
         Contact: <sip:{us}>\r\n\
         Content-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    )
}
