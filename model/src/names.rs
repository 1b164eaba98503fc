//! Names of tensors. Three layouts of checkpoints have different names; [`Names`] gives the names of one of them.
//!
//! | layout | text model | vision tower | projector |
//! |---|---|---|---|
//! | hub | `language_model.model.*`, `language_model.lm_head` | `vision_tower.vision_model.*` | `multi_modal_projector.linear_{1,2}` |
//! | transformers 5 | `model.language_model.*`, `lm_head` | `model.vision_tower.*` | `model.multi_modal_projector.linear_{1,2}` |
//! | original LLaVA | `model.layers.*`, `lm_head` | `model.vision_tower.vision_tower.vision_model.*` | `model.mm_projector.{0,2}` |
//!
//! In each layout the level `vision_model.` may be absent. `scale_selector.*` is Fovea's own, and the same in all layouts.

use fovea_runtime::{Error as RuntimeError, weights::Weights};
use serde::Serialize;

use crate::{
    config::{Config, VisionConfig},
    error::Error,
};

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
}

/// The names of one checkpoint's tensors.
#[derive(Clone, Debug)]
pub struct Names {
    /// The layout.
    pub naming: Naming,
    text: &'static str,
    head: &'static str,
    vision: &'static str,
    projector: [&'static str; 2],
    /// The newline embedding (C).
    pub newline: &'static str,
    /// Whether the checkpoint has the head only, which then is the embedding as well.
    head_is_embedding: bool,
}

/// Prefix of the scale selector's layer: weight (S, P*P) and bias (S).
pub const SELECTOR: &str = "scale_selector";
/// The norm before the first layer, in CLIP's spelling.
const PRE_LAYER_NORM: &str = "pre_layrnorm";

const HUB: Names = Names {
    naming: Naming::Hub,
    text: "language_model.model.",
    head: "language_model.lm_head",
    vision: "vision_tower.vision_model.",
    projector: ["multi_modal_projector.linear_1", "multi_modal_projector.linear_2"],
    newline: "image_newline",
    head_is_embedding: false,
};
const TRANSFORMERS: Names = Names {
    naming: Naming::Transformers,
    text: "model.language_model.",
    head: "lm_head",
    vision: "model.vision_tower.vision_model.",
    projector: ["model.multi_modal_projector.linear_1", "model.multi_modal_projector.linear_2"],
    newline: "model.image_newline",
    head_is_embedding: false,
};
const ORIGINAL: Names = Names {
    naming: Naming::Original,
    text: "model.",
    head: "lm_head",
    vision: "model.vision_tower.vision_tower.vision_model.",
    projector: ["model.mm_projector.0", "model.mm_projector.2"],
    newline: "model.image_newline",
    head_is_embedding: false,
};
/// The same vision towers without the `vision_model.` level, in the order above.
const FLAT_VISION: [&str; 3] = ["vision_tower.", "model.vision_tower.", "model.vision_tower.vision_tower."];

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
        for (mut names, flat) in [HUB, TRANSFORMERS, ORIGINAL].into_iter().zip(FLAT_VISION) {
            names.head_is_embedding =
                tied && !has(names.embedding()) && has(names.head()) && has(names.text("norm.weight"));
            if has(names.embedding()) {
                if !has(names.vision("embeddings.class_embedding")) && has(format!("{flat}embeddings.class_embedding"))
                {
                    names.vision = flat;
                }
                return Ok(names);
            }
        }
        Err(RuntimeError::Tensor {
            file: weights.files().first().cloned().unwrap_or_default(),
            tensor: HUB.embedding(),
            expected: "the text model's embedding under a name of the hub's, transformers' or the original layout"
                .into(),
            got: format!("{} tensors, none of these names", weights.entries().len()),
        }
        .into())
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

    /// The pattern of a vision tensor after the feature layer, which the network does not use: a later layer, or the last norm.
    /// None for every other tensor.
    pub(crate) fn after_feature_layer(&self, tensor: &str, config: &VisionConfig) -> Option<String> {
        let rest = tensor.strip_prefix(self.vision)?;
        if rest.starts_with("post_layernorm.") {
            return Some(self.vision("post_layernorm.*"));
        }
        let layer: usize = rest.strip_prefix("encoder.layers.")?.split('.').next()?.parse().ok()?;
        (config.n_used..config.n_layers).contains(&layer).then(|| self.vision_layer(layer, "*"))
    }

    /// A layer of the projector.
    ///
    /// # Panics
    /// If `layer` is not 0 or 1.
    pub fn projector(&self, layer: usize) -> &'static str {
        self.projector[layer]
    }

    /// Every tensor that the model needs, with its shape: linear layers, then vectors, then embeddings. `selector` is whether the
    /// checkpoint has a scale selector.
    pub fn needed(&self, config: &Config, selector: bool) -> Vec<(String, Vec<usize>)> {
        let mut all: Vec<(String, Vec<usize>)> = Vec::new();
        let mut linear = |name: String, out: usize, inputs: usize, bias: bool| {
            all.push((format!("{name}.weight"), vec![out, inputs]));
            if bias {
                all.push((format!("{name}.bias"), vec![out]));
            }
        };
        let (v, t) = (&config.vision, &config.text);
        for layer in 0..v.n_used {
            for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                linear(self.vision_layer(layer, &format!("self_attn.{name}")), v.d_model, v.d_model, true);
            }
            linear(self.vision_layer(layer, "mlp.fc1"), v.d_ff, v.d_model, true);
            linear(self.vision_layer(layer, "mlp.fc2"), v.d_model, v.d_ff, true);
        }
        linear(self.projector(0).to_owned(), t.d_model, v.d_model, config.projector_bias);
        linear(self.projector(1).to_owned(), t.d_model, t.d_model, config.projector_bias);
        if selector {
            linear(SELECTOR.to_owned(), config.focus.scales.len(), v.patches() * v.patches(), true);
        }
        for layer in 0..t.n_layers {
            let mut attention = |name: &str, out: usize, inputs: usize| {
                linear(self.text_layer(layer, &format!("self_attn.{name}")), out, inputs, t.attention_bias);
            };
            attention("q_proj", t.n_heads * t.d_head, t.d_model);
            attention("k_proj", t.n_kv_heads * t.d_head, t.d_model);
            attention("v_proj", t.n_kv_heads * t.d_head, t.d_model);
            attention("o_proj", t.d_model, t.n_heads * t.d_head);
            linear(self.text_layer(layer, "mlp.gate_proj"), t.d_ff, t.d_model, t.mlp_bias);
            linear(self.text_layer(layer, "mlp.up_proj"), t.d_ff, t.d_model, t.mlp_bias);
            linear(self.text_layer(layer, "mlp.down_proj"), t.d_model, t.d_ff, t.mlp_bias);
        }
        if !t.tied {
            linear(self.head.to_owned(), t.vocab, t.d_model, false);
        }
        let mut vector = |name: String, n: usize| all.push((name, vec![n]));
        vector(self.vision("embeddings.class_embedding"), v.d_model);
        let mut norms = vec![self.pre_layer_norm()];
        for layer in 0..v.n_used {
            norms.extend(["layer_norm1", "layer_norm2"].map(|n| self.vision_layer(layer, n)));
        }
        for norm in norms {
            vector(format!("{norm}.weight"), v.d_model);
            vector(format!("{norm}.bias"), v.d_model);
        }
        vector(self.newline.to_owned(), t.d_model);
        for layer in 0..t.n_layers {
            vector(self.text_layer(layer, "input_layernorm.weight"), t.d_model);
            vector(self.text_layer(layer, "post_attention_layernorm.weight"), t.d_model);
        }
        vector(self.text("norm.weight"), t.d_model);
        all.push((self.vision("embeddings.patch_embedding.weight"), vec![v.d_model, 3, v.patch, v.patch]));
        let places = v.patches() * v.patches() + 1;
        all.push((self.vision("embeddings.position_embedding.weight"), vec![places, v.d_model]));
        all.push((self.embedding(), vec![t.vocab, t.d_model]));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_vision_tensors_after_the_feature_layer_are_not_used() {
        let json = serde_json::json!({"model_type": "llava_next", "text_config": {"vocab_size": 32064}});
        let config = Config::from_json(&json).expect("a config");
        // Hidden state 23 of CLIP ViT-L's 24 layers, numbered from 0.
        for (tensor, expected) in [
            ("encoder.layers.22.mlp.fc1.bias", None),
            ("encoder.layers.23.mlp.fc1.bias", Some("vision_tower.vision_model.encoder.layers.23.*")),
            ("encoder.layers.24.mlp.fc1.bias", None),
            ("post_layernorm.weight", Some("vision_tower.vision_model.post_layernorm.*")),
            ("pre_layrnorm.weight", None),
        ] {
            let got = HUB.after_feature_layer(&HUB.vision(tensor), &config.vision);
            assert_eq!(got.as_deref(), expected, "{tensor} (got, expected)");
        }
        assert_eq!(HUB.after_feature_layer("language_model.model.layers.23.mlp.up_proj.weight", &config.vision), None);
    }
}
