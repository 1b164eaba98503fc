//! The geometry of a picture's visual tokens, without tensors. Input: the size of a picture, how it is cut into tiles,
//! and the visual tokens along a tile's side. Output: the grid of tiles, the map that remains without padding, and the
//! place of its patches on the picture. Source: `get_anyres_image_grid_shape`, `unpad_image` and `pack_image_features`
//! in Hugging Face's `models/llava_next/modeling_llava_next.py` and
//! `models/llava_onevision/modeling_llava_onevision.py`.

use fovea_runtime::TokenBox;

use crate::config::{Cut, TileConfig};

/// Where the whole picture, as one tile, is in the prompt. Its P*P tokens are what the regions of the map are compared
/// with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Thumbnail {
    /// Before the map.
    #[default]
    First,
    /// After the map.
    Last,
    /// The map is one tile and its own thumbnail, which is not sent a second time.
    Own,
}

/// The newline embeddings among the visual tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Newline {
    /// One after every row of the map.
    #[default]
    Rows,
    /// One after the whole map.
    End,
    /// None.
    None,
}

/// The parts of the map that have separate regions, and separate places in the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Blocks {
    /// The map is one part.
    #[default]
    Whole,
    /// Every tile is a part, with text before it.
    Tiles,
}

/// How the picture is on the tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fit {
    /// In the middle, with padding, in its aspect ratio.
    #[default]
    Letterbox,
    /// Over all of them, stretched.
    Stretch,
    /// Its middle only: its shorter side has `shortest` pixels.
    Crop {
        /// The shorter side after the resize, in pixels.
        shortest: usize,
    },
}

/// The position of a picture's feature map in the patches of its tiles. A patch here is what becomes one visual token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grid {
    /// Number of rows of tiles of the map.
    pub rows: usize,
    /// Number of columns of tiles of the map.
    pub cols: usize,
    /// Patches along a tile's side, P (SmolVLM: after the pixel shuffle).
    pub patches: usize,
    /// Side of a tile, in pixels. `side - P * int(side / P)` pixels at its right and lower edge are in no patch.
    pub side: usize,
    /// Rows of patches that are removed above the map; as many are removed below it.
    pub top: usize,
    /// Columns of patches that are removed left of the map; as many are removed right of it.
    pub left: usize,
    /// Rows and columns of patches without the padding.
    pub cut: (usize, usize),
    /// Rows of the map, Hx: those of `cut`, or fewer if the map is shrunk. 0 for a picture so wide that nothing
    /// remains.
    pub height: usize,
    /// Columns of the map, Wx; 0 for a picture so tall that nothing remains.
    pub width: usize,
    /// Where the whole picture is in the prompt.
    pub thumbnail: Thumbnail,
    /// The newline embeddings.
    pub newline: Newline,
    /// The parts of the map.
    pub blocks: Blocks,
    /// How the picture is on the tiles.
    pub fit: Fit,
}

/// Python's `int(round(x, 7))` for x >= 0: the whole part of x, or the next integer if x is at most 5e-8 below it.
fn whole(x: f64) -> usize {
    let next = x.floor() + 1.0;
    (if next - x <= 5e-8 { next } else { x.floor() }) as usize
}

/// Python's `int(a // b)` of floats, for a >= 0 and b > 0.
fn floor_division(a: f64, b: f64) -> usize {
    let quotient = (a - a % b) / b;
    let floor = quotient.floor();
    (if quotient - floor > 0.5 { floor + 1.0 } else { floor }) as usize
}

impl Grid {
    /// The grid of a picture of `picture_height` x `picture_width` pixels that `tiles` cuts, with P = `patches` visual
    /// tokens along a tile's side.
    ///
    /// [`Cut::Anyres`], for an h x w picture on a canvas of H x W patches: if w/h > W/H, (H - int(h W/w)) / 2 rows are
    /// removed at each end; else (W - int(w H/h)) / 2 columns at each end. With `most_tiles` N, a map of Hc x Wc
    /// patches with r = sqrt(Hc Wc / (N P P)) above 1.1 is shrunk to int(Hc // r) x int(Wc // r).
    #[must_use]
    pub fn of(picture_height: usize, picture_width: usize, tiles: &TileConfig, patches: usize) -> Self {
        let side = tiles.side;
        let (canvas_height, canvas_width) = tiles.canvas(picture_height, picture_width);
        let (rows, cols) = (canvas_height / side.max(1), canvas_width / side.max(1));
        let (full_height, full_width) = (rows.saturating_mul(patches), cols.saturating_mul(patches));
        let several = rows.saturating_mul(cols) > 1;
        let (thumbnail, blocks, fit) = match tiles.cut {
            Cut::Anyres { .. } => (Thumbnail::First, Blocks::Whole, Fit::Letterbox),
            Cut::Squash => (Thumbnail::Own, Blocks::Whole, Fit::Stretch),
            Cut::Pad => (Thumbnail::Own, Blocks::Whole, Fit::Letterbox),
            Cut::CenterCrop { shortest } => (Thumbnail::Own, Blocks::Whole, Fit::Crop { shortest }),
            Cut::Split { .. } if several => (Thumbnail::Last, Blocks::Tiles, Fit::Stretch),
            Cut::Split { .. } => (Thumbnail::Own, Blocks::Whole, Fit::Stretch),
        };
        let (mut top, mut left, mut shrink) = (0, 0, None);
        if let Cut::Anyres { most_tiles, .. } = tiles.cut {
            let (h, w) = (picture_height as f64, picture_width as f64);
            let (big_h, big_w) = (full_height as f64, full_width as f64);
            if w / h > big_w / big_h {
                top = full_height.saturating_sub(whole(h * (big_w / w))) / 2;
            } else {
                left = full_width.saturating_sub(whole(w * (big_h / h))) / 2;
            }
            shrink = most_tiles;
        }
        let cut = (full_height - 2 * top, full_width - 2 * left);
        let (mut height, mut width) = cut;
        if let Some(most) = shrink {
            let most = most.saturating_mul(patches).saturating_mul(patches);
            let ratio = (height.saturating_mul(width) as f64 / most as f64).sqrt();
            if ratio > 1.1 {
                (height, width) = (floor_division(height as f64, ratio), floor_division(width as f64, ratio));
            }
        }
        let newline = tiles.newline;
        Self { rows, cols, patches, side, top, left, cut, height, width, thumbnail, newline, blocks, fit }
    }

    /// The number of visual tokens of the family, without the samplers: `P*P` for the thumbnail, if it is sent, `Hx *
    /// Wx` for the map, and the newlines (one per row, even if the rows are empty; or one; or none).
    #[must_use]
    pub fn stock_tokens(&self) -> usize {
        let thumbnail = if self.thumbnail == Thumbnail::Own { 0 } else { self.patches * self.patches };
        let newlines = match self.newline {
            Newline::Rows => self.height,
            Newline::End => 1,
            Newline::None => 0,
        };
        thumbnail + self.height * self.width + newlines
    }

    /// The parts of the map, `[y0, x0, y1, x1]` in its rows and columns, in the order of the prompt.
    #[must_use]
    pub fn blocks(&self) -> Vec<[usize; 4]> {
        let p = self.patches;
        match self.blocks {
            Blocks::Whole => vec![[0, 0, self.height, self.width]],
            Blocks::Tiles => (0..self.rows)
                .flat_map(|row| (0..self.cols).map(move |col| [row * p, col * p, (row + 1) * p, (col + 1) * p]))
                .collect(),
        }
    }

    /// The number of tiles that the vision tower reads, with the thumbnail.
    #[must_use]
    pub fn tiles(&self) -> usize {
        self.rows * self.cols + usize::from(self.thumbnail != Thumbnail::Own)
    }

    /// The index of the whole picture among the tiles that the vision tower reads.
    pub(crate) fn whole_tile(&self) -> usize {
        if self.thumbnail == Thumbnail::Last { self.rows * self.cols } else { 0 }
    }

    /// The index of a tile among those that the vision tower reads: 0 is the whole picture, 1 the map's first tile.
    pub(crate) fn tile_of(&self, tile: usize) -> usize {
        match tile.checked_sub(1) {
            Some(tile) => tile + usize::from(self.thumbnail == Thumbnail::First),
            None => self.whole_tile(),
        }
    }

    /// The rectangle `[left, top, right, bottom]` of patches of the map on a picture of the given width and height, in
    /// pixels and fractions of pixels. `None` for patches that are not on the picture, such as those of a newline.
    ///
    /// The tiles, H x W patches, hold the h x w picture centred, at s patches per pixel. So the tiles' patch row Y
    /// begins at the picture's row `(Y - (H - s h) / 2) / s`; columns are similar. (The image processors round the size
    /// and the offset to whole pixels. This formula does not; the difference is less than one pixel of the tiles.) A
    /// shrunk map's row is `cut.0 / height` rows of patches. A tile has `side / int(side / P)` patches, of which only P
    /// whole ones are in the map: the pixels behind them are in no rectangle.
    #[must_use]
    pub fn place(&self, picture: [usize; 2], [y0, x0, y1, x1]: TokenBox) -> Option<[f64; 4]> {
        let patch = self.side.checked_div(self.patches).unwrap_or(0);
        if y1 > self.height || x1 > self.width || patch == 0 {
            return None;
        }
        let [w, h] = picture.map(|length| length as f64);
        let (side, p) = (self.side as f64 / patch as f64, self.patches as f64);
        let (full_h, full_w) = (self.rows as f64 * side, self.cols as f64 * side);
        let (fill_h, fill_w) = (full_h / h, full_w / w);
        let alike = |s: f64| (s, s);
        let (s_h, s_w) = match self.fit {
            Fit::Letterbox => alike(fill_h.min(fill_w)),
            Fit::Stretch => (fill_h, fill_w),
            Fit::Crop { shortest } => alike(shortest as f64 / patch as f64 / h.min(w)),
        };
        let usable = |s: f64| s.is_finite() && s > 0.0;
        if !usable(s_h) || !usable(s_w) {
            return None;
        }
        let rows = |y: usize| (y * self.cut.0) as f64 / self.height as f64 + self.top as f64;
        let cols = |x: usize| (x * self.cut.1) as f64 / self.width as f64 + self.left as f64;
        // where a patch begins on the tiles, and where the patch before it ends
        let begin = |at: f64| at + (at / p).floor() * (side - p);
        let end = |at: f64| at + ((at / p).ceil() - 1.0) * (side - p);
        let on = |at: f64, full: f64, s: f64, length: f64| ((at - (full - s * length) / 2.0) / s).clamp(0.0, length);
        let (left, right) = (on(begin(cols(x0)), full_w, s_w, w), on(end(cols(x1)), full_w, s_w, w));
        let (top, bottom) = (on(begin(rows(y0)), full_h, s_h, h), on(end(rows(y1)), full_h, s_h, h));
        (left < right && top < bottom).then_some([left, top, right, bottom])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resize::Kernel;

    /// The canvases of the published checkpoint, (height, width).
    const PINPOINTS: [(usize, usize); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];

    fn config(side: usize, cut: Cut, newline: Newline) -> TileConfig {
        TileConfig { side, cut, newline, kernel: Kernel::Bicubic, mean: [0.5; 3], std: [0.5; 3], rescale: 1.0 / 255.0 }
    }

    fn anyres(side: usize, pinpoints: &[(usize, usize)], most_tiles: Option<usize>) -> TileConfig {
        config(side, Cut::Anyres { pinpoints: pinpoints.to_vec(), most_tiles }, Newline::Rows)
    }

    fn grid(width: usize, height: usize) -> Grid {
        Grid::of(height, width, &anyres(336, &PINPOINTS, None), 24)
    }

    fn onevision() -> TileConfig {
        let canvases: Vec<_> = (1..=6).flat_map(|h| (1..=6).map(move |w| (384 * h, 384 * w))).collect();
        anyres(384, &canvases, Some(9))
    }

    fn split(side: usize) -> TileConfig {
        config(side, Cut::Split { longest: 4 * side, into_tiles: true }, Newline::None)
    }

    /// A rectangle, rounded to a millionth of a pixel.
    fn placed(grid: &Grid, picture: [usize; 2], patches: TokenBox) -> Option<[f64; 4]> {
        grid.place(picture, patches).map(|rectangle| rectangle.map(|edge| (edge * 1e6).round() / 1e6))
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
            assert_eq!((grid.cut, grid.thumbnail), ((grid.height, grid.width), Thumbnail::First));
        }
        assert_eq!((grid(352, 748).stock_tokens(), grid(328, 205).stock_tokens()), (1876, 1512));
    }

    #[test]
    fn token_counts_are_llava_onevision_s() {
        // from `LlavaOnevisionProcessor._get_number_of_features` in transformers 5.24
        for (width, height, tiles, map, tokens) in [
            (384, 384, (1, 1), (27, 27), 1485),
            (336, 336, (1, 1), (27, 27), 1485),
            (672, 672, (2, 2), (54, 54), 3699),
            (640, 480, (2, 2), (40, 54), 2929),
            (480, 640, (2, 2), (54, 40), 2943),
            (1024, 768, (2, 3), (54, 73), 4725),
            (1920, 1080, (3, 5), (60, 108), 7269),
            (1008, 336, (1, 3), (27, 81), 2943),
            (2000, 500, (2, 6), (40, 162), 7249),
            (500, 2000, (6, 2), (162, 40), 7371),
            (3000, 3000, (6, 6), (81, 81), 7371),
            (1, 1, (1, 1), (27, 27), 1485),
            (1, 10000, (1, 1), (27, 1), 783),
            (10000, 1, (1, 1), (1, 27), 757),
            (16384, 7000, (3, 6), (52, 124), 7229),
            (899, 1024, (3, 3), (81, 71), 6561),
        ] {
            let grid = Grid::of(height, width, &onevision(), 27);
            let got = ((grid.rows, grid.cols), (grid.height, grid.width), grid.stock_tokens());
            assert_eq!(got, (tiles, map, tokens), "{width}x{height}");
            assert_eq!(grid.tiles(), tiles.0 * tiles.1 + 1);
        }
        let several = Grid::of(1080, 1920, &onevision().with_several(), 27);
        assert_eq!((several.tiles(), several.stock_tokens(), several.thumbnail), (1, 729 + 1, Thumbnail::Own));
    }

    #[test]
    fn one_tile_is_the_map() {
        for (cut, side, patches) in [
            (Cut::Squash, 384, 27),
            (Cut::Pad, 336, 24),
            (Cut::CenterCrop { shortest: 336 }, 336, 24),
            (Cut::Split { longest: 2048, into_tiles: false }, 512, 8),
        ] {
            let grid = Grid::of(1080, 1920, &config(side, cut, Newline::None), patches);
            assert_eq!((grid.rows, grid.cols, grid.tiles(), grid.thumbnail), (1, 1, 1, Thumbnail::Own));
            assert_eq!((grid.stock_tokens(), grid.blocks()), (patches * patches, vec![[0, 0, patches, patches]]));
        }
    }

    #[test]
    fn split_pictures_have_idefics3_s_tiles() {
        // from `Idefics3ImageProcessor` in transformers 5.24: SmolVLM-256M (512 / 16 / 4), SmolVLM-2.2B (384 / 14 / 3)
        for (width, height, rows, cols, tokens) in [
            (640, 480, 3, 4, [832, 1053]),
            (480, 640, 4, 3, [832, 1053]),
            (1920, 1080, 3, 4, [832, 1053]),
            (100, 100, 4, 4, [1088, 1377]),
            (2000, 500, 1, 4, [320, 405]),
            (500, 2000, 4, 1, [320, 405]),
            (1, 1, 4, 4, [1088, 1377]),
            (1, 4000, 4, 1, [320, 405]),
            (4000, 1, 1, 4, [320, 405]),
            (16384, 7000, 2, 4, [576, 729]),
            (333, 1001, 4, 2, [576, 729]),
        ] {
            for ((side, patches), tokens) in [(512, 8), (384, 9)].into_iter().zip(tokens) {
                let grid = Grid::of(height, width, &split(side), patches);
                let got = (grid.rows, grid.cols, grid.stock_tokens(), grid.thumbnail);
                assert_eq!(got, (rows, cols, tokens, Thumbnail::Last), "{width}x{height}, tiles of {side}");
                assert_eq!((grid.height, grid.width), (rows * patches, cols * patches));
                assert_eq!((grid.tiles(), grid.blocks().len()), (rows * cols + 1, rows * cols));
            }
        }
        let grid = Grid::of(500, 1000, &split(512), 8);
        assert_eq!(grid.blocks()[..5], [[0, 0, 8, 8], [0, 8, 8, 16], [0, 16, 8, 24], [0, 24, 8, 32], [8, 0, 16, 8]]);
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
    fn patches_are_where_the_tiles_have_the_picture() {
        // 378 of 384 pixels are in patches of 14; the picture is twice as wide as high
        let squashed = Grid::of(384, 768, &config(384, Cut::Squash, Newline::None), 27);
        assert_eq!(placed(&squashed, [768, 384], [0, 0, 1, 1]), Some([0.0, 0.0, 28.0, 14.0]));
        assert_eq!(placed(&squashed, [768, 384], [26, 26, 27, 27]), Some([728.0, 364.0, 756.0, 378.0]));
        // 0.7 pixels per pixel; the crop begins at 56 of 448 columns
        let cropped = Grid::of(480, 640, &config(336, Cut::CenterCrop { shortest: 336 }, Newline::None), 24);
        assert_eq!(placed(&cropped, [640, 480], [0, 0, 1, 1]), Some([80.0, 0.0, 100.0, 20.0]));
        assert_eq!(placed(&cropped, [640, 480], [23, 23, 24, 24]), Some([540.0, 460.0, 560.0, 480.0]));
        // three rows of patches of padding
        let padded = Grid::of(480, 640, &config(336, Cut::Pad, Newline::End), 24);
        assert_eq!(placed(&padded, [640, 480], [0, 0, 3, 1]), None);
        assert_eq!(placed(&padded, [640, 480], [3, 0, 6, 3]), Some([0.0, 0.0, 80.0, 80.0]));
        // 75 x 135 patches, below 3 rows that are cut, are shrunk to 60 x 108; the picture begins at pixel 36 of 1152
        let shrunk = Grid::of(1080, 1920, &onevision(), 27);
        assert_eq!((shrunk.cut, shrunk.top), ((75, 135), 3));
        assert_eq!(placed(&shrunk, [1920, 1080], [0, 0, 1, 1]), Some([0.0, 6.0, 17.5, 23.5]));
        // both axes: begins in a tile's last patch, ends in the next tile, 6 pixels further
        assert_eq!(placed(&shrunk, [1920, 1080], [19, 21, 20, 22]), Some([367.5, 338.5, 391.0, 362.0]));
        let parts = Grid::of(480, 640, &split(512), 8);
        assert_eq!(placed(&parts, [640, 480], [8, 8, 16, 16]), Some([160.0, 160.0, 320.0, 320.0]));
    }

    #[test]
    fn nothing_panics_on_nonsense() {
        assert_eq!(Grid::of(0, 0, &anyres(0, &[], None), 0).stock_tokens(), 0);
        assert_eq!(Grid::of(5, 5, &anyres(336, &[], None), 24).stock_tokens(), 576);
        for tiles in [onevision(), split(48), config(48, Cut::CenterCrop { shortest: 0 }, Newline::None)] {
            for (height, width) in [(0, 0), (0, 5), (5, 0), (1, usize::MAX), (usize::MAX, 1)] {
                let grid = Grid::of(height, width, &tiles, 4);
                assert_eq!(grid.place([width, height], [0, 0, usize::MAX, 1]), None);
                let _ = (grid.blocks(), grid.place([width, height], [0, 0, grid.height, grid.width]));
            }
        }
        assert_eq!(Grid::default().place([5, 5], [0, 0, 0, 0]), None);
    }

    #[test]
    fn whole_rounds_up_only_within_half_a_1e_7() {
        assert_eq!([2.99999996, 2.9999999, 3.0, 0.0, 0.99999994].map(whole), [3, 2, 3, 0, 0]);
    }

    #[test]
    fn floor_division_is_python_s() {
        assert_eq!(
            [(162.0, 2.0), (75.0, 1.25), (1.0, 0.1), (0.3, 0.1)].map(|(a, b)| floor_division(a, b)),
            [81, 60, 9, 2]
        );
    }
}
