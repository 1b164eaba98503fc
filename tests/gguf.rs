//! GGUF files, which `tests/reference/make_gguf.py` wrote with the Python package gguf: block types against the values
//! that this package computes, and checkpoints against the fixtures in Hugging Face's layout from which they were made.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use burn::tensor::Device;
use fovea_model::{
    Blueprint, Cancel, Checkpoint, Conversation, Grid, Model, Precision, gguf::GgufCheckpoint, trace::trace,
};
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

/// The bytes of a text in a header: its length, then its letters.
fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// Replaces what follows a text in a header.
fn put(bytes: &mut [u8], after: &str, skipped: usize, value: &[u8]) {
    let after = text(after);
    let at = bytes.windows(after.len()).position(|found| found == after).expect("the text in the header");
    bytes[at + after.len() + skipped..][..value.len()].copy_from_slice(value);
}

/// Sets a key of 32 bits: its value is behind its type.
fn set(bytes: &mut [u8], key: &str, value: [u8; 4]) {
    put(bytes, key, 4, &value);
}

/// Renames a tensor or a key; both names have the same length.
fn rename(bytes: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(8 + from.len()).position(|found| found == text(from)).expect("the name in the header");
    bytes[at + 8..][..to.len()].copy_from_slice(to.as_bytes());
}

/// Opens and verifies a fixture of which one file is edited.
fn edited(name: &str, file: &str, edit: impl FnOnce(&mut Vec<u8>)) -> Result<Checkpoint, String> {
    let mut files = Files::fixture(&format!("gguf/{name}"));
    edit(files.bytes(file));
    let checkpoint = open(files.source()).map_err(|why| why.to_string())?;
    let verified = pollster::block_on(checkpoint.verify(&Cancel::default(), |_, _| ()));
    verified.map_err(|why| why.to_string()).map(|()| checkpoint)
}

type Broken = (&'static str, fn(&mut Vec<u8>), &'static str);

/// An error names the file, the key or the tensor that the user has, and not those of Hugging Face's layout.
/// Where the values of a file start.
fn header(file: &str, source: &Source) -> usize {
    let gguf = pollster::block_on(Gguf::open(source, file)).unwrap();
    gguf.tensors.iter().map(|info| info.offset).min().unwrap() as usize
}

#[test]
fn damaged_files_never_panic() {
    let bytes = std::fs::read(fixture("gguf/blocks.gguf")).unwrap();
    for at in 0..header("blocks.gguf", &Source::directory(fixture("gguf")).unwrap()) {
        for byte in [0, 1, 0xff, bytes[at] ^ 1, bytes[at] ^ 0x80] {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            let read = || {
                let source = Source::memory("damaged", [("blocks.gguf".to_owned(), Cow::Owned(bytes))]);
                let gguf = pollster::block_on(Gguf::open(&source, "blocks.gguf")).ok()?;
                gguf.tensors.iter().for_each(|info| _ = pollster::block_on(info.values(&source, &gguf.file)));
                Some(())
            };
            assert!(catch_unwind(AssertUnwindSafe(read)).is_ok(), "byte {at} as {byte}: got a panic");
        }
    }
    for file in ["text.gguf", "mmproj.gguf"] {
        // Every 17th byte: neighbours are of the same number or text.
        for at in (0..header(file, &Source::directory(fixture("gguf/qwen2-0")).unwrap())).step_by(17) {
            for flip in [1, 0x80] {
                let open = || edited("qwen2-0", file, |bytes| bytes[at] ^= flip).map(|_| ());
                let got = catch_unwind(AssertUnwindSafe(open));
                assert!(got.is_ok(), "{file}: byte {at} with {flip} flipped: got a panic");
            }
        }
    }
}

#[test]
fn errors_have_the_terms_of_the_files() {
    let rows: &[Broken] = &[
        (
            "text.gguf",
            |f| set(f, "llama.context_length", [0; 4]),
            "text.gguf: llama.context_length: expected a whole number from 1 to 1073741824, got 0",
        ),
        (
            "text.gguf",
            |f| set(f, "llama.attention.layer_norm_rms_epsilon", [0; 4]),
            "text.gguf: llama.attention.layer_norm_rms_epsilon: expected a number from ",
        ),
        (
            "text.gguf",
            |f| set(f, "llama.block_count", 1_000_000_000u32.to_le_bytes()),
            "text.gguf: llama.block_count: expected a whole number from 1 to 1024, got 1000000000",
        ),
        (
            "mmproj.gguf",
            |f| set(f, "clip.vision.attention.head_count", [5, 0, 0, 0]),
            "mmproj.gguf: clip.vision.attention.head_count: expected a divisor of clip.vision.embedding_length 48, \
             got 5",
        ),
        (
            "mmproj.gguf",
            |f| set(f, "clip.vision.patch_size", [7, 0, 0, 0]),
            "mmproj.gguf: clip.vision.patch_size: expected a divisor of clip.vision.image_size 48, got 7",
        ),
        (
            "mmproj.gguf",
            // A list: its type, that of its values, their number.
            |f| put(f, "clip.vision.image_std", 16, &[0; 4]),
            "mmproj.gguf: clip.vision.image_std: expected numbers above 0, got 0",
        ),
        (
            "text.gguf",
            |f| set(f, "llama.block_count", [9, 0, 0, 0]),
            "tensor `blk.5.attn_norm.weight` in text.gguf: expected a tensor of floats, or of codes, of shape [64], \
             got none of this name; take both GGUF files from one repository",
        ),
        (
            "text.gguf",
            |f| set(f, "llama.feed_forward_length", [95, 0, 0, 0]),
            "tensor `blk.0.ffn_gate.weight` in text.gguf: expected a tensor of floats, or of codes, of shape [95, 64]",
        ),
        (
            "text.gguf",
            |f| rename(f, "output_norm.weight", "output_norn.weight"),
            "tensor `output_norm.weight` in text.gguf: ",
        ),
        (
            "mmproj.gguf",
            |f| set(f, "clip.vision.block_count", [9, 0, 0, 0]),
            "tensor `v.blk.2.ln1.weight` in mmproj.gguf: ",
        ),
        ("mmproj.gguf", |f| rename(f, "mm.2.bias", "mm.9.bias"), "tensor `mm.2.bias` in mmproj.gguf: "),
        // The first converter has the names of the two layers the wrong way round.
        (
            "mmproj.gguf",
            |f| rename(f, "v.blk.1.ffn_up.weight", "v.blk.1.ffn_uq.weight"),
            "tensor `v.blk.1.ffn_up.weight` in mmproj.gguf: ",
        ),
    ];
    for (file, edit, expected) in rows {
        let why = edited("vicuna-0", file, edit).err().unwrap_or_else(|| panic!("{expected}: expected an error"));
        assert!(why.starts_with(expected), "expected {expected}, got {why}");
    }
    let why = edited("qwen2-0", "text.gguf", |f| {
        let template = text("tokenizer.chat_template");
        let at = f.windows(template.len()).position(|found| found == template).unwrap();
        // Behind the type and the length of the template.
        f[at + template.len() + 12..][..3].copy_from_slice(b"{{%");
    });
    let why = why.err().unwrap();
    assert!(why.starts_with("text.gguf: tokenizer.chat_template: expected "), "{why}");
}

/// Fewer layers than the file has: Hugging Face warns of the tensors that it does not use.
#[test]
fn layers_that_are_not_used_give_a_note() {
    let all = checkpoint("vicuna-0").0.tensors;
    let after = |prefix: &str| {
        let names = all.values().map(|tensor| tensor.info.name.as_str());
        names.filter(|name| name.starts_with(prefix) && !name.starts_with(&format!("{prefix}0."))).count()
    };
    let end = ": answers are wrong if the model needs what is not used";
    for (file, key, prefix, expected) in [
        (
            "text.gguf",
            "llama.block_count",
            "blk.",
            "`blk.1.attn_norm.weight`; the weights have 5 layers of the text model, llama.block_count of text.gguf \
             says 1",
        ),
        (
            "mmproj.gguf",
            "clip.vision.block_count",
            "v.blk.",
            "`v.blk.1.ln1.bias`; the weights have 2 layers of the vision tower, clip.vision.block_count of mmproj.gguf \
             says 1",
        ),
    ] {
        let notes = edited("vicuna-0", file, |f| set(f, key, [1, 0, 0, 0])).ok().unwrap().notes;
        let expected = format!("{} tensors are not used, such as {expected}{end}", after(prefix));
        assert!(notes.contains(&expected), "expected {expected}, got {notes:?}");
    }
    let notes = edited("vicuna-0", "text.gguf", |_| ()).ok().unwrap().notes;
    assert!(!notes.iter().any(|note| note.contains("not used")), "{notes:?}");
}

/// A value that is not finite is named by the tensor and the block of the file.
#[test]
fn a_bad_value_has_its_place_in_the_file() {
    let edit = |name: &str, tensor: &str, at: usize, value: f16| {
        let source = Source::directory(fixture(&format!("gguf/{name}"))).unwrap();
        let gguf = pollster::block_on(Gguf::open(&source, "text.gguf")).unwrap();
        let at = gguf.tensor(tensor).unwrap().offset as usize + at;
        edited(name, "text.gguf", |f| f[at..at + 2].copy_from_slice(&value.to_le_bytes())).err().unwrap()
    };
    // Rows of 64 values in f16, those of the query permuted.
    for tensor in ["blk.0.ffn_gate.weight", "blk.1.attn_q.weight"] {
        let why = edit("vicuna-0", tensor, 2 * 100, f16::NAN);
        let expected =
            format!("tensor `{tensor}` in text.gguf: expected finite values, got NaN at index 100; download");
        assert!(why.starts_with(&expected), "expected {expected}, got {why}");
    }
    // Row 5 of two blocks of 34 bytes: block 11, values from 5 * 64 + 32.
    let why = edit("qwen2-0", "blk.1.ffn_up.weight", 5 * 68 + 34, f16::INFINITY);
    let expected = "tensor `blk.1.ffn_up.weight` in text.gguf: expected finite scales, got inf at block 11, whose \
                    first value has the index 352; download the file again";
    assert!(why.starts_with(expected), "expected {expected}, got {why}");
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
