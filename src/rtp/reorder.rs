//! Packets of one source put back in sequence: at once while none is missing, and past a gap
//! after 60 ms. The consumer is a detector, not an ear, so nothing is delayed for smoothness.

use std::time::{Duration, Instant};

use super::packet::Header;

/// How long a missing packet is waited for, unless told otherwise.
pub const HOLD: Duration = Duration::from_millis(60);
/// The longest payload taken: 60 ms of G.711.
pub const PAYLOAD_MAX: usize = 480;

const SLOTS: usize = 16;
/// RFC 3550 A.1: a larger jump is a restarted sender, believed once a second packet continues it.
const DROPOUT_MAX: u16 = 3000;
const MISORDER_MAX: u16 = 100;

pub struct Reorder {
    slots: [Slot; SLOTS],
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
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    Taken,
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
    timestamp: u32,
    payload: [u8; PAYLOAD_MAX],
}

impl Reorder {
    pub fn new() -> Reorder {
        Reorder {
            slots: std::array::from_fn(|_| Slot::free()),
            held: 0,
            next: None,
            ssrc: 0,
            seen: 0,
            jumped: 0,
            restart: None,
            hold: HOLD,
        }
    }

    /// How long a missing packet is waited for from now on, [`HOLD`] unless told.
    pub fn set_hold(&mut self, hold: Duration) {
        self.hold = hold;
    }

    /// Takes one audio packet. Call [`Reorder::take`] until it returns `None` afterwards.
    pub fn insert(&mut self, now: Instant, header: &Header, payload: &[u8]) -> Arrival {
        if payload.is_empty() || payload.len() > PAYLOAD_MAX {
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
                return Some(Unit::Audio {
                    payload_type: slot.payload_type,
                    timestamp: slot.timestamp,
                    payload: &self.slots[at].payload[..usize::from(self.slots[at].len)],
                });
            }
            if now < self.deadline()? {
                return None;
            }
            let packets = (1..SLOTS as u16)
                .find(|n| self.slots[index(next.wrapping_add(*n))].arrived.is_some())?;
            self.advance(packets, false);
            return Some(Unit::Lost { packets });
        }
    }

    /// When a held gap is given up, if nothing arrives before.
    pub fn deadline(&self) -> Option<Instant> {
        let first = self.slots.iter().filter_map(|slot| slot.arrived).min()?;
        Some(first + self.hold)
    }

    /// Forgets the source: the next packet starts a new one.
    pub fn reset(&mut self) {
        self.next = None;
        self.restart = None;
        self.seen = 0;
        self.jumped = 0;
        self.clear();
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
        slot.payload[..payload.len()].copy_from_slice(payload);
        self.held += 1;
        arrival
    }

    /// What to do with a number of the current source.
    fn judge(&mut self, next: u16, sequence: u16) -> Arrival {
        let ahead = sequence.wrapping_sub(next);
        let behind = next.wrapping_sub(sequence);
        if usize::from(ahead) < SLOTS {
            return Arrival::Taken;
        }
        if ahead < DROPOUT_MAX {
            // The ring cannot span it: what is still held is given up with what is missing.
            self.clear();
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

    fn clear(&mut self) {
        self.held = 0;
        for slot in &mut self.slots {
            slot.arrived = None;
        }
    }
}

impl Default for Reorder {
    fn default() -> Reorder {
        Reorder::new()
    }
}

impl Slot {
    fn free() -> Slot {
        Slot { arrived: None, len: 0, payload_type: 0, timestamp: 0, payload: [0; PAYLOAD_MAX] }
    }
}

fn index(sequence: u16) -> usize {
    usize::from(sequence) % SLOTS
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
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
            let arrival = self.ring.insert(self.now, &header, &[sequence as u8; 160]);
            self.drain();
            arrival
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
        for (sequence, len) in [80, 160, 240, 320, 480].into_iter().enumerate() {
            let header = Header { sequence: sequence as u16, ..header };
            ring.insert(now, &header, &vec![0; len]);
            let Some(Unit::Audio { payload, .. }) = ring.take(now) else { panic!("{len}") };
            assert_eq!(payload.len(), len);
        }
    }

    #[test]
    fn any_order_of_a_window_gives_each_packet_once() {
        for seed in 0..200u32 {
            let mut state = seed;
            let mut bench = Bench::new();
            let mut expected = vec![];
            bench.push(65500);
            for block in 0..20u16 {
                let mut window: Vec<u16> =
                    (0..5).map(|n| 65501u16.wrapping_add(block * 5 + n)).collect();
                expected.extend(window.iter().map(|&n| i64::from(n)));
                for at in (1..5).rev() {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    window.swap(at, (state >> 16) as usize % (at + 1));
                }
                for sequence in window {
                    bench.push(sequence);
                }
            }
            assert_eq!(bench.out[1..], expected, "seed {seed}");
        }
    }
}
