//! The trait [`ScanOps`]: the selective scan on the tensors of a backend.

#[cfg(feature = "train")]
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::{Backend, backend_extension, tensor::FloatTensor};
use fovea_shaders::Discretisation;

use super::tensor_ops;

/// The selective scan on the tensors of a backend. The function of [`crate::scan_ops`] describes and checks the shapes.
#[cfg_attr(
    feature = "libtorch",
    allow(deprecated, reason = "burn will drop LibTorch; until then it is the fastest for long training on a CPU")
)]
#[backend_extension(Cube, Flex, LibTorch: cfg(feature = "libtorch"), Autodiff: cfg(feature = "train"))]
pub trait ScanOps: Backend {
    /// See [`selective_scan`](crate::scan_ops::selective_scan).
    fn selective_scan(
        u: FloatTensor<Self>,
        delta: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        d: FloatTensor<Self>,
        discretisation: Discretisation,
    ) -> FloatTensor<Self> {
        tensor_ops::selective_scan::<Self>(u, delta, a, b, c, d, discretisation)
    }
}

#[cfg(feature = "libtorch")]
#[allow(deprecated, reason = "burn will drop LibTorch; until then it is the fastest for long training on a CPU")]
impl ScanOps for burn::backend::LibTorch {}

/// The default body uses operations that have gradients.
#[cfg(feature = "train")]
impl<B: ScanOps, C: CheckpointStrategy> ScanOps for burn::backend::Autodiff<B, C> {}
