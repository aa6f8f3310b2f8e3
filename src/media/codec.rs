//! Codecs. Sound is G.711 inside: both laws as tables computed at compile time from the companding
//! formula. Whatever else is on the wire becomes mu-law at the door, frame by frame.

use crate::sip::offer::{Codec, Law, Opus};

#[cfg(feature = "g722")]
pub mod g722;
#[cfg(feature = "opus")]
pub mod opus;
pub mod pcma;
pub mod pcmu;

/// One call's codec that is not G.711. Each side of it remembers what came before, so that every
/// frame of a call passes through the same one; clips cannot be encoded ahead of the call.
pub enum Transcoder {
    #[cfg(feature = "g722")]
    G722(Box<g722::Transcoder>),
    #[cfg(feature = "opus")]
    Opus(Box<opus::Transcoder>),
}

impl Transcoder {
    /// `None` for G.711, and for Opus of which nothing is agreed on.
    #[cfg_attr(not(feature = "opus"), expect(unused_variables, reason = "there is no such codec"))]
    pub fn of(codec: Codec, opus: Option<Opus>) -> Option<Transcoder> {
        match codec {
            Codec::Pcmu | Codec::Pcma => None,
            #[cfg(feature = "g722")]
            Codec::G722 => Some(Transcoder::G722(Box::default())),
            #[cfg(feature = "opus")]
            Codec::Opus => Some(Transcoder::Opus(Box::new(opus::Transcoder::new(opus?)))),
        }
    }

    /// What the peer sent, as mu-law: as many bytes as there are samples at 8 kHz, at most 60 ms.
    /// `None` if it is no packet of this codec.
    #[cfg_attr(not(feature = "g722"), allow(unused_variables, reason = "there may be no codec"))]
    pub fn decode(&mut self, payload: &[u8]) -> Option<&[u8]> {
        match *self {
            #[cfg(feature = "g722")]
            Transcoder::G722(ref mut both) => both.decode(payload),
            #[cfg(feature = "opus")]
            Transcoder::Opus(ref mut both) => both.decode(payload),
        }
    }

    /// The end of what was lost right before this packet, as far as the packet holds it once more:
    /// as [`Transcoder::decode`], and to be asked for before it. `missing`: samples between what
    /// was decoded last and this packet.
    #[cfg_attr(not(feature = "opus"), expect(unused_variables, reason = "there is no such codec"))]
    pub fn recover(&mut self, payload: &[u8], missing: usize) -> Option<&[u8]> {
        match *self {
            #[cfg(feature = "g722")]
            Transcoder::G722(_) => None,
            #[cfg(feature = "opus")]
            Transcoder::Opus(ref mut both) => both.recover(payload, missing),
        }
    }

    /// So much of what we send does not arrive, as the peer reports.
    #[cfg_attr(not(feature = "opus"), expect(unused_variables, reason = "there is no such codec"))]
    pub fn expect_loss(&mut self, percent: u8) {
        match *self {
            #[cfg(feature = "g722")]
            Transcoder::G722(_) => {}
            #[cfg(feature = "opus")]
            Transcoder::Opus(ref mut both) => both.expect_loss(percent),
        }
    }

    /// This many packets of the peer never came.
    #[cfg_attr(not(feature = "opus"), expect(unused_variables, reason = "there is no such codec"))]
    pub fn lose(&mut self, packets: u16) {
        match *self {
            #[cfg(feature = "g722")]
            Transcoder::G722(_) => {}
            #[cfg(feature = "opus")]
            Transcoder::Opus(ref mut both) => both.lose(packets),
        }
    }

    /// Mu-law for the peer, at most 60 ms: one packet.
    #[cfg_attr(not(feature = "g722"), allow(unused_variables, reason = "there may be no codec"))]
    pub fn encode(&mut self, codes: &[u8]) -> &[u8] {
        match *self {
            #[cfg(feature = "g722")]
            Transcoder::G722(ref mut both) => both.encode(codes),
            #[cfg(feature = "opus")]
            Transcoder::Opus(ref mut both) => both.encode(codes),
        }
    }
}

/// What silence is on the wire.
pub const fn silence(law: Law) -> u8 {
    match law {
        Law::Mu => pcmu::SILENCE,
        Law::A => pcma::SILENCE,
    }
}

/// The law of a static payload type.
pub const fn law_of(payload_type: u8) -> Option<Law> {
    match payload_type {
        0 => Some(Law::Mu),
        8 => Some(Law::A),
        _ => None,
    }
}

/// The 16-bit sample of a code.
#[inline]
pub fn decode(law: Law, code: u8) -> i16 {
    match law {
        Law::Mu => MU_SAMPLES[usize::from(code)],
        Law::A => A_SAMPLES[usize::from(code)],
    }
}

/// The code of a 16-bit sample, of which mu-law sees the upper 14 bits and A-law the upper 13.
#[inline]
pub fn encode(law: Law, sample: i16) -> u8 {
    match law {
        Law::Mu => pcmu::code(sample),
        Law::A => pcma::code(sample),
    }
}

/// All 256 samples of a law by code.
pub fn samples(law: Law) -> &'static [i16; 256] {
    match law {
        Law::Mu => &MU_SAMPLES,
        Law::A => &A_SAMPLES,
    }
}

/// The code of the other law that sounds nearest.
#[inline]
pub fn transcode(code: u8, from: Law, to: Law) -> u8 {
    match (from, to) {
        (Law::Mu, Law::A) => MU_TO_A[usize::from(code)],
        (Law::A, Law::Mu) => A_TO_MU[usize::from(code)],
        _ => code,
    }
}

static MU_SAMPLES: [i16; 256] = table(Law::Mu);
static A_SAMPLES: [i16; 256] = table(Law::A);
static MU_TO_A: [u8; 256] = transcoding(Law::Mu);
static A_TO_MU: [u8; 256] = transcoding(Law::A);

/// One's complement, as the standard counts negative samples: -1 has magnitude 0.
const fn magnitude(sample: i16) -> u16 {
    (if sample < 0 { !sample } else { sample }) as u16
}

const fn table(law: Law) -> [i16; 256] {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = match law {
            Law::Mu => pcmu::sample(code as u8),
            Law::A => pcma::sample(code as u8),
        };
        code += 1;
    }
    table
}

const fn transcoding(from: Law) -> [u8; 256] {
    let samples = table(from);
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = match from {
            Law::Mu => pcma::code(samples[code]),
            Law::A => pcmu::code(samples[code]),
        };
        code += 1;
    }
    table
}

/// The body of the fuzz target: packets, each behind a byte with its length, one after the other
/// through one decoder of each codec. None is too much for it, and no sound is longer than a
/// packet's may be.
#[cfg_attr(not(any(feature = "g722", feature = "opus")), allow(unused_variables))]
pub fn fuzz(bytes: &[u8]) {
    #[cfg(feature = "g722")]
    fuzz_with(Transcoder::G722(Box::default()), bytes);
    #[cfg(feature = "opus")]
    {
        let wishes = Opus { sent: 96, received: 96, ..Opus::default() };
        let mut both = Transcoder::Opus(Box::new(opus::Transcoder::new(wishes)));
        both = fuzz_with(both, bytes);
        #[cfg_attr(not(feature = "g722"), allow(irrefutable_let_patterns))]
        let Transcoder::Opus(both) = both else { return };
        assert_eq!(both.broken, 0, "the decoder panicked");
    }
}

#[cfg(any(feature = "g722", feature = "opus"))]
fn fuzz_with(mut both: Transcoder, mut bytes: &[u8]) -> Transcoder {
    while let Some((&len, rest)) = bytes.split_first() {
        let (packet, rest) = rest.split_at(usize::from(len).min(rest.len()));
        for missing in (80..=480).step_by(80) {
            if let Some(codes) = both.recover(packet, missing) {
                assert!(codes.len() <= missing);
            }
        }
        match both.decode(packet) {
            Some(codes) => assert!(codes.len() <= crate::rtp::reorder::PAYLOAD_MAX),
            None => both.lose(1),
        }
        bytes = rest;
    }
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decision values of G.711 tables 2a (mu, 14-bit scale) and 1a (A, 12-bit scale): each
    /// segment doubles its step. A magnitude below `edges[n + 1]` and not below `edges[n]` is
    /// step n; its output value is given with it.
    fn steps(law: Law) -> Vec<(i32, i32)> {
        let mut steps = vec![];
        match law {
            Law::Mu => {
                // First step is half a step: 0 to 1, then 15 of 2; then 16 each of 4, 8, ... 256.
                steps.push((0, 0));
                let mut edge = 1;
                for (count, step) in [(15, 2), (16, 4), (16, 8), (16, 16), (16, 32), (16, 64)]
                    .into_iter()
                    .chain([(16, 128), (16, 256)])
                {
                    for _ in 0..count {
                        steps.push((edge, edge + step / 2));
                        edge += step;
                    }
                }
                assert_eq!(edge, 8159);
            }
            Law::A => {
                // In half units, so that the middle of a step is a whole number.
                let mut edge = 0;
                for (count, step) in [(32, 2), (16, 4), (16, 8), (16, 16), (16, 32), (16, 64)]
                    .into_iter()
                    .chain([(16, 128)])
                {
                    for _ in 0..count {
                        steps.push((edge, edge + step / 2));
                        edge += step;
                    }
                }
                assert_eq!(edge, 4096);
            }
        }
        assert_eq!(steps.len(), 128);
        steps
    }

    /// Character signals as the tables print them: mu-law inverts all bits, A-law the even ones.
    fn wire(law: Law, step: usize, negative: bool) -> u8 {
        match law {
            Law::Mu => (if negative { 0x7f } else { 0xff }) - step as u8,
            Law::A => (step as u8 | if negative { 0 } else { 0x80 }) ^ 0x55,
        }
    }

    #[test]
    fn every_code_decodes_to_the_tables_value() {
        for law in [Law::Mu, Law::A] {
            let scale = if law == Law::Mu { 4 } else { 8 };
            for (step, (_, value)) in steps(law).into_iter().enumerate() {
                for negative in [false, true] {
                    let expected = if negative { -value * scale } else { value * scale };
                    let code = wire(law, step, negative);
                    assert_eq!(i32::from(decode(law, code)), expected, "{law:?} {code:#x}");
                }
            }
        }
    }

    #[test]
    fn every_sample_encodes_by_the_tables_decision_values() {
        for law in [Law::Mu, Law::A] {
            let steps = steps(law);
            for sample in i16::MIN..=i16::MAX {
                let negative = sample < 0;
                let magnitude = i32::from(if negative { !sample } else { sample });
                let scaled = if law == Law::Mu { magnitude >> 2 } else { magnitude >> 4 << 1 };
                let step = steps.iter().rposition(|&(edge, _)| edge <= scaled).unwrap();
                assert_eq!(encode(law, sample), wire(law, step, negative), "{law:?} {sample}");
            }
        }
    }

    #[test]
    fn codes_survive_a_round_trip() {
        for law in [Law::Mu, Law::A] {
            for code in 0..=255u8 {
                let again = encode(law, decode(law, code));
                // Mu-law has two zeros; the negative one comes back positive.
                let expected = if law == Law::Mu && code == 0x7f { 0xff } else { code };
                assert_eq!(again, expected, "{law:?}");
            }
        }
    }

    #[test]
    fn transcoding_is_decode_then_encode_and_silence_stays_silent() {
        for (from, to) in [(Law::Mu, Law::A), (Law::A, Law::Mu), (Law::Mu, Law::Mu)] {
            for code in 0..=255u8 {
                let expected = if from == to { code } else { encode(to, decode(from, code)) };
                assert_eq!(transcode(code, from, to), expected);
            }
            assert!(decode(to, transcode(silence(from), from, to)).abs() <= 8);
        }
        assert_eq!((decode(Law::Mu, silence(Law::Mu)), decode(Law::A, silence(Law::A))), (0, 8));
    }
}
