//! Translates the config.json of the original LLaVA code: flat, with `mm_*` keys. Input: the file. Output: the same checkpoint in
//! Hugging Face's layout, the settings of its image processor, and its chat template.
//! Source: `llava_arch.py`, `mm_utils.py`, `multimodal_encoder` and `multimodal_projector` in haotian-liu/LLaVA and
//! LLaVA-VL/LLaVA-NeXT.
//!
//! Keys that only concern training or videos are ignored (`tune_mm_mlp_adapter`, `unfreeze_mm_vision_tower`, `delay_load`,
//! `mm_newline_position`, `mm_spatial_pool_mode`). So is `mm_use_im_patch_token`: its token is in no prompt.

use serde_json::{Map, Value, json};

use crate::{config::Keys, conversations, error::Error};

/// A checkpoint of the original layout in Hugging Face's terms.
#[derive(Debug)]
pub(crate) struct Translated {
    /// config.json.
    pub config: Value,
    /// preprocessor_config.json.
    pub image: Value,
    /// The chat template.
    pub conversation: &'static str,
}

/// `vision_config.model_type` of CLIP.
const CLIP: &str = "clip_vision_model";
/// `vision_config.model_type` of SigLIP.
const SIGLIP: &str = "siglip_vision_model";
/// The class default of `vision_config.image_size`, in pixels.
const DEFAULT_SIDE: u64 = 224;
/// Most tiles along a side of a canvas.
const MOST_TILES: u64 = 32;

/// Translates config.json; None if it does not have the original layout.
///
/// # Errors
/// [`Error::Config`] with the key, the expected and the found value, for what has no equivalent in Hugging Face's layout.
pub(crate) fn translated(config: &Value) -> Result<Option<Translated>, Error> {
    let has = |key: &str| config.get(key).is_some_and(|value| !value.is_null());
    if has("text_config") || !(has("mm_vision_tower") || has("mm_projector_type")) {
        return Ok(None);
    }
    let keys = Keys::new("config.json", config)?;
    refuse(&keys)?;
    let family = family(&keys)?;
    let vision = tower(&keys)?;
    let siglip = vision.get("model_type").and_then(Value::as_str) == Some(SIGLIP);
    let side = vision.get("image_size").and_then(Value::as_u64).unwrap_or(DEFAULT_SIDE);
    // LLaVA's SigLIP tower reads neither key: it deletes the last layer, and returns all patches of what is then the last state.
    let (layer, strategy) = if siglip {
        (json!(-1), "full")
    } else {
        let strategies = [("patch", "default")];
        let layer = required(&keys, "mm_vision_select_layer", "a whole number")?;
        (layer.clone(), keys.one_of("mm_vision_select_feature", "default", &strategies)?)
    };
    let text = text(config, family);
    let vocab = text.get("vocab_size").and_then(Value::as_u64).unwrap_or(match family {
        "qwen2" => 151_936,
        _ => 32_000,
    });
    let (model_type, processor) = layout(&keys, siglip)?;
    let (mean, std) = if siglip {
        ([0.5; 3], [0.5; 3])
    } else {
        ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    };
    let crops = ["CLIPImageProcessor", "LlavaNextImageProcessor"].contains(&processor);
    let square = json!({"height": side, "width": side});
    let mut image = json!({
        "image_processor_type": processor,
        "size": if crops { json!({"shortest_edge": side}) } else { square.clone() },
        "resample": 3,
        "image_mean": mean,
        "image_std": std,
    });
    if crops {
        image["crop_size"] = square;
    }
    let conversation = match keys.get("conversation") {
        None => conversations::chosen(family, vocab),
        Some(value) => value
            .as_str()
            .and_then(conversations::conversation)
            .ok_or_else(|| keys.wrong("conversation", &conversations::names(), value))?,
    };
    let mut config = json!({
        "model_type": model_type,
        "text_config": text,
        "vision_config": vision,
        // LLaVA's picture has no token; the caller removes the id.
        "image_token_index": 0,
        "vision_feature_layer": layer,
        "vision_feature_select_strategy": strategy,
        "projector_hidden_act": "gelu",
    });
    let ratio = keys.text("image_aspect_ratio", "square")?;
    if ratio == "pad" {
        // No class of Hugging Face's has this key; `TileConfig` reads it.
        image["image_aspect_ratio"] = json!(ratio);
    }
    if model_type != "llava" {
        let canvases = canvases(&keys, side)?;
        config["image_grid_pinpoints"] = canvases.clone();
        image["image_grid_pinpoints"] = canvases;
    }
    if model_type == "llava_onevision" {
        config["vision_aspect_ratio"] = json!(ratio);
    }
    if let Some(focus) = keys.get("focus") {
        config["focus"] = focus.clone();
    }
    Ok(Some(Translated { config, image, conversation }))
}

/// The error about a key of the translation, with the key of the file.
pub(crate) fn by_its_own_key(error: Error) -> Error {
    const KEYS: [(&str, &str); 5] = [
        ("text_config.", ""),
        ("vision_feature_layer", "mm_vision_select_layer"),
        ("vision_feature_select_strategy", "mm_vision_select_feature"),
        ("vision_aspect_ratio", "image_aspect_ratio"),
        ("projector_hidden_act", "mm_projector_type"),
    ];
    match error {
        Error::Config { key, why } => {
            let own = KEYS.iter().fold(key, |key, (theirs, own)| key.replace(theirs, own));
            Error::Config { key: own, why }
        }
        other => other,
    }
}

/// The error for a checkpoint with a SentencePiece model only, as the first LLaVA checkpoints have it.
pub(crate) fn without_tokenizer_json() -> Error {
    let why = "expected this file, got only tokenizer.model; write it with Python's transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR), or use the same model's conversion, llava-hf/... on the Hugging Face hub, which has one";
    Error::Tokenizer { file: "tokenizer.json".into(), why: why.into() }
}

/// The value of a key that has no default.
fn required<'a>(keys: &Keys<'a>, key: &str, expected: &str) -> Result<&'a Value, Error> {
    keys.get(key).ok_or_else(|| Error::Config {
        key: format!("{}{key}", keys.path),
        why: format!("expected {expected}, got none"),
    })
}

/// Refuses networks and prompts that Hugging Face's layout does not have.
fn refuse(keys: &Keys) -> Result<(), Error> {
    let projector = required(keys, "mm_projector_type", "mlp2x_gelu")?;
    if projector != "mlp2x_gelu" {
        return Err(keys.wrong("mm_projector_type", "mlp2x_gelu", projector));
    }
    for key in ["mm_use_im_start_end", "s2"] {
        if keys.flag(key, false)? {
            return Err(keys.wrong(key, "false (true is not supported)", &Value::Bool(true)));
        }
    }
    match keys.get("mm_resampler_type") {
        None => Ok(()),
        Some(value) => Err(keys.wrong("mm_resampler_type", "null (resamplers are not supported)", value)),
    }
}

/// `model_type` of the text model. The class comes first: published files with Qwen2 have `model_type` llava.
fn family(keys: &Keys) -> Result<&'static str, Error> {
    let classes =
        [("LlavaLlamaForCausalLM", "llama"), ("LlavaMistralForCausalLM", "mistral"), ("LlavaQwenForCausalLM", "qwen2")];
    let types = [("llava", "llama"), ("llava_llama", "llama"), ("llava_mistral", "mistral"), ("llava_qwen", "qwen2")];
    let Some(listed) = keys.get("architectures") else {
        required(keys, "model_type", "llava, llava_llama, llava_mistral or llava_qwen")?;
        return keys.one_of("model_type", "llama", &types);
    };
    let found = classes.iter().find(|(class, _)| listed.get(0).and_then(Value::as_str) == Some(*class));
    found.map(|(_, family)| *family).ok_or_else(|| {
        let expected = classes.map(|(class, _)| class).join(" or ");
        keys.wrong("architectures", &expected, listed)
    })
}

/// `text_config`: the flat keys without those of pictures.
fn text(config: &Value, family: &str) -> Map<String, Value> {
    let mut text = config.as_object().cloned().unwrap_or_default();
    let others = ["architectures", "conversation", "focus", "vision_config"];
    text.retain(|key, _| {
        !(key.starts_with("mm_") || key.starts_with("image_") || others.contains(&key.as_str()))
            // LLaVA's classes for Mistral and Qwen2 ignore it.
            && (key != "rope_scaling" || family == "llama")
    });
    text.insert("model_type".to_owned(), family.into());
    text
}

/// `vision_config`: the object of this name, or that of a known vision tower. It describes the layers that are in the file.
fn tower(keys: &Keys) -> Result<Map<String, Value>, Error> {
    const KEY: &str = "mm_vision_tower";
    let path = keys.text(KEY, "")?;
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let own = keys.object("vision_config")?.value.and_then(Value::as_object).filter(|own| !own.is_empty());
    let known = |model_type: &str, sizes: [u64; 6]| {
        let names = [
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "image_size",
            "patch_size",
        ];
        let sizes = names.iter().zip(sizes).map(|(name, size)| ((*name).to_owned(), Value::from(size)));
        sizes.chain([("model_type".to_owned(), Value::from(model_type))]).collect()
    };
    match (own, name) {
        (Some(own), _) => {
            let mut own = own.clone();
            let model_type = if name.contains("siglip") { SIGLIP } else { CLIP };
            own.entry("model_type").or_insert_with(|| Value::from(model_type));
            Ok(own)
        }
        (None, "clip-vit-large-patch14-336") => Ok(known(CLIP, [1024, 4096, 24, 16, 336, 14])),
        (None, "clip-vit-large-patch14") => Ok(known(CLIP, [1024, 4096, 24, 16, 224, 14])),
        // LLaVA deletes the last of its 27 layers.
        (None, "siglip-so400m-patch14-384") => Ok(known(SIGLIP, [1152, 4304, 26, 16, 384, 14])),
        (None, _) => {
            let expected = "openai/clip-vit-large-patch14-336, openai/clip-vit-large-patch14, google/siglip-so400m-patch14-384, or an object vision_config with the sizes of the tower";
            Err(keys.wrong(KEY, expected, required(keys, KEY, expected)?))
        }
    }
}

/// `model_type`, and the class of the image processor.
fn layout(keys: &Keys, siglip: bool) -> Result<(&'static str, &'static str), Error> {
    let ratio = keys.text("image_aspect_ratio", "square")?;
    let merge = keys.text("mm_patch_merge_type", "flat")?;
    match (ratio, merge) {
        ("square" | "pad", "flat" | "spatial") if siglip => Ok(("llava", "SiglipImageProcessor")),
        ("square" | "pad", "flat" | "spatial") => Ok(("llava", "CLIPImageProcessor")),
        ("anyres", "spatial_unpad") => Ok(("llava_next", "LlavaNextImageProcessor")),
        (_, "spatial_unpad") if ratio.starts_with("anyres_max_") => {
            Ok(("llava_onevision", "LlavaOnevisionImageProcessor"))
        }
        ("square" | "pad", other) => {
            let expected = format!("flat, for image_aspect_ratio {ratio}");
            Err(keys.wrong("mm_patch_merge_type", &expected, &other.into()))
        }
        (_, other) if ratio == "anyres" || ratio.starts_with("anyres_max_") => {
            let expected = format!("spatial_unpad, for image_aspect_ratio {ratio}");
            Err(keys.wrong("mm_patch_merge_type", &expected, &other.into()))
        }
        _ => {
            let expected = "anyres, anyres_max_9, pad or square (for others use the model's conversion for Hugging Face, if llava-hf on the hub has one)";
            Err(keys.wrong("image_aspect_ratio", expected, &ratio.into()))
        }
    }
}

/// `image_grid_pinpoints`: a list, or a text with that list or with the smallest and the largest number of tiles, such as
/// `(1x1),...,(6x6)`.
///
/// LLaVA reads the pairs as (width, height). Hugging Face reads them as (height, width), and its conversions of LLaVA's
/// checkpoints keep the list. The published lists hold both orders of each pair, so only the choice between equally good canvases
/// differs, for pictures of about one tile. Here the pairs are read as Hugging Face does.
fn canvases(keys: &Keys, side: u64) -> Result<Value, Error> {
    const KEY: &str = "image_grid_pinpoints";
    const EXPECTED: &str = "a list of pairs, or a text such as (1x1),...,(6x6)";
    let value = required(keys, KEY, EXPECTED)?;
    let pairs = match value.as_str() {
        None => pairs(value),
        Some(range) if range.contains('x') => tiles(range, side),
        // A list of Python, perhaps of tuples.
        Some(list) => {
            serde_json::from_str::<Value>(&list.replace('(', "[").replace(')', "]")).ok().and_then(|list| pairs(&list))
        }
    };
    pairs.map(|pairs| json!(pairs)).ok_or_else(|| keys.wrong(KEY, EXPECTED, value))
}

/// A list of pairs.
fn pairs(list: &Value) -> Option<Vec<[u64; 2]>> {
    let pair = |pair: &Value| match pair.as_array()?.as_slice() {
        [height, width] => Some([height.as_u64()?, width.as_u64()?]),
        _ => None,
    };
    list.as_array()?.iter().map(pair).collect()
}

/// All canvases from the first to the last number of tiles, in pixels.
fn tiles(range: &str, side: u64) -> Option<Vec<[u64; 2]>> {
    let number = |digits: &str| digits.parse::<u64>().ok().filter(|n| (1..=MOST_TILES).contains(n));
    let pair = |part: &str| {
        let (width, rest) = part.split_once('x')?;
        Some((number(width)?, number(rest.split_once(')')?.0)?))
    };
    let ends: Vec<Option<(u64, u64)>> = range.split('(').skip(1).map(pair).collect();
    let (first, last) = ((*ends.first()?)?, (*ends.last()?)?);
    let row = |first_side: u64| (first.1..=last.1).map(move |other| [first_side, other.saturating_mul(side)]);
    let found: Vec<_> = (first.0..=last.0).flat_map(|first_side| row(first_side.saturating_mul(side))).collect();
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, TileConfig};

    /// Keys of config.json that change nothing here, as training left them in liuhaotian/llava-v1.6-vicuna-7b.
    fn left_by_training() -> Value {
        json!({
            "_name_or_path": "./checkpoints/vicuna-7b-v1-6",
            "freeze_mm_mlp_adapter": false,
            "image_crop_resolution": 224,
            "image_split_resolution": 224,
            "mm_hidden_size": 1024,
            "mm_projector_lr": null,
            "mm_resampler_type": null,
            "mm_use_im_patch_token": false,
            "mm_use_im_start_end": false,
            "mm_vision_tower_lr": 2e-06,
            "tune_mm_mlp_adapter": false,
            "unfreeze_mm_vision_tower": true,
            "use_mm_proj": true
        })
    }

    fn with(mut config: Value, more: &Value) -> Value {
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    }

    /// liuhaotian/llava-v1.6-vicuna-7b.
    fn vicuna() -> Value {
        with(
            left_by_training(),
            &json!({
                "architectures": ["LlavaLlamaForCausalLM"],
                "bos_token_id": 1,
                "eos_token_id": 2,
                "hidden_act": "silu",
                "hidden_size": 4096,
                "image_aspect_ratio": "anyres",
                "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
                "intermediate_size": 11008,
                "max_position_embeddings": 4096,
                "mm_patch_merge_type": "spatial_unpad",
                "mm_projector_type": "mlp2x_gelu",
                "mm_vision_select_feature": "patch",
                "mm_vision_select_layer": -2,
                "mm_vision_tower": "openai/clip-vit-large-patch14-336",
                "model_type": "llava",
                "num_attention_heads": 32,
                "num_hidden_layers": 32,
                "num_key_value_heads": 32,
                "rms_norm_eps": 1e-05,
                "rope_scaling": null,
                "tie_word_embeddings": false,
                "vocab_size": 32000
            }),
        )
    }

    /// What liuhaotian/llava-v1.6-mistral-7b has instead.
    fn mistral() -> Value {
        with(
            vicuna(),
            &json!({
                "architectures": ["LlavaMistralForCausalLM"],
                "intermediate_size": 14336,
                "max_position_embeddings": 32768,
                "model_type": "llava_mistral",
                "num_key_value_heads": 8,
                "rope_theta": 1e6,
                "sliding_window": null
            }),
        )
    }

    /// What lmms-lab/llama3-llava-next-8b has instead.
    fn llama3() -> Value {
        with(
            vicuna(),
            &json!({
                "bos_token_id": 128000,
                "eos_token_id": 128001,
                "intermediate_size": 14336,
                "max_position_embeddings": 8192,
                "model_type": "llava_llama",
                "num_key_value_heads": 8,
                "rope_theta": 500000.0,
                "vocab_size": 128256
            }),
        )
    }

    /// lmms-lab/llava-onevision-qwen2-7b-ov, with its canvases as the text that its training script has.
    fn onevision() -> Value {
        json!({
            "architectures": ["LlavaQwenForCausalLM"],
            "bos_token_id": 151643,
            "eos_token_id": 151645,
            "hidden_act": "silu",
            "hidden_size": 3584,
            "image_aspect_ratio": "anyres_max_9",
            "image_crop_resolution": null,
            "image_grid_pinpoints": "(1x1),...,(6x6)",
            "image_token_index": 151646,
            "intermediate_size": 18944,
            "max_position_embeddings": 32768,
            "max_window_layers": 28,
            "mm_hidden_size": 1152,
            "mm_newline_position": "one_token",
            "mm_patch_merge_type": "spatial_unpad",
            "mm_projector_type": "mlp2x_gelu",
            "mm_resampler_type": null,
            "mm_spatial_pool_mode": "bilinear",
            "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model",
            "mm_use_im_start_end": false,
            "mm_vision_select_feature": "patch",
            "mm_vision_select_layer": -2,
            "mm_vision_tower": "google/siglip-so400m-patch14-384",
            "model_type": "llava",
            "num_attention_heads": 28,
            "num_hidden_layers": 28,
            "num_key_value_heads": 4,
            "rms_norm_eps": 1e-06,
            "rope_scaling": null,
            "rope_theta": 1e6,
            "sliding_window": 131072,
            "tie_word_embeddings": false,
            "use_sliding_window": false,
            "vocab_size": 152064
        })
    }

    /// What liuhaotian/llava-v1.5-7b has instead. It has no `mm_patch_merge_type` and no canvases.
    fn llava15() -> Value {
        let mut config = with(vicuna(), &json!({"image_aspect_ratio": "pad", "unfreeze_mm_vision_tower": false}));
        let keys = config.as_object_mut().unwrap();
        keys.remove("mm_patch_merge_type");
        keys.remove("image_grid_pinpoints");
        config
    }

    fn done(config: &Value) -> Translated {
        translated(config).unwrap().expect("the original layout")
    }

    /// The key and the reason of the error after `change`.
    fn refused(config: Value, change: &Value) -> (String, String) {
        match translated(&with(config, change)) {
            Err(Error::Config { key, why }) => (key, why),
            other => panic!("{change}: expected a config error, got {other:?}"),
        }
    }

    #[test]
    fn translates_llava_next_with_vicuna() {
        let found = done(&vicuna());
        let mut config = found.config.clone();
        let text = config["text_config"].take();
        let canvases = json!([[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]);
        let expected = json!({
            "model_type": "llava_next",
            "text_config": null,
            "vision_config": {
                "model_type": "clip_vision_model",
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "image_size": 336,
                "patch_size": 14
            },
            "image_token_index": 0,
            "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default",
            "projector_hidden_act": "gelu",
            "image_grid_pinpoints": canvases
        });
        assert_eq!(config, expected);
        for (key, value) in [
            ("model_type", json!("llama")),
            ("hidden_size", json!(4096)),
            ("intermediate_size", json!(11008)),
            ("num_key_value_heads", json!(32)),
            ("max_position_embeddings", json!(4096)),
            ("eos_token_id", json!(2)),
            ("vocab_size", json!(32000)),
        ] {
            assert_eq!(text[key], value, "{key}");
        }
        let pictures = |key: &String| key.starts_with("mm_") || key.starts_with("image_");
        assert!(!text.as_object().unwrap().keys().any(pictures), "{text}");
        let image = json!({
            "image_processor_type": "LlavaNextImageProcessor",
            "size": {"shortest_edge": 336},
            "crop_size": {"height": 336, "width": 336},
            "resample": 3,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "image_grid_pinpoints": canvases
        });
        assert_eq!(found.image, image);
        assert_eq!(Some(found.conversation), conversations::conversation("vicuna_v1"));
    }

    #[test]
    fn translates_the_other_text_models() {
        for (config, family, conversation) in [
            (mistral(), "mistral", "mistral_instruct"),
            (llama3(), "llama", "llava_llama_3"),
            (with(vicuna(), &json!({"vocab_size": 64000})), "llama", "chatml_direct"),
        ] {
            let found = done(&config);
            assert_eq!(found.config["text_config"]["model_type"], family);
            assert_eq!(Some(found.conversation), conversations::conversation(conversation));
        }
        let found = done(&mistral());
        let text = &found.config["text_config"];
        assert!(text.as_object().unwrap().contains_key("sliding_window"), "null means no window: {text}");
        assert_eq!((&text["rope_theta"], &text["num_key_value_heads"]), (&json!(1e6), &json!(8)));
        // Without a class, the type decides.
        for (model_type, family) in
            [("llava", "llama"), ("llava_llama", "llama"), ("llava_mistral", "mistral"), ("llava_qwen", "qwen2")]
        {
            let found = done(&with(vicuna(), &json!({"architectures": null, "model_type": model_type})));
            assert_eq!(found.config["text_config"]["model_type"], family);
        }
    }

    #[test]
    fn translates_onevision() {
        let found = done(&onevision());
        let config = &found.config;
        assert_eq!(config["model_type"], "llava_onevision");
        assert_eq!(config["text_config"]["model_type"], "qwen2");
        assert_eq!(config["vision_aspect_ratio"], "anyres_max_9");
        assert_eq!(config["vision_feature_select_strategy"], "full");
        // Of 27 layers LLaVA deletes one; -1 is the output of the last that is left.
        assert_eq!(
            (&config["vision_config"]["num_hidden_layers"], &config["vision_feature_layer"]),
            (&json!(26), &json!(-1))
        );
        let canvases = config["image_grid_pinpoints"].as_array().unwrap();
        assert_eq!(canvases.len(), 36);
        assert_eq!(
            (&canvases[1], &canvases[6], &canvases[35]),
            (&json!([384, 768]), &json!([768, 384]), &json!([2304, 2304]))
        );
        let mut image = found.image.clone();
        assert_eq!(image["image_grid_pinpoints"].take(), config["image_grid_pinpoints"]);
        let expected = json!({
            "image_processor_type": "LlavaOnevisionImageProcessor",
            "size": {"height": 384, "width": 384},
            "resample": 3,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "image_grid_pinpoints": null
        });
        assert_eq!(image, expected);
        assert_eq!(Some(found.conversation), conversations::conversation("qwen_1_5"));
    }

    #[test]
    fn translates_one_tile() {
        let padded = done(&llava15());
        assert_eq!(padded.config["model_type"], "llava");
        assert!(padded.config.get("image_grid_pinpoints").is_none());
        let image = json!({
            "image_processor_type": "CLIPImageProcessor",
            "image_aspect_ratio": "pad",
            "size": {"shortest_edge": 336},
            "crop_size": {"height": 336, "width": 336},
            "resample": 3,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711]
        });
        assert_eq!(padded.image, image);
        // Without `pad`, LLaVA gives the picture to the tower's own processor, which crops (CLIP) or squashes (SigLIP).
        let plain = done(&with(llava15(), &json!({"image_aspect_ratio": "square"})));
        assert!(plain.image.get("image_aspect_ratio").is_none());
        assert_eq!(plain.config["vision_feature_select_strategy"], "default");
        let siglip = json!({"image_aspect_ratio": null, "mm_vision_tower": "/models/siglip-so400m-patch14-384/"});
        let siglip = done(&with(llava15(), &siglip)).image;
        assert_eq!(siglip["image_processor_type"], "SiglipImageProcessor");
        assert_eq!((&siglip["size"], siglip.get("crop_size")), (&json!({"height": 384, "width": 384}), None));
    }

    #[test]
    fn the_translation_is_a_valid_config() {
        let siglip = json!({
            "mm_vision_tower": "google/siglip-so400m-patch14-384",
            "image_grid_pinpoints": [[384, 768], [768, 384], [768, 768]]
        });
        for (config, model_type, family, used) in [
            (vicuna(), "llava_next", "llama", 23),
            (mistral(), "llava_next", "mistral", 23),
            (llama3(), "llava_next", "llama", 23),
            (with(vicuna(), &siglip), "llava_next", "llama", 26),
            (onevision(), "llava_onevision", "qwen2", 26),
            (llava15(), "llava", "llama", 23),
        ] {
            let found = done(&config);
            let read = Config::from_json(&found.config).unwrap();
            TileConfig::from_json("p.json", &found.image, &read.layout, read.vision.side).unwrap();
            assert_eq!((read.model_type, read.text.family, read.vision.n_used), (model_type, family, used));
        }
    }

    #[test]
    fn own_keys_win() {
        let own = json!({"hidden_size": 32, "num_hidden_layers": 2, "image_size": 28, "patch_size": 14});
        let more = json!({"vision_config": own, "focus": {"text_layer": 2}, "conversation": "chatml_direct"});
        let found = done(&with(vicuna(), &more));
        assert_eq!(found.config["vision_config"], with(own, &json!({"model_type": "clip_vision_model"})));
        assert_eq!(found.config["focus"], json!({"text_layer": 2}));
        assert_eq!(found.image["size"], json!({"shortest_edge": 28}));
        assert_eq!(Some(found.conversation), conversations::conversation("chatml_direct"));
        assert!(found.config["text_config"].get("focus").is_none());
    }

    #[test]
    fn reads_canvases_as_python_does() {
        let read = |value: Value| {
            done(&with(vicuna(), &json!({"image_grid_pinpoints": value}))).config["image_grid_pinpoints"].clone()
        };
        assert_eq!(read(json!("[(336, 672), (1008, 336)]")), json!([[336, 672], [1008, 336]]));
        assert_eq!(read(json!("[[336, 672]]")), json!([[336, 672]]));
        assert_eq!(read(json!("(1x2),(2x3)")), json!([[336, 672], [336, 1008], [672, 672], [672, 1008]]));
    }

    #[test]
    fn other_layouts_are_left_alone() {
        for config in [
            json!({"model_type": "llava_next", "text_config": {}}),
            json!({"model_type": "llava", "text_config": {}, "mm_projector_type": "mlp2x_gelu"}),
            json!({"model_type": "llama"}),
            json!([]),
        ] {
            assert!(translated(&config).unwrap().is_none(), "{config}");
        }
    }

    #[test]
    fn what_has_no_equivalent_names_its_key() {
        for (key, value) in [
            ("architectures", json!(["LlavaMptForCausalLM"])),
            ("architectures", json!([])),
            ("conversation", json!("alpaca")),
            ("image_aspect_ratio", json!("highres")),
            ("image_grid_pinpoints", json!(null)),
            ("image_grid_pinpoints", json!("(6x6),...,(1x1)")),
            ("image_grid_pinpoints", json!("(1x1),...,(1000000x1000000)")),
            ("image_grid_pinpoints", json!("(1x")),
            ("image_grid_pinpoints", json!("336")),
            ("image_grid_pinpoints", json!([[336, 672, 1]])),
            ("mm_patch_merge_type", json!("flat")),
            ("mm_patch_merge_type", json!("spatial")),
            ("mm_projector_type", json!("linear")),
            ("mm_projector_type", json!(null)),
            ("mm_resampler_type", json!("spatial_pool")),
            ("mm_use_im_start_end", json!(true)),
            ("mm_vision_select_feature", json!("slicefour_patch")),
            ("mm_vision_select_layer", json!(null)),
            ("mm_vision_tower", json!("laion/CLIP-ViT-H-14")),
            ("mm_vision_tower", json!(null)),
            ("s2", json!(true)),
        ] {
            let (found, why) = refused(vicuna(), &json!({key: value}));
            assert_eq!(found, format!("config.json: {key}"), "{value}");
            assert!(why.starts_with("expected ") && why.contains(", got "), "{why}");
        }
        let (key, why) = refused(llava15(), &json!({"mm_patch_merge_type": "spatial_unpad"}));
        assert_eq!((key.as_str(), why.contains("image_aspect_ratio pad")), ("config.json: mm_patch_merge_type", true));
        let (key, _) = refused(vicuna(), &json!({"architectures": null, "model_type": "llava_mpt"}));
        assert_eq!(key, "config.json: model_type");
    }

    #[test]
    fn a_missing_tokenizer_json_says_what_to_do() {
        let said = without_tokenizer_json().to_string();
        assert!(
            said.starts_with("tokenizer.json: expected")
                && said.contains("AutoTokenizer")
                && said.contains("llava-hf/"),
            "{said}"
        );
    }
}
