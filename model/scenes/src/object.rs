//! One object of a scene, with its position and color.

use crate::names::{Color, JITTER, ObjectKind};
use crate::outlines::Outlines;
use crate::random::Random;

/// Least distance between the boxes of two objects, in units.
const GAP: f32 = 1.5;
/// Least distance between a text and the border of its tile, in units.
const TEXT_MARGIN: f32 = 1.0;

/// One object of a scene.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its type.
    pub kind: ObjectKind,
    /// Its color, by name.
    pub color: Color,
    /// Its text, in capitals; empty for shapes.
    pub text: String,
    /// Its box (x0, y0, x1, y1) in pixels of the picture.
    pub bounds: [f32; 4],
    /// Its color in the picture.
    pub(crate) rgb: [u8; 3],
    /// Its top left corner in content units.
    pub(crate) at: [f32; 2],
    /// Its outlines.
    pub(crate) outlines: Outlines,
}

impl Object {
    /// An object at the origin.
    pub(crate) fn new(random: &mut Random, kind: ObjectKind, color: Color, text: String, outlines: Outlines) -> Self {
        let stray = JITTER as usize * 2 + 1;
        let rgb =
            color.rgb().map(|channel| (i32::from(channel) + random.below(stray) as i32 - JITTER).clamp(0, 255) as u8);
        Self { kind, color, text, bounds: [0.0; 4], rgb, at: [0.0; 2], outlines }
    }

    /// Its box (x0, y0, x1, y1) in content units.
    #[must_use]
    pub fn content_bounds(&self) -> [f32; 4] {
        let ([x, y], [w, h]) = (self.at, self.outlines.size);
        [x, y, x + w, y + h]
    }

    /// The box of its text (x0, y0, x1, y1) in content units; `None` for shapes.
    #[must_use]
    pub fn text_bounds(&self) -> Option<[f32; 4]> {
        let [x, y] = self.at;
        self.outlines.text_box.map(|[x0, y0, x1, y1]| [x0 + x, y0 + y, x1 + x, y1 + y])
    }

    /// Whether it covers a point, in units from the top left corner of the content.
    #[must_use]
    pub fn covers(&self, x: f32, y: f32) -> bool {
        self.outlines.silhouette.covers([x - self.at[0], y - self.at[1]])
    }

    /// Whether two objects are too close.
    pub(crate) fn crowds(&self, other: &Self) -> bool {
        let (a, b) = (self.content_bounds(), other.content_bounds());
        a[0] < b[2] + GAP && b[0] < a[2] + GAP && a[1] < b[3] + GAP && b[1] < a[3] + GAP
    }

    /// Whether the text is inside one tile of this side. The content starts at `offset` on the canvas.
    pub(crate) fn text_in_one_tile(&self, offset: (usize, usize), side: usize) -> bool {
        self.text_bounds().is_none_or(|[x0, y0, x1, y1]| {
            let same = |low: f32, high: f32, offset: usize| {
                let tile = |at: f32| ((at + offset as f32) / side as f32).floor();
                tile(low - TEXT_MARGIN) == tile(high + TEXT_MARGIN)
            };
            same(x0, x1, offset.0) && same(y0, y1, offset.1)
        })
    }
}
