//! Bytes to messages: the only reader of raw SIP. Everything is unfolded, renamed and checked
//! here, so that what follows (and `rsip`) only sees canonical text.

use bytes::Bytes;

use self::line::{Lines, WHITE, long_name, split_header, text, trimmed};
use super::model::split_list;
use super::model::{Core, Draft, Headers, Message, Method, NameAddr, Request, Response, Uri, Via};

mod line; // lines and header names
mod framer; // where one message ends on a stream
#[cfg(test)]
mod tests;

pub use framer::{Chunk, Framer, fuzz as fuzz_stream};

/// What one message may cost us.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub message_bytes: usize,
    /// Of the start line and all headers, the empty line after them included.
    pub head_bytes: usize,
    pub headers: usize,
    /// Of the start line and of each header, after unfolding.
    pub line_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { message_bytes: 65_535, head_bytes: 65_535, headers: 128, line_bytes: 8_192 }
    }
}

/// What a datagram, or a chunk of a stream, held. Moved once and taken apart: boxing the message
/// would only cost.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Framed {
    /// Only line breaks or zero bytes: somebody holds a NAT binding open.
    KeepAlive,
    Message(Message),
    Bad(BadMessage),
}

/// Bytes that are no acceptable message.
#[derive(Debug)]
pub struct BadMessage {
    /// The status that says what is wrong.
    pub status: u16,
    pub reason: &'static str,
    /// For a request that can be answered: its Via, From, To, Call-ID and CSeq as far as legible.
    pub echo: Option<Headers>,
}

type Fault = (u16, &'static str);

const TOO_LARGE: Fault = (513, "message too large");
const HEAD_TOO_LARGE: Fault = (513, "headers too large");
const START_TOO_LONG: Fault = (414, "start line too long");
const LINE_TOO_LONG: Fault = (400, "header too long");
const NO_LENGTH: Fault = (400, "no Content-Length on a stream");

/// Reads one datagram. Without Content-Length the body is the rest; with a smaller one it is cut;
/// with a larger one the message is bad (RFC 3261 §18.3).
pub fn parse(bytes: &[u8], limits: &Limits) -> Framed {
    read(bytes, limits, false)
}

/// Reads one message as [`Framer`] cut it out of a stream, where Content-Length is no choice.
pub fn parse_stream(bytes: &[u8], limits: &Limits) -> Framed {
    read(bytes, limits, true)
}

fn read(bytes: &[u8], limits: &Limits, stream: bool) -> Framed {
    let lead = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    let bytes = &bytes[lead..];
    if bytes.iter().all(|b| *b == 0) {
        return Framed::KeepAlive;
    }
    let mut draft = Scanned::default();
    // What is too large is still read as far as it may go: it can then be answered.
    let readable = &bytes[..bytes.len().min(limits.message_bytes)];
    let result = match draft.scan(readable, limits) {
        _ if readable.len() < bytes.len() => Err(TOO_LARGE),
        scanned => scanned.and_then(|body| draft.message(body, limits, stream)),
    };
    match result {
        Ok(message) => Framed::Message(message),
        Err((status, reason)) => Framed::Bad(BadMessage { status, reason, echo: draft.echo() }),
    }
}

/// The lines of a message, before they are understood.
#[derive(Default)]
struct Scanned {
    start: String,
    headers: Headers,
}

impl Scanned {
    /// Reads start line and headers and returns the body. A fault in a header is reported only
    /// after all have been read, so that the refusal can echo them.
    fn scan<'a>(&mut self, bytes: &'a [u8], limits: &Limits) -> Result<&'a [u8], Fault> {
        let mut lines = Lines::new(bytes);
        let mut fault = None;
        let line = lines.next().ok_or((400, "no start line"))?;
        if line.len() > limits.line_bytes {
            fault = Some(START_TOO_LONG);
        } else {
            self.start = text(line).into_owned();
        }
        loop {
            let line = lines.next().ok_or((400, "no empty line after the headers"))?;
            let head = bytes.len() - lines.rest().len();
            let too_large = head > limits.head_bytes;
            if line.is_empty() {
                fault = fault.or(too_large.then_some(HEAD_TOO_LARGE));
                break;
            }
            if self.headers.len() == limits.headers {
                return Err(fault.unwrap_or((400, "too many headers")));
            }
            if let Err(why) = self.header(line, &mut lines, limits) {
                fault.get_or_insert(why);
            }
            // A single header that is too long is the better explanation.
            if too_large {
                return Err(fault.unwrap_or(HEAD_TOO_LARGE));
            }
        }
        fault.map_or(Ok(lines.rest()), Err)
    }

    /// Takes in one header and the lines that continue it.
    fn header(&mut self, line: &[u8], lines: &mut Lines, limits: &Limits) -> Result<(), Fault> {
        let (name, value) = match split_header(line) {
            Ok(header) => header,
            Err(reason) => {
                while lines.folded() {
                    lines.next();
                }
                return Err((400, reason));
            }
        };
        let mut size = line.len();
        let mut value = text(trimmed(value)).into_owned();
        while lines.folded() {
            let more = lines.next().unwrap_or_default();
            size = size.saturating_add(more.len());
            if size <= limits.line_bytes {
                value.push(' ');
                value.push_str(&text(trimmed(more)));
            }
        }
        if size > limits.line_bytes {
            return Err(LINE_TOO_LONG);
        }
        let value = if value.ends_with(' ') || value.starts_with(' ') {
            value.trim_matches(WHITE).into()
        } else {
            value
        };
        self.headers.push_named(long_name(name), value);
        Ok(())
    }

    fn message(&mut self, rest: &[u8], limits: &Limits, stream: bool) -> Result<Message, Fault> {
        let start = Start::parse(&self.start)?;
        for name in ["From", "To", "Call-ID", "CSeq", "Max-Forwards", "Content-Type"] {
            if self.headers.all(name).nth(1).is_some() {
                return Err((400, "a header that must be unique is repeated"));
            }
        }
        let core = core(&self.headers)?;
        let length = match content_length(self.headers.all("Content-Length"))? {
            None if stream => return Err(NO_LENGTH),
            length => length.unwrap_or(rest.len()),
        };
        let Some(body) = rest.get(..length) else {
            let fits = length <= limits.message_bytes;
            return Err(if fits { (400, "Content-Length exceeds the message") } else { TOO_LARGE });
        };
        match &start {
            Start::Request(method, _) => self.check_request(&core, method)?,
            Start::Response(..) => {}
        }
        // Only now: until here a refusal may still have to echo them.
        let (headers, body) = (std::mem::take(&mut self.headers), Bytes::copy_from_slice(body));
        Ok(match start {
            Start::Request(method, uri) => {
                Message::Request(Request { method, uri, core, headers, body })
            }
            Start::Response(status, reason) => {
                Message::Response(Response { status, reason, core, headers, body })
            }
        })
    }

    fn check_request(&self, core: &Core, method: &Method) -> Result<(), Fault> {
        if core.method != *method {
            return Err((400, "CSeq names another method"));
        }
        if self.headers.first("Max-Forwards").is_some_and(|n| !is_number(n)) {
            return Err((400, "Max-Forwards is no number"));
        }
        let legible = |contact: &str| contact == "*" || NameAddr::parse(contact).is_some();
        if !self.headers.list("Contact").all(legible) {
            return Err((400, "malformed Contact"));
        }
        Ok(())
    }

    /// What a refusal can echo; `None` for responses, ACK, and requests without Via.
    fn echo(&self) -> Option<Headers> {
        let starts = |prefix: &str| {
            self.start.get(..prefix.len()).is_some_and(|s| s.eq_ignore_ascii_case(prefix))
        };
        if starts("SIP/") || starts("ACK ") || self.headers.first("Via").is_none() {
            return None;
        }
        let mut echo = Headers::default();
        for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
            let unique = name != "Via";
            for value in self.headers.all(name).take(if unique { 1 } else { usize::MAX }) {
                echo.push(name, value);
            }
        }
        Some(echo)
    }
}

enum Start {
    Request(Method, Uri),
    Response(u16, String),
}

impl Start {
    fn parse(line: &str) -> Result<Start, Fault> {
        const BAD: Fault = (400, "malformed start line");
        if line.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("SIP/")) {
            let (version, rest) = line.split_once(' ').ok_or(BAD)?;
            let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
            let status = code.parse::<u16>().ok().filter(|s| (100..700).contains(s));
            if !version.eq_ignore_ascii_case("SIP/2.0") || code.len() != 3 {
                return Err(BAD);
            }
            return Ok(Start::Response(status.ok_or(BAD)?, reason.trim_matches(WHITE).into()));
        }
        let mut parts = line.split(' ');
        let (Some(method), Some(uri), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(BAD);
        };
        if !version.eq_ignore_ascii_case("SIP/2.0") {
            let other = version.get(..4).is_some_and(|p| p.eq_ignore_ascii_case("SIP/"));
            return Err(if other { (505, "not SIP/2.0") } else { BAD });
        }
        let method = Method::parse(method).ok_or(BAD)?;
        let uri = Uri::parse(uri).ok_or((400, "malformed Request-URI"))?;
        if uri.has_headers() {
            return Err((400, "headers in the Request-URI"));
        }
        Ok(Start::Request(method, uri))
    }
}

fn core(headers: &Headers) -> Result<Core, Fault> {
    let first = |name, missing| headers.first(name).ok_or((400, missing));
    let via = first("Via", "no Via")?;
    let via = split_list(via).next().and_then(Via::parse);
    let address = |text, fault| NameAddr::parse(text).ok_or((400, fault));
    let cseq = first("CSeq", "no CSeq")?;
    let (number, method) = cseq.split_once([' ', '\t']).ok_or((400, "malformed CSeq"))?;
    let number = Some(number).filter(|n| is_number(n)).and_then(|n| n.parse::<u32>().ok());
    let call_id = first("Call-ID", "no Call-ID")?;
    if call_id.is_empty() {
        return Err((400, "empty Call-ID"));
    }
    Ok(Core {
        via: via.ok_or((400, "malformed Via"))?,
        from: address(first("From", "no From")?, "malformed From")?,
        to: address(first("To", "no To")?, "malformed To")?,
        call_id: call_id.into(),
        cseq: number.filter(|n| *n < 1 << 31).ok_or((400, "CSeq number out of range"))?,
        method: Method::parse(method.trim_matches(WHITE)).ok_or((400, "malformed CSeq"))?,
    })
}

/// The one number that all Content-Length values agree on.
fn content_length<'a>(values: impl Iterator<Item = &'a str>) -> Result<Option<usize>, Fault> {
    let mut length = None;
    for text in values {
        let value = Some(text).filter(|t| is_number(t)).and_then(|t| t.parse::<usize>().ok());
        let value = value.ok_or((400, "malformed Content-Length"))?;
        if length.is_some_and(|length| length != value) {
            return Err((400, "two Content-Lengths that differ"));
        }
        length = Some(value);
    }
    Ok(length)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// The body of the fuzz target: whatever arrives, nothing panics, and a request that we accept or
/// refuse gets an answer that we can read ourselves.
pub fn fuzz(bytes: &[u8]) {
    let limits = Limits::default();
    let source = std::net::SocketAddr::from(([192, 0, 2, 1], 5060));
    let answer = match parse(bytes, &limits) {
        Framed::KeepAlive => return,
        Framed::Message(Message::Response(response)) => {
            response.sdp();
            return;
        }
        Framed::Message(Message::Request(request)) => {
            request.content();
            request.uri.number();
            for name in ["Contact", "Record-Route", "P-Asserted-Identity", "Diversion"] {
                for value in request.headers.list(name) {
                    NameAddr::parse(value);
                }
            }
            Draft::response(&request, 200, source, "tag").encode()
        }
        Framed::Bad(_) => return,
    };
    let roomy = Limits {
        message_bytes: usize::MAX,
        head_bytes: usize::MAX,
        headers: usize::MAX,
        line_bytes: usize::MAX,
    };
    let framed = parse(&answer, &roomy);
    assert!(matches!(framed, Framed::Message(Message::Response(_))), "unreadable: {framed:?}");
}
