//! Client and server transactions (RFC 3261 §17 with RFC 6026). They are told the time,
//! retransmit by themselves, and tell the user agent only what is news.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::model::{Draft, Method, Request, Response};
use super::timer::{PATIENCE, Repeat, T2, T4, Timers};
use super::transport::Peer;
use finished::{Echo, Finished};

mod finished; // what only repetitions can reach any more

const ZERO: Duration = Duration::ZERO;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(u64);

/// What a request turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A new transaction: answer it with [`Transactions::respond`].
    New(ServerId),
    /// The same request over another path (RFC 3261 §8.2.2.2): answer 482.
    Merged(ServerId),
    /// A retransmission, or an ACK that ends here: done.
    Absorbed,
    /// A repetition of what [`Transactions::respond_plainly`] answered with this status: answer
    /// it so again, without a transaction.
    Again(u16),
    /// An ACK for the dialog: its INVITE was accepted.
    Ack,
    /// No room: answer 503 without a transaction.
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Server: no final response yet. Client: no response yet.
    Trying,
    /// A provisional response went by.
    Proceeding,
    /// Final response; of an INVITE, other than 2xx.
    Completed,
    /// INVITE server: the ACK for the refusal came.
    Confirmed,
    /// INVITE with 2xx (RFC 6026 §7).
    Accepted,
}

/// What identifies a transaction, hashed with keys of our own: nobody can make two meet, and by
/// chance they do once in 2^64 / 500,000 requests.
type Key = u64;

struct Server {
    key: Key,
    merge: Option<Key>,
    invite: bool,
    /// INVITE outside a dialog.
    new_call: bool,
    state: State,
    /// Where its responses go.
    destination: Peer,
    last: Option<Bytes>,
    repeat: Option<Repeat>,
    expires: Option<Instant>,
}

struct Client {
    key: (String, String),
    /// Kept to derive ACK from, and to send it again.
    draft: Box<Draft>,
    invite: bool,
    state: State,
    destination: Peer,
    bytes: Bytes,
    ack: Option<Bytes>,
    repeat: Option<Repeat>,
    expires: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Id {
    Server(ServerId),
    Client(ClientId),
}

/// All transactions of one user agent.
pub struct Transactions {
    next: u64,
    servers_max: usize,
    servers: HashMap<ServerId, Server>,
    /// Those of new calls among them.
    new_calls: usize,
    server_keys: HashMap<Key, ServerId>,
    merges: HashSet<Key>,
    finished: Finished,
    hash: RandomState,
    clients: HashMap<ClientId, Client>,
    client_keys: HashMap<(String, String), ClientId>,
    timers: Timers<Id>,
    transmits: VecDeque<(Peer, Bytes)>,
    timeouts: VecDeque<ClientId>,
    /// Answered, and nothing more can come.
    ended: VecDeque<ClientId>,
    retransmissions: u64,
}

impl Transactions {
    /// At most `servers_max` server transactions exist at a time, half of them for new calls:
    /// however many come, those that run can be ended. As many finished ones are remembered.
    pub fn new(servers_max: usize) -> Transactions {
        Transactions {
            next: 0,
            servers_max,
            servers: HashMap::new(),
            new_calls: 0,
            server_keys: HashMap::new(),
            merges: HashSet::new(),
            finished: Finished::new(servers_max),
            hash: RandomState::new(),
            clients: HashMap::new(),
            client_keys: HashMap::new(),
            timers: Timers::new(),
            transmits: VecDeque::new(),
            timeouts: VecDeque::new(),
            ended: VecDeque::new(),
            retransmissions: 0,
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.timers.next().into_iter().chain(self.finished.deadline()).min()
    }

    /// A datagram to send.
    pub fn poll_transmit(&mut self) -> Option<(Peer, Bytes)> {
        self.transmits.pop_front()
    }

    /// A client transaction that got no answer in time; it is gone.
    pub fn poll_timeout(&mut self) -> Option<ClientId> {
        self.timeouts.pop_front()
    }

    /// A client transaction that was answered and of which nothing more can come.
    pub fn poll_ended(&mut self) -> Option<ClientId> {
        self.ended.pop_front()
    }

    /// Messages repeated since the last call, because no answer came or the peer repeated itself.
    pub fn take_retransmissions(&mut self) -> u64 {
        std::mem::take(&mut self.retransmissions)
    }

    pub fn len(&self) -> usize {
        self.servers.len() + self.clients.len() + self.finished.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Matches a request to its transaction or starts one (RFC 3261 §17.2.3).
    pub fn receive_request(&mut self, now: Instant, request: &Request, source: Peer) -> Received {
        let key = self.key(request, &request.method);
        let is_ack = request.method == Method::ACK;
        if let Some(id) = self.server_keys.get(&key).copied() {
            return self.repeated(now, id, is_ack);
        }
        match self.finished.find(key) {
            Some(_) if is_ack => return Received::Ack,
            Some(Echo::Answered(status)) => {
                self.retransmissions += 1;
                return Received::Again(status);
            }
            Some(Echo::Acknowledged | Echo::Merge) => return Received::Absorbed,
            None if is_ack => return Received::Ack,
            None => {}
        }
        let invite = request.method == Method::INVITE;
        let new_call = invite && request.core.to_tag().is_none();
        let crowded = new_call && self.new_calls >= self.servers_max.div_ceil(2);
        if crowded || self.servers.len() >= self.servers_max {
            return Received::Full;
        }
        self.new_calls += usize::from(new_call);
        self.next += 1;
        let id = ServerId(self.next);
        let merge = self.merge_key(request);
        let merged = merge.is_some_and(|merge| {
            self.merges.contains(&merge) || self.finished.find(merge).is_some()
        });
        let merge = merge.filter(|_| !merged);
        self.merges.extend(merge);
        self.server_keys.insert(key, id);
        let server = Server {
            key,
            merge,
            invite,
            new_call,
            state: State::Trying,
            destination: source.reply_path(&request.core.via),
            last: None,
            repeat: None,
            expires: None,
        };
        self.servers.insert(id, server);
        if merged { Received::Merged(id) } else { Received::New(id) }
    }

    fn repeated(&mut self, now: Instant, id: ServerId, is_ack: bool) -> Received {
        let Some(server) = self.servers.get_mut(&id) else { return Received::Absorbed };
        if is_ack {
            match server.state {
                // Only a peer that reuses the branch (RFC 2543) gets here.
                State::Accepted => return Received::Ack,
                State::Completed if server.invite => {
                    server.state = State::Confirmed;
                    server.repeat = None;
                    let wait = if server.destination.transport.is_reliable() { ZERO } else { T4 };
                    server.expires = Some(now + wait);
                    self.schedule_server(id);
                }
                _ => {}
            }
            return Received::Absorbed;
        }
        if let (Some(last), false) = (&server.last, server.state == State::Confirmed) {
            self.retransmissions += 1;
            self.transmits.push_back((server.destination, last.clone()));
        }
        Received::Absorbed
    }

    /// Whether a request belongs to a transaction that is there already.
    pub fn knows(&self, request: &Request) -> bool {
        let key = self.key(request, &request.method);
        self.server_keys.contains_key(&key) || self.finished.find(key).is_some()
    }

    /// Whether the INVITE that a CANCEL means is over: accepted, and that acknowledged.
    pub fn is_over(&self, cancel: &Request) -> bool {
        self.finished.find(self.key(cancel, &Method::INVITE)).is_some()
    }

    /// The INVITE transaction that a CANCEL means (RFC 3261 §9.2).
    pub fn cancelled(&self, cancel: &Request) -> Option<ServerId> {
        self.server_keys.get(&self.key(cancel, &Method::INVITE)).copied()
    }

    /// Sends a response; after a final one only repetitions follow.
    pub fn respond(&mut self, now: Instant, id: ServerId, status: u16, bytes: Bytes) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        if !matches!(server.state, State::Trying | State::Proceeding) {
            return;
        }
        self.transmits.push_back((server.destination, bytes.clone()));
        server.last = Some(bytes);
        server.state = match (status, server.invite) {
            (100..200, _) => State::Proceeding,
            (200..300, true) => State::Accepted,
            _ => State::Completed,
        };
        let reliable = server.destination.transport.is_reliable();
        server.expires = match server.state {
            State::Proceeding => None,
            // A stream brings no request twice (timer J).
            State::Completed if reliable && !server.invite => Some(now),
            _ => Some(now + PATIENCE),
        };
        if server.state == State::Completed && server.invite && !reliable {
            server.repeat = Some(Repeat::new(now, T2));
        }
        self.schedule_server(id);
    }

    /// Sends a final response, other than to INVITE, that its request alone determines. It is not
    /// kept: see [`Received::Again`].
    pub fn respond_plainly(&mut self, now: Instant, id: ServerId, status: u16, bytes: Bytes) {
        let Some(server) = self.servers.get(&id) else { return };
        self.transmits.push_back((server.destination, bytes));
        // A stream brings no request twice (timer J).
        self.finish(now, id, Echo::Answered(status));
    }

    /// The ACK for the 2xx of this INVITE came: only repetitions follow.
    pub fn acknowledged(&mut self, now: Instant, id: ServerId) {
        self.finish(now, id, Echo::Acknowledged);
    }

    fn finish(&mut self, now: Instant, id: ServerId, echo: Echo) {
        let Some(server) = self.servers.get(&id) else { return };
        if !server.destination.transport.is_reliable() {
            self.finished.remember(now, server.key, echo);
            if let Some(merge) = server.merge {
                self.finished.remember(now, merge, Echo::Merge);
            }
        }
        self.timers.set(Id::Server(id), None);
        self.drop_server(id);
    }

    /// The request of a client transaction and where it went, while it is remembered.
    pub fn sent(&self, id: ClientId) -> Option<(&Draft, Peer)> {
        self.clients.get(&id).map(|client| (client.draft.as_ref(), client.destination))
    }

    /// Where the responses of a transaction go.
    pub fn destination(&self, id: ServerId) -> Option<Peer> {
        self.servers.get(&id).map(|server| server.destination)
    }

    /// Sends a request and repeats it until it is answered or given up. Not for ACK.
    pub fn send(
        &mut self,
        now: Instant,
        method: &Method,
        branch: &str,
        draft: Draft,
        destination: Peer,
    ) -> ClientId {
        self.next += 1;
        let id = ClientId(self.next);
        let bytes = draft.encode();
        self.transmits.push_back((destination, bytes.clone()));
        let invite = *method == Method::INVITE;
        let key = (branch.to_string(), method.to_string());
        self.client_keys.insert(key.clone(), id);
        let client = Client {
            key,
            draft: Box::new(draft),
            invite,
            state: State::Trying,
            destination,
            bytes,
            ack: None,
            repeat: (!destination.transport.is_reliable())
                .then(|| Repeat::new(now, if invite { PATIENCE } else { T2 })),
            expires: Some(now + PATIENCE),
        };
        self.clients.insert(id, client);
        self.schedule_client(id);
        id
    }

    /// The transaction a response belongs to, if the user agent should see it. Refusals of INVITE
    /// are acknowledged here; each 2xx to INVITE is passed on, for the dialog to acknowledge.
    pub fn receive_response(&mut self, now: Instant, response: &Response) -> Option<ClientId> {
        let key = (response.core.via.branch().to_string(), response.core.method.to_string());
        let id = *self.client_keys.get(&key)?;
        let client = self.clients.get_mut(&id)?;
        let pending = matches!(client.state, State::Trying | State::Proceeding);
        let news = match (response.status, client.invite) {
            (100..200, invite) if pending => {
                client.state = State::Proceeding;
                if invite {
                    (client.repeat, client.expires) = (None, None);
                } else if let Some(repeat) = &mut client.repeat {
                    repeat.slow_down();
                }
                true
            }
            (200..300, true) if pending || client.state == State::Accepted => {
                if pending {
                    client.finish(State::Accepted, now + PATIENCE);
                }
                true
            }
            (300.., true) if pending => {
                let to = response.headers.first("To").unwrap_or_default();
                let ack = Some(client.draft.ack(to).encode());
                client.finish(State::Completed, now + client.linger(PATIENCE));
                client.ack = ack;
                self.transmits.extend(client.ack.clone().map(|ack| (client.destination, ack)));
                true
            }
            (300.., true) if client.state == State::Completed => {
                self.retransmissions += 1;
                self.transmits.extend(client.ack.clone().map(|ack| (client.destination, ack)));
                false
            }
            (200.., false) if pending => {
                client.finish(State::Completed, now + client.linger(T4));
                true
            }
            _ => false,
        };
        self.schedule_client(id);
        news.then_some(id)
    }

    /// Waits no longer than 64*T1 for the final answer of an INVITE that was cancelled.
    pub fn give_up(&mut self, now: Instant, id: ClientId) {
        if let Some(client) = self.clients.get_mut(&id)
            && matches!(client.state, State::Trying | State::Proceeding)
        {
            client.expires = Some(now + PATIENCE);
            self.schedule_client(id);
        }
    }

    /// Forgets a client transaction whose end nobody waits for any more.
    pub fn forget(&mut self, id: ClientId) {
        if let Some(client) = self.clients.remove(&id) {
            self.client_keys.remove(&client.key);
            self.timers.set(Id::Client(id), None);
        }
    }

    /// Gives up what waits for an answer from a peer that cannot be reached (RFC 3261 §18.4).
    pub fn unreachable(&mut self, peer: &Peer) {
        let lost = |client: &Client| {
            let pending = matches!(client.state, State::Trying | State::Proceeding);
            pending && client.destination.is_lost_with(peer)
        };
        let lost: Vec<ClientId> =
            self.clients.iter().filter(|(_, client)| lost(client)).map(|(id, _)| *id).collect();
        for id in lost {
            self.timeouts.push_back(id);
            self.forget(id);
        }
    }

    /// Repeats and ends what is due.
    pub fn expire(&mut self, now: Instant) {
        self.finished.expire(now);
        while let Some(id) = self.timers.pop(now) {
            match id {
                Id::Server(id) => self.expire_server(now, id),
                Id::Client(id) => self.expire_client(now, id),
            }
        }
    }

    fn expire_server(&mut self, now: Instant, id: ServerId) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        if server.expires.is_some_and(|at| at <= now) {
            self.drop_server(id);
            return;
        }
        if let (Some(repeat), Some(last)) = (&mut server.repeat, &server.last)
            && repeat.is_due(now)
        {
            self.retransmissions += 1;
            self.transmits.push_back((server.destination, last.clone()));
        }
        self.schedule_server(id);
    }

    fn drop_server(&mut self, id: ServerId) {
        if let Some(server) = self.servers.remove(&id) {
            self.new_calls -= usize::from(server.new_call);
            self.server_keys.remove(&server.key);
            if let Some(merge) = server.merge {
                self.merges.remove(&merge);
            }
        }
    }

    fn expire_client(&mut self, now: Instant, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if client.expires.is_some_and(|at| at <= now) {
            if matches!(client.state, State::Trying | State::Proceeding) {
                self.timeouts.push_back(id);
            } else {
                self.ended.push_back(id);
            }
            self.forget(id);
            return;
        }
        if let Some(repeat) = &mut client.repeat
            && repeat.is_due(now)
        {
            self.retransmissions += 1;
            self.transmits.push_back((client.destination, client.bytes.clone()));
        }
        self.schedule_client(id);
    }

    fn schedule_server(&mut self, id: ServerId) {
        let server = self.servers.get(&id);
        let at = server.and_then(|server| earliest(&server.repeat, server.expires));
        self.timers.set(Id::Server(id), at);
    }

    fn schedule_client(&mut self, id: ClientId) {
        let client = self.clients.get(&id);
        let at = client.and_then(|client| earliest(&client.repeat, client.expires));
        self.timers.set(Id::Client(id), at);
    }

    /// Branch, sent-by and method, ACK counting as INVITE; for a branch without the magic cookie
    /// the RFC 2543 fields. The To tag is left out of those: an ACK has one that its INVITE lacked.
    fn key(&self, request: &Request, method: &Method) -> Key {
        let core = &request.core;
        let method = if *method == Method::ACK { &Method::INVITE } else { method };
        let branch = core.via.branch();
        let mut hasher = self.hash.build_hasher();
        match branch.strip_prefix("z9hG4bK") {
            Some(rest) if !rest.is_empty() => {
                ("branch", method.as_str(), branch).hash(&mut hasher);
                core.via.sent_by.bytes().for_each(|b| hasher.write_u8(b.to_ascii_lowercase()));
            }
            _ => {
                let via = request.headers.list("Via").next().unwrap_or_default();
                let (uri, call) = (request.uri.as_str(), core.call_id.as_str());
                ("fields", method.as_str(), uri, call, core.from_tag(), core.cseq, via)
                    .hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    /// What a merged copy shares with the first; only requests outside a dialog can be merged.
    fn merge_key(&self, request: &Request) -> Option<Key> {
        let core = &request.core;
        let outside = core.to_tag().is_none() && request.method != Method::CANCEL;
        outside.then(|| {
            let (call, from) = (core.call_id.as_str(), core.from_tag());
            self.hash.hash_one(("merge", core.method.as_str(), core.cseq, call, from))
        })
    }
}

impl Client {
    /// How long the answered transaction catches repetitions; on a stream there are none.
    fn linger(&self, unreliable: Duration) -> Duration {
        if self.destination.transport.is_reliable() { ZERO } else { unreliable }
    }

    fn finish(&mut self, state: State, expires: Instant) {
        (self.state, self.repeat, self.expires) = (state, None, Some(expires));
    }
}

fn earliest(repeat: &Option<Repeat>, expires: Option<Instant>) -> Option<Instant> {
    repeat.as_ref().map(|repeat| repeat.at).into_iter().chain(expires).min()
}

#[cfg(test)]
mod tests;
