//! GGUF files, which `tests/reference/make_gguf.py` wrote with the Python package gguf: block types against the values
//! that this package computes, and checkpoints against the fixtures in Hugging Face's layout from which they were made.

use std::{collections::BTreeMap, ops::Range, path::PathBuf};

use burn::tensor::Device;
use fovea_model::{Blueprint, Cancel, Conversation, Grid, Model, Precision, gguf::GgufCheckpoint, trace::trace};
use fovea_runtime::{
    gguf::{Block, Gguf, Value},
    source::Source,
    weights::{Rows, Weights},
};
use fovea_shaders::Format;
use fovea_tests::{
    checkpoint::Files,
    device,
    run::{ask, compressed, load, open, options, picture},
};
use half::f16;
use safetensors::{Dtype, SafeTensors};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn values(source: &Source, gguf: &Gguf, name: &str) -> Vec<f32> {
    let tensor = gguf.tensor(name).unwrap_or_else(|| panic!("no tensor {name}"));
    pollster::block_on(tensor.values(source, &gguf.file)).unwrap()
}

fn blocks() -> (Source, Gguf) {
    let source = Source::directory(fixture("gguf")).unwrap();
    let gguf = pollster::block_on(Gguf::open(&source, "blocks.gguf")).unwrap();
    (source, gguf)
}

const BLOCKS: [Block; 11] = [
    Block::F32,
    Block::F16,
    Block::BF16,
    Block::Q4_0,
    Block::Q4_1,
    Block::Q5_0,
    Block::Q5_1,
    Block::Q8_0,
    Block::Q4_K,
    Block::Q5_K,
    Block::Q6_K,
];

#[test]
fn values_equal_those_of_the_python_package() {
    let (source, gguf) = blocks();
    for block in BLOCKS {
        let name = block.name();
        let info = gguf.tensor(name).unwrap();
        assert_eq!((&info.block, info.shape.as_slice()), (&Ok(block), [3, 512].as_slice()), "{name}");
        let got = values(&source, &gguf, name);
        let expected = values(&source, &gguf, &format!("{name}.values"));
        let first = got.iter().zip(&expected).position(|(a, b)| a.to_bits() != b.to_bits());
        assert_eq!(first, None, "{name}: {:?}", first.map(|i| (i, got[i], expected[i])));
    }
}

/// Q4_K, Q5_K and Q6_K: a scale and a minimum are rounded to f16, so a value differs by at most half a unit of each.
#[test]
fn repacked_values_equal_the_values() {
    let (source, gguf) = blocks();
    for block in BLOCKS {
        let Some(format) = block.format() else { continue };
        let (name, width) = (block.name(), 512);
        let info = gguf.tensor(name).unwrap();
        let mut bytes = vec![0; info.bytes as usize];
        pollster::block_on(source.file("blocks.gguf").unwrap().read_at(info.offset, &mut bytes)).unwrap();
        let row = block.row_bytes(width as u64).unwrap() as usize;
        let expected = values(&source, &gguf, name);
        let exact = !matches!(block, Block::Q4_K | Block::Q5_K | Block::Q6_K);
        for (bytes, expected) in bytes.chunks_exact(row).zip(expected.chunks_exact(width)) {
            let (mut words, mut scales) = (vec![0; format.words(width)], vec![0; format.scale_words(width)]);
            block.repack(bytes, width, &mut words, &mut scales);
            let got = fovea_shaders::dequantise(&words, &scales, width, format);
            let half = |index: usize| f64::from(f16::from_bits((scales[index / 2] >> (index % 2 * 16)) as u16));
            for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
                let group = i / format.group as usize;
                let bound = if exact {
                    0.0
                } else if format.minimum {
                    // The codes are below 32.
                    unit(half(2 * group)) * 31.0 + unit(half(2 * group + 1))
                } else {
                    unit(half(group)) * 32.0
                };
                let difference = (got - f64::from(*expected)).abs();
                // The values themselves are rounded to f32.
                let rounding = if exact && !format.minimum { 0.0 } else { f64::from(expected.abs()) * 2f64.powi(-23) };
                assert!(difference <= bound + rounding, "{name}, value {i}: got {got}, expected {expected}");
            }
        }
    }
}

/// Half the distance of the f16 numbers around `value`.
fn unit(value: f64) -> f64 {
    value.abs().max(2f64.powi(-14)) * 2f64.powi(-11)
}

#[test]
fn metadata_and_other_types_are_read() {
    let (_, gguf) = blocks();
    let numbers = gguf.metadata["test.numbers"].array().unwrap().iter().map(Value::count).collect::<Vec<_>>();
    assert_eq!(numbers, [Some(1), Some(2), Some(3)]);
    let texts = gguf.metadata["test.texts"].array().unwrap().iter().map(Value::text).collect::<Vec<_>>();
    assert_eq!(texts, [Some("a"), Some("é")]);
    assert_eq!(gguf.metadata["test.float"].number(), Some(0.5));
    assert_eq!(gguf.metadata["test.flag"].flag(), Some(true));
    assert_eq!(gguf.metadata["test.negative"], Value::Signed(-3));
    assert_eq!(gguf.tensor("Q2_K").unwrap().block, Err("Q2_K".to_owned()));
}

fn checkpoint(name: &str) -> (GgufCheckpoint, Weights) {
    let open = || Source::directory(fixture(&format!("gguf/{name}"))).unwrap();
    let checkpoint = pollster::block_on(GgufCheckpoint::open(&open())).unwrap();
    let weights = Weights::gguf(open(), checkpoint.files.clone(), checkpoint.tensors.clone()).unwrap();
    (checkpoint, weights)
}

/// Under each name of the hub, the tensor has the shape and the values of the fixture from which the file was made.
#[test]
fn tensors_equal_the_fixtures() {
    for name in ["vicuna-0", "qwen2-0"] {
        let (checkpoint, weights) = checkpoint(name);
        let bytes = std::fs::read(fixture(name).join("model.safetensors")).unwrap();
        let original = SafeTensors::deserialize(&bytes).unwrap();
        let mut left: BTreeMap<&str, _> = original.iter().collect();
        for (tensor, stored) in &checkpoint.tensors {
            let expected =
                left.remove(tensor.as_str()).unwrap_or_else(|| panic!("{name}: {tensor} is not in the fixture"));
            let got = pollster::block_on(weights.values(&Rows::all(tensor, expected.shape()))).unwrap();
            let floats: Vec<f32> = match expected.dtype() {
                Dtype::F32 => {
                    expected.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
                }
                _ => expected.data().chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            };
            assert_eq!(got.len(), floats.len(), "{name}: {tensor}");
            // A step of Q8_0 is the largest value of a group / 127, and its scale is rounded to f16.
            let largest = floats.iter().fold(0.0f32, |most, v| most.max(v.abs()));
            let bound = match stored.info.block {
                Ok(Block::Q8_0) => largest * 0.0045,
                Ok(Block::F16) if expected.dtype() == Dtype::F32 => largest * 5e-4,
                _ => 0.0,
            };
            for (i, (got, expected)) in got.iter().zip(&floats).enumerate() {
                assert!((got - expected).abs() <= bound, "{name}: {tensor}, value {i}: got {got}, expected {expected}");
            }
        }
        // The old converter leaves out the layer after the feature layer; no converter has the last norm or the
        // selector.
        let unused = |tensor: &&str| {
            tensor.starts_with("scale_selector.")
                || tensor.contains("post_layernorm")
                || tensor.contains("encoder.layers.2.")
                || tensor.ends_with("position_ids")
        };
        let missing: Vec<&str> = left.into_keys().filter(|tensor| !unused(tensor)).collect();
        assert_eq!(missing, Vec::<&str>::new(), "{name}: tensors of the fixture that were not found");
    }
}

/// Permuted rows of heads that begin and end within a head; and quantised rows.
#[test]
fn some_rows_equal_the_same_of_all() {
    for name in ["vicuna-0", "qwen2-0"] {
        let (_, weights) = checkpoint(name);
        let tensor = "language_model.model.layers.1.self_attn.q_proj.weight";
        let of =
            |rows: Range<usize>| pollster::block_on(weights.values(&Rows { tensor, shape: &[64, 64], rows })).unwrap();
        let all = of(0..64);
        for range in [0..64, 3..5, 15..17, 16..32, 20..61, 63..64] {
            assert_eq!(
                of(range.clone()),
                all[range.start * 64..range.end * 64],
                "{name}: rows {range:?} (got, expected)"
            );
        }
    }
}

/// A matrix of Q8_0 is loaded as codes without loss, and codes of other formats are quantised from its values.
#[test]
fn codes_equal_the_values() {
    let (_, weights) = checkpoint("qwen2-0");
    let (tensor, shape) = ("language_model.model.layers.1.mlp.up_proj.weight", [96, 64]);
    let values = pollster::block_on(weights.values(&Rows::all(tensor, &shape))).unwrap();
    let format = weights.format(tensor).unwrap();
    assert_eq!(format, Format::Q8);
    let slices = [Rows::all(tensor, &shape)];
    let load = pollster::block_on(weights.load_codes(&slices, 64, format, &Device::flex())).unwrap();
    let [words, scales] = load.map(|t| t.into_data().iter::<i32>().map(i32::cast_unsigned).collect::<Vec<u32>>());
    let codes: Vec<f32> =
        fovea_shaders::dequantise(&words, &scales, 64, format).into_iter().map(|v| v as f32).collect();
    assert_eq!(codes, values, "(got, expected)");
}

/// A type that cannot be read is an error only where the tensor is needed; a scale that is not finite has its place.
#[test]
fn wrong_tensors_are_found() {
    let (mut checkpoint, _) = checkpoint("qwen2-0");
    let name = "language_model.model.layers.0.self_attn.o_proj.weight";
    let open = |checkpoint: &GgufCheckpoint| {
        let source = Source::directory(fixture("gguf/qwen2-0")).unwrap();
        Weights::gguf(source, checkpoint.files.clone(), checkpoint.tensors.clone())
    };
    checkpoint.tensors.get_mut(name).unwrap().info.block = Err("Q2_K".to_owned());
    let said = open(&checkpoint).unwrap().check(name, &[64, 64]).err().unwrap().to_string();
    assert!(said.contains("got dtype Q2_K"), "{said}");
    checkpoint.tensors.get_mut(name).unwrap().info.block = Ok(Block::Q4_K);
    let said = open(&checkpoint).err().unwrap().to_string();
    assert!(said.contains("expected rows of whole blocks of 256 values, got [64, 64]"), "{said}");
    let mut row = vec![0; 2 * 34];
    row[34..36].copy_from_slice(&f16::INFINITY.to_le_bytes());
    assert_eq!(Block::Q8_0.non_finite(&row), Some((32, f32::INFINITY)));
    assert_eq!(Block::Q8_0.non_finite(&row[..34]), None);
}

/// The same weights, tokenizer and template give the same stages, with the samplers off in both: a GGUF file has none.
#[test]
fn a_model_computes_the_stages_of_the_fixture() {
    let open = device::cpu();
    let source = Source::directory(fixture("gguf/vicuna-0")).unwrap();
    let mut files = Files::fixture("vicuna-0");
    files.put("chat_template.jinja", checkpoint("vicuna-0").0.template);
    let off = compressed("none", 4);
    let [got, expected] = [source, files.source()].map(|source| {
        let model = load(source, open).unwrap();
        let mut conversation = Conversation::about(&model, vec![picture("120x45-1.png")]).unwrap();
        pollster::block_on(trace(&mut conversation, "How many?", &off)).unwrap()
    });
    assert_eq!(got.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "stages (got, expected)");
    for (stage, expected) in &expected {
        assert_eq!(&got[stage], expected, "{stage} (got, expected)");
    }
}

/// A quantised model with the template of the file: the ids of the fixture's prompt, and its answer in codes.
#[test]
fn a_quantised_model_answers() {
    let source = |name: &str| Source::directory(fixture(name)).unwrap();
    let blueprint = |source: Source| pollster::block_on(Blueprint::open(&source)).unwrap();
    let [got, expected] = ["gguf/qwen2-0", "qwen2-0"].map(|name| {
        let prompter = blueprint(source(name)).prompter;
        let prompt = prompter.encode("What is <|im_end|> here?", &[Grid::default()]).unwrap();
        (prompt, prompter.stop_ids().to_vec(), prompter.allowed().to_vec())
    });
    assert_eq!(got, expected);
    let checkpoint = open(source("gguf/qwen2-0")).unwrap();
    let device = device::cpu();
    let cancel = Cancel::default();
    let loading = Model::load(checkpoint, device.clone(), Precision::Auto, &cancel, |_| {});
    let model = pollster::block_on(loading).unwrap();
    assert_eq!(model.dtype_name(), "q8");
    let mut conversation = Conversation::about(&model, vec![picture("120x45-1.png")]).unwrap();
    let turn = ask(&mut conversation, "How many?", &options(3)).unwrap();
    assert!(!turn.answer_ids.is_empty());
}
