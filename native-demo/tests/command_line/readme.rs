//! The first command of README.md does what README.md says.

use std::fs;

use crate::program::{program, repository};

/// A command's words: split at spaces outside of quotes.
fn words(command: &str) -> Vec<String> {
    let quoted = command.split('"').enumerate();
    let words = quoted.flat_map(|(i, part)| match i % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}

#[test]
fn the_first_command_runs_anywhere() {
    let readme = fs::read_to_string(repository().join("README.md")).expect("README.md");
    let command = readme.lines().find(|line| line.starts_with("    cargo run ")).expect("a first command");
    let (_, args) = command.split_once(" -- ").expect("the program's own arguments behind --");
    // A path that README.md gives is seen from the repository.
    let args = words(args).into_iter().map(|word| match repository().join(&word) {
        path if word.contains('/') && path.is_file() => path.to_str().expect("a path in UTF-8").to_owned(),
        _ => word,
    });
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let output = program()
        .args(args)
        .args(["--device", "cpu"])
        .current_dir(&elsewhere)
        .output()
        .unwrap_or_else(|e| panic!("{command}: expected it to start, got {e}"));
    let stderr = String::from_utf8(output.stderr).expect("stderr in UTF-8");
    assert_eq!(output.status.code(), Some(0), "{command}: exit code (got, expected); stderr: {stderr}");
    assert_eq!(output.stdout, b"exit\n", "the answer (got, expected)");

    // What README.md shows of stderr: the note, and the numbers up to those that are times.
    let shown = |start: &str| {
        let line = readme.lines().map(str::trim).find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("expected a line of README.md with {start:?}, got none")).split(" | ").next()
    };
    for start in ["note: ", "visual tokens "] {
        let expected = shown(start).expect("a line has a beginning");
        assert!(stderr.contains(expected), "expected {expected:?} as in README.md, got: {stderr}");
    }
    // The overlay was written where it ran, and nothing else.
    let overlay = fs::read(elsewhere.path().join("looked.png")).expect("the overlay");
    assert!(overlay.starts_with(b"\x89PNG"), "expected a PNG file");
    assert_eq!(fs::read_dir(&elsewhere).expect("a folder").count(), 1, "files left behind (got, expected)");
}
