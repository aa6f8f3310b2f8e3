//! Which key is due next. Time is an argument: this only sorts.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Instant;

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
    use std::time::Duration;

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
