//! `fovea ask`: answers, numbers, JSON, methods of compression and their settings, overlays.

use std::fs;

use fovea_model::{Compression, METHODS, Place};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::program::{Ran, fixture, fovea, on_cpu, repository};

const SHIRT: &str = "What number is on the shirt?";

/// Of the case `tiny-both`.
fn picture() -> String {
    fixture("pictures/200x200-0.png")
}

fn tiny(args: &[&str]) -> Ran {
    on_cpu(&[&["ask", &picture(), SHIRT, "--model", &fixture("tiny-0"), "--max-new-tokens", "8"], args].concat())
}

/// Integers of PyTorch's trace of a case.
fn reference(case: &str, stage: &str) -> Vec<i64> {
    let bytes = fs::read(fixture(&format!("traces/{case}.safetensors"))).expect("a trace");
    let trace = SafeTensors::deserialize(&bytes).expect("a trace");
    let data = trace.tensor(stage).expect("a stage").data();
    data.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
}

fn integers(json: &Value) -> Vec<i64> {
    json.as_array().expect("a list").iter().map(|id| id.as_i64().expect("an id")).collect()
}

fn tokens(json: &Value) -> Vec<i64> {
    ["all", "compressed", "kept"].map(|key| json["tokens"][key].as_i64().expect("a count")).to_vec()
}

#[test]
fn stdout_is_the_answer_alone_and_stderr_the_numbers() {
    let (plain, json, quiet, detailed) = (tiny(&[]), tiny(&["--json"]).json(), tiny(&["-q"]), tiny(&["-v"]));
    let answer = json["answer"].as_str().expect("an answer");
    assert!(!answer.is_empty(), "expected an answer, got none");
    assert_eq!(plain.stdout(), format!("{answer}\n"), "stdout (got, expected)");
    let [all, compressed, kept] = tokens(&json).try_into().expect("three counts");
    let share = 100.0 * json["equivalent_share"].as_f64().expect("a share");
    let lines: Vec<&str> = plain.stderr().lines().collect();
    let [counts, times] = lines.as_slice() else { panic!("expected two lines, got: {}", plain.stderr()) };
    let expected = format!("visual tokens {all} -> {compressed} -> {kept}, {share:.0} % of the work | CPU f32");
    assert_eq!(*counts, expected, "counts (got, expected)");
    for part in ["first token ", " tokens/s"] {
        assert!(times.contains(part), "expected {part:?} in the times, got: {times}");
    }
    let cut = json["finish_reason"] == "length";
    assert_eq!(times.ends_with(" | cut at 8 tokens"), cut, "whether it was cut (got, expected): {times}");
    assert!(lines.iter().all(|line| line.len() <= 80), "expected at most 80 columns, got: {}", plain.stderr());

    let one = on_cpu(&["ask", &picture(), SHIRT, "--model", &fixture("tiny-0"), "--max-new-tokens", "1"]);
    assert!(one.stderr().contains("cut at 1 token\n"), "expected the singular, got: {}", one.stderr());
    assert_eq!((quiet.stdout(), quiet.stderr()), (plain.stdout(), ""), "with --quiet (got, expected)");
    for part in [
        "tiles ",
        "prompt ",
        "vision_tower ",
        "compress ",
        "image_prefill ",
        "prune ",
        ", prefill ",
        "weights ",
        "KV cache ",
    ] {
        assert!(detailed.stderr().contains(part), "-v: expected {part:?}, got: {}", detailed.stderr());
    }
    assert_eq!(detailed.stdout(), plain.stdout(), "with --verbose (got, expected)");
}

#[test]
fn json_has_what_pytorch_computed() {
    let json = tiny(&["--json"]).json();
    for (key, of) in [
        ("answer", Value::is_string as fn(&Value) -> bool),
        ("answer_ids", Value::is_array),
        ("finish_reason", Value::is_string),
        ("compression", Value::is_string),
        ("tokens", Value::is_object),
        ("equivalent_share", Value::is_f64),
        ("timing_ms", Value::is_object),
        ("memory_bytes", Value::is_object),
        ("device", Value::is_string),
    ] {
        assert!(json.get(key).is_some_and(of), "{key}: expected it with its type, got {:?}", json.get(key));
    }
    assert_eq!(json["compression"], "focus", "the checkpoint's compression (got, expected)");
    assert_eq!(json["pictures"], serde_json::json!([picture()]), "pictures (got, expected)");
    assert_eq!(integers(&json["answer_ids"]), reference("tiny-both", "answer_ids"), "ids (got, expected)");
    assert_eq!(tokens(&json), reference("tiny-both", "token_counts"), "tokens (got, expected)");
    for stage in ["tiles", "prompt", "vision_tower", "image_prefill", "prefill", "decode", "first_token"] {
        let time = json["timing_ms"][stage].as_f64();
        assert!(time.is_some_and(|t| t >= 0.0), "{stage}: expected a time, got {time:?}");
    }
    // Without vectors, 4 bytes per value; the cache holds 6 layers of 2 heads of 8, keys and values, in f32.
    let cache = json["memory_bytes"]["kv_cache"].as_u64().expect("bytes");
    assert!(cache > 0 && cache.is_multiple_of(2 * 2 * 8 * 4), "expected whole rows of the cache, got {cache} bytes");
    assert!(json["memory_bytes"]["weights"].as_u64().is_some_and(|n| n > 1 << 20), "got {}", json["memory_bytes"]);
    assert!(json["device"].as_str().is_some_and(|d| d.starts_with("CPU")), "expected the CPU, got {}", json["device"]);
}

#[test]
fn each_question_is_answered_separately() {
    let (picture, model) = (fixture("pictures/200x200-0.png"), fixture("tiny-0"));
    let ask = |questions: &[&str]| {
        let rest = ["--model", &model, "--json", "--max-new-tokens", "8"];
        on_cpu(&[&["ask", &picture], questions, &rest].concat())
    };
    let both = ask(&["Is it a shirt?", SHIRT]);
    let objects: Vec<Value> = both.stdout().lines().map(|l| serde_json::from_str(l).expect("JSON in a line")).collect();
    assert_eq!(objects.len(), 2, "objects (got, expected)");
    assert_eq!(objects[1]["question"], SHIRT, "question (got, expected)");
    // Earlier questions do not change an answer.
    assert_eq!(integers(&objects[1]["answer_ids"]), reference("tiny-both", "answer_ids"), "ids (got, expected)");
    assert_eq!(objects[0]["answer_ids"], ask(&["Is it a shirt?"]).json()["answer_ids"], "first answer (got, expected)");
}

#[test]
fn quantised_weights_need_less_memory_and_q8_gives_the_answers_of_f32() {
    let rack = repository().join("native-demo/pictures/rack.jpg");
    let rack = rack.to_str().expect("a path in UTF-8");
    let questions =
        ["What number is on the blue plate?", "What word is on the blue sign?", "How many triangles are there?"];
    let ask = |weights: &str| -> Vec<Value> {
        let ran = on_cpu(&[&["ask", rack], &questions[..], &["--json", "--weights", weights]].concat());
        ran.stdout().lines().map(|line| serde_json::from_str(line).expect("JSON in a line")).collect()
    };
    let [f32, q8, q4] = ["f32", "q8", "q4"].map(ask);
    let texts = |answers: &[Value]| -> Vec<String> {
        answers.iter().map(|a| a["answer"].as_str().expect("an answer").trim().to_owned()).collect()
    };
    assert_eq!(texts(&f32), ["95", "exit", "3"], "answers in f32 (got, expected)");
    assert_eq!(texts(&q8), texts(&f32), "answers in q8 (got, expected)");
    assert_eq!(q4.len(), questions.len(), "answers in q4 (got, expected)");
    let bytes = |answers: &[Value]| answers[0]["memory_bytes"]["weights"].as_u64().expect("bytes");
    let sizes = [&f32, &q8, &q4].map(|answers| bytes(answers));
    assert!(sizes.is_sorted_by(|a, b| a > b), "weights in f32, q8, q4: expected fewer and fewer bytes, got {sizes:?}");
    for (answers, name) in [(&f32, "f32"), (&q8, "q8"), (&q4, "q4")] {
        assert_eq!(answers[0]["dtype"], name, "dtype (got, expected)");
        let rounded = name == "q4" && fovea_runtime::network_ops::multiplies_integers();
        let activations = if rounded { "int8" } else { "f32" };
        assert_eq!(answers[0]["activations"], activations, "activations in {name} (got, expected)");
    }
    let ran = on_cpu(&["ask", rack, questions[0], "--json", "--weights", "f32", "--tower", "q8"]);
    let tower = ran.json();
    assert_eq!((&tower["dtype"], &tower["tower"]), (&"f32".into(), &"q8".into()), "dtypes (got, expected)");
    assert_eq!(tower["answer"].as_str().map(str::trim), Some("95"), "answer with a tower in q8 (got, expected)");
    assert!(bytes(&[tower]) < bytes(&f32), "expected that a tower in q8 needs less memory");
    assert_eq!(f32[0]["tower"], "f32", "tower (got, expected)");
    let ran = on_cpu(&["ask", rack, questions[0], "--weights", "f32", "--activations", "int8"]);
    assert!(ran.stderr().contains("note: activations are f32: int8 needs"), "expected a note, got {}", ran.stderr());
    let ran = on_cpu(&["ask", rack, questions[0], "--weights", "Q8"]);
    assert!(ran.line("visual tokens ").contains(" | CPU q8"), "expected q8, got: {}", ran.stderr());
}

#[test]
fn the_cache_can_have_16_bits_beside_weights_of_32() {
    let cache = |dtype: &str| {
        let json = tiny(&["--json", "--weights", "f32", "--cache", dtype]).json();
        assert_eq!(json["dtype"], "f32", "dtype with a cache in {dtype} (got, expected)");
        json["memory_bytes"]["kv_cache"].as_u64().expect("bytes")
    };
    assert_eq!(2 * cache("f16"), cache("f32"), "twice the cache in f16 (got, expected)");
}

#[test]
fn each_sampler_alone_and_no_compression_equal_pytorch() {
    let ask = |case: &str, image: &str, question: &str, spec: &str| {
        let (picture, model) = (fixture(&format!("pictures/{image}")), fixture("tiny-0"));
        let rest = ["--model", &model, "--json", "--max-new-tokens", "8", "--compress", spec];
        let json = on_cpu(&[&["ask", &picture, question], &rest[..]].concat()).json();
        assert_eq!(json["compression"], spec, "compression (got, expected)");
        assert_eq!(integers(&json["answer_ids"]), reference(case, "answer_ids"), "{case}: ids (got, expected)");
        assert_eq!(tokens(&json), reference(case, "token_counts"), "{case}: tokens (got, expected)");
    };
    ask("tiny-none", "61x130-0.png", SHIRT, "none");
    ask("tiny-vision", "333x75-0.png", "Describe the picture.", "vision");
    ask("tiny-text", "96x96-2.png", "How many people are there, and what do they wear?", "text");
}

#[test]
fn the_text_samplers_budget_is_kept() {
    let [stock, vision] = reference("tiny-both", "token_counts")[..2] else { panic!("expected counts") };
    // 0.25 of 133: rounded, up or down, or by what the ratio's rule says: it is not more than one token off.
    let quarter = tokens(&tiny(&["--compress", "focus:keep=0.25", "--json"]).json())[2];
    assert!((quarter as f64 - vision as f64 * 0.25).abs() <= 1.0, "expected a quarter of {vision}, got {quarter}");
    for (spec, kept) in [
        ("focus:keep=7", Some(7)),
        ("FOCUS:KEEP=100000", Some(vision)),
        ("vision+text:keep=1.0", Some(vision)),
        ("focus:gamma=1", None),
        ("focus:gamma=0.000001", Some(1)),
    ] {
        let got = tokens(&tiny(&["--compress", spec, "--json"]).json());
        assert_eq!(&got[..2], [stock, vision], "{spec}: tokens before (got, expected)");
        assert!(kept.is_none_or(|k| k == got[2]), "{spec}: expected {kept:?} kept, got {}", got[2]);
        assert!((1..=vision).contains(&got[2]), "{spec}: expected 1 to {vision} kept, got {}", got[2]);
    }
}

#[test]
fn the_deeper_the_layer_the_larger_the_share() {
    let share = |layer: &str| {
        let json = tiny(&["--compress", &format!("focus:layer={layer},keep=7"), "--json"]).json();
        assert_eq!(tokens(&json)[2], 7, "layer {layer}: kept (got, expected)");
        json["equivalent_share"].as_f64().expect("a share")
    };
    // 133 tokens below layer L of 6, and 7 from there on, of LLaVA-NeXT's 336.
    for (layer, below) in [("0", 0.0), ("3", 3.0), ("5", 5.0)] {
        let expected = (133.0 * below + 7.0 * (6.0 - below)) / 6.0 / 336.0;
        let got = share(layer);
        assert!((got - expected).abs() < 1e-12, "layer {layer}: share: expected {expected}, got {got}");
    }
}

#[test]
fn every_method_answers_on_the_demo_or_is_refused_with_the_reason() {
    let rack = repository().join("native-demo/pictures/rack.jpg");
    let ask = |spec: &str| {
        let picture = rack.to_str().expect("a path in UTF-8");
        fovea(&["ask", picture, "What word is on the blue sign?", "--device", "cpu", "--json", "--compress", spec])
    };
    let answered = |spec: &str| {
        let ran = ask(spec);
        ran.expect_code(0);
        let json = ran.json();
        let canonical = spec.parse::<Compression>().expect(spec).to_string();
        assert_eq!(json["compression"], canonical, "{spec}: compression (got, expected)");
        let [all, compressed, kept] = tokens(&json).try_into().expect("three counts");
        assert_eq!(all, 304, "{spec}: all tokens (got, expected)");
        assert!((1..=compressed).contains(&kept), "{spec}: expected 1 to {compressed} kept, got {kept}");
        (compressed, kept, json["equivalent_share"].as_f64().expect("a share"))
    };
    for row in METHODS {
        let spec = match row.name {
            "meteor" => {
                ask(row.default).expect_error(2, &["this checkpoint has no tensors meteor", "got meteor"]);
                continue;
            }
            _ => row.default,
        };
        let (compressed, kept, share) = answered(spec);
        match row.place {
            Place::Before => {
                assert!((30..250).contains(&compressed), "{spec}: expected fewer tokens, got {compressed} of 304");
                assert_eq!(kept, compressed, "{spec}: kept, with nothing dropped in the model (got, expected)");
                let expected = compressed as f64 / 304.0;
                assert!((share - expected).abs() < 1e-9, "{spec}: share: expected {expected}, got {share}");
            }
            Place::Within => {
                assert_eq!(compressed, 304, "{spec}: tokens that enter the text model (got, expected)");
                assert!(kept < 250 && share < 0.9, "{spec}: expected fewer tokens, got {kept} of 304, share {share}");
            }
        }
    }
    // Half of 304 from layer 2 of 8 on; a half, a quarter and an eighth from layers 2, 4 and 6 on.
    assert_eq!(answered("fastv"), (304, 152, (2.0 + 6.0 * 0.5) / 8.0), "tokens and share (got, expected)");
    let halved = 2.0 * (1.0 + 0.5 + 0.25 + 0.125) / 8.0;
    assert_eq!(answered("pyramid-drop"), (304, 38, halved), "tokens and share (got, expected)");
    // A method before the model, and one inside it.
    let (few, ..) = answered("div-prune:keep=.1");
    let (compressed, kept, _) = answered("div-prune:keep=.1+fastv:layer=3,keep=5");
    assert_eq!((compressed, kept), (few, 5), "of both (got, expected)");

    let stock = fixture("stock-0");
    fovea(&["ask", &picture(), SHIRT, "--device", "cpu", "--model", &stock, "--compress", "focus"])
        .expect_error(2, &["this checkpoint has no scale selector: use text, fastv", "got vision"]);
}

#[test]
fn a_seed_draws_the_same_answer_again() {
    let draw = |seed: &str| {
        let args = ["--temperature", "1.5", "--top-p", "0.95", "--top-k", "200", "--seed", seed, "--json"];
        integers(&tiny(&args).json()["answer_ids"])
    };
    let (one, again) = (draw("1"), draw("1"));
    assert_eq!(one, again, "ids of one seed (got, expected)");
    assert!((2..6).any(|seed| draw(&seed.to_string()) != one), "expected another answer from another seed");
    // The most likely token alone can be drawn: the greedy answer.
    let greedy = integers(&tiny(&["--temperature", "9", "--top-k", "1", "--json"]).json()["answer_ids"]);
    assert_eq!(greedy, reference("tiny-both", "answer_ids"), "ids (got, expected)");
}

#[test]
fn an_overlay_is_a_png_of_the_picture() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("overlay.png");
    let file = file.to_str().expect("a path in UTF-8");
    assert!(tiny(&["--overlay", file]).stdout().ends_with('\n'), "expected an answer as well");
    let png = fs::read(file).expect("the overlay");
    assert_eq!(png[..8], *b"\x89PNG\r\n\x1a\n", "first bytes (got, expected)");
    let side = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().expect("four bytes"));
    let (width, height) = (side(16), side(20));
    // The picture is square; its legend is below it.
    assert!((200..=4096).contains(&width), "width: expected from 200 to 4096, got {width}");
    assert!((width..=2 * width).contains(&height), "height: expected from {width} to twice that, got {height}");
}

#[test]
fn notes_report_the_limits_of_a_checkpoint() {
    let demo = on_cpu(&["ask", &picture(), SHIRT, "--max-new-tokens", "2"]);
    let note = demo.line("note: ");
    assert!(note.contains("only drawn scenes") && note.len() <= 80, "expected what it knows, got: {note}");

    let stock = on_cpu(&["ask", &picture(), SHIRT, "--model", &fixture("stock-0"), "--max-new-tokens", "2"]);
    let note = stock.line("note: ");
    for words in ["all 336 visual tokens are used", "--compress text", "90 % of the work"] {
        assert!(note.contains(words), "expected {words:?}, got: {note}");
    }
    let numbers = stock.line("visual tokens ");
    assert!(numbers.starts_with("visual tokens 336 -> 336 -> 336,"), "expected every token, got: {numbers}");

    // Once a compression is chosen, there is no note; the text-guided sampler drops some tokens.
    for spec in ["none", "text", "text:gamma=0.5", "text:keep=50", "text:layer=2"] {
        let args = ["ask", &picture(), SHIRT, "--model", &fixture("stock-0"), "--max-new-tokens", "2"];
        let ran = on_cpu(&[&args[..], &["--compress", spec]].concat());
        let numbers = ran.line("visual tokens ");
        assert_eq!(numbers.contains("-> 336,"), spec == "none", "{spec}: whether all tokens are used, got: {numbers}");
        assert!(!ran.stderr().contains("note: "), "{spec}: expected no note, got: {}", ran.stderr());
    }

    // A trained checkpoint with its selector has no notes.
    let quiet = tiny(&[]);
    assert!(!quiet.stderr().contains("note: "), "expected no note, got: {}", quiet.stderr());
}

#[test]
fn there_are_no_colors_and_no_bars_without_a_terminal() {
    for args in [
        vec!["ask", "--help"],
        vec!["ask", "no-such.png", "?", "--device", "none"],
        vec!["inspect"],
        vec!["ask", &picture(), SHIRT, "--device", "cpu", "--max-new-tokens", "2"],
    ] {
        let ran = fovea(&args);
        for (name, text) in [("stdout", ran.stdout()), ("stderr", ran.stderr())] {
            let steering = text.contains(['\u{1b}', '\r']);
            assert!(!steering, "{args:?}: {name}: expected no escape and no carriage return, got {text:?}");
        }
    }
}
