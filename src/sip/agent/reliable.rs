//! Provisional responses that are acknowledged (100rel, RFC 3262), in both roles.

use std::time::Instant;

use rand::RngExt;

use super::super::dialog::Dialog;
use super::super::model::{Content, Draft, Method, Request, Response};
use super::super::profile::Reliable;
use super::super::timer::{PATIENCE, Repeat};
use super::super::transaction::ServerId;
use super::super::transport::Peer;
use super::session::{Phase, Provisional, Session};
use super::{ALLOW, Agent, Cause, Purpose};

impl Agent {
    /// Sends a provisional response to the INVITE under decision, with `sdp` if sound goes with it.
    pub(super) fn progress(
        &mut self,
        now: Instant,
        session: &mut Session,
        status: u16,
        sdp: Option<Vec<u8>>,
    ) {
        if session.phase != Phase::Offered || session.provisional.is_some() {
            return;
        }
        let Some(invite) = &mut session.invite else { return };
        // What we described once the 2xx says again; our own offer waits for the 2xx.
        let sdp = sdp.filter(|_| invite.offered && invite.early.is_none());
        if let Some(sdp) = &sdp {
            invite.early = Some(sdp.clone());
        }
        let mut reply =
            Draft::response(&invite.request, status, invite.source.address, &session.key.1);
        let (id, source, cseq) = (invite.id, invite.source, invite.request.core.cseq);
        let insists = invite.request.headers.list("Require").any(|option| option == "100rel");
        let wanted = session.profile.reliable != Reliable::Off && session.peer.reliable;
        reply = reply
            .with("Contact", format!("<{}>", self.contact(&source, &session.profile)))
            .with("Allow", ALLOW)
            .with("Server", &self.settings.product);
        let reliable = insists || wanted;
        if reliable {
            session.rseq = match session.rseq {
                0 => self.rng.random_range(1..1 << 30),
                last => last + 1,
            };
            reply = reply.with("Require", "100rel").with("RSeq", session.rseq.to_string());
        }
        if let Some(sdp) = sdp {
            reply = reply.with_body("application/sdp", sdp);
        }
        let bytes = reply.encode();
        self.transactions.respond(now, id, status, bytes.clone());
        if reliable {
            let destination = self.transactions.destination(id).unwrap_or(source);
            session.provisional = Some(Provisional {
                rseq: session.rseq,
                cseq,
                bytes,
                destination,
                repeat: Repeat::new(now, PATIENCE),
                expires: now + PATIENCE,
            });
        }
    }

    /// PRACK in (RFC 3262 §3): it acknowledges the one response that waits for it.
    pub(super) fn prack(
        &mut self,
        now: Instant,
        session: &mut Session,
        id: ServerId,
        request: &Request,
        source: Peer,
    ) {
        let rack = request.headers.first("RAck").unwrap_or_default();
        let mut words = rack.split_whitespace();
        let mut number = || words.next().and_then(|word| word.parse::<u32>().ok());
        let (rseq, cseq) = (number(), number());
        let ours = |one: &Provisional| {
            rseq == Some(one.rseq) && cseq == Some(one.cseq) && words.next() == Some("INVITE")
        };
        if !session.provisional.as_ref().is_some_and(ours) {
            return self.refuse(now, id, request, source, 481, &[]);
        }
        session.provisional = None;
        if matches!(request.content(), Content::Sdp(_)) {
            // An offer inside the PRACK: what was agreed by the provisional response stays.
            self.refuse(now, id, request, source, 488, &[]);
        } else {
            self.confirm(now, id, request, source);
        }
        let held = session.invite.as_mut().and_then(|invite| invite.held.take());
        if let Some(sdp) = held {
            self.accept(now, session, sdp);
        }
    }

    /// Repeats a reliable response; a peer that never acknowledges it gets no call.
    pub(super) fn repeat_provisional(&mut self, now: Instant, session: &mut Session) {
        let Some(provisional) = &mut session.provisional else { return };
        if provisional.expires <= now {
            session.provisional = None;
            self.end(session, Cause::Timeout);
            self.answer_invite(now, session, 504, &[]);
            session.phase = Phase::Gone;
        } else if provisional.repeat.is_due(now) {
            self.counters.retransmitted += 1;
            let (destination, bytes) = (provisional.destination, provisional.bytes.clone());
            self.transmit(destination, bytes);
        }
    }

    /// A provisional response to our INVITE: if it is reliable and the next in order, PRACK goes
    /// out; `false` for one that was seen before or came too early (RFC 3262 §4).
    pub(super) fn acknowledge_provisional(
        &mut self,
        now: Instant,
        session: &mut Session,
        response: &Response,
        source: Peer,
    ) -> bool {
        let reliable = response.headers.list("Require").any(|o| o.eq_ignore_ascii_case("100rel"));
        let rseq = response.headers.first("RSeq").and_then(|text| text.trim().parse::<u32>().ok());
        let (true, Some(rseq), Some(placed)) = (reliable, rseq, &mut session.placed) else {
            return true;
        };
        let tag = response.core.to_tag();
        let early = placed.acknowledged.take();
        let mut dialog = match early {
            Some((dialog, last)) if tag == Some(dialog.remote_tag.as_str()) => {
                if last.checked_add(1) != Some(rseq) {
                    placed.acknowledged = Some((dialog, last));
                    return false;
                }
                dialog
            }
            Some((other, _)) => {
                let mut dialog = Dialog::uac(response, &placed.target, source);
                dialog.skip_to(other.local_cseq());
                dialog
            }
            None => Dialog::uac(response, &placed.target, source),
        };
        let rack = format!("{rseq} {} INVITE", response.core.cseq);
        let hop = dialog.next_hop(&self.settings.listeners);
        let branch = self.branch();
        let prack = dialog.request(&Method::PRACK, &self.via(&branch, &hop));
        let mut prack = prack.with("RAck", rack).with("User-Agent", &self.settings.product);
        for (name, value) in self.credentials(session, &Method::PRACK, prack.target(), &[]) {
            prack = prack.with(name, value);
        }
        let id = self.transactions.send(now, &Method::PRACK, &branch, prack, hop);
        self.clients.insert(id, (session.leg, Purpose::Courtesy));
        if let Some(placed) = &mut session.placed {
            placed.acknowledged = Some((dialog, rseq));
        }
        true
    }
}
