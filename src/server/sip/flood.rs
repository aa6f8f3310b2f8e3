//! A token bucket per source address, asked before a datagram is looked at.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

/// Sources remembered one by one; beyond that, strangers share one bucket.
const SOURCES_MAX: usize = 4_096;
/// A bucket holds this much; one untouched for as long is full again and can be forgotten.
const REFILL: Duration = Duration::from_secs(2);
/// What a stranger may send of what a trunk's address may.
const STRANGER: f64 = 0.05;

/// How much an address may send.
#[derive(Clone, Debug)]
pub struct Rates {
    /// Networks of trunks.
    pub trunks: Vec<IpNet>,
    /// Messages a second from one address of theirs, in the long run.
    pub per_second: u32,
}

impl Default for Rates {
    fn default() -> Rates {
        Rates { trunks: Vec::new(), per_second: 10_000 }
    }
}

impl Rates {
    fn of(&self, source: IpAddr) -> f64 {
        let rate = f64::from(self.per_second);
        match self.trunks.is_empty() || self.trunks.iter().any(|net| net.contains(&source)) {
            true => rate,
            false => rate * STRANGER,
        }
    }
}

struct Bucket {
    tokens: f64,
    rate: f64,
    at: Instant,
}

impl Bucket {
    fn full(now: Instant, rate: f64) -> Bucket {
        Bucket { tokens: rate * REFILL.as_secs_f64(), rate, at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let most = self.rate * REFILL.as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(most);
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
    rates: Rates,
}

impl Flood {
    pub fn new(now: Instant, rates: Rates) -> Flood {
        let others = Bucket::full(now, f64::from(rates.per_second) * STRANGER);
        Flood { sources: HashMap::new(), others, swept: now, rates }
    }

    /// Whether a datagram from `source` may be read.
    pub fn admits(&mut self, now: Instant, source: IpAddr) -> bool {
        let rate = self.rates.of(source);
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
        let mut bucket = Bucket::full(now, rate);
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

    fn flood(now: Instant) -> Flood {
        let trunks = ["192.0.2.0/24", "2001:db8::/32"].map(|net| net.parse().unwrap()).to_vec();
        Flood::new(now, Rates { trunks, per_second: 1_000 })
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn a_source_is_held_to_its_rate_and_others_are_not() {
        let now = Instant::now();
        let mut flood = flood(now);
        assert_eq!(admitted(&mut flood, now, "192.0.2.1", 5_000), 2_000);
        assert_eq!(admitted(&mut flood, now, "192.0.2.2", 10), 10);
        assert_eq!(admitted(&mut flood, now, "198.51.100.1", 5_000), 100, "a stranger");
        let later = now + Duration::from_millis(500);
        assert_eq!(admitted(&mut flood, later, "192.0.2.1", 5_000), 500);
        assert_eq!(admitted(&mut flood, later, "198.51.100.1", 5_000), 25);
        let neighbours = ["2001:db8::1", "2001:db8::2"];
        let both: usize = neighbours.map(|n| admitted(&mut flood, now, n, 2_000)).iter().sum();
        assert_eq!(both, 2_000, "one /64, one bucket");
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn the_table_is_bounded_and_recovers() {
        let now = Instant::now();
        let mut flood = flood(now);
        let mut passed = 0;
        for n in 0..10_000_u32 {
            let source = IpAddr::from((0x0a00_0000 + n).to_be_bytes());
            passed += usize::from(flood.admits(now, source));
        }
        assert_eq!((flood.sources.len(), passed), (SOURCES_MAX, SOURCES_MAX + 100));
        let later = now + REFILL;
        assert_eq!(admitted(&mut flood, later, "192.0.2.1", 5_000), 2_000);
        assert_eq!(flood.sources.len(), 1);
    }
}
