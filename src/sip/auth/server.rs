//! The server side: challenges, and the verdict on what comes back. Nonces prove themselves
//! (time, serial number, HMAC); only those that were used are remembered, to catch replays.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;

use super::super::model::Method;
use super::{Algorithm, Answer, Credentials, Fields, Qop, hex, quoted};

/// What we ask of those who call us.
#[derive(Clone, Debug)]
pub struct Settings {
    pub realm: String,
    /// Each gets a challenge of its own, strongest first (RFC 8760 §2.3).
    pub algorithms: Vec<Algorithm>,
    pub qops: Vec<Qop>,
    pub nonce_lifetime_s: u64,
}

impl Settings {
    pub fn new(realm: &str) -> Settings {
        Settings {
            realm: realm.into(),
            algorithms: vec![Algorithm::SHA_256, Algorithm::MD5],
            qops: vec![Qop::Auth],
            nonce_lifetime_s: 120,
        }
    }
}

/// What credentials are worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request is from this user.
    Ok(String),
    /// None for our realm, or not as we asked for them: challenge.
    Missing,
    /// Right, but for a nonce that is over: challenge with `stale`.
    Stale,
    /// Right, but this nonce count was used before: challenge with `stale`, and count it.
    Replayed,
    /// No such user, or not their password; which of the two is not told. Challenge again.
    Wrong,
    /// No credentials of this form can be right: 400.
    Malformed,
}

/// Issues challenges and judges the answers.
#[derive(Debug)]
pub struct Server {
    settings: Settings,
    key: hmac::Key,
    /// Stands for the password of a user that does not exist.
    nobody: Credentials,
    /// Of the next nonce.
    serial: u64,
    used: Used,
}

impl Server {
    /// `key` must be random, and new with every start.
    pub fn new(mut settings: Settings, key: &[u8; 32]) -> Server {
        settings.algorithms.sort_by_key(|algorithm| std::cmp::Reverse(algorithm.strength()));
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let nobody = hex(hmac::sign(&key, b"nobody's password").as_ref());
        let nobody = Credentials::new("", nobody[..16].into(), None);
        Server { settings, key, nobody, serial: 0, used: Used::default() }
    }

    /// The header fields of a 401. `now_s` counts seconds from anywhere, and never backwards.
    pub fn challenge(&mut self, now_s: u64, stale: bool) -> Vec<(&'static str, String)> {
        self.serial += 1;
        let nonce = self.nonce(Stamp { issued_s: now_s, serial: self.serial });
        let qops: Vec<&str> = self.settings.qops.iter().map(|qop| qop.as_str()).collect();
        let one = |algorithm: &Algorithm| {
            let realm = quoted(&self.settings.realm);
            let mut value =
                format!("Digest realm={realm}, nonce=\"{nonce}\", algorithm={algorithm}");
            if !qops.is_empty() {
                value.push_str(&format!(", qop=\"{}\"", qops.join(",")));
            }
            value.push_str(if stale { ", stale=true" } else { "" });
            ("WWW-Authenticate", value)
        };
        self.settings.algorithms.iter().map(one).collect()
    }

    /// Judges the Authorization header fields of a request. The digest is made over the URI that
    /// the credentials name, which need not be the Request-URI that arrived: proxies and session
    /// border controllers rewrite that one, so PBXs do not compare the two either. What this
    /// leaves open, using credentials for another target, takes a request that never got here:
    /// every nonce count is accepted once.
    pub fn verify<'a>(
        &mut self,
        now_s: u64,
        header_values: impl IntoIterator<Item = &'a str>,
        method: &Method,
        body: &[u8],
        credentials: &[Credentials],
    ) -> Verdict {
        let all = header_values.into_iter().flat_map(Fields::parse);
        let mut digests = all.filter(Fields::is_digest);
        let Some(fields) = digests.find(|f| f.value("realm") == Some(&self.settings.realm)) else {
            return Verdict::Missing;
        };
        let Some(answer) = Answer::read(&fields) else { return Verdict::Malformed };
        if !self.asked_for(&answer) {
            return Verdict::Missing;
        }
        let (mut user, mut known) = (&self.nobody, false);
        for one in credentials.iter().filter(|one| one.fit(&self.settings.realm)) {
            if !known && one.username == answer.username {
                (user, known) = (one, true);
            }
        }
        // Whoever does not exist costs the same work as who does.
        let right = answer.proves(user.password.expose(), method, body);
        if !(right && known) {
            return Verdict::Wrong;
        }
        let Some(stamp) = self.stamp(&answer.nonce) else { return Verdict::Stale };
        let oldest_s = now_s.saturating_sub(self.settings.nonce_lifetime_s);
        match self.used.first_time(oldest_s, stamp, answer.nc) {
            Freshness::New => Verdict::Ok(answer.username),
            Freshness::Seen => Verdict::Replayed,
            Freshness::Over => Verdict::Stale,
        }
    }

    /// Whether the algorithm and qop were in our challenge: nobody may choose a weaker one. No qop
    /// at all is RFC 2069, which any client may fall back to.
    fn asked_for(&self, answer: &Answer) -> bool {
        let algorithm = answer.algorithm.unwrap_or(Algorithm::MD5);
        let qop = answer.qop.is_none_or(|qop| self.settings.qops.contains(&qop));
        qop && self.settings.algorithms.contains(&algorithm)
    }

    fn nonce(&self, stamp: Stamp) -> String {
        let text = format!("{:016x}{:016x}", stamp.issued_s, stamp.serial);
        let tag = hmac::sign(&self.key, text.as_bytes());
        text + &hex(&tag.as_ref()[..16])
    }

    /// `None` if we did not issue it.
    fn stamp(&self, nonce: &str) -> Option<Stamp> {
        let number = |range| u64::from_str_radix(nonce.get(range)?, 16).ok();
        let stamp = Stamp { issued_s: number(0..16)?, serial: number(16..32)? };
        (self.nonce(stamp) == nonce).then_some(stamp)
    }
}

/// Which nonce, in the order they were issued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Stamp {
    issued_s: u64,
    serial: u64,
}

enum Freshness {
    New,
    Seen,
    Over,
}

/// Nonces that were used for a request that was let through, and their counts.
#[derive(Debug, Default)]
struct Used {
    nonces: BTreeMap<Stamp, Window>,
    /// The newest one that was dropped to make room: it and all before it are over.
    dropped: Stamp,
}

const NONCES_MAX: usize = 10_000;

impl Used {
    fn first_time(&mut self, oldest_s: u64, stamp: Stamp, nc: u32) -> Freshness {
        while self.nonces.first_key_value().is_some_and(|(first, _)| first.issued_s < oldest_s) {
            self.nonces.pop_first();
        }
        if stamp.issued_s < oldest_s || stamp <= self.dropped {
            return Freshness::Over;
        }
        let window = self.nonces.entry(stamp).or_default();
        let new = window.first_time(nc);
        if self.nonces.len() > NONCES_MAX
            && let Some((oldest, _)) = self.nonces.pop_first()
        {
            self.dropped = oldest;
        }
        if new { Freshness::New } else { Freshness::Seen }
    }
}

/// Counts of one nonce: the highest, and which of the 64 up to it were seen. Requests may overtake
/// each other on the way.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    highest: u32,
    seen: u64,
}

impl Window {
    /// A count of 0 (RFC 2069 has none) is taken once, as the first.
    fn first_time(&mut self, nc: u32) -> bool {
        let nc = nc.max(1);
        if nc > self.highest {
            let shift = nc - self.highest;
            self.seen = self.seen.checked_shl(shift).unwrap_or(0) | 1;
            self.highest = nc;
            return true;
        }
        let bit = 1u64.checked_shl(self.highest - nc).unwrap_or(0);
        let new = bit != 0 && self.seen & bit == 0;
        self.seen |= bit;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_may_overtake_each_other_and_come_once() {
        let mut window = Window::default();
        for (nc, new) in [
            (1, true),
            (1, false),
            (3, true),
            (2, true),
            (2, false),
            (67, true),
            (4, true),
            (4, false),
            (3, false), // 64 behind: forgotten, so refused
            (u32::MAX, true),
            (67, false),
        ] {
            assert_eq!(window.first_time(nc), new, "{nc}");
        }
    }

    #[test]
    fn the_table_is_bounded_and_what_it_forgets_is_over() {
        let mut used = Used::default();
        let stamp = |serial| Stamp { issued_s: 100, serial };
        for serial in 1..=NONCES_MAX as u64 + 5 {
            assert!(matches!(used.first_time(50, stamp(serial), 1), Freshness::New));
        }
        assert_eq!(used.nonces.len(), NONCES_MAX);
        assert!(matches!(used.first_time(50, stamp(5), 1), Freshness::Over));
        assert!(matches!(used.first_time(50, stamp(6), 1), Freshness::Seen));
        assert!(matches!(used.first_time(101, stamp(7), 2), Freshness::Over));
        assert_eq!(used.nonces.len(), 0, "what is over is not kept");
    }
}
