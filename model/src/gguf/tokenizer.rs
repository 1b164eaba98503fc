//! Vocabularies of GGUF. Input: the keys `tokenizer.ggml.*`. Output: tokenizer.json, special tokens and stop ids.
//! Source: `src/llama-vocab.cpp` in llama.cpp; `integrations/gguf` and `generate_merges` in Hugging Face's transformers
//! 5.24.

use std::collections::HashMap;

use fovea_runtime::gguf::{Gguf, Value as Entry};
use serde_json::{Map, Value, json};

use crate::error::Error;

/// Most work for derived merges: bytes that are hashed, and bytes of the merges.
const MOST_WORK: usize = 1 << 28;
/// Longest token from which merges are derived, in bytes. The work grows with its square.
const LONGEST: usize = 1 << 10;

// Types of tokens.
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER: u64 = 4;
const UNUSED: u64 = 5;
const BYTE: u64 = 6;

/// The regular expression of Llama 3's pre-tokenizer.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// That of Qwen2.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Tokens that end an answer in LLaVA's conversations, whatever `eos_token_id` says: old files have the token that ends
/// a document.
const ENDS: [&str; 2] = ["<|eot_id|>", "<|im_end|>"];

/// How a text is cut before tokens are merged.
#[derive(Clone, Copy, PartialEq)]
enum Cut {
    /// Not at all; a space becomes U+2581 (SentencePiece).
    Pieces,
    /// By GPT-2's expression.
    Gpt2,
    Llama3,
    Qwen2,
}

/// The vocabulary of a text model.
pub(super) struct Tokens<'a> {
    tokens: Vec<&'a str>,
    types: Vec<u64>,
    scores: Vec<f64>,
    merges: Vec<&'a str>,
    ids: HashMap<&'a str, u32>,
    cut: Cut,
    bos: Option<u32>,
    eos: Option<u32>,
    eot: Option<u32>,
    unknown: Option<u32>,
    padding: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    add_space: bool,
    /// Notes for the user, one sentence each.
    pub notes: Vec<String>,
}

impl<'a> Tokens<'a> {
    /// Reads and checks the vocabulary.
    pub fn read(text: &'a Gguf) -> Result<Self, Error> {
        let key = |rest: &str| format!("tokenizer.ggml.{rest}");
        let texts = |value: &'a Entry| value.array()?.iter().map(Entry::text).collect::<Option<Vec<&str>>>();
        let tokens = text.need(&key("tokens"), "a list of texts in UTF-8", texts)?;
        let list = |rest: &str| {
            text.get(&key(rest), &format!("a list of {} numbers", tokens.len()), |value| {
                let list: Option<Vec<f64>> = value.array()?.iter().map(Entry::number).collect();
                list.filter(|list| list.len() == tokens.len() && !list.iter().any(|n| n.is_nan()))
            })
        };
        let types = list("token_type")?.map_or(vec![1; tokens.len()], |list| list.iter().map(|n| *n as u64).collect());
        let scores = list("scores")?.unwrap_or_default();
        let merges = text.get(&key("merges"), "a list of texts in UTF-8", texts)?.unwrap_or_default();
        let mut notes = Vec::new();
        let model = text.need(&key("model"), "a text", Entry::text)?;
        let cut = match model {
            "llama" => Cut::Pieces,
            "gpt2" => byte_level(text, &tokens, &mut notes)?,
            other => return Err(text.wrong(&key("model"), "llama or gpt2", other).into()),
        };
        let mut ids = HashMap::with_capacity(tokens.len());
        let mut repeated = 0;
        for (id, token) in tokens.iter().enumerate().filter(|(id, _)| types[*id] != UNUSED) {
            repeated += usize::from(ids.contains_key(token));
            ids.entry(*token).or_insert(id as u32);
        }
        if repeated > 0 {
            notes.push(format!("{}: {repeated} tokens have the text of another one, and are ignored", text.file));
        }
        let id = |rest: &str| {
            let below = |value: &Entry| value.count().filter(|id| *id < tokens.len() as u64).map(|id| id as u32);
            // Some converters write the id -1 where there is no such token.
            let absent = |value: &Entry| value.number().is_some_and(|n| n < 0.0 || n == f64::from(u32::MAX));
            if text.metadata.get(&key(rest)).is_some_and(absent) {
                return Ok(None);
            }
            text.get(&key(rest), &format!("an id below {}", tokens.len()), below)
        };
        let flag = |rest: &str| text.get(&key(rest), "true or false", Entry::flag);
        let first_unknown = types.iter().position(|kind| *kind == UNKNOWN).map(|id| id as u32);
        let pieces = cut == Cut::Pieces;
        // llama.cpp's defaults of a SentencePiece vocabulary.
        let or = |rest: &str, default: u32| {
            let missing = pieces && !text.metadata.contains_key(&key(rest)) && (default as usize) < tokens.len();
            if missing { Ok(Some(default)) } else { id(rest) }
        };
        Ok(Self {
            bos: or("bos_token_id", 1)?,
            eos: or("eos_token_id", 2)?,
            eot: id("eot_token_id")?,
            unknown: id("unknown_token_id")?.or(first_unknown),
            padding: id("padding_token_id")?,
            add_bos: flag("add_bos_token")?.unwrap_or(matches!(cut, Cut::Pieces | Cut::Llama3)),
            add_eos: flag("add_eos_token")?.unwrap_or(false),
            add_space: flag("add_space_prefix")?.unwrap_or(pieces),
            tokens,
            types,
            scores,
            merges,
            ids,
            cut,
            notes,
        })
    }

    /// The number of tokens, unused ones included.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether it is a SentencePiece vocabulary.
    pub fn is_sentence_piece(&self) -> bool {
        self.cut == Cut::Pieces
    }

    /// The id of a token that is not unused.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    /// The ids that end an answer.
    pub fn stop_ids(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = self.eos.into_iter().chain(self.eot).collect();
        ids.extend(ENDS.iter().filter_map(|token| self.id(token)).filter(|id| self.is_added(*id)));
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// tokenizer_config.json.
    pub fn special(&self) -> Value {
        let names = [("bos", self.bos), ("eos", self.eos), ("unk", self.unknown), ("pad", self.padding)];
        let token = |id: u32| self.tokens.get(id as usize).map(|token| Value::from(*token));
        names
            .iter()
            .filter_map(|(name, id)| Some((format!("{name}_token"), token((*id)?)?)))
            .collect::<Map<_, _>>()
            .into()
    }

    /// Whether a token is matched as a whole, before the text is cut.
    fn is_added(&self, id: u32) -> bool {
        matches!(self.types[id as usize], UNKNOWN | CONTROL | USER)
    }

    /// tokenizer.json.
    pub fn json(&self, text: &Gguf) -> Result<Vec<u8>, Error> {
        let pieces = self.is_sentence_piece();
        let merges = match (pieces, self.merges.is_empty()) {
            (_, false) => json!(self.merges),
            (true, true) => json!(self.derived_merges(text)?),
            (false, true) => return Err(text.wrong("tokenizer.ggml.merges", "a list of texts", "none").into()),
        };
        let vocabulary: Map<String, Value> =
            self.ids.iter().map(|(token, id)| ((*token).to_owned(), json!(id))).collect();
        let mut ids: Vec<u32> = self.ids.values().copied().filter(|id| self.is_added(*id)).collect();
        ids.sort_unstable();
        let added: Vec<Value> = ids
            .into_iter()
            .map(|id| {
                json!({
                    "id": id,
                    "content": self.tokens[id as usize],
                    "single_word": false,
                    "lstrip": false,
                    "rstrip": false,
                    "normalized": false,
                    "special": self.types[id as usize] != USER,
                })
            })
            .collect();
        let unknown = self.unknown.filter(|_| pieces).map(|id| self.tokens[id as usize]);
        let (normalizer, pre_tokenizer, decoder) = self.steps();
        let json = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": self.post_processor(),
            "decoder": decoder,
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": unknown,
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": pieces,
                "byte_fallback": pieces,
                "ignore_merges": self.cut == Cut::Llama3,
                "vocab": vocabulary,
                "merges": merges,
            },
        });
        serde_json::to_vec(&json).map_err(|_| Error::Internal("a tokenizer that is not JSON"))
    }

    /// Normalizer, pre-tokenizer and decoder.
    fn steps(&self) -> (Value, Value, Value) {
        let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
        let split = |regex: &str| {
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false},
                bytes(false),
            ]})
        };
        match self.cut {
            Cut::Gpt2 => (Value::Null, bytes(true), bytes(true)),
            Cut::Llama3 => (Value::Null, split(LLAMA3), bytes(true)),
            Cut::Qwen2 => (json!({"type": "NFC"}), split(QWEN2), bytes(true)),
            Cut::Pieces => {
                let (mut normalizers, mut decoders) = (Vec::new(), Vec::new());
                if self.add_space {
                    normalizers.push(json!({"type": "Prepend", "prepend": "\u{2581}"}));
                }
                normalizers.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}));
                decoders.push(json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}));
                decoders.push(json!({"type": "ByteFallback"}));
                decoders.push(json!({"type": "Fuse"}));
                if self.add_space {
                    decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
                }
                let normalizer = json!({"type": "Sequence", "normalizers": normalizers});
                (normalizer, Value::Null, json!({"type": "Sequence", "decoders": decoders}))
            }
        }
    }

    /// Adds BOS and EOS around a text.
    fn post_processor(&self) -> Value {
        let (bos, eos) = (self.bos.filter(|_| self.add_bos), self.eos.filter(|_| self.add_eos));
        let special = |id: Option<u32>, part: u32| {
            id.map(|id| json!({"SpecialToken": {"id": self.tokens[id as usize], "type_id": part}}))
        };
        let around = |name: &str, part: u32| {
            let sequence = json!({"Sequence": {"id": name, "type_id": part}});
            special(bos, part).into_iter().chain([sequence]).chain(special(eos, part)).collect::<Vec<Value>>()
        };
        let (single, second) = (around("A", 0), around("B", 1));
        let pair: Vec<Value> = single.iter().cloned().chain(second).collect();
        let tokens: Map<String, Value> = bos
            .into_iter()
            .chain(eos)
            .map(|id| (self.tokens[id as usize], id))
            .map(|(token, id)| (token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]})))
            .collect();
        json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens})
    }

    /// The merges of a SentencePiece vocabulary: every way to cut a token into two other tokens, the best score first.
    /// A merge of the same token comes first if its left part is longer, then if its right part is.
    ///
    /// Where the scores are all the same, the order of the tokens is that of the merges.
    fn derived_merges(&self, text: &Gguf) -> Result<Vec<[&'a str; 2]>, Error> {
        let scored = self.scores.iter().any(|score| Some(score) != self.scores.first());
        let (mut merges, mut work) = (Vec::new(), 0);
        for (id, token) in self.tokens.iter().enumerate() {
            if self.id(token) != Some(id as u32) || self.is_added(id as u32) || self.types[id] == BYTE {
                continue;
            }
            if token.len() > LONGEST {
                let expected = format!("tokens of at most {LONGEST} bytes");
                return Err(text.wrong("tokenizer.ggml.tokens", &expected, &token.len().to_string()).into());
            }
            work += token.len() * token.len();
            let score = if scored { self.scores[id] } else { -(id as f64) };
            let cuts = token.char_indices().skip(1).enumerate();
            let mut own: Vec<_> = cuts
                .filter_map(|(before, (at, _))| {
                    let (left, right) = token.split_at(at);
                    let ids = (self.id(left)?, self.id(right)?);
                    Some((ids, [left, right], before + 1))
                })
                .collect();
            own.sort_by_key(|(ids, ..)| *ids);
            work += own.len() * (token.len() + 256);
            if work > MOST_WORK {
                let expected =
                    "a vocabulary with few merges, or the key tokenizer.ggml.merges: convert the model again";
                return Err(text.wrong("tokenizer.ggml.tokens", expected, "too many ways to cut its tokens").into());
            }
            let length = token.chars().count();
            merges.extend(own.into_iter().map(|(_, pair, left)| (score, left, length - left, pair)));
        }
        let order = |m: &(f64, usize, usize, [&str; 2])| (m.1, m.2);
        if scored {
            merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(order(b).cmp(&order(a))));
        } else {
            merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(order(a).cmp(&order(b))));
        }
        Ok(merges.into_iter().map(|(.., pair)| pair).collect())
    }
}

/// How a byte-level vocabulary cuts a text: by the name that converters write, or in older files by the vocabulary.
fn byte_level(text: &Gguf, tokens: &[&str], notes: &mut Vec<String>) -> Result<Cut, Error> {
    let key = "tokenizer.ggml.pre";
    match text.get(key, "a text", Entry::text)? {
        Some("llama-bpe" | "llama3" | "llama-v3") => Ok(Cut::Llama3),
        Some("qwen2" | "deepseek-r1-qwen") => Ok(Cut::Qwen2),
        Some("gpt-2") => Ok(Cut::Gpt2),
        None | Some("default") => {
            let has = |token: &str| tokens.contains(&token);
            let (cut, name) = if has("<|start_header_id|>") {
                (Cut::Llama3, "Llama 3")
            } else if has("<|im_start|>") || has("<|endoftext|>") && text.metadata.contains_key("qwen2.block_count") {
                (Cut::Qwen2, "Qwen2")
            } else {
                (Cut::Gpt2, "GPT-2")
            };
            notes.push(format!("{} names no pre-tokenizer: that of {name} is assumed", text.file));
            Ok(cut)
        }
        Some(other) => Err(text.wrong(key, "llama-bpe, qwen2 or gpt-2", other).into()),
    }
}
