//! How like itself sound is a pitch period later: a voice's is, noise is not.

use fearless_simd::{Level, Simd, SimdBase, dispatch, f32x8};

use super::bank::HOP;
use super::fit::LONG;
use crate::media::frame::dot;

/// The shortest pitch period looked for, in samples: 500 Hz.
const SHORTEST: usize = 16;
/// Periods looked for, eight side by side; the longest is that of 67 Hz.
const GROUPS: usize = 13;
const LANES: usize = 8;
const LEN: usize = LONG * HOP;
/// With what the longest period takes beyond the end.
const ROOM: usize = LEN + GROUPS * LANES;

/// 1 is entirely, noise about 0.
pub fn periodicity(sound: &[f32; LEN]) -> f32 {
    let mut room = [0.0; ROOM];
    room[..LEN].copy_from_slice(sound);
    let products = dispatch!(Level::new(), simd => products(simd, &room));
    let products = products.as_flattened().iter().enumerate();
    let alike = products.map(|(nth, product)| product / (LEN - SHORTEST - nth) as f32);
    alike.fold(0.0, f32::max) * LEN as f32 / dot(sound, sound).max(f32::MIN_POSITIVE)
}

/// Of the sound with itself, by period. What follows the sound in its room is zero.
#[inline(always)]
fn products<S: Simd>(simd: S, room: &[f32; ROOM]) -> [[f32; LANES]; GROUPS] {
    let mut sums = [f32x8::splat(simd, 0.0); GROUPS];
    for at in 0..LEN - SHORTEST {
        let now = f32x8::splat(simd, room[at]);
        let later = &room[at + SHORTEST..][..GROUPS * LANES];
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
            let told = periodicity(&voice);
            assert!((0.7..1.3).contains(&told), "{period}: {told}");
        }
        assert_eq!(periodicity(&[0.0; LEN]), 0.0);
    }
}
