//! How fast cards are tried: attempts and refusals of one caller, account, issuer or trunk are
//! counted in the ledger itself, so that a restart forgets none and nothing grows in memory.

use serde::Deserialize;

/// Limits within `window_minutes`; zero: none. `[payment.velocity]` in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub window_minutes: u32,
    /// From the payment that reached a limit until another may be tried.
    pub lockout_minutes: u32,
    /// Payments tried from one caller's number, whatever came of them. Where a contact center
    /// passes on all calls with its own number, raise this and the next.
    pub caller_attempts: u32,
    /// Payments refused, for one caller's number.
    pub caller_declines: u32,
    pub account_attempts: u32,
    pub account_declines: u32,
    /// For all cards of one issuer (the first six or eight digits).
    pub issuer_declines: u32,
    pub trunk_declines: u32,
    /// From so many refusals on, of one caller or for one account, all sound the same, and no
    /// field is asked again: what is wrong with a card helps only who has many.
    pub quiet_after: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            window_minutes: 60,
            lockout_minutes: 60,
            caller_attempts: 12,
            caller_declines: 6,
            account_attempts: 12,
            account_declines: 6,
            issuer_declines: 60,
            trunk_declines: 300,
            quiet_after: 3,
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counted {
    Caller,
    Account,
    Issuer,
    Trunk,
}

/// No payment until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    pub counted: Counted,
    /// Unix milliseconds.
    pub until_ms: i64,
}

impl Counted {
    pub const ALL: [Counted; 4] =
        [Counted::Caller, Counted::Account, Counted::Issuer, Counted::Trunk];

    pub fn name(self) -> &'static str {
        match self {
            Counted::Caller => "caller",
            Counted::Account => "account",
            Counted::Issuer => "issuer",
            Counted::Trunk => "trunk",
        }
    }

    /// Whether attempts have a limit besides refusals.
    pub fn attempts(self) -> bool {
        matches!(self, Counted::Caller | Counted::Account)
    }
}

impl Limits {
    /// Payments begun before this do not matter at `at_ms`.
    pub fn since_ms(&self, at_ms: i64) -> i64 {
        at_ms - minutes(self.window_minutes) - minutes(self.lockout_minutes)
    }

    /// Of how many of the latest refusals a lock can be told: those that reach the limit, and as
    /// many that were on their way when it was reached. `None`: attempts count as well.
    pub fn telling(&self, counted: Counted) -> Option<u32> {
        match counted {
            Counted::Caller | Counted::Account => None,
            Counted::Issuer => Some(self.issuer_declines.saturating_mul(2)),
            Counted::Trunk => Some(self.trunk_declines.saturating_mul(2)),
        }
    }

    /// Whether so many attempts and refusals since [`Limits::since_ms`] can be a lock, or quiet:
    /// if not, their times need not be known.
    pub fn may_tell(&self, counted: Counted, attempts: i64, declines: i64) -> bool {
        let reaches = |count: i64, most: u32| most > 0 && count >= i64::from(most);
        let (attempts_max, declines_max) = self.most(counted);
        reaches(attempts, attempts_max)
            || reaches(declines, declines_max)
            || (counted.attempts() && reaches(declines, self.quiet_after))
    }

    /// Attempts and refusals that make a lock; zero: none do.
    fn most(&self, counted: Counted) -> (u32, u32) {
        match counted {
            Counted::Caller => (self.caller_attempts, self.caller_declines),
            Counted::Account => (self.account_attempts, self.account_declines),
            Counted::Issuer => (0, self.issuer_declines),
            Counted::Trunk => (0, self.trunk_declines),
        }
    }

    /// Whether there is a lock at `at_ms`. `attempts` and `declines` are the times of payments
    /// since [`Limits::since_ms`], oldest first.
    pub fn lock(
        &self,
        counted: Counted,
        attempts: &[i64],
        declines: &[i64],
        at_ms: i64,
    ) -> Option<Lock> {
        let (attempts_max, declines_max) = self.most(counted);
        let reached = [self.reached(attempts, attempts_max), self.reached(declines, declines_max)];
        let last = reached.into_iter().flatten().max()?;
        let until_ms = last + minutes(self.lockout_minutes);
        (at_ms < until_ms).then_some(Lock { counted, until_ms })
    }

    /// The last time at which there had been `most` within the window.
    fn reached(&self, times: &[i64], most: u32) -> Option<i64> {
        let most = usize::try_from(most).ok().filter(|most| *most > 0)?;
        let window = minutes(self.window_minutes);
        let full = times.windows(most).rev().find(|some| some[most - 1] - some[0] <= window)?;
        full.last().copied()
    }

    /// Whether refusals sound the same by now.
    pub fn is_quiet(&self, declines: &[i64], at_ms: i64) -> bool {
        let since_ms = at_ms - minutes(self.window_minutes);
        let recent = declines.iter().filter(|at| **at >= since_ms).count();
        self.quiet_after > 0 && u32::try_from(recent).is_ok_and(|n| n >= self.quiet_after)
    }
}

fn minutes(minutes: u32) -> i64 {
    i64::from(minutes) * 60_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    const START: i64 = 1_780_272_000_000;

    fn times(minutes: &[i64]) -> Vec<i64> {
        minutes.iter().map(|minute| START + minute * MINUTE).collect()
    }

    fn until(declines: &[i64], at: i64) -> Option<i64> {
        let limits = Limits {
            window_minutes: 10,
            lockout_minutes: 30,
            caller_declines: 3,
            ..Limits::default()
        };
        let lock = limits.lock(Counted::Caller, &[], &times(declines), START + at * MINUTE);
        lock.map(|lock| (lock.until_ms - START) / MINUTE)
    }

    #[test]
    fn a_limit_reached_within_the_window_locks_for_its_time() {
        assert_eq!(until(&[], 0), None);
        assert_eq!(until(&[0, 1], 2), None);
        assert_eq!(until(&[0, 5, 10], 11), Some(40));
        assert_eq!(until(&[0, 5, 10], 39), Some(40));
        assert_eq!(until(&[0, 5, 10], 40), None);
        // Three, but never within ten minutes.
        assert_eq!(until(&[0, 6, 11], 12), None);
        // Who goes on trying is locked anew.
        assert_eq!(until(&[0, 5, 10, 41, 42, 43], 44), Some(73));
    }

    #[test]
    fn each_is_counted_by_its_own_limit() {
        let limits = Limits::default();
        let many = times(&(0..60).collect::<Vec<_>>());
        let at = START + 60 * MINUTE;
        let lock = |counted, attempts: &[i64], declines: &[i64]| {
            limits.lock(counted, attempts, declines, at).map(|lock| lock.counted)
        };
        assert_eq!(lock(Counted::Caller, &many[..12], &[]), Some(Counted::Caller));
        assert_eq!(lock(Counted::Caller, &many[..11], &many[..5]), None);
        assert_eq!(lock(Counted::Account, &[], &many[..6]), Some(Counted::Account));
        assert_eq!(lock(Counted::Issuer, &many, &many[..59]), None);
        assert_eq!(lock(Counted::Issuer, &[], &many), Some(Counted::Issuer));
        assert_eq!(lock(Counted::Trunk, &[], &many), None);
        let none = Limits { caller_declines: 0, caller_attempts: 0, ..limits };
        assert_eq!(none.lock(Counted::Caller, &many, &many, at), None);
    }

    #[test]
    fn refusals_sound_the_same_after_some() {
        let limits = Limits::default();
        let at = START + 61 * MINUTE;
        assert!(!limits.is_quiet(&times(&[30, 40]), at));
        assert!(limits.is_quiet(&times(&[30, 40, 50]), at));
        assert!(!limits.is_quiet(&times(&[0, 40, 50]), at));
        assert!(!Limits { quiet_after: 0, ..limits }.is_quiet(&times(&[30, 40, 50]), at));
    }
}
