//! The trait [`NetworkOps`]: the operations of the network on the tensors of a backend.

#[cfg(feature = "train")]
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::{
    Backend, ExtensionType, backend_extension,
    tensor::{FloatTensor, IntTensor},
};
use fovea_shaders::{Activation, Format};

use super::{
    Heads,
    tensor_ops::{self, Extra},
};

/// A tensor, or none.
#[derive(ExtensionType)]
pub enum Maybe<B: Backend> {
    /// None.
    No,
    /// A tensor.
    Yes(FloatTensor<B>),
}

impl<B: Backend> Maybe<B> {
    /// The tensor, if there is one.
    pub fn take(self) -> Option<FloatTensor<B>> {
        match self {
            Self::No => None,
            Self::Yes(tensor) => Some(tensor),
        }
    }

    /// From a tensor, or none.
    pub fn of(tensor: Option<FloatTensor<B>>) -> Self {
        tensor.map_or(Self::No, Self::Yes)
    }
}

/// A weight, as the operations of a backend get it.
#[derive(ExtensionType)]
pub enum Operand<B: Backend> {
    /// (rows, K), f32 or f16.
    Float(FloatTensor<B>),
    /// Words of codes, words of scales, their layout, and whether many rows of inputs are rounded.
    Codes(IntTensor<B>, IntTensor<B>, Format, bool),
    /// (T, rows), f32: the product itself, which was computed elsewhere.
    Product(FloatTensor<B>),
}

/// What a product does besides the product.
#[derive(Clone, Copy, Debug)]
pub struct LinearPlan {
    /// Of the RMS norm, if there is a gamma.
    pub epsilon: f64,
    /// Columns of the whole result.
    pub width: usize,
    /// The column of the first row of this part of the weight.
    pub first: usize,
    /// Factor of the product, if there is a residual.
    pub factor: f64,
    /// None: no activation.
    pub activation: Option<Activation>,
    /// Whether the second half of the rows is multiplied by the activated first half.
    pub gated: bool,
}

/// Which part of a table is read.
#[derive(Clone, Copy, Debug)]
pub struct EmbedPlan {
    /// Number of ids that are used.
    pub tokens: usize,
    /// The id of the part's first row.
    pub first: usize,
    /// Factor of the rows.
    pub factor: f64,
}

/// Where keys and values are written.
#[derive(Clone, Copy, Debug)]
pub struct StorePlan {
    /// The heads.
    pub heads: Heads,
    /// Tokens in the cache.
    pub len: usize,
    /// The word of the state that has `len`.
    pub slot: u32,
    /// Row of the rotary table of the first token.
    pub first: usize,
}

/// What attends to what.
#[derive(Clone, Copy, Debug)]
pub struct AttendPlan {
    /// The heads.
    pub heads: Heads,
    /// Tokens in the cache, with the new ones.
    pub keys: usize,
    /// The word of the state that has the number of tokens before the new ones.
    pub slot: u32,
    /// Factor of the scores.
    pub factor: f64,
}

/// The operations of the network on the tensors of a backend. The functions of [`crate::network_ops`] describe and check
/// the shapes.
#[cfg_attr(
    feature = "libtorch",
    allow(deprecated, reason = "burn will drop LibTorch; until then it is the fastest for long training on a CPU")
)]
#[backend_extension(Cube, Flex, LibTorch: cfg(feature = "libtorch"), Autodiff: cfg(feature = "train"))]
pub trait NetworkOps: Backend {
    /// See [`embed`](crate::network_ops::embed). `out` has the rows of the parts before this one.
    fn embed(
        ids: IntTensor<Self>,
        #[extension_type] table: Operand<Self>,
        #[extension_type] out: Maybe<Self>,
        plan: EmbedPlan,
    ) -> FloatTensor<Self> {
        let _ = out; // tables are in one part where this runs
        tensor_ops::embed::<Self>(ids, table, &plan)
    }

    /// See [`norm`](crate::network_ops::norm).
    fn norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        #[extension_type] beta: Maybe<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        tensor_ops::norm::<Self>(x, gamma, beta.take(), epsilon)
    }

    /// See [`linear`](crate::network_ops::linear). `out` has the columns of the parts before this one.
    fn linear(
        x: FloatTensor<Self>,
        #[extension_type] weight: Operand<Self>,
        #[extension_type] bias: Maybe<Self>,
        #[extension_type] gamma: Maybe<Self>,
        #[extension_type] residual: Maybe<Self>,
        #[extension_type] out: Maybe<Self>,
        plan: LinearPlan,
    ) -> FloatTensor<Self> {
        let extra = Extra { bias: bias.take(), residual: residual.take(), out: out.take() };
        tensor_ops::linear::<Self>(x, weight, gamma.take(), extra, &plan)
    }

    /// See [`rotate_and_store`](crate::network_ops::rotate_and_store): queries, keys and values.
    fn rotate_and_store(
        qkv: FloatTensor<Self>,
        table: FloatTensor<Self>,
        state: IntTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        plan: StorePlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let _ = state; // the plan has the same numbers
        tensor_ops::rotate_and_store::<Self>(qkv, table, key, value, &plan)
    }

    /// See [`attend`](crate::network_ops::attend).
    fn attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        state: IntTensor<Self>,
        plan: AttendPlan,
    ) -> FloatTensor<Self> {
        let _ = state; // the plan has the same numbers
        tensor_ops::attend::<Self>(query, key, value, &plan)
    }

    /// See [`attend_full`](crate::network_ops::attend_full).
    fn attend_full(qkv: FloatTensor<Self>, tiles: usize, heads: Heads) -> FloatTensor<Self> {
        tensor_ops::attend_full::<Self>(qkv, tiles, heads)
    }

    /// See [`pick`](crate::network_ops::pick).
    fn pick(
        logits: FloatTensor<Self>,
        allowed: IntTensor<Self>,
        state: IntTensor<Self>,
    ) -> impl Future<Output = IntTensor<Self>> {
        tensor_ops::pick::<Self>(logits, allowed, state)
    }
}

#[cfg(feature = "libtorch")]
#[allow(deprecated, reason = "burn will drop LibTorch; until then it is the fastest for long training on a CPU")]
impl NetworkOps for burn::backend::LibTorch {}

/// The default bodies use operations that have gradients.
#[cfg(feature = "train")]
impl<B: NetworkOps, C: CheckpointStrategy> NetworkOps for burn::backend::Autodiff<B, C> {}
