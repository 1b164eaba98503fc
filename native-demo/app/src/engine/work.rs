//! The engine's thread: executes commands and sends updates.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        mpsc::{Receiver, Sender},
    },
};

use fovea_model::{AskOptions, Cancel, Checkpoint, Conversation, Error, Event, Messages, Model, Plan, Stored, demo};
use fovea_runtime::{DeviceChoice, OpenDevice, device::adapters, memory, source::Source};
use futures_util::StreamExt;

use super::{About, Command, Doing, ModelAt, Planned, RunId, Update, Wanted};
use crate::problem::Problem;

/// Called after every update.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// The thread's state.
struct Work<'a> {
    updates: &'a Sender<Update>,
    wake: &'a Wake,
    /// The open device and its setting. It stays open when a model is closed: CubeCL never frees a device's pipelines,
    /// so opening a device for every model would leak memory each time.
    device: Option<(Wanted, OpenDevice)>,
    model: Option<Arc<Model>>,
    conversation: Option<Conversation>,
}

/// Executes commands until the window has closed.
pub fn serve(commands: &Receiver<(Command, Cancel)>, updates: &Sender<Update>, wake: &Wake) {
    let mut work = Work { updates, wake, device: None, model: None, conversation: None };
    while let Ok((command, cancel)) = commands.recv() {
        let doing = command.doing();
        let done = catch_unwind(AssertUnwindSafe(|| pollster::block_on(work.run(command, &cancel))));
        let problem = match done {
            Ok(Ok(())) => continue,
            Ok(Err(error)) if matches!(doing, Doing::Answering(_) | Doing::Explaining(_)) => {
                Problem::of_question(&error)
            }
            Ok(Err(error)) => Problem::of(&error),
            Err(panic) => Problem::panicked(panic.as_ref()),
        };
        if problem.ends_engine() {
            work.drop_all();
        }
        work.send(Update::Failed { doing, problem });
    }
    work.drop_all();
}

impl Work<'_> {
    fn send(&self, update: Update) {
        // An error means that the window has closed.
        let _ = self.updates.send(update);
        (self.wake)();
    }

    /// Drops the model and frees its device memory.
    fn drop_model(&mut self) {
        self.conversation = None;
        if self.model.take().is_some()
            && let Some((_, device)) = &self.device
        {
            device.release_unused();
        }
    }

    /// Drops model and device. A lost device may panic here again.
    fn drop_all(&mut self) {
        (self.conversation, self.model) = (None, None);
        if let Some((_, device)) = self.device.take() {
            let _ = catch_unwind(AssertUnwindSafe(|| device.close()));
        }
    }

    /// Opens the device of a setting, or reuses the open one. If the setting's device was not found, the second value
    /// is the setting.
    async fn open(&mut self, wanted: Wanted) -> Result<(OpenDevice, Option<Wanted>), Error> {
        if let Some((open, device)) = &self.device
            && *open == wanted
            && device.is_alive()
        {
            return Ok((device.clone(), None));
        }
        self.drop_all();
        let (choice, instead_of) = choose(&wanted).await;
        let device = OpenDevice::open(&choice).await?;
        // A replacement is stored as `Auto`: the next load then searches for the wanted device again.
        let opened_as = if instead_of.is_some() { Wanted::Auto } else { wanted };
        self.device = Some((opened_as, device.clone()));
        Ok((device, instead_of))
    }

    async fn run(&mut self, command: Command, cancel: &Cancel) -> Result<(), Error> {
        let with = |options: AskOptions| AskOptions { cancel: cancel.clone(), ..options };
        match command {
            Command::Adapters => self.send(Update::Adapters(adapters().await)),
            Command::Plan(model) => {
                let checkpoint = Checkpoint::open(source(&model)?).await?;
                let plans = Stored::ALL.map(|stored| Plan::new(&checkpoint, None, stored));
                let planned = Planned { model, plans, host_available: memory::host_available() };
                self.send(Update::Planned(Box::new(planned)));
            }
            Command::Load { model, device, precision } => {
                self.drop_model();
                let checkpoint = Checkpoint::open(source(&model)?).await?;
                let plans = Stored::ALL.map(|stored| Plan::new(&checkpoint, None, stored));
                let (device, instead_of) = self.open(device).await?;
                let report = |progress| self.send(Update::Loading(progress));
                let loaded = Model::load(checkpoint, device.clone(), precision, cancel, report).await;
                let loaded = loaded.inspect_err(|_| device.release_unused())?;
                let planned = Stored::ALL.into_iter().zip(plans).find(|(stored, _)| *stored == loaded.stored());
                let about = About {
                    model,
                    device: device.info.clone(),
                    dtype: loaded.dtype_name().to_owned(),
                    config: loaded.config().clone(),
                    selector: loaded.fits().selector,
                    meteor: loaded.fits().meteor,
                    notes: loaded.notes().to_vec(),
                    weights: loaded.weight_bytes(),
                    planned: planned.map_or(0, |(_, plan)| plan.peak_on(device.info.class)),
                    instead_of,
                };
                self.model = Some(loaded);
                self.send(Update::Loaded(Box::new(about)));
            }
            Command::Close => {
                self.drop_model();
                self.send(Update::Closed);
            }
            Command::Look { picture, options } => {
                let model = self.model.as_ref().ok_or_else(nothing_to_ask)?;
                let conversation = self.conversation.insert(Conversation::new(model, (*picture).clone()));
                let options = with(options);
                conversation.prepare(&options).await?;
                self.send(Update::Prepared);
                // While the user types. A question reports all problems except a lost device.
                if let Some(conversation) = &mut self.conversation
                    && let Err(error) = conversation.warm_up(&options).await
                    && Problem::of(&error).ends_engine()
                {
                    return Err(error);
                }
            }
            Command::Ask { run, messages, options } => self.ask(run, &messages, &with(options)).await?,
            Command::Explain { run, messages, options } => {
                let conversation = self.conversation.as_mut().ok_or_else(nothing_to_ask)?;
                let looked = conversation.explain(&messages, &with(options)).await?;
                self.send(Update::Explained { run, looked });
            }
        }
        Ok(())
    }

    async fn ask(&mut self, run: RunId, messages: &Messages, options: &AskOptions) -> Result<(), Error> {
        let Self { updates, wake, model: Some(model), conversation: Some(conversation), .. } = self else {
            return Err(nothing_to_ask());
        };
        let question = messages.question();
        let mut answer = pin!(conversation.ask(messages, options));
        while let Some(event) = answer.next().await {
            let event = event?;
            let (report, device_memory) = match &event {
                Event::Done(turn) => (Some(model.report(&question, turn)), model.device().memory_in_use()),
                _ => (None, None),
            };
            let _ = updates.send(Update::Answering { run, event, report, device_memory });
            wake();
        }
        Ok(())
    }
}

fn nothing_to_ask() -> Error {
    Error::Option { option: "question", expected: "a model and a picture".into(), got: "none".into() }
}

fn source(model: &ModelAt) -> Result<Source, Error> {
    Ok(match model {
        ModelAt::Demo => demo::source(),
        ModelAt::Folder(path) => Source::open(path)?,
    })
}

/// The device to open for a setting. If the setting's adapter was not found: `Auto`, and the setting.
async fn choose(wanted: &Wanted) -> (DeviceChoice, Option<Wanted>) {
    match wanted {
        Wanted::Auto => (DeviceChoice::Auto, None),
        Wanted::Cpu => (DeviceChoice::Cpu, None),
        Wanted::Adapter { .. } => match adapters().await.iter().position(|info| Wanted::of(info) == *wanted) {
            Some(index) => (DeviceChoice::WgpuIndex(index), None),
            None => (DeviceChoice::Auto, Some(wanted.clone())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;

    #[test]
    fn a_missing_adapter_is_replaced_by_the_best_available() {
        let gone = Wanted::Adapter { name: "Voodoo 2".into(), backend: "glide".into() };
        assert_eq!(pollster::block_on(choose(&gone)), (DeviceChoice::Auto, Some(gone.clone())));
        assert_eq!(pollster::block_on(choose(&Wanted::Cpu)), (DeviceChoice::Cpu, None));
    }

    #[test]
    fn a_question_without_a_picture_is_an_error_and_the_engine_continues() {
        let (engine, commands, updates) = Engine::wired();
        let wake: Wake = Arc::new(|| {});
        let run = RunId { turn: 0, other: false };
        engine.send(Command::Ask { run, messages: "?".into(), options: AskOptions::default() }).expect("sent");
        engine.send(Command::Plan(ModelAt::Demo)).expect("sent");
        let worker = std::thread::spawn(move || serve(&commands, &updates, &wake));
        let mut received = Vec::new();
        while received.len() < 2 {
            received.extend(engine.updates());
            std::thread::yield_now();
        }
        let doing = Doing::Answering(run);
        assert!(matches!(&received[0], Update::Failed { doing: d, .. } if *d == doing), "got {received:?}");
        assert!(
            matches!(&received[1], Update::Planned(p) if p.plans.is_sorted_by(|a, b| a.weight_bytes > b.weight_bytes)),
            "got {received:?}"
        );
        drop(engine);
        worker.join().expect("the worker ends with its window");
    }
}
