//! No new calls while media does not keep up with those that are there.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::Shared;
use super::media::Condition;
use crate::sip::Command;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// Seconds with late turns before a thread is spared: one alone is the machine's hiccup, and not
/// made better by refusing calls.
const LATE_SECONDS: u32 = 2;
/// A thread that works this much of its time will be late when its calls have more to say.
const BUSY: f32 = 0.7;
/// Seconds of punctuality before a thread takes calls again.
const CALM: u32 = 3;

/// Whether a media thread is to have new calls, by how it did in the last second.
#[derive(Clone, Default)]
struct Admission {
    refusing: bool,
    /// Seconds it has been late, and punctual, without a break.
    late: u32,
    calm: u32,
}

impl Admission {
    /// `Some` when it changes. Turns later than `limit`, one in a hundred of a second, harm the
    /// calls that are there; `None`: whatever it is that makes them late, calls are taken.
    fn judge(&mut self, condition: Condition, limit: Option<Duration>) -> Option<bool> {
        let late = limit.is_some_and(|limit| condition.p99 > limit);
        self.late = if late { self.late.saturating_add(1) } else { 0 };
        let strained = self.late >= LATE_SECONDS || condition.busy > BUSY;
        self.calm = if strained || late { 0 } else { self.calm.saturating_add(1) };
        let refusing = strained || (self.refusing && self.calm < CALM);
        let changed = refusing != self.refusing;
        self.refusing = refusing;
        changed.then_some(refusing)
    }
}

/// Keeps new calls from threads at their limit, and refuses them once that is every thread.
pub(super) async fn watch_media(shared: Arc<Shared>) {
    let (mut threads, mut windows, mut refusing) = (Vec::new(), Vec::new(), false);
    let limit = Some(Duration::from_millis(shared.config.media.late_ms));
    let limit = limit.filter(|limit| !limit.is_zero());
    loop {
        tokio::time::sleep(INTERVAL).await;
        let conditions = shared.media.conditions(&mut windows);
        threads.resize_with(conditions.len(), Admission::default);
        for (thread, (admission, condition)) in threads.iter_mut().zip(conditions).enumerate() {
            let Some(avoided) = admission.judge(condition, limit) else { continue };
            shared.media.avoid(thread, avoided);
            let (p99_ms, busy) = (condition.p99.as_millis() as u64, condition.busy);
            let busy_percent = (busy * 100.0) as u64;
            match avoided {
                true => warn!(thread, p99_ms, busy_percent, "a media thread is at its limit"),
                false => info!(thread, p99_ms, busy_percent, "a media thread takes calls again"),
            }
        }
        let full = threads.iter().all(|thread| thread.refusing);
        if std::mem::replace(&mut refusing, full) == full {
            continue;
        }
        match refusing {
            true => warn!("media is at its limit: new calls get 503"),
            false => info!("new calls are taken again"),
        }
        if shared.commands.send(Command::Overloaded(refusing)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_refused_at_once_and_taken_again_after_a_while() {
        let (mut admission, limit) = (Admission::default(), Some(Duration::from_millis(10)));
        let mut judge = |ms| {
            let condition = Condition { p99: Duration::from_millis(ms), busy: 0.5 };
            admission.judge(condition, limit)
        };
        // One late second is nobody's fault here.
        assert_eq!([2, 11, 2, 11].map(&mut judge), [None; 4]);
        assert_eq!(judge(11), Some(true));
        assert_eq!([50, 1, 1].map(&mut judge), [None; 3]);
        assert_eq!(judge(1), Some(false));
        // Nor is it calm when only every other second is punctual.
        assert_eq!(
            [11, 11, 1, 11, 1, 1].map(&mut judge)[1..],
            [Some(true), None, None, None, None]
        );
        assert_eq!(judge(1), Some(false));
        // Not late yet, but it would be.
        let busy = Condition { busy: 0.75, p99: Duration::from_millis(1) };
        assert_eq!(admission.judge(busy, limit), Some(true));
    }

    #[test]
    fn lateness_may_be_nobodys_concern() {
        let mut admission = Admission::default();
        let late = Condition { p99: Duration::from_secs(1), busy: 0.5 };
        assert_eq!([late; 9].map(|late| admission.judge(late, None)), [None; 9]);
        let busy = Condition { busy: 0.75, ..late };
        assert_eq!(admission.judge(busy, None), Some(true));
    }
}
