//! Keys that come by INFO: `application/dtmf-relay` and `application/dtmf`.

use std::time::Instant;

use zeroize::Zeroize;

use super::super::model::Request;
use super::super::transaction::ServerId;
use super::super::transport::Peer;
use super::session::{Phase, Session};
use super::{Agent, Event};
use crate::secret::Secret;

impl Agent {
    pub(super) fn info(
        &mut self,
        now: Instant,
        session: &mut Session,
        id: ServerId,
        request: &Request,
        source: Peer,
    ) {
        let kind = request.headers.first("Content-Type").unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let key = match kind.as_str() {
            "application/dtmf-relay" => relayed(&request.body),
            "application/dtmf" => digit(&request.body),
            // An INFO without content asks whether we are there.
            _ if request.body.is_empty() => None,
            _ => {
                let kinds = "application/dtmf-relay, application/dtmf";
                return self.refuse(now, id, request, source, 415, &[("Accept", kinds)]);
            }
        };
        self.confirm(now, id, request, source);
        match key.filter(|_| session.phase == Phase::Confirmed && !session.ended) {
            Some(key) => self.event(Event::Key { leg: session.leg, key: Secret::new(key) }),
            None if request.body.is_empty() => {}
            None => self.counters.unread_infos += 1,
        }
    }
}

/// `Signal=5` in a line of its own; the duration does not matter.
fn relayed(body: &[u8]) -> Option<u8> {
    body.split(|b| matches!(b, b'\r' | b'\n')).find_map(|line| {
        let at = line.iter().position(|b| *b == b'=')?;
        let (name, value) = (line[..at].trim_ascii(), line[at + 1..].trim_ascii());
        name.eq_ignore_ascii_case(b"Signal").then(|| digit(value)).flatten()
    })
}

/// A key as itself, or by its number as an event (RFC 4733 §3.2: 10 is `*`, 11 is `#`).
fn digit(text: &[u8]) -> Option<u8> {
    let mut text = text.trim_ascii().to_vec();
    let key = match text.as_slice() {
        [key @ (b'0'..=b'9' | b'*' | b'#')] => Some(*key),
        [key @ (b'A'..=b'D' | b'a'..=b'd')] => Some(key.to_ascii_uppercase()),
        b"10" => Some(b'*'),
        b"11" => Some(b'#'),
        [b'1', tone @ b'2'..=b'5'] => Some(b'A' + tone - b'2'),
        _ => None,
    };
    text.zeroize();
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_as_gateways_write_them() {
        assert_eq!(relayed(b"Signal=5\r\nDuration=160\r\n"), Some(b'5'));
        assert_eq!(relayed(b"Duration= 250\r\nsignal = *"), Some(b'*'));
        assert_eq!(relayed(b"Signal= 11\nDuration=100"), Some(b'#'));
        assert_eq!(relayed(b"Signal=\r\n"), None);
        assert_eq!(relayed(b"\xff\xff"), None);
        for (text, key) in [("7", b'7'), ("#\r\n", b'#'), ("10", b'*'), ("15", b'D'), ("b", b'B')] {
            assert_eq!(digit(text.as_bytes()), Some(key), "{text}");
        }
        assert_eq!(digit(b"12345"), None);
        assert_eq!(digit(b""), None);
    }
}
