//! The user agent: server and client side of a call, over the transaction layer.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::session::{Phase, Session};
use super::model::{Draft, Message, Request};
use super::timer::Timers;
use super::transaction::{ClientId, Received, ServerId, Transactions};
use super::transport::{Listener, Peer, Transport};
use super::wire::{self, BadMessage, Framed, Limits};

mod incoming; // requests in, and our answers to them
mod outgoing; // requests out, and the answers to them
mod session; // what is remembered of one leg
#[cfg(test)]
mod tests;

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
    Transmit { destination: Peer, bytes: Bytes },
    Event(Event),
}

/// What the call asks of the agent. A command for a leg that is gone is ignored.
pub enum Command {
    /// 180 Ringing.
    Ring { leg: Leg },
    /// 200 OK to an INVITE or re-INVITE. `sdp` answers the offer, or is our offer when the INVITE
    /// carried none (late offer).
    Answer { leg: Leg, sdp: Vec<u8> },
    /// Final refusal of an INVITE or re-INVITE. `retry_after_s` goes with 503.
    Reject { leg: Leg, status: u16, reason: String, retry_after_s: Option<u32> },
    /// Places a call. `headers` are added verbatim (validated: no CR, LF or NUL).
    Invite {
        leg: Leg,
        target: String,
        destination: Peer,
        from: String,
        headers: Vec<(String, String)>,
        sdp: Vec<u8>,
    },
    /// Blind transfer (RFC 3515): REFER to `target`, with `headers` for the contact center.
    Refer { leg: Leg, target: String, headers: Vec<(String, String)> },
    /// Ends the leg whatever its state: CANCEL, 487 or BYE. `reason` is a Reason header (RFC 3326).
    Hangup { leg: Leg, reason: Option<String> },
    /// From now on: OPTIONS and new INVITE get 503 with Retry-After; running calls go on.
    Drain,
}

pub enum Event {
    /// A new call: 100 has been sent. Answer with `Ring`, `Answer` or `Reject`.
    Offered { leg: Leg, invitation: Box<Invitation> },
    /// Our INVITE: a provisional above 100, perhaps with early media.
    Progress { leg: Leg, status: u16, sdp: Option<Vec<u8>> },
    /// Our INVITE got its 2xx (ACK has been sent) with this SDP.
    Answered { leg: Leg, sdp: Vec<u8> },
    /// ACK for our 2xx. `sdp` holds the answer when our 2xx carried the offer.
    Established { leg: Leg, sdp: Option<Vec<u8>> },
    /// re-INVITE in: `Answer` or `Reject` it. `None`: it carried no offer, make one.
    Reoffered { leg: Leg, sdp: Option<Vec<u8>> },
    /// Our REFER: the status of the new call as NOTIFYs tell it (RFC 3515 §2.4.5); the 202 itself
    /// counts as 100. A status >= 200 is final; a refused REFER reports its own status, and 408
    /// means that the outcome is unknown: no answer, no NOTIFY, or one without a result.
    Referred { leg: Leg, status: u16 },
    /// The leg is over; nothing follows. Sent exactly once per leg.
    Ended { leg: Leg, cause: Cause },
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
    pub call_id: String,
    /// User part of the request URI: the number dialled.
    pub dialled: String,
    /// All headers in order, long names, values unfolded: identity and X- headers are read from
    /// here by the trunk's profile.
    pub headers: Vec<(String, String)>,
    /// The SDP offer; `None` means late offer: our 200 must carry one.
    pub offer: Option<Vec<u8>>,
}

/// What the agent says about itself.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our addresses; of those with the transport a peer uses, the first counts.
    pub listeners: Vec<Listener>,
    /// User-Agent and Server header.
    pub product: String,
    /// More calls than this are refused with 503.
    pub calls_max: usize,
}

impl Settings {
    /// Of an agent that is reached by UDP at `contact`.
    pub fn new(contact: SocketAddr, product: &str, calls_max: usize) -> Settings {
        let listeners = vec![Listener::new(Transport::Udp, contact)];
        Settings { listeners, product: product.into(), calls_max }
    }
}

/// What the agent has seen, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub datagrams: u64,
    pub keep_alives: u64,
    /// Datagrams that were no acceptable message.
    pub malformed: u64,
    /// Well-formed, but belonging to nothing we know: late responses, stray ACKs.
    pub stray: u64,
    /// Requests we answered with a refusal of our own accord (4xx, 5xx).
    pub refused: u64,
    /// New calls refused because of `calls_max`, a full transaction table, or draining.
    pub overloaded: u64,
    /// Messages of ours sent again because an answer or ACK was missing.
    pub retransmitted: u64,
    /// Calls offered to us, and placed by us.
    pub offered: u64,
    pub placed: u64,
}

/// Methods we take part in.
const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, NOTIFY";
/// How long a busy or draining server asks others to stay away.
const RETRY_AFTER_S: u32 = 10;
/// How long an INVITE may ring, ours or theirs.
const RING_MAX: Duration = Duration::from_secs(180);

/// What a client transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Invite,
    Bye,
    Refer,
    /// CANCEL, or BYE to a fork: nobody waits for the answer.
    Courtesy,
}

/// The user agent.
pub struct Agent {
    settings: Settings,
    rng: StdRng,
    limits: Limits,
    transactions: Transactions,
    sessions: HashMap<Leg, Session>,
    /// By Call-ID and our tag.
    dialogs: HashMap<(String, String), Leg>,
    /// INVITEs without a final answer, for CANCEL.
    servers: HashMap<ServerId, Leg>,
    clients: HashMap<ClientId, (Leg, Purpose)>,
    timers: Timers<Leg>,
    out: VecDeque<Output>,
    last_leg: u64,
    live: usize,
    draining: bool,
    counters: Counters,
}

impl Agent {
    /// All randomness (tags, branches, Call-IDs) comes from `seed`.
    pub fn new(settings: Settings, seed: [u8; 32]) -> Agent {
        // Each call holds a few transactions at once; short bursts of refused ones come on top.
        let transactions = Transactions::new(settings.calls_max.saturating_mul(8).max(1024));
        Agent {
            settings,
            rng: StdRng::from_seed(seed),
            limits: Limits::default(),
            transactions,
            sessions: HashMap::new(),
            dialogs: HashMap::new(),
            servers: HashMap::new(),
            clients: HashMap::new(),
            timers: Timers::new(),
            out: VecDeque::new(),
            last_leg: 0,
            live: 0,
            draining: false,
            counters: Counters::default(),
        }
    }

    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Received { peer, bytes, .. } => self.received(now, peer, &bytes),
            Input::Unreachable(peer) => self.transactions.unreachable(&peer),
            Input::Command(command) => self.command(now, command),
            Input::Tick => {}
        }
        self.expire(now);
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
        [self.transactions.deadline(), self.timers.next()].into_iter().flatten().min()
    }

    /// A number for [`Command::Invite`].
    pub fn next_leg(&mut self) -> Leg {
        self.last_leg += 1;
        Leg(self.last_leg)
    }

    /// Legs that are not over, those whose BYE is still on its way included.
    pub fn calls(&self) -> usize {
        self.live
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn received(&mut self, now: Instant, source: Peer, bytes: &[u8]) {
        self.counters.datagrams += 1;
        let framed = match source.transport.is_reliable() {
            true => wire::parse_stream(bytes, &self.limits),
            false => wire::parse(bytes, &self.limits),
        };
        match framed {
            Framed::KeepAlive => self.counters.keep_alives += 1,
            Framed::Bad(bad) => self.malformed(source, bad),
            Framed::Message(Message::Request(request)) => {
                self.request(now, request, source);
            }
            Framed::Message(Message::Response(response)) => self.response(now, &response, source),
        }
    }

    /// A refusal goes back to where the datagram came from: its Via may be what is broken.
    fn malformed(&mut self, source: Peer, bad: BadMessage) {
        self.counters.malformed += 1;
        if let Some(echo) = bad.echo {
            let reply = Draft::refusal(&echo, bad.status, &self.token())
                .with("Server", &self.settings.product)
                .with("Warning", format!("399 {} \"{}\"", self.address(&source), bad.reason));
            self.transmit(source, reply.encode());
        }
    }

    fn request(&mut self, now: Instant, request: Request, source: Peer) {
        match self.transactions.receive_request(now, &request, source) {
            Received::Absorbed => {}
            Received::Ack => self.ack(now, &request, source),
            Received::Merged(id) => self.refuse(now, id, &request, source, 482, &[]),
            Received::New(id) => self.dispatch(now, id, request, source),
            Received::Full => {
                self.counters.overloaded += 1;
                let reply = self
                    .reply(&request, 503, source)
                    .with("Retry-After", RETRY_AFTER_S.to_string());
                self.transmit(source.reply_path(&request.core.via), reply.encode());
            }
        }
    }

    /// Ends and repeats what is due.
    fn expire(&mut self, now: Instant) {
        self.transactions.expire(now);
        while let Some(id) = self.transactions.poll_timeout() {
            self.unanswered(now, id);
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
        self.repeat_accepted(now, session);
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
    fn settle(&mut self, now: Instant, mut session: Session) {
        let leg = session.leg;
        if session.is_live() != session.counted {
            session.counted = session.is_live();
            self.live = if session.counted { self.live + 1 } else { self.live - 1 };
        }
        let lingering = self.sessions.len() - (self.live - usize::from(session.counted));
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

    /// Our Contact as a bare URI, for that peer: it names the transport it can reach us by.
    fn contact(&self, peer: &Peer) -> String {
        let address = self.address(peer);
        match peer.transport {
            Transport::Udp => format!("sip:{address}"),
            stream => format!("sip:{address};transport={stream}"),
        }
    }
}
