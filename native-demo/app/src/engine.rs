//! The engine runs in its own thread: commands in, updates out. The window never waits for it, and survives its
//! failure.
//!
//! A command that panics or loses its device ends in [`Update::Failed`]. The engine then drops the model and the
//! device, and the next [`Command::Load`] starts from scratch. The window draws on a separate device.

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
    AskOptions, Cancel, Compression, Config, Event, Fits, LoadProgress, Looked, Messages, Picture, Plan, Precision,
    Stored,
};
use fovea_runtime::DeviceInfo;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::problem::Problem;

/// The location of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModelAt {
    /// The embedded demo checkpoint.
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

/// The device setting. An adapter is stored by name and backend, because its index can change with the drivers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// The best hardware GPU, or the CPU if there is none.
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
    /// The setting for the adapter described by `info`.
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

/// Identifies one answer of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunId {
    /// Index of the question.
    pub turn: usize,
    /// Whether this is the answer for comparison, with another compression.
    pub other: bool,
}

/// A command to the engine.
#[derive(Debug)]
pub enum Command {
    /// List the adapters.
    Adapters,
    /// Compute a checkpoint's memory plan without loading it.
    Plan(ModelAt),
    /// Load a checkpoint; it replaces the current one.
    Load {
        /// The checkpoint.
        model: ModelAt,
        /// The device.
        device: Wanted,
        /// The precision of the weight matrices.
        precision: Precision,
    },
    /// Drop the model. The device stays open.
    Close,
    /// Start a conversation about a picture, and compute in advance what a question with these options needs.
    Look {
        /// The picture.
        picture: Arc<Picture>,
        /// The expected options of the next question.
        options: AskOptions,
    },
    /// Answer a question about the picture.
    Ask {
        /// The run that the answer belongs to.
        run: RunId,
        /// The messages from the first one to the question.
        messages: Messages,
        /// The options. [`Engine::send`] replaces their cancel handle.
        options: AskOptions,
    },
    /// Compute only the token selection for a question, without an answer.
    Explain {
        /// The run that the selection belongs to.
        run: RunId,
        /// The messages from the first one to the question.
        messages: Messages,
        /// The options.
        options: AskOptions,
    },
}

impl Command {
    /// The activity that this command starts.
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

/// An activity of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Listing the adapters.
    Listing,
    /// Computing a memory plan.
    Planning,
    /// Loading a model.
    Loading,
    /// Closing a model.
    Closing,
    /// Computing in advance for a picture.
    Preparing,
    /// Answering a question.
    Answering(RunId),
    /// Computing only the token selection.
    Explaining(RunId),
}

/// The memory plan of a checkpoint.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The checkpoint.
    pub model: ModelAt,
    /// One plan per way to store matrices, for the model's largest canvas, in the order of [`Stored::ALL`].
    pub plans: [Plan; Stored::ALL.len()],
    /// Available host memory in bytes, where the system reports it.
    pub host_available: Option<u64>,
}

/// Information about the loaded model.
#[derive(Clone, Debug)]
pub struct About {
    /// The checkpoint.
    pub model: ModelAt,
    /// Its device.
    pub device: DeviceInfo,
    /// `f32`, `f16`, `q8` or `q4`.
    pub dtype: String,
    /// Its configuration.
    pub config: Config,
    /// Whether it has a scale selector.
    pub selector: bool,
    /// Whether it has the tensors of LLaVA-Meteor.
    pub meteor: bool,
    /// Notes for the user, one sentence each.
    pub notes: Vec<String>,
    /// Size of the weights on the device, in bytes.
    pub weights: u64,
    /// Planned peak memory for the largest canvas, in bytes.
    pub planned: u64,
    /// The device from the settings, if it was not found and another one is used.
    pub instead_of: Option<Wanted>,
}

impl About {
    /// What decides which compressions fit the checkpoint.
    pub fn fits(&self) -> Fits<'_> {
        Fits { config: &self.config, selector: self.selector, meteor: self.meteor }
    }

    /// The compression of the checkpoint, until the user chooses another one.
    pub fn compression(&self) -> Compression {
        Compression::default_of(self.fits())
    }
}

/// A result or a progress report of the engine.
#[derive(Debug)]
pub enum Update {
    /// The list of adapters.
    Adapters(Vec<DeviceInfo>),
    /// A checkpoint's memory plan.
    Planned(Box<Planned>),
    /// Progress of loading.
    Loading(LoadProgress),
    /// A model was loaded.
    Loaded(Box<About>),
    /// The model was closed.
    Closed,
    /// Everything that can be computed in advance for the picture is computed.
    Prepared,
    /// An event of an answer.
    Answering {
        /// The answer's run.
        run: RunId,
        /// The event.
        event: Event,
        /// With [`Event::Done`]: the object that `fovea ask --json` prints.
        report: Option<Value>,
        /// With [`Event::Done`]: size of the device's buffers in bytes, where known.
        device_memory: Option<u64>,
    },
    /// The token selection for a question.
    Explained {
        /// The run that it belongs to.
        run: RunId,
        /// The selection.
        looked: Arc<Looked>,
    },
    /// A command failed or was stopped.
    Failed {
        /// The activity that ended.
        doing: Doing,
        /// The reason.
        problem: Problem,
    },
}

/// The window's handle to the engine.
pub struct Engine {
    commands: Sender<(Command, Cancel)>,
    updates: Receiver<Update>,
    /// Cancels the running command.
    running: Mutex<Cancel>,
}

/// Stack size in bytes, the same as for the command line's worker: a checkpoint's chat template may recurse.
const STACK: usize = 64 << 20;

impl Engine {
    /// Starts the thread. It calls `wake` after every update. If the thread cannot be started, [`Engine::send`] returns
    /// an error.
    pub fn start(wake: impl Fn() + Send + Sync + 'static) -> Self {
        let (engine, commands, updates) = Self::wired();
        let wake: work::Wake = Arc::new(wake);
        let worker = move || work::serve(&commands, &updates, &wake);
        // If the thread cannot be started, the closure and the commands' receiver are dropped, and `send` fails.
        let _ = thread::Builder::new().name("engine".into()).stack_size(STACK).spawn(worker);
        engine
    }

    /// The handle, and the thread's ends of both channels: for tests that simulate the engine.
    pub fn wired() -> (Self, Receiver<(Command, Cancel)>, Sender<Update>) {
        let (command_in, command_out) = channel();
        let (update_in, update_out) = channel();
        (Self { commands: command_in, updates: update_out, running: Mutex::default() }, command_out, update_in)
    }

    /// Sends a command. Any command except [`Command::Adapters`] and [`Command::Plan`] first cancels the running one.
    ///
    /// # Errors
    /// [`Problem`] if the engine's thread has ended.
    pub fn send(&self, command: Command) -> Result<(), Problem> {
        let cancel = Cancel::default();
        if !matches!(command, Command::Adapters | Command::Plan(_)) {
            std::mem::replace(&mut *self.running(), cancel.clone()).cancel();
        }
        self.commands.send((command, cancel)).map_err(|_| Problem::engine_gone())
    }

    /// Cancels the running command. It ends after the current layer, tensor or token at the latest.
    pub fn stop(&self) {
        self.running().cancel();
    }

    /// The updates since the last call.
    pub fn updates(&self) -> impl Iterator<Item = Update> {
        self.updates.try_iter()
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Cancel> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
