//! The engine in real browsers: every case in a worker of the page, on the browser's WebGPU.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use fovea_tests::{
    browser::{Browser, report},
    device::{REQUIRE, skip},
    golden::fixtures,
};
use fovea_web_bundle::{BundleError, build};

/// What the page gets of the fixtures.
const SENT: [&str; 12] = [
    "cases.json",
    "pictures",
    "traces",
    "tiny-0",
    "tiny-1",
    "seven-0",
    "seven-1",
    "wide-0",
    "wide-1",
    "mistral-0",
    "vicuna-0",
    "stock-0",
];

/// All cases on a GPU that two cores draw.
const TIMEOUT: Duration = Duration::from_mins(30);

#[test]
fn every_case_in_chromium() {
    every_case_in(Browser::Chromium);
}

#[test]
fn every_case_in_firefox() {
    every_case_in(Browser::Firefox);
}

fn every_case_in(browser: Browser) {
    let name = browser.name();
    if browser.executable().is_none() {
        return absent(&format!("every case in {name}: expected it in PATH, found none"));
    }
    let page = match page() {
        Ok(page) => page,
        Err(why @ BundleError::NoTarget { .. }) => return absent(&format!("every case in {name}: {why}")),
        Err(why) => panic!("expected the page, got: {why}"),
    };
    // What an earlier run left would be taken for this one's.
    let kept = target().join("conformance").join(format!("{name}.json"));
    fs::remove_file(&kept).ok();
    let report = report(browser, page, &files(), TIMEOUT).unwrap_or_else(|why| panic!("{name}: {why}"));
    fs::write(&kept, format!("{report:#}\n")).expect("a place for the report");
    let verdict = &report["verdict"];
    assert!(verdict["pass"] == true, "{name}: expected to pass, got {:#}\nin {}", verdict["failures"], kept.display());
}

/// Says that something is not tested here.
///
/// # Panics
/// Where [`REQUIRE`] asks for it.
fn absent(why: &str) {
    let required = env::var(REQUIRE).is_ok_and(|v| v == "1");
    assert!(!required, "expected to run, since {REQUIRE}=1, got: {why}");
    skip(why);
}

/// Cargo's target directory.
fn target() -> &'static Path {
    let within = Path::new(env!("CARGO_TARGET_TMPDIR"));
    within.parent().unwrap_or(within)
}

/// The page's folder, made once.
fn page() -> Result<&'static Path, &'static BundleError> {
    static PAGE: OnceLock<Result<PathBuf, BundleError>> = OnceLock::new();
    let made = PAGE.get_or_init(|| {
        let folder = target().join("conformance/page");
        build(&folder).map(|()| folder)
    });
    made.as_ref().map(PathBuf::as_path)
}

/// The fixtures that the page gets: their names, with slashes, and where they lie.
fn files() -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for sent in SENT {
        let path = fixtures().join(sent);
        if path.is_file() {
            found.push((sent.to_owned(), path));
            continue;
        }
        for entry in fs::read_dir(&path).unwrap_or_else(|e| panic!("expected {}, got: {e}", path.display())) {
            let file = entry.unwrap_or_else(|e| panic!("{}: {e}", path.display())).path();
            let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            found.push((format!("{sent}/{name}"), file));
        }
    }
    found
}
