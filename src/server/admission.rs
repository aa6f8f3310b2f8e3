//! No new calls while media does not keep up with those that are there.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::Shared;
use super::media::Window;
use crate::sip::Command;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// Turns this late, one in a hundred of a second, harm the calls that are there.
const LATE: Duration = Duration::from_millis(10);
/// Seconds of punctuality before calls are taken again.
const CALM: u32 = 3;

/// Whether new calls are to be refused, by how late media was in the last second.
#[derive(Default)]
struct Admission {
    refusing: bool,
    calm: u32,
}

impl Admission {
    /// `Some` when it changes.
    fn judge(&mut self, p99: Duration) -> Option<bool> {
        let late = p99 > LATE;
        self.calm = if late { 0 } else { self.calm.saturating_add(1) };
        let refusing = late || (self.refusing && self.calm < CALM);
        let changed = refusing != self.refusing;
        self.refusing = refusing;
        changed.then_some(refusing)
    }
}

pub(super) async fn watch_media(shared: Arc<Shared>) {
    let (mut admission, mut window) = (Admission::default(), Window::default());
    loop {
        tokio::time::sleep(INTERVAL).await;
        let p99 = shared.media.lateness_since(&mut window).p99;
        let Some(refusing) = admission.judge(p99) else { continue };
        let p99_ms = p99.as_millis() as u64;
        match refusing {
            true => warn!(p99_ms, "media is late: new calls get 503"),
            false => info!(p99_ms, "media is on time: new calls are taken again"),
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
        let ms = Duration::from_millis;
        assert_eq!(admission.judge(ms(2)), None);
        assert_eq!(admission.judge(ms(11)), Some(true));
        assert_eq!(admission.judge(ms(50)), None);
        assert_eq!([admission.judge(ms(1)), admission.judge(ms(1))], [None, None]);
        assert_eq!(admission.judge(ms(1)), Some(false));
    }
}
