//! Who is let in: requests outside dialogs are matched to a trunk before they cost anything;
//! strangers, scanners and callers that cannot prove who they are get no further.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::auth::{Credentials, Verdict};
use super::super::model::{Draft, Method, Request};
use super::super::profile::{Profile, User};
use super::super::transaction::ServerId;
use super::super::transport::Peer;
use super::super::trunk::{self, Arrival};
use super::{Agent, Intrusion, RETRY_AFTER_S, Strangers};

/// What tools that search for open servers call themselves, in lower case.
const SCANNERS: [&str; 10] = [
    "friendly-scanner",
    "friendly-request",
    "sipvicious",
    "sipcli",
    "sip-scan",
    "sundayddr",
    "vaxsipuseragent",
    "pplsip",
    "eyebeam-scan",
    "sipptk",
];
/// A stranger who tries this many numbers within [`PROBING`] is looking for one that works.
const NUMBERS_MAX: usize = 5;
const PROBING: Duration = Duration::from_secs(60);
/// Strangers remembered at a time.
const STRANGERS_MAX: usize = 1_024;

/// Strangers and the numbers they tried.
#[derive(Default)]
pub(super) struct Probes {
    sources: HashMap<IpAddr, (Instant, Vec<u64>)>,
}

impl Probes {
    /// Whether this stranger tries one number after the other.
    fn tried(&mut self, now: Instant, source: IpAddr, number: &str) -> bool {
        if !self.sources.contains_key(&source) && self.sources.len() >= STRANGERS_MAX {
            self.sources.retain(|_, (since, _)| now.saturating_duration_since(*since) < PROBING);
            if self.sources.len() >= STRANGERS_MAX {
                return false;
            }
        }
        let (since, numbers) = self.sources.entry(source).or_insert((now, Vec::new()));
        if now.saturating_duration_since(*since) >= PROBING {
            (*since, *numbers) = (now, Vec::new());
        }
        let mut hasher = DefaultHasher::new();
        number.hash(&mut hasher);
        let number = hasher.finish();
        if !numbers.contains(&number) && numbers.len() < NUMBERS_MAX {
            numbers.push(number);
        }
        numbers.len() >= NUMBERS_MAX
    }
}

impl Agent {
    /// Whether a request outside dialogs comes from one of our trunks. If not it costs us nothing
    /// but, perhaps, an answer without a transaction.
    pub(super) fn is_known(
        &mut self,
        now: Instant,
        request: &Request,
        peer: &Peer,
        certificate: Option<&[String]>,
    ) -> bool {
        let trunks = &self.settings.trunks;
        let arrival = Arrival::new(peer, certificate);
        if trunks.is_empty() || trunk::admitting(trunks, &arrival).next().is_some() {
            return true;
        }
        let miss = trunk::miss(trunks, &arrival);
        let agent = request.headers.first("User-Agent").unwrap_or_default().to_ascii_lowercase();
        let named = SCANNERS.iter().any(|scanner| agent.contains(scanner));
        let number = request.uri.user().unwrap_or_default();
        let probing = self.probes.tried(now, peer.address.ip(), &number);
        self.counters.strangers += 1;
        self.counters.scanners += u64::from(named || probing);
        let reason = if named || probing { "scanner" } else { miss.reason() };
        self.intrusion(*peer, reason);
        if self.settings.strangers == Strangers::Refuse && !named {
            let reply = self.reply(request, 403, *peer);
            let warning = format!("399 {} \"{miss}\"", self.address(peer));
            let reply = reply.with_reason("Unknown trunk").with("Warning", warning);
            self.transmit(peer.reply_path(&request.core.via), reply.encode());
        }
        false
    }

    /// Whether anything of this peer deserves an answer, malformed as it may be.
    pub(super) fn is_answered(&self, peer: &Peer, certificate: Option<&[String]>) -> bool {
        let trunks = &self.settings.trunks;
        trunks.is_empty()
            || self.settings.strangers == Strangers::Refuse
            || trunk::admitting(trunks, &Arrival::new(peer, certificate)).next().is_some()
    }

    pub(super) fn intrusion(&mut self, peer: Peer, reason: &'static str) {
        self.out.push_back(super::Output::Intrusion(Intrusion { peer, reason }));
    }

    /// The trunk a call belongs to; `None` when the request was answered: it has to authenticate
    /// first, or failed to.
    pub(super) fn authenticated(
        &mut self,
        now: Instant,
        id: ServerId,
        request: &Request,
        peer: Peer,
        certificate: Option<&[String]>,
    ) -> Option<Arc<Profile>> {
        let arrival = Arrival::new(&peer, certificate);
        let candidates: Vec<Arc<Profile>> =
            trunk::admitting(&self.settings.trunks, &arrival).cloned().collect();
        let Some(first) = candidates.first() else {
            if self.settings.trunks.is_empty() {
                return Some(self.anybody.clone());
            }
            self.refuse(now, id, request, peer, 403, &[]);
            return None;
        };
        if first.users.is_empty() {
            return Some(first.clone());
        }
        let known: Vec<Credentials> =
            candidates.iter().flat_map(|trunk| trunk.users.iter().filter_map(proved)).collect();
        let now_s = now.saturating_duration_since(*self.born.get_or_insert(now)).as_secs();
        let values = request.headers.all("Authorization");
        let verdict = self.digest.verify(now_s, values, &request.method, &request.body, &known);
        let stale = match verdict {
            Verdict::Ok(name) => {
                let theirs = |trunk: &&Arc<Profile>| trunk.users.iter().any(|u| u.username == name);
                return candidates.iter().find(theirs).or(Some(first)).cloned();
            }
            Verdict::Malformed => {
                self.refuse(now, id, request, peer, 400, &[]);
                return None;
            }
            Verdict::Missing => false,
            Verdict::Stale | Verdict::Replayed => true,
            Verdict::Wrong => {
                self.counters.unauthenticated += 1;
                self.intrusion(peer, "auth-failed");
                false
            }
        };
        let challenges = self.digest.challenge(now_s, stale);
        let challenges: Vec<(&str, &str)> =
            challenges.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.refuse(now, id, request, peer, 401, &challenges);
        None
    }

    /// Whether a new call finds no room. Its refusal costs us nothing: it is not remembered, and an
    /// INVITE that comes again is judged again (RFC 3261 §8.2.7). One that takes the place of
    /// another call needs no room.
    pub(super) fn is_turned_away(
        &mut self,
        now: Instant,
        request: &Request,
        peer: Peer,
        certificate: Option<&[String]>,
    ) -> bool {
        let new_call = request.method == Method::INVITE
            && request.core.to_tag().is_none()
            && request.headers.first("Replaces").is_none();
        if !new_call || self.transactions.knows(request) {
            return false;
        }
        let arrival = Arrival::new(&peer, certificate);
        let trunk = trunk::admitting(&self.settings.trunks, &arrival).next();
        let trunk = trunk.unwrap_or(&self.anybody);
        let closed = self.draining || self.overloaded;
        if !closed && self.room.admits(now, trunk, &self.settings) {
            return false;
        }
        self.busy(request, peer);
        true
    }

    /// 503 without a transaction.
    pub(super) fn busy(&mut self, request: &Request, peer: Peer) {
        self.counters.overloaded += 1;
        let reply = self.reply(request, 503, peer).with("Retry-After", RETRY_AFTER_S.to_string());
        self.transmit(peer.reply_path(&request.core.via), reply.encode());
    }

    /// A response for requests outside our dialogs, with a tag of its own: always the same for the
    /// same request (RFC 3261 §8.2.7), so that none of it need be remembered.
    pub(super) fn reply(&self, request: &Request, status: u16, source: Peer) -> Draft {
        let core = &request.core;
        let (call, from, branch) = (core.call_id.as_str(), core.from_tag(), core.via.branch());
        let mut hasher = DefaultHasher::new();
        (self.tag_key, call, from, branch, core.cseq).hash(&mut hasher);
        let tag = format!("{:016x}", hasher.finish());
        Draft::response(request, status, source.address, &tag)
            .with("Server", &self.settings.product)
    }

    pub(super) fn refuse(
        &mut self,
        now: Instant,
        id: ServerId,
        request: &Request,
        source: Peer,
        status: u16,
        extra: &[(&str, &str)],
    ) {
        self.counters.refused += 1;
        let mut reply = self.reply(request, status, source);
        for (name, value) in extra {
            reply = reply.with(name, *value);
        }
        match request.method != Method::INVITE && extra.is_empty() {
            true => self.transactions.respond_plainly(now, id, status, reply.encode()),
            false => self.transactions.respond(now, id, status, reply.encode()),
        }
    }

    /// 200 without more to any request but INVITE.
    pub(super) fn confirm(&mut self, now: Instant, id: ServerId, request: &Request, source: Peer) {
        let reply = self.reply(request, 200, source);
        self.transactions.respond_plainly(now, id, 200, reply.encode());
    }

    /// The same answer to a repetition.
    pub(super) fn answer_again(&mut self, request: &Request, source: Peer, status: u16) {
        let reply = match request.method == Method::OPTIONS && status == 200 {
            true => self.abilities(request, source),
            false => self.reply(request, status, source),
        };
        self.transmit(source.reply_path(&request.core.via), reply.encode());
    }
}

/// Credentials whose password is at hand.
pub(super) fn proved(user: &User) -> Option<Credentials> {
    let (username, password) = (user.username.clone(), user.password.known()?.clone());
    Some(Credentials { username, password, realm: user.realm.clone() })
}

/// Whether a request starts something of its own: a transaction outside every dialog.
pub(super) fn is_outside(request: &Request) -> bool {
    request.core.to_tag().is_none() && !matches!(request.method, Method::ACK | Method::CANCEL)
}
