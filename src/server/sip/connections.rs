//! All TCP and TLS connections in one table, accepted and opened alike (RFC 3261 §18, RFC 5923).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::stream::{self, Connection, End, Outgoing, Queue};
use super::tls::{self, Tls};
use super::{Inbox, Transports};
use crate::sip::{Input, Peer, Transport};

#[cfg(test)]
mod tests;

const CONNECT_LIMIT: Duration = Duration::from_secs(4);
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// TLS handshakes of peers that are not finished; more are turned away.
const HANDSHAKES_MAX: usize = 128;
/// Names remembered of peers we connect to.
const NAMES_MAX: usize = 4_096;

/// How many connections we keep, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections_max: usize,
    /// Of one source address.
    pub per_source_max: usize,
    /// Without a message for this long a connection is closed.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        let idle = Duration::from_secs(600);
        Limits { connections_max: 1_000, per_source_max: 100, idle }
    }
}

/// What became of connections, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub open: usize,
    pub accepted: u64,
    pub opened: u64,
    /// Turned away because of a limit.
    pub refused: u64,
    /// TLS handshakes that came to nothing, theirs and ours.
    pub handshakes_failed: u64,
    /// Ended because what came over them was no SIP, or came too slowly.
    pub broken: u64,
}

/// The table, and what a connection needs.
pub(super) struct Connections {
    limits: Limits,
    /// Our own addresses, by listener.
    locals: Vec<(Transport, SocketAddr)>,
    tls: Option<Arc<Tls>>,
    inbox: Inbox,
    table: Mutex<Table>,
    /// One has ended.
    ended: Notify,
}

#[derive(Default)]
struct Table {
    last: u64,
    open: HashMap<u64, Place>,
    /// The connection to be used for an address.
    routes: HashMap<(Transport, SocketAddr), u64>,
    sources: HashMap<IpAddr, usize>,
    /// What peers must prove to be called, by the address we were told to reach them at.
    names: HashMap<SocketAddr, String>,
    handshakes: usize,
    closed: bool,
    counters: Counters,
}

struct Place {
    peer: Peer,
    /// `None` once we have nothing more to say on it.
    queue: Option<Queue>,
    /// What the peer had to prove to be called.
    name: Option<String>,
    task: Option<AbortHandle>,
}

impl Connections {
    pub fn new(
        transports: &Transports,
        locals: Vec<(Transport, SocketAddr)>,
        inbox: Inbox,
    ) -> Arc<Connections> {
        let (limits, tls) = (transports.limits, transports.tls.clone());
        let (table, ended) = (Mutex::default(), Notify::new());
        Arc::new(Connections { limits, locals, tls, inbox, table, ended })
    }

    /// Sends over the connection that `peer` names, or one to its address, or a new one. If none
    /// of these works the agent is told.
    pub fn send(self: &Arc<Self>, peer: Peer, bytes: Bytes) {
        let Some((id, queue)) = self.queue(peer) else { return self.unreachable(peer) };
        if queue.push(bytes) {
            return;
        }
        // It takes nothing any more: better no connection than a deaf one.
        tracing::warn!(%peer, "a SIP peer does not take what we send: its connection is closed");
        let task = self.table().open.get(&id).and_then(|place| place.task.clone());
        task.inspect(AbortHandle::abort);
        self.leave(id);
        self.unreachable(Peer { connection: Some(id), ..peer });
    }

    fn queue(self: &Arc<Self>, peer: Peer) -> Option<(u64, Queue)> {
        let (opening, queue) = {
            let mut table = self.table();
            let named = peer.connection.and_then(|id| table.queue(id));
            if let Some(found) = named.or_else(|| table.route(&peer)) {
                return Some(found);
            }
            if self.locals.get(peer.listener)?.0 != peer.transport {
                return None;
            }
            let (id, outgoing) = self.enter(&mut table, peer, true)?;
            table.routes.insert((peer.transport, peer.address), id);
            table.counters.opened += 1;
            ((id, outgoing), table.queue(id)?)
        };
        let (id, outgoing) = opening;
        self.open(peer, id, outgoing);
        Some(queue)
    }

    /// The certificate of whoever answers at `address` must bear this name.
    pub fn expect_name(&self, address: SocketAddr, name: &str) {
        let mut table = self.table();
        if table.names.len() >= NAMES_MAX && !table.names.contains_key(&address) {
            // Those in use are told again with the next call.
            table.names.clear();
        }
        table.names.insert(address, name.to_ascii_lowercase());
    }

    pub fn counters(&self) -> Counters {
        let table = self.table();
        Counters { open: table.open.len(), ..table.counters }
    }

    /// Takes connections to this listener, for ever.
    pub async fn accept(self: Arc<Self>, tcp: TcpListener, listener: usize) {
        let Some((transport, _)) = self.locals.get(listener).copied() else { return };
        loop {
            match tcp.accept().await {
                Ok((stream, address)) => {
                    let peer = Peer { transport, listener, address, connection: None };
                    self.accepted(stream, peer);
                }
                // Out of file descriptors, most likely: some will be free again.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    fn accepted(self: &Arc<Self>, stream: TcpStream, peer: Peer) {
        let entered = {
            let mut table = self.table();
            let tls = peer.transport == Transport::Tls;
            if tls && table.handshakes >= HANDSHAKES_MAX {
                table.counters.refused += 1;
                return;
            }
            let entered = self.enter(&mut table, peer, false);
            if entered.is_some() {
                table.counters.accepted += 1;
                table.handshakes += usize::from(tls);
            }
            entered
        };
        let Some((id, outgoing)) = entered else { return };
        let peer = Peer { connection: Some(id), ..peer };
        let (this, seat) = (self.clone(), Seat { connections: self.clone(), id });
        let handshake = (peer.transport == Transport::Tls).then(|| Handshake(self.clone()));
        let task = tokio::spawn(async move {
            let end = this.serve_accepted(stream, peer, outgoing, handshake).await;
            this.finish(seat, &[peer], end).await;
        });
        self.table().started(id, task.abort_handle());
    }

    async fn serve_accepted(
        &self,
        tcp: TcpStream,
        peer: Peer,
        outgoing: Outgoing,
        handshake: Option<Handshake>,
    ) -> End {
        // Answers are small and must not wait for each other.
        let _ = tcp.set_nodelay(true);
        if peer.transport == Transport::Tcp {
            return self.run(tcp, (peer, false), None, outgoing).await;
        }
        let Some(tls) = &self.tls else { return End::Closed };
        let Ok(Ok(stream)) = timeout(HANDSHAKE_LIMIT, tls.acceptor().accept(tcp)).await else {
            self.table().counters.handshakes_failed += 1;
            return End::Closed;
        };
        drop(handshake);
        let verified = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = verified.map(tls::names);
        self.run(stream, (peer, false), certificate, outgoing).await
    }

    /// A connection of our own: what is to be sent waits in its queue until it stands.
    fn open(self: &Arc<Self>, peer: Peer, id: u64, outgoing: Outgoing) {
        let ours = Peer { connection: Some(id), ..peer };
        let (this, seat) = (self.clone(), Seat { connections: self.clone(), id });
        let task = tokio::spawn(async move {
            let end = match this.serve_opened(ours, outgoing).await {
                Ok(end) => end,
                Err(why) => {
                    tracing::warn!(%peer, "a SIP peer cannot be reached: {why}");
                    End::Closed
                }
            };
            // Requests may have been meant for a connection that was gone already.
            this.finish(seat, &[peer, ours], end).await;
        });
        self.table().started(id, task.abort_handle());
    }

    async fn serve_opened(&self, peer: Peer, outgoing: Outgoing) -> Result<End, String> {
        let local = self.locals.get(peer.listener).ok_or("no such listener")?.1;
        let late = |what: &str, limit: Duration| format!("no {what} in {} s", limit.as_secs());
        let tcp = timeout(CONNECT_LIMIT, stream::connect(local, peer.address))
            .await
            .map_err(|_| late("connection", CONNECT_LIMIT))?
            .map_err(|error| error.to_string())?;
        if peer.transport == Transport::Tcp {
            return Ok(self.run(tcp, (peer, true), None, outgoing).await);
        }
        let tls = self.tls.as_ref().ok_or("there is no [sip.tls]")?;
        let name = {
            let table = self.table();
            let id = peer.connection.unwrap_or_default();
            table.open.get(&id).and_then(|place| place.name.clone())
        };
        let server = tls::server_name(name.as_deref(), peer.address.ip())?;
        let failed = |why: String| {
            self.table().counters.handshakes_failed += 1;
            why
        };
        let stream = timeout(HANDSHAKE_LIMIT, tls.connector().connect(server, tcp))
            .await
            .map_err(|_| failed(late("TLS handshake", HANDSHAKE_LIMIT)))?
            .map_err(|error: io::Error| failed(error.to_string()))?;
        let verified = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = verified.map(tls::names);
        Ok(self.run(stream, (peer, true), certificate, outgoing).await)
    }

    async fn run<S>(
        &self,
        stream: S,
        (peer, ours): (Peer, bool),
        certificate: Option<Arc<[String]>>,
        outgoing: Outgoing,
    ) -> End
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite,
    {
        let (idle, inbox) = (self.limits.idle, self.inbox.clone());
        let connection = Connection { peer, ours, certificate, idle, inbox };
        connection.run(stream, outgoing).await
    }

    /// Takes a place in the table, if there is one.
    fn enter(&self, table: &mut Table, peer: Peer, ours: bool) -> Option<(u64, Outgoing)> {
        let full = table.closed || table.open.len() >= self.limits.connections_max;
        let held = table.sources.get(&peer.address.ip()).copied().unwrap_or(0);
        if full || held >= self.limits.per_source_max {
            table.counters.refused += 1;
            return None;
        }
        table.last += 1;
        let (queue, outgoing) = Queue::new();
        *table.sources.entry(peer.address.ip()).or_default() += 1;
        let name = table.names.get(&peer.address).filter(|_| ours).cloned();
        let place = Place { peer, queue: Some(queue), name, task: None };
        table.open.insert(table.last, place);
        Some((table.last, outgoing))
    }

    fn leave(&self, id: u64) {
        let mut table = self.table();
        let Some(place) = table.open.remove(&id) else { return };
        let Peer { transport, address, .. } = place.peer;
        if let Entry::Occupied(mut held) = table.sources.entry(address.ip()) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
        if table.routes.get(&(transport, address)) == Some(&id) {
            table.routes.remove(&(transport, address));
        }
        drop(table);
        self.ended.notify_waiters();
    }

    async fn finish(&self, seat: Seat, peers: &[Peer], end: End) {
        if let End::Broken(_) | End::Slow = end {
            self.table().counters.broken += 1;
        }
        if let End::Broken(reason) = end {
            tracing::info!(peer = %peers[0], "a SIP connection was closed: {reason}");
        }
        drop(seat);
        for peer in peers {
            // If the core is gone nobody wants to know.
            let _ = self.inbox.inputs.send(Input::Unreachable(*peer)).await;
        }
    }

    fn unreachable(&self, peer: Peer) {
        // If the core is too far behind to be told, its timers find out.
        let _ = self.inbox.inputs.try_send(Input::Unreachable(peer));
    }

    /// Lets what is queued go out, and closes all; whatever is left after `limit` is cut off.
    pub async fn close(&self, limit: Duration) {
        {
            let mut table = self.table();
            table.closed = true;
            table.open.values_mut().for_each(|place| place.queue = None);
        }
        let all = async {
            loop {
                let ended = self.ended.notified();
                if self.table().open.is_empty() {
                    return;
                }
                ended.await;
            }
        };
        let _ = timeout(limit, all).await;
        self.abort();
    }

    pub fn abort(&self) {
        let mut table = self.table();
        table.closed = true;
        table.open.values().filter_map(|place| place.task.as_ref()).for_each(AbortHandle::abort);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it is held; if it did, the table would still be whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn queue(&self, id: u64) -> Option<(u64, Queue)> {
        Some((id, self.open.get(&id)?.queue.clone()?))
    }

    /// A connection to the peer's address, if what was proved then is what counts now.
    fn route(&self, peer: &Peer) -> Option<(u64, Queue)> {
        let id = *self.routes.get(&(peer.transport, peer.address))?;
        let named = self.names.get(&peer.address);
        let same = peer.transport == Transport::Tcp || named == self.open.get(&id)?.name.as_ref();
        self.queue(id).filter(|_| same)
    }

    fn started(&mut self, id: u64, task: AbortHandle) {
        if let Some(place) = self.open.get_mut(&id) {
            place.task = Some(task);
        }
    }
}

/// The place is free again however its connection ends.
struct Seat {
    connections: Arc<Connections>,
    id: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.leave(self.id);
    }
}

/// A handshake of a peer's that is not finished.
struct Handshake(Arc<Connections>);

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.table().handshakes -= 1;
    }
}
