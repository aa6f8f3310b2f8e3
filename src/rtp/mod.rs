//! Media packets: what arrives on a call's port, put in order and believed or not.
//! In reading order.

pub mod packet; // RTP headers, RFC 3550 §5.1
pub mod srtp; // encrypted, RFC 3711
pub mod reorder; // in sequence, with gaps named
pub mod quality; // how a call sounded, G.107
pub mod reception; // loss and jitter, RFC 3550
pub mod rtcp; // reports, both ways
pub mod telephone_event; // keyed digits, RFC 4733
pub mod latch; // who may send to us
