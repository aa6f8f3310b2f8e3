//! Requests in, and our answers to them (RFC 3261 §8.2, §9.2, §11, §12.2.2, §13.3, §15.1.2).

use std::time::Instant;

use rand::RngExt;

use super::super::dialog::Dialog;
use super::super::model::{Content, Draft, Method, Request, Scheme};
use super::super::profile::Reliable;
use super::super::refer::Progress;
use super::super::transaction::ServerId;
use super::super::transport::{Peer, Transport};
use super::refresh;
use super::session::{Abilities, Invite, Phase, Session, Unacked};
use super::{ALLOW, Agent, Cause, Event, Invitation, Leg, RETRY_AFTER_S, RING_MAX, SUPPORTED};

const ACCEPT: (&str, &str) =
    ("Accept", "application/sdp, application/dtmf-relay, application/dtmf");

impl Agent {
    pub(super) fn dispatch(
        &mut self,
        now: Instant,
        id: ServerId,
        request: Request,
        source: Peer,
        certificate: Option<&[String]>,
    ) {
        if let Some((status, extra)) = unacceptable(&request, &source) {
            let extra: Vec<_> = extra.iter().map(|(n, v)| (*n, v.as_str())).collect();
            return self.refuse(now, id, &request, source, status, &extra);
        }
        if request.method == Method::CANCEL {
            return self.cancel(now, id, &request, source);
        }
        if request.core.to_tag().is_some() {
            return self.in_dialog(now, id, request, source);
        }
        match request.method {
            Method::INVITE => self.offered(now, id, request, source, certificate),
            Method::OPTIONS => self.options(now, id, &request, source),
            Method::REFER => self.refuse(now, id, &request, source, 403, &[]),
            _ => self.refuse(now, id, &request, source, 481, &[]),
        }
    }

    /// RFC 3261 §11: whoever asks learns whether we take calls, whichever number they ask about.
    fn options(&mut self, now: Instant, id: ServerId, request: &Request, source: Peer) {
        if self.draining {
            let retry = RETRY_AFTER_S.to_string();
            return self.refuse(now, id, request, source, 503, &[("Retry-After", &retry)]);
        }
        let reply = self.abilities(request, source).encode();
        self.transactions.respond_plainly(now, id, 200, reply);
    }

    /// The answer to OPTIONS.
    pub(super) fn abilities(&self, request: &Request, source: Peer) -> Draft {
        self.reply(request, 200, source)
            .with("Allow", ALLOW)
            .with(ACCEPT.0, ACCEPT.1)
            .with("Accept-Encoding", "identity")
            .with("Supported", SUPPORTED)
    }

    fn offered(
        &mut self,
        now: Instant,
        id: ServerId,
        request: Request,
        source: Peer,
        certificate: Option<&[String]>,
    ) {
        let Some(profile) = self.authenticated(now, id, &request, source, certificate) else {
            return;
        };
        if request.headers.first("Replaces").is_some() {
            return self.replacing(now, id, request, source, profile);
        }
        let abilities = Abilities::of(&request.headers);
        if profile.reliable == Reliable::Required && !abilities.reliable {
            return self.refuse(now, id, &request, source, 421, &[("Require", "100rel")]);
        }
        let Some(timer) = self.timer_of(now, id, &request, source, abilities, &profile) else {
            return;
        };
        let trying = Draft::response(&request, 100, source.address, "").encode();
        self.transactions.respond(now, id, 100, trying);
        let (leg, tag) = (self.next_leg(), self.token());
        let invitation = self.invitation(&request, source, profile.clone());
        let key = (request.core.call_id.clone(), tag);
        let mut session = Session::new(leg, Phase::Offered, key.clone(), profile);
        session.dialog = Some(Dialog::uas(&request, &key.1, source));
        session.expires = Some(now + RING_MAX);
        (session.peer, session.refresh) = (abilities, timer);
        self.dialogs.insert(key, leg);
        self.hold_invite(&mut session, id, request, source, invitation.offer.is_some());
        self.counters.offered += 1;
        self.event(Event::Offered { leg, invitation: Box::new(invitation) });
        self.settle(now, session);
    }

    pub(super) fn invitation(
        &self,
        request: &Request,
        source: Peer,
        trunk: std::sync::Arc<super::Profile>,
    ) -> Invitation {
        Invitation {
            source,
            local: self.address(&source),
            trunk,
            call_id: request.core.call_id.clone(),
            dialled: request.uri.number().unwrap_or_default(),
            headers: request.headers.clone().into_pairs(),
            offer: offer_of(request),
        }
    }

    /// The session timer to agree to; `None` when the request was refused for it (422).
    fn timer_of(
        &mut self,
        now: Instant,
        id: ServerId,
        request: &Request,
        source: Peer,
        abilities: Abilities,
        profile: &super::Profile,
    ) -> Option<Option<refresh::Refresh>> {
        match refresh::agreed(now, &request.headers, abilities, profile) {
            Ok(timer) => Some(timer),
            Err(least) => {
                let least = least.to_string();
                self.refuse(now, id, request, source, 422, &[("Min-SE", &least)]);
                None
            }
        }
    }

    pub(super) fn hold_invite(
        &mut self,
        session: &mut Session,
        id: ServerId,
        request: Request,
        source: Peer,
        offered: bool,
    ) {
        self.servers.insert(id, session.leg);
        let request = Box::new(request);
        let (early, held, replaces) = (None, None, None);
        session.invite = Some(Invite { id, request, source, offered, early, held, replaces });
    }

    fn in_dialog(&mut self, now: Instant, id: ServerId, request: Request, source: Peer) {
        let Some(mut session) = self.take_session(&request) else {
            return self.refuse(now, id, &request, source, 481, &[]);
        };
        let news = session.dialog.as_mut().is_some_and(|d| d.advance(request.core.cseq));
        let over = matches!(session.phase, Phase::Closing | Phase::Lingering);
        match request.method {
            _ if !news => self.refuse(now, id, &request, source, 500, &[]),
            Method::BYE => self.bye(now, &mut session, id, &request, source),
            Method::NOTIFY => self.notify(now, &mut session, id, &request, source),
            _ if over => self.refuse(now, id, &request, source, 481, &[]),
            Method::INVITE | Method::UPDATE => {
                self.reinvite(now, &mut session, id, request, source);
            }
            Method::PRACK => self.prack(now, &mut session, id, &request, source),
            Method::INFO => self.info(now, &mut session, id, &request, source),
            Method::REFER => self.redirected(now, &mut session, id, &request, source),
            Method::OPTIONS => {
                let reply = self.abilities(&request, source).encode();
                self.transactions.respond_plainly(now, id, 200, reply);
            }
            _ => self.refuse(now, id, &request, source, 481, &[]),
        }
        self.settle(now, session);
    }

    /// The session whose dialog a request belongs to, taken out of the table.
    fn take_session(&mut self, request: &Request) -> Option<Box<Session>> {
        let core = &request.core;
        let key = (core.call_id.clone(), core.to_tag()?.to_string());
        let leg = *self.dialogs.get(&key)?;
        let session = self.sessions.get(&leg)?;
        let dialog = session.dialog.as_ref()?;
        if dialog.remote_tag != core.from_tag() {
            return None;
        }
        self.sessions.remove(&leg)
    }

    /// re-INVITE or UPDATE (RFC 3261 §14.2, RFC 3311 §5.2). While an offer of ours is open, the
    /// peer has to wait (491); while one of theirs is, a bit longer (500).
    fn reinvite(
        &mut self,
        now: Instant,
        session: &mut Session,
        id: ServerId,
        request: Request,
        source: Peer,
    ) {
        let update = request.method == Method::UPDATE;
        let offer = offer_of(&request);
        let plain = update && offer.is_none();
        if session.invite.is_some() && !plain {
            let retry = self.rng.random_range(0..=10).to_string();
            return self.refuse(now, id, &request, source, 500, &[("Retry-After", &retry)]);
        }
        let offering = session.reoffer.as_ref().is_some_and(|reoffer| reoffer.client.is_some())
            || session.unacked.as_ref().is_some_and(|one| !update || one.late_offer);
        if !plain && (offering || session.phase != Phase::Confirmed) {
            return self.refuse(now, id, &request, source, 491, &[]);
        }
        let (abilities, profile) = (Abilities::of(&request.headers), session.profile.clone());
        let Some(timer) = self.timer_of(now, id, &request, source, abilities, &profile) else {
            return;
        };
        if let Some(dialog) = &mut session.dialog {
            dialog.refresh(&request.headers, source);
        }
        session.refresh = timer;
        if plain {
            let reply = self.reply(&request, 200, source);
            let reply = refresh::with_agreement(self.with_contact(reply, &source, &profile), timer);
            return self.transactions.respond(now, id, 200, reply.encode());
        }
        if !update {
            let trying = Draft::response(&request, 100, source.address, "").encode();
            self.transactions.respond(now, id, 100, trying);
        }
        self.hold_invite(session, id, request, source, offer.is_some());
        session.expires = Some(now + RING_MAX);
        self.event(Event::Reoffered { leg: session.leg, sdp: offer });
    }

    fn bye(
        &mut self,
        now: Instant,
        session: &mut Session,
        id: ServerId,
        request: &Request,
        source: Peer,
    ) {
        self.confirm(now, id, request, source);
        self.answer_invite(now, session, 487, &[]);
        self.abandon_redirection(now, session);
        self.end(session, Cause::PeerHungUp);
        // Our own BYE, if it crossed theirs, is still to be answered or given up.
        if session.phase != Phase::Closing {
            session.conclude(now);
        }
    }

    fn notify(
        &mut self,
        now: Instant,
        session: &mut Session,
        id: ServerId,
        request: &Request,
        source: Peer,
    ) {
        let Some(progress) = Progress::read(request) else {
            let ours = [("Allow-Events", "refer")];
            return self.refuse(now, id, request, source, 489, &ours);
        };
        let over = matches!(session.phase, Phase::Closing | Phase::Lingering);
        if session.referral.is_none() && !session.transferred && !over {
            return self.refuse(now, id, request, source, 481, &[]);
        }
        self.confirm(now, id, request, source);
        let is_final = progress.status.is_some_and(|status| status >= 200);
        if let Some(referral) = &mut session.referral {
            let news = progress.status.filter(|status| referral.advance(now, *status));
            if let Some(status) = news {
                self.referred(session, status);
            }
            if progress.terminated && !is_final {
                self.referred(session, 408);
            }
        }
    }

    /// Reports progress of a transfer; a final status ends it.
    pub(super) fn referred(&mut self, session: &mut Session, status: u16) {
        if status >= 200 {
            session.referral = None;
        }
        if !session.ended {
            self.event(Event::Referred { leg: session.leg, status });
        }
    }

    /// ACK for one of our 2xx; any other is a repetition.
    pub(super) fn ack(&mut self, now: Instant, request: &Request, source: Peer) {
        let Some(mut session) = self.take_session(request) else {
            self.counters.stray += 1;
            return;
        };
        let expected = session.unacked.take_if(|unacked| unacked.cseq == request.core.cseq);
        if let Some(unacked) = expected {
            self.transactions.acknowledged(now, unacked.id);
            if let Some(dialog) = &mut session.dialog {
                dialog.refresh(&request.headers, source);
            }
            let sdp = match request.content() {
                Content::Sdp(sdp) if unacked.late_offer => Some(sdp.to_vec()),
                _ => None,
            };
            if !session.ended {
                self.event(Event::Established { leg: session.leg, sdp });
            }
            if let Some(reason) = session.goodbye.take() {
                self.say_bye(now, &mut session, reason);
            }
        }
        self.settle(now, session);
    }

    /// RFC 3261 §9.2: 200 to the CANCEL; its INVITE ends with 487 unless it is answered already.
    fn cancel(&mut self, now: Instant, id: ServerId, request: &Request, source: Peer) {
        let Some(invite) = self.transactions.cancelled(request) else {
            if self.transactions.is_over(request) {
                let reply = self.reply(request, 200, source);
                return self.transactions.respond(now, id, 200, reply.encode());
            }
            return self.refuse(now, id, request, source, 481, &[]);
        };
        let reply = self.reply(request, 200, source);
        self.transactions.respond(now, id, 200, reply.encode());
        let leg = self.servers.get(&invite).copied();
        let Some(mut session) = leg.and_then(|leg| self.sessions.remove(&leg)) else { return };
        self.answer_invite(now, &mut session, 487, &[]);
        if session.phase == Phase::Offered {
            self.end(&mut session, Cause::Cancelled);
            session.phase = Phase::Gone;
        }
        self.settle(now, session);
    }

    pub(super) fn ring(&mut self, now: Instant, leg: Leg, status: u16, sdp: Option<Vec<u8>>) {
        if let Some(mut session) = self.sessions.remove(&leg) {
            self.progress(now, &mut session, status, sdp);
            self.settle(now, session);
        }
    }

    /// 200 to the INVITE, re-INVITE or UPDATE under decision, an INVITE's repeated until its ACK.
    /// It waits for the PRACK of a provisional response (RFC 3262 §3).
    pub(super) fn accept(&mut self, now: Instant, session: &mut Session, sdp: Vec<u8>) {
        if session.provisional.is_some() {
            if let Some(invite) = &mut session.invite {
                invite.held = Some(sdp);
            }
            return;
        }
        let Some(mut invite) = session.invite.take() else { return };
        self.servers.remove(&invite.id);
        let sdp = invite.early.take().unwrap_or(sdp);
        let tag = invite.replaces.as_deref().unwrap_or(&session.key.1);
        let reply = Draft::response(&invite.request, 200, invite.source.address, tag)
            .with("Server", &self.settings.product);
        let reply = self.with_contact(reply, &invite.source, &session.profile);
        session.refresh = session.refresh.map(|refresh| refresh.restarted(now));
        let mut reply = refresh::with_agreement(reply, session.refresh);
        session.described.clone_from(&sdp);
        if !sdp.is_empty() {
            reply = reply.with_body("application/sdp", sdp);
        }
        let bytes = reply.encode();
        let destination = self.transactions.destination(invite.id).unwrap_or(invite.source);
        self.transactions.respond(now, invite.id, 200, bytes.clone());
        let cseq = invite.request.core.cseq;
        (session.phase, session.expires) = (Phase::Confirmed, None);
        if let Some(tag) = invite.replaces {
            self.take_place(now, session, &invite.request, invite.source, tag);
        }
        if invite.request.method == Method::INVITE {
            let unacked = Unacked::new(now, invite.id, cseq, bytes, destination, !invite.offered);
            session.unacked = Some(unacked);
        }
    }

    /// Final refusal of the INVITE or re-INVITE under decision, if there is one.
    pub(super) fn answer_invite(
        &mut self,
        now: Instant,
        session: &mut Session,
        status: u16,
        extra: &[(&str, &str)],
    ) {
        let Some(invite) = session.invite.take() else { return };
        self.servers.remove(&invite.id);
        session.provisional = None;
        let tag = invite.replaces.as_deref().unwrap_or(&session.key.1);
        let mut reply = Draft::response(&invite.request, status, invite.source.address, tag)
            .with("Server", &self.settings.product);
        for (name, value) in extra {
            reply = match *name {
                REASON_PHRASE => reply.with_reason(value),
                name => reply.with(name, *value),
            };
        }
        self.transactions.respond(now, invite.id, status, reply.encode());
        session.expires = None;
    }

    /// Repeats our 2xx; without an ACK after 64*T1 the call is over (RFC 3261 §13.3.1.4).
    pub(super) fn repeat_accepted(&mut self, now: Instant, session: &mut Session) {
        let Some(unacked) = &mut session.unacked else { return };
        if unacked.expires <= now {
            session.unacked = None;
            let reason = session.goodbye.take().flatten();
            self.end(session, Cause::Timeout);
            self.say_bye(now, session, reason);
        } else if unacked.repeat.is_due(now) {
            self.counters.retransmitted += 1;
            let (destination, bytes) = (unacked.destination, unacked.bytes.clone());
            self.transmit(destination, bytes);
        }
    }
}

/// In the extra headers of a refusal: not a header, but the phrase of the status line.
pub(super) const REASON_PHRASE: &str = "";

pub(super) fn offer_of(request: &Request) -> Option<Vec<u8>> {
    match request.content() {
        Content::Sdp(sdp) => Some(sdp.to_vec()),
        Content::Empty | Content::Unsupported => None,
    }
}

/// What is wrong with a request whatever its dialog says, in the order of RFC 3261 §8.2, and the
/// headers that help the peer to do better.
fn unacceptable(request: &Request, source: &Peer) -> Option<(u16, Vec<(&'static str, String)>)> {
    let allow = || vec![("Allow", ALLOW.to_string())];
    match &request.method {
        Method::Other(_) => return Some((501, allow())),
        known if !ALLOW.split(", ").any(|allowed| allowed == known.to_string()) => {
            return Some((405, allow()));
        }
        _ => {}
    }
    if request.method == Method::CANCEL {
        return None;
    }
    if request.core.to_tag().is_none() {
        // sips: promises TLS all the way (RFC 3261 §26.2.2).
        let secured = source.transport == Transport::Tls;
        match request.uri.scheme {
            Scheme::Sip | Scheme::Tel => {}
            Scheme::Sips if secured => {}
            _ => return Some((416, Vec::new())),
        }
        let hops = request.headers.first("Max-Forwards");
        if hops.is_some_and(|hops| hops.bytes().all(|digit| digit == b'0')) {
            return Some((483, Vec::new()));
        }
    }
    let supported =
        |option: &&str| SUPPORTED.split(", ").any(|own| own.eq_ignore_ascii_case(option));
    let unknown: Vec<&str> =
        request.headers.list("Require").filter(|option| !supported(option)).collect();
    if !unknown.is_empty() {
        return Some((420, vec![("Unsupported", unknown.join(", "))]));
    }
    let describes = matches!(request.method, Method::INVITE | Method::UPDATE);
    if describes && request.content() == Content::Unsupported {
        let accept =
            vec![(ACCEPT.0, ACCEPT.1.to_string()), ("Accept-Encoding", "identity".to_string())];
        return Some((415, accept));
    }
    None
}
