//! Loads tensors by name, one at a time. Input: an open checkpoint. Output: parameters of modules on a device.
//!
//! The `load` of a module is the only declaration of its tensors. A dry run of it lists them: [`Loader::listing`].

use std::cell::{Cell, RefCell};

use burn::module::Param;
use burn::nn::{LayerNorm, LayerNormConfig, RmsNorm};
use burn::tensor::{DType, Device, Tensor};
use fovea_runtime::weights::Weights;

use crate::{cancel::Cancel, error::Error, linear::Linear};

/// A tensor that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its shape in the checkpoint.
    pub shape: Vec<usize>,
    /// Whether it is loaded in the dtype of the matrices; all others are loaded in f32.
    ///
    /// Position embeddings and the scale selector stay exact: the first are added to activations, the second decides.
    pub is_matrix: bool,
}

impl Parameter {
    /// Number of values.
    pub fn values(&self) -> u64 {
        self.shape.iter().map(|&d| d as u64).fold(1, u64::saturating_mul)
    }
}

/// Loads tensors, or lists them.
///
/// # Errors
/// Every method returns [`Error::Cancelled`], or an error that names file and tensor if the tensor is missing, cannot be read, or
/// has another shape or dtype.
pub struct Loader<'a> {
    /// None: the tensors are listed, not loaded.
    from: Option<From<'a>>,
    device: Device,
    dtype: DType,
    listed: RefCell<Vec<Parameter>>,
}

/// The source of the tensors.
struct From<'a> {
    weights: &'a Weights,
    done: Cell<u64>,
    progress: &'a dyn Fn(u64),
    cancel: &'a Cancel,
}

impl<'a> Loader<'a> {
    /// Loads the tensors of `weights` to `device`, matrices in `dtype` and all others in f32. `progress` receives the number of
    /// bytes read after each tensor.
    pub fn new(
        weights: &'a Weights,
        device: &Device,
        dtype: DType,
        cancel: &'a Cancel,
        progress: &'a dyn Fn(u64),
    ) -> Self {
        let from = From { weights, done: Cell::new(0), progress, cancel };
        Self { from: Some(from), device: device.clone(), dtype, listed: RefCell::default() }
    }

    /// A dry run: every tensor is a single zero, and only its name and shape count.
    pub fn listing() -> Self {
        Self { from: None, device: Device::flex(), dtype: DType::F32, listed: RefCell::default() }
    }

    /// The tensors that were asked for, in the order of the modules' fields.
    pub fn listed(self) -> Vec<Parameter> {
        self.listed.into_inner()
    }

    async fn tensor<const D: usize>(
        &self,
        name: &str,
        stored: &[usize],
        shape: [usize; D],
        is_matrix: bool,
    ) -> Result<Tensor<D>, Error> {
        let Some(from) = &self.from else {
            let shape = stored.to_vec();
            self.listed.borrow_mut().push(Parameter { name: name.to_owned(), shape, is_matrix });
            return Ok(Tensor::zeros([1; D], (&self.device, DType::F32)));
        };
        from.cancel.check().await?;
        let dtype = if is_matrix { self.dtype } else { DType::F32 };
        let tensor = from.weights.load(name, stored, shape, dtype, &self.device).await?;
        from.done.set(from.done.get() + from.weights.entries().get(name).map_or(0, |e| e.bytes()));
        (from.progress)(from.done.get());
        Ok(tensor)
    }

    /// A matrix, in the dtype of the matrices.
    pub(crate) async fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Param<Tensor<2>>, Error> {
        Ok(Param::from_tensor(self.tensor(name, &shape, shape, true).await?))
    }

    /// The kernel of a convolution (out, channels, rows, columns) as a matrix (out, the product of the others).
    pub(crate) async fn convolution(&self, name: &str, stored: [usize; 4]) -> Result<Param<Tensor<2>>, Error> {
        let [out, inner @ ..] = stored;
        Ok(Param::from_tensor(self.tensor(name, &stored, [out, inner.iter().product()], true).await?))
    }

    /// A matrix, in f32.
    pub(crate) async fn exact(&self, name: &str, shape: [usize; 2]) -> Result<Param<Tensor<2>>, Error> {
        Ok(Param::from_tensor(self.tensor(name, &shape, shape, false).await?))
    }

    /// A vector of `n` values, in f32.
    ///
    /// # Errors
    /// See [`Loader`].
    pub async fn vector(&self, name: &str, n: usize) -> Result<Param<Tensor<1>>, Error> {
        Ok(Param::from_tensor(self.tensor(name, &[n], [n], false).await?))
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
        let mut norm = LayerNormConfig::new(n).with_epsilon(epsilon).init(&self.device);
        norm.gamma = self.vector(&format!("{name}.weight"), n).await?;
        norm.beta = Some(self.vector(&format!("{name}.bias"), n).await?);
        Ok(norm)
    }

    /// The weight `name` (n).
    pub(crate) async fn rms_norm(&self, name: &str, n: usize, epsilon: f64) -> Result<RmsNorm, Error> {
        Ok(RmsNorm { gamma: self.vector(name, n).await?, epsilon })
    }
}
