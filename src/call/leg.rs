//! The leg that carries the call: what was offered, agreed on, held, changed and ended.

use std::time::Instant;

use super::{Call, Output, PLAY_GRACE, Passing, Pending, Telling};
use crate::dialogue::Heard;
use crate::media::{self, Digit};
use crate::payment::{Outcome, Reply};
use crate::sip;
use crate::sip::offer::{self, Direction, Negotiated, Refusal};
use crate::sip::profile::SensitiveMedia;

/// Why a call is not taken at all.
const UNPROTECTED: &str = "card data needs SRTP here, signalled over TLS";

impl Call {
    /// Answers the INVITE: the answer to its offer, or our offer when it had none.
    pub(super) fn answer(&mut self, now: Instant, offer: Option<&[u8]>) {
        let sdp = match offer {
            None => offer::offer(&self.local),
            Some(offer) => match offer::answer(offer, &self.local) {
                Ok((_, negotiated)) if !self.may_be_sensitive(&negotiated) => {
                    return self.refuse(Refusal::NoCommonCodec(UNPROTECTED.into()));
                }
                Ok((sdp, negotiated)) => {
                    self.negotiated(now, negotiated);
                    sdp
                }
                Err(refusal) => return self.refuse(refusal),
            },
        };
        let leg = self.leg;
        if self.trunk.early_media && !self.started && offer.is_some() {
            self.outputs.push_back(Output::Sip(sip::Command::Early { leg, sdp: sdp.clone() }));
        }
        self.outputs.push_back(Output::Sip(sip::Command::Answer { leg, sdp }));
    }

    /// Whether card data may travel over what was agreed on: keys that came in the clear protect
    /// nothing.
    fn may_be_sensitive(&self, negotiated: &Negotiated) -> bool {
        self.trunk.sensitive_media == SensitiveMedia::Trusted
            || (self.over_tls && offer::secured(negotiated))
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        let (status, reason) = match refusal {
            Refusal::Malformed(why) => (400, why),
            Refusal::NoCommonCodec(why) => (488, why),
        };
        let leg = self.leg;
        self.outputs.push_back(Output::Sip(sip::Command::Reject {
            leg,
            status,
            reason,
            retry_after_s: None,
        }));
        if !self.started {
            self.end(Outcome::Failed("no media in common"));
        }
    }

    pub(super) fn negotiated(&mut self, now: Instant, negotiated: Negotiated) {
        let sends = matches!(negotiated.direction, Direction::SendRecv | Direction::SendOnly);
        self.audible = sends && negotiated.remote.is_some();
        // What stood still on hold has its time before it again.
        if let Some(playing) = &mut self.playing {
            playing.until = now + playing.length + PLAY_GRACE;
        }
        let events = if negotiated.events_in.is_some() { " + telephone-event" } else { "" };
        let description = format!("{}{events}", negotiated.codec.encoding());
        if let Telling::Answered { negotiated, .. } = &mut self.answered {
            *negotiated = description;
        }
        self.outputs.push_back(Output::Media(media::Command::Negotiated(negotiated)));
    }

    pub(super) fn sip(&mut self, now: Instant, wall_ms: i64, event: sip::Event) {
        match event {
            sip::Event::Established { sdp, .. } => self.established(now, wall_ms, sdp),
            sip::Event::Reoffered { sdp, .. } => {
                self.local.session_version += 1;
                self.late_offer = sdp.is_none();
                self.answer(now, sdp.as_deref());
            }
            sip::Event::Referred { status, .. } => {
                self.referred(now, wall_ms, status);
            }
            sip::Event::Ended { .. } => self.leg_ended(now, wall_ms),
            sip::Event::Reanswered { sdp, .. } => {
                if let Ok(negotiated) = offer::accept(&sdp, &self.local) {
                    self.negotiated(now, negotiated);
                }
            }
            sip::Event::Redirected { leg, .. } => {
                self.local.session_version += 1;
                let sdp = offer::offer(&self.local);
                self.outputs.push_back(Output::Sip(sip::Command::Follow { leg, sdp }));
            }
            sip::Event::Key { key, .. } => {
                if let Some(digit) = Digit::from_key(char::from(*key.expose())) {
                    self.outputs.push_back(Output::Media(media::Command::Signalled(digit)));
                }
            }
            // What was agreed before goes on; the re-offer of a new peer follows by itself.
            sip::Event::ReofferRefused { .. } | sip::Event::Replaced { .. } => {}
            // Events of legs we placed ourselves, and the offer that made this call.
            sip::Event::Offered { .. }
            | sip::Event::Progress { .. }
            | sip::Event::Answered { .. } => {}
        }
    }

    pub(super) fn established(&mut self, now: Instant, wall_ms: i64, answer: Option<Vec<u8>>) {
        if self.late_offer {
            let accepted = answer.map(|sdp| offer::accept(&sdp, &self.local));
            match accepted {
                Some(Ok(negotiated)) if self.may_be_sensitive(&negotiated) => {
                    self.negotiated(now, negotiated);
                }
                _ => return self.drop_leg(now, wall_ms, "no answer to our offer"),
            }
            self.late_offer = false;
        }
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        self.outputs.push_back(Output::Tell(self.answered.clone()));
        let step = self.flow.start(wall_ms);
        self.run(now, wall_ms, step);
    }

    pub(super) fn media(&mut self, now: Instant, wall_ms: i64, event: media::Event) {
        match event {
            media::Event::Key { digit, .. } => self.dialogue.key(now, digit),
            media::Event::PlayEnded { id, .. } => {
                self.playing.take_if(|playing| playing.id == id);
                self.dialogue.play_ended(now, id);
            }
            media::Event::Silent => self.drop_leg(now, wall_ms, "no media from the caller"),
            media::Event::Speech(id) => self.dialogue.speech_begun(now, id),
            media::Event::Pressed | media::Event::Heard(_) => {}
        }
    }

    /// The leg is gone, by whoever's hand: nobody listens from here on.
    pub(super) fn leg_ended(&mut self, now: Instant, wall_ms: i64) {
        if !std::mem::replace(&mut self.hung_up, true) {
            self.outputs.push_back(Output::Tell(Telling::CallerHungUp));
        }
        self.dialogue.cancel();
        if let Some(outcome) = self.concluded.take() {
            self.close_second();
            return self.end(outcome);
        }
        if !self.started {
            return self.end(Outcome::HungUp);
        }
        match self.pending {
            Pending::Ask => self.resume(now, wall_ms, Reply::Ask(Heard::Hangup)),
            Pending::Say => self.resume(now, wall_ms, Reply::Say),
            Pending::Transfer { passing, .. } => {
                self.close_second();
                let taken = passing == Passing::Referred { accepted: true };
                self.resume(now, wall_ms, Reply::Transfer(taken));
            }
            _ => {}
        }
    }

    /// We end the leg: the caller is silent, the call is too long or has no media.
    pub(super) fn drop_leg(&mut self, now: Instant, wall_ms: i64, why: &'static str) {
        if std::mem::replace(&mut self.hung_up, true) {
            return;
        }
        self.outputs.push_back(Output::Tell(Telling::Dropped(why)));
        let reason = Some(format!("SIP;cause=200;text=\"{why}\""));
        self.outputs.push_back(Output::Sip(sip::Command::Hangup { leg: self.leg, reason }));
        self.leg_ended(now, wall_ms);
    }
}
