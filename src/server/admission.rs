//! No new calls while media does not keep up with those that are there.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::Shared;
use super::media::Condition;
use crate::sip::Command;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// Turns this late, one in a hundred of a second, harm the calls that are there.
const LATE: Duration = Duration::from_millis(10);
/// A thread that works this much of its time will be late when its calls have more to say.
const BUSY: f32 = 0.7;
/// Seconds of punctuality before a thread takes calls again.
const CALM: u32 = 3;

/// Whether a media thread is to have new calls, by how it did in the last second.
#[derive(Clone, Default)]
struct Admission {
    refusing: bool,
    calm: u32,
}

impl Admission {
    /// `Some` when it changes.
    fn judge(&mut self, condition: Condition) -> Option<bool> {
        let strained = condition.p99 > LATE || condition.busy > BUSY;
        self.calm = if strained { 0 } else { self.calm.saturating_add(1) };
        let refusing = strained || (self.refusing && self.calm < CALM);
        let changed = refusing != self.refusing;
        self.refusing = refusing;
        changed.then_some(refusing)
    }
}

/// Keeps new calls from threads at their limit, and refuses them once that is every thread.
pub(super) async fn watch_media(shared: Arc<Shared>) {
    let (mut threads, mut windows, mut refusing) = (Vec::new(), Vec::new(), false);
    loop {
        tokio::time::sleep(INTERVAL).await;
        let conditions = shared.media.conditions(&mut windows);
        threads.resize_with(conditions.len(), Admission::default);
        for (thread, (admission, condition)) in threads.iter_mut().zip(conditions).enumerate() {
            let Some(avoided) = admission.judge(condition) else { continue };
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
        let mut admission = Admission::default();
        let ms = |ms| Condition { p99: Duration::from_millis(ms), busy: 0.5 };
        assert_eq!(admission.judge(ms(2)), None);
        assert_eq!(admission.judge(ms(11)), Some(true));
        assert_eq!(admission.judge(ms(50)), None);
        assert_eq!([admission.judge(ms(1)), admission.judge(ms(1))], [None, None]);
        assert_eq!(admission.judge(ms(1)), Some(false));
        // Not late yet, but it would be.
        let busy = Condition { busy: 0.75, ..ms(1) };
        assert_eq!(admission.judge(busy), Some(true));
    }
}
