//! Scaled dot-product attention over cached keys and values, in f32.

use burn::tensor::{DType, Tensor, activation, module::attention, ops::AttentionModuleOptions};

use crate::pace::Steps;

/// `softmax(Q K^T / sqrt(d)) V` without a mask.
///
/// `query` (batch, heads, queries, d_head); `key`, `value` (batch, heads, keys, d_head) -> (batch, heads, queries, d_head).
pub(crate) fn full(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
    attention(query, key, value, None, None, AttentionModuleOptions::default())
}

/// Causal attention of the newest tokens over all: query `i` of T sees the first `S - T + i + 1` of S keys.
///
/// Order is all that the mask needs: positions rise along the cache, also where visual tokens have been dropped.
/// `query` (n_heads, T, d_head); `key`, `value` (n_kv_heads, S, d_head) -> (T, n_heads * d_head). The scores, (n_heads, rows, S), are
/// held for as many rows at once as `steps` allows.
pub(crate) fn causal(query: Tensor<3>, key: Tensor<3>, value: Tensor<3>, steps: Steps) -> Tensor<2> {
    let ([heads, new, d_head], [kv_heads, all, _]) = (query.dims(), key.dims());
    let group = heads / kv_heads;
    let (key, value) = (key.cast(DType::F32), value.cast(DType::F32));
    if new == 1 {
        // One token sees everything: the heads of a group are the rows of one small product.
        let query = query.reshape([kv_heads, group, d_head]);
        let scores = query.matmul(key.transpose()) / (d_head as f64).sqrt();
        return activation::softmax(scores, 2).matmul(value).reshape([1, heads * d_head]);
    }
    // Key heads as the batch, the query heads of each as its heads: keys and values are never repeated.
    let query = query.reshape([kv_heads, group, new, d_head]);
    let (key, value) = (key.unsqueeze_dim::<4>(1), value.unsqueeze_dim::<4>(1));
    let causal = AttentionModuleOptions { is_causal: true, ..Default::default() };
    let block = steps.queries(heads, all);
    let blocks = (0..new).step_by(block).map(|start| {
        let rows = block.min(new - start);
        let seen = all - new + start + rows;
        attention(
            query.clone().narrow(2, start, rows),
            key.clone().narrow(2, 0, seen),
            value.clone().narrow(2, 0, seen),
            None,
            None,
            causal,
        )
    });
    Tensor::cat(blocks.collect(), 2).reshape([heads, new, d_head]).swap_dims(0, 1).reshape([new, heads * d_head])
}
