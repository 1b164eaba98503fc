//! The trait: what a backend computes for the samplers.

use burn::backend::{
    Backend, ExtensionType, Flex, backend_extension,
    tensor::{FloatTensor, IntTensor},
};
use fovea_shaders::{CompactLayout, Keep, PoolLayout};

use super::tensor_ops;
use crate::Error;

/// Tokens in scanline order.
#[derive(ExtensionType)]
pub struct Compacted<B: Backend> {
    /// (tokens, C); one row of anything where there is none.
    pub tokens: FloatTensor<B>,
    /// (tokens, 4).
    pub boxes: IntTensor<B>,
    /// How many.
    pub counts: Result<CompactCounts, Error>,
}

/// What the host must know of the tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactCounts {
    /// Tokens, newlines included.
    pub tokens: usize,
    /// The newlines among them.
    pub newlines: usize,
}

/// The indices that stay.
#[derive(ExtensionType)]
pub struct Ranked<B: Backend> {
    /// `count` long; one of anything where `count` is 0 or an error.
    pub kept: IntTensor<B>,
    /// How many; 0 where a score is not finite.
    pub count: Result<usize, Error>,
}

/// The samplers' operations on a backend's own tensors. Shapes as in the functions of [`crate::sampler_ops`], which check
/// them.
#[backend_extension(Cube, Flex)]
pub trait SamplerOps: Backend {
    /// See [`region_pool`](crate::sampler_ops::region_pool).
    fn region_pool(map: FloatTensor<Self>, layout: PoolLayout) -> FloatTensor<Self> {
        tensor_ops::region_pool::<Self>(map, &layout)
    }

    /// See [`scale_select`](crate::sampler_ops::scale_select).
    fn scale_select(
        pooled: FloatTensor<Self>,
        thumbnail: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, IntTensor<Self>) {
        tensor_ops::scale_select::<Self>(pooled, thumbnail, weight, bias)
    }

    /// See [`compact`](crate::sampler_ops::compact).
    fn compact(
        map: FloatTensor<Self>,
        pooled: FloatTensor<Self>,
        newline: FloatTensor<Self>,
        choice: IntTensor<Self>,
        layout: CompactLayout,
    ) -> impl Future<Output = Compacted<Self>> {
        tensor_ops::compact::<Self>(map, pooled, newline, choice, layout)
    }

    /// See [`text_score`](crate::sampler_ops::text_score).
    fn text_score(query: FloatTensor<Self>, key: FloatTensor<Self>) -> FloatTensor<Self> {
        tensor_ops::text_score::<Self>(query, key)
    }

    /// See [`top_k`](crate::sampler_ops::top_k).
    fn top_k(scores: FloatTensor<Self>, keep: Keep) -> impl Future<Output = Ranked<Self>> {
        tensor_ops::top_k::<Self>(scores, keep)
    }

    /// See [`row_gather`](crate::sampler_ops::row_gather).
    fn row_gather(rows: FloatTensor<Self>, indices: IntTensor<Self>) -> FloatTensor<Self> {
        tensor_ops::row_gather::<Self>(rows, indices)
    }
}

impl SamplerOps for Flex {}
