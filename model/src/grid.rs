//! The geometry of LLaVA-NeXT's "anyres", without tensors. Input: the size of a picture, the allowed canvases, the side of
//! a tile in pixels and in patches. Output: the grid of tiles, and the part of its patches that remains without padding.
//! Source: `get_anyres_image_grid_shape` and `unpad_image` in Hugging Face's `models/llava_next/modeling_llava_next.py`.

use crate::tiles::best_resolution;

/// The position of a picture's feature map in the patches of its tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Number of rows of tiles.
    pub rows: usize,
    /// Number of columns of tiles.
    pub cols: usize,
    /// Patches along a tile's side, P.
    pub patches: usize,
    /// Rows of patches that are removed above the map; as many are removed below it.
    pub top: usize,
    /// Columns of patches that are removed left of the map; as many are removed right of it.
    pub left: usize,
    /// Rows of the map, Hx; 0 for a picture so wide that nothing remains.
    pub height: usize,
    /// Columns of the map, Wx; 0 for a picture so tall that nothing remains.
    pub width: usize,
}

/// Python's `int(round(x, 7))` for x >= 0: the whole part of x, or the next integer if x is at most 5e-8 below it.
fn whole(x: f64) -> usize {
    let next = x.floor() + 1.0;
    (if next - x <= 5e-8 { next } else { x.floor() }) as usize
}

impl Grid {
    /// The grid of a picture of `picture_height` x `picture_width` pixels with the canvases `pinpoints`, pairs of
    /// (height, width) in pixels, and tiles of `side` pixels and `patches` patches per side.
    ///
    /// For an h x w picture on a canvas of H x W patches: if w/h > W/H, (H - int(h W/w)) / 2 rows are removed at each end;
    /// else (W - int(w H/h)) / 2 columns at each end.
    #[must_use]
    pub fn of(
        picture_height: usize,
        picture_width: usize,
        pinpoints: &[(usize, usize)],
        side: usize,
        patches: usize,
    ) -> Self {
        let (canvas_height, canvas_width) = best_resolution(picture_height, picture_width, pinpoints);
        let (rows, cols) = (canvas_height / side.max(1), canvas_width / side.max(1));
        let (full_height, full_width) = (rows.saturating_mul(patches), cols.saturating_mul(patches));
        let (h, w) = (picture_height as f64, picture_width as f64);
        let (big_h, big_w) = (full_height as f64, full_width as f64);
        let (mut top, mut left) = (0, 0);
        if w / h > big_w / big_h {
            top = full_height.saturating_sub(whole(h * (big_w / w))) / 2;
        } else {
            left = full_width.saturating_sub(whole(w * (big_h / h))) / 2;
        }
        Self { rows, cols, patches, top, left, height: full_height - 2 * top, width: full_width - 2 * left }
    }

    /// The number of visual tokens of LLaVA-NeXT: `P*P + Hx * (Wx + 1)`, for thumbnail, map, and one newline per row of
    /// the map (even if the rows are empty).
    #[must_use]
    pub fn stock_tokens(&self) -> usize {
        self.patches * self.patches + self.height * (self.width + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The canvases of the published checkpoint, (height, width).
    const PINPOINTS: [(usize, usize); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];

    fn grid(width: usize, height: usize) -> Grid {
        Grid::of(height, width, &PINPOINTS, 336, 24)
    }

    #[test]
    fn token_counts_are_llava_next_s() {
        for (width, height, map, tokens) in [
            (672, 672, (48, 48), 2928),
            (4000, 4000, (48, 48), 2928),
            (1024, 768, (36, 48), 2340),
            (640, 480, (36, 48), 2340),
            (480, 640, (48, 36), 2352),
            (1920, 1080, (28, 48), 1948),
            (1008, 336, (24, 72), 2328),
            (2000, 500, (18, 72), 1890),
            (500, 2000, (72, 18), 1944),
            (336, 336, (24, 24), 1176),
            (1, 1, (24, 24), 1176),
        ] {
            let grid = grid(width, height);
            assert_eq!(((grid.height, grid.width), grid.stock_tokens()), (map, tokens), "{width}x{height}");
        }
        assert_eq!((grid(352, 748).stock_tokens(), grid(328, 205).stock_tokens()), (1876, 1512));
    }

    #[test]
    fn a_needle_has_an_empty_map() {
        let tall = grid(1, 10000);
        assert_eq!((tall.rows, tall.cols, tall.height, tall.width), (1, 2, 24, 0));
        assert_eq!(tall.stock_tokens(), 576 + 24);
        let wide = grid(10000, 1);
        assert_eq!((wide.rows, wide.cols, wide.height, wide.width), (1, 2, 0, 48));
        assert_eq!(wide.stock_tokens(), 576);
    }

    #[test]
    fn nothing_panics_on_nonsense() {
        assert_eq!(Grid::of(0, 0, &[], 0, 0).stock_tokens(), 0);
        assert_eq!(Grid::of(5, 5, &[], 336, 24).stock_tokens(), 576);
    }

    #[test]
    fn whole_rounds_up_only_within_half_a_1e_7() {
        assert_eq!([2.99999996, 2.9999999, 3.0, 0.0, 0.99999994].map(whole), [3, 2, 3, 0, 0]);
    }
}
