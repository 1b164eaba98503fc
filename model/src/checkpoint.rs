//! Opens a checkpoint. Input: a directory in the published layout. Output: everything except the values of the weights.
//!
//! It reads configs, tokenizer, template and the headers of the weights, and checks that they match. It allocates no tensor.

use fovea_runtime::{source::Source, weights::Weights};
use serde_json::{Map, Value};

use crate::{
    cancel::Cancel,
    chat_template::{read_template, special_names},
    config::{Config, TileConfig},
    error::Error,
    json_files::{read_json, read_optional_json},
    names::{Names, SELECTOR},
    prompt::Prompter,
    quantised,
};

/// Largest tokenizer.json, in bytes.
const MAX_TOKENIZER: u64 = 128 << 20;

/// A checkpoint without its weights.
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
    /// Names of the tensors.
    pub names: Names,
    /// Files and headers of the tensors.
    pub weights: Weights,
    /// Whether it has a scale selector. Without one the vision-guided sampler is off.
    pub selector: bool,
}

impl Blueprint {
    /// Reads and checks everything except the weights.
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Tokenizer`] with file and key, expected and found value; an I/O error.
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
        // transformers 5 writes it into the processor's file; the older separate file may still be there, and is then
        // ignored. Without both: defaults.
        let (file, image) = match processor.get("image_processor").filter(|v| !v.is_null()) {
            Some(nested) => ("processor_config.json: image_processor", nested.clone()),
            None => ("preprocessor_config.json", read_optional_json(source, "preprocessor_config.json").await?),
        };
        let image = if image.is_null() { Value::Object(Map::new()) } else { image };
        // The processor's canvases pad a picture and the model's canvases unpad it: it is an error if they differ.
        let tiles = TileConfig::from_json(file, &image, config.pinpoints.clone(), config.vision.side)?;
        let template = read_template(source, &processor, &tokenizer_config).await?;
        let tokenizer = source.read("tokenizer.json", MAX_TOKENIZER).await?;
        let special = special_names(&tokenizer_config, &special_tokens);
        let prompter = Prompter::new(&tokenizer, template, special, [&generation, &config_json], &config)?;
        Ok(Self { config, tiles, prompter })
    }
}

impl Checkpoint {
    /// Reads and checks everything except the values of the tensors.
    ///
    /// # Errors
    /// Those of [`Blueprint::open`]; [`fovea_runtime::Error::Tensor`] or [`fovea_runtime::Error::WeightFile`] with file and
    /// tensor, expected and found value.
    pub async fn open(source: Source) -> Result<Self, Error> {
        let checkpoint = Self::read(source).await?;
        for (name, shape) in checkpoint.needed() {
            checkpoint.weights.check(&name, &shape).map_err(|wrong| checkpoint.why(wrong))?;
        }
        Ok(checkpoint)
    }

    /// Like [`Checkpoint::open`], but does not check that the tensors are those that the model needs. For
    /// [`crate::inspect`], which lists missing tensors.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`].
    pub async fn read(source: Source) -> Result<Self, Error> {
        let Blueprint { mut config, tiles, prompter } = Blueprint::open(&source).await?;
        let weights = Weights::open(source).await?;
        let names = Names::detect(&weights, config.text.tied)?;
        // Like Hugging Face (transformers 5.24, `tie_weights`): a head in the file is used, even if the config ties it.
        config.text.tied &= names.head_is_embedding() || !weights.entries().contains_key(&names.head());
        let selector = weights.entries().contains_key(&format!("{SELECTOR}.weight"));
        Ok(Self { config, tiles, prompter, names, weights, selector })
    }

    /// The error for a tensor that is not as the model needs it; the method of quantisation if the names show one.
    fn why(&self, wrong: fovea_runtime::Error) -> Error {
        match quantised::by_tensors(self.weights.entries().keys().map(String::as_str)) {
            None => wrong.into(),
            Some(method) => {
                let file = self.weights.files().first().cloned().unwrap_or_default();
                fovea_runtime::Error::WeightFile { file, why: quantised::sentence(method) }.into()
            }
        }
    }

    /// Whether most bytes of the needed tensors are stored in 16 bits.
    pub fn mostly_16_bit(&self) -> bool {
        let (mut half, mut all) = (0, 0);
        for (name, _) in self.needed() {
            let Some(entry) = self.weights.entries().get(&name) else { continue };
            all += entry.bytes();
            half += if entry.dtype.as_ref().is_ok_and(|d| d.size() == 2) { entry.bytes() } else { 0 };
        }
        2 * half > all
    }

    /// Every tensor that the model needs, with its shape.
    pub fn needed(&self) -> Vec<(String, Vec<usize>)> {
        self.names.needed(&self.config, self.selector)
    }

    /// Reads every needed value once, to refuse NaN and infinities before anything is allocated.
    ///
    /// `progress` receives the number of bytes read and the total.
    ///
    /// # Errors
    /// [`fovea_runtime::Error::Tensor`] with file, tensor, index and value; [`Error::Cancelled`]; an I/O error.
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
