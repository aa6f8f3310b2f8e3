//! The SIP core: reader tasks on the sockets, a bounded queue, and one task that owns the
//! [`Agent`]; a bounded mailbox for each call.

#![allow(clippy::disallowed_methods)]

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use self::connections::Connections;
use self::flood::Flood;
pub use self::flood::Rates;
use self::security::Security;
use crate::sip::agent::{Counters, Placement, Registered, Settings};
use crate::sip::locate::Hop;
use crate::sip::transport::{Listener, listener_for};
use crate::sip::{Agent, Command, Event, Input, Invitation, Leg, Output, Peer, Transport};

pub mod connections; // TCP and TLS: all of them in one table
mod flood; // how much one source may send
mod security; // the line that fail2ban reads
mod stream; // TCP and TLS: one connection
pub mod tls; // our certificate, and whose we trust
mod udp; // datagrams
#[cfg(test)]
mod tests;

/// Datagrams read but not yet handled; more are dropped, and their senders repeat them.
const PACKETS_MAX: usize = 4_096;
/// Commands given but not yet obeyed; more wait.
const ASKS_MAX: usize = 1_024;
/// Events of one call that its task has not taken, besides `Ended`.
const MAILBOX: usize = 32;
/// How often calls are searched for tasks that died without hanging up.
const SWEEP: Duration = Duration::from_secs(1);
/// How long the last BYEs may take when we stop.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long connections may take to send what is queued after that.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// A new call, with the mailbox of everything that follows.
pub struct Offer {
    pub leg: Leg,
    pub invitation: Box<Invitation>,
    /// `Ended` always comes through, even if the mailbox overflows: then the leg is hung up, what
    /// did not fit is lost, and `Ended` follows. Dropping the receiver hangs up.
    pub events: mpsc::Receiver<Event>,
}

/// The core task is gone: no call can be made or answered any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the SIP core has stopped")
    }
}

impl std::error::Error for Stopped {}

enum Ask {
    Command(Command),
    Invite(Box<Placement>, oneshot::Sender<(Leg, mpsc::Receiver<Event>)>),
    /// Drains, hangs up what is left at the deadline, and ends the core.
    Stop(Instant),
}

/// Gives commands to the core. Cheap to clone.
#[derive(Clone)]
pub struct Commands {
    asks: mpsc::Sender<Ask>,
    listeners: Arc<[Listener]>,
    connections: Arc<Connections>,
}

impl Commands {
    /// Waits while the core has too much to do. `Command::Invite` is for [`Commands::invite`].
    pub async fn send(&self, command: Command) -> Result<(), Stopped> {
        self.asks.send(Ask::Command(command)).await.map_err(|_| Stopped)
    }

    /// Places a call and returns its leg and mailbox.
    pub async fn invite(&self, call: Placement) -> Result<(Leg, mpsc::Receiver<Event>), Stopped> {
        let (reply, placed) = oneshot::channel();
        self.asks.send(Ask::Invite(Box::new(call), reply)).await.map_err(|_| Stopped)?;
        placed.await.map_err(|_| Stopped)
    }

    /// The peer at a place that DNS named; `None` if no listener of ours can send there. Its
    /// certificate will have to bear the name that goes with the place.
    pub fn peer(&self, hop: &Hop) -> Option<Peer> {
        let Hop { transport, address, ref name } = *hop;
        let listener = listener_for(&self.listeners, transport, address)?;
        if let Some(name) = name {
            self.connections.expect_name(address, name);
        }
        Some(Peer { transport, listener, address, connection: None })
    }
}

/// What the core says of itself, for metrics and for waiting until calls are over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub calls: usize,
    pub agent: Counters,
    /// Datagrams we could not send: the socket was full, or there is no way to the peer.
    pub unsent: u64,
    /// Events lost to a full mailbox; each cost its call.
    pub overflowed: u64,
    /// Datagrams dropped before they were read: the source was too fast, or the queue was full.
    pub dropped: u64,
    pub connections: connections::Counters,
}

/// What is listened on, and how connections are kept.
#[derive(Clone, Default)]
pub struct Transports {
    /// One for each of the agent's listeners, in their order.
    pub listen: Vec<SocketAddr>,
    /// For TLS listeners, and to connect to peers by TLS.
    pub tls: Option<Arc<tls::Tls>>,
    pub limits: connections::Limits,
    pub rates: Rates,
}

/// UDP or TCP on one address.
impl From<SocketAddr> for Transports {
    fn from(listen: SocketAddr) -> Transports {
        Transports { listen: vec![listen], ..Transports::default() }
    }
}

/// Why there is no listening on an address.
#[derive(Debug)]
pub struct BindError {
    pub transport: Transport,
    pub address: SocketAddr,
    pub error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BindError { transport, address, error } = self;
        write!(f, "cannot listen for SIP on {transport}:{address}: {error}")
    }
}

impl std::error::Error for BindError {}

/// The running core. Dropping it stops everything at once; [`Sip::shutdown`] does it in peace.
pub struct Sip {
    locals: Vec<(Transport, SocketAddr)>,
    commands: Commands,
    status: watch::Receiver<Status>,
    connections: Arc<Connections>,
    readers: Vec<JoinHandle<()>>,
    core: JoinHandle<()>,
}

impl Sip {
    /// Opens the sockets and starts the tasks. Where a listener's public address has port 0 or is
    /// unspecified, the socket's own is used. The receiver yields new calls, and `None` if the core
    /// stopped. Must be called inside a tokio runtime.
    pub async fn bind(
        transports: impl Into<Transports>,
        mut settings: Settings,
        seed: [u8; 32],
    ) -> Result<(Sip, mpsc::Receiver<Offer>), BindError> {
        let transports = transports.into();
        let mut sockets = Vec::new();
        for (listener, listen) in settings.listeners.iter_mut().zip(&transports.listen) {
            let (transport, address) = (listener.transport, *listen);
            let failed = |error| BindError { transport, address, error };
            let socket = Socket::open(transport, address, &transports).await.map_err(failed)?;
            let local = socket.local().map_err(failed)?;
            if listener.public.ip().is_unspecified() {
                listener.public.set_ip(local.ip());
            }
            if listener.public.port() == 0 {
                listener.public.set_port(local.port());
            }
            if listener.public.ip().is_unspecified() {
                let why = "say which address SIP peers reach us at";
                return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, why)));
            }
            sockets.push((transport, local, socket));
        }
        let (inputs, received) = mpsc::channel(PACKETS_MAX);
        let (ask_sender, asks) = mpsc::channel(ASKS_MAX);
        let (offers, offered) = mpsc::channel(settings.calls_max.clamp(1, 1_024));
        let (status, status_receiver) = watch::channel(Status::default());
        let inbox = Inbox::new(inputs, transports.rates.clone());
        let locals: Vec<_> = sockets.iter().map(|(transport, at, _)| (*transport, *at)).collect();
        let connections = Connections::new(&transports, locals.clone(), inbox.clone());
        let (mut udp, mut readers) = (Vec::new(), Vec::new());
        for (listener, (.., socket)) in sockets.into_iter().enumerate() {
            match socket {
                Socket::Udp(socket) => {
                    readers.push(tokio::spawn(udp::read(socket.clone(), listener, inbox.clone())));
                    udp.push(Some(socket));
                }
                Socket::Stream(tcp) => {
                    readers.push(tokio::spawn(connections.clone().accept(tcp, listener)));
                    udp.push(None);
                }
            }
        }
        let commands = Commands {
            asks: ask_sender,
            listeners: settings.listeners.clone().into(),
            connections: connections.clone(),
        };
        let core = Core {
            udp,
            connections: connections.clone(),
            agent: Agent::new(settings, seed),
            mailboxes: HashMap::new(),
            offers,
            status,
            dropped: inbox.dropped.clone(),
            unsent: 0,
            overflowed: 0,
            security: Security::new(Instant::now()),
            sweep: Instant::now() + SWEEP,
            stop: None,
        };
        let sip = Sip {
            locals,
            commands,
            status: status_receiver,
            connections,
            readers,
            core: tokio::spawn(core.run(received, asks)),
        };
        Ok((sip, offered))
    }

    /// The address of the first listener.
    pub fn local(&self) -> SocketAddr {
        let unbound = SocketAddr::from(([0, 0, 0, 0], 0));
        self.locals.first().map_or(unbound, |(_, address)| *address)
    }

    /// What is listened on, in the order of the listeners.
    pub fn locals(&self) -> &[(Transport, SocketAddr)] {
        &self.locals
    }

    pub fn commands(&self) -> Commands {
        self.commands.clone()
    }

    /// The latest numbers; they follow the core within a turn of its loop.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Refuses new calls, waits up to `grace` for the running ones, hangs up what is left, and
    /// returns when all is over.
    pub async fn shutdown(mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        if self.commands.asks.send(Ask::Stop(deadline)).await.is_ok() {
            // The core ends by itself within the deadline and the farewell.
            if (&mut self.core).await.is_err() {
                tracing::error!("the SIP core failed");
            }
        }
        self.connections.close(CLOSE_LIMIT).await;
    }
}

impl Drop for Sip {
    fn drop(&mut self) {
        self.readers.iter().for_each(JoinHandle::abort);
        self.core.abort();
        self.connections.abort();
    }
}

enum Socket {
    Udp(Arc<UdpSocket>),
    Stream(TcpListener),
}

impl Socket {
    async fn open(
        transport: Transport,
        listen: SocketAddr,
        transports: &Transports,
    ) -> io::Result<Socket> {
        match transport {
            Transport::Udp => {
                let socket = udp::open(listen)?;
                // From here on `try_send_to` knows that the socket takes datagrams.
                socket.writable().await?;
                Ok(Socket::Udp(Arc::new(socket)))
            }
            Transport::Tls if transports.tls.is_none() => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, "TLS needs a certificate"))
            }
            Transport::Tcp | Transport::Tls => Ok(Socket::Stream(stream::listen(listen)?)),
        }
    }

    fn local(&self) -> io::Result<SocketAddr> {
        match self {
            Socket::Udp(socket) => socket.local_addr(),
            Socket::Stream(listener) => listener.local_addr(),
        }
    }
}

/// Where what was received goes: to the core, if its source is not too fast.
#[derive(Clone)]
struct Inbox {
    inputs: mpsc::Sender<Input>,
    flood: Arc<Mutex<Flood>>,
    dropped: Arc<AtomicU64>,
}

impl Inbox {
    fn new(inputs: mpsc::Sender<Input>, rates: Rates) -> Inbox {
        let flood = Arc::new(Mutex::new(Flood::new(Instant::now(), rates)));
        Inbox { inputs, flood, dropped: Arc::default() }
    }

    fn admits(&self, source: IpAddr) -> bool {
        let mut flood = self.flood.lock().unwrap_or_else(PoisonError::into_inner);
        flood.admits(Instant::now(), source)
    }

    fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// A call's mailbox. One place is kept for `Ended`.
struct Mailbox {
    events: mpsc::Sender<Event>,
    last: mpsc::OwnedPermit<Event>,
}

impl Mailbox {
    fn new() -> (Mailbox, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(MAILBOX + 1);
        let last = events.clone().try_reserve_owned().expect("a new channel has room");
        (Mailbox { events, last }, receiver)
    }
}

/// The task that owns the agent.
struct Core {
    /// By listener; `None` where it takes streams.
    udp: Vec<Option<Arc<UdpSocket>>>,
    connections: Arc<Connections>,
    agent: Agent,
    mailboxes: HashMap<Leg, Mailbox>,
    offers: mpsc::Sender<Offer>,
    status: watch::Sender<Status>,
    dropped: Arc<AtomicU64>,
    unsent: u64,
    overflowed: u64,
    security: Security,
    sweep: Instant,
    stop: Option<Stop>,
}

/// How far stopping has come.
#[derive(Clone, Copy)]
enum Stop {
    /// Running calls may go on until then.
    Grace(Instant),
    /// All are hung up; their BYEs may be answered until then.
    Farewell(Instant),
}

impl Stop {
    fn due(self) -> Instant {
        match self {
            Stop::Grace(at) | Stop::Farewell(at) => at,
        }
    }
}

impl Core {
    async fn run(mut self, mut received: mpsc::Receiver<Input>, mut asks: mpsc::Receiver<Ask>) {
        loop {
            let timers = [self.agent.deadline(), self.stop.map(Stop::due)];
            let due = timers.into_iter().flatten().fold(self.sweep, Instant::min);
            tokio::select! {
                biased;
                ask = asks.recv() => match ask {
                    Some(ask) => self.obey(ask),
                    None => return,
                },
                input = received.recv() => match input {
                    Some(input) => self.handle(input),
                    None => return,
                },
                () = tokio::time::sleep_until(due.into()) => self.handle(Input::Tick),
            }
            if self.turn() {
                return;
            }
        }
    }

    fn obey(&mut self, ask: Ask) {
        match ask {
            Ask::Command(command) => self.handle(Input::Command(command)),
            Ask::Invite(call, reply) => {
                let leg = self.agent.next_leg();
                let (mailbox, receiver) = Mailbox::new();
                // If nobody waits any more, the closed mailbox hangs up at the next sweep.
                let _ = reply.send((leg, receiver));
                self.mailboxes.insert(leg, mailbox);
                self.handle(Input::Command(Command::Invite { leg, call }));
            }
            Ask::Stop(deadline) => {
                self.stop = Some(Stop::Grace(deadline));
                self.handle(Input::Command(Command::Drain));
            }
        }
    }

    fn handle(&mut self, input: Input) {
        self.agent.handle(Instant::now(), input);
        while let Some(output) = self.agent.poll() {
            match output {
                Output::Transmit { destination, bytes } => self.transmit(destination, bytes),
                Output::Intrusion(intrusion) => self.security.tell(Instant::now(), intrusion),
                Output::Reachable { trunk, up } => {
                    let trunk = &trunk.name;
                    match up {
                        true => tracing::info!(trunk, "the trunk answers"),
                        false => tracing::warn!(trunk, "the trunk does not answer our OPTIONS"),
                    }
                }
                Output::Registered { trunk, state } => {
                    let trunk = &trunk.name;
                    match state {
                        Registered::Yes => tracing::info!(trunk, "registered"),
                        Registered::No(status) => {
                            tracing::warn!(trunk, ?status, "the trunk does not register us");
                        }
                    }
                }
                Output::Event(event) => {
                    if let Some(unheard) = self.deliver(event) {
                        self.agent.handle(Instant::now(), Input::Command(unheard));
                    }
                }
            }
        }
    }

    fn transmit(&mut self, to: Peer, bytes: Bytes) {
        if to.transport != Transport::Udp {
            return self.connections.send(to, bytes);
        }
        let socket = self.udp.get(to.listener).and_then(Option::as_ref);
        let sent = socket.map(|socket| socket.try_send_to(&bytes, to.address));
        match sent {
            Some(Ok(_)) => {}
            // It is sent again if it matters.
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => self.unsent += 1,
            Some(Err(_)) | None => {
                self.unsent += 1;
                self.agent.handle(Instant::now(), Input::Unreachable(to));
            }
        }
    }

    /// Puts an event into its mailbox. Returns what to do about one that nobody will hear.
    fn deliver(&mut self, event: Event) -> Option<Command> {
        let leg = match event {
            Event::Offered { leg, invitation } => return self.offer(leg, invitation),
            Event::Ended { leg, .. } => {
                if let Some(mailbox) = self.mailboxes.remove(&leg) {
                    mailbox.last.send(event);
                }
                return None;
            }
            Event::Progress { leg, .. }
            | Event::Answered { leg, .. }
            | Event::Established { leg, .. }
            | Event::Reoffered { leg, .. }
            | Event::Reanswered { leg, .. }
            | Event::ReofferRefused { leg, .. }
            | Event::Replaced { leg, .. }
            | Event::Redirected { leg, .. }
            | Event::Key { leg, .. }
            | Event::Referred { leg, .. } => leg,
        };
        let mailbox = self.mailboxes.get(&leg)?;
        if let Err(TrySendError::Full(_)) = mailbox.events.try_send(event) {
            self.overflowed += 1;
            tracing::warn!(leg = leg.0, "a call does not take its events: hung up");
            return Some(Command::Hangup { leg, reason: None });
        }
        // Closed: the sweep hangs up.
        None
    }

    fn offer(&mut self, leg: Leg, invitation: Box<Invitation>) -> Option<Command> {
        let (mailbox, events) = Mailbox::new();
        self.mailboxes.insert(leg, mailbox);
        self.offers.try_send(Offer { leg, invitation, events }).is_err().then(|| {
            let reason = String::new();
            Command::Reject { leg, status: 503, reason, retry_after_s: Some(10) }
        })
    }

    /// What is done after each input; true when the core has stopped.
    fn turn(&mut self) -> bool {
        let now = Instant::now();
        if now >= self.sweep {
            self.sweep = now + SWEEP;
            self.hang_up(|mailbox| mailbox.events.is_closed());
        }
        let calls = self.agent.calls();
        self.publish(calls);
        match self.stop {
            Some(_) if calls == 0 => true,
            Some(Stop::Grace(at)) if at <= now => {
                self.hang_up(|_| true);
                self.stop = Some(Stop::Farewell(now + FAREWELL));
                false
            }
            Some(Stop::Farewell(at)) => at <= now,
            _ => false,
        }
    }

    fn hang_up(&mut self, whose: impl Fn(&Mailbox) -> bool) {
        let legs: Vec<Leg> =
            self.mailboxes.iter().filter(|(_, mailbox)| whose(mailbox)).map(|(l, _)| *l).collect();
        for leg in legs {
            self.handle(Input::Command(Command::Hangup { leg, reason: None }));
        }
    }

    fn publish(&self, calls: usize) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        self.status.send_if_modified(|status| {
            let agent = self.agent.counters();
            let (unsent, overflowed) = (self.unsent, self.overflowed);
            let (agent, connections) = (agent.clone(), self.connections.counters());
            let next = Status { calls, agent, unsent, overflowed, dropped, connections };
            let changed = *status != next;
            *status = next;
            changed
        });
    }
}
