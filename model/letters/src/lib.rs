//! Text as outlines. Input: a text, a face and a size. Output: a path for tiny-skia.
//!
//! The faces are compiled in, so text looks the same on every machine. See `faces/README.md` for their licences.

use std::sync::LazyLock;

use tiny_skia::{Path, PathBuilder, Transform};
use ttf_parser::OutlineBuilder;

/// DejaVu Sans: printable ASCII and ± – → × γ.
pub static SANS: LazyLock<Face> = LazyLock::new(|| Face::read(include_bytes!("../faces/sans.ttf")));
/// Open Sans Bold: digits and capital letters.
pub static SANS_BOLD: LazyLock<Face> = LazyLock::new(|| Face::read(include_bytes!("../faces/sans-bold.ttf")));
/// Roboto Slab Bold: digits and capital letters.
pub static SLAB_BOLD: LazyLock<Face> = LazyLock::new(|| Face::read(include_bytes!("../faces/slab-bold.otf")));
/// DejaVu Sans Mono Bold: digits and capital letters.
pub static MONO_BOLD: LazyLock<Face> = LazyLock::new(|| Face::read(include_bytes!("../faces/mono-bold.ttf")));

/// Size and spacing of a text.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Height of a capital letter; the other lengths have the same unit.
    pub cap: f32,
    /// Factor for all widths: 1 keeps the proportions of the face.
    pub squeeze: f32,
    /// Space that is added after each character.
    pub gap: f32,
}

/// A font file. Its unit here is the height of a capital letter, y points down, and the baseline is at y = 0.
pub struct Face {
    file: ttf_parser::Face<'static>,
    /// One font unit.
    scale: f32,
}

impl Face {
    /// The files are compiled in, so a broken one is a defect of this crate.
    fn read(file: &'static [u8]) -> Self {
        let file = ttf_parser::Face::parse(file, 0).expect("the faces compiled in are fonts");
        let cap = file.glyph_index('H').and_then(|id| file.glyph_bounding_box(id)).map_or(700, |bounds| bounds.y_max);
        Self { file, scale: 1.0 / f32::from(cap) }
    }

    /// Distance from the start of a character to the start of the next one.
    #[must_use]
    pub fn advance(&self, character: char) -> f32 {
        let id = self.file.glyph_index(character).unwrap_or_default();
        f32::from(self.file.glyph_hor_advance(id).unwrap_or(0)) * self.scale
    }

    /// The outline of one character; `None` where it has no ink.
    fn glyph(&self, character: char) -> Option<Path> {
        let mut pen = Pen { path: PathBuilder::new(), scale: self.scale };
        self.file.outline_glyph(self.file.glyph_index(character).unwrap_or_default(), &mut pen);
        pen.path.finish()
    }

    /// The outline of a text that starts at the origin, on the baseline, and the distance to the end of the text. The
    /// outline is `None` where the text has no ink.
    #[must_use]
    pub fn outline(&self, text: &str, setting: Setting) -> (Option<Path>, f32) {
        let Setting { cap, squeeze, gap } = setting;
        let mut path = PathBuilder::new();
        let mut x = 0.0;
        for character in text.chars() {
            let transform = Transform::from_row(cap * squeeze, 0.0, 0.0, cap, x, 0.0);
            if let Some(glyph) = self.glyph(character).and_then(|glyph| glyph.transform(transform)) {
                path.push_path(&glyph);
            }
            x += self.advance(character) * cap * squeeze + gap;
        }
        (path.finish(), x)
    }
}

/// Copies an outline from the font to a path, scaled, with y down.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_face_has_its_characters() {
        let capitals = || ('0'..='9').chain('A'..='Z');
        let ascii: Vec<char> = ('!'..='~').chain("±–→×γ".chars()).collect();
        let faces = [
            (&SANS, ascii),
            (&SANS_BOLD, capitals().collect()),
            (&SLAB_BOLD, capitals().collect()),
            (&MONO_BOLD, capitals().collect()),
        ];
        for (face, characters) in faces {
            for character in characters {
                assert!(face.file.glyph_index(character).is_some(), "expected {character}, got no glyph");
                assert!(face.glyph(character).is_some() && face.advance(character) > 0.0, "{character} has no ink");
            }
        }
    }

    #[test]
    fn a_capital_is_as_high_as_the_setting_and_widths_add_up() {
        let setting = Setting { cap: 10.0, squeeze: 0.5, gap: 2.0 };
        let (path, width) = SANS.outline("H H", setting);
        let bounds = path.expect("an outline").bounds();
        assert!((bounds.top() + 10.0).abs() < 1e-3 && bounds.bottom().abs() < 1e-3, "{bounds:?}");
        let expected = 5.0 * (2.0 * SANS.advance('H') + SANS.advance(' ')) + 6.0;
        assert!((width - expected).abs() < 1e-3, "expected {expected}, got {width}");
        assert!(bounds.left() > 0.0 && bounds.right() < width, "{bounds:?}");
        assert!(SANS.outline("", setting).0.is_none(), "expected no outline of an empty text");
    }
}
