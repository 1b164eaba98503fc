//! What the engine's thread does with a command.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        mpsc::{Receiver, Sender},
    },
};

use fovea_model::{AskOptions, Cancel, Checkpoint, Conversation, Error, Event as Answering, Model, Plan, demo};
use fovea_runtime::{DeviceChoice, OpenDevice, device::adapters, memory, source::Source};
use futures_util::StreamExt;

use super::{About, Command, Event, ModelAt, Planned, RunId, Wanted};
use crate::problem::Problem;

/// Called after every event.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// What the thread holds.
struct Work<'a> {
    events: &'a Sender<Event>,
    wake: &'a Wake,
    /// The open device, and what was wanted. It outlives its models: CubeCL never drops a device's pipelines, so one opened
    /// for every model would take more memory each time.
    device: Option<(Wanted, OpenDevice)>,
    model: Option<Arc<Model>>,
    conversation: Option<Conversation>,
}

/// Does one command after another until the window is gone.
pub fn serve(commands: &Receiver<(Command, Cancel)>, events: &Sender<Event>, wake: &Wake) {
    let mut work = Work { events, wake, device: None, model: None, conversation: None };
    while let Ok((command, cancel)) = commands.recv() {
        let doing = command.doing();
        let done = catch_unwind(AssertUnwindSafe(|| pollster::block_on(work.run(command, &cancel))));
        let problem = match done {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => Problem::of(&error),
            Err(panic) => Problem::panicked(panic.as_ref()),
        };
        if problem.ends_engine() {
            work.give_up();
        }
        work.tell(Event::Failed { doing, problem });
    }
    work.give_up();
}

impl Work<'_> {
    fn tell(&self, event: Event) {
        // A window that has closed hears nothing more.
        let _ = self.events.send(event);
        (self.wake)();
    }

    /// Drops the model, and gives back what it took of the device.
    fn drop_model(&mut self) {
        self.conversation = None;
        if self.model.take().is_some()
            && let Some((_, device)) = &self.device
        {
            device.release_unused();
        }
    }

    /// Drops everything. A broken device may panic once more.
    fn give_up(&mut self) {
        (self.conversation, self.model) = (None, None);
        if let Some((_, device)) = self.device.take() {
            let _ = catch_unwind(AssertUnwindSafe(|| device.close()));
        }
    }

    /// The wanted device, and what was wanted where that is not there: the one that is open, or another in its place.
    async fn open(&mut self, wanted: Wanted) -> Result<(OpenDevice, Option<Wanted>), Error> {
        if let Some((open, device)) = &self.device
            && *open == wanted
            && device.is_alive()
        {
            return Ok((device.clone(), None));
        }
        self.give_up();
        let (choice, instead_of) = found(&wanted).await;
        let device = OpenDevice::open(&choice).await?;
        // What is there instead is looked for anew the next time.
        let opened_as = if instead_of.is_some() { Wanted::Auto } else { wanted };
        self.device = Some((opened_as, device.clone()));
        Ok((device, instead_of))
    }

    async fn run(&mut self, command: Command, cancel: &Cancel) -> Result<(), Error> {
        let with = |options: AskOptions| AskOptions { cancel: cancel.clone(), ..options };
        match command {
            Command::Adapters => self.tell(Event::Adapters(adapters().await)),
            Command::Plan(model) => {
                let checkpoint = Checkpoint::open(source(&model)?).await?;
                let [f32, f16] = [4, 2].map(|bytes| Plan::new(&checkpoint, None, bytes));
                let planned = Planned { model, f32, f16, host_available: memory::host_available() };
                self.tell(Event::Planned(Box::new(planned)));
            }
            Command::Load { model, device, precision } => {
                self.drop_model();
                let checkpoint = Checkpoint::open(source(&model)?).await?;
                let [f32, f16] = [4, 2].map(|bytes| Plan::new(&checkpoint, None, bytes));
                let (device, instead_of) = self.open(device).await?;
                let tell = |progress| self.tell(Event::Loading(progress));
                let loaded = Model::load(checkpoint, device.clone(), precision, cancel, tell).await;
                let loaded = loaded.inspect_err(|_| device.release_unused())?;
                let plan = if loaded.dtype_name() == "f16" { f16 } else { f32 };
                let about = About {
                    model,
                    device: device.info,
                    dtype: loaded.dtype_name(),
                    selector: loaded.has_selector(),
                    has_focus: loaded.config().has_focus,
                    notes: loaded.notes().to_vec(),
                    layers: loaded.config().text.n_layers,
                    focus: loaded.config().focus.clone(),
                    weights: loaded.weight_bytes(),
                    planned: plan.peak_bytes(),
                    instead_of,
                };
                self.model = Some(loaded);
                self.tell(Event::Loaded(Box::new(about)));
            }
            Command::Close => {
                self.drop_model();
                self.tell(Event::Closed);
            }
            Command::Look { picture, options } => {
                let model = self.model.as_ref().ok_or_else(nothing)?;
                let conversation = self.conversation.insert(model.look_at((*picture).clone()));
                conversation.prepare(&with(options)).await?;
                self.tell(Event::Prepared);
            }
            Command::Ask { run, question, options } => self.ask(run, &question, &with(options)).await?,
            Command::Explain { run, question, options } => self.explain(run, &question, &with(options)).await?,
        }
        Ok(())
    }

    async fn ask(&mut self, run: RunId, question: &str, options: &AskOptions) -> Result<(), Error> {
        let Self { events, wake, model: Some(model), conversation: Some(conversation), .. } = self else {
            return Err(nothing());
        };
        let mut answer = pin!(conversation.ask(question, options));
        while let Some(event) = answer.next().await {
            let event = event?;
            let (report, device_memory) = match &event {
                Answering::Done(turn) => (Some(model.report(question, turn)?), model.device().memory_in_use()),
                _ => (None, None),
            };
            let _ = events.send(Event::Answering { run, event, report, device_memory });
            wake();
        }
        Ok(())
    }

    async fn explain(&mut self, run: RunId, question: &str, options: &AskOptions) -> Result<(), Error> {
        let Self { events, wake, conversation: Some(conversation), .. } = self else { return Err(nothing()) };
        let mut answer = pin!(conversation.ask(question, options));
        while let Some(event) = answer.next().await {
            if let Answering::Looked(looked) = event? {
                let _ = events.send(Event::Explained { run, looked });
                wake();
                break;
            }
        }
        Ok(())
    }
}

fn nothing() -> Error {
    Error::Option { option: "question", expected: "a model and a picture".into(), got: "none".into() }
}

fn source(model: &ModelAt) -> Result<Source, Error> {
    Ok(match model {
        ModelAt::Demo => demo::source(),
        ModelAt::Folder(path) => Source::open(path)?,
    })
}

/// The device to open, and what was wanted where that is not there.
async fn found(wanted: &Wanted) -> (DeviceChoice, Option<Wanted>) {
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
    use crate::engine::{Doing, Engine};

    #[test]
    fn an_adapter_that_is_gone_gives_way_to_the_best_there_is() {
        let gone = Wanted::Adapter { name: "Voodoo 2".into(), backend: "glide".into() };
        assert_eq!(pollster::block_on(found(&gone)), (DeviceChoice::Auto, Some(gone.clone())));
        assert_eq!(pollster::block_on(found(&Wanted::Cpu)), (DeviceChoice::Cpu, None));
    }

    #[test]
    fn a_question_without_a_picture_is_an_error_and_not_the_end() {
        let (engine, commands, events) = Engine::wired();
        let wake: Wake = Arc::new(|| {});
        let run = RunId { turn: 0, full: false };
        engine.send(Command::Ask { run, question: "?".into(), options: AskOptions::default() }).expect("sent");
        engine.send(Command::Plan(ModelAt::Demo)).expect("sent");
        let worker = std::thread::spawn(move || serve(&commands, &events, &wake));
        let mut heard = Vec::new();
        while heard.len() < 2 {
            heard.extend(engine.heard());
            std::thread::yield_now();
        }
        let doing = Doing::Answering(run);
        assert!(matches!(&heard[0], Event::Failed { doing: d, .. } if *d == doing), "got {heard:?}");
        assert!(matches!(&heard[1], Event::Planned(p) if p.f32.weight_bytes > p.f16.weight_bytes), "got {heard:?}");
        drop(engine);
        worker.join().expect("a worker that ends with its window");
    }
}
