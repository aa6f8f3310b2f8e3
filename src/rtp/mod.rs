//! Media packets: what arrives on a call's port, put in order and believed or not.
//! In the order a packet meets them: packet (headers), latch (who may send to us), reorder
//! (in sequence, with gaps named), telephone_event (keyed digits).

pub mod latch;
pub mod packet;
pub mod reorder;
pub mod telephone_event;
