//! Broken checkpoints: each gives an error that names the fault, before any device is opened.
//!
//! Each row breaks a checkpoint in one place. `Checkpoint::open` detects a wrong structure,
//! `Checkpoint::verify` values that are not finite. Both read files and allocate no tensors.

use std::{
    borrow::Cow,
    panic::{AssertUnwindSafe, catch_unwind},
};

use fovea_model::Checkpoint;
use fovea_runtime::{
    network_ops::Format,
    source::{ReadAt, Reading, Source},
    weights::{Modules, Quantisation, Rows, Weights},
};
use fovea_tests::checkpoint::{Files, INDEX, Stored, WEIGHTS, weights_file};
use pollster::block_on;
use safetensors::Dtype;
use serde_json::{Value, json};

/// A name, an edit that breaks the checkpoint, and words that the error must contain.
type Row = (&'static str, fn(&mut Files), &'static [&'static str]);

/// What a clone without Git LFS has in place of a file.
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1234\n";

const CONFIG: &[Row] = &[
    (
        "no config",
        |f| f.remove("config.json"),
        &["expected config.json with its weights, or two GGUF files", "got no such file", "has chat_template.jinja, "],
    ),
    ("no files", |f| f.0.clear(), &["expected config.json", "the folder has no files", "fovea pull ORG/NAME"]),
    ("a config that is not JSON", |f| f.put("config.json", "{"), &["config.json", "expected JSON"]),
    (
        "a config that was not downloaded",
        |f| f.put("config.json", POINTER),
        &["config.json", "expected JSON, got a pointer of Git LFS", "git lfs pull"],
    ),
    ("config is a list", |f| f.put("config.json", "[]"), &["config.json", "expected an object"]),
    ("config of 5 MB", |f| f.bytes("config.json").extend(vec![b' '; 5 << 20]), &["config.json", "expected at most"]),
    ("another model", |f| f.config("/model_type", json!("mllama")), &["model_type", "llava_next", "mllama"]),
    ("text config is a text", |f| f.config("/text_config", json!("llama")), &["text_config", "expected an object"]),
    (
        "another text model",
        |f| f.config("/text_config/model_type", json!("mixtral")),
        &["text_config.model_type", "mixtral"],
    ),
    (
        "another vision model",
        |f| f.config("/vision_config/model_type", json!("pixtral")),
        &["vision_config.model_type", "pixtral"],
    ),
    (
        "a billion layers",
        |f| f.config("/text_config/num_hidden_layers", json!(1_000_000_000)),
        &["text_config.num_hidden_layers", "1000000000"],
    ),
    (
        "no layers",
        |f| f.config("/text_config/num_hidden_layers", json!(0)),
        &["text_config.num_hidden_layers", "got 0"],
    ),
    ("half a layer", |f| f.config("/text_config/num_hidden_layers", json!(2.5)), &["num_hidden_layers", "2.5"]),
    ("width below zero", |f| f.config("/text_config/hidden_size", json!(-64)), &["text_config.hidden_size", "-64"]),
    ("patch of 0", |f| f.config("/vision_config/patch_size", json!(0)), &["vision_config.patch_size", "got 0"]),
    ("patch that does not divide", |f| f.config("/vision_config/patch_size", json!(7)), &["patch_size", "48", "got 7"]),
    ("no canvases", |f| f.config("/image_grid_pinpoints", json!([])), &["image_grid_pinpoints", "got []"]),
    ("a canvas of 0", |f| f.config("/image_grid_pinpoints", json!([[0, 48]])), &["image_grid_pinpoints", "[[0,48]]"]),
    (
        "a canvas that is not a multiple of the tile",
        |f| f.config("/image_grid_pinpoints", json!([[48, 97]])),
        &["image_grid_pinpoints", "48", "97"],
    ),
    (
        "canvases unlike the processor's",
        |f| f.config("/image_grid_pinpoints", json!([[48, 96]])),
        &["image_grid_pinpoints"],
    ),
    ("more rows than the embedding", |f| f.config("/text_config/vocab_size", json!(601)), &["[601, 64]", "[600, 64]"]),
    ("fewer rows than tokens", |f| f.config("/text_config/vocab_size", json!(599)), &["tokenizer.json", "599"]),
    (
        "heads that do not divide",
        |f| {
            f.config("/text_config/head_dim", Value::Null);
            f.config("/text_config/num_attention_heads", json!(7));
            f.config("/text_config/num_key_value_heads", json!(7));
        },
        &["text_config.num_attention_heads", "64", "got 7"],
    ),
    (
        "key heads that do not divide",
        |f| f.config("/text_config/num_key_value_heads", json!(3)),
        &["text_config.num_key_value_heads", "8", "got 3"],
    ),
    ("odd head width", |f| f.config("/text_config/head_dim", json!(7)), &["text_config.head_dim", "even", "got 7"]),
    (
        "vision heads that do not divide",
        |f| f.config("/vision_config/num_attention_heads", json!(5)),
        &["vision_config.num_attention_heads", "48", "got 5"],
    ),
    (
        "four color channels",
        |f| f.config("/vision_config/num_channels", json!(4)),
        &["vision_config.num_channels", "expected 3"],
    ),
    ("another activation", |f| f.config("/text_config/hidden_act", json!("relu")), &["text_config.hidden_act", "relu"]),
    ("epsilon below zero", |f| f.config("/text_config/rms_norm_eps", json!(-1.0)), &["text_config.rms_norm_eps", "-1"]),
    (
        "another rope",
        |f| f.config("/text_config/rope_parameters/rope_type", json!("yarn")),
        &["rope_type", "default, linear or llama3", "yarn"],
    ),
    (
        "a rope without its factor",
        |f| f.config("/text_config/rope_parameters/rope_type", json!("linear")),
        &["rope_parameters.factor", "expected a number"],
    ),
    ("the picture's id beyond the rows", |f| f.config("/image_token_index", json!(600)), &["image_token", "600"]),
    (
        "a feature layer beyond the last",
        |f| f.config("/vision_feature_layer", json!(4)),
        &["vision_feature_layer", "got 4"],
    ),
    (
        "a feature layer before the first",
        |f| f.config("/vision_feature_layer", json!(-5)),
        &["vision_feature_layer", "got -5"],
    ),
    (
        "several feature layers",
        |f| f.config("/vision_feature_layer", json!([-2, -5])),
        &["vision_feature_layer", "[-2,-5]"],
    ),
    (
        "another feature strategy",
        |f| f.config("/vision_feature_select_strategy", json!("full")),
        &["vision_feature_select_strategy", "full"],
    ),
    ("a layer beyond the last", |f| f.config("/focus/text_layer", json!(6)), &["focus.text_layer", "0 to 5", "got 6"]),
    ("gamma of 0", |f| f.config("/focus/gamma", json!(0)), &["focus.gamma", "got 0"]),
    ("gamma of 2", |f| f.config("/focus/gamma", json!(2)), &["focus.gamma", "got 2"]),
    ("gamma that is a text", |f| f.config("/focus/gamma", json!("NaN")), &["focus.gamma", "NaN"]),
    ("no scales", |f| f.config("/focus/scales", json!([])), &["focus.scales", "got []"]),
    ("a scale of three numbers", |f| f.config("/focus/scales", json!([[1, 2, 3]])), &["focus.scales", "[[1,2,3]]"]),
    (
        "fewer scales than the selector",
        |f| f.config("/focus/scales", json!([[4, 4]])),
        &["scale_selector.weight", "[1, 64]"],
    ),
    ("window of 0", |f| f.config("/focus/window", json!(0)), &["focus.window", "got 0"]),
    ("a thumbnail that is neither", |f| f.config("/focus/thumbnail", json!("maybe")), &["focus.thumbnail", "maybe"]),
    (
        "stop ids that are texts",
        |f| f.set("generation_config.json", "/eos_token_id", json!(["</s>"])),
        &["generation_config.json", "eos_token_id", "</s>"],
    ),
];

/// The header entry of a tensor.
fn entry<'a>(header: &'a mut Value, tensor: &str) -> &'a mut Value {
    let found = header.get_mut(tensor);
    found.unwrap_or_else(|| panic!("expected an entry for {tensor}, got none"))
}

/// Moves both offsets of a tensor.
fn shift(files: &mut Files, tensor: &str, by: i64) {
    files.header(|header| {
        let offsets = &mut entry(header, tensor)["data_offsets"];
        *offsets = json!([offsets[0].as_i64().unwrap() + by, offsets[1].as_i64().unwrap() + by]);
    });
}

/// Sets one value of a tensor.
fn poison(files: &mut Files, tensor: &str, index: usize, value: f32, dtype: Dtype) {
    files.edit(tensor, |t| {
        let mut values = t.floats();
        values[index] = value;
        t.store(&values, dtype);
    });
}

/// Splits the weights over two shards, and lets `edit` break the index.
fn sharded(files: &mut Files, edit: impl FnOnce(&mut Value)) {
    let tensors = files.tensors();
    files.set_tensors(&tensors, 2);
    files.json(INDEX, edit);
}

/// Replaces all weights with an index of shards that contains `text`.
fn indexed(files: &mut Files, text: &str) {
    files.remove(WEIGHTS);
    files.put(INDEX, text);
}

const NORM: &str = "language_model.model.norm.weight";
const QUERY: &str = "language_model.model.layers.2.self_attn.q_proj.weight";
const SHARD_1: &str = "model-00001-of-00002.safetensors";
const SHARD_2: &str = "model-00002-of-00002.safetensors";

const WEIGHT_FILES: &[Row] = &[
    ("no weights", |f| f.remove(WEIGHTS), &["expected model.safetensors or model.safetensors.index.json", "neither"]),
    ("empty weights", |f| f.put(WEIGHTS, ""), &[WEIGHTS, "at least 8 bytes", "got 0"]),
    (
        "weights that were not downloaded",
        |f| f.put(WEIGHTS, POINTER),
        &[WEIGHTS, "expected safetensors, got a pointer of Git LFS", "git lfs pull"],
    ),
    ("a web page", |f| f.put(WEIGHTS, "<!DOCTYPE html><html>"), &[WEIGHTS, "got a web page", "download"]),
    ("seven bytes", |f| f.put(WEIGHTS, [0; 7]), &[WEIGHTS, "at least 8 bytes", "got 7"]),
    (
        "a header of 2^63 bytes",
        |f| f.bytes(WEIGHTS)[..8].copy_from_slice(&(1u64 << 63).to_le_bytes()),
        &[WEIGHTS, "header", "9223372036854775808"],
    ),
    (
        "a header of 2^64 - 1 bytes",
        |f| f.bytes(WEIGHTS)[..8].copy_from_slice(&u64::MAX.to_le_bytes()),
        &[WEIGHTS, "header", "18446744073709551615"],
    ),
    (
        "a header beyond the file",
        |f| f.put(WEIGHTS, [9, 0, 0, 0, 0, 0, 0, 0, b'{', b'}']),
        &[WEIGHTS, "header", "got 9"],
    ),
    ("a header that is not JSON", |f| f.put(WEIGHTS, weights_file("{\"a\":", b"")), &[WEIGHTS, "JSON"]),
    ("a header that is a list", |f| f.put(WEIGHTS, weights_file("[]", b"")), &[WEIGHTS, "JSON"]),
    ("no tensors", |f| f.put(WEIGHTS, weights_file("{}", b"")), &["embed_tokens.weight", "0 tensors"]),
    (
        "data cut short",
        |f| {
            let bytes = f.bytes(WEIGHTS);
            bytes.truncate(bytes.len() - 10);
        },
        &[WEIGHTS, "vision_tower", "bytes within the", "the file is truncated; download it again"],
    ),
    ("data after the last tensor", |f| f.bytes(WEIGHTS).extend([0; 4]), &[WEIGHTS, "expected tensors over all"]),
    ("overlapping tensors", |f| shift(f, QUERY, -4), &[QUERY, "where the one before ends"]),
    ("a hole between tensors", |f| shift(f, QUERY, 4), &[QUERY, "where the one before ends"]),
    (
        "offsets in reverse order",
        |f| f.header(|h| entry(h, NORM)["data_offsets"] = json!([8, 4])),
        &[NORM, "bytes within the", "8..4"],
    ),
    (
        "offsets far beyond the file",
        |f| f.header(|h| entry(h, NORM)["data_offsets"] = json!([0, u64::MAX])),
        &[NORM, "bytes within the", "18446744073709551615"],
    ),
    ("a shape unlike its bytes", |f| f.header(|h| entry(h, NORM)["shape"] = json!([65])), &[NORM, "[65]", "256 bytes"]),
    (
        "a shape that overflows",
        |f| f.header(|h| entry(h, NORM)["shape"] = json!([1u64 << 40, 1u64 << 40])),
        &[NORM, "1099511627776", "256 bytes"],
    ),
    ("a shape below zero", |f| f.header(|h| entry(h, NORM)["shape"] = json!([-64])), &[NORM, "shape"]),
    ("an unknown dtype", |f| f.header(|h| entry(h, NORM)["dtype"] = json!("Q4")), &[NORM, "dtype", "Q4"]),
    (
        "an entry that is a number",
        |f| f.header(|h| *entry(h, NORM) = json!(5)),
        &[NORM, "dtype, shape and data_offsets"],
    ),
    (
        "a missing tensor",
        |f| {
            let tensors: Vec<_> = f.tensors().into_iter().filter(|t| t.name != NORM).collect();
            f.set_tensors(&tensors, 1);
        },
        &[NORM, WEIGHTS, "none of this name; take config.json and weights from one repository"],
    ),
    (
        "a missing bias of the selector",
        |f| {
            let tensors: Vec<_> = f.tensors().into_iter().filter(|t| t.name != "scale_selector.bias").collect();
            f.set_tensors(&tensors, 1);
        },
        &["scale_selector.bias", "none of this name"],
    ),
    (
        "another shape of as many values",
        |f| f.edit(QUERY, |t| t.shape = vec![32, 128]),
        &[QUERY, "[64, 64]", "[32, 128]"],
    ),
    ("one dimension too many", |f| f.edit(NORM, |t| t.shape = vec![1, 64]), &[NORM, "[64]", "[1, 64]"]),
    ("integers", |f| f.edit(QUERY, |t| t.dtype = Dtype::I32), &[QUERY, "float", "I32"]),
    ("64-bit floats", |f| f.edit(QUERY, |t| (t.dtype, t.shape) = (Dtype::F64, vec![32, 64])), &[QUERY, "float"]),
    ("NaN in a matrix", |f| poison(f, QUERY, 65, f32::NAN, Dtype::F32), &[QUERY, WEIGHTS, "NaN at index 65"]),
    ("infinity in a norm", |f| poison(f, NORM, 63, f32::INFINITY, Dtype::F32), &[NORM, "inf at index 63"]),
    ("minus infinity in bf16", |f| poison(f, NORM, 1, f32::NEG_INFINITY, Dtype::BF16), &[NORM, "-inf at index 1"]),
    ("NaN in f16", |f| poison(f, "image_newline", 0, f32::NAN, Dtype::F16), &["image_newline", "NaN at index 0"]),
    (
        "a shard missing",
        |f| {
            sharded(f, |_| ());
            f.remove(SHARD_2);
        },
        &[SHARD_2, "no such file"],
    ),
    ("an index that is not JSON", |f| indexed(f, "weight_map"), &[INDEX, "weight_map"]),
    ("an index without its map", |f| indexed(f, "{}"), &[INDEX, "weight_map"]),
    ("an index of no tensors", |f| indexed(f, r#"{"weight_map": {}}"#), &["embed_tokens.weight", "0 tensors"]),
    (
        "an index with a path out of the directory",
        |f| sharded(f, |index| index["weight_map"][NORM] = json!("../model.safetensors")),
        &[INDEX, "../model.safetensors"],
    ),
    (
        "an index with an absolute path",
        |f| sharded(f, |index| index["weight_map"][NORM] = json!("/etc/passwd.safetensors")),
        &[INDEX, "/etc/passwd.safetensors"],
    ),
    (
        "an index with a path of another system",
        |f| sharded(f, |index| index["weight_map"][NORM] = json!("..\\model.safetensors")),
        &[INDEX, "model.safetensors"],
    ),
    (
        "an index that names another kind of file",
        |f| sharded(f, |index| index["weight_map"][NORM] = json!("config.json")),
        &[INDEX, "safetensors", "config.json"],
    ),
    (
        "a tensor that is missing in its shard",
        |f| sharded(f, |index| index["weight_map"]["nowhere.weight"] = json!(SHARD_1)),
        &[INDEX, "nowhere.weight", "none of this name"],
    ),
    (
        "a tensor in another shard than in the index",
        |f| {
            sharded(f, |index| {
                let said = if index["weight_map"][NORM] == SHARD_1 { SHARD_2 } else { SHARD_1 };
                index["weight_map"][NORM] = json!(said);
            });
        },
        &[INDEX, NORM, SHARD_1, SHARD_2],
    ),
    (
        "a tensor in two shards",
        |f| {
            let newline = f.tensor("image_newline");
            let mut tensors = f.tensors();
            tensors.push(newline);
            f.set_tensors(&tensors, 2);
        },
        &["image_newline", "one tensor of this name", "another in"],
    ),
];

const SCALES: &str = "language_model.model.layers.2.self_attn.q_proj.scales";
const BIASES: &str = "language_model.model.layers.2.self_attn.q_proj.biases";
const PACKED: &str = "language_model.model.layers.2.self_attn.q_proj.weight_packed";
const SCALE: &str = "language_model.model.layers.2.self_attn.q_proj.weight_scale";
const SHAPE: &str = "language_model.model.layers.2.self_attn.q_proj.weight_shape";
const ZEROS: &str = "language_model.model.layers.2.self_attn.q_proj.weight_zero_point";
const ORDER: &str = "language_model.model.layers.2.self_attn.q_proj.weight_g_idx";

/// A tensor of zeros.
fn zeros(name: &str, dtype: Dtype, shape: &[usize]) -> Stored {
    let bytes = vec![0; shape.iter().product::<usize>() * dtype.bitsize() / 8];
    Stored { name: name.to_owned(), dtype, shape: shape.to_vec(), bytes }
}

/// Adds a tensor.
fn add(files: &mut Files, tensor: Stored) {
    let mut tensors = files.tensors();
    tensors.push(tensor);
    files.set_tensors(&tensors, 1);
}

/// `tiny-0` with one matrix (64, 64) replaced by the tensors of a method of quantisation.
fn quantised(key: &str, settings: Value, tensors: impl IntoIterator<Item = Stored>) -> Files {
    let mut files = Files::fixture("tiny-0");
    files.config(key, settings);
    without(&mut files, QUERY);
    tensors.into_iter().for_each(|tensor| add(&mut files, tensor));
    files
}

/// MLX's codes of 8 bits in groups of 32.
fn mlx() -> Files {
    let numbers = |name| zeros(name, Dtype::F16, &[64, 2]);
    let tensors = [zeros(QUERY, Dtype::U32, &[64, 16]), numbers(SCALES), numbers(BIASES)];
    quantised("/quantization", json!({"group_size": 32, "bits": 8}), tensors)
}

/// compressed-tensors' codes of 4 bits in groups of 32.
fn packed() -> Files {
    let weights = json!({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32});
    let groups = json!({"group_0": {"weights": weights}});
    let settings = json!({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups});
    let mut shape = zeros(SHAPE, Dtype::I64, &[2]);
    (shape.bytes[0], shape.bytes[8]) = (64, 64);
    let tensors = [zeros(PACKED, Dtype::I32, &[64, 8]), zeros(SCALE, Dtype::BF16, &[64, 2]), shape];
    quantised("/quantization_config", settings, tensors)
}

const MLX: &[Row] = &[
    ("no scales", |f| without(f, SCALES), &[SCALES, "none of this name"]),
    ("no biases", |f| without(f, BIASES), &[BIASES, "none of this name"]),
    ("no codes", |f| without(f, QUERY), &[QUERY, "none of this name"]),
    ("scales of another shape", |f| f.edit(SCALES, |t| t.shape = vec![32, 4]), &[SCALES, "[64, 2]", "[32, 4]"]),
    ("biases of another shape", |f| f.edit(BIASES, |t| t.shape = vec![128]), &[BIASES, "[64, 2]", "[128]"]),
    ("integers as scales", |f| f.edit(SCALES, |t| t.dtype = Dtype::I16), &[SCALES, "f32, f16 or bf16", "I16"]),
    ("codes with a sign", |f| f.edit(QUERY, |t| t.dtype = Dtype::I32), &[QUERY, "U32", "I32"]),
    ("floats as codes", |f| f.edit(QUERY, |t| t.dtype = Dtype::F32), &[QUERY, "U32", "[64, 16] of f32"]),
    ("codes in three dimensions", |f| f.edit(QUERY, |t| t.shape = vec![8, 8, 16]), &[QUERY, "matrix", "[8, 8, 16]"]),
    (
        "codes without rows",
        |f| f.edit(QUERY, |t| *t = zeros(QUERY, Dtype::U32, &[0, 16])),
        &[QUERY, "matrix", "[0, 16]"],
    ),
    ("a group that does not divide", |f| f.config("/quantization/group_size", json!(128)), &[QUERY, "groups of 128"]),
    (
        "fewer bits than stored",
        |f| f.config("/quantization/bits", json!(4)),
        &[SCALES, "[64, 4]", "4 bits in groups of 32 as in config.json", "[64, 2]"],
    ),
    ("bits as a text", |f| f.config("/quantization/bits", json!("8")), &["quantization.bits", "4 or 8", "got \"8\""]),
    (
        "bits that are null",
        |f| f.json("config.json", |config| config["quantization"]["bits"] = Value::Null),
        &["quantization.bits", "4 or 8", "got null", "correct config.json"],
    ),
    (
        "groups of 16",
        |f| f.config("/quantization/group_size", json!(16)),
        &["MLX (8 bits, group 16)", "in groups of 32, 64 or 128"],
    ),
    (
        "settings that are a list",
        |f| f.config("/quantization", json!([])),
        &["config.json: quantization: expected an object with bits and group_size, got []", "correct config.json"],
    ),
    ("three bits", |f| f.config("/quantization/bits", json!(3)), &["quantization", "MLX (3 bits", "--weights q4"]),
    ("floats of 4 bits", |f| f.config("/quantization/mode", json!("mxfp4")), &["quantization", "MLX (mxfp4)"]),
    (
        "codes of a module that is not quantised",
        |f| f.config("/quantization/language_model.model.layers.2.self_attn.q_proj", json!(false)),
        &["quantised with MLX"],
    ),
    ("codes without settings", |f| f.config("/quantization", Value::Null), &["quantised with MLX", "settings"]),
    (
        "an infinite scale",
        |f| poison(f, SCALES, 5, f32::INFINITY, Dtype::F16),
        &[SCALES, "inf at index 5; download the file again, or convert"],
    ),
    ("NaN in a bias", |f| poison(f, BIASES, 127, f32::NAN, Dtype::BF16), &[BIASES, "NaN at index 127; download"]),
];

const COMPRESSED: &[Row] = &[
    ("no scales", |f| without(f, SCALE), &[SCALE, "none of this name"]),
    ("no shape", |f| without(f, SHAPE), &[SHAPE, "none of this name"]),
    ("a shape of other rows", |f| f.edit(SHAPE, |t| t.bytes[0] = 63), &[SHAPE, "64", "[63, 64]"]),
    ("a shape of other columns", |f| f.edit(SHAPE, |t| t.bytes[8] = 63), &[PACKED, "63 codes of 4 or 8 bits"]),
    ("a shape below zero", |f| f.edit(SHAPE, |t| t.bytes[8..].fill(255)), &[PACKED, "18446744073709551615"]),
    ("a shape of floats", |f| f.edit(SHAPE, |t| t.dtype = Dtype::F64), &[SHAPE, "two integers", "F64"]),
    ("three numbers as a shape", |f| f.edit(SHAPE, |t| *t = zeros(SHAPE, Dtype::I64, &[3])), &[SHAPE, "two integers"]),
    ("codes of another dtype", |f| f.edit(PACKED, |t| t.dtype = Dtype::U32), &[PACKED, "I32", "U32"]),
    (
        "groups that do not divide",
        |f| f.edit(SCALE, |t| *t = zeros(SCALE, Dtype::F16, &[64, 3])),
        &[SCALE, "32", "[64, 3]"],
    ),
    (
        "groups of 16",
        |f| f.edit(SCALE, |t| *t = zeros(SCALE, Dtype::F16, &[64, 4])),
        &[SCALE, "multiple of 32", "[64, 4]"],
    ),
    ("integers as scales", |f| f.edit(SCALE, |t| t.dtype = Dtype::I16), &[SCALE, "f32, f16 or bf16", "I16"]),
    ("zero points of another shape", |f| add(f, zeros(ZEROS, Dtype::I32, &[64, 2])), &[ZEROS, "[8, 2]", "[64, 2]"]),
    ("zero points of another dtype", |f| add(f, zeros(ZEROS, Dtype::I8, &[8, 2])), &[ZEROS, "I32", "I8"]),
    ("columns in another order", |f| add(f, zeros(ORDER, Dtype::I32, &[64])), &[ORDER, "order of the input"]),
    (
        "an infinite scale",
        |f| poison(f, SCALE, 3, f32::NEG_INFINITY, Dtype::BF16),
        &[SCALE, "-inf at index 3; download"],
    ),
    (
        "zero points that are missing",
        |f| f.config("/quantization_config/config_groups/group_0/weights/symmetric", json!(false)),
        &["quantization_config", "expected tensors with the name .weight_zero_point", "got none"],
    ),
    (
        "another format",
        |f| f.config("/quantization_config/format", json!("nvfp4-pack-quantized")),
        &["quantization_config", "compressed-tensors (nvfp4-pack-quantized)"],
    ),
    (
        "two bits",
        |f| f.config("/quantization_config/config_groups/group_0/weights/num_bits", json!(2)),
        &["quantization_config", "compressed-tensors (pack-quantized, 2 bits)"],
    ),
];

const TOKENIZER: &[Row] = &[
    ("no tokenizer", |f| f.remove("tokenizer.json"), &["tokenizer.json", "no such file"]),
    (
        "a tokenizer that was not downloaded",
        |f| f.put("tokenizer.json", POINTER),
        &["tokenizer.json", "expected a tokenizer, got a pointer of Git LFS", "git lfs pull"],
    ),
    (
        "a tokenizer that is not JSON",
        |f| f.put("tokenizer.json", "<html>"),
        &["tokenizer.json", "expected a tokenizer"],
    ),
    ("a tokenizer without a model", |f| f.put("tokenizer.json", "{}"), &["tokenizer.json", "expected a tokenizer"]),
    (
        "an empty vocabulary",
        |f| {
            f.set("tokenizer.json", "/model/vocab", json!({}));
            f.set("tokenizer.json", "/model/merges", json!([]));
            f.set("tokenizer.json", "/added_tokens", json!([]));
        },
        &["tokenizer.json", "expected"],
    ),
    (
        "an id above the embedding",
        |f| f.set("tokenizer.json", "/model/vocab/ween", json!(5000)),
        &["tokenizer.json", "5000"],
    ),
    (
        "merges of tokens that do not exist",
        |f| f.set("tokenizer.json", "/model/merges", json!([["never", "seen"]])),
        &["tokenizer.json", "expected a tokenizer"],
    ),
    (
        "a prefix longer than the merged tokens, on which the library panics",
        |f| f.set("tokenizer.json", "/model/continuing_subword_prefix", json!("##########")),
        &["tokenizer.json", "expected a tokenizer"],
    ),
    (
        "a picture's id that is not a token",
        |f| {
            f.set("tokenizer.json", "/model/vocab/ween", Value::Null);
            f.set("tokenizer.json", "/model/merges", json!([]));
            f.config("/image_token_index", json!(599));
        },
        &["tokenizer.json", "599"],
    ),
];

const TEMPLATE: &[Row] = &[
    ("no template", |f| f.remove("chat_template.jinja"), &["chat template", "got none"]),
    ("a template that is not text", |f| f.put("chat_template.jinja", [0xff, 0xfe]), &["chat template", "UTF-8"]),
    ("a template with a syntax error", |f| f.put("chat_template.jinja", "<image>{% for %}"), &["chat template"]),
    (
        "a template without end",
        |f| {
            let range = "{% for i in range(99999) %}";
            let end = "{% endfor %}";
            f.put("chat_template.jinja", format!("<image>{range}{range}{range}x{end}{end}{end}"));
        },
        &["chat template", "operations"],
    ),
    (
        "a template that prints without end",
        |f| f.put("chat_template.jinja", "<image>{% for i in range(9999) %}{{ 'x' * 100000 }}{% endfor %}"),
        &["chat template"],
    ),
    (
        "a template that multiplies a text by a trillion",
        |f| f.put("chat_template.jinja", "<image>{{ 'x' * 1000000000000 }}"),
        &["chat template", "bytes of work"],
    ),
    (
        "a template that calls itself",
        |f| f.put("chat_template.jinja", "<image>{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
        &["chat template"],
    ),
    (
        "a template that reads a file",
        |f| f.put("chat_template.jinja", "<image>{% include '/etc/passwd' %}"),
        &["chat template"],
    ),
    (
        "a template without a picture",
        |f| f.put("chat_template.jinja", "{{ messages[0]['content'][1]['text'] }}"),
        &["chat template", "the picture", "once, got it 0 times"],
    ),
    (
        "a template with two pictures",
        |f| f.put("chat_template.jinja", "<image><image>{{ messages[0]['content'][1]['text'] }}"),
        &["chat template", "the picture", "once, got it 2 times"],
    ),
    (
        "a template with nothing after the picture",
        |f| f.put("chat_template.jinja", "a<image>"),
        &["chat template", "after"],
    ),
    (
        "a template that raises",
        |f| f.put("chat_template.jinja", "<image>{{ raise_exception('no such role') }}"),
        &["chat template", "no such role"],
    ),
];

/// Sets a key of the image processor in processor_config.json.
fn picture(files: &mut Files, key: &str, value: Value) {
    files.set("processor_config.json", &format!("/image_processor/{key}"), value);
}

const PREPROCESSOR: &[Row] = &[
    (
        "a processor that is not JSON",
        |f| f.put("processor_config.json", "}"),
        &["processor_config.json", "expected JSON"],
    ),
    ("a deviation of 0", |f| picture(f, "image_std", json!([0.0, 1.0, 1.0])), &["image_std", "above 0"]),
    ("a deviation beyond f32", |f| picture(f, "image_std", json!([1e300, 1.0, 1.0])), &["image_std"]),
    ("two means", |f| picture(f, "image_mean", json!([0.5, 0.5])), &["image_mean", "three numbers"]),
    ("another crop", |f| picture(f, "crop_size", json!({"height": 50, "width": 50})), &["crop_size", "48", "50"]),
    ("another size", |f| picture(f, "size", json!({"shortest_edge": 336})), &["size", "48", "336"]),
    ("another kernel", |f| picture(f, "resample", json!(2)), &["resample", "got 2"]),
    ("no normalization", |f| picture(f, "do_normalize", json!(false)), &["do_normalize", "got false"]),
    ("a factor of 0", |f| picture(f, "rescale_factor", json!(0)), &["rescale_factor", "from 0.000000001"]),
    (
        "settings that are a list",
        |f| f.set("processor_config.json", "/image_processor", json!([])),
        &["image_processor"],
    ),
];

/// Sets a key of preprocessor_config.json.
fn image(files: &mut Files, key: &str, value: Value) {
    files.set("preprocessor_config.json", &format!("/{key}"), value);
}

/// Removes the tensors whose name starts with `prefix`.
fn without(files: &mut Files, prefix: &str) {
    let tensors: Vec<_> = files.tensors().into_iter().filter(|t| !t.name.starts_with(prefix)).collect();
    files.set_tensors(&tensors, 1);
}

/// The checkpoints that the rows break, one per family.
const FAMILIES: &[(&str, &[Row])] = &[
    ("qwen2-0", QWEN2),
    ("llava15-0", LLAVA15),
    ("interleave-0", INTERLEAVE),
    ("onevision-0", ONEVISION),
    ("smolvlm-0", SMOLVLM),
    ("granite-0", GRANITE),
    ("original-vicuna-0", ORIGINAL),
];

const QWEN2: &[Row] = &[
    (
        "another text model",
        |f| f.config("/text_config/model_type", json!("qwen2_moe")),
        &["text_config.model_type", "llama or mistral or qwen2 or granite", "qwen2_moe"],
    ),
    (
        "a sliding window that is neither used nor not",
        |f| f.config("/text_config/use_sliding_window", json!("yes")),
        &["text_config.use_sliding_window", "true or false", "yes"],
    ),
    (
        "a sliding window of 0",
        |f| {
            f.config("/text_config/use_sliding_window", json!(true));
            f.config("/text_config/sliding_window", json!(0));
        },
        &["text_config.sliding_window", "got 0"],
    ),
    (
        "layers below zero without a window",
        |f| {
            f.config("/text_config/use_sliding_window", json!(true));
            f.config("/text_config/max_window_layers", json!(-1));
        },
        &["text_config.max_window_layers", "got -1"],
    ),
    (
        "a missing bias",
        |f| without(f, "language_model.model.layers.1.self_attn.k_proj.bias"),
        &["layers.1.self_attn.k_proj.bias", "none of this name"],
    ),
];

const LLAVA15: &[Row] = &[
    (
        "a family with newlines",
        |f| {
            f.config("/model_type", json!("llava_next"));
            f.config("/image_grid_pinpoints", json!([[48, 96]]));
        },
        &["image_newline", "none of this name"],
    ),
    (
        "all features of a tower with a class token",
        |f| f.config("/vision_feature_select_strategy", json!("full")),
        &["vision_feature_select_strategy", "expected default", "CLIP", "full"],
    ),
    (
        "the processor of another family",
        |f| image(f, "image_processor_type", json!("LlavaNextImageProcessor")),
        &["image_processor_type", "CLIPImageProcessor", "LlavaNextImageProcessor"],
    ),
    (
        "a shorter side below the tile's",
        |f| image(f, "size", json!({"shortest_edge": 40})),
        &["preprocessor_config.json", "size", "48", "40"],
    ),
    ("another crop", |f| image(f, "crop_size", json!({"height": 48, "width": 50})), &["crop_size", "48", "50"]),
    ("a tile that is not square", |f| image(f, "do_center_crop", json!(false)), &["size", "do_center_crop", "48"]),
    ("no resize", |f| image(f, "do_resize", json!(false)), &["do_resize", "expected true", "got false"]),
    (
        "another aspect ratio",
        |f| image(f, "image_aspect_ratio", json!("anyres")),
        &["image_aspect_ratio", "pad or square", "anyres"],
    ),
];

const INTERLEAVE: &[Row] = &[
    (
        "features without those of a class token",
        |f| f.config("/vision_feature_select_strategy", json!("default")),
        &["vision_feature_select_strategy", "expected full", "SigLIP", "default"],
    ),
    (
        "a size that is not square",
        |f| image(f, "size", json!({"height": 46, "width": 50})),
        &["preprocessor_config.json", "size", "46", "50"],
    ),
    ("another kernel", |f| image(f, "resample", json!(2)), &["resample", "bicubic", "got 2"]),
    ("no position embedding", |f| without(f, "vision_tower.vision_model.embeddings.position"), &["position_embedding"]),
];

const ONEVISION: &[Row] = &[
    (
        "an aspect ratio without a number of tiles",
        |f| f.config("/vision_aspect_ratio", json!("anyres")),
        &["vision_aspect_ratio", "anyres_max_", "\"anyres\""],
    ),
    (
        "an aspect ratio of no tiles",
        |f| f.config("/vision_aspect_ratio", json!("anyres_max_0")),
        &["vision_aspect_ratio", "1 to 100", "anyres_max_0"],
    ),
    (
        "an aspect ratio that is a number",
        |f| f.config("/vision_aspect_ratio", json!(9)),
        &["vision_aspect_ratio", "a text", "got 9"],
    ),
    (
        "a canvas that is not a multiple of the tile",
        |f| f.config("/image_grid_pinpoints", json!([[46, 48]])),
        &["image_grid_pinpoints", "46", "48"],
    ),
    (
        "canvases unlike the processor's",
        |f| image(f, "image_grid_pinpoints", json!([[46, 46]])),
        &["preprocessor_config.json", "image_grid_pinpoints"],
    ),
    (
        "the processor of another family",
        |f| image(f, "image_processor_type", json!("Idefics3ImageProcessor")),
        &["image_processor_type", "LlavaOnevisionImageProcessor", "Idefics3ImageProcessor"],
    ),
];

const SMOLVLM: &[Row] = &[
    ("a factor of 0", |f| f.config("/scale_factor", json!(0)), &["scale_factor", "got 0"]),
    (
        "a factor that does not divide",
        |f| f.config("/scale_factor", json!(5)),
        &["scale_factor", "16 patches", "got 5"],
    ),
    (
        "another factor than the connector's",
        |f| f.config("/scale_factor", json!(8)),
        &["modality_projection.proj.weight", "[72, 3072]", "[72, 768]"],
    ),
    ("the picture's id far beyond the rows", |f| f.config("/image_token_id", json!(5000)), &["image_token_id", "5000"]),
    (
        "another tile",
        |f| image(f, "max_image_size", json!({"longest_edge": 64})),
        &["max_image_size.longest_edge", "48", "got 64"],
    ),
    ("a longest side of 0", |f| image(f, "size", json!({"longest_edge": 0})), &["size.longest_edge", "got 0"]),
    (
        "a longest side of a million",
        |f| image(f, "size", json!({"longest_edge": 1_000_000})),
        &["size.longest_edge", "got 1000000"],
    ),
    ("no longest side", |f| image(f, "size", json!({"height": 48, "width": 48})), &["size.longest_edge", "nothing"]),
    (
        "the processor of another family",
        |f| image(f, "image_processor_type", json!("CLIPImageProcessor")),
        &["image_processor_type", "Idefics3ImageProcessor", "CLIPImageProcessor"],
    ),
    (
        "cutting that is neither on nor off",
        |f| image(f, "do_image_splitting", json!("no")),
        &["do_image_splitting", "true or false"],
    ),
];

const GRANITE: &[Row] = &[
    ("no feature layers", |f| f.config("/vision_feature_layer", json!([])), &["vision_feature_layer", "got []"]),
    (
        "too many feature layers",
        |f| f.config("/vision_feature_layer", json!(vec![-1; 17])),
        &["vision_feature_layer", "1 to 16"],
    ),
    (
        "feature layers with a text",
        |f| f.config("/vision_feature_layer", json!([-4, "-3", -1])),
        &["vision_feature_layer", "[-4,\"-3\",-1]"],
    ),
    (
        "a feature layer beyond the last",
        |f| f.config("/vision_feature_layer", json!([-4, 5])),
        &["vision_feature_layer", "4 layers", "[-4,5]"],
    ),
    (
        "fewer feature layers than the projector's",
        |f| f.config("/vision_feature_layer", json!([-4, -3])),
        &["multi_modal_projector.linear_1.weight", "[64, 96]", "[64, 144]"],
    ),
    (
        "embeddings times 0",
        |f| f.config("/text_config/embedding_multiplier", json!(0)),
        &["text_config.embedding_multiplier", "got 0"],
    ),
    (
        "a multiplier that is a text",
        |f| f.config("/text_config/residual_multiplier", json!("0.22")),
        &["text_config.residual_multiplier", "0.22"],
    ),
];

const ORIGINAL: &[Row] = &[
    (
        "only a tokenizer.model",
        |f| {
            let bytes = std::mem::take(f.bytes("tokenizer.json"));
            f.remove("tokenizer.json");
            f.put("tokenizer.model", bytes);
        },
        &["tokenizer.json", "only tokenizer.model", "save_pretrained"],
    ),
    ("no vision tower", |f| without(f, "model.vision_tower."), &["model.vision_tower.", "none of this name"]),
    ("no projector", |f| without(f, "model.mm_projector."), &["model.mm_projector.0.", "none of this name"]),
    ("another projector", |f| f.config("/mm_projector_type", json!("linear")), &["mm_projector_type", "mlp2x_gelu"]),
    (
        "an unknown vision tower without its sizes",
        |f| {
            f.config("/vision_config", Value::Null);
            f.config("/mm_vision_tower", json!("eva-clip"));
        },
        &["mm_vision_tower", "clip-vit-large-patch14-336", "eva-clip"],
    ),
    (
        "another aspect ratio",
        |f| f.config("/image_aspect_ratio", json!("highres")),
        &["image_aspect_ratio", "anyres", "highres"],
    ),
    (
        "another order of the tiles",
        |f| f.config("/mm_patch_merge_type", json!("flat")),
        &["mm_patch_merge_type", "spatial_unpad", "flat"],
    ),
    (
        "another class",
        |f| f.config("/architectures", json!(["LlavaMptForCausalLM"])),
        &["architectures", "LlavaLlamaForCausalLM", "LlavaMptForCausalLM"],
    ),
    (
        "tokens around the picture",
        |f| f.config("/mm_use_im_start_end", json!(true)),
        &["mm_use_im_start_end", "expected false"],
    ),
    ("an unknown conversation", |f| f.config("/conversation", json!("plain")), &["conversation", "vicuna_v1", "plain"]),
    ("no canvases", |f| f.config("/image_grid_pinpoints", Value::Null), &["image_grid_pinpoints", "got none"]),
];

/// Opens and verifies a checkpoint. Returns the error message, or what happened instead.
fn refusal(source: Source) -> Result<String, String> {
    let run = || {
        block_on(async {
            match Checkpoint::open(source).await {
                Ok(checkpoint) => checkpoint.verify(&fovea_model::Cancel::default(), |_, _| ()).await,
                Err(e) => Err(e),
            }
        })
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => Err("no error".to_owned()),
        Ok(Err(e)) => Ok(e.to_string()),
        Err(_) => Err("a panic".to_owned()),
    }
}

fn check(rows: &[Row], least: usize) {
    assert!(rows.len() >= least, "expected at least {least} rows, got {}", rows.len());
    check_on("tiny-0", rows);
}

fn check_on(checkpoint: &str, rows: &[Row]) {
    check_files(checkpoint, &Files::fixture(checkpoint), rows);
}

fn check_files(checkpoint: &str, good: &Files, rows: &[Row]) {
    assert_eq!(refusal(good.source()), Err("no error".to_owned()), "the checkpoint that the rows break");
    let mut failed = Vec::new();
    for (name, break_it, words) in rows {
        let mut files = good.clone();
        break_it(&mut files);
        match refusal(files.source()) {
            Ok(why) => {
                if let Some(word) = words.iter().find(|word| !why.contains(**word)) {
                    failed.push(format!("{name}: expected an error with {word:?}, got: {why}"));
                }
                if why.len() > 1000 {
                    failed.push(format!("{name}: expected a sentence, got {} bytes", why.len()));
                }
            }
            Err(what) => failed.push(format!("{name}: expected an error with {words:?}, got {what}")),
        }
    }
    assert!(
        failed.is_empty(),
        "{checkpoint}: expected every row to be refused, got {} failures:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

#[test]
fn broken_configs_name_their_key() {
    check(CONFIG, 40);
}

#[test]
fn broken_configs_of_every_family_name_their_key() {
    for (checkpoint, rows) in FAMILIES {
        check_on(checkpoint, rows);
    }
}

#[test]
fn broken_weights_name_file_and_tensor() {
    check(WEIGHT_FILES, 35);
}

#[test]
fn broken_codes_name_file_and_tensor() {
    check_files("a checkpoint of MLX", &mlx(), MLX);
    check_files("a checkpoint of compressed-tensors", &packed(), COMPRESSED);
}

/// Reads everything of a weights file; an error or not.
fn read_all(bytes: Vec<u8>, settings: &Quantisation) -> Result<(), fovea_runtime::Error> {
    block_on(async {
        let source = Source::memory("damaged tensors", [(WEIGHTS.to_owned(), Cow::Owned(bytes))]);
        let weights = Weights::open(source).await?.with_quantisation(settings).await?;
        for (name, entry) in weights.entries().iter().filter(|(_, entry)| entry.values() > 0) {
            weights.first_non_finite(name).await?;
            let shape: Vec<usize> = entry.shape.iter().map(|&d| d as usize).collect();
            // A tensor of another dtype, and values that are not finite, are errors too.
            let _ = weights.values(&Rows::all(name, &shape)).await;
        }
        Ok(())
    })
}

#[test]
fn damaged_files_of_codes_never_panic() {
    let format = |bits, group| Some(Format { bits, minimum: true, group });
    let own = [("brain", format(8, 32)), ("full", format(4, 128)), ("symmetric", format(4, 32))];
    let own = own.map(|(module, format)| (module.to_owned(), format)).into();
    let modules = Modules { all: Format { bits: 4, minimum: true, group: 64 }, own };
    for (file, settings) in
        [("mlx.safetensors", Quantisation::Affine(modules)), ("packed.safetensors", Quantisation::Packed)]
    {
        let good = std::fs::read(fovea_tests::golden::fixtures().join("quantised").join(file)).expect("a fixture");
        read_all(good.clone(), &settings).unwrap_or_else(|e| panic!("{file}: expected no error, got: {e}"));
        for at in 0..good.len() {
            for byte in [0, b'"', b'0', b'1', b'9', 0xff, good[at] ^ 1] {
                let mut bytes = good.clone();
                bytes[at] = byte;
                let got = catch_unwind(AssertUnwindSafe(|| read_all(bytes, &settings)));
                assert!(got.is_ok(), "{file}: byte {at} as {byte}: expected an error or none, got a panic");
            }
        }
    }
}

#[test]
fn broken_tokenizers_are_refused() {
    check(TOKENIZER, 8);
}

#[test]
fn broken_templates_are_refused() {
    check(TEMPLATE, 10);
}

#[test]
fn broken_picture_settings_name_their_key() {
    check(PREPROCESSOR, 10);
}

/// A file that claims to be a terabyte long. Reading more than a header's length fails the test.
struct Huge;

impl ReadAt for Huge {
    fn len(&self) -> u64 {
        1 << 40
    }

    fn read_at<'a>(&'a self, offset: u64, into: &'a mut [u8]) -> Reading<'a> {
        Box::pin(async move {
            assert_eq!((offset, into.len()), (0, 8), "what is read of a file with such a header (got, expected)");
            into.copy_from_slice(&100_000_001u64.to_le_bytes());
            Ok(())
        })
    }
}

#[test]
fn a_header_over_100_mb_is_refused_unread() {
    let mut files = Files::fixture("tiny-0").0;
    files.remove(WEIGHTS);
    let small =
        files.into_iter().map(|(name, bytes)| (name, Box::new(Cow::<'static, [u8]>::Owned(bytes)) as Box<dyn ReadAt>));
    let huge = (WEIGHTS.to_owned(), Box::new(Huge) as Box<dyn ReadAt>);
    let why = refusal(Source::from_files("a checkpoint in memory", small.chain([huge]))).expect("a typed error");
    for word in [WEIGHTS, "100000000", "100000001"] {
        assert!(why.contains(word), "expected an error with {word}, got: {why}");
    }
}

#[cfg(unix)]
#[test]
fn a_link_out_of_the_directory_is_refused_and_one_inside_is_accepted() {
    let outside = fovea_tests::golden::fixtures().join("tiny-0").join(WEIGHTS);
    let directory = tempfile::tempdir().expect("a directory");
    let mut files = Files::fixture("tiny-0");
    files.remove(WEIGHTS);
    files.write(directory.path());
    std::os::unix::fs::symlink(&outside, directory.path().join(WEIGHTS)).expect("a link");
    let why = refusal(Source::directory(directory.path()).unwrap()).expect("a typed error");
    assert!(why.contains(WEIGHTS) && why.contains("link out"), "expected an error about the link, got: {why}");

    std::fs::remove_file(directory.path().join(WEIGHTS)).expect("the link to be removed");
    std::fs::copy(&outside, directory.path().join("blob")).expect("a copy");
    std::os::unix::fs::symlink("blob", directory.path().join(WEIGHTS)).expect("a link");
    let within = refusal(Source::directory(directory.path()).unwrap());
    assert_eq!(within, Err("no error".to_owned()), "a link inside the directory");

    std::fs::remove_file(directory.path().join("blob")).expect("the copy to be removed");
    let why = refusal(Source::directory(directory.path()).unwrap()).expect("a typed error");
    assert!(why.contains(WEIGHTS), "expected an error about the broken link, got: {why}");
}
