//! Opus in SDP (RFC 7587 §6 and §7): a dynamic payload type, a clock of 48,000 and always two
//! channels, and in `a=fmtp` what its receiver wants.

use sdp_types::Media;

use super::{formats, mappings};

/// Ticks per second, whatever is sampled.
pub(super) const CLOCK: u32 = 48_000;
/// In offers of ours.
#[cfg_attr(not(feature = "opus"), allow(dead_code))]
pub(super) const PAYLOAD_TYPE: u8 = 111;
/// Encoding, clock and channels in `a=rtpmap`.
pub(super) const MAPPING: &str = "opus/48000/2";
/// We hear and say telephone sound, on one channel, and need no more bits for it than this. Of a
/// lost packet we hear what the next one holds.
pub(super) const WISHES: &str = "maxplaybackrate=8000;sprop-maxcapturerate=8000;stereo=0;\
                                 sprop-stereo=0;maxaveragebitrate=32000;useinbandfec=1";
/// RFC 7587 §6.1: below this there is no speech.
const BITRATE_MIN: u32 = 6_000;

/// Payload types of Opus, and how the peer wants it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opus {
    /// The peer's: what we send.
    pub sent: u8,
    /// Ours: what we receive.
    pub received: u8,
    /// The most bits per second that the peer wants on average.
    pub bitrate_max: Option<u32>,
    /// Every packet must have the same size.
    pub constant: bool,
    /// The peer can make up for a lost packet from the next.
    pub recovers: bool,
}

impl Opus {
    /// From the peer's description, in which it has payload type `sent`. What cannot be read is as
    /// if it were not there.
    pub(super) fn read(media: &Media, sent: u8, received: u8) -> Opus {
        let mut opus = Opus { sent, received, ..Opus::default() };
        let parameters = media.get_attribute_values("fmtp").flatten().filter_map(|text| {
            let (payload_type, parameters) = text.trim().split_once(' ')?;
            (payload_type.parse() == Ok(sent)).then_some(parameters)
        });
        for parameter in parameters.flat_map(|all| all.split(';')) {
            let Some((name, value)) = parameter.split_once('=') else { continue };
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "maxaveragebitrate" => {
                    let bits = value.parse().ok().map(|bits: u32| bits.max(BITRATE_MIN));
                    opus.bitrate_max = bits;
                }
                "cbr" => opus.constant = value == "1",
                "useinbandfec" => opus.recovers = value == "1",
                // We send one channel of 8 kHz, and packets of 20 ms or `ptime`, as everybody can
                // take them; silence is as the profile wants it.
                _ => {}
            }
        }
        opus
    }
}

/// The payload type that Opus is offered with: a dynamic one (RFC 3551 §3), and none that could be
/// taken for RTCP.
pub(super) fn offered(media: &Media) -> Option<u8> {
    let is_opus = |pt: u8| {
        mappings(media).any(|(mapped, name, rate)| {
            mapped == pt && name.eq_ignore_ascii_case("opus") && rate == CLOCK
        })
    };
    formats(media).find(|&pt| matches!(pt, 35..=63 | 96..=127) && is_opus(pt))
}
