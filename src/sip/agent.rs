//! The user agent: server and client side of a call, over the transaction layer.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use self::admission::{Probes, is_outside};
use self::pings::Ping;
use self::registrar::Binding;
use self::room::Room;
use self::session::{Phase, Session};
use super::auth;
use super::model::{Draft, Message, Request};
use super::profile::Profile;
use super::timer::{PATIENCE, Timers};
use super::transaction::{ClientId, Received, ServerId, Transactions};
use super::transport::{Peer, Transport};
use super::wire::{self, BadMessage, Framed, Limits};
use crate::secret::Secret;

mod admission; // who is let in: trunks, authentication
mod room; // how many calls, and how fast they may begin
mod incoming; // requests in, and our answers to them
mod reliable; // provisional responses that are acknowledged
mod refresh; // session timers, re-INVITE and UPDATE of ours
mod replace; // one call in the place of another: Replaces, REFER in
mod info; // keys by INFO
mod outgoing; // commands, and the requests they cause
mod answers; // responses, and what follows from them
mod registrar; // our registrations at trunks
mod pings; // trunks asked whether they are there
mod session; // what is remembered of one leg
mod settings; // what the agent is told at the start, and what it counts
#[cfg(test)]
mod tests;

pub use registrar::Registered;
pub use settings::{Counters, Settings, Strangers};

/// One leg of a call, unique within an agent. Incoming legs are numbered by the agent; outgoing
/// ones by whoever asks for them, with [`Agent::next_leg`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Leg(pub u64);

pub enum Input {
    /// A datagram, or one message of a stream.
    Received {
        peer: Peer,
        /// Names in the peer's verified TLS client certificate.
        certificate: Option<Arc<[String]>>,
        bytes: Bytes,
    },
    /// Nothing can be sent there: the connection was refused, or was lost.
    Unreachable(Peer),
    Command(Command),
    /// Nothing came in, but [`Agent::deadline`] has passed.
    Tick,
}

impl Input {
    /// A datagram that came in by our first listener.
    pub fn datagram(source: SocketAddr, bytes: Bytes) -> Input {
        Input::Received { peer: Peer::udp(source), certificate: None, bytes }
    }
}

pub enum Output {
    Transmit {
        destination: Peer,
        bytes: Bytes,
    },
    /// For the security log.
    Intrusion(Intrusion),
    /// A registration of ours began to stand or fell.
    Registered {
        trunk: Arc<Profile>,
        state: Registered,
    },
    /// A trunk that is watched began to answer, or no longer does.
    Reachable {
        trunk: Arc<Profile>,
        up: bool,
    },
    Event(Event),
}

/// What the call asks of the agent. A command for a leg that is gone is ignored.
pub enum Command {
    /// 180 Ringing.
    Ring { leg: Leg },
    /// 183 Session Progress: sound before the call is answered. `sdp` answers the offer.
    Early { leg: Leg, sdp: Vec<u8> },
    /// 200 OK to an INVITE, re-INVITE or UPDATE. `sdp` answers the offer, or is our offer when the
    /// INVITE carried none (late offer).
    Answer { leg: Leg, sdp: Vec<u8> },
    /// Final refusal of an INVITE, re-INVITE or UPDATE. `retry_after_s` goes with 503.
    Reject { leg: Leg, status: u16, reason: String, retry_after_s: Option<u32> },
    /// Places a call.
    Invite { leg: Leg, call: Box<Placement> },
    /// re-INVITE: offers another description. `Reanswered` or `ReofferRefused` follows.
    Reoffer { leg: Leg, sdp: Vec<u8> },
    /// Transfer (RFC 3515): REFER to `target`, with `headers` for the contact center. With
    /// `replaces`, the peer takes that other leg's place (attended, RFC 3891).
    Refer { leg: Leg, target: String, replaces: Option<Leg>, headers: Vec<(String, String)> },
    /// Obeys a REFER of the peer (`Redirected`): calls its target with this offer. When it answers,
    /// it takes the place of the peer and `Reanswered` follows.
    Follow { leg: Leg, sdp: Vec<u8> },
    /// Ends the leg whatever its state: CANCEL, 487 or BYE. `reason` is a Reason header (RFC 3326).
    Hangup { leg: Leg, reason: Option<String> },
    /// Registers with a trunk and keeps it so: `servers` are its registrar's, first choice first.
    Register { trunk: Arc<Profile>, servers: Vec<Peer> },
    /// Asks a trunk's server whether it is there, as often as its profile says.
    Watch { trunk: Arc<Profile>, server: Peer },
    /// From now on: OPTIONS and new INVITE get 503 with Retry-After; running calls go on.
    Drain,
    /// While true new calls get 503: something else than signalling is at its limit.
    Overloaded(bool),
}

/// A call to be placed.
#[derive(Clone, Debug)]
pub struct Placement {
    /// Request-URI.
    pub target: String,
    /// Where to send it, tried one after the other while nobody is reached (RFC 3263 §4.3).
    pub destinations: Vec<Peer>,
    /// Our address, a URI or name-addr.
    pub from: String,
    /// Added verbatim (validated: no CR, LF or NUL).
    pub headers: Vec<(String, String)>,
    pub sdp: Vec<u8>,
    /// How that trunk wants to be treated.
    pub trunk: Arc<Profile>,
}

pub enum Event {
    /// A new call: 100 has been sent. Answer with `Ring`, `Early`, `Answer` or `Reject`.
    Offered { leg: Leg, invitation: Box<Invitation> },
    /// Our INVITE: a provisional above 100, perhaps with early media.
    Progress { leg: Leg, status: u16, sdp: Option<Vec<u8>> },
    /// Our INVITE got its 2xx (ACK has been sent) with this SDP.
    Answered { leg: Leg, sdp: Vec<u8> },
    /// ACK for our 2xx. `sdp` holds the answer when our 2xx carried the offer.
    Established { leg: Leg, sdp: Option<Vec<u8>> },
    /// re-INVITE or UPDATE in: `Answer` or `Reject` it. `None`: it carried no offer, make one.
    Reoffered { leg: Leg, sdp: Option<Vec<u8>> },
    /// The peer answered an offer we made on a running call.
    Reanswered { leg: Leg, sdp: Vec<u8> },
    /// The peer did not take that offer: what was agreed before goes on.
    ReofferRefused { leg: Leg, status: u16 },
    /// Another call took this leg's place (INVITE with Replaces); `Reoffered` follows.
    Replaced { leg: Leg, invitation: Box<Invitation> },
    /// The peer asks us to call `target` instead (REFER, already accepted): `Follow` it.
    Redirected { leg: Leg, target: String },
    /// A key the peer reported by INFO.
    Key { leg: Leg, key: Secret<u8> },
    /// Our REFER: the status of the new call as NOTIFYs tell it (RFC 3515 §2.4.5); the 202 itself
    /// counts as 100. A status >= 200 is final; a refused REFER reports its own status, and 408
    /// means that the outcome is unknown: no answer, no NOTIFY, or one without a result.
    Referred { leg: Leg, status: u16 },
    /// The leg is over; nothing follows. Sent exactly once per leg.
    Ended { leg: Leg, cause: Cause },
}

/// A request that somebody without business here sent, for the security log and its watchers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intrusion {
    pub peer: Peer,
    /// Of a fixed set of words.
    pub reason: &'static str,
}

/// Why a leg ended, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// BYE from the peer.
    PeerHungUp,
    /// CANCEL from the peer before we answered.
    Cancelled,
    /// Our own `Hangup` or `Reject`.
    WeHungUp,
    /// Our INVITE got this final status.
    Refused { status: u16, reason: String },
    /// No ACK for our 2xx (RFC 3261 §13.3.1.4), or no final answer to our request.
    Timeout,
}

/// What an INVITE told us, before any policy is applied.
#[derive(Clone, Debug)]
pub struct Invitation {
    pub source: Peer,
    /// Our address, as that peer reaches it.
    pub local: SocketAddr,
    /// Whose call it is.
    pub trunk: Arc<Profile>,
    pub call_id: String,
    /// User part of the request URI: the number dialled.
    pub dialled: String,
    /// All headers in order, long names, values unfolded: identity and X- headers are read from
    /// here by the trunk's profile.
    pub headers: Vec<(String, String)>,
    /// The SDP offer; `None` means late offer: our 200 must carry one.
    pub offer: Option<Vec<u8>>,
}

/// Methods we take part in.
const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, NOTIFY, REFER, UPDATE, PRACK, INFO";
/// Extensions we know (RFC 3262, RFC 4028, RFC 3891).
const SUPPORTED: &str = "100rel, timer, replaces";
/// How long a busy or draining server asks others to stay away.
const RETRY_AFTER_S: u32 = 10;
/// How long an INVITE may ring, ours or theirs.
const RING_MAX: Duration = Duration::from_secs(180);

/// What a client transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Invite,
    /// INVITE to whom the peer's REFER named.
    Successor,
    Reinvite,
    Update,
    Bye,
    Refer,
    /// CANCEL, PRACK, NOTIFY, or BYE to a fork: nobody waits for the answer.
    Courtesy,
}

/// The user agent.
pub struct Agent {
    settings: Settings,
    rng: StdRng,
    limits: Limits,
    transactions: Transactions,
    /// Makes tags that nobody else can guess.
    tag_key: [u64; 2],
    sessions: HashMap<Leg, Box<Session>>,
    /// By Call-ID and our tag.
    dialogs: HashMap<(String, String), Leg>,
    /// INVITEs without a final answer, for CANCEL.
    servers: HashMap<ServerId, Leg>,
    clients: HashMap<ClientId, (Leg, Purpose)>,
    timers: Timers<Leg>,
    out: VecDeque<Output>,
    last_leg: u64,
    room: Room,
    draining: bool,
    overloaded: bool,
    probes: Probes,
    digest: auth::Server,
    /// When digest time began.
    born: Option<Instant>,
    bindings: Vec<Binding>,
    pings: Vec<Ping>,
    /// Who calls when no trunks are configured.
    anybody: Arc<Profile>,
    counters: Counters,
}

impl Agent {
    /// All randomness (tags, branches, Call-IDs) comes from `seed`.
    pub fn new(settings: Settings, seed: [u8; 32]) -> Agent {
        let transactions = Transactions::new(transactions_max(&settings));
        let mut rng = StdRng::from_seed(seed);
        let tag_key = rng.random();
        let digest = auth::Server::new(auth::Settings::new(&settings.realm), &rng.random());
        Agent {
            settings,
            rng,
            limits: Limits::default(),
            transactions,
            tag_key,
            sessions: HashMap::new(),
            dialogs: HashMap::new(),
            servers: HashMap::new(),
            clients: HashMap::new(),
            timers: Timers::new(),
            out: VecDeque::new(),
            last_leg: 0,
            room: Room::default(),
            draining: false,
            overloaded: false,
            probes: Probes::default(),
            digest,
            born: None,
            bindings: Vec::new(),
            pings: Vec::new(),
            anybody: Arc::default(),
            counters: Counters::default(),
        }
    }

    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Received { peer, certificate, bytes } => {
                self.received(now, peer, certificate.as_deref(), &bytes);
            }
            Input::Unreachable(peer) => self.transactions.unreachable(&peer),
            Input::Command(command) => self.command(now, command),
            Input::Tick => {}
        }
        self.expire(now);
        self.keep_registered(now);
        self.ping(now);
        self.counters.retransmitted += self.transactions.take_retransmissions();
        while let Some((destination, bytes)) = self.transactions.poll_transmit() {
            self.out.push_back(Output::Transmit { destination, bytes });
        }
    }

    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When to call [`Agent::handle`] with [`Input::Tick`] if nothing else comes first.
    pub fn deadline(&self) -> Option<Instant> {
        let due = [
            self.transactions.deadline(),
            self.timers.next(),
            self.registrations_due(),
            self.pings_due(),
        ];
        due.into_iter().flatten().min()
    }

    /// A number for [`Command::Invite`].
    pub fn next_leg(&mut self) -> Leg {
        self.last_leg += 1;
        Leg(self.last_leg)
    }

    /// Legs that are not over, those whose BYE is still on its way included.
    pub fn calls(&self) -> usize {
        self.room.live()
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn received(&mut self, now: Instant, peer: Peer, certificate: Option<&[String]>, bytes: &[u8]) {
        self.counters.received += 1;
        let framed = match peer.transport.is_reliable() {
            true => wire::parse_stream(bytes, &self.limits),
            false => wire::parse(bytes, &self.limits),
        };
        match framed {
            Framed::KeepAlive => self.counters.keep_alives += 1,
            Framed::Bad(bad) => self.malformed(peer, certificate, bad),
            Framed::Message(Message::Request(request)) => {
                if !is_outside(&request) || self.is_known(now, &request, &peer, certificate) {
                    self.request(now, request, peer, certificate);
                }
            }
            Framed::Message(Message::Response(response)) => self.response(now, &response, peer),
        }
    }

    /// A refusal goes back to where the datagram came from: its Via may be what is broken.
    fn malformed(&mut self, peer: Peer, certificate: Option<&[String]>, bad: BadMessage) {
        self.counters.malformed += 1;
        if !self.is_answered(&peer, certificate) {
            return;
        }
        if let Some(echo) = bad.echo {
            let reply = Draft::refusal(&echo, bad.status, &self.token())
                .with("Server", &self.settings.product)
                .with("Warning", format!("399 {} \"{}\"", self.address(&peer), bad.reason));
            self.transmit(peer, reply.encode());
        }
    }

    fn request(
        &mut self,
        now: Instant,
        request: Request,
        source: Peer,
        certificate: Option<&[String]>,
    ) {
        if self.is_turned_away(now, &request, source, certificate) {
            return;
        }
        match self.transactions.receive_request(now, &request, source) {
            Received::Absorbed => {}
            Received::Again(status) => self.answer_again(&request, source, status),
            Received::Ack => self.ack(now, &request, source),
            Received::Merged(id) => self.refuse(now, id, &request, source, 482, &[]),
            Received::New(id) => self.dispatch(now, id, request, source, certificate),
            Received::Full => self.busy(&request, source),
        }
    }

    /// Ends and repeats what is due.
    fn expire(&mut self, now: Instant) {
        self.transactions.expire(now);
        while let Some(id) = self.transactions.poll_timeout() {
            self.unanswered(now, id);
        }
        while let Some(id) = self.transactions.poll_ended() {
            self.clients.remove(&id);
        }
        while let Some(leg) = self.timers.pop(now) {
            if let Some(mut session) = self.sessions.remove(&leg) {
                self.session_due(now, &mut session);
                self.settle(now, session);
            }
        }
    }

    fn session_due(&mut self, now: Instant, session: &mut Session) {
        if let Some(referral) = &session.referral
            && referral.expires <= now
        {
            self.referred(session, 408);
        }
        if session.redirection.as_ref().is_some_and(|redirection| redirection.expires <= now) {
            self.report(now, session, "408 Request Timeout", true);
            self.abandon_redirection(now, session);
        }
        self.repeat_accepted(now, session);
        self.repeat_provisional(now, session);
        self.refresh_due(now, session);
        if session.expires.is_none_or(|at| at > now) {
            return;
        }
        session.expires = None;
        match session.phase {
            Phase::Offered => {
                self.end(session, Cause::Timeout);
                self.answer_invite(now, session, 480, &[]);
                session.phase = Phase::Gone;
            }
            Phase::Calling => self.stop_calling(now, session),
            Phase::Lingering => session.phase = Phase::Gone,
            Phase::Confirmed => self.answer_invite(now, session, 480, &[]),
            Phase::Closing | Phase::Gone => {}
        }
    }

    /// Puts a session back after it was worked on, or forgets it.
    fn settle(&mut self, now: Instant, mut session: Box<Session>) {
        let leg = session.leg;
        if session.is_live() != session.counted {
            session.counted = session.is_live();
            match session.counted {
                true => self.room.begin(&session.profile),
                false => self.room.end(&session.profile),
            }
        }
        // Others may be taken out of the table at the same time: a bound need not be exact.
        let others = self.room.live().saturating_sub(usize::from(session.counted));
        let lingering = self.sessions.len().saturating_sub(others);
        if session.phase == Phase::Lingering && lingering >= self.settings.calls_max.max(64) {
            session.phase = Phase::Gone;
        }
        if session.phase == Phase::Gone {
            debug_assert!(session.ended, "a leg must not vanish without Ended");
            self.dialogs.remove(&session.key);
            self.timers.set(leg, None);
            if let Some(placed) = &session.placed {
                self.clients.remove(&placed.client);
            }
            return;
        }
        let due = session.deadline().map(|at| at.max(now));
        self.timers.set(leg, due);
        self.sessions.insert(leg, session);
    }

    fn event(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }

    /// Reports the end of a leg, once.
    fn end(&mut self, session: &mut Session, cause: Cause) {
        if !session.ended {
            session.ended = true;
            self.event(Event::Ended { leg: session.leg, cause });
        }
    }

    fn transmit(&mut self, destination: Peer, bytes: Bytes) {
        self.out.push_back(Output::Transmit { destination, bytes });
    }

    fn token(&mut self) -> String {
        format!("{:016x}", self.rng.next_u64())
    }

    fn branch(&mut self) -> String {
        format!("z9hG4bK{:016x}", self.rng.next_u64())
    }

    /// Our address, as that peer reaches it.
    fn address(&self, peer: &Peer) -> SocketAddr {
        let listeners = &self.settings.listeners;
        let listener = listeners.get(peer.listener).or(listeners.first());
        let unknown = || SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        listener.map_or_else(unknown, |listener| listener.address_for(peer.address.ip()))
    }

    fn via(&self, branch: &str, peer: &Peer) -> String {
        let (transport, address) = (peer.transport.name(), self.address(peer));
        format!("SIP/2.0/{transport} {address};rport;branch={branch}")
    }

    /// Our Contact as a bare URI, for that peer: it names the transport it can reach us by, and the
    /// host name that its trunk knows us by, if any.
    fn contact(&self, peer: &Peer, trunk: &Profile) -> String {
        let address = self.address(peer);
        let at = match &trunk.contact_host {
            Some(host) => format!("{host}:{}", address.port()),
            None => address.to_string(),
        };
        match peer.transport {
            Transport::Udp => format!("sip:{at}"),
            stream => format!("sip:{at};transport={stream}"),
        }
    }
}

/// Each call holds a few transactions at once, half of which may be of new calls, and leaves an
/// INVITE and a BYE behind: as many finished ones are remembered, for 64*T1.
fn transactions_max(settings: &Settings) -> usize {
    const MOST: usize = 500_000;
    let a_second = settings.calls_per_second as usize;
    let left_behind = a_second.saturating_mul(2 * PATIENCE.as_secs() as usize);
    settings.calls_max.saturating_mul(8).saturating_add(left_behind).clamp(1_024, MOST)
}
