//! Loads tensors by name, one at a time. Input: an open checkpoint. Output: parameters of modules on a device.
//!
//! The `load` of a module is the only declaration of its tensors. A dry run of it lists them: [`Loader::listing`].

use std::cell::{Cell, RefCell};

use burn::module::Param;
use burn::tensor::{DType, Device, Tensor};
use fovea_runtime::weights::{Rows, Weights};

use crate::{cancel::Cancel, error::Error, linear::Linear, norm::Norm};

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
    /// Largest matrix in one part, in bytes.
    largest: u64,
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
        Self { from: Some(from), device: device.clone(), dtype, largest: u64::MAX, listed: RefCell::default() }
    }

    /// Cuts matrices of more than `bytes` by rows.
    pub(crate) fn cut_at(self, bytes: u64) -> Self {
        Self { largest: bytes, ..self }
    }

    /// A dry run: every tensor is a single zero, and only its name and shape count.
    pub fn listing() -> Self {
        Self { from: None, device: Device::flex(), dtype: DType::F32, largest: u64::MAX, listed: RefCell::default() }
    }

    /// The tensors that were asked for, in the order of the modules' fields.
    pub fn listed(self) -> Vec<Parameter> {
        self.listed.into_inner()
    }

    /// Notes that a tensor is needed, in a dry run.
    fn list(&self, name: &str, shape: &[usize], is_matrix: bool) {
        self.listed.borrow_mut().push(Parameter { name: name.to_owned(), shape: shape.to_vec(), is_matrix });
    }

    /// Some rows of stored tensors, one after the other, as one tensor.
    async fn tensor<const D: usize>(
        &self,
        from: &From<'_>,
        slices: &[Rows<'_>],
        shape: [usize; D],
        dtype: DType,
    ) -> Result<Tensor<D>, Error> {
        from.cancel.check().await?;
        let tensor = from.weights.load(slices, shape, dtype, &self.device).await?;
        let bytes = |slice: &Rows<'_>| {
            let rows = slice.shape.first().map_or(1, |&rows| rows.max(1)) as u64;
            from.weights.entries().get(slice.tensor).map_or(0, |e| e.bytes() / rows * slice.rows.len() as u64)
        };
        from.done.set(from.done.get() + slices.iter().map(bytes).sum::<u64>());
        (from.progress)(from.done.get());
        Ok(tensor)
    }

    /// Stored matrices joined by rows, in the dtype of the matrices, in parts that a device can bind. If `together` is set, all
    /// have the same number of rows, and each part has the same rows of each of them.
    async fn matrices(&self, stored: &[(&str, &[usize])], together: bool) -> Result<Vec<Param<Tensor<2>>>, Error> {
        let Some(from) = &self.from else {
            stored.iter().for_each(|(name, shape)| self.list(name, shape, true));
            return Ok(vec![Param::from_tensor(Tensor::zeros([1, 1], (&self.device, DType::F32)))]);
        };
        let inner = stored.first().map_or(0, |(_, shape)| shape.iter().skip(1).product::<usize>());
        let count = if together { stored.len() } else { 1 };
        let row = (inner.max(1) * self.dtype.size() * count) as u64;
        let most = usize::try_from(self.largest / row).unwrap_or(usize::MAX).max(1);
        let rows: usize = stored.iter().map(|(_, shape)| shape[0]).sum::<usize>() / count;
        let mut parts = Vec::new();
        for first in (0..rows).step_by(most) {
            let last = rows.min(first.saturating_add(most));
            let mut slices = Vec::new();
            let mut start = 0;
            for &(tensor, shape) in stored {
                let (from, to) = (first.max(start), last.min(start + shape[0]));
                if from < to {
                    slices.push(Rows { tensor, shape, rows: from - start..to - start });
                }
                start += if together { 0 } else { shape[0] };
            }
            let shape = [(last - first) * count, inner];
            parts.push(Param::from_tensor(self.tensor(from, &slices, shape, self.dtype).await?));
        }
        Ok(parts)
    }

    /// A matrix, in the dtype of the matrices, in parts that a device can bind.
    pub(crate) async fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Vec<Param<Tensor<2>>>, Error> {
        self.matrices(&[(name, &shape)], false).await
    }

    /// The kernel of a convolution (out, channels, rows, columns) as a matrix (out, the product of the others).
    pub(crate) async fn convolution(&self, name: &str, stored: [usize; 4]) -> Result<Vec<Param<Tensor<2>>>, Error> {
        self.matrices(&[(name, &stored)], false).await
    }

    /// A matrix, in f32.
    pub(crate) async fn exact(&self, name: &str, shape: [usize; 2]) -> Result<Param<Tensor<2>>, Error> {
        let Some(from) = &self.from else {
            self.list(name, &shape, false);
            return Ok(Param::from_tensor(Tensor::zeros([1, 1], (&self.device, DType::F32))));
        };
        Ok(Param::from_tensor(self.tensor(from, &[Rows::all(name, &shape)], shape, DType::F32).await?))
    }

    /// A vector of `n` values, in f32.
    ///
    /// # Errors
    /// See [`Loader`].
    pub async fn vector(&self, name: &str, n: usize) -> Result<Param<Tensor<1>>, Error> {
        self.vectors(&[(name, n)]).await
    }

    /// Vectors, one after the other, in f32.
    async fn vectors(&self, stored: &[(&str, usize)]) -> Result<Param<Tensor<1>>, Error> {
        let Some(from) = &self.from else {
            stored.iter().for_each(|(name, n)| self.list(name, &[*n], false));
            return Ok(Param::from_tensor(Tensor::zeros([1], (&self.device, DType::F32))));
        };
        let shapes: Vec<[usize; 1]> = stored.iter().map(|(_, n)| [*n]).collect();
        let slices: Vec<Rows> = stored.iter().zip(&shapes).map(|((name, _), shape)| Rows::all(name, shape)).collect();
        let n = stored.iter().map(|(_, n)| n).sum();
        Ok(Param::from_tensor(self.tensor(from, &slices, [n], DType::F32).await?))
    }

    /// `{name}.weight` (out, inputs) and, if `bias` is set, `{name}.bias` (out).
    ///
    /// # Errors
    /// See [`Loader`].
    pub async fn linear(&self, name: &str, out: usize, inputs: usize, bias: bool) -> Result<Linear, Error> {
        self.joined(&[(name.to_owned(), out)], inputs, bias, false).await
    }

    /// Linear layers with the same input as one: their outputs are side by side.
    pub(crate) async fn side_by_side(
        &self,
        layers: &[(String, usize)],
        inputs: usize,
        bias: bool,
    ) -> Result<Linear, Error> {
        self.joined(layers, inputs, bias, false).await
    }

    /// A gated layer: each part of the weight has rows of `gate`, then the same rows of `up`.
    pub(crate) async fn gated(
        &self,
        [gate, up]: [String; 2],
        out: usize,
        inputs: usize,
        bias: bool,
    ) -> Result<Linear, Error> {
        self.joined(&[(gate, out), (up, out)], inputs, bias, true).await
    }

    async fn joined(
        &self,
        layers: &[(String, usize)],
        inputs: usize,
        bias: bool,
        together: bool,
    ) -> Result<Linear, Error> {
        let of = |kind: &str| layers.iter().map(|(name, _)| format!("{name}.{kind}")).collect::<Vec<String>>();
        let (weights, biases) = (of("weight"), of("bias"));
        let shapes: Vec<[usize; 2]> = layers.iter().map(|(_, out)| [*out, inputs]).collect();
        let stored: Vec<(&str, &[usize])> =
            weights.iter().zip(&shapes).map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
        let weight = self.matrices(&stored, together).await?;
        let stored: Vec<(&str, usize)> =
            biases.iter().zip(layers).map(|(name, (_, out))| (name.as_str(), *out)).collect();
        let bias = if bias { Some(self.vectors(&stored).await?) } else { None };
        Ok(Linear { weight, bias })
    }

    /// A layer norm: `{name}.weight` (n) and `{name}.bias` (n).
    ///
    /// # Errors
    /// See [`Loader`].
    pub async fn layer_norm(&self, name: &str, n: usize, epsilon: f64) -> Result<Norm, Error> {
        let gamma = self.vector(&format!("{name}.weight"), n).await?;
        Ok(Norm { gamma, beta: Some(self.vector(&format!("{name}.bias"), n).await?), epsilon })
    }

    /// An RMS norm with the weight `name` (n).
    pub(crate) async fn rms_norm(&self, name: &str, n: usize, epsilon: f64) -> Result<Norm, Error> {
        Ok(Norm { gamma: self.vector(name, n).await?, beta: None, epsilon })
    }
}
