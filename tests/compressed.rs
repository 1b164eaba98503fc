//! Every compression, compared with PyTorch's traces on every device (`tests/reference/make_compressed.py` writes them);
//! methods that keep all tokens, on every device; and on the CPU: runs that must agree, every method on every checkpoint, several
//! pictures, and stopped answers.

use std::{
    cmp::Ordering,
    fs,
    path::Path,
    pin::pin,
    sync::{Arc, LazyLock},
};

use fovea_conformance::{
    Options,
    compressed::{CompressedCase, check},
    conformance,
    golden::Fixtures,
    report::text::text as report_as_text,
    row::Outcome,
};
use fovea_model::{
    AskOptions, Cancel, Compression, Conversation, ErrorKind, Looked, METHODS, Model, Picture, Turn,
    trace::{Value, trace},
};
use fovea_runtime::{OpenDevice, source::Source};
use fovea_tests::{
    checkpoint::Files,
    closeness::{compare, same_bits},
    device,
    golden::{Case, Trace, everything, fixtures, floats, indices, rows, text},
    run::{ENOUGH, ask, compressed, fixture, load, open, options, picture, poll},
};
use pollster::block_on;
use serde_json::{Value as Json, json};

const SHIRT: &str = "What number is on the shirt?";
/// Bound for logits with another order of summation.
const SAME: f64 = 1e-10;
/// Every case has a larger margin than this; no error of a score in f32 reaches it.
const MARGIN: f64 = 1e-6;

/// All fixtures of the repository.
static FIXTURES: LazyLock<Fixtures> = LazyLock::new(everything);

/// A checkpoint with random tensors of LLaVA-Meteor. `fusion` changes keys of `meteor` in config.json.
fn with_meteor(name: &str, fusion: &Json) -> Files {
    Files(FIXTURES.with_meteor(name, fusion).unwrap_or_else(|e| panic!("{name}: expected a checkpoint, got: {e}")))
}

fn all_cases() -> Vec<CompressedCase> {
    FIXTURES.compressed().unwrap_or_else(|e| panic!("expected the cases, got: {e}"))
}

fn every_case(device: &OpenDevice) {
    let all = all_cases();
    assert!(all.len() >= 44, "expected at least 44 cases, got {}", all.len());
    let options = Options { cases: Some("compressed/".to_owned()), ..Options::default() };
    let report = block_on(conformance(device, &FIXTURES, &options, |_| {}));
    eprintln!("{}", report_as_text(&report));
    let (verdict, stages) = (&report.verdict, report.stages.len());
    assert!(verdict.pass, "expected every case to pass on {}, got:\n{}", device.info, verdict.failures.join("\n"));
    assert_eq!(report.decisions.len(), all.len(), "cases that ran (got, expected)");
    assert!(stages >= 14 * all.len(), "expected at least 14 stages per case, got {stages}");
}

#[test]
fn every_case_on_the_cpu() {
    every_case(device::cpu());
}

#[test]
fn every_case_on_wgpu() {
    if let Some(wgpu) = device::wgpu("every compression") {
        every_case(wgpu);
    }
}

#[test]
fn every_case_has_a_margin_above_the_error_of_f32() {
    for row in rows("compressed/cases.json") {
        let margin = row["margin"].as_f64();
        assert!(
            margin.is_none_or(|margin| margin > MARGIN),
            "{}: expected a margin above {MARGIN}, got {margin:?}",
            row["case"]
        );
    }
}

/// Each stage of PyTorch's trace with other numbers is a failure.
#[test]
fn every_wrong_stage_fails() {
    let all = all_cases();
    // It has class tokens and prunings inside the model.
    let name = "compressed/vision-zip+pyramid-drop";
    let compressed = all.iter().find(|one| one.case.name == name).expect("the case");
    let (case, options) = (&compressed.case, compressed.case.options());
    let mut conversation = Conversation::new(&fixture(&case.model, device::cpu()), picture(&case.picture));
    let got = block_on(trace(&mut conversation, &case.prompt, &options)).expect("a run");
    let again = ask(&mut conversation, &case.prompt, &options).expect("a second run");
    let right = compressed.trace(&FIXTURES).expect("a trace");
    let fails = |compressed: &CompressedCase, expected: &Trace| {
        check(compressed, expected, &got, &again).iter().any(|row| row.outcome != Outcome::Pass)
    };
    assert!(!fails(compressed, &right), "expected the trace to pass");
    for stage in right.keys() {
        let mut wrong = right.clone();
        match wrong.get_mut(stage) {
            Some(Value::F32 { data, .. }) => data.iter_mut().for_each(|value| *value += 1.0),
            Some(Value::I64 { data, .. }) => data.iter_mut().for_each(|value| *value += 1),
            None => {}
        }
        assert!(fails(compressed, &wrong), "{stage}: expected other numbers to fail");
    }
    let share = compressed.share + 1e-8;
    assert!(fails(&CompressedCase { share, ..compressed.clone() }, &right), "expected another share to fail");
    let other = Case { compression: Compression::none(), ..case.clone() };
    assert!(fails(&CompressedCase { case: other, ..compressed.clone() }, &right), "expected another method to fail");
}

fn fresh(model: &Arc<Model>, image: &Picture, question: &str, options: &AskOptions) -> Turn {
    ask(&mut Conversation::new(model, image.clone()), question, options).expect("a fresh run")
}

/// Checks for equal decisions and close logits.
fn agree(what: &str, expected: &Turn, got: &Turn) {
    assert_eq!(got.answer_ids, expected.answer_ids, "{what}: answer (got, expected)");
    assert_eq!(got.looked[0].origins, expected.looked[0].origins, "{what}: origins (got, expected)");
    assert_eq!(got.looked[0].kept, expected.looked[0].kept, "{what}: kept tokens (got, expected)");
    assert_eq!(got.statistics.tokens, expected.statistics.tokens, "{what}: counts (got, expected)");
    compare(what, &expected.step_logits.concat(), &got.step_logits.concat()).nmse_within(SAME).unwrap();
}

/// With equal visual tokens a conversation keeps equal bytes, except for what its method reads of the vision tower.
#[test]
fn methods_that_keep_all_give_the_stock_sequence_bit_for_bit() {
    let mut files = with_meteor("tiny-0", &Json::Null);
    // With zeros in the last matrix of each block the fusion changes nothing.
    for block in 0..2 {
        files.edit(&format!("meteor.blocks.{block}.out_proj.weight"), |t| t.bytes.fill(0));
    }
    for open in device::all("methods that keep all") {
        let model = load(files.source(), open).expect("a model");
        for file in ["150x90-0.png", "70x160-0.png", "130x130-0.png"] {
            let (on, image) = (format!("{}: {file}", open.info), picture(file));
            let run = |spec: &str| {
                let mut conversation = Conversation::new(&model, image.clone());
                let stages = block_on(trace(&mut conversation, SHIRT, &compressed(spec, 3)));
                (stages.unwrap_or_else(|e| panic!("{on}: {spec}: expected a run, got: {e}")), conversation.bytes())
            };
            let (stock, stock_bytes) = run("none");
            for (spec, reads_tower) in [
                ("faster-vlm:keep=1.0", true),
                ("faster-vlm:keep=1.0,thumbnail=keep", true),
                ("faster-vlm:keep=1.0,newlines=all", true),
                ("vision-zip:dominant=1.0,contextual=0,class-token=false", true),
                ("hired:rate=1.0", true),
                ("div-prune:keep=1.0", false),
                ("cd-pruner:keep=1.0", false),
                ("heuristic:keep=1.0", false),
                ("random:keep=1000000", false),
                ("stride:rows=1,cols=1", false),
                ("meteor:keep=1.0", true),
            ] {
                let (got, bytes) = run(spec);
                for stage in ["visual_tokens", "step_logits"] {
                    let what = format!("{on}: {spec}: {stage}");
                    same_bits(&what, floats(&stock, stage).1, floats(&got, stage).1).unwrap();
                }
                assert_eq!(indices(&got, "token_counts"), indices(&stock, "token_counts"), "{on}: {spec}: counts");
                let expected = if reads_tower { Ordering::Greater } else { Ordering::Equal };
                assert_eq!(bytes.cmp(&stock_bytes), expected, "{on}: {spec}: {bytes} bytes, {stock_bytes} without it");
            }
            // Between two layers the prompt runs in two parts, so sums may round differently.
            let stock = fresh(&model, &image, SHIRT, &compressed("none", 3));
            for spec in [
                "text:gamma=1.0",
                "text:keep=1.0",
                "fastv:keep=1.0",
                "pyramid-drop:ratios=1.0/1.0",
                "pyramid-drop:ratios=1.0/1.0,positions=renumber",
            ] {
                agree(&format!("{on}: {spec}"), &stock, &fresh(&model, &image, SHIRT, &compressed(spec, 3)));
            }
        }
    }
}

#[test]
fn every_method_runs_on_every_checkpoint_or_is_refused() {
    let entries = fs::read_dir(fixtures()).expect("the fixtures");
    let folders =
        entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.join("config.json").is_file());
    let image = picture("48x48-0.png");
    let mut checked = 0;
    for folder in folders {
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        let model = fixture(&name, device::cpu());
        let fits = model.fits();
        let refused = |method: &str| match method {
            "meteor" => true,
            "vision" => !fits.selector,
            "faster-vlm" | "vision-zip" | "hired" => !fits.config.vision.class_token,
            _ => false,
        };
        let names: Vec<&str> = METHODS.iter().map(|row| row.name).filter(|name| !refused(name)).collect();
        let fitting: Vec<&str> = Compression::fitting(fits).iter().map(|row| row.name).collect();
        assert_eq!(fitting, names, "{name}: methods that fit (got, expected)");
        let mut conversation = Conversation::new(&model, image.clone());
        for row in METHODS {
            match ask(&mut conversation, "?", &compressed(row.default, 1)) {
                Ok(turn) => {
                    assert!(!refused(row.name), "{name}: expected {} to be refused", row.name);
                    let (looked, tokens) = (&turn.looked[0], turn.statistics.tokens);
                    assert_eq!(looked.token_count(), tokens.compressed, "{name}: {}: tokens", row.name);
                    assert_eq!(looked.kept.len(), tokens.kept, "{name}: {}: kept tokens", row.name);
                    assert!(tokens.kept > 0 && tokens.kept <= tokens.compressed, "{name}: {}: {tokens:?}", row.name);
                    assert!(turn.statistics.equivalent_share > 0.0, "{name}: {}: share", row.name);
                }
                Err(error) => {
                    assert!(refused(row.name), "{name}: expected {} to run, got: {error}", row.name);
                    assert_eq!(error.kind(), ErrorKind::Option, "{name}: {}: {error}", row.name);
                }
            }
            checked += 1;
        }
    }
    assert!(checked >= 37 * METHODS.len(), "expected 37 checkpoints, got {checked} runs");
}

#[test]
fn tensors_of_meteor_that_do_not_fit_its_settings_are_refused() {
    let missing = "meteor.blocks.1.out_proj.weight";
    let mut without = with_meteor("tiny-0", &Json::Null);
    let tensors: Vec<_> = without.tensors().into_iter().filter(|t| t.name != missing).collect();
    without.set_tensors(&tensors, 1);
    let other = with_meteor("tiny-0", &json!({"d_state": 5}));
    let more =
        with_meteor("tiny-0", &json!({"blocks": [["local", "before"], ["single", "before"], ["local", "after"]]}));
    for (files, words) in [(without, missing), (other, "meteor.blocks.0."), (more, "meteor.blocks.2.")] {
        let error = open(files.source()).err().expect("a refusal");
        assert!(error.to_string().contains(words), "expected {words} in the error, got: {error}");
        assert_eq!(error.kind(), ErrorKind::Checkpoint, "{words}: {error}");
    }
}

#[test]
fn each_of_several_pictures_is_compressed_as_if_alone() {
    for row in rows("several.json") {
        let name = text(&row, "case");
        let model = fixture(text(&row, "model"), device::cpu());
        let file = |file: &Json| file.as_str().and_then(|file| file.strip_prefix("pictures/")).map(picture);
        let pictures: Vec<Picture> = row["images"].as_array().into_iter().flatten().filter_map(file).collect();
        for method in Compression::fitting(model.fits()) {
            let options = compressed(method.default, 2);
            let mut conversation = Conversation::about(&model, pictures.clone()).expect("a conversation");
            let turn = ask(&mut conversation, text(&row, "prompt"), &options)
                .unwrap_or_else(|e| panic!("{name}: {}: expected an answer, got: {e}", method.name));
            let sum = |of: fn(&Looked) -> usize| turn.looked.iter().map(|looked| of(looked)).sum::<usize>();
            let tokens = turn.statistics.tokens;
            assert_eq!(sum(|l| l.grid.stock_tokens()), tokens.all, "{name}: {}: all tokens", method.name);
            assert_eq!(sum(Looked::token_count), tokens.compressed, "{name}: {}: tokens", method.name);
            assert_eq!(sum(|l| l.kept.len()), tokens.kept, "{name}: {}: kept tokens", method.name);
            for (looked, image) in turn.looked.iter().zip(&pictures) {
                let rising = looked.kept.windows(2).all(|two| two[0] < two[1]);
                let inside = looked.kept.iter().all(|&index| index < looked.token_count());
                assert!(rising && inside, "{name}: {}: kept {:?}", method.name, looked.kept);
                let alone = fresh(&model, image, "?", &options);
                // LLaVA-OneVision cuts several pictures in another way than one.
                if alone.looked[0].grid == looked.grid {
                    assert_eq!(looked.origins, alone.looked[0].origins, "{name}: {}: origins", method.name);
                }
            }
        }
    }
}

/// All methods with their defaults, and some more settings and pairs.
fn specs() -> Vec<&'static str> {
    let more = [
        "none",
        "focus",
        "faster-vlm:keep=0.5+text:gamma=0.9",
        "vision-zip:dominant=12,contextual=4+pyramid-drop",
        "hired:budget-layer=1",
        "pyramid-drop:positions=renumber",
        "meteor:keep=0.5+fastv",
    ];
    METHODS.iter().map(|row| row.default).chain(more).collect()
}

#[test]
fn questions_of_one_conversation_equal_new_conversations() {
    let model = load(with_meteor("tiny-0", &Json::Null).source(), device::cpu()).expect("a model");
    let image = picture("111x73-0.png");
    let mut conversation = Conversation::new(&model, image.clone());
    // Forwards and backwards, so that each method follows several others.
    for spec in specs().into_iter().chain(specs().into_iter().rev()) {
        for question in [SHIRT, "x"] {
            let options = compressed(spec, 3);
            let got = ask(&mut conversation, question, &options).unwrap_or_else(|e| panic!("{spec}: {e}"));
            agree(&format!("{spec}: {question:?}"), &fresh(&model, &image, question, &options), &got);
        }
    }
}

#[test]
fn a_stopped_answer_leaves_the_conversation_as_it_was() {
    let model = load(with_meteor("tiny-0", &Json::Null).source(), device::cpu()).expect("a model");
    let image = picture("48x48-0.png");
    for spec in specs() {
        let (expected, mut stopped) = (fresh(&model, &image, SHIRT, &compressed(spec, 3)), 0);
        for points in (0..ENOUGH).step_by(3) {
            let mut conversation = Conversation::new(&model, image.clone());
            // Half of the stops are in a second question, with another compression.
            if points % 2 == 1 {
                ask(&mut conversation, "x", &options(1)).expect("an answer");
            }
            let cancel = Cancel::default();
            let stoppable = AskOptions { cancel: cancel.clone(), ..compressed(spec, 3) };
            let ended = {
                let mut events = pin!(conversation.ask(SHIRT, &stoppable));
                let (ended, error) = poll(events.as_mut(), points);
                assert!(error.is_none(), "{spec}: before a stop at poll {points}: {error:?}");
                cancel.cancel();
                ended || {
                    assert!(poll(events, ENOUGH).0, "{spec}: stopped at poll {points}: expected an end");
                    stopped += 1;
                    false
                }
            };
            let got = ask(&mut conversation, SHIRT, &compressed(spec, 3)).unwrap_or_else(|e| panic!("{spec}: {e}"));
            agree(&format!("{spec}: after a stop at poll {points}"), &expected, &got);
            if ended {
                break;
            }
        }
        assert!(stopped > 2, "{spec}: expected stops at several points, got {stopped}");
    }
}

/// A stopped question leaves the tiles of the next picture; a compression that reads more of the vision tower starts again with the
/// first picture.
#[test]
fn a_stop_between_two_pictures_does_not_exchange_them() {
    let model = load(with_meteor("tiny-0", &Json::Null).source(), device::cpu()).expect("a model");
    let pictures = || vec![picture("48x48-0.png"), picture("150x90-0.png")];
    let two = || Conversation::about(&model, pictures()).expect("a conversation");
    let expected = ask(&mut two(), SHIRT, &compressed("faster-vlm", 2)).expect("an answer");
    let mut stopped = 0;
    for points in 0..ENOUGH {
        let mut conversation = two();
        let cancel = Cancel::default();
        let stoppable = AskOptions { cancel: cancel.clone(), ..compressed("none", 2) };
        let ended = {
            let mut events = pin!(conversation.ask(SHIRT, &stoppable));
            let ended = poll(events.as_mut(), points).0;
            cancel.cancel();
            ended
        };
        let got = ask(&mut conversation, SHIRT, &compressed("faster-vlm", 2)).expect("an answer");
        agree(&format!("after a stop at poll {points}"), &expected, &got);
        if ended || stopped > 40 {
            break;
        }
        stopped += 1;
    }
    assert!(stopped > 4, "expected stops at several points, got {stopped}");
}

/// The checkpoint that was trained with LLaVA-Meteor, in our interpretation, reads a word from a third of the patches.
#[test]
fn the_demo_of_meteor_answers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/demo-meteor");
    let model = load(Source::directory(&folder).expect("a folder"), device::cpu()).expect("a model");
    let bytes = fs::read(folder.join("../../native-demo/pictures/rack.jpg")).expect("the example");
    let picture = Picture::decode(&bytes).expect("a picture");
    for (question, answer) in [("What word is on the blue sign?", "exit"), ("How many triangles are there?", "3")] {
        let turn = fresh(&model, &picture, question, &compressed("meteor:keep=0.3", 8));
        assert_eq!(turn.text.trim(), answer, "{question} (got, expected)");
        let tokens = turn.statistics.tokens;
        assert!(3 * tokens.compressed < tokens.all + 30, "expected a third of the tokens, got {tokens:?}");
    }
}
