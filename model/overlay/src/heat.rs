//! Input: a picture, the importance of its visual tokens, and the rectangle of an object. Output: a small copy of the
//! picture, with the importance of each token of the map as heat over its patches.
//!
//! Heat shows the importance of a token divided by the mean over the map's tokens. Its scale is logarithmic and the same for
//! all pictures, so that layers and questions can be compared by eye. Ranks, which the overlay shows, would give the same
//! colors to a layer with even importance and to a layer with all importance in one place.

use fovea_model::{Error, Looked, Origin, Picture, bicubic};

use crate::{
    canvas::{Area, Canvas},
    colors::{self, GROUND, NEUTRAL},
    place::{Placement, TokenRect},
};

/// The heat ramp covers the mean times 2^-OCTAVES to the mean times 2^OCTAVES. Values outside have the color of the nearer
/// end.
pub const OCTAVES: i32 = 3;
/// Opacity of the lines between tokens.
const LINE: f32 = 0.25;

/// The position on the ramp of an importance that is `times` the mean: 0 cold, 1 hot.
fn warmth(times: f32) -> f32 {
    // The logarithm of zero is infinite.
    (0.5 + times.max(f32::MIN_POSITIVE).log2() / (2 * OCTAVES) as f32).clamp(0.0, 1.0)
}

/// The color of middle grey under a token whose importance is `times` the mean, for a legend.
#[must_use]
pub fn color(times: f32) -> [u8; 3] {
    colors::heated([128; 3], warmth(times))
}

/// Draws `picture` in `width` x `height` pixels: grey under the heat of its tokens, with lines between tokens and a frame
/// around `marked`, a rectangle in pixels of the picture. Without importance there is no heat.
///
/// # Errors
/// [`Error::Picture`] where a side is 0 or above a picture's limits.
pub fn draw(
    picture: &Picture,
    looked: &Looked,
    [width, height]: [usize; 2],
    marked: Option<TokenRect>,
) -> Result<Picture, Error> {
    let small = bicubic(picture, width, height)?;
    let pixels = small.rgb().as_chunks::<3>().0;
    let grey = |x: i32, y: i32| colors::greyed(pixels[y as usize * width + x as usize]);
    let mut canvas = Canvas::filled(width, height, GROUND);
    canvas.map(&Area::of(0, 0, width as i32, height as i32), |x, y, _| grey(x, y));

    let from = [picture.width(), picture.height()];
    let place = Placement { grid: &looked.grid, from, to: [width, height], left: 0 };
    // Only tokens of the map that are on the picture count in the mean, each once.
    let tokens: Vec<(Vec<Area>, f32)> = looked
        .origins
        .iter()
        .zip(&looked.importance)
        .filter_map(|(origin, score)| {
            let Origin::Map(patches) = origin else { return None };
            let areas: Vec<Area> = patches.iter().filter_map(|own| place.area(*own)).collect();
            (!areas.is_empty()).then_some((areas, *score))
        })
        .collect();
    let mean = tokens.iter().map(|(_, score)| score).sum::<f32>() / tokens.len().max(1) as f32;
    for (areas, score) in tokens.iter().filter(|_| mean > 0.0) {
        let warmth = warmth(score / mean);
        areas.iter().for_each(|area| canvas.map(area, |x, y, _| colors::heated(grey(x, y), warmth)));
    }
    for area in tokens.iter().flat_map(|(areas, _)| areas) {
        let (x, y) = (&area.x, &area.y);
        canvas.fill(&Area { x: x.clone(), y: y.start..y.start + 1 }, NEUTRAL, LINE);
        canvas.fill(&Area { x: x.start..x.start + 1, y: y.start + 1..y.end }, NEUTRAL, LINE);
    }
    if let Some(rect) = marked {
        let scaled = |edge: f32, axis: usize| (edge * [width, height][axis] as f32 / from[axis] as f32).round() as i32;
        let (x, y) = (scaled(rect.left, 0)..scaled(rect.right, 0), scaled(rect.top, 1)..scaled(rect.bottom, 1));
        // A white frame inside a black one is visible on every color.
        for (grown, shade) in [(2, [0; 3]), (1, NEUTRAL)] {
            let area = Area { x: x.start - grown..x.end + grown, y: y.start - grown..y.end + grown };
            area.sides(1).iter().for_each(|side| canvas.fill(side, shade, 1.0));
        }
    }
    canvas.picture()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fovea_model::Grid;

    use super::*;

    /// Two tokens side by side and a newline, after a thumbnail of one token.
    fn looked(importance: Vec<f32>) -> Looked {
        Looked {
            grid: Grid { rows: 1, cols: 2, patches: 1, side: 1, cut: (1, 2), height: 1, width: 2, ..Grid::default() },
            compression: "text".into(),
            window: 1,
            scales: Arc::new(Vec::new()),
            choice: Arc::new(Vec::new()),
            origins: Arc::new(vec![
                Origin::Thumbnail(vec![0]),
                Origin::Map(vec![[0, 0, 1, 1]]),
                Origin::Map(vec![[0, 1, 1, 2]]),
                Origin::Newline([0, 2, 1, 2]),
            ]),
            importance,
            kept: vec![0, 1, 2, 3],
        }
    }

    #[test]
    fn an_importance_has_the_color_of_the_legend() -> Result<(), Error> {
        let picture = Picture::from_rgb(40, 20, vec![128; 40 * 20 * 3])?;
        // The map's tokens have a mean of 2: one is half of it, the other one and a half times.
        let drawn = draw(&picture, &looked(vec![9.0, 1.0, 3.0, 50.0]), [80, 40], None)?;
        let pixel = |x: usize, y: usize| drawn.rgb()[(y * 80 + x) * 3..][..3].to_vec();
        assert_eq!((drawn.width(), drawn.height()), (80, 40));
        assert_eq!(pixel(20, 20), color(0.5), "the first token (got, expected)");
        assert_eq!(pixel(60, 20), color(1.5), "the second token (got, expected)");
        // One merged token, and a class token, which has no place: the mean is its importance.
        let mut merged = looked(vec![9.0, 4.0]);
        merged.origins = Arc::new(vec![Origin::Class(0), Origin::Map(vec![[0, 0, 1, 1], [0, 1, 1, 2]])]);
        let drawn = draw(&picture, &merged, [80, 40], None)?;
        for x in [20, 60] {
            assert_eq!(drawn.rgb()[(20 * 80 + x) * 3..][..3], color(1.0), "column {x} (got, expected)");
        }
        Ok(())
    }

    #[test]
    fn heat_is_linear_in_octaves_and_clamped() {
        let places = [0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 99.0, f32::INFINITY].map(warmth);
        let sixths = [0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.0, 6.0];
        for (place, expected) in places.into_iter().zip(sixths) {
            assert!((place - expected / 6.0).abs() < 1e-6, "expected {expected} sixths, got {place}");
        }
    }

    #[test]
    fn odd_input_is_drawn_or_refused() -> Result<(), Error> {
        let picture = Picture::from_rgb(40, 20, vec![200; 40 * 20 * 3])?;
        let far = TokenRect { left: -50.0, top: -3.0, right: 900.0, bottom: 2.0 };
        for importance in [vec![], vec![1.0], vec![0.0; 4], vec![f32::NAN; 4], vec![1.0; 9]] {
            draw(&picture, &looked(importance), [8, 4], Some(far))?;
        }
        assert!(draw(&picture, &looked(vec![1.0; 4]), [0, 4], None).is_err(), "expected a side of 0 to be refused");
        Ok(())
    }
}
