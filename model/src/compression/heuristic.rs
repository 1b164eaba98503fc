//! FocusLLaVA's heuristic. Input: the likeness of every patch to the thumbnail. Output: the patches of the map with the most
//! likeness. Source: arXiv 2411.14228, Suppl. 6, Table 7.

use super::{Budget, Method, MethodRow, Patches, Place, Settings, Stock, ThumbnailTokens, select::best_of};
use crate::error::Error;

pub(crate) const ROW: MethodRow = MethodRow {
    name: "heuristic",
    title: "FocusLLaVA's heuristic",
    about: "Keeps the patches of the map that are most like the thumbnail, which is kept whole",
    source: "arXiv 2411.14228",
    place: Place::Before,
    default: "heuristic:keep=0.6",
    read: |settings| Patches::read(Method::Heuristic(Heuristic::read(settings)?), settings),
};

/// FocusLLaVA's own baseline (arXiv 2411.14228, Suppl. 6, Table 7): the patches of the map that are most like the thumbnail.
///
/// `score = <x, mean_n X_g[n]> / sqrt(C)` of the projected features, X_g those of the thumbnail. All tiles share one budget. The
/// division, which changes no order, and the whole thumbnail are our choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Heuristic {
    /// Kept patches of the map. Default: a ratio of 0.6.
    pub keep: Budget,
}

impl Default for Heuristic {
    fn default() -> Self {
        Self { keep: Budget::Ratio(0.6) }
    }
}

impl Heuristic {
    pub(crate) fn read(settings: &mut Settings<'_>) -> Result<Self, Error> {
        Ok(Self { keep: settings.budget("keep", Self::default().keep)? })
    }

    pub(crate) fn written(&self) -> Vec<(&'static str, String)> {
        vec![("keep", self.keep.to_string())]
    }

    /// The kept stock indices, rising. `likeness` is the score, one value per stock index.
    pub(crate) fn choose(&self, stock: &Stock, likeness: &[f32], thumbnail: ThumbnailTokens) -> Vec<usize> {
        let members = stock.candidates(thumbnail);
        best_of(&members, likeness, self.keep.of(members.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::Grid;

    #[test]
    fn the_whole_map_shares_one_budget() {
        // a thumbnail of 2 x 2 (0 to 3), a map of one row in two tiles (4 5 6 7), a newline
        let grid = Grid { rows: 1, cols: 2, patches: 2, side: 2, cut: (1, 4), height: 1, width: 4, ..Grid::default() };
        // by hand: X_g = (1, 0) (0, 1) (1, 3), mean (2/3, 4/3); x = (3, 0) (0, 3) (-1, 1) (1, 1)
        let likeness = [9.0, 9.0, 9.0, 9.0, 2.0, 4.0, 2.0 / 3.0, 2.0, 9.0];
        let kept = |keep| Heuristic { keep }.choose(&Stock::of(&grid), &likeness, ThumbnailTokens::Keep);
        assert_eq!(kept(Budget::Ratio(0.6)), [4, 5, 7], "(got, expected)");
        assert_eq!(kept(Budget::Count(1)), [5], "(got, expected)");
        let empty = Stock::of(&Grid { cut: (0, 4), height: 0, ..grid });
        assert_eq!(Heuristic::default().choose(&empty, &likeness, ThumbnailTokens::Drop), [0; 0], "(got, expected)");
    }
}
