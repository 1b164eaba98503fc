//! Pictures with questions and answers, generated from a seed: the training and test data of the demo checkpoint.
//!
//! # Content of a scene
//!
//! - a greyish background with clutter and a little noise;
//! - a main group of three plates, shirts or signs with different colors and texts; half of the groups of plates or signs are
//!   closely stacked;
//! - three to five shapes, no two with the same color;
//! - up to two carriers of text of another type, if there is room.
//!
//! The layout is in "units": the pixels of the demo checkpoint's canvases ([`TILE`], [`PATCH`], [`CANVASES`]). Pictures have 1
//! to 3 pixels per unit, so the processor must resize and pad them. Text is 7.5 to 10 units high: legible in a tile, but not
//! in the thumbnail, whose resolution is two or three times lower.
//!
//! # Balance
//!
//! Answers cannot be guessed without the picture. Counts are 0, 1, 2 or 3 with equal probability. "Yes" or "no" is chosen
//! before the shape of the question, and a "no" combines a color and a type that are both in the picture. A question about a
//! color has at least three candidates.
//!
//! # Limits
//!
//! No text crosses a border between tiles, because the vision tower processes tiles separately. Objects do not overlap, texts
//! are upright, in three faces, and the only words are [`WORDS`]. Photographs are different in all these respects.

mod names;
mod random;
mod frame;
mod letters;
mod outlines;
mod object;
mod layout;
mod paint;
mod background;
mod noise;
mod draw;
mod question;
mod scene;

pub use frame::Frame;
pub use names::{CANVASES, Color, Kind, ObjectKind, PATCH, Split, TILE, WORDS};
pub use object::Object;
pub use question::Question;
pub use scene::Scene;
