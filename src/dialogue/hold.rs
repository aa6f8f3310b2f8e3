//! What a caller hears while the gateway thinks: something after two seconds, then every six.

use std::time::{Duration, Instant};

use crate::prompt::Prompt;

const FIRST: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_secs(6);

/// Runs from its creation until it is dropped.
pub struct Hold {
    next: Instant,
    said: bool,
}

impl Hold {
    pub fn new(now: Instant) -> Hold {
        Hold { next: now + FIRST, said: false }
    }

    pub fn deadline(&self) -> Instant {
        self.next
    }

    /// What is due to be said at `now`.
    pub fn timeout(&mut self, now: Instant) -> Option<Prompt> {
        if now < self.next {
            return None;
        }
        self.next = now + AGAIN;
        let first = !std::mem::replace(&mut self.said, true);
        Some(Prompt::Phrase(if first { "charge.wait" } else { "charge.still_waiting" }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn speaks_at_two_seconds_and_then_every_six() {
        let start = Instant::now();
        let mut hold = Hold::new(start);
        let said: Vec<u64> =
            (0..=14).filter(|s| hold.timeout(start + Duration::from_secs(*s)).is_some()).collect();
        assert_eq!(said, [2, 8, 14]);
    }
}
