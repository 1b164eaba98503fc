//! Chat templates, rendered as Hugging Face transformers renders them.
//!
//! A template is a program in Jinja's language over Python's values, set up in transformers' own way: blocks trimmed, the
//! tags `break`, `continue` and `generation`, `tojson` without HTML escapes, `raise_exception`, `strftime_now`, and a
//! sandbox in which only namespaces change. Template engines for Rust differ in what they print for such programs, and a
//! short one can exhaust memory or stack in them, or end the program; so this is our own interpreter. It either prints
//! what transformers prints or fails and says why. Source: transformers 5.24, `utils/chat_template_utils.py`; Jinja 3.1.6.
//!
//! ```
//! # use fovea_templates::ChatTemplate;
//! let template = "{{ bos_token }}{% for m in messages %}{{ m.role.upper() }}: {{ m.content[1].text }}{% endfor %}";
//! let special = serde_json::json!({"bos_token": "<s>"});
//! let template = ChatTemplate::new(template.into(), special.as_object().cloned().unwrap_or_default())?;
//! assert_eq!(template.render("What is it?")?, "<s>USER: What is it?");
//! # Ok::<(), fovea_templates::TemplateError>(())
//! ```
//!
//! It fails where transformers does not:
//! - whole numbers beyond 64 bits;
//! - text marked by `escape` or `safe`, other than printed, joined, compared or measured;
//! - `striptags`, `urlize`, `random`, `lipsum`, `pprint` and `wordwrap` of long texts, layouts `e` and `g` of numbers,
//!   `encode`, `translate`, `self`, `autoescape` switched on, slices of ranges;
//! - what Python prints with an address: functions, methods, generators, loops;
//! - `isdigit`, `isdecimal` and `isnumeric` of text that is not ASCII;
//! - templates beyond the limits below: in length, nesting, work and output.
//!
//! Silently it differs in the letters that `isalpha` and `isalnum` know among signs that stand on other letters, and where a
//! block other than the outermost sets one of the renderer's variables after a block within it has read it.

mod arguments;
mod attributes;
mod budget;
mod checks;
mod clock;
mod expression;
mod fail;
mod filters;
mod filters_items;
mod filters_text;
mod format;
mod functions;
mod hidden;
mod interpret;
mod lexer;
mod operators;
mod parser;
mod print;
mod repeat;
mod sequence;
mod strftime;
mod strings;
mod syntax;
#[cfg(test)]
mod tests;
mod text;
mod tojson;
mod value;

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use self::{
    budget::Budget,
    fail::{Fail, Res},
    interpret::Run,
    syntax::{Body, Name},
    value::Value,
};
/// Why a template can't be read or rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(String);

/// Longest template, bytes. Published ones have up to 20000.
const LONGEST_TEMPLATE: usize = 64 << 10;

/// A chat template, read.
pub struct ChatTemplate {
    body: Body,
    /// What the template sets before it reads it.
    hidden: Vec<Name>,
    special: Map<String, Json>,
}

impl ChatTemplate {
    /// `special` are the tokenizer's variables, as in its `special_tokens_map`.
    ///
    /// # Errors
    /// [`TemplateError`] where the template is too long or does not follow Jinja's grammar.
    pub fn new(text: String, special: Map<String, Json>) -> Result<Self, TemplateError> {
        if text.len() > LONGEST_TEMPLATE {
            let got = text.len();
            return Err(error(format!("expected at most {LONGEST_TEMPLATE} bytes, got {got}")));
        }
        let body = parser::parse(&text).map_err(|why| failed(&why))?;
        let hidden = hidden::hidden(&body).collect();
        Ok(Self { body, hidden, special })
    }

    /// One user turn, ready to be answered: a picture, then `question`.
    ///
    /// # Errors
    /// [`TemplateError`] where the template fails, by its own will or by a mistake, or takes too much.
    pub fn render(&self, question: &str) -> Result<String, TemplateError> {
        self.run(question).map_err(|why| failed(&why))
    }

    fn run(&self, question: &str) -> Res<String> {
        let budget = Budget::new();
        let mut variables = HashMap::new();
        for (name, value) in &self.special {
            variables.insert(name.as_str().into(), Value::json(value, &budget)?);
        }
        variables.insert("messages".into(), messages(question, &budget)?);
        variables.insert("tools".into(), Value::None);
        variables.insert("documents".into(), Value::None);
        variables.insert("add_generation_prompt".into(), Value::Bool(true));
        for name in &self.hidden {
            variables.insert(name.clone(), Value::undefined(name));
        }
        Run::new(budget, variables).render(&self.body)
    }
}

/// One message, its keys in the order in which they are usually written: templates may print it whole.
fn messages(question: &str, budget: &Budget) -> Res<Value> {
    let part = |pairs: &[(&str, &str)]| {
        Value::dict(pairs.iter().map(|(key, value)| (Value::str(key), Value::str(value))).collect(), budget)
    };
    let content = vec![part(&[("type", "image")])?, part(&[("type", "text"), ("text", question)])?];
    let message =
        vec![(Value::str("role"), Value::str("user")), (Value::str("content"), Value::list(content, budget)?)];
    Value::list(vec![Value::dict(message, budget)?], budget)
}

fn failed(why: &Fail) -> TemplateError {
    error(format!("expected a template that renders, got {why}"))
}

fn error(why: String) -> TemplateError {
    TemplateError(why)
}
