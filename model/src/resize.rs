//! Resizes with an antialiased kernel, bicubic or Lanczos. Input: a picture and a size. Output: the picture at that
//! size, or a part of it. Source: ATen's `uint8` kernel (`aten/src/ATen/native/cpu/UpSampleKernel.cpp`, "Weights
//! computation for uint8_t"), which torchvision and so Hugging Face's image processors use. This file gives the same
//! bytes.
//!
//! ATen's kernel is that of Pillow (`src/libImaging/Resample.c`: same support, same two passes, rounded to 8 bits
//! between them) with two differences:
//! - Pillow's weights have 22 fractional bits. ATen's are 16-bit integers with as many fractional bits as the largest
//!   weight of the pass allows (13 to 22). Up to 1 % of the bytes differ by 1, rarely by 2.
//! - Pillow 13 runs the vertical pass first if that is cheaper; ATen always runs the horizontal pass first. If both
//!   sides change and a pass overshoots and is clipped, single bytes differ by up to 31.

use std::{borrow::Cow, f64::consts::PI, ops::Range};

use crate::error::Error;
use crate::picture::{MAX_SIDE, Picture};

/// The free parameter of the cubic kernel. Pillow and ATen use this value for antialiased resizing.
const A: f64 = -0.5;
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

/// The kernel that a picture is resized with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Keys' cubic kernel with a = -0.5: `(a+2)|x|^3 - (a+3)x^2 + 1` where |x| is below 1,
    /// `a|x|^3 - 5ax^2 + 8a|x| - 4a` where it is below 2, else 0.
    Bicubic,
    /// `sinc(x) sinc(x/3)` where |x| is below 3, else 0; `sinc(x) = sin(pi x) / (pi x)`.
    Lanczos,
}

impl Kernel {
    /// Half the width of the kernel, in source pixels when enlarging, in target pixels when shrinking.
    fn support(self) -> f64 {
        match self {
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            _ if x >= self.support() => 0.0,
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic => ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A,
            Self::Lanczos => sinc(x) * sinc(x / 3.0),
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
}

impl Taps {
    /// Weights of the target pixels `part` of an axis with `input` source pixels and `output` target pixels; both at
    /// least 1.
    fn of(input: usize, output: usize, part: Range<usize>, kernel: Kernel) -> Self {
        let scale = input as f64 / output as f64;
        let stretch = scale.max(1.0); // antialiasing: the kernel is wider when the picture shrinks
        let support = kernel.support() * stretch;
        let stride = (support as f32).ceil() as usize * 2 + 1;
        // writes the weights of target pixel `i` into `row`; gives the first source pixel and the number of weights
        let weigh = |i: usize, row: &mut [f64]| {
            let center = scale * (i as f64 + 0.5);
            // `as usize` truncates, and gives 0 for negative numbers: the cast and the max of the reference
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            let count = end.saturating_sub(first).min(stride);
            let row = &mut row[..count];
            for (j, weight) in row.iter_mut().enumerate() {
                *weight = kernel.weight(((j + first) as f64 - center + 0.5) * (1.0 / stretch));
            }
            let total: f64 = row.iter().sum();
            if total != 0.0 {
                row.iter_mut().for_each(|weight| *weight /= total);
            }
            (first, count)
        };
        let mut exact = vec![0f64; part.len() * stride];
        let (starts, counts) = part.clone().zip(exact.chunks_exact_mut(stride)).map(|(i, row)| weigh(i, row)).unzip();
        // The precision depends on the largest weight of all target pixels, not only of the part. When the picture is
        // enlarged, the first one has a weight of at least 1, and no weight reaches 2: the others change nothing.
        let mut largest = exact.iter().copied().fold(0.0, f64::max);
        let mut row = vec![0f64; stride];
        for i in (0..if output > input { 1 } else { output }).filter(|i| !part.contains(i)) {
            let (_, count) = weigh(i, &mut row);
            largest = row[..count].iter().copied().fold(largest, f64::max);
        }
        let mut precision = 0;
        while precision < MAX_PRECISION && ((0.5 + largest * f64::from(1 << (precision + 1))) as i64) < WEIGHT_LIMIT {
            precision += 1;
        }
        // rounds half away from zero: the cast truncates towards zero
        let round = |w: f64| (w * f64::from(1 << precision) + 0.5f64.copysign(w)) as i16;
        Self { starts, counts, weights: exact.into_iter().map(round).collect(), stride, precision }
    }

    /// The source indices that the weights read.
    fn sources(&self) -> Range<usize> {
        let ends = self.starts.iter().zip(&self.counts).map(|(start, count)| start + count);
        self.starts.first().copied().unwrap_or(0)..ends.max().unwrap_or(0)
    }

    /// Weights of target index `i`, for the source indices from `starts[i]` on.
    fn weights(&self, i: usize) -> &[i16] {
        &self.weights[i * self.stride..][..self.counts[i]]
    }
}

/// `clip((half + sum_j weights[j] * lines[j]) / 2^precision)` for each byte of a bundle.
///
/// The sums of a bundle stay in registers over all lines, which makes this fast. Wrapping arithmetic, because overflow
/// checks prevent vector instructions. It cannot wrap: |sum| is at most 255 * 2^precision * sum |w|, which is below
/// 2^31 for all weights of `Taps::of`.
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

/// A picture in the middle of a canvas of one color. An odd pixel of padding is right or below.
struct Framed<'a> {
    picture: &'a Picture,
    width: usize,
    height: usize,
    color: [u8; 3],
}

/// Horizontal pass over the canvas's `rows`: RGB8 rows of the canvas's width -> RGB8 rows of `taps`' target pixels.
fn horizontal(source: &Framed, rows: Range<usize>, taps: &Taps) -> Vec<u8> {
    let (width, output) = (source.picture.width(), taps.starts.len());
    let (top, left) = ((source.height - source.picture.height()) / 2, (source.width - width) / 2);
    // the picture's rows; rows of the frame have one color, also after the pass
    let inner = rows.start.max(top)..rows.end.min(top + source.picture.height());
    let mut out = source.color.repeat(rows.len() * output);
    if inner.is_empty() {
        return out;
    }
    let rgb = &source.picture.rgb()[(inner.start - top) * width * 3..(inner.end - top) * width * 3];
    let target = &mut out[(inner.start - rows.start) * output * 3..(inner.end - rows.start) * output * 3];
    // A bundle is the same pixel of ROWS rows, so that adjacent bytes have the same weight. Missing rows of the last
    // group keep old pixels, whose sums are not used.
    let mut frame = [0u8; 3 * ROWS];
    frame.as_chunks_mut::<3>().0.fill(source.color);
    let mut bundles = vec![frame; source.width];
    for (sources, targets) in rgb.chunks(width * 3 * ROWS).zip(target.chunks_mut(output * 3 * ROWS)) {
        for (row, source) in sources.chunks_exact(width * 3).enumerate() {
            for (bundle, pixel) in bundles[left..].iter_mut().zip(source.as_chunks::<3>().0) {
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

/// Vertical pass: rows of `width` RGB8 pixels, of which the first is source row `first` -> rows of `taps`' target
/// pixels.
fn vertical(rgb: &[u8], width: usize, first: usize, taps: &Taps) -> Vec<u8> {
    let length = width * 3;
    let mut out = vec![0; taps.starts.len() * length];
    for (y, target) in out.chunks_exact_mut(length).enumerate() {
        let rows = &rgb[(taps.starts[y] - first) * length..];
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

/// The part `[left, top, width, height]` of a canvas that is resized to `target` (width, height). A pass that does not
/// change the size is skipped.
fn resized(
    source: &Framed,
    target: (usize, usize),
    [left, top, width, height]: [usize; 4],
    kernel: Kernel,
) -> Result<Picture, Error> {
    let inside = |first: usize, length: usize, whole: usize| first.checked_add(length).is_some_and(|end| end <= whole);
    if !(1..=MAX_SIDE).contains(&width)
        || !(1..=MAX_SIDE).contains(&height)
        || !inside(left, width, target.0)
        || !inside(top, height, target.1)
    {
        return Err(Error::Picture(format!(
            "cannot resize a picture to {width}x{height} pixels: expected 1 to {MAX_SIDE} per side; choose another size"
        )));
    }
    let picture = source.picture;
    let framed = (source.width, source.height) != (picture.width(), picture.height());
    let (same_rows, same_columns) = (
        !framed && (target.1, height) == (source.height, source.height),
        !framed && (target.0, width) == (source.width, source.width),
    );
    let taps = (!same_rows).then(|| Taps::of(source.height, target.1, top..top + height, kernel));
    let rows = taps.as_ref().map_or(0..source.height, Taps::sources);
    let wide = if same_columns {
        Cow::Borrowed(&picture.rgb()[rows.start * width * 3..rows.end * width * 3])
    } else {
        let taps = Taps::of(source.width, target.0, left..left + width, kernel);
        Cow::Owned(horizontal(source, rows.clone(), &taps))
    };
    let rgb = match taps {
        Some(taps) => vertical(&wide, width, rows.start, &taps),
        None => wide.into_owned(),
    };
    Picture::from_rgb(width, height, rgb)
}

/// Resizes to `width` x `height` pixels with an antialiased kernel: along the rows, rounded to u8, then along the
/// columns. A pass that does not change the size is skipped.
///
/// # Errors
/// [`Error::Picture`] if a side of the target is 0 or exceeds 16384.
pub fn resize(source: &Picture, width: usize, height: usize, kernel: Kernel) -> Result<Picture, Error> {
    resize_part(source, (width, height), [0, 0, width, height], kernel)
}

/// The part `[left, top, width, height]` of what [`resize`] to `target` (width, height) gives. Time and memory depend
/// on the part and the source, not on the target, which may be larger than a picture can be.
///
/// # Errors
/// [`Error::Picture`] if a side of the part is 0 or exceeds 16384, or if the part is not inside the target.
pub fn resize_part(
    source: &Picture,
    target: (usize, usize),
    part: [usize; 4],
    kernel: Kernel,
) -> Result<Picture, Error> {
    let whole = Framed { picture: source, width: source.width(), height: source.height(), color: [0; 3] };
    resized(&whole, target, part, kernel)
}

/// Pads a picture to a square with one color, an odd pixel right or below, and resizes the square to `side` x `side`
/// pixels. The square itself is never in memory.
///
/// # Errors
/// [`Error::Picture`] if `side` is 0 or exceeds 16384.
pub(crate) fn resize_square(source: &Picture, side: usize, color: [u8; 3], kernel: Kernel) -> Result<Picture, Error> {
    let length = source.width().max(source.height());
    let square = Framed { picture: source, width: length, height: length, color };
    resized(&square, (side, side), [0, 0, side, side], kernel)
}

/// [`resize`] with the bicubic kernel.
///
/// # Errors
/// [`Error::Picture`] if a side of the target is 0 or exceeds 16384.
pub fn bicubic(source: &Picture, width: usize, height: usize) -> Result<Picture, Error> {
    resize(source, width, height, Kernel::Bicubic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_have_their_known_values() {
        let cubic = [0.0, 0.5, 1.0, 1.5, 2.0, -1.5].map(|x| Kernel::Bicubic.weight(x));
        assert_eq!(cubic, [1.0, 0.5625, 0.0, -0.0625, 0.0, -0.0625]);
        let lanczos = [0.0, 0.5, 1.0, 1.5, 2.5, 3.0, -1.5].map(|x| (Kernel::Lanczos.weight(x) * 1e6).round());
        assert_eq!(lanczos, [1e6, 607_927.0, 0.0, -135_095.0, 24_317.0, 0.0, -135_095.0]);
    }

    #[test]
    fn weights_sum_to_one_and_fill_sixteen_bits() {
        for (input, output) in [(1, 1000), (1000, 1), (4000, 672), (7, 13), (2, 3), (16384, 48), (16384, 16383)] {
            for kernel in [Kernel::Bicubic, Kernel::Lanczos] {
                let taps = Taps::of(input, output, 0..output, kernel);
                assert!(i64::from(*taps.weights.iter().max().unwrap_or(&0)) < WEIGHT_LIMIT);
                for (i, row) in taps.weights.chunks_exact(taps.stride).enumerate() {
                    let sum: i64 = row.iter().map(|&w| i64::from(w)).sum();
                    let error = (sum - (1 << taps.precision)).unsigned_abs() as usize;
                    assert!(error <= taps.counts[i], "{input} -> {output}: sum off by {error}");
                    let size: i64 = row.iter().map(|&w| i64::from(w).abs()).sum();
                    assert!(size * 255 + (1 << taps.precision) < 1 << 31, "{input} -> {output}: {size} may overflow");
                    assert!(taps.starts[i] + taps.counts[i] <= input);
                }
            }
        }
    }

    #[test]
    fn a_part_has_the_weights_of_the_whole() {
        for (input, output) in [(1, 9), (2, 3), (7, 13), (90, 91), (91, 90), (30, 30), (400, 7), (17, 5000)] {
            for kernel in [Kernel::Bicubic, Kernel::Lanczos] {
                let (all, half) = (Taps::of(input, output, 0..output, kernel), output / 2);
                let part = Taps::of(input, output, half..output, kernel);
                assert_eq!(part.precision, all.precision, "{input} -> {output}");
                assert_eq!(part.starts, all.starts[half..]);
                assert_eq!(part.weights, all.weights[half * all.stride..]);
            }
        }
    }

    #[test]
    fn a_flat_picture_stays_flat() -> Result<(), Error> {
        let flat = Picture::from_rgb(5, 7, [9, 128, 255].repeat(35))?;
        for (width, height) in [(1, 1), (5, 7), (13, 7), (5, 2), (40, 3)] {
            for kernel in [Kernel::Bicubic, Kernel::Lanczos] {
                let out = resize(&flat, width, height, kernel)?;
                assert_eq!((out.width(), out.height()), (width, height));
                assert_eq!(out.rgb(), [9, 128, 255].repeat(width * height));
                assert_eq!(
                    resize_square(&flat, width, [9, 128, 255], kernel)?.rgb(),
                    [9, 128, 255].repeat(width * width)
                );
            }
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
