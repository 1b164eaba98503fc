//! FasterVLM. Input: the class attention of every patch. Output: in each tile, the patches with the most attention.
//! Source: arXiv 2412.01818v1; github.com/Theia-4869/FasterVLM, commit f5d5f12.

use super::{Budget, Method, MethodRow, Patches, Place, Settings, Stock, ThumbnailTokens, select::by_score};
use crate::error::Error;

pub(crate) const ROW: MethodRow = MethodRow {
    name: "faster-vlm",
    title: "FasterVLM",
    about: "Keeps the patches of each tile that the vision tower's class token attends to most",
    source: "arXiv 2412.01818",
    place: Place::Before,
    default: "faster-vlm:keep=0.25",
    read: |settings| Patches::read(Method::FasterVlm(FasterVlm::read(settings)?), settings),
};

/// FasterVLM (arXiv 2412.01818v1): in each tile, the patches that the class token attends to most.
///
/// `s_t[n] = mean_h A_h[class, n]`, in the layer of the vision tower whose output are the features. The original keeps a count
/// per tile; a ratio, so that a tile with much padding keeps fewer patches, is our choice.
#[derive(Clone, Debug, PartialEq)]
pub struct FasterVlm {
    /// Kept patches of each tile. Default: a ratio of 0.25.
    pub keep: Budget,
}

impl Default for FasterVlm {
    fn default() -> Self {
        Self { keep: Budget::Ratio(0.25) }
    }
}

impl FasterVlm {
    pub(crate) fn read(settings: &mut Settings<'_>) -> Result<Self, Error> {
        Ok(Self { keep: settings.budget("keep", Self::default().keep)? })
    }

    pub(crate) fn written(&self) -> Vec<(&'static str, String)> {
        vec![("keep", self.keep.to_string())]
    }

    /// The kept stock indices, rising. `attention` has one value per stock index.
    pub(crate) fn choose(&self, stock: &Stock, attention: &[f32], thumbnail: ThumbnailTokens) -> Vec<usize> {
        by_score(stock, attention, self.keep, thumbnail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::{Grid, Newline, Thumbnail};

    #[test]
    fn each_tile_keeps_the_patches_with_the_most_attention() {
        // one tile without a thumbnail: a map of 1 x 5 patches
        let (thumbnail, newline) = (Thumbnail::Own, Newline::None);
        let grid =
            Grid { rows: 1, cols: 1, patches: 5, side: 5, top: 2, cut: (1, 5), height: 1, width: 5, ..Grid::default() };
        let stock = Stock::of(&Grid { thumbnail, newline, ..grid });
        let attention = [0.20, 0.25, 0.20, 0.25, 0.10];
        for (keep, expected) in
            [(Budget::Count(2), vec![1, 3]), (Budget::Count(3), vec![0, 1, 3]), (Budget::Ratio(0.5), vec![0, 1, 3])]
        {
            let kept = FasterVlm { keep }.choose(&stock, &attention, ThumbnailTokens::Compress);
            assert_eq!(kept, expected, "{keep} (got, expected)");
        }
    }
}
