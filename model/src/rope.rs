//! Rotary position embeddings in the half-split form (`rotate_half` in Hugging Face's `modeling_llama.py`).
//! Input: positions. Output: queries and keys, rotated.

use burn::tensor::{Device, Int, Tensor, TensorData};
use fovea_runtime::sampler_ops::row_gather;

use crate::config::{RopeScaling, TextConfig};

/// Cosines and sines of some positions, (tokens, d_head), f32: in each row d_head / 2 cosines, then the sines.
#[derive(Clone, Debug)]
pub struct Rotation {
    pub(crate) table: Tensor<2>,
}

/// The rotary frequencies. Angles are computed on the host: the sine of WGSL is too inexact for large arguments.
#[derive(Clone, Debug)]
pub struct Rope {
    frequencies: Vec<f32>,
}

impl Rope {
    /// `theta^(-2i / d_head)` for i from 0 to d_head / 2 - 1, with the scaling of the config, in f32 like the reference.
    pub fn new(config: &TextConfig) -> Self {
        let frequency = |i: usize| {
            let exponent = (2 * i) as f32 / config.d_head as f32;
            let plain = 1.0 / (config.rope_theta.powf(f64::from(exponent)) as f32);
            scale(plain, config.rope_scaling)
        };
        Self { frequencies: (0..config.d_head / 2).map(frequency).collect() }
    }

    /// The rotation of tokens at `positions`, uploaded to `device`.
    pub fn at(&self, positions: &[usize], device: &Device) -> Rotation {
        let mut table = Vec::with_capacity(2 * positions.len() * self.frequencies.len());
        for &position in positions {
            // The reference rounds the angle to f32, so this does as well; cosine and sine are computed in f64.
            let angles = || self.frequencies.iter().map(|f| f64::from(position as f32 * f));
            table.extend(angles().map(|a| a.cos() as f32));
            table.extend(angles().map(|a| a.sin() as f32));
        }
        let shape = [positions.len(), 2 * self.frequencies.len()];
        // One dimension first: CUDA would align rows with gaps between them, and each layer would copy the table.
        Rotation { table: Tensor::<1>::from_data(TensorData::new(table, [shape[0] * shape[1]]), device).reshape(shape) }
    }
}

impl Rotation {
    /// The rotations of the tokens with these `indices`.
    ///
    /// # Errors
    /// [`fovea_runtime::Error::Shape`] if a tensor is empty.
    pub(crate) fn pick(&self, indices: &Tensor<1, Int>) -> Result<Self, fovea_runtime::Error> {
        let table = row_gather(self.table.clone().unsqueeze::<3>(), indices.clone())?.squeeze_dim(0);
        Ok(Self { table })
    }

    /// These positions, followed by those of `next`.
    pub(crate) fn then(&self, next: &Self) -> Self {
        let [[tokens, columns], [more, _]] = [self, next].map(|rotation| rotation.table.dims());
        let rows = [self, next].map(|rotation| rotation.table.clone().flatten::<1>(0, 1)).to_vec();
        Self { table: Tensor::cat(rows, 0).reshape([tokens + more, columns]) }
    }

    /// `count` positions, starting with number `first`.
    pub(crate) fn narrow(&self, first: usize, count: usize) -> Self {
        Self { table: self.table.clone().narrow(0, first, count) }
    }

    /// Rotates every head: `(a, b) -> (a cos - b sin, b cos + a sin)`, where a and b are the two halves of a head.
    ///
    /// # Shapes
    /// `x` (heads, tokens, d_head) -> the same.
    pub(crate) fn apply(&self, x: Tensor<3>) -> Tensor<3> {
        let half = x.dims()[2] / 2;
        let (a, b) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
        let part = |first: usize| self.table.clone().narrow(1, first, half).unsqueeze::<3>();
        let (cos, sin) = (part(0), part(half));
        let first = a.clone() * cos.clone() - b.clone() * sin.clone();
        let second = b * cos + a * sin;
        Tensor::cat(vec![first, second], 2)
    }
}

/// One frequency with the scaling of the config (`modeling_rope_utils.py` in Hugging Face's transformers).
fn scale(frequency: f32, scaling: RopeScaling) -> f32 {
    match scaling {
        RopeScaling::Default => frequency,
        RopeScaling::Linear { factor } => (f64::from(frequency) / factor) as f32,
        RopeScaling::Llama3 { factor, low, high, original } => {
            let plain = f64::from(frequency);
            let wavelength = std::f64::consts::TAU / plain;
            if wavelength < original / high {
                frequency
            } else if wavelength > original / low {
                (plain / factor) as f32
            } else {
                let smooth = (original / wavelength - low) / (high - low);
                ((1.0 - smooth) * plain / factor + smooth * plain) as f32
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_scaling_keeps_short_waves_and_divides_long_ones() {
        // Llama 3.1: factor 8, low 1, high 4, original 8192. Wavelengths 2 pi / f.
        let scaling = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 };
        assert_eq!(scale(1.0, scaling), 1.0);
        assert_eq!(scale(1e-4, scaling), 1e-4 / 8.0);
        // Wavelength 4096 = original / 2: smooth = (2 - 1) / 3, so f * (2/3 / 8 + 1/3) = f * 5/12.
        let f = (std::f64::consts::TAU / 4096.0) as f32;
        assert!((scale(f, scaling) - f * 5.0 / 12.0).abs() < 1e-9);
    }
}
