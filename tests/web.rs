//! The engine in real browsers, in a worker, on the browser's WebGPU. The conformance page runs all cases. The demo page answers a
//! question with the demo model, and with a model that it downloads from an unreliable server; both answers are compared with
//! the CPU's.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    sync::{OnceLock, PoisonError, RwLock, RwLockWriteGuard},
    time::Duration,
};

use fovea_conformance::compressed::COMPRESSED;
use fovea_model::{AskOptions, Conversation, Picture, demo};
use fovea_tests::{
    browser::{Browser, report},
    device::{REQUIRE, cpu, skip},
    golden::{fixtures, rows},
    run::{ask, fixture, load, picture},
    unreliable::{Trouble, Unreliable},
};
use fovea_web_bundle::{
    BundleError, build, root,
    serve::{Reply, Request, file_of},
};
use serde_json::{Value as Json, json};

/// The fixtures that the page gets: 69 of the 88 golden cases, every case of every family among them, and all cases of
/// compressions.
const SENT: [&str; 37] = [
    "cases.json",
    COMPRESSED,
    "compressed/meteor-tiny-0",
    "compressed/meteor-wide-0",
    "compressed/traces",
    "pictures",
    "traces",
    "tiny-0",
    "seven-0",
    "seven-1",
    "wide-0",
    "mistral-0",
    "vicuna-0",
    "stock-0",
    "qwen2-0",
    "qwen2-1",
    "qwen2-2",
    "yi-0",
    "llava15-0",
    "llava15-1",
    "llava15-2",
    "interleave-0",
    "interleave-1",
    "interleave-2",
    "onevision-0",
    "onevision-1",
    "onevision-2",
    "smolvlm-0",
    "smolvlm-1",
    "smolvlm-2",
    "smolvlm-3",
    "granite-0",
    "granite-1",
    "granite-2",
    "original-vicuna-0",
    "original-mistral-0",
    "original-qwen-0",
];

/// All cases, on a software GPU with two cores.
const TIMEOUT: Duration = Duration::from_mins(30);

#[test]
fn every_case_in_chromium() {
    every_case_in(Browser::Chromium);
}

#[test]
fn every_case_in_firefox() {
    every_case_in(Browser::Firefox);
}

#[test]
fn the_demos_answer_in_chromium() {
    the_demos_answer_in(Browser::Chromium);
}

#[test]
fn the_demos_answer_in_firefox() {
    the_demos_answer_in(Browser::Firefox);
}

#[test]
fn a_model_from_a_bad_server_in_chromium() {
    a_model_from_a_bad_server_in(Browser::Chromium);
}

#[test]
fn a_model_from_a_bad_server_in_firefox() {
    a_model_from_a_bad_server_in(Browser::Firefox);
}

/// Browsers that run every case share the cores: Firefox mostly waits for its timer. Every other test runs alone, because it
/// computes a reference on the CPU and measures the page's own thread.
static CORES: RwLock<()> = RwLock::new(());

fn alone() -> RwLockWriteGuard<'static, ()> {
    CORES.write().unwrap_or_else(PoisonError::into_inner)
}

fn every_case_in(browser: Browser) {
    let name = browser.name();
    let _shared = CORES.read().unwrap_or_else(PoisonError::into_inner);
    let Some(page) = page_in(browser, "every case") else { return };
    // Otherwise the file could be from an earlier run.
    let kept = target().join("conformance").join(format!("{name}.json"));
    fs::remove_file(&kept).ok();
    let files = files();
    let report = report(browser, page, "conformance.html?report", &|request| fixture_of(&files, request), TIMEOUT);
    let report = report.unwrap_or_else(|why| panic!("{name}: {why}"));
    fs::write(&kept, format!("{report:#}\n")).expect("a place for the report");
    let verdict = &report["verdict"];
    assert!(verdict["pass"] == true, "{name}: expected to pass, got {:#}\nin {}", verdict["failures"], kept.display());
    let ran = report["decisions"].as_array().map(Vec::len);
    let sent = sent_cases().len() + rows(COMPRESSED).len();
    assert_eq!(ran, Some(sent), "{name}: whole runs (got, expected)");
}

/// The page answers one question by itself (`checks/report/report.js`), with the same decisions and answer as the CPU.
fn the_demos_answer_in(browser: Browser) {
    let name = browser.name();
    let _alone = alone();
    let Some(page) = page_in(browser, "the demo's answer") else { return };
    let report = report(browser, page, "index.html?report", &|_| None, TIMEOUT);
    let report = report.unwrap_or_else(|why| panic!("{name}: {why}"));
    let bytes = fs::read(root().join("native-demo/pictures/rack.jpg")).expect("the example");
    let picture = Picture::decode(&bytes).expect("a picture");
    let model = load(demo::source(), cpu()).expect("the demo checkpoint");
    let asked = ask(&mut Conversation::new(&model, picture), "What word is on the blue sign?", &AskOptions::default());
    let turn = asked.expect("an answer");
    let expected = json!({
        "tokens": turn.statistics.tokens,
        "choice": *turn.looked[0].choice,
        "kept": turn.looked[0].kept,
        "answer_ids": turn.answer_ids,
    });
    for key in ["tokens", "choice", "kept", "answer_ids"] {
        assert_eq!(report[key], expected[key], "{name}: {key} (got, expected)");
    }
    // Without a GPU the page would use the CPU.
    assert!(report["device"].as_str().is_some_and(|d| d.contains("webgpu")), "{name}: device: {}", report["device"]);
    smooth(browser, &report);
}

/// The page downloads `tiny-0` from an unreliable server, is stopped and reloaded meanwhile (`checks/report/models-run.js`), and
/// sends exactly the requests that this requires. The model answers as on the CPU. The page also downloads the sharded
/// `seven-0` without a manifest.
fn a_model_from_a_bad_server_in(browser: Browser) {
    const CHUNK: u64 = 128 << 10;
    let name = browser.name();
    let _alone = alone();
    let Some(page) = page_in(browser, "a model from a bad server") else { return };
    let troubles = [Trouble::Cut, Trouble::Corrupt, Trouble::Stall, Trouble::Stall, Trouble::Whole];
    let server = Unreliable::new(&fixtures().join("tiny-0"), CHUNK, (1..).zip(troubles));
    let before = |request: &Request| match request.path.split_once('/') {
        Some(("model", file)) => Some(server.answer(request, file)),
        Some(("plain", file)) => {
            Some(file_of(&fixtures().join("seven-0"), &Request { path: file.to_owned(), ..request.clone() }))
        }
        _ => (request.path == "model-picture.png").then(|| Reply::File(fixtures().join("pictures/48x48-96.png"))),
    };
    let report = report(browser, page, "index.html?report=models", &before, TIMEOUT);
    let report = report.unwrap_or_else(|why| panic!("{name}: {why}"));
    // Reading the header of the weights takes two more requests in the first chunk. Each trouble takes one more, except the last:
    // there the whole file is sent, and later chunks are read from the same response.
    let asked = server.asked();
    assert_eq!(asked, [3, 2, 2, 2, 2, 1], "{name}: requests for weights by chunk (got, expected)");
    for (key, words) in
        [("needed", "WebGPU"), ("stopped", " of 1.4 MiB"), ("resumed", " of 1.4 MiB"), ("plain", "0.8 MiB")]
    {
        assert!(report[key].as_str().is_some_and(|shown| shown.contains(words)), "{name}: {key}: {}", report[key]);
    }
    // The case "tiny-stops": its answer ends by itself, and its decisions have a margin.
    let model = fixture("tiny-0", cpu());
    let asked = ask(&mut Conversation::new(&model, picture("48x48-96.png")), "Is it a shirt?", &AskOptions::default());
    let turn = asked.expect("an answer");
    let expected = json!({ "tokens": turn.statistics.tokens, "answer_ids": turn.answer_ids });
    for key in ["tokens", "answer_ids"] {
        assert_eq!(report[key], expected[key], "{name}: {key} (got, expected)");
    }
    smooth(browser, &report);
}

/// The engine did not have to be restarted, and the page's thread has no long tasks. Only Chromium reports tasks above 50 ms. The
/// software GPU uses the same cores and can delay a short task, so only tasks of 250 ms fail.
fn smooth(browser: Browser, report: &Json) {
    let status = report["status"].as_str().unwrap_or_default();
    let once = status.starts_with("Answered in") && !status.contains("restarted");
    assert!(once, "{}: expected an answer without a restart, got the status: {status}", browser.name());
    if browser == Browser::Chromium {
        let tasks = report["long_tasks"].as_array().expect("a list of tasks");
        let name = browser.name();
        println!("{name}: {} tasks above 50 ms: {tasks:?}", tasks.len());
        let long: Vec<&Json> = tasks.iter().filter(|t| t["ms"].as_f64().is_none_or(|ms| ms >= 250.0)).collect();
        assert!(long.is_empty(), "{name}: expected no task of 250 ms, got {long:?}");
    }
}

/// The page's folder; None, with a message, if `what` can't be tested in this browser.
fn page_in(browser: Browser, what: &str) -> Option<&'static Path> {
    let what = format!("{what} in {}", browser.name());
    if browser.executable().is_none() {
        absent(&format!("{what}: expected it in PATH, found none"));
        return None;
    }
    match page() {
        Ok(page) => Some(page),
        Err(why @ BundleError::NoTarget { .. }) => {
            absent(&format!("{what}: {why}"));
            None
        }
        Err(why) => panic!("expected the page, got: {why}"),
    }
}

/// Reports that something is not tested.
///
/// # Panics
/// If [`REQUIRE`] is 1.
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

/// The page's folder, built once.
fn page() -> Result<&'static Path, &'static BundleError> {
    static PAGE: OnceLock<Result<PathBuf, BundleError>> = OnceLock::new();
    let made = PAGE.get_or_init(|| {
        let folder = target().join("conformance/page");
        build(&folder, "dev").map(|()| folder)
    });
    made.as_ref().map(PathBuf::as_path)
}

/// The response to a request for a fixture: the list of their names, or one file.
fn fixture_of(files: &BTreeMap<String, PathBuf>, request: &Request) -> Option<Reply> {
    Some(match request.path.strip_prefix("fixtures/")? {
        "cases.json" => Reply::Json(Json::from(sent_cases()).to_string()),
        "index.json" => Reply::Json(Json::from_iter(files.keys().map(String::as_str)).to_string()),
        name => files.get(name).map_or(Reply::Missing, |path| Reply::File(path.clone())),
    })
}

/// The cases of the checkpoints that the page gets. The others run natively only: they differ in their files (tokenizers, shards),
/// and a browser needs a minute for ten cases.
fn sent_cases() -> Vec<Json> {
    let mut cases = rows("cases.json");
    cases.retain(|case| case["model"].as_str().is_some_and(|model| SENT.contains(&model)));
    cases
}

/// The fixtures that the page gets: their names, with slashes, and paths.
fn files() -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for sent in SENT {
        let path = fixtures().join(sent);
        if path.is_file() {
            found.insert(sent.to_owned(), path);
            continue;
        }
        for entry in fs::read_dir(&path).unwrap_or_else(|e| panic!("expected {}, got: {e}", path.display())) {
            let file = entry.unwrap_or_else(|e| panic!("{}: {e}", path.display())).path();
            let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            found.insert(format!("{sent}/{name}"), file);
        }
    }
    found
}
