//! What the agent remembers of one leg.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::super::auth;
use super::super::dialog::Dialog;
use super::super::model::{Draft, Headers, Request, Uri};
use super::super::profile::Profile;
use super::super::refer::Referral;
use super::super::timer::{PATIENCE, Repeat, T2};
use super::super::transaction::{ClientId, ServerId};
use super::super::transport::Peer;
use super::Leg;
use super::refresh::Refresh;

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
    /// How the peer wants to be treated.
    pub profile: Arc<Profile>,
    /// What the peer can do, by its Supported and Allow.
    pub peer: Abilities,
    /// Call-ID and our tag.
    pub key: (String, String),
    /// `None` until our INVITE is accepted.
    pub dialog: Option<Dialog>,
    /// An INVITE, re-INVITE or UPDATE of the peer that has no final answer yet.
    pub invite: Option<Invite>,
    /// A provisional response that waits for its PRACK.
    pub provisional: Option<Provisional>,
    /// RSeq of the last of them.
    pub rseq: u32,
    pub unacked: Option<Unacked>,
    pub placed: Option<Placed>,
    pub ack: Option<Acknowledged>,
    /// Our own re-INVITE or UPDATE.
    pub reoffer: Option<Reoffer>,
    /// Our last description, for refreshing it unchanged.
    pub described: Vec<u8>,
    pub refresh: Option<Refresh>,
    pub referral: Option<Referral>,
    /// There was a REFER, ours or theirs: what belongs to it is answered to the end.
    pub transferred: bool,
    /// A REFER of the peer that we obey.
    pub redirection: Option<Box<Redirection>>,
    /// Challenges met on this leg.
    pub auth: auth::Client,
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
    /// Boxed: it is put aside and taken up again with every message.
    pub fn new(
        leg: Leg,
        phase: Phase,
        key: (String, String),
        profile: Arc<Profile>,
    ) -> Box<Session> {
        Box::new(Session {
            leg,
            phase,
            profile,
            peer: Abilities::default(),
            key,
            dialog: None,
            invite: None,
            provisional: None,
            rseq: 0,
            unacked: None,
            placed: None,
            ack: None,
            reoffer: None,
            described: Vec::new(),
            refresh: None,
            referral: None,
            transferred: false,
            redirection: None,
            auth: auth::Client::default(),
            ended: false,
            goodbye: None,
            expires: None,
            counted: false,
        })
    }

    /// Whether it counts as a call.
    pub fn is_live(&self) -> bool {
        !matches!(self.phase, Phase::Lingering | Phase::Gone)
    }

    pub fn deadline(&self) -> Option<Instant> {
        let unacked = self.unacked.as_ref().map(|unacked| unacked.repeat.at.min(unacked.expires));
        let provisional = self.provisional.as_ref().map(|one| one.repeat.at.min(one.expires));
        let referral = self.referral.as_ref().map(|referral| referral.expires);
        // Before the call is up nothing of it is refreshed or offered anew.
        let up = self.phase == Phase::Confirmed;
        let refresh = self.refresh.as_ref().map(|refresh| refresh.at).filter(|_| up);
        let again = self.reoffer.as_ref().and_then(|reoffer| reoffer.again).filter(|_| up);
        let redirection = self.redirection.as_ref().map(|redirection| redirection.expires);
        [self.expires, unacked, provisional, referral, refresh, again, redirection]
            .into_iter()
            .flatten()
            .min()
    }

    /// The call is over. After a transfer late NOTIFYs, and answers to the call it caused, still
    /// deserve one; otherwise nothing is left to do: a repeated BYE is answered by its transaction.
    pub fn conclude(&mut self, now: Instant) {
        if !self.transferred {
            self.phase = Phase::Gone;
            return;
        }

        self.phase = Phase::Lingering;
        self.expires = Some(now + PATIENCE);
        self.described = Vec::new();
        self.quiet();
    }

    /// Nothing is repeated, refreshed or awaited any more.
    pub fn quiet(&mut self) {
        (self.unacked, self.referral, self.goodbye) = (None, None, None);
        (self.provisional, self.refresh, self.reoffer) = (None, None, None);
        self.redirection = None;
    }
}

/// What a peer says it can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Abilities {
    /// 100rel, RFC 3262.
    pub reliable: bool,
    /// timer, RFC 4028.
    pub timer: bool,
    /// UPDATE, RFC 3311.
    pub update: bool,
}

impl Abilities {
    pub fn of(headers: &Headers) -> Abilities {
        let says = |header: &str, what: &str| {
            headers.list(header).any(|option| option.eq_ignore_ascii_case(what))
        };
        let can = |option| says("Supported", option) || says("Require", option);
        Abilities { reliable: can("100rel"), timer: can("timer"), update: says("Allow", "UPDATE") }
    }
}

/// A server-side INVITE or UPDATE under decision.
pub(super) struct Invite {
    pub id: ServerId,
    pub request: Box<Request>,
    pub source: Peer,
    /// It carried an offer, so its 2xx carries the answer.
    pub offered: bool,
    /// A provisional response has carried the answer already.
    pub early: Option<Vec<u8>>,
    /// The answer waits until the provisional response is acknowledged.
    pub held: Option<Vec<u8>>,
    /// It is to take this leg's place: the tag of its own dialog (RFC 3891).
    pub replaces: Option<String>,
}

/// A reliable provisional response (RFC 3262 §3).
pub(super) struct Provisional {
    pub rseq: u32,
    pub cseq: u32,
    pub bytes: Bytes,
    pub destination: Peer,
    pub repeat: Repeat,
    pub expires: Instant,
}

/// A 2xx that is repeated until the ACK comes (RFC 3261 §13.3.1.4).
pub(super) struct Unacked {
    /// Its INVITE.
    pub id: ServerId,
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
        id: ServerId,
        cseq: u32,
        bytes: Bytes,
        destination: Peer,
        late_offer: bool,
    ) -> Unacked {
        let (repeat, expires) = (Repeat::new(now, T2), now + PATIENCE);
        Unacked { id, cseq, bytes, destination, late_offer, repeat, expires }
    }
}

/// The call we placed.
pub(super) struct Placed {
    pub client: ClientId,
    pub draft: Draft,
    pub cseq: u32,
    pub destination: Peer,
    /// Where to try when nobody is reached there, next one last.
    pub others: Vec<Peer>,
    pub target: Uri,
    pub branch: String,
    /// A provisional response came: from here on CANCEL is allowed (RFC 3261 §9.1).
    pub ringing: bool,
    /// We want out, with this Reason.
    pub cancel: Option<Option<String>>,
    pub cancelled: bool,
    /// SDP of the last provisional, for a 2xx that brings none.
    pub early: Option<Vec<u8>>,
    /// The early dialog whose provisional responses we acknowledge, and the last RSeq.
    pub acknowledged: Option<(Dialog, u32)>,
    /// Other branches that answered too; each is acknowledged and hung up, up to a bound.
    pub forks: u8,
}

/// The ACK to a 2xx of the peer, repeated whenever that comes again.
pub(super) struct Acknowledged {
    pub cseq: u32,
    pub hop: Peer,
    pub bytes: Bytes,
}

/// A re-INVITE or UPDATE of ours, sent or waiting to be.
pub(super) struct Reoffer {
    pub client: Option<ClientId>,
    /// Empty: it only refreshes, by UPDATE.
    pub sdp: Vec<u8>,
    /// It changes nothing, so its failure is the session's (RFC 4028 §10).
    pub refreshes: bool,
    /// When to try again after both sides offered at once (RFC 3261 §14.1).
    pub again: Option<Instant>,
}

/// The peer told us to call somebody else (RFC 3515).
pub(super) struct Redirection {
    /// CSeq of the REFER: names its subscription.
    pub id: u32,
    pub target: Uri,
    /// Header fields for the INVITE: Replaces and Referred-By.
    pub headers: Vec<(String, String)>,
    /// The call to that target.
    pub placed: Option<Placed>,
    /// Call-ID and our tag of that call.
    pub key: (String, String),
    pub expires: Instant,
}
