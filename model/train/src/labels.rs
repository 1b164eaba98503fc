//! The dense labels: classes of every patch, known from the scene generator, for training the vision tower.
//!
//! The paper does not have this supervision: its tower is a trained CLIP, which can read; the demo's tower starts from random
//! weights. It is our choice, and the model card names it.

use fovea_scenes::{Color, Object, ObjectKind, WORDS};

/// Classes of a patch's object; 0 is the background.
pub(crate) const KINDS: usize = ObjectKind::ALL.len() + 1;
/// Classes of the object's colour.
pub(crate) const COLORS: usize = Color::ALL.len();
/// Digits of a number.
pub(crate) const PLACES: usize = 4;
/// Classes of one digit: 0 to 9, or none.
pub(crate) const DIGITS: usize = 11;
/// Classes of whether a patch is the middle of its object. With them objects can be counted.
pub(crate) const MIDDLE: usize = 2;
/// All classes: kind, colour, digits, word, middle.
pub(crate) const HEAD: usize = KINDS + COLORS + PLACES * DIGITS + WORDS.len() + MIDDLE;

/// The classes of one patch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label {
    /// The object's kind; 0 is the background.
    pub kind: usize,
    /// The object's color, index in [`Color::ALL`].
    pub color: Option<usize>,
    /// The digits of the object's number; `DIGITS - 1` is none.
    pub places: Option<[usize; PLACES]>,
    /// The object's word, index in [`WORDS`].
    pub word: Option<usize>,
    /// 1 for the object's middle patch, else 0.
    pub middle: Option<usize>,
}

impl Label {
    /// A patch of the background.
    pub const BACKGROUND: Self = Self { kind: 0, color: None, places: None, word: None, middle: None };

    /// The classes of a patch of `object`. `middle`: whether it is the object's middle patch; `readable`: whether its text is large
    /// enough to read, else the text has no label.
    pub fn of(object: &Object, middle: bool, readable: bool) -> Self {
        let place = |of: &[ObjectKind]| of.iter().position(|k| *k == object.kind).unwrap_or_default();
        let number = matches!(object.kind, ObjectKind::Plate | ObjectKind::Shirt);
        let digits = || {
            let mut places = [DIGITS - 1; PLACES];
            for (place, digit) in places.iter_mut().zip(object.text.bytes()) {
                *place = usize::from(digit.wrapping_sub(b'0')).min(DIGITS - 1);
            }
            places
        };
        Self {
            kind: 1 + place(&ObjectKind::ALL),
            color: Color::ALL.iter().position(|c| *c == object.color),
            places: (number && readable).then(digits),
            word: WORDS.iter().position(|w| readable && *w == object.text),
            middle: Some(usize::from(middle)),
        }
    }
}
