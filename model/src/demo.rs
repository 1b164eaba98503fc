//! The demo checkpoint, compiled into the program. It is the default if the user names no other.

use std::borrow::Cow;

use fovea_runtime::source::Source;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_bytes!(concat!("../demo/", $name)).as_slice())),*]
    };
}

/// The files of the demo checkpoint.
pub fn source() -> Source {
    let files = files!(
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    );
    Source::memory("the demo checkpoint", files.map(|(name, bytes)| (name.to_owned(), Cow::Borrowed(bytes))))
}
