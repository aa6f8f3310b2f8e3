//! One lookup, over as many requests as the dialect needs.

use super::{Exchange, Found, Gateway, Lookup, Request};

/// Ask for a request, send it, tell what came of it, until there is none.
pub struct Search<'a> {
    gateway: &'a dyn Gateway,
    lookup: Lookup<'a>,
    left: usize,
    found: Option<Found>,
}

/// Requests of one lookup; one that would need more is put off.
pub const STEPS_MAX: usize = 40;

impl<'a> Search<'a> {
    pub fn new(gateway: &'a dyn Gateway, lookup: Lookup<'a>) -> Search<'a> {
        Search { gateway, lookup, left: STEPS_MAX, found: None }
    }

    /// What to send next; `None` when the search has ended.
    pub fn request(&mut self) -> Option<Request> {
        if self.found.is_some() {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        self.gateway.lookup(&self.lookup).ok()
    }

    pub fn answered(&mut self, exchange: &Exchange) {
        match self.gateway.found(&self.lookup, exchange) {
            Found::More(step) => self.lookup.step = step,
            found => self.found = Some(found),
        }
    }

    /// What was found, [`Found::NotYet`] if the search could not be ended.
    pub fn found(self) -> Found {
        self.found.unwrap_or(Found::NotYet)
    }
}
