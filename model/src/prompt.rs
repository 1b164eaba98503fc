//! A question in, token ids before and after the picture out; and answer ids back into text.
//!
//! Template, special tokens and stop ids come from the checkpoint. What the user typed stays text: a special token's
//! spelling within the question never becomes that token.

use std::io;
use std::sync::OnceLock;

use minijinja::{Environment, context, syntax::SyntaxConfig, value::Serde};
use serde_json::{Map, Value};
use tokenizers::Tokenizer;

use crate::{config::Config, error::Error};

/// Instructions a template may take, bytes it may have, and bytes it may print: LLaVA-NeXT's own take a small part of each.
const FUEL: u64 = 100_000;
/// The library reads a chain of operators by recursion, a level a byte at worst: longer ones would exhaust the stack.
const LONGEST_TEMPLATE: usize = 16 << 10;
const LONGEST_PROMPT: usize = 4 << 20;
/// Longest question, bytes: refused before the tokenizer sees it.
const LONGEST_QUESTION: usize = 1 << 20;
/// Stands for the user's text where it must not be tokenised with what is around it. A private-use character.
const PLACEHOLDER: &str = "\u{e000}";

/// Token ids of a question around the picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Ids with the picture as one id.
    pub ids: Vec<u32>,
    /// Where in `ids` the picture is.
    pub image_at: usize,
}

impl Prompt {
    /// Ids before the picture.
    pub fn before(&self) -> &[u32] {
        &self.ids[..self.image_at]
    }

    /// Ids after the picture: the text that can see it.
    pub fn after(&self) -> &[u32] {
        &self.ids[self.image_at + 1..]
    }
}

/// Tokenizer, chat template and stop ids of one checkpoint.
pub struct Prompter {
    tokenizer: Tokenizer,
    /// The same tokenizer with special tokens read as text; made when a user first types one.
    verbatim: OnceLock<Box<Tokenizer>>,
    added: Vec<String>,
    template: String,
    special: Map<String, Value>,
    stop: Vec<u32>,
    image_token: u32,
    allowed: Vec<bool>,
}

impl Prompter {
    /// `settings` are the objects that name special tokens; the first that names one counts.
    pub(crate) fn new(
        tokenizer: &[u8],
        template: String,
        settings: &[Value],
        stop: Vec<u32>,
        config: &Config,
    ) -> Result<Self, Error> {
        if template.len() > LONGEST_TEMPLATE {
            let got = template.len();
            return Err(template_error(format!("expected at most {LONGEST_TEMPLATE} bytes, got {got}")));
        }
        let tokenizer = load_tokenizer(tokenizer)?;
        let wrong = |why: String| Error::Tokenizer { file: "tokenizer.json".into(), why };
        let mut allowed = vec![false; config.text.vocab];
        for (token, id) in tokenizer.get_vocab(true) {
            match allowed.get_mut(id as usize) {
                Some(known) => *known = true,
                None => {
                    let rows = config.text.vocab;
                    return Err(wrong(format!(
                        "expected ids below the embedding's {rows} rows, got {id} for {token:?}"
                    )));
                }
            }
        }
        if !allowed.contains(&true) {
            return Err(wrong("expected a vocabulary, got an empty one".into()));
        }
        let image_token =
            u32::try_from(config.image_token).ok().filter(|&id| allowed[id as usize]).ok_or_else(|| {
                wrong(format!(
                    "expected a token of the picture's id {} (config.json: image_token_id), got none",
                    config.image_token
                ))
            })?;
        let added = tokenizer.get_added_tokens_decoder().into_values().map(|token| token.content).collect();
        let mut special = Map::new();
        for (key, value) in settings.iter().filter_map(Value::as_object).flatten() {
            let text = value.as_str().or_else(|| value.get("content").and_then(Value::as_str));
            if let (true, Some(text)) = (key.ends_with("_token"), text) {
                special.entry(key.clone()).or_insert_with(|| text.into());
            }
        }
        let prompter =
            Self { tokenizer, verbatim: OnceLock::new(), added, template, special, stop, image_token, allowed };
        // A template that cannot be rendered, or shows no picture, is found now and not at the first question.
        prompter.encode("?")?;
        Ok(prompter)
    }

    /// Ids that end an answer.
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop
    }

    /// Which rows of the vocabulary have a token: a padded vocabulary has rows that must never be generated.
    pub fn allowed(&self) -> &[bool] {
        &self.allowed
    }

    /// One user turn with one picture and `question`, ready to be answered.
    ///
    /// The template is rendered and tokenised whole. Where the question spells an added token, it is tokenised apart,
    /// with special tokens read as text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the template fails or does not show the picture exactly once; [`Error::Option`] for
    /// a question of more than a megabyte.
    pub fn encode(&self, question: &str) -> Result<Prompt, Error> {
        if question.len() > LONGEST_QUESTION {
            return Err(Error::Option {
                option: "the question",
                expected: format!("at most {LONGEST_QUESTION} bytes"),
                got: question.len().to_string(),
            });
        }
        let ids = if self.added.iter().any(|token| question.contains(token.as_str())) {
            let rendered = self.render(PLACEHOLDER)?;
            let parts: Vec<&str> = rendered.split(PLACEHOLDER).collect();
            let [before, after] = parts.as_slice() else {
                return Err(template_error(format!("expected the question once, got it {} times", parts.len() - 1)));
            };
            let verbatim = self.verbatim.get_or_init(|| {
                let mut tokenizer = self.tokenizer.clone();
                tokenizer.set_encode_special_tokens(true);
                Box::new(tokenizer)
            });
            let typed = self.typed(verbatim, question)?;
            [ids(&self.tokenizer, before)?, typed, ids(&self.tokenizer, after)?].concat()
        } else {
            ids(&self.tokenizer, &self.render(question)?)?
        };
        let places: Vec<usize> = (0..ids.len()).filter(|&i| ids[i] == self.image_token).collect();
        let [image_at] = places.as_slice() else {
            return Err(template_error(format!("expected the picture once, got it {} times", places.len())));
        };
        let image_at = *image_at;
        if image_at + 1 == ids.len() {
            return Err(template_error("expected text after the picture, got none".into()));
        }
        Ok(Prompt { ids, image_at })
    }

    /// Ids of a question that spells added tokens.
    ///
    /// The tokenizer reads only those added tokens as text that it marks special; a question in which another one would
    /// still become the picture or a stop is cut within that token's spelling.
    fn typed(&self, verbatim: &Tokenizer, question: &str) -> Result<Vec<u32>, Error> {
        let whole = ids(verbatim, question)?;
        if !whole.iter().any(|id| *id == self.image_token || self.stop.contains(id)) {
            return Ok(whole);
        }
        let mut cuts: Vec<usize> = self
            .added
            .iter()
            .filter(|token| !token.is_empty())
            .flat_map(|token| question.match_indices(token.as_str()))
            .map(|(at, token)| at + token.chars().next().map_or(0, char::len_utf8))
            .chain([0, question.len()])
            .collect();
        cuts.sort_unstable();
        cuts.dedup();
        let pieces: Result<Vec<Vec<u32>>, Error> =
            cuts.windows(2).map(|w| ids(verbatim, &question[w[0]..w[1]])).collect();
        Ok(pieces?.concat())
    }

    fn render(&self, question: &str) -> Result<String, Error> {
        let failed = |e: minijinja::Error| template_error(format!("expected a template that renders, got {e}"));
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        // As Hugging Face sets Jinja up.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(failed)?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |why: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, why))
        });
        // Fuel does not bound what one filter allocates.
        environment.remove_filter("format");
        environment.add_filter("indent", indent);
        let template = environment.template_from_str(&self.template).map_err(failed)?;
        let content = serde_json::json!([{"type": "image"}, {"type": "text", "text": question}]);
        let messages = serde_json::json!([{"role": "user", "content": content}]);
        let messages = minijinja::Value::from(Serde(messages));
        let special = minijinja::Value::from(Serde(&self.special));
        let mut text = Capped(Vec::new());
        template
            .render_captured_to(context! { messages, add_generation_prompt => true, ..special }, &mut text)
            .map_err(failed)?;
        String::from_utf8(text.0).map_err(|_| template_error("expected UTF-8, got other bytes".into()))
    }

    /// Ids of an answer, with the stop that ends it: what training asks for.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the tokenizer fails, or there is no stop id.
    pub fn answer_ids(&self, answer: &str) -> Result<Vec<u32>, Error> {
        let stop = self.stop.first().copied();
        let stop = stop.ok_or_else(|| template_error("expected an id that ends an answer, got none".into()))?;
        let mut ids = ids(&self.tokenizer, answer)?;
        ids.push(stop);
        Ok(ids)
    }

    /// A decoder of one answer.
    pub fn decoder(&self) -> Decoder<'_> {
        Decoder { prompter: self, ids: Vec::new(), read: 0, shown: 0 }
    }

    /// The text of whole `ids`, special tokens left out.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the tokenizer fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        let failed = |why: String| Error::Tokenizer { file: "tokenizer.json".into(), why };
        let text = crate::quiet::catch(|| self.tokenizer.decode(ids, true)).map_err(failed)?;
        text.map_err(|e| failed(e.to_string()))
    }
}

/// Turns answer ids into text as they come; a character split over several tokens appears with the last of them.
pub struct Decoder<'a> {
    prompter: &'a Prompter,
    ids: Vec<u32>,
    /// Ids whose text is out.
    read: usize,
    /// Ids that the next text is decoded together with: a tokenizer may treat the first of a sequence apart.
    shown: usize,
}

impl Decoder<'_> {
    /// The text that `id` adds, empty while a character is incomplete.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the tokenizer fails.
    pub fn push(&mut self, id: u32) -> Result<String, Error> {
        self.ids.push(id);
        let text = self.unshown()?;
        // Nothing yet, or half a character: the window stays, since what comes next is decoded together with it.
        if text.is_empty() || text.ends_with('\u{fffd}') {
            return Ok(String::new());
        }
        self.shown = self.read;
        self.read = self.ids.len();
        Ok(text)
    }

    /// What was held back, once no more tokens come: an unfinished character shows as U+FFFD.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the tokenizer fails.
    pub fn finish(&mut self) -> Result<String, Error> {
        let text = self.unshown()?;
        self.shown = self.ids.len();
        self.read = self.ids.len();
        Ok(text)
    }

    fn unshown(&self) -> Result<String, Error> {
        let before = self.prompter.decode(&self.ids[self.shown..self.read])?;
        let now = self.prompter.decode(&self.ids[self.shown..])?;
        Ok(now.strip_prefix(before.as_str()).unwrap_or(&now).to_owned())
    }
}

fn template_error(why: String) -> Error {
    Error::Tokenizer { file: "chat template".into(), why }
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, Error> {
    let failed = |why: String| Error::Tokenizer { file: "tokenizer.json".into(), why };
    let encoding = crate::quiet::catch(|| tokenizer.encode_fast(text, false)).map_err(failed)?;
    Ok(encoding.map_err(|e| failed(e.to_string()))?.get_ids().to_vec())
}

/// The tokenizers crate panics on some crafted files; natively that is caught, in a browser it ends the worker.
fn load_tokenizer(bytes: &[u8]) -> Result<Tokenizer, Error> {
    let wrong = |why: String| Error::Tokenizer { file: "tokenizer.json".into(), why };
    let quiet = crate::quiet::catch(|| -> tokenizers::Result<Tokenizer> {
        let mut tokenizer = Tokenizer::from_bytes(bytes)?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None)?;
        // Proves that a text can be encoded at all, where a failure is still ours to name.
        tokenizer.encode_fast("a \u{e9}\n", false)?;
        Ok(tokenizer)
    });
    match quiet {
        Ok(Ok(tokenizer)) => Ok(tokenizer),
        Ok(Err(e)) => Err(wrong(format!("expected a tokenizer, got {e}"))),
        Err(what) => Err(wrong(format!("expected a tokenizer, got one that its library cannot read ({what})"))),
    }
}

/// Jinja's `indent` with a width that a template can mean: every line but the first, by default, and no blank ones.
fn indent(text: String, width: usize, first: Option<bool>, blank: Option<bool>) -> Result<String, minijinja::Error> {
    const WIDEST: usize = 64;
    if width > WIDEST || text.len() > LONGEST_PROMPT {
        let why = format!("indent: expected at most {WIDEST} columns, got {width}");
        return Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, why));
    }
    let lines = text.split('\n').enumerate().map(|(i, line)| {
        let indented = if i == 0 { first.unwrap_or(false) } else { !line.is_empty() || blank.unwrap_or(false) };
        if indented { format!("{}{line}", " ".repeat(width)) } else { line.to_owned() }
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
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
