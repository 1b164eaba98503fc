//! `fovea inspect`, `fovea plan` and `fovea doctor`, for people and as JSON.

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

#[test]
fn inspect_shows_what_a_checkpoint_contains() {
    let tiny = fixture("tiny-0");
    let human = good(&["inspect", &tiny]);
    // Two of three layers: the feature layer is the last but one.
    expect_words(
        &human,
        &["2 of 3 layers used", "llama, 6 layers, 64 wide", "8192 tokens of context", "selector present"],
    );
    expect_words(&human, &["600 rows of vocabulary", "missing    0", "not finite 0", "model.safetensors"]);
    // Stock checkpoints also have the vision layers after the feature layer: 16 tensors, and 2 of the last norm.
    expect_words(&human, &["not used   18 (vision, layer 2 and last norm: after the feature layer)", "extra      0"]);

    let json = good(&["inspect", &tiny, "--json"]).json();
    assert_eq!(json["config"]["text"]["n_layers"], 6, "layers (got, expected)");
    assert_eq!(json["scale_selector"], true, "whether there is a selector (got, expected)");
    assert_eq!((&json["missing"], &json["non_finite"]), (&json!([]), &json!([])), "what is wrong (got, expected)");
    assert_eq!(json["stop_ids"], json!([4, 1]), "stop ids (got, expected)");
    assert_eq!(
        (&json["not_used"]["tensors"], &json["extra"]),
        (&json!(18), &json!([])),
        "not used, extra (got, expected)"
    );

    expect_words(&good(&["inspect", &fixture("stock-0")]), &["none: a stock LLaVA-NeXT"]);
    let shards = good(&["inspect", &fixture("seven-0"), "--json"]).json();
    assert_eq!(shards["files"].as_array().map(Vec::len), Some(3), "shards (got, expected)");
    // Without a directory: the embedded one.
    expect_words(&good(&["inspect"]), &["missing    0", "not finite 0"]);
    for args in [vec!["inspect", &tiny], vec!["plan", &tiny]] {
        let ran = good(&args);
        assert!(ran.stdout().lines().all(|line| line.chars().count() <= 80), "{args:?}: expected 80 columns");
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
        expect_words(&human, &[tensor, detail]);
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
        for dtype in ["f32", "f16"] {
            let plan = &json["dtypes"][dtype];
            assert_eq!(plan["tiles"], tiles, "{size} {dtype}: tiles (got, expected)");
            assert_eq!(plan["full"]["visual_tokens"], stock, "{size} {dtype}: stock tokens (got, expected)");
            let compressed = plan["compressed"]["visual_tokens"].as_u64();
            assert!(compressed.is_some_and(|n| n > 64 && n < stock), "{size} {dtype}: compressed, got {compressed:?}");
        }
        // Keys and values of 2 heads of 8 in 6 layers, for the picture and 192 tokens of text, 4 bytes each.
        let cache = 2 * (2 * 8) * 6 * (stock + 192) * 4;
        assert_eq!(json["dtypes"]["f32"]["full"]["kv_cache"], cache, "{size}: cache (got, expected)");
        assert_eq!(json["dtypes"]["f16"]["full"]["kv_cache"], cache / 2, "{size}: cache in f16 (got, expected)");
    }
    let human = good(&["plan", &tiny, "--image", "672x672"]);
    expect_words(&human, &["picture 672x672: 5 tiles", "visual tokens", "336", "KV cache", "weights", "peak, full"]);
    // Without a size: the largest canvas. Without a folder: the embedded checkpoint.
    expect_words(&good(&["plan", &tiny]), &["picture 96x96: 5 tiles"]);
    good(&["plan"]);
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
    expect_words(&ran, &["--device cpu", "f16 weights yes", "ok   self-test", "auto selects: "]);
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
    for key in ["version", "auto"] {
        assert!(json[key].is_string(), "{key}: expected a text, got {}", json[key]);
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for (args, word) in
        [(vec!["--help"], "Usage: fovea"), (vec!["--version"], "fovea "), (vec!["help", "ask"], "--keep")]
    {
        expect_words(&good(&args), &[word]);
    }
    expect_words(&good(&["--help"]), &["completions", "-v, --verbose", "-q, --quiet", "without loading it"]);
    let help = good(&["ask", "--help"]);
    assert!(help.stdout().lines().all(|line| line.chars().count() <= 100), "expected 100 columns: {}", help.stdout());
    expect_words(&help, &["equivalent tokens (mean number of visual tokens per decoder layer)", "Both samplers"]);
    expect_words(
        &help,
        &["-m, --model <DIR>", "--device <DEVICE>", "--off <SAMPLERS>", "--gamma <G>", "--keep <RATIO|COUNT>"],
    );
    expect_words(&help, &["--layer <L>", "--max-new-tokens <N>", "--temperature <T>", "--top-p <P>", "--top-k <K>"]);
    expect_words(&help, &["--seed <S>", "--json", "--overlay <OUT.png>"]);
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        expect_words(&good(&["completions", shell]), &["fovea", "overlay"]);
    }
}
