//! Tokenizes messages and detokenizes answers. Input: messages. Output: the token ids around the pictures.
//! Source: `processing_utils.py` in Hugging Face's transformers 5.24.
//!
//! Template, special tokens and stop ids come from the checkpoint. The post-processor of the tokenizer adds its tokens,
//! such as BOS, around the whole prompt, unless the prompt already starts with `bos_token`. What is said is always text: a
//! special token that is spelled in a message never becomes that token.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    iter::zip,
    sync::OnceLock,
};

use fovea_templates::{self as templates, ChatTemplate};
use serde_json::{Map, Value};
use tokenizers::{Encoding, Tokenizer};

use crate::{
    config::{Config, Layout},
    error::Error,
    generation::Generation,
    grid::{Grid, Thumbnail},
    messages::{Message, Messages, Part},
};

/// Longest texts of all messages together, in bytes. Longer ones are an error before they are tokenized.
const LONGEST: usize = 1 << 20;
/// Characters that replace a text which must be tokenized separately: those for private use.
const PLACEHOLDERS: std::ops::RangeInclusive<char> = '\u{e000}'..='\u{f8ff}';

/// Token ids of messages around the pictures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Ids with each place of a picture as one id.
    pub ids: Vec<u32>,
    /// Indices of these places in `ids`, rising: one per picture, in SmolVLM one per tile.
    pub places: Vec<usize>,
    /// Number of ids before those that only the question has, and that are after all places.
    asked_at: usize,
    /// Number of ids before the question. Less than `asked_at` if its text begins before a picture.
    question_at: usize,
}

impl Prompt {
    /// Ids that are kept for the next question: all places, and the messages before the question.
    pub fn lead(&self) -> &[u32] {
        &self.ids[..self.asked_at]
    }

    /// Ids after [`Prompt::lead`]. Not empty.
    pub fn after(&self) -> &[u32] {
        &self.ids[self.asked_at..]
    }

    /// Ids of the question: the text after the last place that no earlier message has. If text of the question comes before
    /// a picture, it is included, and the places are not.
    pub fn question(&self) -> Vec<u32> {
        (self.question_at..self.ids.len()).filter(|at| !self.places.contains(at)).map(|at| self.ids[at]).collect()
    }

    /// The row at which the question begins. `counts`: the number of rows of each place.
    pub(crate) fn question_row(&self, counts: &[usize]) -> usize {
        let before = self.places.partition_point(|&place| place < self.question_at);
        self.question_at - before + counts.iter().take(before).sum::<usize>()
    }

    /// Number of ids of text.
    pub fn text_tokens(&self) -> usize {
        self.ids.len() - self.places.len()
    }
}

/// How a prompt refers to a picture.
enum Marker {
    /// By this token, and text around it that says which tile it is (SmolVLM) if `tiles`.
    Token { spelling: String, tiles: bool },
    /// By no token: the text is cut at [`IMAGE`], and each part is encoded separately (the original LLaVA's
    /// `tokenizer_image_token` in `llava/mm_utils.py`).
    Cut,
}

/// The spelling of a picture in the conversations of the original LLaVA.
const IMAGE: &str = "<image>";

/// A part of a prompt.
#[derive(Clone, Copy)]
enum Piece<'a> {
    /// Text of the template, and texts of messages without the spelling of a special token.
    Template(&'a str),
    /// A text of a message. Special tokens that are spelled in it stay text.
    Typed(&'a str),
}

/// Messages as the template prints them.
struct Rendered {
    /// With a placeholder in place of each text of `typed`.
    template: String,
    /// Placeholders and their texts, as the template prints them.
    typed: HashMap<char, String>,
    /// The placeholders of the last message.
    asked: Vec<char>,
    /// Whether the post-processor of the tokenizer adds its tokens.
    post_process: bool,
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
    /// Whether the template reads a message without a picture as a text.
    texts_alone: bool,
    /// The token that a template may write at the start itself.
    bos: Option<String>,
    generation: Generation,
    image_token: u32,
    marker: Marker,
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
        let (image_token, marker) = marker(&tokenizer, config, &allowed)?;
        let added_tokens = tokenizer.get_added_tokens_decoder();
        let left_out = added_tokens.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
        let added = added_tokens.into_values().map(|token| token.content).collect();
        let [generation, whole] = settings;
        let generation = Generation::read(generation, whole, &special, |token| tokenizer.token_to_id(token))?;
        let bos = special.get("bos_token").and_then(Value::as_str).map(str::to_owned);
        let template = ChatTemplate::new(template, special).map_err(|why| template_error(why.to_string()))?;
        let mut prompter = Self {
            tokenizer,
            verbatim: OnceLock::new(),
            added,
            special: left_out,
            template,
            texts_alone: false,
            bos,
            generation,
            image_token,
            marker,
            allowed,
        };
        prompter.texts_alone = prompter.needs_texts();
        // Detects a template that cannot be rendered or has no picture now, and not at the first question.
        prompter.encode("?", &[Grid::default()])?;
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

    /// The id of the picture's token and its spelling. None in the original LLaVA, which has no such token.
    pub fn image_token(&self) -> Option<(u32, &str)> {
        match &self.marker {
            Marker::Token { spelling, .. } => Some((self.image_token, spelling.as_str())),
            Marker::Cut => None,
        }
    }

    /// The spelling of a token.
    pub fn spelling(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    /// The token before every prompt, if there is one, and what adds it: `template` or `tokenizer`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the template or the tokenizer fails.
    pub fn bos(&self) -> Result<Option<(u32, &'static str)>, Error> {
        let text = self.print(&Messages::from("?").placed(1)?, true)?;
        if let Some(bos) = self.bos.as_ref().filter(|bos| text.starts_with(bos.as_str())) {
            return Ok(self.tokenizer.token_to_id(bos).map(|id| (id, "template")));
        }
        let first = |post_process| -> Result<Option<u32>, Error> {
            Ok(encoded(&self.tokenizer, &text, post_process)?.get_ids().first().copied())
        };
        let (plain, whole) = (first(false)?, first(true)?);
        Ok(whole.filter(|_| whole != plain).map(|id| (id, "tokenizer")))
    }

    /// Whether each row of the vocabulary has a token. A padded vocabulary has rows that must never be generated.
    pub fn allowed(&self) -> &[bool] {
        &self.allowed
    }

    /// Messages with `pictures`, ready to be answered.
    ///
    /// The rendered template is tokenized as a whole. A text that contains the spelling of an added token is tokenized
    /// separately, with special tokens read as text. The tokens of the post-processor are added once, around everything.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the template fails or does not contain each picture exactly once; [`Error::Option`] for
    /// messages that cannot be asked, and for more than 1 MiB of text.
    pub fn encode(&self, messages: impl Into<Messages>, pictures: &[Grid]) -> Result<Prompt, Error> {
        let messages = messages.into();
        let bytes: usize = messages.0.iter().map(|message| message.text().len()).sum();
        if bytes > LONGEST {
            let (expected, got) = (format!("at most {LONGEST} bytes"), bytes.to_string());
            return Err(Error::Option { option: "messages", expected, got });
        }
        let messages = messages.placed(pictures.len())?;
        let ids = self.tokens(&messages, pictures, true)?;
        let places: Vec<usize> = (0..ids.len()).filter(|&i| ids[i] == self.image_token).collect();
        let expected: usize = pictures.iter().map(|grid| self.places_of(grid)).sum();
        if places.len() != expected {
            return Err(template_error(self.wrong_count(expected, places.len())));
        }
        // Without a picture the first token takes its place: what is kept for the next question is never empty.
        let seen = places.last().map_or(1, |last| last + 1);
        if seen >= ids.len() {
            return Err(template_error("expected text after the picture, got none".into()));
        }
        let mixed = messages.0.last().is_some_and(Message::begins_with_text);
        let own = if messages.0.len() == 1 && !mixed { 0 } else { self.shared(messages, pictures, &ids) };
        let asked_at = own.clamp(seen, ids.len() - 1);
        Ok(Prompt { asked_at, question_at: if mixed { own.min(asked_at) } else { asked_at }, ids, places })
    }

    /// Number of ids at the start of `ids` that depend on the earlier messages only: those that the earlier messages have
    /// alone, and that stay with another question. A template may refuse the earlier messages alone, or leave them out.
    fn shared(&self, mut messages: Messages, pictures: &[Grid], ids: &[u32]) -> usize {
        let same = |other: Result<Vec<u32>, Error>| {
            zip(other.unwrap_or_default(), ids).take_while(|(other, own)| other == *own).count()
        };
        let Some(mut last) = messages.0.pop() else { return 0 };
        let earlier = if messages.0.is_empty() { ids.len() } else { same(self.tokens(&messages, pictures, false)) };
        let texts = last.content.iter_mut().filter(|part| matches!(part, Part::Text(_)));
        texts.for_each(|part| *part = Part::Text(PLACEHOLDERS.start().to_string()));
        messages.push(last);
        earlier.min(same(self.tokens(&messages, pictures, true)))
    }

    /// The ids of messages, with the generation prompt if `prompt` is set.
    fn tokens(&self, messages: &Messages, pictures: &[Grid], prompt: bool) -> Result<Vec<u32>, Error> {
        let Rendered { template, typed, asked, post_process } = self.rendered(messages, prompt)?;
        let expanded = self.expanded(&template, pictures);
        let (mut pieces, mut printed) = (Vec::new(), HashSet::new());
        let mut rest = &*expanded;
        while let Some((at, placeholder)) = rest.char_indices().find(|(_, c)| is_placeholder(&typed, *c)) {
            pieces.push(Piece::Template(&rest[..at]));
            pieces.extend(typed.get(&placeholder).map(|text| Piece::Typed(text)));
            printed.insert(placeholder);
            rest = &rest[at + placeholder.len_utf8()..];
        }
        pieces.push(Piece::Template(rest));
        // A template may leave out an earlier message, and may print one twice.
        if asked.iter().any(|placeholder| !printed.contains(placeholder)) {
            return Err(template_error("expected the question in the prompt, got a prompt without it".into()));
        }
        match self.marker {
            Marker::Token { .. } => self.ids(&pieces, post_process),
            Marker::Cut => self.ids_of_parts(&pieces, post_process),
        }
    }

    /// The messages as the template prints them. A text that contains the spelling of an added token is replaced.
    fn rendered(&self, messages: &Messages, prompt: bool) -> Result<Rendered, Error> {
        let plain = self.print(messages, prompt)?;
        let separate = self.separate(messages);
        let begins = |text: &str| self.bos.as_ref().is_some_and(|bos| text.starts_with(bos.as_str()));
        if !separate.contains(&true) {
            let post_process = !begins(&plain);
            return Ok(Rendered { template: plain, typed: HashMap::new(), asked: Vec::new(), post_process });
        }
        let used: HashSet<char> = plain.chars().filter(|c| PLACEHOLDERS.contains(c)).collect();
        let mut free = PLACEHOLDERS.filter(|c| !used.contains(c));
        let mut typed = HashMap::new();
        let mut asked = Vec::new();
        let mut replaced = messages.clone();
        for (message, separate) in zip(&mut replaced.0, separate) {
            // In the end those of the question.
            asked.clear();
            for part in &mut message.content {
                if let Part::Text(text) = part
                    && separate
                    && !text.trim().is_empty()
                {
                    let few = || template_error("expected fewer texts with the spelling of a special token".into());
                    let placeholder = free.next().ok_or_else(few)?;
                    asked.push(placeholder);
                    typed.insert(placeholder, std::mem::replace(text, placeholder.into()));
                }
            }
        }
        let template = self.print(&replaced, prompt)?;
        // Many templates trim texts: with a character around them that is trimmed like a space, but that no template has.
        const AROUND: char = '\u{b}';
        for part in replaced.0.iter_mut().flat_map(|message| &mut message.content) {
            if let Part::Text(text) = part
                && text.chars().next().is_some_and(|c| is_placeholder(&typed, c))
            {
                *text = format!("{AROUND}{text}{AROUND}");
            }
        }
        let around = self.print(&replaced, prompt)?;
        let is_whole = |(at, c): &(usize, char)| {
            around[..*at].ends_with(AROUND) && around[at + c.len_utf8()..].starts_with(AROUND)
        };
        let found = around.char_indices().filter(|(_, c)| is_placeholder(&typed, *c));
        let whole: HashSet<char> = found.filter(is_whole).map(|(_, c)| c).collect();
        for (placeholder, text) in &mut typed {
            if !whole.contains(placeholder) {
                *text = text.trim().to_owned();
            }
        }
        let post_process = !begins(&template);
        Ok(Rendered { template, typed, asked, post_process })
    }

    /// For each message whether its texts are tokenized separately: they contain the spelling of an added token, also across
    /// its parts, because a template may print these one after another.
    fn separate(&self, messages: &Messages) -> Vec<bool> {
        let spells = |text: &str| {
            self.added.iter().any(|token| text.contains(token.as_str()))
                || matches!(self.marker, Marker::Cut) && text.contains(IMAGE)
        };
        let joined = |texts: &mut dyn Iterator<Item = &str>| {
            let (whole, trimmed): (String, String) = texts.map(|text| (text, text.trim())).unzip();
            spells(&whole) || spells(&trimmed)
        };
        let each: Vec<bool> = messages.0.iter().map(|message| joined(&mut message.texts())).collect();
        // Across messages: only a template without any text between two of them prints these so.
        let rest = zip(&messages.0, &each).flat_map(|(message, &separate)| {
            let gap = separate.then_some("\n");
            message.texts().filter(move |_| !separate).chain(gap)
        });
        if joined(&mut rest.into_iter()) { vec![true; each.len()] } else { each }
    }

    fn print(&self, messages: &Messages, prompt: bool) -> Result<String, Error> {
        let messages: Vec<_> = messages.0.iter().map(|message| printed(message, self.texts_alone)).collect();
        self.template.render(&messages, prompt).map_err(|why| template_error(why.to_string()))
    }

    /// Whether the template needs a message without a picture as a text, not as a list of one text: with a list it fails, or
    /// prints the list.
    fn needs_texts(&self) -> bool {
        let question = |pictures| Messages::from("?").placed(pictures).unwrap_or_default().0;
        let later = vec![Message::assistant("a"), Message::user("b")];
        let whole = [question(1), later].concat();
        let system = [vec![Message::system("c")], whole.clone()].concat();
        let good = |messages: &[Message], texts_alone| {
            let messages: Vec<_> = messages.iter().map(|message| printed(message, texts_alone)).collect();
            self.template.render(&messages, true).is_ok_and(|text| !text.contains("'type': 'text'"))
        };
        let cases = [&whole, &system];
        let (lists, texts) = (cases.map(|case| good(case, false)), cases.map(|case| good(case, true)));
        zip(lists, texts).all(|(list, text)| text || !list) && texts != lists
    }

    /// The number of places that a picture has in the prompt.
    fn places_of(&self, grid: &Grid) -> usize {
        let last = grid.thumbnail == Thumbnail::Last;
        if matches!(self.marker, Marker::Token { tiles: true, .. }) {
            grid.blocks().len() + usize::from(last)
        } else {
            1
        }
    }

    /// The rendered template with the text around the tiles of each picture. Source: `get_image_prompt_string` in Hugging
    /// Face's `models/idefics3/processing_idefics3.py`.
    fn expanded<'a>(&self, template: &'a str, pictures: &[Grid]) -> Cow<'a, str> {
        let Marker::Token { spelling, tiles: true } = &self.marker else { return template.into() };
        const FAKE: &str = "<fake_token_around_image>";
        let mut parts = template.split(spelling.as_str());
        let mut text = parts.next().unwrap_or_default().to_owned();
        let mut grids = pictures.iter();
        for part in parts {
            match grids.next() {
                Some(grid) if grid.thumbnail == Thumbnail::Last => {
                    for row in 1..=grid.rows {
                        for col in 1..=grid.cols {
                            text += &format!("{FAKE}<row_{row}_col_{col}>{spelling}");
                        }
                        text += "\n";
                    }
                    text += &format!("\n{FAKE}<global-img>{spelling}{FAKE}");
                }
                Some(_) => text += &format!("{FAKE}<global-img>{spelling}{FAKE}"),
                // More pictures in the template than in the question: the count of places reports it.
                None => text += spelling,
            }
            text += part;
        }
        text.into()
    }

    /// The ids of the pieces as one text, with those of the post-processor if `post_process` is set.
    fn ids(&self, pieces: &[Piece<'_>], post_process: bool) -> Result<Vec<u32>, Error> {
        if let [Piece::Template(text)] = pieces {
            return Ok(encoded(&self.tokenizer, text, post_process)?.get_ids().to_vec());
        }
        let mut parts = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Template(text) => parts.push(encoded(&self.tokenizer, text, false)?),
                Piece::Typed(question) => parts.extend(self.typed(self.verbatim(), question)?),
            }
        }
        let whole = self.tokenizer.post_process(Encoding::merge(parts, false), None, post_process);
        Ok(whole.map_err(|e| tokenizer_error(e.to_string()))?.get_ids().to_vec())
    }

    /// The ids of the pieces, cut at each picture. Each part has the tokens of the post-processor; a BOS of all but the first
    /// part is left out.
    fn ids_of_parts(&self, pieces: &[Piece<'_>], post_process: bool) -> Result<Vec<u32>, Error> {
        let mut parts: Vec<Vec<Piece<'_>>> = vec![Vec::new()];
        for &piece in pieces {
            let Piece::Template(text) = piece else {
                parts.last_mut().into_iter().for_each(|part| part.push(piece));
                continue;
            };
            for (i, text) in text.split(IMAGE).enumerate() {
                if i > 0 {
                    parts.push(Vec::new());
                }
                parts.last_mut().into_iter().for_each(|part| part.push(Piece::Template(text)));
            }
        }
        let bos = self.bos.as_ref().and_then(|bos| self.tokenizer.token_to_id(bos));
        let mut ids = Vec::new();
        for (i, part) in parts.iter().enumerate() {
            let mut own = self.ids(part, post_process)?;
            if i > 0 {
                ids.push(self.image_token);
                if bos.is_some() && own.first().copied() == bos {
                    own.remove(0);
                }
            }
            ids.extend(own);
        }
        Ok(ids)
    }

    /// The tokenizer that reads special tokens as text.
    fn verbatim(&self) -> &Tokenizer {
        self.verbatim.get_or_init(|| {
            let mut tokenizer = self.tokenizer.clone();
            tokenizer.set_encode_special_tokens(true);
            Box::new(tokenizer)
        })
    }

    /// The reason of the error if the pictures have `got` places instead of `expected`.
    fn wrong_count(&self, expected: usize, got: usize) -> String {
        let id = self.image_token;
        let spelling = self.tokenizer.token_to_id(IMAGE).filter(|&other| other != id);
        let other = spelling.map_or(String::new(), |other| {
            format!("; the tokenizer's <image> is {other}: set image_token_id in config.json to {other} if the checkpoint was made so")
        });
        let times = if expected == 1 { "once".to_owned() } else { format!("{expected} times") };
        format!("expected the picture (token {id} in config.json) {times}, got it {got} times{other}")
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

/// A message for the template; without a picture as a text, if `texts_alone` is set.
fn printed(message: &Message, texts_alone: bool) -> templates::Message<'_> {
    let content = if texts_alone && message.pictures() == 0 {
        templates::Content::Text(message.text())
    } else {
        let parts = message.content.iter().map(|part| match part {
            Part::Picture => templates::Part::Image,
            Part::Text(text) => templates::Part::Text(text),
        });
        templates::Content::Parts(parts.collect())
    };
    templates::Message { role: message.role.name(), content }
}

/// Whether a text is replaced by this character.
fn is_placeholder(typed: &HashMap<char, String>, c: char) -> bool {
    PLACEHOLDERS.contains(&c) && typed.contains_key(&c)
}

/// The picture's id and how prompts refer to it.
fn marker(tokenizer: &Tokenizer, config: &Config, allowed: &[bool]) -> Result<(u32, Marker), Error> {
    let Some(id) = config.image_token else {
        // Beyond all rows of the embedding: it never reaches the network.
        return Ok((allowed.len() as u32, Marker::Cut));
    };
    let tiles = config.layout == Layout::Split;
    const FAKE: &str = "<fake_token_around_image>";
    if tiles && tokenizer.token_to_id(FAKE).is_none() {
        return Err(tokenizer_error(format!("expected the token {FAKE}, which is around every picture, got none")));
    }
    match tokenizer.id_to_token(id).filter(|_| allowed.get(id as usize).is_some_and(|&known| known)) {
        Some(spelling) => Ok((id, Marker::Token { spelling, tiles })),
        None => {
            let other = tokenizer.token_to_id(IMAGE).map_or(String::new(), |id| format!("; <image> is {id}"));
            let expected = "expected a token with the picture's id";
            Err(tokenizer_error(format!("{expected} {id} (config.json: image_token_id), got none{other}")))
        }
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
