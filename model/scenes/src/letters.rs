//! Enters: a text and a size. Leaves: its outline.

use std::sync::LazyLock;

use tiny_skia::{Path, PathBuilder, Transform};
use ttf_parser::{Face, OutlineBuilder};

/// Digits and capital letters.
const SIGNS: usize = 36;
/// How many faces there are.
pub(crate) const FACES: usize = 3;

/// One face's glyphs, in units of its cap height, y down, the baseline at 0.
struct Glyphs {
    /// Outline and advance of each sign; no outline where the face lacks it.
    glyphs: Vec<(Option<Path>, f32)>,
}

/// The three faces: a sans, a slab and a mono, all bold.
static GLYPHS: LazyLock<Vec<Glyphs>> = LazyLock::new(|| {
    let files: [&[u8]; FACES] =
        [include_bytes!("../faces/sans.ttf"), include_bytes!("../faces/slab.otf"), include_bytes!("../faces/mono.ttf")];
    files.map(Glyphs::read).into()
});

/// Where a character's glyph is kept.
fn index(character: char) -> usize {
    match character {
        '0'..='9' => character as usize - '0' as usize,
        _ => (character as usize).saturating_sub('A' as usize).min(25) + 10,
    }
}

impl Glyphs {
    /// Reads all signs of a face. The faces are compiled in, so a broken one is a defect of the crate.
    fn read(file: &[u8]) -> Self {
        let face = Face::parse(file, 0).expect("the faces compiled in are fonts");
        let cap = face.glyph_index('H').and_then(|id| face.glyph_bounding_box(id)).map_or(700, |bounds| bounds.y_max);
        let scale = 1.0 / f32::from(cap);
        let glyphs = ('0'..='9').chain('A'..='Z').map(|character| {
            let id = face.glyph_index(character).unwrap_or_default();
            let mut pen = Pen { path: PathBuilder::new(), scale };
            face.outline_glyph(id, &mut pen);
            (pen.path.finish(), f32::from(face.glyph_hor_advance(id).unwrap_or(0)) * scale)
        });
        let glyphs: Vec<_> = glyphs.collect();
        debug_assert_eq!(glyphs.len(), SIGNS, "one glyph a sign");
        Self { glyphs }
    }
}

/// Passes an outline on from the font to the path, scaled, with y down.
struct Pen {
    path: PathBuilder,
    scale: f32,
}

impl OutlineBuilder for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        self.path.move_to(x * self.scale, -y * self.scale);
    }
    fn line_to(&mut self, x: f32, y: f32) {
        self.path.line_to(x * self.scale, -y * self.scale);
    }
    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let s = self.scale;
        self.path.quad_to(x1 * s, -y1 * s, x * s, -y * s);
    }
    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let s = self.scale;
        self.path.cubic_to(x1 * s, -y1 * s, x2 * s, -y2 * s, x * s, -y * s);
    }
    fn close(&mut self) {
        self.path.close();
    }
}

/// How a text is set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// Which face.
    pub(crate) face: usize,
    /// Height of a capital letter, in units.
    pub(crate) cap: f32,
    /// Advance of a digit, in units; letters keep their proportion to it.
    pub(crate) pitch: f32,
    /// Added between glyphs, in units.
    pub(crate) gap: f32,
}

/// The text's outline with its top left corner at the origin, and its (width, height) in units.
pub(crate) fn outline(text: &str, setting: Setting) -> (Option<Path>, [f32; 2]) {
    let face = &GLYPHS[setting.face.min(FACES - 1)].glyphs;
    // letters of a proportional face are wider than its digits, so a narrow pitch squeezes both
    let squeeze = setting.pitch / (face[0].1 * setting.cap).max(1e-3);
    let mut path = PathBuilder::new();
    let mut x = 0.0;
    for character in text.chars() {
        let (glyph, advance) = &face[index(character)];
        let transform = Transform::from_row(setting.cap * squeeze, 0.0, 0.0, setting.cap, x, 0.0);
        if let Some(glyph) = glyph.clone().and_then(|glyph| glyph.transform(transform)) {
            path.push_path(&glyph);
        }
        x += advance * setting.cap * squeeze + setting.gap;
    }
    let Some(path) = path.finish() else { return (None, [0.0, 0.0]) };
    let bounds = path.bounds();
    let size = [bounds.width(), bounds.height()];
    (path.transform(Transform::from_translate(-bounds.left(), -bounds.top())), size)
}
