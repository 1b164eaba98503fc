//! Linear layers, `y = x W^T + b`, and activations. The weight has the layout of the checkpoint, (d_out, d_in).

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};

use fovea_runtime::element_ops::{gated_silu, quick_gelu};

use crate::{config::Activation, error::Error};

/// A linear layer.
#[derive(Module, Debug)]
pub struct Linear {
    /// (d_out, d_in), in the dtype of the loaded matrices, f32 or f16.
    pub weight: Param<Tensor<2>>,
    /// (d_out,), f32.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// `x W^T + b`.
    ///
    /// With weights in f16 the product is computed in f16, and the backend decides in which dtype it sums; the rest is f32.
    ///
    /// # Shapes
    /// `x` (rows, d_in), f32 -> (rows, d_out), f32.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let y = product(x, self.weight.val());
        match &self.bias {
            Some(bias) => y + bias.val().unsqueeze(),
            None => y,
        }
    }
}

/// `x W^T` for a weight in f32 or f16.
///
/// # Shapes
/// `x` (rows, d_in), f32; `weight` (d_out, d_in) -> (rows, d_out), f32.
pub(crate) fn product(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    if weight.dtype() == DType::F32 {
        return x.matmul(weight.transpose());
    }
    x.cast(weight.dtype()).matmul(weight.transpose()).cast(DType::F32)
}

impl Activation {
    /// Applies the nonlinearity, element by element.
    pub fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::QuickGelu => quick_gelu(x),
            Self::Gelu => burn::tensor::activation::gelu(x),
            Self::GeluTanh => burn::tensor::activation::gelu_approximate(x),
            Self::Silu => burn::tensor::activation::silu(x),
        }
    }

    /// `f(gate) * up`, element by element.
    ///
    /// # Errors
    /// [`fovea_runtime::Error::Shape`] if the shapes differ.
    pub(crate) fn gate<const D: usize>(self, gate: Tensor<D>, up: Tensor<D>) -> Result<Tensor<D>, Error> {
        match self {
            Self::Silu => Ok(gated_silu(gate, up)?),
            _ => Ok(self.apply(gate) * up),
        }
    }
}
