//! Checkpoint files, read like Hugging Face (transformers 5.24): which of two files is used, defaults of missing keys,
//! and errors for unsupported formats. Answers with a repetition penalty equal those of its `generate`.

use std::{borrow::Cow, collections::BTreeMap, fs};

use burn::tensor::{DType, Device, Int, Tensor};
use fovea_model::{AskOptions, Checkpoint, Conversation, Error, Grid, Pick};
use fovea_runtime::{
    hub_cache,
    network_ops::Format,
    source::Source,
    weights::{Modules, Quantisation, Rows, Weights},
};
use fovea_shaders::dequantise;
use fovea_tests::{
    checkpoint::{Files, Stored, WEIGHTS},
    device::cpu,
    golden::fixtures,
    run::{ask, compressed, fixture, load, options, picture},
};
use half::f16;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

const HEAD: &str = "language_model.lm_head.weight";
const EMBEDDING: &str = "language_model.model.embed_tokens.weight";
const SHIRT: &str = "What number is on the shirt?";

/// Stores a template in one of its possible places.
type Put = fn(&mut Files, &str);

fn open(files: &Files) -> Result<Checkpoint, Error> {
    pollster::block_on(Checkpoint::open(files.source()))
}

/// Edits the fixture `tiny-0`, and opens it, which must succeed.
fn edited(edit: impl FnOnce(&mut Files)) -> Checkpoint {
    let mut files = Files::fixture("tiny-0");
    edit(&mut files);
    open(&files).unwrap_or_else(|why| panic!("expected a checkpoint, got: {why}"))
}

fn refused(edit: impl FnOnce(&mut Files)) -> String {
    let mut files = Files::fixture("tiny-0");
    edit(&mut files);
    open(&files).err().map(|why| why.to_string()).expect("a refusal")
}

/// The first eight tokens of an answer, samplers off.
fn answer(files: &Files) -> Vec<u32> {
    let model = load(files.source(), cpu()).expect("a model");
    let off = compressed("none", 8);
    ask(&mut Conversation::new(&model, picture("48x48-0.png")), SHIRT, &off).expect("an answer").answer_ids
}

#[test]
fn the_nested_image_processor_has_priority_over_the_older_file() {
    let processor = |files: &mut Files| {
        let older = json!({"image_mean": [0.1, 0.2, 0.3], "image_std": [1.0, 1.0, 1.0], "size": {"shortest_edge": 48}, "crop_size": 48});
        files.put("preprocessor_config.json", older.to_string());
    };
    let mut nested = Files::fixture("tiny-0");
    let has =
        nested.0.get("processor_config.json").is_some_and(|text| text.windows(17).any(|w| w == b"\"image_processor\""));
    assert!(has, "expected a fixture with a nested image processor");
    let own = open(&nested).expect("a checkpoint").tiles.mean;
    processor(&mut nested);
    assert_eq!(open(&nested).expect("a checkpoint").tiles.mean, own, "mean (got, expected)");
    // Without the nested one, the older file is used.
    nested.json("processor_config.json", |settings| {
        settings.as_object_mut().expect("an object").remove("image_processor");
    });
    assert_eq!(open(&nested).expect("a checkpoint").tiles.mean, [0.1, 0.2, 0.3], "mean (got, expected)");
    nested.json("processor_config.json", |settings| settings["image_processor"] = Value::Null);
    assert_eq!(open(&nested).expect("a checkpoint").tiles.mean, [0.1, 0.2, 0.3], "mean (got, expected)");
}

#[test]
fn a_head_in_the_file_has_priority_over_the_config() {
    let plain = answer(&Files::fixture("tiny-0"));
    for (top, text) in [(true, false), (false, true), (true, true)] {
        let mut files = Files::fixture("tiny-0");
        files.config("/tie_word_embeddings", json!(top));
        files.config("/text_config/tie_word_embeddings", json!(text));
        assert_eq!(answer(&files), plain, "tied {top}, {text}: answer (got, expected)");
    }
}

/// Hugging Face reads fewer layers than the file has, and warns of each tensor that it does not use. A layer of the
/// text model of `tiny-0` has 9 tensors, one of its tower 16.
#[test]
fn layers_that_are_not_used_give_a_note() {
    let notes = |edit: fn(&mut Files)| edited(edit).notes;
    assert_eq!(notes(|_| ()), Vec::<String>::new());
    let end = ": answers are wrong if the model needs what is not used";
    let expected = format!(
        "18 tensors are not used, such as `language_model.model.layers.4.input_layernorm.weight`; the weights have 6 \
         layers of the text model, text_config.num_hidden_layers of config.json says 4{end}"
    );
    assert_eq!(notes(|f| f.config("/text_config/num_hidden_layers", json!(4))), [expected]);
    let expected = format!(
        "16 tensors are not used, such as `vision_tower.vision_model.encoder.layers.2.layer_norm1.bias`; the weights \
         have 3 layers of the vision tower, vision_config.num_hidden_layers of config.json says 2{end}"
    );
    assert_eq!(notes(|f| f.config("/vision_config/num_hidden_layers", json!(2))), [expected]);
    let bias = "language_model.model.layers.0.self_attn.q_proj.bias";
    let other = edited(|f| {
        let mut tensors = f.tensors();
        tensors.push(Stored { name: bias.to_owned(), dtype: Dtype::F32, shape: vec![64], bytes: vec![0; 256] });
        f.set_tensors(&tensors, 1);
    });
    assert_eq!(other.notes, [format!("the tensor `{bias}` is not used{end}")]);
}

#[test]
fn a_missing_head_is_the_embedding_and_vice_versa() {
    // Head and embedding are equal: stored twice, and under each name alone.
    let mut twice = Files::fixture("tiny-0");
    let mut tensors = twice.tensors();
    let embedding = tensors.iter().find(|t| t.name == EMBEDDING).expect("an embedding").clone();
    for tensor in tensors.iter_mut().filter(|t| t.name == HEAD) {
        tensor.bytes.clone_from(&embedding.bytes);
    }
    twice.set_tensors(&tensors, 1);
    let expected = answer(&twice);
    twice.config("/tie_word_embeddings", json!(true));
    for missing in [HEAD, EMBEDDING] {
        let kept: Vec<_> = tensors.iter().filter(|t| t.name != missing).cloned().collect();
        let mut once = Files(twice.0.clone());
        once.set_tensors(&kept, 1);
        assert_eq!(answer(&once), expected, "without {missing}: answer (got, expected)");
        // config.json does not say that they are tied.
        once.config("/tie_word_embeddings", json!(false));
        once.config("/text_config/tie_word_embeddings", json!(false));
        assert!(open(&once).is_err(), "without {missing}, untied: expected a refusal");
    }
}

#[test]
fn a_single_file_has_priority_over_an_index() {
    let index = |files: &mut Files, text: &str| files.put("model.safetensors.index.json", text);
    let absent = json!({"weight_map": {EMBEDDING: "model-00001-of-00002.safetensors"}}).to_string();
    for text in [absent.as_str(), "{", ""] {
        let checkpoint = edited(|files| index(files, text));
        assert_eq!(checkpoint.weights.files(), ["model.safetensors"], "{text}: files (got, expected)");
    }
}

#[test]
fn nan_and_infinity_in_unused_keys_are_accepted() {
    let with = |file: &'static str, key: &'static str| {
        move |files: &mut Files| {
            let text = String::from_utf8(files.bytes(file).clone()).expect("a text");
            files.put(file, text.replacen('{', &format!("{{{key},"), 1));
        }
    };
    for (file, key) in [
        ("config.json", r#""initializer_range": NaN"#),
        ("config.json", r#""limits": [0.0, Infinity, -Infinity, 1e999]"#),
        ("generation_config.json", r#""length_penalty": -Infinity"#),
        ("processor_config.json", r#""scale": NaN"#),
        ("tokenizer_config.json", r#""model_max_length": Infinity"#),
    ] {
        edited(with(file, key));
    }
    let mut index = Files::fixture("tiny-0");
    let tensors = index.tensors();
    index.set_tensors(&tensors, 2);
    with("model.safetensors.index.json", r#""metadata2": {"total_size": Infinity}"#)(&mut index);
    open(&index).expect("an index with Infinity");
    // In a key that is used, the error names the key.
    let why = refused(|files| {
        let text = String::from_utf8(files.bytes("config.json").clone()).expect("a text");
        files.put("config.json", text.replacen("\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": NaN", 1));
    });
    assert!(why.contains("rms_norm_eps") && why.contains("NaN"), "{why}");
}

#[test]
fn the_template_with_hugging_faces_priority_is_used() {
    let says = |text: &str| format!("<image>{text}{{{{ messages[0]['content'][1]['text'] }}}}");
    let ids = |checkpoint: &Checkpoint| checkpoint.prompter.encode("x", &[Grid::default()]).expect("a prompt").ids;
    let alone = |text: &str| ids(&edited(|f| f.put("chat_template.jinja", says(text))));
    let (one, two) = (alone("one"), alone("two"));
    assert_ne!(one, two, "two templates");
    // In the order of Hugging Face's processors: each has priority over the following ones.
    let places: [(&str, Put); 4] = [
        ("processor_config.json", |f, text| f.json("processor_config.json", |v| v["chat_template"] = json!(text))),
        ("chat_template.json", |f, text| f.put("chat_template.json", json!({"chat_template": text}).to_string())),
        ("chat_template.jinja", |f, text| f.put("chat_template.jinja", text)),
        ("tokenizer_config.json", |f, text| f.json("tokenizer_config.json", |v| v["chat_template"] = json!(text))),
    ];
    for first in 0..places.len() {
        for second in first + 1..places.len() {
            let checkpoint = edited(|f| {
                f.remove("chat_template.jinja");
                places[first].1(f, &says("one"));
                places[second].1(f, &says("two"));
            });
            let (a, b) = (places[first].0, places[second].0);
            assert_eq!(ids(&checkpoint), one, "{a} beside {b}: ids (got, expected)");
        }
    }
    // Several named templates, in a folder or a list: `default` is used.
    let folder = edited(|f| {
        f.remove("chat_template.jinja");
        f.put("additional_chat_templates/default.jinja", says("one"));
        f.put("additional_chat_templates/rag.jinja", says("two"));
    });
    assert_eq!(ids(&folder), one, "a folder of templates: ids (got, expected)");
    let list = json!([{"name": "rag", "template": says("two")}, {"name": "default", "template": says("one")}]);
    let listed = edited(|f| {
        f.remove("chat_template.jinja");
        f.json("tokenizer_config.json", |v| v["chat_template"] = list);
    });
    assert_eq!(ids(&listed), one, "a list of templates: ids (got, expected)");
    let why = refused(|f| {
        f.remove("chat_template.jinja");
        f.put("additional_chat_templates/rag.jinja", says("two"));
    });
    assert!(why.contains("default") && why.contains("rag.jinja"), "{why}");
}

#[test]
fn a_template_can_name_every_token_of_the_tokenizer() {
    let template =
        "<image>{{ extra_one }}{{ my_token }}{{ bos_token is defined }}{{ messages[0]['content'][1]['text'] }}";
    let ids = |edit: &dyn Fn(&mut Value)| {
        let checkpoint = edited(|f| {
            f.put("chat_template.jinja", template);
            f.json("tokenizer_config.json", edit);
        });
        checkpoint.prompter.encode("x", &[Grid::default()]).expect("a prompt").ids
    };
    let direct = |text: &str| {
        let checkpoint = edited(|f| f.put("chat_template.jinja", format!("<image>{text}x")));
        checkpoint.prompter.encode("x", &[Grid::default()]).expect("a prompt").ids
    };
    let named = ids(&|settings| {
        settings["extra_special_tokens"] = json!({"extra_one": "one", "my_token": {"content": "two"}});
    });
    assert_eq!(named, direct("onetwoTrue"), "ids (got, expected)");
    let nothing = ids(&|settings| settings["bos_token"] = Value::Null);
    assert_eq!(nothing, direct("False"), "ids without a BOS (got, expected)");
}

#[test]
fn quantised_checkpoints_are_refused_by_name() {
    let with = |settings: Value| refused(|f| f.json("config.json", |c| c["quantization_config"] = settings));
    let nf4 = json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4"});
    for (settings, name) in [
        (nf4, "bitsandbytes (nf4)"),
        (json!({"quant_method": "awq", "bits": 4}), "awq (4 bits)"),
        (json!({"quant_method": "gptq", "bits": 4}), "gptq (4 bits)"),
    ] {
        let why = with(settings);
        assert!(why.contains(&format!("quantised with {name}: not supported; supported are")), "{why}");
    }
    // Without a key in config.json, the names of the tensors show it.
    let query = "language_model.model.layers.0.self_attn.q_proj.weight";
    for (tensor, name) in [
        (format!("{query}.absmax"), "bitsandbytes"),
        (query.replace(".weight", ".qweight"), "gptq or awq"),
        (query.replace(".weight", ".SCB"), "bitsandbytes (int8)"),
    ] {
        let why = refused(|f| {
            let mut tensors = f.tensors();
            for found in tensors.iter_mut().filter(|t| t.name == query) {
                found.name.clone_from(&tensor);
            }
            f.set_tensors(&tensors, 1);
        });
        assert!(why.contains("quantised with") && why.contains(name), "{tensor}: {why}");
    }
    let why = refused(|f| f.put("quantize_config.json", json!({"bits": 4, "group_size": 128}).to_string()));
    assert!(why.contains("gptq (4 bits)"), "{why}");
}

#[test]
fn other_formats_are_named() {
    for (file, words) in [
        ("pytorch_model.bin", "PyTorch's pickle format"),
        ("model.onnx", "ONNX"),
        ("model-00001-of-00002.safetensors", "without an index"),
    ] {
        let why = refused(|f| {
            f.remove("model.safetensors");
            f.put(file, "x");
        });
        assert!(why.contains(words) && why.contains("model.safetensors"), "{file}: {why}");
    }
}

#[test]
fn where_no_file_names_a_stop_id_the_tokenizers_ends_the_answer_and_a_note_says_so() {
    let plain = edited(|_| {});
    assert_eq!(plain.prompter.generation().notes.len(), 0, "notes (got, expected)");
    let without = edited(|f| {
        f.json("generation_config.json", |v| v["eos_token_id"] = Value::Null);
        for pointer in ["/eos_token_id", "/text_config/eos_token_id"] {
            f.config(pointer, Value::Null);
        }
    });
    let generation = without.prompter.generation();
    assert_eq!(generation.stop_ids.len(), 1, "stop ids (got, expected)");
    assert!(generation.notes.iter().any(|n| n.contains("eos_token")), "{:?}", generation.notes);
}

/// From transformers' `generate(do_sample=False, max_new_tokens=8, repetition_penalty=...)` on the CPU in f32.
#[test]
fn a_repetition_penalty_gives_hugging_faces_answers() {
    let rows: [(&str, f64, [u32; 8]); 8] = [
        ("bos-1", 1.0, [481, 164, 481, 458, 449, 352, 301, 105]),
        ("bos-1", 1.3, [481, 164, 293, 434, 325, 278, 74, 186]),
        ("bos-1", 0.5, [481, 264, 481, 264, 481, 81, 481, 264]),
        ("published-mistral-0", 1.3, [362, 172, 192, 374, 206, 133, 176, 490]),
        ("published-mistral-0", 0.5, [272, 325, 172, 272, 172, 272, 172, 172]),
        ("published-vicuna-0", 2.0, [221, 369, 149, 418, 125, 553, 438, 476]),
        ("published-vicuna-0", 0.5, [318, 304, 306, 318, 335, 259, 259, 306]),
        ("published-stock-0", 0.5, [318, 318, 318, 318, 156, 283, 156, 304]),
    ];
    let off = compressed("none", 8);
    for (name, penalty, expected) in rows {
        let mut files = Files::fixture(name);
        files.json("generation_config.json", |v| v["repetition_penalty"] = json!(penalty));
        let model = load(files.source(), cpu()).expect("a model");
        let said = model.notes().iter().any(|note| note.contains("repetition_penalty"));
        assert_eq!(said, penalty != 1.0, "{name}, {penalty}: a note (got, expected)");
        let got =
            ask(&mut Conversation::new(&model, picture("200x200-0.png")), SHIRT, &off).expect("an answer").answer_ids;
        assert_eq!(got, expected, "{name}, {penalty}: answer (got, expected)");
        // The caller's value has priority.
        let own = AskOptions { pick: Pick { repetition_penalty: Some(penalty), ..Pick::default() }, ..off.clone() };
        let model = fixture(name, cpu());
        let got =
            ask(&mut Conversation::new(&model, picture("200x200-0.png")), SHIRT, &own).expect("an answer").answer_ids;
        assert_eq!(got, expected, "{name}, {penalty} by the caller: answer (got, expected)");
    }
}

#[test]
fn a_stock_checkpoint_runs_without_samplers_by_default() {
    let model = fixture("stock-0", cpu());
    let image = picture("200x200-0.png");
    assert!(model.stock_note(&image).is_some_and(|note| note.contains("336 visual tokens")));
    let count = |options: &AskOptions| {
        let turn = ask(&mut Conversation::new(&model, image.clone()), SHIRT, options).expect("an answer");
        turn.statistics.tokens.kept
    };
    assert_eq!(count(&options(1)), 336, "tokens by default (got, expected)");
    assert!(count(&compressed("text", 1)) < 336, "expected fewer tokens with the sampler on");
    // In a checkpoint trained with the samplers, they are on by default.
    let trained = fixture("tiny-0", cpu());
    assert!(trained.stock_note(&image).is_none());
    let turn = ask(&mut Conversation::new(&trained, image.clone()), SHIRT, &options(1)).expect("an answer");
    assert!(turn.statistics.tokens.kept < turn.statistics.tokens.all);
}

#[cfg(unix)]
#[test]
fn a_repository_in_the_hubs_cache_is_found_by_its_folder() {
    let cache = tempfile::tempdir().expect("a folder");
    let repository = cache.path().join("models--org--tiny");
    let (blobs, snapshots) = (repository.join("blobs"), repository.join("snapshots"));
    let main = snapshots.join("abc123");
    fs::create_dir_all(&blobs).expect("folders");
    fs::create_dir_all(main.join("additional_chat_templates")).expect("folders");
    fs::create_dir_all(snapshots.join("def456")).expect("folders");
    fs::create_dir_all(repository.join("refs")).expect("folders");
    fs::write(repository.join("refs/main"), "abc123\n").expect("a ref");
    let mut files = Files::fixture("tiny-0");
    let template = files.bytes("chat_template.jinja").clone();
    files.remove("chat_template.jinja");
    files.put("additional_chat_templates/default.jinja", template);
    for (i, (name, bytes)) in files.0.iter().enumerate() {
        fs::write(blobs.join(i.to_string()), bytes).expect("a blob");
        let up = if name.contains('/') { "../../../blobs" } else { "../../blobs" };
        std::os::unix::fs::symlink(format!("{up}/{i}"), main.join(name)).expect("a link");
    }
    for given in [&repository, &snapshots, &main] {
        assert_eq!(hub_cache::locate(given).expect("a folder"), main, "{}: folder (got, expected)", given.display());
        let source = Source::open(given).expect("a source");
        pollster::block_on(Checkpoint::open(source)).unwrap_or_else(|why| panic!("{}: {why}", given.display()));
    }
    let why = hub_cache::locate(cache.path()).expect_err("a refusal").to_string();
    assert!(why.contains("org/tiny"), "{why}");
    // An incomplete download: the link exists, its target does not.
    fs::remove_file(blobs.join("0")).expect("a blob to remove");
    let source = Source::open(&main).expect("a source");
    let first = files.0.keys().next().expect("a file");
    let why = source.file(first).err().expect("a refusal").to_string();
    assert!(why.contains("download it again"), "{why}");
}

/// A file of `fixtures/quantised` as weights.
fn quantised(file: &str, settings: &Quantisation) -> Weights {
    let bytes = fs::read(fixtures().join("quantised").join(file)).expect("a fixture");
    let source = Source::memory("quantised tensors", [(WEIGHTS.to_owned(), Cow::Owned(bytes))]);
    let weights = pollster::block_on(Weights::open(source)).expect("a weights file");
    pollster::block_on(weights.with_quantisation(settings)).expect("quantised tensors")
}

#[test]
fn quantised_tensors_equal_what_their_own_libraries_read() {
    let bytes = fs::read(fixtures().join("quantised/values.safetensors")).expect("a fixture");
    let expected = SafeTensors::deserialize(&bytes).expect("values");
    let format = |bits, minimum, group| Format { bits, minimum, group };
    let own = [
        ("brain".to_owned(), Some(format(8, true, 32))),
        ("full".to_owned(), Some(format(4, true, 128))),
        ("symmetric".to_owned(), Some(format(4, true, 32))),
    ];
    let modules = Modules { all: format(4, true, 64), own: own.into() };
    let mlx = quantised("mlx.safetensors", &Quantisation::Affine(modules));
    let packed = quantised("packed.safetensors", &Quantisation::Packed);
    let formats = BTreeMap::from([
        ("mlx.half", Some(format(4, true, 64))),
        ("mlx.brain", Some(format(8, true, 32))),
        ("mlx.full", Some(format(4, true, 128))),
        ("mlx.symmetric", Some(Format::Q4)),
        ("mlx.convolution", None),
        ("packed.four", Some(format(4, false, 128))),
        ("packed.eight", Some(Format::Q8)),
        ("packed.channels", Some(format(4, false, 64))),
        ("packed.zeros", Some(format(4, true, 64))),
    ]);
    assert_eq!(expected.len(), formats.len(), "tensors (got, expected)");
    let device = Device::flex();
    for (name, format) in formats {
        let (weights, module) = match name.split_once('.') {
            Some(("mlx", module)) => (&mlx, module),
            Some((_, module)) => (&packed, module),
            None => panic!("{name}: expected a file and a module"),
        };
        let tensor = format!("{module}.weight");
        let view = expected.tensor(name).expect("values");
        let shape = view.shape();
        let values: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        // Equal bits, but for the sign of zero: a symmetric group with a scale below 0 has -0.
        weights.check(&tensor, shape).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(weights.format(&tensor), format, "{name}: format (got, expected)");
        assert_eq!(pollster::block_on(weights.first_non_finite(&tensor)).expect("a read"), None, "{name}");
        let got = pollster::block_on(weights.values(&Rows::all(&tensor, shape))).expect("values");
        assert_eq!(got, values, "{name}: values (got, expected)");
        // Rows in another order, as one tensor, and as codes.
        let width: usize = shape[1..].iter().product();
        let rows = [1..shape[0], 0..1].map(|rows| Rows { tensor: &tensor, shape, rows });
        let loaded = weights.load(&rows, [shape[0], width], DType::F32, &device);
        let loaded: Tensor<2> = pollster::block_on(loaded).expect("a tensor");
        let turned = [&values[width..], &values[..width]].concat();
        let loaded: Vec<f32> = loaded.into_data().try_into_vec().expect("f32");
        assert_eq!(loaded, turned, "{name}: rows (got, expected)");
        // Only floats are copied as they are.
        let mut bytes = 0;
        let copied = pollster::block_on(weights.raw(&tensor, |piece| {
            bytes += piece.len();
            Ok(())
        }));
        let whole = (copied.is_ok(), bytes) == (true, view.data().len());
        assert_eq!(whole, format.is_none(), "{name}: copied as floats (got, expected)");
        let Some(format) = format else { continue };
        let codes = |format| {
            let codes = pollster::block_on(weights.load_codes(&rows, width, format, &device)).expect("codes");
            let [words, scales] = codes.map(|x: Tensor<2, Int>| {
                let words: Vec<i32> = x.into_data().try_into_vec().expect("i32");
                words.into_iter().map(i32::cast_unsigned).collect::<Vec<u32>>()
            });
            dequantise(&words, &scales, width, format).into_iter().map(|value| value as f32).collect::<Vec<f32>>()
        };
        assert_eq!(codes(format), turned, "{name}: codes (got, expected)");
        // In another format they are quantised again.
        let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|value| value * value).sum::<f32>();
        let error = squares(&mut codes(Format::Q8).iter().zip(&turned).map(|(x, y)| x - y))
            / squares(&mut turned.iter().copied());
        assert!(error < 1e-4, "{name}: expected an NMSE in q8 below 1e-4, got {error}");
    }
}

/// A matrix of floats as MLX's codes of 8 bits in groups of 32, and the same matrix dequantised.
fn mlx_codes(matrix: &Stored) -> ([Stored; 3], Stored) {
    let (mut codes, mut scales, mut biases, mut values) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for group in matrix.floats().chunks_exact(32) {
        let [least, most] = [f32::min, f32::max].map(|of| group.iter().copied().reduce(of).expect("values"));
        let [scale, bias] = [(most - least) / 255.0, least].map(|x| f16::from_f32(x).to_f32());
        for value in group {
            codes.push(((value - bias) / scale).round().clamp(0.0, 255.0) as u8);
            values.push(scale.mul_add(f32::from(codes[codes.len() - 1]), bias));
        }
        scales.push(scale);
        biases.push(bias);
    }
    let module = matrix.name.strip_suffix(".weight").expect("the weight of a module");
    let part = |kind: &str, width: usize, dtype, bytes| Stored {
        name: format!("{module}.{kind}"),
        dtype,
        shape: vec![matrix.shape[0], width],
        bytes,
    };
    let width = matrix.shape[1];
    let [scales, biases] = [("scales", scales), ("biases", biases)].map(|(kind, values)| {
        let mut stored = part(kind, width / 32, Dtype::F16, Vec::new());
        stored.store(&values, Dtype::F16);
        stored
    });
    let mut exact = matrix.clone();
    exact.store(&values, Dtype::F32);
    ([part("weight", width / 4, Dtype::U32, codes), scales, biases], exact)
}

#[test]
fn a_checkpoint_of_mlx_answers_as_its_dequantised_copy() {
    let mut plain = Files::fixture("tiny-0");
    let (mut quantised, mut exact) = (Vec::new(), Vec::new());
    for mut tensor in plain.tensors() {
        let matrix = tensor.shape.len() == 2 && tensor.shape[1].is_multiple_of(32);
        if matrix && (tensor.name.starts_with("language_model") || tensor.name.contains("fc2.weight")) {
            let (codes, values) = mlx_codes(&tensor);
            quantised.extend(codes);
            exact.push(values);
            continue;
        }
        exact.push(tensor.clone());
        if let &[out, channels, rows, columns] = tensor.shape.as_slice() {
            let (values, pixels) = (tensor.floats(), rows * columns);
            let last = (0..values.len()).map(|at| {
                let (row, pixel, channel) = (at / channels / pixels, at / channels % pixels, at % channels);
                values[(row * channels + channel) * pixels + pixel]
            });
            tensor.store(&last.collect::<Vec<f32>>(), Dtype::F32);
            tensor.shape = vec![out, rows, columns, channels];
        }
        quantised.push(tensor);
    }
    assert!(
        quantised.len() > exact.len() + 40,
        "expected quantised tensors, got {} of {}",
        quantised.len(),
        exact.len()
    );
    plain.set_tensors(&exact, 1);
    let mut mlx = Files::fixture("tiny-0");
    mlx.set_tensors(&quantised, 1);
    mlx.config("/quantization", json!({"group_size": 32, "bits": 8}));
    assert_eq!(answer(&mlx), answer(&plain), "answer (got, expected)");
}

#[test]
fn the_names_of_mlx_vlm_give_the_same_answer() {
    let plain = Files::fixture("smolvlm-0");
    let mut mlx = plain.clone();
    let mut tensors = plain.tensors();
    for tensor in &mut tensors {
        let name = tensor.name.replacen("lm_head.", "language_model.lm_head.", 1);
        tensor.name = name.replacen("model.text_model.", "language_model.", 1);
        for part in ["vision_model.", "connector."] {
            tensor.name = tensor.name.replacen(&format!("model.{part}"), part, 1);
        }
    }
    mlx.set_tensors(&tensors, 1);
    let names = open(&mlx).expect("a checkpoint").names;
    assert_eq!(names.embedding(), "language_model.embed_tokens.weight", "name (got, expected)");
    assert_eq!(answer(&mlx), answer(&plain), "answer (got, expected)");
}
