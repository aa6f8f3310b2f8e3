//! How late turns are, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of lateness, each half again as wide as the one before: 1 us to about 40 s.
const BUCKETS: usize = 44;

pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    max_us: AtomicU64,
}

/// Remembers what was counted, to tell of the turns since.
pub struct Window {
    counts: [u64; BUCKETS],
}

impl Default for Window {
    fn default() -> Window {
        Window { counts: [0; BUCKETS] }
    }
}

/// What a media thread's turns lacked in punctuality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lateness {
    pub turns: u64,
    /// Upper bound of the bucket that 99 of 100 turns are in or below.
    pub p99: Duration,
    pub max: Duration,
}

impl Default for Histogram {
    fn default() -> Histogram {
        let counts = std::array::from_fn(|_| AtomicU64::new(0));
        Histogram { counts, max_us: AtomicU64::new(0) }
    }
}

impl Histogram {
    pub fn add(&self, late: Duration) {
        let us = late.as_micros().min(u128::from(u64::MAX)) as u64;
        let bucket = (0..BUCKETS - 1).find(|&at| us <= bound_us(at)).unwrap_or(BUCKETS - 1);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.max_us.fetch_max(us, Ordering::Relaxed);
    }
}

impl Lateness {
    pub fn of<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> Lateness {
        let (counts, max_us) = summed(histograms);
        Lateness::read(counts, max_us)
    }

    /// Of the turns since the last call with this window; `max` is that since the start.
    pub fn since<'a>(
        window: &mut Window,
        histograms: impl Iterator<Item = &'a Histogram>,
    ) -> Lateness {
        let (counts, max_us) = summed(histograms);
        let before = std::mem::replace(&mut window.counts, counts);
        Lateness::read(std::array::from_fn(|at| counts[at] - before[at]), max_us)
    }

    fn read(counts: [u64; BUCKETS], max_us: u64) -> Lateness {
        let turns: u64 = counts.iter().sum();
        let mut left = turns - turns / 100;
        let p99 = counts.iter().position(|&count| {
            left = left.saturating_sub(count);
            left == 0
        });
        let p99_us = p99.map_or(0, bound_us).min(max_us);
        let us = Duration::from_micros;
        Lateness { turns, p99: us(p99_us), max: us(max_us) }
    }
}

fn summed<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> ([u64; BUCKETS], u64) {
    let mut counts = [0; BUCKETS];
    let mut max_us = 0;
    for histogram in histograms {
        for (sum, count) in counts.iter_mut().zip(&histogram.counts) {
            *sum += count.load(Ordering::Relaxed);
        }
        max_us = max_us.max(histogram.max_us.load(Ordering::Relaxed));
    }
    (counts, max_us)
}

fn bound_us(bucket: usize) -> u64 {
    (0..bucket).fold(1, |bound, _| bound + bound.div_ceil(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p99_is_near_and_max_is_exact() {
        let histogram = Histogram::default();
        (0..990).for_each(|_| histogram.add(Duration::from_micros(100)));
        (0..10).for_each(|_| histogram.add(Duration::from_millis(7)));
        let late = Lateness::of([&histogram].into_iter());
        assert_eq!((late.turns, late.max), (1000, Duration::from_millis(7)));
        assert!((100..150).contains(&late.p99.as_micros()), "{:?}", late.p99);
        (0..10).for_each(|_| histogram.add(Duration::from_secs(9999)));
        let late = Lateness::of([&histogram].into_iter());
        assert!(late.p99 >= Duration::from_millis(7), "{:?}", late.p99);
        assert_eq!(Lateness::of(std::iter::empty()), Lateness::default());
    }

    #[test]
    fn a_window_forgets_what_came_before() {
        let (histogram, mut window) = (Histogram::default(), Window::default());
        (0..100).for_each(|_| histogram.add(Duration::from_millis(30)));
        assert!(Lateness::since(&mut window, [&histogram].into_iter()).p99.as_millis() >= 30);
        (0..50).for_each(|_| histogram.add(Duration::from_micros(100)));
        let late = Lateness::since(&mut window, [&histogram].into_iter());
        assert_eq!(late.turns, 50);
        assert!(late.p99 < Duration::from_millis(1), "{:?}", late.p99);
    }
}
