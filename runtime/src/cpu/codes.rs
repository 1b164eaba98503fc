//! Products of a matrix of 8-bit or 4-bit codes with up to 8 rows, and its values in f32.
//!
//! A vector has words of codes, and a group is at least 4 words, so each lane of a vector has one scale. Bits of a word
//! from bit p on become an integer without a conversion: with the exponent of `2^(23 - p)`, the float is `2^(23 - p) +
//! code`, and a subtraction gives `code - center`, exact.

use fovea_shaders::Format;
use pulp::{Arch, Simd, WithSimd};

use super::{Line, for_each_chunk, lanes, lines, matvec::in_tasks};

/// Codes per task: large enough that the overhead of a task does not matter.
const GRAIN: usize = 1 << 17;

/// Values of `x` that are read for each row of a task before the next ones: they stay in the first cache.
const BLOCK: usize = 1 << 12;

/// Vectors of words that are loaded before the first one is used, each with its own sum, for one row of `x`: a
/// processor that waits for memory has more loads under way. WebAssembly has too few registers.
const AHEAD: usize = if cfg!(target_family = "wasm") { 1 } else { 4 };

/// Rows of a matrix of codes; see [`fovea_shaders::dequantise`].
#[derive(Clone, Copy)]
pub(crate) struct Codes<'a> {
    /// Words of codes, row after row.
    pub(crate) words: &'a [u32],
    /// Words of scales, row after row.
    pub(crate) scales: &'a [u32],
    /// Values per row.
    pub(crate) width: usize,
    pub(crate) format: Format,
}

impl<'a> Codes<'a> {
    /// The number of rows.
    pub(super) fn height(self) -> usize {
        self.words.len() / self.format.words(self.width)
    }

    /// `count` rows from `first` on.
    pub(crate) fn rows(self, first: usize, count: usize) -> Self {
        let (words, scales) = (self.format.words(self.width), self.format.scale_words(self.width));
        Self {
            words: &self.words[first * words..][..count * words],
            scales: &self.scales[first * scales..][..count * scales],
            ..self
        }
    }

    /// Scales and offsets of all groups: `value = scale (code - center) + offset`. Without minima there are no offsets, and
    /// a row may end with an unused scale.
    #[inline(always)]
    fn groups<S: Simd>(self, simd: S, center: u32) -> [Vec<f32>; 2] {
        if !self.format.minimum {
            let halves: &[u16] = bytemuck::cast_slice(self.scales);
            let mut scales = vec![0.0; halves.len()];
            let mut done = 0;
            if lanes::converts::<S>() {
                let (halves, scales) = (halves.as_chunks().0, S::as_mut_simd_f32s(&mut scales).0);
                for (scales, halves) in scales.iter_mut().zip(halves) {
                    *scales = lanes::convert(simd, halves);
                }
                done = halves.len() * S::F32_LANES;
            }
            for (scale, half) in scales[done..].iter_mut().zip(&halves[done..]) {
                *scale = lanes::widen(*half);
            }
            return [scales, Vec::new()];
        }
        let mut out = [vec![0.0; self.scales.len()], vec![0.0; self.scales.len()]];
        let [scales, offsets] = &mut out;
        let center = center as f32;
        for ((word, scale), offset) in self.scales.iter().zip(scales).zip(offsets) {
            *scale = lanes::widen(*word as u16);
            *offset = lanes::widen((word >> 16) as u16) + center * *scale;
        }
        out
    }

    /// Scales of a row in [`Codes::groups`].
    pub(super) fn stride(self) -> usize {
        self.format.scale_words(self.width) * if self.format.minimum { 1 } else { 2 }
    }
}

/// [`Codes::groups`] with the zero of the format as the center.
pub(super) struct Groups<'a>(pub(super) Codes<'a>);

impl WithSimd for Groups<'_> {
    type Output = [Vec<f32>; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [Vec<f32>; 2] {
        self.0.groups(simd, self.0.format.zero())
    }
}

/// The code in the middle: a small range of `code - center` keeps the rounding errors of a sum small.
const fn center(bits: u32) -> u32 {
    1 << (bits - 1)
}

/// The element of code `k` of a word (counted from the low bits) among those of the word.
const fn element(bits: u32, k: usize) -> usize {
    if bits == 8 { k } else { k / 2 + k % 2 * 4 }
}

/// `out[r][n]` is the product of row `n` of the weight with row `r` of `x`, summed in f32.
///
/// # Shapes
/// `weight` (height, width), `x` (rows, width) with 1 to 8 rows, `out` (rows, height).
///
/// # Panics
/// Where the lengths do not agree.
pub(crate) fn matvec(weight: Codes, x: &[f32], out: &mut [f32]) {
    let (rows, height) = (x.len() / weight.width, weight.height());
    assert_eq!((rows * weight.width, rows * height), (x.len(), out.len()), "matvec: lengths");
    match rows {
        1 => run::<1>(weight, x, out),
        2 => run::<2>(weight, x, out),
        3 => run::<3>(weight, x, out),
        4 => run::<4>(weight, x, out),
        5 => run::<5>(weight, x, out),
        6 => run::<6>(weight, x, out),
        7 => run::<7>(weight, x, out),
        8 => run::<8>(weight, x, out),
        _ => panic!("matvec: expected 1 to 8 rows, got {rows}; use a matrix product"),
    }
}

fn run<const R: usize>(weight: Codes, x: &[f32], out: &mut [f32]) {
    let arch = Arch::new();
    let x = arch.dispatch(Spread { x, weight });
    in_tasks::<R>((GRAIN / weight.width).max(1), out, |first, sums| {
        let weight = weight.rows(first, sums.len() / R);
        arch.dispatch(Products::<R> { weight, x: &x, sums });
    });
}

/// The rows of `x` as [`Products`] reads them: for each vector of words and each code of a word, a vector of each row,
/// padded with zeros. If a format has minima, a vector of sums of each row follows for each vector of groups.
struct Spread<'a> {
    x: &'a [f32],
    weight: Codes<'a>,
}

impl WithSimd for Spread<'_> {
    type Output = Vec<Line>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<Line> {
        let Codes { width, format, .. } = self.weight;
        let (lanes, rows, codes) = (S::F32_LANES, self.x.len() / width, 32 / format.bits as usize);
        let values = format.words(width).next_multiple_of(lanes) * codes * rows;
        let sums = if format.minimum { (width / format.group as usize).next_multiple_of(lanes) * rows } else { 0 };
        let mut out = lines(values + sums);
        let (values, sums) = bytemuck::cast_slice_mut(&mut out).split_at_mut(values);
        for (r, x) in self.x.chunks_exact(width).enumerate() {
            for (x, out) in x.chunks(codes * lanes).zip(values.chunks_exact_mut(codes * lanes * rows)) {
                for (k, out) in out.chunks_exact_mut(lanes * rows).enumerate() {
                    let x = x.iter().skip(element(format.bits, k)).step_by(codes);
                    out[r * lanes..].iter_mut().zip(x).for_each(|(out, x)| *out = *x);
                }
            }
            if format.minimum {
                for (g, x) in x.chunks_exact(format.group as usize).enumerate() {
                    let sum: f64 = x.iter().map(|x| f64::from(*x)).sum();
                    sums[(g / lanes * rows + r) * lanes + g % lanes] = sum as f32;
                }
            }
        }
        out
    }
}

/// The products of each row of the weight with `R` rows of `x`: `R` sums side by side.
struct Products<'a, const R: usize> {
    weight: Codes<'a>,
    /// From [`Spread`].
    x: &'a [Line],
    sums: &'a mut [f32],
}

impl<const R: usize> WithSimd for Products<'_, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.weight.format.bits {
            8 => products::<S, 8, 4, R>(simd, self),
            _ => products::<S, 4, 8, R>(simd, self),
        }
    }
}

/// `N` is the number of codes per word.
#[inline(always)]
fn products<S: Simd, const BITS: u32, const N: usize, const R: usize>(simd: S, task: Products<R>) {
    let Codes { words, width, format, .. } = task.weight;
    let (count, groups) = (format.words(width), width / format.group as usize);
    let vectors = count.div_ceil(S::F32_LANES);
    let (x, x_sums) = S::as_simd_f32s(bytemuck::cast_slice(task.x)).0.as_chunks::<R>().0.split_at(vectors * N);
    let x = x.as_chunks::<N>().0;
    let [mut scales, offsets] = task.weight.groups(simd, center(BITS));
    let (stride, shift) = (task.weight.stride(), (count / groups).ilog2());
    // Vectors of scales are loaded beyond a row.
    scales.resize(scales.len() + S::F32_LANES, 0.0);
    let mut lane = vec![0; S::F32_LANES];
    for (l, lane) in lane.iter_mut().enumerate() {
        *lane = l as u32 >> shift;
    }
    let lane = S::as_simd_u32s(&lane).0[0];
    task.sums.fill(0.0);
    // For fewer rows, reading each row of the weight at once is faster.
    let block = if R < 3 { vectors } else { (BLOCK / (S::F32_LANES * N * R)).max(1) };
    for (i, x) in x.chunks(block).enumerate() {
        let start = i * block * S::F32_LANES;
        for (n, (row, sums)) in words.chunks_exact(count).zip(task.sums.chunks_exact_mut(R)).enumerate() {
            let scales = &scales[n * stride..];
            let row = &row[start..count.min(start + block * S::F32_LANES)];
            let (whole, tail) = S::as_simd_u32s(row);
            let mut sum = [simd.splat_f32s(0.0); R];
            let mut first = start;
            let mut done = 0;
            if R == 1 {
                let mut sums = [[simd.splat_f32s(0.0); R]; AHEAD];
                let (words, x) = (whole.as_chunks::<AHEAD>().0, x.as_chunks::<AHEAD>().0);
                for (words, x) in words.iter().zip(x) {
                    for a in 0..AHEAD {
                        let scale = lanes::pick(simd, &scales[first >> shift..], lane);
                        add::<S, BITS, N, R>(simd, words[a], scale, &x[a], &mut sums[a]);
                        first += S::F32_LANES;
                    }
                }
                for part in sums {
                    sum[0] = simd.add_f32s(sum[0], part[0]);
                }
                done = words.len() * AHEAD;
            }
            for (words, x) in whole[done..].iter().zip(&x[done..]) {
                let scale = lanes::pick(simd, &scales[first >> shift..], lane);
                add::<S, BITS, N, R>(simd, *words, scale, x, &mut sum);
                first += S::F32_LANES;
            }
            if !tail.is_empty() {
                let scale = lanes::pick(simd, &scales[first >> shift..], lane);
                add::<S, BITS, N, R>(simd, simd.partial_load_u32s(tail), scale, &x[whole.len()], &mut sum);
            }
            if format.minimum && i == 0 {
                let (whole, tail) = S::as_simd_f32s(&offsets[n * stride..][..stride]);
                for (offset, x) in whole.iter().zip(x_sums) {
                    for r in 0..R {
                        sum[r] = simd.mul_add_e_f32s(*offset, x[r], sum[r]);
                    }
                }
                if !tail.is_empty() {
                    let offset = simd.partial_load_f32s(tail);
                    for r in 0..R {
                        sum[r] = simd.mul_add_e_f32s(offset, x_sums[whole.len()][r], sum[r]);
                    }
                }
            }
            for r in 0..R {
                sums[r] += simd.reduce_sum_f32s(sum[r]);
            }
        }
    }
}

/// Adds the products of a vector of words.
#[inline(always)]
fn add<S: Simd, const BITS: u32, const N: usize, const R: usize>(
    simd: S,
    words: S::u32s,
    scale: S::f32s,
    x: &[[S::f32s; R]; N],
    sum: &mut [S::f32s; R],
) {
    // The high half is shifted, because an f32 has 23 bits below its exponent.
    let halves = [words, lanes::shr(simd, words, 16)];
    let mut part = [simd.splat_f32s(0.0); R];
    for k in 0..N {
        let place = BITS * (k % (N / 2)) as u32;
        let (mask, one) = (((1 << BITS) - 1) << place, (1 << (23 - place)) as f32);
        let bits = simd.and_u32s(halves[k / (N / 2)], simd.splat_u32s(mask));
        let value = lanes::from_bits::<S>(simd.or_u32s(bits, simd.splat_u32s(one.to_bits())));
        let value = simd.sub_f32s(value, simd.splat_f32s(one + center(BITS) as f32));
        for r in 0..R {
            part[r] = simd.mul_add_e_f32s(value, x[k][r], part[r]);
        }
    }
    for r in 0..R {
        sum[r] = simd.mul_add_e_f32s(part[r], scale, sum[r]);
    }
}

/// The values of all rows in f32, on all threads: each with one rounding.
///
/// # Panics
/// Where the lengths do not agree.
pub(crate) fn values(from: Codes, out: &mut [f32]) {
    assert_eq!(from.height() * from.width, out.len(), "values: lengths");
    let (arch, rows) = (Arch::new(), (GRAIN / from.width).max(1));
    for_each_chunk(out, rows * from.width, |i, out| {
        let from = from.rows(i * rows, out.len() / from.width);
        arch.dispatch(Values { from, out });
    });
}

struct Values<'a> {
    from: Codes<'a>,
    out: &'a mut [f32],
}

impl WithSimd for Values<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Codes { words, width, format, .. } = self.from;
        let (count, group) = (format.words(width), format.group as usize);
        let ([scales, mut offsets], stride) = (self.from.groups(simd, format.zero()), self.from.stride());
        offsets.resize(scales.len(), 0.0);
        let zero = format.zero() as f32;
        for (n, (words, out)) in words.chunks_exact(count).zip(self.out.chunks_exact_mut(width)).enumerate() {
            let groups = words.chunks_exact(count * group / width).zip(out.chunks_exact_mut(group));
            let factors = scales[n * stride..].iter().zip(&offsets[n * stride..]);
            for ((words, out), (scale, offset)) in groups.zip(factors) {
                let mut codes = [0u64; 16];
                let codes: &[u8] = if format.bits == 8 {
                    bytemuck::cast_slice(words)
                } else {
                    for (codes, word) in codes.iter_mut().zip(words) {
                        *codes = u64::from(word & 0x0f0f_0f0f) | u64::from(word >> 4 & 0x0f0f_0f0f) << 32;
                    }
                    bytemuck::cast_slice(&codes)
                };
                for (out, code) in out.iter_mut().zip(codes) {
                    *out = (f32::from(*code) - zero) * scale + offset;
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use fovea_shaders::{Format, dequantise};
    use half::f16;
    use pulp::{Scalar, Simd};

    #[cfg(not(target_family = "wasm"))]
    use super::super::threads::tests::with;
    use super::super::{Matrix, matvec, test_values};
    use super::{Codes, Products, Spread};

    pub(in crate::cpu) const FORMATS: [Format; 12] = [
        Format::Q8,
        Format { bits: 8, minimum: false, group: 16 },
        Format { bits: 8, minimum: false, group: 128 },
        Format { bits: 8, minimum: true, group: 32 },
        Format { bits: 8, minimum: true, group: 64 },
        Format { bits: 8, minimum: true, group: 128 },
        Format::Q4,
        Format { bits: 4, minimum: false, group: 64 },
        Format { bits: 4, minimum: false, group: 128 },
        Format { bits: 4, minimum: true, group: 32 },
        Format { bits: 4, minimum: true, group: 64 },
        Format { bits: 4, minimum: true, group: 128 },
    ];

    /// Words and scales of random values around 0.
    pub(in crate::cpu) fn weight(height: usize, width: usize, format: Format) -> [Vec<u32>; 2] {
        let bits = |value: f32| u32::from(f16::from_f32(value).to_bits());
        let words = test_values(2 * height * format.words(width), 4);
        let words = words.chunks(2).map(|pair| pair[0].to_bits() << 9 ^ pair[1].to_bits() >> 4).collect();
        let scales = test_values(2 * height * format.scale_words(width), 5);
        let scales = scales.chunks(2).map(|pair| {
            let scale = pair[0] * 0.01;
            // A minimum is about half of the range below 0.
            let minimum = -scale * (1 << (format.bits - 1)) as f32 * (1.0 + 0.3 * pair[1]);
            bits(scale) | bits(if format.minimum { minimum } else { pair[1] * 0.02 }) << 16
        });
        [words, scales.collect()]
    }

    /// The normalised mean square error of products.
    fn error(values: &[f64], x: &[f32], got: &[f32], width: usize) -> f64 {
        let height = values.len() / width;
        let (mut difference, mut size) = (0.0, 0.0);
        for (got, x) in got.chunks_exact(height).zip(x.chunks_exact(width)) {
            for (got, values) in got.iter().zip(values.chunks_exact(width)) {
                let sum: f64 = values.iter().zip(x).map(|(v, x)| v * f64::from(*x)).sum();
                difference += (f64::from(*got) - sum).powi(2);
                size += sum.powi(2);
            }
        }
        difference / size
    }

    #[test]
    fn products_are_as_close_to_f64_as_those_of_f32() {
        for format in FORMATS {
            for (height, width) in [(3, 32), (5, 96), (7, 128), (70, 896), (33, 4864)] {
                if !format.fits(width) {
                    continue;
                }
                let [words, scales] = weight(height, width, format);
                let codes = Codes { words: &words, scales: &scales, width, format };
                let values = dequantise(&words, &scales, width, format);
                let floats: Vec<f32> = values.iter().map(|v| *v as f32).collect();
                for rows in 1..=8 {
                    let noise = test_values(rows * width, 2);
                    let outliers = noise.iter().enumerate().map(|(i, x)| if i % 61 == 0 { x * 1000.0 } else { *x });
                    let far = noise.iter().map(|x| 100.0 + x);
                    for x in [noise.clone(), outliers.collect::<Vec<f32>>(), far.collect()] {
                        let (mut got, mut plain) = (vec![f32::NAN; rows * height], vec![f32::NAN; rows * height]);
                        super::matvec(codes, &x, &mut got);
                        matvec::matvec(Matrix::F32(&floats), width, &x, &mut plain);
                        let [error, plain] = [got, plain].map(|got| error(&values, &x, &got, width));
                        assert!(
                            error < 1e-12 && error < 10.0 * plain + 1e-13,
                            "{format}, ({height}, {width}), {rows} rows: error {error:e}, of f32 {plain:e}"
                        );
                    }
                }
            }
        }
    }

    /// Three products, with the vectors of `simd`.
    fn products<S: Simd>(simd: S, weight: Codes, x: &[f32]) -> Vec<f32> {
        let spread = simd.vectorize(Spread { x, weight });
        let mut sums = vec![f32::NAN; 3 * weight.height()];
        simd.vectorize(Products::<3> { weight, x: &spread, sums: &mut sums });
        sums
    }

    #[test]
    fn other_vectors_give_the_same_products() {
        for format in FORMATS {
            for width in [32, 96, 128, 896].into_iter().filter(|width| format.fits(*width)) {
                let (x, [words, scales]) = (test_values(3 * width, 2), weight(5, width, format));
                let codes = Codes { words: &words, scales: &scales, width, format };
                let mut expected = vec![f32::NAN; 15];
                super::matvec(codes, &x, &mut expected);
                #[allow(unused_mut)]
                let mut all = vec![products(Scalar, codes, &x), products(pulp::Scalar128b, codes, &x)];
                #[cfg(target_arch = "x86_64")]
                all.extend(pulp::x86::V3::try_new().map(|simd| products(simd, codes, &x)));
                for (i, got) in all.iter().flat_map(|sums| sums.iter().enumerate()) {
                    let expected = expected[i % 3 * 5 + i / 3];
                    assert!((got - expected).abs() < 2e-5, "{format}, {width}, {i}: expected {expected}, got {got}");
                }
            }
        }
    }

    #[test]
    #[cfg(not(target_family = "wasm"))]
    fn products_are_the_same_for_every_number_of_threads() {
        let (height, width) = (700, 896);
        let [words, scales] = weight(height, width, Format::Q4);
        let codes = Codes { words: &words, scales: &scales, width, format: Format::Q4 };
        let x = test_values(2 * width, 2);
        let run = |threads| {
            let mut out = vec![f32::NAN; 2 * height];
            with(threads, || super::matvec(codes, &x, &mut out));
            out
        };
        assert!([2, 3, 3].map(run).iter().all(|out| *out == run(1)));
    }

    #[test]
    fn values_are_those_of_the_twin() {
        for format in FORMATS {
            for (height, width) in [(3, 32), (5, 96), (7, 128), (300, 896)] {
                if format.fits(width) {
                    let [words, scales] = weight(height, width, format);
                    let mut got = vec![f32::NAN; height * width];
                    super::values(Codes { words: &words, scales: &scales, width, format }, &mut got);
                    let expected = dequantise(&words, &scales, width, format).into_iter().map(|value| value as f32);
                    assert!(expected.eq(got), "{format}, ({height}, {width})");
                }
            }
        }
    }
}
