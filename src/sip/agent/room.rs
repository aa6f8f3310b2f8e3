//! Room for calls: how many may be up and how fast they may begin, in all and by trunk, so that
//! one trunk that runs wild leaves some to the others.

use std::collections::HashMap;
use std::time::Instant;

use super::super::profile::Profile;
use super::Settings;

/// How many calls are up, and how fast they begin.
#[derive(Default)]
pub(super) struct Room {
    all: Share,
    /// By the trunk's name.
    trunks: HashMap<String, Share>,
}

#[derive(Default)]
struct Share {
    live: usize,
    pace: Pace,
}

/// How many calls may begin: a token bucket that holds two seconds' worth.
#[derive(Default)]
struct Pace {
    tokens: f64,
    at: Option<Instant>,
}

impl Room {
    /// Calls that are not over.
    pub fn live(&self) -> usize {
        self.all.live
    }

    pub fn begin(&mut self, trunk: &Profile) {
        self.all.live += 1;
        self.share(trunk).live += 1;
    }

    pub fn end(&mut self, trunk: &Profile) {
        self.all.live = self.all.live.saturating_sub(1);
        let share = self.share(trunk);
        share.live = share.live.saturating_sub(1);
    }

    /// Whether one more call fits, however fast they begin.
    pub fn has_place(&mut self, trunk: &Profile, settings: &Settings) -> bool {
        let most = trunk.calls_max.unwrap_or_else(|| fair(settings.calls_max, settings));
        self.all.live < settings.calls_max && self.share(trunk).live < most
    }

    /// Whether a call of this trunk may begin now.
    pub fn admits(&mut self, now: Instant, trunk: &Profile, settings: &Settings) -> bool {
        let rate = settings.calls_per_second;
        let own = trunk.calls_per_second.unwrap_or_else(|| fair(rate as usize, settings) as u32);
        self.has_place(trunk, settings)
            && self.share(trunk).pace.admits(now, own)
            && self.all.pace.admits(now, rate)
    }

    fn share(&mut self, trunk: &Profile) -> &mut Share {
        self.trunks.entry(trunk.name.clone()).or_default()
    }
}

impl Pace {
    fn admits(&mut self, now: Instant, per_second: u32) -> bool {
        let rate = f64::from(per_second);
        let passed = self.at.map_or(f64::MAX, |at| now.saturating_duration_since(at).as_secs_f64());
        self.tokens = (self.tokens + passed.min(2.0) * rate).min(2.0 * rate);
        self.at = Some(now);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// What one trunk may take if it names no limit: all, but with others beside it nine tenths.
fn fair(all: usize, settings: &Settings) -> usize {
    if settings.trunks.len() > 1 { all - all / 10 } else { all }
}
