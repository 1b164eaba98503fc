//! Input: a text and its setting. Output: its outline.

use fovea_letters::{Face, MONO_BOLD, SANS_BOLD, SLAB_BOLD};
use tiny_skia::{Path, Transform};

/// Number of faces: a sans, a slab and a mono, all bold.
pub(crate) const FACES: usize = 3;

/// The setting of a text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// Index of the face, below [`FACES`].
    pub(crate) face: usize,
    /// Height of a capital letter, in units.
    pub(crate) cap: f32,
    /// Advance of a digit, in units; letters keep their proportion to it.
    pub(crate) pitch: f32,
    /// Space between characters, in units.
    pub(crate) gap: f32,
}

/// The outline of the text with its top left corner at the origin, and its (width, height) in units.
pub(crate) fn outline(text: &str, setting: Setting) -> (Option<Path>, [f32; 2]) {
    let Setting { face, cap, pitch, gap } = setting;
    let face: &Face = match face {
        0 => &SANS_BOLD,
        1 => &SLAB_BOLD,
        _ => &MONO_BOLD,
    };
    // the pitch sets the width of digits; letters, which are wider, are squeezed by the same factor
    let squeeze = pitch / (face.advance('0') * cap).max(1e-3);
    let (path, _) = face.outline(text, fovea_letters::Setting { cap, squeeze, gap });
    let Some(path) = path else { return (None, [0.0, 0.0]) };
    let bounds = path.bounds();
    let size = [bounds.width(), bounds.height()];
    (path.transform(Transform::from_translate(-bounds.left(), -bounds.top())), size)
}
