//! The family's own sequence of a picture, without tensors. Input: the grid. Output: one slot per visual token, in the
//! order of the sequence, and the tile of each.

use super::ThumbnailTokens;
use crate::grid::{Grid, Newline, Thumbnail};

/// What a visual token of the family's own sequence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// A patch of the thumbnail.
    Thumbnail {
        /// Its index in raster order.
        patch: usize,
    },
    /// A patch of the map.
    Map {
        /// Its row.
        y: usize,
        /// Its column.
        x: usize,
    },
    /// The newline after a row of the map.
    Newline {
        /// The row; for a newline after the whole map, the last row.
        y: usize,
    },
}

/// The family's own sequence of one picture, without compression. The index of a token in it is its stock index.
///
/// LLaVA-NeXT: index `i < P*P` is a patch of the thumbnail; `P*P + y * (Wx + 1) + x` is the patch (y, x) of the map, and
/// with `x = Wx` the newline of row y. The padding of the tiles has no stock index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stock {
    /// The tokens.
    pub slots: Vec<Slot>,
    /// The tile of each token: 0 is the thumbnail, `1 + tile row * cols + tile column` a patch of the map, `usize::MAX` a
    /// newline.
    pub tiles: Vec<usize>,
    /// Number of tokens in each place that the picture has in the prompt.
    pub places: Vec<usize>,
    /// Patches along a tile's side, P.
    pub patches: usize,
    /// Rows of tiles of the map.
    pub rows: usize,
    /// Columns of tiles of the map.
    pub cols: usize,
    /// Rows of the map, Hx.
    pub height: usize,
    /// Columns of the map, Wx.
    pub width: usize,
    /// Rows of patches that were removed above the map.
    pub top: usize,
    /// Columns of patches that were removed left of the map.
    pub left: usize,
}

/// The tile of [`Stock::tiles`] of a newline.
const NO_TILE: usize = usize::MAX;

impl Stock {
    /// The sequence of a picture with this grid.
    ///
    /// A patch of a map that was shrunk (LLaVA-OneVision) belongs to the tile at its centre (our choice).
    pub fn of(grid: &Grid) -> Self {
        let (p, [across, down]) = (grid.patches, [grid.width, grid.height]);
        let mut stock = Self {
            slots: Vec::new(),
            tiles: Vec::new(),
            places: Vec::new(),
            patches: p,
            rows: grid.rows,
            cols: grid.cols,
            height: down,
            width: across,
            top: grid.top,
            left: grid.left,
        };
        let tile_row = |y: usize| tile_at(y, [down, grid.cut.0, grid.top, p, grid.rows]);
        let tile_col = |x: usize| tile_at(x, [across, grid.cut.1, grid.left, p, grid.cols]);
        for [y0, x0, y1, x1] in grid.blocks() {
            let before = stock.slots.len();
            for y in y0..y1 {
                for x in x0..x1 {
                    stock.push(Slot::Map { y, x }, 1 + tile_row(y) * grid.cols + tile_col(x));
                }
                if grid.newline == Newline::Rows {
                    stock.push(Slot::Newline { y }, NO_TILE);
                }
            }
            stock.places.push(stock.slots.len() - before);
        }
        if grid.newline == Newline::End
            && let Some(last) = stock.places.len().checked_sub(1)
        {
            stock.push(Slot::Newline { y: down.saturating_sub(1) }, NO_TILE);
            stock.places[last] += 1;
        }
        let thumbnail = (0..p * p).map(|patch| Slot::Thumbnail { patch });
        match grid.thumbnail {
            Thumbnail::Own => {}
            Thumbnail::First => {
                stock.slots.splice(0..0, thumbnail);
                stock.tiles.splice(0..0, vec![0; p * p]);
                stock.places.iter_mut().take(1).for_each(|first| *first += p * p);
            }
            Thumbnail::Last => {
                stock.slots.extend(thumbnail);
                stock.tiles.extend(vec![0; p * p]);
                stock.places.push(p * p);
            }
        }
        stock
    }

    fn push(&mut self, slot: Slot, tile: usize) {
        self.slots.push(slot);
        self.tiles.push(tile);
    }

    /// The stock indices of all patches that a method chooses from, rising: those of the map, and those of the thumbnail if
    /// it is compressed.
    pub fn candidates(&self, thumbnail: ThumbnailTokens) -> Vec<usize> {
        let with = thumbnail == ThumbnailTokens::Compress;
        let is_candidate = |slot: &Slot| match slot {
            Slot::Thumbnail { .. } => with,
            Slot::Map { .. } => true,
            Slot::Newline { .. } => false,
        };
        (0..self.slots.len()).filter(|&i| is_candidate(&self.slots[i])).collect()
    }

    /// The candidates of each tile: (tile, stock indices), both rising. A tile without candidates is left out.
    pub fn per_tile(&self, thumbnail: ThumbnailTokens) -> Vec<(usize, Vec<usize>)> {
        let mut tiles = vec![Vec::new(); 1 + self.rows * self.cols];
        for i in self.candidates(thumbnail) {
            tiles[self.tiles[i]].push(i);
        }
        tiles.into_iter().enumerate().filter(|(_, members)| !members.is_empty()).collect()
    }
}

/// The row (or column) of tiles at the centre of row `at` of the map: `(pad + (at + .5) * cut / size) / P`. `size` rows of the
/// map are `cut` rows of patches, below `pad` that were removed, of `tiles` rows of tiles.
pub(crate) fn tile_at(at: usize, [size, cut, pad, p, tiles]: [usize; 5]) -> usize {
    let tile = (2 * size * pad + (2 * at + 1) * cut).checked_div(2 * size * p).unwrap_or(0);
    tile.min(tiles.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::Blocks;

    /// Two tiles of 3 x 3 patches, of which rows 1 to 2 hold the picture.
    fn wide() -> Grid {
        let (top, cut) = (1, (1, 6));
        Grid { rows: 1, cols: 2, patches: 3, side: 3, top, cut, height: 1, width: 6, ..Grid::default() }
    }

    #[test]
    fn stock_indices_are_llava_next_s() {
        let (p, height, width) = (4, 7, 5);
        let grid =
            Grid { rows: 2, cols: 2, patches: p, side: p, left: 1, cut: (8, 6), height, width, ..Grid::default() };
        let grid = Grid { cut: (height, width), ..grid };
        let stock = Stock::of(&grid);
        assert_eq!((stock.slots.len(), stock.places.clone()), (grid.stock_tokens(), vec![grid.stock_tokens()]));
        for (i, slot) in stock.slots.iter().enumerate() {
            let index = match *slot {
                Slot::Thumbnail { patch } => patch,
                Slot::Map { y, x } => p * p + y * (width + 1) + x,
                Slot::Newline { y } => p * p + y * (width + 1) + width,
            };
            assert_eq!(index, i, "{slot:?} (got, expected)");
        }
    }

    #[test]
    fn a_patch_has_the_tile_that_shows_it() {
        let stock = Stock::of(&wide());
        let newline = usize::MAX;
        assert_eq!(stock.tiles, [vec![0; 9], vec![1, 1, 1, 2, 2, 2, newline]].concat(), "(got, expected)");
        let map = |patches: std::ops::Range<usize>| patches.collect::<Vec<_>>();
        let all = vec![(0, map(0..9)), (1, map(9..12)), (2, map(12..15))];
        assert_eq!(stock.per_tile(ThumbnailTokens::Compress), all, "(got, expected)");
        for thumbnail in [ThumbnailTokens::Keep, ThumbnailTokens::Drop] {
            assert_eq!(stock.per_tile(thumbnail), all[1..], "(got, expected)");
            assert_eq!(stock.candidates(thumbnail), map(9..15), "(got, expected)");
        }
        assert_eq!(stock.candidates(ThumbnailTokens::Compress), map(0..15), "(got, expected)");
    }

    #[test]
    fn a_patch_of_a_shrunk_map_has_the_tile_at_its_centre() {
        // 75 x 135 patches, below 3 rows of padding, are shrunk to 60 x 108: a row of the map is 1.25 rows of patches
        let (cut, patches) = ((75, 135), 27);
        let grid =
            Grid { rows: 3, cols: 5, patches, side: 384, top: 3, cut, height: 60, width: 108, ..Grid::default() };
        let stock = Stock::of(&grid);
        let tile = |y: usize, x: usize| stock.tiles[patches * patches + y * 109 + x];
        // (3 + 18.5 * 1.25) / 27 < 1 < (3 + 19.5 * 1.25) / 27; columns: 20.5 and 21.5, 43 * 1.25 = 53.75, 43.5 * 1.25 > 54
        assert_eq!([tile(18, 0), tile(19, 0), tile(59, 0)], [1, 6, 11], "(got, expected)");
        assert_eq!([tile(0, 20), tile(0, 21), tile(0, 22), tile(0, 107)], [1, 1, 2, 5], "(got, expected)");
        assert_eq!([tile(0, 42), tile(0, 43)], [2, 3], "(got, expected)");
    }

    #[test]
    fn a_map_without_patches_has_newlines_alone() {
        let tall = Grid { left: 3, cut: (3, 0), height: 3, width: 0, top: 0, ..wide() };
        let stock = Stock::of(&tall);
        assert_eq!((stock.slots.len(), stock.candidates(ThumbnailTokens::Drop)), (9 + 3, vec![]), "(got, expected)");
        let flat = Stock::of(&Grid { cut: (0, 6), height: 0, ..wide() });
        assert_eq!((flat.slots.len(), flat.per_tile(ThumbnailTokens::Keep)), (9, vec![]), "(got, expected)");
        assert_eq!(Stock::of(&Grid::default()).slots, [], "(got, expected)");
    }

    #[test]
    fn other_families_have_their_own_order() {
        // one tile, which is the map, and one newline after it
        let (thumbnail, newline) = (Thumbnail::Own, Newline::End);
        let one = Grid { rows: 1, cols: 1, patches: 2, side: 2, cut: (2, 2), height: 2, width: 2, ..Grid::default() };
        let stock = Stock::of(&Grid { thumbnail, newline, ..one });
        assert_eq!(stock.slots[4..], [Slot::Newline { y: 1 }], "(got, expected)");
        assert_eq!((&stock.tiles[..4], &stock.places[..]), (&[1; 4][..], &[5][..]), "(got, expected)");
        // two tiles in two places, then the thumbnail
        let (thumbnail, newline, blocks) = (Thumbnail::Last, Newline::None, Blocks::Tiles);
        let two = Grid { cols: 2, cut: (2, 4), width: 4, thumbnail, newline, blocks, ..one };
        let stock = Stock::of(&two);
        assert_eq!((&stock.places[..], stock.slots.len()), (&[4, 4, 4][..], two.stock_tokens()), "(got, expected)");
        assert_eq!(stock.tiles, [1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 0, 0], "(got, expected)");
        assert_eq!(stock.slots[6], Slot::Map { y: 1, x: 2 }, "(got, expected)");
        assert_eq!(stock.slots[8], Slot::Thumbnail { patch: 0 }, "(got, expected)");
    }
}
