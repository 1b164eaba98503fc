//! Scaled dot-product attention in f32. Input: queries, keys, values. Output: weighted means of the values.

use burn::tensor::{DType, Tensor, activation, module::attention, ops::AttentionModuleOptions};

use crate::pace::Steps;

/// `softmax(Q K^T / sqrt(d_head)) V` without a mask.
///
/// # Shapes
/// `query` (batch, heads, queries, d_head); `key`, `value` (batch, heads, keys, d_head) -> (batch, heads, queries, d_head).
pub(crate) fn full(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
    attention(query, key, value, None, None, AttentionModuleOptions::default())
}

/// Causal attention of the newest tokens over all: query `i` of T sees the first `S - T + i + 1` of S keys.
///
/// The mask uses the order of the cache only: positions rise along it, also after visual tokens have been dropped. `steps` limits
/// for how many query rows the scores (n_heads, rows, S) exist at once.
///
/// # Shapes
/// `query` (n_heads, T, d_head); `key`, `value` (n_kv_heads, S, d_head) -> (T, n_heads * d_head).
pub(crate) fn causal(query: Tensor<3>, key: Tensor<3>, value: Tensor<3>, steps: Steps) -> Tensor<2> {
    let ([heads, new, d_head], [kv_heads, all, _]) = (query.dims(), key.dims());
    let group = heads / kv_heads;
    let (key, value) = (key.cast(DType::F32), value.cast(DType::F32));
    if new == 1 {
        // One token sees all keys: the query heads of a group are the rows of one small product.
        let query = query.reshape([kv_heads, group, d_head]);
        let scores = query.matmul(key.transpose()) / (d_head as f64).sqrt();
        return activation::softmax(scores, 2).matmul(value).reshape([1, heads * d_head]);
    }
    // Key heads are the batch, the query heads of a group its heads: keys and values are not repeated.
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
