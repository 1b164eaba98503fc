//! Enters: a checkpoint's chat template and a question. Leaves: the text of one user turn with a picture.
//!
//! Rendered as Hugging Face renders it (transformers 5.24, `utils/chat_template_utils.py`: Jinja's sandbox with
//! `trim_blocks`, `lstrip_blocks` and loop controls), by the minijinja library. Added here is what Hugging Face adds to Jinja, and
//! what minijinja lacks of Python: `generation` (the tag around what an assistant says), `moment` (`strftime_now`), `json`
//! (`tojson`), `methods` (of strings and lists), `filters` (and tests). What still differs is in the list of `tests`. A template is untrusted: its length, its work and its output are bounded.

mod filters;
mod generation;
mod json;
mod methods;
mod moment;
#[cfg(test)]
mod tests;

use std::io;

use minijinja::{
    Environment, ErrorKind, Value,
    syntax::SyntaxConfig,
    value::{Serde, ValueKind},
};
use serde_json::Map;

use crate::error::Error;

/// Instructions a template may take, bytes it may have, and bytes it may print: published ones take a small part of each.
const FUEL: u64 = 100_000;
/// The library reads a chain of operators by recursion, a level a byte at worst: longer ones would exhaust the stack.
const LONGEST_TEMPLATE: usize = 16 << 10;
const LONGEST_PROMPT: usize = 4 << 20;
/// Widest indentation.
const WIDEST: usize = 64;

/// A chat template, and what it can name.
pub(crate) struct Template {
    text: String,
    special: Map<String, serde_json::Value>,
}

impl Template {
    /// A template; `special` are the tokenizer's tokens by name, such as `bos_token`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a template that is too long. Whether it renders shows when it is rendered.
    pub fn new(text: &str, special: Map<String, serde_json::Value>) -> Result<Self, Error> {
        if text.len() > LONGEST_TEMPLATE {
            return Err(failed(format!("expected at most {LONGEST_TEMPLATE} bytes, got {}", text.len())));
        }
        // As Jinja reads a template; in what it prints, line ends stay as they are.
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        Ok(Self { text: generation::without_tags(&text)?, special })
    }

    /// The text of one turn: the user's, with a picture and then `question`, ready to be answered.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the template fails, takes too much work, or prints too much.
    pub fn render(&self, question: &str) -> Result<String, Error> {
        let wrong = |e: minijinja::Error| failed(format!("expected a template that renders, got {e}"));
        let environment = environment().map_err(wrong)?;
        let template = environment.template_from_str(&self.text).map_err(wrong)?;
        let picture = Value::from_pairs([("type", "image")]);
        let text = Value::from_pairs([("type", "text"), ("text", question)]);
        let content = Value::from_iter([picture, text]);
        let message = Value::from_pairs([("role", Value::from("user")), ("content", content)]);
        let turns = [
            ("messages", Value::from_iter([message])),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(true)),
        ];
        let special = self.special.iter().map(|(name, token)| (name.as_str(), Value::from(Serde(token))));
        let mut printed = Capped(Vec::new());
        template.render_captured_to(Value::from_pairs(special.chain(turns)), &mut printed).map_err(wrong)?;
        String::from_utf8(printed.0).map_err(|_| failed("expected UTF-8, got other bytes".into()))
    }
}

/// What Hugging Face's renderer offers.
fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_unknown_method_callback(methods::call);
    environment.add_function("raise_exception", |why: String| -> Result<String, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, why))
    });
    environment.add_function("strftime_now", moment::strftime_now);
    environment.add_filter("tojson", json::tojson);
    environment.set_formatter(|out, state, value| match value.kind() {
        ValueKind::Number if !value.is_integer() => write!(out, "{}", json::float(value)).map_err(Into::into),
        _ => minijinja::escape_formatter(out, state, value),
    });
    filters::add(&mut environment);
    Ok(environment)
}

fn failed(why: String) -> Error {
    Error::Tokenizer { file: "chat template".into(), why }
}

fn refuse(why: String) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, why)
}

/// Fuel bounds a template's work but not its output: this does.
struct Capped(Vec<u8>);

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LONGEST_PROMPT {
            return Err(io::Error::other(format!("expected at most {LONGEST_PROMPT} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
