//! The media threads: they own every call's RTP socket and [`Stream`], and run each of them once
//! in 20 ms. No epoll and no lock on the way; what reaches tokio is tried, never waited for.

use std::fmt;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::sync::mpsc;

use super::clock;
use super::recognizer::Inlet;
use crate::media::{Command, Event, Setup, Stream};
use crate::sip::profile::Latch;

mod lateness;
mod ports;
mod recorder;
mod thread;

use lateness::{Busy, Histogram};
pub use lateness::{Lateness, Window};
use ports::Ports;
pub use recorder::{Folders, segment_name};
use recorder::{Recorder, Recording};
use thread::{Arrivals, Call, Order, Worker};

/// Orders that may wait for a media thread; it takes them once per millisecond.
const ORDERS_MAX: usize = 4096;
/// 64 KiB: a third of a second of G.711 at the kernel's rate of counting.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// Expedited forwarding, RFC 3246, as the IP header carries it.
const EXPEDITED: u32 = 46 << 2;

pub struct Settings {
    /// Where RTP is received and sent from: our address as peers reach it.
    pub address: IpAddr,
    /// Ports to use, an even one for RTP with the odd one above it per call.
    pub ports: RangeInclusive<u16>,
    /// One per 2,500 calls.
    pub threads: usize,
    /// Where recordings go.
    pub recordings: Folders,
}

/// A call to be given media.
pub struct OpenCall {
    /// Names the recording; characters a file name should not have become `_`.
    pub name: String,
    pub setup: Setup,
    pub latch: Latch,
    /// Behind NAT, the networks it may send from; none: any.
    pub networks: Vec<IpNet>,
    /// Where the call's events go. A key that finds it full waits; received audio is dropped.
    pub events: mpsc::Sender<Event>,
    /// Where what the caller says goes; `None`: nobody listens.
    pub inlet: Option<Inlet>,
}

/// Why a call gets no media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Every port is in use, rests after use, or is taken by another program.
    Ports,
    /// The media thread does not keep up.
    Orders,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Full::Ports => "no free media port: widen the configured port range",
            Full::Orders => "the media thread does not keep up: use more threads or fewer calls",
        })
    }
}

impl std::error::Error for Full {}

/// What all calls together met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub calls: usize,
    /// Frames of recordings that could not be written.
    pub recording_dropped: u64,
    /// Commands that found a media thread's queue full.
    pub commands_dropped: u64,
}

/// All media. Dropping it closes every call and joins the threads.
pub struct Media {
    address: IpAddr,
    workers: Vec<Handle>,
    ports: Arc<Mutex<Ports>>,
    recorder: Option<Recorder>,
    stop: Arc<AtomicBool>,
    next_call: AtomicU64,
    counts: Arc<Counts>,
}

struct Handle {
    orders: SyncSender<Order>,
    calls: Arc<AtomicUsize>,
    lateness: Arc<Histogram>,
    busy: Arc<Busy>,
    /// New calls go elsewhere while there is an elsewhere.
    avoided: AtomicBool,
    thread: Option<JoinHandle<()>>,
}

/// How a media thread does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Condition {
    /// 99 of 100 turns were at most this late.
    pub p99: Duration,
    /// The share of its time that it works.
    pub busy: f32,
}

#[derive(Default)]
pub(super) struct Counts {
    recording_dropped: AtomicU64,
    commands_dropped: AtomicU64,
}

impl Media {
    pub fn start(settings: Settings) -> io::Result<Media> {
        // An address that is not ours is told now, not to the first caller.
        UdpSocket::bind((settings.address, 0))?;
        let counts = Arc::new(Counts::default());
        let folders = settings.recordings;
        let recorder = match folders.calls.is_some() || folders.segments.is_some() {
            true => Some(Recorder::start(folders)?),
            false => None,
        };
        let seed = SysRng.try_next_u64().map_err(io::Error::other)?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut media = Media {
            address: settings.address,
            workers: Vec::new(),
            ports: Arc::new(Mutex::new(Ports::new(settings.ports, seed))),
            recorder,
            stop,
            next_call: AtomicU64::new(1),
            counts,
        };
        for nth in 0..settings.threads.max(1) {
            let worker = media.worker(nth)?;
            media.workers.push(worker);
        }
        Ok(media)
    }

    /// Gives a call a port pair and a stream.
    pub fn open(&self, call: OpenCall) -> Result<Session, Full> {
        let loads = self.workers.iter().map(|worker| {
            let avoided = worker.avoided.load(Ordering::Relaxed);
            (avoided, worker.calls.load(Ordering::Relaxed))
        });
        let emptiest = loads.enumerate().min_by_key(|(_, load)| *load);
        let (worker, _) = emptiest.ok_or(Full::Orders)?;
        self.open_at(call, worker, None)
    }

    /// The same in the slot of another call, so that the two can be [joined](Session::bridge).
    pub fn open_beside(&self, other: &Session, call: OpenCall) -> Result<Session, Full> {
        self.open_at(call, other.worker, Some(other.id))
    }

    fn open_at(&self, call: OpenCall, worker: usize, beside: Option<u64>) -> Result<Session, Full> {
        let now = clock::now();
        let id = self.next_call.fetch_add(1, Ordering::Relaxed);
        let (port, socket, control) = self.bind(now)?;
        let open = Arc::new(AtomicBool::new(true));
        let recorder = self.recorder.as_ref();
        let recording =
            recorder.and_then(|recorder| recorder.open(id, &call.name, call.setup.record));
        let record = recording.as_ref().is_some_and(Recording::is_whole);
        let setup = Setup { record, ..call.setup };
        let mut stream = Stream::new(setup, call.latch, now);
        stream.admit_only(call.networks);
        if call.inlet.is_some() {
            stream.hear_speech();
        }
        let call = Box::new(Call {
            id,
            name: call.name,
            socket,
            control,
            turns: id as u8,
            arrivals: Arrivals::default(),
            connected: None,
            latch: call.latch,
            stream,
            events: call.events,
            waiting: None,
            recording,
            inlet: call.inlet,
            joined: None,
            open: Arc::clone(&open),
        });
        // Built first: if the order is refused, dropping it gives the ports back.
        let handle = self.workers.get(worker).ok_or(Full::Orders)?;
        let session = Session {
            port,
            id,
            worker,
            orders: handle.orders.clone(),
            open,
            ports: Arc::clone(&self.ports),
            counts: Arc::clone(&self.counts),
        };
        // At once, so that calls that come together are shared out.
        handle.calls.fetch_add(1, Ordering::Relaxed);
        if session.orders.try_send(Order::Open(call, beside)).is_err() {
            handle.calls.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Orders);
        }
        Ok(session)
    }

    pub fn totals(&self) -> Totals {
        Totals {
            calls: self.workers.iter().map(|w| w.calls.load(Ordering::Relaxed)).sum(),
            recording_dropped: self.counts.recording_dropped.load(Ordering::Relaxed),
            commands_dropped: self.counts.commands_dropped.load(Ordering::Relaxed),
        }
    }

    /// How late the threads' turns were since the start.
    pub fn lateness(&self) -> Lateness {
        Lateness::of(self.workers.iter().map(|worker| worker.lateness.as_ref()))
    }

    /// How each thread has done since the last call with these windows.
    pub fn conditions(&self, windows: &mut Vec<Window>) -> Vec<Condition> {
        windows.resize_with(self.workers.len(), Window::default);
        let each = self.workers.iter().zip(windows);
        each.map(|(worker, window)| {
            let p99 = Lateness::since(window, &worker.lateness).p99;
            // A thread without calls does not count.
            let idle = worker.calls.load(Ordering::Relaxed) == 0;
            Condition { p99, busy: if idle { 0.0 } else { worker.busy.share() } }
        })
        .collect()
    }

    /// Whether new calls go to other threads as long as there are any.
    pub fn avoid(&self, thread: usize, avoided: bool) {
        if let Some(worker) = self.workers.get(thread) {
            worker.avoided.store(avoided, Ordering::Relaxed);
        }
    }

    fn worker(&self, nth: usize) -> io::Result<Handle> {
        let (orders, inbox) = sync_channel(ORDERS_MAX);
        let calls = Arc::new(AtomicUsize::new(0));
        let (lateness, busy) = (Arc::new(Histogram::default()), Arc::new(Busy::default()));
        let worker = Worker::new(
            inbox,
            Arc::clone(&calls),
            Arc::clone(&lateness),
            Arc::clone(&busy),
            Arc::clone(&self.stop),
            Arc::clone(&self.counts),
        );
        let thread =
            std::thread::Builder::new().name(format!("media-{nth}")).spawn(|| worker.run())?;
        let avoided = AtomicBool::new(false);
        Ok(Handle { orders, calls, lateness, busy, avoided, thread: Some(thread) })
    }

    /// A free port pair. A pair that another program holds is passed over.
    fn bind(&self, now: Instant) -> Result<(u16, UdpSocket, UdpSocket), Full> {
        const ATTEMPTS: usize = 64;
        for _ in 0..ATTEMPTS {
            let port = lock(&self.ports).take(now).ok_or(Full::Ports)?;
            let bound = bind(self.address, port)
                .and_then(|socket| Ok((socket, bind(self.address, port + 1)?)));
            match bound {
                Ok((socket, control)) => return Ok((port, socket, control)),
                Err(_) => lock(&self.ports).give_back(now, port),
            }
        }
        Err(Full::Ports)
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take()
                && thread.join().is_err()
            {
                tracing::error!("a media thread panicked");
            }
        }
        // Last, so that what the threads recorded is written.
        self.recorder.take();
    }
}

/// One call's media as seen from outside. Dropping it closes the call.
pub struct Session {
    port: u16,
    id: u64,
    /// The media thread it is on.
    worker: usize,
    orders: SyncSender<Order>,
    open: Arc<AtomicBool>,
    ports: Arc<Mutex<Ports>>,
    counts: Arc<Counts>,
}

impl Session {
    /// Our RTP port, for the SDP; RTCP is the next one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Reaches the stream within a millisecond. When the media thread is so far behind that its
    /// queue is full the command is dropped, counted and logged; when it is gone so is the call.
    pub fn command(&self, command: Command) {
        self.order(Order::Command(self.id, command));
    }

    /// Joins two calls, one of them [opened beside](Media::open_beside) the other: what either peer
    /// says goes to the other one. Meanwhile neither has prompts or keys, and a recording is
    /// silent; [`Event::Silent`] is told for each as ever. Whoever was joined to one of them
    /// is parted from it. It ends with [`Session::part`], or when either session is dropped.
    pub fn bridge(&self, other: &Session) {
        if self.worker == other.worker {
            self.order(Order::Join(self.id, other.id));
        } else {
            tracing::error!("calls of two media threads cannot be joined");
        }
    }

    /// Parts this call from the one it is joined to, if any: each has its peer to itself again.
    pub fn part(&self) {
        self.order(Order::Part(self.id));
    }

    fn order(&self, order: Order) {
        let refused = self.orders.try_send(order);
        if matches!(refused, Err(TrySendError::Full(_))) {
            self.counts.commands_dropped.fetch_add(1, Ordering::Relaxed);
            tracing::error!("the media thread does not keep up: a command was dropped");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.open.store(false, Ordering::Relaxed);
        let _ = self.orders.try_send(Order::Close(self.id));
        lock(&self.ports).give_back(clock::now(), self.port);
    }
}

fn bind(address: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((address, port))?;
    socket.set_nonblocking(true)?;
    let options = socket2::SockRef::from(&socket);
    // Neither is worth refusing a call for.
    let _ = options.set_recv_buffer_size(RECEIVE_BUFFER);
    let _ = match address {
        IpAddr::V4(_) => options.set_tos_v4(EXPEDITED),
        IpAddr::V6(_) => options.set_tclass_v6(EXPEDITED),
    };
    Ok(socket)
}

/// A poisoned pool is still a pool: nothing in it can be half done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
