//! Enters: a scale's place from coarse to fine, a rank of importance. Leaves: its colour, and what it makes of a pixel.
//!
//! Both ramps tell their steps by lightness as well as by hue, so that no kind of colour blindness merges them.

use super::canvas::{Colour, mix};

/// Around the picture, and behind the legend.
pub const GROUND: Colour = [17, 19, 24];
/// Captions.
pub const FAINT: Colour = [132, 140, 154];
/// What the captions caption.
pub const BRIGHT: Colour = [236, 239, 244];
/// Grid lines that carry no scale.
pub const NEUTRAL: Colour = [255, 255, 255];

/// From the coarsest scale to the finest: blue, cyan, mint, yellow, vermilion; three scales take every other one.
const SCALES: [Colour; 5] = [[56, 142, 255], [52, 198, 236], [72, 226, 190], [236, 216, 96], [255, 112, 56]];
/// From the least important to the most: violet, magenta, orange, pale yellow; the bright part of "inferno".
const HEAT: [Colour; 5] = [[96, 30, 140], [176, 42, 122], [232, 88, 70], [252, 160, 40], [255, 240, 140]];

/// The colour at `t` of 0 to 1 on a ramp of evenly spaced anchors.
fn ramp(anchors: &[Colour], t: f32) -> Colour {
    let at = t.clamp(0.0, 1.0) * anchors.len().saturating_sub(1) as f32;
    let from = anchors.get(at as usize).copied().unwrap_or(NEUTRAL);
    let to = anchors.get(at as usize + 1).copied().unwrap_or(from);
    mix(from, to, at.fract())
}

/// The colour of a scale: 0 the coarsest, 1 the finest.
pub fn scale(fineness: f32) -> Colour {
    ramp(&SCALES, fineness)
}

/// A pixel under a kept token of `rank`, 0 the least important kept one, 1 the most: as bright as it is, and the hotter
/// the more of its own colour is gone.
pub fn heated(pixel: Colour, rank: f32) -> Colour {
    let (heat, light) = (ramp(&HEAT, rank), lightness(pixel));
    // black below half of the lightness and white above it leave the picture's drawing in the heat's own colour
    let shaded =
        if light < 0.5 { mix([0; 3], heat, 0.3 + 1.4 * light) } else { mix(heat, [255; 3], 1.4 * (light - 0.5)) };
    mix(pixel, shaded, 0.35 + 0.5 * rank)
}

/// A pixel that the upper layers have no token for: nearly grey, and dark.
pub fn dimmed(pixel: Colour) -> Colour {
    mix(GROUND, greyed(pixel), 0.38)
}

/// A pixel with little of its own colour, as light as it is.
pub fn greyed(pixel: Colour) -> Colour {
    let grey = (255.0 * lightness(pixel)).round() as u8;
    mix(pixel, [grey; 3], 0.8)
}

/// How light a pixel looks, 0 to 1: the luma of Rec. 601.
fn lightness([red, green, blue]: Colour) -> f32 {
    (0.299 * f32::from(red) + 0.587 * f32::from(green) + 0.114 * f32::from(blue)) / 255.0
}
