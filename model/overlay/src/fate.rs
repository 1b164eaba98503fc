//! Input: visual tokens. Output: how each of them is drawn.

use fovea_model::VisualToken;

/// The result of the text-guided sampler for one visual token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// The sampler dropped it.
    Dropped,
    /// The sampler was off.
    Kept,
    /// The sampler kept it: 0 is the least important kept token, 1 the most important one.
    Ranked(f32),
}

/// The fate of each token.
pub fn fates(tokens: &[VisualToken]) -> Vec<Fate> {
    let mut kept: Vec<usize> = tokens.iter().filter(|token| token.kept).filter_map(|token| token.rank).collect();
    kept.sort_unstable_by(|a, b| b.cmp(a));
    let last = kept.len().saturating_sub(1).max(1) as f32;
    let fate = |token: &VisualToken| match token.rank {
        _ if !token.kept => Fate::Dropped,
        None => Fate::Kept,
        Some(rank) => Fate::Ranked(kept.partition_point(|&other| other > rank) as f32 / last),
    };
    tokens.iter().map(fate).collect()
}
