//! Tokenizes questions and detokenizes answers. Input: a question. Output: the token ids around the picture.
//! Source: `processing_utils.py` in Hugging Face's transformers 5.24.
//!
//! Template, special tokens and stop ids come from the checkpoint. The post-processor of the tokenizer adds its tokens,
//! such as BOS, around the whole prompt, unless the prompt already starts with `bos_token`. The question is always text: a
//! special token that is spelled in it never becomes that token.

use std::{collections::HashSet, sync::OnceLock};

use fovea_templates::ChatTemplate;
use serde_json::{Map, Value};
use tokenizers::{Encoding, Tokenizer};

use crate::{config::Config, error::Error, generation::Generation};

/// Longest question, in bytes. A longer one is an error before it is tokenized.
const LONGEST_QUESTION: usize = 1 << 20;
/// Replaces the question where it must be tokenized separately. A private-use character.
const PLACEHOLDER: &str = "\u{e000}";

/// Token ids of a question around the picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Ids with the picture as one id.
    pub ids: Vec<u32>,
    /// Index of the picture in `ids`.
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
    /// The same tokenizer, but it reads special tokens as text. Created when a question first contains one.
    verbatim: OnceLock<Box<Tokenizer>>,
    added: Vec<String>,
    /// Ids of special tokens, which are not part of the decoded text.
    special: HashSet<u32>,
    template: ChatTemplate,
    /// The token that a template may write at the start itself.
    bos: Option<String>,
    generation: Generation,
    image_token: u32,
    allowed: Vec<bool>,
}

impl Prompter {
    /// `special` are the tokens that a template can name; `settings` are generation_config.json and config.json.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a tokenizer or template that cannot be used; [`Error::Config`] for invalid settings.
    pub(crate) fn new(
        tokenizer: &[u8],
        template: String,
        special: Map<String, Value>,
        settings: [&Value; 2],
        config: &Config,
    ) -> Result<Self, Error> {
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
                let spelling =
                    tokenizer.token_to_id("<image>").map_or(String::new(), |id| format!("; <image> is {id}"));
                let id = config.image_token;
                wrong(format!(
                    "expected a token with the picture's id {id} (config.json: image_token_id), got none{spelling}"
                ))
            })?;
        let added_tokens = tokenizer.get_added_tokens_decoder();
        let left_out = added_tokens.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
        let added = added_tokens.into_values().map(|token| token.content).collect();
        let [generation, whole] = settings;
        let generation = Generation::read(generation, whole, &special, |token| tokenizer.token_to_id(token))?;
        let bos = special.get("bos_token").and_then(Value::as_str).map(str::to_owned);
        let template = ChatTemplate::new(template, special).map_err(|why| template_error(why.to_string()))?;
        let prompter = Self {
            tokenizer,
            verbatim: OnceLock::new(),
            added,
            special: left_out,
            template,
            bos,
            generation,
            image_token,
            allowed,
        };
        // Detects a template that cannot be rendered or has no picture now, and not at the first question.
        prompter.encode("?")?;
        Ok(prompter)
    }

    /// Ids that end an answer.
    pub fn stop_ids(&self) -> &[u32] {
        &self.generation.stop_ids
    }

    /// The checkpoint's settings for generation.
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// Whether each row of the vocabulary has a token. A padded vocabulary has rows that must never be generated.
    pub fn allowed(&self) -> &[bool] {
        &self.allowed
    }

    /// One user turn with one picture and `question`, ready to be answered.
    ///
    /// The rendered template is tokenized as a whole. A question that contains the spelling of an added token is tokenized
    /// separately, with special tokens read as text. The tokens of the post-processor are added once, around everything.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the template fails or does not contain the picture exactly once; [`Error::Option`] for a
    /// question of more than 1 MiB.
    pub fn encode(&self, question: &str) -> Result<Prompt, Error> {
        if question.len() > LONGEST_QUESTION {
            return Err(Error::Option {
                option: "the question",
                expected: format!("at most {LONGEST_QUESTION} bytes"),
                got: question.len().to_string(),
            });
        }
        let rendered = self.render(question)?;
        let post_process = !self.bos.as_ref().is_some_and(|bos| rendered.starts_with(bos.as_str()));
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
            let mut parts = vec![encoded(&self.tokenizer, before, false)?];
            parts.extend(self.typed(verbatim, question)?);
            parts.push(encoded(&self.tokenizer, after, false)?);
            let whole = self.tokenizer.post_process(Encoding::merge(parts, false), None, post_process);
            whole.map_err(|e| tokenizer_error(e.to_string()))?
        } else {
            encoded(&self.tokenizer, &rendered, post_process)?
        };
        let ids = ids.get_ids().to_vec();
        let places: Vec<usize> = (0..ids.len()).filter(|&i| ids[i] == self.image_token).collect();
        let [image_at] = places.as_slice() else {
            return Err(template_error(self.not_once(places.len())));
        };
        let image_at = *image_at;
        if image_at + 1 == ids.len() {
            return Err(template_error("expected text after the picture, got none".into()));
        }
        Ok(Prompt { ids, image_at })
    }

    fn render(&self, question: &str) -> Result<String, Error> {
        self.template.render(question).map_err(|why| template_error(why.to_string()))
    }

    /// The reason of the error if the picture occurs `times` times, which is not 1.
    fn not_once(&self, times: usize) -> String {
        let id = self.image_token;
        let spelling = self.tokenizer.token_to_id("<image>").filter(|&other| other != id);
        let other = spelling.map_or(String::new(), |other| format!("; the tokenizer's <image> is {other}"));
        format!("expected the picture (token {id} in config.json) once, got it {times} times{other}")
    }

    /// Tokens of a question that contains spellings of added tokens, in one or more pieces.
    ///
    /// `verbatim` reads only added tokens that are marked special as text. If another one would still become the picture or a
    /// stop id, the question is cut inside its spelling.
    fn typed(&self, verbatim: &Tokenizer, question: &str) -> Result<Vec<Encoding>, Error> {
        let whole = encoded(verbatim, question, false)?;
        let stop = self.stop_ids();
        if !whole.get_ids().iter().any(|id| *id == self.image_token || stop.contains(id)) {
            return Ok(vec![whole]);
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
        cuts.windows(2).map(|w| encoded(verbatim, &question[w[0]..w[1]], false)).collect()
    }

    /// Ids of an answer with the stop id that ends it, for training.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer fails, or if there is no stop id.
    pub fn answer_ids(&self, answer: &str) -> Result<Vec<u32>, Error> {
        let stop = self.stop_ids().first().copied();
        let stop = stop.ok_or_else(|| template_error("expected an id that ends an answer, got none".into()))?;
        let mut ids = encoded(&self.tokenizer, answer, false)?.get_ids().to_vec();
        ids.push(stop);
        Ok(ids)
    }

    /// Whether a token is one byte (`<0x41>`), or special and so not part of the text.
    fn is_byte_or_special(&self, id: u32) -> bool {
        let byte = |token: &str| token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
        self.special.contains(&id) || self.tokenizer.id_to_token(id).is_some_and(|token| byte(&token))
    }

    /// A detokenizer for one answer.
    pub fn detokenizer(&self) -> Detokenizer<'_> {
        Detokenizer { prompter: self, ids: Vec::new(), start: 0, shown: 0 }
    }

    /// The text of all `ids`, without special tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        let text = crate::quiet::catch(|| self.tokenizer.decode(ids, true)).map_err(tokenizer_error)?;
        text.map_err(|e| tokenizer_error(e.to_string()))
    }
}

/// Converts answer ids to text one by one. A character of several tokens appears with its last token.
///
/// The text so far is always a prefix of the text of all ids, and [`Detokenizer::finish`] returns the rest: together the
/// pieces equal [`Prompter::decode`] of the whole answer.
pub struct Detokenizer<'a> {
    prompter: &'a Prompter,
    ids: Vec<u32>,
    /// Index of the first id of the decoded window. A tokenizer may treat the first token of a sequence differently.
    start: usize,
    /// Bytes of the window's text that have been returned.
    shown: usize,
}

impl Detokenizer<'_> {
    /// The text that `id` adds; empty while a character is incomplete.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer fails.
    pub fn push(&mut self, id: u32) -> Result<String, Error> {
        self.ids.push(id);
        // Invalid UTF-8 turns a whole run of byte tokens into U+FFFD, including its complete characters. So the text of a run
        // is known only after another token ends it. Special tokens have no text and do not end a run.
        if self.prompter.is_byte_or_special(id) {
            return Ok(String::new());
        }
        let window = self.window()?;
        // An incomplete character at the end: keep the window, because it is decoded together with the next tokens.
        let whole = window.trim_end_matches('\u{fffd}');
        let new = window.get(self.shown..whole.len()).unwrap_or_default().to_owned();
        self.shown += new.len();
        // Start the window later if this does not change the text after it.
        let last = self.ids.len() - 1;
        if whole.len() == window.len() && !new.is_empty() && last > self.start {
            let tail = self.prompter.decode(&self.ids[last..])?;
            if !tail.is_empty() && new.ends_with(&tail) {
                (self.start, self.shown) = (last, tail.len());
            }
        }
        Ok(new)
    }

    /// The remaining text, after the last token. An incomplete character becomes U+FFFD.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer fails.
    pub fn finish(&mut self) -> Result<String, Error> {
        let window = self.window()?;
        let rest = window.get(self.shown..).unwrap_or_default().to_owned();
        self.shown = window.len();
        Ok(rest)
    }

    fn window(&self) -> Result<String, Error> {
        self.prompter.decode(&self.ids[self.start..])
    }
}

fn template_error(why: String) -> Error {
    Error::Tokenizer { file: "chat template".into(), why }
}

fn tokenizer_error(why: String) -> Error {
    Error::Tokenizer { file: "tokenizer.json".into(), why }
}

/// The tokens of a text; with those of the post-processor if `post_process` is set.
fn encoded(tokenizer: &Tokenizer, text: &str, post_process: bool) -> Result<Encoding, Error> {
    let encoding = crate::quiet::catch(|| tokenizer.encode_fast(text, post_process)).map_err(tokenizer_error)?;
    encoding.map_err(|e| tokenizer_error(e.to_string()))
}

/// Loads tokenizer.json. The tokenizers crate panics on some malicious files: a native build catches this, in a browser it
/// ends the worker.
fn load_tokenizer(bytes: &[u8]) -> Result<Tokenizer, Error> {
    let wrong = |why: String| Error::Tokenizer { file: "tokenizer.json".into(), why };
    let loaded = crate::quiet::catch(|| -> tokenizers::Result<Tokenizer> {
        let mut tokenizer = Tokenizer::from_bytes(bytes)?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None)?;
        // Detects a tokenizer that fails on any text.
        tokenizer.encode_fast("a \u{e9}\n", false)?;
        Ok(tokenizer)
    });
    match loaded {
        Ok(Ok(tokenizer)) => Ok(tokenizer),
        Ok(Err(e)) => Err(wrong(format!("expected a tokenizer, got {e}"))),
        Err(what) => Err(wrong(format!("expected a tokenizer, got one that its library cannot read ({what})"))),
    }
}
