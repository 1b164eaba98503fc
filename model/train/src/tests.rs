//! Compares training with inference, with calculations by hand, and a resumed run with one that was not stopped.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Tensor};
use fovea_model::{
    AskOptions, Before, Blueprint, Budget, Cancel, Checkpoint, Compression, Config, Conversation, Error, Event, Grid,
    Meteor, Model, Picture, Precision, TextGuided, Within,
    parts::{METEOR, Rope},
};
use fovea_runtime::{DeviceChoice, OpenDevice, source::Source};
use fovea_scenes::{Scene, Split};
use fovea_shaders::{Keep, Scale};
use futures_util::{StreamExt, pin_mut};

use crate::{
    Rates, Stage, Step, Task, TextPruning, TrainConfig, Trainer, Vision,
    batch::{Asked, Maker, dice},
    forward::{gate, score_gate},
    losses,
    network::{Stored, Trained, completed, first_weights, open, safetensors},
    sequence::{Aims, arrange, regions, wishes},
};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn recipe() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo")
}

fn stage(task: Task, steps: usize, batch: usize) -> Stage {
    Stage {
        name: "test".into(),
        task,
        steps,
        batch,
        rates: Rates { tower: 1e-3, text: 1e-3, selector: 1e-3, meteor: 0.0 },
        warmup: 1,
        end: 0.1,
        questions: 3,
        list: false,
        vision: Vision::Selected,
        keep: None,
        text: None,
        frozen: false,
        dense: 0.2,
        balance: 0.1,
        balance_weights: None,
        hint: 0.1,
        look: if task == Task::Drill { 0.0 } else { 0.1 },
    }
}

/// A stage that trains the fusion of LLaVA-Meteor only.
fn fusion_stage(steps: usize) -> Stage {
    Stage {
        rates: Rates { tower: 0.0, text: 0.0, selector: 0.0, meteor: 1e-2 },
        questions: 1,
        vision: Vision::Meteor,
        frozen: true,
        dense: 0.0,
        balance: 0.0,
        hint: 0.0,
        look: 0.0,
        ..stage(Task::Scenes, steps, 2)
    }
}

/// The smallest fusion with both orders.
fn fusion() -> serde_json::Value {
    serde_json::json!({"blocks": [["local", "before"], ["single", "before"]], "d_state": 2, "visual_weight": 0.25})
}

/// The demo's config.json with this fusion.
fn with_fusion() -> Result<serde_json::Value> {
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(recipe().join("config.json"))?)?;
    json["meteor"] = fusion();
    Ok(json)
}

/// Weights with which regions choose different scales: the part of the logits that all regions have in common cancels out. The fusion
/// of LLaVA-Meteor changes the features.
fn weights(config: &Config) -> Result<Vec<u8>> {
    let mut all = first_weights(config, 7);
    for tensor in all.iter_mut().filter(|t| t.name == "scale_selector.weight") {
        for row in tensor.values.chunks_exact_mut(config.vision.patches().pow(2)) {
            let mean = row.iter().sum::<f32>() / row.len() as f32;
            row.iter_mut().for_each(|v| *v -= mean);
        }
    }
    let last = |t: &&mut Stored| t.name.starts_with(METEOR) && t.name.ends_with("out_proj.weight");
    for tensor in all.iter_mut().filter(last) {
        tensor.values.iter_mut().enumerate().for_each(|(i, v)| *v = 0.2 * (i as f32).sin());
    }
    Ok(safetensors(&all, false)?)
}

/// The forward pass over a batch gives the same logits, token after token, as inference over single questions.
#[test]
fn a_batch_with_gradients_gives_the_logits_of_inference() -> Result {
    pollster::block_on(async {
        let mut blueprint = Blueprint::open(&Source::directory(recipe())?).await?;
        let json = with_fusion()?;
        blueprint.config = Config::from_json(&json)?;
        let bytes = weights(&blueprint.config)?;
        let device = Device::flex().autodiff();
        let network = Trained::load(&open(bytes.clone()).await?, &blueprint.config, &device).await?;
        let patches = blueprint.config.vision.patches();
        let maker = Maker { tiles: &blueprint.tiles, prompter: &blueprint.prompter, patches };
        let rope = Rope::new(&blueprint.config.text);

        let json = serde_json::to_vec(&json)?;
        let mut files = vec![("model.safetensors".to_owned(), Cow::Owned(bytes))];
        files.push(("config.json".to_owned(), Cow::Owned(json)));
        for name in ["tokenizer.json", "chat_template.jinja", "processor_config.json", "generation_config.json"] {
            files.push((name.to_owned(), Cow::Owned(std::fs::read(recipe().join(name))?)));
        }
        let checkpoint = Checkpoint::open(Source::memory("test", files)).await?;
        let cpu = OpenDevice::open(&DeviceChoice::Cpu).await?;
        let model = Model::load(checkpoint, cpu, Precision::F32, &Cancel::default(), |_| {}).await?;

        for (vision, layer) in [
            (Vision::Selected, None),
            (Vision::Full, None),
            (Vision::Selected, Some(2)),
            (Vision::Meteor, None),
            (Vision::Meteor, Some(2)),
        ] {
            let text = layer.map(|layer| TextPruning { layers: [layer, layer], gamma: [0.6, 0.6] });
            let mut stage = Stage { vision, text, ..stage(Task::Scenes, 1, 3) };
            if vision == Vision::Meteor {
                stage = Stage { text, batch: 3, keep: Some([0.3, 0.3]), ..fusion_stage(1) };
            }
            let selected = vision == Vision::Selected;
            let pruned = |layer| Within::Text(TextGuided { layer: Some(layer), keep: Some(Keep::Gamma(0.6)) });
            let compression = Compression {
                before: match vision {
                    Vision::Selected => Before::Vision { random: None },
                    Vision::Meteor => {
                        Before::Meteor(Meteor { keep: Budget::Ratio(0.3), visual_weight: 0.25, ..Meteor::default() })
                    }
                    _ => Before::Every,
                },
                within: layer.map_or(Within::Every, pruned),
            };
            let batch = maker.scenes(&stage, 40)?;
            let passed = network.pass(&batch, &stage, &blueprint.config, &rope, &mut dice(1, 0), &device).await?;
            let (logits, s) = (passed.logits.ok_or("no logits")?.inner(), passed.sequences.ok_or("no sequences")?);
            let [_, vocabulary] = logits.dims();
            let logits: Vec<f32> = logits.into_data().try_into_vec()?;
            if selected {
                let mut seen = passed.choice.clone();
                seen.sort_unstable();
                seen.dedup();
                assert!(seen.len() > 1, "expected regions at several scales, got {seen:?}");
            }
            for (b, asked) in batch.asked.iter().enumerate() {
                let scene = Scene::new(Split::Train, 40 + b as u64);
                let image = scene.picture();
                let picture =
                    Picture::from_rgb(image.width() as usize, image.height() as usize, image.as_raw().clone())?;
                let mut conversation = Conversation::new(&model, picture);
                for (q, asked) in asked.iter().enumerate() {
                    let options = AskOptions {
                        compression: Some(compression.clone()),
                        keep_logits: true,
                        forced: asked.answer.clone(),
                        max_new_tokens: asked.answer.len(),
                        ..AskOptions::default()
                    };
                    let question = scene_question(&scene, &blueprint, asked)?;
                    let events = conversation.ask(&question, &options);
                    pin_mut!(events);
                    let (mut steps, mut stays) = (Vec::new(), Vec::new());
                    while let Some(event) = events.next().await {
                        if let Event::Done(turn) = event? {
                            steps = turn.step_logits;
                            stays = turn.looked[0].kept.clone();
                        }
                    }
                    if let Some(kept) = &passed.kept {
                        let kept: Vec<usize> = (0..kept[b][q].len()).filter(|&i| kept[b][q][i]).collect();
                        assert_eq!(kept, stays, "scene {b}, question {q}: survivors (got, expected)");
                        // From this layer on training masks the tokens that inference drops: logits differ by design.
                        continue;
                    }
                    let rows: Vec<usize> = (0..s.owners.len()).filter(|&i| s.owners[i] == (b, q)).collect();
                    assert_eq!(rows.len(), steps.len());
                    for (row, expected) in rows.iter().zip(&steps) {
                        let got = &logits[row * vocabulary..][..vocabulary];
                        let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                        let size = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                        assert!(worst < 1e-4 * size, "{vision:?}, scene {b}, question {q}: off by {worst} of {size}");
                    }
                }
            }
        }
        Ok(())
    })
}

/// The question with these ids.
fn scene_question(scene: &Scene, blueprint: &Blueprint, asked: &Asked) -> Result<String> {
    for question in scene.questions().into_iter().chain(scene.questions_to_practise()) {
        let ids = blueprint.prompter.encode(&question.question, &[Grid::default()])?;
        if ids.after() == &asked.ids[..asked.prompt] {
            return Ok(question.question);
        }
    }
    Err("no question has these ids".into())
}

/// Sec. 3.2 with three scales and alpha 0.1: 0.0333 if all scales have the same share, also with weights, whose sum is 3; 0.1 times
/// its weight if one scale has all regions. With probabilities (1/4, 3/4) and both regions at the second scale: w_2 * 3/4.
#[test]
fn the_balance_loss_is_the_papers() -> Result {
    let device = Device::flex().autodiff();
    let loss = |logits: Tensor<2>, choice: &[usize], weights: &[f32]| -> Result<f32> {
        let loss: Vec<f32> = losses::balance(&logits, choice, weights, &device).inner().into_data().try_into_vec()?;
        Ok(loss[0] * 0.1)
    };
    let even = Tensor::<2>::zeros([3, 3], &device);
    let one = Tensor::<2>::from_data([[50.0, 0.0, 0.0], [50.0, 0.0, 0.0]], &device);
    for weights in [[1.0; 3], [1.1, 1.0, 0.9]] {
        assert!((loss(even.clone(), &[0, 1, 2], &weights)? - 1.0 / 30.0).abs() < 1e-6, "{weights:?}");
        assert!((loss(one.clone(), &[0, 0], &weights)? - 0.1 * weights[0]).abs() < 1e-6, "{weights:?}");
    }
    let two = Tensor::<2>::from_data([[0.0, 3f32.ln()], [0.0, 3f32.ln()]], &device);
    assert!((loss(two, &[1, 1], &[0.8, 1.2])? - 0.1 * 1.2 * 0.75).abs() < 1e-6);
    Ok(())
}

/// Weights of the balance loss are in the order of the scales, whatever their order in the file.
#[test]
fn balance_weights_name_every_scale_and_their_sum_is_the_number_of_scales() -> Result {
    let scales = [Scale::new(4, 4), Scale::new(2, 2), Scale::new(1, 1)];
    let of = |weights: &[(&str, f64)]| {
        let weights = weights.iter().map(|(kernel, weight)| ((*kernel).to_owned(), *weight)).collect();
        Stage { balance_weights: Some(weights), ..stage(Task::Scenes, 1, 1) }.balance_weights(&scales)
    };
    assert_eq!(stage(Task::Scenes, 1, 1).balance_weights(&scales)?, [1.0; 3]);
    assert_eq!(of(&[("1x1", 0.9), ("2x2", 1.0), ("4x4", 1.1)])?, [1.1, 1.0, 0.9]);
    let cases: [&[(&str, f64)]; 5] = [
        &[("1x1", 1.5), ("4x4", 1.5)],
        &[("1x1", 1.0), ("2x2", 1.0), ("4x2", 1.0)],
        &[("1x1", 1.0), ("2x2", 1.0), ("4x4", 1.0), ("4x2", 0.0)],
        &[("1x1", 0.9), ("2x2", 1.0), ("4x4", 1.2)],
        &[("1x1", -1.0), ("2x2", 2.0), ("4x4", 2.0)],
    ];
    for weights in cases {
        let refused = of(weights).err().ok_or("expected a refusal")?.to_string();
        assert!(refused.contains("stage test: balance_weights") && refused.contains("4x4, 2x2, 1x1"), "{refused}");
    }
    Ok(())
}

/// Eq. 2 by hand: p / stop_gradient(p) is 1, and its gradient to the logits is `onehot - p`: for logits (0, ln 3) and the
/// second scale, p = (1/4, 3/4), so (-1/4, 1/4).
#[test]
fn the_gate_is_one_and_has_the_gradient_of_log_p() -> Result {
    let device = Device::flex().autodiff();
    let logits = Tensor::<2>::from_data([[0.0, 3f32.ln()]], &device).require_grad();
    let chosen = Tensor::<2, burn::tensor::Int>::from_data([[1]], &device);
    let gate = gate(logits.clone(), chosen);
    let value: Vec<f32> = gate.clone().inner().into_data().try_into_vec()?;
    assert_eq!(value, [1.0]);
    let gradient = logits.grad(&gate.sum().backward()).ok_or("no gradient")?;
    let gradient: Vec<f32> = gradient.into_data().try_into_vec()?;
    assert!((gradient[0] + 0.25).abs() < 1e-6 && (gradient[1] - 0.25).abs() < 1e-6, "got {gradient:?}");
    Ok(())
}

/// The gate of LLaVA-Meteor by hand: of the scores 1, 2, 3 the last stays. With the spread sqrt(2/3), z = (-1.224745, 0, 1.224745), and
/// the gradient to score i is `0.5 (onehot_i - 1/3 - z_3 z_i / 3) / spread`: 0.102062, -0.204124, 0.102062.
#[test]
fn the_gate_of_a_score_is_one_and_has_the_gradient_of_its_z_score() -> Result {
    let device = Device::flex().autodiff();
    let scores = Tensor::<1>::from_data([1.0f32, 2.0, 3.0], &device).require_grad();
    let kept = scores.clone().narrow(0, 2, 1);
    let gate = score_gate(scores.clone(), kept, 0.5);
    let value: Vec<f32> = gate.clone().inner().into_data().try_into_vec()?;
    assert_eq!(value, [1.0]);
    let gradient = scores.grad(&gate.sum().backward()).ok_or("no gradient")?;
    let gradient: Vec<f32> = gradient.into_data().try_into_vec()?;
    let near = gradient.iter().zip([0.102062, -0.204124, 0.102062]).all(|(g, e): (&f32, f32)| (g - e).abs() < 1e-5);
    assert!(near, "got {gradient:?}");
    Ok(())
}

/// The attention hint by hand: importance (1, 1, 2) of three tokens, of which the last two are wanted. So the shares are 1/4, 1/4,
/// 1/2, and U is 0, 1/2, 1/2: KL = ln(2) / 2. A quarter is on another object, times 4.
#[test]
fn the_attention_hint_is_a_divergence_and_the_share_of_other_objects() -> Result {
    let device = Device::flex().autodiff();
    let importance = Tensor::<3>::from_data([[[1.0f32, 1.0, 2.0], [1.0, 1.0, 2.0]]], &device);
    let aims = Aims {
        wanted: vec![0.0, 0.5, 0.5, 0.0, 0.0, 0.0],
        others: vec![1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        entropy: 2f64.ln(),
        count: 1,
    };
    let loss = losses::look(&importance, aims, &device).ok_or("no loss")?;
    let loss: Vec<f32> = loss.inner().into_data().try_into_vec()?;
    let expected = 2f32.ln() / 2.0 + 1.0;
    assert!((loss[0] - expected).abs() < 1e-5, "expected {expected}, got {}", loss[0]);
    Ok(())
}

/// The attention hint's targets: every token with a patch of the question's objects, in equal shares, and no other token.
#[test]
fn aims_are_the_tokens_of_the_questions_objects() -> Result {
    pollster::block_on(async {
        let blueprint = Blueprint::open(&Source::directory(recipe())?).await?;
        let (tiles, prompter) = (&blueprint.tiles, &blueprint.prompter);
        let maker = Maker { tiles, prompter, patches: blueprint.config.vision.patches() };
        let batch = maker.scenes(&Stage { questions: 12, ..stage(Task::Scenes, 1, 2) }, 8)?;
        let focus = &blueprint.config.focus;
        let regions = batch.shown.iter().map(|s| regions(s.grid.height, s.grid.width, focus.window).len());
        // Every region at its finest scale: the map's tokens are patches with a newline after each row.
        let choice = vec![2; regions.sum()];
        let s = arrange(&batch, maker.patches, focus.window, &focus.scales, &choice, false);
        let aims = s.aims(&batch);
        let (visual, mut aimed) = (s.prefix - s.before, 0);
        for (b, (shown, asked)) in batch.shown.iter().zip(&batch.asked).enumerate() {
            for (q, asked) in asked.iter().enumerate() {
                let about = |owner: &Option<usize>| owner.is_some_and(|o| asked.about.contains(&o));
                let rows = shown.owners.chunks(shown.grid.width);
                let map = rows.flat_map(|row| row.iter().map(about).chain([false]));
                let wanted: Vec<bool> = shown.thumbnail.iter().map(about).chain(map).collect();
                let count = wanted.iter().filter(|w| **w).count();
                let got = &aims.wanted[(b * s.questions() + q) * visual..][..visual];
                for (i, got) in got.iter().enumerate() {
                    let wanted = wanted.get(i).copied().unwrap_or(false);
                    let expected = if wanted { 1.0 / count as f32 } else { 0.0 };
                    assert_eq!(*got, expected, "scene {b}, question {q}, token {i}");
                }
                aimed += usize::from(count > 0);
            }
        }
        assert!(
            aimed > 10 && aimed == aims.count,
            "expected {aimed} questions with an aim, more than 10, got {}",
            aims.count
        );
        Ok(())
    })
}

/// -log softmax by hand: logits (0, ln 3), targets 0 and 1: (ln 4 + ln 4/3) / 2.
#[test]
fn cross_entropy_is_the_mean_over_rows() -> Result {
    let device = Device::flex().autodiff();
    let third = 3f32.ln();
    let logits = Tensor::<2>::from_data([[0.0, third], [0.0, third]], &device);
    let loss: Vec<f32> = losses::cross_entropy(logits, &[0, 1], &device).inner().into_data().try_into_vec()?;
    let expected = (4f32.ln() + (4f32 / 3.0).ln()) / 2.0;
    assert!((loss[0] - expected).abs() < 1e-6, "expected {expected}, got {}", loss[0]);
    Ok(())
}

async fn steps(config: &TrainConfig, dir: &Path, most: usize) -> Result<Vec<Step>> {
    let mut trainer = Trainer::open(config.clone(), dir, Device::flex()).await?;
    let mut reports = Vec::new();
    while reports.len() < most {
        let Some(step) = trainer.step().await? else { break };
        reports.push(step);
    }
    trainer.save()?;
    trainer.export(&dir.join("out")).await?;
    Ok(reports)
}

/// The tensors of a file: dtype and bytes.
fn stored(file: &Path) -> Result<BTreeMap<String, (safetensors::Dtype, Vec<u8>)>> {
    let bytes = std::fs::read(file)?;
    let file = safetensors::SafeTensors::deserialize(&bytes)?;
    Ok(file.tensors().into_iter().map(|(name, t)| (name, (t.dtype(), t.data().to_vec()))).collect())
}

fn run(stages: Vec<Stage>, meteor: Option<serde_json::Value>) -> TrainConfig {
    let (model, random) = (recipe(), Vec::new());
    TrainConfig { model, start: None, random, window: None, scales: None, meteor, first: 0, seed: 3, stages }
}

/// Only what has a rate changes. At first `W_out` is 0, so only it has a gradient; from the second step on all of the fusion has one. A
/// resumed run writes the same bytes, and the loader of inference reads them.
#[test]
fn the_fusion_learns_alone() -> Result {
    pollster::block_on(async {
        let config = run(vec![fusion_stage(2)], Some(fusion()));
        let model = Config::from_json(&with_fusion()?)?;
        let dir = tempfile::tempdir()?;
        let first = dir.path().join("first.safetensors");
        std::fs::write(&first, safetensors(&first_weights(&model, config.seed), false)?)?;
        let first = stored(&first)?;

        let halves = tempfile::tempdir()?;
        let reports = steps(&config, halves.path(), 1).await?;
        assert!(reports[0].answers.is_some_and(f64::is_finite) && reports[0].norm > 0.0);
        let second = stored(&halves.path().join("at-1/weights.safetensors"))?;
        steps(&config, halves.path(), 1).await?;
        let third = stored(&halves.path().join("at-2/weights.safetensors"))?;
        assert_eq!(first.keys().filter(|name| name.starts_with(METEOR)).count(), 1 + 2 * (3 + 2 * 7));
        for (name, start) in &first {
            let learns = name.starts_with(METEOR);
            // Other matrices of the fusion change by weight decay in the first step.
            let vector = ["norm.weight", "bias", "A_log", ".D"].iter().any(|end| name.ends_with(end));
            if !learns || vector {
                assert!(second[name] == *start, "{name}: changed in the first step");
            }
            if learns && name.ends_with("out_proj.weight") {
                assert!(second[name] != *start, "{name}: did not change in the first step");
            }
            assert_eq!(third[name] != second[name], learns, "{name}: changed in the second step (got, expected)");
        }

        let whole = tempfile::tempdir()?;
        assert_eq!(steps(&config, whole.path(), usize::MAX).await?.len(), 2);
        for file in ["at-2/weights.safetensors", "out/model.safetensors"] {
            assert!(std::fs::read(whole.path().join(file))? == std::fs::read(halves.path().join(file))?, "{file}");
        }
        let out = Checkpoint::open(Source::directory(whole.path().join("out"))?).await?;
        assert!(out.extras.meteor && out.config.meteor == model.meteor);
        Compression::from(Before::Meteor(Meteor::default())).check(out.fits())?;
        for (name, (dtype, _)) in stored(&whole.path().join("out/model.safetensors"))? {
            let exact = name.starts_with(METEOR);
            assert_eq!(dtype == safetensors::Dtype::F32, exact, "{name}: {dtype:?}, in f32 (got, expected)");
        }
        Ok(())
    })
}

/// Settings that have no meaning with LLaVA-Meteor, or without it.
#[test]
fn stages_that_do_not_fit_the_fusion_are_refused() -> Result {
    pollster::block_on(async {
        let good = || fusion_stage(1);
        let dir = tempfile::tempdir()?;
        for (key, stage) in [
            ("vision", Stage { task: Task::Drill, ..good() }),
            ("questions", Stage { questions: 2, ..good() }),
            ("questions", Stage { list: true, ..good() }),
            ("balance", Stage { balance: 0.1, ..good() }),
            ("hint", Stage { hint: 0.1, ..good() }),
            ("look", Stage { look: 0.1, ..good() }),
            ("keep", Stage { keep: Some([0.0, 0.5]), ..good() }),
            ("keep", Stage { keep: Some([0.5, 0.25]), ..good() }),
            ("keep", Stage { keep: Some([0.5, f64::NAN]), ..good() }),
            ("keep", Stage { keep: Some([0.05, 0.5]), vision: Vision::Full, ..good() }),
        ] {
            let refused = Trainer::open(run(vec![stage], None), dir.path(), Device::flex()).await;
            let Err(Error::Config { key: got, .. }) = refused else { return Err(format!("{key}: not refused").into()) };
            assert_eq!(got, format!("stage test: {key}"), "(got, expected)");
        }
        for (settings, expected) in [
            (serde_json::json!({"select": "tile"}), "config.json: meteor"),
            (serde_json::json!({"instruction": "none"}), "config.json: meteor"),
            (serde_json::json!({"blocks": []}), "config.json: meteor.blocks"),
        ] {
            let refused = Trainer::open(run(vec![good()], Some(settings)), dir.path(), Device::flex()).await;
            let Err(Error::Config { key, .. }) = refused else { return Err(format!("{expected}: not refused").into()) };
            assert!(key.starts_with(expected), "expected {expected}, got {key}");
        }
        Ok(())
    })
}

/// A resumed run and one without a stop write the same bytes, and the loader of inference reads them.
#[test]
fn a_resumed_run_equals_one_without_a_stop() -> Result {
    pollster::block_on(async {
        let text = TextPruning { layers: [2, 6], gamma: [0.7, 0.95] };
        let stages = vec![
            stage(Task::Drill, 2, 4),
            Stage { name: "more".into(), list: true, text: Some(text), ..stage(Task::Scenes, 2, 2) },
        ];
        let config = run(stages, None);
        let whole = tempfile::tempdir()?;
        let reports = steps(&config, whole.path(), usize::MAX).await?;
        assert_eq!(reports.len(), 4);
        assert!(reports[3].answers.is_some_and(f64::is_finite) && reports[3].kept.is_some_and(|k| k > 0.0 && k < 1.0));
        let halves = tempfile::tempdir()?;
        for _ in 0..4 {
            steps(&config, halves.path(), 1).await?;
        }
        for file in ["at-4/weights.safetensors", "out/model.safetensors"] {
            assert!(std::fs::read(whole.path().join(file))? == std::fs::read(halves.path().join(file))?, "{file}");
        }
        let out = Checkpoint::open(Source::directory(whole.path().join("out"))?).await?;
        assert!(out.extras.selector);
        // The written checkpoint can be trained further.
        let start = Some(whole.path().join("out/model.safetensors"));
        let scales = vec![(4, 4), (2, 1), (1, 1), (1, 2)];
        let further = TrainConfig { start, first: 100, scales: Some(scales.clone()), ..config };
        let other = tempfile::tempdir()?;
        assert_eq!(steps(&further, other.path(), 1).await?.len(), 1);
        let out = Checkpoint::open(Source::directory(other.path().join("out"))?).await?;
        let named: Vec<_> = out.config.focus.scales.iter().map(|s| (s.rows, s.cols)).collect();
        assert_eq!(named, scales);
        // The smallest window: each patch is kept or dropped.
        let smallest = TrainConfig {
            window: Some(1),
            scales: Some(vec![(0, 0), (1, 1)]),
            stages: vec![stage(Task::Scenes, 1, 2)],
            ..further.clone()
        };
        let patches = tempfile::tempdir()?;
        let reports = steps(&smallest, patches.path(), 1).await?;
        assert!(reports[0].norm > 0.0 && reports[0].scales.len() == 2, "got {:?}", reports[0]);
        let out = Checkpoint::open(Source::directory(patches.path().join("out"))?).await?;
        assert_eq!((out.config.focus.window, out.config.focus.scales.len()), (1, 2));
        let none = Trainer::open(TrainConfig { window: Some(0), ..smallest }, patches.path(), Device::flex()).await;
        assert!(matches!(none, Err(Error::Config { key, .. }) if key == "config.json: focus.window"));
        // With only a scale that drops its region, only the thumbnail can be trained.
        let alone = |vision| TrainConfig {
            scales: Some(vec![(0, 0)]),
            stages: vec![Stage { vision, ..stage(Task::Scenes, 1, 2) }],
            ..further.clone()
        };
        let refused = Trainer::open(alone(Vision::Selected), other.path(), Device::flex()).await;
        assert!(matches!(refused, Err(Error::Config { key, .. }) if key == "config.json: focus.scales"));
        let thumbnail = tempfile::tempdir()?;
        assert_eq!(steps(&alone(Vision::Thumbnail), thumbnail.path(), 1).await?.len(), 1);
        let out = Checkpoint::open(Source::directory(thumbnail.path().join("out"))?).await?;
        assert!(out.extras.selector && out.config.focus.scales.iter().all(|s| s.drops()));
        Ok(())
    })
}

/// Tensors that a file of weights does not have, has in another shape, or that `random` names, start at random; all others are the
/// file's.
#[test]
fn weights_to_start_from_are_completed() -> Result {
    pollster::block_on(async {
        let config = Blueprint::open(&Source::directory(recipe())?).await?.config;
        let mut file = first_weights(&config, 7);
        let (last, fresh) = (file.len() - 1, first_weights(&config, 8));
        file.remove(last);
        let head: usize = file[0].shape[1..].iter().product();
        file[0].shape[0] -= 1;
        let short = file[0].values.len() - head;
        file[0].values.truncate(short);
        let random = "scale_selector.weight".to_owned();
        let (bytes, at_random) = completed(safetensors(&file, false)?, &config, 8, std::slice::from_ref(&random))?;
        assert_eq!(at_random, 3);
        let got = safetensors::SafeTensors::deserialize(&bytes)?;
        for (i, new) in fresh.iter().enumerate() {
            let expected = if i == 0 || i == last || new.name == random { new } else { &file[i] };
            let view = got.tensor(&expected.name)?;
            let bytes: Vec<u8> = expected.values.iter().flat_map(|v| v.to_le_bytes()).collect();
            assert!(view.shape() == expected.shape && view.data() == bytes, "{}", expected.name);
        }
        Ok(())
    })
}

/// Weights of another model, and an attention hint in a stage without questions.
#[test]
fn runs_that_do_not_fit_the_model_are_refused() -> Result {
    pollster::block_on(async {
        let model = Blueprint::open(&Source::directory(recipe())?).await?.config;
        let named = |name: &str| Stored { name: name.into(), shape: vec![1], values: vec![0.0] };
        let refused = completed(safetensors(&[named("model.norm.weight")], false)?, &model, 1, &[]);
        assert!(matches!(refused, Err(Error::Training(why)) if why.contains("names of the hub")));
        let refused = completed(safetensors(&first_weights(&model, 1), false)?, &model, 1, &["selecter".into()]);
        assert!(matches!(refused, Err(Error::Training(why)) if why.contains("selecter")));

        let stages = vec![Stage { look: 0.1, ..stage(Task::Drill, 1, 1) }];
        let refused = Trainer::open(run(stages, None), tempfile::tempdir()?.path(), Device::flex()).await;
        assert!(matches!(refused, Err(Error::Config { key, .. }) if key == "stage test: look"));
        Ok(())
    })
}

/// The demo's vocabulary has every word of the generator's questions and answers, and answers decode to the same text.
#[test]
fn the_vocabulary_holds_every_question_and_answer() -> Result {
    pollster::block_on(async {
        let blueprint = Blueprint::open(&Source::directory(recipe())?).await?;
        for index in 0..40 {
            let scene = Scene::new(Split::Train, index);
            for q in scene.questions().into_iter().chain(scene.questions_to_practise()) {
                let prompt = blueprint.prompter.encode(&q.question, &[Grid::default()])?;
                assert!(!prompt.ids.contains(&0), "an unknown token in {:?}", q.question);
                assert_eq!(blueprint.prompter.decode(&blueprint.prompter.answer_ids(&q.answer)?)?, q.answer);
            }
        }
        Ok(())
    })
}

/// The scale hint: background is dropped where a scale drops regions, and objects are kept.
#[test]
fn the_hint_drops_only_background() -> Result {
    pollster::block_on(async {
        let blueprint = Blueprint::open(&Source::directory(recipe())?).await?;
        let patches = blueprint.config.vision.patches();
        let maker = Maker { tiles: &blueprint.tiles, prompter: &blueprint.prompter, patches };
        let batch = maker.scenes(&stage(Task::Scenes, 1, 2), 40)?;
        let owners: Vec<_> = batch.shown.iter().flat_map(|shown| &shown.owners).collect();
        for (scales, keep) in [([Scale::new(0, 0), Scale::new(1, 1)], 1), ([Scale::new(1, 1), Scale::new(0, 0)], 0)] {
            let expected: Vec<usize> =
                owners.iter().map(|owner| if owner.is_some() { keep } else { 1 - keep }).collect();
            assert_eq!(wishes(&batch, 1, &scales), expected, "{scales:?} (got, expected)");
        }
        Ok(())
    })
}

/// Every recipe can be read, and fits its model. Those of the tables have one stage, named like the file, with the same data and
/// number of steps. Runs that are compared have the same seed, first scene and number of scenes.
#[test]
fn every_recipe_fits_its_model() -> Result {
    pollster::block_on(async {
        let recipes = recipe().join("../recipe");
        // The repository does not have the outputs of other runs.
        let of_a_run = |start: &Path| start.components().any(|part| part.as_os_str() == "runs");
        let mut names = Vec::new();
        for dir in [recipes.clone(), recipes.join("tables"), recipes.join("straight")] {
            for entry in std::fs::read_dir(&dir)? {
                let file = entry?.path();
                if file.extension().is_none_or(|end| end != "json") {
                    continue;
                }
                let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let config = TrainConfig::read(&file)?;
                crate::blueprint(&config).await.map_err(|why| format!("{name}: {why}"))?;
                let there = config.start.as_deref().is_none_or(|start| start.is_file() || of_a_run(start));
                assert!(there, "{name}: expected a file, or an output in `runs`, got {:?}", config.start);
                if dir.ends_with("tables") {
                    let stages: Vec<_> = config.stages.iter().map(|s| (s.name.as_str(), s.steps, s.batch)).collect();
                    assert_eq!(stages, [(name.as_str(), 300, 12)], "{name}: stages (got, expected)");
                    assert_eq!((config.seed, config.first), (20261126, 200000), "{name}: seed, first (got, expected)");
                }
                names.push(name);
            }
        }
        for name in ["demo", "base-every", "meteor", "three", "seven", "window-1", "window-12", "balanced-1x1-more"] {
            assert!(names.iter().any(|found| found == name), "expected {name}, got {names:?}");
        }
        let run = |name: &str| TrainConfig::read(&recipes.join("straight").join(name).with_extension("json"));
        let budget = |run: &TrainConfig| -> Vec<_> {
            let of = |s: &Stage| {
                let settings = [s.rates.tower, s.rates.text, s.end, s.dense, s.look];
                (s.task, [s.steps, s.batch, s.warmup, s.questions], settings, s.frozen)
            };
            run.stages.iter().map(of).collect()
        };
        for pair in [["base-every", "base-selected"], ["every", "focus"], ["every", "focus-late"]] {
            let [without, with] = pair.map(run);
            let (without, with) = (without?, with?);
            let of = |run: &TrainConfig| (run.seed, run.first, budget(run));
            assert_eq!(of(&without), of(&with), "{pair:?}: seed, first scene, budget");
            let no_sampler = |s: &Stage| s.text.is_none() && s.vision == Vision::Full;
            assert!(without.stages.iter().all(no_sampler), "expected no sampler, got {:?}", without.stages);
        }
        let (every, meteor) = (run("every")?, run("meteor")?);
        let of = |run: &TrainConfig| {
            let scenes: usize = run.stages.iter().map(|s| s.steps * s.batch).sum();
            (run.start.clone(), run.seed, run.first, scenes)
        };
        assert_eq!(of(&every), of(&meteor), "every and meteor: start, seed, first scene, scenes");
        Ok(())
    })
}

/// Values out of range are refused.
#[test]
fn absurd_runs_are_refused() -> Result {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("run.json");
    let good = r#"{"model": ".", "seed": 1, "stages": [{"name": "a", "task": "drill", "steps": 1, "batch": 1, "rates": {"tower": 0.1}}]}"#;
    for (from, to) in [
        ("\"steps\": 1", "\"steps\": 0"),
        ("\"batch\": 1", "\"batch\": 5000"),
        ("0.1", "-1"),
        ("[{", "[], \"x\": [{"),
        ("drill", "drills"),
    ] {
        std::fs::write(&file, good.replace(from, to))?;
        assert!(matches!(TrainConfig::read(&file), Err(Error::Config { .. })), "{to}");
    }
    std::fs::write(&file, good)?;
    assert_eq!(TrainConfig::read(&file)?.stages.len(), 1);
    Ok(())
}
