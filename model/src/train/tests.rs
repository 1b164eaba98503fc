//! Training held to inference, to calculations by hand, and to itself after a stop.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use fovea_runtime::{DeviceChoice, Keep, OpenDevice};
use futures_util::{StreamExt, pin_mut};

use super::{
    Rates, Stage, Step, Task, TrainConfig, Trainer, Vision,
    batch::{Maker, dice},
    forward::Positions,
    losses,
    network::{Network, completed, first_weights, open, safetensors},
    sequence::Aims,
};
use crate::{AskOptions, Blueprint, Cancel, Checkpoint, Error, Event, Model, Picture, Precision};
use fovea_runtime::source::Source;
use std::borrow::Cow;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn recipe() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo")
}

fn stage(task: Task, steps: usize, batch: usize) -> Stage {
    Stage {
        name: "test".into(),
        task,
        steps,
        batch,
        rates: Rates { tower: 1e-3, text: 1e-3, selector: 1e-3 },
        warmup: 1,
        end: 0.1,
        questions: 3,
        list: false,
        vision: Vision::Selected,
        text: None,
        frozen: false,
        dense: 0.2,
        balance: 0.1,
        hint: 0.1,
        look: if task == Task::Drill { 0.0 } else { 0.1 },
    }
}

/// Weights under which scales differ from region to region: what all regions have in common cancels out.
fn weights(config: &crate::Config) -> Result<Vec<u8>> {
    let mut all = first_weights(config, 7);
    for tensor in all.iter_mut().filter(|t| t.name == "scale_selector.weight") {
        for row in tensor.values.chunks_exact_mut(config.vision.patches().pow(2)) {
            let mean = row.iter().sum::<f32>() / row.len() as f32;
            row.iter_mut().for_each(|v| *v -= mean);
        }
    }
    Ok(safetensors(&all, false)?)
}

/// The same logits, token after token, from training's pass over a batch as from inference's over single questions.
#[test]
fn a_batch_with_gradients_gives_the_logits_of_inference() -> Result {
    pollster::block_on(async {
        let blueprint = Blueprint::open(&Source::directory(recipe())?).await?;
        let bytes = weights(&blueprint.config)?;
        let device = Device::flex().autodiff();
        let network = Network::load(&open(bytes.clone()).await?, &blueprint.config, &device).await?;
        let patches = blueprint.config.vision.patches();
        let maker = Maker { tiles: &blueprint.tiles, prompter: &blueprint.prompter, patches };
        let positions = Positions::new(&blueprint.config.text, &Device::flex());

        let mut files = vec![("model.safetensors".to_owned(), Cow::Owned(bytes))];
        for name in
            ["config.json", "tokenizer.json", "chat_template.jinja", "processor_config.json", "generation_config.json"]
        {
            files.push((name.to_owned(), Cow::Owned(std::fs::read(recipe().join(name))?)));
        }
        let checkpoint = Checkpoint::open(Source::memory("test", files)).await?;
        let cpu = OpenDevice::open(&DeviceChoice::Cpu).await?;
        let model = Model::load(checkpoint, cpu, Precision::F32, &Cancel::default(), |_| {}).await?;

        for (vision, layer) in [(Vision::Selected, None), (Vision::Full, None), (Vision::Selected, Some(2))] {
            let text = layer.map(|layer| super::TextPruning { layers: [layer, layer], gamma: [0.6, 0.6] });
            let stage = Stage { vision, text, ..stage(Task::Scenes, 1, 3) };
            let batch = maker.scenes(&stage, 40)?;
            let passed = network.pass(&batch, &stage, &blueprint.config, &positions, &mut dice(1, 0), &device).await?;
            let (logits, s) = (passed.logits.ok_or("no logits")?.inner(), passed.sequences.ok_or("no sequences")?);
            let [_, vocabulary] = logits.dims();
            let logits: Vec<f32> = logits.into_data().try_into_vec()?;
            if vision == Vision::Selected {
                let mut seen = passed.choice.clone();
                seen.sort_unstable();
                seen.dedup();
                assert!(seen.len() > 1, "expected regions at several scales, got {seen:?}");
            }
            for (b, asked) in batch.asked.iter().enumerate() {
                let scene = fovea_scenes::Scene::new(fovea_scenes::Split::Train, 40 + b as u64);
                let image = scene.picture();
                let picture =
                    Picture::from_rgb(image.width() as usize, image.height() as usize, image.as_raw().clone())?;
                let mut conversation = model.look_at(picture);
                for (q, asked) in asked.iter().enumerate() {
                    let options = AskOptions {
                        vision: Some(vision == Vision::Selected),
                        text: Some(layer.is_some()),
                        layer,
                        keep: Some(Keep::Gamma(0.6)),
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
                            stays = turn.looked.kept.clone();
                        }
                    }
                    if let Some(kept) = &passed.kept {
                        let kept: Vec<usize> = (0..kept[b][q].len()).filter(|&i| kept[b][q][i]).collect();
                        assert_eq!(kept, stays, "scene {b}, question {q}: survivors (got, expected)");
                        // Above this layer training masks what inference drops: logits differ by design.
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

/// The question whose ids these are.
fn scene_question(scene: &fovea_scenes::Scene, blueprint: &Blueprint, asked: &super::batch::Asked) -> Result<String> {
    for question in scene.questions().into_iter().chain(scene.questions_to_practise()) {
        let ids = blueprint.prompter.encode(&question.question)?;
        if ids.after() == &asked.ids[..asked.prompt] {
            return Ok(question.question);
        }
    }
    Err("no question has these ids".into())
}

/// Sec. 3.2 with three scales and alpha 0.1: 0.0333 where scales are even, 0.1 where one has all.
#[test]
fn the_balance_loss_is_the_papers() -> Result {
    let device = Device::flex().autodiff();
    let even = Tensor::<2>::zeros([3, 3], &device);
    let loss: Vec<f32> = losses::balance(&even, &[0, 1, 2], &device).inner().into_data().try_into_vec()?;
    assert!((loss[0] * 0.1 - 1.0 / 30.0).abs() < 1e-6);
    let one = Tensor::<2>::from_data([[50.0, 0.0, 0.0], [50.0, 0.0, 0.0]], &device);
    let loss: Vec<f32> = losses::balance(&one, &[0, 0], &device).inner().into_data().try_into_vec()?;
    assert!((loss[0] * 0.1 - 0.1).abs() < 1e-6);
    Ok(())
}

/// Eq. 2 by hand: p / stop_gradient(p) is 1, and its gradient to the logits is `onehot - p`: for logits (0, ln 3) and the
/// second scale, p = (1/4, 3/4), so (-1/4, 1/4).
#[test]
fn the_gate_is_one_and_has_the_gradient_of_log_p() -> Result {
    let device = Device::flex().autodiff();
    let logits = Tensor::<2>::from_data([[0.0, 3f32.ln()]], &device).require_grad();
    let chosen = Tensor::<2, burn::tensor::Int>::from_data([[1]], &device);
    let gate = super::forward::gate(logits.clone(), chosen);
    let value: Vec<f32> = gate.clone().inner().into_data().try_into_vec()?;
    assert_eq!(value, [1.0]);
    let gradient = logits.grad(&gate.sum().backward()).ok_or("no gradient")?;
    let gradient: Vec<f32> = gradient.into_data().try_into_vec()?;
    assert!((gradient[0] + 0.25).abs() < 1e-6 && (gradient[1] - 0.25).abs() < 1e-6, "got {gradient:?}");
    Ok(())
}

/// The hint of where to look by hand: importance (1, 1, 2) of three tokens, the last two of them wanted, so shares of
/// 1/4, 1/4, 1/2 against 0, 1/2, 1/2: KL = ln(2) / 2, and a quarter on another object, four times.
#[test]
fn the_hint_of_where_to_look_is_a_divergence_and_what_strays() -> Result {
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

/// What questions should look at: every token with a patch of their objects, in even shares, and no other.
#[test]
fn aims_are_the_tokens_of_the_objects_asked_about() -> Result {
    pollster::block_on(async {
        let blueprint = Blueprint::open(&Source::directory(recipe())?).await?;
        let (tiles, prompter) = (&blueprint.tiles, &blueprint.prompter);
        let maker = Maker { tiles, prompter, patches: blueprint.config.vision.patches() };
        let batch = maker.scenes(&Stage { questions: 12, ..stage(Task::Scenes, 1, 2) }, 8)?;
        let focus = &blueprint.config.focus;
        let regions =
            batch.shown.iter().map(|s| super::sequence::regions(s.grid.height, s.grid.width, focus.window).len());
        // Every region at its finest scale: the map's tokens are patches with a newline after each row.
        let choice = vec![2; regions.sum()];
        let s = super::sequence::arrange(&batch, maker.patches, focus.window, &focus.scales, &choice, false);
        let aims = s.aims(&batch);
        let (visual, mut told) = (s.prefix - s.before, 0);
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
                told += usize::from(count > 0);
            }
        }
        assert!(told > 10 && told == aims.count, "{told} questions with an aim, got {}", aims.count);
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
    let mut told = Vec::new();
    while told.len() < most {
        let Some(step) = trainer.step().await? else { break };
        told.push(step);
    }
    trainer.save()?;
    trainer.export(&dir.join("out")).await?;
    Ok(told)
}

/// A run that was stopped and one that was not leave the same bytes; and the ordinary loader reads them.
#[test]
fn a_stopped_run_goes_on_as_if_it_had_not_been() -> Result {
    pollster::block_on(async {
        let text = super::TextPruning { layers: [2, 6], gamma: [0.7, 0.95] };
        let config = TrainConfig {
            model: recipe(),
            start: None,
            anew: Vec::new(),
            scales: None,
            first: 0,
            seed: 3,
            stages: vec![
                stage(Task::Drill, 2, 4),
                Stage { name: "more".into(), list: true, text: Some(text), ..stage(Task::Scenes, 2, 2) },
            ],
        };
        let whole = tempfile::tempdir()?;
        let told = steps(&config, whole.path(), usize::MAX).await?;
        assert_eq!(told.len(), 4);
        assert!(told[3].answers.is_some_and(f64::is_finite) && told[3].kept.is_some_and(|k| k > 0.0 && k < 1.0));
        let halves = tempfile::tempdir()?;
        for _ in 0..4 {
            steps(&config, halves.path(), 1).await?;
        }
        for file in ["at-4/weights.safetensors", "out/model.safetensors"] {
            assert!(std::fs::read(whole.path().join(file))? == std::fs::read(halves.path().join(file))?, "{file}");
        }
        let out = Checkpoint::open(Source::directory(whole.path().join("out"))?).await?;
        assert!(out.selector);
        // What was written can be trained on.
        let start = Some(whole.path().join("out/model.safetensors"));
        let scales = vec![(4, 4), (2, 1), (1, 1), (1, 2)];
        let further = TrainConfig { start, first: 100, scales: Some(scales.clone()), ..config };
        let other = tempfile::tempdir()?;
        assert_eq!(steps(&further, other.path(), 1).await?.len(), 1);
        let out = Checkpoint::open(Source::directory(other.path().join("out"))?).await?;
        let named: Vec<_> = out.config.focus.scales.iter().map(|s| (s.rows, s.cols)).collect();
        assert_eq!(named, scales);
        // A scale that drops its region makes a model of the thumbnail alone; nothing else can be trained with it.
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
        assert!(out.selector && out.config.focus.scales.iter().all(|s| s.drops()));
        Ok(())
    })
}

/// What a file of weights lacks, has in another shape, or is to be made anew, begins at random; all else is the file's.
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
        let anew = "scale_selector.weight".to_owned();
        let (bytes, at_random) = completed(safetensors(&file, false)?, &config, 8, std::slice::from_ref(&anew))?;
        assert_eq!(at_random, 3);
        let got = safetensors::SafeTensors::deserialize(&bytes)?;
        for (i, new) in fresh.iter().enumerate() {
            let expected = if i == 0 || i == last || new.name == anew { new } else { &file[i] };
            let view = got.tensor(&expected.name)?;
            let bytes: Vec<u8> = expected.values.iter().flat_map(|v| v.to_le_bytes()).collect();
            assert!(view.shape() == expected.shape && view.data() == bytes, "{}", expected.name);
        }
        Ok(())
    })
}

/// Weights of another model, and a hint of where to look where nothing is asked.
#[test]
fn runs_that_do_not_fit_the_model_are_refused() -> Result {
    pollster::block_on(async {
        let model = Blueprint::open(&Source::directory(recipe())?).await?.config;
        let named = |name: &str| super::network::Stored { name: name.into(), shape: vec![1], values: vec![0.0] };
        let refused = completed(safetensors(&[named("model.norm.weight")], false)?, &model, 1, &[]);
        assert!(matches!(refused, Err(Error::Training(why)) if why.contains("names of the hub")));
        let refused = completed(safetensors(&first_weights(&model, 1), false)?, &model, 1, &["selecter".into()]);
        assert!(matches!(refused, Err(Error::Training(why)) if why.contains("selecter")));

        let stages = vec![Stage { look: 0.1, ..stage(Task::Drill, 1, 1) }];
        let config =
            TrainConfig { model: recipe(), start: None, anew: Vec::new(), scales: None, first: 0, seed: 1, stages };
        let refused = Trainer::open(config, tempfile::tempdir()?.path(), Device::flex()).await;
        assert!(matches!(refused, Err(Error::Config { key, .. }) if key == "stage test: look"));
        Ok(())
    })
}

/// Every question and answer of the generator is in the demo's vocabulary, and comes back as it was.
#[test]
fn the_vocabulary_holds_every_question_and_answer() -> Result {
    pollster::block_on(async {
        let blueprint = Blueprint::open(&Source::directory(recipe())?).await?;
        for index in 0..40 {
            let scene = fovea_scenes::Scene::new(fovea_scenes::Split::Train, index);
            for q in scene.questions().into_iter().chain(scene.questions_to_practise()) {
                let prompt = blueprint.prompter.encode(&q.question)?;
                assert!(!prompt.ids.contains(&0), "an unknown token in {:?}", q.question);
                assert_eq!(blueprint.prompter.decode(&blueprint.prompter.answer_ids(&q.answer)?)?, q.answer);
            }
        }
        Ok(())
    })
}

/// Numbers that make no sense are refused with their key.
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
