//! Enters: a picture, what was looked at, and an object's place. Leaves: the picture in a small size under the
//! importance (Eq. 8) of its map's tokens, each over the patches that it stands for.
//!
//! Heat says how many times the mean of the map's tokens a token's importance is, on a logarithmic scale that is the
//! same for all pictures: so layers and questions compare by eye. Ranks, as the overlay has them, would colour a layer
//! that looks everywhere like one that looks at one thing.

use super::canvas::{Area, Canvas};
use super::colours::{self, GROUND, NEUTRAL};
use super::{Map, TokenRect};
use crate::{answer::Looked, error::Error, picture::Picture, resize::bicubic};

/// Heat runs from the mean divided by two to this power to the mean times two to this power; what lies beyond has the
/// colour of the end.
pub const OCTAVES: i32 = 3;
/// How much of a line between tokens is white.
const LINE: f32 = 0.25;

/// The place on the ramp of an importance that is `times` the mean: 0 cold, 1 hot.
fn warmth(times: f32) -> f32 {
    // Not zero, whose logarithm is infinite.
    (0.5 + times.max(f32::MIN_POSITIVE).log2() / (2 * OCTAVES) as f32).clamp(0.0, 1.0)
}

/// What becomes of a middle grey under a token whose importance is `times` the mean: for a legend.
#[must_use]
pub fn colour(times: f32) -> [u8; 3] {
    colours::heated([128; 3], warmth(times))
}

/// Draws `picture` in `width` x `height` pixels, grey under the heat of its tokens, with lines between these and a
/// frame around `marked`, a part of the picture in its own pixels. Without importance there is no heat.
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
    let grey = |x: i32, y: i32| colours::greyed(pixels[y as usize * width + x as usize]);
    let mut canvas = Canvas::filled(width, height, GROUND);
    canvas.map(&Area::of(0, 0, width as i32, height as i32), |x, y, _| grey(x, y));

    let from = [picture.width(), picture.height()];
    let map = Map { looked, fates: &[], from, to: [width, height], left: 0 };
    let importance = looked.importance.iter().skip(looked.thumbnail);
    // A newline has no place on the picture, and counts neither here nor in the mean.
    let tokens: Vec<(Area, f32)> = looked
        .boxes
        .iter()
        .zip(importance)
        .filter_map(|(patches, score)| Some((map.area(*patches)?, *score)))
        .collect();
    let mean = tokens.iter().map(|(_, score)| score).sum::<f32>() / tokens.len().max(1) as f32;
    for (area, score) in tokens.iter().filter(|_| mean > 0.0) {
        let warmth = warmth(score / mean);
        canvas.map(area, |x, y, _| colours::heated(grey(x, y), warmth));
    }
    for (area, _) in &tokens {
        let (x, y) = (&area.x, &area.y);
        canvas.fill(&Area { x: x.clone(), y: y.start..y.start + 1 }, NEUTRAL, LINE);
        canvas.fill(&Area { x: x.start..x.start + 1, y: y.start + 1..y.end }, NEUTRAL, LINE);
    }
    if let Some(rect) = marked {
        let scaled = |edge: f32, axis: usize| (edge * [width, height][axis] as f32 / from[axis] as f32).round() as i32;
        let (x, y) = (scaled(rect.left, 0)..scaled(rect.right, 0), scaled(rect.top, 1)..scaled(rect.bottom, 1));
        // White within black is seen on every heat.
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

    use super::*;
    use crate::grid::Grid;

    /// Two tokens side by side and a newline, after a thumbnail of one token.
    fn looked(importance: Vec<f32>) -> Looked {
        Looked {
            grid: Grid { rows: 1, cols: 2, patches: 1, top: 0, left: 0, height: 1, width: 2 },
            window: 1,
            scales: Arc::new(Vec::new()),
            choice: Arc::new(Vec::new()),
            thumbnail: 1,
            boxes: Arc::new(vec![[0, 0, 1, 1], [0, 1, 1, 2], [0, 2, 1, 2]]),
            importance,
            kept: vec![0, 1, 2, 3],
        }
    }

    #[test]
    fn an_importance_has_the_colour_that_the_legend_gives_it() -> Result<(), Error> {
        let picture = Picture::from_rgb(40, 20, vec![128; 40 * 20 * 3])?;
        // The map's tokens have a mean of 2: one is half of it, the other one and a half times.
        let drawn = draw(&picture, &looked(vec![9.0, 1.0, 3.0, 50.0]), [80, 40], None)?;
        let pixel = |x: usize, y: usize| drawn.rgb()[(y * 80 + x) * 3..][..3].to_vec();
        assert_eq!((drawn.width(), drawn.height()), (80, 40));
        assert_eq!(pixel(20, 20), colour(0.5), "the first token (got, expected)");
        assert_eq!(pixel(60, 20), colour(1.5), "the second token (got, expected)");
        Ok(())
    }

    #[test]
    fn heat_is_even_in_octaves_and_ends() {
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
