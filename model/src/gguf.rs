//! Opens checkpoints in GGUF: one file of the text model, one of the vision tower and the projector ("mmproj"). Input:
//! their metadata. Output: the same checkpoint in Hugging Face's terms, with the place of each tensor.
//! Source: `convert_hf_to_gguf.py`, `tools/mtmd/clip.cpp`, `src/llama-vocab.cpp` and
//! `tools/mtmd/legacy-models/convert_image_encoder_to_gguf.py` in llama.cpp.

mod config;
mod names;
mod terms;
mod tokenizer;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use fovea_runtime::{
    gguf::{Gguf, GgufTensor, is_gguf},
    source::Source,
    weights::Weights,
};
use serde_json::{Value, json};

use crate::{conversations, error::Error};

/// A checkpoint of two GGUF files in Hugging Face's terms.
#[derive(Clone, Debug)]
pub struct GgufCheckpoint {
    /// The files: text model, then vision tower and projector. [`GgufTensor::file`] is an index into this list.
    pub files: Vec<String>,
    /// config.json.
    pub config: Value,
    /// preprocessor_config.json.
    pub image: Value,
    /// The id of the picture's token. None: no token is the picture, and the prompt is cut at `<image>`, as in the
    /// original LLaVA. config.json then has the id 0.
    pub image_token: Option<u32>,
    /// tokenizer.json.
    pub tokenizer: Vec<u8>,
    /// tokenizer_config.json: the special tokens that a template can name.
    pub tokenizer_config: Value,
    /// generation_config.json.
    pub generation: Value,
    /// The chat template.
    pub template: String,
    /// Where the template is from.
    pub template_from: String,
    /// The tensors, by their names on the Hugging Face hub.
    pub tensors: BTreeMap<String, GgufTensor>,
    /// Names of tensors that have no equivalent on the Hugging Face hub, and are not used.
    pub unknown: Vec<String>,
    /// Notes for the user, one sentence each.
    pub notes: Vec<String>,
    /// What its files call things.
    terms: terms::Terms,
}

impl GgufCheckpoint {
    /// Whether a checkpoint is in GGUF: it has such a file, and no safetensors.
    pub fn present(source: &Source) -> bool {
        source.files().any(is_gguf) && !Weights::present(source)
    }

    /// Reads the headers of the two GGUF files of a checkpoint.
    ///
    /// # Errors
    /// [`Error::Runtime`] with file and key, expected and found value, where there are not two such files, where a file
    /// is damaged, or where the model has no equivalent in Hugging Face's classes that this crate has; an I/O error.
    pub async fn open(source: &Source) -> Result<Self, Error> {
        let files: Vec<&str> = source.files().filter(|file| is_gguf(file)).collect();
        let wrong = |got: String| {
            let why = format!("expected two GGUF files, the text model and its mmproj file, got {got}");
            Error::from(fovea_runtime::Error::WeightFile { file: source.name().to_owned(), why })
        };
        let (first, second) = match files[..] {
            [first, second] => (Gguf::open(source, first).await?, Gguf::open(source, second).await?),
            [only] => return Err(wrong(alone(is_vision(&Gguf::open(source, only).await?)?, only))),
            [] => return Err(wrong("none; download both from one repository".to_owned())),
            _ => {
                let todo = "keep only these two in the folder, and join a file in parts with llama-gguf-split --merge";
                return Err(wrong(format!("{}; {todo}", files.join(", "))));
            }
        };
        let (text, vision) = match (is_vision(&first)?, is_vision(&second)?) {
            (false, true) => (first, second),
            (true, false) => (second, first),
            (both, _) => return Err(wrong(alone(both, &files.join(" and ")))),
        };
        let factors = match text.tensor(ROPE_FACTORS) {
            Some(tensor) => Some(tensor.values(source, &text.file).await?),
            None => None,
        };
        Self::new(&text, &vision, factors.as_deref())
    }

    /// Translates the headers of both files. `factors` are the values of `rope_freqs.weight`, if the text model has it.
    ///
    /// # Errors
    /// See [`GgufCheckpoint::open`].
    pub fn new(text: &Gguf, vision: &Gguf, factors: Option<&[f32]>) -> Result<Self, Error> {
        let mut notes = Vec::new();
        let tokens = tokenizer::Tokens::read(text)?;
        let family = config::family(text, &tokens)?;
        let image_token = tokens.id("<image>");
        let layout = config::layout(vision, &mut notes)?;
        let tower = config::vision(vision, &mut notes)?;
        let sizes = config::text(text, family, &tokens, factors)?;
        let swapped = names::is_swapped(vision, &tower);
        let names::Tensors { known, unknown } = names::tensors(text, vision, &sizes, &tower, swapped)?;
        let mut json = json!({
            "model_type": layout.model_type,
            "text_config": sizes.json,
            "vision_config": tower.json,
            "image_token_index": image_token.unwrap_or(0),
            "vision_feature_layer": tower.feature_layer,
            "vision_feature_select_strategy": if tower.class_token { "default" } else { "full" },
            "projector_hidden_act": "gelu",
            "multimodal_projector_bias": vision.tensor("mm.0.bias").is_some(),
            "tie_word_embeddings": sizes.tied,
        });
        if let Some(canvases) = &layout.canvases {
            json["image_grid_pinpoints"] = json!(canvases);
        }
        if let Some(ratio) = &layout.most_tiles {
            json["vision_aspect_ratio"] = json!(ratio);
        }
        let (template, template_from) = template(text, family, &tokens)?;
        if template_from != CHAT_TEMPLATE {
            notes.push(format!("no chat template for pictures in {}: the template is {template_from}", text.file));
        }
        notes.extend(tokens.notes.iter().cloned());
        let terms = terms::Terms {
            arch: text.need(ARCHITECTURE, "a text", |value| value.text())?.to_owned(),
            files: [text.file.clone(), vision.file.clone()],
            swapped,
            own_template: template_from == CHAT_TEMPLATE,
        };
        Ok(Self {
            files: terms.files.to_vec(),
            image: config::image(vision, &layout, &tower)?,
            config: json,
            image_token,
            tokenizer: tokens.json(text)?,
            tokenizer_config: tokens.special(),
            generation: json!({"eos_token_id": tokens.stop_ids()}),
            template,
            template_from,
            tensors: known,
            unknown,
            notes,
            terms,
        })
    }

    /// An error about this checkpoint with the keys and the names of tensors that its files have.
    pub(crate) fn in_its_terms(&self, error: Error) -> Error {
        self.terms.of(error)
    }

    /// The key that has the number of layers of the text model, or of the tower; and its file.
    pub(crate) fn layers_key(&self, tower: bool) -> String {
        self.terms.layers(tower)
    }
}

/// What was found where all of `files` are of one kind, and what to do.
fn alone(vision: bool, files: &str) -> String {
    if vision {
        format!("no text model, only {files} with a vision tower; download the text model into the same folder")
    } else {
        format!("no mmproj file, only {files} with a text model; download its mmproj file into the same folder")
    }
}

const ARCHITECTURE: &str = "general.architecture";
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Whether a file has the vision tower.
fn is_vision(gguf: &Gguf) -> Result<bool, Error> {
    if gguf.get("split.count", "a number", |value| value.count())?.is_some_and(|count| count > 1) {
        let expected = "1; join the files with `llama-gguf-split --merge`";
        return Err(gguf.wrong("split.count", expected, "a file that is split").into());
    }
    Ok(gguf.need(ARCHITECTURE, "a text", |value| value.text())? == "clip")
}

/// The chat template, and where it is from: the file's if it prints pictures, else the one of the original LLaVA. The
/// file's often is that of the text model, from before it was trained with pictures.
fn template(text: &Gguf, family: &str, tokens: &tokenizer::Tokens<'_>) -> Result<(String, String), Error> {
    let own = text.get(CHAT_TEMPLATE, "a text in UTF-8", |value| value.text())?;
    if let Some(own) = own.filter(|own| own.contains("image")) {
        return Ok((own.to_owned(), CHAT_TEMPLATE.to_owned()));
    }
    let name = match family {
        "qwen2" => "qwen_1_5",
        _ if tokens.id("<|start_header_id|>").is_some() => "llava_llama_3",
        _ if tokens.id("<|im_start|>").is_some() => "chatml_direct",
        "mistral" => "mistral_instruct",
        _ => "vicuna_v1",
    };
    let template = conversations::conversation(name).ok_or(Error::Internal("a conversation without a template"))?;
    Ok((template.to_owned(), format!("built in: LLaVA's conversation {name}")))
}
