//! Commands, and the requests they cause (RFC 3261 §9.1, §13.2, §15.1.1).

use std::time::Instant;

use super::super::dialog::Dialog;
use super::super::model::{Draft, Method, NameAddr, Scheme, Uri, is_token};
use super::super::profile::Profile;
use super::super::refer::{self, Referral};
use super::super::timer::PATIENCE;
use super::super::transaction::ClientId;
use super::super::transport::Peer;
use super::incoming::REASON_PHRASE;
use super::replace::with_replaces;
use super::session::{Phase, Placed, Session};
use super::{Agent, Cause, Command, Event, Leg, Placement, Purpose, RING_MAX, refresh};

impl Agent {
    pub(super) fn command(&mut self, now: Instant, command: Command) {
        let leg = match command {
            Command::Drain => {
                self.draining = true;
                return;
            }
            Command::Overloaded(overloaded) => {
                self.overloaded = overloaded;
                return;
            }
            Command::Invite { leg, call } => return self.place(now, leg, *call),
            Command::Ring { leg } => return self.ring(now, leg, 180, None),
            Command::Early { leg, sdp } => return self.ring(now, leg, 183, Some(sdp)),
            Command::Watch { trunk, server } => return self.watch(now, trunk, server),
            Command::Register { trunk, servers } => return self.register(now, trunk, servers),
            Command::Answer { leg, .. }
            | Command::Reject { leg, .. }
            | Command::Reoffer { leg, .. }
            | Command::Refer { leg, .. }
            | Command::Follow { leg, .. }
            | Command::Hangup { leg, .. } => leg,
        };
        let Some(mut session) = self.sessions.remove(&leg) else { return };
        match command {
            Command::Answer { sdp, .. } => self.accept(now, &mut session, sdp),
            Command::Reject { status, reason, retry_after_s, .. } => {
                self.reject(now, &mut session, status, &reason, retry_after_s);
            }
            Command::Reoffer { sdp, .. } => self.reoffer(now, &mut session, sdp),
            Command::Refer { target, replaces, headers, .. } => {
                self.refer(now, &mut session, &target, replaces, headers);
            }
            Command::Follow { sdp, .. } => self.follow(now, &mut session, sdp),
            Command::Hangup { reason, .. } => self.hang_up(now, &mut session, reason),
            _ => {}
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
        self.abandon_redirection(now, session);
        let Some((hop, branch, mut bye)) = self.within(session, &Method::BYE) else {
            session.phase = Phase::Gone;
            return;
        };
        if let Some(reason) = reason {
            bye = bye.with("Reason", reason);
        }
        let id = self.transactions.send(now, &Method::BYE, &branch, bye, hop);
        self.clients.insert(id, (session.leg, Purpose::Bye));
        session.quiet();
        (session.phase, session.expires) = (Phase::Closing, None);
    }

    /// A request inside the dialog: where it goes, its branch, and what every one carries.
    pub(super) fn within(
        &mut self,
        session: &mut Session,
        method: &Method,
    ) -> Option<(Peer, String, Draft)> {
        let dialog = session.dialog.as_mut()?;
        let hop = dialog.next_hop(&self.settings.listeners);
        let branch = self.branch();
        let via = self.via(&branch, &hop);
        let mut draft = dialog.request(method, &via).with("User-Agent", &self.settings.product);
        for (name, value) in self.credentials(session, method, draft.target(), &[]) {
            draft = draft.with(name, value);
        }
        Some((hop, branch, draft))
    }

    /// Header fields for the challenges met on this leg.
    pub(super) fn credentials(
        &mut self,
        session: &mut Session,
        method: &Method,
        target: &str,
        body: &[u8],
    ) -> Vec<(&'static str, String)> {
        let cnonce = self.token();
        session.auth.authorize(method, target, body, &cnonce)
    }

    fn place(&mut self, now: Instant, leg: Leg, call: Placement) {
        if self.sessions.contains_key(&leg) {
            return;
        }
        let refused =
            |status, reason: String| Event::Ended { leg, cause: Cause::Refused { status, reason } };
        if !self.room.has_place(&call.trunk, &self.settings) {
            self.counters.overloaded += 1;
            return self.event(refused(503, "as many calls as we may hold are up".into()));
        }
        let (target, from) = match checked(&call) {
            Ok(checked) => checked,
            Err(why) => return self.event(refused(400, why)),
        };
        let Placement { mut destinations, headers, sdp, trunk, .. } = call;
        destinations.reverse();
        let Some(hop) = destinations.pop() else {
            return self.event(refused(503, "there is nowhere to send the call".into()));
        };
        let key = (self.token(), self.token());
        let described = sdp.clone();
        let (branch, draft) = self.invite_draft(&target, &from, &key, &hop, &trunk, headers, sdp);
        let client = self.transactions.send(now, &Method::INVITE, &branch, draft.clone(), hop);
        self.clients.insert(client, (leg, Purpose::Invite));
        self.counters.placed += 1;
        self.dialogs.insert(key.clone(), leg);
        let mut session = Session::new(leg, Phase::Calling, key, trunk);
        session.expires = Some(now + RING_MAX);
        session.described = described;
        let placed = Placed::new(client, draft, hop, target, branch);
        session.placed = Some(Placed { others: destinations, ..placed });
        self.settle(now, session);
    }

    /// An INVITE of ours outside any dialog, and its branch. `key` is its Call-ID and our tag.
    #[allow(clippy::too_many_arguments)] // Two callers; a struct would name them once more.
    pub(super) fn invite_draft(
        &mut self,
        target: &Uri,
        from: &NameAddr,
        key: &(String, String),
        hop: &Peer,
        trunk: &Profile,
        headers: Vec<(String, String)>,
        sdp: Vec<u8>,
    ) -> (String, Draft) {
        let branch = self.branch();
        let mut invite = Draft::request(&Method::INVITE, target.as_str())
            .with("Via", self.via(&branch, hop))
            .with("Max-Forwards", "70");
        for route in self.service_route(trunk) {
            invite = invite.with("Route", route);
        }
        let invite = invite
            .with("From", format!("{};tag={}", written(from), key.1))
            .with("To", format!("<{}>", target.as_str()))
            .with("Call-ID", &key.0)
            .with("CSeq", "1 INVITE")
            .with("User-Agent", &self.settings.product);
        let mut invite = refresh::with_wish(self.with_contact(invite, hop, trunk), trunk, None);
        for (name, value) in headers {
            invite = invite.with(&name, value);
        }
        if !sdp.is_empty() {
            invite = invite.with_body("application/sdp", sdp);
        }
        (branch, invite)
    }

    /// CANCEL now, or as soon as a provisional response allows it.
    pub(super) fn cancel_call(
        &mut self,
        now: Instant,
        session: &mut Session,
        reason: Option<String>,
    ) {
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

    fn refer(
        &mut self,
        now: Instant,
        session: &mut Session,
        target: &str,
        replaces: Option<Leg>,
        headers: Vec<(String, String)>,
    ) {
        if session.ended {
            return;
        }
        if session.phase != Phase::Confirmed || session.referral.is_some() {
            return self.event(Event::Referred { leg: session.leg, status: 491 });
        }
        let consulted = replaces.map(|leg| self.sessions.get(&leg)?.dialog.as_ref());
        let target = match consulted {
            None => Some(target.to_string()),
            // Without the other leg there is nobody whose place could be taken.
            Some(dialog) => dialog.map(|dialog: &Dialog| with_replaces(target, dialog)),
        };
        let target = target.filter(|target| Uri::parse(target).is_some());
        let (Some(target), true) = (target, addable(&headers).is_ok()) else {
            return self.event(Event::Referred { leg: session.leg, status: 400 });
        };
        let Some((hop, branch, draft)) = self.within(session, &Method::REFER) else { return };
        let us = self.contact(&hop, &session.profile);
        let mut draft = refer::complete(draft, &target, &us).with("Contact", format!("<{us}>"));
        for (name, value) in headers {
            draft = draft.with(&name, value);
        }
        let id = self.transactions.send(now, &Method::REFER, &branch, draft, hop);
        self.clients.insert(id, (session.leg, Purpose::Refer));
        (session.referral, session.transferred) = (Some(Referral::new(now)), true);
    }
}

impl Placed {
    pub(super) fn new(
        client: ClientId,
        draft: Draft,
        destination: Peer,
        target: Uri,
        branch: String,
    ) -> Placed {
        Placed {
            client,
            draft,
            cseq: 1,
            destination,
            others: Vec::new(),
            target,
            branch,
            ringing: false,
            cancel: None,
            cancelled: false,
            early: None,
            acknowledged: None,
            forks: 0,
        }
    }
}

/// Target and From of a call to be placed, or what is wrong with it.
fn checked(call: &Placement) -> Result<(Uri, NameAddr), String> {
    let target = Uri::parse(&call.target)
        .filter(|target| matches!(target.scheme, Scheme::Sip | Scheme::Sips | Scheme::Tel))
        .ok_or("the target is no sip: or tel: URI")?;
    let from = NameAddr::parse(&call.from)
        .filter(|from| from.tag().is_none())
        .ok_or("From is no address, or has a tag")?;
    addable(&call.headers)?;
    Ok((target, from))
}

/// Whether headers may be added to a request of ours: none that we write ourselves.
fn addable(headers: &[(String, String)]) -> Result<(), String> {
    const OURS: [&str; 17] = [
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
        "Supported",
        "Session-Expires",
        "Authorization",
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
