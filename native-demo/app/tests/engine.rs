//! The engine's thread with the demo checkpoint: answers, cancellation, and freeing of memory.

use std::{
    io::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use fovea_app::engine::{Command, Doing, Engine, ModelAt, RunId, Update, Wanted};
use fovea_model::{AskOptions, Event, Message, Messages, Picture, Precision};
use fovea_runtime::device::adapters;

/// Lets only one test run at a time: the memory test would count the memory of another test as its own.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const RUN: RunId = RunId { turn: 0, other: false };
const QUESTION: &str = "What word is on the blue sign?";

/// Waits for the update that `pick` selects. An unexpected failure ends the test.
fn wait<T>(engine: &Engine, what: &str, mut pick: impl FnMut(&Update) -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        for update in engine.updates() {
            if let Some(found) = pick(&update) {
                return found;
            }
            assert!(!matches!(update, Update::Failed { .. }), "expected {what}, got {update:?}");
        }
        assert!(begin.elapsed() < Duration::from_secs(240), "expected {what} within four minutes");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn send(engine: &Engine, command: Command) {
    engine.send(command).expect("the engine's thread");
}

fn load(engine: &Engine, device: Wanted) {
    send(engine, Command::Load { model: ModelAt::Demo, device, precision: Precision::Auto });
    wait(engine, "a model", |update| matches!(update, Update::Loaded(_)).then_some(()));
}

fn rack() -> Arc<Picture> {
    Arc::new(Picture::decode(include_bytes!("../../pictures/rack.jpg")).expect("a picture"))
}

fn look(engine: &Engine) {
    send(engine, Command::Look { picture: rack(), options: AskOptions::default() });
    wait(engine, "the end of the computation in advance", |update| matches!(update, Update::Prepared).then_some(()));
}

fn ask(engine: &Engine) {
    ask_with(engine, AskOptions::default());
}

fn ask_with(engine: &Engine, options: AskOptions) {
    send(engine, Command::Ask { run: RUN, messages: QUESTION.into(), options });
}

/// The complete answer, and the names of its stages.
fn answer(engine: &Engine) -> (String, Vec<&'static str>) {
    let (mut text, mut stages) = (String::new(), Vec::new());
    wait(engine, "an answer", |update| {
        let Update::Answering { run: RUN, event, report, .. } = update else { return None };
        match event {
            Event::Token { text: more, .. } => text += more,
            Event::Stage { stage, .. } => stages.push(stage.name()),
            Event::Done(_) => {
                assert_eq!(report.as_ref().and_then(|r| r["answer"].as_str()), Some(text.trim()));
                return Some(());
            }
            _ => {}
        }
        None
    });
    (text.trim().to_owned(), stages)
}

/// The first adapter. Without one: prints a line and returns None, or fails if `FOVEA_REQUIRE_ADAPTER` is set.
fn adapter() -> Option<Wanted> {
    let found = pollster::block_on(adapters()).first().map(Wanted::of);
    assert!(found.is_some() || std::env::var_os("FOVEA_REQUIRE_ADAPTER").is_none(), "expected an adapter, found none");
    if found.is_none() {
        // Not `println!`: the test harness hides its output if the test passes.
        writeln!(std::io::stderr(), "SKIP engine: no adapter").ok();
    }
    found
}

#[test]
fn stages_computed_in_advance_are_not_computed_again() {
    let _alone = alone();
    let engine = Engine::start(|| {});
    load(&engine, Wanted::Cpu);
    look(&engine);
    ask(&engine);
    let (text, stages) = answer(&engine);
    assert_eq!(text, "exit");
    for stage in ["tiles", "vision_tower", "compress", "image_prefill"] {
        assert!(!stages.contains(&stage), "expected {stage} to be done before the question, got {stages:?}");
    }
}

#[test]
fn a_question_after_an_answer_uses_what_was_computed() {
    let _alone = alone();
    let engine = Engine::start(|| {});
    load(&engine, Wanted::Cpu);
    look(&engine);
    let mut messages = Messages::from(QUESTION);
    let mut tokens = Vec::new();
    for _ in 0..2 {
        send(&engine, Command::Ask { run: RUN, messages: messages.clone(), options: AskOptions::default() });
        let turn = wait(&engine, "an answer", |update| match update {
            Update::Answering { event: Event::Done(turn), .. } => Some(turn.clone()),
            _ => None,
        });
        tokens.push((turn.prompt.lead().len(), turn.statistics.cached_tokens));
        messages.push(Message::assistant(turn.text.trim()));
        messages.push(Message::user("What color is it?"));
    }
    // The demo's template prints the last question only, so the pictures alone come before it.
    let [(first, _), (second, reused)] = tokens[..] else { panic!("expected two answers, got {tokens:?}") };
    assert!(second == first && reused > second, "expected the pictures' tokens as reused, got {tokens:?}");
}

#[test]
fn a_question_uses_its_own_compression() {
    let _alone = alone();
    let engine = Engine::start(|| {});
    load(&engine, Wanted::Cpu);
    look(&engine);
    for spec in ["none", "faster-vlm:keep=0.5+fastv", "focus"] {
        let compression = spec.parse().ok();
        ask_with(&engine, AskOptions { compression, ..AskOptions::default() });
        let (used, tokens) = wait(&engine, "an answer", |update| match update {
            Update::Answering { report: Some(report), event: Event::Done(turn), .. } => {
                Some((report["compression"].clone(), turn.statistics.tokens))
            }
            _ => None,
        });
        assert_eq!(used, spec, "compression (got, expected)");
        let fewer = tokens.kept < tokens.compressed && tokens.compressed < tokens.all;
        assert_eq!(fewer, spec != "none", "{spec}: expected fewer tokens at each step, got {tokens:?}");
    }
}

#[test]
fn quantised_weights_are_loaded_and_answer() {
    let _alone = alone();
    let engine = Engine::start(|| {});
    for (precision, name) in [(Precision::Q8, "q8"), (Precision::Q4, "q4")] {
        send(&engine, Command::Load { model: ModelAt::Demo, device: Wanted::Cpu, precision });
        let (dtype, weights, planned) = wait(&engine, "a model", |update| match update {
            Update::Loaded(about) => Some((about.dtype.clone(), about.weights, about.planned)),
            _ => None,
        });
        assert_eq!(dtype, name, "dtype (got, expected)");
        assert!(planned > weights, "{name}: expected a plan above the weights' {weights} bytes, got {planned}");
        look(&engine);
        ask(&engine);
        let (text, _) = answer(&engine);
        assert!(name == "q4" || text == "exit", "{name}: expected exit, got {text}");
    }
}

#[test]
fn a_stopped_answer_does_not_change_the_next_one() {
    let _alone = alone();
    let engine = Engine::start(|| {});
    load(&engine, Wanted::Cpu);
    // Does not wait: the question stops the computation in advance, and continues it.
    send(&engine, Command::Look { picture: rack(), options: AskOptions::default() });
    ask(&engine);
    engine.stop();
    let stopped = |update: &Update| match update {
        Update::Failed { doing: Doing::Answering(RUN), problem } => Some(problem.code),
        _ => None,
    };
    let begin = Instant::now();
    let code = loop {
        assert!(begin.elapsed() < Duration::from_secs(60), "expected the answer to stop within a minute");
        if let Some(code) = engine.updates().find_map(|update| stopped(&update)) {
            break code;
        }
    };
    assert_eq!(code, "stopped");
    ask(&engine);
    assert_eq!(answer(&engine).0, "exit");
}

/// Resident bytes of this process.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}

/// Ten times: load, look, ask, close. After the second time, resident memory grows by less than the weights' 4.9 MB per
/// time.
#[cfg(target_os = "linux")]
fn closing_frees_memory(device: Wanted) {
    let _alone = alone();
    let engine = Engine::start(|| {});
    let mut levels = Vec::new();
    for _ in 0..10 {
        load(&engine, device.clone());
        look(&engine);
        ask(&engine);
        assert_eq!(answer(&engine).0, "exit");
        send(&engine, Command::Close);
        wait(&engine, "a closed model", |update| matches!(update, Update::Closed).then_some(()));
        levels.push(resident() >> 20);
    }
    let (second, last) = (levels[1], levels[9]);
    assert!(last <= second + 24, "expected at most 3 MiB more per time, got resident MiB {levels:?}");
    println!("resident MiB after each time: {levels:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn closing_frees_memory_on_the_cpu() {
    closing_frees_memory(Wanted::Cpu);
}

#[cfg(target_os = "linux")]
#[test]
fn closing_frees_memory_on_an_adapter() {
    if let Some(device) = adapter() {
        closing_frees_memory(device);
    }
}
