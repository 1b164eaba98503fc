//! A lattice of patches, as a baseline (ours). Input: its steps. Output: every n-th patch of the thumbnail and of the map.

use super::{Method, MethodRow, Patches, Place, Settings, Slot, Stock, ThumbnailTokens};
use crate::error::Error;

pub(crate) const ROW: MethodRow = MethodRow {
    name: "stride",
    title: "Lattice",
    about: "Keeps every n-th patch of the picture in both directions, as a baseline",
    source: "a baseline of Fovea",
    place: Place::Before,
    default: "stride:rows=2,cols=2",
    read: |settings| Patches::read(Method::Stride(Stride::read(settings)?), settings),
};

/// A baseline of ours: every `rows`-th row and `cols`-th column of the thumbnail and of the map, from `floor((step - 1) / 2)`
/// on; the last one where that is beyond the end.
#[derive(Clone, Debug, PartialEq)]
pub struct Stride {
    /// Step between kept rows, at least 1. Default: 2.
    pub rows: usize,
    /// Step between kept columns, at least 1. Default: 2.
    pub cols: usize,
}

impl Default for Stride {
    fn default() -> Self {
        Self { rows: 2, cols: 2 }
    }
}

impl Stride {
    pub(crate) fn read(settings: &mut Settings<'_>) -> Result<Self, Error> {
        let usual = Self::default();
        Ok(Self {
            rows: settings.count("rows", usual.rows, 1..=usize::MAX)?,
            cols: settings.count("cols", usual.cols, 1..=usize::MAX)?,
        })
    }

    pub(crate) fn written(&self) -> Vec<(&'static str, String)> {
        vec![("rows", self.rows.to_string()), ("cols", self.cols.to_string())]
    }

    /// The kept stock indices, rising.
    pub(crate) fn choose(&self, stock: &Stock, thumbnail: ThumbnailTokens) -> Vec<usize> {
        let &Stock { patches: p, height, width, .. } = stock;
        let is_kept = |&i: &usize| match stock.slots[i] {
            Slot::Thumbnail { patch } => on_lattice(patch / p, p, self.rows) && on_lattice(patch % p, p, self.cols),
            Slot::Map { y, x } => on_lattice(y, height, self.rows) && on_lattice(x, width, self.cols),
            Slot::Newline { .. } => false,
        };
        stock.candidates(thumbnail).into_iter().filter(is_kept).collect()
    }
}

/// Whether `at`, below `size`, is on the lattice of this step.
fn on_lattice(at: usize, size: usize, step: usize) -> bool {
    let first = ((step - 1) / 2).min(size - 1);
    at >= first && (at - first).is_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::Grid;

    #[test]
    fn a_lattice_begins_in_the_middle_of_a_step() {
        for (size, step, expected) in [
            (8, 2, vec![0, 2, 4, 6]),
            (8, 3, vec![1, 4, 7]),
            (2, 8, vec![1]),
            (0, 2, vec![]),
            (3, 1, vec![0, 1, 2]),
            (5, usize::MAX, vec![4]),
        ] {
            let got: Vec<usize> = (0..size).filter(|&at| on_lattice(at, size, step)).collect();
            assert_eq!(got, expected, "size {size}, step {step} (got, expected)");
        }
    }

    #[test]
    fn thumbnail_and_map_have_separate_lattices() {
        // a thumbnail of 3 x 3 (0 to 8); a map of 2 x 4, rows from 9 and from 14
        let grid = Grid { rows: 1, cols: 2, patches: 3, side: 3, cut: (2, 4), height: 2, width: 4, ..Grid::default() };
        let stock = Stock::of(&grid);
        let of = |rows, cols, thumbnail| Stride { rows, cols }.choose(&stock, thumbnail);
        let (compress, drop) = (ThumbnailTokens::Compress, ThumbnailTokens::Drop);
        assert_eq!(of(2, 2, compress), [0, 2, 6, 8, 9, 11], "(got, expected)");
        assert_eq!(of(3, 1, drop), [14, 15, 16, 17], "(got, expected)");
        assert_eq!(of(1, 1, compress), stock.candidates(compress), "(got, expected)");
    }
}
