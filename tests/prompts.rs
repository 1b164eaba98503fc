//! Token ids of questions, compared with Hugging Face's, and streaming conversion of ids to text.

use fovea_model::{Checkpoint, Grid, Message, Messages, Part, Prompter, Role};
use fovea_runtime::source::Source;
use fovea_tests::{
    checkpoint::Files,
    golden::{fixtures, json, rows, text},
    numbers::Numbers,
    run::open,
};
use proptest::prelude::*;

const MODELS: [&str; 11] = [
    "tiny-0",
    "mistral-0",
    "vicuna-0",
    "bos-0",
    "published-vicuna-0",
    "published-mistral-0",
    "qwen2-0",
    "yi-0",
    "interleave-0",
    "onevision-0",
    "granite-0",
];
/// Number of rows in `prompts.json`: 47 prompts for each of the models.
const PROMPTS: usize = 47 * MODELS.len();

fn checkpoint(model: &str) -> Checkpoint {
    open(Source::directory(fixtures().join(model)).expect("a directory")).unwrap_or_else(|e| panic!("{model}: {e}"))
}

/// Ids and texts of the tokens added to a model's vocabulary.
fn added(model: &str) -> Vec<(u32, String)> {
    let tokenizer = json(&format!("{model}/tokenizer.json"));
    let tokens = tokenizer["added_tokens"].as_array().expect("a list of added tokens");
    let tokens: Vec<_> =
        tokens.iter().map(|t| (t["id"].as_u64().expect("an id") as u32, text(t, "content").to_owned())).collect();
    assert!(!tokens.is_empty(), "{model}: expected added tokens, got none");
    tokens
}

/// The added tokens among `ids`, in order.
fn specials(ids: &[u32], added: &[(u32, String)]) -> Vec<u32> {
    ids.iter().copied().filter(|id| added.iter().any(|(special, _)| special == id)).collect()
}

#[test]
fn ids_of_awkward_prompts_are_hugging_face_s() {
    let rows = rows("prompts.json");
    assert_eq!(rows.len(), PROMPTS, "prompts (got, expected)");
    let mut failed = Vec::new();
    for model in MODELS {
        let checkpoint = checkpoint(model);
        let mine: Vec<_> = rows.iter().filter(|row| text(row, "model") == model).collect();
        assert_eq!(mine.len() * MODELS.len(), PROMPTS, "{model}: prompts times models (got, expected)");
        for row in mine {
            let expected: Vec<u32> = row["ids"]
                .as_array()
                .expect("a list of ids")
                .iter()
                .map(|id| id.as_u64().expect("an id") as u32)
                .collect();
            match checkpoint.prompter.encode(text(row, "prompt"), &[Grid::default()]) {
                Ok(got) if got.ids != expected => {
                    failed.push(format!(
                        "{model}: {:?}: expected {expected:?}, got {:?}",
                        text(row, "prompt"),
                        got.ids
                    ));
                }
                Ok(got) => {
                    let image = got.ids.get(got.places[0]).copied();
                    assert_eq!(image, checkpoint.config.image_token, "{model}: the picture's id (got, expected)");
                    assert_eq!([got.lead(), got.after()].concat(), got.ids);
                }
                Err(e) => failed.push(format!("{model}: {:?}: expected ids, got: {e}", text(row, "prompt"))),
            }
        }
    }
    assert!(failed.is_empty(), "expected every prompt to pass, got {} failures:\n{}", failed.len(), failed.join("\n"));
}

/// The templates of `tiny-0` and `mistral-0` print BOS. The published templates do not: there, the tokenizer's
/// post-processor adds it. `vicuna-0` and `yi-0` do neither.
#[test]
fn bos_comes_first_and_once() {
    for (model, bos, expected) in [
        ("tiny-0", 0, 1),
        ("mistral-0", 0, 1),
        ("vicuna-0", 1, 0),
        ("bos-0", 480, 1),
        ("published-vicuna-0", 1, 1),
        ("published-mistral-0", 1, 1),
        ("yi-0", 1, 0),
    ] {
        let prompter = checkpoint(model).prompter;
        for question in ["", "x", "<s> </s> <|begin_of_text|> <image>", "<s>", "<|begin_of_text|>"] {
            let ids = prompter.encode(question, &[Grid::default()]).unwrap().ids;
            let found = ids.iter().filter(|&&id| id == bos).count();
            assert_eq!(found, expected, "{model}: {question:?}: BOS (got, expected) in {ids:?}");
            assert_eq!(ids[0] == bos, expected == 1, "{model}: {question:?}: BOS first (got, expected) in {ids:?}");
        }
    }
}

#[test]
fn nothing_typed_by_the_user_becomes_a_special_token() {
    for model in MODELS {
        let (checkpoint, added) = (checkpoint(model), added(model));
        let template = specials(&checkpoint.prompter.encode("x", &[Grid::default()]).unwrap().ids, &added);
        let typed = rows("prompts.json").into_iter().map(|row| text(&row, "prompt").to_owned());
        let spelled = added.iter().flat_map(|(_, token)| {
            [
                token.clone(),
                format!("{token}{token}"),
                format!(" {token}\n"),
                format!("a{token}b"),
                format!("{token}\u{e000}"),
            ]
        });
        for question in typed.chain(spelled) {
            let got = specials(&checkpoint.prompter.encode(&question, &[Grid::default()]).unwrap().ids, &added);
            assert_eq!(got, template, "{model}: {question:?}: special tokens (got, those of the template)");
        }
    }
}

#[test]
fn nothing_in_any_message_becomes_a_special_token() {
    let dialogue = |texts: [&str; 3]| {
        Messages(vec![Message::user(texts[0]), Message::assistant(texts[1]), Message::user(texts[2])])
    };
    for model in MODELS {
        let (checkpoint, added) = (checkpoint(model), added(model));
        let ids =
            |texts: [&str; 3]| checkpoint.prompter.encode(dialogue(texts), &[Grid::default()]).map(|prompt| prompt.ids);
        let Ok(template) = ids(["x", "x", "x"]) else { continue };
        let template = specials(&template, &added);
        for (_, token) in &added {
            let (token, spaced) = (token.as_str(), format!(" {token}\u{e000}\n"));
            let all = [&*spaced, token, &*spaced];
            for texts in [[token, "x", "x"], ["x", token, "x"], ["x", "x", token], all] {
                let got = specials(&ids(texts).unwrap(), &added);
                assert_eq!(got, template, "{model}: {texts:?}: special tokens (got, those of the template)");
            }
        }
    }
}

#[test]
fn a_special_token_in_two_parts_stays_text() {
    let text = |text: &str| Part::Text(text.to_owned());
    let user = |content: Vec<Part>| Messages(vec![Message { role: Role::User, content }]);
    for model in MODELS {
        let (checkpoint, added) = (checkpoint(model), added(model));
        let ids = |content| checkpoint.prompter.encode(user(content), &[Grid::default()]).map(|prompt| prompt.ids);
        for (_, token) in &added {
            for (at, _) in token.char_indices().skip(1) {
                let (start, end) = token.split_at(at);
                let [one, two] = [start, end].map(text);
                for parts in
                    [vec![Part::Picture, one.clone(), two.clone()], vec![one.clone(), Part::Picture, two.clone()]]
                {
                    let plain = parts.iter().map(|part| if *part == Part::Picture { Part::Picture } else { text("x") });
                    let template = specials(&ids(plain.collect()).unwrap(), &added);
                    let got = specials(&ids(parts.clone()).unwrap(), &added);
                    assert_eq!(got, template, "{model}: {parts:?}: special tokens (got, those of the template)");
                }
            }
        }
    }
}

#[test]
fn a_question_may_begin_before_its_picture() {
    // Only byte-level tokenizers: Llama's changes spaces.
    for model in ["tiny-0", "mistral-0", "bos-0"] {
        let prompter = checkpoint(model).prompter;
        let first = "What is in the picture";
        let content = vec![Part::Text(first.to_owned()), Part::Picture];
        let messages = Messages(vec![Message { role: Role::User, content }]);
        let prompt = prompter.encode(messages, &[Grid::default()]).unwrap();
        let shown = prompter.decode(&prompt.question()).unwrap();
        assert!(shown.contains(first), "{model}: expected {first:?} in the question, got {shown:?}");
        let alone = prompter.encode(first, &[Grid::default()]).unwrap();
        assert_eq!(alone.question(), alone.after(), "{model}: a question after its picture (got, expected)");
    }
}

#[test]
fn bos_does_not_depend_on_a_message() {
    // LLaVA's template begins with the system text.
    let prompter = checkpoint("original-vicuna-0").prompter;
    let ids = |system: &str| {
        let messages = Messages(vec![Message::system(system), Message::user("x")]);
        prompter.encode(messages, &[Grid::default()]).unwrap().ids
    };
    let bos = ids("plain")[0];
    assert_eq!(bos, 1, "BOS (got, expected)");
    let typed = ids("<s> is a tag");
    assert_eq!(
        (typed[0], typed.iter().filter(|&&id| id == bos).count()),
        (bos, 1),
        "BOS: first, number (got, expected)"
    );
}

#[test]
fn a_template_for_texts_gets_texts() {
    let mut files = Files::fixture("tiny-0");
    let template = "{% for m in messages %}{% if m.content is string %}[{{ m.role }}: {{ m.content }}]{% else %}[{{ m.role }}: {% for c in m.content %}{% if c.type == 'image' %}<image>{% elif loop.first %}{{ m.content }}{% else %}{{ c.text }}{% endif %}{% endfor %}]{% endif %}{% endfor %}>";
    files.put("chat_template.jinja", template);
    let prompter = open(files.source()).unwrap().prompter;
    let mut messages = Messages(vec![Message::system("be short"), Message::user("a"), Message::assistant("b")]);
    messages.push(Message::user("c"));
    let prompt = prompter.encode(messages, &[Grid::default()]).unwrap();
    let shown = prompter.decode(&prompt.ids).unwrap();
    assert_eq!(shown, "[system: be short][user: a][assistant: b][user: c]>", "the prompt (got, expected)");
}

#[test]
fn the_users_text_is_preserved() {
    // Only byte-level tokenizers: Llama's changes spaces.
    for model in ["tiny-0", "mistral-0", "bos-0"] {
        let prompter = checkpoint(model).prompter;
        for row in rows("prompts.json") {
            let question = text(&row, "prompt");
            let shown = prompter.decode(prompter.encode(question, &[Grid::default()]).unwrap().after()).unwrap();
            assert!(shown.contains(question), "{model}: expected {question:?} in the prompt, got {shown:?}");
        }
    }
}

/// Special tokens, parts of them, and text that looks like template syntax.
const SPELLINGS: &[&str] = &[
    "<image>",
    "<|eot_id|>",
    "<|begin_of_text|>",
    "</s>",
    "<s>",
    "<",
    "image>",
    "|eot_id|>",
    "\u{e000}",
    "{{ bos_token }}",
    "{% raw %}",
    " ",
    "\n",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_mixture_of_words_and_spellings_makes_a_special_token(
        parts in prop::collection::vec(
            prop_oneof![
                (0usize..64).prop_map(|i| i.to_string()),
                prop::sample::select(SPELLINGS).prop_map(str::to_owned),
                "\\PC{0,4}",
            ],
            0..8,
        ),
    ) {
        thread_local! {
            static ALL: Vec<(Checkpoint, Vec<(u32, String)>)> =
                MODELS.iter().map(|model| (checkpoint(model), added(model))).collect();
        }
        let question = parts.concat();
        ALL.with(|all| {
            for (Checkpoint { prompter, .. }, added) in all {
                let template = specials(&prompter.encode("x", &[Grid::default()]).unwrap().ids, added);
                let got = specials(&prompter.encode(&question, &[Grid::default()]).unwrap().ids, added);
                prop_assert_eq!(got, template, "{:?}", question);
            }
            Ok(())
        })?;
    }
}

/// The text of a streaming decoder, piece by piece.
fn streamed(prompter: &Prompter, ids: &[u32]) -> String {
    let mut decoder = prompter.detokenizer();
    ids.iter().map(|&id| decoder.push(id).expect("a piece of text")).collect()
}

/// The same, with the text that the decoder holds back until the end.
fn shown(prompter: &Prompter, ids: &[u32]) -> String {
    let mut decoder = prompter.detokenizer();
    let mut text: String = ids.iter().map(|&id| decoder.push(id).expect("a piece of text")).collect();
    text += &decoder.finish().expect("the end of the text");
    text
}

#[test]
fn streamed_text_equals_the_decoded_text_except_an_incomplete_character() {
    for model in ["tiny-0", "mistral-0"] {
        let checkpoint = checkpoint(model);
        let prompter = &checkpoint.prompter;
        let mut numbers = Numbers::new(7);
        for _ in 0..400 {
            let ids: Vec<u32> =
                (0..1 + numbers.below(24)).map(|_| numbers.below(checkpoint.config.text.vocab) as u32).collect();
            // Random bytes usually end inside a character; the decoder holds this end back.
            let mut prefixes = (0..=ids.len()).rev().map(|n| prompter.decode(&ids[..n]).unwrap());
            let expected = prefixes.find(|text| !text.ends_with('\u{fffd}')).unwrap_or_default();
            assert_eq!(streamed(prompter, &ids), expected, "{model}: {ids:?}: text (got, expected)");
        }
    }
}

#[test]
fn streamed_text_of_llama_s_tokenizer_keeps_every_space() {
    let checkpoint = checkpoint("vicuna-0");
    let prompter = &checkpoint.prompter;
    // Ids 3 to 258 are single bytes, which are rarely valid UTF-8 in random order; the others are words and special
    // tokens. A special token inside an answer must not remove the space after it.
    let words: Vec<u32> = (0..482).filter(|id| !(3..259).contains(id)).collect();
    let mut numbers = Numbers::new(8);
    for _ in 0..400 {
        let ids: Vec<u32> = (0..1 + numbers.below(12)).map(|_| words[numbers.below(words.len())]).collect();
        assert_eq!(streamed(prompter, &ids), prompter.decode(&ids).unwrap(), "{ids:?}: text (got, expected)");
    }
    // Invalid bytes turn their whole run into U+FFFD, including complete characters in it. For random bytes, split
    // anywhere, the streamed text must be a prefix of the decoded text.
    for _ in 0..400 {
        let ids: Vec<u32> = (0..1 + numbers.below(12)).map(|_| numbers.below(482) as u32).collect();
        assert_eq!(shown(prompter, &ids), prompter.decode(&ids).unwrap(), "{ids:?}: text (got, expected)");
    }
    // `a`, é and the first two of three bytes of 中: Hugging Face's decoder prints four U+FFFD after the `a`.
    let letter = prompter
        .encode("a", &[Grid::default()])
        .unwrap()
        .after()
        .iter()
        .copied()
        .find(|&id| prompter.decode(&[id]).unwrap() == "a");
    let byte = |byte: u32| 3 + byte;
    let ids = [letter.expect("a token"), byte(0xc3), byte(0xa9), byte(0xe4), byte(0xb8)];
    assert_eq!(shown(prompter, &ids), "a\u{fffd}\u{fffd}\u{fffd}\u{fffd}", "a cut character (got, expected)");
    assert_eq!(shown(prompter, &[&ids[..], &[byte(0xad)]].concat()), "aé中", "whole characters (got, expected)");
    // Complete characters of several bytes appear with the next token.
    for question in ["🦙 ünïcödé", "数字は何ですか 🟥🏳️‍🌈 🇩🇪", "x 👩‍🚀x", "Žluťoučký kůň"]
    {
        let ids = prompter.encode(question, &[Grid::default()]).unwrap().after().to_vec();
        assert_eq!(shown(prompter, &ids), prompter.decode(&ids).unwrap(), "{question}: text (got, expected)");
    }
}

#[test]
fn a_padded_vocabulary_has_rows_that_are_never_chosen() {
    for (model, rows, tokens) in [("vicuna-0", 490, 482), ("bos-0", 504, 488), ("published-vicuna-0", 576, 561)] {
        let checkpoint = checkpoint(model);
        let allowed = checkpoint.prompter.allowed();
        assert_eq!(allowed.len(), rows, "{model}: rows of the embedding (got, expected)");
        assert_eq!(
            allowed.iter().position(|a| !a),
            Some(tokens),
            "{model}: the first row without a token (got, expected)"
        );
        assert!(
            allowed[tokens..].iter().all(|a| !a),
            "{model}: expected the last rows to be forbidden, got {:?}",
            &allowed[tokens..]
        );
    }
}

#[test]
fn stop_ids_come_from_the_checkpoint() {
    for (model, expected) in [
        ("tiny-0", vec![4, 1]),
        ("mistral-0", vec![4]),
        ("vicuna-0", vec![2]),
        ("bos-0", vec![485]),
        ("published-vicuna-0", vec![2]),
        ("published-mistral-0", vec![2]),
        ("qwen2-0", vec![482]),
        ("yi-0", vec![7]),
        ("llava15-0", vec![2]),
        ("smolvlm-0", vec![523]),
        ("granite-0", vec![0]),
        ("original-qwen-0", vec![482, 480]),
    ] {
        assert_eq!(checkpoint(model).prompter.stop_ids(), expected, "{model}: stop ids (got, expected)");
    }
}
