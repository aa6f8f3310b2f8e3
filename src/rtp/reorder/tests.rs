//! Packets that come in any order, twice, late or never.
#![allow(clippy::disallowed_methods)]

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::*;

/// A ring, its clock, and what came out: timestamps, or minus the number of packets lost.
struct Bench {
    ring: Reorder,
    /// What may pass does, as on a call; else all is held first.
    passing: bool,
    now: Instant,
    out: Vec<i64>,
}

impl Bench {
    fn new() -> Bench {
        Bench { ring: Reorder::new(), passing: true, now: Instant::now(), out: Vec::new() }
    }

    fn push_from(&mut self, ssrc: u32, sequence: u16) -> Arrival {
        let timestamp = u32::from(sequence);
        let header = Header { marker: false, payload_type: 0, sequence, timestamp, ssrc };
        let payload = [sequence as u8; 160];
        if self.passing && self.ring.passes(&header, &payload) {
            self.out.push(i64::from(timestamp));
            return Arrival::Taken;
        }
        loop {
            let arrival = self.ring.insert(self.now, &header, &payload);
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
    let event = Header { marker: true, payload_type: 101, sequence: 11, timestamp: 11, ssrc: 1 };
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
        let mut bench = Bench { passing: seed % 2 == 0, ..Bench::new() };
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
        let expected: Vec<i64> = (0..200).map(|nth| i64::from(first.wrapping_add(nth))).collect();
        assert_eq!(bench.out, expected, "seed {seed}");
    }
}

#[test]
fn with_losses_what_arrives_comes_out_in_order_and_what_does_not_is_counted() {
    for seed in 0..500 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bench = Bench { passing: seed % 2 == 0, ..Bench::new() };
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
