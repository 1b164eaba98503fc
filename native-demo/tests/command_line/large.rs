//! A checkpoint of 7 B parameters, with the configuration of `llava-hf/llava-v1.6-mistral-7b-hf`, in sparse files of zeros.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::{Command, Output},
};

use fovea_model::{
    Config, Names, Parameter,
    parts::{Extras, Network},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{fixture, fovea, program};

/// As published, without keys that no one reads; hidden size, layers and heads are left to the class, as there.
fn config() -> Value {
    json!({
        "architectures": ["LlavaNextForConditionalGeneration"],
        "model_type": "llava_next",
        "image_token_index": 32000,
        "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "use_image_newline_parameter": true,
        "torch_dtype": "float16",
        "vocab_size": 32064,
        "tie_word_embeddings": false,
        "text_config": {
            "model_type": "mistral", "intermediate_size": 14336, "max_position_embeddings": 32768, "num_key_value_heads": 8,
            "rms_norm_eps": 1e-5, "rope_theta": 1e6, "sliding_window": null, "torch_dtype": "bfloat16", "vocab_size": 32064
        },
        "vision_config": {
            "model_type": "clip_vision_model", "hidden_size": 1024, "image_size": 336, "intermediate_size": 4096,
            "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768, "vocab_size": 32000
        }
    })
}

/// The checkpoint in four shards of bf16, as sparse files: they need almost no disk space.
fn seven() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let config = config();
    fs::write(at("config.json"), config.to_string()).expect("a file");
    let settings = json!({
        "do_rescale": true, "do_normalize": true, "size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336},
        "image_grid_pinpoints": config["image_grid_pinpoints"]
    });
    fs::write(at("preprocessor_config.json"), settings.to_string()).expect("a file");
    fs::write(at("generation_config.json"), r#"{"bos_token_id": 1, "eos_token_id": 2}"#).expect("a file");
    for file in ["chat_template.json", "tokenizer_config.json", "special_tokens_map.json"] {
        fs::copy(fixture(&format!("published-mistral-0/{file}")), at(file)).expect("a copy");
    }
    // The fixture's tokenizer is a small one: its picture gets the published id.
    let text = fs::read_to_string(fixture("published-mistral-0/tokenizer.json")).expect("a tokenizer");
    let mut tokenizer: Value = serde_json::from_str(&text).expect("JSON");
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().expect("a vocabulary");
    vocabulary.retain(|piece, _| !["<image>", "<pad>"].contains(&piece.as_str()));
    for id in vocabulary.len()..32000 {
        vocabulary.insert(format!("filling {id}"), json!(id));
    }
    vocabulary.insert("<image>".to_owned(), json!(32000));
    vocabulary.insert("<pad>".to_owned(), json!(32001));
    for token in tokenizer["added_tokens"].as_array_mut().expect("a list") {
        match token["content"].as_str() {
            Some("<image>") => token["id"] = json!(32000),
            Some("<pad>") => token["id"] = json!(32001),
            _ => {}
        }
    }
    fs::write(at("tokenizer.json"), tokenizer.to_string()).expect("a file");
    let needed = Network::parameters(&Names::hub(), &Config::from_json(&config).expect("a config"), Extras::default());
    let mut map = serde_json::Map::new();
    for (shard, tensors) in needed.chunks(needed.len().div_ceil(4)).enumerate() {
        let name = format!("model-{:05}-of-00004.safetensors", shard + 1);
        write_zeros(&at(&name), tensors);
        map.extend(tensors.iter().map(|tensor| (tensor.name.clone(), json!(name))));
    }
    fs::write(at("model.safetensors.index.json"), json!({"weight_map": map}).to_string()).expect("a file");
    folder
}

fn write_zeros(file: &Path, tensors: &[Parameter]) {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for Parameter { name, shape, .. } in tensors {
        let start = end;
        end += 2 * shape.iter().map(|&d| d as u64).product::<u64>();
        header.insert(name.clone(), json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}));
    }
    let header = Value::Object(header).to_string();
    let mut file = File::create(file).expect("a file");
    file.write_all(&(header.len() as u64).to_le_bytes()).expect("a write");
    file.write_all(header.as_bytes()).expect("a write");
    file.set_len(8 + header.len() as u64 + end).expect("a sparse file");
}

/// Runs with `kib` KiB of address space.
fn limited(kib: u64, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -v {kib}; exec \"$0\" \"$@\"")]).arg(program().get_program()).args(args);
    let Output { status, stderr, .. } = command.output().expect("a shell");
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

#[cfg(target_os = "linux")]
#[test]
fn seven_billion_parameters_are_planned_and_refused_where_they_do_not_fit() {
    let folder = seven();
    let dir = folder.path().to_str().expect("a path in UTF-8");
    let plan = fovea(&["plan", dir, "--json"]);
    plan.expect_code(0);
    let plan = plan.json();
    let peak = |dtype: &str| plan["dtypes"][dtype]["peak"].as_u64().expect("bytes");
    let weights_of = |dtype: &str| plan["dtypes"][dtype]["weight_bytes"].as_u64().expect("bytes");
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    // 7.57 billion values: 28.2 GiB in f32, half of that in f16, and the memory of one question.
    assert!((29.0..30.5).contains(&gib(peak("f32"))), "f32: expected about 29.5 GiB, got {}", gib(peak("f32")));
    assert!((14.3..15.5).contains(&gib(peak("f16"))), "f16: expected about 15.1 GiB, got {}", gib(peak("f16")));
    // Layers in 8.5 or 4.5 bits per value, embedding and head in 8.5, the vision tower in f16.
    assert!((8.2..9.3).contains(&gib(peak("q8"))), "q8: expected about 8.8 GiB, got {}", gib(peak("q8")));
    assert!((5.0..6.1).contains(&gib(peak("q4"))), "q4: expected about 5.5 GiB, got {}", gib(peak("q4")));
    let smallest = fovea(&["plan", dir, "--tower", "q8", "--json"]).json();
    let least = smallest["dtypes"]["q4"]["cpu_peak"].as_u64().expect("bytes");
    let least = (100.0 * gib(least)).ceil() / 100.0;
    let (picture, question) = (fixture("pictures/200x200-0.png"), "What is it?");
    for weights in ["auto", "f32", "f16", "q8", "q4"] {
        let args = ["ask", &picture, question, "--model", dir, "--device", "cpu", "--weights", weights];
        let (code, stderr) = limited(4 << 20, &args);
        assert_eq!(code, Some(6), "{weights}: exit code (got, expected): {stderr}");
        let name = if weights == "auto" { "f32" } else { weights };
        // The plan is for every device; the CPU computes a layer in steps, which need less than all rows at once.
        let before = format!("the weights in {name} and one question: needs ");
        let size = stderr.split_once(&before).and_then(|(_, rest)| rest.split_once(" GiB"));
        let size: f64 = size.and_then(|(size, _)| size.parse().ok()).expect(&stderr);
        let sizes = gib(weights_of(name))..gib(peak(name)) + 0.01;
        assert!(sizes.contains(&size), "{weights}: expected {sizes:?} GiB, got {stderr}");
        let way = if weights == "q4" { "" } else { " in q4" };
        let smallest = format!("; even{way} with --tower q8 it needs {least:.2} GiB; use a smaller checkpoint, or ");
        assert!(stderr.contains(&smallest), "{weights}: expected {smallest:?}, got {stderr}");
        assert!(stderr.lines().count() == 1 && !stderr.contains("bytes"), "{weights}: one line in GiB, got: {stderr}");
    }
}
