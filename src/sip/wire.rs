//! Bytes to messages: the only reader of raw SIP. Everything is unfolded, renamed and checked
//! here, so that what follows (and `rsip`) only sees canonical text.

use bytes::Bytes;

use super::model::{Core, Draft, Headers, Message, Method, NameAddr, Request, Response, Uri, Via};
use super::model::{is_token, split_list};

/// What one message may cost us.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub message_bytes: usize,
    pub headers: usize,
    /// Of the start line and of each header, after unfolding.
    pub line_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { message_bytes: 65_535, headers: 128, line_bytes: 8_192 }
    }
}

/// What a datagram held. Moved once and taken apart: boxing the message would only cost.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Framed {
    /// Only line breaks or zero bytes: somebody holds a NAT binding open.
    KeepAlive,
    Message(Message),
    Bad(BadMessage),
}

/// A datagram that is no acceptable message.
#[derive(Debug)]
pub struct BadMessage {
    /// The status that says what is wrong.
    pub status: u16,
    pub reason: &'static str,
    /// For a request that can be answered: its Via, From, To, Call-ID and CSeq as far as legible.
    pub echo: Option<Headers>,
}

type Fault = (u16, &'static str);

/// Reads one datagram. Without Content-Length the body is the rest; with a smaller one it is cut;
/// with a larger one the message is bad (RFC 3261 §18.3).
pub fn parse(bytes: &[u8], limits: &Limits) -> Framed {
    let lead = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    let bytes = &bytes[lead..];
    if bytes.iter().all(|b| *b == 0) {
        return Framed::KeepAlive;
    }
    if bytes.len() > limits.message_bytes {
        return Framed::Bad(BadMessage { status: 513, reason: "message too large", echo: None });
    }
    let mut draft = Scanned::default();
    let result = draft.scan(bytes, limits).and_then(|body| draft.message(body));
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
        let mut lines = Lines { rest: bytes };
        let mut fault = None;
        let mut line = lines.next().ok_or((400, "no start line"))?;
        if line.len() > limits.line_bytes {
            fault = Some((414, "start line too long"));
        } else {
            self.start = text(line);
        }
        loop {
            line = lines.next().ok_or((400, "no empty line after the headers"))?;
            if line.is_empty() {
                break;
            }
            if self.headers.len() == limits.headers {
                return Err(fault.unwrap_or((400, "too many headers")));
            }
            let mut value = text(line);
            while lines.folded() {
                let more = lines.next().unwrap_or_default();
                if value.len() + more.len() > limits.line_bytes {
                    return Err((400, "header too long"));
                }
                value.push(' ');
                value.push_str(text(more).trim_matches(WHITE));
            }
            if value.len() > limits.line_bytes {
                return Err((400, "header too long"));
            }
            if let Err(why) = self.header(&value) {
                fault.get_or_insert(why);
            }
        }
        fault.map_or(Ok(lines.rest), Err)
    }

    fn header(&mut self, line: &str) -> Result<(), Fault> {
        let (name, value) = line.split_once(':').ok_or((400, "header without a colon"))?;
        let name = name.trim_end_matches(WHITE);
        if !is_token(name) {
            return Err((400, "header name is no token"));
        }
        self.headers.push(long_name(name), value.trim_matches(WHITE));
        Ok(())
    }

    fn message(&self, rest: &[u8]) -> Result<Message, Fault> {
        let start = Start::parse(&self.start)?;
        for name in ["From", "To", "Call-ID", "CSeq", "Max-Forwards", "Content-Type"] {
            if self.headers.all(name).count() > 1 {
                return Err((400, "a header that must be unique is repeated"));
            }
        }
        let core = core(&self.headers)?;
        let length = content_length(&self.headers)?.unwrap_or(rest.len());
        let body = rest.get(..length).ok_or((400, "Content-Length exceeds the datagram"))?;
        let (headers, body) = (self.headers.clone(), Bytes::copy_from_slice(body));
        match start {
            Start::Request(method, uri) => {
                if core.method != method {
                    return Err((400, "CSeq names another method"));
                }
                if self.headers.first("Max-Forwards").is_some_and(|n| !is_number(n)) {
                    return Err((400, "Max-Forwards is no number"));
                }
                Ok(Message::Request(Request { method, uri, core, headers, body }))
            }
            Start::Response(status, reason) => {
                Ok(Message::Response(Response { status, reason, core, headers, body }))
            }
        }
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
        Ok(Start::Request(method, Uri::parse(uri).ok_or((400, "malformed Request-URI"))?))
    }
}

fn core(headers: &Headers) -> Result<Core, Fault> {
    let first = |name, missing| headers.first(name).ok_or((400, missing));
    let via = first("Via", "no Via")?;
    let via = split_list(via).first().and_then(|via| Via::parse(via));
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

fn content_length(headers: &Headers) -> Result<Option<usize>, Fault> {
    let mut length = None;
    for text in headers.all("Content-Length") {
        let value = Some(text).filter(|t| is_number(t)).and_then(|t| t.parse::<usize>().ok());
        let value = value.ok_or((400, "malformed Content-Length"))?;
        if length.is_some_and(|length| length != value) {
            return Err((400, "two Content-Lengths that differ"));
        }
        length = Some(value);
    }
    Ok(length)
}

const WHITE: [char; 2] = [' ', '\t'];

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Lines ended by CRLF or, leniently, by LF alone.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|b| *b == b'\n')?;
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// Whether the next line continues this one (RFC 3261 §7.3.1).
    fn folded(&self) -> bool {
        matches!(self.rest.first(), Some(b' ' | b'\t')) && self.rest.contains(&b'\n')
    }
}

/// UTF-8, or else Latin-1, in which every byte has a meaning. A stray CR becomes a space.
fn text(line: &[u8]) -> String {
    let text = match std::str::from_utf8(line) {
        Ok(text) => text.to_string(),
        Err(_) => line.iter().map(|b| char::from(*b)).collect(),
    };
    if text.contains('\r') { text.replace('\r', " ") } else { text }
}

/// The name we look headers up by: compact forms (RFC 3261 §7.3.3 and later) become long.
fn long_name(name: &str) -> String {
    let long = match name.to_ascii_lowercase().as_str() {
        "v" | "via" => "Via",
        "f" | "from" => "From",
        "t" | "to" => "To",
        "i" | "call-id" => "Call-ID",
        "m" | "contact" => "Contact",
        "l" | "content-length" => "Content-Length",
        "c" | "content-type" => "Content-Type",
        "e" => "Content-Encoding",
        "k" => "Supported",
        "s" => "Subject",
        "o" => "Event",
        "u" => "Allow-Events",
        "r" => "Refer-To",
        "b" => "Referred-By",
        "x" => "Session-Expires",
        "a" => "Accept-Contact",
        "j" => "Reject-Contact",
        "d" => "Request-Disposition",
        "y" => "Identity",
        "cseq" => "CSeq",
        "max-forwards" => "Max-Forwards",
        _ => name,
    };
    long.into()
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
    let roomy = Limits { message_bytes: usize::MAX, headers: usize::MAX, line_bytes: usize::MAX };
    let framed = parse(&answer, &roomy);
    assert!(matches!(framed, Framed::Message(Message::Response(_))), "unreadable: {framed:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &str = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n\
        From: <sip:x@y>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: c1\r\nCSeq: 7 OPTIONS\r\n";

    fn framed(text: &str) -> Framed {
        parse(text.as_bytes(), &Limits::default())
    }

    fn request(text: &str) -> Request {
        match framed(text) {
            Framed::Message(Message::Request(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    fn bad(text: &str) -> BadMessage {
        match framed(text) {
            Framed::Bad(bad) => bad,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keep_alives_and_leading_line_breaks() {
        for bytes in [b"".as_slice(), b"\r\n\r\n", b"\0\0\0\0", b"\n"] {
            assert!(matches!(parse(bytes, &Limits::default()), Framed::KeepAlive));
        }
        assert_eq!(request(&format!("\r\n\r\n{OPTIONS}\r\n")).core.cseq, 7);
    }

    #[test]
    fn compact_folded_spaced_and_latin_1() {
        let bytes = b"OPTIONS sip:a@b SIP/2.0\r\nv : SIP/2.0/UDP\r\n h;branch=z9hG4bK1\r\n\
            f:\"J\xfcrgen\" <sip:x@y>\r\n ;tag=1\r\nT\t: <sip:a@b>\r\ni: c1\r\ncSEQ: 7\r\n\tOPTIONS\r\n\
            k: timer\r\nX-Any: \xe9\r\n\r\nrest";
        let Framed::Message(Message::Request(request)) = parse(bytes, &Limits::default()) else {
            panic!("not parsed");
        };
        assert_eq!(request.core.from.display.as_deref(), Some("J\u{fc}rgen"));
        assert_eq!((request.core.from_tag(), request.core.cseq), ("1", 7));
        assert_eq!(request.headers.first("supported"), Some("timer"));
        assert_eq!(request.headers.first("x-any"), Some("\u{e9}"));
        assert_eq!(&request.body[..], b"rest");
    }

    #[test]
    fn content_length_rules() {
        let with = |value: &str| format!("{OPTIONS}Content-Length: {value}\r\n\r\n12345");
        assert_eq!(&request(&with("3")).body[..], b"123");
        assert_eq!(&request(&format!("{OPTIONS}\r\n12345")).body[..], b"12345");
        for value in ["6", "-1", "99999999999999999999", "5x", "5\r\nl: 4"] {
            let bad = bad(&with(value));
            assert_eq!(bad.status, 400, "{value}");
            assert_eq!(bad.echo.unwrap().first("CSeq"), Some("7 OPTIONS"));
        }
        assert_eq!(&request(&with("3\r\nl: 3")).body[..], b"123");
    }

    #[test]
    fn limits_hold() {
        let many = format!("{OPTIONS}{}\r\n", "X: y\r\n".repeat(130));
        assert_eq!(bad(&many).reason, "too many headers");
        let long = format!("{OPTIONS}X: {}\r\n\r\n", "y".repeat(9_000));
        assert_eq!(bad(&long).reason, "header too long");
        let folds = format!("{OPTIONS}X: y\r\n{}\r\n", " yyyyyyyyyyyyyyy\r\n".repeat(600));
        assert_eq!(bad(&folds).reason, "header too long");
        let uri = OPTIONS.replacen("a@b", &"u".repeat(9_000), 1);
        assert_eq!(bad(&format!("{uri}\r\n")).status, 414);
        assert_eq!(bad(&"x".repeat(70_000)).status, 513);
    }

    #[test]
    fn what_cannot_be_answered_is_not() {
        assert!(bad("garbage\r\n\r\n").echo.is_none());
        assert!(bad("ACK sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n\r\n").echo.is_none());
        assert!(bad("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h\r\n\r\n").echo.is_none());
        assert!(bad("INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n\r\n").echo.is_some());
        assert_eq!(bad(OPTIONS).reason, "no empty line after the headers");
    }
}
