//! Compares GGUF files of the fixtures with the checkpoints in Hugging Face's layout from which they were made.

use std::{collections::BTreeMap, fs, path::PathBuf};

use fovea_runtime::gguf::{Block, TensorInfo, Value as Entry};
use serde_json::Value;
use tokenizers::Tokenizer;

use super::*;
use crate::config::{Config, TileConfig};

const TEXTS: [&str; 14] = [
    "What number is on the shirt?",
    " two  spaces   and\ttabs\n\nlines \r\n end ",
    "Ünïcödé, 漢字, かな, العربية, हिन्दी, 👩‍👩‍👧‍👦 and e\u{301}",
    "1234567890 12 3.14159 -7e10 2026-11-29",
    "I'm, you've, THEY'RE, it'S, don't",
    "<s>USER: <image>\nHow many?</s> ASSISTANT:",
    "<|im_start|>user\n<image>\nHow many?<|im_end|>\n<|im_start|>assistant\n",
    "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
    "fn main() { println!(\"{}\", a[0] + b->c); } // ====",
    "",
    " ",
    "▁ underscore ▁▁ <0x41> <unk> <pad>",
    "The quick brown fox jumps over the lazy dog. The meadow, the pictures, the whole thing.",
    "\u{0}\u{1}\u{7f}\u{80}\u{fffd}",
];

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

fn json(path: PathBuf) -> Value {
    serde_json::from_slice(&fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

fn open(name: &str) -> GgufCheckpoint {
    let source = Source::directory(fixture(&format!("gguf/{name}"))).unwrap();
    pollster::block_on(GgufCheckpoint::open(&source)).unwrap()
}

/// The headers of the text model and of the vision tower.
fn headers(name: &str) -> [Gguf; 2] {
    let source = Source::directory(fixture(&format!("gguf/{name}"))).unwrap();
    ["text.gguf", "mmproj.gguf"].map(|file| pollster::block_on(Gguf::open(&source, file)).unwrap())
}

#[test]
fn configs_equal_the_fixtures() {
    for (name, layers) in [("vicuna-0", 2), ("qwen2-0", 3)] {
        let found = open(name);
        let got = Config::from_json(&found.config).unwrap();
        let mut expected = Config::from_json(&json(fixture(name).join("config.json"))).unwrap();
        // The old converter leaves out the layers after the feature layer; no converter has Fovea's settings.
        (expected.vision.n_layers, expected.has_focus) = (layers, false);
        expected.focus = got.focus.clone();
        assert_eq!(got, expected, "{name} (got, expected)");
        let mut image = json(fixture(name).join(if name == "qwen2-0" {
            "preprocessor_config.json"
        } else {
            "processor_config.json"
        }));
        if image.get("image_processor").is_some() {
            image = image["image_processor"].take();
        }
        let tiles = |json: &Value| TileConfig::from_json(name, json, &got.layout, got.vision.side).unwrap();
        assert_eq!(tiles(&found.image), tiles(&image), "{name}: image processor (got, expected)");
        assert_eq!(found.image_token, got.image_token, "{name}");
    }
}

#[test]
fn tokenizers_equal_the_fixtures() {
    for name in ["vicuna-0", "qwen2-0"] {
        let got = Tokenizer::from_bytes(&open(name).tokenizer).unwrap();
        let expected = Tokenizer::from_file(fixture(name).join("tokenizer.json")).unwrap();
        assert_eq!(got.get_vocab(true), expected.get_vocab(true), "{name}");
        for text in TEXTS {
            for add in [false, true] {
                let ids = |tokenizer: &Tokenizer| tokenizer.encode_fast(text, add).unwrap().get_ids().to_vec();
                assert_eq!(ids(&got), ids(&expected), "{name}: {text:?} (got, expected)");
                for skip in [false, true] {
                    let decoded = |tokenizer: &Tokenizer| tokenizer.decode(&ids(&expected), skip).unwrap();
                    assert_eq!(decoded(&got), decoded(&expected), "{name}: {text:?} (got, expected)");
                }
            }
        }
    }
}

#[test]
fn special_tokens_and_templates_are_found() {
    let vicuna = open("vicuna-0");
    assert_eq!(vicuna.tokenizer_config["bos_token"], "<s>");
    assert_eq!(vicuna.generation, serde_json::json!({"eos_token_id": [2]}));
    assert_eq!(Some(vicuna.template.as_str()), conversations::conversation("vicuna_v1"));
    assert_eq!(vicuna.template_from, "built in: LLaVA's conversation vicuna_v1");
    assert_eq!(vicuna.files, ["text.gguf", "mmproj.gguf"]);
    let qwen = open("qwen2-0");
    assert_eq!(qwen.template, json(fixture("qwen2-0/chat_template.json"))["chat_template"].as_str().unwrap());
    assert_eq!(qwen.generation, serde_json::json!({"eos_token_id": [482]}));
    assert_eq!(qwen.notes, Vec::<String>::new());
}

/// Where the layer after the feature layer is left out, the last state is the feature.
#[test]
fn a_tensor_has_its_place() {
    let found = open("vicuna-0");
    let of = |name: &str| &found.tensors[name];
    let query = of("language_model.model.layers.1.self_attn.q_proj.weight");
    assert_eq!((query.file, query.heads, query.info.name.as_str()), (0, Some(4), "blk.1.attn_q.weight"));
    let fc1 = of("vision_tower.vision_model.encoder.layers.1.mlp.fc1.weight");
    assert_eq!(fc1.info.name, "v.blk.1.ffn_down.weight");
    assert_eq!((fc1.file, fc1.heads, fc1.shape.as_slice()), (1, None, [96, 48].as_slice()));
    assert_eq!(found.config["vision_feature_layer"], -1);
    assert_eq!(open("qwen2-0").config["vision_feature_layer"], 2);
}

/// Every tensor of a file has a name on the hub from which its own name follows again.
#[test]
fn own_names_follow_from_those_of_the_hub() {
    for name in ["vicuna-0", "qwen2-0"] {
        let found = open(name);
        for (hub, tensor) in &found.tensors {
            let own = names::own(hub, found.terms.swapped);
            // The first of the two names of the newline is that of the first converter.
            let own = own.map(|(file, own)| (file, own.replace(names::NEWLINES[0], "newline")));
            let expected =
                names::NEWLINES.iter().fold(tensor.info.name.clone(), |own, other| own.replace(other, "newline"));
            assert_eq!(own, Some((tensor.file, expected)), "{name}: {hub} (got, expected)");
        }
        assert_eq!(names::own("blk.0.attn_q.weight", found.terms.swapped), None);
    }
}

/// Tensors without a name on the hub, but for those that no model of Hugging Face has.
#[test]
fn unknown_tensors_are_listed() {
    let [mut text, mut vision] = headers("vicuna-0");
    let info = |name: &str| TensorInfo { name: name.to_owned(), ..text_info() };
    text.tensors.extend(["blk.0.attn_q_norm.weight", "rope_freqs.weight"].map(info));
    vision.tensors.extend(["v.blk.0.ls1.weight", "t.blk.0.ln1.weight"].map(info));
    let found = GgufCheckpoint::new(&text, &vision, None).unwrap();
    assert_eq!(found.unknown, ["blk.0.attn_q_norm.weight", "v.blk.0.ls1.weight"]);
    vision.tensors.push(info("v.image_newline"));
    let why = refused(&text, &vision);
    let expected = "tensor `v.image_newline` in mmproj.gguf: expected one tensor that has this role, got also \
                    `model.image_newline`";
    assert!(why.contains(expected), "{why}");
    text.tensors.retain(|tensor| tensor.name != "token_embd.weight");
    text.tensors.push(TensorInfo { name: "token_embd.weight".into(), shape: vec![2, 64], ..text_info() });
    let why = refused(&text, &vision);
    assert!(why.contains("`token_embd.weight` in text.gguf: expected a row for each of the 490 tokens"), "{why}");
}

/// A vector of one value.
fn text_info() -> TensorInfo {
    TensorInfo { name: String::new(), shape: vec![1], block: Ok(Block::F32), offset: 0, bytes: 4 }
}

fn refused(text: &Gguf, vision: &Gguf) -> String {
    GgufCheckpoint::new(text, vision, None).unwrap_err().to_string()
}

#[test]
fn what_has_no_equivalent_names_its_key() {
    let [text, vision] = headers("vicuna-0");
    let word = |text: &str| Entry::Text(text.into());
    for (key, value) in [
        ("general.architecture", word("phi3")),
        ("llama.attention.head_count", Entry::Unsigned(0)),
        ("llama.attention.head_count_kv", Entry::Array(vec![Entry::Unsigned(4), Entry::Unsigned(2)])),
        ("llama.attention.value_length", Entry::Unsigned(8)),
        ("llama.expert_count", Entry::Unsigned(8)),
        ("llama.rope.dimension_count", Entry::Unsigned(8)),
        ("llama.rope.scaling.type", word("yarn")),
        ("llama.context_length", word("long")),
        ("tokenizer.ggml.bos_token_id", Entry::Unsigned(5000)),
        ("tokenizer.ggml.model", word("bert")),
        ("tokenizer.ggml.token_type", Entry::Array(vec![Entry::Unsigned(1)])),
        ("tokenizer.ggml.tokens", Entry::Array(vec![Entry::Text(vec![0xff])])),
    ] {
        let mut changed = text.clone();
        changed.metadata.insert(key.to_owned(), value);
        let why = refused(&changed, &vision);
        assert!(why.starts_with(&format!("text.gguf: {key}: expected ")) && why.contains(", got "), "{key}: {why}");
    }
    for (key, value) in [
        ("clip.projector_type", word("ldpv2")),
        ("clip.has_vision_encoder", Entry::Flag(false)),
        ("clip.vision.mm_patch_merge_type", word("spatial")),
        ("clip.vision.image_grid_pinpoints", Entry::Array(vec![Entry::Unsigned(336)])),
        ("clip.vision.image_mean", Entry::Array(vec![Entry::Float(0.5)])),
        ("clip.vision.feature_layer", Entry::Flag(true)),
    ] {
        let mut changed = vision.clone();
        changed.metadata.insert(key.to_owned(), value);
        let why = refused(&text, &changed);
        assert!(why.starts_with(&format!("mmproj.gguf: {key}: expected ")) && why.contains(", got "), "{key}: {why}");
    }
    let [mut qwen, tower] = headers("qwen2-0");
    qwen.metadata.insert("tokenizer.ggml.pre".to_owned(), word("tekken"));
    assert!(refused(&qwen, &tower).contains("tokenizer.ggml.pre: expected llama-bpe, qwen2 or gpt-2, got tekken"));
    for missing in ["llama.embedding_length", "tokenizer.ggml.tokens"] {
        let mut changed = text.clone();
        changed.metadata.remove(missing);
        assert!(refused(&changed, &vision).contains(&format!("{missing}: expected ")), "{missing}");
    }
}

#[test]
fn other_numbers_of_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let said = || {
        let source = Source::directory(folder.path()).unwrap();
        pollster::block_on(GgufCheckpoint::open(&source)).unwrap_err().to_string()
    };
    assert!(said().contains("expected two GGUF files, the text model and its mmproj file, got none;"), "{}", said());
    fs::copy(fixture("gguf/vicuna-0/text.gguf"), folder.path().join("a.gguf")).unwrap();
    let todo = "download its mmproj file into the same folder";
    let expected = format!("got no mmproj file, only a.gguf with a text model; {todo}");
    assert!(said().contains(&expected), "{}", said());
    fs::copy(fixture("gguf/vicuna-0/text.gguf"), folder.path().join("b.GGUF")).unwrap();
    let expected = format!("got no mmproj file, only a.gguf and b.GGUF with a text model; {todo}");
    assert!(said().contains(&expected), "{}", said());
    fs::write(folder.path().join("c.gguf"), "").unwrap();
    assert!(said().contains("got a.gguf, b.GGUF, c.gguf; keep only these two in the folder"), "{}", said());
    for other in ["b.GGUF", "c.gguf"] {
        fs::remove_file(folder.path().join(other)).unwrap();
    }
    fs::copy(fixture("gguf/vicuna-0/mmproj.gguf"), folder.path().join("a.gguf")).unwrap();
    let expected = "got no text model, only a.gguf with a vision tower; download the text model into the same folder";
    assert!(said().contains(expected), "{}", said());
    fs::copy(fixture("gguf/vicuna-0/mmproj.gguf"), folder.path().join("b.gguf")).unwrap();
    assert!(said().contains("got no text model, only a.gguf and b.gguf"), "{}", said());
    let source = Source::directory(folder.path()).unwrap();
    assert!(GgufCheckpoint::present(&source));
    fs::write(folder.path().join("model.safetensors"), "").unwrap();
    assert!(!GgufCheckpoint::present(&Source::directory(folder.path()).unwrap()));
}

#[test]
fn rotary_factors_of_llama_31_become_its_scaling() {
    let [mut text, vision] = headers("vicuna-0");
    let head = 16;
    // Hugging Face's `_compute_llama3_parameters` with factor 8, as llama.cpp's converter writes it.
    let factors: Vec<f32> = (0..head / 2)
        .map(|i| {
            let wavelength = std::f64::consts::TAU * 1e4f64.powf(2.0 * f64::from(i) / f64::from(head));
            let factor = if wavelength < 2048.0 {
                1.0
            } else if wavelength > 8192.0 {
                8.0
            } else {
                let smooth = (8192.0 / wavelength - 1.0) / 3.0;
                1.0 / ((1.0 - smooth) / 8.0 + smooth)
            };
            factor as f32
        })
        .collect();
    let found = GgufCheckpoint::new(&text, &vision, Some(&factors)).unwrap().config;
    let expected = serde_json::json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192.0
    });
    assert_eq!(found["text_config"]["rope_scaling"], expected);
    Config::from_json(&found).unwrap();
    let ones = vec![1.0; factors.len()];
    let found = GgufCheckpoint::new(&text, &vision, Some(&ones)).unwrap().config;
    assert!(found["text_config"].get("rope_scaling").is_none());
    let mut other = factors.clone();
    other[2] = 3.0;
    let why = GgufCheckpoint::new(&text, &vision, Some(&other)).unwrap_err().to_string();
    assert!(why.contains("rope_freqs.weight") && why.contains("expected the 8 factors of Llama 3.1"), "{why}");
    text.metadata.insert("llama.rope.scaling.type".into(), Entry::Text("linear".into()));
    text.metadata.insert("llama.rope.scaling.factor".into(), Entry::Float(4.0));
    let found = GgufCheckpoint::new(&text, &vision, None).unwrap().config;
    assert_eq!(found["text_config"]["rope_scaling"], serde_json::json!({"rope_type": "linear", "factor": 4.0}));
}

/// Llama's defaults where a file does not name them, and old files without the name of the pre-tokenizer.
#[test]
fn old_files_have_defaults() {
    let [mut text, vision] = headers("vicuna-0");
    for key in ["bos_token_id", "eos_token_id", "unknown_token_id", "add_bos_token"] {
        text.metadata.remove(&format!("tokenizer.ggml.{key}"));
    }
    let found = GgufCheckpoint::new(&text, &vision, None).unwrap();
    let tokens =
        serde_json::json!({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"});
    assert_eq!(found.tokenizer_config, tokens);
    let tokenizer = Tokenizer::from_bytes(&found.tokenizer).unwrap();
    assert_eq!(tokenizer.encode_fast("a", true).unwrap().get_ids()[0], 1, "BOS");
    let [mut qwen, tower] = headers("qwen2-0");
    qwen.metadata.remove("tokenizer.ggml.pre");
    let found = GgufCheckpoint::new(&qwen, &tower, None).unwrap();
    assert_eq!(found.notes, ["text.gguf names no pre-tokenizer: that of Qwen2 is assumed"]);
    assert_eq!(found.tokenizer, open("qwen2-0").tokenizer);
}

/// A text model with the keys in `more` and two heads of width 4.
fn small(tokens: &[(&str, f64, u64)], more: &[(&str, Entry)]) -> Gguf {
    let list = |values: Vec<Entry>| Entry::Array(values);
    let mut metadata = BTreeMap::from([
        ("general.architecture".to_owned(), Entry::Text("llama".into())),
        ("tokenizer.ggml.model".to_owned(), Entry::Text("llama".into())),
        ("tokenizer.ggml.tokens".to_owned(), list(tokens.iter().map(|t| Entry::Text(t.0.into())).collect())),
        ("tokenizer.ggml.scores".to_owned(), list(tokens.iter().map(|t| Entry::Float(t.1)).collect())),
        ("tokenizer.ggml.token_type".to_owned(), list(tokens.iter().map(|t| Entry::Unsigned(t.2)).collect())),
    ]);
    metadata.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    let shape = vec![tokens.len() as u64, 8];
    let info = TensorInfo { name: "token_embd.weight".into(), shape, block: Ok(Block::F32), offset: 0, bytes: 0 };
    Gguf { file: "text.gguf".into(), metadata, tensors: vec![info] }
}

/// Expected: Hugging Face's `generate_merges` with the same vocabulary and scores.
#[test]
fn derived_merges_equal_hugging_face() {
    let tokens = [
        ("<unk>", 0.0, 2),
        ("<s>", 0.0, 3),
        ("</s>", 0.0, 3),
        ("<0x41>", 0.0, 6),
        ("abc", -3.0, 1),
        ("ab", -1.0, 1),
        ("bc", -2.0, 1),
        ("a", -4.0, 1),
        ("b", -5.0, 1),
        ("c", -6.0, 1),
        ("éa", -1.0, 1),
        ("é", -7.0, 1),
        ("[PAD]", -8.0, 5),
    ];
    let merges = |text: &Gguf| {
        let json: Value = serde_json::from_slice(&tokenizer::Tokens::read(text).unwrap().json(text).unwrap()).unwrap();
        assert_eq!(json["model"]["vocab"].as_object().unwrap().len(), 12, "without the unused token");
        json["model"]["merges"].clone()
    };
    let scored = serde_json::json!([["a", "b"], ["é", "a"], ["b", "c"], ["ab", "c"], ["a", "bc"]]);
    assert_eq!(merges(&small(&tokens, &[])), scored);
    // Converters that do not have the scores write the same one everywhere.
    let flat = tokens.map(|(token, _, kind)| (token, -1000.0, kind));
    let by_id = serde_json::json!([["a", "bc"], ["ab", "c"], ["a", "b"], ["b", "c"], ["é", "a"]]);
    assert_eq!(merges(&small(&flat, &[])), by_id);
}

#[test]
fn the_vocabulary_chooses_family_and_conversation() {
    let grouped =
        [("llama.attention.head_count", Entry::Unsigned(32)), ("llama.attention.head_count_kv", Entry::Unsigned(8))];
    let named = |name: &str| [("general.name", Entry::Text(name.into()))];
    let full =
        [("llama.attention.head_count", Entry::Unsigned(32)), ("llama.attention.head_count_kv", Entry::Unsigned(32))];
    let spell = |n: usize| (0..n).map(|i| format!("t{i}")).collect::<Vec<String>>();
    let llama2 = spell(32_000);
    let (llama2, plain): (Vec<_>, Vec<_>) =
        (llama2.iter().map(|t| (t.as_str(), 0.0, 1)).collect(), vec![("<unk>", 0.0, 2), ("a", 0.0, 1)]);
    let yi = vec![("<unk>", 0.0, 2), ("<|im_start|>", 0.0, 3)];
    for (tokens, keys, family, conversation) in [
        (&llama2, grouped.to_vec(), "mistral", "mistral_instruct"),
        (&llama2, full.to_vec(), "llama", "vicuna_v1"),
        (&plain, grouped.to_vec(), "llama", "vicuna_v1"),
        (&plain, named("LLaVA v1.6 Mistral 7B").to_vec(), "mistral", "mistral_instruct"),
        (&yi, grouped.to_vec(), "llama", "chatml_direct"),
    ] {
        let text = small(tokens, &keys);
        let read = tokenizer::Tokens::read(&text).unwrap();
        let found = config::family(&text, &read).unwrap();
        let (template, from) = template(&text, found, &read).unwrap();
        assert_eq!((found, from.as_str()), (family, format!("built in: LLaVA's conversation {conversation}").as_str()));
        assert_eq!(Some(template.as_str()), conversations::conversation(conversation));
    }
}
