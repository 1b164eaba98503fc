//! Enters: names and their colours. Leaves: lines of swatches and names, as many as the room needs.

use plotters::{
    prelude::{Circle, PathElement, RGBColor, Rectangle},
    style::{
        Color,
        text_anchor::{HPos, VPos},
    },
};

use super::sheet::{Area, INK, NAME, SCALE, failed, shortened, sink, style, width, write};

/// The height of a line of names.
const LINE: i32 = 20 * SCALE;
/// A swatch, with what is left free behind it.
const SWATCH: i32 = 28 * SCALE;
/// Between a name and the next swatch.
const GAP: i32 = 18 * SCALE;

/// What stands before a name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Swatch {
    /// A piece of line.
    Line,
    /// A piece of line with a marker.
    Dotted,
    /// A field.
    Field,
}

/// Names that have their places.
pub(super) struct Legend {
    names: Vec<(i32, i32, String, RGBColor, Swatch)>,
    /// How high it gets.
    pub(super) height: i32,
}

impl Legend {
    /// Places the names from left to right, and on below where they do not fit.
    pub(super) fn new(names: impl IntoIterator<Item = (String, RGBColor, Swatch)>, room: i32) -> Result<Self, String> {
        let (mut x, mut y) = (0, 0);
        let mut placed = Vec::new();
        for (name, colour, swatch) in names {
            let name = shortened(&name, NAME, room - SWATCH)?;
            let wide = SWATCH + width(&name, NAME)?;
            if x > 0 && x + wide > room {
                (x, y) = (0, y + LINE);
            }
            placed.push((x, y, name, colour, swatch));
            x += wide + GAP;
        }
        Ok(Self { height: if placed.is_empty() { 0 } else { y + LINE }, names: placed })
    }

    /// Draws it below and right of a point.
    pub(super) fn draw(&self, area: &Area<'_>, (left, top): (i32, i32)) -> Result<(), String> {
        let style = style(NAME, INK, HPos::Left, VPos::Center)?;
        for (x, y, name, colour, swatch) in &self.names {
            let (x, y) = (left + x, top + y + LINE / 2);
            let end = x + SWATCH - 7 * SCALE;
            if *swatch == Swatch::Field {
                let corners = [(x + 4 * SCALE, y - 6 * SCALE), (end, y + 6 * SCALE)];
                area.draw(&Rectangle::new(corners, colour.filled())).map_err(failed)?;
            } else {
                let line = PathElement::new([(x, y), (end, y)], colour.stroke_width(2 * SCALE as u32));
                area.draw(&line).map_err(failed)?;
            }
            if *swatch == Swatch::Dotted {
                area.draw(&Circle::new((x.midpoint(end), y), 7 * SCALE / 2, colour.filled())).map_err(failed)?;
            }
            write(area, name, &style, (x + SWATCH, y + sink(NAME)))?;
        }
        Ok(())
    }
}
