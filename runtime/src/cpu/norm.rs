//! RMSNorm and LayerNorm of rows, on all threads.

use pulp::{Arch, Simd, WithSimd};

use super::for_each_chunk;

/// Values per task: large enough that the overhead of a task does not matter.
const GRAIN: usize = 1 << 14;

/// `x gamma / sqrt(mean(x^2) + epsilon)` for each row. Sums are in f32.
///
/// # Shapes
/// `x` and the result (rows, width), `gamma` (width).
///
/// # Panics
/// Where the lengths do not agree.
pub(crate) fn rms_norm(x: &[f32], gamma: &[f32], epsilon: f32) -> Vec<f32> {
    run(x, gamma, None, epsilon)
}

/// `(x - mean) gamma / sqrt(variance + epsilon) + beta` for each row, with the variance of all values of the row.
///
/// # Shapes
/// `x` and the result (rows, width), `gamma` and `beta` (width).
///
/// # Panics
/// Where the lengths do not agree.
pub(crate) fn layer_norm(x: &[f32], gamma: &[f32], beta: &[f32], epsilon: f32) -> Vec<f32> {
    run(x, gamma, Some(beta), epsilon)
}

fn run(x: &[f32], gamma: &[f32], beta: Option<&[f32]>, epsilon: f32) -> Vec<f32> {
    let width = gamma.len();
    assert!(x.len().is_multiple_of(width) && beta.is_none_or(|beta| beta.len() == width), "norm: lengths");
    let mut out = vec![0.0; x.len()];
    let arch = Arch::new();
    let size = (GRAIN / width).max(1) * width;
    for_each_chunk(&mut out, size, |i, out| {
        arch.dispatch(Norm { x: &x[i * size..][..out.len()], gamma, beta, epsilon, out });
    });
    out
}

struct Norm<'a> {
    x: &'a [f32],
    gamma: &'a [f32],
    beta: Option<&'a [f32]>,
    epsilon: f32,
    out: &'a mut [f32],
}

impl WithSimd for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.gamma.len();
        for (x, out) in self.x.chunks_exact(width).zip(self.out.chunks_exact_mut(width)) {
            let mean = if self.beta.is_some() { sum(simd, x, None) / width as f32 } else { 0.0 };
            let squares = sum(simd, x, Some(mean));
            let scale = (squares / width as f32 + self.epsilon).sqrt().recip();
            for ((out, x), gamma) in out.iter_mut().zip(x).zip(self.gamma) {
                *out = (x - mean) * scale * gamma;
            }
            if let Some(beta) = self.beta {
                out.iter_mut().zip(beta).for_each(|(out, beta)| *out += beta);
            }
        }
    }
}

/// The sum of `x`, or of `(x - mean)^2`, in four vectors of sums.
#[inline(always)]
fn sum<S: Simd>(simd: S, x: &[f32], mean: Option<f32>) -> f32 {
    let (vectors, tail) = S::as_simd_f32s(x);
    let (blocks, rest) = vectors.as_chunks::<4>();
    let mut sums = [simd.splat_f32s(0.0); 4];
    for block in blocks {
        for u in 0..4 {
            sums[u] = add(simd, sums[u], block[u], mean);
        }
    }
    for x in rest {
        sums[0] = add(simd, sums[0], *x, mean);
    }
    let pairs = [simd.add_f32s(sums[0], sums[1]), simd.add_f32s(sums[2], sums[3])];
    let mut total = simd.reduce_sum_f32s(simd.add_f32s(pairs[0], pairs[1]));
    for x in tail {
        total += mean.map_or(*x, |mean| (x - mean) * (x - mean));
    }
    total
}

#[inline(always)]
fn add<S: Simd>(simd: S, sum: S::f32s, x: S::f32s, mean: Option<f32>) -> S::f32s {
    match mean {
        None => simd.add_f32s(sum, x),
        Some(mean) => {
            let x = simd.sub_f32s(x, simd.splat_f32s(mean));
            simd.mul_add_e_f32s(x, x, sum)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_values;
    use super::{layer_norm, rms_norm};

    #[test]
    fn norms_are_close_to_f64() {
        for (rows, width) in [(1, 1), (3, 7), (2, 64), (5, 131), (40, 896), (3, 20_001)] {
            // A mean that is not zero.
            let x: Vec<f32> = test_values(rows * width, 1).iter().map(|x| 3.0 * x + 0.5).collect();
            let (gamma, beta) = (test_values(width, 2), test_values(width, 3));
            let (rms, layer) = (rms_norm(&x, &gamma, 1e-5), layer_norm(&x, &gamma, &beta, 1e-5));
            for r in 0..rows {
                let row: Vec<f64> = x[r * width..][..width].iter().map(|x| f64::from(*x)).collect();
                let mean = row.iter().sum::<f64>() / width as f64;
                let square = row.iter().map(|x| x * x).sum::<f64>() / width as f64;
                let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / width as f64;
                for i in 0..width {
                    let (gamma, beta) = (f64::from(gamma[i]), f64::from(beta[i]));
                    let expected = row[i] * gamma / (square + 1e-5).sqrt();
                    let got = f64::from(rms[r * width + i]);
                    assert!((got - expected).abs() <= 2e-6, "RMS ({rows}, {width}), {r}, {i}: {expected}, got {got}");
                    let expected = (row[i] - mean) * gamma / (variance + 1e-5).sqrt() + beta;
                    let got = f64::from(layer[r * width + i]);
                    assert!((got - expected).abs() <= 2e-6, "layer ({rows}, {width}), {r}, {i}: {expected}, got {got}");
                }
            }
        }
    }
}
