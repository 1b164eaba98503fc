//! Linear layers, `y = x W^T + b`. The weight has the layout of the checkpoint, (d_out, d_in).

use std::ops::Range;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use fovea_runtime::network_ops::{self, After};

use crate::{
    error::Error,
    matrix::{Part, weights},
    norm::Norm,
};

/// A linear layer, or several with the same input, joined by rows.
#[derive(Module, Debug)]
pub struct Linear {
    /// Parts of (rows, d_in). More than one only where a device can't bind the whole matrix, or where the rows of joined matrices
    /// are stored differently.
    pub weight: Vec<Part>,
    /// (d_out,), f32.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// `x W^T + b`.
    ///
    /// # Shapes
    /// `x` (rows, d_in), f32 -> (rows, d_out), f32.
    ///
    /// # Errors
    /// [`fovea_runtime::Error::Shape`] if the width differs.
    pub fn forward(&self, x: Tensor<2>) -> Result<Tensor<2>, Error> {
        self.run(x, None, After::Nothing)
    }

    /// The layer after an RMS norm, if given, and what follows it ([`network_ops::linear`]).
    ///
    /// # Errors
    /// [`fovea_runtime::Error::Shape`] if a shape differs.
    pub(crate) fn run(&self, x: Tensor<2>, norm: Option<&Norm>, after: After) -> Result<Tensor<2>, Error> {
        let norm = norm.map(|norm| (norm.gamma.val(), norm.epsilon));
        Ok(network_ops::linear(x, &weights(&self.weight), self.bias.as_ref().map(Param::val), norm, after)?)
    }

    /// Some columns of the result: a layer with these rows of the weight.
    ///
    /// # Errors
    /// [`fovea_runtime::Error::Shape`] if a shape differs.
    pub(crate) fn columns(&self, x: Tensor<2>, norm: &Norm, columns: Range<usize>) -> Result<Tensor<2>, Error> {
        let mut first = 0;
        let mut parts = Vec::new();
        for part in weights(&self.weight) {
            let rows = part.dims()[0];
            let (from, to) = (columns.start.max(first), columns.end.min(first + rows));
            if from < to {
                parts.push(part.rows(from - first..to - first));
            }
            first += rows;
        }
        let bias = self.bias.as_ref().map(|bias| bias.val().narrow(0, columns.start, columns.len()));
        Ok(network_ops::linear(x, &parts, bias, Some((norm.gamma.val(), norm.epsilon)), After::Nothing)?)
    }
}
