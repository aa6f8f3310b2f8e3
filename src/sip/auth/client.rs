//! The client side: keeps what was challenged, and answers it in every further request.

use std::error::Error;
use std::fmt;

use super::super::model::{Headers, Method};
use super::{Algorithm, Answer, Credentials, Fields, Qop};

/// The challenges of one dialog or registration. A copy starts a further one with the nonces
/// known so far.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// At most [`REALMS_MAX`], the latest last.
    realms: Vec<Realm>,
}

const REALMS_MAX: usize = 8;
/// Of one response; more are not read.
const CHALLENGES_MAX: usize = 32;
/// How often a realm may challenge before anything is accepted: a new nonce is worth a second
/// try, since not every server says `stale`.
const ROUNDS_MAX: u32 = 2;
/// The same where it does say so.
const STALE_ROUNDS_MAX: u32 = 4;

/// Why a challenge cannot be answered. The response that carried it is then final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No challenge, or none with an algorithm and qop that we know.
    Unsupported,
    NoCredentials {
        realm: String,
    },
    /// The name or the password is wrong: our answer was challenged again.
    Rejected {
        realm: String,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Unsupported => f.write_str("no challenge that we support"),
            Refused::NoCredentials { realm } => write!(f, "no credentials for realm `{realm}`"),
            Refused::Rejected { realm } => {
                write!(f, "realm `{realm}` does not accept our name and password")
            }
        }
    }
}

impl Error for Refused {}

/// One who wants to know: a server or a proxy on the way.
#[derive(Clone, Debug)]
struct Realm {
    proxy: bool,
    challenge: Challenge,
    credentials: Credentials,
    /// Requests answered with this nonce.
    nc: u32,
    /// Challenges since a request was last accepted.
    rounds: u32,
}

impl Client {
    /// Takes the challenges of a 401 or 407. Of several for one realm the strongest is answered,
    /// of equals the first (RFC 8760 §2.4). After `Ok` the request is to be sent again, with a new
    /// CSeq and what [`Client::authorize`] gives. Realms that we have nothing for are passed over
    /// if another is answered: proxies that forked add up their challenges (RFC 3261 §22.3).
    pub fn challenged(
        &mut self,
        status: u16,
        headers: &Headers,
        credentials: &[Credentials],
    ) -> Result<(), Refused> {
        let proxy = status == 407;
        let name = if proxy { "Proxy-Authenticate" } else { "WWW-Authenticate" };
        let all = headers.all(name).flat_map(Fields::parse).take(CHALLENGES_MAX);
        let mut outcome = Err(Refused::Unsupported);
        for challenge in strongest(all.filter_map(|fields| Challenge::read(&fields))) {
            match credentials.iter().find(|one| one.fit(&challenge.realm)) {
                Some(fitting) => {
                    self.take(proxy, challenge, fitting)?;
                    outcome = Ok(());
                }
                None if outcome == Err(Refused::Unsupported) => {
                    outcome = Err(Refused::NoCredentials { realm: challenge.realm });
                }
                None => {}
            }
        }
        outcome
    }

    fn take(&mut self, proxy: bool, new: Challenge, own: &Credentials) -> Result<(), Refused> {
        let same = |realm: &Realm| realm.proxy == proxy && realm.challenge.realm == new.realm;
        let mut rounds = 1;
        if let Some(at) = self.realms.iter().position(same) {
            let old = &self.realms[at];
            rounds += old.rounds;
            let repeated = old.rounds > 0 && old.challenge.nonce == new.nonce && !new.stale;
            let max = if new.stale { STALE_ROUNDS_MAX } else { ROUNDS_MAX };
            if repeated || rounds > max {
                return Err(Refused::Rejected { realm: new.realm });
            }
            self.realms.remove(at);
        }
        if self.realms.len() == REALMS_MAX {
            self.realms.remove(0);
        }
        let credentials = own.clone();
        self.realms.push(Realm { proxy, challenge: new, credentials, nc: 0, rounds });
        Ok(())
    }

    /// The header fields for the next request, one for each realm met so far: none before the
    /// first challenge. `uri` is the Request-URI as written, `cnonce` must not be guessable.
    pub fn authorize(
        &mut self,
        method: &Method,
        uri: &str,
        body: &[u8],
        cnonce: &str,
    ) -> Vec<(&'static str, String)> {
        let answer = |realm: &mut Realm| {
            let name = if realm.proxy { "Proxy-Authorization" } else { "Authorization" };
            (name, realm.answer(method, uri, body, cnonce))
        };
        self.realms.iter_mut().map(answer).collect()
    }

    /// To be called with the response to a request that was let through, 401 and 407 excepted:
    /// from here on a challenge is about a nonce, not about the password. Follows `nextnonce`
    /// (RFC 7616 §3.5).
    pub fn accepted(&mut self, headers: &Headers) {
        for realm in &mut self.realms {
            realm.rounds = 0;
        }
        for (proxy, name) in [(false, "Authentication-Info"), (true, "Proxy-Authentication-Info")] {
            let next = headers.first(name).and_then(next_nonce);
            let mut realms = self.realms.iter_mut().filter(|realm| realm.proxy == proxy);
            // The field names no realm: with several it is anyone's.
            if let (Some(nonce), Some(realm), None) = (next, realms.next(), realms.next()) {
                realm.challenge.nonce = nonce;
                realm.nc = 0;
            }
        }
    }
}

impl Realm {
    fn answer(&mut self, method: &Method, uri: &str, body: &[u8], cnonce: &str) -> String {
        self.nc = self.nc.saturating_add(1);
        let Challenge { realm, nonce, opaque, algorithm, qop, .. } = &self.challenge;
        // RFC 2069 knows no cnonce, but -sess cannot do without.
        let wanted = qop.is_some() || algorithm.is_some_and(|algorithm| algorithm.session);
        let mut answer = Answer {
            username: self.credentials.username.clone(),
            realm: realm.clone(),
            nonce: nonce.clone(),
            uri: uri.into(),
            response: String::new(),
            algorithm: *algorithm,
            cnonce: wanted.then(|| cnonce.into()),
            opaque: opaque.clone(),
            qop: *qop,
            nc: self.nc,
        };
        let password = self.credentials.password.expose();
        answer.response = answer.expected(password, method, body).to_string();
        answer.to_string()
    }
}

/// A challenge that we can answer.
#[derive(Clone, Debug)]
struct Challenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    /// Only the nonce was refused, not the password.
    stale: bool,
    /// `None`: not stated, which means MD5.
    algorithm: Option<Algorithm>,
    qop: Option<Qop>,
}

impl Challenge {
    fn read(fields: &Fields) -> Option<Challenge> {
        if !fields.is_digest() || !fields.intact {
            return None;
        }
        let algorithm = match fields.value("algorithm") {
            Some(name) => Some(Algorithm::parse(name)?),
            None => None,
        };
        Some(Challenge {
            realm: fields.owned("realm")?,
            nonce: fields.owned("nonce")?,
            opaque: fields.owned("opaque"),
            stale: fields.value("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
            algorithm,
            qop: protection(fields.value("qop").unwrap_or_default())?,
        })
    }

    fn strength(&self) -> u8 {
        self.algorithm.unwrap_or(Algorithm::MD5).strength()
    }
}

/// What to choose of a list of qop options. `auth` before `auth-int`: session border controllers
/// change bodies on the way. `None`: there is a list, and we know nothing on it.
fn protection(list: &str) -> Option<Option<Qop>> {
    let offered = |qop| list.split(',').any(|name| Qop::parse(name) == Some(qop));
    match [Qop::Auth, Qop::AuthInt].into_iter().find(|qop| offered(*qop)) {
        Some(qop) => Some(Some(qop)),
        None => list.trim().is_empty().then_some(None),
    }
}

/// One challenge for each realm, in the order the realms came.
fn strongest(challenges: impl Iterator<Item = Challenge>) -> Vec<Challenge> {
    let mut best: Vec<Challenge> = Vec::new();
    for challenge in challenges {
        match best.iter_mut().find(|known| known.realm == challenge.realm) {
            Some(known) if challenge.strength() > known.strength() => *known = challenge,
            Some(_) => {}
            None => best.push(challenge),
        }
    }
    best
}

fn next_nonce(value: &str) -> Option<String> {
    // The field has no scheme; given one, it reads as credentials do.
    Fields::parse(&format!("Digest {value}")).first()?.owned("nextnonce")
}
