//! Pictures to begin with, and a question about each that the demo checkpoint answers.

/// A picture and a question.
pub struct Example {
    /// What it is called.
    pub name: &'static str,
    /// A JPEG file.
    pub bytes: &'static [u8],
    /// A question about it.
    pub question: &'static str,
}

macro_rules! examples {
    ($($name:literal: $question:literal,)*) => {
        [$(Example {
            name: concat!($name, ".jpg"),
            bytes: include_bytes!(concat!("../../pictures/", $name, ".jpg")),
            question: $question,
        }),*]
    };
}

/// Those of `native-demo/pictures`, in their order there.
pub static EXAMPLES: [Example; 5] = examples! {
    "rack": "What word is on the blue sign?",
    "plates": "What number is on the green plate?",
    "shirts": "What color is the shirt with 7?",
    "signs": "What color is the triangle?",
    "mixed": "What number is on the purple shirt?",
};
