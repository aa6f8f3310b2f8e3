//! The user agent: server and client side of a call, over the transaction layer.

use std::net::SocketAddr;

use bytes::Bytes;

/// One leg of a call, unique within an agent. Incoming legs are numbered by the agent; outgoing
/// ones by whoever asks for them, with [`Agent::next_leg`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Leg(pub u64);

pub enum Input {
    /// A datagram that arrived on `local` (our address, as the peer reaches it).
    Datagram {
        source: SocketAddr,
        local: SocketAddr,
        bytes: Bytes,
    },
    Command(Command),
}

pub enum Output {
    Transmit { destination: SocketAddr, bytes: Bytes },
    Event(Event),
}

/// What the call asks of the agent. A command for a leg that is gone is ignored.
pub enum Command {
    /// 180 Ringing.
    Ring { leg: Leg },
    /// 200 OK to an INVITE or re-INVITE. `sdp` answers the offer, or is our offer when the INVITE
    /// carried none (late offer).
    Answer { leg: Leg, sdp: Vec<u8> },
    /// Final refusal of an INVITE or re-INVITE. `retry_after_s` goes with 503.
    Reject { leg: Leg, status: u16, reason: String, retry_after_s: Option<u32> },
    /// Places a call. `headers` are added verbatim (validated: no CR, LF or NUL).
    Invite {
        leg: Leg,
        target: String,
        destination: SocketAddr,
        from: String,
        headers: Vec<(String, String)>,
        sdp: Vec<u8>,
    },
    /// Blind transfer (RFC 3515): REFER to `target`, with `headers` for the contact center.
    Refer { leg: Leg, target: String, headers: Vec<(String, String)> },
    /// Ends the leg whatever its state: CANCEL, 487 or BYE. `reason` is a Reason header (RFC 3326).
    Hangup { leg: Leg, reason: Option<String> },
    /// From now on: OPTIONS and new INVITE get 503 with Retry-After; running calls go on.
    Drain,
}

pub enum Event {
    /// A new call: 100 has been sent. Answer with `Ring`, `Answer` or `Reject`.
    Offered { leg: Leg, invitation: Box<Invitation> },
    /// Our INVITE: a provisional above 100, perhaps with early media.
    Progress { leg: Leg, status: u16, sdp: Option<Vec<u8>> },
    /// Our INVITE got its 2xx (ACK has been sent) with this SDP.
    Answered { leg: Leg, sdp: Vec<u8> },
    /// ACK for our 2xx. `sdp` holds the answer when our 2xx carried the offer.
    Established { leg: Leg, sdp: Option<Vec<u8>> },
    /// re-INVITE in: `Answer` or `Reject` it. `None`: it carried no offer, make one.
    Reoffered { leg: Leg, sdp: Option<Vec<u8>> },
    /// Our REFER: 202 and NOTIFY progress as final-or-provisional SIP status (RFC 3515 §2.4.5).
    /// A status >= 200 is final; a refused REFER reports its own status.
    Referred { leg: Leg, status: u16 },
    /// The leg is over; nothing follows. Sent exactly once per leg.
    Ended { leg: Leg, cause: Cause },
}

/// Why a leg ended, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// BYE from the peer.
    PeerHungUp,
    /// CANCEL from the peer before we answered.
    Cancelled,
    /// Our own `Hangup` or `Reject`.
    WeHungUp,
    /// Our INVITE got this final status.
    Refused { status: u16, reason: String },
    /// No ACK for our 2xx (RFC 3261 §13.3.1.4), or no final answer to our request.
    Timeout,
}

/// What an INVITE told us, before any policy is applied.
#[derive(Clone, Debug)]
pub struct Invitation {
    pub source: SocketAddr,
    pub local: SocketAddr,
    pub call_id: String,
    /// User part of the request URI: the number dialled.
    pub dialled: String,
    /// All headers in order, long names, values unfolded: identity and X- headers are read from
    /// here by the trunk's profile.
    pub headers: Vec<(String, String)>,
    /// The SDP offer; `None` means late offer: our 200 must carry one.
    pub offer: Option<Vec<u8>>,
}

/// What the agent says about itself.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our SIP address as peers reach it: Via and Contact carry it.
    pub contact: SocketAddr,
    /// User-Agent and Server header.
    pub product: String,
    /// More calls than this are refused with 503.
    pub calls_max: usize,
}

/// The user agent.
pub struct Agent {}
