//! The loop of one media thread: 20 slots of 1 ms with absolute deadlines, each call in one slot.
//! A turn reads what has arrived, then sends one packet. No locks, no allocation, no waiting but
//! for the next millisecond.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::Counters;
use super::recorder::Page;
use crate::media::stream::PACKET_MAX;
use crate::media::{Command, Event, Stream};
use crate::server::clock;
use crate::sip::profile::Latch;

const SLOTS: u64 = 20;
const SLOT: Duration = Duration::from_millis(1);
/// Packets read in one turn; more wait in the socket.
const RECEIVE_MAX: usize = 6;
const DATAGRAM_MAX: usize = 2_048;
/// A thread that is later than this counts its turns from now: nothing is sent in a burst.
const CATCH_UP_MAX: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_millis(5);
/// How often a thread without calls looks up.
const IDLE: Duration = Duration::from_millis(200);
/// Above all threads that may delay sound, below the kernel's own.
const REALTIME_PRIORITY: u8 = 10;

pub(super) enum Order {
    Open(Box<Line>),
    Command(u64, Command),
    Close(u64),
    Stop,
}

/// One call's sockets and stream.
pub(super) struct Line {
    call: u64,
    rtp: UdpSocket,
    /// Held so that nobody else gets the port; reports come with a later issue.
    _rtcp: UdpSocket,
    stream: Box<Stream>,
    latch: Latch,
    /// Whom the socket is connected to: then the kernel drops all other sources.
    connected: Option<SocketAddr>,
    events: mpsc::Sender<Event>,
}

impl Line {
    pub(super) fn new(
        call: u64,
        rtp: UdpSocket,
        rtcp: UdpSocket,
        stream: Box<Stream>,
        latch: Latch,
        events: mpsc::Sender<Event>,
    ) -> Line {
        Line { call, rtp, _rtcp: rtcp, stream, latch, connected: None, events }
    }
}

pub(super) struct Turns {
    inbox: Receiver<Order>,
    load: Arc<AtomicUsize>,
    counters: Arc<Counters>,
    recorder: Option<SyncSender<Page>>,
    slots: Vec<Vec<Line>>,
    datagram: [u8; DATAGRAM_MAX],
    packet: [u8; PACKET_MAX],
}

impl Turns {
    pub(super) fn new(
        inbox: Receiver<Order>,
        load: Arc<AtomicUsize>,
        counters: Arc<Counters>,
        recorder: Option<SyncSender<Page>>,
    ) -> Turns {
        let slots = (0..SLOTS).map(|_| Vec::new()).collect();
        let (datagram, packet) = ([0; DATAGRAM_MAX], [0; PACKET_MAX]);
        Turns { inbox, load, counters, recorder, slots, datagram, packet }
    }

    pub(super) fn run(mut self) {
        ask_for_real_time();
        let mut start = clock::now();
        let mut turn = 0u64;
        loop {
            if self.slots.iter().all(Vec::is_empty) {
                match self.inbox.recv_timeout(IDLE) {
                    Ok(order) => {
                        if !self.carry_out(order) {
                            return;
                        }
                        (start, turn) = (clock::now(), 0);
                    }
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            if !self.orders() {
                return;
            }
            let due = start + SLOT * turn as u32;
            let now = clock::now();
            if let Some(early) = due.checked_duration_since(now) {
                thread::sleep(early);
            } else {
                self.note_lateness(now - due);
                if now - due > CATCH_UP_MAX {
                    // The slot stays the same, the time does not.
                    start = now - SLOT * (turn % SLOTS) as u32;
                    turn %= SLOTS;
                }
            }
            self.slot((turn % SLOTS) as usize);
            turn += 1;
            // 20 slots from the start are as good as the start: the product stays small.
            if turn == SLOTS * 50_000 {
                (start, turn) = (start + SLOT * (SLOTS * 50_000) as u32, 0);
            }
        }
    }

    /// Everything that has been asked for; false to stop.
    fn orders(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(order) => {
                    if !self.carry_out(order) {
                        return false;
                    }
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn carry_out(&mut self, order: Order) -> bool {
        match order {
            Order::Stop => return false,
            Order::Open(line) => {
                if let Some(slot) = self.slots.iter_mut().min_by_key(|slot| slot.len()) {
                    slot.push(*line);
                }
            }
            Order::Command(call, command) => {
                let mut lines = self.slots.iter_mut().flatten();
                if let Some(line) = lines.find(|line| line.call == call) {
                    line.stream.command(clock::now(), command);
                }
            }
            Order::Close(call) => self.close(call),
        }
        true
    }

    fn close(&mut self, call: u64) {
        for slot in &mut self.slots {
            let Some(place) = slot.iter().position(|line| line.call == call) else { continue };
            let mut line = slot.swap_remove(place);
            line.stream.close();
            record(&mut line, self.recorder.as_ref(), &self.counters);
            if let Some(recorder) = &self.recorder {
                // The recording's end must arrive; a full queue drains within a second.
                let _ = recorder.send(Page::Close(call));
            }
            self.load.fetch_sub(1, Ordering::Relaxed);
            let counters = line.stream.counters();
            self.counters.foreign.fetch_add(counters.foreign, Ordering::Relaxed);
            debug!(?counters, "media closed");
        }
    }

    fn slot(&mut self, slot: usize) {
        for line in &mut self.slots[slot] {
            let now = clock::now();
            let received = receive(line, now, &mut self.datagram);
            self.counters.packets_in.fetch_add(received, Ordering::Relaxed);
            let length = line.stream.transmit(now, &mut self.packet);
            connect(line);
            if let Some(length) = length
                && send(line, &self.packet[..length])
            {
                self.counters.packets_out.fetch_add(1, Ordering::Relaxed);
            }
            while let Some(event) = line.stream.poll() {
                if line.events.try_send(event).is_err() {
                    self.counters.events_dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            record(line, self.recorder.as_ref(), &self.counters);
        }
    }

    fn note_lateness(&self, late: Duration) {
        if late > LATE {
            self.counters.turns_late.fetch_add(1, Ordering::Relaxed);
        }
        let late_us = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        self.counters.lateness_max_us.fetch_max(late_us, Ordering::Relaxed);
    }
}

/// Reads until nothing is left; how many packets.
fn receive(line: &mut Line, now: Instant, datagram: &mut [u8]) -> u64 {
    let mut received = 0;
    for _ in 0..RECEIVE_MAX {
        match line.rtp.recv_from(datagram) {
            Ok((length, source)) => {
                line.stream.receive(now, source, &datagram[..length]);
                received += 1;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // An ICMP message about a packet of ours: the peer may not be listening yet.
            Err(_) => {}
        }
    }
    received
}

/// Once the peer is known, the kernel filters: that is cheaper, and nobody else gets in.
fn connect(line: &mut Line) {
    let remote = line.stream.remote().filter(|_| line.latch == Latch::Strict);
    if let Some(remote) = remote
        && line.connected != Some(remote)
        && line.rtp.connect(remote).is_ok()
    {
        line.connected = Some(remote);
    }
}

fn send(line: &Line, packet: &[u8]) -> bool {
    match (line.connected, line.stream.remote()) {
        (Some(_), _) => line.rtp.send(packet).is_ok(),
        (None, Some(remote)) => line.rtp.send_to(packet, remote).is_ok(),
        (None, None) => false,
    }
}

fn record(line: &mut Line, recorder: Option<&SyncSender<Page>>, counters: &Counters) {
    while let Some(frame) = line.stream.recorded() {
        let Some(recorder) = recorder else { continue };
        if recorder.try_send(Page::Frame(line.call, Box::new(frame))).is_err() {
            counters.frames_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn ask_for_real_time() {
    let priority =
        ThreadPriority::Crossplatform(REALTIME_PRIORITY.try_into().expect("ten is a priority"));
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    if set_thread_priority_and_policy(thread_native_id(), priority, policy).is_err() {
        warn!(
            "media runs without real-time priority: under load callers may hear gaps. Give the \
             service CAP_SYS_NICE (systemd: AmbientCapabilities=CAP_SYS_NICE)"
        );
    }
}
