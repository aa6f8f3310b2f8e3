//! Digest authentication, both sides: RFC 7616 and 8760, with RFC 2617 and 2069 for old peers, as
//! RFC 3261 §22 uses them. Here are the hashes and the header fields; `client` answers
//! challenges, `server` makes them.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::{constant_time, digest};
use md5::{Digest, Md5};
use zeroize::Zeroizing;

use super::model::{Method, is_token, split_list};
use crate::secret::Secret;

pub use self::client::{Client, Refused};
pub use self::server::{Server, Settings, Verdict};

mod client; // challenges in, credentials out
mod server; // nonces, replays and the verdict on credentials

/// A name and password. Copies share the one password in memory.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub username: String,
    pub password: Arc<Secret<String>>,
    /// The only realm they are for; `None`: any.
    pub realm: Option<String>,
}

impl Credentials {
    pub fn new(username: &str, password: String, realm: Option<&str>) -> Credentials {
        Credentials {
            username: username.into(),
            password: Arc::new(Secret::new(password)),
            realm: realm.map(String::from),
        }
    }

    fn fit(&self, realm: &str) -> bool {
        self.realm.as_deref().is_none_or(|own| own == realm)
    }
}

/// Weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    Md5,
    Sha256,
    Sha512_256,
}

/// The `algorithm` of a challenge: a hash, and whether its first step is made anew for each nonce
/// pair (`-sess`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithm {
    pub hash: Hash,
    pub session: bool,
}

impl Algorithm {
    pub const MD5: Algorithm = Algorithm { hash: Hash::Md5, session: false };
    pub const SHA_256: Algorithm = Algorithm { hash: Hash::Sha256, session: false };
    pub const SHA_512_256: Algorithm = Algorithm { hash: Hash::Sha512_256, session: false };

    /// In any case, as it is found in any case; `None` if unknown.
    pub fn parse(text: &str) -> Option<Algorithm> {
        let upper = text.to_ascii_uppercase();
        let (name, session) = match upper.strip_suffix("-SESS") {
            Some(name) => (name, true),
            None => (upper.as_str(), false),
        };
        let hash = match name {
            "MD5" => Hash::Md5,
            "SHA-256" => Hash::Sha256,
            "SHA-512-256" => Hash::Sha512_256,
            _ => return None,
        };
        Some(Algorithm { hash, session })
    }

    /// The two SHA-2 are as strong as each other: their order is the challenger's (RFC 8760 §2.4).
    fn strength(self) -> u8 {
        u8::from(self.hash != Hash::Md5)
    }

    /// The hash of parts joined by colons, in lower-case hex.
    fn hash(self, parts: &[&[u8]]) -> Zeroizing<String> {
        let sha = |algorithm| {
            let mut context = digest::Context::new(algorithm);
            joined(parts, |part| context.update(part));
            hex(context.finish().as_ref())
        };
        Zeroizing::new(match self.hash {
            Hash::Sha256 => sha(&digest::SHA256),
            Hash::Sha512_256 => sha(&digest::SHA512_256),
            Hash::Md5 => {
                let mut context = Md5::new();
                joined(parts, |part| context.update(part));
                hex(&context.finalize())
            }
        })
    }
}

fn joined(parts: &[&[u8]], mut update: impl FnMut(&[u8])) {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            update(b":");
        }
        update(part);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.hash {
            Hash::Md5 => "MD5",
            Hash::Sha256 => "SHA-256",
            Hash::Sha512_256 => "SHA-512-256",
        })?;
        f.write_str(if self.session { "-sess" } else { "" })
    }
}

/// Quality of protection: what the response covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qop {
    Auth,
    /// The body too.
    AuthInt,
}

impl Qop {
    fn parse(text: &str) -> Option<Qop> {
        match text.trim().to_ascii_lowercase().as_str() {
            "auth" => Some(Qop::Auth),
            "auth-int" => Some(Qop::AuthInt),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Qop::Auth => "auth",
            Qop::AuthInt => "auth-int",
        }
    }
}

/// One challenge or one set of credentials: a scheme and its parameters, unquoted.
struct Fields {
    scheme: String,
    pairs: Vec<(String, String)>,
    /// Every parameter was legible and stood there once.
    intact: bool,
}

impl Fields {
    /// All that stand in one header field: peers also join several with commas (RFC 7616 §3.7),
    /// although RFC 3261 §20.44 gives each a field of its own.
    fn parse(value: &str) -> Vec<Fields> {
        let mut all: Vec<Fields> = Vec::new();
        for part in split_list(value) {
            let (name, value) = part.split_once('=').map_or((part, None), |(n, v)| (n, Some(v)));
            let (scheme, name) = match (name.trim().split_once([' ', '\t']), value) {
                (Some((scheme, name)), _) => (Some(scheme), name.trim()),
                (None, None) => (Some(name.trim()), ""),
                (None, Some(_)) => (None, name.trim()),
            };
            if let Some(scheme) = scheme {
                all.push(Fields { scheme: scheme.into(), pairs: Vec::new(), intact: true });
            }
            let Some(fields) = all.last_mut() else { continue };
            match value.map(|value| unquoted(value.trim())) {
                Some(Some(value)) if is_token(name) && fields.value(name).is_none() => {
                    fields.pairs.push((name.into(), value));
                }
                None if name.is_empty() => {}
                _ => fields.intact = false,
            }
        }
        all
    }

    fn value(&self, name: &str) -> Option<&str> {
        let pair = self.pairs.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        pair.map(|(_, value)| value.as_str())
    }

    fn is_digest(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("Digest")
    }

    fn owned(&self, name: &str) -> Option<String> {
        self.value(name).map(String::from)
    }
}

/// A quoted string without quotes and escapes, or the text itself; `None` if a quote is unclosed.
fn unquoted(text: &str) -> Option<String> {
    let Some(inside) = text.strip_prefix('"') else {
        return (!text.contains('"')).then(|| text.into());
    };
    let (mut value, mut chars) = (String::new(), inside.chars());
    loop {
        match chars.next()? {
            '"' => return chars.next().is_none().then_some(value),
            '\\' => value.push(chars.next()?),
            other => value.push(other),
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// What one Authorization or Proxy-Authorization header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Answer {
    username: String,
    realm: String,
    nonce: String,
    /// As the client wrote it; it need not be the Request-URI that arrived.
    uri: String,
    response: String,
    /// `None`: not stated, which means MD5.
    algorithm: Option<Algorithm>,
    cnonce: Option<String>,
    opaque: Option<String>,
    /// `None`: RFC 2069, without `nc`.
    qop: Option<Qop>,
    nc: u32,
}

impl Answer {
    /// `None` if anything is missing, twice there, or not understood.
    fn read(fields: &Fields) -> Option<Answer> {
        if !fields.intact {
            return None;
        }
        let algorithm = match fields.value("algorithm") {
            Some(name) => Some(Algorithm::parse(name)?),
            None => None,
        };
        let qop = match fields.value("qop") {
            Some(name) => Some(Qop::parse(name)?),
            None => None,
        };
        let nc = match qop {
            Some(_) => nonce_count(fields.value("nc")?)?,
            None => 0,
        };
        let cnonce = fields.owned("cnonce");
        let session = algorithm.is_some_and(|algorithm| algorithm.session);
        if cnonce.is_none() && (qop.is_some() || session) {
            return None;
        }
        Some(Answer {
            username: fields.owned("username")?,
            realm: fields.owned("realm")?,
            nonce: fields.owned("nonce")?,
            uri: fields.owned("uri").filter(|uri| !uri.is_empty())?,
            response: fields.value("response")?.to_ascii_lowercase(),
            algorithm,
            cnonce,
            opaque: fields.owned("opaque"),
            qop,
            nc,
        })
    }

    /// The response as it must be for this password (RFC 7616 §3.4.1 to §3.4.3).
    fn expected(&self, password: &str, method: &Method, body: &[u8]) -> Zeroizing<String> {
        let algorithm = self.algorithm.unwrap_or(Algorithm::MD5);
        let (nonce, cnonce) = (self.nonce.as_bytes(), self.cnonce.as_deref().unwrap_or_default());
        let user = [self.username.as_bytes(), self.realm.as_bytes(), password.as_bytes()];
        let mut who = algorithm.hash(&user);
        if algorithm.session {
            who = algorithm.hash(&[who.as_bytes(), nonce, cnonce.as_bytes()]);
        }
        let method = method.to_string();
        let mut what = vec![method.as_bytes(), self.uri.as_bytes()];
        let body = (self.qop == Some(Qop::AuthInt)).then(|| algorithm.hash(&[body]));
        what.extend(body.as_ref().map(|hash| hash.as_bytes()));
        let what = algorithm.hash(&what);
        let nc = format!("{:08x}", self.nc);
        match self.qop {
            Some(qop) => algorithm.hash(&[
                who.as_bytes(),
                nonce,
                nc.as_bytes(),
                cnonce.as_bytes(),
                qop.as_str().as_bytes(),
                what.as_bytes(),
            ]),
            None => algorithm.hash(&[who.as_bytes(), nonce, what.as_bytes()]),
        }
    }

    /// Compares in constant time.
    fn proves(&self, password: &str, method: &Method, body: &[u8]) -> bool {
        let expected = self.expected(password, method, body);
        let (expected, given) = (expected.as_bytes(), self.response.as_bytes());
        constant_time::verify_slices_are_equal(expected, given).is_ok()
    }
}

/// Eight hex digits, counted from 1.
fn nonce_count(text: &str) -> Option<u32> {
    let hex = text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
    u32::from_str_radix(text, 16).ok().filter(|count| hex && *count > 0)
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest username={}, ", quoted(&self.username))?;
        write!(f, "realm={}, nonce={}, ", quoted(&self.realm), quoted(&self.nonce))?;
        write!(f, "uri={}, response=\"{}\"", quoted(&self.uri), self.response)?;
        if let Some(algorithm) = self.algorithm {
            write!(f, ", algorithm={algorithm}")?;
        }
        if let Some(cnonce) = &self.cnonce {
            write!(f, ", cnonce={}", quoted(cnonce))?;
        }
        if let Some(opaque) = &self.opaque {
            write!(f, ", opaque={}", quoted(opaque))?;
        }
        match self.qop {
            Some(qop) => write!(f, ", qop={}, nc={:08x}", qop.as_str(), self.nc),
            None => Ok(()),
        }
    }
}

/// Fuzz target: whatever stands in the header fields of a challenge or of credentials, nothing
/// panics, and what the client makes of a challenge can be read again.
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let credentials = [Credentials::new("alice", "s3cret".into(), None)];
    let mut headers = super::model::Headers::default();
    for line in text.lines() {
        headers.push("WWW-Authenticate", line);
        headers.push("Proxy-Authenticate", line);
        headers.push("Authentication-Info", line);
    }
    let mut client = Client::default();
    for status in [401, 407, 401] {
        let answered = client.challenged(status, &headers, &credentials).is_ok();
        let answers = client.authorize(&Method::INVITE, "sip:bob@example.com", bytes, "c0nce");
        assert!(!answered || !answers.is_empty(), "a challenge was taken and not answered");
        for (_, answer) in answers {
            let read = Fields::parse(&answer).first().and_then(Answer::read);
            assert!(read.is_some_and(|read| read.to_string() == answer), "{answer}");
        }
        client.accepted(&headers);
    }
    let mut server = Server::new(Settings::new("example.com"), &[7; 32]);
    let verdict = server.verify(0, text.lines(), &Method::INVITE, bytes, &credentials);
    assert!(!matches!(verdict, Verdict::Ok(_)), "a stranger was let in");
}

#[cfg(test)]
mod tests;
