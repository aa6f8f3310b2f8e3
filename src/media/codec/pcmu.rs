//! G.711 mu-law: eight segments of sixteen steps on a scale of 14 bits, all bits inverted.

use super::magnitude;

/// What silence is on the wire.
pub const SILENCE: u8 = 0xff;

/// Mu-law adds this to the 14-bit magnitude so that all eight segments are alike.
const MU_BIAS: u16 = 33;
const MU_MAX: u16 = 8191;

/// The code of a 16-bit sample, of which the upper 14 bits count.
pub const fn code(sample: i16) -> u8 {
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

/// The 16-bit sample of a code.
pub const fn sample(code: u8) -> i16 {
    let bits = !code as i16 & 0x7f;
    let (segment, step) = (bits >> 4, bits & 0xf);
    let magnitude = (((step << 1) + MU_BIAS as i16) << segment) - MU_BIAS as i16;
    let sample = magnitude << 2;
    if code & 0x80 == 0 { -sample } else { sample }
}
