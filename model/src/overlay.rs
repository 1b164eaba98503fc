//! Enters: a picture and what the model looked at. Leaves: a drawing of it, as a picture or a PNG file.
//!
//! Three things lie over one another. **Lines** show what the vision-guided sampler (Sec. 3.2) made of each region: a
//! cell is a token, its colour the region's scale. **Brightness** shows what the text-guided sampler (Sec. 3.3) dropped:
//! dark and grey. **Heat** shows how important the kept tokens are, by rank, because the scores themselves span
//! magnitudes. The strip below says all this, and shows the thumbnail's tokens apart.

use std::io::Cursor;

use fovea_runtime::TokenBox;

use crate::{answer::Looked, error::Error, picture::Picture, resize::bicubic};

mod canvas;
mod colours;
pub mod heat;
mod legend;
mod lettering;
mod scales;

use canvas::{Area, Canvas, Colour, mix};
use colours::{GROUND, NEUTRAL};
use legend::Legend;
use scales::Fineness;

/// The drawn picture's longer side is at least this, so that lines between patches are crisp, ...
const LEAST: usize = 960;
/// ... and at most this, in pixels.
const MOST: usize = 1600;
/// The shorter side is at least this, even where that widens a needle: it is to be seen.
const SLIMMEST: usize = 24;

/// A part of a picture, in its pixels, edges at fractions of them.
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

/// Where a token's patches lie on a picture of `picture_width` x `picture_height` pixels; None where they do not, as a
/// newline's.
///
/// On a canvas of H x W patches the h x w picture is `s = min(H/h, W/w)` patches to a pixel and centred, so that the
/// map's patch row y begins at the picture's row `(y + top - (H - s h) / 2) / s`, and columns alike. (In the pixels of
/// the canvas both its length and its start are rounded to whole ones, which is left out: less than one of them.)
#[must_use]
pub fn rectangle(
    looked: &Looked,
    picture_width: usize,
    picture_height: usize,
    token_box: TokenBox,
) -> Option<TokenRect> {
    let grid = &looked.grid;
    let (w, h) = (picture_width as f64, picture_height as f64);
    let (full_w, full_h) = (grid.cols as f64 * grid.patches as f64, grid.rows as f64 * grid.patches as f64);
    let s = (full_h / h).min(full_w / w);
    let place = |patch: usize, cut: usize, full: f64, length: f64| {
        (((patch + cut) as f64 - (full - s * length) / 2.0) / s).clamp(0.0, length) as f32
    };
    let [y0, x0, y1, x1] = token_box;
    if !(s.is_finite() && s > 0.0) || y1 > grid.height || x1 > grid.width {
        return None;
    }
    let (left, right) = (place(x0, grid.left, full_w, w), place(x1, grid.left, full_w, w));
    let (top, bottom) = (place(y0, grid.top, full_h, h), place(y1, grid.top, full_h, h));
    (left < right && top < bottom).then_some(TokenRect { left, top, right, bottom })
}

/// What became of a visual token.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// The text-guided sampler left it out.
    Dropped,
    /// There was no text-guided sampler.
    Kept,
    /// The sampler kept it: 0 for the least important that it kept, 1 for the most.
    Ranked(f32),
}

/// The fate of every visual token, the thumbnail's first.
fn fates(looked: &Looked) -> Vec<Fate> {
    let mut fates = vec![Fate::Dropped; looked.thumbnail + looked.boxes.len()];
    let importance = |index: usize| looked.importance.get(index).copied().unwrap_or(0.0);
    let mut rising: Vec<usize> = looked.kept.iter().copied().filter(|&index| index < fates.len()).collect();
    rising.sort_by(|&a, &b| importance(a).total_cmp(&importance(b)));
    let last = rising.len().saturating_sub(1).max(1) as f32;
    for (place, index) in rising.into_iter().enumerate() {
        fates[index] = if looked.importance.is_empty() { Fate::Kept } else { Fate::Ranked(place as f32 / last) };
    }
    fates
}

/// Paints `picture` with its corner at `corner`: bright where a token is kept, dark elsewhere. A token without a rank
/// may have a tint instead.
fn paint(
    canvas: &mut Canvas,
    picture: &Picture,
    corner: [i32; 2],
    tokens: impl Iterator<Item = (Area, Fate, Option<Colour>)>,
) {
    let pixels = picture.rgb().as_chunks::<3>().0;
    let (width, height) = (picture.width() as i32, picture.height() as i32);
    let at = |x: i32, y: i32| pixels[((y - corner[1]) * width + x - corner[0]) as usize];
    canvas.map(&Area::of(corner[0], corner[1], width, height), |x, y, _| colours::dimmed(at(x, y)));
    for (area, fate, tint) in tokens {
        match (fate, tint) {
            (Fate::Dropped, _) => {}
            (Fate::Kept, None) => canvas.map(&area, |x, y, _| at(x, y)),
            (Fate::Kept, Some(tint)) => canvas.map(&area, |x, y, _| mix(at(x, y), tint, 0.14)),
            (Fate::Ranked(rank), _) => canvas.map(&area, |x, y, _| colours::heated(at(x, y), rank)),
        }
    }
}

/// The map's part of the drawing.
struct Map<'a> {
    looked: &'a Looked,
    fates: &'a [Fate],
    /// Width and height of the picture as it came.
    from: [usize; 2],
    /// Its size as it is drawn.
    to: [usize; 2],
    /// Column that it is drawn from.
    left: i32,
}

impl Map<'_> {
    /// Where patches are drawn, in whole pixels: neighbours share their edge.
    fn area(&self, patches: TokenBox) -> Option<Area> {
        let rect = rectangle(self.looked, self.from[0], self.from[1], patches)?;
        let scaled =
            |edge: f32, axis: usize| (f64::from(edge) * self.to[axis] as f64 / self.from[axis] as f64).round() as i32;
        Some(Area {
            x: self.left + scaled(rect.left, 0)..self.left + scaled(rect.right, 0),
            y: scaled(rect.top, 1)..scaled(rect.bottom, 1),
        })
    }

    /// The patches of the region that holds a patch, and the colour of its scale; None without the vision-guided sampler.
    fn region(&self, y: usize, x: usize, fineness: &Fineness) -> Option<(TokenBox, Colour)> {
        let (grid, window) = (&self.looked.grid, self.looked.window.max(1));
        let (row, col) = (y / window, x / window);
        let choice = self.looked.choice.get(row * grid.width.div_ceil(window) + col)?;
        let (y, x) = (row * window, col * window);
        let (bottom, right) = (y.saturating_add(window).min(grid.height), x.saturating_add(window).min(grid.width));
        Some(([y, x, bottom, right], fineness.colour(*choice)))
    }

    /// Every token of the map: its patches, and what became of it.
    fn tokens(&self) -> impl Iterator<Item = (TokenBox, Fate)> {
        self.looked.boxes.iter().copied().zip(self.fates.iter().copied().skip(self.looked.thumbnail))
    }

    /// Paints the picture and, over it, the cells.
    fn paint(&self, canvas: &mut Canvas, picture: &Picture) {
        let fineness = Fineness::of(&self.looked.scales);
        let tokens = self.tokens().filter_map(|(patches, fate)| {
            let tint = self.region(patches[0], patches[1], &fineness).map(|(_, colour)| colour);
            Some((self.area(patches)?, fate, tint))
        });
        paint(canvas, picture, [self.left, 0], tokens);
        for (patches, fate) in self.tokens() {
            self.lines(canvas, patches, fate, &fineness);
        }
    }

    /// Draws a token's upper and left edge within its region, and what it has of the region's border.
    fn lines(&self, canvas: &mut Canvas, patches: TokenBox, fate: Fate, fineness: &Fineness) {
        let Some(Area { x, y }) = self.area(patches) else { return };
        let region = self.region(patches[0], patches[1], fineness);
        let (inner, border) = match (region, fate) {
            (None, Fate::Dropped) => (0.06, 0.06),
            (None, _) => (0.16, 0.16),
            (_, Fate::Dropped) => (0.25, 0.5),
            (_, _) => (0.55, 0.95),
        };
        // thicker where patches are large, as those of a model with few of them
        let thick = (self.to[0] / self.looked.grid.width.max(1) / 24).clamp(1, 2) as i32;
        let (around, colour) = region.unwrap_or((patches, NEUTRAL));
        let outer = |edge: usize| region.is_some() && patches[edge] == around[edge];
        let line = |edge: usize| if outer(edge) { (thick, border) } else { (1, inner) };
        let ((top, top_opacity), (left, left_opacity)) = (line(0), line(1));
        canvas.fill(&Area { x: x.clone(), y: y.start..y.start + top }, colour, top_opacity);
        canvas.fill(&Area { x: x.start..x.start + left, y: y.start + top..y.end }, colour, left_opacity);
        let foot = if outer(2) { y.end - thick } else { y.end };
        canvas.fill(&Area { x: x.start + left..x.end, y: foot..y.end }, colour, border);
        if outer(3) {
            canvas.fill(&Area { x: x.end - thick..x.end, y: y.start + top..foot }, colour, border);
        }
    }
}

/// The size (width, height) that a picture of this size is drawn in: in [`draw`]'s drawing at the top and in the middle. The
/// drawing may be wider, and is higher, for its legend.
pub fn drawn_size(sides: [usize; 2]) -> [usize; 2] {
    let longer = sides[0].max(sides[1]);
    let target = longer.clamp(LEAST, MOST) as f64;
    sides.map(|side| ((side as f64 * target / longer as f64).round() as usize).max(SLIMMEST))
}

/// `picture` in the size that it is drawn in, with nothing over it.
///
/// # Errors
/// [`Error::Picture`] where it can't be resized.
pub fn plain(picture: &Picture) -> Result<Picture, Error> {
    let [width, height] = drawn_size([picture.width(), picture.height()]);
    bicubic(picture, width, height)
}

/// Draws what the model looked at over `picture`, in the size of [`plain`] and without a legend, for a window that has its
/// own.
///
/// # Errors
/// As [`plain`].
pub fn bare(picture: &Picture, looked: &Looked) -> Result<Picture, Error> {
    let drawn = plain(picture)?;
    let to = [drawn.width(), drawn.height()];
    let mut canvas = Canvas::filled(to[0], to[1], GROUND);
    let from = [picture.width(), picture.height()];
    Map { looked, fates: &fates(looked), from, to, left: 0 }.paint(&mut canvas, &drawn);
    canvas.picture()
}

/// The scales that regions chose from, the coarsest first: index, and the colour of its lines (red, green, blue).
pub fn scale_colours(looked: &Looked) -> Vec<(usize, [u8; 3])> {
    let fineness = Fineness::of(&looked.scales);
    fineness.order().map(|index| (index, fineness.colour(index))).collect()
}

/// What the heat of a kept token looks like on grey (red, green, blue): `rank` 0 for the least important that was kept, 1 for
/// the most; None for a dropped one.
pub fn heat_colour(rank: Option<f32>) -> [u8; 3] {
    let grey = [128; 3];
    rank.map_or_else(|| colours::dimmed(grey), |rank| colours::heated(grey, rank))
}

/// Draws what the model looked at over `picture`, with a legend below.
///
/// # Errors
/// [`Error::Picture`] where the drawing would be above a picture's limits.
pub fn draw(picture: &Picture, looked: &Looked) -> Result<Picture, Error> {
    let from = [picture.width(), picture.height()];
    let drawn = plain(picture)?;
    let to = [drawn.width(), drawn.height()];
    let fates = fates(looked);
    let size = (to[0] as f32 / LEAST as f32).clamp(1.0, 1.6);
    let legend = Legend { looked, fates: &fates, picture: &drawn, size };
    let (width, height) = legend.bounds()?;
    let width = width.max(to[0]);
    let mut canvas = Canvas::filled(width, to[1] + height, GROUND);
    let left = ((width - to[0]) / 2) as i32;
    Map { looked, fates: &fates, from, to, left }.paint(&mut canvas, &drawn);
    legend.paint(&mut canvas, to[1])?;
    canvas.picture()
}

/// A picture as the bytes of a PNG file.
///
/// # Errors
/// [`Error::Picture`] where it cannot be encoded.
pub fn png(picture: &Picture) -> Result<Vec<u8>, Error> {
    let broken = |why: String| Error::Picture(format!("expected a picture that can be written as PNG, got: {why}"));
    let (width, height) = (picture.width() as u32, picture.height() as u32);
    let image = image::RgbImage::from_raw(width, height, picture.rgb().to_vec())
        .ok_or_else(|| broken("a size unlike its pixels".to_owned()))?;
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).map_err(|error| broken(error.to_string()))?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fovea_runtime::{Scale, compact};

    use super::*;
    use crate::grid::Grid;

    /// The canvases of the published checkpoint, (height, width).
    const PINPOINTS: [(usize, usize); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];

    /// All regions at `scale` of 4x4, 2x2, 1x1, or no sampler; every other token kept, or all.
    fn looked(width: usize, height: usize, scale: Option<usize>, text: bool) -> Looked {
        let grid = Grid::of(height, width, &PINPOINTS, 336, 24);
        let scales = [4, 2, 1].map(|side| Scale::new(side, side));
        let regions = grid.height.div_ceil(4) * grid.width.div_ceil(4);
        let choice = scale.map_or(Vec::new(), |scale| vec![scale; regions]);
        let boxes: Vec<TokenBox> = match scale {
            Some(_) => {
                compact(grid.height, grid.width, 4, &scales, &choice).into_iter().map(|(patches, _)| patches).collect()
            }
            None => (0..grid.height)
                .flat_map(|y| (0..=grid.width).map(move |x| [y, x, y + 1, (x + 1).min(grid.width)]))
                .collect(),
        };
        let count = 576 + boxes.len();
        Looked {
            grid,
            window: 4,
            scales: Arc::new(scales.to_vec()),
            choice: Arc::new(choice),
            thumbnail: 576,
            boxes: Arc::new(boxes),
            importance: if text { (0..count).map(|i| 1.0 / (i + 1) as f32).collect() } else { Vec::new() },
            kept: (0..count).step_by(if text { 2 } else { 1 }).collect(),
        }
    }

    fn on(width: usize, height: usize, patches: TokenBox) -> Option<[f32; 4]> {
        rectangle(&looked(width, height, None, false), width, height, patches)
            .map(|rect| [rect.left, rect.top, rect.right, rect.bottom])
    }

    #[test]
    fn patches_lie_where_the_canvas_has_the_picture() {
        // 48 x 48 patches, of which the picture has 48 x 36, below 6 rows that are cut: 40/3 pixels to a patch
        assert_eq!(on(640, 480, [0, 0, 1, 1]), Some([0.0, 0.0, 40.0 / 3.0, 40.0 / 3.0]));
        assert_eq!(on(640, 480, [32, 44, 36, 48]), Some([1760.0 / 3.0, 1280.0 / 3.0, 640.0, 480.0]));
        assert_eq!(on(480, 640, [0, 0, 3, 3]), Some([0.0, 0.0, 40.0, 40.0]));
        // 27 rows of 40 pixels from row 10.5 on, of which 10 are cut: the first patch row is half padding
        assert_eq!(on(1920, 1080, [0, 0, 1, 1]), Some([0.0, 0.0, 40.0, 20.0]));
        assert_eq!(on(1920, 1080, [1, 1, 2, 2]), Some([40.0, 20.0, 80.0, 60.0]));
        // 18.75 rows of 80/3 pixels from row 2.625 on, of which 3 are cut: ten pixel rows are outside the map
        assert_eq!(on(1920, 500, [0, 0, 3, 3]), Some([0.0, 10.0, 80.0, 90.0]));
    }

    #[test]
    fn what_lies_outside_has_no_rectangle() {
        assert_eq!(on(640, 480, [0, 48, 1, 48]), None);
        assert_eq!(on(640, 480, [36, 0, 37, 1]), None);
        assert_eq!(on(1, 10000, [0, 0, 1, 0]), None);
        assert_eq!(on(0, 0, [0, 0, 1, 1]), None);
    }

    #[test]
    fn any_picture_can_be_drawn() -> Result<(), Error> {
        for (width, height) in [(1, 1), (1, 10000), (10000, 1), (40, 30), (333, 1017), (2000, 600)] {
            let picture = Picture::from_rgb(width, height, vec![120; width * height * 3])?;
            for (scale, text) in [(None, false), (None, true), (Some(0), true), (Some(1), false), (Some(2), true)] {
                let drawn = draw(&picture, &looked(width, height, scale, text))?;
                let sides = (drawn.width(), drawn.height());
                assert!(sides.0.max(sides.1) >= LEAST && sides.0 <= MOST && sides.1 <= MOST + 250, "{sides:?}");
                assert!(png(&drawn)?.starts_with(b"\x89PNG"));
            }
        }
        Ok(())
    }

    #[test]
    fn parts_that_do_not_belong_together_do_no_harm() -> Result<(), Error> {
        let picture = Picture::from_rgb(640, 480, vec![120; 640 * 480 * 3])?;
        let mut wrong = looked(640, 480, Some(1), true);
        wrong.scales = Arc::new(vec![Scale::new(0, 0)]);
        wrong.kept = vec![3, usize::MAX];
        wrong.importance = vec![f32::NAN];
        draw(&picture, &wrong)?;
        wrong.grid = Grid { rows: 0, cols: 0, patches: 0, top: 0, left: 0, height: 0, width: 0 };
        (wrong.window, wrong.boxes) = (0, Arc::new(vec![[9, 9, 2, 2]]));
        draw(&picture, &wrong)?;
        Ok(())
    }

    #[test]
    fn kept_is_bright_and_dropped_is_dark() -> Result<(), Error> {
        let picture = Picture::from_rgb(960, 960, vec![200; 960 * 960 * 3])?;
        let mut half = looked(960, 960, Some(0), true);
        half.kept = vec![576]; // the first region
        let drawn = draw(&picture, &half)?;
        let pixel =
            |x: usize, y: usize| drawn.rgb()[(y * drawn.width() + x) * 3..][..3].iter().map(|&c| c as u32).sum();
        let (kept, dropped): (u32, u32) = (pixel(40, 40), pixel(120, 40));
        assert!(kept > 2 * dropped, "{kept} {dropped}");
        Ok(())
    }
}
