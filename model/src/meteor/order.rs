//! Which patches LLaVA-Meteor scans together, and in which order (our interpretation). Input: the grid. Output: rows of patches.

use std::ops::Range;

use crate::{
    config::{ScanOrder, ScanSequence},
    grid::{Grid, Thumbnail},
};

/// Raster numbers of `height` x `width` patches, window after window, in raster order inside each. The last windows may be
/// partial. `window` is not 0.
fn local_order(height: usize, width: usize, window: usize) -> Vec<usize> {
    let mut order = Vec::with_capacity(height * width);
    for top in (0..height).step_by(window) {
        for left in (0..width).step_by(window) {
            for y in top..height.min(top + window) {
                order.extend((left..width.min(left + window)).map(|x| y * width + x));
            }
        }
    }
    order
}

/// The scans of a block. For each its patches, as rows of the features of all tiles in the order of the vision tower, (tiles * P*P).
/// Patches in the padding are in no scan.
pub(super) fn sequences(grid: &Grid, sequence: ScanSequence, order: ScanOrder, window: usize) -> Vec<Vec<usize>> {
    let p = grid.patches;
    let scan = |ys: Range<usize>, xs: Range<usize>, row: &dyn Fn(usize, usize) -> usize| -> Vec<usize> {
        let (height, width) = (ys.len(), xs.len());
        // Raster order is that of a single window.
        let window = if order == ScanOrder::Local { window } else { height.max(width).max(1) };
        let order = local_order(height, width, window);
        order.into_iter().map(|i| row(ys.start + i / width, xs.start + i % width)).collect()
    };
    let of_map = |y: usize, x: usize| {
        let (y, x) = (y + grid.top, x + grid.left);
        grid.tile_of(1 + y / p * grid.cols + x / p) * p * p + y % p * p + x % p
    };
    let mut scans = Vec::new();
    if grid.thumbnail != Thumbnail::Own {
        let first = grid.whole_tile() * p * p;
        scans.push(scan(0..p, 0..p, &|y, x| first + y * p + x));
    }
    match sequence {
        ScanSequence::Image => {
            scans.push(scan(0..grid.height, 0..grid.width, &of_map));
            scans = vec![scans.concat()];
        }
        ScanSequence::Tile => {
            // Rows (or columns) of the map on a row (or column) of tiles.
            let part = |tile: usize, cut: usize, length: usize| {
                let at = |edge: usize| edge.saturating_sub(cut).min(length);
                at(tile * p)..at((tile + 1) * p)
            };
            for tile in 0..grid.rows * grid.cols {
                let ys = part(tile / grid.cols, grid.top, grid.height);
                scans.push(scan(ys, part(tile % grid.cols, grid.left, grid.width), &of_map));
            }
        }
    }
    scans.retain(|scan| !scan.is_empty());
    scans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_in_raster_order_and_partial_at_the_edge() {
        assert_eq!(local_order(3, 5, 2), [0, 1, 5, 6, 2, 3, 7, 8, 4, 9, 10, 11, 12, 13, 14], "(got, expected)");
        assert_eq!(local_order(2, 3, 3), [0, 1, 2, 3, 4, 5], "(got, expected)");
        assert_eq!((local_order(0, 5, 2), local_order(5, 0, 2)), (vec![], vec![]));
    }

    /// A thumbnail and 1 x 2 tiles of 3 x 3 patches, of which the first and the last column is padding.
    fn wide() -> Grid {
        let grid = Grid { rows: 1, cols: 2, patches: 3, side: 3, left: 1, cut: (3, 4), ..Grid::default() };
        Grid { height: 3, width: 4, ..grid }
    }

    #[test]
    fn a_picture_is_one_scan_without_padding() {
        let of = |order| sequences(&wide(), ScanSequence::Image, order, 2);
        let local = [0, 1, 3, 4, 2, 5, 6, 7, 8, 10, 11, 13, 14, 18, 19, 21, 22, 16, 17, 24, 25];
        let single = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 18, 19, 13, 14, 21, 22, 16, 17, 24, 25];
        assert_eq!(of(ScanOrder::Local), [local], "(got, expected)");
        assert_eq!(of(ScanOrder::Single), [single], "(got, expected)");
    }

    #[test]
    fn each_tile_is_one_scan() {
        let of = |order| sequences(&wide(), ScanSequence::Tile, order, 2);
        let map = [vec![10, 11, 13, 14, 16, 17], vec![18, 19, 21, 22, 24, 25]];
        let local = [vec![0, 1, 3, 4, 2, 5, 6, 7, 8], map[0].clone(), map[1].clone()];
        assert_eq!(of(ScanOrder::Local), local, "(got, expected)");
        assert_eq!(of(ScanOrder::Single)[0], [0, 1, 2, 3, 4, 5, 6, 7, 8], "(got, expected)");
        assert_eq!(of(ScanOrder::Single)[1..], map, "(got, expected)");
        // 2 x 1 tiles of 2 x 2 patches without the first and the last row.
        let grid = Grid { rows: 2, cols: 1, patches: 2, side: 2, top: 1, cut: (2, 2), ..Grid::default() };
        let tall = Grid { height: 2, width: 2, ..grid };
        let scans = sequences(&tall, ScanSequence::Tile, ScanOrder::Local, 2);
        assert_eq!(scans, [vec![0, 1, 2, 3], vec![6, 7], vec![8, 9]], "(got, expected)");
        // An empty map: the thumbnail alone.
        let scans = sequences(&Grid { height: 0, ..tall }, ScanSequence::Tile, ScanOrder::Local, 2);
        assert_eq!(scans, [[0, 1, 2, 3]], "(got, expected)");
    }

    #[test]
    fn a_picture_of_one_tile_has_no_thumbnail() {
        let grid = Grid { rows: 1, cols: 1, patches: 2, side: 2, cut: (2, 2), height: 2, width: 2, ..Grid::default() };
        let own = Grid { thumbnail: Thumbnail::Own, ..grid };
        for sequence in [ScanSequence::Image, ScanSequence::Tile] {
            assert_eq!(sequences(&own, sequence, ScanOrder::Local, 4), [[0, 1, 2, 3]], "{sequence:?} (got, expected)");
        }
    }
}
