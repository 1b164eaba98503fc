//! `fovea ask`: answers, numbers, JSON, samplers and their settings, overlays.

use std::fs;

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
    ["all", "after_vision_sampler", "after_text_sampler"]
        .map(|key| json["tokens"][key].as_i64().expect("a count"))
        .to_vec()
}

#[test]
fn stdout_is_the_answer_alone_and_stderr_the_numbers() {
    let (plain, json, quiet, detailed) = (tiny(&[]), tiny(&["--json"]).json(), tiny(&["-q"]), tiny(&["-v"]));
    let answer = json["answer"].as_str().expect("an answer");
    assert!(!answer.is_empty(), "expected an answer, got none");
    assert_eq!(plain.stdout(), format!("{answer}\n"), "stdout (got, expected)");
    let [all, vision, text] = tokens(&json).try_into().expect("three counts");
    let share = 100.0 * json["equivalent_share"].as_f64().expect("a share");
    let lines: Vec<&str> = plain.stderr().lines().collect();
    let [counts, times] = lines.as_slice() else { panic!("expected two lines, got: {}", plain.stderr()) };
    let expected = format!("visual tokens {all} -> {vision} -> {text}, {share:.0} % of the work | CPU f32");
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
        "vision_sampler ",
        "image_prefill ",
        "text_sampler ",
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
        ("tokens", Value::is_object),
        ("equivalent_share", Value::is_f64),
        ("timing_ms", Value::is_object),
        ("memory_bytes", Value::is_object),
        ("device", Value::is_string),
    ] {
        assert!(json.get(key).is_some_and(of), "{key}: expected it with its type, got {:?}", json.get(key));
    }
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
    }
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
fn samplers_that_are_off_leave_their_tokens() {
    let ask = |case: &str, image: &str, question: &str, off: &[&str]| {
        let (picture, model) = (fixture(&format!("pictures/{image}")), fixture("tiny-0"));
        let rest = ["--model", &model, "--json", "--max-new-tokens", "8"];
        let json = on_cpu(&[&["ask", &picture, question], off, &rest].concat()).json();
        assert_eq!(integers(&json["answer_ids"]), reference(case, "answer_ids"), "{case}: ids (got, expected)");
        assert_eq!(tokens(&json), reference(case, "token_counts"), "{case}: tokens (got, expected)");
    };
    ask("tiny-none", "61x130-0.png", SHIRT, &["--off", "vision,text"]);
    ask("tiny-none", "61x130-0.png", SHIRT, &["--off", "both"]);
    ask("tiny-vision", "333x75-0.png", "Describe the picture.", &["--off", "text"]);
    let people = "How many people are there, and what do they wear?";
    ask("tiny-text", "96x96-2.png", people, &["--off", "vision"]);
}

#[test]
fn the_text_samplers_budget_is_kept() {
    let [stock, vision] = reference("tiny-both", "token_counts")[..2] else { panic!("expected counts") };
    // 0.25 of 133: rounded, up or down, or by what the ratio's rule says: it is not more than one token off.
    let quarter = tokens(&tiny(&["--keep", "0.25", "--json"]).json())[2];
    assert!((quarter as f64 - vision as f64 * 0.25).abs() <= 1.0, "expected a quarter of {vision}, got {quarter}");
    for (args, kept) in [
        (["--keep", "7"], Some(7)),
        (["--keep", "100000"], Some(vision)),
        (["--keep", "1.0"], Some(vision)),
        (["--gamma", "1"], None),
        (["--gamma", "0.000001"], Some(1)),
    ] {
        let got = tokens(&tiny(&[&args[..], &["--json"]].concat()).json());
        assert_eq!(&got[..2], [stock, vision], "{args:?}: tokens before (got, expected)");
        assert!(kept.is_none_or(|k| k == got[2]), "{args:?}: expected {kept:?} kept, got {}", got[2]);
        assert!((1..=vision).contains(&got[2]), "{args:?}: expected 1 to {vision} kept, got {}", got[2]);
    }
}

#[test]
fn the_deeper_the_layer_the_larger_the_share() {
    let share = |layer: &str| {
        let json = tiny(&["--layer", layer, "--keep", "7", "--json"]).json();
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
    for words in ["all 336 visual tokens are used", "--on text", "90 % of the work"] {
        assert!(note.contains(words), "expected {words:?}, got: {note}");
    }
    let numbers = stock.line("visual tokens ");
    assert!(numbers.starts_with("visual tokens 336 -> 336 -> 336,"), "expected every token, got: {numbers}");

    // Turned on, by its name or by its budget, the text-guided sampler drops some.
    for on in [["--on", "text"], ["--gamma", "0.5"], ["--keep", "50"], ["--layer", "2"]] {
        let args = ["ask", &picture(), SHIRT, "--model", &fixture("stock-0"), "--max-new-tokens", "2"];
        let ran = on_cpu(&[&args[..], &on].concat());
        let numbers = ran.line("visual tokens ");
        assert!(!numbers.contains("-> 336,"), "{on:?}: expected fewer than all tokens, got: {numbers}");
        assert!(!ran.stderr().contains("note: "), "{on:?}: expected no note, got: {}", ran.stderr());
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
