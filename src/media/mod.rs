//! Sound: one call's media as a state machine, in 20 ms frames of 160 samples at 8 kHz.

pub mod codec; // G.711 both laws
pub mod digit; // one Digit from both detectors
pub mod frame; // 20 ms of PCM
pub mod playout; // what is on the wire now, barge-in, keys we send
pub mod recording; // both directions, sensitive windows replaced
pub mod stream;
pub mod tone; // in-band DTMF, streaming // composes these for one call

pub use digit::{Digit, Source};
pub use playout::Clip;
pub use stream::{Command, Event, Method, PlayId, Setup, Stream};
