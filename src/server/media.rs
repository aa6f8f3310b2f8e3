//! The media threads: plain threads that own the RTP sockets and the streams, with a bounded
//! queue of commands in and a bounded mailbox per call out.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;

use super::clock;
use crate::media::{self, Command, Event, Stream};
use crate::sip::profile::Latch;

mod ports; // which ports are free
mod recorder; // recordings to disk, beside the media threads
mod turns; // the loop of one thread

use ports::Ports;
use recorder::Recorder;

/// What the operator decides.
pub struct Settings {
    /// Address RTP is received on.
    pub address: IpAddr,
    /// Two ports a call.
    pub ports: RangeInclusive<u16>,
    pub threads: usize,
    pub recording_directory: Option<PathBuf>,
}

/// A call's media to be opened.
pub struct OpenCall {
    /// File name of the recording, without its ending.
    pub name: String,
    pub setup: media::Setup,
    pub latch: Latch,
    pub events: mpsc::Sender<Event>,
}

/// All media threads. Dropping it ends them.
pub struct Media {
    address: IpAddr,
    ports: Arc<Mutex<Ports>>,
    threads: Vec<Thread>,
    recorder: Option<Recorder>,
    counters: Arc<Counters>,
    calls: AtomicU64,
}

struct Thread {
    commands: SyncSender<turns::Order>,
    handle: Option<JoinHandle<()>>,
    load: Arc<AtomicUsize>,
}

/// Of all threads, since the start.
#[derive(Debug, Default)]
pub struct Counters {
    pub packets_in: AtomicU64,
    pub packets_out: AtomicU64,
    /// Turns that began more than 5 ms after their time.
    pub turns_late: AtomicU64,
    /// The latest of them, in microseconds.
    pub lateness_max_us: AtomicU64,
    /// Events a call's mailbox had no room for.
    pub events_dropped: AtomicU64,
    /// Recorded frames the writer had no room for.
    pub frames_dropped: AtomicU64,
    /// Packets from somewhere else than the peer, of calls that have ended.
    pub foreign: AtomicU64,
}

/// No call can be opened: every port is in use or resting.
#[derive(Debug)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("every RTP port is in use; widen [media] ports")
    }
}

/// One call's media. Dropping it closes the sockets and ends the recording.
pub struct Session {
    port: u16,
    call: u64,
    commands: SyncSender<turns::Order>,
    ports: Arc<Mutex<Ports>>,
}

/// Commands that may wait for a thread: it takes them every millisecond.
const ORDERS_MAX: usize = 8_192;
/// A call's packets that may wait for its next turn: 64 KiB hold more than a second.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// Expedited forwarding (RFC 3246), in the upper six bits of the TOS byte.
const DSCP_EF: u32 = 46 << 2;

impl Media {
    pub fn start(settings: Settings) -> io::Result<Media> {
        let Settings { address, ports, threads, recording_directory } = settings;
        // An address we do not have is told now, not to the first caller.
        UdpSocket::bind((address, 0))?;
        let counters = Arc::new(Counters::default());
        let recorder = recording_directory.map(Recorder::start).transpose()?;
        let thread = |number: usize| {
            let (commands, inbox) = sync_channel(ORDERS_MAX);
            let load = Arc::new(AtomicUsize::new(0));
            let turns = turns::Turns::new(
                inbox,
                load.clone(),
                counters.clone(),
                recorder.as_ref().map(Recorder::sender),
            );
            let name = format!("media-{number}");
            let handle = thread::Builder::new().name(name).spawn(move || turns.run())?;
            Ok(Thread { commands, handle: Some(handle), load })
        };
        let threads = (0..threads.max(1)).map(thread).collect::<io::Result<Vec<Thread>>>()?;
        let ports = Arc::new(Mutex::new(Ports::new(ports)));
        Ok(Media { address, ports, threads, recorder, counters, calls: AtomicU64::new(0) })
    }

    /// Binds a pair of ports and gives the call to the thread with the fewest.
    pub fn open(&self, call: OpenCall) -> Result<Session, Full> {
        let (port, rtp, rtcp) = self.bind()?;
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let thread = self.threads.iter().min_by_key(|thread| thread.load.load(Ordering::Relaxed));
        let thread = thread.ok_or(Full)?;
        thread.load.fetch_add(1, Ordering::Relaxed);
        let OpenCall { name, setup, latch, events } = call;
        let stream = Box::new(Stream::new(setup, latch, clock::now()));
        if setup.record
            && let Some(recorder) = &self.recorder
        {
            recorder.open(number, &name);
        }
        let line = turns::Line::new(number, rtp, rtcp, stream, latch, events);
        let session = Session {
            port,
            call: number,
            commands: thread.commands.clone(),
            ports: self.ports.clone(),
        };
        session.order(turns::Order::Open(Box::new(line)));
        Ok(session)
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn bind(&self) -> Result<(u16, UdpSocket, UdpSocket), Full> {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        // Ports that somebody else holds are passed over.
        for _ in 0..ports.len() {
            let port = ports.take(clock::now()).ok_or(Full)?;
            let pair = socket(self.address, port)
                .and_then(|rtp| Ok((rtp, socket(self.address, port + 1)?)));
            match pair {
                Ok((rtp, rtcp)) => return Ok((port, rtp, rtcp)),
                Err(_) => ports.give_back(port, clock::now()),
            }
        }
        Err(Full)
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        for thread in &mut self.threads {
            let _ = thread.commands.send(turns::Order::Stop);
            if let Some(handle) = thread.handle.take() {
                let _ = handle.join();
            }
        }
    }
}

impl Session {
    /// The RTP port; RTCP is the next one.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn command(&self, command: Command) {
        self.order(turns::Order::Command(self.call, command));
    }

    /// Waits for room, a millisecond at most; a thread that is gone has no calls either.
    fn order(&self, order: turns::Order) {
        let _ = self.commands.send(order);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.order(turns::Order::Close(self.call));
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.give_back(self.port, clock::now());
    }
}

fn socket(address: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let address = SocketAddr::new(address, port);
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    if address.is_ipv4() {
        // Without the right to mark packets they go unmarked.
        let _ = socket.set_tos_v4(DSCP_EF);
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
