//! The attention overlay: a picture and the model's attention to it in, a drawing or a PNG file out.
//!
//! An overlay shows three things:
//!
//! - **Lines** show the result of the vision-guided sampler (Sec. 3.2): one cell per token, in the color of the region's
//!   scale.
//! - **Brightness** shows the result of the text-guided sampler (Sec. 3.3): dropped tokens are dark and grey.
//! - **Heat** shows the importance of the kept tokens by rank, because the values differ by orders of magnitude.
//!
//! A legend below explains this and shows the tokens of the thumbnail.

use std::io::Cursor;

use fovea_model::{Error, Looked, Picture, bicubic};

mod canvas;
mod colors;
mod place;
mod scales;
mod fate;
mod map;
mod legend;
pub mod heat;
pub mod words;

pub use place::{TokenRect, rectangle};

use canvas::Canvas;
use colors::GROUND;
use fate::fates;
use legend::Legend;
use map::Map;
use place::Placement;
use scales::Fineness;

/// Least length of the drawn picture's longer side, in pixels, so that lines between patches are sharp.
const LEAST: usize = 960;
/// Greatest length of the longer side.
const MOST: usize = 1600;
/// Least length of the shorter side. Very narrow pictures are widened, so that they are visible.
const SLIMMEST: usize = 24;

/// The size (width, height) of the picture in a drawing, for a picture of size `sides`. [`draw`] puts the picture at the
/// top, in the middle; its legend makes the drawing higher, and may make it wider.
#[must_use]
pub fn drawn_size(sides: [usize; 2]) -> [usize; 2] {
    let longer = sides[0].max(sides[1]);
    let target = longer.clamp(LEAST, MOST) as f64;
    sides.map(|side| ((side as f64 * target / longer as f64).round() as usize).max(SLIMMEST))
}

/// `picture` in the size of a drawing, without an overlay.
///
/// # Errors
/// [`Error::Picture`] where it can't be resized.
pub fn plain(picture: &Picture) -> Result<Picture, Error> {
    let [width, height] = drawn_size([picture.width(), picture.height()]);
    bicubic(picture, width, height)
}

/// Draws the overlay on `picture`, in the size of [`plain`] and without a legend, for a window that has its own legend.
///
/// # Errors
/// As [`plain`].
pub fn bare(picture: &Picture, looked: &Looked) -> Result<Picture, Error> {
    compose(picture, looked, false)
}

/// Draws the overlay on `picture`, with a legend below.
///
/// # Errors
/// [`Error::Picture`] where the drawing is above a picture's limits.
pub fn draw(picture: &Picture, looked: &Looked) -> Result<Picture, Error> {
    compose(picture, looked, true)
}

fn compose(picture: &Picture, looked: &Looked, with_legend: bool) -> Result<Picture, Error> {
    let drawn = plain(picture)?;
    let to = [drawn.width(), drawn.height()];
    let tokens = looked.tokens();
    let fates = fates(&tokens);
    let size = (to[0] as f32 / LEAST as f32).clamp(1.0, 1.6);
    let legend = with_legend.then_some(Legend { looked, fates: &fates, picture: &drawn, size });
    let (width, height) = legend.as_ref().map_or(Ok((0, 0)), Legend::bounds)?;
    let width = width.max(to[0]);
    let mut canvas = Canvas::filled(width, to[1] + height, GROUND);
    let left = ((width - to[0]) / 2) as i32;
    let place = Placement { grid: &looked.grid, from: [picture.width(), picture.height()], to, left };
    Map { looked, tokens: &tokens, fates: &fates, place }.paint(&mut canvas, &drawn);
    if let Some(legend) = legend {
        legend.paint(&mut canvas, to[1])?;
    }
    canvas.picture()
}

/// The scales that regions can have, the coarsest first: index in [`Looked::scales`], and the color (red, green, blue) of
/// its lines.
#[must_use]
pub fn scale_colors(looked: &Looked) -> Vec<(usize, [u8; 3])> {
    let fineness = Fineness::of(&looked.scales);
    fineness.order().map(|index| (index, fineness.color(index))).collect()
}

/// The color (red, green, blue) of middle grey under a kept token, for a legend. `rank` is 0 for the least important kept
/// token and 1 for the most important one; `None` is a dropped token.
#[must_use]
pub fn heat_color(rank: Option<f32>) -> [u8; 3] {
    let grey = [128; 3];
    rank.map_or_else(|| colors::dimmed(grey), |rank| colors::heated(grey, rank))
}

/// A picture as the bytes of a PNG file.
///
/// # Errors
/// [`Error::Picture`] where the encoder fails.
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

    use fovea_model::{Grid, TileConfig};
    use fovea_runtime::{Scale, TokenBox};
    use fovea_shaders::compact;

    use super::*;

    /// The canvases of the published checkpoint, (height, width).
    const PINPOINTS: [(usize, usize); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];

    /// All regions at `scale` of 4x4, 2x2, 1x1, or no sampler. Every second token is kept, or all.
    fn looked(width: usize, height: usize, scale: Option<usize>, text: bool) -> Looked {
        let grid = Grid::of(height, width, &TileConfig::anyres(336, PINPOINTS.to_vec()), 24);
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
    fn inconsistent_data_does_not_panic() -> Result<(), Error> {
        let picture = Picture::from_rgb(640, 480, vec![120; 640 * 480 * 3])?;
        let mut wrong = looked(640, 480, Some(1), true);
        wrong.scales = Arc::new(vec![Scale::new(0, 0)]);
        wrong.kept = vec![3, usize::MAX];
        wrong.importance = vec![f32::NAN];
        draw(&picture, &wrong)?;
        wrong.grid = Grid::default();
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
