//! The engine in a thread of its own: commands in, events out. The window never waits for it, and lives on where it does
//! not.
//!
//! A command that panics or loses its device ends in [`Event::Failed`]; what the engine held is given up, and the next
//! [`Command::Load`] starts from nothing. The engine's device is its own: the window draws on another.

mod work;

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use fovea_model::{
    AskOptions, Cancel, Event as Answering, FocusConfig, LoadProgress, Looked, Picture, Plan, Precision,
};
use fovea_runtime::DeviceInfo;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::problem::Problem;

/// Which checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModelAt {
    /// The embedded one.
    #[default]
    Demo,
    /// A directory.
    Folder(PathBuf),
}

impl fmt::Display for ModelAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Demo => f.write_str("Demo checkpoint"),
            Self::Folder(path) => {
                let name = path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into());
                f.write_str(&name)
            }
        }
    }
}

/// Which device, as it is remembered: an adapter by its name and backend, because numbers change with drivers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// The best real GPU, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// One adapter.
    Adapter {
        /// Its name.
        name: String,
        /// `vulkan`, `metal`, `dx12` or `gl`.
        backend: String,
    },
}

impl Wanted {
    /// The adapter that `info` tells of.
    pub fn of(info: &DeviceInfo) -> Self {
        Self::Adapter { name: info.name.clone(), backend: info.backend.clone() }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("Automatic"),
            Self::Cpu => f.write_str("CPU"),
            Self::Adapter { name, backend } => write!(f, "{name} ({backend})"),
        }
    }
}

/// What in a conversation an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunId {
    /// Index of the question.
    pub turn: usize,
    /// Whether it is the run with every token, beside the one with the samplers.
    pub full: bool,
}

/// What the engine can be told.
#[derive(Debug)]
pub enum Command {
    /// List the adapters.
    Adapters,
    /// Tell what a checkpoint would take, without loading it.
    Plan(ModelAt),
    /// Load a checkpoint, in the place of another.
    Load {
        /// Which.
        model: ModelAt,
        /// Where.
        device: Wanted,
        /// What matrices are kept in.
        precision: Precision,
    },
    /// Give the model and its device back.
    Close,
    /// Turn to a picture, and compute ahead what a question with these options would wait for.
    Look {
        /// The picture.
        picture: Arc<Picture>,
        /// How it is going to be asked.
        options: AskOptions,
    },
    /// Answer a question on the picture.
    Ask {
        /// Whose answer it is.
        run: RunId,
        /// The question.
        question: String,
        /// How. [`Engine::send`] replaces the handle that stops it.
        options: AskOptions,
    },
    /// Tell only what would be looked at for a question.
    Explain {
        /// Whose question it is.
        run: RunId,
        /// The question.
        question: String,
        /// How.
        options: AskOptions,
    },
}

impl Command {
    /// What was under way, for a message.
    fn doing(&self) -> Doing {
        match self {
            Self::Adapters => Doing::Listing,
            Self::Plan(_) => Doing::Planning,
            Self::Load { .. } => Doing::Loading,
            Self::Close => Doing::Closing,
            Self::Look { .. } => Doing::Preparing,
            Self::Ask { run, .. } => Doing::Answering(*run),
            Self::Explain { run, .. } => Doing::Explaining(*run),
        }
    }
}

/// What the engine was at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Looking for adapters.
    Listing,
    /// Reading what a checkpoint is.
    Planning,
    /// Loading.
    Loading,
    /// Giving a model back.
    Closing,
    /// Computing ahead for a picture.
    Preparing,
    /// A run of a question.
    Answering(RunId),
    /// The same up to what is looked at.
    Explaining(RunId),
}

/// What a checkpoint would take.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Which checkpoint.
    pub model: ModelAt,
    /// With matrices in f32, for the model's largest canvas.
    pub f32: Plan,
    /// With matrices in f16.
    pub f16: Plan,
    /// Bytes of host memory that could be taken, where the system tells.
    pub host_available: Option<u64>,
}

/// What has been loaded.
#[derive(Clone, Debug)]
pub struct About {
    /// Which checkpoint.
    pub model: ModelAt,
    /// Where it is.
    pub device: DeviceInfo,
    /// `f32` or `f16`.
    pub dtype: String,
    /// Whether there is a scale selector.
    pub selector: bool,
    /// Whether it was trained with the samplers: they are on then.
    pub has_focus: bool,
    /// What a user should know of it, each a sentence.
    pub notes: Vec<String>,
    /// Decoder layers.
    pub layers: usize,
    /// The samplers' settings.
    pub focus: FocusConfig,
    /// Bytes of the weights on the device.
    pub weights: u64,
    /// The most bytes at once, by plan, for the largest canvas.
    pub planned: u64,
    /// The device that was remembered, where it is not there any more.
    pub instead_of: Option<Wanted>,
}

/// What the engine tells.
#[derive(Debug)]
pub enum Event {
    /// The adapters there are.
    Adapters(Vec<DeviceInfo>),
    /// What a checkpoint would take.
    Planned(Box<Planned>),
    /// How far loading is.
    Loading(LoadProgress),
    /// A model is there.
    Loaded(Box<About>),
    /// There is no model any more.
    Closed,
    /// What could be computed ahead for the picture is.
    Prepared,
    /// How an answer goes on; with the whole of it what `fovea ask --json` tells, and the device's memory in use.
    Answering {
        /// Whose.
        run: RunId,
        /// What happened.
        event: Answering,
        /// With the last event.
        report: Option<Value>,
        /// Bytes that the device's buffers take, where that is known.
        device_memory: Option<u64>,
    },
    /// What would be looked at.
    Explained {
        /// For whose question.
        run: RunId,
        /// What.
        looked: Arc<Looked>,
    },
    /// A command ended without its result.
    Failed {
        /// Which.
        doing: Doing,
        /// Why.
        problem: Problem,
    },
}

/// The window's end of the engine.
pub struct Engine {
    commands: Sender<(Command, Cancel)>,
    events: Receiver<Event>,
    /// Stops what it is at.
    running: Mutex<Cancel>,
}

/// Bytes of stack, as the command line gives its worker: a checkpoint's template may recurse.
const STACK: usize = 64 << 20;

impl Engine {
    /// Starts the thread. `wake` is called after every event, from that thread. Where it is not to be had, every command
    /// is without an answer, and [`Engine::send`] says so.
    pub fn start(wake: impl Fn() + Send + Sync + 'static) -> Self {
        let (engine, commands, events) = Self::wired();
        let wake: work::Wake = Arc::new(wake);
        let worker = move || work::serve(&commands, &events, &wake);
        // Without a thread the commands' receiver is gone with the closure, which `send` reports.
        let _ = thread::Builder::new().name("engine".into()).stack_size(STACK).spawn(worker);
        engine
    }

    /// The window's end, and the thread's two ends: for tests that play the engine.
    pub fn wired() -> (Self, Receiver<(Command, Cancel)>, Sender<Event>) {
        let (command_in, command_out) = channel();
        let (event_in, event_out) = channel();
        (Self { commands: command_in, events: event_out, running: Mutex::default() }, command_out, event_in)
    }

    /// Tells the engine to do something. What it is at on a picture or a model is stopped for whatever needs these.
    ///
    /// # Errors
    /// [`Problem`] where the engine's thread is gone.
    pub fn send(&self, command: Command) -> Result<(), Problem> {
        let cancel = Cancel::default();
        if !matches!(command, Command::Adapters | Command::Plan(_)) {
            std::mem::replace(&mut *self.running(), cancel.clone()).cancel();
        }
        self.commands.send((command, cancel)).map_err(|_| Problem::engine_gone())
    }

    /// Stops what it is at, within a layer, a tensor or a token.
    pub fn stop(&self) {
        self.running().cancel();
    }

    /// What has happened since the last call.
    pub fn heard(&self) -> impl Iterator<Item = Event> {
        self.events.try_iter()
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Cancel> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
