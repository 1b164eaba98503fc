//! The attention overlay: a picture and the model's attention to it in, a drawing or a PNG file out.
//!
//! An overlay shows three things:
//!
//! - **Lines** show the patches of each token: with the vision-guided sampler (Sec. 3.2) in the color of the region's scale.
//!   A merged token has several cells.
//! - **Brightness** shows what the last layer reads: dropped tokens, and patches without a token, are dark and grey. The
//!   patches of merged tokens are half dark, because several of them share one token.
//! - **Heat** shows the importance of the kept tokens by rank, because the values differ by orders of magnitude. Without a
//!   pruning inside the model there is none.
//!
//! A legend below explains this, names the compression, and shows the tokens of the thumbnail. Class tokens have no place
//! on the picture; only the legend counts them.

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
use fate::{fates, is_merged};
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
    let fates = fates(looked, &tokens);
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

/// The color (red, green, blue) of middle grey under a merged token without importance, for a legend.
#[must_use]
pub fn merged_color() -> [u8; 3] {
    colors::merged([128; 3], [128; 3])
}

/// Whether some visual tokens are merged, so that a legend explains [`merged_color`].
#[must_use]
pub fn has_merged(looked: &Looked) -> bool {
    looked.origins.iter().any(is_merged)
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

    use fovea_model::{Grid, Origin, Thumbnail, TileConfig};
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
        let of = |own: TokenBox| if own[1] == own[3] { Origin::Newline(own) } else { Origin::Map(vec![own]) };
        let origins = (0..576).map(|patch| Origin::Thumbnail(vec![patch])).chain(boxes.into_iter().map(of));
        let origins: Vec<Origin> = origins.collect();
        let count = origins.len();
        let compression = match (scale, text) {
            (None, false) => "none",
            (None, true) => "text",
            (Some(_), false) => "vision",
            (Some(_), true) => "focus",
        };
        Looked {
            grid,
            compression: compression.into(),
            window: 4,
            scales: Arc::new(scales.to_vec()),
            choice: Arc::new(choice),
            origins: Arc::new(origins),
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
        (wrong.window, wrong.compression) = (0, "no compression at all".into());
        wrong.origins = Arc::new(vec![
            Origin::Map(vec![[9, 9, 2, 2]]),
            Origin::Map(Vec::new()),
            Origin::Thumbnail(vec![usize::MAX]),
            Origin::Newline([usize::MAX; 4]),
            Origin::Class(usize::MAX),
        ]);
        draw(&picture, &wrong)?;
        wrong.grid = looked(640, 480, None, false).grid;
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

    #[test]
    fn merged_and_class_tokens_are_drawn() -> Result<(), Error> {
        let picture = Picture::from_rgb(960, 960, vec![200; 960 * 960 * 3])?;
        let pixel = |drawn: &Picture, x: usize, y: usize| -> u32 {
            drawn.rgb()[(y * drawn.width() + x) * 3..][..3].iter().map(|&c| u32::from(c)).sum()
        };
        let mut zipped = looked(960, 960, None, false);
        zipped.compression = "vision-zip".into();
        zipped.origins = Arc::new(vec![
            Origin::Class(0),
            Origin::Thumbnail(vec![0, 575]),
            Origin::Map(vec![[0, 0, 1, 1], [47, 47, 48, 48]]),
            Origin::Newline([47, 48, 48, 48]),
            Origin::Class(1),
        ]);
        // Each is: where, on the picture of 48 x 48 patches, or on the thumbnail of 24 x 24 in the legend; whether it is kept.
        let corners = [(10, 10), (950, 950)];
        let (thumbnail, middle, side) = ([(21, 981), (100, 1060)], (60, 1020), (30, 10));
        zipped.kept = (0..5).collect();
        let drawn = draw(&picture, &zipped)?;
        let on = |x: usize| x + (drawn.width() - 960) / 2;
        for (x, y) in corners {
            let got = pixel(&drawn, on(x), y);
            assert!((400..500).contains(&got), "a patch of the merged token is half dark, at {x}, {y}: {got}");
        }
        for (x, y) in thumbnail {
            let got = pixel(&drawn, x, y);
            assert!((400..500).contains(&got), "a patch of the merged token of the thumbnail, at {x}, {y}: {got}");
        }
        assert!(pixel(&drawn, on(side.0), side.1) < 300, "a patch without a token is dark");
        assert!(pixel(&drawn, middle.0, middle.1) < 300, "a patch of the thumbnail without a token is dark");
        // Pruned inside the model: only the token of the thumbnail is left.
        (zipped.importance, zipped.kept) = (vec![0.1; 5], vec![1]);
        let drawn = draw(&picture, &zipped)?;
        let on = |x: usize| x + (drawn.width() - 960) / 2;
        for (x, y) in corners {
            assert!(pixel(&drawn, on(x), y) < 300, "a dropped token is dark, at {x}, {y}");
        }
        assert!(pixel(&drawn, thumbnail[0].0, thumbnail[0].1) > pixel(&drawn, middle.0, middle.1) + 100);
        Ok(())
    }

    #[test]
    fn merged_tokens_are_between_dropped_and_kept() -> Result<(), Error> {
        let picture = Picture::from_rgb(960, 960, vec![200; 960 * 960 * 3])?;
        // A patch has 20 x 20 pixels: the first patch, the patch right of it, which has no token, and the last patch.
        let shades = |looked: &Looked| -> Result<[u32; 3], Error> {
            let drawn = bare(&picture, looked)?;
            let pixel = |at: usize| drawn.rgb()[at * 3..][..3].iter().map(|&c| u32::from(c)).sum();
            Ok([10 * 960 + 10, 10 * 960 + 30, 950 * 960 + 950].map(pixel))
        };
        let has_swatch = |looked: &Looked| -> Result<bool, Error> {
            Ok(draw(&picture, looked)?.rgb().as_chunks::<3>().0.contains(&merged_color()))
        };
        for importance in [vec![], vec![2.0, 1.0]] {
            let mut one = looked(960, 960, None, false);
            (one.compression, one.importance, one.kept) = ("vision-zip".into(), importance, vec![0, 1]);
            let mut merged = one.clone();
            one.origins = Arc::new(vec![Origin::Map(vec![[0, 0, 1, 1]]), Origin::Map(vec![[0, 2, 1, 3]])]);
            let both = Origin::Map(vec![[0, 0, 1, 1], [47, 47, 48, 48]]);
            merged.origins = Arc::new(vec![both, Origin::Map(vec![[0, 2, 1, 3]])]);
            let ([kept, dark, _], [target, _, joined]) = (shades(&one)?, shades(&merged)?);
            assert_eq!(target, joined, "all patches of a merged token are alike (got, expected)");
            assert!(dark + 100 < target && target + 100 < kept, "dark {dark}, merged {target}, kept {kept}");
            assert_eq!((has_swatch(&one)?, has_swatch(&merged)?), (false, true), "the swatch (got, expected)");
        }
        Ok(())
    }

    #[test]
    fn a_thumbnail_without_a_kept_patch_is_dark() -> Result<(), Error> {
        let picture = Picture::from_rgb(960, 960, vec![200; 960 * 960 * 3])?;
        let mut chosen = looked(960, 960, None, false);
        (chosen.origins, chosen.kept) = (Arc::new(vec![Origin::Map(vec![[0, 0, 1, 1]])]), vec![0]);
        let corner = |compression: &str, thumbnail: Thumbnail| -> Result<Vec<u8>, Error> {
            let mut looked = chosen.clone();
            (looked.compression, looked.grid.thumbnail) = (compression.into(), thumbnail);
            let drawn = draw(&picture, &looked)?;
            Ok(drawn.rgb()[(981 * drawn.width() + 21) * 3..][..3].to_vec())
        };
        assert_eq!(corner("random", Thumbnail::First)?, colors::dimmed([200; 3]), "(got, expected)");
        assert_eq!(corner("random", Thumbnail::Own)?, GROUND, "a family without a thumbnail (got, expected)");
        assert_eq!(corner("none", Thumbnail::First)?, GROUND, "a checkpoint without its thumbnail (got, expected)");
        Ok(())
    }

    #[test]
    fn the_legend_names_the_compression() -> Result<(), Error> {
        let picture = Picture::from_rgb(960, 960, vec![200; 960 * 960 * 3])?;
        let steps = |scale: Option<usize>, text: bool, compression: Option<&str>| {
            let mut looked = looked(960, 960, scale, text);
            looked.compression = compression.map_or(looked.compression, str::to_owned);
            let steps = Legend { looked: &looked, fates: &[], picture: &picture, size: 1.0 }.steps();
            let word = |(name, count): (String, Option<usize>)| {
                format!("{name} {}", count.map_or_else(|| "off".to_owned(), |count| count.to_string()))
            };
            steps.into_iter().map(word).collect::<Vec<_>>().join(" ")
        };
        // 24 * 24 + 48 * 49; one token per 4 x 4 patches, and a newline per row of tokens
        assert_eq!(steps(None, false, None), "all 2928");
        assert_eq!(steps(None, false, Some("text")), "all 2928", "no layer, so nothing is pruned (got, expected)");
        assert_eq!(steps(None, true, None), "all 2928 → vision-guided off → text-guided 1464");
        assert_eq!(steps(Some(0), true, None), "all 2928 → vision-guided 732 → text-guided 366");
        assert_eq!(steps(Some(0), false, None), "all 2928 → vision-guided 732 → text-guided off");
        let own =
            [("fastv", "all 2928 → fastv 1464"), ("div-prune+text", "all 2928 → div-prune 2928 → text-guided 1464")];
        for (compression, expected) in own {
            assert_eq!(steps(None, true, Some(compression)), expected, "(got, expected)");
        }
        assert_eq!(steps(None, false, Some("cd-pruner:keep=64")), "all 2928 → cd-pruner:keep=64 2928");
        Ok(())
    }
}
