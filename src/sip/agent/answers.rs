//! Responses to our requests, and what follows from them: ACK, authentication, the next server
//! (RFC 3261 §13.2.2, §22.2; RFC 3263 §4.3).

use std::time::Instant;

use super::super::auth::Credentials;
use super::super::dialog::Dialog;
use super::super::model::{Method, Response, Uri};
use super::super::transaction::ClientId;
use super::super::transport::Peer;
use super::admission::proved;
use super::session::{Abilities, Acknowledged, Phase, Session};
use super::{Agent, Cause, Event, Leg, Purpose, refresh};

/// Branches of one forked call that we hang up one by one; more are left to time out.
const FORKS_MAX: u8 = 8;

impl Agent {
    pub(super) fn response(&mut self, now: Instant, response: &Response, source: Peer) {
        let ours = response.headers.list("Via").count() == 1;
        let id = if ours { self.transactions.receive_response(now, response) } else { None };
        if let Some(id) = id
            && (self.registered(now, id, response) || self.pinged(id, response))
        {
            return;
        }
        let Some((id, (leg, purpose))) = id.and_then(|id| Some((id, *self.clients.get(&id)?)))
        else {
            self.counters.stray += 1;
            return;
        };
        let is_final = response.status >= 200;
        // An INVITE's 2xx may come again, and from other forks.
        let again = matches!(purpose, Purpose::Invite | Purpose::Reinvite | Purpose::Successor);
        if is_final && !(again && response.status < 300) {
            self.clients.remove(&id);
        }
        let Some(mut session) = self.sessions.remove(&leg) else { return };
        if !self.sent_again(now, &mut session, id, purpose, response) {
            if purpose == Purpose::Successor && !is_final && session.redirection.is_none() {
                self.cancel_successor(now, &session, id);
            }
            self.answered(now, &mut session, purpose, response, source);
        }
        self.settle(now, session);
    }

    fn answered(
        &mut self,
        now: Instant,
        session: &mut Session,
        purpose: Purpose,
        response: &Response,
        source: Peer,
    ) {
        if response.status >= 200 {
            session.auth.accepted(&response.headers);
        }
        match purpose {
            Purpose::Invite => self.invite_answered(now, session, response, source),
            Purpose::Reinvite | Purpose::Update => {
                self.reoffer_answered(now, session, response, source);
            }
            Purpose::Successor => self.successor_answered(now, session, response, source),
            Purpose::Refer => self.refer_answered(now, session, response.status),
            Purpose::Bye if response.status >= 200 => session.conclude(now),
            Purpose::Bye | Purpose::Courtesy => {}
        }
    }

    /// A client transaction timed out, or its peer cannot be reached.
    pub(super) fn unanswered(&mut self, now: Instant, id: ClientId) {
        if self.unregistered(now, id) || self.unpinged(id) {
            return;
        }
        let Some((leg, purpose)) = self.clients.remove(&id) else { return };
        let Some(mut session) = self.sessions.remove(&leg) else { return };
        match purpose {
            Purpose::Invite if self.tried_elsewhere(now, &mut session) => {}
            Purpose::Invite => {
                self.end(&mut session, Cause::Timeout);
                session.phase = Phase::Gone;
            }
            Purpose::Reinvite | Purpose::Update => self.reoffer_refused(now, &mut session, 408),
            Purpose::Successor => {
                self.report(now, &mut session, "408 Request Timeout", true);
                session.redirection = None;
            }
            Purpose::Bye => session.conclude(now),
            Purpose::Refer if session.referral.is_some() => self.referred(&mut session, 408),
            Purpose::Refer | Purpose::Courtesy => {}
        }
        self.settle(now, session);
    }

    /// Whether a refused request was sent once more: with credentials, with a longer session
    /// timer, or to the next server.
    fn sent_again(
        &mut self,
        now: Instant,
        session: &mut Session,
        id: ClientId,
        purpose: Purpose,
        response: &Response,
    ) -> bool {
        if response.status < 400 || purpose == Purpose::Courtesy {
            return false;
        }
        // A call that we gave up meanwhile ends with this refusal.
        if session.ended && purpose != Purpose::Bye {
            return false;
        }
        if response.status == 503 && purpose == Purpose::Invite {
            return self.tried_elsewhere(now, session);
        }
        let Some((sent, hop)) = self.transactions.sent(id) else { return false };
        let sent = sent.clone();
        let method = response.core.method.clone();
        let changed: Vec<(&'static str, String)> = match response.status {
            401 | 407 => {
                let known: Vec<Credentials> =
                    session.profile.account.iter().filter_map(proved).collect();
                let status = response.status;
                if let Err(why) = session.auth.challenged(status, &response.headers, &known) {
                    self.counters.unproved += 1;
                    tracing::debug!(leg = session.leg.0, %why, "a challenge cannot be answered");
                    return false;
                }
                self.credentials(session, &method, sent.target(), sent.body())
            }
            _ => match refresh::longer(response) {
                Some(changed) if method != Method::BYE => changed.into(),
                _ => return false,
            },
        };
        let Some(cseq) = next_cseq(session, purpose) else { return false };
        let branch = self.branch();
        let via = self.via(&branch, &hop);
        let again = sent.again(&via, &format!("{cseq} {method}"), &changed);
        let client = self.transactions.send(now, &method, &branch, again.clone(), hop);
        self.clients.insert(client, (session.leg, purpose));
        let placed = match purpose {
            Purpose::Invite => session.placed.as_mut(),
            Purpose::Successor => session.redirection.as_mut().and_then(|r| r.placed.as_mut()),
            _ => None,
        };
        if let Some(placed) = placed {
            (placed.client, placed.draft, placed.branch) = (client, again, branch);
            placed.ringing = false;
        }
        if let Some(reoffer) = &mut session.reoffer
            && matches!(purpose, Purpose::Reinvite | Purpose::Update)
        {
            reoffer.client = Some(client);
        }
        true
    }

    /// Sends our INVITE to the next server of its list (RFC 3263 §4.3).
    fn tried_elsewhere(&mut self, now: Instant, session: &mut Session) -> bool {
        if session.ended {
            return false;
        }
        let Some(placed) = session.placed.as_mut().filter(|_| session.phase == Phase::Calling)
        else {
            return false;
        };
        let Some(hop) = placed.others.pop() else { return false };
        self.clients.remove(&placed.client);
        let (branch, cseq) = (self.branch(), format!("{} INVITE", placed.cseq));
        let changed = [("Contact", format!("<{}>", self.contact(&hop, &session.profile)))];
        let again = placed.draft.again(&self.via(&branch, &hop), &cseq, &changed);
        let client = self.transactions.send(now, &Method::INVITE, &branch, again.clone(), hop);
        self.clients.insert(client, (session.leg, Purpose::Invite));
        (placed.client, placed.draft, placed.branch) = (client, again, branch);
        (placed.destination, placed.ringing) = (hop, false);
        true
    }

    fn invite_answered(
        &mut self,
        now: Instant,
        session: &mut Session,
        response: &Response,
        source: Peer,
    ) {
        match response.status {
            ..200 => self.provisional(now, session, response, source),
            200..300 => self.accepted(now, session, response, source),
            status => {
                let reason = response.reason.clone();
                self.end(session, Cause::Refused { status, reason });
                session.phase = Phase::Gone;
            }
        }
    }

    fn provisional(
        &mut self,
        now: Instant,
        session: &mut Session,
        response: &Response,
        source: Peer,
    ) {
        if session.phase != Phase::Calling
            || !self.acknowledge_provisional(now, session, response, source)
        {
            return;
        }
        let Some(placed) = &mut session.placed else { return };
        placed.ringing = true;
        let sdp = response.sdp();
        if sdp.is_some() {
            placed.early = sdp.clone();
        }
        if let Some(reason) = placed.cancel.take() {
            self.cancel_call(now, session, reason);
        }
        if response.status > 100 && !session.ended {
            self.event(Event::Progress { leg: session.leg, status: response.status, sdp });
        }
    }

    /// Each 2xx is acknowledged (RFC 3261 §13.2.2.4). The first makes the call, unless we already
    /// gave it up; from another branch of a fork it is hung up.
    fn accepted(&mut self, now: Instant, session: &mut Session, response: &Response, source: Peer) {
        if session.dialog.is_some() {
            if !self.repeat_ack(session, response) {
                self.hang_up_stray(now, session, response, source);
            }
            return;
        }
        let Some(placed) = &mut session.placed else { return };
        let mut dialog = Dialog::uac(response, &placed.target, source);
        if let Some((early, _)) = placed.acknowledged.take() {
            dialog.skip_to(early.local_cseq());
        }
        let sdp = response.sdp().or_else(|| placed.early.take()).unwrap_or_default();
        session.dialog = Some(dialog);
        session.peer = Abilities::of(&response.headers);
        session.refresh = refresh::granted(now, &response.headers);
        (session.phase, session.expires) = (Phase::Confirmed, None);
        self.acknowledge(session, response);
        if session.ended {
            self.say_bye(now, session, None);
        } else {
            self.event(Event::Answered { leg: session.leg, sdp });
        }
    }

    /// ACK to a 2xx of the session's own dialog; `false` if it is a repetition, which gets its ACK
    /// once more, or belongs to another.
    pub(super) fn acknowledge(&mut self, session: &mut Session, response: &Response) -> bool {
        if self.repeat_ack(session, response) {
            return false;
        }
        let Some(dialog) = &session.dialog else { return false };
        if response.core.to_tag() != Some(dialog.remote_tag.as_str()) {
            return false;
        }
        let cseq = response.core.cseq;
        let Some((hop, bytes)) = self.ack_to(session, cseq) else { return false };
        self.transmit(hop, bytes.clone());
        session.ack = Some(Acknowledged { cseq, hop, bytes });
        true
    }

    /// Whether a 2xx is one that was acknowledged already; then it is again.
    pub(super) fn repeat_ack(&mut self, session: &Session, response: &Response) -> bool {
        let remote = session.dialog.as_ref().map(|dialog| dialog.remote_tag.as_str());
        let ack = session.ack.as_ref().filter(|ack| ack.cseq == response.core.cseq);
        let Some(ack) = ack.filter(|_| response.core.to_tag() == remote) else { return false };
        self.transmit(ack.hop, ack.bytes.clone());
        true
    }

    /// RFC 3261 §13.2.2.4, with the credentials of the INVITE (§22.1).
    fn ack_to(&mut self, session: &mut Session, cseq: u32) -> Option<(Peer, bytes::Bytes)> {
        let dialog = session.dialog.as_ref()?;
        let hop = dialog.next_hop(&self.settings.listeners);
        let branch = self.branch();
        let via = self.via(&branch, &hop);
        let mut ack = dialog.ack(&via, cseq).with("User-Agent", &self.settings.product);
        let sent = session.placed.as_ref().filter(|placed| placed.cseq == cseq);
        for name in ["Authorization", "Proxy-Authorization"] {
            let value = sent.and_then(|placed| placed.draft.header(name));
            ack = value.into_iter().fold(ack, |ack, value| ack.with(name, value));
        }
        Some((hop, ack.encode()))
    }

    /// Somebody else answered our INVITE too: they get ACK and BYE, up to a bound.
    pub(super) fn hang_up_stray(
        &mut self,
        now: Instant,
        session: &mut Session,
        response: &Response,
        source: Peer,
    ) {
        let target = match &mut session.placed {
            Some(placed) if placed.forks < FORKS_MAX => {
                placed.forks += 1;
                Some(placed.target.clone())
            }
            Some(_) => None,
            None => Some(response.core.to.uri.clone()),
        };
        match target {
            Some(target) => self.hang_up_fork(now, session.leg, response, &target, source),
            None => self.counters.stray += 1,
        }
    }

    fn hang_up_fork(
        &mut self,
        now: Instant,
        leg: Leg,
        response: &Response,
        target: &Uri,
        source: Peer,
    ) {
        let mut dialog = Dialog::uac(response, target, source);
        let hop = dialog.next_hop(&self.settings.listeners);
        let branch = self.branch();
        let ack = dialog.ack(&self.via(&branch, &hop), response.core.cseq);
        self.transmit(hop, ack.with("User-Agent", &self.settings.product).encode());
        let branch = self.branch();
        let bye = dialog.request(&Method::BYE, &self.via(&branch, &hop));
        let bye = bye.with("User-Agent", &self.settings.product);
        let id = self.transactions.send(now, &Method::BYE, &branch, bye, hop);
        self.clients.insert(id, (leg, Purpose::Courtesy));
    }

    /// NOTIFYs may come before the answer to the REFER; then their word counts.
    fn refer_answered(&mut self, now: Instant, session: &mut Session, status: u16) {
        let Some(referral) = &mut session.referral else { return };
        match status {
            ..200 => {}
            200..300 => {
                if referral.status.is_none() && referral.advance(now, 100) {
                    self.referred(session, 100);
                }
            }
            _ => self.referred(session, status),
        }
    }
}

/// The number of a request that is sent once more (RFC 3261 §22.2).
fn next_cseq(session: &mut Session, purpose: Purpose) -> Option<u32> {
    let placed = match purpose {
        Purpose::Invite => session.placed.as_mut()?,
        Purpose::Successor => session.redirection.as_mut()?.placed.as_mut()?,
        _ => return Some(session.dialog.as_mut()?.next_cseq()),
    };
    placed.cseq += 1;
    Some(placed.cseq)
}
