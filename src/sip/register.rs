//! Outbound registration with a trunk or PBX, RFC 3261 §10: when to ask which of its servers for
//! what, and how long the binding that it grants will last.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::auth::{Client, Credentials};
use super::model::{Headers, Method, NameAddr, Uri};

/// What to register where.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Request-URI: `sip:example.com`.
    pub registrar: String,
    /// Address of record, in From and To: `sip:alice@example.com`.
    pub aor: String,
    /// Where requests to it shall be sent: `sip:alice@192.0.2.1:5060`.
    pub contact: String,
    /// How long the binding is asked to last.
    pub expires_s: u32,
    /// How many servers there are to go through; at least one is assumed.
    pub servers: usize,
    pub credentials: Vec<Credentials>,
}

/// A REGISTER to be sent, in a transaction of its own. Via, Max-Forwards and Content-Length are
/// the sender's to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Which of the servers gets it: an index into the caller's list.
    pub server: usize,
    pub uri: String,
    pub headers: Vec<(String, String)>,
}

/// How things stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Unregistered,
    Registered {
        until: Instant,
    },
    /// The last attempt failed at every server. `status` is the last answer, `None` if there was
    /// none; the next attempt is made at `until`.
    Failed {
        status: Option<u16>,
        until: Instant,
    },
}

/// One binding, kept alive. After each [`Registration::poll`] that gave an [`Ask`], exactly one of
/// [`Registration::answered`] (final responses only) and [`Registration::unanswered`] is expected.
#[derive(Debug)]
pub struct Registration {
    settings: Settings,
    state: State,
    phase: Phase,
    client: Client,
    rng: StdRng,
    call_id: String,
    tag: String,
    cseq: u32,
    /// Asked for; a 423 raises it.
    expires_s: u32,
    raised: bool,
    servers: Servers,
    /// Rounds through all servers that failed since the last success.
    failures: u32,
    service_route: Vec<String>,
    leaving: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Ask at this time.
    Due(Instant),
    /// Asked, for a binding (or, when `leaving`, for its removal); no later answer is waited for.
    Pending { leaving: bool, until: Instant },
    /// Nothing more to do.
    Over,
}

/// Longer than a transaction lives (RFC 3261 §17.1.2.2, timer F).
const PATIENCE: Duration = Duration::from_secs(40);
/// However short a binding is granted, it is not refreshed more often.
const REFRESH_MIN: Duration = Duration::from_secs(30);
/// However long, it is refreshed daily.
const GRANTED_MAX_S: u32 = 86_400;
/// Pauses are these, or down to half of them: peers that failed together do not return together.
const BACKOFF_FIRST: Duration = Duration::from_secs(4);
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// After a refusal that will not change by itself: wrong password, no such user.
const REFUSED: Duration = Duration::from_secs(1800);
/// Longest Retry-After that is honoured.
const RETRY_AFTER_MAX_S: u64 = 1800;
const SERVICE_ROUTES_MAX: usize = 8;

impl Registration {
    /// Due at once. All randomness (Call-ID, tag, cnonce, jitter) comes from `seed`.
    pub fn new(now: Instant, settings: Settings, seed: u64) -> Registration {
        let mut rng = StdRng::seed_from_u64(seed);
        let (call_id, tag) = (token(&mut rng), token(&mut rng));
        Registration {
            state: State::Unregistered,
            phase: Phase::Due(now),
            client: Client::default(),
            rng,
            call_id,
            tag,
            cseq: 0,
            expires_s: settings.expires_s.clamp(1, GRANTED_MAX_S),
            raised: false,
            servers: Servers::new(now, settings.servers),
            failures: 0,
            service_route: Vec::new(),
            leaving: false,
            settings,
        }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// The route that the registrar wants our requests to take (RFC 3608), as header values.
    pub fn service_route(&self) -> &[String] {
        &self.service_route
    }

    /// When [`Registration::poll`] has something to do; `None` once it is over.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Due(at) | Phase::Pending { until: at, .. } => Some(at),
            Phase::Over => None,
        }
    }

    pub fn poll(&mut self, now: Instant) -> Option<Ask> {
        if let State::Registered { until } = self.state
            && until <= now
        {
            self.state = State::Unregistered;
        }
        if let Phase::Pending { until, .. } = self.phase
            && until <= now
        {
            self.unanswered(now);
        }
        match self.phase {
            Phase::Due(at) if at <= now => Some(self.ask(now)),
            _ => None,
        }
    }

    fn ask(&mut self, now: Instant) -> Ask {
        self.phase = Phase::Pending { leaving: self.leaving, until: now + PATIENCE };
        self.cseq += 1;
        let Settings { registrar, aor, contact, .. } = &self.settings;
        let expires_s = if self.leaving { 0 } else { self.expires_s };
        let mut headers = vec![
            ("From", format!("<{aor}>;tag={}", self.tag)),
            ("To", format!("<{aor}>")),
            ("Call-ID", self.call_id.clone()),
            ("CSeq", format!("{} REGISTER", self.cseq)),
            ("Contact", format!("<{contact}>;expires={expires_s}")),
            ("Expires", expires_s.to_string()),
        ];
        let method = Method::Known(rsip::Method::Register);
        headers.extend(self.client.authorize(&method, registrar, b"", &token(&mut self.rng)));
        let headers = headers.into_iter().map(|(name, value)| (name.into(), value)).collect();
        Ask { server: self.servers.current, uri: registrar.clone(), headers }
    }

    /// A final response to the last ask.
    pub fn answered(&mut self, now: Instant, status: u16, headers: &Headers) {
        let Phase::Pending { leaving, .. } = self.phase else { return };
        match status {
            ..200 => {}
            401 | 407 => {
                match self.client.challenged(status, headers, &self.settings.credentials) {
                    Ok(()) => self.phase = Phase::Due(now),
                    Err(_) => self.refused(now, status),
                }
            }
            _ if leaving => self.over(),
            200..300 => self.accepted(now, headers),
            423 => self.too_brief(now, headers),
            403 | 404 | 600.. => self.refused(now, status),
            _ => self.failed(now, Some(status), retry_after(headers)),
        }
    }

    /// The last ask got no final response, or could not be sent.
    pub fn unanswered(&mut self, now: Instant) {
        match self.phase {
            Phase::Pending { leaving: true, .. } => self.over(),
            Phase::Pending { leaving: false, .. } => self.failed(now, None, Duration::ZERO),
            Phase::Due(_) | Phase::Over => {}
        }
    }

    /// Gives the binding up: one more ask, if there is or may be a binding, then it is over.
    pub fn unregister(&mut self, now: Instant) {
        self.leaving = true;
        match (self.phase, &self.state) {
            (Phase::Pending { .. } | Phase::Over, _) => {}
            (Phase::Due(_), State::Registered { .. }) => self.phase = Phase::Due(now),
            (Phase::Due(_), _) => self.over(),
        }
    }

    fn over(&mut self) {
        self.phase = Phase::Over;
        self.state = State::Unregistered;
    }

    fn accepted(&mut self, now: Instant, headers: &Headers) {
        let granted_s = granted_s(headers, &self.settings.contact).unwrap_or(self.expires_s);
        if granted_s == 0 {
            return self.failed(now, Some(200), Duration::ZERO);
        }
        let granted = Duration::from_secs(granted_s.min(GRANTED_MAX_S).into());
        self.client.accepted(headers);
        self.servers.good(now);
        (self.failures, self.raised) = (0, false);
        self.service_route =
            headers.list("Service-Route").take(SERVICE_ROUTES_MAX).map(String::from).collect();
        self.state = State::Registered { until: now + granted };
        let refresh = (granted * 85 / 100).max(REFRESH_MIN);
        self.phase = Phase::Due(if self.leaving { now } else { now + refresh });
    }

    /// 423: what it wants, once, and if that is within reason (RFC 3261 §10.2.8).
    fn too_brief(&mut self, now: Instant, headers: &Headers) {
        self.client.accepted(headers);
        let wanted_s = headers.first("Min-Expires").and_then(|value| value.trim().parse().ok());
        match wanted_s {
            Some(wanted_s)
                if !self.raised && (self.expires_s..=GRANTED_MAX_S).contains(&wanted_s) =>
            {
                (self.expires_s, self.raised) = (wanted_s, true);
                self.phase = Phase::Due(now);
            }
            _ => self.refused(now, 423),
        }
    }

    /// Not at this server only, and not for this moment only.
    fn refused(&mut self, now: Instant, status: u16) {
        let jitter = self.rng.random_range(0.9..=1.1);
        self.give_up(now, Some(status), REFUSED.mul_f64(jitter));
    }

    /// The next server at once; after the last one, a pause that doubles with every round.
    fn failed(&mut self, now: Instant, status: Option<u16>, retry_after: Duration) {
        let was = self.servers.current;
        if self.servers.another(now, retry_after) && !self.leaving {
            self.phase = Phase::Due(now);
        } else {
            let doubled = BACKOFF_FIRST.saturating_mul(1 << self.failures.min(16));
            let backoff = doubled.min(BACKOFF_MAX).mul_f64(self.rng.random_range(0.5..=1.0));
            self.failures = self.failures.saturating_add(1);
            let free = self.servers.next_round().saturating_duration_since(now);
            self.give_up(now, status, backoff.max(free));
        }
        if self.servers.current != was {
            // Its nonces are not the other's, and neither is what it thinks of our password.
            self.client = Client::default();
        }
    }

    fn give_up(&mut self, now: Instant, status: Option<u16>, pause: Duration) {
        if self.leaving {
            return self.over();
        }
        self.client = Client::default();
        self.raised = false;
        let until = now + pause;
        self.state = State::Failed { status, until };
        self.phase = Phase::Due(until);
    }
}

/// The servers of a trunk, gone through in turn.
#[derive(Debug)]
struct Servers {
    current: usize,
    /// How many have failed in this round.
    tried: usize,
    /// When each may be asked again.
    free: Vec<Instant>,
}

impl Servers {
    fn new(now: Instant, count: usize) -> Servers {
        Servers { current: 0, tried: 0, free: vec![now; count.max(1)] }
    }

    fn good(&mut self, now: Instant) {
        self.tried = 0;
        self.free.fill(now);
    }

    /// Leaves the current server alone for a while. Whether this round has another one; it is
    /// then the current one.
    fn another(&mut self, now: Instant, pause: Duration) -> bool {
        self.free[self.current] = now + pause;
        self.tried += 1;
        while self.tried < self.free.len() {
            self.current = (self.current + 1) % self.free.len();
            if self.free[self.current] <= now {
                return true;
            }
            self.tried += 1;
        }
        false
    }

    /// Turns to the server that is free first, the next one of equals, and says when that is.
    fn next_round(&mut self) -> Instant {
        self.tried = 0;
        let count = self.free.len();
        let turns = (1..=count).map(|turn| (self.current + turn) % count);
        self.current = turns.min_by_key(|index| self.free[*index]).unwrap_or(0);
        self.free[self.current]
    }
}

fn token(rng: &mut StdRng) -> String {
    format!("{:032x}", rng.random::<u128>())
}

/// What the registrar granted our contact, in seconds: its `expires`, else that of the response.
/// A sole other contact is ours as a session border controller rewrote it. `None`: not said.
fn granted_s(headers: &Headers, contact: &str) -> Option<u32> {
    let ours = Uri::parse(contact);
    let all: Vec<NameAddr> = headers.list("Contact").filter_map(NameAddr::parse).collect();
    let same = |uri: &Uri| {
        let key = |uri: &Uri| (uri.user(), uri.host.clone(), uri.port.unwrap_or(5060));
        ours.as_ref().is_some_and(|ours| key(ours) == key(uri))
    };
    let sole = all.first().filter(|_| all.len() == 1);
    let ours = all.iter().find(|address| same(&address.uri)).or(sole);
    let own = ours.and_then(|address| seconds(address.params.value("expires")?));
    own.or_else(|| seconds(headers.first("Expires")?))
}

fn seconds(text: &str) -> Option<u32> {
    let digits = !text.trim().is_empty() && text.trim().bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.trim().parse().unwrap_or(u32::MAX))
}

/// `Retry-After: 120 (comment);duration=...` (RFC 3261 §20.33).
fn retry_after(headers: &Headers) -> Duration {
    let value = headers.first("Retry-After").unwrap_or_default();
    let digits = value.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    let bounded_s = seconds(digits).map_or(0, |s| u64::from(s).min(RETRY_AFTER_MAX_S));
    Duration::from_secs(bounded_s)
}

#[cfg(test)]
mod tests;
