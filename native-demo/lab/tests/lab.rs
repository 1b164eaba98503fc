//! The `fovea-lab` program from outside: drawn scenes, studies with their figures, and a short training run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs to the end, expects an exit code, and returns stdout and stderr.
fn lab(args: &[&str], code: i32) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fovea-lab"));
    // Drivers of software GPUs want a folder for their files.
    command.args(args).stdin(Stdio::null()).env("XDG_RUNTIME_DIR", std::env::temp_dir());
    let output = command.output().expect("the program to start");
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
    assert_eq!(output.status.code(), Some(code), "{args:?}: exit code (got, expected); stderr: {stderr}");
    (stdout, stderr)
}

/// Runs on the CPU, and returns stdout.
fn on_cpu(args: &[&str]) -> String {
    lab(&[args, &["--device", "cpu"]].concat(), 0).0
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// Expects an exit code, and an error of one line with these words.
fn expect_error(args: &[&str], code: i32, words: &[&str]) {
    let (stdout, stderr) = lab(args, code);
    assert_eq!(stdout, "", "{args:?}: stdout (got, expected)");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("fovea-lab: ")).collect();
    assert_eq!(errors.len(), 1, "{args:?}: lines of errors (got, expected): {stderr}");
    for word in words {
        assert!(errors[0].contains(word), "{args:?}: expected {word:?}, got: {}", errors[0]);
    }
}

#[test]
fn a_seed_always_draws_the_same_scenes() {
    let drawn = |seed: &str| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let args = ["scenes", "--seed", seed, "--count", "2", "--out", text(dir.path())];
        let (_, stderr) = lab(&args, 0);
        let start = format!("wrote {}: 2 scenes, ", text(dir.path()));
        assert!(stderr.starts_with(&start), "expected {start:?}, got {stderr}");
        expect_error(&args, 2, &["questions.jsonl", "exists already"]);
        let mut files: Vec<_> =
            fs::read_dir(dir.path()).expect("a folder").map(|e| e.expect("an entry").path()).collect();
        files.sort();
        assert_eq!(files.len(), 3, "two pictures and their questions (got, expected)");
        files.iter().map(|f| fs::read(f).expect("a file")).collect::<Vec<_>>()
    };
    assert!(drawn("5") == drawn("5"), "expected the same bytes from the same seed");
    assert!(drawn("5") != drawn("6"), "expected other bytes from another seed");
}

#[test]
fn arguments_that_do_not_fit_give_2() {
    for (args, words) in [
        (vec!["scenes"], vec!["--out"]),
        (vec!["train"], vec!["<CONFIG>", "--dir"]),
        (vec!["eval", "--study", "tides"], vec!["tides", "gamma"]),
        (vec!["eval", "--figure", "a.svg"], vec!["--study"]),
        (vec!["eval", "--study", "sampler", "--figure", "a.svg"], vec!["sampler", "table"]),
        (vec!["eval", "--study", "gamma", "--wrong", "a.tsv"], vec!["--study", "--wrong"]),
        (vec!["eval", "--study", "gamma", "--compress", "none"], vec!["--study", "--compress"]),
        (vec!["compare", "--methods", "fastv,tides"], vec!["tides", "pyramid-drop"]),
        (vec!["compare", "--budgets", "0.5,2"], vec!["'2'", "a number from 0.01 to 1"]),
        (vec!["compare", "--figure", "g.png"], vec!["g.png: expected a name in .svg, got .png"]),
        (vec!["compare", "pictures", "--scenes", "3"], vec!["--scenes"]),
        (vec!["eval", "--study", "gamma", "--figure", "g.png"], vec!["g.png: expected a name in .svg, got .png"]),
        (vec!["eval", "pictures", "--scenes", "3"], vec!["--scenes"]),
        (vec!["eval", "pictures", "--seed", "3"], vec!["--seed"]),
        (vec!["eval", "--seed", "-1"], vec!["'-1'", "whole number, 0 or more"]),
        (vec!["scenes", "--out", "x", "--seed", "-1"], vec!["'-1'", "whole number, 0 or more"]),
        (vec!["scenes", "--out", "x", "--count", "-1"], vec!["'-1'", "whole number from 1"]),
        (vec!["train", "run.json", "--dir", "state", "--steps", "-1"], vec!["'-1'", "whole number from 1"]),
        (vec!["train", "run.json", "--dir", "state", "--steps", "0"], vec!["'0'", "whole number from 1"]),
    ] {
        expect_error(&args, 2, &words);
    }
}

#[test]
fn held_out_scenes_are_evaluated_and_drawn() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let stdout = on_cpu(&["eval", "--scenes", "3", "--timed", "1"]);
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(lines[1].contains("held-out scenes 0 to 2"), "expected the source of the questions, got {}", lines[1]);
    for mode in ["none", "vision", "text", "focus"] {
        assert!(lines.iter().any(|l| l.starts_with(mode)), "expected a row `{mode}`, got {stdout}");
    }
    assert!(stdout.contains("kept of the queried object"), "expected the share that was kept, got {stdout}");
    assert!(stdout.contains("regions at each scale"), "expected the scales of regions, got {stdout}");
    assert!(lines.iter().skip(3).all(|line| line.chars().count() <= 80), "expected 80 columns, got {stdout}");
    for (study, words) in [
        ("gamma", ["right answers, %", "equivalent tokens, %", "samples/s"]),
        ("layers", ["right answers, %", "equivalent tokens, %", "samples/s"]),
        ("budget", ["right answers, %", "equivalent tokens, %", "samples/s"]),
        ("scales", ["4x4", "2x2", "1x1"]),
    ] {
        let figure = dir.path().join("figure.svg");
        let args = ["eval", "--scenes", "1", "--timed", "1", "--study", study, "--figure", text(&figure)];
        let stdout = on_cpu(&args);
        let is_compared = stdout.contains("right %") && stdout.contains("answers are compared as VQA's");
        assert_eq!(
            is_compared,
            study != "scales",
            "{study}: the column `right %`, and how answers are compared: {stdout}"
        );
        let svg = fs::read_to_string(&figure).expect("a figure");
        assert!(svg.starts_with("<svg"), "{study}: expected an SVG file");
        for word in words {
            assert!(svg.contains(word), "{study}: expected {word:?} in the figure");
        }
    }
}

#[test]
fn random_scales_are_compared_with_selected_ones() {
    let run = || json(&on_cpu(&["eval", "--scenes", "2", "--timed", "1", "--study", "sampler", "--json"]));
    let report = run();
    assert_eq!(report["study"], "sampler", "study (got, expected)");
    let rows = report["rows"].as_array().expect("rows");
    let modes: Vec<&str> = rows.iter().map(|r| r["mode"].as_str().expect("a mode")).collect();
    assert_eq!(modes, ["every token", "selected", "random 0", "random 1", "random 2"], "modes (got, expected)");
    for row in rows {
        assert_eq!(row["tokens"][0], row["tokens"][1], "{}: tokens, with the text-guided sampler off", row["mode"]);
        assert!(row["samples_per_s"].as_f64().is_some_and(|s| s > 0.0), "expected a speed, got {row:#}");
        assert!(!row["kinds"].as_object().expect("kinds").is_empty(), "expected scores by kind, got {row:#}");
    }
    let share = |i: usize| rows[i]["equivalent_share"].as_f64().expect("a share");
    assert_eq!(share(0), 1.0, "share with every token (got, expected)");
    assert!((1..5).all(|i| share(i) < 1.0), "expected fewer tokens at chosen and drawn scales, got {report:#}");
    for (one, other) in [(1, 2), (2, 3), (3, 4), (2, 4)] {
        assert_ne!(rows[one]["scales"], rows[other]["scales"], "scales of {} and {}", modes[one], modes[other]);
    }
    let again = run();
    for key in ["tokens", "kinds", "scales"] {
        let column = |report: &Value| rows.iter().enumerate().map(|(i, _)| report["rows"][i][key].clone()).collect();
        let (first, second): (Vec<Value>, Vec<Value>) = (column(&report), column(&again));
        assert_eq!(first, second, "{key}: first run, second run");
    }
    let stock = repository().join("tests/fixtures/stock-0");
    let args = ["eval", "--scenes", "1", "--study", "sampler", "--device", "cpu", "--model", text(&stock)];
    expect_error(&args, 2, &["scale selector"]);
}

#[test]
fn methods_are_compared_by_equivalent_tokens() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let figure = dir.path().join("compare.svg");
    let args = ["compare", "--scenes", "2", "--timed", "2", "--json", "--figure", text(&figure)];
    let some = ["--methods", "meteor,focus,FastV,stride", "--budgets", "0.5,0.25"];
    let report = json(&on_cpu(&[&args[..], &some].concat()));
    let rows = report["rows"].as_array().expect("rows");
    let column = |key: &str| rows.iter().map(|row| row[key].as_str().expect("a text")).collect::<Vec<_>>();
    let modes = ["none", "focus:gamma=0.25", "focus:gamma=0.5", "stride", "stride:rows=1,cols=1", "fastv:keep=0.25"];
    assert_eq!(column("mode"), [&modes[..], &["fastv"]].concat(), "modes (got, expected)");
    let methods = ["none", "focus", "focus", "stride", "stride", "fastv", "fastv"];
    assert_eq!(column("method"), methods, "methods (got, expected)");
    let number = |i: usize, key: &str| rows[i][key].as_f64().unwrap_or_else(|| panic!("{key}: got {:#}", rows[i]));
    for (i, row) in rows.iter().enumerate() {
        assert!(number(i, "first_token_ms") > 0.0 && number(i, "standard_error") >= 0.0, "got {row:#}");
        assert!(row["kinds"]["count"]["standard_error"].is_f64(), "expected errors by kind, got {row:#}");
    }
    // Every token; a fourth of the patches; every token again; half of the tokens from layer 2 of 8 on.
    assert_eq!((number(0, "equivalent_share"), number(4, "equivalent_share")), (1.0, 1.0), "shares (got, expected)");
    assert!((0.25..0.4).contains(&number(3, "equivalent_share")), "stride: got {:#}", rows[3]);
    assert!((number(6, "equivalent_share") - 0.625).abs() < 0.01, "fastv: got {:#}", rows[6]);
    assert!(number(3, "kv_cache") < number(6, "kv_cache") && number(6, "kv_cache") < number(0, "kv_cache"));
    let skipped = report["skipped"]["meteor"].as_str().expect("a reason");
    assert!(skipped.contains("no tensors meteor"), "expected the reason, got {skipped}");
    let svg = fs::read_to_string(&figure).expect("a figure");
    for words in ["no compression", "FocusLLaVA", "Lattice", "FastV", "equivalent tokens, %", "Right answers, %"] {
        assert!(svg.contains(words), "expected {words:?} in the figure");
    }

    let stdout = on_cpu(&["compare", "--scenes", "1", "--timed", "1", "--methods", "meteor,text", "--budgets", "0.5"]);
    for words in ["equivalent %", "first token", "KV cache", "right %", "text:gamma=0.5", "skipped meteor: expected "] {
        assert!(stdout.contains(words), "expected {words:?}, got {stdout}");
    }
    let stock = repository().join("tests/fixtures/stock-0");
    let args = ["eval", "--scenes", "1", "--study", "scales", "--device", "cpu", "--model", text(&stock)];
    expect_error(&args, 2, &["study: expected a checkpoint with a scale selector for `scales`", "got one without"]);
    let args = ["compare", "--scenes", "1", "--methods", "vision", "--device", "cpu", "--model", text(&stock)];
    expect_error(&args, 2, &["methods: expected a method that fits", "no scale selector", "got vision"]);
}

/// Bounds from a first measurement on 100 scenes, with room for other processors.
#[test]
fn smaller_weights_agree_with_f32() {
    let rows = |activations| {
        let report = json(&on_cpu(&["agreement", "--scenes", "6", "--json", "--activations", activations]));
        report["rows"].as_array().expect("rows").clone()
    };
    let (rows, rounded) = (rows("f32"), rows("int8"));
    if fovea_runtime::network_ops::multiplies_integers() {
        assert_ne!(rows[2]["divergence"], rounded[2]["divergence"], "expected that activations change q4");
    }
    let bounds = [("f16", 1.0, 1e-8, 1.0, 0.99), ("q8", 1.0, 1e-4, 0.995, 0.98), ("q4", 0.97, 5e-3, 0.97, 0.9)];
    assert_eq!((rows.len(), rounded.len()), (bounds.len(), bounds.len()), "rows (got, expected): {rows:?}");
    // Inputs of 8 bits change which tokens stay, where the scores are nearly equal.
    let bounds = bounds
        .into_iter()
        .chain(bounds.map(|(w, token, divergence, scale, kept)| (w, token, divergence, scale, kept - 0.03)));
    for (row, (weights, same_token, divergence, same_scale, same_kept)) in rows.iter().chain(&rounded).zip(bounds) {
        assert_eq!(row["weights"], weights, "weights (got, expected)");
        assert!(row["tokens"].as_u64() > Some(40), "{weights}: expected tokens of many answers, got {row}");
        for (key, least) in [("same_token", same_token), ("same_scale", same_scale), ("same_kept", same_kept)] {
            assert!(row[key].as_f64() >= Some(least), "{weights}: expected {key} of at least {least}, got {row}");
        }
        let got = row["divergence"].as_f64().expect("a number");
        // Not zero: the weights are not those of f32.
        assert!(got > 0.0 && got < divergence, "{weights}: expected a divergence below {divergence}, got {row}");
    }
}

#[test]
fn the_shares_of_a_layers_importance_sum_to_1() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let rows = |what: &[&str]| {
        let figure = dir.path().join("maps.svg");
        let args = [&["eval", "--study", "maps", "--json", "--figure", text(&figure)], what].concat();
        let report = json(&on_cpu(&args));
        let svg = fs::read_to_string(&figure).expect("a figure");
        let images = svg.matches("href=\"data:image/png;base64,iVBORw0KGgo").count();
        assert_eq!(images, 3 * 9, "3 questions, each with the picture and 8 layers (got, expected)");
        report["rows"].as_array().expect("rows").clone()
    };
    let layers = ["all tokens alike".to_owned()].into_iter().chain((0..8).map(|layer| format!("layer {layer}")));
    let layers: Vec<String> = layers.collect();
    let pictures = repository().join("native-demo/pictures");
    for (what, expected) in [
        (vec!["--scenes", "2"], vec!["queried", "others", "background", "thumbnail", "newlines"]),
        (vec![text(&pictures)], vec!["map", "thumbnail", "newlines"]),
    ] {
        let rows = rows(&what);
        let settings: Vec<&str> = rows.iter().map(|r| r["setting"].as_str().expect("a setting")).collect();
        assert_eq!(settings, layers, "rows (got, expected)");
        for row in &rows {
            let values = row["values"].as_array().expect("values");
            let names: Vec<&str> = values.iter().map(|v| v[0].as_str().expect("a name")).collect();
            assert_eq!(names, expected, "{}: columns (got, expected)", row["setting"]);
            let all: f64 = values.iter().map(|v| v[1].as_f64().expect("a share")).sum();
            assert!((all - 1.0).abs() < 1e-6, "{}: expected shares of 1 in all, got {all}", row["setting"]);
        }
    }
}

#[test]
fn each_question_keeps_its_own_tokens() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let figure = dir.path().join("questions.svg");
    let pictures = repository().join("native-demo/pictures");
    let run = |what: &[&str]| {
        let args = [&["eval", "--study", "questions", "--json", "--figure", text(&figure)], what].concat();
        let report = json(&on_cpu(&args));
        assert!(fs::read_to_string(&figure).expect("a figure").starts_with("<svg"), "expected an SVG file");
        report
    };
    let value = |row: &Value, name: &str| {
        let values = row["values"].as_array().expect("values").iter();
        values.filter(|v| v[0] == name).find_map(|v| v[1].as_f64()).unwrap_or_else(|| panic!("{name}: got {row}"))
    };
    let report = run(&["--scenes", "4"]);
    let rows = report["rows"].as_array().expect("rows");
    let settings: Vec<&str> = rows.iter().map(|row| row["setting"].as_str().expect("a setting")).collect();
    assert!(settings.starts_with(&["every token", "all questions"]) && settings.contains(&"count"), "got {settings:?}");
    let (every, all) = (&rows[0], &rows[1]);
    assert_eq!(value(every, "kept"), value(every, "tokens"), "every token is kept (got, expected)");
    assert!(value(all, "kept") < value(all, "tokens"), "expected fewer tokens, got {all}");
    for overlap in ["overlap", "object_overlap"] {
        assert!((0.01..0.99).contains(&value(all, overlap)), "{overlap}: expected a share of the tokens, got {all}");
    }
    assert!(value(all, "object_overlap") < value(all, "overlap"), "expected different objects, got {all}");
    assert!(value(all, "queried") > 2.0 * value(every, "queried"), "expected the queried object, got {every}, {all}");
    assert!(value(all, "others") < value(every, "others"), "expected few tokens of other objects, got {every}, {all}");
    let shares = ["queried", "others", "background", "thumbnail", "newlines"].map(|name| value(all, name));
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-6, "expected shares of 1 in all, got {shares:?}");
    let count = rows.iter().find(|row| row["setting"] == "count").expect("a row");
    assert!(count["values"][4][1].is_null(), "expected no shares without a queried object, got {count}");
    let questions = report["questions"].as_array().expect("questions");
    let first: Vec<&Value> = questions.iter().filter(|q| q["picture"] == questions[0]["picture"]).collect();
    assert!(first.len() > 3 && first.iter().any(|q| q["kept"] != first[0]["kept"]), "got {first:?}");
    let shown: Vec<&Value> = questions.iter().filter(|q| q["picture"] != "scene-3.png").collect();
    let svg = fs::read_to_string(&figure).expect("a figure");
    let images = svg.matches("href=\"data:image/png;base64,").count();
    assert_eq!(images, 3 + shown.len(), "3 pictures, and one picture per question (got, expected)");

    let report = run(&[text(&pictures)]);
    let all = &report["rows"][1];
    let shares = ["map", "thumbnail", "newlines"].map(|name| value(all, name));
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-6, "a folder: expected shares of 1 in all, got {shares:?}");
}

#[test]
fn scales_are_summarised_by_kind_of_scene() {
    let report = json(&on_cpu(&["eval", "--scenes", "3", "--study", "scales", "--json"]));
    let rows = report["rows"].as_array().expect("rows");
    let settings: Vec<&str> = rows.iter().map(|row| row["setting"].as_str().expect("a setting")).collect();
    assert_eq!(settings[..6], ["0", "1", "2", "all, least", "all, mean", "all, most"], "rows (got, expected)");
    let group = settings[6].split(", ").next().unwrap_or_default();
    assert!(["plate", "shirt", "sign"].contains(&group), "expected a kind of scene, got {settings:?}");
    let share = |row: usize, scale: usize| rows[row]["values"][scale][1].as_f64().expect("a share");
    for scale in 0..3 {
        let mean = (0..3).map(|row| share(row, scale)).sum::<f64>() / 3.0;
        assert!((share(4, scale) - mean).abs() < 1e-9, "expected the mean {mean}, got {}", rows[4]);
        assert!(share(3, scale) <= mean && mean <= share(5, scale), "expected a range around {mean}");
    }
}

#[test]
fn a_short_training_run_writes_a_checkpoint_and_resumes() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let config = dir.path().join("run.json");
    let model = repository().join("model/demo");
    let stages =
        r#"[{"name": "drill", "task": "drill", "steps": 3, "batch": 2, "rates": {"tower": 0.001}, "dense": 1.0}]"#;
    let run = format!(r#"{{"model": {:?}, "seed": 1, "stages": {stages}}}"#, model.canonicalize().expect("the demo"));
    fs::write(&config, run).expect("a file");
    let (state, out) = (dir.path().join("state"), dir.path().join("out"));
    let train = |steps: &str| {
        let (config, state, out) = (text(&config), text(&state), text(&out));
        let args = ["train", config, "--dir", state, "--out", out, "--steps", steps, "--device", "cpu"];
        let (_, stderr) = lab(&args, 0);
        let good = |line: &str| line.chars().count() <= 80 && !line.ends_with([' ', '|']) && !line.contains("[]");
        assert!(stderr.lines().all(good), "expected lines of 80 columns without empty values, got: {stderr}");
    };
    // A folder that can't be written is found before the run.
    let inside = config.join("out");
    let args = ["train", text(&config), "--dir", text(&state), "--out", text(&inside), "--device", "cpu"];
    expect_error(&args, 1, &["cannot write", text(&inside)]);
    train("2");
    assert!(state.join("at-2/weights.safetensors").is_file(), "expected a state after two steps");
    train("9");
    assert!(state.join("at-3").is_dir() && !state.join("at-2").exists(), "expected one state, after three steps");
    let log = fs::read_to_string(state.join("log.csv")).expect("a log");
    assert!(log.lines().last().is_some_and(|l| l.starts_with("drill,3,")), "expected a row of step 3, got {log}");
    let svg = fs::read_to_string(state.join("curves.svg")).expect("curves");
    assert!(svg.contains("losses") && svg.contains("dense"), "expected the loss of the dense labels, got {svg}");
    on_cpu(&["eval", "--scenes", "1", "--timed", "1", "--model", text(&out)]);

    fs::write(&config, "{}").expect("a file");
    expect_error(&["train", text(&config), "--dir", text(&state), "--device", "cpu"], 3, &["run.json"]);
}
