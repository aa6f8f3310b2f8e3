//! Sound: one call's media as a state machine, in 20 ms frames of 160 samples at 8 kHz.
//! Reading order: frame, codec (G.711), tone (in-band DTMF), digit (one `Digit` from both
//! detectors), playout (what is on the wire now), recording, ear (who listens), stream (composes these for one call).

pub mod codec;
pub mod digit;
pub mod ear;
pub mod frame;
pub mod playout;
pub mod recording;
pub mod stream;
pub mod tone;

pub use digit::{Digit, Source};
pub use playout::Clip;
pub use stream::{Command, Event, Method, PlayId, Setup, Stream};
