//! Input: the position of a scale from coarse to fine, or a rank of importance. Output: its color, and its effect on a
//! pixel.
//!
//! The steps of both ramps differ in lightness as well as in hue, so they stay apart with every kind of color blindness.

use crate::canvas::{Color, mix};

/// Background of the picture and the legend.
pub const GROUND: Color = [17, 19, 24];
/// Captions.
pub const FAINT: Color = [132, 140, 154];
/// Values beside the captions.
pub const BRIGHT: Color = [236, 239, 244];
/// Grid lines without a scale.
pub const NEUTRAL: Color = [255, 255, 255];

/// From the coarsest scale to the finest: blue, cyan, mint, yellow, vermilion. Three scales use every second one.
const SCALES: [Color; 5] = [[56, 142, 255], [52, 198, 236], [72, 226, 190], [236, 216, 96], [255, 112, 56]];
/// From the least important to the most: violet, magenta, orange, pale yellow; the bright part of "inferno".
const HEAT: [Color; 5] = [[96, 30, 140], [176, 42, 122], [232, 88, 70], [252, 160, 40], [255, 240, 140]];

/// The color at `t`, 0 to 1, on a ramp of evenly spaced anchors.
fn ramp(anchors: &[Color], t: f32) -> Color {
    let at = t.clamp(0.0, 1.0) * anchors.len().saturating_sub(1) as f32;
    let from = anchors.get(at as usize).copied().unwrap_or(NEUTRAL);
    let to = anchors.get(at as usize + 1).copied().unwrap_or(from);
    mix(from, to, at.fract())
}

/// The color of a scale: 0 is the coarsest, 1 the finest.
pub fn scale(fineness: f32) -> Color {
    ramp(&SCALES, fineness)
}

/// A pixel under a kept token. `rank` is 0 for the least important kept token and 1 for the most important. The pixel keeps
/// its lightness; a higher rank replaces more of its color.
pub fn heated(pixel: Color, rank: f32) -> Color {
    let (heat, light) = (ramp(&HEAT, rank), lightness(pixel));
    // mixed with black or white by the pixel's lightness, so that details of the picture stay visible in the heat
    let shaded =
        if light < 0.5 { mix([0; 3], heat, 0.3 + 1.4 * light) } else { mix(heat, [255; 3], 1.4 * (light - 0.5)) };
    mix(pixel, shaded, 0.35 + 0.5 * rank)
}

/// A pixel under a dropped token: nearly grey, and dark.
pub fn dimmed(pixel: Color) -> Color {
    mix(GROUND, greyed(pixel), 0.38)
}

/// A pixel under a merged token: half way from a dropped token to `lit`, the pixel under a kept token.
pub fn merged(pixel: Color, lit: Color) -> Color {
    mix(dimmed(pixel), lit, 0.5)
}

/// A pixel with little of its color and the same lightness.
pub fn greyed(pixel: Color) -> Color {
    let grey = (255.0 * lightness(pixel)).round() as u8;
    mix(pixel, [grey; 3], 0.8)
}

/// Lightness of a pixel, 0 to 1: the luma of Rec. 601.
fn lightness([red, green, blue]: Color) -> f32 {
    (0.299 * f32::from(red) + 0.587 * f32::from(green) + 0.114 * f32::from(blue)) / 255.0
}
