//! The SIP core: a reader task on the UDP socket, a bounded queue, and one task that owns the
//! [`Agent`]; a bounded mailbox for each call.

#![allow(clippy::disallowed_methods)]

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use self::flood::Flood;
use crate::sip::agent::{Counters, Intrusion, Placement, Registered, Settings};
use crate::sip::{Agent, Command, Event, Input, Invitation, Leg, Output};

mod flood; // how much one source may send
#[cfg(test)]
mod tests;

/// Datagrams read but not yet handled; more are dropped, and their senders repeat them.
const PACKETS_MAX: usize = 4_096;
/// Commands given but not yet obeyed; more wait.
const ASKS_MAX: usize = 1_024;
/// Events of one call that its task has not taken, besides `Ended`.
const MAILBOX: usize = 32;
/// Kernel buffer: a burst while the core is busy must not be lost.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// How often calls are searched for tasks that died without hanging up.
const SWEEP: Duration = Duration::from_secs(1);
/// How long the last BYEs may take when we stop.
const FAREWELL: Duration = Duration::from_secs(2);

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
pub struct Commands(mpsc::Sender<Ask>);

impl Commands {
    /// Waits while the core has too much to do. `Command::Invite` is for [`Commands::invite`].
    pub async fn send(&self, command: Command) -> Result<(), Stopped> {
        self.0.send(Ask::Command(command)).await.map_err(|_| Stopped)
    }

    /// Places a call and returns its leg and mailbox.
    pub async fn invite(&self, call: Placement) -> Result<(Leg, mpsc::Receiver<Event>), Stopped> {
        let (reply, placed) = oneshot::channel();
        self.0.send(Ask::Invite(Box::new(call), reply)).await.map_err(|_| Stopped)?;
        placed.await.map_err(|_| Stopped)
    }
}

/// What the core says of itself, for metrics and for waiting until calls are over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub calls: usize,
    pub agent: Counters,
    /// Datagrams we could not send because the socket was full.
    pub unsent: u64,
    /// Events lost to a full mailbox; each cost its call.
    pub overflowed: u64,
    /// Datagrams dropped before they were read: the source was too fast, or the queue was full.
    pub dropped: u64,
}

/// The running core. Dropping it stops everything at once; [`Sip::shutdown`] does it in peace.
pub struct Sip {
    local: SocketAddr,
    commands: Commands,
    status: watch::Receiver<Status>,
    reader: JoinHandle<()>,
    core: JoinHandle<()>,
}

impl Sip {
    /// Opens the socket and starts the tasks. Where a listener's public address has port 0 or is
    /// unspecified, the socket's own is used. The receiver yields new calls, and `None` if the core
    /// stopped. Must be called inside a tokio runtime.
    pub async fn bind(
        listen: SocketAddr,
        mut settings: Settings,
        seed: [u8; 32],
    ) -> io::Result<(Sip, mpsc::Receiver<Offer>)> {
        let socket = Arc::new(open(listen)?);
        let local = socket.local_addr()?;
        for listener in &mut settings.listeners {
            if listener.public.ip().is_unspecified() {
                listener.public.set_ip(local.ip());
            }
            if listener.public.port() == 0 {
                listener.public.set_port(local.port());
            }
        }
        if settings.listeners.iter().any(|listener| listener.public.ip().is_unspecified()) {
            let why = format!("listening on {local}: say which address SIP peers reach us at");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        // From here on `try_send_to` knows that the socket takes datagrams.
        socket.writable().await?;
        let (packet_sender, packets) = mpsc::channel(PACKETS_MAX);
        let (ask_sender, asks) = mpsc::channel(ASKS_MAX);
        let (offers, offered) = mpsc::channel(settings.calls_max.clamp(1, 1_024));
        let (status, status_receiver) = watch::channel(Status::default());
        let dropped = Arc::new(AtomicU64::new(0));
        let core = Core {
            socket: socket.clone(),
            agent: Agent::new(settings, seed),
            mailboxes: HashMap::new(),
            offers,
            status,
            dropped: dropped.clone(),
            unsent: 0,
            overflowed: 0,
            sweep: Instant::now() + SWEEP,
            stop: None,
        };
        let sip = Sip {
            local,
            commands: Commands(ask_sender),
            status: status_receiver,
            reader: tokio::spawn(read(socket, packet_sender, dropped)),
            core: tokio::spawn(core.run(packets, asks)),
        };
        Ok((sip, offered))
    }

    pub fn local(&self) -> SocketAddr {
        self.local
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
        if self.commands.0.send(Ask::Stop(deadline)).await.is_ok() {
            // The core ends by itself within the deadline and the farewell.
            if (&mut self.core).await.is_err() {
                tracing::error!("the SIP core failed");
            }
        }
    }
}

impl Drop for Sip {
    fn drop(&mut self) {
        self.reader.abort();
        self.core.abort();
    }
}

fn open(listen: SocketAddr) -> io::Result<UdpSocket> {
    let domain = socket2::Domain::for_address(listen);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if listen.is_ipv6() {
        // IPv4 peers would show up as mapped addresses, which match no trunk.
        socket.set_only_v6(true)?;
    }
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    let granted = socket.recv_buffer_size()?;
    if granted < RECEIVE_BUFFER_BYTES {
        tracing::warn!(
            granted,
            wanted = RECEIVE_BUFFER_BYTES,
            "small SIP receive buffer: raise net.core.rmem_max"
        );
    }
    socket.bind(&listen.into())?;
    UdpSocket::from_std(socket.into())
}

/// Takes datagrams off the socket as fast as they come.
async fn read(
    socket: Arc<UdpSocket>,
    packets: mpsc::Sender<(SocketAddr, Bytes)>,
    dropped: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 65_536];
    let mut flood = Flood::new(Instant::now());
    loop {
        let Ok((length, source)) = socket.recv_from(&mut buffer).await else {
            // It belongs to an earlier send (ICMP unreachable) and passes; if not, do not spin.
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        let taken = flood.admits(Instant::now(), source.ip())
            && match packets.try_send((source, Bytes::copy_from_slice(&buffer[..length]))) {
                Ok(()) => true,
                Err(TrySendError::Full(_)) => false,
                Err(TrySendError::Closed(_)) => return,
            };
        if !taken {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
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
    socket: Arc<UdpSocket>,
    agent: Agent,
    mailboxes: HashMap<Leg, Mailbox>,
    offers: mpsc::Sender<Offer>,
    status: watch::Sender<Status>,
    dropped: Arc<AtomicU64>,
    unsent: u64,
    overflowed: u64,
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
    async fn run(
        mut self,
        mut packets: mpsc::Receiver<(SocketAddr, Bytes)>,
        mut asks: mpsc::Receiver<Ask>,
    ) {
        loop {
            let timers = [self.agent.deadline(), self.stop.map(Stop::due)];
            let due = timers.into_iter().flatten().fold(self.sweep, Instant::min);
            tokio::select! {
                biased;
                ask = asks.recv() => match ask {
                    Some(ask) => self.obey(ask),
                    None => return,
                },
                packet = packets.recv() => match packet {
                    Some((source, bytes)) => {
                        self.handle(Input::datagram(source, bytes));
                    }
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
                Output::Transmit { destination, bytes } => {
                    if self.socket.try_send_to(&bytes, destination.address).is_err() {
                        self.unsent += 1;
                    }
                }
                Output::Intrusion(Intrusion { peer, reason }) => {
                    let (proto, source) = (peer.transport, peer.address);
                    let (src, sport) = (source.ip(), source.port());
                    tracing::warn!("SECURITY {reason} proto={proto} src={src} sport={sport}");
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
            let next = Status { calls, agent: agent.clone(), unsent, overflowed, dropped };
            let changed = *status != next;
            *status = next;
            changed
        });
    }
}
