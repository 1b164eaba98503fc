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

/// The rectangle of a token's patches on a picture of `picture_width` x `picture_height` pixels. `None` for patches that
/// are not on the picture, such as those of a newline.
///
/// A canvas of H x W patches holds the h x w picture centred, at `s = min(H/h, W/w)` patches per pixel. So patch row y of
/// the map begins at the picture's row `(y + top - (H - s h) / 2) / s`; columns are similar. (LLaVA-NeXT rounds the size
/// and the offset on the canvas to whole pixels. This formula does not; the difference is less than one canvas pixel.)
#[must_use]
pub fn rectangle(
    looked: &Looked,
    picture_width: usize,
    picture_height: usize,
    token_box: TokenBox,
) -> Option<TokenRect> {
    on_picture(&looked.grid, [picture_width, picture_height], token_box)
}

fn on_picture(grid: &Grid, sides: [usize; 2], [y0, x0, y1, x1]: TokenBox) -> Option<TokenRect> {
    let [w, h] = sides.map(|side| side as f64);
    let (full_w, full_h) = (grid.cols as f64 * grid.patches as f64, grid.rows as f64 * grid.patches as f64);
    let s = (full_h / h).min(full_w / w);
    let place = |patch: usize, cut: usize, full: f64, length: f64| {
        (((patch + cut) as f64 - (full - s * length) / 2.0) / s).clamp(0.0, length) as f32
    };
    if !(s.is_finite() && s > 0.0) || y1 > grid.height || x1 > grid.width {
        return None;
    }
    let (left, right) = (place(x0, grid.left, full_w, w), place(x1, grid.left, full_w, w));
    let (top, bottom) = (place(y0, grid.top, full_h, h), place(y1, grid.top, full_h, h));
    (left < right && top < bottom).then_some(TokenRect { left, top, right, bottom })
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
    /// The area of patches on the drawing, in whole pixels. Neighbours share their edge.
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
    use super::*;

    /// The canvases of the published checkpoint, (height, width).
    const PINPOINTS: [(usize, usize); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];

    fn on(width: usize, height: usize, patches: TokenBox) -> Option<[f32; 4]> {
        on_picture(&Grid::of(height, width, &PINPOINTS, 336, 24), [width, height], patches)
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
