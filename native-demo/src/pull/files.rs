//! Which files of a repository are downloaded: a list of all files in, the names of those that Fovea reads out.

use std::{collections::BTreeSet, fs, path::Path};

use fovea_runtime::{
    gguf::{self, is_gguf, is_mmproj},
    json,
    source::TEMPLATES,
};
use fovea_terminal::{failure::Failure, text};
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
    is_safetensors(name) || is_gguf(name)
}

fn is_safetensors(name: &str) -> bool {
    name.ends_with(".safetensors")
}

/// The names, settings first. Weights are `model.safetensors`; without it, the shards that the index lists. Where there
/// is neither, or `wanted` names GGUF files, the names are those of two GGUF files, which have the settings too.
///
/// # Errors
/// [`Failure::NotWhole`] where the repository has no config.json, no tokenizer.json or no weights that can be read;
/// [`Failure::Usage`] with the list of the GGUF files where `wanted` is not clear; [`Failure::Network`] where the index
/// can't be read.
pub fn needed(hub: &Hub, info: &RepoInfo, wanted: &[String]) -> Result<Vec<String>, Failure> {
    let id = hub.repo().url();
    let names: BTreeSet<&str> = info.siblings.iter().map(|file| file.rfilename.as_str()).collect();
    let in_gguf: Vec<&str> =
        names.iter().copied().filter(|name| is_gguf(name) && name.split('/').all(is_plain)).collect();
    if !wanted.is_empty() || !(in_gguf.is_empty() || names.contains(SINGLE) || names.contains(INDEX)) {
        return two_gguf(hub, &info.sha, &in_gguf, wanted);
    }
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
        let other = names.iter().find(|name| name.ends_with(".bin"));
        let other = other.map_or(String::new(), |name| format!(", got {}", short(name)));
        let why = format!("{id} has no weights that can be read; expected {SINGLE}, {INDEX} or GGUF{other}");
        return Err(Failure::NotWhole(why));
    }
    Ok(needed)
}

/// The text model and the mmproj file.
fn two_gguf(hub: &Hub, commit: &str, files: &[&str], wanted: &[String]) -> Result<Vec<String>, Failure> {
    let id = hub.repo().url();
    for (mmproj, what) in [(false, "the text model"), (true, "its mmproj file (vision tower and projector)")] {
        if !files.iter().any(|file| is_mmproj(file) == mmproj) {
            let got = if files.is_empty() { "none".to_owned() } else { short(&files.join(", ")) };
            return Err(Failure::NotWhole(format!("{id}: expected {what} in GGUF, got {got}")));
        }
    }
    let two = match gguf::choose(files, wanted) {
        Ok(two) => two,
        Err(why) => {
            let next = "choose with --file NAME, where NAME is the name of a file or its quantisation, such as Q4_K_M";
            return Err(Failure::Usage(format!("{id}: {why}; {next}\n{}", listed(hub, commit, files)?)));
        }
    };
    if let Some((name, why)) = two.iter().find_map(|name| Some((name, gguf::unreadable(name)?))) {
        let why = format!("{id}: {name} is not supported ({why}); choose another file with --file");
        return Err(Failure::NotWhole(why));
    }
    Ok(two.map(str::to_owned).into())
}

/// Files with their sizes, and why one can't be read.
fn listed(hub: &Hub, commit: &str, files: &[&str]) -> Result<String, Failure> {
    let widest = files.iter().map(|file| file.len()).max().unwrap_or(0);
    let line = |file: &&str| -> Result<String, Failure> {
        let size = text::bytes(hub.file(commit, file)?.size);
        let why = gguf::unreadable(file).map_or(String::new(), |why| format!("  not supported: {why}"));
        Ok(format!("  {file:widest$}  {size:>10}{why}"))
    };
    Ok(files.iter().map(line).collect::<Result<Vec<_>, _>>()?.join("\n"))
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
        let name = value.as_str().filter(|name| is_plain(name) && is_safetensors(name));
        name.map(str::to_owned).ok_or_else(|| wrong(&value.to_string()))
    };
    map.values().map(shard).collect()
}

/// What a folder needs and does not have.
pub fn missing(folder: &Path, wanted: &[String]) -> Option<String> {
    let there = |name: &str| folder.join(name).is_file();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let in_gguf: Vec<&str> = names.iter().map(String::as_str).filter(|name| is_gguf(name) && there(name)).collect();
    if !wanted.is_empty() || !(in_gguf.is_empty() || there(SINGLE) || there(INDEX)) {
        return gguf::choose(&in_gguf, wanted).err();
    }
    let mut needed = vec![CONFIG.to_owned(), TOKENIZER.to_owned()];
    let listed = || shards(&fs::read(folder.join(INDEX)).ok()?).ok();
    match listed().filter(|_| !there(SINGLE)) {
        Some(shards) => needed.extend(shards),
        None => needed.push(SINGLE.to_owned()),
    }
    needed.into_iter().find(|name| !there(name)).map(|name| format!("{name} is missing"))
}
