//! Several messages: ids, answers and logits are those of Hugging Face, and a continued conversation equals a new one.
//!
//! Expected values are in `fixtures/dialogues.json` (`reference/make_dialogues.py`). Logits have the bound of `stages`; pairs of
//! runs have that of `identities`, because a continued conversation splits matrix products differently.

use std::{collections::BTreeMap, sync::Arc};

use fovea_model::{AskOptions, Compression, Conversation, Error, Message, Messages, Model, Part, Picture, Turn};
use fovea_runtime::OpenDevice;
use fovea_tests::{
    checkpoint::Files,
    closeness::compare,
    device,
    golden::{count, json, text},
    run::{compressed, fixture, load, options, picture},
};
use pollster::block_on;
use serde_json::Value;

/// The dialogues whose pictures are before the text of the first question.
const PICTURES_FIRST: [&str; 5] = ["system", "three", "system-three", "odd", "two-first"];
/// The dialogues that also run on wgpu.
const ON_WGPU: [&str; 5] = ["vicuna", "qwen2", "smolvlm", "two-pictures", "text"];
/// Bound for logits with another order of summation, as NMSE.
const SAME: f64 = 1e-10;

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("expected a list `{key}`, got {}", value[key]))
}

fn integers(value: &Value, key: &str) -> Vec<usize> {
    list(value, key).iter().map(|id| id.as_u64().expect("an integer") as usize).collect()
}

fn floats(value: &Value, key: &str) -> Vec<f64> {
    list(value, key).iter().map(|number| number.as_f64().expect("a number")).collect()
}

fn messages(value: &Value) -> Messages {
    serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("expected messages, got {value}: {e}"))
}

fn pictures(files: &[Value]) -> Vec<Picture> {
    let file = |file: &Value| file.as_str().and_then(|file| file.strip_prefix("pictures/")).map(picture);
    files.iter().map(|name| file(name).expect("a picture's path")).collect()
}

fn about(model: &Arc<Model>, pictures: &[Picture]) -> Conversation {
    Conversation::about(model, pictures.to_vec()).expect("a conversation")
}

fn ask(what: &str, conversation: &mut Conversation, messages: &Messages, options: &AskOptions) -> Turn {
    *block_on(conversation.answer(messages, options)).unwrap_or_else(|e| panic!("{what}: expected an answer, got: {e}"))
}

fn wide(ids: &[u32]) -> Vec<usize> {
    ids.iter().map(|&id| id as usize).collect()
}

#[test]
fn ids_of_dialogues_are_hugging_face_s() {
    let all = json("dialogues.json");
    let images = pictures(list(&all, "pictures"));
    let (mut models, mut failed, mut refusals) = (BTreeMap::new(), Vec::new(), 0);
    let rows = list(&all, "prompts");
    for row in rows {
        let (name, template, dialogue) = (text(row, "model"), row["template"].as_str(), text(row, "dialogue"));
        let model = models.entry((name, template)).or_insert_with(|| {
            let mut files = Files::fixture(name);
            if let Some(template) = template {
                files.put("chat_template.jinja", text(&all["templates"], template));
            }
            load(files.source(), device::cpu()).unwrap_or_else(|e| panic!("{name}: expected a model, got: {e}"))
        });
        let placed = messages(&all["dialogues"][dialogue]);
        let mut forms = vec![placed.clone()];
        if PICTURES_FIRST.contains(&dialogue) {
            let mut unplaced = placed.clone();
            unplaced.0.iter_mut().for_each(|message| message.content.retain(|part| *part != Part::Picture));
            forms.push(unplaced);
        }
        for form in forms {
            let what = format!("{name}, template {template:?}, {dialogue}, {} places", form.pictures());
            let got = about(model, &images[..placed.pictures()]).prompt(form);
            match (got, row["refused"].as_str()) {
                (Ok(prompt), None) => {
                    let (expected, got) = (integers(row, "ids"), wide(&prompt.ids));
                    if got != expected {
                        failed.push(format!("{what}: expected {expected:?}, got {got:?}"));
                    }
                    assert_eq!([prompt.lead(), prompt.after()].concat(), prompt.ids, "{what}: parts (got, expected)");
                    assert!(prompt.places.iter().all(|&place| place < prompt.lead().len()), "{what}: {prompt:?}");
                }
                (Err(Error::Tokenizer { why, .. }), Some(reason)) if why.contains(reason) => refusals += 1,
                (got, None) => failed.push(format!("{what}: expected ids, got {got:?}")),
                (got, Some(reason)) => failed.push(format!("{what}: expected the error {reason:?}, got {got:?}")),
            }
        }
    }
    assert!(failed.is_empty(), "{} dialogues are wrong:\n{}", failed.len(), failed.join("\n"));
    assert!(rows.len() >= 232, "expected at least 232 prompts, got {}", rows.len());
    assert!(refusals >= 9, "expected at least 9 refusals, got {refusals}");
}

/// Compares every turn in a new conversation, and in one that has answered the turns before.
fn answers_are_hugging_face_s(open: &OpenDevice, wanted: impl Fn(&str) -> bool) -> usize {
    let all = json("dialogues.json");
    let mut checked = 0;
    for row in list(&all, "answers").iter().filter(|row| wanted(text(row, "case"))) {
        let name = text(row, "case");
        let model = fixture(text(row, "model"), open);
        let images = pictures(list(row, "images"));
        let options = AskOptions { compression: Some(Compression::none()), ..options(count(row, "new")) };
        let whole = messages(&row["messages"]);
        let (mut continued, mut cached) = (about(&model, &[]), None);
        for (i, turn) in list(row, "turns").iter().enumerate() {
            let said = Messages(whole.0[..count(turn, "messages")].to_vec());
            let images = &images[..said.pictures()];
            // A conversation has all its pictures from its beginning.
            if i == 0 || continued.pictures().len() != images.len() {
                (continued, cached) = (about(&model, images), None);
            }
            for (kind, conversation) in [("new", &mut about(&model, images)), ("continued", &mut continued)] {
                let what = format!("{name}, turn {i}, a {kind} conversation");
                let got = ask(&what, conversation, &said, &options);
                assert_eq!(wide(&got.answer_ids), integers(turn, "answer_ids"), "{what}: answer (got, expected)");
                assert_eq!(got.text, text(turn, "text"), "{what}: text (got, expected)");
                let logits = got.step_logits.first().unwrap_or_else(|| panic!("{what}: expected logits, got none"));
                compare(&what, &floats(turn, "logits"), logits).abs_within(1e-3).unwrap();
                let reused = got.statistics.cached_tokens;
                match cached.filter(|_| kind == "continued") {
                    None => assert_eq!(reused, 0, "{what}: cached tokens (got, expected)"),
                    Some(before) => {
                        assert!(reused > before, "{what}: expected more than {before} cached tokens, got {reused}");
                    }
                }
                if kind == "continued" {
                    cached = Some(reused);
                }
            }
            checked += 1;
        }
    }
    checked
}

#[test]
fn answers_are_hugging_face_s_on_the_cpu() {
    let turns = answers_are_hugging_face_s(device::cpu(), |_| true);
    assert!(turns >= 45, "expected at least 45 turns, got {turns}");
}

#[test]
fn answers_are_hugging_face_s_on_wgpu() {
    if let Some(open) = device::wgpu("answers of several turns") {
        let turns = answers_are_hugging_face_s(open, |case| ON_WGPU.contains(&case));
        assert_eq!(turns, 3 * ON_WGPU.len(), "turns (got, expected)");
    }
}

/// The specification scores the tokens in one run over the whole text.
#[test]
fn visual_tokens_are_scored_for_the_last_question_alone() {
    let all = json("dialogues.json");
    let rows = list(&all, "scores");
    assert!(rows.len() >= 2, "expected at least 2 dialogues, got {}", rows.len());
    for row in rows {
        let name = text(row, "model");
        let model = fixture(name, device::cpu());
        let images = pictures(std::slice::from_ref(&row["image"]));
        let whole = messages(&all["dialogues"][text(row, "dialogue")]);
        let options = compressed("focus", 1);
        let mut continued = about(&model, &images);
        let earlier = Messages(whole.0[..whole.0.len() - 2].to_vec());
        ask(name, &mut continued, &earlier, &options);
        for (kind, conversation) in [("new", &mut about(&model, &images)), ("continued", &mut continued)] {
            let what = format!("{name}, a {kind} conversation");
            let turn = ask(&what, conversation, &whole, &options);
            assert_eq!(
                turn.prompt.lead().len(),
                count(row, "asked_at"),
                "{what}: start of the question (got, expected)"
            );
            let looked = &turn.looked[0];
            let importance = |key| compare(&what, &floats(row, key), &looked.importance);
            importance("importance").nmse_within(1e-8).unwrap();
            assert_eq!(looked.kept, integers(row, "kept"), "{what}: kept tokens (got, expected)");
            // The test can fail: with the earlier messages the scores would be others.
            let other = importance("whole").nmse;
            assert!(other > 1e-2, "{what}: expected other scores for the whole text, got an NMSE of {other:e}");
        }
    }
}

/// Checks for equal decisions and close numbers.
fn agree(what: &str, expected: &Turn, got: &Turn) {
    assert_eq!(got.prompt, expected.prompt, "{what}: prompt (got, expected)");
    assert_eq!(got.answer_ids, expected.answer_ids, "{what}: answer (got, expected)");
    assert_eq!(got.layers, expected.layers, "{what}: visual tokens per layer (got, expected)");
    assert_eq!(got.statistics.tokens, expected.statistics.tokens, "{what}: counts (got, expected)");
    assert_eq!(got.looked.len(), expected.looked.len(), "{what}: pictures (got, expected)");
    for (got, expected) in got.looked.iter().zip(&expected.looked) {
        assert_eq!(got.kept, expected.kept, "{what}: kept tokens (got, expected)");
        assert_eq!(got.origins, expected.origins, "{what}: origins (got, expected)");
        compare(what, &expected.importance, &got.importance).nmse_within(SAME).unwrap();
    }
    compare(what, &expected.step_logits.concat(), &got.step_logits.concat()).nmse_within(SAME).unwrap();
}

#[test]
fn a_continued_conversation_equals_a_new_one() {
    for (name, spec, files) in [
        ("tiny-0", "focus", &["200x200-0.png"][..]),
        ("tiny-0", "pyramid-drop", &["48x48-0.png"]),
        ("tiny-0", "text", &["48x48-0.png", "61x130-0.png"]),
        ("vicuna-0", "focus", &["61x130-0.png"]),
        ("stock-0", "text", &["48x48-0.png"]),
        ("onevision-0", "focus", &["61x130-0.png"]),
        ("smolvlm-0", "focus", &["61x130-0.png"]),
        ("original-mistral-0", "focus", &["48x48-0.png"]),
        ("tiny-0", "focus", &[]),
    ] {
        let model = fixture(name, device::cpu());
        let images: Vec<Picture> = files.iter().map(|file| picture(file)).collect();
        let options = compressed(spec, 4);
        let mut continued = about(&model, &images);
        let mut turn = |step: &str, said: &Messages| {
            let what = format!("{name}, {spec}, {} pictures, {step}", images.len());
            let expected = ask(&what, &mut about(&model, &images), said, &options);
            let got = ask(&what, &mut continued, said, &options);
            agree(&what, &expected, &got);
            assert_eq!(expected.statistics.cached_tokens, 0, "{what}: cached tokens, new (got, expected)");
            got
        };
        let (mut said, mut cached) = (Messages::default(), 0);
        for (i, question) in ["What number is on the shirt?", "And what color is it?", "Where?"].into_iter().enumerate()
        {
            said.push(Message::user(question));
            let got = turn(&format!("turn {i}"), &said);
            let reused = got.statistics.cached_tokens;
            let is_reused =
                if i == 0 { reused == 0 } else { reused > cached && reused > got.statistics.tokens.compressed };
            assert!(is_reused, "{name}, {spec}, turn {i}: cached tokens {reused}, before {cached}");
            cached = reused;
            said.push(Message::assistant(got.text));
        }
        let whole = said;
        let first = |n: usize| Messages(whole.0[..n].to_vec());
        let reused = turn("the last answer again", &first(5)).statistics.cached_tokens;
        assert!(reused >= cached, "{name}, {spec}: expected at least {cached} cached tokens, got {reused}");
        let mut other = first(2);
        other.push(Message::user("Is it green?"));
        let reused = turn("another second question", &other).statistics.cached_tokens;
        assert!(reused > 0, "{name}, {spec}: expected cached tokens, got none");
        let mut other = first(3);
        other.0[1] = Message::assistant("The number 12.");
        turn("another first answer", &other);
        turn("another first question", &Messages::from("Is it green?"));
        let mut other = first(5);
        other.0.insert(0, Message::system("Be brief."));
        turn("a system message", &other);
        turn("the first messages again", &first(5));
    }
}
