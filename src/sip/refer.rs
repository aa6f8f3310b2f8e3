//! Blind transfer out (RFC 3515): the REFER we send, and what its NOTIFYs say of the new call.

use std::time::{Duration, Instant};

use super::model::{Draft, Request};

/// No word for this long: the outcome is unknown. A target may ring for minutes.
pub(super) const SILENCE: Duration = Duration::from_secs(180);

/// A transfer under way; its subscription is implicit.
#[derive(Debug)]
pub(super) struct Referral {
    /// When to give up waiting for NOTIFY.
    pub expires: Instant,
    /// The last status reported.
    pub status: Option<u16>,
}

impl Referral {
    pub fn new(now: Instant) -> Referral {
        Referral { expires: now + SILENCE, status: None }
    }

    /// Whether a status is news; the 202 and the first NOTIFY usually say the same (100).
    pub fn advance(&mut self, now: Instant, status: u16) -> bool {
        self.expires = now + SILENCE;
        self.status.replace(status) != Some(status)
    }
}

/// Completes a request of the dialog to a REFER.
pub(super) fn complete(refer: Draft, target: &str, referred_by: &str) -> Draft {
    refer.with("Refer-To", format!("<{target}>")).with("Referred-By", format!("<{referred_by}>"))
}

/// What a NOTIFY of the refer event says (RFC 3515 §2.4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// Of the new call, from the sipfrag; `None` when there was none to read.
    pub status: Option<u16>,
    /// The subscription is over: nothing more will come.
    pub terminated: bool,
}

impl Progress {
    /// `None` for a NOTIFY of another event package. One without Event is taken for ours: some
    /// PBXs leave it out.
    pub fn read(notify: &Request) -> Option<Progress> {
        let package = notify
            .headers
            .first("Event")
            .map_or("refer", |event| event.split(';').next().unwrap_or_default().trim());
        if !package.eq_ignore_ascii_case("refer") {
            return None;
        }
        let state = notify.headers.first("Subscription-State").unwrap_or_default();
        let state = state.split(';').next().unwrap_or_default().trim();
        Some(Progress {
            status: status_line(&notify.body),
            terminated: state.eq_ignore_ascii_case("terminated"),
        })
    }
}

/// The status in a message/sipfrag body (RFC 3420): its first line is a status line.
fn status_line(body: &[u8]) -> Option<u16> {
    let line = body.split(|b| *b == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.trim();
    let mut words = line.split_whitespace();
    let version = words.next()?;
    let code = words.next()?;
    let status = code.parse().ok().filter(|status| (100..700).contains(status))?;
    (version.eq_ignore_ascii_case("SIP/2.0") && code.len() == 3).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::super::model::Message;
    use super::super::wire::{self, Framed, Limits};
    use super::*;

    fn progress(headers: &str, body: &str) -> Option<Progress> {
        let text = format!(
            "NOTIFY sip:us@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\n\
             To: <sip:us@h>;tag=2\r\nCall-ID: c\r\nCSeq: 5 NOTIFY\r\n{headers}\r\n{body}"
        );
        match wire::parse(text.as_bytes(), &Limits::default()) {
            Framed::Message(Message::Request(request)) => Progress::read(&request),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn progress_from_sipfrag() {
        let trying = progress("Event: refer;id=2\r\n", "SIP/2.0 100 Trying\r\n").unwrap();
        assert_eq!(trying, Progress { status: Some(100), terminated: false });
        let done = progress(
            "o: REFER\r\nSubscription-State: terminated;reason=noresource\r\n",
            "SIP/2.0 603 Declined",
        );
        assert_eq!(done, Some(Progress { status: Some(603), terminated: true }));
        let bare = progress("Subscription-State: terminated\r\n", "").unwrap();
        assert_eq!(bare, Progress { status: None, terminated: true });
    }

    #[test]
    fn other_packages_and_garbage() {
        assert_eq!(progress("Event: message-summary\r\n", ""), None);
        for body in ["SIP/2.0 99 x", "SIP/2.0 2000 x", "200 OK", "\u{fc}", "SIP/2.0"] {
            assert_eq!(progress("Event: refer\r\n", body).unwrap().status, None, "{body}");
        }
    }
}
