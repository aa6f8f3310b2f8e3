//! Lines and header names: what is common to reading a message and to finding its end.

use std::borrow::Cow;

use super::super::model::is_token;

pub const WHITE: [char; 2] = [' ', '\t'];

/// Lines ended by CRLF or, leniently, by LF alone.
pub struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    pub fn new(bytes: &'a [u8]) -> Lines<'a> {
        Lines { rest: bytes }
    }

    /// Whether the next line continues this one (RFC 3261 §7.3.1).
    pub fn folded(&self) -> bool {
        matches!(self.rest.first(), Some(b' ' | b'\t')) && self.rest.contains(&b'\n')
    }

    /// What comes after the lines read so far.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|b| *b == b'\n')?;
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

/// Name and value of a header's first line, or what is wrong with it.
pub fn split_header(line: &[u8]) -> Result<(&str, &[u8]), &'static str> {
    let colon = line.iter().position(|b| *b == b':').ok_or("header without a colon")?;
    let name = std::str::from_utf8(&line[..colon]).unwrap_or_default();
    let name = name.trim_end_matches(WHITE);
    if !is_token(name) {
        return Err("header name is no token");
    }
    Ok((name, &line[colon + 1..]))
}

/// Without white space around it; a stray CR counts as white space.
pub fn trimmed(bytes: &[u8]) -> &[u8] {
    let white = |b: &u8| matches!(b, b' ' | b'\t' | b'\r');
    let start = bytes.iter().position(|b| !white(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|b| !white(b)).map_or(start, |at| at + 1);
    &bytes[start..end]
}

/// UTF-8, or else Latin-1, in which every byte has a meaning. A stray CR becomes a space.
pub fn text(line: &[u8]) -> Cow<'_, str> {
    let text = match std::str::from_utf8(line) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(line.iter().map(|b| char::from(*b)).collect()),
    };
    if line.contains(&b'\r') { text.replace('\r', " ").into() } else { text }
}

/// The name we look headers up by: compact forms (RFC 3261 §7.3.3 and later) become long, and the
/// common ones cost nothing to hold.
pub fn long_name(name: &str) -> Cow<'static, str> {
    if let [letter] = name.as_bytes() {
        let long = match letter.to_ascii_lowercase() {
            b'v' => "Via",
            b'f' => "From",
            b't' => "To",
            b'i' => "Call-ID",
            b'm' => "Contact",
            b'l' => "Content-Length",
            b'c' => "Content-Type",
            b'e' => "Content-Encoding",
            b'k' => "Supported",
            b's' => "Subject",
            b'o' => "Event",
            b'u' => "Allow-Events",
            b'r' => "Refer-To",
            b'b' => "Referred-By",
            b'x' => "Session-Expires",
            b'a' => "Accept-Contact",
            b'j' => "Reject-Contact",
            b'd' => "Request-Disposition",
            b'y' => "Identity",
            _ => return Cow::Owned(name.into()),
        };
        return Cow::Borrowed(long);
    }
    // Those that every message bears are written our way whatever their case was.
    let known = CORE.iter().find(|known| known.eq_ignore_ascii_case(name));
    match known.or_else(|| COMMON.iter().find(|known| **known == name)) {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Owned(name.into()),
    }
}

const CORE: [&str; 9] = [
    "Via",
    "From",
    "To",
    "Call-ID",
    "CSeq",
    "Contact",
    "Max-Forwards",
    "Content-Length",
    "Content-Type",
];

const COMMON: [&str; 24] = [
    "Record-Route",
    "Route",
    "Allow",
    "Supported",
    "Require",
    "Accept",
    "User-Agent",
    "Server",
    "P-Asserted-Identity",
    "Privacy",
    "Diversion",
    "Remote-Party-ID",
    "Session-Expires",
    "Min-SE",
    "Expires",
    "Date",
    "Timestamp",
    "Content-Disposition",
    "Authorization",
    "Proxy-Authorization",
    "Reason",
    "Allow-Events",
    "History-Info",
    "Identity",
];
