//! Messages as the rest of `sip` sees them. Methods, status codes and hosts are `rsip`'s; headers
//! and addresses are ours, because `rsip` loses or refuses what trunks really send.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::net::SocketAddr;

use bytes::Bytes;

pub use super::address::{Host, NameAddr, Params, Scheme, Uri, Via, split_list};

/// A request method. Names are case-sensitive (RFC 3261 §7.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    Known(rsip::Method),
    Other(String),
}

impl Method {
    pub const INVITE: Method = Method::Known(rsip::Method::Invite);
    pub const ACK: Method = Method::Known(rsip::Method::Ack);
    pub const BYE: Method = Method::Known(rsip::Method::Bye);
    pub const CANCEL: Method = Method::Known(rsip::Method::Cancel);
    pub const OPTIONS: Method = Method::Known(rsip::Method::Options);
    pub const NOTIFY: Method = Method::Known(rsip::Method::Notify);
    pub const REFER: Method = Method::Known(rsip::Method::Refer);
    pub const REGISTER: Method = Method::Known(rsip::Method::Register);
    pub const PRACK: Method = Method::Known(rsip::Method::PRack);
    pub const UPDATE: Method = Method::Known(rsip::Method::Update);
    pub const INFO: Method = Method::Known(rsip::Method::Info);

    /// `None` if it is no token.
    pub fn parse(text: &str) -> Option<Method> {
        if !is_token(text) {
            return None;
        }
        let known = KNOWN.iter().find(|(name, _)| *name == text);
        Some(known.map_or_else(|| Method::Other(text.into()), |(_, known)| Method::Known(*known)))
    }

    pub fn as_str(&self) -> &str {
        match self {
            Method::Known(own) => {
                KNOWN.iter().find(|(_, known)| known == own).map_or("", |(name, _)| name)
            }
            Method::Other(name) => name,
        }
    }
}

/// `rsip` would take them in any case.
const KNOWN: [(&str, rsip::Method); 14] = [
    ("INVITE", rsip::Method::Invite),
    ("ACK", rsip::Method::Ack),
    ("BYE", rsip::Method::Bye),
    ("CANCEL", rsip::Method::Cancel),
    ("OPTIONS", rsip::Method::Options),
    ("REGISTER", rsip::Method::Register),
    ("PRACK", rsip::Method::PRack),
    ("SUBSCRIBE", rsip::Method::Subscribe),
    ("NOTIFY", rsip::Method::Notify),
    ("PUBLISH", rsip::Method::Publish),
    ("INFO", rsip::Method::Info),
    ("REFER", rsip::Method::Refer),
    ("MESSAGE", rsip::Method::Message),
    ("UPDATE", rsip::Method::Update),
];

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// RFC 3261 §25.1 token.
pub fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b))
}

/// The standard reason phrase of a status code.
pub fn phrase(status: u16) -> String {
    let text = rsip::StatusCode::from(status).to_string();
    let name = text.split_once(' ').map_or("", |(_, name)| name);
    let mut phrase = String::with_capacity(name.len() + 8);
    for c in name.chars() {
        if c.is_ascii_uppercase() && phrase.ends_with(|last: char| last.is_ascii_lowercase()) {
            phrase.push(' ');
        }
        phrase.push(c);
    }
    phrase
}

/// Header fields in the order they came: long names, unfolded values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Cow<'static, str>, String)>);

impl Headers {
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((Cow::Owned(name.into()), value.into()));
    }

    /// Like `push`, for a name that need not be copied.
    pub(super) fn push_named(&mut self, name: impl Into<Cow<'static, str>>, value: String) {
        self.0.push((name.into(), value));
    }

    /// The first field of this name, in any case.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// All fields of this name in order, as written.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// All elements of a comma-separated header, over all its fields.
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.all(name).flat_map(split_list)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_str()))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn into_pairs(self) -> Vec<(String, String)> {
        self.0.into_iter().map(|(name, value)| (name.into_owned(), value)).collect()
    }
}

/// What every message must carry, parsed (RFC 3261 §8.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Core {
    /// The topmost Via.
    pub via: Via,
    pub from: NameAddr,
    pub to: NameAddr,
    pub call_id: String,
    pub cseq: u32,
    /// The method in CSeq; in a request it equals the request's.
    pub method: Method,
}

impl Core {
    pub fn from_tag(&self) -> &str {
        self.from.tag().unwrap_or_default()
    }

    pub fn to_tag(&self) -> Option<&str> {
        self.to.tag()
    }
}

#[derive(Clone, Debug)]
pub enum Message {
    Request(Request),
    Response(Response),
}

/// A request that was received and found well-formed.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    pub uri: Uri,
    pub core: Core,
    pub headers: Headers,
    pub body: Bytes,
}

/// A response that was received and found well-formed.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub reason: String,
    pub core: Core,
    pub headers: Headers,
    pub body: Bytes,
}

/// The session description in a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Empty,
    Sdp(Bytes),
    /// A body that we must understand and do not: 415.
    Unsupported,
}

impl Request {
    pub fn content(&self) -> Content {
        content(&self.headers, &self.body)
    }
}

impl Response {
    pub fn sdp(&self) -> Option<Vec<u8>> {
        match content(&self.headers, &self.body) {
            Content::Sdp(sdp) => Some(sdp.to_vec()),
            Content::Empty | Content::Unsupported => None,
        }
    }
}

/// Finds application/sdp in a body, also inside one level of multipart (SIP-I trunks send SDP and
/// ISUP together).
fn content(headers: &Headers, body: &Bytes) -> Content {
    if body.is_empty() {
        return Content::Empty;
    }
    let encoded = headers.first("Content-Encoding").is_some_and(|e| e != "identity");
    let Some(kind) = headers.first("Content-Type") else {
        let sdp = body.starts_with(b"v=0") && !encoded;
        return if sdp { Content::Sdp(body.clone()) } else { Content::Unsupported };
    };
    let (kind, params) = kind.split_once(';').unwrap_or((kind, ""));
    let kind = kind.trim().to_ascii_lowercase();
    if kind == "application/sdp" && !encoded {
        return Content::Sdp(body.clone());
    }
    if kind.starts_with("multipart/") && !encoded {
        let boundary = Params::parse(params).value("boundary").unwrap_or_default().to_string();
        return multipart(body, &boundary).map_or(Content::Unsupported, Content::Sdp);
    }
    let disposition = headers.first("Content-Disposition").unwrap_or_default();
    let optional = Params::parse(disposition).value("handling") == Some("optional");
    if optional { Content::Empty } else { Content::Unsupported }
}

/// The application/sdp part of a multipart body (RFC 2046 §5.1).
fn multipart(body: &Bytes, boundary: &str) -> Option<Bytes> {
    if boundary.is_empty() || boundary.len() > 70 {
        return None;
    }
    let delimiter = [b"--", boundary.as_bytes()].concat();
    let mut starts = Vec::new();
    for at in find_all(body, &delimiter) {
        if at == 0 || body[at - 1] == b'\n' {
            starts.push(at);
        }
    }
    for pair in starts.windows(2) {
        let part = body.slice(pair[0] + delimiter.len()..pair[1]);
        let (head_end, body_start) = match find_all(&part, b"\r\n\r\n").next() {
            Some(at) => (at, at + 4),
            None => match find_all(&part, b"\n\n").next() {
                Some(at) => (at, at + 2),
                None => continue,
            },
        };
        let head = String::from_utf8_lossy(&part[..head_end]).to_ascii_lowercase();
        let is_sdp = head.lines().any(|line| {
            line.split_once(':').is_some_and(|(name, value)| {
                matches!(name.trim(), "content-type" | "c")
                    && value.trim_start().starts_with("application/sdp")
            })
        });
        if is_sdp {
            return Some(part.slice(body_start..));
        }
    }
    None
}

fn find_all<'a>(text: &'a [u8], part: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    text.windows(part.len())
        .enumerate()
        .filter(move |(_, window)| *window == part)
        .map(|(at, _)| at)
}

/// A message to be sent.
#[derive(Clone, Debug)]
pub struct Draft {
    start: String,
    headers: Headers,
    body: Bytes,
}

impl Draft {
    pub fn request(method: &Method, uri: &str) -> Draft {
        Draft::start(format!("{method} {uri} SIP/2.0"))
    }

    /// A response with everything that is copied from the request (RFC 3261 §8.2.6.2). `to_tag`
    /// is added where To has none; 100 takes no tag.
    pub fn response(request: &Request, status: u16, source: SocketAddr, to_tag: &str) -> Draft {
        let mut draft = Draft::start(format!("SIP/2.0 {status} {}", phrase(status)));
        for (index, via) in request.headers.list("Via").enumerate() {
            let via = if index == 0 { request.core.via.stamped(source) } else { via.to_string() };
            draft.headers.push_named("Via", via);
        }
        let dialog_forming = status > 100 && status < 300 && request.method == Method::INVITE;
        if dialog_forming {
            for route in request.headers.all("Record-Route") {
                draft.headers.push_named("Record-Route", route.into());
            }
        }
        draft.copy(&request.headers, "From");
        let to = request.headers.first("To").unwrap_or_default();
        let tagged = status == 100 || request.core.to_tag().is_some();
        let to = if tagged { to.to_string() } else { format!("{to};tag={to_tag}") };
        draft.headers.push_named("To", to);
        draft.copy(&request.headers, "Call-ID");
        draft.copy(&request.headers, "CSeq");
        draft
    }

    /// A 4xx to a request too broken for [`Draft::response`]: echoes what of it was legible.
    pub fn refusal(echo: &Headers, status: u16, to_tag: &str) -> Draft {
        let mut draft = Draft::start(format!("SIP/2.0 {status} {}", phrase(status)));
        for (name, value) in echo.iter() {
            let untagged = name == "To" && !value.contains(";tag=");
            let tag = if untagged { format!(";tag={to_tag}") } else { String::new() };
            draft.headers.push(name, format!("{value}{tag}"));
        }
        draft
    }

    /// The ACK to a final response other than 2xx (RFC 3261 §17.1.1.3); `to` is the response's.
    pub fn ack(&self, to: &str) -> Draft {
        self.follow_up("ACK", Some(to))
    }

    /// The CANCEL of this INVITE (RFC 3261 §9.1).
    pub fn cancel(&self) -> Draft {
        self.follow_up("CANCEL", None)
    }

    fn follow_up(&self, method: &str, to: Option<&str>) -> Draft {
        let mut draft = Draft::start(format!("{method} {} SIP/2.0", self.target()));
        for name in ["Via", "Max-Forwards", "Route", "From", "To", "Call-ID"] {
            match (name, to) {
                ("To", Some(to)) => draft.headers.push("To", to),
                _ => draft.copy(&self.headers, name),
            }
        }
        let cseq = self.headers.first("CSeq").unwrap_or_default();
        let number = cseq.split(' ').next().unwrap_or_default();
        draft.headers.push("CSeq", format!("{number} {method}"));
        draft
    }

    fn start(start: String) -> Draft {
        Draft { start, headers: Headers::default(), body: Bytes::new() }
    }

    fn copy(&mut self, headers: &Headers, name: &'static str) {
        for value in headers.all(name) {
            self.headers.push_named(name, value.into());
        }
    }

    /// The same request once more, as a new transaction: `changed` headers replace all of theirs.
    pub fn again(&self, via: &str, cseq: &str, changed: &[(&str, String)]) -> Draft {
        let mut draft = Draft::start(self.start.clone());
        draft.body = self.body.clone();
        for (name, value) in self.headers.iter() {
            match name {
                "Via" => draft.headers.push("Via", via),
                "CSeq" => draft.headers.push("CSeq", cseq),
                name if changed.iter().any(|(changed, _)| *changed == name) => {}
                name => draft.headers.push(name, value),
            }
        }
        for (name, value) in changed {
            draft.headers.push(*name, value);
        }
        draft
    }

    /// Request-URI of a request.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Replaces the standard phrase of a response.
    pub fn with_reason(mut self, reason: &str) -> Draft {
        let status = self.start.split(' ').nth(1).unwrap_or_default();
        self.start = format!("SIP/2.0 {status} {reason}");
        self
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Draft {
        self.headers.push(name, value);
        self
    }

    pub fn with_body(mut self, kind: &str, body: impl Into<Bytes>) -> Draft {
        self.headers.push("Content-Type", kind);
        self.body = body.into();
        self
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.first(name)
    }

    /// The bytes on the wire, Content-Length included. A line break smuggled into a value becomes
    /// a space: no value can end its header.
    pub fn encode(&self) -> Bytes {
        let lines = self.headers.iter().map(|(name, value)| name.len() + value.len() + 4);
        let size = self.start.len() + lines.sum::<usize>() + self.body.len() + 32;
        let mut text = String::with_capacity(size);
        push_line(&mut text, &self.start);
        for (name, value) in self.headers.iter() {
            text.push_str(name);
            text.push_str(": ");
            push_line(&mut text, value);
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "Content-Length: {}\r\n\r\n", self.body.len());
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes.into()
    }
}

fn push_line(line: &mut String, text: &str) {
    if text.bytes().any(|b| matches!(b, b'\r' | b'\n')) {
        line.extend(text.chars().map(|c| if matches!(c, '\r' | '\n') { ' ' } else { c }));
    } else {
        line.push_str(text);
    }
    line.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_case_sensitive_tokens() {
        assert_eq!(Method::parse("INVITE"), Some(Method::INVITE));
        assert_eq!(Method::parse("invite"), Some(Method::Other("invite".into())));
        assert_eq!(Method::parse("IN VITE"), None);
        assert_eq!(Method::parse("PRACK").unwrap().to_string(), "PRACK");
    }

    #[test]
    fn phrases_are_readable() {
        assert_eq!((phrase(200).as_str(), phrase(486).as_str()), ("OK", "Busy Here"));
        assert_eq!(phrase(481), "Call Transaction Does Not Exist");
        assert!(!phrase(299).is_empty());
    }

    fn body(kind: &str, extra: Option<(&str, &str)>, body: &'static [u8]) -> Content {
        let mut headers = Headers::default();
        headers.push("Content-Type", kind);
        if let Some((name, value)) = extra {
            headers.push(name, value);
        }
        content(&headers, &Bytes::from_static(body))
    }

    #[test]
    fn sdp_is_found_in_multipart() {
        let mixed = b"--b1\r\nContent-Type: application/isup\r\n\r\n\x01\x02\r\n--b1\r\n\
            Content-Type: application/sdp\r\n\r\nv=0\r\n\r\n--b1--\r\n";
        let found = body("multipart/mixed; boundary=\"b1\"", None, mixed);
        assert!(matches!(found, Content::Sdp(sdp) if sdp.starts_with(b"v=0\r\n")));
        assert_eq!(body("multipart/mixed;boundary=b2", None, mixed), Content::Unsupported);
        assert_eq!(body("multipart/mixed", None, mixed), Content::Unsupported);
    }

    #[test]
    fn other_bodies_are_refused_unless_optional() {
        assert!(matches!(body("Application/SDP;x=y", None, b"v=0"), Content::Sdp(_)));
        assert_eq!(body("text/plain", None, b"x"), Content::Unsupported);
        assert_eq!(body("text/plain", None, b""), Content::Empty);
        let optional = Some(("Content-Disposition", "signal;handling=optional"));
        assert_eq!(body("text/plain", optional, b"x"), Content::Empty);
        let gzip = Some(("Content-Encoding", "gzip"));
        assert_eq!(body("application/sdp", gzip, b"x"), Content::Unsupported);
    }

    #[test]
    fn no_value_can_break_out_of_its_header() {
        let draft = Draft::request(&Method::BYE, "sip:a@b").with("Reason", "x\r\nEvil: yes");
        assert!(!draft.encode().windows(7).any(|w| w == b"\r\nEvil:"));
    }
}
