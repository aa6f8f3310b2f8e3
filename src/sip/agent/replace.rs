//! One call in the place of another: INVITE with Replaces (RFC 3891), and REFER of the peer that
//! sends us elsewhere (RFC 3515). The leg goes on; the peer behind it changes.

use std::sync::Arc;
use std::time::Instant;

use super::super::dialog::Dialog;
use super::super::model::{Draft, Method, NameAddr, Request, Response, Scheme, Uri, Via};
use super::super::profile::Profile;
use super::super::transaction::{ClientId, ServerId};
use super::super::transport::Peer;
use super::session::{Abilities, Phase, Placed, Redirection, Session};
use super::{Agent, Event, Purpose, RING_MAX, refresh};

impl Agent {
    /// An INVITE that wants the place of a call we have.
    pub(super) fn replacing(
        &mut self,
        now: Instant,
        id: ServerId,
        request: Request,
        source: Peer,
        profile: Arc<Profile>,
    ) {
        let wanted = request.headers.first("Replaces").and_then(Replaces::parse);
        let Some(wanted) = wanted else { return self.refuse(now, id, &request, source, 400, &[]) };
        if !profile.accept_replaces {
            return self.refuse(now, id, &request, source, 403, &[]);
        }
        let leg = self.dialogs.get(&(wanted.call_id, wanted.to_tag)).copied();
        let session = leg.and_then(|leg| self.sessions.get(&leg)).filter(|session| {
            session.dialog.as_ref().is_some_and(|dialog| dialog.remote_tag == wanted.from_tag)
        });
        let Some(session) = session else {
            return self.refuse(now, id, &request, source, 481, &[]);
        };
        let busy = session.invite.is_some() || session.unacked.is_some();
        let status = match session.phase {
            // RFC 3891 §3: an early dialog that we did not begin cannot be replaced.
            Phase::Offered | Phase::Calling => Some(481),
            _ if session.ended => Some(603),
            Phase::Confirmed if wanted.early_only => Some(486),
            Phase::Confirmed if busy || session.reoffer.is_some() => Some(491),
            Phase::Confirmed => None,
            Phase::Closing | Phase::Lingering | Phase::Gone => Some(603),
        };
        if let Some(status) = status {
            return self.refuse(now, id, &request, source, status, &[]);
        }
        let abilities = Abilities::of(&request.headers);
        let timer = refresh::agreed(now, &request.headers, abilities, &profile);
        let leg = session.leg;
        let Some(mut session) = self.sessions.remove(&leg) else { return };
        let trying = Draft::response(&request, 100, source.address, "").encode();
        self.transactions.respond(now, id, 100, trying);
        let invitation = self.invitation(&request, source, profile.clone());
        let offer = invitation.offer.clone();
        (session.peer, session.refresh) = (abilities, timer.unwrap_or_default());
        session.profile = profile;
        session.expires = Some(now + RING_MAX);
        let tag = self.token();
        self.hold_invite(&mut session, id, request, source, offer.is_some());
        if let Some(invite) = &mut session.invite {
            invite.replaces = Some(tag);
        }
        self.event(Event::Replaced { leg, invitation: Box::new(invitation) });
        self.event(Event::Reoffered { leg, sdp: offer });
        self.settle(now, session);
    }

    /// The replacing INVITE was accepted: its dialog becomes the leg's, the old peer gets a BYE.
    pub(super) fn take_place(
        &mut self,
        now: Instant,
        session: &mut Session,
        invite: &Request,
        source: Peer,
        tag: String,
    ) {
        let dialog = Dialog::uas(invite, &tag, source);
        let key = (invite.core.call_id.clone(), tag);
        let mut former = self.swap(session, dialog, key);
        self.say_bye(now, &mut former, None);
        self.settle(now, former);
    }

    /// Gives a leg another dialog. What it had before comes back as a leg of its own of which
    /// nobody is told anything.
    fn swap(
        &mut self,
        session: &mut Session,
        dialog: Dialog,
        key: (String, String),
    ) -> Box<Session> {
        self.dialogs.insert(key.clone(), session.leg);
        let old_key = std::mem::replace(&mut session.key, key);
        let leg = self.next_leg();
        let profile = session.profile.clone();
        let mut former = Session::new(leg, Phase::Confirmed, old_key.clone(), profile);
        former.dialog = session.dialog.replace(dialog);
        former.auth = std::mem::take(&mut session.auth);
        former.placed = session.placed.take();
        (former.ended, former.transferred) = (true, session.transferred);
        self.dialogs.insert(old_key, leg);
        (session.reoffer, session.referral, session.ack) = (None, None, None);
        former
    }

    /// REFER of the peer: we are to call somebody else.
    pub(super) fn redirected(
        &mut self,
        now: Instant,
        session: &mut Session,
        id: ServerId,
        request: &Request,
        source: Peer,
    ) {
        let target = request.headers.first("Refer-To").and_then(target_of);
        let status = match &target {
            _ if !session.profile.accept_refer => Some(603),
            None => Some(400),
            Some(_) if session.redirection.is_some() => Some(491),
            Some(_) if session.phase != Phase::Confirmed => Some(491),
            Some((target, _)) if !matches!(target.scheme, Scheme::Sip | Scheme::Sips) => Some(416),
            Some(_) => None,
        };
        if let Some(status) = status {
            return self.refuse(now, id, request, source, status, &[]);
        }
        let Some((target, replaces)) = target else { return };
        let reply = self.reply(request, 202, source);
        let reply = self.with_contact(reply, &source, &session.profile);
        self.transactions.respond(now, id, 202, reply.encode());
        let mut headers: Vec<(String, String)> = Vec::new();
        headers.extend(replaces.map(|replaces| ("Replaces".into(), replaces)));
        let referred_by = request.headers.first("Referred-By").map(String::from);
        headers.extend(referred_by.map(|by| ("Referred-By".into(), by)));
        let told = target.as_str().to_string();
        session.redirection = Some(Box::new(Redirection {
            id: request.core.cseq,
            target,
            headers,
            placed: None,
            key: Default::default(),
            expires: now + RING_MAX,
        }));
        self.report(now, session, "100 Trying", false);
        self.event(Event::Redirected { leg: session.leg, target: told });
    }

    /// Calls the target of the peer's REFER, by way of the peer itself: it knew the address.
    pub(super) fn follow(&mut self, now: Instant, session: &mut Session, sdp: Vec<u8>) {
        let Some(redirection) = session.redirection.as_ref().filter(|r| r.placed.is_none()) else {
            return;
        };
        let Some(dialog) = &session.dialog else { return };
        let Some(from) = dialog.local_address() else { return };
        let hop = dialog.next_hop(&self.settings.listeners);
        let (target, headers) = (redirection.target.clone(), redirection.headers.clone());
        let key = (self.token(), self.token());
        let invite = self.invite_draft(&target, &from, &key, &hop, &session.profile, headers, sdp);
        let (branch, draft) = invite;
        let client = self.transactions.send(now, &Method::INVITE, &branch, draft.clone(), hop);
        self.clients.insert(client, (session.leg, Purpose::Successor));
        if let Some(redirection) = &mut session.redirection {
            redirection.placed = Some(Placed::new(client, draft, hop, target, branch));
            redirection.key = key;
        }
    }

    /// An answer to that call.
    pub(super) fn successor_answered(
        &mut self,
        now: Instant,
        session: &mut Session,
        response: &Response,
        source: Peer,
    ) {
        let line = format!("{} {}", response.status, response.reason);
        match response.status {
            ..=100 => {}
            101..200 => {
                if let Some(placed) = session.redirection.as_mut().and_then(|r| r.placed.as_mut()) {
                    placed.ringing = true;
                    self.report(now, session, &line, false);
                }
            }
            200..300 => self.succeeded(now, session, response, source),
            _ => {
                self.report(now, session, &line, true);
                session.redirection = None;
            }
        }
    }

    fn succeeded(
        &mut self,
        now: Instant,
        session: &mut Session,
        response: &Response,
        source: Peer,
    ) {
        let Some(redirection) = session.redirection.take() else {
            // We gave it up, or this is its 2xx once more.
            if !self.repeat_ack(session, response) {
                self.hang_up_stray(now, session, response, source);
            }
            return;
        };
        let Some(placed) = redirection.placed else { return };
        let dialog = Dialog::uac(response, &placed.target, source);
        let refer = redirection.id;
        let mut former = self.swap(session, dialog, redirection.key);
        self.acknowledge(session, response);
        session.peer = Abilities::of(&response.headers);
        session.refresh = refresh::granted(now, &response.headers);
        self.notify_refer(now, &mut former, refer, "200 OK", true);
        self.say_bye(now, &mut former, None);
        self.settle(now, former);
        let sdp = response.sdp().unwrap_or_default();
        self.event(Event::Reanswered { leg: session.leg, sdp });
    }

    /// Nobody answered that call, or the peer is gone itself.
    pub(super) fn abandon_redirection(&mut self, now: Instant, session: &mut Session) {
        let Some(redirection) = session.redirection.take() else { return };
        let Some(placed) = redirection.placed else { return };
        // Without a provisional response it is too early for CANCEL: then at the first one.
        if placed.ringing {
            self.cancel_successor(now, session, placed.client);
        }
    }

    /// CANCEL to a call that nobody waits for any more.
    pub(super) fn cancel_successor(&mut self, now: Instant, session: &Session, client: ClientId) {
        let Some((invite, hop)) = self.transactions.sent(client) else { return };
        let cancel = invite.cancel();
        let via = cancel.header("Via").unwrap_or_default();
        let branch = Via::parse(via).map_or_else(String::new, |via| via.branch().to_string());
        self.transactions.give_up(now, client);
        let id = self.transactions.send(now, &Method::CANCEL, &branch, cancel, hop);
        self.clients.insert(id, (session.leg, Purpose::Courtesy));
    }

    /// Tells the peer how the call it asked for goes.
    pub(super) fn report(&mut self, now: Instant, session: &mut Session, line: &str, over: bool) {
        let Some(id) = session.redirection.as_ref().map(|redirection| redirection.id) else {
            return;
        };
        self.notify_refer(now, session, id, line, over);
    }

    fn notify_refer(
        &mut self,
        now: Instant,
        session: &mut Session,
        refer: u32,
        line: &str,
        over: bool,
    ) {
        let Some((hop, branch, draft)) = self.within(session, &Method::NOTIFY) else { return };
        let state = if over { "terminated;reason=noresource" } else { "active;expires=180" };
        let notify = draft
            .with("Contact", format!("<{}>", self.contact(&hop, &session.profile)))
            .with("Event", format!("refer;id={refer}"))
            .with("Subscription-State", state)
            .with_body("message/sipfrag;version=2.0", format!("SIP/2.0 {line}\r\n"));
        let id = self.transactions.send(now, &Method::NOTIFY, &branch, notify, hop);
        self.clients.insert(id, (session.leg, Purpose::Courtesy));
    }
}

/// Which call an INVITE wants to replace.
#[derive(Debug, PartialEq, Eq)]
struct Replaces {
    call_id: String,
    /// Ours.
    to_tag: String,
    from_tag: String,
    early_only: bool,
}

impl Replaces {
    fn parse(text: &str) -> Option<Replaces> {
        let mut parts = text.split(';').map(str::trim);
        let call_id = parts.next().filter(|id| !id.is_empty())?.to_string();
        let (mut to_tag, mut from_tag, mut early_only) = (None, None, false);
        for part in parts {
            match part.split_once('=') {
                Some(("to-tag", tag)) => to_tag = Some(tag.to_string()),
                Some(("from-tag", tag)) => from_tag = Some(tag.to_string()),
                _ => early_only |= part == "early-only",
            }
        }
        Some(Replaces { call_id, to_tag: to_tag?, from_tag: from_tag?, early_only })
    }
}

/// Whom a Refer-To names, without the header fields in its URI, and of those the Replaces.
fn target_of(refer_to: &str) -> Option<(Uri, Option<String>)> {
    let uri = NameAddr::parse(refer_to)?.uri;
    let (bare, headers) = uri.as_str().split_once('?').unwrap_or((uri.as_str(), ""));
    let method = uri.params.value("method");
    if method.is_some_and(|method| !method.eq_ignore_ascii_case("INVITE")) {
        return None;
    }
    let replaces = headers.split('&').find_map(|field| {
        let (name, value) = field.split_once('=')?;
        name.eq_ignore_ascii_case("Replaces").then(|| Uri::unescape(value))
    });
    if replaces.as_deref().is_some_and(|replaces| replaces.chars().any(char::is_control)) {
        return None;
    }
    Some((Uri::parse(bare)?, replaces))
}

/// `target` with the Replaces that lets its peer take the place of that dialog (RFC 3891 §4).
pub(super) fn with_replaces(target: &str, dialog: &Dialog) -> String {
    format!("{target}?Replaces={}", Uri::escape(&dialog.replaces()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_and_refer_to() {
        let parsed = Replaces::parse("a@b;to-tag=1;from-tag=2;early-only").unwrap();
        assert_eq!((parsed.call_id.as_str(), parsed.early_only), ("a@b", true));
        assert_eq!((parsed.to_tag.as_str(), parsed.from_tag.as_str()), ("1", "2"));
        assert_eq!(Replaces::parse("a@b;to-tag=1"), None);
        assert_eq!(Replaces::parse(";to-tag=1;from-tag=2"), None);
        let (uri, replaces) =
            target_of("<sip:x@h;a=b?Replaces=c1%40h%3Bto-tag%3D1%3Bfrom-tag%3D2&X-Evil=1>")
                .unwrap();
        assert_eq!(uri.as_str(), "sip:x@h;a=b");
        assert_eq!(replaces.as_deref(), Some("c1@h;to-tag=1;from-tag=2"));
        assert_eq!(target_of("<sip:x@h;method=BYE>"), None);
        assert_eq!(target_of("<sip:x@h?Replaces=a%0d%0aEvil>"), None);
        assert_eq!(target_of("nonsense"), None);
    }
}
