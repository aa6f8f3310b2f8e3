//! Trunks asked whether they are there (OPTIONS, RFC 3261 §11). One lost answer is no news: a
//! trunk is taken for gone, and for back, only after several in a row.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::model::{Draft, Method, Response};
use super::super::profile::Profile;
use super::super::transaction::ClientId;
use super::super::transport::Peer;
use super::{Agent, Output};

/// Unanswered in a row before a trunk is gone, and answered before it is back.
const GONE: u8 = 3;
const BACK: u8 = 2;

/// One trunk that is watched.
pub(super) struct Ping {
    trunk: Arc<Profile>,
    server: Peer,
    due: Instant,
    pending: Option<ClientId>,
    /// Alike answers in a row, and whether they were.
    run: (bool, u8),
    /// As last told.
    up: Option<bool>,
}

impl Ping {
    /// Counts one more ping; whether the trunk is up, when that is news.
    fn count(&mut self, answered: bool) -> Option<bool> {
        let (last, times) = self.run;
        self.run = (answered, if last == answered { times.saturating_add(1) } else { 1 });
        let enough = match (self.up, answered) {
            (None, true) => 1,
            (_, true) => BACK,
            (_, false) => GONE,
        };
        let changed = self.run.1 >= enough && self.up != Some(answered);
        changed.then(|| *self.up.insert(answered))
    }
}

impl Agent {
    /// Watches a trunk's first server from now on.
    pub(super) fn watch(&mut self, now: Instant, trunk: Arc<Profile>, server: Peer) {
        let (due, pending, run, up) = (now, None, (true, 0), None);
        self.pings.retain(|ping| ping.trunk.name != trunk.name);
        self.pings.push(Ping { trunk, server, due, pending, run, up });
    }

    pub(super) fn ping(&mut self, now: Instant) {
        let mut pings = std::mem::take(&mut self.pings);
        for ping in pings.iter_mut().filter(|ping| ping.due <= now && ping.pending.is_none()) {
            ping.due = now + Duration::from_secs(ping.trunk.options_s.max(1).into());
            let uri =
                ping.trunk.proxy.clone().unwrap_or_else(|| format!("sip:{}", ping.server.address));
            let us = self.contact(&ping.server, &ping.trunk);
            let (branch, call_id, tag) = (self.branch(), self.token(), self.token());
            let draft = Draft::request(&Method::OPTIONS, &uri)
                .with("Via", self.via(&branch, &ping.server))
                .with("Max-Forwards", "70")
                .with("From", format!("<{us}>;tag={tag}"))
                .with("To", format!("<{uri}>"))
                .with("Call-ID", call_id)
                .with("CSeq", "1 OPTIONS")
                .with("Contact", format!("<{us}>"))
                .with("Accept", "application/sdp")
                .with("User-Agent", &self.settings.product);
            let id = self.transactions.send(now, &Method::OPTIONS, &branch, draft, ping.server);
            ping.pending = Some(id);
        }
        self.pings = pings;
    }

    pub(super) fn pings_due(&self) -> Option<Instant> {
        self.pings.iter().filter(|ping| ping.pending.is_none()).map(|ping| ping.due).min()
    }

    /// Whether a response is to a ping of ours. Any answer will do but those of somebody on the
    /// way who says that nobody is there.
    pub(super) fn pinged(&mut self, id: ClientId, response: &Response) -> bool {
        let is_final = response.status >= 200;
        let answered = !matches!(response.status, 408 | 502 | 503 | 504);
        self.ping_over(id, is_final.then_some(answered))
    }

    /// The same for a ping that got no answer.
    pub(super) fn unpinged(&mut self, id: ClientId) -> bool {
        self.ping_over(id, Some(false))
    }

    fn ping_over(&mut self, id: ClientId, outcome: Option<bool>) -> bool {
        let Some(ping) = self.pings.iter_mut().find(|ping| ping.pending == Some(id)) else {
            return false;
        };
        let Some(answered) = outcome else { return true };
        ping.pending = None;
        if let Some(up) = ping.count(answered) {
            let trunk = ping.trunk.clone();
            self.out.push_back(Output::Reachable { trunk, up });
        }
        true
    }
}
