//! Input: the data of an overlay. Output: a strip below the drawing with the compression and its token counts, the meaning
//! of the colors, and the tokens of the thumbnail.

use fovea_model::{Before, Compression, Error, Looked, Origin, Picture, Thumbnail, Within, bicubic};

use crate::{
    canvas::{Area, Canvas, Color},
    colors::{self, BRIGHT, FAINT, NEUTRAL},
    fate::{Fate, is_merged},
    has_merged,
    map::paint,
    merged_color,
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

    /// A name and a number; without a number "off".
    fn count(&mut self, name: &str, count: Option<usize>) {
        self.text(name, FAINT);
        self.gap(0.4);
        match count {
            Some(count) => self.text(&count.to_string(), BRIGHT),
            None => self.text("off", FAINT),
        }
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

    /// A color and its meaning.
    fn key(&mut self, color: Color, opacity: f32, meaning: &str) {
        let area = self.swatch(SWATCH);
        self.canvas.fill(&area, color, opacity);
        self.gap(0.4);
        self.text(meaning, FAINT);
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
        let makes: (_, fn(&Self, &mut Pen)) =
            if self.drops_patches() { ("made of", Self::kinds) } else { ("scales", Self::scales) };
        let fates = if self.drops_patches() && !self.is_ranked() { "tokens" } else { "importance" };
        for (line, (caption, write)) in
            [("tokens", Self::tokens as fn(&Self, &mut Pen)), makes, (fates, Self::fates)].into_iter().enumerate()
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

    /// The compression that ran.
    fn compression(&self) -> Compression {
        self.looked.compression.parse().unwrap_or_default()
    }

    /// Whether patches can be without a token before the text model.
    fn drops_patches(&self) -> bool {
        !matches!(self.compression().before, Before::Every | Before::Vision { .. })
    }

    /// Whether something was pruned inside the model.
    fn is_ranked(&self) -> bool {
        !self.looked.importance.is_empty()
    }

    /// The steps of the compression, and the number of visual tokens after each; `None` if it is off. The family's own
    /// sequence is first, and the only one if nothing was compressed.
    pub fn steps(&self) -> Vec<(String, Option<usize>)> {
        let looked = self.looked;
        let Compression { before, within } = self.compression();
        let compressed = (before != Before::Every).then_some(looked.token_count());
        let kept = self.is_ranked().then_some(looked.kept.len());
        // If one of FocusLLaVA's samplers ran, the other one is shown as off. Other steps are shown only if they ran.
        let samplers = !self.drops_patches() && matches!(within, Within::Every | Within::Text(_));
        let all = samplers && (compressed.is_some() || kept.is_some());
        let before = match before {
            Before::Every | Before::Vision { .. } => "vision-guided".to_owned(),
            before => Compression::from(before).to_string(),
        };
        let within = match within {
            Within::Every | Within::Text(_) => "text-guided".to_owned(),
            within => Compression::from(within).to_string(),
        };
        let mut steps = vec![("all".to_owned(), Some(looked.grid.stock_tokens()))];
        let ran = [(before, compressed), (within, kept)].into_iter().filter(|(_, count)| all || count.is_some());
        steps.extend(ran.map(|(name, count)| (format!("→ {name}"), count)));
        steps
    }

    /// The steps of the compression.
    fn tokens(&self, pen: &mut Pen) {
        let steps = self.steps();
        for (name, count) in &steps {
            pen.count(name, *count);
            pen.gap(0.6);
        }
        pen.gap(-0.6);
        if steps.len() == 1 {
            pen.gap(0.4);
            pen.text("visual tokens", FAINT);
        }
    }

    /// The number of visual tokens of each kind.
    fn kinds(&self, pen: &mut Pen) {
        let of = |origin: &Origin| match origin {
            Origin::Thumbnail(_) | Origin::Map(_) => usize::from(is_merged(origin)),
            Origin::Newline(_) => 2,
            Origin::Class(_) => 3,
        };
        let mut counts = [0; 4];
        self.looked.origins.iter().for_each(|origin| counts[of(origin)] += 1);
        let names = ["patches", "merged", "newlines", "class tokens"];
        for (name, count) in names.into_iter().zip(counts).filter(|(_, count)| *count > 0) {
            pen.count(name, Some(count));
            pen.gap(0.6);
        }
        pen.gap(-0.6);
    }

    /// A region at each scale, and the share of regions with that scale.
    fn scales(&self, pen: &mut Pen) {
        let looked = self.looked;
        if looked.choice.is_empty() {
            return pen.key(NEUTRAL, 0.1, if self.map_is_empty() { "no map" } else { "one token per patch" });
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

    /// The colors of dropped, merged and kept tokens.
    fn fates(&self, pen: &mut Pen) {
        let grey = [128; 3];
        if !self.is_ranked() && !self.drops_patches() {
            return pen.key(NEUTRAL, 0.1, "every token kept");
        }
        pen.key(colors::dimmed(grey), 1.0, "dropped");
        pen.gap(1.2);
        if has_merged(self.looked) {
            pen.key(merged_color(), 1.0, "merged");
            pen.gap(1.2);
        }
        if !self.is_ranked() {
            return pen.key(grey, 1.0, "kept");
        }
        pen.text("low", FAINT);
        pen.gap(0.4);
        let area = pen.swatch(160.0);
        let length = (area.x.end - area.x.start) as f32;
        pen.canvas.map(&area, |x, _, _| colors::heated(grey, (x - area.x.start) as f32 / length));
        pen.gap(0.4);
        pen.text("high", FAINT);
    }

    /// The P x P patches of the thumbnail over a small copy of the whole picture, if tokens hold any of them or a method
    /// dropped them all. Returns the width that it takes.
    fn thumbnail(&self, canvas: &mut Canvas, top: usize) -> Result<f32, Error> {
        let patches = self.looked.grid.patches;
        let mut held = Vec::new();
        for (origin, &fate) in self.looked.origins.iter().zip(self.fates) {
            if let Origin::Thumbnail(own) = origin {
                held.extend(own.iter().map(|&index| (index, fate)));
            }
        }
        let is_shown = !held.is_empty() || self.drops_patches() && self.looked.grid.thumbnail != Thumbnail::Own;
        let count = patches.checked_mul(patches).filter(|&count| count > 0);
        if !is_shown || count.is_none_or(|count| held.iter().any(|(index, _)| *index >= count)) {
            return Ok(0.0);
        }
        let caption = 0.75 * CAPITAL * self.size;
        let high = (2.0 * LINE + SWATCH) * self.size - 2.0 * caption;
        let aspect = self.picture.width() as f32 / self.picture.height() as f32;
        let (width, height) = ((high * aspect.clamp(0.4, 2.5)).round().max(1.0), high.round().max(1.0));
        let small = bicubic(self.picture, width as usize, height as usize)?;
        let (x, y) = ((MARGIN * self.size).round() as i32, top as i32 + (MARGIN * self.size).round() as i32);
        let edge = |index: usize, length: f32| (index as f32 * length / patches as f32).round() as i32;
        let tokens = held.into_iter().map(|(index, fate)| {
            let (row, col) = (index / patches, index % patches);
            let area = Area {
                x: x + edge(col, width)..x + edge(col + 1, width),
                y: y + edge(row, height)..y + edge(row + 1, height),
            };
            (area, fate, None)
        });
        paint(canvas, &small, [x, y], tokens);
        let foot = y as f32 + height + caption;
        let right = canvas.write("thumbnail", [x as f32, foot], caption, FAINT);
        Ok((right - x as f32).max(width) + 1.3 * GAP * self.size)
    }
}
