//! Enters: what was looked at. Leaves: a strip that counts the tokens, names the colours and shows the thumbnail.

use super::canvas::{Area, Canvas, Colour};
use super::colours::{self, BRIGHT, FAINT, NEUTRAL};
use super::{Fate, lettering, paint, scales::Fineness};
use crate::{answer::Looked, error::Error, picture::Picture, resize::bicubic};

/// Height of a capital, in pixels at size 1; all lengths here are.
const CAPITAL: f32 = 11.0;
/// Height of a swatch.
const SWATCH: f32 = 22.0;
/// From line to line.
const LINE: f32 = 38.0;
/// Around the strip.
const MARGIN: f32 = 20.0;
/// From the start of a line to what follows its caption.
const INDENT: f32 = 122.0;
/// Between one thing and the next.
const GAP: f32 = 22.0;

/// The strip.
pub struct Legend<'a> {
    /// What was looked at.
    pub looked: &'a Looked,
    /// What became of each visual token.
    pub fates: &'a [Fate],
    /// The picture, in any size.
    pub picture: &'a Picture,
    /// Pixels of output to one of the constants above.
    pub size: f32,
}

/// Where the next thing of a line goes.
struct Pen<'a> {
    canvas: &'a mut Canvas,
    size: f32,
    x: f32,
    /// Middle of the line.
    y: f32,
}

impl Pen<'_> {
    fn text(&mut self, text: &str, colour: Colour) {
        let capital = CAPITAL * self.size;
        self.x = lettering::write(self.canvas, text, [self.x, self.y - capital / 2.0], capital, colour);
    }

    fn gap(&mut self, share: f32) {
        self.x += GAP * share * self.size;
    }

    /// The place of a swatch, which is left behind.
    fn swatch(&mut self, width: f32) -> Area {
        let (x, y) = (self.x.round() as i32, (self.y - SWATCH * self.size / 2.0).round() as i32);
        let [width, height] = [width, SWATCH].map(|length| (length * self.size).round() as i32);
        self.x = (x + width) as f32;
        Area::of(x, y, width, height)
    }
}

impl Legend<'_> {
    /// Pixels (width, height) that the strip needs at least.
    pub fn bounds(&self) -> Result<(usize, usize), Error> {
        // what is painted beside the canvas is only measured
        let right = self.paint(&mut Canvas::filled(1, 1, NEUTRAL), 0)?;
        Ok(((right + MARGIN * self.size).ceil() as usize, ((3.0 * LINE + MARGIN) * self.size).round() as usize))
    }

    /// Paints the strip from row `top` on; returns where it ends on the right.
    pub fn paint(&self, canvas: &mut Canvas, top: usize) -> Result<f32, Error> {
        let left = MARGIN * self.size + self.thumbnail(canvas, top)?;
        let mut right = left;
        for (line, (caption, write)) in [
            ("TOKENS", Self::tokens as fn(&Self, &mut Pen)),
            ("SCALES", Self::scales),
            ("IMPORTANCE", Self::importance),
        ]
        .into_iter()
        .enumerate()
        {
            let y = top as f32 + (MARGIN + LINE * line as f32 + SWATCH / 2.0) * self.size;
            let mut pen = Pen { canvas, size: self.size, x: left, y };
            pen.text(caption, FAINT);
            pen.x = left + INDENT * self.size;
            write(self, &mut pen);
            right = right.max(pen.x);
        }
        Ok(right)
    }

    /// Whether cutting the padding left no patch, so that no region could choose.
    fn map_is_empty(&self) -> bool {
        self.looked.grid.height == 0 || self.looked.grid.width == 0
    }

    /// How many visual tokens there would be, and how many each sampler left.
    fn tokens(&self, pen: &mut Pen) {
        let looked = self.looked;
        let vision =
            (!looked.choice.is_empty() || looked.boxes.is_empty()).then_some(looked.thumbnail + looked.boxes.len());
        let text = (!looked.importance.is_empty()).then_some(looked.kept.len());
        for (count, name) in [(Some(looked.grid.stock_tokens()), "STOCK"), (vision, "VISION"), (text, "TEXT")] {
            if name != "STOCK" {
                pen.gap(0.6);
                pen.text(">", FAINT);
                pen.gap(0.6);
            }
            if let Some(count) = count {
                pen.text(&count.to_string(), BRIGHT);
                pen.gap(0.4);
            }
            pen.text(name, FAINT);
            if count.is_none() {
                pen.gap(0.4);
                pen.text("OFF", FAINT);
            }
        }
    }

    /// A region at each scale, and the share of the regions that chose it.
    fn scales(&self, pen: &mut Pen) {
        let looked = self.looked;
        if looked.choice.is_empty() {
            let area = pen.swatch(SWATCH);
            pen.canvas.fill(&area, NEUTRAL, 0.1);
            pen.gap(0.4);
            return pen.text(if self.map_is_empty() { "NO MAP" } else { "EVERY PATCH A TOKEN" }, FAINT);
        }
        let fineness = Fineness::of(&looked.scales);
        for index in fineness.order() {
            let Some(scale) = looked.scales.get(index) else { continue };
            let chose = looked.choice.iter().filter(|&&choice| choice == index).count();
            let area = pen.swatch(SWATCH);
            let colour = fineness.colour(index);
            pen.canvas.fill(&area, colour, 0.18);
            for side in area.sides(1) {
                pen.canvas.fill(&side, colour, 1.0);
            }
            let side = looked.window.max(1);
            let cut = |length: i32, patch: usize| (length as usize * patch / side) as i32;
            for row in (scale.rows..side).step_by(scale.rows.max(1)).filter(|_| !scale.drops()) {
                let y = area.y.start + cut(area.y.end - area.y.start, row);
                pen.canvas.fill(&Area { x: area.x.clone(), y: y..y + 1 }, colour, 0.7);
            }
            for col in (scale.cols..side).step_by(scale.cols.max(1)).filter(|_| !scale.drops()) {
                let x = area.x.start + cut(area.x.end - area.x.start, col);
                pen.canvas.fill(&Area { x: x..x + 1, y: area.y.clone() }, colour, 0.7);
            }
            pen.gap(0.4);
            pen.text(&scale.to_string().replace("drop", "DROP"), BRIGHT);
            pen.gap(0.4);
            let percent = 100.0 * chose as f32 / looked.choice.len() as f32;
            pen.text(&format!("{percent:.0}%"), FAINT);
            pen.gap(1.2);
        }
        pen.gap(-1.2);
    }

    /// The heat of kept tokens, and the look of dropped ones.
    fn importance(&self, pen: &mut Pen) {
        let grey = [128; 3];
        if self.looked.importance.is_empty() {
            let area = pen.swatch(SWATCH);
            pen.canvas.fill(&area, NEUTRAL, 0.1);
            pen.gap(0.4);
            return pen.text("EVERY TOKEN KEPT", FAINT);
        }
        let area = pen.swatch(SWATCH);
        pen.canvas.fill(&area, colours::dimmed(grey), 1.0);
        pen.gap(0.4);
        pen.text("DROPPED", FAINT);
        pen.gap(1.2);
        pen.text("LOW", FAINT);
        pen.gap(0.4);
        let area = pen.swatch(160.0);
        let length = (area.x.end - area.x.start) as f32;
        pen.canvas.map(&area, |x, _, _| colours::heated(grey, (x - area.x.start) as f32 / length));
        pen.gap(0.4);
        pen.text("HIGH", FAINT);
    }

    /// The thumbnail's tokens over a small copy of the whole picture, which each of them sees a P-th of by a P-th;
    /// returns the room that it takes.
    fn thumbnail(&self, canvas: &mut Canvas, top: usize) -> Result<f32, Error> {
        let patches = self.looked.grid.patches;
        if patches == 0 || patches.checked_mul(patches) != Some(self.looked.thumbnail) {
            return Ok(0.0);
        }
        let caption = 0.75 * CAPITAL * self.size;
        let high = (2.0 * LINE + SWATCH) * self.size - 2.0 * caption;
        let aspect = self.picture.width() as f32 / self.picture.height() as f32;
        let (width, height) = ((high * aspect.clamp(0.4, 2.5)).round().max(1.0), high.round().max(1.0));
        let small = bicubic(self.picture, width as usize, height as usize)?;
        let (x, y) = ((MARGIN * self.size).round() as i32, top as i32 + (MARGIN * self.size).round() as i32);
        let edge = |index: usize, length: f32| (index as f32 * length / patches as f32).round() as i32;
        let tokens = self.fates.iter().take(patches * patches).enumerate().map(|(index, &fate)| {
            let (row, col) = (index / patches, index % patches);
            let area = Area {
                x: x + edge(col, width)..x + edge(col + 1, width),
                y: y + edge(row, height)..y + edge(row + 1, height),
            };
            (area, fate, None)
        });
        paint(canvas, &small, [x, y], tokens);
        let foot = y as f32 + height + caption;
        let right = lettering::write(canvas, "THUMBNAIL", [x as f32, foot], caption, FAINT);
        Ok((right - x as f32).max(width) + 1.3 * GAP * self.size)
    }
}
