//! The text-guided sampler (Sec. 3.3): what enters a decoder layer in, the visual tokens that the question attends to
//! out.

use burn::tensor::{Int, Tensor};
use fovea_runtime::{
    Keep,
    sampler_ops::{text_score, top_k},
};

use crate::error::Error;

/// Importance and survivors of the visual tokens, on the device.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// S, one a visual token (Eq. 7, 8).
    pub importance: Tensor<1>,
    /// Indices of the survivors among the visual tokens, rising (Eq. 9).
    pub visual: Tensor<1, Int>,
}

/// Scores the visual tokens by the text after them and keeps those within the budget.
///
/// `query` (n_heads, T, d_head) of the text, `key` (n_kv_heads, N, d_head) of the visual tokens; both are the pruned
/// layer's own projections of its normalised input, without rotary positions unless `score_rope` is set.
pub(crate) async fn text_guided(query: Tensor<3>, key: Tensor<3>, keep: Keep) -> Result<Kept, Error> {
    let importance = text_score(query, key)?;
    let visual = top_k(importance.clone(), keep).await?;
    Ok(Kept { importance, visual })
}
