//! Signalling, RFC 3261: datagrams in, calls offered; commands in, datagrams out.

pub mod wire; // bytes <-> messages, limits: the only reader of raw SIP bytes
mod address; // URI, name-addr, Via: what `rsip` gets wrong
pub mod model; // messages over `rsip`, and our own name-addr, tel: and number parsing
pub mod transport; // UDP, TCP, TLS: who a message came from, and our address there
pub mod locate; // RFC 3263: where a URI is reached, from what DNS says
pub mod auth; // digest, client and server
mod timer; // which key is due next
pub mod transaction; // client and server transactions, RFC 3261 §17 with RFC 6026
pub mod dialog; // tags, route set, CSeq, target refresh
pub mod offer; // SDP offer/answer, RFC 3264
pub mod password; // a trunk's password, or where it is kept
pub mod number; // E.164, from and to what networks write
pub mod identity; // who is calling and by what way, RFC 3325, 5806, 7044, 7433
pub mod profile; // how one trunk or PBX differs, as TOML
pub mod trunk; // which trunk a request belongs to
pub mod register; // outbound registration with a trunk or PBX
pub mod refer; // blind transfer out, RFC 3515
pub mod agent; // the user agent: UAS and UAC

pub use agent::{Agent, Cause, Command, Event, Input, Invitation, Leg, Output};
pub use transport::{Peer, Transport};
