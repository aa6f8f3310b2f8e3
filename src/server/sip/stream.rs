//! One TCP or TLS connection from its first byte to its last, accepted or opened.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};

use super::Inbox;
use crate::sip::wire::{Chunk, Framer, Limits};
use crate::sip::{Input, Peer};

/// From the first byte of a message to its last.
const MESSAGE_LIMIT: Duration = Duration::from_secs(20);
/// A peer that takes nothing for this long is gone.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// How long the refusal of a broken message may take, and the last words of TLS.
const LINGER: Duration = Duration::from_secs(1);
/// We keep connections open that we opened: a NAT between us forgets them (RFC 5626 §4.4.1).
const PING_EVERY: Duration = Duration::from_secs(110);
/// A source that is too fast waits for this long before it is read on.
const SLOWED: Duration = Duration::from_millis(10);
/// Connections that nobody has accepted yet.
const BACKLOG: i32 = 1_024;
const READ_BYTES: usize = 8_192;

/// Bytes on their way out of one connection.
#[derive(Clone)]
pub(super) struct Queue {
    messages: mpsc::Sender<Bytes>,
    bytes: Arc<AtomicUsize>,
}

/// The other end of a [`Queue`].
pub(super) struct Outgoing {
    messages: mpsc::Receiver<Bytes>,
    again: mpsc::WeakSender<Bytes>,
    bytes: Arc<AtomicUsize>,
}

impl Outgoing {
    /// The queue again, unless it was closed: this does not keep it open.
    fn pongs(&self) -> Pongs {
        Pongs(self.again.clone(), self.bytes.clone())
    }
}

struct Pongs(mpsc::WeakSender<Bytes>, Arc<AtomicUsize>);

impl Pongs {
    /// If the queue is full the peer has other things to read.
    fn push(&self) {
        if let Some(messages) = self.0.upgrade() {
            Queue { messages, bytes: self.1.clone() }.push(Bytes::from_static(b"\r\n"));
        }
    }
}

impl Queue {
    const MESSAGES_MAX: usize = 256;
    const BYTES_MAX: usize = 512 * 1024;

    pub fn new() -> (Queue, Outgoing) {
        let (messages, receiver) = mpsc::channel(Queue::MESSAGES_MAX);
        let bytes = Arc::new(AtomicUsize::new(0));
        let again = messages.downgrade();
        let outgoing = Outgoing { messages: receiver, again, bytes: bytes.clone() };
        (Queue { messages, bytes }, outgoing)
    }

    /// False when the peer does not take what we send.
    pub fn push(&self, bytes: Bytes) -> bool {
        let length = bytes.len();
        if self.bytes.fetch_add(length, Ordering::Relaxed).saturating_add(length) > Queue::BYTES_MAX
            || self.messages.try_send(bytes).is_err()
        {
            self.bytes.fetch_sub(length, Ordering::Relaxed);
            return false;
        }
        true
    }
}

/// What a connection is and what it is allowed.
pub(super) struct Connection {
    pub peer: Peer,
    /// We opened it, and keep it open.
    pub ours: bool,
    /// Names in the peer's certificate, if it was verified.
    pub certificate: Option<Arc<[String]>>,
    /// Without a message for this long it is closed.
    pub idle: Duration,
    pub inbox: Inbox,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By the peer, or by the network.
    Closed,
    Idle,
    /// A message took too long to come, or to be taken.
    Slow,
    /// What came is no SIP; the refusal is on its way.
    Broken(&'static str),
    /// We have nothing more to say.
    Ours,
}

impl Connection {
    /// Serves until either side ends it.
    pub async fn run<S: AsyncRead + AsyncWrite>(&self, stream: S, mut outgoing: Outgoing) -> End {
        let (reader, mut writer) = tokio::io::split(stream);
        let (pinged, pongs) = (AtomicBool::new(false), outgoing.pongs());
        let end = {
            let writing = self.write(&mut writer, &mut outgoing, &pinged);
            tokio::pin!(writing);
            let end = tokio::select! {
                end = self.read(reader, &pinged, &pongs) => end,
                end = &mut writing => end,
            };
            if let End::Broken(_) = end {
                let _ = timeout(LINGER, writing).await;
            }
            end
        };
        let _ = timeout(LINGER, writer.shutdown()).await;
        end
    }

    async fn read<S: AsyncRead>(
        &self,
        mut reader: ReadHalf<S>,
        pinged: &AtomicBool,
        pongs: &Pongs,
    ) -> End {
        let mut framer = Framer::new(Limits::default());
        let mut buffer = vec![0; READ_BYTES];
        let mut active = Instant::now();
        let mut began: Option<Instant> = None;
        loop {
            let (limit, slow) = match began {
                Some(began) => (began + MESSAGE_LIMIT, End::Slow),
                None => (active + self.idle, End::Idle),
            };
            let length = match timeout_at(limit.into(), reader.read(&mut buffer)).await {
                Err(_) => return slow,
                Ok(Ok(0) | Err(_)) => return End::Closed,
                Ok(Ok(length)) => length,
            };
            if pinged.swap(false, Ordering::Relaxed) {
                framer.expect_pong();
            }
            framer.push(&buffer[..length]);
            for chunk in &mut framer {
                match chunk {
                    Chunk::Pong => continue,
                    Chunk::Ping => pongs.push(),
                    Chunk::Message(bytes) => self.deliver(bytes).await,
                    Chunk::Broken { reason, head, .. } => {
                        self.deliver(head).await;
                        return End::Broken(reason);
                    }
                }
                (active, began) = (Instant::now(), None);
            }
            began = match framer.pending() {
                0 => None,
                _ => began.or(Some(Instant::now())),
            };
        }
    }

    /// A stream is never dropped from: a source that is too fast is read more slowly.
    async fn deliver(&self, bytes: Bytes) {
        while !self.inbox.admits(self.peer.address.ip()) {
            tokio::time::sleep(SLOWED).await;
        }
        let certificate = self.certificate.clone();
        let input = Input::Received { peer: self.peer, certificate, bytes };
        // If the core is gone, so are we in a moment.
        let _ = self.inbox.inputs.send(input).await;
    }

    async fn write<S: AsyncWrite>(
        &self,
        writer: &mut WriteHalf<S>,
        outgoing: &mut Outgoing,
        pinged: &AtomicBool,
    ) -> End {
        loop {
            let bytes = match timeout(PING_EVERY, outgoing.messages.recv()).await {
                Ok(Some(bytes)) => {
                    outgoing.bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
                    bytes
                }
                Ok(None) => return End::Ours,
                Err(_) if !self.ours => continue,
                Err(_) => {
                    pinged.store(true, Ordering::Relaxed);
                    Bytes::from_static(b"\r\n\r\n")
                }
            };
            let writing = async {
                writer.write_all(&bytes).await?;
                writer.flush().await
            };
            match timeout(WRITE_LIMIT, writing).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return End::Closed,
                Err(_) => return End::Slow,
            }
        }
    }
}

pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of the last run may still be closing.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Connects from the address of ours that `local` names: peers know us by it.
pub(super) async fn connect(local: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if !local.ip().is_unspecified() && local.is_ipv4() == to.is_ipv4() {
        socket.bind(SocketAddr::new(local.ip(), 0))?;
    }
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
