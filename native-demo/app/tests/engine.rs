//! The engine's thread with the real demo checkpoint: answers, stops, loses its device and comes back, and gives back what
//! it took.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use fovea_app::engine::{Command, Doing, Engine, Event, ModelAt, RunId, Wanted};
use fovea_model::{AskOptions, Event as Answering, Picture, Precision};
use fovea_runtime::device::adapters;

/// Held by the test that runs: what another loads would be taken for what this one kept.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const RUN: RunId = RunId { turn: 0, full: false };

/// Waits for the event that `pick` picks. What fails unexpectedly ends the test.
fn wait<T>(engine: &Engine, what: &str, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        for event in engine.heard() {
            if let Some(found) = pick(&event) {
                return found;
            }
            assert!(!matches!(event, Event::Failed { .. }), "expected {what}, got {event:?}");
        }
        assert!(begin.elapsed() < Duration::from_secs(240), "expected {what} within four minutes");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn send(engine: &Engine, command: Command) {
    engine.send(command).expect("a thread that listens");
}

fn load(engine: &Engine, device: Wanted) {
    send(engine, Command::Load { model: ModelAt::Demo, device, precision: Precision::Auto });
    wait(engine, "a model", |event| matches!(event, Event::Loaded(_)).then_some(()));
}

fn rack() -> Arc<Picture> {
    Arc::new(Picture::decode(include_bytes!("../../pictures/rack.jpg")).expect("a picture"))
}

fn look(engine: &Engine) {
    send(engine, Command::Look { picture: rack(), options: AskOptions::default() });
    wait(engine, "what can be computed ahead", |event| matches!(event, Event::Prepared).then_some(()));
}

fn ask(engine: &Engine) {
    let question = "What word is on the blue sign?".to_owned();
    send(engine, Command::Ask { run: RUN, question, options: AskOptions::default() });
}

/// The whole answer, and the names of its stages.
fn answer(engine: &Engine) -> (String, Vec<&'static str>) {
    let (mut text, mut stages) = (String::new(), Vec::new());
    wait(engine, "an answer", |event| {
        let Event::Answering { run: RUN, event, report, .. } = event else { return None };
        match event {
            Answering::Token { text: more, .. } => text += more,
            Answering::Stage { stage, .. } => stages.push(stage.name()),
            Answering::Done(_) => {
                assert_eq!(report.as_ref().and_then(|r| r["answer"].as_str()), Some(text.trim()));
                return Some(());
            }
            Answering::Looked(_) | Answering::Progress(_) => {}
        }
        None
    });
    (text.trim().to_owned(), stages)
}

/// The first adapter; None, and a line that says so, where there is none. `FOVEA_REQUIRE_ADAPTER` makes that a failure.
fn adapter() -> Option<Wanted> {
    let found = pollster::block_on(adapters()).first().map(Wanted::of);
    assert!(found.is_some() || std::env::var_os("FOVEA_REQUIRE_ADAPTER").is_none(), "expected an adapter, found none");
    if found.is_none() {
        println!("SKIP: no adapter");
    }
    found
}

#[test]
fn what_was_computed_ahead_is_not_computed_again() {
    let _alone = alone();
    let engine = Engine::start(|| {});
    load(&engine, Wanted::Cpu);
    look(&engine);
    ask(&engine);
    let (text, stages) = answer(&engine);
    assert_eq!(text, "exit");
    for ahead in ["tiles", "vision_tower", "vision_sampler", "image_prefill"] {
        assert!(!stages.contains(&ahead), "expected {ahead} done before the question, got {stages:?}");
    }
}

#[test]
fn a_stopped_answer_leaves_the_next_one_as_it_would_have_been() {
    let _alone = alone();
    let engine = Engine::start(|| {});
    load(&engine, Wanted::Cpu);
    // Not waited for: asking stops what is computed ahead, and goes on from there.
    send(&engine, Command::Look { picture: rack(), options: AskOptions::default() });
    ask(&engine);
    engine.stop();
    let stopped = |event: &Event| match event {
        Event::Failed { doing: Doing::Answering(RUN), problem } => Some(problem.code),
        _ => None,
    };
    let begin = Instant::now();
    let code = loop {
        assert!(begin.elapsed() < Duration::from_secs(60), "expected the answer to stop within a minute");
        if let Some(code) = engine.heard().find_map(|event| stopped(&event)) {
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

/// Ten times: load, look, ask, close. After the second time nothing more is kept than a few allocations' worth: below a
/// weight's 4.9 MB a time.
#[cfg(target_os = "linux")]
fn memory_comes_back(device: Wanted) {
    let _alone = alone();
    let engine = Engine::start(|| {});
    let mut levels = Vec::new();
    for _ in 0..10 {
        load(&engine, device.clone());
        look(&engine);
        ask(&engine);
        assert_eq!(answer(&engine).0, "exit");
        send(&engine, Command::Close);
        wait(&engine, "a closed model", |event| matches!(event, Event::Closed).then_some(()));
        levels.push(resident() >> 20);
    }
    let (second, last) = (levels[1], levels[9]);
    assert!(last <= second + 24, "expected at most 3 MiB more a time, got resident MiB {levels:?}");
    println!("resident MiB after each time: {levels:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn memory_comes_back_on_the_cpu() {
    memory_comes_back(Wanted::Cpu);
}

#[cfg(target_os = "linux")]
#[test]
fn memory_comes_back_on_an_adapter() {
    if let Some(device) = adapter() {
        memory_comes_back(device);
    }
}
