//! What of a peer's packets arrived, and how evenly: loss by RFC 3550 A.3, jitter by A.8.

use std::time::{Duration, Instant};

use super::packet::Header;

/// A call's reception, over every source that its peer spoke as.
pub struct Reception {
    /// Ticks per second of the RTP clock.
    clock: u32,
    epoch: Instant,
    source: Option<Source>,
    /// Of sources before the current one.
    earlier: Tally,
    /// The largest jitter so far, in sixteenths of a tick.
    jitter_max: u32,
}

/// Packets, told by their numbers and by their arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// As many as the numbers say were sent.
    pub expected: u64,
    /// Duplicates count, as RFC 3550 wants it.
    pub received: u64,
}

/// What a report says of the current source (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub ssrc: u32,
    /// In 256ths, since the last block.
    pub fraction_lost: u8,
    /// Within the 24 bits of its field; negative with more duplicates than losses.
    pub lost: i32,
    pub highest: u32,
    /// In ticks.
    pub jitter: u32,
}

struct Source {
    ssrc: u32,
    /// The first number, and the highest extended by how often they wrapped.
    first: u32,
    highest: u32,
    received: u64,
    /// At the last block.
    told: Tally,
    /// Of the last packet, arrival minus timestamp, in ticks.
    transit: Option<u32>,
    /// In sixteenths of a tick.
    jitter: u32,
}

impl Reception {
    pub fn new(now: Instant, clock: u32) -> Reception {
        let earlier = Tally::default();
        Reception { clock: clock.max(1), epoch: now, source: None, earlier, jitter_max: 0 }
    }

    /// The peer's numbers or SSRC begin anew with the next packet.
    pub fn restart(&mut self) {
        if let Some(source) = self.source.take() {
            self.earlier = self.earlier.plus(source.tally());
        }
    }

    /// Another clock was agreed on.
    pub fn set_clock(&mut self, clock: u32) {
        if self.clock != clock.max(1) {
            self.clock = clock.max(1);
            self.restart();
        }
    }

    /// One packet of the peer. Packets that are `timed` tell jitter: those of an event do not,
    /// they repeat the timestamp of its beginning.
    pub fn note(&mut self, now: Instant, header: &Header, timed: bool) {
        if self.source.as_ref().is_some_and(|source| source.ssrc != header.ssrc) {
            self.restart();
        }
        let source = self.source.get_or_insert_with(|| Source::new(header));
        source.received += 1;
        let ahead = header.sequence.wrapping_sub(source.highest as u16);
        if ahead < 1 << 15 {
            source.highest += u32::from(ahead);
        }
        if timed {
            let elapsed = now.saturating_duration_since(self.epoch);
            let clock = u64::from(self.clock);
            let part = u64::from(elapsed.subsec_nanos()) * clock / 1_000_000_000;
            let ticks = elapsed.as_secs() * clock + part;
            source.time((ticks as u32).wrapping_sub(header.timestamp));
            self.jitter_max = self.jitter_max.max(source.jitter);
        }
    }

    /// What to report; `None` while nobody has spoken.
    pub fn block(&mut self) -> Option<Block> {
        let source = self.source.as_mut()?;
        let tally = source.tally();
        let since = Tally {
            expected: tally.expected - source.told.expected,
            received: tally.received - source.told.received,
        };
        source.told = tally;
        let lost = tally.expected as i64 - tally.received as i64;
        Some(Block {
            ssrc: source.ssrc,
            fraction_lost: since.fraction_lost(),
            lost: lost.clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest: source.highest,
            jitter: source.jitter >> 4,
        })
    }

    /// All sources together.
    pub fn tally(&self) -> Tally {
        self.source.as_ref().map_or(self.earlier, |source| self.earlier.plus(source.tally()))
    }

    /// As it is now.
    pub fn jitter(&self) -> Duration {
        self.time(self.source.as_ref().map_or(0, |source| source.jitter))
    }

    pub fn jitter_max(&self) -> Duration {
        self.time(self.jitter_max)
    }

    fn time(&self, sixteenths: u32) -> Duration {
        Duration::from_micros(u64::from(sixteenths) * 1_000_000 / 16 / u64::from(self.clock))
    }
}

impl Tally {
    fn plus(self, other: Tally) -> Tally {
        Tally { expected: self.expected + other.expected, received: self.received + other.received }
    }

    fn fraction_lost(&self) -> u8 {
        let lost = self.expected.saturating_sub(self.received);
        (lost * 256).checked_div(self.expected).map_or(0, |fraction| fraction.min(255) as u8)
    }
}

impl Source {
    fn new(header: &Header) -> Source {
        let first = u32::from(header.sequence);
        Source {
            ssrc: header.ssrc,
            first,
            highest: first,
            received: 0,
            told: Tally::default(),
            transit: None,
            jitter: 0,
        }
    }

    fn tally(&self) -> Tally {
        let expected = u64::from(self.highest.wrapping_sub(self.first)) + 1;
        Tally { expected, received: self.received }
    }

    /// RFC 3550 A.8, in its integer form.
    fn time(&mut self, transit: u32) {
        if let Some(last) = self.transit.replace(transit) {
            let difference = (transit.wrapping_sub(last) as i32).unsigned_abs();
            // A jump of their clock by more than a second is not jitter.
            if difference < JUMP_TICKS {
                self.jitter = self.jitter + difference - ((self.jitter + 8) >> 4);
            }
        }
    }
}

const JUMP_TICKS: u32 = 8000;

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    struct Bench {
        reception: Reception,
        start: Instant,
    }

    impl Bench {
        fn new() -> Bench {
            let start = Instant::now();
            Bench { reception: Reception::new(start, 8000), start }
        }

        /// The packet with this number of a steady sender, so many ms after it was due.
        fn arrive(&mut self, ssrc: u32, nth: u32, late_ms: u64) {
            let header = Header {
                marker: false,
                payload_type: 0,
                sequence: nth as u16,
                timestamp: nth.wrapping_mul(160),
                ssrc,
            };
            let now = self.start + Duration::from_millis(u64::from(nth & 0xffff) * 20 + late_ms);
            self.reception.note(now, &header, true);
        }
    }

    #[test]
    fn loss_is_what_the_numbers_lack_across_the_wrap() {
        let mut bench = Bench::new();
        for nth in 65_500u32..65_636 {
            if nth % 4 != 0 {
                bench.arrive(1, nth, 0);
            }
        }
        let block = bench.reception.block().unwrap();
        // From 65,501 to 65,635.
        let tally = Tally { expected: 135, received: 102 };
        assert_eq!(bench.reception.tally(), tally);
        assert_eq!((block.lost, block.highest), (33, 65_635));
        assert_eq!(block.fraction_lost, (33 * 256 / 135) as u8);
        bench.arrive(1, 65_636, 0);
        assert_eq!(bench.reception.block().unwrap().fraction_lost, 0, "none since the last block");
    }

    #[test]
    fn duplicates_make_loss_negative_and_late_packets_are_no_loss() {
        let mut bench = Bench::new();
        for nth in [10, 11, 13, 12, 12, 12] {
            bench.arrive(1, nth, 0);
        }
        let block = bench.reception.block().unwrap();
        assert_eq!((block.lost, block.fraction_lost, block.highest), (-2, 0, 13));
    }

    #[test]
    fn jitter_approaches_the_mean_difference() {
        let mut bench = Bench::new();
        for nth in 0..500 {
            bench.arrive(1, nth, 0);
        }
        assert_eq!(bench.reception.jitter(), Duration::ZERO);
        // Every second packet is 10 ms late: each differs from the one before by 10 ms.
        for nth in 500..1000u32 {
            bench.arrive(1, nth, u64::from(nth % 2) * 10);
        }
        let jitter = bench.reception.jitter().as_micros();
        assert!((9_500..10_100).contains(&jitter), "{jitter} us");
        let ticks = bench.reception.block().unwrap().jitter;
        assert!((76..=80).contains(&ticks), "{ticks}");
    }

    #[test]
    fn a_pause_and_a_jump_of_the_clock_are_no_jitter() {
        let mut bench = Bench::new();
        for nth in (0..50).chain(300..350) {
            bench.arrive(1, nth, 0);
        }
        // Their clock starts anew.
        for nth in 1_000_350..1_000_400 {
            bench.arrive(1, nth, 0);
        }
        assert_eq!(bench.reception.jitter_max(), Duration::ZERO);
    }

    #[test]
    fn a_new_source_counts_beside_the_old_one() {
        let mut bench = Bench::new();
        for nth in 0..10 {
            bench.arrive(1, nth, 0);
        }
        for nth in 40_000..40_010 {
            bench.arrive(2, nth, 0);
        }
        assert_eq!(bench.reception.tally(), Tally { expected: 20, received: 20 });
        let block = bench.reception.block().unwrap();
        assert_eq!((block.ssrc, block.lost, block.highest), (2, 0, 40_009));
    }
}
