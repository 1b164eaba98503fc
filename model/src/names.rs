//! Names of tensors. The layouts of checkpoints have different names; [`Names`] gives the names of one of them.
//!
//! | layout | text model | vision tower | projector |
//! |---|---|---|---|
//! | hub | `language_model.model.*`, `language_model.lm_head` | `vision_tower.vision_model.*` | `multi_modal_projector.linear_{1,2}` |
//! | transformers 5 | `model.language_model.*`, `lm_head` | `model.vision_tower.*` | `model.multi_modal_projector.linear_{1,2}` |
//! | original LLaVA | `model.layers.*`, `lm_head` | `model.vision_tower.vision_tower.vision_model.*` | `model.mm_projector.{0,2}` |
//! | Idefics3 | `model.text_model.*`, `lm_head` | `model.vision_model.*` | `model.connector.modality_projection.proj` |
//! | Idefics3 of mlx-vlm | `language_model.*` | `vision_model.*` | `connector.modality_projection.proj` |
//!
//! In the first three the level `vision_model.` may be absent. `scale_selector.*` and `meteor.*` are Fovea's own, and
//! the same in all layouts.
//! mlx-vlm writes the other families in the hub's layout.

use fovea_runtime::{Error as RuntimeError, weights::Weights};
use serde::Serialize;

use crate::{config::Config, error::Error};

/// The layout of a checkpoint's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Naming {
    /// That of the files on the Hugging Face hub.
    Hub,
    /// That of transformers 5.
    Transformers,
    /// That of the original LLaVA code.
    Original,
    /// That of Idefics3 and SmolVLM.
    Idefics3,
}

/// The names of one checkpoint's tensors.
#[derive(Clone, Debug)]
pub struct Names {
    /// The layout.
    pub naming: Naming,
    text: &'static str,
    head: &'static str,
    vision: &'static str,
    /// The same tower without the `vision_model.` level, if the layout allows it.
    flat_vision: Option<&'static str>,
    projector: [&'static str; 2],
    /// The newline embedding (C).
    pub newline: &'static str,
    /// Whether the checkpoint has the head only, which then is the embedding as well.
    head_is_embedding: bool,
}

/// Prefix of the scale selector's layer: weight (S, P*P) and bias (S).
pub const SELECTOR: &str = "scale_selector";

/// Prefix of the tensors of LLaVA-Meteor's fusion, in our interpretation.
pub const METEOR: &str = "meteor";
/// The norm before the first layer, in CLIP's spelling.
const PRE_LAYER_NORM: &str = "pre_layrnorm";
/// The norm after the last layer.
const POST_LAYER_NORM: &str = "post_layernorm";

const HUB: Names = Names {
    naming: Naming::Hub,
    text: "language_model.model.",
    head: "language_model.lm_head",
    vision: "vision_tower.vision_model.",
    flat_vision: Some("vision_tower."),
    projector: ["multi_modal_projector.linear_1", "multi_modal_projector.linear_2"],
    newline: "image_newline",
    head_is_embedding: false,
};
const TRANSFORMERS: Names = Names {
    naming: Naming::Transformers,
    text: "model.language_model.",
    head: "lm_head",
    vision: "model.vision_tower.vision_model.",
    flat_vision: Some("model.vision_tower."),
    projector: ["model.multi_modal_projector.linear_1", "model.multi_modal_projector.linear_2"],
    newline: "model.image_newline",
    head_is_embedding: false,
};
const ORIGINAL: Names = Names {
    naming: Naming::Original,
    text: "model.",
    vision: "model.vision_tower.vision_tower.vision_model.",
    flat_vision: Some("model.vision_tower.vision_tower."),
    projector: ["model.mm_projector.0", "model.mm_projector.2"],
    ..TRANSFORMERS
};
const IDEFICS3: Names = Names {
    naming: Naming::Idefics3,
    text: "model.text_model.",
    vision: "model.vision_model.",
    flat_vision: None,
    projector: ["model.connector.modality_projection.proj", ""],
    ..TRANSFORMERS
};
const MLX_IDEFICS3: Names = Names {
    text: "language_model.",
    head: "language_model.lm_head",
    vision: "vision_model.",
    projector: ["connector.modality_projection.proj", ""],
    ..IDEFICS3
};
const LAYOUTS: [Names; 5] = [HUB, TRANSFORMERS, ORIGINAL, IDEFICS3, MLX_IDEFICS3];

impl Names {
    /// The names in the hub's layout, which Fovea itself writes.
    pub const fn hub() -> Self {
        HUB
    }

    /// Finds the layout by the name of the embedding. If head and embedding are `tied` and only the head is present, it uses the
    /// names of the head and of the last norm.
    ///
    /// # Errors
    /// [`RuntimeError::Tensor`] if the embedding has none of the known names.
    pub fn detect(weights: &Weights, tied: bool) -> Result<Self, Error> {
        let has = |name: String| weights.entries().contains_key(&name);
        for mut names in LAYOUTS {
            names.head_is_embedding =
                tied && !has(names.embedding()) && has(names.head()) && has(names.text("norm.weight"));
            if has(names.embedding()) {
                const PATCH: &str = "embeddings.patch_embedding.weight";
                if let Some(flat) = names.flat_vision
                    && !has(names.vision(PATCH))
                    && has(format!("{flat}{PATCH}"))
                {
                    names.vision = flat;
                }
                return Ok(names);
            }
        }
        Err(RuntimeError::Tensor {
            file: weights.files().first().cloned().unwrap_or_default(),
            tensor: HUB.embedding(),
            expected:
                "the text model's embedding under a name of the hub's, transformers', the original or Idefics3's layout"
                    .into(),
            got: format!("{} tensors, none of these names", weights.entries().len()),
        }
        .into())
    }

    /// The layout of a checkpoint whose weights are not there: the hub's names of the family.
    pub(crate) fn of_family(shuffles: bool) -> Self {
        if shuffles { IDEFICS3 } else { HUB }
    }

    /// The embedding of the text model.
    pub fn embedding(&self) -> String {
        if self.head_is_embedding { self.head() } else { self.text("embed_tokens.weight") }
    }

    /// Whether the checkpoint has the head only, which then is the embedding as well.
    pub fn head_is_embedding(&self) -> bool {
        self.head_is_embedding
    }

    /// A tensor of the text model.
    pub fn text(&self, rest: &str) -> String {
        format!("{}{rest}", self.text)
    }

    /// A tensor of decoder layer `layer`.
    pub fn text_layer(&self, layer: usize, rest: &str) -> String {
        format!("{}layers.{layer}.{rest}", self.text)
    }

    /// The output head of a model whose head does not share the embedding's weights.
    pub fn head(&self) -> String {
        format!("{}.weight", self.head)
    }

    /// A tensor of the vision tower.
    pub fn vision(&self, rest: &str) -> String {
        format!("{}{rest}", self.vision)
    }

    /// A tensor of vision layer `layer`.
    pub fn vision_layer(&self, layer: usize, rest: &str) -> String {
        format!("{}encoder.layers.{layer}.{rest}", self.vision)
    }

    /// The norm before the vision tower's first layer.
    pub fn pre_layer_norm(&self) -> String {
        format!("{}{PRE_LAYER_NORM}", self.vision)
    }

    /// The norm after the vision tower's last layer.
    pub fn post_layer_norm(&self) -> String {
        format!("{}{POST_LAYER_NORM}", self.vision)
    }

    /// The pattern of a tensor that published checkpoints have and the network does not use: a vision layer after the feature
    /// layer, the last norm, SigLIP's head for classification, a buffer that is computed, or the newline where none is sent. None
    /// for every other tensor.
    pub(crate) fn not_used(&self, tensor: &str, config: &Config) -> Option<String> {
        for buffer in [".rotary_emb.inv_freq", ".position_ids"] {
            if tensor.ends_with(buffer) {
                return Some(format!("*{buffer}"));
            }
        }
        if !config.newline && tensor == self.newline {
            return Some(tensor.to_owned());
        }
        let rest = tensor.strip_prefix(self.vision)?;
        for unused in [POST_LAYER_NORM, "head"] {
            if rest.starts_with(&format!("{unused}.")) {
                return Some(self.vision(&format!("{unused}.*")));
            }
        }
        let layer: usize = rest.strip_prefix("encoder.layers.")?.split('.').next()?.parse().ok()?;
        (config.vision.n_used..config.vision.n_layers).contains(&layer).then(|| self.vision_layer(layer, "*"))
    }

    /// A layer of the projector.
    ///
    /// # Panics
    /// If `layer` is not 0 or 1.
    pub fn projector(&self, layer: usize) -> &'static str {
        self.projector[layer]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_leftovers_are_not_used() {
        let json = serde_json::json!({"model_type": "llava_next", "text_config": {"vocab_size": 32064}});
        let config = Config::from_json(&json).expect("a config");
        // Hidden state 23 of CLIP ViT-L's 24 layers, numbered from 0.
        for (tensor, expected) in [
            ("encoder.layers.22.mlp.fc1.bias", None),
            ("encoder.layers.23.mlp.fc1.bias", Some("vision_tower.vision_model.encoder.layers.23.*")),
            ("encoder.layers.24.mlp.fc1.bias", None),
            ("post_layernorm.weight", Some("vision_tower.vision_model.post_layernorm.*")),
            ("head.probe", Some("vision_tower.vision_model.head.*")),
            ("embeddings.position_ids", Some("*.position_ids")),
            ("pre_layrnorm.weight", None),
        ] {
            let got = HUB.not_used(&HUB.vision(tensor), &config);
            assert_eq!(got.as_deref(), expected, "{tensor} (got, expected)");
        }
        for (tensor, expected) in [
            (HUB.text("layers.23.mlp.up_proj.weight"), None),
            (HUB.text("layers.3.self_attn.rotary_emb.inv_freq"), Some("*.rotary_emb.inv_freq")),
            (HUB.newline.to_owned(), None),
        ] {
            assert_eq!(HUB.not_used(&tensor, &config).as_deref(), expected, "{tensor} (got, expected)");
        }
    }
}
