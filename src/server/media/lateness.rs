//! How late turns are and how much of its time a thread works, counted without a lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of lateness, each half again as wide as the one before: 1 us to about 40 s.
const BUCKETS: usize = 44;

pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    max_us: AtomicU64,
}

/// The share of its time that a thread works, as an average over about half a second. One thread
/// writes it.
#[derive(Default)]
pub struct Busy {
    /// An `f32`, 0 to 1 and, while it does not keep up, more.
    share: AtomicU32,
}

impl Busy {
    /// Seconds that the average goes over.
    const OVER_S: f32 = 0.5;

    /// So much work in so much time, which is short against what the average goes over.
    pub fn add(&self, worked: Duration, of: Duration) {
        let share = self.share();
        let of_s = of.as_secs_f32();
        let next = share + (worked.as_secs_f32() / of_s - share) * of_s / Busy::OVER_S;
        self.share.store(next.to_bits(), Ordering::Relaxed);
    }

    pub fn share(&self) -> f32 {
        f32::from_bits(self.share.load(Ordering::Relaxed))
    }
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
    pub fn since(window: &mut Window, histogram: &Histogram) -> Lateness {
        let (counts, max_us) = summed([histogram].into_iter());
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
    fn how_busy_a_thread_is_follows_its_work() {
        let (busy, ms) = (Busy::default(), Duration::from_millis(1));
        (0..5_000).for_each(|_| busy.add(ms / 4, ms));
        assert!((busy.share() - 0.25).abs() < 0.01, "{}", busy.share());
        (0..512).for_each(|_| busy.add(ms, ms));
        assert!((0.6..0.8).contains(&busy.share()), "{}", busy.share());
    }

    #[test]
    fn a_window_forgets_what_came_before() {
        let (histogram, mut window) = (Histogram::default(), Window::default());
        (0..100).for_each(|_| histogram.add(Duration::from_millis(30)));
        assert!(Lateness::since(&mut window, &histogram).p99.as_millis() >= 30);
        (0..50).for_each(|_| histogram.add(Duration::from_micros(100)));
        let late = Lateness::since(&mut window, &histogram);
        assert_eq!(late.turns, 50);
        assert!(late.p99 < Duration::from_millis(1), "{:?}", late.p99);
    }
}
