//! A directory of the published layout in, everything but the weights' values out.
//!
//! Opening reads configs, tokenizer, template and the headers of the weights, checks that all belong together, and
//! allocates no tensor.

use fovea_runtime::{source::Source, weights::Weights};
use serde_json::Value;

use crate::{
    cancel::Cancel,
    config::Config,
    error::Error,
    names::{Names, SELECTOR},
    prompt::Prompter,
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
    /// Whether it has a scale selector; without, it is a stock LLaVA-NeXT and the vision-guided sampler stays off.
    pub selector: bool,
}

impl Blueprint {
    /// Reads and checks everything but the weights.
    ///
    /// # Errors
    /// Typed errors that name file and key, expected and got.
    pub async fn open(source: &Source) -> Result<Self, Error> {
        let config_json = read_json(source, "config.json").await?;
        let config = Config::from_json(&config_json)?;
        let tokenizer_config = read_optional_json(source, "tokenizer_config.json").await?;
        let special_tokens = read_optional_json(source, "special_tokens_map.json").await?;
        let processor = read_optional_json(source, "processor_config.json").await?;
        let generation = read_optional_json(source, "generation_config.json").await?;
        // Older layout: a file of the image processor's own. Newer: within the processor's file. Silent: defaults.
        let image = match read_optional_json(source, "preprocessor_config.json").await? {
            Value::Null => processor.get("image_processor").cloned().unwrap_or(Value::Null),
            older => older,
        };
        let image = if image.is_null() { Value::Object(Default::default()) } else { image };
        // Pictures are laid on the processor's canvases and unpadded by the model's: refused where the two differ.
        let tiles = TileConfig::from_json(&image, config.pinpoints.clone(), config.vision.side)?;
        let template = read_template(source, &[&processor, &tokenizer_config]).await?;
        let tokenizer = source.read("tokenizer.json", MAX_TOKENIZER).await?;
        let stop = stop_ids(&generation, &config_json)?;
        let special = [tokenizer_config, special_tokens];
        let prompter = Prompter::new(&tokenizer, template, &special, stop, &config)?;
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
            checkpoint.weights.check(&name, &shape)?;
        }
        Ok(checkpoint)
    }

    /// The same, but for whether the tensors are those that the model needs: for [`crate::inspect`], which lists what
    /// is missing.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub async fn read(source: Source) -> Result<Self, Error> {
        let Blueprint { config, tiles, prompter } = Blueprint::open(&source).await?;
        let weights = Weights::open(source).await?;
        let names = Names::detect(&weights)?;
        let selector = weights.entries().contains_key(&format!("{SELECTOR}.weight"));
        Ok(Self { config, tiles, prompter, names, weights, selector })
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
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::Config { key: file.to_owned(), why: format!("expected JSON, got {e}") })
}

async fn read_optional_json(source: &Source, file: &str) -> Result<Value, Error> {
    if source.contains(file) { read_json(source, file).await } else { Ok(Value::Null) }
}

/// The chat template: a file of its own, else a key of the processor's or the tokenizer's settings.
async fn read_template(source: &Source, settings: &[&Value]) -> Result<String, Error> {
    let broken = |why: &str| Error::Tokenizer { file: "chat template".into(), why: why.to_owned() };
    if source.contains("chat_template.jinja") {
        let bytes = source.read("chat_template.jinja", MAX_CONFIG).await?;
        return String::from_utf8(bytes).map_err(|_| broken("expected UTF-8, got other bytes"));
    }
    let own = read_optional_json(source, "chat_template.json").await?;
    for settings in std::iter::once(&own).chain(settings.iter().copied()) {
        match settings.get("chat_template") {
            None | Some(Value::Null) => {}
            Some(Value::String(template)) => return Ok(template.clone()),
            // Several by name: the one called "default".
            Some(Value::Array(several)) => {
                let named = several.iter().find(|t| t.get("name").and_then(Value::as_str) == Some("default"));
                match named.and_then(|t| t.get("template")).and_then(Value::as_str) {
                    Some(template) => return Ok(template.to_owned()),
                    None => return Err(broken("expected a template named `default` among several, got none")),
                }
            }
            Some(_) => return Err(broken("expected a text or a list of them, got something else")),
        }
    }
    Err(broken(
        "expected chat_template.jinja, chat_template.json, or the key in processor_config.json or tokenizer_config.json, got none",
    ))
}

/// `eos_token_id` of generation_config.json, else of config.json or its text model: one id or a list.
fn stop_ids(generation: &Value, config: &Value) -> Result<Vec<u32>, Error> {
    let places = [
        ("generation_config.json", generation.get("eos_token_id")),
        ("config.json", config.get("eos_token_id")),
        ("config.json: text_config", config.get("text_config").and_then(|t| t.get("eos_token_id"))),
    ];
    for (file, found) in places {
        let Some(value) = found.filter(|v| !v.is_null()) else { continue };
        let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let ids = match value {
            Value::Array(all) => all.iter().map(id).collect::<Option<Vec<u32>>>(),
            one => id(one).map(|i| vec![i]),
        };
        return ids.ok_or_else(|| Error::Config {
            key: format!("{file}: eos_token_id"),
            why: format!("expected an id or a list of ids, got {value}"),
        });
    }
    Ok(Vec::new())
}
