//! From a checkpoint's names to modules on a device, one tensor at a time.

use std::cell::Cell;

use burn::module::Param;
use burn::nn::{LayerNorm, LayerNormConfig, RmsNorm};
use burn::tensor::{DType, Device, Tensor};
use fovea_runtime::weights::Weights;

use crate::{cancel::Cancel, error::Error, linear::Linear, names::SELECTOR};

/// Whether a tensor is kept in the matrices' dtype; all others are kept in f32.
///
/// Position embeddings are added, and the selector decides: both stay exact.
pub(crate) fn is_matrix(name: &str, shape: &[usize]) -> bool {
    shape.len() >= 2 && !name.ends_with("position_embedding.weight") && !name.starts_with(SELECTOR)
}

/// Reads tensors and counts the bytes read.
pub(crate) struct Loader<'a> {
    pub weights: &'a Weights,
    pub device: &'a Device,
    /// What matrices are kept in; vectors are always f32.
    pub dtype: DType,
    pub done: Cell<u64>,
    pub total: u64,
    pub progress: &'a dyn Fn(u64, u64),
    pub cancel: &'a Cancel,
}

impl Loader<'_> {
    async fn tensor<const D: usize>(&self, name: &str, shape: [usize; D], dtype: DType) -> Result<Tensor<D>, Error> {
        self.cancel.check().await?;
        let tensor = self.weights.load(name, shape, dtype, self.device).await?;
        self.done.set(self.done.get() + self.weights.entries().get(name).map_or(0, |e| e.bytes()));
        (self.progress)(self.done.get(), self.total);
        Ok(tensor)
    }

    /// A matrix, in the weights' dtype.
    pub async fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Param<Tensor<2>>, Error> {
        Ok(Param::from_tensor(self.tensor(name, shape, self.dtype).await?))
    }

    /// A vector, in f32.
    pub async fn vector(&self, name: &str, n: usize) -> Result<Param<Tensor<1>>, Error> {
        Ok(Param::from_tensor(self.tensor(name, [n], DType::F32).await?))
    }

    /// Any tensor, in f32.
    pub async fn f32<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Tensor<D>, Error> {
        self.tensor(name, shape, DType::F32).await
    }

    /// `{name}.weight` (out, inputs) and, where it has one, `{name}.bias`.
    pub async fn linear(&self, name: &str, out: usize, inputs: usize, bias: bool) -> Result<Linear, Error> {
        let weight = self.matrix(&format!("{name}.weight"), [out, inputs]).await?;
        let bias = if bias { Some(self.vector(&format!("{name}.bias"), out).await?) } else { None };
        Ok(Linear { weight, bias })
    }

    /// `{name}.weight` and `{name}.bias`.
    pub async fn layer_norm(&self, name: &str, n: usize, epsilon: f64) -> Result<LayerNorm, Error> {
        let mut norm = LayerNormConfig::new(n).with_epsilon(epsilon).init(self.device);
        norm.gamma = self.vector(&format!("{name}.weight"), n).await?;
        norm.beta = Some(self.vector(&format!("{name}.bias"), n).await?);
        Ok(norm)
    }

    /// The weight `name`.
    pub async fn rms_norm(&self, name: &str, n: usize, epsilon: f64) -> Result<RmsNorm, Error> {
        Ok(RmsNorm { gamma: self.vector(name, n).await?, epsilon })
    }
}
