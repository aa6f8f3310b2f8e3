//! Sound: one call's media as a state machine, in 20 ms frames of 160 samples at 8 kHz.

pub mod frame; // 20 ms of PCM
pub mod codec; // G.711 both laws
pub mod tone; // in-band DTMF, streaming
pub mod echo; // what comes back of what we say
pub mod digit; // one Digit from both detectors
pub mod voice; // whether somebody speaks
pub mod hearing; // what the caller says while an answer is listened for
pub mod ear; // what the caller says and keys, in order
pub mod playout; // what is on the wire now, barge-in, keys we send
pub mod recording; // both directions, sensitive windows replaced
pub mod relay; // what joined calls have for each other
pub mod stream; // composes these for one call

pub use digit::{Digit, Source};
pub use hearing::{ListenId, Spoken};
pub use playout::Clip;
pub use recording::SegmentId;
pub use stream::{Command, Event, Method, PlayId, Setup, Stream};
