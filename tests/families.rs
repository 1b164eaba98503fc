//! What differs between the families of checkpoints: several pictures in one prompt, token counts at the published sizes,
//! tensors, image ids, and files that a checkpoint may lack.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use fovea_conformance::{row::Outcome, stages::check};
use fovea_model::{
    Compression, Conversation, Error, ErrorKind, Grid, LoadOptions, Looked, Outline, Picture, Plan, Stored, inspect,
    trace::trace,
};
use fovea_runtime::{OpenDevice, source::Source};
use fovea_tests::{
    checkpoint::Files,
    device,
    golden::{Case, cases, count, fixtures, floats, indices, reference, rows, text},
    run::{ask, compressed, fixture, load, open, options, picture},
};
use pollster::block_on;
use serde_json::{Value, json};

/// A checkpoint without samplers of each family.
const STOCK: [&str; 6] = ["qwen2-2", "llava15-2", "interleave-2", "onevision-2", "smolvlm-2", "granite-2"];

fn outline(files: &Files) -> Outline {
    block_on(Outline::open(&files.source())).unwrap_or_else(|e| panic!("expected settings, got: {e}"))
}

/// The cases of several pictures, with the samplers off as in Hugging Face.
fn several() -> Vec<(Case, Vec<Picture>)> {
    let case = |row: &Value| {
        let file = |file: &Value| file.as_str().and_then(|file| file.strip_prefix("pictures/")).map(picture);
        let pictures = row["images"].as_array().expect("a list of pictures").iter();
        let named = |key: &str| text(row, key).to_owned();
        let case = Case {
            name: named("case"),
            model: named("model"),
            picture: String::new(),
            prompt: named("prompt"),
            compression: Compression::none(),
            new: count(row, "new"),
        };
        (case, pictures.map(|name| file(name).expect("a picture's path")).collect())
    };
    rows("several.json").iter().map(case).collect()
}

fn several_pictures_give_hugging_faces_stages(open: &OpenDevice) {
    let all = several();
    assert!(all.len() >= 5, "expected at least 5 cases, got {}", all.len());
    let mut failed = Vec::new();
    for (case, pictures) in all {
        let model = fixture(&case.model, open);
        let mut conversation = Conversation::about(&model, pictures).expect("a conversation");
        let ran = block_on(trace(&mut conversation, &case.prompt, &case.options()));
        let mut got = ran.unwrap_or_else(|e| panic!("{}: expected a run, got: {e}", case.name));
        let expected = reference(&case.name);
        let tokens = floats(&expected, "visual_tokens").0[0];
        assert_eq!(indices(&got, "token_counts"), [tokens; 3], "{}: visual tokens (got, expected)", case.name);
        // Hugging Face's run has no other stages.
        got.retain(|stage, _| expected.contains_key(stage));
        let rows = check(&case, &expected, &got);
        assert_eq!(rows.len(), expected.len(), "{}: stages (got, expected)", case.name);
        let wrong = rows.into_iter().filter(|row| row.outcome != Outcome::Pass);
        failed.extend(wrong.map(|row| format!("{}: {}: {:?}", row.case, row.stage, row.outcome)));
    }
    assert!(failed.is_empty(), "expected every stage to pass on {}, got:\n{}", open.info, failed.join("\n"));
}

#[test]
fn several_pictures_on_the_cpu() {
    several_pictures_give_hugging_faces_stages(device::cpu());
}

#[test]
fn several_pictures_on_wgpu() {
    if let Some(open) = device::wgpu("several pictures") {
        several_pictures_give_hugging_faces_stages(open);
    }
}

#[test]
fn both_samplers_see_every_picture() {
    let on = compressed("focus", 3);
    for (case, pictures) in several() {
        let (name, model) = (&case.name, fixture(&case.model, device::cpu()));
        let mut conversation = Conversation::about(&model, pictures.clone()).expect("a conversation");
        let turn = ask(&mut conversation, &case.prompt, &on).unwrap_or_else(|e| panic!("{name}: {e}"));
        let tokens = turn.statistics.tokens;
        assert_eq!(turn.looked.len(), pictures.len(), "{name}: pictures (got, expected)");
        let sum = |of: fn(&Looked) -> usize| turn.looked.iter().map(|looked| of(looked)).sum::<usize>();
        assert_eq!(sum(|l| l.grid.stock_tokens()), tokens.all, "{name}: tokens of the family (got, expected)");
        assert_eq!(sum(Looked::token_count), tokens.compressed, "{name}: tokens (got, expected)");
        assert_eq!(sum(|l| l.kept.len()), tokens.kept, "{name}: kept tokens (got, expected)");
        for (looked, picture) in turn.looked.iter().zip(pictures) {
            let count = looked.token_count();
            assert_eq!(looked.importance.len(), count, "{name}: scores (got, expected)");
            assert_eq!(looked.choice.len(), looked.regions().len(), "{name}: scales (got, expected)");
            let rising = looked.kept.windows(2).all(|two| two[0] < two[1]);
            assert!(rising && looked.kept.iter().all(|&i| i < count), "{name}: kept {:?} of {count}", looked.kept);
            // The scales do not depend on the question. LLaVA-OneVision cuts several pictures in another way than one.
            let alone = block_on(Conversation::new(&model, picture).explain("?", &on)).expect("the samplers' result");
            if alone.grid == looked.grid {
                assert_eq!(looked.choice, alone.choice, "{name}: scales (got, those of the picture alone)");
                assert_eq!(looked.origins, alone.origins, "{name}: tokens (got, those of the picture alone)");
            } else {
                assert!(case.model.starts_with("onevision"), "{name}: expected the picture to be cut as if alone");
            }
        }
    }
}

#[test]
fn a_conversation_has_at_most_64_pictures() {
    let model = fixture("interleave-0", device::cpu());
    let refused = Conversation::about(&model, vec![picture("9x9-0.png"); 65]).err().expect("a refusal");
    let why = refused.to_string();
    assert!(why.contains("at most 64") && why.contains("65"), "{why}");
}

/// The keys of a published checkpoint's config.json and preprocessor_config.json that say how a picture is cut.
fn published(family: &str) -> [Value; 2] {
    let siglip = json!({
        "model_type": "siglip_vision_model", "hidden_size": 1152, "num_attention_heads": 16, "image_size": 384, "patch_size": 14
    });
    let square = json!({"height": 384, "width": 384});
    // SmolVLM: 256M and 2.2B.
    let smolvlm = |side: usize, patch: usize, factor: usize| {
        let tower = json!({"model_type": "idefics3", "image_size": side, "patch_size": patch});
        let config = json!({
            "model_type": "idefics3", "scale_factor": factor, "image_token_id": 49190, "text_config": {"vocab_size": 49280},
            "vision_config": tower
        });
        let image = json!({
            "image_processor_type": "Idefics3ImageProcessor", "size": {"longest_edge": 4 * side},
            "max_image_size": {"longest_edge": side}
        });
        [config, image]
    };
    match family {
        "onevision" => {
            let image = json!({"image_processor_type": "LlavaOnevisionImageProcessor", "size": square});
            [json!({"model_type": "llava_onevision"}), image]
        }
        "granite" => {
            let columns = |rows: usize| (1..=10 / rows).map(move |cols| [384 * rows, 384 * cols]);
            let config = json!({
                "model_type": "llava_next", "image_token_index": 49155, "vision_config": siglip,
                "image_grid_pinpoints": (1..=10).flat_map(columns).collect::<Vec<_>>(),
                "vision_feature_layer": [-1], "vision_feature_select_strategy": "full",
                "text_config": {"model_type": "granite", "vocab_size": 49156}
            });
            let image = json!({
                "image_processor_type": "LlavaNextImageProcessor", "size": {"shortest_edge": 384}, "crop_size": square
            });
            [config, image]
        }
        "smolvlm" => smolvlm(512, 16, 4),
        "smolvlm-odd" => smolvlm(384, 14, 3),
        "llava15" => {
            let image = json!({
                "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 336},
                "crop_size": {"height": 336, "width": 336}
            });
            [json!({"model_type": "llava", "text_config": {"vocab_size": 32064}}), image]
        }
        "interleave" => {
            let config = json!({
                "model_type": "llava", "image_token_index": 151_646, "vision_config": siglip, "vision_feature_layer": -1,
                "vision_feature_select_strategy": "full", "text_config": {"model_type": "qwen2"}
            });
            [config, json!({"image_processor_type": "SiglipImageProcessor", "size": square})]
        }
        other => panic!("expected a family, got {other}"),
    }
}

#[test]
fn counts_of_every_family_are_hugging_faces() {
    let rows = rows("family_counts.json");
    assert!(rows.len() >= 360, "expected at least 360 sizes, got {}", rows.len());
    let mut known = BTreeMap::new();
    for row in &rows {
        let family = text(row, "family");
        let Outline { config, tiles, .. } = known.entry(family).or_insert_with(|| {
            let files = ["config.json", "preprocessor_config.json"].into_iter().zip(published(family));
            outline(&Files(files.map(|(file, value)| (file.to_owned(), value.to_string().into_bytes())).collect()))
        });
        let grid = Grid::of(count(row, "h"), count(row, "w"), tiles, config.vision.tokens());
        let got = [grid.height, grid.width, grid.tiles(), grid.stock_tokens()];
        let expected = ["map_h", "map_w", "tiles", "stock"].map(|key| count(row, key));
        assert_eq!(got, expected, "{row}: map, tiles and tokens (got, expected)");
    }
    assert_eq!(known.len(), 6, "families (got, expected)");
}

#[test]
fn the_needed_tensors_are_those_of_the_files() {
    let entries = fs::read_dir(fixtures()).expect("the fixtures");
    let folders =
        entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.join("config.json").is_file());
    let mut not_used = BTreeMap::new();
    for folder in folders {
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        let checkpoint = open(Source::directory(&folder).expect("a folder")).unwrap_or_else(|e| panic!("{name}: {e}"));
        let found = block_on(inspect(Source::directory(&folder).expect("a folder")));
        let found = found.unwrap_or_else(|e| panic!("{name}: {e}"));
        let (missing, extra, broken) = (&found.missing, &found.extra, &found.non_finite);
        assert!(
            missing.is_empty() && extra.is_empty() && broken.is_empty(),
            "{name}: {missing:?} {extra:?} {broken:?}"
        );
        let needed: BTreeSet<String> = checkpoint.needed().into_iter().map(|parameter| parameter.name).collect();
        let all = checkpoint.weights.entries().len();
        assert_eq!(needed.len() + found.not_used.tensors as usize, all, "{name}: tensors (got, expected)");
        assert_eq!(found.scale_selector, checkpoint.config.has_focus, "{name}: a scale selector (got, expected)");
        not_used.insert(name, found.not_used.names);
    }
    assert!(not_used.len() >= 37, "expected at least 37 checkpoints, got {}", not_used.len());
    let (layer, norm) = ("encoder.layers.2.*", "post_layernorm.*");
    let (hub, newer) = ("vision_tower.vision_model", "model.vision_tower");
    let original = "model.vision_tower.vision_tower.vision_model";
    let expected: [(&str, &str, &[&str]); 10] = [
        ("qwen2-0", hub, &[layer, norm]),
        ("yi-0", hub, &[layer, norm]),
        ("llava15-0", hub, &[layer, norm]),
        ("interleave-0", hub, &[norm]),
        ("onevision-0", hub, &[norm]),
        ("onevision-2", newer, &[norm]),
        ("granite-0", hub, &[norm]),
        ("smolvlm-0", "model.vision_model", &[]),
        ("original-vicuna-0", original, &[layer, norm]),
        ("original-qwen-0", original, &[norm]),
    ];
    for (name, tower, patterns) in expected {
        let expected: BTreeSet<String> = patterns.iter().map(|pattern| format!("{tower}.{pattern}")).collect();
        assert_eq!(not_used.get(name), Some(&expected), "{name}: tensors that are not used (got, expected)");
    }
}

#[test]
fn stock_checkpoints_of_every_family_run_without_samplers_by_default() {
    for name in STOCK {
        let (model, image) = (fixture(name, device::cpu()), picture("48x48-0.png"));
        let note = model.stock_note(&image);
        let turn =
            ask(&mut Conversation::new(&model, image), "?", &options(1)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let tokens = turn.statistics.tokens;
        assert_eq!((tokens.compressed, tokens.kept), (tokens.all, tokens.all), "{name}: tokens");
        assert!(turn.looked[0].choice.is_empty() && turn.looked[0].importance.is_empty(), "{name}: {:?}", turn.looked);
        assert!(note.is_some_and(|note| note.contains(&tokens.all.to_string())), "{name}: expected a note");
    }
}

#[test]
fn without_image_settings_those_of_the_published_checkpoints_are_used_and_a_note_says_so() {
    for (name, family) in [
        ("qwen2-0", "LLaVA-NeXT"),
        ("llava15-0", "LLaVA-1.5"),
        ("interleave-0", "LLaVA-Interleave"),
        ("onevision-0", "LLaVA-OneVision"),
        ("smolvlm-0", "SmolVLM"),
        ("granite-0", "LLaVA-NeXT"),
    ] {
        let mut files = Files::fixture(name);
        let with = outline(&files);
        files.remove("preprocessor_config.json");
        let without = outline(&files);
        assert_eq!(without.tiles, with.tiles, "{name}: settings (got, expected)");
        let note = format!("no preprocessor_config.json: the usual image settings of {family} are assumed");
        assert_eq!((with.notes, without.notes), (vec![], vec![note]), "{name}: notes (got, expected)");
    }
}

#[test]
fn a_plan_needs_config_json_alone() {
    for name in STOCK {
        let mut files = Files::fixture(name);
        let checkpoint = open(files.source()).unwrap_or_else(|e| panic!("{name}: {e}"));
        files.0.retain(|file, _| file == "config.json");
        let size = Some((640, 480));
        let plan = Plan::without_weights(&outline(&files), None, size, Stored::F16, &LoadOptions::default());
        assert_eq!(plan, Plan::new(&checkpoint, size, Stored::F16), "{name}: plan (got, that with all files)");
        assert!(open(files.source()).is_err(), "{name}: expected a checkpoint without a tokenizer to be refused");
    }
}

/// As in files of LLaVA-v1.6-34B, whose config.json and tokenizer come from different versions.
#[test]
fn an_image_id_that_is_not_the_tokenizers_is_refused_with_both_ids() {
    // A token that the prompt does not have, and an id without a token.
    for id in [566, 580] {
        let mut files = Files::fixture("yi-0");
        files.config("/image_token_index", json!(id));
        let refused = open(files.source()).err().expect("a refusal");
        assert_eq!(refused.kind(), ErrorKind::Checkpoint, "{refused}");
        let why = refused.to_string();
        assert!(why.contains(&id.to_string()) && why.contains("567"), "expected {id} and 567, got: {why}");
    }
}

#[test]
fn the_original_layout_has_no_token_for_the_picture() {
    let mut checked = 0;
    for case in cases().into_iter().filter(|case| case.model.starts_with("original-")) {
        let files = Files::fixture(&case.model);
        let spelled = |bytes: &Vec<u8>| bytes.windows(9).any(|window| window == b"\"<image>\"");
        assert!(!files.0.values().any(spelled), "{}: expected no token <image>", case.model);
        let checkpoint = open(files.source()).unwrap_or_else(|e| panic!("{}: {e}", case.model));
        let vocab = checkpoint.config.text.vocab;
        assert_eq!(checkpoint.config.image_token, None, "{}: the picture's id (got, expected)", case.model);
        let encode = |question: &str| checkpoint.prompter.encode(question, &[Grid::default()]).expect("a prompt");
        let ids: Vec<usize> = encode(&case.prompt).ids.iter().map(|&id| id as usize).collect();
        assert_eq!(ids, indices(&reference(&case.name), "input_ids"), "{}: ids (got, expected)", case.name);
        // What the user types stays text.
        let typed = encode("<image> a <image>");
        let pictures = typed.ids.iter().filter(|&&id| id as usize == vocab).count();
        assert_eq!((typed.places.len(), pictures), (1, 1), "{}: pictures (got, expected)", case.model);
        checked += 1;
    }
    assert!(checked >= 6, "expected at least 6 cases, got {checked}");
}

#[test]
fn a_sliding_window_limits_the_context_if_a_layer_uses_it() {
    let mut files = Files::fixture("qwen2-0");
    files.config("/text_config/use_sliding_window", json!(true));
    files.config("/text_config/sliding_window", json!(16));
    let model = load(files.source(), device::cpu()).expect("a model");
    assert_eq!(model.config().text.context, 16, "tokens (got, expected)");
    let answered = ask(&mut Conversation::new(&model, picture("48x48-0.png")), "?", &options(1));
    assert!(matches!(answered, Err(Error::TooLong { have: 16, .. })), "expected a question that is too long");
    // The window begins at a layer beyond the last.
    files.config("/text_config/max_window_layers", json!(3));
    let checkpoint = open(files.source()).expect("a checkpoint");
    assert_eq!(checkpoint.config.text.context, 32768, "tokens (got, expected)");
}
