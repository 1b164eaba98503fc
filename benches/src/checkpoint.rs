//! Writes a random checkpoint of real dimensions, tensor by tensor.
//!
//! Vision: CLIP ViT-L/14-336 (24 layers, width 1024). Text: a Llama with 24 layers, width 896, 14 heads on 2 key heads,
//! feed-forward 4864, 151936 tied embedding rows: 0.5 B parameters. The small one has 8 layers in both, of widths 256 and
//! 384, and 32000 rows: 25 M parameters in the text model. The large one has the same tower, and the text model of
//! llama3-llava-next-8b (llava-hf on the Hugging Face hub): 32 layers, width 4096, 32 heads on 8 key heads, feed-forward
//! 14336, 128320 rows in embedding and head: 8 B parameters, 16.7 GB. Tokenizer and template are those of the demo checkpoint. The
//! weights of the selector are zero and its bias chooses 2x2, so the vision-guided sampler keeps 1176 of 2928 tokens, 40 %
//! (the paper has 49 % on average). The text-guided sampler uses gamma .85 on random weights.

use std::{
    error::Error,
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use clap::ValueEnum;
use fovea_model::{
    Checkpoint, Config, Names, demo,
    parts::{Extras, Network},
};
use half::bf16;
use serde_json::{Map, Value, json};

/// The size of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Scale {
    /// 25 M parameters in the text model and a small tower: 60 MB.
    Small,
    /// 0.5 B parameters: 1.6 GB.
    #[default]
    Medium,
    /// 8 B parameters: 16.7 GB.
    Large,
}

/// The dimensions of a tower or of a text model.
struct Size {
    layers: usize,
    width: usize,
    heads: usize,
    key_heads: usize,
    feed_forward: usize,
}

/// Writes a checkpoint to `dir`. `vocab` is the number of embedding rows; `meteor`: with LLaVA-Meteor's fusion.
pub fn write(dir: &Path, scale: Scale, vocab: Option<usize>, meteor: bool) -> Result<(), Box<dyn Error>> {
    let tower = Size { layers: 24, width: 1024, heads: 16, key_heads: 16, feed_forward: 4096 };
    let (vision, text, rows) = match scale {
        Scale::Small => {
            let vision = Size { layers: 8, width: 256, heads: 4, key_heads: 4, feed_forward: 1024 };
            (vision, Size { layers: 8, width: 384, heads: 6, key_heads: 2, feed_forward: 1024 }, 32_000)
        }
        Scale::Medium => (tower, Size { layers: 24, width: 896, heads: 14, key_heads: 2, feed_forward: 4864 }, 151_936),
        Scale::Large => {
            (tower, Size { layers: 32, width: 4096, heads: 32, key_heads: 8, feed_forward: 14_336 }, 128_320)
        }
    };
    let tied = scale != Scale::Large;
    fs::create_dir_all(dir)?;
    let source = demo::source();
    for file in ["chat_template.jinja", "generation_config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::write(dir.join(file), pollster::block_on(source.read(file, 1 << 20))?)?;
    }
    let demo = pollster::block_on(Checkpoint::open(source))?;
    let pinpoints = json!([[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]);
    let mut config = json!({
        "architectures": ["LlavaNextForConditionalGeneration"], "model_type": "llava_next",
        "image_token_id": demo.config.image_token, "image_grid_pinpoints": pinpoints, "tie_word_embeddings": tied,
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "projector_hidden_act": "gelu",
        "vision_config": {
            "model_type": "clip_vision_model", "hidden_size": vision.width,
            "intermediate_size": vision.feed_forward, "num_hidden_layers": vision.layers,
            "num_attention_heads": vision.heads, "image_size": 336, "patch_size": 14, "projection_dim": 768,
        },
        "text_config": {
            "model_type": "llama", "hidden_size": text.width, "intermediate_size": text.feed_forward,
            "num_hidden_layers": text.layers, "num_attention_heads": text.heads, "num_key_value_heads": text.key_heads,
            "vocab_size": vocab.unwrap_or(rows), "rms_norm_eps": 1e-6,
            "rope_theta": 1e6, "max_position_embeddings": 32768, "tie_word_embeddings": tied,
            "bos_token_id": 0, "eos_token_id": 4, "pad_token_id": 6,
        },
        "focus": { "window": 4, "scales": [[4, 4], [2, 2], [1, 1]], "text_layer": text.layers / 4, "gamma": 0.85 },
    });
    if meteor {
        config["meteor"] = json!({});
    }
    let processor = json!({
        "image_processor": {
            "image_processor_type": "LlavaNextImageProcessor", "size": {"shortest_edge": 336},
            "crop_size": {"height": 336, "width": 336}, "image_grid_pinpoints": pinpoints,
        },
        "processor_class": "LlavaNextProcessor", "patch_size": 14, "vision_feature_select_strategy": "default",
        "image_token": "<image>", "num_additional_image_tokens": 1,
    });
    fs::write(dir.join("config.json"), serde_json::to_vec_pretty(&config)?)?;
    fs::write(dir.join("processor_config.json"), serde_json::to_vec_pretty(&processor)?)?;
    weights(&dir.join("model.safetensors"), &demo.names, &Config::from_json(&config)?, meteor)
}

fn weights(path: &Path, names: &Names, config: &Config, meteor: bool) -> Result<(), Box<dyn Error>> {
    // Also the unused last vision layer: other loaders need it.
    let mut whole = config.clone();
    whole.vision.n_used = whole.vision.n_layers;
    let needed = Network::parameters(names, &whole, Extras { selector: true, meteor });
    let mut tensors: Vec<_> = needed.into_iter().map(|p| (p.name, p.shape)).collect();
    for which in ["weight", "bias"] {
        tensors.push((names.vision(&format!("post_layernorm.{which}")), vec![config.vision.d_model]));
    }
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut end = 0;
    for (name, shape) in &tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(name.clone(), json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}));
    }
    let header = serde_json::to_vec(&Value::Object(header))?;
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    let mut state = 1u32;
    for (name, shape) in &tensors {
        let values: usize = shape.iter().product();
        // Uniform noise with variance 1 / inputs; norms are about one, the selector is fixed, other vectors are small.
        let (base, spread) = match shape.len() {
            _ if name == "scale_selector.weight" => (0.0, 0.0),
            1 if name.contains("norm") && name.ends_with("weight") => (1.0, 0.1),
            1 => (0.0, 0.05),
            _ => (0.0, (3.0 / (values / shape[0]) as f32).sqrt()),
        };
        for index in 0..values {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            let noise = state as f32 / u32::MAX as f32 * 2.0 - 1.0;
            let value =
                if name == "scale_selector.bias" { f32::from(u8::from(index == 1)) } else { base + spread * noise };
            file.write_all(&bf16::from_f32(value).to_le_bytes())?;
        }
    }
    Ok(file.flush()?)
}
