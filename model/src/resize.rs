//! Resizes with the antialiased bicubic kernel. Input: a picture and a size. Output: the picture at that size.
//! Source: ATen's `uint8` kernel (`aten/src/ATen/native/cpu/UpSampleKernel.cpp`, "Weights computation for uint8_t"), which
//! torchvision and so Hugging Face's `LlavaNextImageProcessor` uses. This file gives the same bytes.
//!
//! LLaVA-NeXT's "anyres" resizes a picture twice: onto the canvas of the tiles, and to the thumbnail.
//!
//! ATen's kernel is that of Pillow (`src/libImaging/Resample.c`: same support, same two passes, rounded to 8 bits between
//! them) with two differences:
//! - Pillow's weights have 22 fractional bits. ATen's are 16-bit integers with as many fractional bits as the largest
//!   weight of the pass allows (13 to 22). Up to 1 % of the bytes differ by 1, rarely by 2.
//! - Pillow 13 runs the vertical pass first if that is cheaper; ATen always runs the horizontal pass first. If both sides
//!   change and a pass overshoots and is clipped, single bytes differ by up to 31.

use crate::error::Error;
use crate::picture::{MAX_SIDE, Picture};

/// The free parameter of the cubic kernel. Pillow and ATen use this value for antialiased resizing.
const A: f64 = -0.5;
/// Half the width of the cubic kernel, in source pixels when enlarging, in target pixels when shrinking.
const SUPPORT: f64 = 2.0;
/// Rows that the horizontal pass computes at once: 24 bytes fill six vector registers of 128 bits with i32 sums.
const ROWS: usize = 8;
/// Weights are stored as `i16`: the largest weight of a pass must be below 2^15 after scaling.
const WEIGHT_LIMIT: i64 = 1 << 15;
/// Largest number of fractional bits: 255 * 2^22 leaves room in an `i32` sum for the overshoot of the kernel.
const MAX_PRECISION: u32 = 22;

/// The weights of one axis: `out[x] = clip(sum_j weights[x][j] * in[starts[x] + j])`.
struct Taps {
    /// First source index per target index, (out).
    starts: Vec<usize>,
    /// Number of used weights per target index, (out).
    counts: Vec<usize>,
    /// Weights as integers in units of 2^-precision, (out, stride); zeros after `counts`.
    weights: Vec<i16>,
    /// Number of places per target index in `weights`.
    stride: usize,
    /// Fractional bits of the weights.
    precision: u32,
}

/// Keys' cubic kernel with a = -0.5: `(a+2)|x|^3 - (a+3)x^2 + 1` for |x| < 1, `a|x|^3 - 5ax^2 + 8a|x| - 4a`
/// for |x| < 2, else 0.
fn cubic(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
    } else {
        0.0
    }
}

impl Taps {
    /// Weights of an axis with `input` source pixels and `output` target pixels; both at least 1.
    fn of(input: usize, output: usize) -> Self {
        let scale = input as f64 / output as f64;
        let stretch = scale.max(1.0); // antialiasing: the kernel is wider when the picture shrinks
        let support = SUPPORT * stretch;
        let stride = (support as f32).ceil() as usize * 2 + 1;
        let mut starts = Vec::with_capacity(output);
        let mut counts = Vec::with_capacity(output);
        let mut exact = vec![0f64; output * stride];
        let mut largest = 0f64;
        for (i, row) in exact.chunks_exact_mut(stride).enumerate() {
            let center = scale * (i as f64 + 0.5);
            // `as usize` truncates, and gives 0 for negative numbers: the cast and the max of the reference
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            let count = end.saturating_sub(first).min(stride);
            let row = &mut row[..count];
            for (j, weight) in row.iter_mut().enumerate() {
                *weight = cubic(((j + first) as f64 - center + 0.5) * (1.0 / stretch));
            }
            let total: f64 = row.iter().sum();
            for weight in row {
                if total != 0.0 {
                    *weight /= total;
                }
                largest = largest.max(*weight);
            }
            starts.push(first);
            counts.push(count);
        }
        let mut precision = 0;
        while precision < MAX_PRECISION && ((0.5 + largest * f64::from(1 << (precision + 1))) as i64) < WEIGHT_LIMIT {
            precision += 1;
        }
        // rounds half away from zero: the cast truncates towards zero
        let round = |w: f64| (w * f64::from(1 << precision) + 0.5f64.copysign(w)) as i16;
        Self { starts, counts, weights: exact.into_iter().map(round).collect(), stride, precision }
    }

    /// Weights of target index `i`, for the source indices from `starts[i]` on.
    fn weights(&self, i: usize) -> &[i16] {
        &self.weights[i * self.stride..][..self.counts[i]]
    }
}

/// `clip((half + sum_j weights[j] * lines[j]) / 2^precision)` for each byte of a bundle.
///
/// The sums of a bundle stay in registers over all lines, which makes this fast. Wrapping arithmetic, because overflow
/// checks prevent vector instructions. It cannot wrap: |sum| is at most 255 * 2^precision * sum |w|, which is below 2^31
/// for all weights of `Taps::of`.
fn blend<'a, const N: usize>(lines: impl Iterator<Item = &'a [u8; N]>, weights: &[i16], precision: u32) -> [u8; N] {
    let mut sums = [(1i32 << precision) >> 1; N]; // one half, so that the shift rounds
    for (line, &weight) in lines.zip(weights) {
        for (sum, &value) in sums.iter_mut().zip(line) {
            *sum = sum.wrapping_add(i32::from(value).wrapping_mul(i32::from(weight)));
        }
    }
    let mut bytes = [0; N];
    for (byte, sum) in bytes.iter_mut().zip(sums) {
        *byte = (sum >> precision).clamp(0, 255) as u8;
    }
    bytes
}

/// Horizontal pass: RGB8 rows of `input` pixels -> RGB8 rows of `output` pixels.
fn horizontal(rgb: &[u8], input: usize, output: usize) -> Vec<u8> {
    let taps = Taps::of(input, output);
    let mut out = vec![0; rgb.len() / input * output];
    // A bundle is the same pixel of ROWS rows, so that adjacent bytes have the same weight. Missing rows of the last
    // group keep old pixels, whose sums are not used.
    let mut bundles = vec![[0u8; 3 * ROWS]; input];
    for (sources, targets) in rgb.chunks(input * 3 * ROWS).zip(out.chunks_mut(output * 3 * ROWS)) {
        for (row, source) in sources.chunks_exact(input * 3).enumerate() {
            for (bundle, pixel) in bundles.iter_mut().zip(source.as_chunks::<3>().0) {
                bundle.as_chunks_mut::<3>().0[row] = *pixel;
            }
        }
        for x in 0..output {
            let bundle = blend(bundles[taps.starts[x]..].iter(), taps.weights(x), taps.precision);
            for (target, pixel) in targets.chunks_exact_mut(output * 3).zip(bundle.as_chunks::<3>().0) {
                target[x * 3..][..3].copy_from_slice(pixel);
            }
        }
    }
    out
}

/// Vertical pass: `input` rows of `width` RGB8 pixels -> `output` rows.
fn vertical(rgb: &[u8], width: usize, input: usize, output: usize) -> Vec<u8> {
    let taps = Taps::of(input, output);
    let length = width * 3;
    let mut out = vec![0; output * length];
    for (y, target) in out.chunks_exact_mut(length).enumerate() {
        let rows = &rgb[taps.starts[y] * length..];
        let (bundles, rest) = target.as_chunks_mut::<{ 3 * ROWS }>();
        let whole = bundles.len() * 3 * ROWS;
        for (i, bundle) in bundles.iter_mut().enumerate() {
            let lines = rows.chunks_exact(length).filter_map(|row| row[i * 3 * ROWS..].first_chunk());
            *bundle = blend(lines, taps.weights(y), taps.precision);
        }
        for (i, byte) in rest.iter_mut().enumerate() {
            let lines = rows.chunks_exact(length).filter_map(|row| row[whole + i..].first_chunk());
            [*byte] = blend(lines, taps.weights(y), taps.precision);
        }
    }
    out
}

/// Resizes to `width` x `height` pixels with the antialiased bicubic kernel: along the rows, rounded to u8, then along
/// the columns. A pass that does not change the size is skipped.
///
/// # Errors
/// [`Error::Picture`] if a side of the target is 0 or exceeds 16384.
pub fn bicubic(source: &Picture, width: usize, height: usize) -> Result<Picture, Error> {
    if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
        return Err(Error::Picture(format!(
            "cannot resize a picture to {width}x{height} pixels: expected 1 to {MAX_SIDE} per side; choose another size"
        )));
    }
    let wide = (width != source.width()).then(|| horizontal(source.rgb(), source.width(), width));
    let tall = (height != source.height())
        .then(|| vertical(wide.as_deref().unwrap_or(source.rgb()), width, source.height(), height));
    Picture::from_rgb(width, height, tall.or(wide).unwrap_or_else(|| source.rgb().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_has_its_known_values() {
        assert_eq!([0.0, 0.5, 1.0, 1.5, 2.0, -1.5].map(cubic), [1.0, 0.5625, 0.0, -0.0625, 0.0, -0.0625]);
    }

    #[test]
    fn weights_sum_to_one_and_fill_sixteen_bits() {
        for (input, output) in [(1, 1000), (1000, 1), (4000, 672), (7, 13), (2, 3), (16384, 48)] {
            let taps = Taps::of(input, output);
            assert!(i64::from(*taps.weights.iter().max().unwrap_or(&0)) < WEIGHT_LIMIT);
            for (i, row) in taps.weights.chunks_exact(taps.stride).enumerate() {
                let sum: i64 = row.iter().map(|&w| i64::from(w)).sum();
                let error = (sum - (1 << taps.precision)).unsigned_abs() as usize;
                assert!(error <= taps.counts[i], "{input} -> {output}: sum off by {error}");
                assert!(taps.starts[i] + taps.counts[i] <= input);
            }
        }
    }

    #[test]
    fn a_flat_picture_stays_flat() -> Result<(), Error> {
        let flat = Picture::from_rgb(5, 7, [9, 128, 255].repeat(35))?;
        for (width, height) in [(1, 1), (5, 7), (13, 7), (5, 2), (40, 3)] {
            let out = bicubic(&flat, width, height)?;
            assert_eq!((out.width(), out.height()), (width, height));
            assert_eq!(out.rgb(), [9, 128, 255].repeat(width * height));
        }
        Ok(())
    }

    #[test]
    fn impossible_targets_are_refused() -> Result<(), Error> {
        let dot = Picture::from_rgb(1, 1, vec![0; 3])?;
        for (width, height) in [(0, 1), (1, 0), (MAX_SIDE + 1, 1), (1, usize::MAX)] {
            assert!(matches!(bicubic(&dot, width, height), Err(Error::Picture(_))));
        }
        Ok(())
    }
}
