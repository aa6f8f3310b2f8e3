//! One media thread: 20 slots of 1 ms with absolute deadlines. A call lives in one slot and has
//! its turn there: receive, hear, send, tell.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TrySendError};
use std::time::{Duration, Instant};

use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError as Refused;

use super::Counts;
use super::lateness::Histogram;
use super::recorder::{Recording, Take};
use crate::media::stream::PACKET_MAX;
use crate::media::{Command, Event, Stream};
use crate::server::clock;
use crate::sip::profile::Latch;

const SLOTS: usize = 20;
const SLOT: Duration = Duration::from_millis(1);
/// Datagrams a call may take in per turn; a steady peer sends one or two.
const RECEIVE_MAX: usize = 6;
/// Longer datagrams are cut, and then refused as malformed.
const DATAGRAM_MAX: usize = 1500;
/// How long a thread without calls sleeps at most.
const IDLE: Duration = Duration::from_millis(100);
/// SCHED_FIFO priority: above everything ordinary, below the kernel's own threads.
const PRIORITY: u8 = 10;

pub enum Order {
    Open(Box<Call>),
    Command(u64, Command),
}

/// One call as its thread owns it.
pub struct Call {
    pub id: u64,
    pub name: String,
    pub socket: UdpSocket,
    /// The odd port above, held so that nobody else gets our peer's RTCP.
    pub _control: UdpSocket,
    /// Only packets from here pass the kernel.
    pub connected: Option<SocketAddr>,
    pub latch: Latch,
    pub stream: Stream,
    pub events: mpsc::Sender<Event>,
    /// An event that found `events` full.
    pub waiting: Option<Event>,
    pub recording: Option<Recording>,
    /// False once the session is dropped.
    pub open: Arc<AtomicBool>,
}

pub struct Worker {
    orders: Receiver<Order>,
    slots: [Vec<Box<Call>>; SLOTS],
    /// Which slot a call is in.
    homes: HashMap<u64, usize>,
    /// Ends of recordings that found the recorder's queue full.
    unsaid: Vec<Recording>,
    calls: Arc<AtomicUsize>,
    lateness: Arc<Histogram>,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    datagram: [u8; DATAGRAM_MAX],
}

impl Worker {
    pub fn new(
        orders: Receiver<Order>,
        calls: Arc<AtomicUsize>,
        lateness: Arc<Histogram>,
        stop: Arc<AtomicBool>,
        counts: Arc<Counts>,
    ) -> Worker {
        Worker {
            orders,
            slots: std::array::from_fn(|_| Vec::new()),
            homes: HashMap::new(),
            unsaid: Vec::new(),
            calls,
            lateness,
            stop,
            counts,
            datagram: [0; DATAGRAM_MAX],
        }
    }

    pub fn run(mut self) {
        ask_for_priority();
        let mut due = clock::now();
        let mut slot = 0;
        while !self.stop.load(Ordering::Relaxed) {
            if self.homes.is_empty() && self.unsaid.is_empty() {
                match self.orders.recv_timeout(IDLE) {
                    Ok(order) => self.obey(clock::now(), order),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                due = clock::now();
                continue;
            }
            let now = sleep_until(due);
            let late = now.saturating_duration_since(due);
            self.lateness.add(late);
            while let Ok(order) = self.orders.try_recv() {
                self.obey(now, order);
            }
            self.turn(now, slot);
            // Up to one round may be made up for, slot after slot: each call has one turn in it.
            // What is later still is left out.
            let round = SLOT * SLOTS as u32;
            let rounds = late.as_millis() / round.as_millis();
            due += SLOT + round * rounds as u32;
            slot = (slot + 1) % SLOTS;
        }
        for slot in 0..SLOTS {
            while let Some(call) = self.slots[slot].pop() {
                self.close(call);
            }
        }
        // The recorder outlives us and empties its queue: this ends.
        for Recording { call, takes } in self.unsaid.drain(..) {
            let _ = takes.send(Take::Close { call });
        }
    }

    fn obey(&mut self, now: Instant, order: Order) {
        match order {
            Order::Open(call) => {
                let emptiest = (0..SLOTS).min_by_key(|&slot| self.slots[slot].len()).unwrap_or(0);
                self.homes.insert(call.id, emptiest);
                self.slots[emptiest].push(call);
                self.calls.store(self.homes.len(), Ordering::Relaxed);
            }
            Order::Command(id, command) => {
                let Some(&home) = self.homes.get(&id) else { return };
                if let Some(call) = self.slots[home].iter_mut().find(|call| call.id == id) {
                    call.stream.command(now, command);
                    call.connect();
                }
            }
        }
    }

    fn turn(&mut self, now: Instant, slot: usize) {
        let mut at = 0;
        while let Some(call) = self.slots[slot].get_mut(at) {
            if call.open.load(Ordering::Relaxed) {
                call.turn(now, &mut self.datagram, &self.counts);
                at += 1;
            } else {
                let call = self.slots[slot].swap_remove(at);
                self.close(call);
            }
        }
        self.unsaid.retain(|Recording { call, takes }| {
            matches!(takes.try_send(Take::Close { call: *call }), Err(TrySendError::Full(_)))
        });
    }

    fn close(&mut self, mut call: Box<Call>) {
        self.homes.remove(&call.id);
        self.calls.store(self.homes.len(), Ordering::Relaxed);
        call.stream.close();
        call.record(&self.counts);
        let counters = call.stream.counters();
        tracing::info!(call = call.name, ?counters, "media closed");
        self.unsaid.extend(call.recording.take());
    }
}

impl Call {
    fn turn(&mut self, now: Instant, datagram: &mut [u8; DATAGRAM_MAX], counts: &Counts) {
        for _ in 0..RECEIVE_MAX {
            match self.socket.recv_from(datagram) {
                Ok((len, source)) => self.stream.receive(now, source, &datagram[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // ICMP told that the peer's port was closed: it may open yet.
                Err(_) => {}
            }
        }
        let mut packet = [0; PACKET_MAX];
        if let Some(len) = self.stream.transmit(now, &mut packet) {
            // What the kernel refuses is lost like any packet; silence is told by the stream.
            let _ = match (self.connected, self.stream.remote()) {
                (Some(_), _) => self.socket.send(&packet[..len]),
                (None, Some(remote)) => self.socket.send_to(&packet[..len], remote),
                (None, None) => Ok(0),
            };
        }
        self.tell();
        self.record(counts);
    }

    /// In strict mode the kernel itself keeps strangers out, and sends cheaper.
    fn connect(&mut self) {
        let remote = self.stream.remote();
        if self.latch == Latch::Strict && remote.is_some() && remote != self.connected {
            let connected = remote.filter(|remote| self.socket.connect(remote).is_ok());
            self.connected = connected;
        }
    }

    /// Hands events over while there is room; what finds none waits in the stream.
    fn tell(&mut self) {
        while let Some(event) = self.waiting.take().or_else(|| self.stream.poll()) {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(Refused::Full(event)) => {
                    self.waiting = Some(event);
                    break;
                }
                // The call is over; the session will be dropped.
                Err(Refused::Closed(_)) => {}
            }
        }
    }

    fn record(&mut self, counts: &Counts) {
        let Some(recording) = &self.recording else { return };
        while let Some(stereo) = self.stream.recorded() {
            let frame = Take::Frame { call: recording.call, stereo: Box::new(stereo) };
            if recording.takes.try_send(frame).is_err() {
                counts.recording_dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn sleep_until(due: Instant) -> Instant {
    let now = clock::now();
    let left = due.saturating_duration_since(now);
    if left.is_zero() {
        return now;
    }
    std::thread::sleep(left);
    clock::now()
}

/// Real time keeps packets on time however busy the machine is. Without the right to it media
/// works, but stutters under load.
fn ask_for_priority() {
    let asked = ThreadPriorityValue::try_from(PRIORITY).map(|priority| {
        set_thread_priority_and_policy(
            thread_native_id(),
            ThreadPriority::Crossplatform(priority),
            ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo),
        )
    });
    if !matches!(asked, Ok(Ok(()))) {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            tracing::warn!(
                "media runs without real-time priority and may stutter on a busy machine: \
                 give the program CAP_SYS_NICE (systemd: AmbientCapabilities=CAP_SYS_NICE)"
            );
        });
    }
}
