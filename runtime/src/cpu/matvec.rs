//! Products of a weight matrix with up to 8 rows: memory is the limit, so each weight is read (and widened) once.

use half::f16;
use half::slice::HalfFloatSliceExt;
use pulp::{Arch, Simd, WithSimd};

use super::{Line, Matrix, for_each_chunk, lanes, lines};

/// Weights per task: large enough that the overhead of a task does not matter.
const GRAIN: usize = 1 << 16;

/// Vectors of weights per step.
const STEP: usize = 4;

/// `out[r][n]` is the product of row `n` of the weight with row `r` of `x`, summed in f32.
///
/// # Shapes
/// `weight` (height, width), `x` (rows, width) with 1 to 8 rows, `out` (rows, height).
///
/// # Panics
/// Where the lengths do not agree.
pub(crate) fn matvec(weight: Matrix, width: usize, x: &[f32], out: &mut [f32]) {
    let (rows, height) = (x.len() / width, weight.len() / width);
    assert_eq!((rows * width, height * width, rows * height), (x.len(), weight.len(), out.len()), "matvec: lengths");
    match rows {
        1 => run::<1, 4>(weight, width, x, out),
        2 => run::<2, 4>(weight, width, x, out),
        3 => run::<3, 2>(weight, width, x, out),
        4 => run::<4, 2>(weight, width, x, out),
        5 => run::<5, 1>(weight, width, x, out),
        6 => run::<6, 1>(weight, width, x, out),
        7 => run::<7, 1>(weight, width, x, out),
        8 => run::<8, 1>(weight, width, x, out),
        _ => panic!("matvec: expected 1 to 8 rows, got {rows}; use a matrix product"),
    }
}

/// f32 without AVX-512: from memory, a vector of 64 bytes that is not aligned is slower than two of 32 bytes (22 instead
/// of 33 GB/s per core of an EPYC with Zen 5). And a head of a row up to an aligned place would change the order of the sum.
fn dispatch<O: WithSimd>(weight: Matrix, operation: O) -> O::Output {
    let arch = Arch::new();
    #[cfg(target_arch = "x86_64")]
    if let (Matrix::F32(_), Arch::V4(simd)) = (weight, arch) {
        let narrower: pulp::x86::V3 = *simd;
        return Simd::vectorize(narrower, operation);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = weight;
    arch.dispatch(operation)
}

fn run<const R: usize, const A: usize>(weight: Matrix, width: usize, x: &[f32], out: &mut [f32]) {
    let x = dispatch(weight, Spread { x, width, half: matches!(weight, Matrix::F16(_)) });
    let task = |first: usize, sums: &mut [f32]| {
        let weight = weight.part(first * width..(first + sums.len() / R) * width);
        dispatch(weight, Products::<R, A> { weight, width, x: &x, sums });
    };
    in_tasks::<R>((GRAIN / width).max(1), out, task);
}

/// `task(first row of the weight, R sums of each row side by side)` for each `grain` rows, on all threads.
pub(super) fn in_tasks<const R: usize>(grain: usize, out: &mut [f32], task: impl Fn(usize, &mut [f32]) + Sync) {
    if R == 1 {
        return for_each_chunk(out, grain, |i, sums| task(i * grain, sums));
    }
    // A task has some rows of the weight, so its sums are not side by side in `out`.
    let height = out.len() / R;
    let mut sums = vec![0.0; out.len()];
    for_each_chunk(&mut sums, grain * R, |i, sums| task(i * grain, sums));
    for (r, out) in out.chunks_exact_mut(height).enumerate() {
        out.iter_mut().zip(sums[r..].iter().step_by(R)).for_each(|(out, sum)| *out = *sum);
    }
}

/// The rows of `x` as [`Products`] reads them: a vector of the first row, the same columns of the second, and so on.
/// Padded with zeros to whole steps. For `half` weights, columns are in the order of [`lanes::widen_pairs`] if these are
/// widened by it.
pub(super) struct Spread<'a> {
    pub(super) x: &'a [f32],
    pub(super) width: usize,
    pub(super) half: bool,
}

impl WithSimd for Spread<'_> {
    type Output = Vec<Line>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<Line> {
        let (lanes, rows) = (S::F32_LANES, self.x.len() / self.width);
        let mut out = lines(self.width.next_multiple_of(STEP * lanes) * rows);
        let values: &mut [f32] = bytemuck::cast_slice_mut(&mut out);
        for (r, x) in self.x.chunks_exact(self.width).enumerate() {
            for (x, out) in x.chunks(2 * lanes).zip(values.chunks_mut(2 * lanes * rows)) {
                let (even, odd) = out.split_at_mut(lanes * rows);
                let (even, odd) = (&mut even[r * lanes..][..lanes], &mut odd[r * lanes..][..lanes]);
                if self.half && !lanes::converts::<S>() {
                    even.iter_mut().zip(x.iter().step_by(2)).for_each(|(out, x)| *out = *x);
                    odd.iter_mut().zip(x.iter().skip(1).step_by(2)).for_each(|(out, x)| *out = *x);
                } else {
                    even.iter_mut().chain(odd).zip(x).for_each(|(out, x)| *out = *x);
                }
            }
        }
        out
    }
}

/// The products of each row of the weight with `R` rows of `x`: `R` sums side by side, each in `A` vectors.
pub(super) struct Products<'a, const R: usize, const A: usize> {
    pub(super) weight: Matrix<'a>,
    pub(super) width: usize,
    /// From [`Spread`].
    pub(super) x: &'a [Line],
    pub(super) sums: &'a mut [f32],
}

impl<const R: usize, const A: usize> WithSimd for Products<'_, R, A> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let x = S::as_simd_f32s(bytemuck::cast_slice(self.x)).0.as_chunks::<R>().0.as_chunks::<STEP>().0;
        match self.weight {
            Matrix::F32(weight) => products::<S, f32, R, A>(simd, weight, self.width, x, self.sums),
            Matrix::F16(weight) => {
                let weight = weight.reinterpret_cast();
                if lanes::converts::<S>() {
                    return products::<S, u16, R, A>(simd, weight, self.width, x, self.sums);
                }
                if let (Ok(pairs), 0) = (bytemuck::try_cast_slice(weight), self.width % 2) {
                    return products::<S, u32, R, A>(simd, pairs, self.width / 2, x, self.sums);
                }
                let mut row = vec![0u32; self.width.div_ceil(2)];
                for (weight, sums) in weight.chunks_exact(self.width).zip(self.sums.chunks_exact_mut(R)) {
                    bytemuck::cast_slice_mut(&mut row)[..self.width].copy_from_slice(weight);
                    products::<S, u32, R, A>(simd, &row, row.len(), x, sums);
                }
            }
        }
    }
}

/// A weight as it is stored: the bits of an f16 (u16) or of a pair (u32).
trait Weight: Copy + Default {
    /// Elements per step, in vectors.
    const VECTORS: usize;
    /// A step: `STEP` vectors of weights.
    fn load<S: Simd>(simd: S, weights: &[Self]) -> [S::f32s; STEP];
}

impl Weight for f32 {
    const VECTORS: usize = STEP;

    #[inline(always)]
    fn load<S: Simd>(_: S, weights: &[f32]) -> [S::f32s; STEP] {
        S::as_simd_f32s(weights).0.as_chunks().0[0]
    }
}

/// See [`lanes::converts`].
impl Weight for u16 {
    const VECTORS: usize = STEP;

    #[inline(always)]
    fn load<S: Simd>(simd: S, weights: &[u16]) -> [S::f32s; STEP] {
        let mut out = [simd.splat_f32s(0.0); STEP];
        for (out, weights) in out.iter_mut().zip(weights.as_chunks().0) {
            *out = lanes::convert(simd, weights);
        }
        out
    }
}

impl Weight for u32 {
    const VECTORS: usize = STEP / 2;

    #[inline(always)]
    fn load<S: Simd>(simd: S, weights: &[u32]) -> [S::f32s; STEP] {
        let pairs = S::as_simd_u32s(weights).0;
        let ([a, b], [c, d]) = (lanes::widen_pairs(simd, pairs[0]), lanes::widen_pairs(simd, pairs[1]));
        [a, b, c, d]
    }
}

#[inline(always)]
fn products<S: Simd, W: Weight, const R: usize, const A: usize>(
    simd: S,
    weight: &[W],
    width: usize,
    x: &[[[S::f32s; R]; STEP]],
    sums: &mut [f32],
) {
    let step = W::VECTORS * S::F32_LANES;
    for (row, sums) in weight.chunks_exact(width).zip(sums.chunks_exact_mut(R)) {
        let mut sum = [[simd.splat_f32s(0.0); A]; R];
        let steps = row.chunks_exact(step);
        let tail = steps.remainder();
        for (weights, x) in steps.zip(x) {
            add::<S, W, R, A>(simd, weights, x, &mut sum);
        }
        if !tail.is_empty() {
            let mut padded = [W::default(); 16 * STEP];
            padded[..tail.len()].copy_from_slice(tail);
            add::<S, W, R, A>(simd, &padded[..step], &x[width / step], &mut sum);
        }
        for r in 0..R {
            let mut total = sum[r][0];
            for part in &sum[r][1..] {
                total = simd.add_f32s(total, *part);
            }
            sums[r] = simd.reduce_sum_f32s(total);
        }
    }
}

#[inline(always)]
fn add<S: Simd, W: Weight, const R: usize, const A: usize>(
    simd: S,
    weights: &[W],
    x: &[[S::f32s; R]; STEP],
    sum: &mut [[S::f32s; A]; R],
) {
    let weights = W::load(simd, weights);
    for u in 0..STEP {
        for r in 0..R {
            sum[r][u % A] = simd.mul_add_e_f32s(weights[u], x[u][r], sum[r][u % A]);
        }
    }
}

/// f16 to f32 on all threads; `from` is finite.
///
/// # Panics
/// Where the lengths differ.
pub(crate) fn widen(from: &[f16], to: &mut [f32]) {
    assert_eq!(from.len(), to.len(), "widen: lengths");
    let arch = Arch::new();
    for_each_chunk(to, GRAIN, |i, to| arch.dispatch(Widen { from: &from[i * GRAIN..][..to.len()], to }));
}

/// [`widen`] on one thread.
pub(super) struct Widen<'a> {
    pub(super) from: &'a [f16],
    pub(super) to: &'a mut [f32],
}

impl WithSimd for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (to, from) in self.to.iter_mut().zip(self.from) {
            *to = lanes::widen(from.to_bits());
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;
    use pulp::{Scalar, Simd};

    use super::super::{Matrix, test_values};
    use super::{Products, Spread, matvec, widen};

    /// Sums in f64, and their tolerance: a few roundings of f32 on the sum of the absolute values.
    fn check(weight: &[f32], matrix: Matrix, width: usize, rows: usize) {
        let x = test_values(rows * width, 2);
        let height = weight.len() / width;
        let mut out = vec![f32::NAN; rows * height];
        matvec(matrix, width, &x, &mut out);
        for r in 0..rows {
            for n in 0..height {
                let products = (0..width).map(|i| f64::from(weight[n * width + i]) * f64::from(x[r * width + i]));
                let (sum, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
                let got = f64::from(out[r * height + n]);
                assert!(
                    (got - sum).abs() <= 2e-6 * size,
                    "({height}, {width}), row {r}, {n}: expected {sum}, got {got}"
                );
            }
        }
    }

    #[test]
    fn products_are_close_to_f64() {
        for (height, width) in [(1, 1), (3, 7), (5, 16), (17, 63), (9, 129), (300, 896), (2, 70_001)] {
            let weight = test_values(height * width, 1);
            let halves: Vec<f16> = weight.iter().map(|w| f16::from_f32(*w)).collect();
            let widened: Vec<f32> = halves.iter().map(|w| w.to_f32()).collect();
            for rows in 1..=8 {
                check(&weight, Matrix::F32(&weight), width, rows);
                check(&widened, Matrix::F16(&halves), width, rows);
            }
        }
    }

    /// Three products, with the vectors of `simd`.
    fn products<S: Simd>(simd: S, weight: Matrix, width: usize, x: &[f32]) -> Vec<f32> {
        let x = simd.vectorize(Spread { x, width, half: matches!(weight, Matrix::F16(_)) });
        let mut sums = vec![f32::NAN; 3 * weight.len() / width];
        simd.vectorize(Products::<3, 2> { weight, width, x: &x, sums: &mut sums });
        sums
    }

    #[test]
    fn other_vectors_give_the_same_products() {
        for width in [1, 7, 64, 131, 896] {
            let (x, weight) = (test_values(3 * width, 2), test_values(5 * width, 1));
            let halves: Vec<f16> = weight.iter().map(|w| f16::from_f32(*w)).collect();
            for matrix in [Matrix::F32(&weight), Matrix::F16(&halves)] {
                let mut expected = vec![f32::NAN; 15];
                matvec(matrix, width, &x, &mut expected);
                #[allow(unused_mut)]
                let mut all = vec![products(Scalar, matrix, width, &x)];
                #[cfg(target_arch = "x86_64")]
                all.extend(pulp::x86::V3::try_new().map(|simd| products(simd, matrix, width, &x)));
                for (i, got) in all.iter().flat_map(|sums| sums.iter().enumerate()) {
                    let expected = expected[i % 3 * 5 + i / 3];
                    assert!((got - expected).abs() < 2e-5, "width {width}, {i}: expected {expected}, got {got}");
                }
            }
        }
    }

    #[test]
    fn widened_values_are_exact() {
        for len in [0, 1, 15, 33, 1000, (1 << 16) + 5] {
            let halves: Vec<f16> = test_values(len, 3).iter().map(|w| f16::from_f32(*w * 1e-4)).collect();
            let mut out = vec![f32::NAN; len];
            widen(&halves, &mut out);
            assert!(out.iter().zip(&halves).all(|(out, h)| *out == h.to_f32()));
        }
    }
}
