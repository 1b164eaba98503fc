//! Which files of a repository are downloaded: a list of all files in, the names of those that Fovea reads out.

use std::{collections::BTreeSet, fs, path::Path};

use fovea_runtime::{json, source::TEMPLATES};
use fovea_terminal::failure::Failure;
use hf_hub::api::RepoInfo;
use serde_json::Value;

use super::hub::{Hub, is_plain, short};

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Settings, vocabulary and chat templates. The last three name a quantised format, which is refused by its name.
const SETTINGS: [&str; 12] = [
    CONFIG,
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.json",
    "chat_template.jinja",
    "quantize_config.json",
    "quant_config.json",
    "hf_quant_config.json",
];

/// Whether a file has weights, and not settings or an index.
pub fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors")
}

/// The names, settings first. Weights are `model.safetensors`; without it, the shards that the index lists.
///
/// # Errors
/// [`Failure::NotWhole`] where the repository has no config.json, no tokenizer.json or no safetensors;
/// [`Failure::Network`] where the index can't be read.
pub fn needed(hub: &Hub, info: &RepoInfo) -> Result<Vec<String>, Failure> {
    let id = hub.repo().url();
    let names: BTreeSet<&str> = info.siblings.iter().map(|file| file.rfilename.as_str()).collect();
    if !names.contains(CONFIG) {
        let why = format!("{id} has no {CONFIG}; expected a checkpoint of the LLaVA family with safetensors");
        return Err(Failure::NotWhole(why));
    }
    if names.contains("tokenizer.model") && !names.contains(TOKENIZER) {
        return Err(Failure::NotWhole(format!(
            "{id}: expected {TOKENIZER}, got only tokenizer.model; use the same model's conversion, llava-hf/... on \
             the Hugging Face hub, which has one; or download {id} with Python's huggingface_hub, and write the file \
             with transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
        )));
    }
    if !names.contains(TOKENIZER) {
        let why = format!("{id}: it has no {TOKENIZER}; use another conversion of this model, which has one");
        return Err(Failure::NotWhole(why));
    }
    let template = |name: &str| {
        let file = name.strip_prefix(TEMPLATES).and_then(|rest| rest.strip_prefix('/'));
        file.is_some_and(|file| is_plain(file) && file.ends_with(".jinja"))
    };
    let settings = names.iter().filter(|name| SETTINGS.contains(name) || template(name));
    let mut needed: Vec<String> = settings.map(|name| (*name).to_owned()).collect();
    if names.contains(SINGLE) {
        needed.push(SINGLE.to_owned());
    } else if names.contains(INDEX) {
        needed.push(INDEX.to_owned());
        for shard in shards(&hub.bytes(&info.sha, INDEX)?)? {
            if !names.contains(shard.as_str()) {
                let why = format!("{id}: {INDEX} lists {}, which the repository does not have", short(&shard));
                return Err(Failure::NotWhole(why));
            }
            needed.push(shard);
        }
    } else {
        let other = names.iter().find(|name| name.ends_with(".bin") || name.ends_with(".gguf"));
        let other = other.map_or(String::new(), |name| format!(", got {}", short(name)));
        let why = format!("{id} has no weights that can be read; expected {SINGLE} or {INDEX}{other}");
        return Err(Failure::NotWhole(why));
    }
    Ok(needed)
}

/// The shards that an index lists, each once.
fn shards(index: &[u8]) -> Result<BTreeSet<String>, Failure> {
    let wrong = |got: &str| {
        let got = short(got);
        Failure::NotWhole(format!("{INDEX}: expected a `weight_map` of safetensors files, got {got}"))
    };
    let index: Value = json::from_slice(index).map_err(|why| wrong(&why.to_string()))?;
    let map = index["weight_map"].as_object().filter(|map| !map.is_empty()).ok_or_else(|| wrong("none"))?;
    let shard = |value: &Value| {
        let name = value.as_str().filter(|name| is_plain(name) && is_weights(name));
        name.map(str::to_owned).ok_or_else(|| wrong(&value.to_string()))
    };
    map.values().map(shard).collect()
}

/// The first file that a folder needs and does not have.
pub fn first_missing(folder: &Path) -> Option<String> {
    let there = |name: &str| folder.join(name).is_file();
    let mut needed = vec![CONFIG.to_owned(), TOKENIZER.to_owned()];
    let listed = || shards(&fs::read(folder.join(INDEX)).ok()?).ok();
    match listed().filter(|_| !there(SINGLE)) {
        Some(shards) => needed.extend(shards),
        None => needed.push(SINGLE.to_owned()),
    }
    needed.into_iter().find(|name| !there(name))
}
