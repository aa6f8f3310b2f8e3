//! Which RTP ports are free: in random order, and resting after use so that late packets of one
//! call never reach the next.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use rand::seq::SliceRandom;

/// How long a port rests.
const QUARANTINE: Duration = Duration::from_secs(10);

/// Even ports; the odd one above each belongs to it.
pub(super) struct Ports {
    /// The one that has rested longest first, with when it may be used.
    free: VecDeque<(u16, Option<Instant>)>,
}

impl Ports {
    pub(super) fn new(range: RangeInclusive<u16>) -> Ports {
        let last = *range.end();
        let mut even: Vec<u16> = range.filter(|port| port % 2 == 0 && *port < last).collect();
        even.shuffle(&mut rand::rng());
        Ports { free: even.into_iter().map(|port| (port, None)).collect() }
    }

    pub(super) fn len(&self) -> usize {
        self.free.len()
    }

    pub(super) fn take(&mut self, now: Instant) -> Option<u16> {
        let (_, rests_until) = self.free.front()?;
        if rests_until.is_some_and(|until| now < until) {
            return None;
        }
        self.free.pop_front().map(|(port, _)| port)
    }

    pub(super) fn give_back(&mut self, port: u16, now: Instant) {
        self.free.push_back((port, Some(now + QUARANTINE)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn a_port_rests_after_use() {
        let now = Instant::now();
        let mut ports = Ports::new(20_000..=20_003);
        assert_eq!(ports.len(), 2);
        let first = ports.take(now).unwrap();
        assert!(ports.take(now).is_some() && ports.take(now).is_none());
        ports.give_back(first, now);
        assert_eq!(ports.take(now + Duration::from_secs(9)), None);
        assert_eq!(ports.take(now + Duration::from_secs(10)), Some(first));
    }
}
