//! The engine: one thread with one model. Input: the jobs of the queue, one after another. Output: the events of each.
//!
//! It survives what a job does to it: after a lost device or a panic it drops model and device, opens them again, and
//! takes the next job.

mod watch;
mod work;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use fovea_model::{Config, Fits, Model};
use fovea_terminal::failure::Failure;

use self::{watch::Watch, work::Work};
use crate::{
    metrics::Metrics,
    overlay::{Overlay, Overlays},
    queue::Queue,
};

/// Opens device and model: at the start, and again after a lost device or a panic. It runs in the engine's thread.
///
/// It must not keep a model itself: two would be in memory.
pub type Opener = Box<dyn FnMut() -> Result<Arc<Model>, Failure> + Send>;

/// Settings of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineSettings {
    /// Bytes of conversations that are kept for later questions about the same pictures; 0 keeps none.
    pub cache_bytes: u64,
    /// Number of answers whose overlays are kept.
    pub overlays: usize,
}

/// Whether there is a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is being opened.
    Loading,
    /// It answers.
    Ready,
    /// It cannot be opened, for this reason, and the engine tries again after some time; or an answer does not end.
    Failed(String),
}

/// Information about the model.
#[derive(Clone, Debug)]
pub struct About {
    /// The name of its family, such as `LLaVA-NeXT`.
    pub name: &'static str,
    /// Its device.
    pub device: String,
    /// How its matrices are stored: `f32`, `f16`, `q8` or `q4`.
    pub dtype: &'static str,
    /// Its context, in tokens.
    pub context: usize,
    config: Config,
    selector: bool,
    meteor: bool,
}

impl About {
    fn of(model: &Model) -> Self {
        let Fits { config, selector, meteor } = model.fits();
        Self {
            name: config.family,
            device: model.device().info.to_string(),
            dtype: model.dtype_name(),
            context: config.text.context,
            config: config.clone(),
            selector,
            meteor,
        }
    }

    /// What options are checked against.
    pub fn fits(&self) -> Fits<'_> {
        Fits { config: &self.config, selector: self.selector, meteor: self.meteor }
    }
}

/// What the engine's thread reports to the others.
struct Shared {
    state: Mutex<State>,
    about: Mutex<Option<Arc<About>>>,
    failure: Mutex<Option<Failure>>,
    overlays: Overlays,
    watch: Watch,
    ended: AtomicBool,
}

impl Shared {
    fn set(&self, state: State) {
        *lock(&self.state) = state;
    }
}

/// A handle to the engine. Clones are handles to the same engine.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

/// Stack size in bytes, the same as for the command line's worker: a checkpoint's chat template may recurse.
const STACK: usize = 64 << 20;

impl Engine {
    /// Starts the threads. The model is opened in the engine's thread; jobs wait until then.
    pub fn start(opener: Opener, queue: Arc<Queue>, settings: EngineSettings, metrics: Arc<Metrics>) -> Self {
        metrics.watch(&queue);
        let shared = Arc::new(Shared {
            state: Mutex::new(State::Loading),
            about: Mutex::default(),
            failure: Mutex::default(),
            overlays: Overlays::new(settings.overlays),
            watch: Watch::default(),
            ended: AtomicBool::new(false),
        });
        let (watched, waiting) = (shared.clone(), queue.clone());
        let watch = thread::Builder::new().name("watch".into()).spawn(move || watched.watch.run(&waiting));
        let (own, jobs) = (shared.clone(), queue.clone());
        // The conversations stay in the thread that makes them.
        let work = move || Work::new(opener, jobs, own, metrics, settings.cache_bytes).serve();
        let engine = thread::Builder::new().name("engine".into()).stack_size(STACK).spawn(work);
        let mut threads = Vec::new();
        for thread in [watch, engine] {
            match thread {
                Ok(thread) => threads.push(thread),
                Err(why) => {
                    shared.set(State::Failed(format!("cannot start a thread: {why}")));
                    queue.close();
                    shared.watch.close();
                }
            }
        }
        Self { shared, threads: Arc::new(Mutex::new(threads)) }
    }

    /// Whether there is a model.
    pub fn state(&self) -> State {
        let state = lock(&self.shared.state).clone();
        if state == State::Ready && self.shared.watch.hangs() {
            State::Failed("the engine hangs".to_owned())
        } else {
            state
        }
    }

    /// Whether the engine's thread has ended: no request is answered any more.
    pub fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }

    /// Information about the model, after it was opened for the first time.
    pub fn about(&self) -> Option<Arc<About>> {
        lock(&self.shared.about).clone()
    }

    /// Why the model could not be opened the last time. It can be taken once.
    pub fn take_failure(&self) -> Option<Failure> {
        lock(&self.shared.failure).take()
    }

    /// The overlay of a recent answer, by the id of its job.
    pub fn overlay(&self, id: &str) -> Option<Arc<Overlay>> {
        self.shared.overlays.get(id)
    }

    /// Bounds the overlays again, after one was drawn.
    pub fn trim_overlays(&self) {
        self.shared.overlays.trim();
    }

    /// Waits until the threads have ended, which is soon after [`Queue::close`] and the end of the running job. It blocks:
    /// not for an async task.
    pub fn join(self) {
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // A panic was reported by the hook.
            let _ = thread.join();
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::AtomicUsize,
        time::{Duration, Instant},
    };

    use fovea_model::{AskOptions, Cancel, Checkpoint, Message, Messages, Precision, demo};
    use fovea_openai::ChatRequest;
    use fovea_runtime::{DeviceChoice, Error as RuntimeError, OpenDevice, testing::lose_device};
    use pollster::block_on;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::{
        job::{Finished, Job, JobEvent, Problem},
        queue::QueueLimits,
    };

    const SHIRTS: &[u8] = include_bytes!("../../pictures/shirts.jpg");
    const QUESTION: &str = "What number is on the shirt?";
    /// A token of the demo checkpoint that does not end an answer.
    const PLATE: u32 = 26;

    /// The last opened device, and how often one was opened.
    #[derive(Default)]
    struct Opened {
        device: Mutex<Option<OpenDevice>>,
        times: AtomicUsize,
    }

    fn opener(choice: DeviceChoice, opened: &Arc<Opened>) -> Opener {
        let opened = opened.clone();
        Box::new(move || {
            block_on(async {
                let checkpoint = Checkpoint::open(demo::source()).await?;
                let device = OpenDevice::open(&choice).await?;
                *lock(&opened.device) = Some(device.clone());
                opened.times.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Failure>(Model::load(checkpoint, device, Precision::F32, &Cancel::default(), |_| {}).await?)
            })
        })
    }

    struct Server {
        queue: Arc<Queue>,
        engine: Engine,
        metrics: Arc<Metrics>,
    }

    impl Server {
        fn start(opener: Opener) -> Self {
            let queue = Queue::new(QueueLimits { jobs: 8, bytes: 64 << 20 });
            let metrics = Metrics::new();
            let settings = EngineSettings { cache_bytes: 1 << 30, overlays: 4 };
            let engine = Engine::start(opener, queue.clone(), settings, metrics.clone());
            Self { queue, engine, metrics }
        }

        fn cpu() -> Self {
            Self::start(opener(DeviceChoice::Cpu, &Arc::default()))
        }

        fn push(&self, id: &str, pictures: &[&[u8]], messages: impl Into<Messages>, options: AskOptions) -> Asked {
            let (events, receiver) = unbounded_channel();
            let cancel = Cancel::default();
            let request = ChatRequest {
                model: None,
                messages: messages.into(),
                pictures: Vec::new(),
                options,
                stream: true,
                include_usage: false,
            };
            let job = Job {
                id: id.to_owned(),
                client: "a".into(),
                request,
                pictures: pictures.iter().map(|file| Arc::from(*file)).collect(),
                until: Instant::now() + Duration::from_secs(240),
                cancel: cancel.clone(),
                events,
            };
            self.queue.push(job).expect("room in the queue");
            Asked { cancel, receiver }
        }

        fn ask(&self, id: &str, pictures: &[&[u8]], messages: impl Into<Messages>) -> Result<Box<Finished>, Problem> {
            self.push(id, pictures, messages, AskOptions::default()).last()
        }

        fn has(&self, line: &str) {
            let text = self.metrics.render();
            assert!(text.lines().any(|own| own == line), "expected {line:?} in\n{text}");
        }

        fn stop(self) {
            self.queue.close();
            self.engine.join();
        }
    }

    struct Asked {
        cancel: Cancel,
        receiver: UnboundedReceiver<JobEvent>,
    }

    impl Asked {
        fn next(&mut self) -> JobEvent {
            self.receiver.blocking_recv().expect("an event")
        }

        fn last(mut self) -> Result<Box<Finished>, Problem> {
            loop {
                match self.next() {
                    JobEvent::Done(finished) => return Ok(finished),
                    JobEvent::Failed(why) => return Err(why),
                    _ => {}
                }
            }
        }
    }

    /// An answer of many tokens.
    fn long() -> AskOptions {
        AskOptions { max_new_tokens: 1000, forced: vec![PLATE; 1000], ..AskOptions::default() }
    }

    /// The same picture in another file.
    fn in_another_file() -> Vec<u8> {
        let picture = fovea_model::Picture::decode(SHIRTS).expect("a picture");
        fovea_overlay::png(&picture).expect("a PNG file")
    }

    #[test]
    fn a_job_is_answered_and_the_next_one_uses_its_conversation() {
        let server = Server::cpu();
        let mut asked = server.push("first", &[SHIRTS], QUESTION, AskOptions::default());
        assert!(matches!(asked.next(), JobEvent::Started { .. }), "expected Started first");
        let JobEvent::Looked(looked) = asked.next() else { panic!("expected Looked second") };
        let mut text = String::new();
        let first = loop {
            match asked.next() {
                JobEvent::Token { text: piece } => text += &piece,
                JobEvent::Done(finished) => break finished,
                other => panic!("expected a token or the end, got {other:?}"),
            }
        };
        assert_eq!(text, first.turn.text, "text of the tokens (got, expected)");
        assert_eq!(first.report["question"], QUESTION, "(got, expected)");
        let kept = &first.turn.looked[0].kept;
        assert!(looked.len() == 1 && looked[0].kept == *kept && looked[0].tokens >= kept.len(), "{looked:?}");
        assert!(server.engine.overlay("first").expect("an overlay").png(0).expect("a drawing").starts_with(b"\x89PNG"));
        assert_eq!(server.engine.state(), State::Ready, "(got, expected)");
        assert!(server.engine.about().is_some_and(|about| about.context == 2048));

        // The pixels decide, not the file.
        let other = in_another_file();
        for file in [SHIRTS, other.as_slice()] {
            let again = server.ask("again", &[file], QUESTION).expect("an answer");
            assert_eq!(again.turn.answer_ids, first.turn.answer_ids, "answer (got, expected)");
            assert_eq!(again.usage["picture_cached"], true, "(got, expected)");
        }
        assert_eq!(first.usage["picture_cached"], false, "(got, expected)");
        server.has("fovea_cache_requests_total{result=\"hit\"} 2");
        server.has("fovea_cache_requests_total{result=\"miss\"} 1");
        server.has("fovea_answers_total 3");
        server.has("fovea_running 0");
        server.stop();
    }

    #[test]
    fn a_wrong_request_has_a_status_and_does_not_start() {
        let server = Server::cpu();
        let two = Messages(vec![Message::user("a"), Message::assistant("b")]);
        let none = AskOptions { max_new_tokens: 0, ..AskOptions::default() };
        let far = AskOptions { max_new_tokens: 5000, ..AskOptions::default() };
        for (pictures, messages, options, code) in [
            (&[b"no picture".as_slice()][..], Messages::from(QUESTION), AskOptions::default(), "picture"),
            (&[SHIRTS][..], two, AskOptions::default(), "messages"),
            (&[SHIRTS][..], Messages::from(QUESTION), none, "option"),
            (&[SHIRTS][..], Messages::from(QUESTION), far, "context_length_exceeded"),
        ] {
            let mut asked = server.push("wrong", pictures, messages, options);
            match asked.next() {
                JobEvent::Failed(why) => assert_eq!((why.status, why.code), (400, code), "{why:?}: (got, expected)"),
                other => panic!("expected {code}, got {other:?}"),
            }
        }
        let text = server.ask("text", &[], "What color is the sign?").expect("an answer without a picture");
        assert!(text.turn.looked.is_empty() && server.engine.overlay("text").is_none());
        server.stop();
    }

    #[test]
    fn a_cancelled_job_ends_soon_and_the_next_one_is_answered() {
        let server = Server::cpu();
        let expected = server.ask("expected", &[SHIRTS], QUESTION).expect("an answer");
        let mut asked = server.push("long", &[SHIRTS], QUESTION, long());
        let begin = loop {
            if let JobEvent::Token { .. } = asked.next() {
                asked.cancel.cancel();
                break Instant::now();
            }
        };
        let why = asked.last().expect_err("expected no answer");
        assert_eq!((why.status, why.code), (503, "cancelled"), "(got, expected)");
        assert!(begin.elapsed() < Duration::from_secs(2), "it took {:?}", begin.elapsed());
        let next = server.ask("next", &[SHIRTS], QUESTION).expect("an answer");
        assert_eq!(next.turn.answer_ids, expected.turn.answer_ids, "answer (got, expected)");
        // A client that has gone without a word: no event can be sent.
        drop(server.push("gone", &[SHIRTS], QUESTION, long()).receiver);
        let begin = Instant::now();
        server.ask("next", &[SHIRTS], QUESTION).expect("an answer");
        assert!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
        server.stop();
    }

    #[test]
    fn a_job_whose_time_is_over_is_stopped() {
        let server = Server::cpu();
        server.ask("warm", &[SHIRTS], QUESTION).expect("an answer");
        let (events, receiver) = unbounded_channel();
        let request = ChatRequest {
            model: None,
            messages: QUESTION.into(),
            pictures: Vec::new(),
            options: long(),
            stream: true,
            include_usage: false,
        };
        let (cancel, until) = (Cancel::default(), Instant::now() + Duration::from_millis(200));
        let pictures = vec![Arc::from(SHIRTS)];
        let job =
            Job { id: "late".into(), client: "a".into(), request, pictures, until, cancel: cancel.clone(), events };
        server.queue.push(job).expect("room");
        let why = Asked { cancel, receiver }.last().expect_err("expected no answer");
        assert_eq!((why.status, why.code), (504, "timeout"), "(got, expected)");
        server.stop();
    }

    #[test]
    fn a_model_that_cannot_be_opened_is_reported_and_opened_again() {
        let opened = Arc::<Opened>::default();
        let mut open = opener(DeviceChoice::Cpu, &opened);
        let mut tries = 0;
        let server = Server::start(Box::new(move || {
            tries += 1;
            match tries {
                1 => Err(Failure::Network("no model yet".into())),
                2 => panic!("the second time it panics"),
                _ => open(),
            }
        }));
        let begin = Instant::now();
        while server.engine.state() == State::Loading {
            assert!(begin.elapsed() < Duration::from_secs(60), "expected a failure");
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(server.engine.state(), State::Failed("no model yet".into()), "(got, expected)");
        assert!(matches!(server.engine.take_failure(), Some(Failure::Network(_))));
        let why = server.ask("early", &[SHIRTS], QUESTION).expect_err("expected no answer");
        assert_eq!((why.status, why.code), (503, "not_ready"), "(got, expected)");
        while server.engine.state() != State::Ready {
            assert!(begin.elapsed() < Duration::from_secs(120), "expected a model, got {:?}", server.engine.state());
            thread::sleep(Duration::from_millis(20));
        }
        server.ask("late", &[SHIRTS], QUESTION).expect("an answer");
        server.stop();
    }

    #[test]
    fn after_a_lost_device_the_next_job_is_answered() {
        match block_on(OpenDevice::open(&DeviceChoice::Wgpu)) {
            Ok(device) => device.close(),
            Err(RuntimeError::NoAdapter { .. }) => {
                eprintln!("SKIP a lost device: no adapter");
                return;
            }
            Err(why) => panic!("expected an adapter that passes its self-test, got: {why}"),
        }
        let opened = Arc::<Opened>::default();
        let server = Server::start(opener(DeviceChoice::Wgpu, &opened));
        let lose = || lose_device(lock(&opened.device).as_ref().expect("an open device"));
        let expected = server.ask("expected", &[SHIRTS], QUESTION).expect("an answer");
        let mut asked = server.push("lost", &[SHIRTS], QUESTION, long());
        while !matches!(asked.next(), JobEvent::Token { .. }) {}
        lose();
        let why = asked.last().expect_err("expected no answer");
        assert_eq!((why.status, why.code), (503, "device_lost"), "(got, expected)");
        assert!(why.retry_after.is_some());
        let next = server.ask("next", &[SHIRTS], QUESTION).expect("an answer on a new device");
        assert_eq!(next.turn.answer_ids, expected.turn.answer_ids, "answer (got, expected)");
        assert_eq!(next.usage["picture_cached"], false, "a lost device keeps nothing (got, expected)");
        server.has("fovea_device_losses_total 1");
        assert_eq!(opened.times.load(Ordering::Relaxed), 2, "openings (got, expected)");
        server.stop();
    }

    #[test]
    fn closing_the_queue_ends_the_engine() {
        let server = Server::cpu();
        let engine = server.engine.clone();
        server.stop();
        assert!(lock(&engine.threads).is_empty());
    }
}
