//! What the agent is told at the start, and what it counts.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Deserialize;

use super::super::profile::Profile;
use super::super::transport::{Listener, Transport};

/// What the agent says about itself, and whom it serves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our addresses; of those with the transport a peer uses, the first counts.
    pub listeners: Vec<Listener>,
    /// User-Agent and Server header.
    pub product: String,
    /// More calls than this are refused with 503.
    pub calls_max: usize,
    /// New calls a second, over several seconds; more are refused with 503.
    pub calls_per_second: u32,
    /// Who may call, first match first. Empty: everybody, as by the default profile.
    pub trunks: Vec<Arc<Profile>>,
    pub strangers: Strangers,
    /// What we ask callers to authenticate for.
    pub realm: String,
}

/// What requests from nobody's trunk get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strangers {
    /// 403 with the reason.
    Refuse,
    /// Nothing: they learn not even that somebody is here.
    Drop,
}

impl Settings {
    /// Of an agent that is reached by UDP at `contact` and serves everybody.
    pub fn new(contact: SocketAddr, product: &str, calls_max: usize) -> Settings {
        Settings {
            listeners: vec![Listener::new(Transport::Udp, contact)],
            product: product.into(),
            calls_max,
            calls_per_second: 1_000_000,
            trunks: Vec::new(),
            strangers: Strangers::Refuse,
            realm: "ringtill".into(),
        }
    }
}

/// What the agent has seen, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams, and messages of streams.
    pub received: u64,
    pub keep_alives: u64,
    /// What was no acceptable message.
    pub malformed: u64,
    /// Well-formed, but belonging to nothing we know: late responses, stray ACKs.
    pub stray: u64,
    /// Requests we answered with a refusal of our own accord (4xx, 5xx).
    pub refused: u64,
    /// New calls refused because of `calls_max`, their rate, a full transaction table, draining or
    /// [`super::Command::Overloaded`].
    pub overloaded: u64,
    /// Requests of nobody's trunk, and those of them that look for open servers.
    pub strangers: u64,
    pub scanners: u64,
    /// Requests with wrong credentials, and challenges of others that we had no answer to.
    pub unauthenticated: u64,
    pub unproved: u64,
    /// INFO requests that held no key.
    pub unread_infos: u64,
    /// Messages of ours sent again because an answer or ACK was missing.
    pub retransmitted: u64,
    /// Calls offered to us, and placed by us.
    pub offered: u64,
    pub placed: u64,
}
