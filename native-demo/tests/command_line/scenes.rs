//! `fovea scenes`, `fovea eval` and `fovea train`.

use std::{fs, path::Path};

use serde_json::Value;

use crate::program::{fixture, fovea, on_cpu, repository};

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[test]
fn a_seed_always_draws_the_same_scenes() {
    let drawn = |seed: &str| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let ran = fovea(&["scenes", "--seed", seed, "--count", "2", "--out", text(dir.path())]);
        ran.expect_code(0);
        let mut files: Vec<_> =
            fs::read_dir(dir.path()).expect("a folder").map(|e| e.expect("an entry").path()).collect();
        files.sort();
        assert_eq!(files.len(), 3, "two pictures and their questions (got, expected)");
        files.iter().map(|f| fs::read(f).expect("a file")).collect::<Vec<_>>()
    };
    assert!(drawn("5") == drawn("5"), "expected the same bytes from the same seed");
    assert!(drawn("5") != drawn("6"), "expected other bytes from another seed");
}

/// The answers in `native-demo/pictures/questions.jsonl` were read off the pictures by eye.
#[test]
fn the_example_pictures_are_asked_in_every_mode() {
    let pictures = repository().join("native-demo/pictures");
    let report = on_cpu(&["eval", text(&pictures), "--timed", "2", "--json"]).json();
    let rows = report["rows"].as_array().expect("rows");
    let modes: Vec<&str> = rows.iter().map(|r| r["mode"].as_str().expect("a mode")).collect();
    assert_eq!(modes, ["none", "vision", "text", "both"], "modes (got, expected)");
    for row in rows {
        let right = row["exact_match"].as_f64().expect("a share");
        assert!(right >= 0.8, "{}: expected 12 of 15 right at least, got {row:#}", row["mode"]);
        assert!(row["samples_per_s"].as_f64().is_some_and(|s| s > 0.0), "expected a speed, got {row:#}");
        assert_eq!(row["kinds"].as_object().expect("kinds").len(), 7, "kinds (got, expected)");
    }
    let share = |i: usize| rows[i]["equivalent_share"].as_f64().expect("a share");
    assert_eq!(share(0), 1.0, "share without samplers (got, expected)");
    assert!(
        share(3) < 0.4 && share(3) < share(1) && share(3) < share(2),
        "expected fewer tokens with both: {report:#}"
    );
}

#[test]
fn held_out_scenes_are_evaluated_and_drawn() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let png = dir.path().join("table.png");
    let ran = on_cpu(&["eval", "--scenes", "3", "--timed", "1", "--png", text(&png)]);
    let lines: Vec<&str> = ran.stdout().lines().collect();
    assert!(lines[0].contains("held-out scenes 0 to 2"), "expected what was asked, got {}", lines[0]);
    for mode in ["none", "vision", "text", "both"] {
        assert!(lines.iter().any(|l| l.starts_with(mode)), "expected a row `{mode}`, got {}", ran.stdout());
    }
    assert!(ran.stdout().contains("kept of the queried object"), "expected what was kept, got {}", ran.stdout());
    let bytes = fs::read(&png).expect("a picture");
    assert!(bytes.starts_with(b"\x89PNG"), "expected a PNG file");
    for study in ["gamma", "layers", "budget", "scales", "sampler", "maps"] {
        let figure = dir.path().join(study);
        on_cpu(&["eval", "--scenes", "1", "--timed", "1", "--study", study, "--png", text(&figure)]);
        assert!(fs::read(&figure).expect("a figure").starts_with(b"\x89PNG"), "{study}: expected a PNG file");
    }
}

#[test]
fn scales_drawn_from_seeds_stand_beside_those_selected() {
    let run = || on_cpu(&["eval", "--scenes", "2", "--timed", "1", "--study", "sampler", "--json"]).json();
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
    let stock = ["eval", "--scenes", "1", "--study", "sampler", "--device", "cpu", "--model", &fixture("stock-0")];
    fovea(&stock).expect_error(2, &["scale selector"]);
}

#[test]
fn the_importance_of_every_layer_is_shared_out_whole() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let rows = |what: &[&str]| {
        let png = dir.path().join("maps.png");
        let report = on_cpu(&[&["eval", "--study", "maps", "--json", "--png", text(&png)], what].concat()).json();
        let bytes = fs::read(&png).expect("a picture");
        // A PNG file's width and height: eight panels and margins, and what stands below the last row.
        let side = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        assert!(side(16) > 700 && side(20) > 300, "expected panels, got {}x{} pixels", side(16), side(20));
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
fn broken_questions_give_4_and_say_where() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("questions.jsonl");
    let eval = || fovea(&["eval", text(dir.path()), "--device", "cpu"]);
    eval().expect_error(4, &["questions.jsonl"]);
    for (line, words) in [
        ("", vec!["at least one question"]),
        ("{\"image\": 3}", vec!["line 1"]),
        (r#"{"image": "../a.png", "question": "?", "answer": "1"}"#, vec!["line 1", "within the folder"]),
        (r#"{"image": "/etc/passwd", "question": "?", "answer": "1"}"#, vec!["line 1", "within the folder"]),
        (r#"{"image": "none.png", "question": "?", "answer": "1"}"#, vec!["none.png"]),
    ] {
        fs::write(&file, line).expect("a file");
        eval().expect_error(4, &words);
    }
}

#[test]
fn a_short_training_run_leaves_a_checkpoint_and_goes_on() {
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
        on_cpu(&["train", config, "--dir", state, "--out", out, "--steps", steps])
    };
    train("2");
    assert!(state.join("at-2/weights.safetensors").is_file(), "expected a state after two steps");
    train("9");
    assert!(state.join("at-3").is_dir() && !state.join("at-2").exists(), "expected one state, after three steps");
    let log = fs::read_to_string(state.join("log.csv")).expect("a log");
    assert!(log.lines().last().is_some_and(|l| l.starts_with("drill,3,")), "expected a row of step 3, got {log}");
    fovea(&["inspect", text(&out)]).expect_code(0);

    fs::write(&config, "{}").expect("a file");
    fovea(&["train", text(&config), "--dir", text(&state), "--device", "cpu"]).expect_error(3, &["run.json"]);
}
