//! The trait [`SamplerOps`]: the operations of the samplers on the tensors of a backend.

use burn::backend::{
    Backend, Flex, backend_extension,
    tensor::{FloatTensor, IntTensor},
};
use fovea_shaders::{CompactLayout, Keep, PoolLayout};

use super::{
    results::{CompactParts, Ranked},
    tensor_ops,
};

/// The operations of the samplers on the tensors of a backend. The functions of [`crate::sampler_ops`] describe and
/// check the shapes.
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
    ) -> impl Future<Output = CompactParts<Self>> {
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
