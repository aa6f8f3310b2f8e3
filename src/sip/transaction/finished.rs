//! Server transactions that nothing but repetitions can reach any more, remembered for 64*T1 in
//! a few bytes each: a busy server has tens of thousands of them.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::super::timer::PATIENCE;
use super::Key;

/// They are forgotten together with all of the same second.
const STEP: Duration = Duration::from_secs(1);

/// What a repetition meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Echo {
    /// INVITE whose 2xx was acknowledged: only its ACK can mean something.
    Acknowledged,
    /// Any other, answered with this status.
    Answered(u16),
    /// Not a transaction, but what copies of its request by other paths have in common.
    Merge,
}

pub(super) struct Finished {
    echoes: HashMap<Key, Echo>,
    /// By when they end.
    steps: VecDeque<(Instant, Vec<Key>)>,
    max: usize,
}

impl Finished {
    pub fn new(max: usize) -> Finished {
        Finished { echoes: HashMap::new(), steps: VecDeque::new(), max }
    }

    pub fn len(&self) -> usize {
        self.echoes.len()
    }

    pub fn find(&self, key: Key) -> Option<Echo> {
        self.echoes.get(&key).copied()
    }

    /// Remembers one for 64*T1 and up to a second more. The oldest give way when there is no room.
    pub fn remember(&mut self, now: Instant, key: Key, echo: Echo) {
        while self.echoes.len() >= self.max && !self.steps.is_empty() {
            self.forget_oldest();
        }
        if self.echoes.insert(key, echo).is_some() {
            return;
        }
        let ends = now + PATIENCE;
        match self.steps.back_mut() {
            Some((at, keys)) if *at >= ends => keys.push(key),
            _ => self.steps.push_back((ends + STEP, vec![key])),
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.steps.front().map(|(at, _)| *at)
    }

    pub fn expire(&mut self, now: Instant) {
        while self.deadline().is_some_and(|at| at <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        for key in self.steps.pop_front().into_iter().flat_map(|(_, keys)| keys) {
            self.echoes.remove(&key);
        }
    }
}
