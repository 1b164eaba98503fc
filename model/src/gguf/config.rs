//! Input: the metadata of GGUF files. Output: the objects of config.json and preprocessor_config.json.

use fovea_runtime::gguf::{Gguf, Value as Entry};
use serde_json::{Map, Value, json};

use super::{ARCHITECTURE, tokenizer::Tokens};
use crate::error::Error;

/// The text model.
pub(super) struct Text {
    /// `text_config`.
    pub json: Map<String, Value>,
    /// The number of query heads and of key heads, if the rows of their matrices are permuted.
    pub permuted: Option<[u64; 2]>,
    /// Whether the output head shares the weights of the embedding.
    pub tied: bool,
}

/// The vision tower.
pub(super) struct Tower {
    /// `vision_config`.
    pub json: Map<String, Value>,
    /// `vision_feature_layer`.
    pub feature_layer: Value,
    /// Whether it is CLIP, which has a class token, and not SigLIP.
    pub class_token: bool,
    /// Width.
    pub width: u64,
    /// Side of a patch, in pixels.
    pub patch: u64,
    /// Side of a tile, in pixels.
    pub side: u64,
}

/// How pictures are cut.
pub(super) struct Layout {
    pub model_type: &'static str,
    pub canvases: Option<Vec<[u64; 2]>>,
    /// `anyres_max_N`.
    pub most_tiles: Option<String>,
    /// Whether the picture is padded to a square.
    pads: bool,
}

/// A float of 32 bits as the decimal number that was meant: 1e-5 and not 9.99999974e-6.
fn decimal(x: f64) -> f64 {
    if f64::from(x as f32) == x { (x as f32).to_string().parse().unwrap_or(x) } else { x }
}

fn number(value: &Entry) -> Option<f64> {
    value.number().map(decimal)
}

/// `model_type` of the text model. GGUF has one architecture for Llama, Vicuna, Mistral and Yi, because their networks
/// are the same; here they differ in the conversation.
pub(super) fn family(text: &Gguf, tokens: &Tokens<'_>) -> Result<&'static str, Error> {
    match text.need(ARCHITECTURE, "a text", Entry::text)? {
        "qwen2" => Ok("qwen2"),
        "llama" => {
            let name = text.get("general.name", "a text", Entry::text)?.unwrap_or_default().to_ascii_lowercase();
            let number = |key: &str| text.metadata.get(key).and_then(Entry::count);
            let window = number("llama.attention.sliding_window").is_some_and(|window| window > 0);
            let grouped = number("llama.attention.head_count") != number("llama.attention.head_count_kv");
            // Of LLaVA's models with the vocabulary of Llama 2, only Mistral groups its heads.
            let llama2 = tokens.is_sentence_piece() && (32_000..33_000).contains(&tokens.len());
            let other = ["vicuna", "llama", "yi"].iter().any(|other| name.contains(other)) && !name.contains("llava");
            Ok(if window || name.contains("mistral") || grouped && llama2 && !other { "mistral" } else { "llama" })
        }
        other => Err(text.wrong(ARCHITECTURE, "llama or qwen2", other).into()),
    }
}

/// `text_config`.
pub(super) fn text(text: &Gguf, family: &str, tokens: &Tokens<'_>, factors: Option<&[f32]>) -> Result<Text, Error> {
    let arch = text.need(ARCHITECTURE, "a text", Entry::text)?;
    let key = |rest: &str| format!("{arch}.{rest}");
    let need = |rest: &str| text.need(&key(rest), "a whole number", Entry::count);
    let get = |rest: &str| text.get(&key(rest), "a whole number", Entry::count);
    // A list has one number per layer.
    let same = |rest: &str| {
        text.get(&key(rest), "a whole number, or a list of the same number for each layer", |value| {
            match value.array() {
                None => value.count(),
                Some(list) => {
                    list.first().and_then(Entry::count).filter(|_| list.windows(2).all(|pair| pair[0] == pair[1]))
                }
            }
        })
    };
    for refused in ["expert_count", "attention.shared_kv_layers", "rope.dimension_sections"] {
        if let Some(value) = text.metadata.get(&key(refused)).filter(|value| value.count() != Some(0)) {
            let got = value.count().map_or("a list".to_owned(), |n| n.to_string());
            return Err(text.wrong(&key(refused), "none", &got).into());
        }
    }
    let (width, layers) = (need("embedding_length")?, need("block_count")?);
    let heads = same("attention.head_count")?;
    let heads = heads
        .filter(|n| *n > 0)
        .ok_or_else(|| text.wrong(&key("attention.head_count"), "a number above 0", "none or 0"))?;
    let key_heads = same("attention.head_count_kv")?.unwrap_or(heads);
    let head = get("attention.key_length")?.unwrap_or(width / heads);
    for (rest, expected) in [("attention.value_length", head), ("rope.dimension_count", head)] {
        if let Some(got) = get(rest)?.filter(|got| *got != expected) {
            return Err(text.wrong(&key(rest), &format!("the width of a head, {expected}"), &got.to_string()).into());
        }
    }
    let Some(table) = text.tensor("token_embd.weight") else {
        return Err(text
            .wrong_tensor("token_embd.weight", "the embedding".into(), "no tensor of this name".into())
            .into());
    };
    let rows = table.shape.first().copied().unwrap_or(0);
    if rows < tokens.len() as u64 {
        let expected = format!("a row for each of the {} tokens of tokenizer.ggml.tokens", tokens.len());
        return Err(text.wrong_tensor("token_embd.weight", expected, format!("{rows}")).into());
    }
    let theta = text.get(&key("rope.freq_base"), "a number", number)?.unwrap_or(1e4);
    let has = |name: &str| text.tensor(name).is_some();
    let feed_forward = same("feed_forward_length")?
        .ok_or_else(|| text.wrong(&key("feed_forward_length"), "a whole number", "none"))?;
    let window = get("attention.sliding_window")?.filter(|window| *window > 0);
    if family == "mistral" && has("blk.0.attn_q.bias") {
        return Err(text.wrong_tensor("blk.0.attn_q.bias", "no bias, as in Mistral".into(), "one".into()).into());
    }
    let mut json = json!({
        "model_type": family,
        "hidden_size": width,
        "intermediate_size": feed_forward,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "head_dim": head,
        "rms_norm_eps": text.need(&key("attention.layer_norm_rms_epsilon"), "a number", number)?,
        "rope_theta": theta,
        "max_position_embeddings": need("context_length")?,
        "vocab_size": rows,
        "attention_bias": family == "llama" && (has("blk.0.attn_q.bias") || has("blk.0.attn_output.bias")),
        "mlp_bias": has("blk.0.ffn_down.bias"),
        "sliding_window": window,
        // Of Qwen2, which slides in the layers from this one.
        "use_sliding_window": window.is_some(),
        "max_window_layers": 0,
    });
    if let Some(scaling) = scaling(text, arch, theta, head, factors)? {
        json["rope_scaling"] = scaling;
    }
    let json = match json {
        Value::Object(json) => json,
        _ => Map::new(),
    };
    let permuted = (arch == "llama").then_some([heads, key_heads]);
    Ok(Text { json, permuted, tied: !has("output.weight") })
}

/// `rope_scaling`.
fn scaling(text: &Gguf, arch: &str, theta: f64, head: u64, factors: Option<&[f32]>) -> Result<Option<Value>, Error> {
    let key = format!("{arch}.rope.scaling.type");
    let factor = |key: &str| text.get(key, "a number above 0", |v| number(v).filter(|x| *x > 0.0));
    let old = factor(&format!("{arch}.rope.scale_linear"))?;
    let new = factor(&format!("{arch}.rope.scaling.factor"))?;
    let linear = match text.get(&key, "a text", Entry::text)? {
        Some("linear") => new.or(old),
        Some("none") => None,
        None => new.or(old),
        Some(other) => return Err(text.wrong(&key, "none or linear", other).into()),
    };
    let linear = linear.filter(|factor| *factor != 1.0);
    let Some(factors) = factors.filter(|factors| factors.iter().any(|factor| *factor != 1.0)) else {
        return Ok(linear.map(|factor| json!({"rope_type": "linear", "factor": factor})));
    };
    // The file has the quotients of Llama 3.1's scaling, not its four settings. These are those of all published
    // models.
    let largest = decimal(factors.iter().fold(0.0f32, |most, factor| most.max(*factor)).into());
    let (low, high, original) = (1.0, 4.0, 8192.0);
    let found = factors.iter().enumerate().all(|(i, got)| {
        let wavelength = std::f64::consts::TAU * theta.powf(2.0 * i as f64 / head as f64);
        let smooth = ((original / wavelength - low) / (high - low)).clamp(0.0, 1.0);
        let expected = 1.0 / ((1.0 - smooth) / largest + smooth);
        (f64::from(*got) / expected - 1.0).abs() < 1e-4
    });
    if !found || factors.len() as u64 != head / 2 || linear.is_some() {
        let expected = format!("the {} factors of Llama 3.1 for 8192 positions", head / 2);
        let got = format!("{} other factors, up to {largest}", factors.len());
        return Err(text.wrong_tensor(super::ROPE_FACTORS, expected, got).into());
    }
    Ok(Some(json!({
        "rope_type": "llama3",
        "factor": largest,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    })))
}

/// `vision_config` and the feature layer.
pub(super) fn vision(vision: &Gguf, notes: &mut Vec<String>) -> Result<Tower, Error> {
    let key = |rest: &str| format!("clip.vision.{rest}");
    let need = |rest: &str| vision.need(&key(rest), "a whole number", Entry::count);
    let flag = |key: &str| vision.get(key, "true or false", Entry::flag).map(|flag| flag.unwrap_or(false));
    if vision.get("clip.has_vision_encoder", "true or false", Entry::flag)? == Some(false) {
        return Err(vision.wrong("clip.has_vision_encoder", "true", "false").into());
    }
    let projector = "clip.projector_type";
    let other = vision.get(projector, "a text", Entry::text)?.filter(|kind| *kind != "mlp");
    // The projector of Yi-VL has norms between its layers.
    let norms = ["mm.1.weight", "mm.3.weight"].iter().any(|norm| vision.tensor(norm).is_some()).then_some("mlp_norm");
    if let Some(got) = other.or(norms) {
        return Err(vision.wrong(projector, "mlp, LLaVA's two linear layers", got).into());
    }
    let class_token = vision.tensor("v.class_embd").is_some();
    let (width, layers) = (need("embedding_length")?, need("block_count")?);
    let given = vision.get(&key("feed_forward_length"), "a whole number", Entry::count)?.filter(|n| *n > 0);
    // Old files have 0; the bias of the wider layer has this many values.
    let widest = || {
        let rows = |name: &str| vision.tensor(name).and_then(|info| info.shape.first().copied());
        rows("v.blk.0.ffn_up.bias").max(rows("v.blk.0.ffn_down.bias"))
    };
    let activation = match (flag("clip.use_silu")?, flag("clip.use_gelu")?) {
        (true, _) => "silu",
        // llama.cpp has no key for SigLIP's activation.
        _ if !class_token => "gelu_pytorch_tanh",
        (_, true) => "gelu",
        _ => "quick_gelu",
    };
    let features = vision.get(&key("feature_layer"), "a list of whole numbers", |value| match value.array() {
        None => value.count().map(|one| vec![one]),
        Some(list) => list.iter().map(Entry::count).collect(),
    })?;
    // Converters leave out the layers after the feature layer: the last state is the feature, except where all are
    // there.
    let complete = matches!((width, layers), (1024, 24) | (1152, 27));
    let feature_layer = match features.as_deref() {
        Some([one]) => json!(one),
        Some(several) if !several.is_empty() => json!(several),
        _ if complete => {
            notes.push(format!("{} names no feature layer: the one before the last of {layers} is used", vision.file));
            json!(-2)
        }
        _ => json!(-1),
    };
    let (side, patch) = (need("image_size")?, need("patch_size")?);
    let epsilon = vision.get(&key("attention.layer_norm_epsilon"), "a number", number)?;
    let mut json = Map::new();
    for (key, value) in [
        ("model_type", json!(if class_token { "clip_vision_model" } else { "siglip_vision_model" })),
        ("hidden_size", json!(width)),
        ("intermediate_size", json!(given.or_else(widest))),
        ("num_hidden_layers", json!(layers)),
        ("num_attention_heads", json!(need("attention.head_count")?)),
        ("image_size", json!(side)),
        ("patch_size", json!(patch)),
        ("hidden_act", json!(activation)),
        ("layer_norm_eps", json!(epsilon)),
    ] {
        json.insert(key.to_owned(), value);
    }
    Ok(Tower { json, feature_layer, class_token, width, patch, side })
}

/// Whether pictures are cut into tiles, and the canvases.
pub(super) fn layout(vision: &Gguf, notes: &mut Vec<String>) -> Result<Layout, Error> {
    let key = |rest: &str| format!("clip.vision.{rest}");
    let points = "image_grid_pinpoints";
    let expected = "a list of pairs of whole numbers";
    let numbers: Option<Vec<u64>> = vision.get(&key(points), expected, |value| {
        value
            .array()?
            .iter()
            .map(Entry::count)
            .collect::<Option<Vec<u64>>>()
            .filter(|list| list.len().is_multiple_of(2))
    })?;
    let canvases = numbers.filter(|list| !list.is_empty());
    let canvases: Option<Vec<[u64; 2]>> = canvases.map(|list| list.chunks_exact(2).map(|p| [p[0], p[1]]).collect());
    let merge = vision.get(&key("mm_patch_merge_type"), "a text", Entry::text)?;
    let ratio = vision.get(&key("image_aspect_ratio"), "a text", Entry::text)?.unwrap_or_default();
    let newline = super::names::NEWLINES.iter().any(|name| vision.tensor(name).is_some());
    let anyres = match merge {
        Some("spatial_unpad") => true,
        None => newline && canvases.is_some(),
        Some("flat") => false,
        Some(other) => return Err(vision.wrong(&key("mm_patch_merge_type"), "spatial_unpad or flat", other).into()),
    };
    if !anyres {
        // LLaVA-1.5 was trained on padded pictures, and llama.cpp pads.
        return Ok(Layout { model_type: "llava", canvases: None, most_tiles: None, pads: ratio != "square" });
    }
    if canvases.is_none() {
        notes.push(format!("{} has no {points}: those of LLaVA-NeXT are assumed", vision.file));
    }
    let most_tiles = Some(ratio).filter(|ratio| ratio.starts_with("anyres_max_")).map(str::to_owned);
    let model_type = if most_tiles.is_some() { "llava_onevision" } else { "llava_next" };
    Ok(Layout { model_type, canvases, most_tiles, pads: false })
}

/// preprocessor_config.json.
pub(super) fn image(vision: &Gguf, layout: &Layout, tower: &Tower) -> Result<Value, Error> {
    let channels = |rest: &str| {
        vision.get(&format!("clip.vision.{rest}"), "three numbers", |value| {
            value.array()?.iter().map(number).collect::<Option<Vec<f64>>>().filter(|list| list.len() == 3)
        })
    };
    let class = match (layout.model_type, tower.class_token) {
        ("llava_next", _) => "LlavaNextImageProcessor",
        ("llava_onevision", _) => "LlavaOnevisionImageProcessor",
        (_, true) => "CLIPImageProcessor",
        _ => "SiglipImageProcessor",
    };
    let square = json!({"height": tower.side, "width": tower.side});
    let crops = class != "LlavaOnevisionImageProcessor" && class != "SiglipImageProcessor";
    let mut image = json!({
        "image_processor_type": class,
        "size": if crops { json!({"shortest_edge": tower.side}) } else { square.clone() },
        "resample": 3,
        "image_mean": channels("image_mean")?,
        "image_std": channels("image_std")?,
    });
    if crops {
        image["crop_size"] = square;
    }
    if layout.pads {
        image["image_aspect_ratio"] = json!("pad");
    }
    if let Some(canvases) = &layout.canvases {
        image["image_grid_pinpoints"] = json!(canvases);
    }
    Ok(image)
}
