//! Enters: shapes in whole pixels, colours, opacities. Leaves: RGB8 rows with them painted, cut at the edges.

use std::ops::Range;

use crate::error::Error;
use crate::picture::Picture;

/// Red, green, blue.
pub type Colour = [u8; 3];

/// A rectangle of whole pixels.
#[derive(Clone, Debug)]
pub struct Area {
    /// Columns.
    pub x: Range<i32>,
    /// Rows.
    pub y: Range<i32>,
}

impl Area {
    /// `width` x `height` pixels whose left top corner is (`x`, `y`).
    pub const fn of(x: i32, y: i32, width: i32, height: i32) -> Self {
        Self { x: x..x + width, y: y..y + height }
    }

    /// Its four sides, `thick` pixels each, inside it and without overlap.
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

/// `from` at 0, `to` at 1.
pub fn mix(from: Colour, to: Colour, share: f32) -> Colour {
    std::array::from_fn(|c| (f32::from(from[c]) + (f32::from(to[c]) - f32::from(from[c])) * share).round() as u8)
}

/// What is painted on: never empty.
pub struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<Colour>,
}

impl Canvas {
    /// `width` x `height` pixels of one colour.
    pub fn filled(width: usize, height: usize, colour: Colour) -> Self {
        Self { width, height, pixels: vec![colour; width * height] }
    }

    /// Replaces every pixel of `area` that lies on the canvas by what `change` makes of its place and its colour.
    pub fn map(&mut self, area: &Area, mut change: impl FnMut(i32, i32, Colour) -> Colour) {
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

    /// Lays `colour` over `area`, `opacity` of 1.
    pub fn fill(&mut self, area: &Area, colour: Colour, opacity: f32) {
        self.map(area, |_, _, under| mix(under, colour, opacity));
    }

    /// The pixels as a picture.
    ///
    /// # Errors
    /// [`Error::Picture`] where the canvas is above a picture's limits.
    pub fn picture(self) -> Result<Picture, Error> {
        Picture::from_rgb(self.width, self.height, self.pixels.into_flattened())
    }
}
