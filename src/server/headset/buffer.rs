//! Sound between a device's clock and ours. No two clocks agree: a headset 100 ppm off gains or
//! loses 20 ms in three minutes. So what waits is kept at a level, by going a little faster or
//! slower, and neither runs dry nor piles up.

use std::collections::VecDeque;

/// So much waits, on average, unless the device shows that it wants more: ms.
const START_MS: usize = 50;
/// What there is to be besides a piece of the size that comes or goes at a time: ms.
const SLACK_MS: usize = 30;
/// What is added each time that was too little, and the most it may come to: ms.
const STEP_MS: usize = 20;
const LEVEL_MAX_MS: usize = 150;
/// What comes beyond the level and this is lost, for it would only be late: ms.
const BEYOND_MS: usize = 150;
/// Sound that stays away for longer is a pause of the other side's, not a device's unevenness: ms.
const PAUSE_MS: usize = 200;
/// What a recording without a listener's haste may wait for its turn: ms.
const PATIENCE_MS: usize = 10_000;
/// Levels are averaged over so many turns of 20 ms: they go up and down with the device's bursts.
const TURNS: f64 = 64.0;
/// Share of a second's speed by which a level a second off is mended: back in 20 s.
const GAIN: f64 = 0.05;
/// A pitch that is off by so little is not heard.
pub const BEND_MAX: f64 = 0.005;

/// Mono, at the device's rate.
pub struct Buffer {
    waiting: VecDeque<f32>,
    rate: usize,
    pace: Pace,
    state: State,
    level: usize,
    mean: f64,
    /// How often it ran dry or over while sound was coming.
    lost: u32,
}

/// Who takes what waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// A clock: as much as is put in, neither late nor with gaps.
    Clock,
    /// Somebody who takes what there is when they have time.
    Leisure,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is given until the level is reached.
    Filling,
    Flowing,
    /// Less was there than was wanted; since then so many samples were.
    Dry(usize),
}

impl Buffer {
    pub fn new(rate: u32, pace: Pace) -> Buffer {
        let rate = rate as usize;
        let level = rate * START_MS / 1_000;
        let (waiting, state, mean) = (VecDeque::new(), State::Filling, level as f64);
        Buffer { waiting, rate, pace, state, level, mean, lost: 0 }
    }

    fn samples(&self, ms: usize) -> usize {
        self.rate * ms / 1_000
    }

    fn most(&self) -> usize {
        match self.pace {
            Pace::Clock => self.level + self.samples(BEYOND_MS),
            Pace::Leisure => self.samples(PATIENCE_MS),
        }
    }

    /// A device that gives or takes more at a time wants more to be there.
    fn provide(&mut self, piece: usize) {
        self.level = self.level.max((piece + self.samples(SLACK_MS)).min(self.rate));
    }

    /// Of what is too much, the oldest is lost.
    pub fn put(&mut self, samples: impl IntoIterator<Item = f32>) {
        if let State::Dry(missed) = self.state {
            self.state = State::Filling;
            if missed < self.samples(PAUSE_MS) {
                let highest = self.samples(LEVEL_MAX_MS).max(self.level);
                self.level = (self.level + self.samples(STEP_MS)).min(highest);
                self.lost = self.lost.saturating_add(1);
            } else {
                // The end of what was said before the pause.
                self.waiting.clear();
            }
        }
        let before = self.waiting.len();
        self.waiting.extend(samples);
        self.provide(self.waiting.len() - before);
        if self.waiting.len() > self.most() {
            if self.state == State::Flowing {
                self.lost = self.lost.saturating_add(1);
            }
            let keep = if self.pace == Pace::Clock { self.level } else { self.most() };
            let late = self.waiting.len() - keep;
            self.waiting.drain(..late);
            self.mean = keep as f64;
        }
    }

    /// So many samples, or none yet.
    pub fn take(&mut self, count: usize) -> Option<Vec<f32>> {
        if self.pace == Pace::Leisure {
            return (self.waiting.len() >= count).then(|| self.waiting.drain(..count).collect());
        }
        self.provide(count);
        let wanted = if self.state == State::Flowing { count } else { self.level };
        if self.waiting.len() < wanted.max(count) {
            self.state = match self.state {
                State::Filling => State::Filling,
                State::Flowing => State::Dry(count),
                State::Dry(missed) => State::Dry(missed.saturating_add(count)),
            };
            return None;
        }
        if self.state != State::Flowing {
            self.state = State::Flowing;
            // Who begins begins with what is new.
            let late = self.waiting.len() - wanted.max(count);
            self.waiting.drain(..late);
            self.mean = self.level as f64;
        }
        Some(self.waiting.drain(..count).collect())
    }

    /// By how much its speed is to differ from what the rates say, asked once every 20 ms, when
    /// there is most: before our side takes, or once it has put. Above 1, more is made of what is
    /// put in, or less is taken.
    pub fn bend(&mut self) -> f64 {
        if self.pace == Pace::Leisure || self.state != State::Flowing {
            return 1.0;
        }
        self.mean += (self.waiting.len() as f64 - self.mean) / TURNS;
        let beyond = (self.mean - self.level as f64) / self.rate as f64;
        1.0 - (beyond * GAIN).clamp(-BEND_MAX, BEND_MAX)
    }

    /// How often sound had a gap, or a piece was left out.
    pub fn lost(&self) -> u32 {
        self.lost
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 48_000;

    /// Puts and takes by two clocks for so long: what the device's period is in samples, how much
    /// faster it is than ours, and whether it puts (a microphone) or takes. The fullest and the
    /// emptiest it was after half the time, in ms.
    fn run(buffer: &mut Buffer, period: usize, ppm: f64, puts: bool, seconds: f64) -> (f64, f64) {
        let (mut ours, mut theirs) = (0.0, 0.003);
        let (mut least, mut most, mut made, mut bend) = (f64::MAX, 0.0f64, 0.0, 1.0);
        let step = period as f64 / f64::from(RATE) / (1.0 + ppm * 1e-6);
        while ours < seconds {
            if theirs < ours {
                theirs += step;
                if puts {
                    buffer.put(vec![0.5; period]);
                } else {
                    buffer.take(period);
                }
                continue;
            }
            ours += 0.02;
            if puts {
                bend = buffer.bend();
            }
            made += 960.0 * if puts { 1.0 / bend } else { bend };
            let count = made as usize;
            made -= count as f64;
            if puts {
                buffer.take(count);
            } else {
                buffer.put(vec![0.5; count]);
                bend = buffer.bend();
            }
            if ours > seconds / 2.0 {
                let ms = buffer.len() as f64 / f64::from(RATE) * 1_000.0;
                (least, most) = (least.min(ms), most.max(ms));
            }
        }
        (least, most)
    }

    #[test]
    fn clocks_that_disagree_neither_run_dry_nor_pile_up() {
        for puts in [true, false] {
            for period in [480, 512, 1_024] {
                for ppm in [-500.0, -100.0, 0.0, 100.0, 500.0] {
                    let mut buffer = Buffer::new(RATE, Pace::Clock);
                    let (least, most) = run(&mut buffer, period, ppm, puts, 1_800.0);
                    let told = format!("{puts} {period} {ppm}: {least}..{most}");
                    assert_eq!(buffer.lost(), 0, "{told}");
                    assert!(least > 0.0 && most < 100.0, "{told}");
                }
            }
        }
    }

    #[test]
    fn a_device_of_large_pieces_finds_as_much_as_it_wants() {
        for puts in [true, false] {
            let mut buffer = Buffer::new(RATE, Pace::Clock);
            run(&mut buffer, 4_096, 100.0, puts, 600.0);
            assert_eq!(buffer.lost(), 0, "{puts}");
        }
    }

    #[test]
    fn after_a_few_gaps_what_comes_unevenly_has_none() {
        let mut buffer = Buffer::new(RATE, Pace::Clock);
        let mut turns = |count: usize| {
            for turn in 0..count {
                // Frames of 20 ms that come four at a time.
                (0..if turn % 8 == 0 { 4 } else { 0 }).for_each(|_| buffer.put(vec![0.5; 960]));
                buffer.take(480);
            }
            buffer.lost()
        };
        let first = turns(400);
        assert!((1..6).contains(&first), "{first}");
        assert_eq!(turns(60_000), first);
    }

    #[test]
    fn what_nobody_takes_does_not_pile_up() {
        let mut buffer = Buffer::new(RATE, Pace::Clock);
        (0..1_000).for_each(|_| buffer.put([0.5; 960]));
        assert!(buffer.len() <= 9_600, "{}", buffer.len());
        // Whoever begins to listen hears what is said now.
        assert!(buffer.take(960).is_some());
        assert!(buffer.len() <= 2_400, "{}", buffer.len());
        assert_eq!(buffer.lost(), 0);
        let mut patient = Buffer::new(RATE, Pace::Leisure);
        (0..1_000).for_each(|_| patient.put([0.5; 960]));
        assert_eq!(patient.len(), 480_000);
        assert!(patient.take(480_001).is_none() && patient.take(480_000).is_some());
    }

    #[test]
    fn after_a_pause_what_was_said_before_it_is_forgotten() {
        let mut buffer = Buffer::new(RATE, Pace::Clock);
        (0..8).for_each(|_| buffer.put(vec![0.5; 300]));
        (0..100).for_each(|_| drop(buffer.take(512)));
        (0..7).for_each(|_| buffer.put(vec![0.25; 300]));
        assert!(buffer.take(512).is_none());
        buffer.put(vec![0.25; 300]);
        assert_eq!(buffer.take(512), Some(vec![0.25; 512]));
        assert_eq!(buffer.lost(), 0);
    }
}
