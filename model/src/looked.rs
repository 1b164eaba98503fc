//! The attention of a model to one picture: its visual tokens, what each of them is made of, and which of them were kept.
//!
//! Input: the result of a compression. Output: the data of every overlay, and one [`VisualToken`] per visual token.

use std::sync::Arc;

use fovea_runtime::{Scale, TokenBox};
use fovea_shaders::regions;
use serde::{Serialize, Serializer};

use crate::grid::Grid;

/// What an overlay needs to show, besides the picture.
#[derive(Clone, Debug)]
pub struct Looked {
    /// Position of the feature map on the tiles of the picture.
    pub grid: Grid,
    /// The compression, as text ([`crate::Compression`]).
    pub compression: String,
    /// Side of a region in patches.
    pub window: usize,
    /// The scales that each region can have.
    pub scales: Arc<Vec<Scale>>,
    /// One index into `scales` per region, block by block in raster order; empty without the vision-guided sampler.
    pub choice: Arc<Vec<usize>>,
    /// What each visual token is made of, in the order of the sequence.
    pub origins: Arc<Vec<Origin>>,
    /// Importance of each visual token (Eq. 8, or an attention), from the first pruning inside the model; empty without one.
    pub importance: Vec<f32>,
    /// Indices of the visual tokens that the last layer reads, in rising order.
    pub kept: Vec<usize>,
}

/// What one visual token is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Patches of the thumbnail, by index in raster order. Several patches are merged into one token.
    Thumbnail(Vec<usize>),
    /// Rectangles of patches of the map. Several rectangles are merged into one token.
    Map(Vec<TokenBox>),
    /// The end of a row of the map: patches right of the map.
    Newline(TokenBox),
    /// The class token of a tile of the vision tower, by index of the tile: it stands for the whole tile.
    Class(usize),
}

impl Origin {
    /// The origin of a token with these patches of the map, or of a newline, whose patches are right of the map.
    pub(crate) fn of(patches: TokenBox) -> Self {
        if patches[1] == patches[3] { Self::Newline(patches) } else { Self::Map(vec![patches]) }
    }
}

/// The part of the visual sequence that a token belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenPart {
    /// The downscaled whole picture.
    Thumbnail,
    /// The map: the patches of the high-resolution tiles.
    Map,
    /// The end of a row of the map.
    Newline,
    /// A class token of the vision tower.
    Class,
}

/// The facts about one visual token.
///
/// As JSON, `patches` has the key `boxes`, `share` has the key `importance`, and `scale` is a string such as `"4x4"`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct VisualToken {
    /// Its index among all visual tokens, from 0.
    pub index: usize,
    /// The part that it belongs to.
    pub part: TokenPart,
    /// The patches of the map that it represents: several rectangles for a merged token, none for a token of the thumbnail and
    /// for a class token.
    #[serde(rename = "boxes")]
    pub patches: Vec<TokenBox>,
    /// The scale of its region; `None` outside the map and without the vision-guided sampler.
    #[serde(serialize_with = "scale_name")]
    pub scale: Option<Scale>,
    /// Its importance divided by the sum over all visual tokens, 0 to 1; `None` if nothing was pruned inside the model.
    #[serde(rename = "importance")]
    pub share: Option<f32>,
    /// Its rank by importance among all visual tokens: 1 is the most important. Of equal tokens, the earlier one comes
    /// first. `None` if nothing was pruned inside the model.
    pub rank: Option<usize>,
    /// Whether the last layer reads it.
    pub kept: bool,
}

fn scale_name<S: Serializer>(scale: &Option<Scale>, to: S) -> Result<S::Ok, S::Error> {
    scale.map(|scale| scale.to_string()).serialize(to)
}

impl Looked {
    /// Number of visual tokens that enter the text model.
    #[must_use]
    pub fn token_count(&self) -> usize {
        self.origins.len()
    }

    /// The region of a patch of the map as an index into `choice`; `None` outside the map.
    #[must_use]
    pub fn region_at(&self, y: usize, x: usize) -> Option<usize> {
        let window = self.window.max(1);
        let mut before = 0;
        for [top, left, bottom, right] in self.grid.blocks() {
            let across = (right - left).div_ceil(window);
            if (top..bottom).contains(&y) && (left..right).contains(&x) {
                return Some(before + (y - top) / window * across + (x - left) / window);
            }
            before += (bottom - top).div_ceil(window) * across;
        }
        None
    }

    /// The corners of every region, (y0, x0, y1, x1), in the order of `choice`.
    #[must_use]
    pub fn regions(&self) -> Vec<[usize; 4]> {
        let window = self.window.max(1);
        let of = |[top, left, bottom, right]: [usize; 4]| {
            regions(bottom - top, right - left, window).into_iter().map(move |(y, x)| {
                let (y, x) = (top + y, left + x);
                [y, x, (y + window).min(bottom), (x + window).min(right)]
            })
        };
        self.grid.blocks().into_iter().flat_map(of).collect()
    }

    /// All visual tokens, in the order of the sequence.
    #[must_use]
    pub fn tokens(&self) -> Vec<VisualToken> {
        let count = self.token_count();
        let mut order: Vec<usize> = (0..self.importance.len().min(count)).collect();
        // A stable sort: of equal tokens the earlier one comes first, as in the sampler.
        order.sort_by(|&a, &b| self.importance[b].total_cmp(&self.importance[a]));
        let mut ranks = vec![None; count];
        for (rank, index) in (1..).zip(order) {
            ranks[index] = Some(rank);
        }
        let sum = self.importance.iter().sum::<f32>().max(f32::MIN_POSITIVE);
        let token = |(index, (origin, rank)): (usize, (&Origin, Option<usize>))| {
            let (part, patches) = match origin {
                Origin::Thumbnail(_) => (TokenPart::Thumbnail, Vec::new()),
                Origin::Map(patches) => (TokenPart::Map, patches.clone()),
                Origin::Newline(patches) => (TokenPart::Newline, vec![*patches]),
                Origin::Class(_) => (TokenPart::Class, Vec::new()),
            };
            let scale = patches.first().filter(|_| part == TokenPart::Map).and_then(|&[y, x, ..]| self.scale_at(y, x));
            let share = self.importance.get(index).map(|own| own / sum);
            VisualToken { index, part, patches, scale, share, rank, kept: self.kept.binary_search(&index).is_ok() }
        };
        self.origins.iter().zip(ranks).enumerate().map(token).collect()
    }

    /// The scale of the region that contains the patch in row `y` and column `x` of the map.
    fn scale_at(&self, y: usize, x: usize) -> Option<Scale> {
        self.scales.get(*self.choice.get(self.region_at(y, x)?)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use fovea_shaders::compact;
    use serde_json::json;

    use super::*;

    /// A map of 8 x 8 patches after a thumbnail of 16 tokens: the first region at 2x2, the others at 4x4.
    fn looked() -> Looked {
        let scales = [Scale::new(4, 4), Scale::new(2, 2)];
        let choice = vec![1, 0, 0, 0];
        let map = compact(8, 8, 4, &scales, &choice).into_iter().map(|(patches, _)| Origin::of(patches));
        let origins: Vec<_> = (0..16).map(|patch| Origin::Thumbnail(vec![patch])).chain(map).collect();
        let count = origins.len();
        Looked {
            grid: Grid { rows: 2, cols: 2, patches: 4, side: 4, cut: (8, 8), height: 8, width: 8, ..Grid::default() },
            compression: "focus".into(),
            window: 4,
            scales: Arc::new(scales.to_vec()),
            choice: Arc::new(choice),
            origins: Arc::new(origins),
            importance: (0..count).map(|i| i as f32).collect(),
            kept: vec![0, 16, 18],
        }
    }

    #[test]
    fn a_token_has_its_part_patches_scale_share_and_rank() {
        let looked = looked();
        let tokens = looked.tokens();
        let count = tokens.len();
        assert_eq!((count, looked.token_count()), (26, 26), "16 of the thumbnail, 4 + 3 of the map, 3 newlines");
        let parts = [TokenPart::Thumbnail, TokenPart::Map, TokenPart::Newline]
            .map(|p| tokens.iter().filter(|t| t.part == p).count());
        assert_eq!(parts, [16, 7, 3], "tokens per part (got, expected)");
        // Scanline order: two fine tokens, the coarse one beside them, a newline.
        let shown: Vec<_> = tokens[15..20].iter().map(|t| (t.index, t.patches.clone(), t.scale, t.kept)).collect();
        let expected = [
            (15, vec![], None, false),
            (16, vec![[0, 0, 2, 2]], Some(Scale::new(2, 2)), true),
            (17, vec![[0, 2, 2, 4]], Some(Scale::new(2, 2)), false),
            (18, vec![[0, 4, 4, 8]], Some(Scale::new(4, 4)), true),
            (19, vec![[0, 8, 1, 8]], None, false),
        ];
        assert_eq!(shown, expected, "(got, expected)");
        // The importance here is the index.
        let sum = (count * (count - 1) / 2) as f32;
        for token in &tokens {
            assert_eq!(token.rank, Some(count - token.index), "{token:?}");
            assert!(token.share.is_some_and(|own| (own - token.index as f32 / sum).abs() < 1e-6), "{token:?}");
        }
    }

    #[test]
    fn of_equal_tokens_the_earlier_one_ranks_first() {
        let mut looked = looked();
        looked.importance = vec![1.0; 26];
        looked.importance[20] = 2.0;
        let ranks: Vec<_> = looked.tokens().iter().filter_map(|token| token.rank).collect();
        assert_eq!((ranks[20], ranks[0], ranks[19], ranks[21]), (1, 2, 21, 22), "(got, expected)");
    }

    #[test]
    fn without_samplers_there_is_no_scale_share_or_rank() {
        let mut looked = looked();
        (looked.choice, looked.importance, looked.kept) = (Arc::default(), Vec::new(), (0..26).collect());
        for token in looked.tokens() {
            assert_eq!((token.scale, token.share, token.rank, token.kept), (None, None, None, true), "{token:?}");
        }
    }

    #[test]
    fn merged_and_class_tokens_have_their_patches() {
        let mut looked = looked();
        let merged = Origin::Map(vec![[0, 0, 1, 1], [3, 5, 4, 6]]);
        looked.origins = Arc::new(vec![Origin::Class(0), Origin::Thumbnail(vec![3, 7]), merged]);
        looked.choice = Arc::default();
        let tokens = looked.tokens();
        assert_eq!(
            tokens.iter().map(|t| t.part).collect::<Vec<_>>(),
            [TokenPart::Class, TokenPart::Thumbnail, TokenPart::Map]
        );
        assert_eq!(tokens[2].patches, [[0, 0, 1, 1], [3, 5, 4, 6]]);
        assert!(tokens[0].patches.is_empty() && tokens[1].patches.is_empty());
    }

    #[test]
    fn a_token_as_json() {
        let tokens = serde_json::to_value(looked().tokens()).expect("JSON");
        let expected = json!({
            "index": 18, "part": "map", "boxes": [[0, 4, 4, 8]], "scale": "4x4", "rank": 8, "kept": true,
            "importance": tokens[18]["importance"],
        });
        assert_eq!(tokens[18], expected, "(got, expected)");
        assert_eq!((&tokens[0]["part"], &tokens[0]["boxes"]), (&json!("thumbnail"), &json!([])));
    }
}
