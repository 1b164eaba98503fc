//! Input: an empty picture. Output: a greyish gradient with clutter. None of it has a color that a question can name.

use tiny_skia::{
    Color as Ink, FillRule, GradientStop, LinearGradient, Paint, Path, PathBuilder, Pixmap, Point, Rect, SpreadMode,
    Stroke, Transform,
};

use crate::frame::Frame;
use crate::paint::paint;
use crate::random::Random;

/// A greyish color of about this brightness: channels differ by a few steps only.
fn muted(random: &mut Random, brightness: f32) -> [u8; 3] {
    // dark greys get less tint than light ones: otherwise they look brown
    let most = 2.0 + brightness * 0.05;
    let (tint, swing) = (random.within(-most, most), random.within(-most, most) / 2.0);
    [brightness + tint, brightness + swing, brightness - tint].map(|channel| channel.clamp(0.0, 255.0) as u8)
}

/// Draws the background on the whole picture.
pub(crate) fn draw(pixmap: &mut Pixmap, frame: &Frame, random: &mut Random) {
    let size = [frame.content.0 as f32, frame.content.1 as f32];
    let place = Transform::from_scale(frame.scale, frame.scale);
    let brightness = random.within(55.0, 215.0);
    gradient(pixmap, size, place, brightness, random);
    let pieces = (size[0] * size[1] / 1100.0) as usize;
    for _ in 0..2 + random.below(pieces.max(1) + 3) {
        clutter(pixmap, size, place, brightness, random);
    }
}

/// A gradient between two greys, from one side to the other.
fn gradient(pixmap: &mut Pixmap, size: [f32; 2], place: Transform, brightness: f32, random: &mut Random) {
    let mut stop = |at: f32| {
        let near = (brightness + random.within(-28.0, 28.0)).clamp(25.0, 235.0);
        let [red, green, blue] = muted(random, near);
        GradientStop::new(at, Ink::from_rgba8(red, green, blue, 255))
    };
    let stops = vec![stop(0.0), stop(1.0)];
    let mut end = || Point::from_xy(random.within(0.0, size[0]), random.within(0.0, size[1]));
    let (from, to) = (end(), end());
    let Some(rect) = Rect::from_xywh(0.0, 0.0, size[0], size[1]) else { return };
    let mut ground = Paint { anti_alias: false, ..Paint::default() };
    match LinearGradient::new(from, to, stops, SpreadMode::Pad, Transform::identity()) {
        Some(shader) => ground.shader = shader,
        None => ground.set_color(Ink::from_rgba8(128, 128, 128, 255)),
    }
    pixmap.fill_rect(rect, &ground, place, None);
}

/// One piece of clutter: line, stripes, blob, box, ring.
fn clutter(pixmap: &mut Pixmap, size: [f32; 2], place: Transform, brightness: f32, random: &mut Random) {
    let other = (brightness + random.within(-55.0, 55.0)).clamp(20.0, 240.0);
    let ink = paint(muted(random, other), 60 + random.below(150) as u8);
    let (x, y) = (random.within(-4.0, size[0]), random.within(-4.0, size[1]));
    let (w, h) = (random.within(4.0, 30.0), random.within(4.0, 26.0));
    let stroke = Stroke { width: random.within(0.6, 2.4), ..Stroke::default() };
    // a filled piece is long: a grey square or disc could be counted as a shape
    let filled = random.chance(0.6);
    let (w, h) = match (filled, random.chance(0.5)) {
        (true, true) => (w.max(12.0), w.max(12.0) * 0.45),
        (true, false) => (h.max(12.0) * 0.45, h.max(12.0)),
        _ => (w, h),
    };
    let piece = random.below(5);
    let Some(outline) = piece_outline(piece, [x, y, w, h], random) else { return };
    // lines, stripes and rings are not filled
    if filled && (2..4).contains(&piece) {
        pixmap.fill_path(&outline, &ink, FillRule::Winding, place, None);
    } else {
        pixmap.stroke_path(&outline, &ink, &stroke, place, None);
    }
}

/// The outline of a piece of clutter in a box (x, y, width, height).
fn piece_outline(piece: usize, [x, y, w, h]: [f32; 4], random: &mut Random) -> Option<Path> {
    let mut path = PathBuilder::new();
    match piece {
        0 => {
            path.move_to(x, y);
            path.quad_to(x + random.within(-20.0, 20.0), y + random.within(-20.0, 20.0), x + 2.0 * w - 30.0, y + h);
        }
        1 => {
            let (step, slant) = (random.within(2.5, 5.0), random.within(-6.0, 6.0));
            for index in 0..3 + random.below(4) {
                let x = x + index as f32 * step;
                path.move_to(x, y);
                path.line_to(x + slant, y + h);
            }
        }
        2 => path.push_oval(Rect::from_xywh(x, y, w, h)?),
        3 => path.push_rect(Rect::from_xywh(x, y, w, h)?),
        _ => path.push_circle(x, y, w / 2.0),
    }
    path.finish()
}
