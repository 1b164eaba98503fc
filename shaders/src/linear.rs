//! Linear layers, with the norm before and the bias, residual connection, activation or gate after.

use bytemuck::{Pod, Zeroable};

use crate::{
    activation::Activation,
    kernel::{Kernel, Variant},
};

/// What follows the product of a linear layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Epilogue<'a> {
    /// Nothing: `y`.
    Nothing,
    /// A residual connection: `residual + factor * y`.
    Add {
        /// (T, N).
        residual: &'a [f64],
        /// 1 in most models.
        factor: f64,
    },
    /// An activation: `f(y)`.
    Activate(Activation),
    /// A gate: `f(gate) * up`, where the first half of `y` is `gate` and the second half `up`.
    Gate(Activation),
}

/// `y = W x' + b`, and what follows it. `x'` is `x`, or with `norm` (gamma, epsilon) its RMS norm,
/// `gamma * x / sqrt(mean(x^2) + epsilon)`.
///
/// # Shapes
/// `x` (T, K), `weight` (rows, K), `bias` (rows,), gamma (K,) -> (T, N); all row-major. N is the number of rows, with
/// [`Epilogue::Gate`] half of it.
///
/// # Panics
/// Where a slice has another size.
pub fn linear(
    x: &[f64],
    weight: &[f64],
    [tokens, width]: [usize; 2],
    bias: Option<&[f64]>,
    norm: Option<(&[f64], f64)>,
    after: Epilogue<'_>,
) -> Vec<f64> {
    let rows = weight.len() / width;
    assert_eq!((x.len(), weight.len()), (tokens * width, rows * width), "x, weight: expected rows of width {width}");
    assert!(bias.is_none_or(|bias| bias.len() == rows), "bias: expected {rows} values");
    let mut out = Vec::new();
    for token in x.chunks_exact(width) {
        let mut token = token.to_vec();
        if let Some((gamma, epsilon)) = norm {
            assert_eq!(gamma.len(), width, "gamma: expected one value per column");
            let mean = token.iter().map(|x| x * x).sum::<f64>() / width as f64;
            for (x, gamma) in token.iter_mut().zip(gamma) {
                *x *= gamma / (mean + epsilon).sqrt();
            }
        }
        let mut y: Vec<f64> =
            weight.chunks_exact(width).map(|row| row.iter().zip(&token).map(|(w, x)| w * x).sum()).collect();
        for (y, bias) in y.iter_mut().zip(bias.unwrap_or_default()) {
            *y += bias;
        }
        match after {
            Epilogue::Nothing => out.extend(y),
            Epilogue::Add { residual, factor } => {
                assert_eq!(residual.len(), tokens * rows, "residual: expected the shape of the result");
                let first = out.len();
                out.extend(residual[first..].iter().zip(y).map(|(residual, y)| residual + factor * y));
            }
            Epilogue::Activate(f) => out.extend(y.into_iter().map(|y| f.apply(y))),
            Epilogue::Gate(f) => {
                let (gate, up) = y.split_at(rows / 2);
                out.extend(gate.iter().zip(up).map(|(gate, up)| f.apply(*gate) * up));
            }
        }
    }
    out
}

/// `Params` of `gemv.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct GemvParams {
    /// Packs per row.
    pub packs: u32,
    /// Rows of the result of this part of the matrix; with a gate half the rows of the part.
    pub rows: u32,
    /// Row of the whole result where this part of the matrix begins.
    pub first: u32,
    /// Of the norm.
    pub epsilon: f32,
    /// Factor of the sums that are added to the residual.
    pub factor: f32,
    /// Padding to 16 bytes.
    pub unused_0: u32,
    /// Padding to 16 bytes.
    pub unused_1: u32,
    /// Padding to 16 bytes.
    pub unused_2: u32,
}

/// The constant `ROWS` for a weight with `rows` rows; with a gate, `gate` and `up` together. The kernel needs
/// `rows / ROWS` workgroups, rounded up.
///
/// More rows per workgroup need fewer reads of `x`; more workgroups use a GPU better.
pub const fn gemv_rows(rows: usize, software: bool) -> u32 {
    match rows {
        _ if software => 8,
        0..=2048 => 2,
        2049..=16384 => 4,
        _ => 8,
    }
}

/// The constant `UNIT` for a weight of codes of `bits` with rows of `width`: the words of a row that a lane reads at
/// once. For a weight of floats it is 1.
///
/// Four words are one vector, and need one scale. But with 4 bits, four words are 32 columns, and the neighbours of a GPU
/// would read `x` at distances of 128 bytes. In a short row they would also leave many lanes without work.
pub const fn gemv_unit(width: usize, bits: u32, software: bool) -> u32 {
    if software || (bits == 8 && width >= 16 * 48) { 4 } else { 1 }
}

/// The constant `LANES`. A CPU (`software`) computes one vector of lanes at a time: with as many lanes as that (8 of
/// llvmpipe with AVX, 4 of SwiftShader), there is nothing to save and to load at a barrier.
pub const fn gemv_lanes(software: bool) -> u32 {
    if software { 8 } else { GEMV.lanes }
}

/// The kernel for one row: `ROWS` rows of the weight per workgroup.
pub const GEMV: Kernel = Kernel {
    name: "gemv",
    body: include_str!("wgsl/gemv.wgsl"),
    lanes: 64,
    buffers: 6,
    parameters: size_of::<GemvParams>(),
    variants: Variant::ALL,
    constants: &["NORM", "BIAS", "RESIDUAL", "ACTIVATION", "GATE", "ROWS", "UNIT", "LANES"],
    shared: &[include_str!("wgsl/shared/activation.wgsl")],
    weight: Some([
        &[include_str!("wgsl/shared/weight_float.wgsl"), include_str!("wgsl/shared/gemv_float.wgsl")],
        &[include_str!("wgsl/shared/weight_codes.wgsl"), include_str!("wgsl/shared/gemv_codes.wgsl")],
    ]),
};

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len(), "number of values (got, expected)");
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-12, "expected {want}, got {got}");
        }
    }

    #[test]
    fn bias_then_residual() {
        let (x, weight) = ([1.0, 2.0, -1.0, 0.0], [1.0, 0.0, 1.0, 1.0, 2.0, -3.0]);
        // W x of both rows: 1, 3, -4 and -1, -1, -2.
        let residual = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0];
        let after = Epilogue::Add { residual: &residual, factor: 2.0 };
        let out = linear(&x, &weight, [2, 2], Some(&[0.5, 0.0, 1.0]), None, after);
        near(&out, &[13.0, 26.0, 24.0, 39.0, 48.0, 58.0]);
    }

    #[test]
    fn the_norm_of_every_row() {
        // sqrt(mean(x^2) + epsilon) = sqrt(12.5 + 12.5) = 5.
        let out =
            linear(&[3.0, 4.0], &[1.0, 1.0, 0.0, 5.0], [1, 2], None, Some((&[1.0, 2.0], 12.5)), Epilogue::Nothing);
        near(&out, &[0.6 + 1.6, 8.0]);
        let out =
            linear(&[3.0, 4.0, 0.0, 0.0], &[1.0, 1.0], [2, 2], None, Some((&[5.0, 5.0], 12.5)), Epilogue::Nothing);
        near(&out, &[7.0, 0.0]);
    }

    #[test]
    fn activation_and_gate() {
        // sigmoid(ln 3) = 3/4.
        let x = [3f64.ln()];
        let weight = [1.0, 0.0, 2.0, -1.0];
        let out = linear(&x, &weight[..2], [1, 1], None, None, Epilogue::Activate(Activation::Silu));
        near(&out, &[0.75 * x[0], 0.0]);
        let out = linear(&x, &weight, [1, 1], Some(&[0.0, 1.0, 0.0, 1.0]), None, Epilogue::Gate(Activation::Silu));
        near(&out, &[0.75 * x[0] * 2.0 * x[0], Activation::Silu.apply(1.0) * (1.0 - x[0])]);
    }

    #[test]
    fn most_lanes_have_work() {
        assert_eq!([896, 4096].map(|width| gemv_unit(width, 8, false)), [4, 4]);
        assert_eq!([32, 512].map(|width| gemv_unit(width, 8, false)), [1, 1]);
        assert_eq!([896, 4096].map(|width| gemv_unit(width, 4, false)), [1, 1]);
        assert_eq!([4, 8].map(|bits| gemv_unit(896, bits, true)), [4, 4]);
    }

    #[test]
    fn rows_per_workgroup_are_even() {
        for (rows, software) in [(1, false), (2048, false), (4096, false), (200_000, false), (1, true)] {
            assert!([2, 4, 8].contains(&gemv_rows(rows, software)), "{rows} rows, software: {software}");
        }
    }
}
