//! Questions about one picture, and the stream of events that answers each.
//!
//! What does not depend on the question is computed once and kept: features, visual tokens, and the picture's way
//! through the layers below the text-guided sampler. A question that is stopped or dropped leaves these as they were
//! or further on, never half-written, so the next question gives what a fresh start gives.

use std::{collections::BTreeMap, sync::Arc, task::Poll, time::Duration};

use async_stream::try_stream;
use burn::tensor::Transaction;
use fovea_runtime::{
    device::{DeviceClass, into_f32, into_indices, read_all, read_f32},
    memory,
};
use futures_core::Stream;
use futures_util::stream::poll_fn;
use web_time::Instant;

use crate::{
    answer::{AskOptions, Event, Looked, MemoryBytes, Stage, Statistics, TokenCounts, Turn},
    error::Error,
    focus::{Features, Prefix, Visual},
    grid::Grid,
    model::Model,
    pace::Pace,
    pick::Picker,
    picture::Picture,
    plan::Plan,
    prompt::Prompt,
    text_sampler::Kept,
    tiles::{Tiles, tiles},
    vision_sampler::Chooser,
};

/// A conversation on one picture.
pub struct Conversation {
    pub(crate) model: Arc<Model>,
    picture: Picture,
    pub(crate) grid: Grid,
    /// What the vision tower is to see, until it has.
    tiles: Option<Tiles>,
    pub(crate) features: Option<Features>,
    /// The visual tokens, and who chose their scales.
    pub(crate) visual: Option<(Chooser, Visual)>,
    /// The picture's way through the lower layers, and the text before it.
    prefix: Option<(Vec<u32>, Prefix)>,
}

/// How far a question needs the picture to have come.
struct Way<'a> {
    /// The text before the picture.
    before: &'a [u32],
    /// Tokens of prompt and answer, beside the picture's.
    around: usize,
    /// Who chooses the scales.
    chooser: Chooser,
    /// Layers that the picture goes through on its own.
    depth: usize,
    pace: &'a Pace,
}

/// Time spent in each stage, without what the caller takes between two events.
struct Clock {
    last: Instant,
    stages: BTreeMap<Stage, f64>,
}

impl Clock {
    fn start() -> Self {
        Self { last: Instant::now(), stages: BTreeMap::new() }
    }

    /// Adds the time since the last call, or since [`Clock::resume`], to `stage`.
    fn add(&mut self, stage: Stage) {
        *self.stages.entry(stage).or_default() += self.last.elapsed().as_secs_f64() * 1e3;
        self.resume();
    }

    /// Ends `stage`.
    fn end(&mut self, stage: Stage) -> Event {
        self.add(stage);
        Event::Stage { stage, milliseconds: self.stages[&stage] }
    }

    /// Forgets the time since the last call: it was the caller's.
    fn resume(&mut self) {
        self.last = Instant::now();
    }
}

impl Conversation {
    pub(crate) fn new(model: Arc<Model>, picture: Picture) -> Self {
        let patches = model.config.vision.patches();
        // The model's list of canvases; the processor's is the same, or the checkpoint was refused.
        let pinpoints = &model.config.pinpoints;
        let grid = Grid::of(picture.height(), picture.width(), pinpoints, model.config.vision.side, patches);
        Self { model, picture, grid, tiles: None, features: None, visual: None, prefix: None }
    }

    /// The picture.
    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    /// Where its map lies.
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// The tiles that the vision tower sees.
    ///
    /// # Errors
    /// [`Error::Picture`] where it can't be resized.
    pub fn tiles(&self) -> Result<Tiles, Error> {
        tiles(&self.picture, &self.model.tiles)
    }

    /// Answers `question`. Dropping the stream stops the run; so does `options.cancel`.
    ///
    /// The stream yields [`Event::Stage`] as stages end, [`Event::Looked`] once, [`Event::Token`]s, and [`Event::Done`]
    /// last.
    ///
    /// # Errors
    /// [`Error::Option`] for settings out of range, [`Error::TooLong`] where the question does not fit,
    /// [`Error::Cancelled`], and what the device reports. After an error the conversation goes on.
    pub fn ask<'a>(
        &'a mut self,
        question: &'a str,
        options: &'a AskOptions,
    ) -> impl Stream<Item = Result<Event, Error>> + 'a {
        let pace = Pace::new(&options.cancel);
        with_progress(self.answer(question, options, pace.clone()), pace)
    }

    fn answer<'a>(
        &'a mut self,
        question: &'a str,
        options: &'a AskOptions,
        pace: Pace,
    ) -> impl Stream<Item = Result<Event, Error>> + 'a {
        try_stream! {
            let pace = &pace;
            let model = self.model.clone();
            let config = &model.config;
            let n_layers = config.text.n_layers;
            options.check(n_layers)?;
            if let Some(&bad) = options.forced.iter().find(|&&id| id as usize >= config.text.vocab) {
                let expected = format!("ids below the vocabulary's {}", config.text.vocab);
                Err(Error::Option { option: "forced", expected, got: bad.to_string() })?;
            }
            let chooser = self.chooser(options);
            let layer = self.pruned_layer(options);
            let depth = layer.unwrap_or(n_layers);
            let mut clock = Clock::start();

            let prompt = model.prompter.encode(question)?;
            let around = (prompt.ids.len() - 1).saturating_add(options.max_new_tokens);
            self.check_least(around, chooser)?;
            self.check_memory(around)?;
            yield clock.end(Stage::Prompt);
            clock.resume();

            let way = Way { before: prompt.before(), around, chooser, depth, pace };
            while let Some(stage) = self.advance(&way).await? {
                yield clock.end(stage);
                clock.resume();
            }
            let (Some((_, visual)), Some((_, prefix))) = (&self.visual, &self.prefix) else { return };
            let n = visual.tokens.dims()[0];

            let asked = model.run(pace, model.question_prefill(prefix, prompt.after(), pace)).await?;
            let kept = match layer {
                Some(_) => {
                    let keep = options.keep.unwrap_or(config.focus.keep());
                    Some(model.run(pace, model.prune(prefix, prompt.image_at, &asked, keep)).await?)
                }
                None => None,
            };
            let shown = model.run(pace, read(kept.as_ref(), n)).await?;
            if layer.is_some() {
                yield clock.end(Stage::TextSampler);
                clock.resume();
            }
            let looked = Arc::new(looked(&model, self.grid, visual, shown));
            yield Event::Looked(looked.clone());
            clock.resume();

            let survivors = kept.as_ref().map(|kept| &kept.visual);
            let first = async {
                let (cache, logits) = model.prefill(prefix, prompt.image_at, survivors, asked, pace).await?;
                Ok((cache, finite(read_f32(logits).await?)?))
            };
            let (mut cache, mut logits) = model.run(pace, first).await?;
            yield clock.end(Stage::Prefill);
            clock.resume();
            let first_token_ms = clock.stages.values().sum();

            let penalty = model.prompter.generation().repetition_penalty;
            let mut picker = Picker::new(options.pick, penalty, model.prompter.allowed(), &prompt.ids);
            let mut decoder = model.prompter.decoder();
            let mut answer_ids = Vec::new();
            let mut step_logits = Vec::new();
            let after = prompt.ids.len() - 1 + n;
            loop {
                let picked = picker.next(&logits);
                let id = options.forced.get(answer_ids.len()).copied().unwrap_or(picked);
                picker.said(id);
                answer_ids.push(id);
                if options.keep_logits {
                    step_logits.push(std::mem::take(&mut logits));
                }
                let last = answer_ids.len() == options.max_new_tokens || model.prompter.stop_ids().contains(&id);
                let mut text = decoder.push(id)?;
                if last {
                    text += &decoder.finish()?;
                }
                clock.add(Stage::Decode);
                yield Event::Token { id, text };
                clock.resume();
                if last {
                    break;
                }
                let position = after + answer_ids.len() - 1;
                let next = async { finite(read_f32(model.step(id, position, &mut cache, pace).await?).await?) };
                logits = model.run(pace, next).await?;
            }
            yield clock.end(Stage::Decode);

            let tokens = TokenCounts { stock: self.grid.stock_tokens(), vision: n, text: looked.kept.len() };
            let dropped = (n - looked.kept.len()) as f64 * (1.0 - depth as f64 / n_layers as f64);
            let steps = answer_ids.len() - 1;
            let statistics = Statistics {
                tokens,
                equivalent_share: (n as f64 - dropped) / tokens.stock as f64,
                tokens_per_second: (steps > 0).then(|| steps as f64 * 1e3 / clock.stages[&Stage::Decode]),
                stage_ms: clock.stages,
                first_token_ms,
                memory: MemoryBytes {
                    weights: model.weight_bytes(),
                    kv_cache: cache.bytes(),
                    host_peak: memory::host_peak(),
                },
            };
            yield Event::Done(Box::new(Turn { prompt, looked, answer_ids, step_logits, statistics }));
        }
    }

    /// Computes what the first question would have to wait for and no question changes: features, visual tokens, and
    /// their way through the lower layers. For a caller whose user still looks at the picture or types; asking does it
    /// too. Does nothing where all of it is there.
    ///
    /// # Errors
    /// As [`Conversation::ask`].
    pub async fn prepare(&mut self, options: &AskOptions) -> Result<(), Error> {
        let n_layers = self.model.config.text.n_layers;
        options.check(n_layers)?;
        let chooser = self.chooser(options);
        let depth = self.pruned_layer(options).unwrap_or(n_layers);
        // Any question will do: what stands before the picture is the template's.
        let prompt = self.model.prompter.encode("?")?;
        let around = (prompt.ids.len() - 1).saturating_add(options.max_new_tokens);
        self.check_least(around, chooser)?;
        let pace = &Pace::new(&options.cancel);
        let way = Way { before: prompt.before(), around, chooser, depth, pace };
        while self.advance(&way).await?.is_some() {}
        Ok(())
    }

    /// Takes the next step of what depends on the picture alone, and tells which it was; None where nothing is left to do.
    async fn advance(&mut self, way: &Way<'_>) -> Result<Option<Stage>, Error> {
        let model = self.model.clone();
        if self.features.is_none() {
            // Taken, not borrowed: tiles are of no use once there are features, and are large.
            let Some(tiles) = self.tiles.take() else {
                self.tiles = Some(self.tiles()?);
                return Ok(Some(Stage::Tiles));
            };
            self.features = Some(model.run(way.pace, model.look(&tiles, self.grid, way.pace)).await?);
            return Ok(Some(Stage::VisionTower));
        }
        if let Some(features) = self.features.as_ref()
            && self.visual.as_ref().is_none_or(|(by, _)| *by != way.chooser)
        {
            let visual = model.run(way.pace, model.sample(features, way.chooser)).await?;
            self.prefix = None;
            self.visual = Some((way.chooser, visual));
            return Ok(Some(Stage::VisionSampler));
        }
        let Some((_, visual)) = &self.visual else { return Ok(None) };
        self.check_length(way.around.saturating_add(visual.tokens.dims()[0]))?;
        // A shallower question than the last needs what entered its layer, which is gone: start again.
        self.prefix.take_if(|(before, p)| before != way.before || p.depth > way.depth);
        let fresh = || (way.before.to_vec(), model.prefix(way.before, visual));
        let (_, prefix) = self.prefix.get_or_insert_with(fresh);
        if prefix.depth < way.depth {
            model.run(way.pace, model.image_prefill(prefix, way.depth, way.pace)).await?;
            return Ok(Some(Stage::ImagePrefill));
        }
        Ok(None)
    }

    /// Who chooses the scales. Without a selector nobody does.
    fn chooser(&self, options: &AskOptions) -> Chooser {
        match options.random_scales {
            _ if !(options.vision_is_on(&self.model.config) && self.model.has_selector()) => Chooser::Off,
            None => Chooser::Selector,
            Some(seed) => Chooser::Random(seed),
        }
    }

    /// The layer whose input the text-guided sampler prunes. Where the default lies beyond the last, nothing is pruned.
    fn pruned_layer(&self, options: &AskOptions) -> Option<usize> {
        options.text_is_on(&self.model.config).then_some(options.layer.or(self.model.config.focus.text_layer)).flatten()
    }

    /// Before anything is computed: all tokens without the sampler, at least the thumbnail's with it.
    fn check_least(&self, around: usize, chooser: Chooser) -> Result<(), Error> {
        let least = match (self.model.config.focus.thumbnail, chooser.samples()) {
            (true, false) => self.grid.stock_tokens(),
            (true, true) => self.grid.patches * self.grid.patches,
            (false, _) => 1,
        };
        self.check_length(around.saturating_add(least))
    }

    /// On the CPU, before anything is computed: a long question, or a long answer, may need more than is left.
    fn check_memory(&self, around: usize) -> Result<(), Error> {
        let model = &self.model;
        let have = if model.device.info.class == DeviceClass::Cpu { memory::host_available() } else { None };
        let Some(have) = have else { return Ok(()) };
        let config = &model.config;
        let tokens = around.saturating_add(self.grid.stock_tokens()).min(config.text.context);
        let rows = model.steps.rows(config.text.layer_work(), config.text.widest());
        let need = Plan::question_bytes(config, tokens, rows, model.dtype.size() as u64);
        if need <= have {
            return Ok(());
        }
        let what = format!("a question and an answer of {tokens} tokens with the picture's");
        let hint = "ask a shorter question, or for fewer new tokens".to_owned();
        Err(fovea_runtime::Error::OutOfMemory { what, need, have, hint }.into())
    }

    fn check_length(&self, need: usize) -> Result<(), Error> {
        let have = self.model.config.text.context;
        if need > have { Err(Error::TooLong { need, have }) } else { Ok(()) }
    }

    /// The prompt of `question`, for a caller that wants to know its length.
    ///
    /// # Errors
    /// As [`crate::prompt::Prompter::encode`].
    pub fn prompt(&self, question: &str) -> Result<Prompt, Error> {
        self.model.prompter.encode(question)
    }
}

impl Model {
    /// Runs `work` until it ends, the device is lost, or the run is stopped.
    async fn run<T>(&self, pace: &Pace, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        pace.wait(self.device.guard(work)).await
    }
}

/// Time between two events that tell how far a stage is.
const PROGRESS: Duration = Duration::from_millis(250);

/// The events of a run, and between them how far it is, where it takes long.
fn with_progress(
    events: impl Stream<Item = Result<Event, Error>>,
    pace: Pace,
) -> impl Stream<Item = Result<Event, Error>> {
    let mut events = Box::pin(events);
    let mut last = Instant::now();
    poll_fn(move |context| match events.as_mut().poll_next(context) {
        Poll::Ready(event) => Poll::Ready(event),
        Poll::Pending if last.elapsed() < PROGRESS => Poll::Pending,
        Poll::Pending => match pace.take() {
            None => Poll::Pending,
            Some(progress) => {
                last = Instant::now();
                Poll::Ready(Some(Ok(Event::Progress(progress))))
            }
        },
    })
}

fn finite(logits: Vec<f32>) -> Result<Vec<f32>, Error> {
    if logits.iter().all(|l| l.is_finite()) { Ok(logits) } else { Err(Error::NotFinite { stage: "the logits" }) }
}

/// What is shown of the text-guided sampler, in one round trip: importance, and the survivors. Without it all of `n` stay.
async fn read(kept: Option<&Kept>, n: usize) -> Result<(Vec<f32>, Vec<usize>), Error> {
    let Some(Kept { importance, visual }) = kept else { return Ok((Vec::new(), (0..n).collect())) };
    let reads = Transaction::default().register(importance.clone()).register(visual.clone());
    let mut read = read_all(reads).await?.into_iter();
    Ok((read.next().map_or_else(Vec::new, into_f32), read.next().map_or_else(Vec::new, into_indices)))
}

fn looked(model: &Model, grid: Grid, visual: &Visual, (importance, kept): (Vec<f32>, Vec<usize>)) -> Looked {
    Looked {
        grid,
        window: model.config.focus.window,
        scales: Arc::new(model.config.focus.scales.clone()),
        choice: visual.choice.clone(),
        thumbnail: visual.thumbnail,
        boxes: visual.boxes.clone(),
        importance,
        kept,
    }
}
