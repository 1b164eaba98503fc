//! Example pictures, each with a question that the demo checkpoint can answer.

/// An example: a picture and a question.
pub struct Example {
    /// The picture's file name.
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

/// The pictures of `native-demo/pictures`.
pub static EXAMPLES: [Example; 5] = examples! {
    "rack": "What word is on the blue sign?",
    "plates": "What number is on the green plate?",
    "shirts": "What color is the shirt with 7?",
    "signs": "What color is the triangle?",
    "mixed": "What number is on the purple shirt?",
};
