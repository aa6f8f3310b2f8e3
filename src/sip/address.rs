//! Our own parsing of what `rsip` gets wrong: URIs, name-addr, Via and header parameters.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use rsip::Host;

/// `;name=value` parameters in order (RFC 3261 §25.1, generic-param). Names match in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(Vec<(String, Option<String>)>);

impl Params {
    /// Empty parameters (`;;`) are skipped: they are common and harmless.
    pub fn parse(text: &str) -> Params {
        let parameter = |part: &str| match part.split_once('=') {
            Some((name, value)) => (name.trim().into(), Some(unquoted(value.trim()))),
            None => (part.trim().into(), None),
        };
        let parts = split_outside(text, b';').filter(|part| !part.trim().is_empty());
        Params(parts.map(parameter).collect())
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n.eq_ignore_ascii_case(name))
    }

    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).and_then(|(_, v)| v.as_deref())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheme {
    Sip,
    Sips,
    Tel,
    Other(String),
}

/// A SIP, SIPS or tel URI, or the text of another scheme's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    text: String,
    pub scheme: Scheme,
    /// As written, escapes included.
    raw_user: Option<String>,
    /// `None` for tel and unknown schemes.
    pub host: Option<Host>,
    pub port: Option<u16>,
    pub params: Params,
    has_headers: bool,
}

impl Uri {
    /// `None` if it is no URI: white space, angle brackets, no scheme, an impossible host or port.
    pub fn parse(text: &str) -> Option<Uri> {
        let plain = |b: u8| b > b' ' && b < 0x7f && !matches!(b, b'<' | b'>' | b'"');
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | '"');
        if !text.bytes().all(plain) && text.chars().any(odd) {
            return None;
        }
        let (scheme, rest) = text.split_once(':')?;
        let mut bytes = scheme.bytes();
        if !bytes.next()?.is_ascii_alphabetic()
            || !bytes.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
            || rest.is_empty()
        {
            return None;
        }
        let is = |name: &str| scheme.eq_ignore_ascii_case(name);
        let scheme = match scheme {
            _ if is("sip") => Scheme::Sip,
            _ if is("sips") => Scheme::Sips,
            _ if is("tel") => Scheme::Tel,
            other => Scheme::Other(other.to_ascii_lowercase()),
        };
        let uri = Uri {
            text: text.into(),
            scheme,
            raw_user: None,
            host: None,
            port: None,
            params: Params::default(),
            has_headers: false,
        };
        match uri.scheme {
            Scheme::Sip | Scheme::Sips => uri.with_sip(rest),
            Scheme::Tel => Some(uri.with_tel(rest)),
            Scheme::Other(_) => Some(uri),
        }
    }

    /// RFC 3261 §19.1.1. An unescaped `@` only ever ends the user part, which may hold `?` and `;`.
    fn with_sip(mut self, rest: &str) -> Option<Uri> {
        let (user, rest) = match rest.split_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        if let Some(user) = user {
            let user = user.split_once(':').map_or(user, |(user, _password)| user);
            self.raw_user = Some(user.into()).filter(|user: &String| !user.is_empty());
            self.raw_user.as_ref()?;
        }
        let (rest, headers) = rest.split_once('?').unwrap_or((rest, ""));
        self.has_headers = !headers.is_empty();
        let (host, params) = rest.split_once(';').unwrap_or((rest, ""));
        let (host, port) = host_port(host)?;
        (self.host, self.port, self.params) = (Some(host), port, Params::parse(params));
        Some(self)
    }

    fn with_tel(mut self, rest: &str) -> Uri {
        let (number, params) = rest.split_once(';').unwrap_or((rest, ""));
        (self.raw_user, self.params) = (Some(number.into()), Params::parse(params));
        self
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Text fit for a header field of a URI: everything else than unreserved characters escaped.
    pub fn escape(text: &str) -> String {
        let mut escaped = String::with_capacity(text.len());
        for byte in text.bytes() {
            match byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
                true => escaped.push(char::from(byte)),
                false => escaped.push_str(&format!("%{byte:02X}")),
            }
        }
        escaped
    }

    /// Whether `?name=value` follows: for a Refer-To; nowhere else may it be acted upon.
    pub fn has_headers(&self) -> bool {
        self.has_headers
    }

    /// Text of a URI with its escapes resolved.
    pub fn unescape(text: &str) -> String {
        unescaped(text)
    }

    /// The user part with escapes resolved (`%61` is `a`).
    pub fn user(&self) -> Option<String> {
        self.raw_user.as_deref().map(unescaped)
    }

    /// The user part as a telephone number: without `;` parameters and, when it is one, without
    /// visual separators (RFC 3966 §5.1.1). Text that is no number comes back as it is.
    pub fn number(&self) -> Option<String> {
        let user = self.raw_user.as_deref()?;
        let user = unescaped(user.split(';').next().unwrap_or(user));
        let plain: String = user.chars().filter(|c| !"-.() ".contains(*c)).collect();
        let digits = plain.strip_prefix('+').unwrap_or(&plain);
        let numeric = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        Some(if numeric { plain } else { user })
    }

    /// Where it points, when that needs no DNS; the port defaults to 5060.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self.host {
            Some(Host::IpAddr(ip)) => Some(SocketAddr::new(ip, self.port.unwrap_or(5060))),
            _ => None,
        }
    }
}

/// `"Display" <uri>;params`, as in From, To, Contact and P-Asserted-Identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAddr {
    /// Unquoted and unescaped; `None` when absent or empty.
    pub display: Option<String>,
    pub uri: Uri,
    pub params: Params,
}

impl NameAddr {
    /// One name-addr or addr-spec (RFC 3261 §20.10). Without brackets, parameters belong to the
    /// header, not to the URI, which then has no headers.
    pub fn parse(text: &str) -> Option<NameAddr> {
        let text = text.trim();
        let (display, rest) = match text.strip_prefix('"') {
            Some(quoted) => {
                let (display, rest) = quoted_string(quoted)?;
                (display, rest.trim_start().strip_prefix('<')?)
            }
            None => match text.split_once('<') {
                Some((display, _)) if display.contains([',', '"', ';', '>']) => return None,
                Some((display, rest)) => (display.trim().to_string(), rest),
                None => {
                    let (uri, params) = text.split_once(';').unwrap_or((text, ""));
                    let uri = Uri::parse(uri.trim()).filter(|uri| !uri.has_headers)?;
                    return Some(NameAddr { display: None, uri, params: Params::parse(params) });
                }
            },
        };
        let (uri, after) = rest.split_once('>')?;
        let params = match after.trim() {
            "" => "",
            after => after.strip_prefix(';')?,
        };
        Some(NameAddr {
            display: Some(display).filter(|display| !display.is_empty()),
            uri: Uri::parse(uri.trim())?,
            params: Params::parse(params),
        })
    }

    pub fn tag(&self) -> Option<&str> {
        self.params.value("tag")
    }
}

/// One Via value (RFC 3261 §20.42, RFC 3581).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    pub transport: String,
    /// `host[:port]` as written, the sender's view of itself.
    pub sent_by: String,
    pub host: Host,
    pub port: Option<u16>,
    pub params: Params,
    raw_params: String,
}

impl Via {
    /// Parses one value; white space around `/` and `:` is allowed, empty parameters are not.
    pub fn parse(text: &str) -> Option<Via> {
        let (head, raw_params) = text.split_once(';').unwrap_or((text, ""));
        let (protocol, head) = head.split_once('/')?;
        let (version, head) = head.split_once('/')?;
        if !protocol.trim().eq_ignore_ascii_case("SIP") || version.trim() != "2.0" {
            return None;
        }
        let (transport, sent_by) = head.trim().split_once([' ', '\t'])?;
        let sent_by: String = sent_by.split_whitespace().collect();
        let (host, port) = host_port(&sent_by)?;
        let empty = |part: &str| part.trim().is_empty();
        if !empty(raw_params) && split_outside(raw_params, b';').any(empty) {
            return None;
        }
        Some(Via {
            transport: transport.to_ascii_uppercase(),
            sent_by,
            host,
            port,
            params: Params::parse(raw_params),
            raw_params: raw_params.into(),
        })
    }

    pub fn branch(&self) -> &str {
        self.params.value("branch").unwrap_or_default()
    }

    /// As it goes into the response to a request that came from `source`: with `received`, and
    /// `rport` filled in if it was asked for (RFC 3261 §18.2.1, RFC 3581 §4).
    pub fn stamped(&self, source: SocketAddr) -> String {
        let mut text = format!("SIP/2.0/{} {}", self.transport, self.sent_by);
        for part in split_outside(&self.raw_params, b';') {
            let name = part.split('=').next().unwrap_or_default().trim();
            let ours = name.eq_ignore_ascii_case("received") || name.eq_ignore_ascii_case("rport");
            if !ours && !name.is_empty() {
                text.push(';');
                text.push_str(part.trim());
            }
        }
        if self.params.has("rport") {
            text.push_str(&format!(";received={};rport={}", source.ip(), source.port()));
        } else if self.host != Host::IpAddr(source.ip()) {
            text.push_str(&format!(";received={}", source.ip()));
        }
        text
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`.
fn host_port(text: &str) -> Option<(Host, Option<u16>)> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0).map(Some);
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, rest) = rest.split_once(']')?;
        let ip = Host::IpAddr(IpAddr::V6(ip.parse::<Ipv6Addr>().ok()?));
        return match rest.strip_prefix(':') {
            Some(digits) => Some((ip, port(digits)?)),
            None => rest.is_empty().then_some((ip, None)),
        };
    }
    let (host, port) = match text.split_once(':') {
        Some((host, digits)) => (host, port(digits)?),
        None => (text, None),
    };
    if host.is_empty() || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        return None;
    }
    let host = match host.parse::<Ipv4Addr>() {
        Ok(ip) => Host::IpAddr(IpAddr::V4(ip)),
        Err(_) => Host::Domain(host.into()),
    };
    Some((host, port))
}

/// Splits a header value into its elements: at commas outside quotes and angle brackets.
pub fn split_list(value: &str) -> impl Iterator<Item = &str> {
    split_outside(value, b',').map(str::trim).filter(|part| !part.is_empty())
}

/// The separator is ASCII: it is never part of another character.
fn split_outside(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = end_outside(text.as_bytes(), separator);
        rest = end.map(|end| &text[end + 1..]);
        Some(&text[..end.unwrap_or(text.len())])
    })
}

fn end_outside(text: &[u8], separator: u8) -> Option<usize> {
    let (mut quoted, mut escaped, mut bracketed) = (false, false, false);
    for (at, b) in text.iter().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'<' if !quoted => bracketed = true,
            b'>' if !quoted => bracketed = false,
            b if *b == separator && !quoted && !bracketed => return Some(at),
            _ => {}
        }
    }
    None
}

/// The text of a quoted string whose opening quote is already gone, and what follows it.
fn quoted_string(text: &str) -> Option<(String, &str)> {
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => {
                escaped = false;
                value.push(c);
            }
            '\\' => escaped = true,
            '"' => return Some((value, &text[at + 1..])),
            _ => value.push(c),
        }
    }
    None
}

fn unquoted(value: &str) -> String {
    match value.strip_prefix('"').and_then(quoted_string) {
        Some((text, _)) => text,
        None => value.into(),
    }
}

/// Resolves `%HH`; a lone `%` stays, bytes that are not UTF-8 become U+FFFD.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = |b: u8| char::from(b).to_digit(16);
        rest = match (first, tail) {
            (b'%', [high, low, after @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                let value = hex(*high).unwrap_or(0) * 16 + hex(*low).unwrap_or(0);
                bytes.push(value as u8);
                after
            }
            _ => {
                bytes.push(first);
                tail
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_as_the_torture_tests_write_them() {
        let user = |text: &str| Uri::parse(text).and_then(|uri| uri.user());
        assert_eq!(
            user("sip:sips%3Auser%40example.com@example.net").as_deref(),
            Some("sips:user@example.com")
        );
        let semicolon = "sip:user;par=u%40example.net@example.com";
        assert_eq!(user(semicolon).as_deref(), Some("user;par=u@example.net"));
        assert_eq!(Uri::parse(semicolon).unwrap().number().as_deref(), Some("user"));
        let odd = "sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1@example.com";
        assert_eq!(Uri::parse(odd).unwrap().host, Some(Host::Domain("example.com".into())));
        for bad in [
            "<sip:user@example.com>",
            "sip:user@example.com; lr",
            "sip:",
            "no colon",
            "sip:u@h:99999",
            "sip:u@[::1",
            "sip:u@h:0",
            "sip:@host",
            "1sip:user@host",
        ] {
            assert_eq!(Uri::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers_from_sip_and_tel() {
        let number = |text: &str| Uri::parse(text).and_then(|uri| uri.number()).unwrap();
        assert_eq!(number("tel:+1-415-555-0100"), "+14155550100");
        assert_eq!(number("tel:+14155550100;ext=7"), "+14155550100");
        assert_eq!(number("sip:+14155550100;phone-context=x@h;user=phone"), "+14155550100");
        assert_eq!(number("sip:%2b14155550100@h"), "+14155550100");
        assert_eq!(number("sip:a.b-c@h"), "a.b-c");
    }

    #[test]
    fn name_addr_shapes() {
        let parse = |text| NameAddr::parse(text).unwrap();
        let quoted = parse(r#""Smith, \"J\" <x>" <sip:j@h;lr>;tag="a;b";q=1"#);
        assert_eq!(quoted.display.as_deref(), Some("Smith, \"J\" <x>"));
        assert_eq!((quoted.tag(), quoted.uri.params.has("LR")), (Some("a;b"), true));
        let bare = parse("sip:j@h;tag=x");
        assert_eq!((bare.tag(), bare.uri.as_str()), (Some("x"), "sip:j@h"));
        assert_eq!(parse("caller<sip:c@h>;tag=3").display.as_deref(), Some("caller"));
        assert_eq!(parse("<tel:+14155550100>").uri.scheme, Scheme::Tel);
        for bad in [
            r#""Mr. J. User <sip:j@h>"#,
            "Bell, Alexander <sip:a@h>",
            "<sip:a@h",
            "<sip:a@h> x",
            "",
        ] {
            assert_eq!(NameAddr::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn via_is_answered_where_the_packet_came_from() {
        let source: SocketAddr = "192.0.2.9:4000".parse().unwrap();
        let via =
            Via::parse("SIP  /   2.0 / udp  10.0.0.1 : 5070 ; branch = z9hG4bKa;rport").unwrap();
        assert_eq!((via.transport.as_str(), via.branch()), ("UDP", "z9hG4bKa"));
        assert!(via.stamped(source).ends_with(";received=192.0.2.9;rport=4000"));
        let plain = Via::parse("SIP/2.0/UDP 192.0.2.9:5070;branch=z9hG4bKa").unwrap();
        assert_eq!(plain.stamped(source), "SIP/2.0/UDP 192.0.2.9:5070;branch=z9hG4bKa");
        let v6 = Via::parse("SIP/2.0/UDP [2001:db8::1]:5060;branch=z9hG4bKb").unwrap();
        assert_eq!(v6.host, Host::IpAddr("2001:db8::1".parse().unwrap()));
        assert_eq!(Via::parse("SIP/2.0/UDP 192.0.2.15;;"), None);
        assert_eq!(Via::parse("SIP/7.0/UDP h"), None);
    }

    #[test]
    fn lists_split_outside_quotes_and_brackets() {
        assert_eq!(split_list(r#""a, b" <sip:x,y@h>, <sip:z@h> ,"#).count(), 2);
    }
}
