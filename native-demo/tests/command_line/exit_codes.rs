//! Errors: their exit codes and their messages.

use std::fs;

use crate::program::{Broken, fixture, fovea};

/// Settings after `fovea ask PICTURE QUESTION --device cpu`, and words of the message.
const USAGE: [(&[&str], &[&str]); 35] = [
    (&["--compress", "focus:gamma=2"], &["--compress", "a number above 0 and at most 1 for gamma of focus", "got 2"]),
    (&["--compress", "focus:gamma=0"], &["gamma of focus", "got 0"]),
    (&["--compress", "text:gamma=-0.5"], &["gamma of text", "got -0.5"]),
    (&["--compress", "text:gamma=NaN"], &["gamma of text", "got nan"]),
    (&["--compress", "text:keep=0"], &["keep of text", "got 0"]),
    (&["--compress", "text:keep=1.5"], &["keep of text", "a ratio above 0 and at most 1", "got 1.5"]),
    (&["--compress", "text:keep=-3"], &["keep of text", "a count of at least 1", "got -3"]),
    (&["--compress", "text:gamma=0.5,keep=3"], &["no value next to gamma"]),
    (&["--compress", "text:layer=99"], &["compress: expected a layer from 0 to 7 of the text model", "got layer 99"]),
    (&["--compress", "text:layer=first"], &["layer of text", "got first"]),
    (&["--compress", "fastv:layer=0"], &["layer of fastv", "at least 1", "got 0"]),
    (&["--compress", "audio"], &["none, focus, vision, faster-vlm", "pyramid-drop", "got audio"]),
    (&["--compress", ""], &["--compress"]),
    (&["--compress", "vision+random"], &["at most one of", "got vision+random"]),
    (&["--compress", "none+text"], &["none alone"]),
    (&["--compress", "random:0.5"], &["key=value after random:", "got 0.5"]),
    (&["--compress", "random:sed=3"], &["a key of random: keep, seed, newlines or thumbnail", "got sed"]),
    (&["--compress", "hired:budget-layer=99"], &["a layer from 0 to 3 of the vision tower", "got 99"]),
    (&["--compress", "meteor"], &["this checkpoint has no tensors meteor", "got meteor"]),
    (&["--gamma", "0.5"], &["--gamma"]),
    (&["--max-new-tokens", "0"], &["max-new-tokens", "at least 1", "got 0"]),
    (&["--max-new-tokens", "18446744073709551615"], &["2048"]),
    (&["--temperature", "-1"], &["temperature", "got -1"]),
    (&["--temperature", "inf"], &["temperature", "got inf"]),
    (&["--temperature", "1", "--top-p", "0"], &["top-p", "got 0"]),
    (&["--weights", "f64"], &["--weights", "f64", "auto, f32, f16, q8, q4"]),
    (&["--cache", "q8"], &["--cache", "q8", "auto, f32, f16"]),
    (&["--memory", "6X"], &["--memory", "'6X'", "such as 6GB"]),
    (&["--memory", "1e20"], &["--memory", "'1e20'", "larger than this program can count", "less than 2^64 bytes"]),
    (&["--memory", "-1"], &["--memory", "'-1'", "expected a number of bytes"]),
    (&["--loud"], &["--loud"]),
    (&["--seed", "-1"], &["--seed", "'-1'", "whole number, 0 or more"]),
    // An option without an effect.
    (&["--top-p", "0.9"], &["expected --temperature above 0 for --top-p, got 0"]),
    (&["--top-k", "3"], &["expected --temperature above 0 for --top-k, got 0"]),
    (&["--seed", "3"], &["expected --temperature above 0 for --seed, got 0"]),
];

fn picture() -> String {
    fixture("pictures/48x48-0.png")
}

#[test]
fn settings_give_2_and_name_themselves() {
    let picture = picture();
    for (args, words) in USAGE {
        fovea(&[&["ask", &picture, "?", "--device", "cpu"], args].concat()).expect_error(2, words);
    }
    for (args, words) in [
        (vec!["ask"], vec!["<IMAGE>", "<QUESTIONS>"]),
        (vec!["ask", &picture], vec!["<QUESTIONS>"]),
        (vec!["sing"], vec!["sing"]),
        (vec!["plan", "--image", "0x3"], vec!["0x3", "WIDTHxHEIGHT"]),
        (vec!["plan", "--image", "20000x20000"], vec!["16384"]),
        (vec!["scenes"], vec!["fovea-lab"]),
        (vec!["version"], vec!["fovea --version"]),
        (vec!["eval"], vec!["<DIR>", "fovea-lab eval", "fovea eval --help"]),
        (vec!["eval", "--study", "gamma"], vec!["--study", "fovea-lab eval"]),
        (vec!["eval", "--timed", "-1"], vec!["'-1'", "--timed", "whole number"]),
        (vec!["trace", &picture, "?", "--max-new-tokens", "-1"], vec!["'-1'", "whole number, 0 or more"]),
        (vec!["app", "--device", "cuda"], vec!["expected auto, cpu or wgpu for the window, got cuda"]),
        (vec!["trace"], vec!["--model", "--out", "<IMAGE>", "<QUESTION>"]),
        (vec!["-v", "plan", "--loud"], vec!["--loud", "fovea plan --help"]),
        (vec!["plan", "-v", "-q"], vec!["--verbose", "--quiet"]),
        (vec!["completions", "tcsh"], vec!["tcsh"]),
    ] {
        fovea(&args).expect_error(2, &words);
    }
    for device in ["gpu", "mps", "", "wgpu:", "cuda:x", "cpu:1"] {
        let words = ["names no device", "expected auto, cpu, wgpu"];
        // An empty value is refused before it is read as a device.
        let words: &[&str] = if device.is_empty() { &["--device"] } else { &words };
        fovea(&["ask", &picture, "?", "--device", device]).expect_error(2, words);
    }
    fovea(&["ask", &picture, "?", "--device", "CPU", "--weights", "F32", "--max-new-tokens", "1"]).expect_code(0);
    // `-q` before the command and `-v` after it: only results.
    let quiet = fovea(&["-q", "ask", &picture, "?", "--device", "cpu", "--max-new-tokens", "1", "-v"]);
    assert_eq!(quiet.stderr(), "", "stderr with -q and -v (got, expected)");
}

#[cfg(target_os = "linux")]
#[test]
fn a_window_without_a_display_gives_5_and_names_ask() {
    for args in [&[][..], &["app"], &["app", "picture.png", "--device", "cpu"]] {
        fovea(args).expect_error(5, &["there is no display", "`fovea ask PICTURE QUESTION`"]);
    }
}

#[test]
fn a_question_over_the_context_gives_2_and_both_numbers() {
    let question = "word ".repeat(9000);
    let ran = fovea(&["ask", &picture(), &question, "--device", "cpu", "--model", &fixture("tiny-0")]);
    ran.expect_error(2, &["too long", "the model takes 8192"]);
}

#[test]
fn checkpoints_give_3() {
    let missing_file = |file: &str| {
        let broken = Broken::copy("tiny-0");
        fs::remove_file(format!("{}/{file}", broken.path())).expect("a file to remove");
        broken
    };
    let with = |file: &str, text: &str| Broken::copy("tiny-0").edit(file, |bytes| *bytes = text.into());
    let cut = |n: usize| Broken::copy("tiny-0").edit("model.safetensors", |bytes| bytes.truncate(n));
    let length = fs::metadata(fixture("tiny-0/model.safetensors")).expect("the weights").len() as usize;
    let rows = [
        (Broken::empty(), vec!["config.json", "no such file"]),
        (missing_file("chat_template.jinja"), vec!["chat"]),
        (with("config.json", "{"), vec!["config.json", "expected JSON"]),
        (with("config.json", "[]"), vec!["config.json", "expected an object"]),
        (with("config.json", "\u{0}"), vec!["config.json"]),
        (with("config.json", r#"{"model_type": "llama"}"#), vec!["model_type", "llama"]),
        (with("tokenizer.json", "{}"), vec!["tokenizer.json"]),
        (with("chat_template.jinja", "{% if"), vec!["chat template"]),
        (with("chat_template.jinja", "no picture"), vec!["chat template", "picture"]),
        // Deep enough to exhaust the stack of a recursive parser.
        (
            with("chat_template.jinja", &format!("{{{{ {}1 }}}}", "-".repeat(200_000))),
            vec!["chat template", "65536 bytes"],
        ),
        // Text from a file stays in one line.
        (with("chat_template.jinja", "{{ raise_exception('a\\nb\u{1b}[2J') }}"), vec!["chat template", "a\\nb\\u{1b}"]),
        (cut(0), vec!["model.safetensors"]),
        (cut(7), vec!["model.safetensors"]),
        (cut(1000), vec!["model.safetensors"]),
        (cut(length - 1), vec!["model.safetensors"]),
    ];
    for (broken, words) in &rows {
        fovea(&["ask", &picture(), "?", "--device", "cpu", "--model", broken.path()]).expect_error(3, words);
        // Its report, if there is one, is on stdout.
        let inspected = fovea(&["inspect", broken.path()]);
        inspected.expect_code(3);
        let line = inspected.line("fovea: ");
        assert!(words.iter().all(|word| line.contains(word)), "expected {words:?} in the sentence, got: {line}");
        fovea(&["plan", broken.path(), "--json"]).expect_error(3, words);
    }
    // `plan` needs neither weights nor a tokenizer.
    for file in ["model.safetensors", "tokenizer.json"] {
        let broken = missing_file(file);
        fovea(&["ask", &picture(), "?", "--device", "cpu", "--model", broken.path()]).expect_error(3, &[file]);
        let inspected = fovea(&["inspect", broken.path()]);
        inspected.expect_code(3);
        assert!(inspected.line("fovea: ").contains(file), "expected {file}, got: {}", inspected.stderr());
        fovea(&["plan", broken.path(), "--json"]).expect_code(0);
    }
    fovea(&["inspect", "/no/such/folder"]).expect_error(3, &["/no/such/folder"]);
    let file = fixture("cases.json");
    fovea(&["ask", &picture(), "?", "--device", "cpu", "--model", &file]).expect_error(3, &["cases.json"]);
}

#[test]
fn pictures_give_4() {
    for (file, words) in [
        ("no-such.png", vec!["no-such.png"]),
        // A folder.
        ("awkward", vec!["awkward"]),
        ("awkward/empty.png", vec!["empty file"]),
        ("awkward/text.png", vec!["expected a PNG, JPEG, WebP, GIF or BMP"]),
        ("awkward/truncated.png", vec!["truncated"]),
        ("awkward/truncated.jpg", vec!["truncated"]),
        ("awkward/header_only.png", vec!["the picture"]),
        ("awkward/header_20000x20000.png", vec!["whole Png"]),
        ("awkward/zero_width.png", vec!["the picture"]),
        ("cases.json", vec!["the picture"]),
    ] {
        fovea(&["ask", &fixture(file), "?", "--device", "cpu"]).expect_error(4, &words);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("out.safetensors");
    let out = out.to_str().expect("a path in UTF-8");
    let (model, image) = (fixture("tiny-0"), fixture("awkward/empty.png"));
    let args = ["trace", &image, "?", "--model", &model, "--out", out, "--device", "cpu"];
    fovea(&args).expect_error(4, &["empty file"]);
    assert!(!fs::exists(out).expect("a folder to look into"), "expected no trace of a failed run");
}

#[test]
fn devices_give_5() {
    for device in ["wgpu:99", "wgpu:no-such-name"] {
        let words = [device, "found ", "`--device cpu` always works"];
        fovea(&["ask", &picture(), "?", "--device", device]).expect_error(5, &words);
    }
    if !cfg!(feature = "cuda") {
        fovea(&["ask", &picture(), "?", "--device", "cuda"]).expect_error(5, &["--features fovea/cuda"]);
    }
}

#[test]
fn a_model_above_the_given_memory_gives_6() {
    let picture = picture();
    for weights in ["auto", "q4"] {
        let args = ["ask", &picture, "?", "--device", "cpu", "--weights", weights, "--memory", "1MB"];
        fovea(&args).expect_error(6, &["one question"]);
    }
    fovea(&["ask", &picture, "?", "--device", "cpu", "--memory", "2GB", "--max-new-tokens", "1"]).expect_code(0);
    // What is converted to f32 is at most the largest matrix: a small model in f16 needs less than in f32.
    for weights in ["f32", "f16", "q8", "q4"] {
        let args = ["ask", &picture, "?", "--device", "cpu", "--weights", weights, "--memory", "20MB"];
        fovea(&[&args[..], &["--max-new-tokens", "1"]].concat()).expect_code(0);
    }
}

#[test]
fn what_cannot_be_written_gives_1_and_names_the_file() {
    let (model, picture) = (fixture("tiny-0"), picture());
    let out = "/no/such/folder/file";
    let args = ["trace", &picture, "?", "--model", &model, "--out", out, "--device", "cpu"];
    fovea(&args).expect_error(1, &["cannot write", out]);
    let ran = fovea(&["ask", &picture, "?", "--model", &model, "--device", "cpu", "--overlay", out]);
    ran.expect_code(1);
    assert!(ran.line("fovea: ").contains(out), "expected {out}, got: {}", ran.stderr());
}
