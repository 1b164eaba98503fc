//! Answers questions about pictures. Input: pictures and messages. Output: a stream of events per question.
//!
//! Results that do not depend on the question are computed once and kept: features, visual tokens, and the prefix (the
//! pictures and the messages before the question, after the layers below the first pruning). A question that is stopped or
//! dropped leaves them consistent, so the next question has the same answer as in a new conversation.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use async_stream::try_stream;
use burn::tensor::Tensor;
use fovea_runtime::{device::DeviceClass, memory, read::read_f32};
use futures_core::Stream;
use futures_util::{StreamExt, stream::poll_fn};
use web_time::Instant;

use crate::{
    answer::{AskOptions, Event, FinishReason, MemoryBytes, Pruned, Statistics, TokenCounts, Turn},
    compression::{Before, Compression, Pruning, ThumbnailTokens},
    config::TileConfig,
    decode::Decoding,
    ending::Ending,
    error::Error,
    focus::{Course, Features, Prefix, Visual, bytes},
    grid::{Grid, Thumbnail},
    looked::Looked,
    messages::Messages,
    model::Model,
    pace::Pace,
    pick::Picker,
    picture::Picture,
    plan::Plan,
    prompt::{Detokenizer, Prompt},
    stage::Stage,
    tiles::{Tiles, tiles},
};

/// The question of [`Conversation::warm_up`].
const WARM_UP: &str = "What is in the picture?";

/// The first token of its answer: one that every vocabulary has and that does not end an answer, so that a step runs.
const WARM_UP_TOKEN: u32 = 3;

/// A conversation on pictures: what is computed for them, and for the messages so far. The caller keeps the messages.
pub struct Conversation {
    pub(crate) model: Arc<Model>,
    pictures: Vec<Picture>,
    /// How the pictures are cut.
    cut: TileConfig,
    /// One per picture.
    grids: Vec<Grid>,
    /// Input of the vision tower for the next picture, until it has run.
    tiles: Option<Tiles>,
    /// One per picture that has passed the vision tower.
    pub(crate) features: Vec<Features>,
    /// The visual tokens of each picture, and what they were made by.
    pub(crate) visual: Option<(MadeBy, Vec<Visual>)>,
    /// Pictures and messages before the question.
    prefix: Option<Held>,
}

/// A prefix that is kept for the next question.
struct Held {
    /// Its ids.
    ids: Vec<u32>,
    prefix: Prefix,
    /// Number of its rows that an earlier question has computed.
    reused: usize,
}

impl Held {
    /// Keeps only the ids that are also at the start of `lead`, if all `places` are among them.
    fn limited_to(mut self, lead: &[u32], places: &[usize]) -> Option<Self> {
        let same = self.ids.iter().zip(lead).take_while(|(own, other)| own == other).count();
        // Not empty, and with every picture.
        let least = places.last().map_or(1, |last| last + 1);
        if same < least {
            return None;
        }
        if same < self.ids.len() {
            self.ids.truncate(same);
            let rows = same - places.len() + self.prefix.visual_tokens();
            self.prefix.truncate(rows);
            self.reused = self.reused.min(rows);
        }
        Some(self)
    }
}

/// Most pictures of a conversation.
const MOST_PICTURES: usize = 64;

/// What a question needs of the pictures.
struct Needs<'a> {
    prompt: &'a Prompt,
    /// Number of tokens of prompt and answer, without those of the pictures.
    around: usize,
    before: &'a Before,
    /// Number of layers that the pictures pass without the question.
    depth: usize,
    /// Whether the question is not known yet: nothing that depends on it is computed.
    pictures_only: bool,
    pace: &'a Pace,
}

/// What visual tokens were made by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MadeBy {
    pub before: Before,
    /// The ids of the question, if they depend on it.
    question: Option<Vec<u32>>,
}

/// The time of each stage, without the caller's time between two events.
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

    /// Ignores the time since the last call: the caller used it.
    fn resume(&mut self) {
        self.last = Instant::now();
    }
}

/// One question, checked before anything is computed.
struct Request {
    prompt: Prompt,
    /// Number of tokens of prompt and answer, without those of the picture.
    around: usize,
    compression: Compression,
    /// What is dropped inside the model, by rising layer.
    prunings: Vec<Pruning>,
    /// Number of layers that the picture passes without the question.
    depth: usize,
}

impl Request {
    fn needs<'a>(&'a self, pictures_only: bool, pace: &'a Pace) -> Needs<'a> {
        let Self { prompt, around, compression, depth, .. } = self;
        Needs { prompt, around: *around, before: &compression.before, depth: *depth, pictures_only, pace }
    }
}

impl Conversation {
    /// A conversation on one picture. Nothing is computed before the first question.
    pub fn new(model: &Arc<Model>, picture: Picture) -> Self {
        Self::of(model, vec![picture])
    }

    /// A conversation on any number of pictures, in the order of their places in the messages ([`Messages`]). Without a
    /// picture it is about text alone. Nothing is computed before the first question. A family may cut several pictures
    /// differently from one: LLaVA-OneVision reads one tile of each.
    ///
    /// # Errors
    /// [`Error::Option`] for more than 64 pictures.
    pub fn about(model: &Arc<Model>, pictures: Vec<Picture>) -> Result<Self, Error> {
        if pictures.len() > MOST_PICTURES {
            let expected = format!("at most {MOST_PICTURES}");
            return Err(Error::Option { option: "the number of pictures", expected, got: pictures.len().to_string() });
        }
        Ok(Self::of(model, pictures))
    }

    fn of(model: &Arc<Model>, pictures: Vec<Picture>) -> Self {
        let model = model.clone();
        let cut = if pictures.len() > 1 { model.tiles.with_several() } else { model.tiles.clone() };
        let patches = model.config.vision.tokens();
        let grids = pictures.iter().map(|picture| Grid::of(picture.height(), picture.width(), &cut, patches)).collect();
        Self { model, pictures, cut, grids, tiles: None, features: Vec::new(), visual: None, prefix: None }
    }

    /// The pictures.
    pub fn pictures(&self) -> &[Picture] {
        &self.pictures
    }

    /// The first picture.
    ///
    /// # Panics
    /// If the conversation is about text alone.
    pub fn picture(&self) -> &Picture {
        &self.pictures[0]
    }

    /// The geometry of the first picture's tiles and feature map.
    ///
    /// # Panics
    /// If the conversation is about text alone.
    pub fn grid(&self) -> Grid {
        self.grids[0]
    }

    /// The tiles of the first picture, as the vision tower reads them.
    ///
    /// # Errors
    /// [`Error::Picture`] if it cannot be resized.
    ///
    /// # Panics
    /// If the conversation is about text alone.
    pub fn tiles(&self) -> Result<Tiles, Error> {
        tiles(self.picture(), &self.cut)
    }

    /// The number of visual tokens of all pictures without any sampler.
    fn stock_tokens(&self) -> usize {
        self.grids.iter().map(Grid::stock_tokens).sum()
    }

    /// Bytes of the pictures and of the large tensors that are kept for the next question.
    pub fn bytes(&self) -> u64 {
        let pictures: usize = self.pictures.iter().map(|picture| 3 * picture.height() * picture.width()).sum();
        let map = |features: &Features| features.map.as_ref().map_or(0, bytes);
        let features: u64 = self.features.iter().map(|f| bytes(&f.thumbnail) + map(f) + f.taps.bytes()).sum();
        let visual = |(_, visuals): &(MadeBy, Vec<Visual>)| visuals.iter().map(|v| bytes(&v.tokens)).sum();
        let prefix = self.prefix.as_ref().map_or(0, |held| held.prefix.bytes());
        let tiles = self.tiles.as_ref().map_or(0, |tiles| 4 * tiles.pixel_values.len() as u64);
        pictures as u64 + tiles + features + self.visual.as_ref().map_or(0, visual) + prefix
    }

    /// Answers the last of `messages`, and returns the answer with its statistics. `options.cancel` stops the run.
    ///
    /// # Errors
    /// Those of [`Conversation::ask`].
    pub async fn answer(&mut self, messages: impl Into<Messages>, options: &AskOptions) -> Result<Box<Turn>, Error> {
        let mut events = pin!(self.ask(messages, options));
        while let Some(event) = events.next().await {
            if let Event::Done(turn) = event? {
                return Ok(turn);
            }
        }
        Err(Error::Internal("the events of an answer ended before it was complete"))
    }

    /// Runs the compression for the last of `messages` without an answer, and returns the data of the attention overlay of the
    /// first picture.
    ///
    /// # Errors
    /// Those of [`Conversation::ask`].
    pub async fn explain(&mut self, messages: impl Into<Messages>, options: &AskOptions) -> Result<Arc<Looked>, Error> {
        if self.pictures.is_empty() {
            let (expected, got) = ("at least 1".into(), "0".into());
            return Err(Error::Option { option: "the number of pictures", expected, got });
        }
        let mut events = pin!(self.ask(messages, options));
        while let Some(event) = events.next().await {
            if let Event::Looked(looked) = event? {
                return Ok(looked);
            }
        }
        Err(Error::Internal("the events of an answer ended before the compression had run"))
    }

    /// Answers the last of `messages` as a stream of events. Dropping the stream stops the run; so does `options.cancel`.
    ///
    /// A text is one question. With earlier questions and answers before it, the answer is that of a new conversation with the
    /// same messages; what an earlier question has computed is reused as far as the messages are the same.
    ///
    /// The stream yields [`Event::Stage`] at the end of each stage, [`Event::Progress`] in a long stage, [`Event::Looked`] once per
    /// picture, [`Event::Token`]s, and ends with [`Event::Done`] or an error.
    ///
    /// # Errors
    /// [`Error::Option`] for options out of range and for messages that cannot be asked (see [`Messages`]),
    /// [`Error::TooLong`] if the messages do not fit into the context,
    /// [`Error::NotFinite`] for logits that are not finite, [`Error::Cancelled`], and errors of tokenizer, memory and device.
    /// The conversation can be used after an error.
    pub fn ask<'a, M: Into<Messages>>(
        &'a mut self,
        messages: M,
        options: &'a AskOptions,
    ) -> impl Stream<Item = Result<Event, Error>> + use<'a, M> {
        let pace = Pace::new(&options.cancel);
        with_progress(self.events(messages.into(), options, pace.clone()), pace)
    }

    fn events<'a>(
        &'a mut self,
        messages: Messages,
        options: &'a AskOptions,
        pace: Pace,
    ) -> impl Stream<Item = Result<Event, Error>> + 'a {
        try_stream! {
            let pace = &pace;
            let model = self.model.clone();
            let mut clock = Clock::start();

            let request = self.request(messages, options)?;
            let keeps = self.check_memory(request.around)?;
            if let Some(held) = &mut self.prefix {
                held.reused = if held.prefix.depth > 0 { held.prefix.rows() } else { 0 };
            }
            yield clock.end(Stage::Prompt);
            clock.resume();

            while let Some(stage) = self.advance(&request.needs(false, pace)).await? {
                yield clock.end(stage);
                clock.resume();
            }
            let cached_tokens = self.prefix.as_ref().map_or(0, |held| held.reused);
            let prefix = if keeps {
                self.prefix.as_ref().map(|held| held.prefix.clone())
            } else {
                self.prefix.take().map(|held| held.prefix)
            };
            let (visuals, prefix) = match (&self.visual, prefix) {
                (Some((_, visuals)), Some(prefix)) => Ok((visuals, prefix)),
                _ => Err(Error::Internal("the picture has not passed its last stage")),
            }?;
            let prompt = &request.prompt;
            let n: usize = visuals.iter().map(|visual| visual.tokens.dims()[0]).sum();

            let counts: Vec<usize> = visuals.iter().flat_map(|visual| visual.places.iter().copied()).collect();
            let question = prompt.question_row(&counts);
            let prefill = model.question_prefill(prefix, prompt.after(), question, pace);
            let mut course = model.run(pace, prefill).await?;
            let renumber = request.compression.within.renumbers();
            let mut pruned: Vec<Pruned> = Vec::new();
            for (i, pruning) in request.prunings.iter().enumerate() {
                if i > 0 {
                    model.run(pace, model.run_to(&mut course, pruning.layer, pace)).await?;
                    clock.add(Stage::Prefill);
                }
                let ranked = model.run(pace, model.rank(&course, pruning, n)).await?;
                model.prune(&mut course, &ranked.kept, renumber)?;
                let (importance, kept) = (ranked.importance, course.alive.clone());
                pruned.push(Pruned { layer: pruning.layer, importance, kept });
                clock.add(Stage::Prune);
            }
            let importance = pruned.first().map_or(&[][..], |first| &first.importance);
            let looked = looked(&model, &request.compression, &self.grids, visuals, importance, &course.alive);
            if !request.prunings.is_empty() {
                yield clock.end(Stage::Prune);
                clock.resume();
            }
            for one in &looked {
                yield Event::Looked(one.clone());
            }
            clock.resume();

            let mut answer = Answer::new(&model, prompt, options);
            let kept = course.alive.len();
            let stock = self.stock_tokens();
            let mut layers = Vec::new();
            let first = async {
                model.run_to(&mut course, model.config.text.n_layers, pace).await?;
                let logits = model.logits(&course)?;
                let Course { cache, nexts, .. } = course;
                layers.extend(cache.layers.iter().map(|layer| layer.len() - prompt.text_tokens()));
                let mut decoding = model.answer(cache, &nexts, options.max_new_tokens);
                let id = answer.choose(&mut decoding, logits).await?;
                Ok((decoding, id))
            };
            let (mut decoding, mut id) = model.run(pace, first).await?;
            yield clock.end(Stage::Prefill);
            clock.resume();
            let first_token_ms = clock.stages.values().sum();

            loop {
                let next = answer.take(id)?;
                let last = answer.is_complete();
                clock.add(Stage::Decode);
                yield next;
                clock.resume();
                if last {
                    break;
                }
                let step = async {
                    let logits = model.step(&mut decoding, pace).await?;
                    answer.choose(&mut decoding, logits).await
                };
                id = model.run(pace, step).await?;
            }
            yield clock.end(Stage::Decode);

            let tokens = TokenCounts { all: stock, compressed: n, kept };
            let steps = answer.ids.len() - 1;
            let sum: usize = layers.iter().sum();
            let statistics = Statistics {
                tokens,
                equivalent_share: if stock == 0 { 1.0 } else { sum as f64 / (layers.len() * stock) as f64 },
                cached_tokens,
                tokens_per_second: (steps > 0).then(|| steps as f64 * 1e3 / clock.stages[&Stage::Decode]),
                stage_ms: clock.stages,
                first_token_ms,
                memory: MemoryBytes {
                    weights: model.weight_bytes(),
                    kv_cache: decoding.cache.bytes(),
                    host_peak: memory::host_peak(),
                },
            };
            let (text, finish_reason) = answer.text()?;
            let turn = Turn {
                prompt: request.prompt.clone(),
                looked,
                text,
                answer_ids: answer.ids,
                finish_reason,
                step_logits: answer.step_logits,
                compression: request.compression.clone(),
                pruned,
                layers,
                statistics,
            };
            yield Event::Done(Box::new(turn));
        }
    }

    /// Checks messages and options, and encodes the messages.
    fn request(&self, messages: impl Into<Messages>, options: &AskOptions) -> Result<Request, Error> {
        let text = &self.model.config.text;
        options.check(self.model.fits())?;
        if let Some(&bad) = options.forced.iter().find(|&&id| id as usize >= text.vocab) {
            let expected = format!("ids below the vocabulary's {}", text.vocab);
            return Err(Error::Option { option: "forced", expected, got: bad.to_string() });
        }
        let compression = options.compression_for(self.model.fits());
        let mut prunings = compression.within.prunings(&self.model.config);
        if self.pictures.is_empty() {
            prunings.clear();
        }
        let prompt = self.prompt(messages)?;
        let around = prompt.text_tokens().saturating_add(options.max_new_tokens);
        self.check_least(around, &compression.before)?;
        let depth = prunings.first().map_or(text.n_layers, |pruning| pruning.layer);
        Ok(Request { prompt, around, compression, prunings, depth })
    }

    /// Computes what does not depend on the question: features, visual tokens, and their prefill through the lower layers.
    /// Then the first question takes less time. Optional: [`Conversation::ask`] computes what is missing.
    ///
    /// # Errors
    /// Those of [`Conversation::ask`].
    pub async fn prepare(&mut self, options: &AskOptions) -> Result<(), Error> {
        // Mostly any question is suitable: the template determines the text up to the last picture. With a system message, or a
        // picture in a later message, the first question computes the layers again.
        let request = self.request("?", options)?;
        let pace = Pace::new(&options.cancel);
        let needs = request.needs(true, &pace);
        while self.advance(&needs).await?.is_some() {}
        Ok(())
    }

    /// On a GPU, answers a short question twice, so that the pipelines of an answer with these options are compiled before
    /// the first question; other options may compile more. Nothing on the CPU, and after the first time for this model.
    /// Optional.
    ///
    /// # Errors
    /// Those of [`Conversation::ask`].
    pub async fn warm_up(&mut self, options: &AskOptions) -> Result<(), Error> {
        if self.model.device.info.class == DeviceClass::Cpu || self.model.warm.load(Ordering::Relaxed) {
            return Ok(());
        }
        let last = (self.model.config.text.vocab as u32).saturating_sub(1);
        let forced = AskOptions { max_new_tokens: 2, forced: vec![WARM_UP_TOKEN.min(last)], ..options.clone() };
        self.answer(WARM_UP, &forced).await?;
        // A token that the device chooses.
        self.answer(WARM_UP, &AskOptions { max_new_tokens: 1, ..options.clone() }).await?;
        self.model.warm.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Computes the next stage that depends on the picture only, and returns it; None if all are done.
    async fn advance(&mut self, needs: &Needs<'_>) -> Result<Option<Stage>, Error> {
        let model = self.model.clone();
        let mut wanted = needs.before.wanted(&model.config.vision);
        if let Some(had) = self.features.iter().map(|features| &features.wanted).find(|had| !had.covers(&wanted)) {
            // The vision tower runs again: what is read of it was not kept. From now on both are.
            wanted = wanted.with(had);
            self.features.clear();
            (self.tiles, self.visual, self.prefix) = (None, None, None);
        } else if let Some(first) = self.features.first() {
            // The pictures of a conversation have the same taps.
            wanted = first.wanted.clone();
        }
        let next = self.features.len();
        if let (Some(picture), Some(&grid)) = (self.pictures.get(next), self.grids.get(next)) {
            // Taken, not borrowed: tiles are large, and not needed after the features.
            let Some(tiles) = self.tiles.take() else {
                self.tiles = Some(tiles(picture, &self.cut)?);
                return Ok(Some(Stage::Tiles));
            };
            self.features.push(model.run(needs.pace, model.encode(tiles, grid, &wanted, needs.pace)).await?);
            return Ok(Some(Stage::VisionTower));
        }
        let reads = !self.pictures.is_empty() && model.reads_question(needs.before);
        let question = reads.then(|| needs.prompt.question());
        if question.is_some() && needs.pictures_only {
            return Ok(None);
        }
        let made = MadeBy { before: needs.before.clone(), question };
        if self.visual.as_ref().is_none_or(|(by, _)| *by != made) {
            let words = match &made.question {
                Some(ids) => Some(model.decoder().embed(ids, &model.device.device, &model.config.text)?),
                None => None,
            };
            let mut visuals = Vec::with_capacity(self.features.len());
            for features in &self.features {
                let tokens = model.compress(features, needs.before, words.clone(), needs.pace);
                visuals.push(model.run(needs.pace, tokens).await?);
            }
            self.prefix = None;
            self.visual = Some((made, visuals));
            return Ok(Some(Stage::Compress));
        }
        let Some((_, visuals)) = &self.visual else { return Ok(None) };
        let tokens: usize = visuals.iter().map(|visual| visual.tokens.dims()[0]).sum();
        self.check_length(needs.around.saturating_add(tokens))?;
        if needs.pictures_only && self.prefix.as_ref().is_some_and(|held| held.prefix.depth == needs.depth) {
            return Ok(None);
        }
        let lead = needs.prompt.lead();
        let places = &needs.prompt.places;
        // A smaller depth than that of the prefix needs the input of an earlier layer, which is not kept: start again.
        let usable = self.prefix.take().filter(|held| held.prefix.depth <= needs.depth);
        self.prefix = usable.and_then(|held| held.limited_to(lead, places));
        let held = match &mut self.prefix {
            Some(held) => held,
            none => {
                let prefix = model.prefix(lead, places, visuals)?;
                none.insert(Held { ids: lead.to_vec(), prefix, reused: 0 })
            }
        };
        if held.prefix.depth < needs.depth {
            model.run(needs.pace, model.image_prefill(&mut held.prefix, needs.depth, needs.pace)).await?;
            return Ok(Some(Stage::ImagePrefill));
        }
        let new = &lead[held.ids.len()..];
        if !new.is_empty() {
            held.prefix = model.run(needs.pace, model.history_prefill(&held.prefix, new, needs.pace)).await?;
            held.ids.extend(new);
            return Ok(Some(Stage::ImagePrefill));
        }
        Ok(None)
    }

    /// Checks the context before anything is computed, for the least number of visual tokens.
    fn check_least(&self, around: usize, before: &Before) -> Result<(), Error> {
        let of = |grid: &Grid| {
            let thumbnail = match before {
                Before::Vision { .. } => self.model.config.focus.thumbnail,
                Before::Patches(patches) => patches.thumbnail == ThumbnailTokens::Keep,
                _ => false,
            };
            match before {
                Before::Every if self.model.config.focus.thumbnail => grid.stock_tokens(),
                _ if thumbnail && grid.thumbnail != Thumbnail::Own => grid.patches * grid.patches,
                _ => 1,
            }
        };
        let least = self.grids.iter().map(of).sum();
        self.check_length(around.saturating_add(least))
    }

    /// Checks the memory before anything is computed: a long question or answer may need more than is free on the CPU, or allowed.
    /// Returns whether the prefix can be kept for the next question: the answer then has its own copy of the caches.
    fn check_memory(&self, around: usize) -> Result<bool, Error> {
        let model = &self.model;
        let available = || if model.device.info.class == DeviceClass::Cpu { memory::host_available() } else { None };
        let allowed = model.memory.map(|most| most.saturating_sub(model.weight_bytes()));
        let Some(have) = allowed.or_else(available) else { return Ok(true) };
        let config = &model.config;
        let tokens = around.saturating_add(self.stock_tokens()).min(config.text.context);
        let value_bytes = model.cache.size() as u64;
        let need = Plan::question_bytes(config, tokens, model.steps, value_bytes, model.f32_copies);
        if need <= have {
            let copy = Plan::cache_bytes(config, tokens, value_bytes);
            return Ok(need.saturating_add(copy) <= have);
        }
        let what = format!("a question and an answer of {tokens} tokens, including the picture");
        let hint = "ask a shorter question, or allow fewer new tokens".to_owned();
        Err(fovea_runtime::Error::OutOfMemory { what, need, have, hint }.into())
    }

    fn check_length(&self, need: usize) -> Result<(), Error> {
        let have = self.model.config.text.context;
        if need > have { Err(Error::TooLong { need, have }) } else { Ok(()) }
    }

    /// The prompt of `messages`, for its length.
    ///
    /// # Errors
    /// Those of [`crate::prompt::Prompter::encode`].
    pub fn prompt(&self, messages: impl Into<Messages>) -> Result<Prompt, Error> {
        self.model.prompter.encode(messages, &self.grids)
    }
}

impl Model {
    /// Runs `work` until it ends, the device is lost, or the run is stopped.
    async fn run<T>(&self, pace: &Pace, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        pace.wait(self.device.guard(work)).await
    }
}

/// Least time between two events of progress.
const PROGRESS: Duration = Duration::from_millis(250);

/// Adds events of progress to the events of a run.
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

/// The data of the attention overlays. `importance` of the visual tokens of all pictures, or empty; `kept`: indices among them.
fn looked(
    model: &Model,
    compression: &Compression,
    grids: &[Grid],
    visuals: &[Visual],
    importance: &[f32],
    kept: &[usize],
) -> Vec<Arc<Looked>> {
    let scales = Arc::new(model.config.focus.scales.clone());
    let mut first = 0;
    let mut pictures = Vec::with_capacity(visuals.len());
    for (&grid, visual) in grids.iter().zip(visuals) {
        let own = first..first + visual.origins.len();
        pictures.push(Arc::new(Looked {
            grid,
            compression: compression.to_string(),
            window: model.config.focus.window,
            scales: scales.clone(),
            choice: visual.choice.clone(),
            origins: visual.origins.clone(),
            importance: importance.get(own.clone()).unwrap_or_default().to_vec(),
            kept: kept.iter().filter(|index| own.contains(index)).map(|index| index - first).collect(),
        }));
        first = own.end;
    }
    pictures
}

/// An answer while its tokens are chosen.
struct Answer<'a> {
    model: &'a Model,
    options: &'a AskOptions,
    picker: Picker<'a>,
    detokenizer: Detokenizer<'a>,
    ids: Vec<u32>,
    ending: Ending<'a>,
    step_logits: Vec<Vec<f32>>,
}

impl<'a> Answer<'a> {
    fn new(model: &'a Model, prompt: &Prompt, options: &'a AskOptions) -> Self {
        let prompter = &model.prompter;
        let penalty = prompter.generation().repetition_penalty;
        Self {
            model,
            options,
            picker: Picker::new(options.pick, penalty, prompter.allowed(), &prompt.ids),
            detokenizer: prompter.detokenizer(),
            ids: Vec::new(),
            ending: Ending::new(&options.stop),
            step_logits: Vec::new(),
        }
    }

    /// Chooses the next token: on the device if it is the most likely one and nothing else needs the logits.
    async fn choose(&mut self, decoding: &mut Decoding, logits: Tensor<2>) -> Result<u32, Error> {
        let not_finite = Error::NotFinite { stage: "the logits" };
        if self.picker.is_plain() && self.options.forced.is_empty() && !self.options.keep_logits {
            return self.model.pick(decoding, logits).await?.ok_or(not_finite);
        }
        let logits = read_f32(logits).await?;
        if !logits.iter().all(|l| l.is_finite()) {
            return Err(not_finite);
        }
        let picked = self.picker.next(&logits);
        let id = self.options.forced.get(self.ids.len()).copied().unwrap_or(picked);
        if self.options.keep_logits {
            self.step_logits.push(logits);
        }
        self.model.choose(decoding, id);
        Ok(id)
    }

    /// Adds a token to the answer, and returns it with the text that it adds.
    fn take(&mut self, id: u32) -> Result<Event, Error> {
        self.picker.push(id);
        self.ids.push(id);
        let mut text = self.ending.push(&self.detokenizer.push(id)?);
        if self.is_complete() {
            text += &self.ending.push(&self.detokenizer.finish()?);
            text += &self.ending.finish();
        }
        Ok(Event::Token { id, text })
    }

    fn is_stopped(&self) -> bool {
        self.ids.last().is_some_and(|id| self.model.prompter.stop_ids().contains(id))
    }

    fn is_complete(&self) -> bool {
        self.ids.len() == self.options.max_new_tokens || self.is_stopped() || self.ending.is_reached()
    }

    fn text(&self) -> Result<(String, FinishReason), Error> {
        let stopped = self.is_stopped() || self.ending.is_reached();
        let finish_reason = if stopped { FinishReason::Stop } else { FinishReason::Length };
        let text = match self.ending.text() {
            Some(text) => text.to_owned(),
            None => self.model.decode(&self.ids)?,
        };
        Ok((text, finish_reason))
    }
}
