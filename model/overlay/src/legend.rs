//! Input: the data of an overlay. Output: a strip below the drawing with token counts, the meaning of the colors, and the
//! tokens of the thumbnail.

use fovea_model::{Error, Looked, Picture, bicubic};

use crate::{
    canvas::{Area, Canvas, Color},
    colors::{self, BRIGHT, FAINT, NEUTRAL},
    fate::Fate,
    map::paint,
    scales::Fineness,
};

/// Height of a capital letter, in pixels at size 1, as all lengths here.
const CAPITAL: f32 = 11.0;
/// Height of a swatch.
const SWATCH: f32 = 22.0;
/// From line to line.
const LINE: f32 = 38.0;
/// Around the strip.
const MARGIN: f32 = 20.0;
/// From the start of a line to the text after its caption.
const INDENT: f32 = 122.0;
/// Between two entries.
const GAP: f32 = 22.0;

/// The strip.
pub struct Legend<'a> {
    /// The data of the overlay.
    pub looked: &'a Looked,
    /// The fate of each visual token.
    pub fates: &'a [Fate],
    /// The picture, in any size.
    pub picture: &'a Picture,
    /// Factor for all lengths above.
    pub size: f32,
}

/// The position of the next entry of a line.
struct Pen<'a> {
    canvas: &'a mut Canvas,
    size: f32,
    x: f32,
    /// Middle of the line.
    y: f32,
}

impl Pen<'_> {
    fn text(&mut self, text: &str, color: Color) {
        let capital = CAPITAL * self.size;
        self.x = self.canvas.write(text, [self.x, self.y - capital / 2.0], capital, color);
    }

    fn gap(&mut self, share: f32) {
        self.x += GAP * share * self.size;
    }

    /// The area of a swatch; the pen moves behind it.
    fn swatch(&mut self, width: f32) -> Area {
        let (x, y) = (self.x.round() as i32, (self.y - SWATCH * self.size / 2.0).round() as i32);
        let [width, height] = [width, SWATCH].map(|length| (length * self.size).round() as i32);
        self.x = (x + width) as f32;
        Area::of(x, y, width, height)
    }
}

impl Legend<'_> {
    /// The smallest size of the strip, (width, height) in pixels.
    pub fn bounds(&self) -> Result<(usize, usize), Error> {
        // the canvas clips everything: this only measures
        let right = self.paint(&mut Canvas::filled(1, 1, NEUTRAL), 0)?;
        Ok(((right + MARGIN * self.size).ceil() as usize, ((3.0 * LINE + MARGIN) * self.size).round() as usize))
    }

    /// Paints the strip from row `top` on. Returns its right end.
    pub fn paint(&self, canvas: &mut Canvas, top: usize) -> Result<f32, Error> {
        let left = MARGIN * self.size + self.thumbnail(canvas, top)?;
        let mut right = left;
        for (line, (caption, write)) in [
            ("tokens", Self::tokens as fn(&Self, &mut Pen)),
            ("scales", Self::scales),
            ("importance", Self::importance),
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

    /// Whether no patch is left without the padding, so that there are no regions.
    fn map_is_empty(&self) -> bool {
        self.looked.grid.height == 0 || self.looked.grid.width == 0
    }

    /// The number of visual tokens without samplers, and after each sampler.
    fn tokens(&self, pen: &mut Pen) {
        let looked = self.looked;
        let vision = (!looked.choice.is_empty() || looked.boxes.is_empty()).then_some(looked.token_count());
        let text = (!looked.importance.is_empty()).then_some(looked.kept.len());
        let all = Some(looked.grid.stock_tokens());
        for (name, count) in [("all", all), ("→ vision-guided", vision), ("→ text-guided", text)] {
            pen.text(name, FAINT);
            pen.gap(0.4);
            match count {
                Some(count) => pen.text(&count.to_string(), BRIGHT),
                None => pen.text("off", FAINT),
            }
            pen.gap(0.6);
        }
        pen.gap(-0.6);
    }

    /// A region at each scale, and the share of regions with that scale.
    fn scales(&self, pen: &mut Pen) {
        let looked = self.looked;
        if looked.choice.is_empty() {
            let area = pen.swatch(SWATCH);
            pen.canvas.fill(&area, NEUTRAL, 0.1);
            pen.gap(0.4);
            return pen.text(if self.map_is_empty() { "no map" } else { "one token per patch" }, FAINT);
        }
        let fineness = Fineness::of(&looked.scales);
        for index in fineness.order() {
            let Some(scale) = looked.scales.get(index) else { continue };
            let chose = looked.choice.iter().filter(|&&choice| choice == index).count();
            let area = pen.swatch(SWATCH);
            let color = fineness.color(index);
            pen.canvas.fill(&area, color, 0.18);
            for side in area.sides(1) {
                pen.canvas.fill(&side, color, 1.0);
            }
            let side = looked.window.max(1);
            let cut = |length: i32, patch: usize| (length as usize * patch / side) as i32;
            for row in (scale.rows..side).step_by(scale.rows.max(1)).filter(|_| !scale.drops()) {
                let y = area.y.start + cut(area.y.end - area.y.start, row);
                pen.canvas.fill(&Area { x: area.x.clone(), y: y..y + 1 }, color, 0.7);
            }
            for col in (scale.cols..side).step_by(scale.cols.max(1)).filter(|_| !scale.drops()) {
                let x = area.x.start + cut(area.x.end - area.x.start, col);
                pen.canvas.fill(&Area { x: x..x + 1, y: area.y.clone() }, color, 0.7);
            }
            pen.gap(0.4);
            pen.text(&scale.to_string(), BRIGHT);
            pen.gap(0.4);
            let percent = 100.0 * chose as f32 / looked.choice.len() as f32;
            pen.text(&format!("{percent:.0}%"), FAINT);
            pen.gap(1.2);
        }
        pen.gap(-1.2);
    }

    /// The colors of kept and dropped tokens.
    fn importance(&self, pen: &mut Pen) {
        let grey = [128; 3];
        if self.looked.importance.is_empty() {
            let area = pen.swatch(SWATCH);
            pen.canvas.fill(&area, NEUTRAL, 0.1);
            pen.gap(0.4);
            return pen.text("every token kept", FAINT);
        }
        let area = pen.swatch(SWATCH);
        pen.canvas.fill(&area, colors::dimmed(grey), 1.0);
        pen.gap(0.4);
        pen.text("dropped", FAINT);
        pen.gap(1.2);
        pen.text("low", FAINT);
        pen.gap(0.4);
        let area = pen.swatch(160.0);
        let length = (area.x.end - area.x.start) as f32;
        pen.canvas.map(&area, |x, _, _| colors::heated(grey, (x - area.x.start) as f32 / length));
        pen.gap(0.4);
        pen.text("high", FAINT);
    }

    /// The P x P tokens of the thumbnail over a small copy of the whole picture. Returns the width that it takes.
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
        let tokens = self.fates.iter().skip(self.looked.thumbnail_at()).take(patches * patches).enumerate().map(
            |(index, &fate)| {
                let (row, col) = (index / patches, index % patches);
                let area = Area {
                    x: x + edge(col, width)..x + edge(col + 1, width),
                    y: y + edge(row, height)..y + edge(row + 1, height),
                };
                (area, fate, None)
            },
        );
        paint(canvas, &small, [x, y], tokens);
        let foot = y as f32 + height + caption;
        let right = canvas.write("thumbnail", [x as f32, foot], caption, FAINT);
        Ok((right - x as f32).max(width) + 1.3 * GAP * self.size)
    }
}
