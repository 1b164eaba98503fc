//! Input: the patches of a token. Output: its rectangle on the picture, and on a drawing of the picture.

use fovea_model::{Grid, Looked};
use fovea_runtime::TokenBox;

use crate::canvas::Area;

/// A rectangle on a picture, in pixels and fractions of pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenRect {
    /// Left edge.
    pub left: f32,
    /// Upper edge.
    pub top: f32,
    /// Right edge.
    pub right: f32,
    /// Lower edge.
    pub bottom: f32,
}

/// The rectangle of a token's patches on a picture of `picture_width` x `picture_height` pixels. `None` for patches
/// that are not on the picture, such as those of a newline. See [`Grid::place`] for the equation.
#[must_use]
pub fn rectangle(
    looked: &Looked,
    picture_width: usize,
    picture_height: usize,
    token_box: TokenBox,
) -> Option<TokenRect> {
    on_picture(&looked.grid, [picture_width, picture_height], token_box)
}

fn on_picture(grid: &Grid, picture: [usize; 2], patches: TokenBox) -> Option<TokenRect> {
    let [left, top, right, bottom] = grid.place(picture, patches)?.map(|edge| edge as f32);
    Some(TokenRect { left, top, right, bottom })
}

/// The position of a picture's map on a drawing.
pub struct Placement<'a> {
    /// Position of the map on the picture's canvas.
    pub grid: &'a Grid,
    /// Width and height of the picture.
    pub from: [usize; 2],
    /// Width and height of the picture on the drawing.
    pub to: [usize; 2],
    /// First column of the picture on the drawing.
    pub left: i32,
}

impl Placement<'_> {
    /// The area of patches on the drawing, in whole pixels. Neighbours in one tile share their edge.
    pub fn area(&self, patches: TokenBox) -> Option<Area> {
        let rect = on_picture(self.grid, self.from, patches)?;
        let scaled =
            |edge: f32, axis: usize| (f64::from(edge) * self.to[axis] as f64 / self.from[axis] as f64).round() as i32;
        Some(Area {
            x: self.left + scaled(rect.left, 0)..self.left + scaled(rect.right, 0),
            y: scaled(rect.top, 1)..scaled(rect.bottom, 1),
        })
    }
}

#[cfg(test)]
mod tests {
    use fovea_model::{Cut, Kernel, Newline, TileConfig};

    use super::*;

    /// The canvases of the published checkpoint, (height, width).
    const PINPOINTS: [(usize, usize); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];

    fn on(width: usize, height: usize, patches: TokenBox) -> Option<[f32; 4]> {
        let tiles = TileConfig {
            side: 336,
            cut: Cut::Anyres { pinpoints: PINPOINTS.to_vec(), most_tiles: None },
            newline: Newline::Rows,
            kernel: Kernel::Bicubic,
            mean: [0.5; 3],
            std: [0.5; 3],
            rescale: 1.0 / 255.0,
        };
        on_picture(&Grid::of(height, width, &tiles, 24), [width, height], patches)
            .map(|rect| [rect.left, rect.top, rect.right, rect.bottom])
    }

    #[test]
    fn patches_are_where_the_canvas_has_the_picture() {
        // 48 x 48 patches. The picture has 48 x 36 of them, below 6 rows that are cut: 40/3 pixels per patch.
        assert_eq!(on(640, 480, [0, 0, 1, 1]), Some([0.0, 0.0, 40.0 / 3.0, 40.0 / 3.0]));
        assert_eq!(on(640, 480, [32, 44, 36, 48]), Some([1760.0 / 3.0, 1280.0 / 3.0, 640.0, 480.0]));
        assert_eq!(on(480, 640, [0, 0, 3, 3]), Some([0.0, 0.0, 40.0, 40.0]));
        // 27 rows of 40 pixels from row 10.5 on, of which 10 are cut: half of the first patch row is padding.
        assert_eq!(on(1920, 1080, [0, 0, 1, 1]), Some([0.0, 0.0, 40.0, 20.0]));
        assert_eq!(on(1920, 1080, [1, 1, 2, 2]), Some([40.0, 20.0, 80.0, 60.0]));
        // 18.75 rows of 80/3 pixels from row 2.625 on, of which 3 are cut: ten pixel rows are outside the map.
        assert_eq!(on(1920, 500, [0, 0, 3, 3]), Some([0.0, 10.0, 80.0, 90.0]));
    }

    #[test]
    fn patches_outside_the_picture_have_no_rectangle() {
        assert_eq!(on(640, 480, [0, 48, 1, 48]), None);
        assert_eq!(on(640, 480, [36, 0, 37, 1]), None);
        assert_eq!(on(1, 10000, [0, 0, 1, 0]), None);
        assert_eq!(on(0, 0, [0, 0, 1, 1]), None);
    }
}
