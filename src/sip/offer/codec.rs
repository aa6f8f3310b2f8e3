//! Codecs as SDP names them, and what is sent while there is nothing to say.

use serde::Deserialize;

/// What sound is on the wire. All but Opus have static payload types and an RTP clock of 8,000 (RFC
/// 3551).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    Pcmu,
    Pcma,
    #[cfg(feature = "g722")]
    G722,
    /// RFC 6716, over RTP by RFC 7587.
    #[cfg(feature = "opus")]
    Opus,
}

/// G.711 companding law: what sound is inside, whatever the codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Law {
    /// PCMU, payload type 0.
    Mu,
    /// PCMA, payload type 8.
    A,
}

/// What the peer gets while nothing is played to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Silence {
    /// Packets as ever.
    #[default]
    Packets,
    /// Now and then a packet of comfort noise (RFC 3389), where the peer takes it.
    ComfortNoise,
    /// No packets.
    Nothing,
}

impl Codec {
    /// RFC 3551 §6; of Opus, the dynamic one in offers of ours.
    pub fn payload_type(self) -> u8 {
        match self {
            Codec::Pcmu => 0,
            Codec::Pcma => 8,
            #[cfg(feature = "g722")]
            Codec::G722 => 9,
            #[cfg(feature = "opus")]
            Codec::Opus => super::opus::PAYLOAD_TYPE,
        }
    }

    pub fn is_opus(self) -> bool {
        match self {
            #[cfg(feature = "opus")]
            Codec::Opus => true,
            _ => false,
        }
    }

    /// Ticks per second of its RTP clock, whatever it samples.
    pub fn clock(self) -> u32 {
        if self.is_opus() { super::opus::CLOCK } else { 8000 }
    }

    /// The encoding name of `a=rtpmap` (RFC 3551).
    pub fn encoding(self) -> &'static str {
        match self {
            Codec::Pcmu => "PCMU",
            Codec::Pcma => "PCMA",
            #[cfg(feature = "g722")]
            Codec::G722 => "G722",
            #[cfg(feature = "opus")]
            Codec::Opus => "opus",
        }
    }

    /// The law that its sound has inside: its own, or else mu-law.
    pub fn law(self) -> Law {
        match self {
            Codec::Pcma => Law::A,
            _ => Law::Mu,
        }
    }
}

impl From<Law> for Codec {
    fn from(law: Law) -> Codec {
        match law {
            Law::Mu => Codec::Pcmu,
            Law::A => Codec::Pcma,
        }
    }
}
