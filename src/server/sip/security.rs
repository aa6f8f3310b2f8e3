//! The line that fail2ban reads, about requests that nobody with business here sends. Its form is
//! fixed, and nothing in it is the sender's to choose but the address it came from.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::sip::agent::Intrusion;

/// One source is told about once in this time; a flood must not fill the disk.
const QUIET: Duration = Duration::from_secs(1);
/// Lines a second, whoever they are about.
const LINES_MAX: u32 = 50;
/// Sources remembered.
const SOURCES_MAX: usize = 4_096;

pub(super) struct Security {
    told: HashMap<IpAddr, Instant>,
    second: Instant,
    lines: u32,
}

impl Security {
    pub fn new(now: Instant) -> Security {
        Security { told: HashMap::new(), second: now, lines: 0 }
    }

    pub fn tell(&mut self, now: Instant, intrusion: Intrusion) {
        if self.is_due(now, intrusion.peer.address.ip()) {
            tracing::warn!("{}", line(&intrusion));
        }
    }

    fn is_due(&mut self, now: Instant, source: IpAddr) -> bool {
        let passed = |at: &Instant| now.saturating_duration_since(*at);
        if passed(&self.second) >= Duration::from_secs(1) {
            (self.second, self.lines) = (now, 0);
        }
        if self.lines >= LINES_MAX || self.told.get(&source).is_some_and(|at| passed(at) < QUIET) {
            return false;
        }
        if self.told.len() >= SOURCES_MAX {
            self.told.retain(|_, at| passed(at) < QUIET);
        }
        self.lines += 1;
        self.told.insert(source, now);
        true
    }
}

fn line(intrusion: &Intrusion) -> String {
    let Intrusion { peer, reason } = intrusion;
    let (proto, src, sport) = (peer.transport, peer.address.ip(), peer.address.port());
    format!("SECURITY rejected proto={proto} src={src} sport={sport} reason={reason}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::Peer;

    #[test]
    fn the_line_is_fixed() {
        let peer = Peer::udp("203.0.113.7:5062".parse().unwrap());
        let told = line(&Intrusion { peer, reason: "unknown-trunk" });
        let want = "SECURITY rejected proto=udp src=203.0.113.7 sport=5062 reason=unknown-trunk";
        assert_eq!(told, want);
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn a_flood_fills_no_disk() {
        let now = Instant::now();
        let mut security = Security::new(now);
        let source = |n: u32| IpAddr::from((0xcb00_0000 + n).to_be_bytes());
        let told = (0..1_000).filter(|_| security.is_due(now, source(1))).count();
        assert_eq!(told, 1, "one source");
        let told = (0..100_000).filter(|n| security.is_due(now, source(*n))).count();
        assert_eq!(told, LINES_MAX as usize - 1, "many");
        let later = now + QUIET;
        assert!(security.is_due(later, source(1)));
        assert!(security.told.len() <= SOURCES_MAX);
    }
}
