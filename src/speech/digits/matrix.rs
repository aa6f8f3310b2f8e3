//! What the network spends its time on: weights times the inputs of several streams. On as many
//! lanes as the processor has, found when the program runs; on every processor to the same bits.

use fearless_simd::{Level, Simd, SimdBase, dispatch, f32x8};

use super::model::Matrix;

/// Sums side by side, whatever the processor: what a product is made of in the end is fixed.
const LANES: usize = 8;
/// Rows of weights at once, so that an input is fetched less often; and that many streams: their
/// sums are what the registers of a processor hold.
const ROWS: usize = 4;
const ABREAST: usize = 3;

impl Matrix {
    /// Multiplied with the input of each stream; `ends` gives a stream's input, of as many values
    /// as there are columns, and its output, of as many as there are rows.
    pub fn apply<T>(&self, streams: &mut [T], ends: impl Fn(&mut T) -> (&[f32], &mut [f32])) {
        self.apply_by(Level::new(), streams, ends);
    }

    /// By the instructions of this level.
    fn apply_by<T>(
        &self,
        level: Level,
        streams: &mut [T],
        ends: impl Fn(&mut T) -> (&[f32], &mut [f32]),
    ) {
        dispatch!(level, simd => {
            let (abreast, others) = streams.as_chunks_mut::<ABREAST>();
            for streams in abreast {
                self.multiply(simd, streams.each_mut().map(&ends));
            }
            let (pairs, others) = others.as_chunks_mut::<2>();
            for streams in pairs {
                self.multiply(simd, streams.each_mut().map(&ends));
            }
            for stream in others {
                self.multiply(simd, [ends(stream)]);
            }
        });
    }

    #[inline(always)]
    fn multiply<S: Simd, const N: usize>(&self, simd: S, mut ends: [(&[f32], &mut [f32]); N]) {
        let columns = self.weights.len() / self.bias.len();
        let (blocks, last) = self.bias.as_chunks::<ROWS>();
        for (nth, bias) in blocks.iter().enumerate() {
            let first = nth * ROWS;
            let rows =
                std::array::from_fn(|row| &self.weights[(first + row) * columns..][..columns]);
            block::<S, ROWS, N>(simd, rows, bias, first, &mut ends);
        }
        for (nth, bias) in last.iter().enumerate() {
            let first = self.bias.len() - last.len() + nth;
            let row = &self.weights[first * columns..][..columns];
            block::<S, 1, N>(simd, [row], &[*bias], first, &mut ends);
        }
    }
}

#[inline(always)]
fn block<S: Simd, const R: usize, const N: usize>(
    simd: S,
    rows: [&[f32]; R],
    bias: &[f32; R],
    first: usize,
    ends: &mut [(&[f32], &mut [f32]); N],
) {
    let whole = rows[0].len() / LANES;
    let weights = rows.map(|row| &row.as_chunks::<LANES>().0[..whole]);
    let inputs: [_; N] = std::array::from_fn(|nth| &ends[nth].0.as_chunks::<LANES>().0[..whole]);
    let mut sums = [[f32x8::splat(simd, 0.0); N]; R];
    for at in 0..whole {
        // Loops, not closures: those would not be inlined, and then be compiled for any processor.
        let mut values = [f32x8::splat(simd, 0.0); N];
        for (value, input) in values.iter_mut().zip(&inputs) {
            *value = f32x8::load_array_ref(simd, &input[at]);
        }
        for (sums, weights) in sums.iter_mut().zip(&weights) {
            let weights = f32x8::load_array_ref(simd, &weights[at]);
            for (sum, value) in sums.iter_mut().zip(&values) {
                *sum += weights * *value;
            }
        }
    }
    for row in 0..R {
        for (sum, (input, out)) in sums[row].iter().zip(&mut *ends) {
            let rest = rows[row][whole * LANES..].iter().zip(&input[whole * LANES..]);
            let rest: f32 = rest.map(|(weight, value)| weight * value).sum();
            out[first + row] = bias[row] + (sum.to_array().iter().sum::<f32>() + rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::frame::dot;

    #[test]
    fn products_are_the_same_to_the_bit_however_many_streams_and_rows() {
        let values = |len: usize, seed: u32| -> Vec<f32> {
            let mut state = seed;
            let next = std::iter::repeat_with(|| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 8_388_608.0 - 1.0
            });
            next.take(len).collect()
        };
        for (rows, columns) in [(1, 1), (2, 2), (4, 8), (5, 7), (9, 33), (13, 96), (61, 250)] {
            let matrix = Matrix { weights: values(rows * columns, 1), bias: values(rows, 2) };
            for streams in 0..8 {
                let mut ends: Vec<_> =
                    (0..streams).map(|nth| (values(columns, 3 + nth), vec![0.0; rows])).collect();
                for level in [Level::new(), Level::baseline()] {
                    matrix.apply_by(level, &mut ends, |(input, out)| (&input[..], &mut out[..]));
                    for (input, out) in &mut ends {
                        for (nth, row) in matrix.weights.chunks_exact(columns).enumerate() {
                            let expected = matrix.bias[nth] + dot(row, input);
                            assert_eq!(out[nth], expected, "{level:?}, {rows}x{columns}");
                        }
                        out.fill(f32::NAN);
                    }
                }
            }
        }
    }
}
