//! Errors in the terms of GGUF. Input: an error with keys of config.json, files of Hugging Face's layout, or names of
//! the hub's tensors. Output: the same error with the file, the key or the tensor that the user has.

use fovea_runtime::Error as RuntimeError;

use super::{CHAT_TEMPLATE, names};
use crate::error::Error;

/// Keys of `text_config`, and those of GGUF after the architecture.
const TEXT: [(&str, &str); 11] = [
    ("hidden_size", "embedding_length"),
    ("intermediate_size", "feed_forward_length"),
    ("num_hidden_layers", "block_count"),
    ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("head_dim", "attention.key_length"),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("rope_theta", "rope.freq_base"),
    ("rope_scaling.factor", "rope.scaling.factor"),
    ("max_position_embeddings", "context_length"),
    ("sliding_window", "attention.sliding_window"),
];

/// Keys of `vision_config` and of the image processor, and those of GGUF after `clip.vision.`.
const VISION: [(&str, &str); 15] = [
    ("hidden_size", "embedding_length"),
    ("intermediate_size", "feed_forward_length"),
    ("num_hidden_layers", "block_count"),
    ("num_attention_heads", "attention.head_count"),
    ("image_size", "image_size"),
    ("patch_size", "patch_size"),
    ("layer_norm_eps", "attention.layer_norm_epsilon"),
    ("vision_feature_layer", "feature_layer"),
    ("vision_aspect_ratio", "image_aspect_ratio"),
    ("image_grid_pinpoints", "image_grid_pinpoints"),
    ("image_aspect_ratio", "image_aspect_ratio"),
    ("image_mean", "image_mean"),
    ("image_std", "image_std"),
    ("size", "image_size"),
    ("crop_size", "image_size"),
];

/// What the files of one checkpoint call things.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// The architecture of the text model.
    pub arch: String,
    /// The files: text model, then vision tower and projector.
    pub files: [String; 2],
    /// Whether the names of the two layers of the tower's feed-forward are the wrong way round.
    pub swapped: bool,
    /// Whether the chat template is that of the file.
    pub own_template: bool,
}

impl Terms {
    /// The key that has the number of layers of the text model, or of the tower; and its file.
    pub fn layers(&self, tower: bool) -> String {
        let [text, vision] = &self.files;
        if tower {
            format!("clip.vision.block_count of {vision}")
        } else {
            format!("{}.block_count of {text}", self.arch)
        }
    }

    /// The error in these terms.
    pub fn of(&self, error: Error) -> Error {
        let [text, vision] = &self.files;
        match error {
            Error::Config { key, why } => {
                let rest = key.split_once(": ").map_or(key.as_str(), |(_, rest)| rest);
                let (file, key, why) = if let Some(rest) = rest.strip_prefix("text_config.") {
                    let prefix = format!("{}.", self.arch);
                    let key = match rest {
                        "vocab_size" => "rows of token_embd.weight".to_owned(),
                        _ => renamed(rest, &TEXT, &prefix),
                    };
                    (text, key, words(&why, &TEXT, &prefix))
                } else if rest == "image_token_id" {
                    (text, "tokenizer.ggml.tokens".to_owned(), why)
                } else if rest == "eos_token_id" {
                    (text, "tokenizer.ggml.eos_token_id".to_owned(), why)
                } else {
                    let rest = rest.strip_prefix("vision_config.").unwrap_or(rest);
                    (vision, renamed(rest, &VISION, "clip.vision."), words(&why, &VISION, "clip.vision."))
                };
                Error::Config { key: format!("{file}: {key}"), why }
            }
            Error::Tokenizer { file, why } => {
                let why = why.replace(" in config.json)", ", `<image>` in tokenizer.ggml.tokens)");
                let file = match file.as_str() {
                    "tokenizer.json" => format!("{text}: tokenizer.ggml"),
                    "chat template" if self.own_template => format!("{text}: {CHAT_TEMPLATE}"),
                    _ => file,
                };
                Error::Tokenizer { file, why }
            }
            Error::Runtime(RuntimeError::Tensor { file, tensor, expected, got }) => {
                // A name of the hub is that of a tensor that no file has.
                let (file, tensor) = match names::own(&tensor, self.swapped) {
                    Some((index, own)) => (self.files[index].clone(), own),
                    None => (file, tensor),
                };
                RuntimeError::Tensor { file, tensor, expected, got }.into()
            }
            other => other,
        }
    }
}

/// The own key of `theirs`, or of the key of an object in it.
fn renamed(theirs: &str, keys: &[(&str, &str)], prefix: &str) -> String {
    let within = |known: &str| theirs == known || theirs.strip_prefix(known).is_some_and(|rest| rest.starts_with('.'));
    let own = keys.iter().find(|(known, _)| within(known)).map(|(_, own)| format!("{prefix}{own}"));
    own.unwrap_or_else(|| theirs.to_owned())
}

/// A sentence with own keys in place of the words that are `keys`.
fn words(why: &str, keys: &[(&str, &str)], prefix: &str) -> String {
    let own = |word: &str| match keys.iter().find(|(known, _)| *known == word) {
        // `size` is also a word of English.
        Some((known, own)) if known.contains('_') => format!("{prefix}{own}"),
        _ => word.to_owned(),
    };
    why.split(' ').map(own).collect::<Vec<_>>().join(" ")
}
