//! A color as a paint of tiny-skia.

use tiny_skia::{Color as Ink, Paint};

/// A paint of one color.
pub(crate) fn paint(rgb: [u8; 3], alpha: u8) -> Paint<'static> {
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color(Ink::from_rgba8(rgb[0], rgb[1], rgb[2], alpha));
    paint
}
