//! G.711, both laws, as tables computed at compile time from the companding formula.

use crate::sip::offer::Law;

/// What silence is on the wire.
pub const fn silence(law: Law) -> u8 {
    match law {
        Law::Mu => 0xff,
        Law::A => 0xd5,
    }
}

/// RTP payload type, RFC 3551 §6.
pub const fn payload_type(law: Law) -> u8 {
    match law {
        Law::Mu => 0,
        Law::A => 8,
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
        Law::Mu => mu_code(sample),
        Law::A => a_code(sample),
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

/// Mu-law adds this to the 14-bit magnitude so that all eight segments are alike.
const MU_BIAS: u16 = 33;
const MU_MAX: u16 = 8191;

const fn mu_code(sample: i16) -> u8 {
    let magnitude = magnitude(sample) >> 2;
    let mut biased = magnitude + MU_BIAS;
    if biased > MU_MAX {
        biased = MU_MAX;
    }
    // The leading bit names the segment, the four below it the step.
    let segment = 10 - biased.leading_zeros() as u16;
    let code = segment << 4 | biased >> (segment + 1) & 0xf;
    let sign = if sample < 0 { 0 } else { 0x80 };
    sign | !code as u8 & 0x7f
}

const fn mu_sample(code: u8) -> i16 {
    let bits = !code as i16 & 0x7f;
    let (segment, step) = (bits >> 4, bits & 0xf);
    let magnitude = (((step << 1) + MU_BIAS as i16) << segment) - MU_BIAS as i16;
    let sample = magnitude << 2;
    if code & 0x80 == 0 { -sample } else { sample }
}

const fn a_code(sample: i16) -> u8 {
    let magnitude = magnitude(sample) >> 4;
    let code = if magnitude < 32 {
        magnitude
    } else {
        let segment = 12 - magnitude.leading_zeros() as u16;
        segment << 4 | magnitude >> (segment - 1) & 0xf
    };
    let sign = if sample < 0 { 0 } else { 0x80 };
    (sign | code as u8) ^ 0x55
}

const fn a_sample(code: u8) -> i16 {
    let bits = (code ^ 0x55) as i16 & 0x7f;
    let (segment, step) = (bits >> 4, bits & 0xf);
    // The middle of the step, in units of half a step of the lowest segment.
    let magnitude = match segment {
        0 => step * 2 + 1,
        _ => (step * 2 + 33) << (segment - 1),
    };
    let sample = magnitude << 3;
    if code & 0x80 == 0 { -sample } else { sample }
}

/// One's complement, as the standard counts negative samples: -1 has magnitude 0.
const fn magnitude(sample: i16) -> u16 {
    (if sample < 0 { !sample } else { sample }) as u16
}

const fn table(law: Law) -> [i16; 256] {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = match law {
            Law::Mu => mu_sample(code as u8),
            Law::A => a_sample(code as u8),
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
            Law::Mu => a_code(samples[code]),
            Law::A => mu_code(samples[code]),
        };
        code += 1;
    }
    table
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
