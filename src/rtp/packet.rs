//! RTP headers, RFC 3550 §5.1: read without copying, written into the caller's buffer.

use rtp_types::RtpPacket;

/// Bytes of a header without CSRCs or extension, the only kind we send.
pub const HEADER_LEN: usize = 12;

/// One packet as it arrived; padding, CSRCs and the header extension are stripped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    pub header: Header,
    pub payload: &'a [u8],
}

/// The fields that matter to a receiver of one audio stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub marker: bool,
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
}

impl Packet<'_> {
    /// `None` for anything that is not RTP version 2, is truncated, or lies about its padding.
    pub fn parse(bytes: &[u8]) -> Option<Packet<'_>> {
        let packet = RtpPacket::parse(bytes).ok()?;
        let start = packet.payload_offset();
        let payload = bytes.get(start..start + packet.payload_len())?;
        let header = Header {
            marker: packet.marker_bit(),
            payload_type: packet.payload_type(),
            sequence: packet.sequence_number(),
            timestamp: packet.timestamp(),
            ssrc: packet.ssrc(),
        };
        Some(Packet { header, payload })
    }
}

impl Header {
    /// The bytes on the wire.
    pub fn bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = 2 << 6;
        bytes[1] = u8::from(self.marker) << 7 | self.payload_type & 0x7f;
        bytes[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        bytes
    }
}

/// Whether these bytes are RTCP that shares our port (RFC 5761 §4): packet types 192 to 223.
pub fn is_rtcp(bytes: &[u8]) -> bool {
    matches!(bytes, [first, 192..=223, ..] if first >> 6 == 2)
}

/// Fuzz body: any bytes are refused or parsed, and what was parsed survives a round trip.
pub fn fuzz(bytes: &[u8]) {
    let Some(packet) = Packet::parse(bytes) else { return };
    let mut again = packet.header.bytes().to_vec();
    again.extend_from_slice(packet.payload);
    assert_eq!(Packet::parse(&again), Some(packet));
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        marker: true,
        payload_type: 101,
        sequence: 0xfffe,
        timestamp: 0x8000_0001,
        ssrc: 0xdead_beef,
    };

    #[test]
    fn header_round_trip() {
        let mut bytes = HEADER.bytes().to_vec();
        bytes.extend_from_slice(&[1, 2, 3]);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.header, packet.payload), (HEADER, &[1, 2, 3][..]));
    }

    #[test]
    fn strips_csrcs_extension_and_padding() {
        let mut bytes = HEADER.bytes().to_vec();
        bytes[0] = 2 << 6 | 1 << 5 | 1 << 4 | 2; // padding, extension, two CSRCs
        bytes.extend_from_slice(&[9; 8]);
        bytes.extend_from_slice(&[0xbe, 0xde, 0, 1, 7, 7, 7, 7]);
        bytes.extend_from_slice(&[1, 2, 3, 0, 0, 3]);
        assert_eq!(Packet::parse(&bytes).unwrap().payload, &[1, 2, 3]);
    }

    #[test]
    fn refuses_what_is_not_rtp() {
        let mut lying_padding = HEADER.bytes().to_vec();
        lying_padding[0] |= 1 << 5;
        lying_padding.extend_from_slice(&[1, 2, 200]);
        let mut zero_padding = lying_padding.clone();
        zero_padding[14] = 0;
        let mut version_one = HEADER.bytes().to_vec();
        version_one[0] = 1 << 6;
        let mut long_extension = HEADER.bytes().to_vec();
        long_extension[0] |= 1 << 4;
        long_extension.extend_from_slice(&[0, 0, 0xff, 0xff]);
        for bytes in [lying_padding, zero_padding, version_one, long_extension] {
            assert_eq!(Packet::parse(&bytes), None, "{bytes:?}");
        }
        for len in 0..HEADER_LEN {
            assert_eq!(Packet::parse(&HEADER.bytes()[..len]), None);
        }
    }

    #[test]
    fn tells_rtcp_from_rtp() {
        assert!(is_rtcp(&[0x80, 200, 0, 6]));
        assert!(!is_rtcp(&HEADER.bytes()));
        assert!(!is_rtcp(&[0x80, 0x80 | 8]));
    }

    #[test]
    fn no_bytes_panic() {
        let mut state = 1u32;
        for round in 0..20_000u32 {
            let len = (round % 64) as usize;
            let bytes: Vec<u8> = (0..len)
                .map(|at| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let byte = (state >> 24) as u8;
                    if at == 0 { 0x80 | byte & 0x3f } else { byte }
                })
                .collect();
            fuzz(&bytes);
        }
    }
}
