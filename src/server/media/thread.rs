//! One media thread: 20 slots of 1 ms with absolute deadlines. A call lives in one slot and has
//! its turn there: receive, hear, send, tell. Slots without calls are slept through.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::net::{self, RecvFlags, SendFlags};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError as Refused;

use super::Counts;
use super::lateness::{Busy, Histogram};
use super::recorder::Recording;
use crate::media::stream::PACKET_MAX;
use crate::media::{Command, Event, Stream};
use crate::near;
use crate::server::clock;
use crate::server::recognizer::Inlet;
use crate::sip::offer::Rtcp;
use crate::sip::profile::Latch;

const SLOTS: usize = 20;
const SLOT: Duration = Duration::from_millis(1);
/// Calls a slot is filled with before another one is used: each in use wakes the thread 50 times a
/// second, and calls that have their turns together cost less than calls on their own. They take a
/// third of a slot's time.
const SLOT_CALLS: usize = 48;
/// So many turns before its own a call's memory is asked for.
const FETCHED_AHEAD: usize = 2;
/// Datagrams a call may take in per turn; a steady peer sends one or two.
const RECEIVE_MAX: usize = 6;
/// Longer datagrams are cut, and then refused as malformed.
const DATAGRAM_MAX: usize = 1500;
/// Turns between looks for RTCP: each look at an empty socket costs as much as a quarter of a
/// packet, and what a round trip is measured by comes up to this much late.
const CONTROL_TURNS: u8 = 5;
/// Turns after which a call's queue is emptied, however steadily its packets come: clocks drift.
const DRAIN_TURNS: u8 = 8;
/// How long a thread without calls sleeps at most.
const IDLE: Duration = Duration::from_millis(100);
/// SCHED_FIFO priority: above everything ordinary, below the kernel's own threads.
const PRIORITY: u8 = 10;

pub enum Order {
    /// With the call in whose slot it must be, if any.
    Open(Box<Call>, Option<u64>),
    Command(u64, Command),
    /// Two calls of the same slot.
    Join(u64, u64),
    Part(u64),
    /// The session was dropped.
    Close(u64),
}

/// One call as its thread owns it.
pub struct Call {
    pub id: u64,
    pub name: String,
    pub socket: UdpSocket,
    /// The odd port above: RTCP.
    pub control: UdpSocket,
    /// Counts this call's turns; where it begins differs, so that not all look for RTCP at once.
    pub turns: u8,
    pub arrivals: Arrivals,
    /// Only packets from here pass the kernel.
    pub connected: Option<SocketAddr>,
    pub latch: Latch,
    pub stream: Stream,
    pub events: mpsc::Sender<Event>,
    /// An event that found `events` full.
    pub waiting: Option<Event>,
    pub recording: Option<Recording>,
    /// Where what the caller says goes.
    pub inlet: Option<Inlet>,
    /// The call of the same slot that it is joined to.
    pub joined: Option<u64>,
    /// False once the session is dropped, should there be no room for the order that says so.
    pub open: Arc<AtomicBool>,
}

/// How a call's packets have come of late.
#[derive(Clone, Copy, Default)]
pub struct Arrivals {
    /// One in each turn.
    steady: bool,
    /// Of the last.
    len: usize,
    /// The queue was empty since the socket was connected: what is in it now is the peer's.
    settled: bool,
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
    busy: Arc<Busy>,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    datagram: [u8; DATAGRAM_MAX],
    /// Places in the slot of joined calls that have yet to send in this turn.
    joined: Vec<usize>,
    /// Of calls that have something to tell.
    telling: Vec<usize>,
}

impl Worker {
    pub fn new(
        orders: Receiver<Order>,
        calls: Arc<AtomicUsize>,
        lateness: Arc<Histogram>,
        busy: Arc<Busy>,
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
            busy,
            stop,
            counts,
            datagram: [0; DATAGRAM_MAX],
            joined: Vec::new(),
            telling: Vec::new(),
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
            let ahead = self.next_in_use(slot);
            let span = SLOT * ahead as u32;
            self.busy.add(clock::now().saturating_duration_since(now), span);
            // Up to one round may be made up for, slot after slot: each call has one turn in it.
            // What is later still is left out.
            let round = SLOT * SLOTS as u32;
            let rounds = late.as_millis() / round.as_millis();
            due += span + round * rounds as u32;
            slot = (slot + ahead) % SLOTS;
        }
        for slot in 0..SLOTS {
            while let Some(call) = self.slots[slot].pop() {
                self.close(clock::now(), call);
            }
        }
        // The recorder outlives us and empties its queue: this ends.
        self.unsaid.drain(..).for_each(Recording::close_waiting);
    }

    fn obey(&mut self, now: Instant, order: Order) {
        match order {
            Order::Open(call, beside) => {
                let beside = beside.and_then(|other| self.homes.get(&other).copied());
                let home = beside.unwrap_or_else(|| home(|slot| self.slots[slot].len()));
                self.homes.insert(call.id, home);
                self.slots[home].push(call);
            }
            Order::Command(id, command) => {
                if let Some(call) = self.call(id) {
                    call.stream.command(now, command);
                    call.connect();
                }
            }
            Order::Join(a, b) => self.join(a, b),
            Order::Part(id) => self.part(id),
            Order::Close(id) => {
                let home = self.homes.get(&id).copied();
                let slot = home.map(|home| &mut self.slots[home]);
                let call = slot.and_then(|slot| {
                    let at = slot.iter().position(|call| call.id == id)?;
                    Some(slot.swap_remove(at))
                });
                if let Some(call) = call {
                    self.close(now, call);
                }
            }
        }
    }

    /// How many slots after this one the next with calls is.
    fn next_in_use(&self, slot: usize) -> usize {
        let in_use = |ahead: &usize| !self.slots[(slot + ahead) % SLOTS].is_empty();
        (1..=SLOTS).find(in_use).unwrap_or(SLOTS)
    }

    fn call(&mut self, id: u64) -> Option<&mut Call> {
        let home = *self.homes.get(&id)?;
        self.slots[home].iter_mut().find(|call| call.id == id).map(|call| &mut **call)
    }

    fn join(&mut self, a: u64, b: u64) {
        // Either may be over by now: then the other hears of it by its signalling.
        let (Some(home), Some(other)) = (self.homes.get(&a), self.homes.get(&b)) else { return };
        if home != other || a == b {
            tracing::error!("calls that were not opened beside each other cannot be joined");
            return;
        }
        for (id, other) in [(a, b), (b, a)] {
            if self.call(id).is_some_and(|call| call.joined.is_some_and(|joined| joined != other)) {
                self.part(id);
            }
            if let Some(call) = self.call(id) {
                call.joined = Some(other);
                call.stream.join();
            }
        }
    }

    fn part(&mut self, id: u64) {
        let other = self.call(id).and_then(|call| call.joined);
        for id in [Some(id), other].into_iter().flatten() {
            if let Some(call) = self.call(id) {
                call.joined = None;
                call.stream.part();
            }
        }
    }

    fn turn(&mut self, now: Instant, slot: usize) {
        let mut at = 0;
        while at < self.slots[slot].len() {
            // What a call will need is told by memory that must be near first.
            if let Some(call) = self.slots[slot].get(at + FETCHED_AHEAD) {
                call.fetch_first();
            }
            if let Some(call) = self.slots[slot].get(at + 1) {
                call.stream.fetch();
            }
            let call = &mut self.slots[slot][at];
            if call.is_open() {
                call.receive(now, &mut self.datagram);
                match call.joined {
                    None => {
                        call.send(now, &self.counts);
                        self.telling.extend(call.has_news().then_some(at));
                    }
                    // Once both have received.
                    Some(_) => self.joined.push(at),
                }
                at += 1;
            } else {
                let call = self.slots[slot].swap_remove(at);
                self.close(now, call);
            }
        }
        self.turn_joined(now, slot);
        for at in self.telling.drain(..) {
            self.slots[slot][at].tell();
        }
        self.unsaid.retain(|recording| !recording.close());
    }

    /// The second half of the turn for joined calls: what one has received in this turn the other
    /// sends in it.
    fn turn_joined(&mut self, now: Instant, slot: usize) {
        let calls = &mut self.slots[slot];
        for &at in &self.joined {
            let other = calls[at].joined;
            let other = calls[..at].iter().position(|call| Some(call.id) == other);
            // The pair meets at the one that stands behind.
            let Some(other) = other else { continue };
            let (front, back) = calls.split_at_mut(at);
            front[other].stream.exchange(now, &mut back[0].stream);
        }
        for at in self.joined.drain(..) {
            calls[at].send(now, &self.counts);
            self.telling.extend(calls[at].has_news().then_some(at));
        }
    }

    fn close(&mut self, now: Instant, mut call: Box<Call>) {
        if let Some(other) = call.joined {
            self.part(other);
        }
        self.homes.remove(&call.id);
        self.calls.fetch_sub(1, Ordering::Relaxed);
        call.stream.close();
        call.say_goodbye(now);
        call.record(&self.counts);
        let (counters, quality) = (call.stream.counters(), call.stream.quality());
        tracing::info!(call = call.name, %quality, ?counters, "media closed");
        self.unsaid.extend(call.recording.take());
    }
}

impl Call {
    /// Takes in what came. To ask the kernel whether there is more costs as much as all the rest of
    /// reading: a peer that sends a packet each turn is asked for one, and only now and then, or
    /// when something else than audio comes, whether that was all.
    fn receive(&mut self, now: Instant, datagram: &mut [u8; DATAGRAM_MAX]) {
        self.turns = self.turns.wrapping_add(1);
        if self.turns.is_multiple_of(DRAIN_TURNS) {
            self.arrivals.steady = false;
        }
        let mut nth = 0;
        while nth < RECEIVE_MAX {
            match self.take_in(datagram) {
                Ok((len, source)) => {
                    self.stream.receive(now, source, &datagram[..len]);
                    let usual = std::mem::replace(&mut self.arrivals.len, len) == len;
                    self.arrivals.steady &= usual;
                    if self.arrivals.steady {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.arrivals = Arrivals { steady: nth == 1, settled: true, ..self.arrivals };
                    break;
                }
                // ICMP told that the peer's port was closed: it may open yet.
                Err(_) => {}
            }
            nth += 1;
        }
        if self.turns.is_multiple_of(CONTROL_TURNS) {
            self.receive_control(now, datagram);
        }
    }

    /// Asks for the memory of its turn while others have theirs.
    #[inline(always)]
    fn fetch_first(&self) {
        near::bring(&self.socket);
        near::bring(&self.turns);
        near::bring(&self.arrivals);
        near::bring(&self.connected);
        near::bring(&self.waiting);
        near::bring(&self.recording);
        near::bring(&self.inlet);
        near::bring(&self.joined);
        self.stream.fetch_first();
    }

    fn is_open(&self) -> bool {
        // It lies elsewhere, and each look at it costs as much as a recv.
        !self.turns.is_multiple_of(DRAIN_TURNS) || self.open.load(Ordering::Relaxed)
    }

    /// The C library's `recv` and `send` can be cancelled, which costs as much as a tenth of them.
    fn take_in(&self, datagram: &mut [u8; DATAGRAM_MAX]) -> io::Result<(usize, SocketAddr)> {
        match self.connected {
            Some(peer) if self.arrivals.settled => {
                let (_, len) = net::recv(&self.socket, &mut datagram[..], RecvFlags::empty())?;
                Ok((len, peer))
            }
            _ => self.socket.recv_from(datagram),
        }
    }

    fn receive_control(&mut self, now: Instant, datagram: &mut [u8; DATAGRAM_MAX]) {
        for _ in 0..RECEIVE_MAX {
            match self.control.recv_from(datagram) {
                Ok((len, source)) => self.stream.receive_control(now, source, &datagram[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {}
            }
        }
    }

    fn send(&mut self, now: Instant, counts: &Counts) {
        let mut packet = [0; PACKET_MAX];
        let mut len = self.stream.transmit(now, &mut packet);
        while let Some(ready) = len {
            self.send_packet(&packet[..ready]);
            len = self.stream.transmit_more(&mut packet);
        }
        if let Some((len, way)) = self.stream.report(now, &mut packet) {
            self.send_control(&packet[..len], way);
        }
        self.hand_over_speech(now);
        self.record(counts);
    }

    /// What the kernel refuses is lost like any packet; silence is told by the stream.
    fn send_packet(&self, packet: &[u8]) {
        match (self.connected, self.stream.remote()) {
            (Some(_), _) => drop(net::send(&self.socket, packet, SendFlags::empty())),
            (None, Some(remote)) => drop(self.socket.send_to(packet, remote)),
            (None, None) => {}
        }
    }

    fn send_control(&self, packet: &[u8], way: Rtcp) {
        match way {
            Rtcp::Muxed => self.send_packet(packet),
            Rtcp::Apart(remote) => drop(self.control.send_to(packet, remote)),
        }
    }

    fn say_goodbye(&mut self, now: Instant) {
        let mut packet = [0; PACKET_MAX];
        if let Some((len, way)) = self.stream.goodbye(now, &mut packet) {
            self.send_control(&packet[..len], way);
        }
    }

    /// In strict mode the kernel itself keeps strangers out, and sends cheaper.
    fn connect(&mut self) {
        let remote = self.stream.remote();
        if self.latch == Latch::Strict && remote.is_some() && remote != self.connected {
            let connected = remote.filter(|remote| self.socket.connect(remote).is_ok());
            self.connected = connected;
            // What came before may be anybody's.
            self.arrivals.settled = false;
        }
    }

    fn has_news(&self) -> bool {
        self.waiting.is_some() || self.stream.has_news()
    }

    /// Hands events over while there is room; what finds none waits in the stream. All calls of a
    /// slot do so together: whoever they are for sleeps, and waking costs more than listening.
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

    fn hand_over_speech(&mut self, now: Instant) {
        let Some(inlet) = &mut self.inlet else { return };
        while let Some(spoken) = self.stream.spoken() {
            inlet.hear(now, spoken);
        }
    }

    fn record(&mut self, counts: &Counts) {
        while let Some(recorded) = self.stream.recorded() {
            let written = match &mut self.recording {
                Some(recording) => recording.write(recorded),
                // A segment, and nowhere to keep it.
                None => recorded.segment.is_none(),
            };
            if !written {
                counts.recording_dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Where a new call lives: in the fullest slot that has room, so that few are in use; else in a
/// new one, away from the others; else in the emptiest.
fn home(calls: impl Fn(usize) -> usize) -> usize {
    // Seven apart: neighbours are used last.
    let slots = (0..SLOTS).map(|nth| nth * 7 % SLOTS);
    let has_room = |&slot: &usize| (1..SLOT_CALLS).contains(&calls(slot));
    let fullest = slots.clone().filter(has_room).max_by_key(|&slot| calls(slot));
    fullest.or_else(|| slots.min_by_key(|&slot| calls(slot))).unwrap_or(0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_filled_one_after_another_and_then_evenly() {
        let mut calls = [0; SLOTS];
        for nth in 0..SLOTS * SLOT_CALLS {
            calls[home(|slot| calls[slot])] += 1;
            let in_use = calls.iter().filter(|&&calls| calls > 0).count();
            assert_eq!(in_use, nth / SLOT_CALLS + 1);
        }
        assert_eq!(calls, [SLOT_CALLS; SLOTS]);
        for _ in 0..SLOTS {
            calls[home(|slot| calls[slot])] += 1;
        }
        assert_eq!(calls, [SLOT_CALLS + 1; SLOTS]);
        // A slot that many have left fills up after those that fewer have left.
        (calls[3], calls[9]) = (5, 20);
        assert_eq!(home(|slot| calls[slot]), 9);
    }
}
