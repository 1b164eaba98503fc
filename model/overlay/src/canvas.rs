//! Input: areas in whole pixels, text, colors, opacities. Output: a picture with them painted, clipped at its edges.

use std::ops::Range;

use fovea_letters::{SANS, Setting};
use fovea_model::{Error, Picture};
use tiny_skia::{FillRule, Mask, Transform};

/// Red, green, blue.
pub type Color = [u8; 3];

/// A rectangle of whole pixels.
#[derive(Clone, Debug)]
pub struct Area {
    /// Columns.
    pub x: Range<i32>,
    /// Rows.
    pub y: Range<i32>,
}

impl Area {
    /// `width` x `height` pixels with the top left corner at (`x`, `y`).
    pub const fn of(x: i32, y: i32, width: i32, height: i32) -> Self {
        Self { x: x..x + width, y: y..y + height }
    }

    /// Its four sides, `thick` pixels wide, inside it and without overlap.
    pub fn sides(&self, thick: i32) -> [Self; 4] {
        let (Range { start: left, end: right }, Range { start: top, end: bottom }) = (self.x.clone(), self.y.clone());
        let thick = thick.min((right - left) / 2).min((bottom - top) / 2).max(0);
        let inner = top + thick..bottom - thick;
        [
            Self { x: left..right, y: top..top + thick },
            Self { x: left..right, y: bottom - thick..bottom },
            Self { x: left..left + thick, y: inner.clone() },
            Self { x: right - thick..right, y: inner },
        ]
    }
}

/// Linear interpolation: `from` at share 0, `to` at share 1.
pub fn mix(from: Color, to: Color, share: f32) -> Color {
    std::array::from_fn(|c| (f32::from(from[c]) + (f32::from(to[c]) - f32::from(from[c])) * share).round() as u8)
}

/// The pixels of a drawing.
pub struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<Color>,
}

impl Canvas {
    /// `width` x `height` pixels of one color.
    pub fn filled(width: usize, height: usize, color: Color) -> Self {
        Self { width, height, pixels: vec![color; width * height] }
    }

    /// Replaces each pixel of `area` that is on the canvas with `change(x, y, pixel)`.
    pub fn map(&mut self, area: &Area, mut change: impl FnMut(i32, i32, Color) -> Color) {
        let on = |range: &Range<i32>, length: usize| {
            let end = range.end.clamp(0, length as i32);
            range.start.clamp(0, end)..end
        };
        let (columns, rows) = (on(&area.x, self.width), on(&area.y, self.height));
        for y in rows {
            let row = &mut self.pixels[y as usize * self.width..][..self.width];
            for x in columns.clone() {
                row[x as usize] = change(x, y, row[x as usize]);
            }
        }
    }

    /// Paints `area`; `opacity` is 0 to 1.
    pub fn fill(&mut self, area: &Area, color: Color, opacity: f32) {
        self.map(area, |_, _, under| mix(under, color, opacity));
    }

    /// Writes `text` with capitals of `cap` pixels. `x` is the start of the text, `y` the top of a capital. Returns the
    /// end of the text.
    pub fn write(&mut self, text: &str, [x, y]: [f32; 2], cap: f32, color: Color) -> f32 {
        let (outline, width) = SANS.outline(text, Setting { cap, squeeze: 1.0, gap: 0.0 });
        let placed = outline.and_then(|outline| outline.transform(Transform::from_translate(x, y + cap)));
        let parts = placed.and_then(|path| {
            let bounds = path.bounds().round_out()?;
            Some((path, bounds, Mask::new(bounds.width(), bounds.height())?))
        });
        if let Some((path, bounds, mut mask)) = parts {
            let (left, top, stride) = (bounds.x(), bounds.y(), bounds.width() as usize);
            let to_mask = Transform::from_translate(-left as f32, -top as f32);
            mask.fill_path(&path, FillRule::Winding, true, to_mask);
            self.map(&Area { x: left..bounds.right(), y: top..bounds.bottom() }, |x, y, under| {
                let cover = mask.data()[(y - top) as usize * stride + (x - left) as usize];
                mix(under, color, f32::from(cover) / 255.0)
            });
        }
        x + width
    }

    /// The pixels as a picture.
    ///
    /// # Errors
    /// [`Error::Picture`] where a side is above a picture's limit.
    pub fn picture(self) -> Result<Picture, Error> {
        Picture::from_rgb(self.width, self.height, self.pixels.into_flattened())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_on_its_line_and_clipped_at_the_edges() {
        let mut canvas = Canvas::filled(40, 30, [0; 3]);
        let end = canvas.write("H", [5.0, 10.0], 10.0, [255; 3]);
        let inked = |row: usize| canvas.pixels[row * 40..][..40].iter().filter(|pixel| pixel[0] > 128).count();
        let rows: Vec<usize> = (0..30).filter(|&row| inked(row) > 0).collect();
        assert_eq!(
            (rows.first(), rows.last(), rows.len()),
            (Some(&10), Some(&19), 10),
            "rows with ink (got, expected)"
        );
        assert!(end > 10.0 && end < 25.0, "{end}");
        canvas.write("cut off", [-20.0, -4.0], 10.0, [255; 3]);
        canvas.write("outside", [400.0, 400.0], 10.0, [255; 3]);
    }
}
