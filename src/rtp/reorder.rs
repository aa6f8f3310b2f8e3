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
#[allow(clippy::disallowed_methods)]
mod tests {
    use rand::rngs::StdRng;
    use rand::seq::SliceRandom;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// A ring, its clock, and what came out: timestamps, or minus the number of packets lost.
    struct Bench {
        ring: Reorder,
        now: Instant,
        out: Vec<i64>,
    }

    impl Bench {
        fn new() -> Bench {
            Bench { ring: Reorder::new(), now: Instant::now(), out: Vec::new() }
        }

        fn push_from(&mut self, ssrc: u32, sequence: u16) -> Arrival {
            let timestamp = u32::from(sequence);
            let header = Header { marker: false, payload_type: 0, sequence, timestamp, ssrc };
            loop {
                let arrival = self.ring.insert(self.now, &header, &[sequence as u8; 160]);
                if arrival == Arrival::Full {
                    self.ring.give_up();
                }
                self.drain();
                if arrival != Arrival::Full {
                    return arrival;
                }
            }
        }

        fn push(&mut self, sequence: u16) -> Arrival {
            self.push_from(1, sequence)
        }

        fn pass(&mut self, ms: u64) {
            self.now += Duration::from_millis(ms);
            self.drain();
        }

        fn drain(&mut self) {
            while let Some(unit) = self.ring.take(self.now) {
                self.out.push(match unit {
                    Unit::Audio { timestamp, payload, .. } => {
                        assert_eq!(payload, [timestamp as u8; 160]);
                        i64::from(timestamp)
                    }
                    Unit::Lost { packets } => -i64::from(packets),
                });
            }
        }
    }

    #[test]
    fn in_sequence_at_once_across_the_wrap() {
        let mut bench = Bench::new();
        for sequence in [65534, 65535, 0, 1] {
            bench.push(sequence);
        }
        assert_eq!(bench.out, [65534, 65535, 0, 1]);
        assert_eq!(bench.ring.deadline(), None);
    }

    #[test]
    fn reordered_packets_come_out_in_sequence() {
        let mut bench = Bench::new();
        for sequence in [65533, 65535, 0, 65534, 1] {
            bench.push(sequence);
        }
        assert_eq!(bench.out, [65533, 65534, 65535, 0, 1]);
    }

    #[test]
    fn a_gap_is_held_60_ms_then_named() {
        let mut bench = Bench::new();
        bench.push(10);
        bench.push(13);
        bench.pass(59);
        assert_eq!(bench.out, [10]);
        assert_eq!(bench.ring.deadline(), Some(bench.now + Duration::from_millis(1)));
        bench.pass(1);
        assert_eq!(bench.out, [10, -2, 13]);
        assert_eq!(bench.push(12), Arrival::Late);
        assert_eq!(bench.push(13), Arrival::Duplicate);
        assert_eq!(bench.out, [10, -2, 13]);
    }

    #[test]
    fn each_gap_waits_for_its_own_packet() {
        let mut bench = Bench::new();
        bench.push(10);
        bench.push(12);
        bench.pass(40);
        bench.push(14);
        bench.pass(20);
        assert_eq!(bench.out, [10, -1, 12]);
        bench.pass(39);
        assert_eq!(bench.out, [10, -1, 12]);
        bench.pass(1);
        assert_eq!(bench.out, [10, -1, 12, -1, 14]);
    }

    #[test]
    fn a_held_duplicate_is_told_from_the_first() {
        let mut bench = Bench::new();
        bench.push(10);
        assert_eq!(bench.push(12), Arrival::Taken);
        assert_eq!(bench.push(12), Arrival::Duplicate);
        bench.push(11);
        assert_eq!(bench.out, [10, 11, 12]);
    }

    #[test]
    fn a_packet_passes_only_if_nothing_is_before_it() {
        let mut ring = Reorder::new();
        let now = Instant::now();
        let header = |sequence: u16, ssrc| {
            let timestamp = u32::from(sequence);
            Header { marker: false, payload_type: 0, sequence, timestamp, ssrc }
        };
        let sound = [1; 160];
        assert!(!ring.passes(&header(10, 1), &sound), "nothing is known of its source");
        assert_eq!(ring.insert(now, &header(10, 1), &sound), Arrival::NewSource);
        assert!(!ring.passes(&header(11, 1), &sound), "the one before is still here");
        assert!(ring.take(now).is_some());
        assert!(!ring.passes(&header(11, 2), &sound), "another source");
        assert!(!ring.passes(&header(11, 1), &[]), "no sound");
        assert!(!ring.passes(&header(11, 1), &[1; PAYLOAD_MAX + 1]), "too long");
        assert!(!ring.passes(&header(12, 1), &sound), "not the next");
        assert!(ring.passes(&header(11, 1), &sound));
        assert!(!ring.passes(&header(11, 1), &sound), "it has passed");
        assert_eq!(ring.insert(now, &header(11, 1), &sound), Arrival::Duplicate);
        assert_eq!(ring.insert(now, &header(13, 1), &sound), Arrival::Taken);
        assert!(!ring.passes(&header(14, 1), &sound), "12 is missing");
        assert!(!ring.passes(&header(12, 1), &sound), "13 waits: 12 goes before it in order");
        assert_eq!(ring.insert(now, &header(12, 1), &sound), Arrival::Taken);
        let taken = |ring: &mut Reorder| match ring.take(now) {
            Some(Unit::Audio { timestamp, .. }) => Some(timestamp),
            _ => None,
        };
        assert_eq!([taken(&mut ring), taken(&mut ring)], [Some(12), Some(13)]);
    }

    #[test]
    fn a_skipped_packet_leaves_no_gap() {
        let mut bench = Bench::new();
        bench.push(10);
        let event =
            Header { marker: true, payload_type: 101, sequence: 11, timestamp: 11, ssrc: 1 };
        assert_eq!(bench.ring.skip(bench.now, &event), Arrival::Taken);
        bench.push(12);
        assert_eq!(bench.out, [10, 12]);
    }

    #[test]
    fn a_burst_beyond_the_ring_is_one_loss() {
        let mut bench = Bench::new();
        bench.push(10);
        assert_eq!(bench.push(111), Arrival::Taken);
        assert_eq!(bench.out, [10, -100, 111]);
    }

    #[test]
    fn what_is_held_before_a_burst_is_not_thrown_away_with_the_gap() {
        let mut bench = Bench::new();
        bench.push(10);
        for sequence in [12, 13, 15, 26, 27] {
            bench.push(sequence);
        }
        assert_eq!(bench.out, [10, -1, 12, 13]);
        bench.push(60);
        assert_eq!(bench.out, [10, -1, 12, 13, -1, 15, -10, 26, 27, -32, 60]);
    }

    #[test]
    fn a_new_ssrc_starts_over() {
        let mut bench = Bench::new();
        bench.push(10);
        bench.push(12);
        assert_eq!(bench.push_from(2, 500), Arrival::NewSource);
        bench.push_from(2, 501);
        assert_eq!(bench.out, [10, 500, 501]);
    }

    #[test]
    fn a_restarted_sender_is_believed_at_its_second_packet() {
        let mut bench = Bench::new();
        bench.push(10);
        assert_eq!(bench.push(30000), Arrival::Refused);
        assert_eq!(bench.push(11), Arrival::Taken);
        assert_eq!(bench.push(30001), Arrival::Refused);
        assert_eq!(bench.push(30002), Arrival::NewSource);
        assert_eq!(bench.out, [10, 11, 30002]);
    }

    #[test]
    fn ptimes_up_to_60_ms_are_taken() {
        let mut ring = Reorder::new();
        let now = Instant::now();
        let header = Header { marker: false, payload_type: 0, sequence: 0, timestamp: 0, ssrc: 1 };
        assert_eq!(ring.insert(now, &header, &[0; 481]), Arrival::Refused);
        assert_eq!(ring.insert(now, &header, &[]), Arrival::Refused);
        ring.set_longest(PACKED_MAX);
        assert_eq!(ring.insert(now, &header, &[0; PACKED_MAX + 1]), Arrival::Refused);
        for (sequence, len) in [80, 160, 240, 320, 480, 700, PACKED_MAX].into_iter().enumerate() {
            let header = Header { sequence: sequence as u16, ..header };
            ring.insert(now, &header, &vec![0; len]);
            let Some(Unit::Audio { payload, .. }) = ring.take(now) else { panic!("{len}") };
            assert_eq!(payload.len(), len);
        }
    }

    #[test]
    fn what_is_held_survives_a_longer_payload() {
        let mut ring = Reorder::new();
        let now = Instant::now();
        let header = Header { marker: false, payload_type: 0, sequence: 0, timestamp: 0, ssrc: 1 };
        for (sequence, len) in [(0, 80), (2, 160), (3, 100), (4, 480), (1, 240)] {
            ring.insert(now, &Header { sequence, ..header }, &vec![sequence as u8; len]);
            while sequence == 0 && ring.take(now).is_some() {}
        }
        for (sequence, len) in [(1, 240), (2, 160), (3, 100), (4, 480)] {
            let Some(Unit::Audio { payload, .. }) = ring.take(now) else { panic!("{sequence}") };
            assert_eq!(payload, vec![sequence; len]);
        }
    }

    /// Numbers from `first` on, each at most 15 places from its own, the first in its own.
    fn shuffled(random: &mut StdRng, first: u16, count: u16) -> Vec<u16> {
        let mut numbers: Vec<u16> = (0..count).map(|nth| first.wrapping_add(nth)).collect();
        let mut at = 1;
        while at < numbers.len() {
            let len = random.random_range(1..SLOTS).min(numbers.len() - at);
            numbers[at..at + len].shuffle(random);
            at += len;
        }
        numbers
    }

    #[test]
    fn any_permutation_within_the_window_comes_out_in_order_exactly_once() {
        for seed in 0..500 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut bench = Bench::new();
            let first = random.random();
            let mut arrived = vec![];
            for sequence in shuffled(&mut random, first, 200) {
                assert_ne!(bench.push(sequence), Arrival::Refused, "seed {seed}");
                arrived.push(sequence);
                if random.random_bool(0.2) {
                    let again = arrived[arrived.len().saturating_sub(random.random_range(1..9))];
                    assert_eq!(bench.push(again), Arrival::Duplicate, "seed {seed}: {again}");
                }
            }
            let expected: Vec<i64> =
                (0..200).map(|nth| i64::from(first.wrapping_add(nth))).collect();
            assert_eq!(bench.out, expected, "seed {seed}");
        }
    }

    #[test]
    fn with_losses_what_arrives_comes_out_in_order_and_what_does_not_is_counted() {
        for seed in 0..500 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut bench = Bench::new();
            let first: u16 = random.random();
            let order = shuffled(&mut random, first, 300);
            let (mut late, mut lost) = (0, 0);
            for (nth, sequence) in order.into_iter().enumerate() {
                if nth > 0 && random.random_bool(0.15) {
                    lost += 1;
                } else if bench.push(sequence) == Arrival::Late {
                    late += 1;
                }
                bench.pass(random.random_range(0..20));
            }
            // The end, and whatever is missing before it.
            bench.push(first.wrapping_add(300));
            bench.pass(1_000);
            let (out, gaps): (Vec<i64>, Vec<i64>) = bench.out.iter().partition(|unit| **unit >= 0);
            let place = |number: &i64| (*number as u16).wrapping_sub(first);
            assert!(out.is_sorted_by(|a, b| place(a) < place(b)), "seed {seed}: {out:?}");
            assert_eq!(-gaps.iter().sum::<i64>(), lost + late, "seed {seed}");
            assert_eq!(out.len() as i64, 301 - lost - late, "seed {seed}");
        }
    }
}
