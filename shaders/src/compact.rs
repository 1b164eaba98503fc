//! The order of the visual tokens once every region has its scale (paper Sec. 3.2; scanline order is our choice).

use crate::{Scale, regions};

/// The patches that a token stands for: y0, x0 inclusive; y1, x1 exclusive. A newline's is (y, width, y + 1, width).
pub type TokenBox = [usize; 4];

/// Where a token comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Token (row, col) of `region` at its chosen scale.
    Pooled {
        /// Index of the region, raster order.
        region: usize,
        /// Row of the token within the region.
        row: usize,
        /// Column of the token within the region.
        col: usize,
    },
    /// The `image_newline` embedding.
    Newline,
}

/// Tokens in scanline order: by the top-left patch each stands for, row by row over the whole map, and a newline
/// after every row that holds a token. With every region at 1x1 this is LLaVA-NeXT's own sequence.
///
/// `choice` holds, per region in raster order, an index into `scales`.
pub fn compact(
    height: usize,
    width: usize,
    window: usize,
    scales: &[Scale],
    choice: &[usize],
) -> Vec<(TokenBox, Cell)> {
    let mut cells: Vec<(TokenBox, Cell)> = Vec::new();
    for (region, ((y, x), &chosen)) in regions(height, width, window).into_iter().zip(choice).enumerate() {
        let scale = scales[chosen];
        let (bottom, right) = ((y + window).min(height), (x + window).min(width));
        let (rows, cols) = scale.tokens(bottom - y, right - x);
        for row in 0..rows {
            for col in 0..cols {
                let (y0, x0) = (y + row * scale.rows, x + col * scale.cols);
                let token_box = [y0, x0, (y0 + scale.rows).min(bottom), (x0 + scale.cols).min(right)];
                cells.push((token_box, Cell::Pooled { region, row, col }));
            }
        }
    }
    let mut rows: Vec<usize> = cells.iter().map(|(b, _)| b[0]).collect();
    rows.sort_unstable();
    rows.dedup();
    cells.extend(rows.into_iter().map(|y| ([y, width, y + 1, width], Cell::Newline)));
    cells.sort_by_key(|(b, _)| (b[0], b[1]));
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_6_by_8_map_of_mixed_scales_is_23_tokens_and_5_newlines() {
        let scales = [Scale::new(4, 4), Scale::new(2, 2), Scale::new(1, 1)];
        // Regions [[1x1, 2x2], [4x4, 2x2]]: 16 + 4 + 1 + 2 = 23 tokens; rows 0, 1, 2, 3 and 4 hold one.
        let cells = compact(6, 8, 4, &scales, &[2, 1, 0, 1]);
        let newlines = cells.iter().filter(|(_, c)| *c == Cell::Newline).count();
        assert_eq!((cells.len() - newlines, newlines), (23, 5));
        assert_eq!(cells[4].0, [0, 4, 2, 6]);
        assert_eq!(cells.last().unwrap().0, [4, 8, 5, 8]);
    }
}
