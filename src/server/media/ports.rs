//! Media ports: even ones in random order, so that none can be guessed, and each rests after use,
//! so that the last call's stragglers do not reach the next.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// How long a port rests, and how long at least when there is no other.
const QUARANTINE: Duration = Duration::from_secs(10);
const QUARANTINE_MIN: Duration = Duration::from_secs(1);

pub struct Ports {
    free: VecDeque<u16>,
    /// Oldest first.
    resting: VecDeque<(Instant, u16)>,
}

impl Ports {
    /// Even ports whose odd neighbour is in the range too.
    pub fn new(range: RangeInclusive<u16>, seed: u64) -> Ports {
        let mut free: Vec<u16> = range
            .clone()
            .filter(|port| port % 2 == 0 && *port > 0 && range.contains(&(port | 1)))
            .collect();
        free.shuffle(&mut StdRng::seed_from_u64(seed));
        Ports { free: free.into(), resting: VecDeque::new() }
    }

    pub fn take(&mut self, now: Instant) -> Option<u16> {
        while let Some(&(since, port)) = self.resting.front()
            && now.saturating_duration_since(since) >= QUARANTINE
        {
            self.resting.pop_front();
            self.free.push_back(port);
        }
        self.free.pop_front().or_else(|| {
            let rested = |&(since, _): &_| now.saturating_duration_since(since) >= QUARANTINE_MIN;
            self.resting.pop_front_if(|oldest| rested(oldest)).map(|(_, port)| port)
        })
    }

    pub fn give_back(&mut self, now: Instant, port: u16) {
        self.resting.push_back((now, port));
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_even_each_given_once_and_rest_after_use() {
        let mut now = Instant::now();
        let mut ports = Ports::new(4001..=4008, 1);
        let mut taken: Vec<u16> = std::iter::from_fn(|| ports.take(now)).collect();
        taken.sort();
        assert_eq!(taken, [4002, 4004, 4006]);
        ports.give_back(now, 4004);
        now += QUARANTINE_MIN - Duration::from_millis(1);
        assert_eq!(ports.take(now), None);
        now += Duration::from_millis(1);
        assert_eq!((ports.take(now), ports.take(now)), (Some(4004), None), "there is no other");
        ports.give_back(now, 4004);
        now += QUARANTINE;
        ports.give_back(now, 4002);
        assert_eq!(ports.take(now), Some(4004));
        assert_eq!(ports.take(now), None, "this one has not rested");
    }

    #[test]
    fn their_order_is_chance() {
        let order = |seed| {
            let mut ports = Ports::new(10_000..=10_999, seed);
            let now = Instant::now();
            std::iter::from_fn(|| ports.take(now)).collect::<Vec<_>>()
        };
        assert_eq!(order(1).len(), 500);
        assert_ne!(order(1), order(2));
    }

    #[test]
    fn the_last_port_of_all_has_no_neighbour() {
        let mut ports = Ports::new(65_533..=65_535, 1);
        let now = Instant::now();
        assert_eq!((ports.take(now), ports.take(now)), (Some(65_534), None));
    }
}
