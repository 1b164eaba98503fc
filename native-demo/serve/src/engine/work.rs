//! The engine's thread: takes jobs, and answers each of them or says why not.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use fovea_model::{AskOptions, Conversation, Error, ErrorKind, Event, Looked, Model, Picture, Turn};
use futures_util::StreamExt;
use pollster::block_on;

use super::{About, Opener, Shared, State, lock};
use crate::{
    cache::{Cache, Files, Hash, Key, hash_of_file, hash_of_pixels},
    job::{Finished, Job, JobEvent, LookedSummary, Problem},
    metrics::Metrics,
    overlay::Overlay,
    queue::{Next, Queue, caller},
};

/// First and longest pause before a model that could not be opened is opened again.
const PAUSES: [Duration; 2] =
    if cfg!(test) { [Duration::from_millis(500); 2] } else { [Duration::from_secs(5), Duration::from_secs(60)] };

/// Most pixels of all pictures of a request: decoded, they are in memory together. One picture may have as many.
const MOST_PIXELS: usize = 128 << 20;

/// The thread's state.
pub(super) struct Work {
    opener: Opener,
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    model: Option<Arc<Model>>,
    /// The conversation of the running job. Here and not in a local variable: a panic must not drop it.
    current: Option<(Key, Conversation)>,
    cache: Cache<Conversation>,
    files: Files,
    /// How long the last opening took.
    opening: Duration,
    /// When to open the model again, after it could not be opened.
    again: Option<Instant>,
    pause: Duration,
}

/// A job that runs.
struct Run<'a> {
    job: &'a Job,
    /// When it came.
    since: Instant,
    /// The time that it was in the queue.
    waited: Duration,
    /// Whether it had an event: then the request is known to be valid.
    started: bool,
}

/// The end of the thread, for whatever reason.
struct End {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
}

impl Drop for End {
    fn drop(&mut self) {
        // No job may wait for a thread that has ended.
        self.queue.close();
        self.shared.watch.close();
        self.shared.set(State::Failed("the engine has ended".to_owned()));
        self.shared.ended.store(true, Ordering::Release);
    }
}

impl Work {
    pub fn new(
        opener: Opener,
        queue: Arc<Queue>,
        shared: Arc<Shared>,
        metrics: Arc<Metrics>,
        cache_bytes: u64,
    ) -> Self {
        Self {
            opener,
            queue,
            shared,
            metrics,
            model: None,
            current: None,
            cache: Cache::new(cache_bytes),
            files: Files::default(),
            opening: Duration::ZERO,
            again: None,
            pause: PAUSES[0],
        }
    }

    /// Answers jobs until the queue is closed.
    pub fn serve(mut self) {
        let _end = End { queue: self.queue.clone(), shared: self.shared.clone() };
        self.open();
        loop {
            let now = Instant::now();
            if self.again.is_some_and(|again| again <= now) {
                self.open();
                continue;
            }
            match self.queue.next(self.again.map(|again| again - now)) {
                Next::Closed => break,
                Next::Timeout => {}
                Next::Job(job, since) => self.job(&job, since),
            }
        }
        self.drop_all();
    }

    /// Opens device and model.
    fn open(&mut self) {
        self.shared.set(State::Loading);
        let begin = Instant::now();
        let opened = catch_unwind(AssertUnwindSafe(|| (self.opener)()));
        self.opening = begin.elapsed();
        let why = match opened {
            Ok(Ok(model)) => {
                let about = About::of(&model);
                self.metrics.loaded(about.name, &about.device, about.dtype);
                *lock(&self.shared.about) = Some(Arc::new(about));
                self.model = Some(model);
                (self.again, self.pause) = (None, PAUSES[0]);
                self.shared.set(State::Ready);
                return;
            }
            Ok(Err(failure)) => {
                let why = failure.to_string();
                *lock(&self.shared.failure) = Some(failure);
                why
            }
            Err(_) => "internal error: the model could not be opened; see the log".to_owned(),
        };
        tracing::error!(why, "the model is not loaded");
        self.again = Some(Instant::now() + self.pause);
        self.pause = (2 * self.pause).min(PAUSES[1]);
        self.shared.set(State::Failed(why));
    }

    /// Drops conversations, model and device. A lost device may panic here again.
    fn drop_all(&mut self) {
        self.metrics.unloaded();
        let current = self.current.take().map(|(_, conversation)| conversation);
        for conversation in self.cache.clear().into_iter().chain(current) {
            caught(|| drop(conversation));
        }
        self.metrics.cache(0, 0, 0);
        if let Some(model) = self.model.take() {
            let device = model.device().clone();
            caught(|| drop(model));
            caught(|| device.close());
        }
    }

    /// Answers a job. Its last event is always sent.
    fn job(&mut self, job: &Job, since: Instant) {
        // The device may have been lost while nothing ran.
        if self.model.as_ref().is_some_and(|model| !model.device().is_alive()) {
            self.metrics.lost();
            self.drop_all();
            self.open();
        }
        if self.model.is_none() {
            job.send(JobEvent::Failed(Problem::not_ready()));
            return;
        }
        let mut run = Run { job, since, waited: since.elapsed(), started: false };
        self.metrics.started(run.waited);
        self.shared.watch.begin(job.until, &job.cancel);
        let outcome = catch_unwind(AssertUnwindSafe(|| self.outcome(&mut run)));
        self.shared.watch.end();
        self.metrics.ended();
        let (problem, broken) = match outcome {
            Ok(Ok(finished)) => {
                self.metrics.answered(&finished.turn, since.elapsed());
                job.send(JobEvent::Done(Box::new(finished)));
                return;
            }
            Ok(Err(error)) => {
                let kind = error.kind();
                let late = kind == ErrorKind::Stopped && Instant::now() >= job.until;
                let problem = if late { Problem::timeout() } else { Problem::of(&error, self.opening.as_secs() + 1) };
                if problem.status >= 500 && kind != ErrorKind::Stopped {
                    tracing::error!(id = job.id, %error, "no answer");
                }
                let lost = kind == ErrorKind::DeviceLost;
                if lost {
                    self.metrics.lost();
                }
                (problem, lost)
            }
            Err(_) => {
                tracing::error!(id = job.id, "no answer: the engine panicked");
                self.metrics.panicked();
                (Problem::panicked(), true)
            }
        };
        if broken {
            // Before the client knows, so that /ready is right when it asks again.
            self.shared.set(State::Loading);
        }
        job.send(JobEvent::Failed(problem));
        if broken {
            self.drop_all();
            self.open();
        }
    }

    /// The answer to a job. Its conversation is kept, unless the device was lost.
    fn outcome(&mut self, run: &mut Run<'_>) -> Result<Finished, Error> {
        let kind = |answer: &Result<Finished, Error>| answer.as_ref().err().map(Error::kind);
        let mut answer = block_on(self.answer(run));
        if kind(&answer) == Some(ErrorKind::Memory) && !run.started && !self.cache.is_empty() {
            self.free_memory();
            answer = block_on(self.answer(run));
        }
        if kind(&answer) != Some(ErrorKind::DeviceLost) {
            self.keep();
        }
        answer
    }

    /// Drops the conversations of earlier jobs: they use memory that this job needs.
    fn free_memory(&mut self) {
        self.current = None;
        let dropped = self.cache.clear().len();
        self.metrics.cache(dropped, 0, 0);
        if let Some(model) = &self.model {
            model.device().release_unused();
        }
    }

    /// Keeps the current conversation for later jobs.
    fn keep(&mut self) {
        if let Some((key, conversation)) = self.current.take() {
            let bytes = conversation.bytes();
            let dropped = self.cache.put(key, conversation, bytes).len();
            self.metrics.cache(dropped, self.cache.len(), self.cache.bytes());
        }
    }

    /// Answers a job.
    async fn answer(&mut self, run: &mut Run<'_>) -> Result<Finished, Error> {
        let Run { job, since, waited, .. } = *run;
        let model = self.model.clone().ok_or(Error::Internal("a job ran without a model"))?;
        let options = AskOptions { cancel: job.cancel.clone(), ..job.request.options.clone() };
        options.check(model.fits())?;
        let compression = options.compression_for(model.fits()).to_string();
        self.look_up(job, compression, &model)?;
        let Some((_, conversation)) = &mut self.current else {
            return Err(Error::Internal("a job ran without a conversation"));
        };
        let pictures = conversation.pictures().len();
        let messages = &job.request.messages;
        let mut looked = Vec::with_capacity(pictures);
        let mut tokens = 0_usize;
        let mut events = pin!(conversation.ask(messages, &options));
        while let Some(event) = events.next().await {
            let event = event?;
            if !mem::replace(&mut run.started, true) {
                job.send(JobEvent::Started { waited });
            }
            match event {
                Event::Looked(one) => {
                    looked.push(one);
                    if looked.len() == pictures {
                        self.shared.overlays.add(&job.id, Overlay::new(&job.pictures, &looked));
                        let summary = |one: &Arc<Looked>| LookedSummary::from(one.as_ref());
                        job.send(JobEvent::Looked(looked.iter().map(summary).collect()));
                    }
                }
                Event::Token { text, .. } => {
                    tokens += 1;
                    if tokens == 1 {
                        self.metrics.first_token(since.elapsed());
                    }
                    if !text.is_empty() {
                        job.send(JobEvent::Token { text });
                    }
                }
                Event::Done(turn) => return Ok(finished(&model, job, *turn)),
                _ => {}
            }
            if job.events.is_closed() {
                // The client has gone, even if no one has cancelled.
                job.cancel.cancel();
            }
        }
        Err(Error::Internal("the events of an answer ended before it was complete"))
    }

    /// Makes the conversation about the pictures of a job the current one: a kept one, or a new one.
    fn look_up(&mut self, job: &Job, compression: String, model: &Arc<Model>) -> Result<(), Error> {
        let caller = caller(&job.client).to_owned();
        let files: Vec<Hash> = job.pictures.iter().map(|file| hash_of_file(file)).collect();
        let known: Option<Vec<Hash>> = files.iter().map(|file| self.files.pixels(file)).collect();
        if let Some(pictures) = known {
            let key = Key { caller: caller.clone(), pictures, compression: compression.clone() };
            if let Some(conversation) = self.cache.take(&key) {
                self.metrics.looked_up(true);
                self.current = Some((key, conversation));
                return Ok(());
            }
        }
        let (mut decoded, mut pictures, mut pixels_of_all) = (Vec::new(), Vec::new(), 0);
        for (file, bytes) in files.into_iter().zip(&job.pictures) {
            if job.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let picture = Picture::decode(bytes)?;
            pixels_of_all += picture.width() * picture.height();
            if pixels_of_all > MOST_PIXELS {
                let (expected, got) = (format!("at most {MOST_PIXELS} pixels"), format!("{pixels_of_all} or more"));
                return Err(Error::Option { option: "the pictures of a request", expected, got });
            }
            let pixels = hash_of_pixels(&picture);
            self.files.add(file, pixels);
            decoded.push(picture);
            pictures.push(pixels);
        }
        let key = Key { caller, pictures, compression };
        let kept = self.cache.take(&key);
        self.metrics.looked_up(kept.is_some());
        let conversation = kept.map_or_else(|| Conversation::about(model, decoded), Ok)?;
        self.current = Some((key, conversation));
        Ok(())
    }
}

fn finished(model: &Model, job: &Job, turn: Turn) -> Finished {
    Finished { report: model.report(&job.request.messages.question(), &turn), usage: fovea_openai::usage(&turn), turn }
}

/// Runs what may panic on a lost device. The hook has reported the panic.
fn caught(work: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(work));
}
