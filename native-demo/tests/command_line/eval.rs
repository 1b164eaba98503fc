//! `fovea eval`: right answers counted on a folder of pictures.

use std::fs;
#[cfg(unix)]
use std::{
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;

#[cfg(unix)]
use crate::program::program;
use crate::program::{fixture, fovea, on_cpu, repository};

/// The answers in `native-demo/pictures/questions.jsonl` were read off the pictures by eye.
#[test]
fn the_example_pictures_are_asked_in_every_mode() {
    let pictures = repository().join("native-demo/pictures");
    let pictures = pictures.to_str().expect("a path in UTF-8");
    let report = on_cpu(&["eval", pictures, "--timed", "2", "--json"]).json();
    assert_eq!(report["complete"], true, "complete (got, expected)");
    let rows = report["rows"].as_array().expect("rows");
    let modes: Vec<&str> = rows.iter().map(|r| r["mode"].as_str().expect("a mode")).collect();
    assert_eq!(modes, ["none", "vision", "text", "focus"], "modes (got, expected)");
    for row in rows {
        let right = row["right"].as_f64().expect("a share");
        assert!(right >= 0.8, "{}: expected 12 of 15 right at least, got {row:#}", row["mode"]);
        for key in ["samples_per_s", "first_token_ms", "kv_cache"] {
            assert!(row[key].as_f64().is_some_and(|value| value > 0.0), "{key}: expected a number, got {row:#}");
        }
        assert_eq!(row["kinds"].as_object().expect("kinds").len(), 7, "kinds (got, expected)");
        assert!(row["kept"].is_null() && row["scales"].is_null(), "expected no keys of scenes, got {row:#}");
    }
    let share = |i: usize| rows[i]["equivalent_share"].as_f64().expect("a share");
    assert_eq!(share(0), 1.0, "share without compression (got, expected)");
    assert!(
        share(3) < 0.4 && share(3) < share(1) && share(3) < share(2),
        "expected fewer tokens with both: {report:#}"
    );
}

#[test]
fn each_given_compression_is_a_row() {
    let pictures = repository().join("native-demo/pictures");
    let pictures = pictures.to_str().expect("a path in UTF-8");
    let rows = ["--compress", "random:keep=0.5", "--compress", "STRIDE:rows=2+fastv:keep=9"];
    let report = on_cpu(&[&["eval", pictures, "--timed", "1", "--json"], &rows[..]].concat()).json();
    let modes: Vec<&Value> = report["rows"].as_array().expect("rows").iter().map(|row| &row["mode"]).collect();
    assert_eq!(modes, ["random:keep=0.5", "stride+fastv:keep=9"], "modes (got, expected)");
    assert_eq!(report["rows"][1]["tokens"][1], 9.0, "kept (got, expected)");
    // Refused before any question is answered.
    fovea(&["eval", pictures, "--device", "cpu", "--compress", "none", "--compress", "meteor"])
        .expect_error(2, &["no tensors meteor"]);
    // Without a scale selector there are no rows that need one.
    let stock = fixture("stock-0");
    let report = on_cpu(&["eval", pictures, "--timed", "1", "--json", "--model", &stock]).json();
    let modes: Vec<&Value> = report["rows"].as_array().expect("rows").iter().map(|row| &row["mode"]).collect();
    assert_eq!(modes, ["none", "text"], "modes (got, expected)");
}

#[test]
fn the_table_fits_a_terminal_and_wrong_answers_are_listed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::copy(repository().join("native-demo/pictures/shirts.jpg"), folder.path().join("a.jpg")).expect("a copy");
    let line =
        r#"{"image": "a.jpg", "question": "how many circles are there?", "answer": "seventeen", "kind": "count"}"#;
    let line_without_kind = r#"{"image": "a.jpg", "question": "how many circles are there?", "answer": "seventeen"}"#;
    fs::write(folder.path().join("questions.jsonl"), line).expect("a list");
    let wrong = folder.path().join("wrong.tsv");
    let (dir, file) = (folder.path().to_str().expect("a path"), wrong.to_str().expect("a path"));
    let ran = on_cpu(&["eval", dir, "--timed", "1", "--wrong", file]);
    let lines: Vec<&str> = ran.stdout().lines().collect();
    assert!(lines[1].contains("1 question about 1 picture: "), "expected the number of questions, got {}", lines[1]);
    for mode in ["none", "vision", "text", "focus"] {
        let rows = lines.iter().filter(|line| line.split_whitespace().next() == Some(mode)).count();
        assert_eq!(rows, 2, "rows of `{mode}`: numbers, and right answers by kind (got, expected): {}", ran.stdout());
    }
    let table = lines.iter().skip(3);
    assert!(table.clone().all(|line| line.chars().count() <= 80), "expected 80 columns, got {}", ran.stdout());
    let wrong = fs::read_to_string(wrong).expect("a list");
    let lines: Vec<&str> = wrong.lines().collect();
    let [head, line] = lines.as_slice() else { panic!("expected a header and one wrong answer, got {wrong}") };
    assert_eq!(*head, "image\tkind\tquestion\texpected\tgot", "header (got, expected)");
    assert!(line.starts_with("a.jpg\tcount\thow many circles are there?\tseventeen\t"), "got {line}");
    // Without kinds there is no table by kind.
    fs::write(folder.path().join("questions.jsonl"), line_without_kind).expect("a list");
    let ran = on_cpu(&["eval", dir, "--timed", "1", "--weights", "F32"]);
    let rows = ran.stdout().lines().filter(|line| line.starts_with("vision")).count();
    assert_eq!(rows, 1, "rows of `vision` (got, expected): {}", ran.stdout());
}

/// Evaluates so many questions that it takes minutes, and sends SIGINT when the first ones are answered. No output shows when
/// that is, so it waits longer until there is a table.
#[cfg(unix)]
fn stopped(more: &[&str]) -> (String, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::copy(fixture("pictures/48x48-0.png"), folder.path().join("a.png")).expect("a copy");
    let line = r#"{"image": "a.png", "question": "What number is on the shirt?", "answer": "seventeen", "kind": "k"}"#;
    fs::write(folder.path().join("questions.jsonl"), format!("{line}\n").repeat(50_000)).expect("a list");
    for seconds in [2, 4, 8, 16, 32] {
        let mut command = program();
        command.arg("eval").arg(folder.path()).args(["--device", "cpu", "--model", &fixture("tiny-0")]);
        command.args(["--compress", "none", "--compress", "focus"]).args(more);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program to start");
        thread::sleep(Duration::from_secs(seconds));
        let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill to run");
        assert!(kill.success(), "expected the signal to be sent, got {kill}");
        let Output { status, stdout, stderr } = child.wait_with_output().expect("an end");
        let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
        if !stdout.is_empty() {
            assert_eq!(status.code(), Some(130), "exit code (got, expected): {stderr}");
            return (stdout, stderr);
        }
    }
    panic!("expected an answer within 32 s, got none");
}

#[cfg(unix)]
#[test]
fn ctrl_c_prints_what_was_answered() {
    let (stdout, stderr) = stopped(&["--json"]);
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("expected JSON, got {e} in {stdout}"));
    assert_eq!((&report["complete"], stderr.as_str()), (&Value::Bool(false), "fovea: stopped\n"), "(got, expected)");
    let rows = report["rows"].as_array().expect("rows");
    let [row] = rows.as_slice() else { panic!("expected one row with answers, got {rows:#?}") };
    let questions = row["questions"].as_u64().expect("a number");
    assert!((1..50_000).contains(&questions), "expected some of the questions, got {row:#}");
    assert!(row["samples_per_s"].is_null(), "expected no speed, got {row:#}");
    let (stdout, stderr) = stopped(&[]);
    assert!(stdout.contains("incomplete: stopped after "), "expected a note, got: {stdout}");
    assert!(stdout.contains(" of 100000 answers\n"), "expected 2 rows of 50000 answers, got: {stdout}");
    assert_eq!(stderr, "fovea: stopped\n", "stderr (got, expected)");
}

#[test]
fn broken_questions_give_4_and_say_where() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("questions.jsonl");
    let eval = || fovea(&["eval", dir.path().to_str().expect("a path in UTF-8"), "--device", "cpu"]);
    eval().expect_error(4, &["questions.jsonl", "expected a folder with pictures"]);
    for (line, words) in [
        ("", vec!["at least one question"]),
        ("{\"image\": 3}", vec!["line 1: expected a text for `image`, got the number 3"]),
        ("\n[1]", vec!["line 2: expected an object", "got a list"]),
        (r#"{"image": "../a.png", "question": "?", "answer": "1"}"#, vec!["line 1", "within the folder"]),
        (r#"{"image": "/etc/passwd", "question": "?", "answer": "1"}"#, vec!["line 1", "within the folder"]),
        (r#"{"image": "none.png", "question": "?", "answer": "1"}"#, vec!["none.png"]),
    ] {
        fs::write(&file, line).expect("a file");
        eval().expect_error(4, &words);
    }
}
