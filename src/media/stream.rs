//! One call's media: packets in, one packet out every 20 ms, keys and playout events between.

use super::{Clip, Digit, Source};
use crate::sip::offer::Negotiated;

/// Numbers a `Play` so that its end can be told from an earlier one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlayId(pub u64);

/// Random values that RFC 3550 wants unpredictable, drawn by whoever owns randomness.
#[derive(Clone, Copy)]
pub struct Setup {
    pub ssrc: u32,
    pub sequence: u16,
    pub timestamp: u32,
    /// Keep frames of both directions for [`Stream::recorded`].
    pub record: bool,
    /// Report received audio as [`Event::Heard`].
    pub listen: bool,
}

pub enum Command {
    /// What offer/answer agreed on; again after each re-INVITE.
    Negotiated(Negotiated),
    /// Replaces what is playing. With `barge_in` the first key stops it within one frame.
    Play {
        id: PlayId,
        clips: Vec<Clip>,
        barge_in: bool,
    },
    Stop,
    /// Sends keys to the peer, each `on_ms` long and followed by `off_ms` of silence.
    Press {
        keys: Vec<Digit>,
        method: Method,
        on_ms: u16,
        off_ms: u16,
    },
    /// While true, and 500 ms beyond, both directions of the recording are silenced.
    Sensitive(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// RFC 4733 telephone-events.
    Events,
    /// DTMF tones in the audio.
    InBand,
}

pub enum Event {
    /// A key press, reported once whichever way it came.
    Key { digit: Digit, source: Source },
    /// `completed` is false when barge-in, `Stop` or another `Play` cut it short.
    PlayEnded { id: PlayId, completed: bool },
    /// All keys of the last `Press` are on the wire.
    Pressed,
    /// 20 ms of received audio in order, in the negotiated law (only with `Setup::listen`).
    Heard(Box<[u8; 160]>),
}

/// One call's media.
pub struct Stream {}
