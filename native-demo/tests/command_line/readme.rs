//! The documents are true: the first command of README.md prints what README.md shows, the table of checkpoints has the numbers of
//! `fovea plan`, and links and counts are right.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use serde_json::Value;

use crate::program::{fixture, fovea, program, repository};

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

    // What README.md shows of stderr: the note, and the numbers that are not times.
    let shown = |start: &str| {
        let line = readme.lines().map(str::trim).find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("expected a line of README.md with {start:?}, got none")).split(" | ").next()
    };
    for start in ["note: ", "visual tokens "] {
        let expected = shown(start).expect("a line has a beginning");
        assert!(stderr.contains(expected), "expected {expected:?} as in README.md, got: {stderr}");
    }
    assert!(!stderr.contains("XDG_RUNTIME_DIR"), "expected no message of a graphics library, got: {stderr}");
    // The overlay was written where it ran, and nothing else.
    let overlay = fs::read(elsewhere.path().join("looked.png")).expect("the overlay");
    assert!(overlay.starts_with(b"\x89PNG"), "expected a PNG file");
    assert_eq!(fs::read_dir(&elsewhere).expect("a folder").count(), 1, "files left behind (got, expected)");
}

#[test]
fn the_table_of_published_checkpoints_has_the_numbers_of_plan() {
    let text = fs::read_to_string(repository().join("docs/checkpoints.md")).expect("docs/checkpoints.md");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().to_str().expect("a path in UTF-8");
    let mut rows = 0;
    for line in text.lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 10) {
        let cells: Vec<&str> = line.split('|').map(str::trim).skip(1).collect();
        let name = cells[0].split('`').nth(1).expect("a name");
        let config = fixture(&format!("published_configs/{}.json", name.replace('/', "--")));
        fs::copy(&config, folder.path().join("config.json")).unwrap_or_else(|e| panic!("{config}: {e}"));
        let ran = fovea(&["plan", dir, "--image", "672x672", "--json"]);
        ran.expect_code(0);
        let plan = ran.json();
        let plans = &plan["dtypes"];
        let bytes = |dtype: &str| plans[dtype]["weight_bytes"].as_f64().expect("bytes");
        let gib = |dtype: &str| format!("{:.2}", bytes(dtype) / f64::from(1 << 30));
        let billions = bytes("f32") / 4e9;
        let tokens = plans["f32"]["full"]["visual_tokens"].to_string();
        let expected = [format!("{billions:.2}"), tokens, gib("f16"), gib("q8"), gib("q4")];
        assert_eq!([cells[3], cells[5], cells[6], cells[7], cells[8]], expected, "{name} (documented, planned)");
        // The file also has what Fovea does not load, such as the last vision layer.
        let gigabytes: f64 = cells[4].trim_start_matches('~').parse().expect("gigabytes");
        let least = 2.0 * billions;
        assert!((0.94 * least..1.06 * least).contains(&gigabytes), "{name}: download {gigabytes}, about {least}");
        rows += 1;
    }
    let configs = fs::read_dir(fixture("published_configs")).expect("a folder").count();
    assert_eq!(rows, configs, "rows of the table (got, expected)");
    let readme = fs::read_to_string(repository().join("README.md")).expect("README.md");
    assert!(readme.contains(&format!("{rows} checkpoints")), "README.md: expected the number of checkpoints, {rows}");
}

/// All documents of the repository that git knows.
fn documents() -> Vec<(PathBuf, String)> {
    let listed = Command::new("git").args(["ls-files", "*.md"]).current_dir(repository()).output().expect("git");
    let names = String::from_utf8(listed.stdout).expect("names in UTF-8");
    let read = |name: &str| (PathBuf::from(name), fs::read_to_string(repository().join(name)).expect("a document"));
    names.lines().map(read).collect()
}

/// The targets of links, pictures and anchors: what follows `](`, `src="` or `href="`.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    let ends = [("](", ')'), ("src=\"", '"'), ("href=\"", '"')];
    ends.into_iter()
        .flat_map(move |(start, end)| text.split(start).skip(1).filter_map(move |rest| rest.split(end).next()))
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        let kept =
            heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
        kept.replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_of_every_document_leads_somewhere() {
    let documents = documents();
    assert!(documents.len() > 10, "documents: {}", documents.len());
    let mut broken = Vec::new();
    for (document, text) in &documents {
        let folder = document.parent().expect("a folder");
        for target in targets(text).filter(|target| !target.contains("://") && !target.starts_with("mailto:")) {
            let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
            let path = if file.is_empty() { repository().join(document) } else { repository().join(folder).join(file) };
            let known = match anchor {
                None => path.exists(),
                Some(anchor) => fs::read_to_string(&path).is_ok_and(|text| anchors(&text).contains(anchor)),
            };
            if !known {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links without a target: {broken:#?}");
}

#[test]
fn the_documents_hold_no_placeholder_and_no_stale_claim() {
    for (document, text) in documents() {
        for words in ["not been seen", "MINUTES_", "CI_", "SECONDS_", "TODO", "MEASURE"] {
            assert!(!text.contains(words), "{}: expected no {words:?}", document.display());
        }
    }
    let readme = fs::read_to_string(repository().join("README.md")).expect("README.md");
    assert!(readme.lines().count() <= 150, "README.md: lines: {}", readme.lines().count());
}

#[test]
fn counts_and_alt_texts_are_those_of_the_files() {
    let fixtures = repository().join("tests/fixtures");
    let json = |name: &str| -> Value {
        let text = fs::read_to_string(fixtures.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    let cases = json("cases.json");
    let cases = cases.as_array().expect("cases");
    let models: BTreeSet<&str> = cases.iter().filter_map(|case| case["model"].as_str()).collect();
    let prompts = json("prompts.json").as_array().map_or(0, Vec::len);
    let tests = fs::read_to_string(repository().join("tests/README.md")).expect("tests/README.md");
    for expected in [format!("{} cases over {} checkpoints", cases.len(), models.len()), format!("{prompts} prompts")] {
        assert!(tests.contains(&expected), "tests/README.md: expected {expected:?}");
    }

    let readme = fs::read_to_string(repository().join("README.md")).expect("README.md");
    let line = readme.lines().find(|line| line.trim().starts_with("visual tokens ")).expect("a line of numbers");
    let counts: Vec<&str> = line.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty()).take(3).collect();
    for picture in ["docs/overlay.png", "docs/app.png", "docs/web-answer.png"] {
        let tag = readme.lines().find(|line| line.contains(picture)).unwrap_or_else(|| panic!("README.md: {picture}"));
        for count in &counts {
            assert!(
                tag.contains(count),
                "README.md: the alt text of {picture}: expected {count} of {line:?}, got {tag}"
            );
        }
    }
    let pipeline = readme.lines().find(|line| line.contains("docs/pipeline.png")).expect("the first picture");
    assert!(pipeline.contains("schematic"), "README.md: {pipeline}");
}
