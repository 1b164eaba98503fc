//! A directory of the published layout in, everything but the weights' values out.
//!
//! Opening reads configs, tokenizer, template and the headers of the weights, checks that all belong together, and
//! allocates no tensor.

use fovea_runtime::{
    json,
    source::{Source, TEMPLATES},
    weights::Weights,
};
use serde_json::{Map, Value};

use crate::{
    cancel::Cancel,
    config::Config,
    error::Error,
    names::{Names, SELECTOR},
    prompt::Prompter,
    quantised,
    tiles::TileConfig,
};

/// Largest config, template or tokenizer that is read, bytes.
const MAX_CONFIG: u64 = 4 << 20;
const MAX_TOKENIZER: u64 = 128 << 20;

/// What a checkpoint says of itself without its weights.
pub struct Blueprint {
    /// Architecture and sampler settings.
    pub config: Config,
    /// How pictures are cut.
    pub tiles: TileConfig,
    /// Tokenizer, chat template and stop ids.
    pub prompter: Prompter,
}

/// A checkpoint that has been read but not loaded.
pub struct Checkpoint {
    /// Architecture and sampler settings.
    pub config: Config,
    /// How pictures are cut.
    pub tiles: TileConfig,
    /// Tokenizer, chat template and stop ids.
    pub prompter: Prompter,
    /// What the tensors are called.
    pub names: Names,
    /// Where the tensors are.
    pub weights: Weights,
    /// Whether it has a scale selector; without, the vision-guided sampler stays off.
    pub selector: bool,
}

impl Blueprint {
    /// Reads and checks everything but the weights.
    ///
    /// # Errors
    /// Typed errors that name file and key, expected and got.
    pub async fn open(source: &Source) -> Result<Self, Error> {
        let config_json = read_json(source, "config.json").await?;
        let own = [
            ("quantize_config.json", read_optional_json(source, "quantize_config.json").await?),
            ("quant_config.json", read_optional_json(source, "quant_config.json").await?),
            ("hf_quant_config.json", read_optional_json(source, "hf_quant_config.json").await?),
        ];
        quantised::refuse(&config_json, &own)?;
        let config = Config::from_json(&config_json)?;
        let tokenizer_config = read_optional_json(source, "tokenizer_config.json").await?;
        let special_tokens = read_optional_json(source, "special_tokens_map.json").await?;
        let processor = read_optional_json(source, "processor_config.json").await?;
        let generation = read_optional_json(source, "generation_config.json").await?;
        // Within the processor's file, as transformers 5 writes it; else the older file of the image processor alone, which
        // may have been left beside it. Silent: defaults.
        let image = match processor.get("image_processor").filter(|v| !v.is_null()) {
            Some(nested) => nested.clone(),
            None => read_optional_json(source, "preprocessor_config.json").await?,
        };
        let image = if image.is_null() { Value::Object(Map::new()) } else { image };
        // Pictures are laid on the processor's canvases and unpadded by the model's: refused where the two differ.
        let tiles = TileConfig::from_json(&image, config.pinpoints.clone(), config.vision.side)?;
        let template = read_template(source, &processor, &tokenizer_config).await?;
        let tokenizer = source.read("tokenizer.json", MAX_TOKENIZER).await?;
        let special = special_names(&tokenizer_config, &special_tokens);
        let prompter = Prompter::new(&tokenizer, template, special, [&generation, &config_json], &config)?;
        Ok(Self { config, tiles, prompter })
    }
}

impl Checkpoint {
    /// Reads and checks everything but the tensors' values.
    ///
    /// # Errors
    /// Typed errors that name file and key or tensor, expected and got.
    pub async fn open(source: Source) -> Result<Self, Error> {
        let checkpoint = Self::read(source).await?;
        for (name, shape) in checkpoint.needed() {
            checkpoint.weights.check(&name, &shape).map_err(|wrong| checkpoint.why(wrong))?;
        }
        Ok(checkpoint)
    }

    /// The same, but for whether the tensors are those that the model needs: for [`crate::inspect`], which lists what
    /// is missing.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub async fn read(source: Source) -> Result<Self, Error> {
        let Blueprint { mut config, tiles, prompter } = Blueprint::open(&source).await?;
        let weights = Weights::open(source).await?;
        let names = Names::detect(&weights, config.text.tied)?;
        // As Hugging Face ties (transformers 5.24, `tie_weights`): a head in the file is used, whatever the config says.
        config.text.tied &= names.head_is_embedding() || !weights.entries().contains_key(&names.head());
        let selector = weights.entries().contains_key(&format!("{SELECTOR}.weight"));
        Ok(Self { config, tiles, prompter, names, weights, selector })
    }

    /// Why a tensor is not what the model needs: where the tensors are those of a method of quantisation, that.
    fn why(&self, wrong: fovea_runtime::Error) -> Error {
        match quantised::by_tensors(self.weights.entries().keys().map(String::as_str)) {
            None => wrong.into(),
            Some(method) => {
                let file = self.weights.files().first().cloned().unwrap_or_default();
                fovea_runtime::Error::WeightFile { file, why: quantised::sentence(method) }.into()
            }
        }
    }

    /// Whether most of the bytes that will be loaded are stored in 16 bits.
    pub fn mostly_16_bit(&self) -> bool {
        let (mut half, mut all) = (0, 0);
        for (name, _) in self.needed() {
            let Some(entry) = self.weights.entries().get(&name) else { continue };
            all += entry.bytes();
            half += if entry.dtype.as_ref().is_ok_and(|d| d.size() == 2) { entry.bytes() } else { 0 };
        }
        2 * half > all
    }

    /// Every tensor that will be loaded, with its shape.
    pub fn needed(&self) -> Vec<(String, Vec<usize>)> {
        self.names.needed(&self.config, self.selector)
    }

    /// Reads every value that will be loaded once, to refuse NaN and infinities before anything is allocated.
    ///
    /// `progress` is told the bytes done and the bytes in all.
    ///
    /// # Errors
    /// A typed error naming file, tensor, index and value; [`Error::Cancelled`].
    pub async fn verify(&self, cancel: &Cancel, mut progress: impl FnMut(u64, u64)) -> Result<(), Error> {
        let needed = self.needed();
        let bytes = |name: &String| self.weights.entries().get(name).map_or(0, |e| e.bytes());
        let total = needed.iter().map(|(name, _)| bytes(name)).sum();
        let mut done = 0;
        for (name, _) in &needed {
            cancel.check().await?;
            if let Some((index, value)) = self.weights.first_non_finite(name).await? {
                let entry = &self.weights.entries()[name];
                return Err(fovea_runtime::Error::Tensor {
                    file: self.weights.file_of(entry).to_owned(),
                    tensor: name.clone(),
                    expected: "finite values".into(),
                    got: format!("{value} at index {index}"),
                }
                .into());
            }
            done += bytes(name);
            progress(done, total);
        }
        Ok(())
    }
}

async fn read_json(source: &Source, file: &str) -> Result<Value, Error> {
    let bytes = source.read(file, MAX_CONFIG).await?;
    json::from_slice(&bytes).map_err(|e| Error::Config { key: file.to_owned(), why: format!("expected JSON, got {e}") })
}

async fn read_optional_json(source: &Source, file: &str) -> Result<Value, Error> {
    if source.contains(file) { read_json(source, file).await } else { Ok(Value::Null) }
}

/// What a template can name: the tokenizer's special tokens, as Hugging Face hands them to the renderer (transformers 5.24,
/// `tokenization_utils_base.py`). Keys that end in `_token`, and the entries of an object `extra_special_tokens`.
fn special_names(tokenizer_config: &Value, special_tokens: &Value) -> Map<String, Value> {
    let text = |value: &Value| value.as_str().or_else(|| value.get("content")?.as_str()).map(Value::from);
    let mut found = Map::new();
    // tokenizer_config.json has the last word where it describes the added tokens as well, as newer ones do.
    let newer = tokenizer_config.get("added_tokens_decoder").is_some();
    let order = if newer { [special_tokens, tokenizer_config] } else { [tokenizer_config, special_tokens] };
    for settings in order {
        for (key, value) in settings.as_object().into_iter().flatten().filter(|(key, _)| key.ends_with("_token")) {
            match text(value) {
                Some(text) => found.insert(key.clone(), text),
                None if value.is_null() => found.remove(key),
                None => None,
            };
        }
        for list in ["extra_special_tokens", "additional_special_tokens"] {
            let named = settings.get(list).and_then(Value::as_object).into_iter().flatten();
            found.extend(named.filter_map(|(key, value)| Some((key.clone(), text(value)?))));
        }
    }
    found
}

/// The chat template, from the place where Hugging Face's processors look first (transformers 5.24, `processing_utils.py`): the
/// key in processor_config.json, chat_template.json, chat_template.jinja, the template named `default` among
/// additional_chat_templates, the key in tokenizer_config.json.
async fn read_template(source: &Source, processor: &Value, tokenizer_config: &Value) -> Result<String, Error> {
    let own = read_optional_json(source, "chat_template.json").await?;
    for settings in [processor, &own] {
        if let Some(template) = template_of(settings)? {
            return Ok(template);
        }
    }
    let default = format!("{TEMPLATES}/default.jinja");
    for file in ["chat_template.jinja", &default] {
        if source.contains(file) {
            let bytes = source.read(file, MAX_CONFIG).await?;
            return String::from_utf8(bytes).map_err(|_| broken("expected UTF-8, got other bytes".to_owned()));
        }
    }
    if let Some(template) = template_of(tokenizer_config)? {
        return Ok(template);
    }
    let folder = format!("{TEMPLATES}/");
    let others: Vec<&str> = source.files().filter_map(|file| file.strip_prefix(&folder)).collect();
    if !others.is_empty() {
        return Err(broken(format!("expected a template named `default` among several, got {}", others.join(", "))));
    }
    Err(broken(
        "expected chat_template.jinja, chat_template.json, or the key in processor_config.json or tokenizer_config.json, got none"
            .to_owned(),
    ))
}

fn broken(why: String) -> Error {
    Error::Tokenizer { file: "chat template".into(), why }
}

/// The key `chat_template`: a text, or several by name, of which the one called `default` counts.
fn template_of(settings: &Value) -> Result<Option<String>, Error> {
    let default = || broken("expected a template named `default` among several, got none".to_owned());
    match settings.get("chat_template") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(template)) => Ok(Some(template.clone())),
        Some(Value::Array(several)) => {
            let named = several.iter().find(|t| t.get("name").and_then(Value::as_str) == Some("default"));
            let template = named.and_then(|t| t.get("template")).and_then(Value::as_str);
            template.map(|template| Some(template.to_owned())).ok_or_else(default)
        }
        Some(Value::Object(several)) => {
            let template = several.get("default").and_then(Value::as_str);
            template.map(|template| Some(template.to_owned())).ok_or_else(default)
        }
        Some(_) => Err(broken("expected a text or a list of them, got something else".to_owned())),
    }
}
