//! The text-guided sampler (Sec. 3.3): what enters a decoder layer in, the visual tokens that the question attends to
//! out.

use burn::tensor::Tensor;
use fovea_runtime::{
    Keep,
    sampler_ops::{keep_by_score, text_score},
};

use crate::error::Error;

/// Importance and survivors of the visual tokens.
#[derive(Clone, Debug)]
pub struct Kept {
    /// S, one a visual token (Eq. 7, 8).
    pub importance: Vec<f32>,
    /// Indices of the survivors among the visual tokens, rising (Eq. 9).
    pub visual: Vec<usize>,
}

/// Scores the visual tokens by the text after them and keeps those within the budget.
///
/// `query` (n_heads, T, d_head) of the text, `key` (n_kv_heads, N, d_head) of the visual tokens; both are the pruned
/// layer's own projections of its normalised input, without rotary positions unless `score_rope` is set.
pub(crate) async fn text_guided(query: Tensor<3>, key: Tensor<3>, keep: Keep) -> Result<Kept, Error> {
    let (visual, importance) = keep_by_score(text_score(query, key)?, keep).await?;
    Ok(Kept { importance, visual })
}
