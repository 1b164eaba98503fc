//! The dense labels: what the generator knows of every patch, as classes for the vision tower's warming up.
//!
//! This is supervision that the paper does not have: its tower is CLIP and can read, ours starts from nothing (our choice,
//! and named in the model card).

use fovea_scenes::{Color, Object, ObjectKind, WORDS};

/// Classes of a patch's object; 0 is the background.
pub(super) const KINDS: usize = ObjectKind::ALL.len() + 1;
/// Classes of its colour.
pub(super) const COLORS: usize = Color::ALL.len();
/// Places of a number, each one of ten digits or empty.
pub(super) const PLACES: usize = 4;
/// Classes of one place.
pub(super) const DIGITS: usize = 11;
/// Classes of whether a patch is its object's middle one: by them objects can be counted.
pub(super) const MIDDLE: usize = 2;
/// All classes: kind, colour, places, word, middle.
pub(super) const HEAD: usize = KINDS + COLORS + PLACES * DIGITS + WORDS.len() + MIDDLE;

/// What one patch shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label {
    pub kind: usize,
    pub color: Option<usize>,
    pub places: Option<[usize; PLACES]>,
    pub word: Option<usize>,
    pub middle: Option<usize>,
}

impl Label {
    /// Nothing but background.
    pub const BACKGROUND: Self = Self { kind: 0, color: None, places: None, word: None, middle: None };

    /// What a patch of `object` shows, its middle one or another; its text only where it can be read.
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
