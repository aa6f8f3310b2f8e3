//! Packets of one source put back in sequence: at once while none is missing, and past a gap
//! after 60 ms. The consumer is a detector, not an ear, so nothing is delayed for smoothness.

use std::time::{Duration, Instant};

use super::packet::Header;
use crate::near;

/// How long a missing packet is waited for, unless told otherwise.
pub const HOLD: Duration = Duration::from_millis(60);
/// The longest payload taken, unless told otherwise: 60 ms of G.711.
pub const PAYLOAD_MAX: usize = 480;
/// The longest payload of any codec: a packet of Opus with one frame (RFC 6716 §3.4).
pub const PACKED_MAX: usize = 1276;

const SLOTS: usize = 16;
/// What a slot holds until a longer payload comes: 20 ms of G.711.
const PAYLOAD_USUAL: usize = 160;
/// RFC 3550 A.1: a larger jump is a restarted sender, believed once a second packet continues it.
const DROPOUT_MAX: u16 = 3000;
const MISORDER_MAX: u16 = 100;

pub struct Reorder {
    slots: [Slot; SLOTS],
    /// Payloads of the slots, each with `room` bytes: as many as were ever held at once, which is
    /// one while none is missing.
    payloads: Vec<u8>,
    room: usize,
    /// The longest payload that is taken.
    longest: usize,
    /// Which of them no slot uses, bit by place.
    spare: u16,
    held: usize,
    /// The sequence number due next; `None` before the first packet.
    next: Option<u16>,
    ssrc: u32,
    /// Which of the 64 numbers before `next` arrived; bit 0 is `next - 1`.
    seen: u64,
    /// Numbers jumped over, not yet reported as lost.
    jumped: u16,
    /// The number that would confirm a restarted sender.
    restart: Option<u16>,
    hold: Duration,
    /// The next gap is not waited for.
    forced: bool,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    Taken,
    /// Not taken: the ring cannot span from what is held to it. [`Reorder::give_up`] the oldest
    /// gap, take what is due, and insert it again.
    Full,
    /// Taken; it is the first of a new SSRC or of a restarted sender, and what was held is dropped.
    NewSource,
    /// Its turn has passed: dropped.
    Late,
    Duplicate,
    /// Empty, too long, or a jump no sender makes: dropped.
    Refused,
}

/// What comes out, in sequence.
#[derive(Debug, PartialEq, Eq)]
pub enum Unit<'a> {
    Audio {
        payload_type: u8,
        timestamp: u32,
        payload: &'a [u8],
    },
    /// This many packets never came.
    Lost {
        packets: u16,
    },
}

struct Slot {
    /// When it came; `None`: free.
    arrived: Option<Instant>,
    /// 0: the number is used up, but its packet carried no audio.
    len: u16,
    payload_type: u8,
    /// Which payload is its own, unless it is empty.
    place: u8,
    timestamp: u32,
}

impl Reorder {
    pub fn new() -> Reorder {
        Reorder {
            slots: std::array::from_fn(|_| Slot::free()),
            payloads: Vec::new(),
            room: PAYLOAD_USUAL,
            longest: PAYLOAD_MAX,
            spare: u16::MAX,
            held: 0,
            next: None,
            ssrc: 0,
            seen: 0,
            jumped: 0,
            restart: None,
            hold: HOLD,
            forced: false,
        }
    }

    /// Asks for the memory that every packet needs.
    #[inline(always)]
    pub fn fetch(&self) {
        let Reorder { held, next, ssrc, seen, jumped, longest, restart, .. } = self;
        near::bring(held);
        near::bring(next);
        near::bring(ssrc);
        near::bring(seen);
        near::bring(jumped);
        near::bring(longest);
        near::bring(restart);
    }

    /// How long a missing packet is waited for from now on, [`HOLD`] unless told.
    pub fn set_hold(&mut self, hold: Duration) {
        self.hold = hold;
    }

    /// The longest payload that is taken from now on, at most [`PACKED_MAX`].
    pub fn set_longest(&mut self, longest: usize) {
        self.longest = longest.min(PACKED_MAX);
    }

    /// Whether this audio packet is the next and nothing waits: then it is due at once, and counts
    /// as taken in and out. If not, [`Reorder::insert`] it.
    pub fn passes(&mut self, header: &Header, payload: &[u8]) -> bool {
        let passes = self.next == Some(header.sequence)
            && self.ssrc == header.ssrc
            && self.held == 0
            && self.jumped == 0
            && (1..=self.longest).contains(&payload.len());
        if passes {
            self.restart = None;
            self.advance(1, true);
        }
        passes
    }

    /// Takes one audio packet. Call [`Reorder::take`] until it returns `None` afterwards.
    pub fn insert(&mut self, now: Instant, header: &Header, payload: &[u8]) -> Arrival {
        if payload.is_empty() || payload.len() > self.longest {
            return Arrival::Refused;
        }
        self.place(now, header, payload)
    }

    /// Notes a packet that shares the sequence numbers but carries no audio.
    pub fn skip(&mut self, now: Instant, header: &Header) -> Arrival {
        self.place(now, header, &[])
    }

    /// The next unit due at `now`.
    pub fn take(&mut self, now: Instant) -> Option<Unit<'_>> {
        if self.jumped > 0 {
            return Some(Unit::Lost { packets: std::mem::take(&mut self.jumped) });
        }
        loop {
            let next = self.next.filter(|_| self.held > 0)?;
            let at = index(next);
            if self.slots[at].arrived.take().is_some() {
                self.held -= 1;
                self.advance(1, true);
                let slot = &self.slots[at];
                if slot.len == 0 {
                    continue;
                }
                self.spare |= 1 << slot.place;
                let start = usize::from(slot.place) * self.room;
                return Some(Unit::Audio {
                    payload_type: slot.payload_type,
                    timestamp: slot.timestamp,
                    payload: &self.payloads[start..start + usize::from(slot.len)],
                });
            }
            if !std::mem::take(&mut self.forced) && now < self.deadline()? {
                return None;
            }
            let packets = (1..SLOTS as u16)
                .find(|n| self.slots[index(next.wrapping_add(*n))].arrived.is_some())?;
            self.advance(packets, false);
            return Some(Unit::Lost { packets });
        }
    }

    /// The oldest gap is waited for no longer.
    pub fn give_up(&mut self) {
        self.forced = self.held > 0;
    }

    /// When a held gap is given up, if nothing arrives before.
    pub fn deadline(&self) -> Option<Instant> {
        if self.held == 0 {
            return None;
        }
        let first = self.slots.iter().filter_map(|slot| slot.arrived).min()?;
        Some(first + self.hold)
    }

    /// Forgets the source: the next packet starts a new one.
    pub fn reset(&mut self) {
        self.next = None;
        self.restart = None;
        self.seen = 0;
        self.jumped = 0;
        self.forced = false;
        self.held = 0;
        self.spare = u16::MAX;
        for slot in &mut self.slots {
            slot.arrived = None;
        }
    }

    fn place(&mut self, now: Instant, header: &Header, payload: &[u8]) -> Arrival {
        let arrival = match self.next {
            Some(next) if self.ssrc == header.ssrc => self.judge(next, header.sequence),
            _ => Arrival::NewSource,
        };
        match arrival {
            Arrival::Taken => {}
            Arrival::NewSource => {
                self.reset();
                self.ssrc = header.ssrc;
                self.next = Some(header.sequence);
            }
            refused => return refused,
        }
        self.restart = None;
        let slot = &mut self.slots[index(header.sequence)];
        if slot.arrived.is_some() {
            return Arrival::Duplicate;
        }
        slot.arrived = Some(now);
        slot.len = payload.len() as u16;
        slot.payload_type = header.payload_type;
        slot.timestamp = header.timestamp;
        self.held += 1;
        if !payload.is_empty() {
            let place = self.keep(payload);
            self.slots[index(header.sequence)].place = place;
        }
        arrival
    }

    /// Where the payload is kept.
    fn keep(&mut self, payload: &[u8]) -> u8 {
        // There are as many places as slots.
        let place = self.spare.trailing_zeros().min(SLOTS as u32 - 1) as u8;
        self.spare &= !(1 << place);
        if payload.len() > self.room {
            let room = if payload.len() > PAYLOAD_MAX { PACKED_MAX } else { PAYLOAD_MAX };
            let mut larger = vec![0; self.payloads.len() / self.room * room];
            for (to, from) in larger.chunks_mut(room).zip(self.payloads.chunks(self.room)) {
                to[..from.len()].copy_from_slice(from);
            }
            (self.payloads, self.room) = (larger, room);
        }
        let start = usize::from(place) * self.room;
        let missing = (start + self.room).saturating_sub(self.payloads.len());
        self.payloads.reserve_exact(missing);
        self.payloads.resize(self.payloads.len() + missing, 0);
        self.payloads[start..start + payload.len()].copy_from_slice(payload);
        place
    }

    /// What to do with a number of the current source.
    fn judge(&mut self, next: u16, sequence: u16) -> Arrival {
        let ahead = sequence.wrapping_sub(next);
        let behind = next.wrapping_sub(sequence);
        if usize::from(ahead) < SLOTS {
            return Arrival::Taken;
        }
        if ahead < DROPOUT_MAX {
            if self.held > 0 {
                return Arrival::Full;
            }
            self.jumped = self.jumped.saturating_add(ahead);
            self.advance(ahead, false);
            return Arrival::Taken;
        }
        if behind <= MISORDER_MAX {
            let duplicate = behind <= 64 && self.seen >> (behind - 1) & 1 == 1;
            return if duplicate { Arrival::Duplicate } else { Arrival::Late };
        }
        if self.restart == Some(sequence) {
            return Arrival::NewSource;
        }
        self.restart = Some(sequence.wrapping_add(1));
        Arrival::Refused
    }

    fn advance(&mut self, packets: u16, arrived: bool) {
        self.next = self.next.map(|next| next.wrapping_add(packets));
        self.seen = self.seen.checked_shl(u32::from(packets)).unwrap_or(0) | u64::from(arrived);
    }
}

impl Default for Reorder {
    fn default() -> Reorder {
        Reorder::new()
    }
}

impl Slot {
    fn free() -> Slot {
        Slot { arrived: None, len: 0, payload_type: 0, place: 0, timestamp: 0 }
    }
}

fn index(sequence: u16) -> usize {
    usize::from(sequence) % SLOTS
}

#[cfg(test)]
mod tests;
