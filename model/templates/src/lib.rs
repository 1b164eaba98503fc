//! Chat templates, rendered as Hugging Face transformers renders them.
//!
//! A template is a Jinja program over Python values. transformers adds options and names: trimmed blocks, the tags
//! `break`,
//! `continue` and `generation`, `tojson` without HTML escapes, `raise_exception`, `strftime_now`, and a sandbox in
//! which only namespaces can change. This crate has its own interpreter because the output of other Rust template
//! engines differs, and because a short template can exhaust their memory or stack. It prints exactly what transformers
//! prints, or returns an error with the reason. Source: transformers 5.24, `utils/chat_template_utils.py`; Jinja 3.1.6.
//!
//! ```
//! # use fovea_templates::{ChatTemplate, Content, Message, Part};
//! let template = "{{ bos_token }}{% for m in messages %}{{ m.role.upper() }}: {{ m.content[1].text }}{% endfor %}";
//! let special = serde_json::json!({"bos_token": "<s>"});
//! let template = ChatTemplate::new(template.into(), special.as_object().cloned().unwrap_or_default())?;
//! let question = Message { role: "user", content: Content::Parts(vec![Part::Image, Part::Text("What is it?")]) };
//! assert_eq!(template.render(&[question], true)?, "<s>USER: What is it?");
//! # Ok::<(), fovea_templates::TemplateError>(())
//! ```
//!
//! It returns an error, while transformers does not, for:
//! - integers beyond 64 bits;
//! - text marked by `escape` or `safe`, except to print, join, compare or measure it;
//! - `striptags`, `urlize`, `random`, `lipsum`, `pprint` and `wordwrap` of long texts, the number formats `e` and `g`,
//!   `encode`, `translate`, `self`, `autoescape` set to true, slices of ranges;
//! - values that Python prints with their address: functions, methods, generators, loops;
//! - `isdigit`, `isdecimal` and `isnumeric` of text that is not ASCII;
//! - templates that exceed the limits on length, nesting, work and output.
//!
//! Two differences give no error: `isalpha` and `isalnum` of combining characters, and an inner block that sets one of
//! the renderer's variables after a block nested in it has read that variable.

mod text;
mod fail;
mod budget;
mod syntax;
mod lexer;
mod parser;
mod hidden;
mod value;
mod run;
mod arguments;
mod print;
mod sequence;
mod clock;
mod strftime;
mod functions;
mod format;
mod strings;
mod operators;
mod attributes;
mod repeat;
mod checks;
mod filters_text;
mod filters_items;
mod tojson;
mod filters;
mod expression;
mod interpret;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use self::{
    budget::Budget,
    fail::{Fail, Res},
    run::Run,
    syntax::{Body, Name},
    value::Value,
};
/// The reason why a template cannot be parsed or rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(String);

/// Maximum length of a template in bytes. Published templates have up to 20000.
const LONGEST_TEMPLATE: usize = 64 << 10;

/// A parsed chat template.
pub struct ChatTemplate {
    body: Body,
    /// Variables that the template sets before it reads them.
    hidden: Vec<Name>,
    special: Map<String, Json>,
}

impl ChatTemplate {
    /// Parses a template. `special` contains the tokenizer's variables, as in its `special_tokens_map`.
    ///
    /// # Errors
    /// [`TemplateError`] if the template is too long or has a syntax error.
    pub fn new(text: String, special: Map<String, Json>) -> Result<Self, TemplateError> {
        if text.len() > LONGEST_TEMPLATE {
            let got = text.len();
            return Err(TemplateError(format!("expected at most {LONGEST_TEMPLATE} bytes, got {got}")));
        }
        let body = parser::parse(&text).map_err(|why| failed(&why))?;
        let hidden = hidden::hidden(&body).collect();
        Ok(Self { body, hidden, special })
    }

    /// Renders messages, and after them the generation prompt if `prompt` is set.
    ///
    /// # Errors
    /// [`TemplateError`] if the template raises an error, has an invalid operation, or exceeds a limit.
    pub fn render(&self, messages: &[Message<'_>], prompt: bool) -> Result<String, TemplateError> {
        self.run(messages, prompt).map_err(|why| failed(&why))
    }

    fn run(&self, messages: &[Message<'_>], prompt: bool) -> Res<String> {
        let budget = Budget::new();
        let mut variables = HashMap::new();
        for (name, value) in &self.special {
            variables.insert(name.as_str().into(), Value::json(value, &budget)?);
        }
        let messages = messages.iter().map(|message| value(message, &budget)).collect::<Res<Vec<_>>>()?;
        variables.insert("messages".into(), Value::list(messages, &budget)?);
        variables.insert("tools".into(), Value::None);
        variables.insert("documents".into(), Value::None);
        variables.insert("add_generation_prompt".into(), Value::Bool(prompt));
        for name in &self.hidden {
            variables.insert(name.clone(), Value::undefined(name));
        }
        Run::new(budget, variables).render(&self.body)
    }
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// `system`, `user` or `assistant`.
    pub role: &'a str,
    /// What is said.
    pub content: Content<'a>,
}

/// The content of a message. Some templates need a text, others a list; transformers gives them what its caller gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// A text.
    Text(String),
    /// A list of parts.
    Parts(Vec<Part<'a>>),
}

/// A part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// `{"type": "image"}`.
    Image,
    /// `{"type": "text", "text": ...}`.
    Text(&'a str),
}

/// The value of a message. The keys are in their usual order, because a template may print the whole message.
fn value(message: &Message<'_>, budget: &Budget) -> Res<Value> {
    let part = |pairs: &[(&str, &str)]| {
        Value::dict(pairs.iter().map(|(key, value)| (Value::str(key), Value::str(value))).collect(), budget)
    };
    let content = match &message.content {
        Content::Text(text) => Value::str(text),
        Content::Parts(parts) => {
            let parts = parts.iter().map(|content| match content {
                Part::Image => part(&[("type", "image")]),
                Part::Text(text) => part(&[("type", "text"), ("text", text)]),
            });
            Value::list(parts.collect::<Res<Vec<_>>>()?, budget)?
        }
    };
    let pairs = vec![(Value::str("role"), Value::str(message.role)), (Value::str("content"), content)];
    Value::dict(pairs, budget)
}

fn failed(why: &Fail) -> TemplateError {
    TemplateError(format!("expected a template that renders, got an error: {why}"))
}
