//! `fovea inspect`, `fovea plan` and `fovea doctor`, for people and as JSON.

use std::fs;

use fovea_model::METHODS;
use serde_json::json;

use crate::program::{Broken, Ran, fixture, fovea, program};

fn good(args: &[&str]) -> Ran {
    let ran = fovea(args);
    ran.expect_code(0);
    assert_eq!(ran.stderr(), "", "{args:?}: stderr (got, expected)");
    ran
}

fn expect_words(ran: &Ran, words: &[&str]) {
    for word in words {
        assert!(ran.stdout().contains(word), "expected {word:?}, got: {}", ran.stdout());
    }
}

/// Checks that a report begins with the verdict, contains the words, and fits into a terminal.
fn expect_report(ran: &Ran, verdict: &str, words: &[&str]) {
    assert!(ran.stdout().starts_with(verdict), "expected {verdict:?} first, got: {}", ran.stdout());
    expect_words(ran, words);
    let long = ran.stdout().lines().find(|line| line.chars().count() > 80);
    assert_eq!(long, None, "lines of more than 80 columns (got, expected)");
}

#[test]
fn inspect_shows_what_a_checkpoint_contains() {
    let tiny = fixture("tiny-0");
    let model = [
        "family     LLaVA-NeXT (llava_next)\n",
        "llama, 6 layers, 64 wide",
        "8192 tokens of context, biases: none",
        "600 rows of vocabulary, 600 with a token",
        // The feature layer is the last but one.
        "CLIP, 2 of 3 layers used",
        "features: output of layer 2 of 3",
        "a 672x672 picture: 5 tiles, 336 tokens",
    ];
    let prompt = [
        "template   chat_template.jinja",
        "BOS        <|begin_of_text|> (0), added by the template",
        "stop       <|eot_id|> (4), <|end_of_text|> (1)",
        "picture    <image> (5)",
    ];
    let weights = [
        "vision-guided: on by default, selector present",
        "text-guided: on by default",
        "names as in the Hugging Face hub",
        "model.safetensors",
        "memory     f32   weights 1.3 MiB, GPU peak ",
        " MiB, CPU peak ",
        "q4    weights ",
        "missing    0",
        // 16 tensors of a layer, and 2 of the norm.
        "not used   18 (encoder.layers.2, last norm of the vision tower)",
        "extra      0",
        "not finite 0",
    ];
    expect_report(&good(&["inspect", &tiny]), "runs: yes\n", &[&model[..], &prompt, &weights].concat());

    let json = good(&["inspect", &tiny, "--json"]).json();
    let verdict = (&json["runs"], &json["reason"], &json["next"], &json["notes"]);
    assert_eq!(verdict, (&json!("yes"), &json!(null), &json!(null), &json!([])), "verdict (got, expected)");
    assert_eq!(json["config"]["text"]["n_layers"], 6, "layers (got, expected)");
    assert_eq!(json["scale_selector"], true, "whether there is a selector (got, expected)");
    assert_eq!((&json["missing"], &json["non_finite"]), (&json!([]), &json!([])), "what is wrong (got, expected)");
    assert_eq!(json["stop_ids"], json!([4, 1]), "stop ids (got, expected)");
    assert_eq!(json["image_token"], json!({"id": 5, "text": "<image>"}), "the picture's token (got, expected)");
    assert_eq!(
        (&json["not_used"]["tensors"], &json["extra"]),
        (&json!(18), &json!([])),
        "not used, extra (got, expected)"
    );
    let plan = good(&["plan", &tiny, "--image", "672x672", "--json"]).json();
    for memory in json["memory"].as_array().expect("a list") {
        let planned = &plan["dtypes"][memory["dtype"].as_str().expect("a name")];
        let got = [&memory["weights"], &memory["peak"], &memory["cpu_peak"]];
        let expected = [&planned["weight_bytes"], &planned["peak"], &planned["cpu_peak"]];
        assert_eq!(got, expected, "memory (got, expected by `fovea plan`)");
    }

    let shards = good(&["inspect", &fixture("seven-0"), "--json"]).json();
    assert_eq!(shards["files"].as_array().map(Vec::len), Some(3), "shards (got, expected)");
    // Without a directory: the embedded one.
    expect_report(&good(&["inspect"]), "runs: yes\n", &["missing    0", "not finite 0"]);
    let plan = good(&["plan", &tiny]);
    assert!(plan.stdout().lines().all(|line| line.chars().count() <= 80), "expected 80 columns: {}", plan.stdout());
}

#[test]
fn inspect_describes_every_family() {
    for (name, words) in [
        ("qwen2-2", &["qwen2, 3 layers", "biases: query, key, value", "BOS        none", "off: no scale selector"][..]),
        ("llava15-2", &["LLaVA-1.5 (llava)", "names as in the Hugging Face hub"]),
        ("interleave-2", &["LLaVA-Interleave (llava)", "SigLIP, "]),
        (
            "onevision-2",
            &[
                "LLaVA-OneVision (llava_onevision)",
                "SigLIP, 2 of 2 layers used",
                "4 px left over",
                "shrunk above\n           9 tiles",
                "a 672x672 picture: 37 tiles, 511 tokens",
                "names as in transformers 5",
                "not used   2 (last norm of the vision tower)",
                "extra      0",
            ],
        ),
        (
            "smolvlm-0",
            &[
                "SmolVLM (idefics3)",
                "after the last norm",
                "4x4 patches become one token",
                "17 tiles, 272 tokens",
                "BOS        <|im_start|> (1), added by the template",
                "names as in SmolVLM",
            ],
        ),
        (
            "original-vicuna-0",
            &[
                "LLaVA-NeXT (llava_next), original layout",
                "built in: LLaVA's conversation vicuna_v1",
                "BOS        <s> (1), added by the tokenizer",
                "picture    no token",
                "names as in the original layout",
                "missing    0",
            ],
        ),
    ] {
        expect_report(&good(&["inspect", &fixture(name)]), "runs: yes", words);
    }
}

#[test]
fn inspect_describes_a_folder_without_weights() {
    let whole = Broken::copy("smolvlm-0");
    fs::remove_file(format!("{}/model.safetensors", whole.path())).expect("a file to remove");
    let config = Broken::empty();
    let file = |folder: &str| format!("{folder}/config.json");
    fs::copy(file(&fixture("smolvlm-0")), file(config.path())).expect("a copy");
    for (folder, words, runs) in [
        (&whole, &["template   chat_template.json", "stop       <end_of_utterance> (523)"][..], "no weights"),
        (&config, &["no tokenizer.json", "template   not known", "the usual image settings"], "no tokenizer.json"),
    ] {
        let human = fovea(&["inspect", folder.path()]);
        human.expect_code(3);
        let verdict = "runs: not yet: no weights";
        expect_report(&human, verdict, &[words, &["fovea pull", "272 tokens", "memory     f32   weights "]].concat());
        let line = human.line("fovea: ");
        assert!(line.contains(runs) && line.contains("fovea pull"), "expected {runs:?} and what to do, got: {line}");
        let json = fovea(&["inspect", folder.path(), "--json"]).json();
        let got = (&json["runs"], &json["naming"], &json["missing"]);
        assert_eq!(got, (&json!("not yet"), &json!(null), &json!([])), "verdict, names, missing (got, expected)");
    }
}

#[test]
fn inspect_names_what_is_missing_or_not_finite() {
    let missing = Broken::copy("tiny-0").rename("image_newline", "image_oldline");
    let nan = Broken::copy("tiny-0").set("image_newline", 3, f32::NAN);
    let infinite = Broken::copy("tiny-0").set("language_model.lm_head.weight", 77, f32::NEG_INFINITY);
    for (broken, key, tensor, detail) in [
        (&missing, "missing", "image_newline", "image_newline"),
        (&nan, "non_finite", "image_newline", "NaN at index 3"),
        (&infinite, "non_finite", "language_model.lm_head.weight", "-inf at index 77"),
    ] {
        let human = fovea(&["inspect", broken.path()]);
        human.expect_code(3);
        expect_report(&human, "runs: no: tensor `", &["next: ", tensor, detail]);
        let line = human.line("fovea: ");
        assert!(line.contains(tensor), "expected {tensor} in the sentence, got: {line}");

        let json = fovea(&["inspect", broken.path(), "--json"]);
        json.expect_code(3);
        let found = json.json()[key].to_string();
        assert!(found.contains(tensor), "{key}: expected {tensor}, got: {found}");
        assert_eq!(json.json()[key].as_array().map(Vec::len), Some(1), "{key}: how many (got, expected)");

        // A run refuses the same.
        let picture = fixture("pictures/48x48-0.png");
        fovea(&["ask", &picture, "?", "--device", "cpu", "--model", broken.path()]).expect_error(3, &[tensor]);
    }
}

#[test]
fn plan_counts_llava_nexts_tokens() {
    let tiny = fixture("tiny-0");
    // Tiles of 48 pixels and 8 x 8 patches; a newline ends every row of the map; the thumbnail has 64 tokens.
    for (size, tiles, stock) in [
        ("672x672", 5, 16 * (16 + 1) + 64),
        ("200x100", 3, 8 * (16 + 1) + 64),
        ("100x200", 3, 16 * (8 + 1) + 64),
        ("300x100", 4, 8 * (24 + 1) + 64),
        // Alone on a canvas of two tiles: the empty one is cut off.
        ("48x48", 3, 8 * (8 + 1) + 64),
    ] {
        let json = good(&["plan", &tiny, "--image", size, "--json"]).json();
        for dtype in ["f32", "f16", "q8", "q4"] {
            let plan = &json["dtypes"][dtype];
            assert_eq!(plan["tiles"], tiles, "{size} {dtype}: tiles (got, expected)");
            assert_eq!(plan["full"]["visual_tokens"], stock, "{size} {dtype}: stock tokens (got, expected)");
            let compressed = plan["compressed"]["visual_tokens"].as_u64();
            assert!(compressed.is_some_and(|n| n > 64 && n < stock), "{size} {dtype}: compressed, got {compressed:?}");
        }
        // Keys and values of 2 heads of 8 in 6 layers, for the picture and 192 tokens of text, 4 bytes each.
        let cache = 2 * (2 * 8) * 6 * (stock + 192) * 4;
        assert_eq!(json["dtypes"]["f32"]["full"]["kv_cache"], cache, "{size}: cache (got, expected)");
        for dtype in ["f16", "q8", "q4"] {
            let got = &json["dtypes"][dtype]["full"]["kv_cache"];
            assert_eq!(got, cache / 2, "{size}: cache in f16, with {dtype} (got, expected)");
        }
        let weights = |dtype: &str| json["dtypes"][dtype]["weight_bytes"].as_u64().expect("bytes");
        let sizes = ["f32", "f16", "q8", "q4"].map(weights);
        assert!(sizes.is_sorted_by(|a, b| a >= b), "expected fewer bytes from f32 to q4, got {sizes:?}");
    }
    let human = good(&["plan", &tiny, "--image", "672x672"]);
    let words = ["picture 672x672: 5 tiles", "visual tokens", "336", "KV cache", "weights", "peak on a CPU, full"];
    expect_words(&human, &words);
    // Without a size: the largest canvas. Without a folder: the embedded checkpoint.
    expect_words(&good(&["plan", &tiny]), &["picture 96x96: 5 tiles"]);
    good(&["plan"]);
}

#[test]
fn the_cpu_has_the_threads_that_compute() {
    for (threads, expected) in [("1", "CPU, 1 thread"), ("3", "CPU, 3 threads")] {
        let picture = fixture("pictures/48x48-0.png");
        let mut ask = program();
        ask.args(["ask", &picture, "?", "--device", "cpu", "--max-new-tokens", "1", "--json"]);
        let output = ask.env("RAYON_NUM_THREADS", threads).output().expect("the program to start");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(report["device"], expected, "device (got, expected)");
    }
}

#[test]
fn plan_counts_what_loading_checks() {
    let picture = fixture("pictures/48x48-0.png");
    for options in [&[] as &[&str], &["--cache", "f32", "--tower", "q8", "--activations", "f32"]] {
        let plan = good(&[&["plan", "--json"][..], options].concat()).json();
        for dtype in ["f32", "f16", "q8", "q4"] {
            let peak = plan["dtypes"][dtype]["cpu_peak"].as_u64().expect("bytes");
            // One question about the largest picture.
            for (memory, code) in [(peak, 0), (peak - 1, 6)] {
                let memory = memory.to_string();
                let ask = ["ask", &picture, "?", "--device", "cpu", "--max-new-tokens", "1", "--weights", dtype];
                fovea(&[&ask[..], options, &["--memory", &memory]].concat()).expect_code(code);
            }
        }
    }
}

#[test]
fn a_refusal_names_options_that_fit() {
    let picture = fixture("pictures/48x48-0.png");
    let plan = good(&["plan", "--tower", "q8", "--json"]).json();
    let peak = plan["dtypes"]["q4"]["cpu_peak"].as_u64().expect("bytes").to_string();
    let ask = ["ask", &picture, "?", "--device", "cpu", "--max-new-tokens", "1", "--memory", &peak];
    let with = |options: &[&str]| fovea(&[&ask[..], options].concat());
    with(&["--weights", "f32"]).expect_error(6, &["; use --weights q4 --tower q8: then it needs "]);
    with(&["--weights", "q4", "--tower", "q8"]).expect_code(0);
    // `auto` takes q4 itself.
    with(&[]).expect_error(6, &["; use --tower q8: then it needs "]);
    with(&["--tower", "q8"]).expect_code(0);
}

#[test]
fn plan_loads_no_weights() {
    // A run would refuse this value; `plan` does not read it.
    let nan = Broken::copy("tiny-0").set("image_newline", 3, f32::NAN);
    good(&["plan", nan.path()]);
}

#[test]
fn doctor_tests_every_device() {
    let ran = fovea(&["doctor"]);
    ran.expect_code(0);
    expect_words(&ran, &["--device cpu", "weights in f32, f16, q8 and q4", "ok   self-test", "auto selects: "]);
    assert!(!ran.stdout().contains("268435456"), "expected MiB, got bytes: {}", ran.stdout());

    // Mesa's Vulkan layer stays silent without a usable runtime folder.
    for folder in ["", "relative"] {
        let output = program().env("XDG_RUNTIME_DIR", folder).arg("doctor").output().expect("the program to start");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!stderr.contains("XDG_RUNTIME_DIR"), "XDG_RUNTIME_DIR={folder:?}: expected silence, got: {stderr}");
    }

    let json = fovea(&["doctor", "--json"]).json();
    let devices = json["devices"].as_array().expect("a list of devices");
    let cpu = devices.iter().find(|d| d["choice"] == "cpu").expect("the CPU");
    assert_eq!((&cpu["ok"], &cpu["fault"]), (&json!(true), &json!(null)), "the CPU (got, expected)");
    assert_eq!(cpu["info"]["class"], "cpu", "its class (got, expected)");
    let reported = [&cpu["memory_available"], &json["host_available"]].map(serde_json::Value::is_u64);
    assert_eq!(reported, [cfg!(target_os = "linux"); 2], "memory of CPU and host is known (got, expected)");
    for key in ["version", "auto"] {
        assert!(json[key].is_string(), "{key}: expected a text, got {}", json[key]);
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for (args, word) in
        [(vec!["--help"], "Usage: fovea"), (vec!["--version"], "fovea "), (vec!["help", "ask"], "--compress")]
    {
        expect_words(&good(&args), &[word]);
    }
    expect_words(&good(&["--help"]), &["completions", "-v, --verbose", "-q, --quiet", "without loading it"]);
    let help = good(&["ask", "--help"]);
    assert!(help.stdout().lines().all(|line| line.chars().count() <= 100), "expected 100 columns: {}", help.stdout());
    expect_words(&help, &["equivalent tokens (mean number of visual tokens per decoder layer)"]);
    expect_words(&help, &["-m, --model <DIR>", "--device <DEVICE>", "--compress <SPEC>", "--compress focus:gamma=.7"]);
    expect_words(&help, &["--max-new-tokens <N>", "--temperature <T>", "--top-p <P>", "--top-k <K>"]);
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for row in METHODS {
        let line = words(&format!(" {} {}", row.name, row.about));
        assert!(words(help.stdout()).contains(&line), "expected {line:?}, got: {}", help.stdout());
    }
    expect_words(&help, &["--seed <S>", "--json", "--overlay <OUT.png>"]);
    for command in ["ask", "eval"] {
        let help = good(&[command, "--help"]);
        expect_words(&help, &["--weights <WEIGHTS>", "auto, f32, f16, q8, q4", "--cache <CACHE>", "--memory <SIZE>"]);
    }
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        expect_words(&good(&["completions", shell]), &["fovea", "overlay"]);
    }
}
