//! How like itself sound is a pitch period later: a voice's is, noise is not.

use fearless_simd::{Level, Simd, SimdBase, dispatch, f32x8};

use super::bank::HOP;
use super::fit::LONG;
use crate::media::frame::dot;

/// Periods looked for, in samples: 500 to 67 Hz; eight side by side.
pub const PERIODS: std::ops::Range<usize> = 16..16 + GROUPS * LANES;
const GROUPS: usize = 13;
const LANES: usize = 8;
/// The most sound looked at, and with what the longest period takes beyond its end.
const LEN: usize = LONG * HOP;
const ROOM: usize = LEN + GROUPS * LANES;

/// Of a voice 1 at most, of noise about 0.
pub fn periodicity(sound: &[f32; LEN]) -> f32 {
    alike(sound).fold(0.0, f32::max)
}

/// How like itself sound is after each period: 1 is entirely. It is longer than any of them, and a
/// long window at most.
pub fn alike(sound: &[f32]) -> impl Iterator<Item = f32> {
    let sound = &sound[..sound.len().min(LEN)];
    let len = sound.len();
    let mut room = [0.0; ROOM];
    room[..len].copy_from_slice(sound);
    let power = dot(sound, sound).max(f32::MIN_POSITIVE) / len as f32;
    let products = dispatch!(Level::new(), simd => products(simd, &room, len));
    let products = products.into_iter().flatten().zip(PERIODS);
    products.map(move |(product, period)| product / ((len - period) as f32 * power))
}

/// Of the sound with itself, by period. What follows the sound in its room is zero.
#[inline(always)]
fn products<S: Simd>(simd: S, room: &[f32; ROOM], len: usize) -> [[f32; LANES]; GROUPS] {
    let mut sums = [f32x8::splat(simd, 0.0); GROUPS];
    for at in 0..len - PERIODS.start {
        let now = f32x8::splat(simd, room[at]);
        let later = &room[at + PERIODS.start..][..GROUPS * LANES];
        for (sum, later) in sums.iter_mut().zip(later.as_chunks::<LANES>().0) {
            *sum += now * f32x8::load_array_ref(simd, later);
        }
    }
    let mut products = [[0.0; LANES]; GROUPS];
    for (products, sum) in products.iter_mut().zip(sums) {
        *products = sum.to_array();
    }
    products
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_returns_after_a_period_is_periodic_and_noise_is_not() {
        let mut state = 1u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        let sound: [f32; LEN] = std::array::from_fn(|_| noise());
        assert!(periodicity(&sound) < 0.25, "{}", periodicity(&sound));
        for period in [16, 17, 23, 64, 100, 119] {
            let voice: [f32; LEN] = std::array::from_fn(|at| sound[at % period]);
            for len in [200, LEN] {
                let alike = alike(&voice[..len]).nth(period - PERIODS.start).unwrap();
                assert!((0.8..1.2).contains(&alike), "{period}: {alike}");
            }
        }
        assert_eq!(periodicity(&[0.0; LEN]), 0.0);
    }
}
