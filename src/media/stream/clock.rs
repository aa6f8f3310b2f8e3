//! RTP clocks: inside, sound counts 8,000 ticks a second, and on the wire as many as its codec's
//! clock.

use super::RATE;

/// From our timestamps to those on the wire.
#[derive(Clone, Copy)]
pub(super) struct Outward {
    /// Ticks on the wire of one inside.
    scale: u32,
    /// A timestamp, inside and on the wire.
    inside: u32,
    outside: u32,
}

/// From a peer's timestamps to ours.
pub(super) struct Inward {
    scale: u32,
    /// The last timestamp, and what it has become in ticks of the wire that never wrap.
    last: Option<(u32, i64)>,
    /// Where the sound that was heard last ended, on our clock.
    due: Option<u32>,
}

impl Outward {
    pub(super) fn new() -> Outward {
        Outward { scale: 1, inside: 0, outside: 0 }
    }

    pub(super) fn at(&self, timestamp: u32) -> u32 {
        // As both wrap at 2^32, a whole multiple stays one beyond it.
        let since = timestamp.wrapping_sub(self.inside);
        self.outside.wrapping_add(since.wrapping_mul(self.scale))
    }

    /// Another clock from `timestamp` on: it goes on from what the last one said (RFC 7160 §4.1).
    pub(super) fn set(&mut self, clock: u32, timestamp: u32) {
        let outside = self.at(timestamp);
        *self = Outward { scale: (clock / RATE).max(1), inside: timestamp, outside };
    }
}

impl Inward {
    pub(super) fn new(clock: u32) -> Inward {
        Inward { scale: (clock / RATE).max(1), last: None, due: None }
    }

    /// The next packet of sound, as many samples of it; its timestamp.
    pub(super) fn pass(&mut self, timestamp: u32, samples: usize) -> u32 {
        let start = self.next(timestamp);
        self.due = Some(start.wrapping_add(samples as u32));
        start
    }

    /// Samples from there to `start`, on our clock: beyond any packet if it is not later.
    pub(super) fn missing(&self, start: u32) -> usize {
        self.due.map_or(0, |due| start.wrapping_sub(due)) as usize
    }

    fn next(&mut self, timestamp: u32) -> u32 {
        let ticks = self.ticks(timestamp);
        self.last = Some((timestamp, ticks));
        self.whole(ticks)
    }

    /// Of something beside the sound.
    pub(super) fn at(&self, timestamp: u32) -> u32 {
        self.whole(self.ticks(timestamp))
    }

    fn ticks(&self, timestamp: u32) -> i64 {
        let (last, ticks) = self.last.unwrap_or((timestamp, i64::from(timestamp)));
        ticks + i64::from(timestamp.wrapping_sub(last) as i32)
    }

    fn whole(&self, ticks: i64) -> u32 {
        ticks.div_euclid(i64::from(self.scale)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_of_8_000_changes_nothing() {
        let (outward, mut inward) = (Outward::new(), Inward::new(8_000));
        for timestamp in [7, 0, u32::MAX, 1 << 31, 160] {
            assert_eq!(outward.at(timestamp), timestamp);
            assert_eq!((inward.at(timestamp), inward.next(timestamp)), (timestamp, timestamp));
        }
    }

    #[test]
    fn distances_are_kept_across_every_wrap() {
        let mut outward = Outward::new();
        outward.set(48_000, u32::MAX - 500);
        let mut inward = Inward::new(48_000);
        let mut before = None;
        for turn in 0..40_000_000u32 / 160 {
            let inside = (u32::MAX - 480).wrapping_add(turn * 160);
            let outside = outward.at(inside);
            let back = inward.next(outside);
            if let Some((outside_before, back_before)) = before {
                assert_eq!(outside.wrapping_sub(outside_before), 960, "turn {turn}");
                assert_eq!(back.wrapping_sub(back_before), 160, "turn {turn}");
            }
            before = Some((outside, back));
        }
    }

    #[test]
    fn another_clock_goes_on_from_the_last_timestamp() {
        let mut outward = Outward::new();
        assert_eq!(outward.at(1_000), 1_000);
        outward.set(48_000, 1_160);
        assert_eq!((outward.at(1_160), outward.at(1_320)), (1_160, 2_120));
        outward.set(8_000, 1_480);
        assert_eq!((outward.at(1_480), outward.at(1_640)), (3_080, 3_240));
    }

    #[test]
    fn what_stands_beside_the_sound_does_not_move_it() {
        let mut inward = Inward::new(48_000);
        let first = inward.next(u32::MAX - 99);
        assert_eq!(inward.at(860).wrapping_sub(first), 160);
        assert_eq!(inward.at(u32::MAX - 1_059).wrapping_sub(first), 160u32.wrapping_neg());
        assert_eq!(inward.next(860).wrapping_sub(first), 160);
    }
}
