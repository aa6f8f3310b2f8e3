//! Running calls kept alive and changed: session timers (RFC 4028), re-INVITE and UPDATE of ours
//! (RFC 3261 §14, RFC 3311), and what happens when both sides offer at once.

use std::time::{Duration, Instant};

use rand::RngExt;

use super::super::model::{Draft, Headers, Method, Response};
use super::super::profile::Profile;
use super::super::timer::T1;
use super::super::transport::Peer;
use super::session::{Abilities, Phase, Reoffer, Session};
use super::{ALLOW, Agent, Cause, Event, Purpose, SUPPORTED};

/// No session timer may be shorter (RFC 4028 §4).
const SESSION_MIN_S: u32 = 90;
/// After a refresh that failed for a moment.
const AGAIN: Duration = Duration::from_secs(10);

/// A session timer that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refresh {
    pub interval_s: u32,
    /// We refresh; else the peer does.
    pub ours: bool,
    /// When to do something: refresh, or give up.
    pub at: Instant,
    /// When the session is over unless it was refreshed.
    pub expires: Instant,
}

impl Refresh {
    /// The same, counted from now: what was agreed on while it rang begins with the answer.
    pub fn restarted(self, now: Instant) -> Refresh {
        Refresh::new(now, self.interval_s, self.ours)
    }

    fn new(now: Instant, interval_s: u32, ours: bool) -> Refresh {
        let interval = Duration::from_secs(interval_s.into());
        // RFC 4028 §10: a little before the end, so that the BYE is there by then.
        let expires = now + interval - Duration::from_secs(32).min(interval / 3);
        let at = if ours { now + interval / 2 } else { expires };
        Refresh { interval_s, ours, at, expires }
    }
}

/// What a request says of session timers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wish {
    interval_s: Option<u32>,
    /// `true`: the one who sends the request refreshes.
    uac: Option<bool>,
    min_s: u32,
}

impl Wish {
    fn read(headers: &Headers) -> Wish {
        let number = |text: &str| {
            let digits = text.split(';').next().unwrap_or_default().trim();
            digits.parse::<u64>().ok().map(|seconds| seconds.min(u32::MAX.into()) as u32)
        };
        let expires = headers.first("Session-Expires");
        let params = expires.and_then(|text| text.split_once(';')).map_or("", |(_, rest)| rest);
        let refresher = params.split(';').find_map(|param| {
            let (name, value) = param.split_once('=')?;
            name.trim().eq_ignore_ascii_case("refresher").then_some(value.trim())
        });
        Wish {
            interval_s: expires.and_then(number),
            uac: refresher.map(|who| who.eq_ignore_ascii_case("uac")),
            min_s: headers.first("Min-SE").and_then(number).unwrap_or(0),
        }
    }
}

/// The session timer that our 2xx to a request agrees to, or the least we take (422).
pub(super) fn agreed(
    now: Instant,
    headers: &Headers,
    peer: Abilities,
    profile: &Profile,
) -> Result<Option<Refresh>, u32> {
    let wish = Wish::read(headers);
    let least = profile.session_min_s.max(SESSION_MIN_S);
    let ours = profile.session_expires_s.max(least);
    let interval_s = match wish.interval_s {
        Some(interval_s) if interval_s < least => return Err(least),
        Some(interval_s) if profile.session_expires_s > 0 => interval_s.min(ours.max(wish.min_s)),
        Some(interval_s) => interval_s,
        // Nobody asked: only with a peer that knows what it is about.
        None if profile.session_expires_s > 0 && peer.timer => ours.max(wish.min_s),
        None => return Ok(None),
    };
    let uac = peer.timer && wish.uac.unwrap_or(true);
    Ok(Some(Refresh::new(now, interval_s, !uac)))
}

/// Our wish, in a request of ours.
pub(super) fn with_wish(draft: Draft, profile: &Profile, running: Option<Refresh>) -> Draft {
    let least = profile.session_min_s.max(SESSION_MIN_S);
    match running {
        Some(Refresh { interval_s, ours, .. }) => {
            let who = if ours { "uac" } else { "uas" };
            draft.with("Session-Expires", format!("{interval_s};refresher={who}"))
        }
        None if profile.session_expires_s > 0 => draft
            .with("Session-Expires", profile.session_expires_s.max(least).to_string())
            .with("Min-SE", least.to_string()),
        None => draft,
    }
}

/// What we agreed to, in our 2xx.
pub(super) fn with_agreement(draft: Draft, refresh: Option<Refresh>) -> Draft {
    match refresh {
        None => draft,
        Some(Refresh { interval_s, ours: true, .. }) => {
            draft.with("Session-Expires", format!("{interval_s};refresher=uas"))
        }
        Some(Refresh { interval_s, ours: false, .. }) => draft
            .with("Require", "timer")
            .with("Session-Expires", format!("{interval_s};refresher=uac")),
    }
}

/// The session timer that a 2xx to a request of ours agreed to.
pub(super) fn granted(now: Instant, headers: &Headers) -> Option<Refresh> {
    let wish = Wish::read(headers);
    let interval_s = wish.interval_s.filter(|interval_s| *interval_s >= SESSION_MIN_S)?;
    Some(Refresh::new(now, interval_s, wish.uac.unwrap_or(true)))
}

/// For a 422 to a request of ours: the headers that will be taken (RFC 4028 §7.4).
pub(super) fn longer(response: &Response) -> Option<[(&'static str, String); 2]> {
    const LONGEST_S: u32 = 86_400;
    let min_s = Wish::read(&response.headers).min_s;
    (response.status == 422 && (SESSION_MIN_S..=LONGEST_S).contains(&min_s))
        .then(|| [("Session-Expires", min_s.to_string()), ("Min-SE", min_s.to_string())])
}

impl Agent {
    /// Offers another description on a running call; later, if the peer's own is under decision.
    pub(super) fn reoffer(&mut self, now: Instant, session: &mut Session, sdp: Vec<u8>) {
        if session.phase != Phase::Confirmed || session.ended {
            return;
        }
        if session.reoffer.as_ref().is_some_and(|reoffer| !reoffer.refreshes) {
            return self.event(Event::ReofferRefused { leg: session.leg, status: 491 });
        }
        if session.invite.is_some() || session.unacked.is_some() || session.reoffer.is_some() {
            let again = Some(now + T1);
            session.reoffer = Some(Reoffer { client: None, sdp, refreshes: false, again });
            return;
        }
        self.send_reoffer(now, session, sdp, false);
    }

    fn send_reoffer(&mut self, now: Instant, session: &mut Session, sdp: Vec<u8>, refreshes: bool) {
        let method = if sdp.is_empty() { Method::UPDATE } else { Method::INVITE };
        let running = session.refresh;
        let Some((hop, branch, draft)) = self.within(session, &method) else { return };
        let mut draft = self.with_contact(draft, &hop, &session.profile);
        draft = with_wish(draft, &session.profile, running);
        let purpose = if sdp.is_empty() { Purpose::Update } else { Purpose::Reinvite };
        if !sdp.is_empty() {
            session.described.clone_from(&sdp);
            draft = draft.with_body("application/sdp", sdp.clone());
        }
        let id = self.transactions.send(now, &method, &branch, draft, hop);
        self.clients.insert(id, (session.leg, purpose));
        session.reoffer = Some(Reoffer { client: Some(id), sdp, refreshes, again: None });
    }

    /// What a request says that may change a dialog.
    pub(super) fn with_contact(&self, draft: Draft, hop: &Peer, trunk: &Profile) -> Draft {
        draft
            .with("Contact", format!("<{}>", self.contact(hop, trunk)))
            .with("Allow", ALLOW)
            .with("Supported", SUPPORTED)
    }

    /// Session timer and delayed offers.
    pub(super) fn refresh_due(&mut self, now: Instant, session: &mut Session) {
        if session.phase != Phase::Confirmed {
            return;
        }
        let due = session.reoffer.take_if(|one| one.again.is_some_and(|again| again <= now));
        if let Some(Reoffer { sdp, refreshes, .. }) = due {
            if session.invite.is_some() || session.unacked.is_some() {
                let again = Some(now + T1);
                session.reoffer = Some(Reoffer { client: None, sdp, refreshes, again });
            } else {
                self.send_reoffer(now, session, sdp, refreshes);
            }
        }
        let Some(refresh) = session.refresh.filter(|refresh| refresh.at <= now) else { return };
        if refresh.expires <= now {
            return self.session_lost(now, session, "session expired");
        }
        session.refresh = Some(Refresh { at: refresh.expires, ..refresh });
        if session.invite.is_none() && session.unacked.is_none() && session.reoffer.is_none() {
            let update = session.peer.update;
            let sdp = if update { Vec::new() } else { session.described.clone() };
            if update || !sdp.is_empty() {
                self.send_reoffer(now, session, sdp, true);
            }
        }
    }

    /// The answer to our re-INVITE or UPDATE.
    pub(super) fn reoffer_answered(
        &mut self,
        now: Instant,
        session: &mut Session,
        response: &Response,
        source: Peer,
    ) {
        if response.status < 200 {
            return;
        }
        let invite = response.core.method == Method::INVITE;
        if response.status < 300 {
            if invite && !self.acknowledge(session, response) {
                return;
            }
            let Some(reoffer) = session.reoffer.take() else { return };
            if let Some(dialog) = &mut session.dialog {
                dialog.refresh(&response.headers, source);
            }
            session.refresh = granted(now, &response.headers);
            if let Some(sdp) = response.sdp().filter(|_| !reoffer.refreshes && !session.ended) {
                self.event(Event::Reanswered { leg: session.leg, sdp });
            }
            return;
        }
        self.reoffer_refused(now, session, response.status);
    }

    pub(super) fn reoffer_refused(&mut self, now: Instant, session: &mut Session, status: u16) {
        let Some(reoffer) = session.reoffer.take() else { return };
        match status {
            // RFC 3261 §12.2.1.2: the peer knows no such dialog, or is gone.
            408 | 481 => self.session_lost(now, session, "the call is gone"),
            491 => {
                let glare = if session.placed.is_some() { 210..=400 } else { 0..=200 };
                let pause = Duration::from_millis(10 * self.rng.random_range::<u64, _>(glare));
                let (client, again) = (None, Some(now + pause));
                session.reoffer = Some(Reoffer { client, again, ..reoffer });
            }
            _ if reoffer.refreshes => {
                if let Some(refresh) = &mut session.refresh {
                    refresh.at = (now + AGAIN).min(refresh.expires);
                }
            }
            status => self.event(Event::ReofferRefused { leg: session.leg, status }),
        }
    }

    fn session_lost(&mut self, now: Instant, session: &mut Session, why: &str) {
        self.end(session, Cause::Timeout);
        self.answer_invite(now, session, 487, &[]);
        let reason = format!("SIP;cause=408;text=\"{why}\"");
        self.say_bye(now, session, Some(reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &str) -> Headers {
        let mut headers = Headers::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").unwrap();
            headers.push(name, value);
        }
        headers
    }

    /// Interval and whether we refresh.
    fn agreed_to(text: &str, timer: bool, profile: &str) -> Result<Option<(u32, bool)>, u32> {
        #[allow(clippy::disallowed_methods)]
        let now = Instant::now();
        let peer = Abilities { timer, ..Abilities::default() };
        let agreed = agreed(now, &headers(text), peer, &Profile::parse(profile).unwrap());
        agreed.map(|refresh| refresh.map(|refresh| (refresh.interval_s, refresh.ours)))
    }

    #[test]
    fn who_refreshes_and_how_often() {
        for (text, timer, profile, want) in [
            ("", true, "", Ok(Some((1800, false)))),
            ("", false, "", Ok(None)),
            ("", true, "session_expires_s = 0", Ok(None)),
            ("Session-Expires: 600;refresher=uas", true, "", Ok(Some((600, true)))),
            ("Session-Expires: 600 ; refresher = uac", true, "", Ok(Some((600, false)))),
            ("Session-Expires: 600;refresher=uac", false, "", Ok(Some((600, true)))),
            ("Session-Expires: 600", true, "", Ok(Some((600, false)))),
            ("Session-Expires: 7200", true, "", Ok(Some((1800, false)))),
            ("Session-Expires: 7200\nMin-SE: 3600", true, "", Ok(Some((3600, false)))),
            ("Session-Expires: 7200", true, "session_expires_s = 0", Ok(Some((7200, false)))),
            ("Session-Expires: 30", true, "", Err(90)),
            ("Session-Expires: 300", true, "session_min_s = 600", Err(600)),
            ("Session-Expires: 99999999999999", true, "", Ok(Some((1800, false)))),
            ("Session-Expires: soon", true, "", Ok(Some((1800, false)))),
        ] {
            assert_eq!(agreed_to(text, timer, profile), want, "{text} {timer} {profile}");
        }
    }
}
