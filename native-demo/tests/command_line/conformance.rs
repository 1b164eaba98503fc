//! `fovea conformance`: the report as text, JSON and HTML, and the page that compares reports.

use std::fs;

use crate::program::{fixture, fovea, on_cpu};

#[test]
fn only_the_cases_asked_for_run_and_the_text_ends_in_a_verdict() {
    let ran = on_cpu(&["conformance", "--cases", "top_k n=257"]);
    let last = ran.stdout().lines().last().expect("a verdict");
    assert!(last.starts_with("PASS: ") && last.contains(" 0 failed"), "expected a pass, got: {last}");
    assert!(ran.stdout().contains(", quick\ndevice   CPU, "), "expected a header, got: {}", ran.stdout());
    assert!(ran.stdout().contains("\ntop_k f32 "), "expected a row for top_k, got: {}", ran.stdout());
    for other in ["compact", "region_pool", "thumbnail"] {
        assert!(!ran.stdout().contains(other), "expected no {other}, got: {}", ran.stdout());
    }
    // Progress: one line per case, on stderr.
    assert!(ran.stderr().lines().count() > 5, "expected progress, got: {}", ran.stderr());
    assert!(ran.stderr().lines().all(|line| line.contains(" top_k n=257 ")), "got: {}", ran.stderr());
}

#[test]
fn an_embedded_run_passes_as_json_html_and_beside_others() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a path in UTF-8").to_owned();
    let (page, matrix) = (path("report.html"), path("matrix.md"));
    let ran = on_cpu(&["conformance", "--json", "--html", &page, "--cases", "tiny-older-thin"]);
    let json = ran.json();
    assert_eq!(json["verdict"]["pass"], true, "pass (got, expected): {}", json["verdict"]);
    assert_eq!(json["kernels"].as_array().map(Vec::len), Some(0), "operations (got, expected)");
    assert_eq!(json["stages"].as_array().map(Vec::len), Some(15), "stages (got, expected)");
    assert_eq!(json["decoding"][0]["agree"], json["decoding"][0]["steps"], "forced decoding (got, expected)");
    assert_eq!(json["decisions"][0]["case"], "tiny-older-thin", "decisions of (got, expected)");
    assert_eq!(json["device"]["backend"], "cpu", "backend (got, expected)");

    let html = fs::read_to_string(&page).expect("the page");
    assert!(html.starts_with("<!doctype html>") && html.contains("PASS: "), "expected a verdict, got: {html}");
    for outside in ["http:", "https:", "<script", "<link", "src="] {
        assert!(!html.contains(outside), "expected a page that needs nothing else, got {outside}");
    }

    fs::write(path("one.json"), ran.stdout()).expect("a report");
    fs::write(path("two.json"), ran.stdout()).expect("a report");
    let made = fovea(&["conformance", "--matrix", &path(""), "--out", &matrix]);
    made.expect_code(0);
    let wrote = format!("wrote {matrix}: 2 reports\n");
    assert_eq!((made.stdout(), made.stderr()), ("", wrote.as_str()), "outputs (got, expected)");
    let matrix = fs::read_to_string(&matrix).expect("the matrix");
    assert!(matrix.contains("| stage | one | two |"), "expected one lane per report, got: {matrix}");
    assert!(matrix.contains("| one, two | 1 of 1 | 1 of 1 | 1 of 1 |"), "expected agreement, got: {matrix}");
}

#[test]
fn what_cannot_be_run_or_read_has_its_code() {
    let empty = tempfile::tempdir().expect("a temporary folder");
    let empty = empty.path().to_str().expect("a path in UTF-8");
    for (args, code, words) in [
        (vec!["--device", "gpu"], 2, vec!["names no device"]),
        (vec!["--device", "wgpu:no such adapter"], 5, vec!["no adapter"]),
        (vec!["--matrix", empty], 2, vec!["--out"]),
        (vec!["--matrix", empty, "--out", "x.md", "--json"], 2, vec!["--json"]),
        (vec!["--matrix", empty, "--out", "x.md"], 1, vec!["expected reports", "got none"]),
        (vec!["--matrix", &fixture(""), "--out", "x.md"], 1, vec!["cases.json", "expected a report"]),
        (vec!["--fixtures", empty, "--device", "cpu"], 1, vec!["cases.json"]),
    ] {
        fovea(&[&["conformance"], args.as_slice()].concat()).expect_error(code, &words);
    }
    // Before anything runs: progress lines would be more than one line on stderr.
    let page = format!("{empty}/nodir/x");
    for args in [["--html", &page, "--device", "cpu"], ["--every", empty, "--out", &page]] {
        fovea(&[&["conformance", "--cases", "top_k n=257"], &args[..]].concat())
            .expect_error(1, &["cannot write", &page]);
    }
    // A run without any case is a mistake.
    fovea(&["conformance", "--cases", "no such case", "--device", "cpu"])
        .expect_error(2, &["expected cases that contain `no such case`, got none"]);
}
