//! What the agent remembers of one leg.

use std::time::Instant;

use bytes::Bytes;

use super::super::dialog::Dialog;
use super::super::model::{Draft, Request, Uri};
use super::super::refer::Referral;
use super::super::timer::{PATIENCE, Repeat, T2};
use super::super::transaction::{ClientId, ServerId};
use super::super::transport::Peer;
use super::Leg;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The peer's INVITE waits for our answer.
    Offered,
    /// Our INVITE waits for theirs.
    Calling,
    /// A 2xx went by.
    Confirmed,
    /// Our BYE waits for its answer.
    Closing,
    /// Over, but late NOTIFY and BYE still deserve a 200.
    Lingering,
    /// To be forgotten.
    Gone,
}

pub(super) struct Session {
    pub leg: Leg,
    pub phase: Phase,
    /// Call-ID and our tag.
    pub key: (String, String),
    /// `None` until our INVITE is accepted.
    pub dialog: Option<Dialog>,
    /// An INVITE or re-INVITE of the peer that has no final answer yet.
    pub invite: Option<Invite>,
    pub unacked: Option<Unacked>,
    pub placed: Option<Placed>,
    pub referral: Option<Referral>,
    /// There was a REFER: its NOTIFYs get a 200 to the end.
    pub transferred: bool,
    /// `Event::Ended` is out: nothing may follow it.
    pub ended: bool,
    /// BYE waits for the ACK (RFC 3261 §15), with this Reason.
    pub goodbye: Option<Option<String>>,
    /// When to stop waiting for answers in this phase.
    pub expires: Option<Instant>,
    /// It is part of the agent's number of live calls.
    pub counted: bool,
}

impl Session {
    pub fn new(leg: Leg, phase: Phase, key: (String, String)) -> Session {
        Session {
            leg,
            phase,
            key,
            dialog: None,
            invite: None,
            unacked: None,
            placed: None,
            referral: None,
            transferred: false,
            ended: false,
            goodbye: None,
            expires: None,
            counted: false,
        }
    }

    /// Whether it counts as a call.
    pub fn is_live(&self) -> bool {
        !matches!(self.phase, Phase::Lingering | Phase::Gone)
    }

    pub fn deadline(&self) -> Option<Instant> {
        let unacked = self.unacked.as_ref().map(|unacked| unacked.repeat.at.min(unacked.expires));
        let referral = self.referral.as_ref().map(|referral| referral.expires);
        [self.expires, unacked, referral].into_iter().flatten().min()
    }

    pub fn linger(&mut self, now: Instant) {
        self.phase = Phase::Lingering;
        self.expires = Some(now + PATIENCE);
        (self.unacked, self.referral, self.goodbye) = (None, None, None);
    }
}

/// A server-side INVITE under decision.
pub(super) struct Invite {
    pub id: ServerId,
    pub request: Box<Request>,
    pub source: Peer,
    /// It carried an offer, so its 2xx carries the answer.
    pub offered: bool,
}

/// A 2xx that is repeated until the ACK comes (RFC 3261 §13.3.1.4).
pub(super) struct Unacked {
    pub cseq: u32,
    pub bytes: Bytes,
    pub destination: Peer,
    /// The ACK brings the answer to our offer.
    pub late_offer: bool,
    pub repeat: Repeat,
    pub expires: Instant,
}

impl Unacked {
    pub fn new(
        now: Instant,
        cseq: u32,
        bytes: Bytes,
        destination: Peer,
        late_offer: bool,
    ) -> Unacked {
        let (repeat, expires) = (Repeat::new(now, T2), now + PATIENCE);
        Unacked { cseq, bytes, destination, late_offer, repeat, expires }
    }
}

/// The call we placed.
pub(super) struct Placed {
    pub client: ClientId,
    pub draft: Draft,
    pub destination: Peer,
    pub target: Uri,
    pub branch: String,
    /// A provisional response came: from here on CANCEL is allowed (RFC 3261 §9.1).
    pub ringing: bool,
    /// We want out, with this Reason.
    pub cancel: Option<Option<String>>,
    pub cancelled: bool,
    /// SDP of the last provisional, for a 2xx that brings none.
    pub early: Option<Vec<u8>>,
    /// The ACK, repeated for each 2xx.
    pub ack: Option<(Peer, Bytes)>,
    /// Other branches that answered too; each is acknowledged and hung up, up to a bound.
    pub forks: u8,
}
