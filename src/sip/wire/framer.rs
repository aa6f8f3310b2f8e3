//! One message at a time out of a stream (RFC 3261 §18.3): TCP and TLS know no datagrams, only
//! Content-Length says where a message ends.

use bytes::{Buf, Bytes, BytesMut};

use super::line::{Lines, long_name, split_header, text, trimmed};
use super::{Fault, Limits, Message, content_length, parse_stream};
use super::{HEAD_TOO_LARGE, LINE_TOO_LONG, NO_LENGTH, START_TOO_LONG, TOO_LARGE};

#[cfg(test)]
mod tests;

/// A piece of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Two line breaks between messages: the peer asks whether we live, a single CRLF says so
    /// (RFC 5626 §3.5.1).
    Ping,
    /// The answer to a ping of ours.
    Pong,
    /// Exactly one message, for [`super::parse_stream`].
    Message(Bytes),
    /// Where the next message starts cannot be told: close the connection. `head` is what was
    /// read of this one, for [`super::parse_stream`] to find out whether it can be answered.
    Broken { status: u16, reason: &'static str, head: Bytes },
}

/// The receiving end of a stream. Take all chunks after each `push`: it then never holds more
/// than one message as large as the limits allow.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    buffer: BytesMut,
    state: State,
    /// Line breaks seen since the last message or ping.
    breaks: u8,
    /// A ping of ours is unanswered: the next line break answers it.
    pinged: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Between messages.
    Idle,
    /// In start line and headers; the line that starts at this offset is not complete.
    Head {
        line: usize,
        seen: usize,
    },
    /// The message is complete when this many bytes are there.
    Body {
        end: usize,
    },
    Broken,
}

impl Framer {
    pub fn new(limits: Limits) -> Framer {
        let (buffer, state) = (BytesMut::new(), State::Idle);
        Framer { limits, buffer, state, breaks: 0, pinged: false }
    }

    /// What came in. After [`Chunk::Broken`] nothing is kept.
    pub fn push(&mut self, bytes: &[u8]) {
        if !matches!(self.state, State::Broken) {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// We sent a ping (two line breaks).
    pub fn expect_pong(&mut self) {
        self.pinged = true;
    }

    /// Bytes held of a message that is not complete.
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// Line breaks between messages: keep-alives, or nothing (RFC 3261 §7.5).
    fn skip_breaks(&mut self) -> Option<Chunk> {
        while let Some(byte @ (b'\r' | b'\n')) = self.buffer.first().copied() {
            self.buffer.advance(1);
            if byte == b'\r' {
                continue;
            }
            if std::mem::take(&mut self.pinged) {
                return Some(Chunk::Pong);
            }
            self.breaks += 1;
            if self.breaks == 2 {
                self.breaks = 0;
                return Some(Chunk::Ping);
            }
        }
        None
    }

    /// Looks for the empty line from `seen` on, within the line that starts at `line`. Returns the
    /// length of the message once it is known, or what is wrong and how much was read till then.
    fn head(&mut self, mut line: usize, mut seen: usize) -> Result<Option<usize>, (Fault, usize)> {
        let Limits { message_bytes, head_bytes, line_bytes, .. } = self.limits;
        loop {
            let found = self.buffer[seen..].iter().position(|b| *b == b'\n');
            let upto = found.map_or(self.buffer.len(), |at| seen + at + 1);
            // The same limit is met first however the bytes were cut up on their way.
            let line_end = line.saturating_add(line_bytes).saturating_add(2);
            if upto > line_end.min(head_bytes) {
                let long = if line == 0 { START_TOO_LONG } else { LINE_TOO_LONG };
                let fault = if head_bytes <= line_end { HEAD_TOO_LARGE } else { long };
                return Err((fault, line_end.min(head_bytes)));
            }
            if found.is_none() {
                self.state = State::Head { line, seen: upto };
                return Ok(None);
            }
            if line > 0 && matches!(&self.buffer[line..upto], b"\n" | b"\r\n") {
                let body = body_length(&self.buffer[..upto]).map_err(|fault| (fault, upto))?;
                let end = upto.checked_add(body).filter(|end| *end <= message_bytes);
                return end.map(Some).ok_or((TOO_LARGE, upto));
            }
            (line, seen) = (upto, upto);
        }
    }

    fn broken(&mut self, (status, reason): Fault, upto: usize) -> Chunk {
        self.state = State::Broken;
        let mut head = std::mem::take(&mut self.buffer);
        head.truncate(upto);
        Chunk::Broken { status, reason, head: head.freeze() }
    }
}

impl Iterator for Framer {
    type Item = Chunk;

    /// The next piece; after `None` there may be one again once more was pushed.
    fn next(&mut self) -> Option<Chunk> {
        if matches!(self.state, State::Idle) {
            if let Some(alive) = self.skip_breaks() {
                return Some(alive);
            }
            if self.buffer.is_empty() {
                // A long message must not cost its memory for as long as the connection lasts.
                self.buffer = BytesMut::new();
                return None;
            }
            (self.state, self.breaks) = (State::Head { line: 0, seen: 0 }, 0);
        }
        if let State::Head { line, seen } = self.state {
            match self.head(line, seen) {
                Ok(None) => return None,
                Ok(Some(end)) => self.state = State::Body { end },
                Err((fault, upto)) => return Some(self.broken(fault, upto)),
            }
        }
        match self.state {
            State::Body { end } if end <= self.buffer.len() => {
                self.state = State::Idle;
                Some(Chunk::Message(self.buffer.split_to(end).freeze()))
            }
            _ => None,
        }
    }
}

/// Content-Length in a complete head, read as [`super::parse_stream`] will read it.
fn body_length(head: &[u8]) -> Result<usize, Fault> {
    let mut lines = Lines::new(head);
    lines.next();
    let mut values = Vec::new();
    while let Some(line) = lines.next() {
        // Cheaper than to understand every name.
        let candidate = matches!(line.first(), Some(b'c' | b'C' | b'l' | b'L'));
        let value = split_header(line).ok().filter(|_| candidate);
        let mut length = value
            .filter(|(name, _)| long_name(name) == "Content-Length")
            .map(|(_, value)| text(trimmed(value)).into_owned());
        while lines.folded() {
            let more = lines.next().unwrap_or_default();
            if let Some(length) = &mut length {
                length.push(' ');
                length.push_str(&text(trimmed(more)));
            }
        }
        values.extend(length);
    }
    let values = values.iter().map(|value| value.trim_matches(super::WHITE));
    content_length(values)?.ok_or(NO_LENGTH)
}

/// The body of the fuzz target: the first byte says how the rest is cut up. However it is cut,
/// the same chunks come out, a message ends where [`super::parse_stream`] says so, and what is
/// held is bounded.
pub fn fuzz(bytes: &[u8]) {
    let Some((step, bytes)) = bytes.split_first() else { return };
    let limits = Limits { message_bytes: 2_048, head_bytes: 1_024, headers: 32, line_bytes: 256 };
    let mut whole = Framer::new(limits);
    whole.push(bytes);
    let whole: Vec<Chunk> = std::iter::from_fn(|| whole.next()).collect();
    let (mut pieces, mut chunks) = (Framer::new(limits), Vec::new());
    for piece in bytes.chunks(usize::from(*step).max(1)) {
        pieces.push(piece);
        chunks.extend(std::iter::from_fn(|| pieces.next()));
        assert!(pieces.pending() <= limits.message_bytes);
    }
    assert_eq!(whole, chunks, "cut into pieces of {step}");
    for chunk in &chunks {
        let (read, bytes) = match chunk {
            Chunk::Ping | Chunk::Pong => continue,
            Chunk::Message(bytes) => (parse_stream(bytes, &limits), bytes),
            Chunk::Broken { head, .. } => {
                let read = parse_stream(head, &limits);
                assert!(matches!(read, super::Framed::Bad(_)), "broken, but {read:?}");
                continue;
            }
        };
        let (head, body) = match &read {
            super::Framed::Message(Message::Request(request)) => (&request.headers, &request.body),
            super::Framed::Message(Message::Response(answer)) => (&answer.headers, &answer.body),
            _ => continue,
        };
        let length = head.first("Content-Length").and_then(|length| length.parse().ok());
        assert!(bytes.ends_with(body) && length == Some(body.len()), "{read:?}");
    }
}
