//! Requests in, and our answers to them (RFC 3261 §8.2, §9.2, §11, §12.2.2, §13.3, §15.1.2).

use std::time::Instant;

use rand::RngExt;

use super::super::dialog::Dialog;
use super::super::model::{Content, Draft, Method, Request, Scheme};
use super::super::refer::Progress;
use super::super::transaction::ServerId;
use super::super::transport::Peer;
use super::session::{Invite, Phase, Session, Unacked};
use super::{ALLOW, Agent, Cause, Event, Invitation, Leg, RETRY_AFTER_S, RING_MAX};

const ACCEPT: (&str, &str) = ("Accept", "application/sdp");

impl Agent {
    pub(super) fn dispatch(&mut self, now: Instant, id: ServerId, request: Request, source: Peer) {
        if let Some((status, extra)) = unacceptable(&request) {
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
            Method::INVITE => self.offered(now, id, request, source),
            Method::OPTIONS => self.options(now, id, &request, source),
            _ => self.refuse(now, id, &request, source, 481, &[]),
        }
    }

    /// RFC 3261 §11: whoever asks learns whether we take calls.
    fn options(&mut self, now: Instant, id: ServerId, request: &Request, source: Peer) {
        let status = if self.draining { 503 } else { 200 };
        let mut reply = self.reply(request, status, source).with("Allow", ALLOW);
        reply = if self.draining {
            reply.with("Retry-After", RETRY_AFTER_S.to_string())
        } else {
            reply.with(ACCEPT.0, ACCEPT.1).with("Accept-Encoding", "identity")
        };
        self.transactions.respond(now, id, status, reply.encode());
    }

    fn offered(&mut self, now: Instant, id: ServerId, request: Request, source: Peer) {
        if self.draining || self.live >= self.settings.calls_max {
            self.counters.overloaded += 1;
            let retry = RETRY_AFTER_S.to_string();
            return self.refuse(now, id, &request, source, 503, &[("Retry-After", &retry)]);
        }
        let trying = Draft::response(&request, 100, source.address, "").encode();
        self.transactions.respond(now, id, 100, trying);
        let (leg, tag) = (self.next_leg(), self.token());
        let offer = match request.content() {
            Content::Sdp(sdp) => Some(sdp.to_vec()),
            Content::Empty | Content::Unsupported => None,
        };
        let invitation = Invitation {
            source,
            local: self.address(&source),
            call_id: request.core.call_id.clone(),
            dialled: request.uri.number().unwrap_or_default(),
            headers: request.headers.clone().into_pairs(),
            offer,
        };
        let key = (request.core.call_id.clone(), tag);
        let mut session = Session::new(leg, Phase::Offered, key.clone());
        session.dialog = Some(Dialog::uas(&request, &key.1, source));
        session.expires = Some(now + RING_MAX);
        self.dialogs.insert(key, leg);
        self.hold_invite(&mut session, id, request, source, invitation.offer.is_some());
        self.counters.offered += 1;
        self.event(Event::Offered { leg, invitation: Box::new(invitation) });
        self.settle(now, session);
    }

    fn hold_invite(
        &mut self,
        session: &mut Session,
        id: ServerId,
        request: Request,
        source: Peer,
        offered: bool,
    ) {
        self.servers.insert(id, session.leg);
        session.invite = Some(Invite { id, request: Box::new(request), source, offered });
    }

    fn in_dialog(&mut self, now: Instant, id: ServerId, request: Request, source: Peer) {
        let Some(mut session) = self.take_session(&request) else {
            return self.refuse(now, id, &request, source, 481, &[]);
        };
        let news = session.dialog.as_mut().is_some_and(|d| d.advance(request.core.cseq));
        match request.method {
            _ if !news => self.refuse(now, id, &request, source, 500, &[]),
            Method::BYE => self.bye(now, &mut session, id, &request, source),
            Method::NOTIFY => self.notify(now, &mut session, id, &request, source),
            _ if matches!(session.phase, Phase::Closing | Phase::Lingering) => {
                self.refuse(now, id, &request, source, 481, &[]);
            }
            Method::INVITE => self.reinvite(now, &mut session, id, request, source),
            Method::OPTIONS => {
                let reply = self.reply(&request, 200, source).with("Allow", ALLOW);
                let reply = reply.with(ACCEPT.0, ACCEPT.1);
                self.transactions.respond(now, id, 200, reply.encode());
            }
            _ => self.refuse(now, id, &request, source, 481, &[]),
        }
        self.settle(now, session);
    }

    /// The session whose dialog a request belongs to, taken out of the table.
    fn take_session(&mut self, request: &Request) -> Option<Session> {
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

    /// RFC 3261 §14.2. While our own answer is not acknowledged, the peer has to wait (491).
    fn reinvite(
        &mut self,
        now: Instant,
        session: &mut Session,
        id: ServerId,
        request: Request,
        source: Peer,
    ) {
        if session.invite.is_some() {
            let retry = self.rng.random_range(0..=10).to_string();
            return self.refuse(now, id, &request, source, 500, &[("Retry-After", &retry)]);
        }
        if session.unacked.is_some() || session.phase != Phase::Confirmed {
            return self.refuse(now, id, &request, source, 491, &[]);
        }
        if let Some(dialog) = &mut session.dialog {
            dialog.refresh(&request.headers, source);
        }
        let trying = Draft::response(&request, 100, source.address, "").encode();
        self.transactions.respond(now, id, 100, trying);
        let sdp = match request.content() {
            Content::Sdp(sdp) => Some(sdp.to_vec()),
            Content::Empty | Content::Unsupported => None,
        };
        self.hold_invite(session, id, request, source, sdp.is_some());
        session.expires = Some(now + RING_MAX);
        self.event(Event::Reoffered { leg: session.leg, sdp });
    }

    fn bye(
        &mut self,
        now: Instant,
        session: &mut Session,
        id: ServerId,
        request: &Request,
        source: Peer,
    ) {
        let reply = self.reply(request, 200, source);
        self.transactions.respond(now, id, 200, reply.encode());
        self.answer_invite(now, session, 487, &[]);
        self.end(session, Cause::PeerHungUp);
        // Our own BYE, if it crossed theirs, is still to be answered or given up.
        if session.phase != Phase::Closing {
            session.linger(now);
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
        let reply = self.reply(request, 200, source);
        self.transactions.respond(now, id, 200, reply.encode());
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

    pub(super) fn ring(&mut self, now: Instant, leg: Leg) {
        let Some(session) = self.sessions.get(&leg).filter(|s| s.phase == Phase::Offered) else {
            return;
        };
        let Some(invite) = &session.invite else { return };
        let ringing = Draft::response(&invite.request, 180, invite.source.address, &session.key.1)
            .with("Contact", format!("<{}>", self.contact(&invite.source)))
            .with("Server", &self.settings.product);
        self.transactions.respond(now, invite.id, 180, ringing.encode());
    }

    /// 200 to the INVITE or re-INVITE under decision, repeated until its ACK.
    pub(super) fn accept(&mut self, now: Instant, session: &mut Session, sdp: Vec<u8>) {
        let Some(invite) = session.invite.take() else { return };
        self.servers.remove(&invite.id);
        let mut reply =
            Draft::response(&invite.request, 200, invite.source.address, &session.key.1)
                .with("Contact", format!("<{}>", self.contact(&invite.source)))
                .with("Allow", ALLOW)
                .with("Server", &self.settings.product);
        if !sdp.is_empty() {
            reply = reply.with_body("application/sdp", sdp);
        }
        let bytes = reply.encode();
        let destination = self.transactions.destination(invite.id).unwrap_or(invite.source);
        self.transactions.respond(now, invite.id, 200, bytes.clone());
        let cseq = invite.request.core.cseq;
        session.unacked = Some(Unacked::new(now, cseq, bytes, destination, !invite.offered));
        (session.phase, session.expires) = (Phase::Confirmed, None);
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
        let mut reply =
            Draft::response(&invite.request, status, invite.source.address, &session.key.1)
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

    /// A response with a tag of its own, for requests outside our dialogs.
    pub(super) fn reply(&mut self, request: &Request, status: u16, source: Peer) -> Draft {
        let tag = self.token();
        Draft::response(request, status, source.address, &tag)
            .with("Server", &self.settings.product)
    }

    pub(super) fn refuse(
        &mut self,
        now: Instant,
        id: ServerId,
        request: &Request,
        source: Peer,
        status: u16,
        extra: &[(&str, &str)],
    ) {
        self.counters.refused += 1;
        let mut reply = self.reply(request, status, source);
        for (name, value) in extra {
            reply = reply.with(name, *value);
        }
        self.transactions.respond(now, id, status, reply.encode());
    }
}

/// In the extra headers of a refusal: not a header, but the phrase of the status line.
pub(super) const REASON_PHRASE: &str = "";

/// What is wrong with a request whatever its dialog says, in the order of RFC 3261 §8.2, and the
/// headers that help the peer to do better.
fn unacceptable(request: &Request) -> Option<(u16, Vec<(&'static str, String)>)> {
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
        if !matches!(request.uri.scheme, Scheme::Sip | Scheme::Tel) {
            return Some((416, Vec::new()));
        }
        let hops = request.headers.first("Max-Forwards");
        if hops.is_some_and(|hops| hops.bytes().all(|digit| digit == b'0')) {
            return Some((483, Vec::new()));
        }
    }
    let required: Vec<&str> = request.headers.list("Require").collect();
    if !required.is_empty() {
        return Some((420, vec![("Unsupported", required.join(", "))]));
    }
    if request.method == Method::INVITE && request.content() == Content::Unsupported {
        let accept =
            vec![(ACCEPT.0, ACCEPT.1.to_string()), ("Accept-Encoding", "identity".to_string())];
        return Some((415, accept));
    }
    None
}
