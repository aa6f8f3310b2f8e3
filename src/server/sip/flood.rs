//! A token bucket per source address, asked before a datagram is looked at.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Datagrams a second from one source in the long run. A trunk sends all its calls from one
/// address: this is some 150 calls a second.
const RATE: f64 = 1_000.0;
/// Datagrams at once.
const BURST: f64 = 2_000.0;
/// Sources remembered one by one; beyond that, strangers share one bucket.
const SOURCES_MAX: usize = 4_096;
/// A bucket untouched for this long is full again and can be forgotten.
const REFILL: Duration = Duration::from_secs((BURST / RATE) as u64);

struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * RATE).min(BURST);
        self.at = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// The buckets of all sources.
pub(super) struct Flood {
    sources: HashMap<IpAddr, Bucket>,
    others: Bucket,
    swept: Instant,
}

impl Flood {
    pub fn new(now: Instant) -> Flood {
        Flood { sources: HashMap::new(), others: Bucket { tokens: BURST, at: now }, swept: now }
    }

    /// Whether a datagram from `source` may be read.
    pub fn admits(&mut self, now: Instant, source: IpAddr) -> bool {
        let source = subscriber(source);
        if let Some(bucket) = self.sources.get_mut(&source) {
            return bucket.take(now);
        }
        // At most one sweep in a refill: a flood of addresses cannot make us sweep for each.
        if self.sources.len() >= SOURCES_MAX && now.saturating_duration_since(self.swept) >= REFILL
        {
            self.swept = now;
            self.sources.retain(|_, bucket| now.saturating_duration_since(bucket.at) < REFILL);
        }
        if self.sources.len() >= SOURCES_MAX {
            return self.others.take(now);
        }
        let mut bucket = Bucket { tokens: BURST, at: now };
        let admitted = bucket.take(now);
        self.sources.insert(source, bucket);
        admitted
    }
}

/// One IPv6 subscriber owns a /64.
fn subscriber(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(ip) => IpAddr::from((u128::from(ip) >> 64 << 64).to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(flood: &mut Flood, now: Instant, source: &str, sent: usize) -> usize {
        let source: IpAddr = source.parse().unwrap();
        (0..sent).filter(|_| flood.admits(now, source)).count()
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn a_source_is_held_to_its_rate_and_others_are_not() {
        let now = Instant::now();
        let mut flood = Flood::new(now);
        assert_eq!(admitted(&mut flood, now, "192.0.2.1", 5_000), 2_000);
        assert_eq!(admitted(&mut flood, now, "192.0.2.2", 10), 10);
        let later = now + Duration::from_millis(500);
        assert_eq!(admitted(&mut flood, later, "192.0.2.1", 5_000), 500);
        let neighbours = ["2001:db8::1", "2001:db8::2"];
        let both: usize = neighbours.map(|n| admitted(&mut flood, now, n, 2_000)).iter().sum();
        assert_eq!(both, 2_000, "one /64, one bucket");
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn the_table_is_bounded_and_recovers() {
        let now = Instant::now();
        let mut flood = Flood::new(now);
        let mut passed = 0;
        for n in 0..10_000_u32 {
            passed += usize::from(flood.admits(now, IpAddr::from(n.to_be_bytes())));
        }
        assert_eq!((flood.sources.len(), passed), (SOURCES_MAX, SOURCES_MAX + 2_000));
        let later = now + REFILL;
        assert_eq!(admitted(&mut flood, later, "192.0.2.1", 5_000), 2_000);
        assert_eq!(flood.sources.len(), 1);
    }
}
