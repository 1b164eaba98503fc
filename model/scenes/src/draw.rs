//! Input: a frame and its objects. Output: the picture.

use image::RgbImage;
use tiny_skia::{FillRule, PathBuilder, Pixmap, Stroke, Transform};

use crate::background;
use crate::frame::Frame;
use crate::noise;
use crate::object::Object;
use crate::outlines::RULE;
use crate::paint::paint;
use crate::random::Random;

/// Lightness of a color, 0 to 255: the luma of Rec. 601.
fn luma([red, green, blue]: [u8; 3]) -> u32 {
    (u32::from(red) * 299 + u32::from(green) * 587 + u32::from(blue) * 114) / 1000
}

/// A darker or lighter color: `rgb * factor / 256`.
fn shade(rgb: [u8; 3], factor: u32) -> [u8; 3] {
    rgb.map(|channel| (u32::from(channel) * factor / 256).min(255) as u8)
}

/// Draws a picture: background, objects, noise.
pub(crate) fn draw(frame: &Frame, objects: &[Object], random: &mut Random) -> RgbImage {
    let (width, height) = frame.pixels();
    let Some(mut pixmap) = Pixmap::new(width.max(1), height.max(1)) else { return RgbImage::new(width, height) };
    background::draw(&mut pixmap, frame, random);
    let shadow = random.below(3) as f32 * random.within(0.2, 0.5);
    for object in objects {
        draw_object(&mut pixmap, object, frame.scale, shadow, random);
    }
    noise::finish(&pixmap, random)
}

/// Draws one object: shadow, pole, body, outline, trim, text.
fn draw_object(pixmap: &mut Pixmap, object: &Object, scale: f32, shadow: f32, random: &mut Random) {
    let outlines = &object.outlines;
    let place = Transform::from_row(scale, 0.0, 0.0, scale, object.at[0] * scale, object.at[1] * scale);
    if shadow > 0.0 {
        // two faint copies of the body with different offsets look like a soft shadow
        for step in [2.0, 1.2] {
            let moved = place.pre_translate(shadow * step, shadow * step);
            pixmap.fill_path(&outlines.body, &paint([10, 10, 14], 46), RULE, moved, None);
        }
    }
    if let Some(pole) = outlines.pole {
        let grey = 70 + random.below(60) as u8;
        let post = PathBuilder::from_rect(pole);
        let line = Stroke { width: 0.4, ..Stroke::default() };
        pixmap.fill_path(&post, &paint([grey; 3], 255), FillRule::Winding, place, None);
        pixmap.stroke_path(&post, &paint([30; 3], 160), &line, place, None);
    }
    pixmap.fill_path(&outlines.body, &paint(object.rgb, 255), RULE, place, None);
    let edge = Stroke { width: 0.5, ..Stroke::default() };
    pixmap.stroke_path(&outlines.body, &paint(shade(object.rgb, 150), 200), &edge, place, None);
    let dark = luma(object.rgb) > 135;
    let ink = if dark { [18, 18, 24] } else { [250, 250, 246] };
    if let Some(trim) = &outlines.trim {
        let line = Stroke { width: 0.45, ..Stroke::default() };
        pixmap.stroke_path(trim, &paint(ink, 150), &line, place, None);
    }
    if let Some(glyphs) = &outlines.glyphs {
        pixmap.fill_path(glyphs, &paint(ink, 255), RULE, place, None);
    }
}
