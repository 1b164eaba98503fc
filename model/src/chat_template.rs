//! Finds the chat template. Input: a checkpoint's files. Output: its chat template, and the special tokens that it can name.
//! Source: `processing_utils.py` and `tokenization_utils_base.py` in Hugging Face's transformers 5.24.

use fovea_runtime::source::{Source, TEMPLATES};
use serde_json::{Map, Value};

use crate::{
    error::Error,
    json_files::{MAX_CONFIG, read_optional_json},
};

/// The special tokens that a template can name: keys that end in `_token`, and the entries of an object
/// `extra_special_tokens` or `additional_special_tokens`.
pub(crate) fn special_names(tokenizer_config: &Value, special_tokens: &Value) -> Map<String, Value> {
    let text = |value: &Value| value.as_str().or_else(|| value.get("content")?.as_str()).map(Value::from);
    let mut found = Map::new();
    // tokenizer_config.json has precedence if it also describes the added tokens, as newer ones do.
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

/// The chat template, and the file that has it, from the first of these places: the key in processor_config.json, chat_template.json,
/// chat_template.jinja, the template `default` in additional_chat_templates, the key in tokenizer_config.json.
///
/// # Errors
/// [`Error::Tokenizer`] if there is no template or it is not UTF-8; [`Error::Config`] for invalid JSON; an I/O error.
pub(crate) async fn read_template(
    source: &Source,
    processor: &Value,
    tokenizer_config: &Value,
) -> Result<(String, String), Error> {
    let own = read_optional_json(source, "chat_template.json").await?;
    for (file, settings) in [("processor_config.json", processor), ("chat_template.json", &own)] {
        if let Some(template) = template_of(settings)? {
            return Ok((template, file.to_owned()));
        }
    }
    let default = format!("{TEMPLATES}/default.jinja");
    for file in ["chat_template.jinja", &default] {
        if source.contains(file) {
            let bytes = source.read(file, MAX_CONFIG).await?;
            let template = String::from_utf8(bytes);
            let template = template.map_err(|_| wrong("expected UTF-8, got other bytes".to_owned()))?;
            return Ok((template, file.to_owned()));
        }
    }
    if let Some(template) = template_of(tokenizer_config)? {
        return Ok((template, "tokenizer_config.json".to_owned()));
    }
    let folder = format!("{TEMPLATES}/");
    let others: Vec<&str> = source.files().filter_map(|file| file.strip_prefix(&folder)).collect();
    if !others.is_empty() {
        return Err(wrong(format!("expected a template named `default` among several, got {}", others.join(", "))));
    }
    Err(wrong(
        "expected chat_template.jinja, chat_template.json, or the key in processor_config.json or tokenizer_config.json, got none"
            .to_owned(),
    ))
}

fn wrong(why: String) -> Error {
    Error::Tokenizer { file: "chat template".into(), why }
}

/// The key `chat_template`: a text, or several texts by name, of which the one named `default` is used.
fn template_of(settings: &Value) -> Result<Option<String>, Error> {
    let default = || wrong("expected a template named `default` among several, got none".to_owned());
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
        Some(_) => Err(wrong("expected a text or a list of them, got something else".to_owned())),
    }
}
