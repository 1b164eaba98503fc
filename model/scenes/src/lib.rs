//! Pictures with questions and answers, drawn from a seed: what the demo checkpoint is trained on and tested with.
//!
//! # What is drawn
//!
//! A greyish background with clutter and a little noise; on it one main group of three plates, shirts or signs, of three
//! colors and with three texts, in half of the scenes with plates or signs stacked closely; three to five shapes, no two
//! of one color; and where there is room up to two carriers of another type. A scene is laid out in "units", the pixels
//! of the demo checkpoint's canvases ([`TILE`], [`PATCH`], [`CANVASES`]), and drawn at 1 to 3 pixels a unit, so that
//! pictures have to be resized and padded. Text is 7.5 to 10 units high: legible in a tile, not in the thumbnail, which
//! is two or three times coarser.
//!
//! # Balance
//!
//! No answer is more likely than its alternatives before the picture is seen: the counted shapes are 0, 1, 2 or 3 with
//! equal chance, "yes" and "no" are drawn before the shape that is asked for, and a "no" combines a color and a type
//! which both are there. Whoever asks for a color has three candidates at least.
//!
//! # Limits
//!
//! No text is cut by a border between tiles: the vision tower sees one tile at a time. Objects do not overlap, texts are
//! upright, in three faces, and the words are [`WORDS`]; a picture from a camera is none of this.
//!
//! Modules in data order: [`names`](Kind), `random`, `frame`, `letters`, `look`, `object`, `layout`, `background`,
//! `noise`, `draw`, `question`, `scene`.

mod background;
mod draw;
mod frame;
mod layout;
mod letters;
mod look;
mod names;
mod noise;
mod object;
mod question;
mod random;
mod scene;

pub use frame::Frame;
pub use names::{CANVASES, Color, Kind, ObjectKind, PATCH, Split, TILE, WORDS};
pub use object::Object;
pub use question::Question;
pub use scene::Scene;
