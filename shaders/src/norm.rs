//! Norms of rows: the RMS norm of text models, and the layer norm of vision towers.

use bytemuck::{Pod, Zeroable};

use crate::kernel::{Kernel, Variant};

/// Without `beta` the RMS norm (Zhang and Sennrich 2019), `x gamma / sqrt(mean(x^2) + epsilon)`. With `beta` the layer
/// norm (Ba et al. 2016), `(x - mean(x)) gamma / sqrt(var(x) + epsilon) + beta`, with the biased variance.
///
/// # Shapes
/// `x` (rows, C), `gamma` (C,), `beta` (C,) -> (rows, C); C is the length of `gamma`.
pub fn norm(x: &[f64], gamma: &[f64], beta: Option<&[f64]>, epsilon: f64) -> Vec<f64> {
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(gamma.len()) {
        let mean = |f: &dyn Fn(f64) -> f64| row.iter().map(|&x| f(x)).sum::<f64>() / row.len() as f64;
        let center = if beta.is_some() { mean(&|x| x) } else { 0.0 };
        let size = (mean(&|x| (x - center).powi(2)) + epsilon).sqrt();
        for (i, x) in row.iter().enumerate() {
            out.push((x - center) / size * gamma[i] + beta.map_or(0.0, |beta| beta[i]));
        }
    }
    out
}

/// `Params` of `norm.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct NormParams {
    /// Number of rows.
    pub rows: u32,
    /// Packs per row.
    pub packs: u32,
    /// Added to the mean of the squares.
    pub epsilon: f32,
    /// Padding to 16 bytes.
    pub unused_0: u32,
}

/// The kernel: one workgroup per row. Constant `LAYER`: 0 for the RMS norm, which does not read `beta`, 1 for the layer
/// norm.
pub const KERNEL: Kernel = Kernel {
    name: "norm",
    body: include_str!("wgsl/norm.wgsl"),
    lanes: 64,
    buffers: 4,
    parameters: size_of::<NormParams>(),
    variants: &[Variant::F32, Variant::F32X4],
    constants: &["LAYER"],
    shared: &[],
    weight: None,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_norms_of_two_rows() {
        // Mean squares 25 and 4.
        assert_eq!(norm(&[1.0, 7.0, -2.0, 2.0], &[5.0, 10.0], None, 0.0), [1.0, 14.0, -5.0, 10.0]);
        // Means 4 and 0, variances 9 and 4.
        assert_eq!(norm(&[1.0, 7.0, -2.0, 2.0], &[2.0, 3.0], Some(&[1.0, -1.0]), 0.0), [-1.0, 2.0, -1.0, 2.0]);
        // sqrt(9 + 16) = 5.
        assert_eq!(norm(&[3.0], &[10.0], None, 16.0), [6.0]);
        // One element is its own mean.
        assert_eq!(norm(&[3.0], &[10.0], Some(&[0.5]), 1e-5), [0.5]);
    }
}
