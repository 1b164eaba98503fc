//! The stages of a run, in the order in which they happen.

use serde::Serialize;

/// A stage of a run, from the picture to the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stage {
    /// Picture to tiles: resize, pad, normalise. On the host.
    Tiles,
    /// Question to token ids: template and tokenizer. On the host.
    Prompt,
    /// Vision tower, projector, feature map.
    VisionTower,
    /// Features to visual tokens: what enters the text model.
    Compress,
    /// Text before the picture and visual tokens through the layers below the first pruning.
    ImagePrefill,
    /// The question through the same layers, and the choice of the visual tokens that stay.
    Prune,
    /// Kept tokens and question through the other layers, up to the logits of the first token.
    Prefill,
    /// Every token after the first.
    Decode,
}

impl Stage {
    /// Its name, for reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tiles => "tiles",
            Self::Prompt => "prompt",
            Self::VisionTower => "vision_tower",
            Self::Compress => "compress",
            Self::ImagePrefill => "image_prefill",
            Self::Prune => "prune",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }
}
