//! Loads tensors by name, one at a time. Input: an open checkpoint. Output: parameters of modules on a device.
//!
//! The `load` of a module is the only declaration of its tensors. A dry run of it lists them: [`Loader::listing`].

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use burn::module::Param;
use burn::tensor::{DType, Device, Tensor};
use fovea_runtime::{
    helpers::{Helpers, Shared, Use},
    network_ops::Format,
    weights::{Rows, Weights},
};

use crate::{cancel::Cancel, error::Error, linear::Linear, matrix::Part, norm::Norm, storage::Storage};

/// What a tensor is for: it decides how it may be stored on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterRole {
    /// Always f32: vectors, position embeddings, which are added to activations, and the scale selector, which decides.
    Exact,
    /// f32 or f16: matrices of the projector, the kernel that cuts a picture into patches, and matrices that score visual tokens.
    Float,
    /// f32, f16 or q8: matrices of the vision tower's layers.
    Tower,
    /// f32, f16, q8 or q4: matrices of the text model's layers.
    Layer,
    /// f32, f16, q8 or as in the file: embedding and head.
    Table,
}

/// A tensor that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its shape in the checkpoint.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: ParameterRole,
    /// The matrix with which it is joined row by row, if there is one.
    pub with: Option<String>,
}

impl Parameter {
    /// Number of values.
    pub fn values(&self) -> u64 {
        self.shape.iter().map(|&d| d as u64).fold(1, u64::saturating_mul)
    }

    /// Values per row.
    pub fn width(&self) -> usize {
        self.shape.iter().skip(1).fold(1, |width, &d| width.saturating_mul(d))
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
    storage: Storage,
    /// Largest matrix in one part, in bytes.
    largest: u64,
    /// Those that hold rows of matrices, if there are some.
    helpers: Option<Arc<dyn Helpers>>,
    listed: RefCell<Vec<Parameter>>,
}

/// The source of the tensors.
struct From<'a> {
    weights: &'a Weights,
    done: Cell<u64>,
    progress: &'a dyn Fn(u64),
    cancel: &'a Cancel,
    /// Whether nothing is read, and every value is zero.
    zeros: bool,
}

impl<'a> Loader<'a> {
    /// Loads the tensors of `weights` to `device`, matrices as `storage` says and all others in f32. `progress` receives the number
    /// of bytes read after each tensor.
    pub fn new(
        weights: &'a Weights,
        device: &Device,
        storage: Storage,
        cancel: &'a Cancel,
        progress: &'a dyn Fn(u64),
    ) -> Self {
        let from = From { weights, done: Cell::new(0), progress, cancel, zeros: false };
        let (device, listed) = (device.clone(), RefCell::default());
        Self { from: Some(from), device, storage, largest: u64::MAX, helpers: None, listed }
    }

    /// Reads nothing: every tensor has its size and its type on the device, and only zeros.
    pub(crate) fn of_zeros(self) -> Self {
        Self { from: self.from.map(|from| From { zeros: true, ..from }), ..self }
    }

    /// Cuts matrices of more than `bytes` by rows.
    pub(crate) fn cut_at(self, bytes: u64) -> Self {
        Self { largest: bytes, ..self }
    }

    /// Divides matrices between this thread and `helpers`. The device must be the CPU.
    pub(crate) fn divided(self, helpers: Option<Arc<dyn Helpers>>) -> Self {
        Self { helpers, ..self }
    }

    /// A dry run: every tensor is a single zero, and only its name and shape count.
    pub fn listing() -> Self {
        let storage = Storage::F32;
        let (device, listed) = (Device::flex(), RefCell::default());
        Self { from: None, device, storage, largest: u64::MAX, helpers: None, listed }
    }

    /// The tensors that were asked for, in the order of the modules' fields.
    pub fn listed(self) -> Vec<Parameter> {
        self.listed.into_inner()
    }

    /// Notes that a tensor is needed in f32, in a dry run.
    fn list(&self, name: &str, shape: &[usize]) {
        let (name, shape) = (name.to_owned(), shape.to_vec());
        self.listed.borrow_mut().push(Parameter { name, shape, role: ParameterRole::Exact, with: None });
    }

    /// Reports that some rows of stored tensors are on the device.
    fn loaded(from: &From<'_>, slices: &[Rows<'_>]) {
        let bytes = |slice: &Rows<'_>| {
            let rows = slice.shape.first().map_or(1, |&rows| rows.max(1)) as u64;
            from.weights.entries().get(slice.tensor).map_or(0, |e| e.bytes() / rows * slice.rows.len() as u64)
        };
        from.done.set(from.done.get() + slices.iter().map(bytes).sum::<u64>());
        (from.progress)(from.done.get());
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
        if from.zeros {
            return Ok(Tensor::zeros(shape, (&self.device, dtype)));
        }
        let tensor = from.weights.load(slices, shape, dtype, &self.device).await?;
        Self::loaded(from, slices);
        Ok(tensor)
    }

    /// Some rows of stored matrices, one after the other, as floats or codes.
    async fn part(
        &self,
        from: &From<'_>,
        slices: &[Rows<'_>],
        shape: [usize; 2],
        format: Option<Format>,
    ) -> Result<Part, Error> {
        let Some(format) = format else {
            return Ok(Part::floats(self.tensor(from, slices, shape, self.storage.floats).await?));
        };
        from.cancel.check().await?;
        if from.zeros {
            let [words, scales] = [format.words(shape[1]), format.scale_words(shape[1])]
                .map(|width| Tensor::zeros([shape[0], width], (&self.device, DType::I32)));
            return Ok(Part::codes([words, scales], format, self.storage.rounds(format)));
        }
        let codes = from.weights.load_codes(slices, shape[1], format, &self.device).await?;
        Self::loaded(from, slices);
        Ok(Part::codes(codes, format, self.storage.rounds(format)))
    }

    /// Stored matrices joined by rows, in parts that a device can bind. If `together` is set, there are two with the same number of
    /// rows, and each part has the same rows of both.
    async fn matrices(
        &self,
        stored: &[(&str, &[usize])],
        role: ParameterRole,
        together: bool,
    ) -> Result<Vec<Part>, Error> {
        let name = |i: usize| stored.get(i).map(|(name, _)| (*name).to_owned());
        let parameters = stored.iter().enumerate().map(|(i, (name_of, shape))| Parameter {
            name: (*name_of).to_owned(),
            shape: shape.to_vec(),
            role,
            with: if together { name(1 - i) } else { None },
        });
        let Some(from) = &self.from else {
            self.listed.borrow_mut().extend(parameters);
            return Ok(vec![Part::floats(Tensor::zeros([1, 1], (&self.device, DType::F32)))]);
        };
        let width = stored.first().map_or(0, |(_, shape)| shape.iter().skip(1).product::<usize>());
        let file = |name: &str| from.weights.format(name);
        let formats: Vec<Option<Format>> = parameters.map(|p| self.storage.format_of(&p, &file)).collect();
        let mut parts = Vec::new();
        let mut rest = stored;
        // Neighbours of one format are joined.
        for run in formats.chunk_by(|a, b| a == b) {
            let (joined, after) = rest.split_at(run.len());
            self.cut(from, joined, (width, run[0]), together, &mut parts).await?;
            rest = after;
        }
        Ok(parts)
    }

    /// Stored matrices of one format, as parts of at most the largest size. See [`Loader::matrices`].
    async fn cut(
        &self,
        from: &From<'_>,
        stored: &[(&str, &[usize])],
        (width, format): (usize, Option<Format>),
        together: bool,
        parts: &mut Vec<Part>,
    ) -> Result<(), Error> {
        let count = if together { stored.len() } else { 1 };
        let floats = (width.max(1) * self.storage.floats.size()) as u64;
        let row = format.map_or(floats, |format| format.row_bytes(width)) * count as u64;
        let most = usize::try_from(self.largest / row).unwrap_or(usize::MAX).max(1);
        let rows: usize = stored.iter().map(|(_, shape)| shape[0]).sum::<usize>() / count;
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
            parts.push(self.part(from, &slices, [(last - first) * count, width], format).await?);
        }
        Ok(())
    }

    /// The embedding; `tied`: it is the head too.
    pub(crate) async fn embedding(&self, name: &str, shape: [usize; 2], tied: bool) -> Result<Vec<Part>, Error> {
        let parts = self.matrices(&[(name, &shape)], ParameterRole::Table, false).await?;
        if tied { self.divide(parts, Use::Both) } else { Ok(parts) }
    }

    /// The head.
    pub(crate) async fn head(&self, name: &str, shape: [usize; 2]) -> Result<Vec<Part>, Error> {
        let parts = self.matrices(&[(name, &shape)], ParameterRole::Table, false).await?;
        self.divide(parts, Use::Products)
    }

    /// Gives the helpers their rows, if there are helpers.
    fn divide(&self, parts: Vec<Part>, with: Use) -> Result<Vec<Part>, Error> {
        let Some(helpers) = self.helpers.as_ref().filter(|_| self.from.is_some()) else { return Ok(parts) };
        let divided = parts.into_iter().map(|part| Ok(Part::of(Shared::divide(part.weight(), helpers, with)?)));
        divided.collect()
    }

    /// The kernel of a convolution (out, channels, rows, columns) as a matrix (out, the product of the others).
    pub(crate) async fn convolution(&self, name: &str, stored: [usize; 4]) -> Result<Vec<Part>, Error> {
        self.matrices(&[(name, &stored)], ParameterRole::Float, false).await
    }

    /// A tensor, in f32.
    pub(crate) async fn exact<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Param<Tensor<D>>, Error> {
        let Some(from) = &self.from else {
            self.list(name, &shape);
            return Ok(Param::from_tensor(Tensor::zeros([1; D], (&self.device, DType::F32))));
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
            stored.iter().for_each(|(name, n)| self.list(name, &[*n]));
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
        self.joined(&[(name.to_owned(), out)], inputs, bias, ParameterRole::Float, false).await
    }

    /// The same in a layer of the text model.
    pub(crate) async fn layer(&self, name: &str, out: usize, inputs: usize, bias: bool) -> Result<Linear, Error> {
        self.joined(&[(name.to_owned(), out)], inputs, bias, ParameterRole::Layer, false).await
    }

    /// The same in a layer of the vision tower.
    pub(crate) async fn tower(&self, name: &str, out: usize, inputs: usize, bias: bool) -> Result<Linear, Error> {
        self.joined(&[(name.to_owned(), out)], inputs, bias, ParameterRole::Tower, false).await
    }

    /// Linear layers with the same input as one: their outputs are side by side.
    pub(crate) async fn side_by_side(
        &self,
        layers: &[(String, usize)],
        inputs: usize,
        bias: bool,
        role: ParameterRole,
    ) -> Result<Linear, Error> {
        self.joined(layers, inputs, bias, role, false).await
    }

    /// A gated layer of the text model: each part of the weight has rows of `gate`, then the same rows of `up`.
    pub(crate) async fn gated(
        &self,
        [gate, up]: [String; 2],
        out: usize,
        inputs: usize,
        bias: bool,
    ) -> Result<Linear, Error> {
        self.joined(&[(gate, out), (up, out)], inputs, bias, ParameterRole::Layer, true).await
    }

    async fn joined(
        &self,
        layers: &[(String, usize)],
        inputs: usize,
        bias: bool,
        role: ParameterRole,
        together: bool,
    ) -> Result<Linear, Error> {
        let of = |kind: &str| layers.iter().map(|(name, _)| format!("{name}.{kind}")).collect::<Vec<String>>();
        let (weights, biases) = (of("weight"), of("bias"));
        let shapes: Vec<[usize; 2]> = layers.iter().map(|(_, out)| [*out, inputs]).collect();
        let stored: Vec<(&str, &[usize])> =
            weights.iter().zip(&shapes).map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
        let weight = self.divide(self.matrices(&stored, role, together).await?, Use::Products)?;
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
