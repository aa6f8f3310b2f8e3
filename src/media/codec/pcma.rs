//! G.711 A-law: seven segments of sixteen steps, the lowest of thirty-two, on a scale of 13 bits,
//! the even bits inverted.

use super::magnitude;

/// What silence is on the wire.
pub const SILENCE: u8 = 0xd5;

/// The code of a 16-bit sample, of which the upper 13 bits count.
pub const fn code(sample: i16) -> u8 {
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

/// The 16-bit sample of a code.
pub const fn sample(code: u8) -> i16 {
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
