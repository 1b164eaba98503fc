//! What follows a matrix product: bias, activation or gate, and residual connection, in one pass on all threads.

use fovea_shaders::Activation;
use pulp::{Arch, Simd, WithSimd};

use super::{
    for_each_chunk,
    lanes::{abs, exp2},
};

/// Values per task: large enough that the overhead of a task does not matter.
const GRAIN: usize = 1 << 16;

/// What follows a product.
pub(crate) struct After<'a> {
    /// One value per column.
    pub bias: Option<&'a [f32]>,
    /// Of each value, or of the first half of each row if it is a gate.
    pub activation: Option<Activation>,
    /// Whether the second half of each row is multiplied by the activated first half.
    pub gated: bool,
    /// A tensor of the shape of the result, and the factor of what is added to it.
    pub residual: Option<(&'a [f32], f32)>,
}

impl After<'_> {
    /// `residual + factor * f(y + bias)` in place; with a gate `f(gate) * up` in the first half of each row.
    ///
    /// # Shapes
    /// `y` (T, columns).
    ///
    /// # Panics
    /// Where the lengths do not agree.
    pub(crate) fn run(&self, y: &mut [f32], columns: usize) {
        let arch = Arch::new();
        let rows = (GRAIN / columns).max(1);
        if self.bias.is_none() && self.activation.is_none() && self.residual.is_none() {
            return;
        }
        for_each_chunk(y, rows * columns, |i, chunk| {
            for (row, values) in chunk.chunks_exact_mut(columns).enumerate() {
                if let Some(bias) = self.bias {
                    values.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
                }
                let active = if self.gated { columns / 2 } else { columns };
                if let Some(f) = self.activation {
                    arch.dispatch(Activate { f, values: &mut values[..active] });
                }
                if self.gated {
                    let (gate, up) = values.split_at_mut(active);
                    gate.iter_mut().zip(up).for_each(|(g, u)| *g *= *u);
                }
                if let Some((residual, factor)) = self.residual {
                    let at = (i * rows + row) * columns;
                    let residual = &residual[at..at + columns];
                    values.iter_mut().zip(residual).for_each(|(y, r)| *y = r + factor * *y);
                }
            }
        });
    }
}

/// The first half of each row of `y` (T, columns).
pub(crate) fn first_halves(y: &[f32], columns: usize) -> Vec<f32> {
    let (half, rows) = (columns / 2, (GRAIN / columns).max(1));
    let mut out = vec![0.0; y.len() / 2];
    for_each_chunk(&mut out, rows * half, |i, chunk| {
        let from = y[i * rows * columns..].chunks_exact(columns);
        chunk.chunks_exact_mut(half).zip(from).for_each(|(to, from)| to.copy_from_slice(&from[..half]));
    });
    out
}

/// An activation in place.
struct Activate<'a> {
    f: Activation,
    values: &'a mut [f32],
}

impl WithSimd for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (whole, rest) = S::as_mut_simd_f32s(self.values);
        for x in whole {
            *x = activate(simd, self.f, *x);
        }
        let x = activate(simd, self.f, simd.partial_load_f32s(rest));
        simd.partial_store_f32s(rest, x);
    }
}

/// The factor of an exponent of e as an exponent of 2.
const LOG2_E: f32 = std::f32::consts::LOG2_E;

/// `1 / (1 + exp(-x))`, from the power of a negative number, which never overflows.
#[inline(always)]
fn sigmoid<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let one = simd.splat_f32s(1.0);
    let power = exp2(simd, simd.mul_f32s(abs(simd, x), simd.splat_f32s(-LOG2_E)));
    let above = simd.less_than_f32s(simd.splat_f32s(0.0), x);
    simd.div_f32s(simd.select_f32s(above, one, power), simd.add_f32s(one, power))
}

/// See [`Activation`].
#[inline(always)]
fn activate<S: Simd>(simd: S, f: Activation, x: S::f32s) -> S::f32s {
    let splat = |v: f32| simd.splat_f32s(v);
    match f {
        Activation::Silu => simd.mul_f32s(x, sigmoid(simd, x)),
        Activation::QuickGelu => simd.mul_f32s(x, sigmoid(simd, simd.mul_f32s(x, splat(1.702)))),
        Activation::GeluTanh => {
            // (1 + tanh(u)) / 2 = sigmoid(2 u)
            let square = simd.mul_f32s(x, x);
            let inner = simd.mul_add_e_f32s(square, splat(0.044_715), splat(1.0));
            let inner = simd.mul_f32s(simd.mul_f32s(x, splat(1.595_769)), inner);
            simd.mul_f32s(x, sigmoid(simd, inner))
        }
        Activation::Gelu => {
            // Phi(-z sqrt(2)) = erfc(z) / 2 (Abramowitz and Stegun 7.1.26: absolute error 1.5e-7).
            let z = simd.mul_f32s(abs(simd, x), splat(std::f32::consts::FRAC_1_SQRT_2));
            let t = simd.div_f32s(splat(1.0), simd.mul_add_e_f32s(z, splat(0.327_591_1), splat(1.0)));
            let mut erfc = simd.mul_add_e_f32s(t, splat(1.061_405_4), splat(-1.453_152));
            erfc = simd.mul_add_e_f32s(t, erfc, splat(1.421_413_8));
            erfc = simd.mul_add_e_f32s(t, erfc, splat(-0.284_496_74));
            erfc = simd.mul_add_e_f32s(t, erfc, splat(0.254_829_6));
            let power = exp2(simd, simd.mul_f32s(simd.mul_f32s(z, z), splat(-LOG2_E)));
            let below = simd.mul_f32s(simd.mul_f32s(simd.mul_f32s(t, erfc), power), splat(0.5));
            let above = simd.max_f32s(x, splat(0.0));
            simd.sub_f32s(above, simd.mul_f32s(abs(simd, x), below))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every activation with every tail, against f64.
    #[test]
    fn activations_are_close_to_f64() {
        for f in Activation::ALL {
            for count in [1, 7, 16, 1003] {
                let x: Vec<f32> = (0..count).map(|i| (i as f32 - count as f32 / 2.0) * 17.0 / count as f32).collect();
                let plain = After { bias: None, activation: Some(f), gated: false, residual: None };
                let run = |mut y: Vec<f32>| {
                    plain.run(&mut y, count);
                    y
                };
                for (x, got) in x.iter().zip(run(x.clone())) {
                    let expected = f.apply(f64::from(*x));
                    assert!((f64::from(got) - expected).abs() < 2e-6, "{f:?}({x}): expected {expected}, got {got}");
                }
                let far = run(vec![1e4; count]);
                assert!(far.iter().all(|y| *y == 1e4), "{f:?}(1e4): expected 1e4, got {far:?}");
                let far = run(vec![-1e4; count]);
                assert!(far.iter().all(|y| *y == 0.0), "{f:?}(-1e4): expected 0, got {far:?}");
            }
        }
    }

    #[test]
    fn bias_gate_and_residual() {
        let bias = [1.0, -1.0];
        let residual = [10.0, 20.0, 30.0, 40.0];
        let add = After { bias: Some(&bias), activation: None, gated: false, residual: Some((&residual, 2.0)) };
        let mut y = [1.0, 2.0, 3.0, 4.0];
        add.run(&mut y, 2);
        assert_eq!(y, [14.0, 22.0, 38.0, 46.0]);
        // silu(0) = 0; silu(40) = 40.
        let gate = After { bias: None, activation: Some(Activation::Silu), gated: true, residual: None };
        let mut y = [0.0, 40.0, 5.0, 2.0, 40.0, 0.0, 3.0, 7.0];
        gate.run(&mut y, 4);
        assert_eq!(first_halves(&y, 4), [0.0, 80.0, 120.0, 0.0]);
    }
}
