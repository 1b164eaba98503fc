//! Pairs of runs that must agree, on the CPU: reused and fresh state, after a stopped run and without it, one
//! checkpoint in several formats. Some tests run on all devices.
//!
//! If the same operations run on the same numbers, the bits must be equal. If a matrix product is split differently
//! (the question alone, or together with the picture), sums may round differently; then the bound for logits is NMSE
//! 1e-10, a relative error of 1e-5.

use std::{pin::pin, sync::Arc};

use fovea_model::{
    AskOptions, Cancel, Compression, Conversation, Error, LoadOptions, Message, Messages, Model, Naming, Pick, Picture,
    Precision, Stage, TextGuided, Turn, Within, trace::trace,
};
use fovea_runtime::{Keep, TokenBox, device::DeviceClass};
use fovea_shaders::compact;
use fovea_tests::{
    checkpoint::Files,
    closeness::{compare, same_bits},
    device::{all, cpu},
    golden::{floats, indices},
    run::{ENOUGH, ask, compressed, fixture, load, open, options, picture, poll},
};
use pollster::block_on;
use safetensors::Dtype;
use serde_json::json;

/// Bound for logits with another order of summation.
const SAME: f64 = 1e-10;
const SHIRT: &str = "What number is on the shirt?";

fn fresh(model: &Arc<Model>, picture: &Picture, question: &str, options: &AskOptions) -> Turn {
    ask(&mut Conversation::new(model, picture.clone()), question, options).expect("a fresh run")
}

/// Checks for equal decisions and close logits.
fn agree(what: &str, expected: &Turn, got: &Turn) {
    assert_eq!(got.answer_ids, expected.answer_ids, "{what}: answer (got, expected)");
    assert_eq!(got.looked[0].kept, expected.looked[0].kept, "{what}: kept tokens (got, expected)");
    assert_eq!(got.looked[0].choice, expected.looked[0].choice, "{what}: scales (got, expected)");
    assert_eq!(got.looked[0].origins, expected.looked[0].origins, "{what}: origins (got, expected)");
    assert_eq!(got.statistics.tokens, expected.statistics.tokens, "{what}: counts (got, expected)");
    compare(what, &expected.step_logits.concat(), &got.step_logits.concat()).nmse_within(SAME).unwrap();
}

/// Checks for equal decisions and equal bits.
fn equal(what: &str, expected: &Turn, got: &Turn) {
    agree(what, expected, got);
    same_bits(what, &expected.step_logits.concat(), &got.step_logits.concat()).unwrap();
}

/// Two questions with `memory` bytes; None where that is too little.
fn two_questions(memory: Option<u64>) -> Option<[Turn; 2]> {
    let load = LoadOptions { precision: Precision::F32, memory, ..LoadOptions::default() };
    let checkpoint = open(Files::fixture("stock-0").source()).expect("a fixture's checkpoint");
    let model = block_on(Model::load(checkpoint, cpu().clone(), load, &Cancel::default(), |_| ())).ok()?;
    let mut conversation = Conversation::new(&model, picture("200x200-0.png"));
    // Room for a long answer, so that the question needs more than loading; it ends after one token.
    let options = AskOptions { forced: vec![7, 4], ..compressed("none", 4000) };
    Some([
        ask(&mut conversation, "How many people are there?", &options).ok()?,
        ask(&mut conversation, SHIRT, &options).ok()?,
    ])
}

#[test]
fn without_room_for_a_second_cache_the_picture_is_computed_again() {
    let expected = two_questions(None).expect("answers without a limit");
    assert!(expected[1].statistics.cached_tokens > 0, "expected that the prefix is kept, got 0 tokens");
    let (mut least, mut most) = (0, 1 << 30);
    while most - least > 256 {
        let middle = u64::midpoint(least, most);
        if two_questions(Some(middle)).is_some() { most = middle } else { least = middle }
    }
    let got = two_questions(Some(most)).expect("answers with the least memory");
    assert_eq!(got[1].statistics.cached_tokens, 0, "tokens of the prefix with {most} bytes (got, expected)");
    for (got, expected) in got.iter().zip(&expected) {
        equal("with the least memory", expected, got);
    }
}

/// A checkpoint whose selector always chooses the scale with this index.
fn always(scale: usize) -> Files {
    let mut files = Files::fixture("tiny-0");
    files.edit("scale_selector.weight", |t| t.bytes.fill(0));
    files.edit("scale_selector.bias", |t| {
        let bias: Vec<f32> = (0..3).map(|i| if i == scale { 1.0 } else { 0.0 }).collect();
        t.store(&bias, Dtype::F32);
    });
    files
}

#[test]
fn all_regions_at_1x1_are_the_stock_sequence_bit_for_bit() {
    for open in all("all regions at 1x1") {
        let model = load(always(2).source(), open).unwrap();
        // Whole regions; partial regions at the bottom; the same with a wide map; one region that is partial on both sides.
        for file in ["200x200-0.png", "61x130-0.png", "333x75-0.png", "17x211-0.png"] {
            let what = format!("{}: {file}", open.info);
            let run = |spec| {
                let options = compressed(spec, 4);
                pollster::block_on(trace(&mut Conversation::new(&model, picture(file)), SHIRT, &options)).unwrap()
            };
            let (sampled, stock) = (run("focus"), run("text"));
            for stage in ["visual_tokens", "importance", "step_logits"] {
                let (expected, got) = (floats(&stock, stage), floats(&sampled, stage));
                assert_eq!(got.0, expected.0, "{what}: {stage}: shape (got, expected)");
                same_bits(&format!("{what}: {stage}"), expected.1, got.1).unwrap();
            }
            for stage in ["kept_visual", "answer_ids", "token_counts"] {
                assert_eq!(indices(&sampled, stage), indices(&stock, stage), "{what}: {stage} (got, expected)");
            }
            assert!(indices(&sampled, "scale_choice").iter().all(|&s| s == 2), "{what}: expected every region at 1x1");
        }
    }
}

#[test]
fn one_scale_everywhere_gives_the_counts_computed_by_hand() {
    // 200x200 on tiles of 8x8 patches: a map of 16x16 and a thumbnail of 64. All 4x4: 4 rows of 4 and a newline; all
    // 2x2: 8 rows of 8 and a newline; all 1x1: 16 rows of 16 and a newline.
    for (scale, expected) in [(0, 64 + 4 * 5), (1, 64 + 8 * 9), (2, 64 + 16 * 17)] {
        let model = load(always(scale).source(), cpu()).unwrap();
        let turn = fresh(&model, &picture("200x200-0.png"), SHIRT, &options(1));
        let tokens = turn.statistics.tokens;
        assert_eq!((tokens.all, tokens.compressed), (336, expected), "scale {scale}: counts (got, expected)");
    }
}

#[test]
fn dropping_the_thumbnail_changes_nothing_else() {
    let mut files = Files::fixture("tiny-0");
    files.config("/focus/thumbnail", json!("drop"));
    let tokens = |files: &Files, file| {
        let mut conversation = Conversation::new(&load(files.source(), cpu()).unwrap(), picture(file));
        let trace = pollster::block_on(trace(&mut conversation, SHIRT, &options(1))).unwrap();
        floats(&trace, "visual_tokens").1.to_vec()
    };
    let (with, without) = (tokens(&Files::fixture("tiny-0"), "61x130-0.png"), tokens(&files, "61x130-0.png"));
    same_bits("visual tokens after the thumbnail's 64", &with[64 * 64..], &without).unwrap();
    // If the map is empty, the thumbnail is kept.
    assert_eq!(tokens(&files, "5x211-1.png").len(), 64 * 64, "numbers of the thumbnail (got, expected)");
}

#[test]
fn gamma_1_is_the_text_sampler_off() {
    let model = fixture("tiny-0", cpu());
    for file in ["200x200-0.png", "61x130-0.png"] {
        let off = fresh(&model, &picture(file), SHIRT, &compressed("vision", 6));
        for spec in ["focus:gamma=1", "focus:keep=1.0", "focus:keep=100000"] {
            let all = fresh(&model, &picture(file), SHIRT, &compressed(spec, 6));
            agree(&format!("{file}: {spec}"), &off, &all);
            assert_eq!(all.looked[0].importance.len(), all.looked[0].kept.len(), "{file}: scores and kept tokens");
        }
    }
}

#[test]
fn budgets_keep_the_requested_number_of_tokens() {
    let model = fixture("tiny-0", cpu());
    let image = picture("200x200-0.png");
    let keep = |keep| {
        let mut compression = Compression::focus();
        compression.within = Within::Text(TextGuided { layer: None, keep: Some(keep) });
        let options = AskOptions { compression: Some(compression), ..options(2) };
        fresh(&model, &image, SHIRT, &options).looked[0].kept.clone()
    };
    // 133 visual tokens (the trace of tiny-both).
    for (budget, expected) in [
        (Keep::Count(1), 1),
        (Keep::Count(40), 40),
        (Keep::Ratio(0.25), 34),
        (Keep::Ratio(1e-9), 1),
        (Keep::Gamma(1e-9), 1),
    ] {
        assert_eq!(keep(budget).len(), expected, "{budget:?}: kept tokens (got, expected)");
    }
    let (few, many) = (keep(Keep::Gamma(0.3)), keep(Keep::Gamma(0.9)));
    assert!(few.len() < many.len(), "expected gamma .9 to keep more than .3's {}, got {}", few.len(), many.len());
    assert!(few.iter().all(|k| many.contains(k)), "expected {few:?} among {many:?}");
}

#[test]
fn each_of_several_questions_equals_a_fresh_run() {
    for name in ["tiny-0", "vicuna-0", "mistral-0"] {
        let model = fixture(name, cpu());
        let image = picture("200x200-0.png");
        let mut conversation = Conversation::new(&model, image.clone());
        let reused = [Stage::Tiles, Stage::VisionTower, Stage::Compress, Stage::ImagePrefill];
        for (turn, question) in [SHIRT, "x", "", "How many people are there?", SHIRT].into_iter().enumerate() {
            let got = ask(&mut conversation, question, &options(5)).unwrap();
            equal(&format!("{name}: question {turn}"), &fresh(&model, &image, question, &options(5)), &got);
            for stage in reused {
                let ran = got.statistics.stage_ms.contains_key(&stage);
                assert_eq!(ran, turn == 0, "{name}: question {turn}: whether {stage:?} ran (got, expected)");
            }
            for stage in [Stage::Prompt, Stage::Prune, Stage::Prefill, Stage::Decode] {
                assert!(got.statistics.stage_ms.contains_key(&stage), "{name}: question {turn}: expected {stage:?}");
            }
        }
    }
}

#[test]
fn changed_settings_equal_fresh_runs() {
    let model = fixture("tiny-0", cpu());
    let image = picture("333x75-0.png");
    let mut conversation = Conversation::new(&model, image.clone());
    let steps = [
        ("as configured", "focus"),
        ("vision off", "text"),
        ("vision on again", "focus"),
        ("scales drawn", "focus:random=1"),
        ("scales drawn with another seed", "focus:random=2"),
        ("drawn scales, another layer", "focus:random=2,layer=3"),
        ("vision off after a seed", "text"),
        ("scales selected again", "focus"),
        ("layer up", "focus:layer=4"),
        ("layer down", "focus:layer=1"),
        ("the first layer", "focus:layer=0"),
        ("the last layer", "focus:layer=5"),
        ("text off", "vision"),
        ("text on again", "focus"),
        ("gamma down", "focus:gamma=0.3"),
        ("gamma up", "focus:gamma=0.95"),
        ("both off", "none"),
        ("both on", "focus"),
    ];
    for (what, spec) in steps {
        let options = compressed(spec, 4);
        let got = ask(&mut conversation, SHIRT, &options).unwrap();
        agree(what, &fresh(&model, &image, SHIRT, &options), &got);
    }
}

/// The device chooses the tokens that the host chooses from the same logits.
#[test]
fn tokens_chosen_on_the_device_equal_those_chosen_from_logits() {
    for open in all("tokens chosen on the device") {
        let (model, image) = (fixture("seven-0", open), picture("200x200-0.png"));
        for spec in ["vision", "focus:layer=0", "focus:layer=2"] {
            let host = compressed(spec, 8);
            let expected = fresh(&model, &image, SHIRT, &host).answer_ids;
            let got = fresh(&model, &image, SHIRT, &AskOptions { keep_logits: false, ..host }).answer_ids;
            assert_eq!(got, expected, "{}: {spec} (got, expected)", open.info);
        }
    }
}

#[test]
fn random_scales_depend_only_on_the_seed() {
    let image = picture("200x200-0.png");
    let mut everywhere = Vec::new();
    for open in all("drawn scales") {
        let model = fixture("tiny-0", open);
        let mut conversation = Conversation::new(&model, image.clone());
        let mut run = |spec: &str| ask(&mut conversation, SHIRT, &compressed(spec, 2)).expect("an answer");
        let before = run("focus");
        let drawn: Vec<Turn> = (0..24).map(|seed| run(&format!("focus:random={seed}"))).collect();
        agree("the same seed again", &drawn[7], &run("focus:random=7"));
        let seventh = compressed("focus:random=7", 2);
        agree("a fresh run of a seed", &drawn[7], &fresh(&model, &image, SHIRT, &seventh));
        agree("the selector again", &before, &run("focus"));
        let choices: Vec<_> = drawn.iter().map(|turn| turn.looked[0].choice.clone()).collect();
        assert!(choices.windows(2).all(|two| two[0] != two[1]), "expected a different draw for every seed");
        // 16 regions per run, 384 in total: a third is 128, with a standard deviation of 9.
        for scale in 0..3 {
            let count = choices.iter().flat_map(|c| c.iter()).filter(|&&c| c == scale).count();
            assert!((92..=164).contains(&count), "scale {scale}: expected about 128 of 384, got {count}");
        }
        // The emitted tokens have the drawn scales.
        for turn in &drawn {
            let (choice, scales) = (&turn.looked[0].choice, &turn.looked[0].scales);
            let boxes: Vec<TokenBox> = compact(16, 16, 4, scales, choice).into_iter().map(|(b, _)| b).collect();
            let got: Vec<TokenBox> = turn.looked[0].tokens().into_iter().flat_map(|token| token.patches).collect();
            assert_eq!(got, boxes, "tokens at the drawn scales (got, expected)");
            assert!(!turn.answer_ids.is_empty(), "expected an answer");
        }
        everywhere.push(choices);
    }
    assert!(everywhere.windows(2).all(|two| two[0] == two[1]), "expected the same draws on every device");
}

#[test]
fn a_question_dropped_at_any_point_leaves_no_trace() {
    let model = fixture("tiny-0", cpu());
    let image = picture("48x48-0.png");
    let expected = fresh(&model, &image, SHIRT, &options(3));
    let mut points = 0;
    loop {
        let mut conversation = Conversation::new(&model, image.clone());
        let short = options(3);
        let (ended, error) = poll(pin!(conversation.ask(SHIRT, &short)), points);
        assert!(error.is_none(), "dropped after {points} polls: expected no error, got {error:?}");
        equal(
            &format!("after a drop at poll {points}"),
            &expected,
            &ask(&mut conversation, SHIRT, &options(3)).unwrap(),
        );
        if ended {
            break;
        }
        points += 1;
    }
    // Two vision layers, two decoder layers for the picture, two and four for the question: ten points inside layers.
    assert!(points > 10, "expected stops inside layers too, got {points} points");
}

#[test]
fn a_question_cancelled_at_any_point_leaves_no_trace() {
    let model = fixture("tiny-0", cpu());
    let image = picture("48x48-0.png");
    let expected = fresh(&model, &image, SHIRT, &options(3));
    let (mut points, mut cancelled) = (0, 0);
    loop {
        let mut conversation = Conversation::new(&model, image.clone());
        let cancel = Cancel::default();
        let stoppable = AskOptions { cancel: cancel.clone(), ..options(3) };
        let ended = {
            let mut events = pin!(conversation.ask(SHIRT, &stoppable));
            let (ended, error) = poll(events.as_mut(), points);
            assert!(error.is_none(), "before a cancel at poll {points}: expected no error, got {error:?}");
            cancel.cancel();
            if !ended {
                match poll(events, ENOUGH) {
                    (true, Some(Error::Cancelled)) => cancelled += 1,
                    // The cancellation came after the last check, so the answer completed.
                    (true, None) => {}
                    other => panic!("cancelled at poll {points}: expected it to stop, got {other:?}"),
                }
            }
            ended
        };
        let what = format!("after a cancel at poll {points}");
        equal(&what, &expected, &ask(&mut conversation, SHIRT, &options(3)).unwrap());
        if ended {
            break;
        }
        points += 1;
    }
    assert!(cancelled > 10, "expected a stop at every layer and token, got {cancelled} of {points}");
}

#[test]
fn a_deeper_question_stopped_halfway_leaves_no_trace() {
    let model = fixture("tiny-0", cpu());
    let image = picture("48x48-0.png");
    let deep = || compressed("focus:layer=4", 3);
    let (shallow_expected, deep_expected) =
        (fresh(&model, &image, SHIRT, &options(3)), fresh(&model, &image, SHIRT, &deep()));
    for dropped in [true, false] {
        for points in 0.. {
            let mut conversation = Conversation::new(&model, image.clone());
            ask(&mut conversation, "Is it a shirt?", &options(1)).unwrap();
            let cancel = Cancel::default();
            let stoppable = AskOptions { cancel: cancel.clone(), ..deep() };
            let ended = {
                let mut events = pin!(conversation.ask(SHIRT, &stoppable));
                let (ended, _) = poll(events.as_mut(), points);
                if !dropped && !ended {
                    cancel.cancel();
                    assert!(poll(events, ENOUGH).0, "cancelled at poll {points}: expected an end");
                }
                ended
            };
            let what = format!("stopped at poll {points}, dropped: {dropped}");
            agree(&what, &deep_expected, &ask(&mut conversation, SHIRT, &deep()).unwrap());
            agree(&what, &shallow_expected, &ask(&mut conversation, SHIRT, &options(3)).unwrap());
            if ended {
                break;
            }
        }
    }
}

#[test]
fn a_later_turn_dropped_at_any_point_leaves_no_trace() {
    for device in all("identities") {
        let model = fixture("stock-0", device);
        let image = picture("48x48-0.png");
        let mut messages = Messages::from("Is it a shirt?");
        messages.push(Message::assistant("Yes, and a sign is beside it."));
        messages.push(Message::user(SHIRT));
        let options = options(3);
        let answer = |conversation: &mut Conversation, messages: Messages| {
            pollster::block_on(conversation.answer(messages, &options)).expect("an answer")
        };
        let expected = answer(&mut Conversation::new(&model, image.clone()), messages.clone());
        // A software GPU is slow.
        let step = if device.info.class == DeviceClass::Cpu { 1 } else { 5 };
        for points in (0..).step_by(step) {
            let mut conversation = Conversation::new(&model, image.clone());
            answer(&mut conversation, "Is it a shirt?".into());
            let ended = poll(pin!(conversation.ask(&messages, &options)), points).0;
            let got = answer(&mut conversation, messages.clone());
            let what = format!("{}: dropped at poll {points}", device.info.name);
            assert_eq!(got.answer_ids, expected.answer_ids, "{what}: answer (got, expected)");
            assert_eq!(got.looked[0].kept, expected.looked[0].kept, "{what}: kept tokens (got, expected)");
            compare(&what, &expected.step_logits.concat(), &got.step_logits.concat()).nmse_within(1e-8).unwrap();
            assert!(got.statistics.cached_tokens > 0, "{what}: expected reused tokens");
            if ended {
                break;
            }
        }
    }
}

#[test]
fn a_run_cancelled_before_it_starts_stops() {
    let model = fixture("tiny-0", cpu());
    let stopped = options(3);
    stopped.cancel.cancel();
    let got = ask(&mut Conversation::new(&model, picture("48x48-0.png")), SHIRT, &stopped);
    assert!(matches!(got, Err(Error::Cancelled)), "expected `stopped`, got {:?}", got.map(|t| t.answer_ids));
}

#[test]
fn greedy_is_the_largest_logit_whatever_the_other_settings() {
    let model = fixture("tiny-0", cpu());
    let image = picture("200x200-0.png");
    let greedy = fresh(&model, &image, SHIRT, &options(8));
    for (step, logits) in greedy.step_logits.iter().enumerate() {
        let largest = (0..logits.len()).reduce(|best, i| if logits[i] > logits[best] { i } else { best });
        assert_eq!(Some(greedy.answer_ids[step] as usize), largest, "step {step}: id (got, expected)");
    }
    for pick in [
        Pick { temperature: 0.0, top_k: 3, top_p: 0.5, seed: 9, repetition_penalty: None },
        // The best two logits differ by more than .01 in this case, so a temperature of 1e-5 makes the best one
        // certain.
        Pick { temperature: 1e-5, seed: 3, ..Pick::default() },
        Pick { temperature: 2.0, top_k: 1, ..Pick::default() },
    ] {
        let got = fresh(&model, &image, SHIRT, &AskOptions { pick, ..options(8) });
        assert_eq!(got.answer_ids, greedy.answer_ids, "{pick:?}: answer (got, expected)");
    }
}

#[test]
fn equal_seeds_give_equal_answers_and_different_seeds_different_ones() {
    let model = fixture("tiny-0", cpu());
    let image = picture("48x48-0.png");
    let draw = |seed| {
        let pick = Pick { temperature: 1.5, seed, ..Pick::default() };
        fresh(&model, &image, SHIRT, &AskOptions { pick, ..options(6) }).answer_ids
    };
    let drawn: Vec<Vec<u32>> = (0..5).map(draw).collect();
    for (seed, ids) in drawn.iter().enumerate() {
        assert_eq!(&draw(seed as u64), ids, "seed {seed}: second draw, first draw");
    }
    assert!(drawn.iter().any(|ids| *ids != drawn[0]), "expected seeds to differ, got {drawn:?}");
}

/// The name of a tensor of the hub's layout in another layout.
fn renamed(name: &str, naming: Naming, flat: bool) -> String {
    let (text, head, vision, projector, rest) = match naming {
        Naming::Hub => {
            ("language_model.model.", "language_model.lm_head.", "vision_tower.", "multi_modal_projector.", "")
        }
        Naming::Transformers => {
            ("model.language_model.", "lm_head.", "model.vision_tower.", "model.multi_modal_projector.", "model.")
        }
        Naming::Original => ("model.", "lm_head.", "model.vision_tower.vision_tower.", "model.mm_projector.", "model."),
        other => panic!("expected a layout of LLaVA-NeXT, got {other:?}"),
    };
    if let Some(name) = name.strip_prefix("language_model.model.") {
        format!("{text}{name}")
    } else if let Some(name) = name.strip_prefix("language_model.lm_head.") {
        format!("{head}{name}")
    } else if let Some(name) = name.strip_prefix("vision_tower.vision_model.") {
        format!("{vision}{}{name}", if flat { "" } else { "vision_model." })
    } else if let Some(name) = name.strip_prefix("multi_modal_projector.") {
        let original = naming == Naming::Original;
        let name = if original { name.replace("linear_1", "0").replace("linear_2", "2") } else { name.to_owned() };
        format!("{projector}{name}")
    } else if name == "image_newline" {
        format!("{rest}{name}")
    } else {
        name.to_owned()
    }
}

#[test]
fn three_namings_and_any_number_of_shards_give_one_answer() {
    let image = picture("61x130-0.png");
    let good = Files::fixture("tiny-0");
    let expected = fresh(&load(good.source(), cpu()).unwrap(), &image, SHIRT, &options(3));
    for naming in [Naming::Hub, Naming::Transformers, Naming::Original] {
        for flat in [false, true] {
            for shards in [1, 3] {
                let what = format!("{naming:?}, without vision_model: {flat}, {shards} files");
                let mut files = good.clone();
                let mut tensors = good.tensors();
                tensors.iter_mut().for_each(|t| t.name = renamed(&t.name, naming, flat));
                files.set_tensors(&tensors, shards);
                let checkpoint =
                    open(files.source()).unwrap_or_else(|e| panic!("{what}: expected it to open, got: {e}"));
                assert_eq!(checkpoint.names.naming, naming, "{what}: naming (got, expected)");
                assert_eq!(checkpoint.weights.files().len(), shards, "{what}: files (got, expected)");
                equal(&what, &expected, &fresh(&load(files.source(), cpu()).unwrap(), &image, SHIRT, &options(3)));
            }
        }
    }
}

#[test]
fn weights_that_16_bits_can_hold_give_one_answer_in_every_dtype() {
    let image = picture("61x130-0.png");
    let stored = |dtype| {
        let mut files = Files::fixture("tiny-0");
        let mut tensors = files.tensors();
        for t in &mut tensors {
            // Rounds to bf16's eight bits, then to f16's range, so that both types hold the value exactly.
            let both = |v: f32| half::f16::from_f32(half::bf16::from_f32(v).to_f32()).to_f32();
            let values: Vec<f32> = t.floats().into_iter().map(both).collect();
            t.store(&values, dtype);
            assert_eq!(t.floats(), values, "{}: values that {dtype:?} holds (got, expected)", t.name);
        }
        files.set_tensors(&tensors, 1);
        fresh(&load(files.source(), cpu()).unwrap(), &image, SHIRT, &options(4))
    };
    let expected = stored(Dtype::F32);
    equal("f16", &expected, &stored(Dtype::F16));
    equal("bf16", &expected, &stored(Dtype::BF16));
}

#[test]
fn a_tied_head_is_the_embedding() {
    let image = picture("61x130-0.png");
    let tied = Files::fixture("mistral-0");
    let head = "language_model.lm_head.weight";
    assert!(tied.tensors().iter().all(|t| t.name != head), "expected a checkpoint without {head}");
    let mut untied = tied.clone();
    let mut tensors = tied.tensors();
    let mut copy = tied.tensor("language_model.model.embed_tokens.weight");
    copy.name = head.to_owned();
    tensors.push(copy);
    untied.set_tensors(&tensors, 1);
    untied.config("/tie_word_embeddings", json!(false));
    untied.config("/text_config/tie_word_embeddings", json!(false));
    let run = |files: &Files| fresh(&load(files.source(), cpu()).unwrap(), &image, SHIRT, &options(4));
    let expected = run(&untied);
    equal("tied", &expected, &run(&tied));
    // An untied head is read: halving it changes the logits.
    let last = tensors.len() - 1;
    let halved: Vec<f32> = tensors[last].floats().into_iter().map(|v| v / 2.0).collect();
    tensors[last].store(&halved, Dtype::F32);
    untied.set_tensors(&tensors, 1);
    let doubled: Vec<f32> = run(&untied).step_logits[0].iter().map(|v| v * 2.0).collect();
    same_bits("the first step's logits of half a head, times two", &expected.step_logits[0], &doubled).unwrap();
}
