//! Passing the caller on to an agent: by REFER, or by a call of our own whose sound is passed
//! through. Either way the agent is told what happened; if nobody takes over, the script goes on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Call, Output, Pending, Serial, Telling};
use crate::instrument::Method;
use crate::media;
use crate::payment::{Note, Outcome, Reply};
use crate::sip::agent::Placement;
use crate::sip::model::Uri;
use crate::sip::number;
use crate::sip::offer::{self, Local, Negotiated};
use crate::sip::profile::{ReferHeaders, Transfer};
use crate::sip::{self, Peer};

/// How long a REFER may take, and an agent's phone may ring.
const REFER_LIMIT: Duration = Duration::from_secs(30);
const RING_LIMIT: Duration = Duration::from_secs(60);
/// The world finds a port and a way within this.
const WAY_LIMIT: Duration = Duration::from_secs(8);
/// The longest talk with an agent.
const TALK_MAX: Duration = Duration::from_secs(4 * 3600);

/// How far a transfer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passing {
    Referred {
        accepted: bool,
    },
    /// The world looks for a port, and for where the agent is.
    Seeking(Serial),
    Ringing,
}

/// What a call of our own to the agent needs of the world.
#[derive(Clone, Debug)]
pub struct Way {
    /// Where that leg's media is; codecs and events as the trunk says.
    pub local: Local,
    pub destinations: Vec<Peer>,
    /// Our SIP address there, for From.
    pub us: SocketAddr,
}

/// To be done on the leg to the agent.
pub enum SecondLeg {
    /// It is to be called; its events come as [`super::Input::Second`].
    Place(Box<Placement>),
    Answer(Vec<u8>),
    Reject(u16),
    Media(media::Command),
    /// Sound goes from one leg to the other.
    Join,
    /// It is hung up and gone.
    Close,
}

/// The leg to the agent, as the call sees it.
pub(super) struct Second {
    local: Local,
    late_offer: bool,
    joined: bool,
    answered: bool,
}

/// What an agent should know of the call so far. Never card data.
#[derive(Default)]
pub(super) struct Summary {
    account: Option<String>,
    confirmation: Option<String>,
    /// Something was sent to the gateway and is not refused.
    open: bool,
    /// What the gateway says next is of a card, and no money.
    verifies: bool,
    /// A bank account is debited: what is approved is not yet paid.
    debit: bool,
}

impl Summary {
    pub fn note(&mut self, note: &Note) {
        match note {
            Note::Identified { account, .. } => self.account = Some(account.clone()),
            Note::Confirmation(confirmation) => self.confirmation = Some(confirmation.clone()),
            Note::Charging { .. } => (self.open, self.verifies) = (true, false),
            Note::Verifying { .. } => self.verifies = true,
            Note::Verdict(_) if self.verifies => {}
            Note::Verdict(text) => {
                let refused = ["declined", "refused", "not sent", "gateway set-up"];
                self.open = !refused.iter().any(|word| text.starts_with(word));
            }
            Note::Consent { means, .. } => self.debit = means.method() == Method::Bank,
            Note::Step(_) | Note::Again { .. } | Note::Locked { .. } | Note::Resting { .. } => {}
            Note::Keep { .. } | Note::Dropped { .. } | Note::NotKnown { .. } => {}
            Note::Arranged { .. } | Note::Disarranged { .. } => {}
        }
    }

    fn result(&self) -> (&'static str, &'static str) {
        match (&self.confirmation, self.open) {
            (Some(_), _) if self.debit => ("submitted", "SIP;cause=200;text=\"debit submitted\""),
            (Some(_), _) => ("paid", "SIP;cause=200;text=\"paid\""),
            (None, true) => ("pending", "SIP;cause=202;text=\"payment pending\""),
            (None, false) => ("unpaid", "SIP;cause=402;text=\"not paid\""),
        }
    }

    /// Header fields for the contact center; User-to-User (RFC 7433) says the same in one.
    fn headers(&self, call: &str) -> Vec<(String, String)> {
        let (result, reason) = self.result();
        let mut facts = vec![("Call", call), ("Result", result)];
        facts.extend(self.account.iter().map(|account| ("Account", account.as_str())));
        let confirmation = self.confirmation.iter();
        facts.extend(confirmation.map(|confirmation| ("Confirmation", confirmation.as_str())));
        let pairs: Vec<String> = facts
            .iter()
            .map(|(name, value)| format!("{}={value}", name.to_ascii_lowercase()))
            .collect();
        let hex: String = pairs.join(";").bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut headers = vec![
            ("Reason".to_string(), reason.to_string()),
            ("User-to-User".to_string(), format!("{hex};encoding=hex")),
        ];
        for (name, value) in facts {
            let value = value.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect();
            headers.push((format!("X-Ringtill-{name}"), value));
        }
        headers
    }
}

impl Call {
    /// Begins to pass the caller on; a reply when nobody is there.
    pub(super) fn pass_on(&mut self, now: Instant) -> Option<Reply> {
        let target = self.policy.agent.clone().filter(|_| !self.hung_up);
        let Some(target) = target else { return Some(Reply::Transfer(false)) };
        if self.trunk.transfer == Transfer::Bridge {
            self.seek_way(now);
            return None;
        }
        let headers = self.summary.headers(&self.id);
        let (target, headers) = match self.trunk.refer_headers {
            ReferHeaders::Refer => (target, headers),
            ReferHeaders::Target => (with_headers(&target, &headers), Vec::new()),
        };
        let (leg, replaces) = (self.leg, None);
        self.outputs.push_back(Output::Sip(sip::Command::Refer { leg, target, replaces, headers }));
        let passing = Passing::Referred { accepted: false };
        self.pending = Pending::Transfer { until: now + REFER_LIMIT, passing };
        None
    }

    /// What became of our REFER. Refused altogether, the caller is passed on by a call of our own.
    pub(super) fn referred(&mut self, now: Instant, wall_ms: i64, status: u16) {
        let Pending::Transfer { until, passing: Passing::Referred { accepted } } =
            &mut self.pending
        else {
            return;
        };
        match status {
            ..200 => {
                *accepted = true;
                *until = now + RING_LIMIT;
            }
            200..300 => self.resume(now, wall_ms, Reply::Transfer(true)),
            _ if !*accepted && self.trunk.transfer == Transfer::Auto => self.seek_way(now),
            _ => self.resume(now, wall_ms, Reply::Transfer(false)),
        }
    }

    fn seek_way(&mut self, now: Instant) {
        let serial = self.next_serial();
        self.outputs.push_back(Output::Way(serial));
        let passing = Passing::Seeking(serial);
        self.pending = Pending::Transfer { until: now + WAY_LIMIT, passing };
    }

    /// The world's answer: `None` when there is no port, or nowhere to send a call.
    pub(super) fn way_found(
        &mut self,
        now: Instant,
        wall_ms: i64,
        serial: Serial,
        way: Option<Way>,
    ) {
        let Pending::Transfer { passing: Passing::Seeking(asked), .. } = self.pending else {
            return;
        };
        let target = self.policy.agent.clone().filter(|_| asked == serial);
        let (Some(way), Some(target)) = (way, target) else {
            return self.resume(now, wall_ms, Reply::Transfer(false));
        };
        let Way { mut local, destinations, us } = way;
        (local.codecs, local.events) = (self.trunk.codecs.clone(), self.trunk.telephone_event);
        local.silence = self.trunk.silence;
        let placement = Placement {
            target,
            destinations,
            from: self.from(us),
            headers: self.summary.headers(&self.id),
            sdp: offer::offer(&local),
            trunk: self.trunk.clone(),
        };
        let (late_offer, joined, answered) = (false, false, false);
        self.second = Some(Second { local, late_offer, joined, answered });
        self.outputs.push_back(Output::Second(SecondLeg::Place(Box::new(placement))));
        let passing = Passing::Ringing;
        self.pending = Pending::Transfer { until: now + RING_LIMIT, passing };
    }

    /// Who calls the agent: the caller, as far as they want to be known.
    fn from(&self, us: SocketAddr) -> String {
        let caller = &self.caller;
        let format = self.trunk.number_format;
        match &caller.number {
            Some(number) if !caller.name_withheld => {
                let number = number::outgoing(number, format, &self.trunk.country);
                let name = caller.name.as_deref().unwrap_or_default();
                let name: String = name.chars().filter(|c| !"\"\\".contains(*c)).collect();
                let shown = if name.is_empty() { name } else { format!("\"{name}\" ") };
                format!("{shown}<sip:{number}@{us}>")
            }
            _ => "\"Anonymous\" <sip:anonymous@anonymous.invalid>".into(),
        }
    }

    /// Something happened on the leg to the agent.
    pub(super) fn second(&mut self, now: Instant, wall_ms: i64, event: sip::Event) {
        let Some(second) = &mut self.second else { return };
        match event {
            sip::Event::Progress { sdp: Some(sdp), .. } => {
                if let Ok(negotiated) = offer::accept(&sdp, &second.local) {
                    self.join(negotiated);
                }
            }
            sip::Event::Answered { sdp, .. } => match offer::accept(&sdp, &second.local) {
                Ok(negotiated) => {
                    second.answered = true;
                    self.join(negotiated);
                    self.ends = now + TALK_MAX;
                    self.outputs.push_back(Output::Tell(Telling::Connected));
                    self.resume(now, wall_ms, Reply::Transfer(true));
                }
                Err(_) => self.second_ended(now, wall_ms),
            },
            sip::Event::Reoffered { sdp, .. } => self.second_reoffered(sdp),
            sip::Event::Established { sdp: Some(sdp), .. } if second.late_offer => {
                second.late_offer = false;
                if let Ok(negotiated) = offer::accept(&sdp, &second.local) {
                    self.join(negotiated);
                }
            }
            sip::Event::Reanswered { sdp, .. } => {
                if let Ok(negotiated) = offer::accept(&sdp, &second.local) {
                    self.join(negotiated);
                }
            }
            sip::Event::Ended { .. } => self.second_ended(now, wall_ms),
            _ => {}
        }
    }

    fn second_reoffered(&mut self, offer: Option<Vec<u8>>) {
        let Some(second) = &mut self.second else { return };
        second.local.session_version += 1;
        second.late_offer = offer.is_none();
        let answer = match &offer {
            None => Ok((offer::offer(&second.local), None)),
            Some(offer) => {
                let answer = offer::answer(offer, &second.local);
                answer.map(|(sdp, negotiated)| (sdp, Some(negotiated)))
            }
        };
        match answer {
            Ok((sdp, negotiated)) => {
                self.outputs.push_back(Output::Second(SecondLeg::Answer(sdp)));
                if let Some(negotiated) = negotiated {
                    self.join(negotiated);
                }
            }
            Err(refusal) => {
                let status = refusal.status();
                self.outputs.push_back(Output::Second(SecondLeg::Reject(status)));
            }
        }
    }

    /// Sound flows between the legs, as that one negotiated it.
    fn join(&mut self, negotiated: Negotiated) {
        let Some(second) = &mut self.second else { return };
        let command = media::Command::Negotiated(negotiated);
        self.outputs.push_back(Output::Second(SecondLeg::Media(command)));
        if !std::mem::replace(&mut second.joined, true) {
            self.outputs.push_back(Output::Second(SecondLeg::Join));
        }
    }

    /// The agent hung up, or never answered.
    fn second_ended(&mut self, now: Instant, wall_ms: i64) {
        self.close_second();
        if let Some(outcome) = self.concluded.take() {
            self.end(outcome);
        } else if matches!(self.pending, Pending::Transfer { .. }) {
            self.resume(now, wall_ms, Reply::Transfer(false));
        }
    }

    pub(super) fn close_second(&mut self) {
        if self.second.take().is_some() {
            self.outputs.push_back(Output::Second(SecondLeg::Close));
        }
    }

    /// Whether the script may end without ending the call: caller and agent talk.
    pub(super) fn goes_on(&mut self, outcome: &Outcome) -> bool {
        let talking = !self.hung_up && self.second.as_ref().is_some_and(|second| second.answered);
        if talking {
            self.concluded = Some(outcome.clone());
        }
        talking
    }
}

/// `target` with header fields for the INVITE that the REFER causes (RFC 3261 §19.1.1).
fn with_headers(target: &str, headers: &[(String, String)]) -> String {
    let field = |(name, value): &(String, String)| format!("{name}={}", Uri::escape(value));
    let fields: Vec<String> = headers.iter().map(field).collect();
    format!("{target}?{}", fields.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contact_center_learns_what_happened() {
        let mut summary = Summary::default();
        let value = |summary: &Summary, name: &str| {
            let headers = summary.headers("abc");
            headers.into_iter().find(|(n, _)| n == name).map(|(_, value)| value)
        };
        assert_eq!(value(&summary, "X-Ringtill-Result").as_deref(), Some("unpaid"));
        summary.note(&Note::Identified { account: "1001".into(), by: "caller id" });
        summary.note(&Note::Charging { reference: "r".into(), gateway: "bogus".into() });
        assert_eq!(value(&summary, "X-Ringtill-Result").as_deref(), Some("pending"));
        summary.note(&Note::Verdict("declined".into()));
        assert_eq!(value(&summary, "X-Ringtill-Result").as_deref(), Some("unpaid"));
        // A card that is verified pays nothing.
        summary.note(&Note::Verifying { reference: "v".into(), gateway: "bogus".into() });
        summary.note(&Note::Verdict("approved, code 1".into()));
        assert_eq!(value(&summary, "X-Ringtill-Result").as_deref(), Some("unpaid"));
        summary.note(&Note::Confirmation("12345".into()));
        assert_eq!(value(&summary, "Reason").as_deref(), Some("SIP;cause=200;text=\"paid\""));
        let uui = value(&summary, "User-to-User").unwrap();
        let hex = uui.strip_suffix(";encoding=hex").unwrap();
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        assert_eq!(bytes, b"call=abc;result=paid;account=1001;confirmation=12345");
        let target = with_headers("sip:agents@h", &summary.headers("abc"));
        assert!(target.contains("?Reason=SIP%3Bcause%3D200") && Uri::parse(&target).is_some());
    }
}
