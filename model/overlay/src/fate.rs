//! Input: visual tokens. Output: how each of them is drawn.

use fovea_model::{Looked, Origin, VisualToken};

/// Whether the last layer reads a visual token, and its look if it does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// A layer before the last one dropped it.
    Dropped,
    /// The last layer reads it.
    Kept {
        /// Importance: 0 is the least important kept token, 1 the most important one. `None` if nothing was pruned inside
        /// the model.
        rank: Option<f32>,
        /// Whether several patches were merged into it.
        merged: bool,
    },
}

/// The fate of each of the visual tokens of `looked`.
pub fn fates(looked: &Looked, tokens: &[VisualToken]) -> Vec<Fate> {
    let mut kept: Vec<usize> = tokens.iter().filter(|token| token.kept).filter_map(|token| token.rank).collect();
    kept.sort_unstable_by(|a, b| b.cmp(a));
    let last = kept.len().saturating_sub(1).max(1) as f32;
    let rank = |rank: usize| kept.partition_point(|&other| other > rank) as f32 / last;
    let fate = |(token, origin): (&VisualToken, &Origin)| {
        if token.kept { Fate::Kept { rank: token.rank.map(rank), merged: is_merged(origin) } } else { Fate::Dropped }
    };
    tokens.iter().zip(looked.origins.iter()).map(fate).collect()
}

/// Whether a token has patches of several places. The patches of a region at a coarse scale are one place.
pub fn is_merged(origin: &Origin) -> bool {
    match origin {
        Origin::Thumbnail(patches) => patches.len() > 1,
        Origin::Map(patches) => patches.len() > 1,
        Origin::Newline(_) | Origin::Class(_) => false,
    }
}
