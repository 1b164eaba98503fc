//! Loads tensors by name, one at a time. Input: an open checkpoint. Output: parameters of modules on a device.

use std::cell::Cell;

use burn::module::Param;
use burn::nn::{LayerNorm, LayerNormConfig, RmsNorm};
use burn::tensor::{DType, Device, Tensor};
use fovea_runtime::weights::Weights;

use crate::{cancel::Cancel, error::Error, linear::Linear, names::SELECTOR};

/// Whether a tensor is loaded in the dtype of the matrices; all others are loaded in f32.
///
/// Position embeddings and the scale selector stay exact: the first are added to activations, the second decides.
pub(crate) fn is_matrix(name: &str, shape: &[usize]) -> bool {
    shape.len() >= 2 && !name.ends_with("position_embedding.weight") && !name.starts_with(SELECTOR)
}

/// Loads tensors and counts the bytes read.
///
/// # Errors
/// Every method returns [`Error::Cancelled`], or an error that names file and tensor if the tensor is missing, cannot be read, or
/// has another shape or dtype.
pub struct Loader<'a> {
    /// The open checkpoint.
    pub weights: &'a Weights,
    /// Where tensors are loaded.
    pub device: &'a Device,
    /// Dtype of the matrices; vectors are always f32.
    pub dtype: DType,
    /// Bytes read.
    pub done: Cell<u64>,
    /// Bytes in all.
    pub total: u64,
    /// Called after every tensor with the bytes read and the bytes in all.
    pub progress: &'a dyn Fn(u64, u64),
    /// Stops loading.
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

    /// A matrix, in the dtype of the matrices.
    pub(crate) async fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Param<Tensor<2>>, Error> {
        Ok(Param::from_tensor(self.tensor(name, shape, self.dtype).await?))
    }

    /// A vector of `n` values, in f32.
    ///
    /// # Errors
    /// See [`Loader`].
    pub async fn vector(&self, name: &str, n: usize) -> Result<Param<Tensor<1>>, Error> {
        Ok(Param::from_tensor(self.tensor(name, [n], DType::F32).await?))
    }

    /// Any tensor, in f32.
    pub(crate) async fn f32<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Tensor<D>, Error> {
        self.tensor(name, shape, DType::F32).await
    }

    /// `{name}.weight` (out, inputs) and, if `bias` is set, `{name}.bias` (out).
    ///
    /// # Errors
    /// See [`Loader`].
    pub async fn linear(&self, name: &str, out: usize, inputs: usize, bias: bool) -> Result<Linear, Error> {
        let weight = self.matrix(&format!("{name}.weight"), [out, inputs]).await?;
        let bias = if bias { Some(self.vector(&format!("{name}.bias"), out).await?) } else { None };
        Ok(Linear { weight, bias })
    }

    /// `{name}.weight` (n) and `{name}.bias` (n).
    ///
    /// # Errors
    /// See [`Loader`].
    pub async fn layer_norm(&self, name: &str, n: usize, epsilon: f64) -> Result<LayerNorm, Error> {
        let mut norm = LayerNormConfig::new(n).with_epsilon(epsilon).init(self.device);
        norm.gamma = self.vector(&format!("{name}.weight"), n).await?;
        norm.beta = Some(self.vector(&format!("{name}.bias"), n).await?);
        Ok(norm)
    }

    /// The weight `name` (n).
    pub(crate) async fn rms_norm(&self, name: &str, n: usize, epsilon: f64) -> Result<RmsNorm, Error> {
        Ok(RmsNorm { gamma: self.vector(name, n).await?, epsilon })
    }
}
