//! A question in, token ids before and after the picture out; and answer ids back into text.
//!
//! Template, special tokens and stop ids come from the checkpoint. As Hugging Face's processors have it (transformers 5.24,
//! `processing_utils.py`), the tokenizer's post-processor puts its tokens, such as BOS, around the whole prompt, unless the
//! template has written `bos_token` first. What the user typed stays text: a special token's spelling within the question
//! never becomes that token.

use std::{collections::HashSet, sync::OnceLock};

use fovea_templates::ChatTemplate;
use serde_json::{Map, Value};
use tokenizers::{Encoding, Tokenizer};

use crate::{config::Config, error::Error, generation::Generation};

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
    /// Ids that are left out of text.
    special: HashSet<u32>,
    template: ChatTemplate,
    /// The token that a template may write first itself.
    bos: Option<String>,
    generation: Generation,
    image_token: u32,
    allowed: Vec<bool>,
}

impl Prompter {
    /// `special` are the tokens that a template can name; `settings` are generation_config.json and config.json.
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
                let spelt = tokenizer.token_to_id("<image>").map_or(String::new(), |id| format!("; <image> is {id}"));
                let id = config.image_token;
                wrong(format!(
                    "expected a token of the picture's id {id} (config.json: image_token_id), got none{spelt}"
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
        // A template that cannot be rendered, or shows no picture, is found now and not at the first question.
        prompter.encode("?")?;
        Ok(prompter)
    }

    /// Ids that end an answer.
    pub fn stop_ids(&self) -> &[u32] {
        &self.generation.stop_ids
    }

    /// What the checkpoint says about generating.
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// Which rows of the vocabulary have a token: a padded vocabulary has rows that must never be generated.
    pub fn allowed(&self) -> &[bool] {
        &self.allowed
    }

    /// One user turn with one picture and `question`, ready to be answered.
    ///
    /// The template is rendered and tokenised whole. Where the question spells an added token, it is tokenised apart,
    /// with special tokens read as text. The post-processor's tokens go once around the whole.
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
        let rendered = self.render(question)?;
        let dress = !self.bos.as_ref().is_some_and(|bos| rendered.starts_with(bos.as_str()));
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
            let whole = self.tokenizer.post_process(Encoding::merge(parts, false), None, dress);
            whole.map_err(|e| tokenizer_error(e.to_string()))?
        } else {
            encoded(&self.tokenizer, &rendered, dress)?
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

    /// What is wrong where the picture is there `times` times.
    fn not_once(&self, times: usize) -> String {
        let id = self.image_token;
        let spelt = self.tokenizer.token_to_id("<image>").filter(|&other| other != id);
        let other = spelt.map_or(String::new(), |other| format!("; the tokenizer's <image> is {other}"));
        format!("expected the picture (token {id}, by config.json) once, got it {times} times{other}")
    }

    /// A question that spells added tokens, in pieces.
    ///
    /// The tokenizer reads only those added tokens as text that it marks special; a question in which another one would
    /// still become the picture or a stop is cut within that token's spelling.
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

    /// Ids of an answer, with the stop that ends it: what training asks for.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the tokenizer fails, or there is no stop id.
    pub fn answer_ids(&self, answer: &str) -> Result<Vec<u32>, Error> {
        let stop = self.stop_ids().first().copied();
        let stop = stop.ok_or_else(|| template_error("expected an id that ends an answer, got none".into()))?;
        let mut ids = encoded(&self.tokenizer, answer, false)?.get_ids().to_vec();
        ids.push(stop);
        Ok(ids)
    }

    /// Whether a token stands for one byte (`<0x41>`), or is left out of text.
    fn is_byte_or_special(&self, id: u32) -> bool {
        let byte = |token: &str| token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
        self.special.contains(&id) || self.tokenizer.id_to_token(id).is_some_and(|token| byte(&token))
    }

    /// A decoder of one answer.
    pub fn decoder(&self) -> Decoder<'_> {
        Decoder { prompter: self, ids: Vec::new(), start: 0, shown: 0 }
    }

    /// The text of whole `ids`, special tokens left out.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the tokenizer fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        let text = crate::quiet::catch(|| self.tokenizer.decode(ids, true)).map_err(tokenizer_error)?;
        text.map_err(|e| tokenizer_error(e.to_string()))
    }
}

/// Turns answer ids into text as they come; a character split over several tokens appears with the last of them.
///
/// What has been shown is always the beginning of the text of all ids so far, and [`Decoder::finish`] shows the rest: the
/// pieces together are what [`Prompter::decode`] makes of the whole answer.
pub struct Decoder<'a> {
    prompter: &'a Prompter,
    ids: Vec<u32>,
    /// The first id of the window that is decoded: a tokenizer may treat the first of a sequence apart.
    start: usize,
    /// Bytes of the window's text that have been shown.
    shown: usize,
}

impl Decoder<'_> {
    /// The text that `id` adds, empty while a character is incomplete.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the tokenizer fails.
    pub fn push(&mut self, id: u32) -> Result<String, Error> {
        self.ids.push(id);
        // Bytes that make no text turn the whole run of bytes into U+FFFD, characters that were complete included: what a run
        // says is known when another token ends it. Special tokens say nothing, and end no run.
        if self.prompter.is_byte_or_special(id) {
            return Ok(String::new());
        }
        let window = self.window()?;
        // Half a character: the window stays, since what comes next is decoded together with it.
        let whole = window.trim_end_matches('\u{fffd}');
        let new = window.get(self.shown..whole.len()).unwrap_or_default().to_owned();
        self.shown += new.len();
        // The window may begin later, where that changes nothing of what comes behind it.
        let last = self.ids.len() - 1;
        if whole.len() == window.len() && !new.is_empty() && last > self.start {
            let tail = self.prompter.decode(&self.ids[last..])?;
            if !tail.is_empty() && new.ends_with(&tail) {
                (self.start, self.shown) = (last, tail.len());
            }
        }
        Ok(new)
    }

    /// What was held back, once no more tokens come: an unfinished character shows as U+FFFD.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the tokenizer fails.
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

/// A text as tokens, with the post-processor's around it where `dress` is set.
fn encoded(tokenizer: &Tokenizer, text: &str, dress: bool) -> Result<Encoding, Error> {
    let encoding = crate::quiet::catch(|| tokenizer.encode_fast(text, dress)).map_err(tokenizer_error)?;
    encoding.map_err(|e| tokenizer_error(e.to_string()))
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
