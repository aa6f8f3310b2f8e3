//! Commands, the requests they cause, and the answers to those (RFC 3261 §9.1, §13.2, §15.1.1).

use std::time::Instant;

use super::super::dialog::Dialog;
use super::super::model::{Draft, Method, NameAddr, Response, Scheme, Uri, is_token};
use super::super::refer::{self, Referral};
use super::super::timer::PATIENCE;
use super::super::transaction::ClientId;
use super::super::transport::Peer;
use super::incoming::REASON_PHRASE;
use super::session::{Phase, Placed, Session};
use super::{ALLOW, Agent, Cause, Command, Event, Leg, Purpose, RING_MAX};

/// Branches of one forked call that we hang up one by one; more are left to time out.
const FORKS_MAX: u8 = 8;

/// A call to be placed.
struct Call {
    target: String,
    destination: Peer,
    from: String,
    headers: Vec<(String, String)>,
    sdp: Vec<u8>,
}

impl Agent {
    pub(super) fn command(&mut self, now: Instant, command: Command) {
        let leg = match command {
            Command::Drain => {
                self.draining = true;
                return;
            }
            Command::Invite { leg, target, destination, from, headers, sdp } => {
                let call = Call { target, destination, from, headers, sdp };
                return self.place(now, leg, call);
            }
            Command::Ring { leg } => return self.ring(now, leg),
            Command::Answer { leg, .. }
            | Command::Reject { leg, .. }
            | Command::Refer { leg, .. }
            | Command::Hangup { leg, .. } => leg,
        };
        let Some(mut session) = self.sessions.remove(&leg) else { return };
        match command {
            Command::Answer { sdp, .. } => self.accept(now, &mut session, sdp),
            Command::Reject { status, reason, retry_after_s, .. } => {
                self.reject(now, &mut session, status, &reason, retry_after_s);
            }
            Command::Refer { target, headers, .. } => {
                self.refer(now, &mut session, &target, headers);
            }
            Command::Hangup { reason, .. } => self.hang_up(now, &mut session, reason),
            Command::Ring { .. } | Command::Invite { .. } | Command::Drain => {}
        }
        self.settle(now, session);
    }

    fn reject(
        &mut self,
        now: Instant,
        session: &mut Session,
        status: u16,
        reason: &str,
        retry_after_s: Option<u32>,
    ) {
        let status = if (300..700).contains(&status) { status } else { 500 };
        let mut extra = Vec::new();
        let retry = retry_after_s.map(|seconds| seconds.to_string());
        // RFC 3261 §20.43: 305 is "incompatible media format".
        let text = reason.replace(['"', '\\'], "'");
        let source = session.invite.as_ref().map(|invite| invite.source);
        let us = source.map_or_else(String::new, |source| self.address(&source).to_string());
        let warning = format!("305 {us} \"{text}\"");
        if !reason.is_empty() {
            extra.push((REASON_PHRASE, reason));
        }
        if status == 488 {
            extra.push(("Warning", warning.as_str()));
        }
        if let Some(retry) = &retry {
            extra.push(("Retry-After", retry.as_str()));
        }
        self.answer_invite(now, session, status, &extra);
        if session.phase == Phase::Offered {
            self.end(session, Cause::WeHungUp);
            session.phase = Phase::Gone;
        }
    }

    fn hang_up(&mut self, now: Instant, session: &mut Session, reason: Option<String>) {
        if session.ended {
            return;
        }
        let reason = reason.filter(|reason| !reason.is_empty());
        self.end(session, Cause::WeHungUp);
        match session.phase {
            Phase::Offered => {
                let extra: Vec<_> = reason.iter().map(|r| ("Reason", r.as_str())).collect();
                self.answer_invite(now, session, 487, &extra);
                session.phase = Phase::Gone;
            }
            Phase::Calling => self.cancel_call(now, session, reason),
            Phase::Confirmed => {
                self.answer_invite(now, session, 487, &[]);
                if session.unacked.is_some() {
                    session.goodbye = Some(reason);
                } else {
                    self.say_bye(now, session, reason);
                }
            }
            Phase::Closing | Phase::Lingering | Phase::Gone => {}
        }
    }

    pub(super) fn say_bye(&mut self, now: Instant, session: &mut Session, reason: Option<String>) {
        let Some(dialog) = &mut session.dialog else {
            session.phase = Phase::Gone;
            return;
        };
        let (hop, branch, mut bye) = self.within(dialog, &Method::BYE);
        if let Some(reason) = reason {
            bye = bye.with("Reason", reason);
        }
        let id = self.transactions.send(now, &Method::BYE, &branch, bye, hop);
        self.clients.insert(id, (session.leg, Purpose::Bye));
        (session.phase, session.expires, session.referral) = (Phase::Closing, None, None);
    }

    /// A request inside a dialog: where it goes, its branch, and what every one carries.
    fn within(&mut self, dialog: &mut Dialog, method: &Method) -> (Peer, String, Draft) {
        let hop = dialog.next_hop(&self.settings.listeners);
        let branch = self.branch();
        let draft = dialog.request(method, &self.via(&branch, &hop));
        (hop, branch, draft.with("User-Agent", &self.settings.product))
    }

    fn place(&mut self, now: Instant, leg: Leg, call: Call) {
        if self.sessions.contains_key(&leg) {
            return;
        }
        let refused =
            |status, reason: String| Event::Ended { leg, cause: Cause::Refused { status, reason } };
        if self.live >= self.settings.calls_max {
            self.counters.overloaded += 1;
            return self.event(refused(503, "as many calls as we may hold are up".into()));
        }
        let (target, from) = match checked(&call) {
            Ok(checked) => checked,
            Err(why) => return self.event(refused(400, why)),
        };
        let (branch, call_id, tag) = (self.branch(), self.token(), self.token());
        let mut invite = Draft::request(&Method::INVITE, target.as_str())
            .with("Via", self.via(&branch, &call.destination))
            .with("Max-Forwards", "70")
            .with("From", format!("{};tag={tag}", written(&from)))
            .with("To", format!("<{}>", target.as_str()))
            .with("Call-ID", &call_id)
            .with("CSeq", "1 INVITE")
            .with("Contact", format!("<{}>", self.contact(&call.destination)))
            .with("Allow", ALLOW)
            .with("User-Agent", &self.settings.product);
        for (name, value) in call.headers {
            invite = invite.with(&name, value);
        }
        if !call.sdp.is_empty() {
            invite = invite.with_body("application/sdp", call.sdp);
        }
        let draft = invite.clone();
        let destination = call.destination;
        let client = self.transactions.send(now, &Method::INVITE, &branch, invite, destination);
        self.clients.insert(client, (leg, Purpose::Invite));
        self.counters.placed += 1;
        let key = (call_id, tag);
        self.dialogs.insert(key.clone(), leg);
        let mut session = Session::new(leg, Phase::Calling, key);
        session.expires = Some(now + RING_MAX);
        session.placed = Some(Placed {
            client,
            draft,
            destination,
            target,
            branch,
            ringing: false,
            cancel: None,
            cancelled: false,
            early: None,
            ack: None,
            forks: 0,
        });
        self.settle(now, session);
    }

    /// CANCEL now, or as soon as a provisional response allows it.
    fn cancel_call(&mut self, now: Instant, session: &mut Session, reason: Option<String>) {
        session.expires = Some(now + PATIENCE);
        let Some(placed) = &mut session.placed else { return };
        if !placed.ringing {
            placed.cancel = Some(reason);
            return;
        }
        if placed.cancelled {
            return;
        }
        placed.cancelled = true;
        let mut cancel = placed.draft.cancel();
        if let Some(reason) = reason {
            cancel = cancel.with("Reason", reason);
        }
        let (branch, hop) = (placed.branch.clone(), placed.destination);
        let id = self.transactions.send(now, &Method::CANCEL, &branch, cancel, hop);
        self.clients.insert(id, (session.leg, Purpose::Courtesy));
    }

    /// It rang too long, or there is no final answer to our CANCEL either.
    pub(super) fn stop_calling(&mut self, now: Instant, session: &mut Session) {
        if !session.ended {
            self.end(session, Cause::Timeout);
            return self.cancel_call(now, session, None);
        }
        if let Some(placed) = &session.placed {
            self.transactions.forget(placed.client);
        }
        session.phase = Phase::Gone;
    }

    pub(super) fn response(&mut self, now: Instant, response: &Response, source: Peer) {
        let ours = response.headers.list("Via").count() == 1;
        let id = if ours { self.transactions.receive_response(now, response) } else { None };
        let Some((id, (leg, purpose))) = id.and_then(|id| Some((id, *self.clients.get(&id)?)))
        else {
            self.counters.stray += 1;
            return;
        };
        let is_final = response.status >= 200;
        if is_final && purpose != Purpose::Invite {
            self.clients.remove(&id);
        }
        let Some(mut session) = self.sessions.remove(&leg) else { return };
        match purpose {
            Purpose::Invite => self.invite_answered(now, &mut session, response, source),
            Purpose::Bye if is_final => session.linger(now),
            Purpose::Refer => self.refer_answered(now, &mut session, response.status),
            Purpose::Bye | Purpose::Courtesy => {}
        }
        self.settle(now, session);
    }

    /// A client transaction timed out.
    pub(super) fn unanswered(&mut self, now: Instant, id: ClientId) {
        let Some((leg, purpose)) = self.clients.remove(&id) else { return };
        let Some(mut session) = self.sessions.remove(&leg) else { return };
        match purpose {
            Purpose::Invite => {
                self.end(&mut session, Cause::Timeout);
                session.phase = Phase::Gone;
            }
            Purpose::Bye => session.linger(now),
            Purpose::Refer if session.referral.is_some() => self.referred(&mut session, 408),
            Purpose::Refer | Purpose::Courtesy => {}
        }
        self.settle(now, session);
    }

    fn invite_answered(
        &mut self,
        now: Instant,
        session: &mut Session,
        response: &Response,
        source: Peer,
    ) {
        match response.status {
            ..200 => self.provisional(now, session, response),
            200..300 => self.accepted(now, session, response, source),
            status => {
                let reason = response.reason.clone();
                self.end(session, Cause::Refused { status, reason });
                session.phase = Phase::Gone;
            }
        }
    }

    fn provisional(&mut self, now: Instant, session: &mut Session, response: &Response) {
        let Some(placed) = session.placed.as_mut().filter(|_| session.phase == Phase::Calling)
        else {
            return;
        };
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
        let Some(placed) = &mut session.placed else { return };
        if let Some(dialog) = &session.dialog {
            let same = response.core.to_tag() == Some(dialog.remote_tag.as_str());
            match placed.ack.clone() {
                Some((hop, ack)) if same => self.transmit(hop, ack),
                _ if placed.forks < FORKS_MAX => {
                    placed.forks += 1;
                    let target = placed.target.clone();
                    self.hang_up_fork(now, session.leg, response, &target, source);
                }
                _ => self.counters.stray += 1,
            }
            return;
        }
        let dialog = Dialog::uac(response, &placed.target, source);
        let sdp = response.sdp().or_else(|| placed.early.take()).unwrap_or_default();
        let ack = self.ack_to(&dialog, response.core.cseq);
        self.transmit(ack.0, ack.1.clone());
        if let Some(placed) = &mut session.placed {
            placed.ack = Some(ack);
        }
        session.dialog = Some(dialog);
        (session.phase, session.expires) = (Phase::Confirmed, None);
        if session.ended {
            self.say_bye(now, session, None);
        } else {
            self.event(Event::Answered { leg: session.leg, sdp });
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
        let (hop, ack) = self.ack_to(&dialog, response.core.cseq);
        self.transmit(hop, ack);
        let (hop, branch, bye) = self.within(&mut dialog, &Method::BYE);
        let id = self.transactions.send(now, &Method::BYE, &branch, bye, hop);
        self.clients.insert(id, (leg, Purpose::Courtesy));
    }

    fn ack_to(&mut self, dialog: &Dialog, cseq: u32) -> (Peer, bytes::Bytes) {
        let hop = dialog.next_hop(&self.settings.listeners);
        let branch = self.branch();
        let ack = dialog.ack(&self.via(&branch, &hop), cseq);
        (hop, ack.with("User-Agent", &self.settings.product).encode())
    }

    fn refer(
        &mut self,
        now: Instant,
        session: &mut Session,
        target: &str,
        headers: Vec<(String, String)>,
    ) {
        if session.ended {
            return;
        }
        if session.phase != Phase::Confirmed || session.referral.is_some() {
            return self.event(Event::Referred { leg: session.leg, status: 491 });
        }
        let legal = Uri::parse(target).is_some() && addable(&headers).is_ok();
        let (true, Some(dialog)) = (legal, &mut session.dialog) else {
            return self.event(Event::Referred { leg: session.leg, status: 400 });
        };
        let (hop, branch, draft) = self.within(dialog, &Method::REFER);
        let us = self.contact(&hop);
        let mut draft = refer::complete(draft, target, &us).with("Contact", format!("<{us}>"));
        for (name, value) in headers {
            draft = draft.with(&name, value);
        }
        let id = self.transactions.send(now, &Method::REFER, &branch, draft, hop);
        self.clients.insert(id, (session.leg, Purpose::Refer));
        (session.referral, session.transferred) = (Some(Referral::new(now)), true);
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

/// Target and From of a call to be placed, or what is wrong with it.
fn checked(call: &Call) -> Result<(Uri, NameAddr), String> {
    let target = Uri::parse(&call.target)
        .filter(|target| matches!(target.scheme, Scheme::Sip | Scheme::Tel))
        .ok_or("the target is no sip: or tel: URI")?;
    let from = NameAddr::parse(&call.from)
        .filter(|from| from.tag().is_none())
        .ok_or("From is no address, or has a tag")?;
    addable(&call.headers)?;
    Ok((target, from))
}

/// Whether headers may be added to a request of ours: none that we write ourselves.
fn addable(headers: &[(String, String)]) -> Result<(), String> {
    const OURS: [&str; 14] = [
        "Via",
        "From",
        "To",
        "Call-ID",
        "CSeq",
        "Contact",
        "Max-Forwards",
        "Route",
        "Content-Type",
        "Content-Length",
        "Refer-To",
        "Allow",
        "User-Agent",
        "Require",
    ];
    for (name, value) in headers {
        let ours = name.len() == 1 || OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name));
        if !is_token(name) || ours {
            return Err(format!("header {name:?} may not be added"));
        }
        if value.contains(['\r', '\n', '\0']) {
            return Err(format!("the value of header {name} holds a line break or NUL"));
        }
    }
    Ok(())
}

fn written(address: &NameAddr) -> String {
    match &address.display {
        Some(display) => {
            let display = display.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{display}\" <{}>", address.uri.as_str())
        }
        None => format!("<{}>", address.uri.as_str()),
    }
}
