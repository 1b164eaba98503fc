//! A conversation: ask, stream, stop, ask again, edit, compare; the settings of answers; the sliders; selecting a token with
//! the keyboard.

use std::{collections::BTreeMap, sync::Arc};

use eframe::egui::{self, Key, Modifiers, Role};
use egui_kittest::kittest::{NodeT, Queryable};
use fovea_app::{
    Notice, Problem, RunState, Theme, Topic,
    engine::{Command, Doing, RunId, Update},
};
use fovea_model::{
    AskOptions, Compression, Error, Event, FinishReason, Looked, METHODS, MemoryBytes, Message, Messages, Prompt,
    Stage, Statistics, TokenCounts, Turn,
};
use serde_json::json;

use super::played::{Played, about, looked};

fn answering(run: RunId, event: Event) -> Update {
    let report = matches!(event, Event::Done(_)).then(|| json!({ "answer": "exit" }));
    Update::Answering { run, event, report, device_memory: Some(21_000_000) }
}

/// All events up to the first words of the answer.
fn begin(window: &mut Played, run: RunId, shown: &Arc<Looked>, words: &[&str]) {
    for (stage, milliseconds) in [(Stage::Prompt, 0.2), (Stage::Prune, 3.0), (Stage::Prefill, 8.0)] {
        window.receive(answering(run, Event::Stage { stage, milliseconds }));
    }
    window.receive(answering(run, Event::Looked(shown.clone())));
    for text in words {
        window.receive(answering(run, Event::Token { id: 7, text: (*text).into() }));
    }
}

fn done(run: RunId, shown: &Arc<Looked>) -> Update {
    let tokens = TokenCounts { all: 304, compressed: 160, kept: shown.kept.len() };
    let statistics = Statistics {
        tokens,
        equivalent_share: if run.other { 1.0 } else { 0.23 },
        cached_tokens: 0,
        stage_ms: BTreeMap::new(),
        first_token_ms: if run.other { 96.0 } else { 11.2 },
        tokens_per_second: Some(41.0),
        memory: MemoryBytes { weights: 4_900_000, kv_cache: 1_100_000, host_peak: Some(412 << 20) },
    };
    let turn = Turn {
        prompt: Prompt::default(),
        looked: vec![shown.clone()],
        text: "exit".into(),
        answer_ids: vec![7, 2],
        finish_reason: FinishReason::Stop,
        step_logits: Vec::new(),
        compression: Compression::focus(),
        pruned: Vec::new(),
        layers: vec![shown.token_count(); 8],
        statistics,
    };
    answering(run, Event::Done(Box::new(turn)))
}

fn type_and_enter(window: &mut Played, question: &str) {
    let field = window.harness.get_by_label("Question");
    field.focus();
    field.type_text(question);
    window.harness.run_steps(2);
    window.harness.key_press(Key::Enter);
    window.harness.run_steps(3);
}

fn asked(window: &mut Played) -> (RunId, Messages, AskOptions, fovea_model::Cancel) {
    match window.command() {
        (Command::Ask { run, messages, options }, cancel) => (run, messages, options, cancel),
        (other, _) => panic!("expected Ask, got {other:?}"),
    }
}

/// Questions and answers in turn.
fn messages(said: &[&str]) -> Messages {
    let message = |(i, text): (usize, &&str)| if i % 2 == 0 { Message::user(*text) } else { Message::assistant(*text) };
    Messages(said.iter().enumerate().map(message).collect())
}

fn click(window: &mut Played, label: &str) {
    window.harness.get_by_label(label).click();
    window.harness.run_steps(4);
}

/// Completes the answer of a run.
fn complete(window: &mut Played, run: RunId, words: &str) {
    let shown = Arc::new(looked(true));
    begin(window, run, &shown, &[words]);
    window.receive(done(run, &shown));
}

fn press(window: &mut Played, key: Key) {
    window.harness.key_press(key);
    window.harness.run_steps(3);
}

fn typed(window: &Played) -> String {
    window.harness.get_by_label("Question").value().unwrap_or_default()
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
    window.receive(done(run, &shown));
    (window, run, shown)
}

/// An Escape that comes after the end of an answer is for no one; the next question can be typed at once.
#[test]
fn escape_after_an_answer_keeps_the_focus() {
    let (mut window, ..) = answered(Theme::Dark, "What word is on the blue sign?", "exit");
    for _ in 0..2 {
        window.harness.get_by_label("Question").focus();
        window.harness.run_steps(2);
        window.harness.key_press(Key::Escape);
        window.harness.run_steps(3);
        assert!(window.harness.get_by_label("Question").is_focused(), "expected the field to keep the keyboard focus");
    }
}

/// In a slow frame the question, its Enter and the Escape after it come together.
#[test]
fn a_question_is_asked_in_a_frame_that_ends_with_escape() {
    let mut window = Played::new(Theme::Dark);
    window.load();
    window.open_plates();
    let field = window.harness.get_by_label("Question");
    field.focus();
    window.harness.run_steps(2);
    for event in ["What", " word?"].map(|text| egui::Event::Text(text.into())) {
        window.harness.input_mut().events.push(event);
    }
    for key in [Key::Enter, Key::Escape] {
        let (physical_key, modifiers) = (None, Modifiers::NONE);
        window.harness.input_mut().events.push(egui::Event::Key {
            key,
            physical_key,
            pressed: true,
            repeat: false,
            modifiers,
        });
    }
    window.harness.run_steps(3);
    assert_eq!(asked(&mut window).1, messages(&["What word?"]));
}

#[test]
fn a_question_streams_is_stopped_is_asked_again_and_compared() {
    let mut window = Played::new(Theme::Dark);
    window.load();
    window.open_plates();
    type_and_enter(&mut window, "What word is on the blue sign?");
    let (run, said, options, cancel) = asked(&mut window);
    assert_eq!((said, run), (messages(&["What word is on the blue sign?"]), RunId { turn: 0, other: false }));
    assert_eq!(options.compression, Some(Compression::focus()), "the checkpoint's compression (got, expected)");
    let shown = Arc::new(looked(true));
    begin(&mut window, run, &shown, &["e", "x"]);
    window.until("a drawing", Played::is_drawn);
    window.snapshot("streaming");

    // A notification above the field does not take the keyboard focus.
    window.session().notices.push(Notice::Message(Topic::Start, "A message.".into()));
    window.harness.run_steps(2);
    assert!(window.harness.get_by_label("Question").is_focused(), "expected the field to keep the keyboard focus");
    window.harness.get_by_label("Dismiss").click();
    window.harness.run_steps(2);
    assert!(window.session().notices.is_empty());

    // During an answer, Enter does not ask another question, and Stop cancels the run.
    type_and_enter(&mut window, "And now?");
    assert!(window.commands.try_recv().is_err(), "expected no second question during an answer");
    window.harness.get_by_label("Stop").click();
    window.harness.run_steps(2);
    assert!(cancel.is_cancelled(), "expected Stop to stop the run");
    window.receive(Update::Failed { doing: Doing::Answering(run), problem: Problem::of(&Error::Cancelled) });
    assert_eq!(window.session().turns[0].answer.state, RunState::Stopped);
    assert!(window.harness.query_by_label("Stopped.").is_some());

    window.harness.get_by_label("Ask").click();
    let (run, said, ..) = asked(&mut window);
    // What was stopped is part of the conversation.
    let expected = messages(&["What word is on the blue sign?", "ex", "And now?"]);
    assert_eq!((&said, run.turn), (&expected, 1));
    begin(&mut window, run, &shown, &["exit"]);
    window.receive(done(run, &shown));
    window.until("a drawing", Played::is_drawn);
    window.snapshot("answered");

    click(&mut window, "Compare with...");
    click(&mut window, "Compare with all tokens");
    let (other, said, options, _) = asked(&mut window);
    assert_eq!((other, said), (RunId { turn: 1, other: true }, expected));
    assert_eq!(options.compression, Some(Compression::none()), "(got, expected)");
    let every = Arc::new(looked(false));
    begin(&mut window, other, &every, &["exit"]);
    window.receive(done(other, &every));
    window.until("drawings", Played::is_drawn);
    window.snapshot("compared");
}

#[test]
fn a_question_is_edited_and_an_answer_is_made_again() {
    let (mut window, ..) = answered(Theme::Dark, "One?", "a");
    type_and_enter(&mut window, "Two?");
    let (run, said, ..) = asked(&mut window);
    assert_eq!(said, messages(&["One?", "a", "Two?"]));
    complete(&mut window, run, "b");
    window.until("a drawing", Played::is_drawn);
    window.snapshot("conversation");

    click(&mut window, "Regenerate");
    let (run, said, ..) = asked(&mut window);
    assert_eq!((run.turn, said), (1, messages(&["One?", "a", "Two?"])));
    complete(&mut window, run, "c");

    window.harness.get_all_by_label("Edit").next().expect("the first question").click();
    window.harness.run_steps(4);
    assert_eq!(typed(&window), "One?");
    click(&mut window, "Cancel edit");
    assert_eq!((typed(&window).as_str(), window.session().turns.len()), ("", 2), "expected nothing to be replaced");
    window.harness.get_all_by_label("Edit").next().expect("the first question").click();
    window.harness.run_steps(4);
    window.harness.get_by_label("Question").set_text_value_accesskit("Zero?");
    window.harness.run_steps(3);
    click(&mut window, "Ask");
    let (run, said, ..) = asked(&mut window);
    assert_eq!((run.turn, said), (0, messages(&["Zero?"])));
    assert_eq!(window.session().turns.len(), 1, "questions after an edit of the first (got, expected)");
}

#[test]
fn a_conversation_begins_again_and_with_another_picture() {
    let (mut window, ..) = answered(Theme::Dark, "One?", "a");
    click(&mut window, "Begin again");
    assert!(window.harness.query_by_label_contains("New conversation about plates.png").is_some());
    assert!(window.session().turns.is_empty() && !window.is_drawn(), "expected neither questions nor an overlay");
    type_and_enter(&mut window, "Two?");
    let (run, said, ..) = asked(&mut window);
    assert_eq!(said, messages(&["Two?"]));
    // The answer is complete before the engine is stopped.
    click(&mut window, "Begin again");
    window.receive(done(run, &Arc::new(looked(true))));
    assert!(window.session().can_ask(), "expected a free engine after the answer to a question that is gone");
    type_and_enter(&mut window, "Three?");
    let (run, ..) = asked(&mut window);
    complete(&mut window, run, "c");
    window.open_plates();
    assert!(window.session().turns.is_empty());
}

#[test]
fn the_arrow_keys_bring_questions_back() {
    let (mut window, ..) = answered(Theme::Dark, "One?", "a");
    click(&mut window, "Begin again");
    type_and_enter(&mut window, "Two?");
    let (run, ..) = asked(&mut window);
    complete(&mut window, run, "b");
    for (key, expected) in [
        (Key::ArrowUp, "Two?"),
        (Key::ArrowUp, "One?"),
        (Key::ArrowUp, "One?"),
        (Key::ArrowDown, "Two?"),
        (Key::ArrowDown, ""),
        (Key::ArrowUp, "Two?"),
    ] {
        press(&mut window, key);
        assert_eq!(typed(&window), expected, "after {key:?}");
    }
    window.harness.get_by_label("Question").type_text("!");
    window.harness.run_steps(3);
    press(&mut window, Key::ArrowUp);
    assert_eq!(typed(&window), "Two?!", "expected a changed question to stay");
    press(&mut window, Key::Enter);
    assert_eq!(asked(&mut window).1, messages(&["Two?", "b", "Two?!"]));
}

#[test]
fn shift_enter_begins_a_new_line() {
    let mut window = Played::new(Theme::Dark);
    window.load();
    window.open_plates();
    window.harness.get_by_label("Question").focus();
    window.harness.get_by_label("Question").type_text("One");
    window.harness.run_steps(2);
    window.harness.key_press_modifiers(Modifiers::SHIFT, Key::Enter);
    window.harness.run_steps(2);
    type_and_enter(&mut window, "line?");
    assert_eq!(asked(&mut window).1, messages(&["One\nline?"]));
}

#[test]
fn a_question_waits_for_the_model() {
    let mut window = Played::new(Theme::Dark);
    window.command();
    window.open_plates_unseen();
    type_and_enter(&mut window, "What?");
    assert!(window.commands.try_recv().is_err(), "expected no question without a model");
    assert!(window.harness.query_by_label_contains("is asked when the model is loaded").is_some());
    window.receive(Update::Loaded(Box::new(about())));
    let (command, _) = window.command();
    assert!(matches!(command, Command::Look { .. }), "expected Look, got {command:?}");
    assert_eq!(asked(&mut window).1, messages(&["What?"]));
}

#[test]
fn the_settings_of_answers_are_used() {
    let (mut window, ..) = answered(Theme::Light, "One?", "a");
    click(&mut window, "Answer");
    window.harness.run_steps(30); // the section has opened
    window.harness.get_by_label("System prompt").set_text_value_accesskit("Be short.");
    for (label, value) in [("Temperature", 0.7), ("Top-p", 0.9), ("Seed", 7.0), ("Length", 64.0)] {
        window.harness.get_by_label(label).set_value_accesskit(value);
        window.harness.run_steps(2);
    }
    window.until("a drawing", Played::is_drawn);
    window.snapshot("settings");
    type_and_enter(&mut window, "Two?");
    let (run, said, options, _) = asked(&mut window);
    let mut expected = messages(&["One?", "a", "Two?"]);
    expected.0.insert(0, Message::system("Be short."));
    assert_eq!(said, expected);
    let pick = options.pick;
    assert_eq!((pick.temperature, pick.top_p, pick.seed, options.max_new_tokens), (0.7, 0.9, 7, 64));
    complete(&mut window, run, "b");

    // A sampled answer that is made again gets another seed.
    click(&mut window, "Regenerate");
    let (run, _, options, _) = asked(&mut window);
    assert_eq!(options.pick.seed, 8, "seed (got, expected)");
    complete(&mut window, run, "c");
    click(&mut window, "Remember the conversation");
    type_and_enter(&mut window, "Three?");
    assert_eq!(asked(&mut window).1, Messages(vec![Message::system("Be short."), Message::user("Three?")]));
}

#[test]
fn an_answer_that_was_cut_says_so() {
    let (mut window, run, shown) = answered(Theme::Dark, "One?", "a");
    let Update::Answering { event: Event::Done(mut turn), .. } = done(run, &shown) else { panic!("expected Done") };
    turn.finish_reason = FinishReason::Length;
    window.receive(answering(run, Event::Done(turn)));
    assert!(window.harness.query_by_label_contains("Cut after 2 tokens").is_some());
}

/// The parts of the window do not overlap, and each has some space, also with the settings of answers open.
#[test]
fn small_windows_have_room_for_every_part() {
    let (mut window, ..) = answered(Theme::Dark, "What word is on the blue sign?", "exit");
    for (name, width, height) in [("small", 800.0, 600.0), ("smallest", 640.0, 480.0)] {
        window.harness.set_size(egui::vec2(width, height));
        window.harness.run_steps(8);
        if name == "smallest" {
            click(&mut window, "Answer");
            window.harness.run_steps(30); // the section has opened
        }
        let labels = ["Picture", "Model", "Device", "View", "Show attention overlay", "Question", "Ask", "Begin again"];
        let mut rects: Vec<_> =
            labels.iter().map(|label| (*label, window.harness.get_by_label(label).rect())).collect();
        let image = window.harness.get_by_role(Role::Image).rect();
        assert!(image.width() > 250.0 && image.height() > 120.0, "{name}: the picture's place is {image}");
        rects.push(("image", image));
        let all = egui::Rect::from_min_size(egui::Pos2::ZERO, egui::vec2(width, height));
        for (i, (label, rect)) in rects.iter().enumerate() {
            assert!(all.contains_rect(*rect), "{name}: expected {label} inside of the window, got {rect}");
            for (other, second) in &rects[..i] {
                let both = rect.intersect(*second);
                assert!(!both.is_positive(), "{name}: expected no overlap of {label} and {other}, got {both}");
            }
        }
        window.until("a drawing", Played::is_drawn);
        window.snapshot(name);
    }
}

#[test]
fn sliders_show_another_layer_and_gamma_without_a_new_answer() {
    let (mut window, run, shown) = answered(Theme::Light, "Is there a red star?", "no");
    window.harness.get_by_role_and_label(Role::Slider, "layer").set_value_accesskit(5.0);
    let (command, _) = window.command();
    let Command::Explain { run: explained, messages: said, options } = command else {
        panic!("expected Explain, got {command:?}")
    };
    assert_eq!((explained, said), (run, messages(&["Is there a red star?"])));
    assert_eq!(options.compression, "focus:layer=5".parse().ok(), "(got, expected)");
    let other = Arc::new(Looked { kept: vec![64, 70], ..looked(true) });
    window.receive(Update::Explained { run, looked: other });
    assert!(window.harness.query_by_label_contains("2 of").is_some(), "expected the count of the other layer");
    let own = window.session().turns[0].answer.looked.as_ref();
    assert!(own.is_some_and(|own| Arc::ptr_eq(own, &shown)), "expected the answer to keep its own selection");
    // The importance is proportional to the index: gamma 0.5 keeps the tokens above 1 / sqrt 2 of the count.
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

/// The name of a method for users.
fn title(name: &str) -> &'static str {
    METHODS.iter().find(|row| row.name == name).expect("a method").title
}

fn ask_next(window: &mut Played) -> Option<Compression> {
    type_and_enter(window, "And now?");
    asked(window).2.compression
}

#[test]
fn a_method_is_chosen_from_the_list() {
    let (mut window, ..) = answered(Theme::Dark, "What?", "a");
    window.harness.get_by_role_and_label(Role::ComboBox, "Compression").click();
    window.harness.run_steps(4);
    window.harness.get_by_label(title("fastv")).click_accesskit();
    window.harness.run_steps(4);
    assert!(
        window.harness.query_by_role_and_label(Role::Slider, "gamma").is_none(),
        "expected no slider of FocusLLaVA"
    );
    window.harness.get_by_role_and_label(Role::Slider, "keep").set_value_accesskit(0.25);
    window.harness.run_steps(4);
    assert_eq!(window.harness.get_by_label("As text").value().as_deref(), Some("fastv:keep=0.25"));
    assert!(window.commands.try_recv().is_err(), "expected no command before the next question");
    window.until("a drawing", Played::is_drawn);
    window.snapshot("method");
    assert_eq!(ask_next(&mut window), "fastv:keep=0.25".parse().ok(), "(got, expected)");
}

fn type_spec(window: &mut Played, label: &str, spec: &str) {
    window.harness.get_by_label(label).focus();
    window.harness.run_steps(2);
    window.harness.get_by_label(label).set_text_value_accesskit(spec);
    window.harness.run_steps(2);
    press(window, Key::Enter);
}

#[test]
fn a_refused_text_shows_the_reason_and_changes_nothing() {
    let (mut window, ..) = answered(Theme::Light, "What?", "a");
    for spec in ["fastv:keep=2.5", "fastv:layer=8"] {
        type_spec(&mut window, "As text", spec);
        assert_eq!(window.harness.get_by_label("As text").value().as_deref(), Some(spec), "(got, expected)");
        assert!(window.harness.query_by_label_contains("Compress: expected").is_some(), "expected the reason: {spec}");
    }
    window.harness.set_size(egui::vec2(720.0, 520.0));
    window.harness.run_steps(4);
    window.snapshot("refused");
    window.harness.set_size(egui::vec2(1180.0, 800.0));
    window.harness.run_steps(4);
    type_spec(&mut window, "As text", "Div-Prune:keep=64+text");
    assert!(window.harness.query_by_label_contains("Compress: expected").is_none(), "expected no reason any more");
    assert_eq!(window.harness.get_by_label("As text").value().as_deref(), Some("div-prune:keep=64+text"));
    window.harness.get_by_label("Reset to model defaults").click();
    window.harness.run_steps(4);
    assert_eq!(window.harness.get_by_label("As text").value().as_deref(), Some("focus"));
    assert_eq!(ask_next(&mut window), Some(Compression::focus()), "(got, expected)");
}

#[test]
fn an_answer_is_compared_with_another_method() {
    let (mut window, _, shown) = answered(Theme::Dark, "What?", "a");
    click(&mut window, "Compare with...");
    window.harness.get_by_label(title("faster-vlm")).click_accesskit();
    window.harness.run_steps(4);
    window.harness.get_by_role_and_label(Role::Slider, "keep").set_value_accesskit(0.4);
    window.harness.run_steps(4);
    click(&mut window, "Compare with FasterVLM (keep=0.4)");
    let (other, said, options, _) = asked(&mut window);
    assert_eq!((other, said), (RunId { turn: 0, other: true }, messages(&["What?"])));
    assert_eq!(options.compression, "faster-vlm:keep=0.4".parse().ok(), "(got, expected)");
    begin(&mut window, other, &shown, &["b"]);
    window.receive(done(other, &shown));
    for with in ["FocusLLaVA", "FasterVLM (keep=0.4)"] {
        for label in [format!("With {with}"), format!("Attention overlay of plates.png with {with}")] {
            assert!(window.harness.query_by_label(&label).is_some(), "expected {label}");
        }
    }
    // The sliders do not change the answer for comparison.
    window.harness.get_by_role_and_label(Role::Slider, "layer").set_value_accesskit(5.0);
    window.harness.run_steps(4);
    assert!(window.commands.try_recv().is_err(), "expected no command for the answer for comparison");

    // The same method with another budget; the comparison before is replaced.
    click(&mut window, "Compare with...");
    type_spec(&mut window, "Other compression as text", "focus:gamma=0.5");
    click(&mut window, "Compare with FocusLLaVA (gamma=0.5)");
    let (other, _, options, _) = asked(&mut window);
    assert_eq!(other, RunId { turn: 0, other: true });
    assert_eq!(options.compression, "focus:gamma=0.5".parse().ok(), "(got, expected)");
}

#[test]
fn the_keyboard_selects_tokens() {
    let (mut window, ..) = answered(Theme::Dark, "What?", "a");
    window.until("a drawing", Played::is_drawn);
    window.harness.get_by_role(Role::Image).focus();
    window.harness.run_steps(2);
    window.harness.key_press(Key::Period);
    window.harness.run_steps(3);
    let image = window.harness.get_by_role(Role::Image);
    assert!(image.is_focused(), "expected the picture to keep the keyboard focus");
    let words = image.accesskit_node().label().unwrap_or_default();
    assert!(
        words.contains("Picture plates.png. Token 65 of ") && words.contains(": 4x4 patches") && words.contains("kept"),
        "got {words}"
    );
    window.snapshot("token");
}
