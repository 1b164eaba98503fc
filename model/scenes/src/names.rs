//! Names and constants: colors, types of objects, kinds of questions, canvases.

use serde::{Deserialize, Serialize};

/// Side of a tile on the demo checkpoint's canvases, in canvas pixels ("units").
pub const TILE: usize = 64;
/// Side of a patch of the demo checkpoint's vision tower, in canvas pixels.
pub const PATCH: usize = 8;
/// The demo checkpoint's canvases in tiles, (rows, columns), in the order of its pinpoints.
pub const CANVASES: [(usize, usize); 5] = [(2, 2), (1, 2), (2, 1), (1, 3), (3, 1)];
/// The words on signs.
pub const WORDS: [&str; 16] = [
    "STOP", "EXIT", "TAXI", "CAFE", "OPEN", "BUS", "HOT", "ICE", "TEA", "ZOO", "BAR", "SALE", "PARK", "GYM", "INN",
    "MAP",
];

/// A set of scenes. No scene is in both sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Scenes for training: even seeds.
    Train,
    /// Scenes for tests: odd seeds.
    HeldOut,
}

/// The kinds of questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The number on the plate or shirt of a given color.
    Number,
    /// The word on the sign of a given color.
    Word,
    /// The color of the plate, shirt or sign with a given text.
    Whose,
    /// The color of the shape of a given type.
    Color,
    /// The type of the shape of a given color.
    Shape,
    /// How many shapes of one type there are, 0 to 3.
    Count,
    /// Whether there is a shape of a given color and type.
    Exist,
}

impl Kind {
    /// All kinds, in the order of a scene's questions.
    pub const ALL: [Self; 7] =
        [Self::Number, Self::Word, Self::Whose, Self::Color, Self::Shape, Self::Count, Self::Exist];

    /// The kind's name, as in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Word => "word",
            Self::Whose => "whose",
            Self::Color => "color",
            Self::Shape => "shape",
            Self::Count => "count",
            Self::Exist => "exist",
        }
    }
}

/// The types of objects: three that carry text, four shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// A number plate, one to four digits.
    Plate,
    /// A T-shirt, one or two digits.
    Shirt,
    /// A board on a pole, one word.
    Sign,
    /// A disc.
    Circle,
    /// A square, tilted by a few degrees at most.
    Square,
    /// An equilateral triangle, tilted by a few degrees at most.
    Triangle,
    /// A star with five points, at any angle.
    Star,
}

impl ObjectKind {
    /// All types, those with text first.
    pub const ALL: [Self; 7] =
        [Self::Plate, Self::Shirt, Self::Sign, Self::Circle, Self::Square, Self::Triangle, Self::Star];
    /// The types that carry text.
    pub(crate) const CARRIERS: [Self; 3] = [Self::Plate, Self::Shirt, Self::Sign];
    /// The types without text.
    pub(crate) const SHAPES: [Self; 4] = [Self::Circle, Self::Square, Self::Triangle, Self::Star];

    /// The type's name, as in questions and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plate => "plate",
            Self::Shirt => "shirt",
            Self::Sign => "sign",
            Self::Circle => "circle",
            Self::Square => "square",
            Self::Triangle => "triangle",
            Self::Star => "star",
        }
    }

    /// Whether objects of this type carry text.
    #[must_use]
    pub fn has_text(self) -> bool {
        Self::CARRIERS.contains(&self)
    }
}

/// The colors of objects. The background has none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Color {
    /// Red.
    Red,
    /// Orange.
    Orange,
    /// Yellow.
    Yellow,
    /// Green.
    Green,
    /// Blue.
    Blue,
    /// Purple.
    Purple,
}

impl Color {
    /// All colors.
    pub const ALL: [Self; 6] = [Self::Red, Self::Orange, Self::Yellow, Self::Green, Self::Blue, Self::Purple];

    /// The color's name, as in questions and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Orange => "orange",
            Self::Yellow => "yellow",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::Purple => "purple",
        }
    }

    /// The mean color of objects, RGB. Each channel of an object's color differs from it by at most [`JITTER`].
    pub(crate) fn rgb(self) -> [u8; 3] {
        match self {
            Self::Red => [204, 40, 44],
            Self::Orange => [240, 126, 26],
            Self::Yellow => [242, 216, 46],
            Self::Green => [46, 152, 70],
            Self::Blue => [40, 92, 206],
            Self::Purple => [142, 62, 178],
        }
    }
}

/// Greatest difference of one channel between an object's color and [`Color::rgb`]. The two nearest colors, orange and yellow,
/// still do not overlap.
pub(crate) const JITTER: i32 = 14;
