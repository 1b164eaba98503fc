//! A conversation: asked, streamed, stopped, asked again, compared; the sliders; the token under the keyboard.

use std::{collections::BTreeMap, sync::Arc};

use eframe::egui::Role;
use egui_kittest::kittest::{NodeT, Queryable};
use fovea_app::{
    Notice, Problem, Progress, Theme,
    engine::{Command, Doing, Event, RunId},
};
use fovea_model::{
    AskOptions, Error, Event as Answering, Looked, MemoryBytes, Prompt, Stage, Statistics, TokenCounts, Turn,
};
use serde_json::json;

use super::played::{Played, looked};

fn answering(run: RunId, event: Answering) -> Event {
    let report = matches!(event, Answering::Done(_)).then(|| json!({ "answer": "exit" }));
    Event::Answering { run, event, report, device_memory: Some(21_000_000) }
}

/// Everything up to the first words.
fn begin(window: &mut Played, run: RunId, shown: &Arc<Looked>, words: &[&str]) {
    for (stage, milliseconds) in [(Stage::Prompt, 0.2), (Stage::TextSampler, 3.0), (Stage::Prefill, 8.0)] {
        window.hear(answering(run, Answering::Stage { stage, milliseconds }));
    }
    window.hear(answering(run, Answering::Looked(shown.clone())));
    for text in words {
        window.hear(answering(run, Answering::Token { id: 7, text: (*text).into() }));
    }
}

fn done(run: RunId, shown: &Arc<Looked>) -> Event {
    let tokens = TokenCounts { stock: 304, vision: 160, text: shown.kept.len() };
    let statistics = Statistics {
        tokens,
        equivalent_share: if run.full { 1.0 } else { 0.23 },
        stage_ms: BTreeMap::new(),
        first_token_ms: if run.full { 96.0 } else { 11.2 },
        tokens_per_second: Some(41.0),
        memory: MemoryBytes { weights: 4_900_000, kv_cache: 1_100_000, host_peak: Some(412 << 20) },
    };
    let prompt = Prompt { ids: vec![1, 5, 2], image_at: 1 };
    let turn = Turn { prompt, looked: shown.clone(), answer_ids: vec![7, 2], step_logits: Vec::new(), statistics };
    answering(run, Answering::Done(Box::new(turn)))
}

fn type_and_enter(window: &mut Played, question: &str) {
    let field = window.harness.get_by_label("Question");
    field.focus();
    field.type_text(question);
    window.harness.run_steps(2);
    window.harness.key_press(eframe::egui::Key::Enter);
    window.harness.run_steps(3);
}

fn asked(window: &mut Played) -> (RunId, String, AskOptions, fovea_model::Cancel) {
    match window.command() {
        (Command::Ask { run, question, options }, cancel) => (run, question, options, cancel),
        (other, _) => panic!("expected Ask, got {other:?}"),
    }
}

/// A window with one answer.
fn answered(theme: Theme, question: &str, words: &str) -> (Played, RunId, Arc<Looked>) {
    let mut window = Played::new(theme);
    window.load();
    window.open_plates();
    type_and_enter(&mut window, question);
    let (run, ..) = asked(&mut window);
    let shown = Arc::new(looked(true));
    begin(&mut window, run, &shown, &[words]);
    window.hear(done(run, &shown));
    (window, run, shown)
}

#[test]
fn a_question_streams_is_stopped_is_asked_again_and_compared() {
    let mut window = Played::new(Theme::Dark);
    window.load();
    window.open_plates();
    type_and_enter(&mut window, "What word is on the blue sign?");
    let (run, question, options, cancel) = asked(&mut window);
    assert_eq!((question.as_str(), run), ("What word is on the blue sign?", RunId { turn: 0, full: false }));
    assert_eq!((options.vision, options.text, options.keep), (Some(true), Some(true), None));
    let shown = Arc::new(looked(true));
    begin(&mut window, run, &shown, &["e", "x"]);
    window.until("a drawing", Played::is_drawn);
    window.snapshot("streaming");

    // A notice above does not take the keyboard away.
    window.session().notices.push(Notice::Word("Something to know.".into()));
    window.harness.run_steps(2);
    assert!(window.harness.get_by_label("Question").is_focused(), "expected the field to keep the keyboard");
    window.harness.get_by_label("Dismiss").click();
    window.harness.run_steps(2);
    assert!(window.session().notices.is_empty());

    // While it answers, Enter asks nothing more, and Escape stops.
    type_and_enter(&mut window, "And now?");
    assert!(window.commands.try_recv().is_err(), "expected no second question while one is answered");
    window.harness.get_by_label("Stop").click();
    window.harness.run_steps(2);
    assert!(cancel.is_cancelled(), "expected Stop to stop the run");
    window.hear(Event::Failed { doing: Doing::Answering(run), problem: Problem::of(&Error::Cancelled) });
    assert_eq!(window.session().turns[0].focused.progress, Progress::Stopped);
    assert!(window.harness.query_by_label("Stopped.").is_some());

    window.harness.get_by_label("Ask").click();
    let (run, question, _, _) = asked(&mut window);
    assert_eq!((question.as_str(), run.turn), ("And now?", 1));
    begin(&mut window, run, &shown, &["exit"]);
    window.hear(done(run, &shown));
    window.until("a drawing", Played::is_drawn);
    window.snapshot("answered");

    window.harness.get_by_label("Compare with every token").click();
    let (full, question, options, _) = asked(&mut window);
    assert_eq!((full, question.as_str()), (RunId { turn: 1, full: true }, "And now?"));
    assert_eq!((options.vision, options.text), (Some(false), Some(false)));
    let every = Arc::new(looked(false));
    begin(&mut window, full, &every, &["exit"]);
    window.hear(done(full, &every));
    window.until("a drawing", Played::is_drawn);
    window.snapshot("compared");
}

#[test]
fn sliders_show_another_layer_and_gamma_without_a_new_answer() {
    let (mut window, run, shown) = answered(Theme::Light, "Is there a red star?", "no");
    window.harness.get_by_role_and_label(Role::Slider, "layer").set_value_accesskit(5.0);
    let (command, _) = window.command();
    let Command::Explain { run: explained, question, options } = command else {
        panic!("expected Explain, got {command:?}")
    };
    assert_eq!((explained, question.as_str(), options.layer), (run, "Is there a red star?", Some(5)));
    let other = Arc::new(Looked { kept: vec![64, 70], ..looked(true) });
    window.hear(Event::Explained { run, looked: other });
    assert!(window.harness.query_by_label_contains("2 of").is_some(), "expected the count of the other layer");
    // Importance rises along the tokens, in proportion to the index: gamma .5 keeps those above 1 / sqrt 2 of them all.
    window.harness.get_by_role_and_label(Role::Slider, "gamma").set_value_accesskit(0.5);
    window.harness.run_steps(4);
    let count = shown.importance.len();
    let kept = (0..count).rev().scan(0usize, |sum, i| {
        let before = *sum;
        *sum += i;
        Some(before)
    });
    let kept = kept.take_while(|before| 2 * before <= count * (count - 1) / 2).count();
    let text = format!("{kept} of {count} kept");
    assert!(window.harness.query_by_label_contains(&text).is_some(), "expected {text:?} in the numbers");
    assert!(window.commands.try_recv().is_err(), "expected gamma to need no engine");
    window.until("a drawing", Played::is_drawn);
    window.snapshot("sliders");
}

#[test]
fn the_keyboard_alone_tells_of_tokens() {
    let (mut window, ..) = answered(Theme::Dark, "What?", "a");
    window.until("a drawing", Played::is_drawn);
    window.harness.get_by_role(Role::Image).focus();
    window.harness.run_steps(2);
    window.harness.key_press(eframe::egui::Key::Period);
    window.harness.run_steps(3);
    let told = window.harness.get_by_role(Role::Image);
    assert!(told.is_focused(), "expected the picture to keep the keyboard");
    let words = told.accesskit_node().label().unwrap_or_default();
    assert!(
        words.contains("Picture plates.png. Token 65 of ") && words.contains(": 4x4 patches") && words.contains("kept"),
        "got {words}"
    );
    window.snapshot("token");
}
