//! The norms before and after the layers.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use fovea_runtime::network_ops;

use crate::error::Error;

/// The norm of each row: with `beta` a layer norm, without it an RMS norm ([`network_ops::norm`]).
#[derive(Module, Debug)]
pub struct Norm {
    /// (C,), f32.
    pub gamma: Param<Tensor<1>>,
    /// (C,), f32.
    pub beta: Option<Param<Tensor<1>>>,
    /// Added to the variance, or to the mean of the squares.
    pub epsilon: f64,
}

impl Norm {
    /// The norm of each row.
    ///
    /// # Shapes
    /// `x` (rows, C), f32 -> the same.
    ///
    /// # Errors
    /// [`fovea_runtime::Error::Shape`] if the width differs.
    pub fn forward(&self, x: Tensor<2>) -> Result<Tensor<2>, Error> {
        let beta = self.beta.as_ref().map(Param::val);
        Ok(network_ops::norm(x, self.gamma.val(), beta, self.epsilon)?)
    }
}
