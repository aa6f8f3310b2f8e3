//! SDP offer/answer for one audio stream (RFC 3264, RFC 4566, RFC 4733 §2.4).

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

/// G.711 companding law, by its static payload type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum Law {
    /// PCMU, payload type 0.
    #[serde(rename = "pcmu")]
    Mu,
    /// PCMA, payload type 8.
    #[serde(rename = "pcma")]
    A,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

/// What we say about our side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    pub address: IpAddr,
    pub port: u16,
    /// Accepted laws, preferred first.
    pub laws: Vec<Law>,
    /// Offer or accept telephone-event.
    pub events: bool,
    /// `o=` session id and version: the version grows with each changed description.
    pub session_id: u64,
    pub session_version: u64,
}

/// What both sides agreed on, as media needs it. Directions are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Where to send. `None` on hold (`c=0.0.0.0` or port 0).
    pub remote: Option<SocketAddr>,
    pub law: Law,
    /// Payload type and clock rate of telephone-event as the peer wants to receive it (what we send).
    pub events_out: Option<(u8, u32)>,
    /// Payload type and clock rate of telephone-event as we asked to receive it.
    pub events_in: Option<(u8, u32)>,
    /// Milliseconds of audio per packet that we send.
    pub ptime_ms: u8,
    pub direction: Direction,
}

/// Why no description can be agreed on; each becomes a SIP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not SDP, or truncated: 400.
    Malformed(String),
    /// No audio we understand: 488 with Warning 305.
    NoCommonCodec(String),
}
