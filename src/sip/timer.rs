//! The timers of RFC 3261 §17: which key is due next, and messages repeated at growing intervals.
//! Time is an argument.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Round-trip estimate (RFC 3261 §17.1.1.1).
pub(super) const T1: Duration = Duration::from_millis(500);
/// Longest interval between retransmissions.
pub(super) const T2: Duration = Duration::from_secs(4);
/// How long a message may wander in the network.
pub(super) const T4: Duration = Duration::from_secs(5);
/// 64*T1: how long an unanswered message is worth repeating (timers B, F, H, J, L, M).
pub(super) const PATIENCE: Duration = Duration::from_secs(32);

/// When to repeat a message: after T1, then at doubled intervals up to the longest.
#[derive(Debug)]
pub(super) struct Repeat {
    pub at: Instant,
    interval: Duration,
    longest: Duration,
}

impl Repeat {
    pub fn new(now: Instant, longest: Duration) -> Repeat {
        Repeat { at: now + T1, interval: T1, longest }
    }

    /// Whether it is time; if so the next time is set.
    pub fn is_due(&mut self, now: Instant) -> bool {
        if self.at > now {
            return false;
        }
        self.interval = (self.interval * 2).min(self.longest);
        self.at = now + self.interval;
        true
    }

    /// From here on at the longest interval only (RFC 3261 §17.1.2.2, Proceeding).
    pub fn slow_down(&mut self) {
        self.interval = self.longest;
    }
}

/// At most one due time for each key.
#[derive(Debug, Default)]
pub(super) struct Timers<K> {
    queue: BTreeSet<(Instant, K)>,
    due: HashMap<K, Instant>,
}

impl<K: Copy + Ord + Hash> Timers<K> {
    pub fn new() -> Timers<K> {
        Timers { queue: BTreeSet::new(), due: HashMap::new() }
    }

    /// Replaces the due time of `key`; `None` removes it.
    pub fn set(&mut self, key: K, at: Option<Instant>) {
        let before = match at {
            Some(at) => self.due.insert(key, at),
            None => self.due.remove(&key),
        };
        if let Some(before) = before {
            self.queue.remove(&(before, key));
        }
        if let Some(at) = at {
            self.queue.insert((at, key));
        }
    }

    pub fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes one key whose time has come.
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        let (at, key) = *self.queue.first()?;
        if at > now {
            return None;
        }
        self.set(key, None);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn keys_come_out_in_order_of_their_latest_time() {
        let start = Instant::now();
        let at = |ms| Some(start + Duration::from_millis(ms));
        let mut timers = Timers::new();
        timers.set(1, at(30));
        timers.set(2, at(20));
        timers.set(3, at(10));
        timers.set(3, at(40));
        timers.set(2, None);
        assert_eq!(timers.next(), at(30));
        assert_eq!(timers.pop(start), None);
        let late = start + Duration::from_secs(1);
        assert_eq!(
            [timers.pop(late), timers.pop(late), timers.pop(late)],
            [Some(1), Some(3), None]
        );
        assert_eq!(timers.next(), None);
    }
}
