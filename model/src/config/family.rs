//! The families of checkpoints: one row each. Input: `model_type` of config.json. Output: how a picture becomes visual tokens,
//! and the defaults of the family's class in Hugging Face's transformers (`models/*/configuration_*.py`).

use serde::Serialize;

use super::{
    keys::{Keys, LONGEST_SIDE},
    vision,
};
use crate::error::Error;

/// How the tiles of a picture are arranged in the prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// The canvas of best fit, cut into tiles, and the whole picture as a thumbnail before them: LLaVA-NeXT's "anyres".
    Anyres {
        /// Allowed canvases, (height, width) in pixels, multiples of the tile's side.
        pinpoints: Vec<(usize, usize)>,
        /// A map of more tiles than this is shrunk to their area (LLaVA-OneVision's `anyres_max_9`); None: never.
        most_tiles: Option<usize>,
    },
    /// One tile, which is the map (LLaVA-1.5, LLaVA-Interleave).
    Single,
    /// Tiles, each with text before it, and the thumbnail after them (SmolVLM).
    Split,
}

/// The layers between the vision tower and the text model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProjectorKind {
    /// Linear, activation, Linear.
    Mlp,
    /// `scale_factor` x `scale_factor` patches become one token, then one Linear without bias.
    Shuffle,
}

/// What makes a family: one row of [`FAMILIES`].
pub(super) struct Family {
    /// `model_type` in config.json.
    pub model_type: &'static str,
    /// The name of its models.
    pub name: &'static str,
    layout: LayoutKind,
    pub projector: ProjectorKind,
    /// Whether the map has the newline embedding.
    pub newline: bool,
    /// The class default of `image_token_id`.
    pub image_token: usize,
    /// The vision tower where config.json does not describe it.
    pub vision: &'static vision::Default,
    /// The text model where `text_config` does not name its type.
    pub text: &'static str,
}

enum LayoutKind {
    Anyres { canvases: fn() -> Vec<(usize, usize)>, shrinks: bool },
    Single,
    Split,
}

const LLAVA: Family = Family {
    model_type: "llava",
    name: "LLaVA-1.5",
    layout: LayoutKind::Single,
    projector: ProjectorKind::Mlp,
    newline: false,
    image_token: 32000,
    vision: &vision::CLIP_LARGE,
    text: "llama",
};

/// The same class with another vision tower.
const LLAVA_INTERLEAVE: Family = Family { name: "LLaVA-Interleave", ..LLAVA };

const LLAVA_NEXT: Family = Family {
    model_type: "llava_next",
    name: "LLaVA-NeXT",
    layout: LayoutKind::Anyres { canvases: five, shrinks: false },
    newline: true,
    ..LLAVA
};

const LLAVA_ONEVISION: Family = Family {
    model_type: "llava_onevision",
    name: "LLaVA-OneVision",
    layout: LayoutKind::Anyres { canvases: thirty_six, shrinks: true },
    projector: ProjectorKind::Mlp,
    newline: true,
    image_token: 151_646,
    vision: &vision::SIGLIP_SO400M,
    text: "qwen2",
};

const IDEFICS3: Family = Family {
    model_type: "idefics3",
    name: "SmolVLM",
    layout: LayoutKind::Split,
    projector: ProjectorKind::Shuffle,
    newline: false,
    image_token: 128_257,
    vision: &vision::IDEFICS3,
    text: "llama",
};

/// SmolVLM2's class; what it does with pictures and text is Idefics3's.
const SMOLVLM: Family = Family { model_type: "smolvlm", ..IDEFICS3 };

const FAMILIES: [&Family; 5] = [&LLAVA, &LLAVA_NEXT, &LLAVA_ONEVISION, &IDEFICS3, &SMOLVLM];

/// LLaVA-NeXT's canvases.
fn five() -> Vec<(usize, usize)> {
    vec![(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)]
}

/// LLaVA-OneVision's canvases: 1x1 to 6x6 tiles of 384 pixels.
fn thirty_six() -> Vec<(usize, usize)> {
    (1..=6).flat_map(|rows| (1..=6).map(move |cols| (384 * rows, 384 * cols))).collect()
}

/// Most tiles of a picture, without its thumbnail. LLaVA-NeXT has at most 4, LLaVA-OneVision 36, SmolVLM 16.
pub(super) const MOST_TILES: usize = 100;

impl Family {
    pub(super) fn from_keys(keys: &Keys) -> Result<&'static Self, Error> {
        let known = FAMILIES.map(|family| (family.model_type, family));
        let family = keys.one_of("model_type", &LLAVA_NEXT, &known)?;
        let tower = keys.get("vision_config").and_then(|vision| vision.get("model_type"));
        let siglip = tower.is_some_and(|tower| tower == "siglip_vision_model");
        Ok(if siglip && family.model_type == LLAVA.model_type { &LLAVA_INTERLEAVE } else { family })
    }

    /// Side of the square of patches that become one visual token.
    pub(super) fn shuffle(&self, keys: &Keys) -> Result<usize, Error> {
        match self.projector {
            ProjectorKind::Mlp => Ok(1),
            ProjectorKind::Shuffle => keys.count("scale_factor", 2, 256),
        }
    }

    /// The layout for tiles of `side` pixels.
    pub(super) fn layout(&self, keys: &Keys, side: usize) -> Result<Layout, Error> {
        let (canvases, shrinks) = match self.layout {
            LayoutKind::Single => return Ok(Layout::Single),
            LayoutKind::Split => return Ok(Layout::Split),
            LayoutKind::Anyres { canvases, shrinks } => (canvases, shrinks),
        };
        let given = keys.pairs("image_grid_pinpoints", 1, LONGEST_SIDE)?;
        let default = if given.is_none() { " of the class default, because the key is missing" } else { "" };
        let pinpoints = given.unwrap_or_else(canvases);
        let wrong = |why: String| Error::Config { key: "config.json: image_grid_pinpoints".into(), why: why + default };
        if let Some((h, w)) = pinpoints.iter().find(|(h, w)| h % side != 0 || w % side != 0) {
            return Err(wrong(format!("expected multiples of the tile's side {side}, got [{h}, {w}]")));
        }
        if let Some((h, w)) = pinpoints.iter().find(|(h, w)| (h / side) * (w / side) > MOST_TILES) {
            return Err(wrong(format!("expected canvases of at most {MOST_TILES} tiles, got [{h}, {w}]")));
        }
        let most_tiles = if shrinks {
            let ratio = keys.text("vision_aspect_ratio", "anyres_max_9")?;
            let most = ratio.strip_prefix("anyres_max_").and_then(|n| n.parse().ok()).filter(|n| (1..=100).contains(n));
            Some(most.ok_or_else(|| {
                keys.wrong("vision_aspect_ratio", "anyres_max_ and a number from 1 to 100", &serde_json::json!(ratio))
            })?)
        } else {
            None
        };
        Ok(Layout::Anyres { pinpoints, most_tiles })
    }
}
