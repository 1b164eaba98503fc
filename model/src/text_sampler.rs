//! The text-guided sampler (Sec. 3.3). Input: queries of the question and keys of the visual tokens, at the input of one decoder
//! layer. Output: the visual tokens that stay.

use burn::tensor::{Int, Tensor};
use fovea_runtime::{
    Keep,
    sampler_ops::{text_score, top_k},
};

use crate::error::Error;

/// Importance of the visual tokens, and which of them stay, on the device.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// S, one value per visual token (Eq. 7, 8).
    pub importance: Tensor<1>,
    /// Indices of the visual tokens that stay, rising (Eq. 9).
    pub visual: Tensor<1, Int>,
}

/// Scores the visual tokens by the text after them, and keeps those within the budget `keep`.
///
/// Query and key are the pruned layer's own projections of its normalised input, without rotary positions unless `score_rope` is
/// set in the config (Eq. 6).
///
/// # Shapes
/// `query` (n_heads, T, d_head) of the text; `key` (n_kv_heads, N, d_head) of the visual tokens -> importance (N), and indices.
///
/// # Errors
/// Those of [`text_score`] and [`top_k`].
pub(crate) async fn text_guided(query: Tensor<3>, key: Tensor<3>, keep: Keep) -> Result<Kept, Error> {
    let importance = text_score(query, key)?;
    let visual = top_k(importance.clone(), keep).await?;
    Ok(Kept { importance, visual })
}
