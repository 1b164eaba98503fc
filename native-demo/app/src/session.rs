//! What the window shows: model, picture, questions and answers. It changes by what the engine tells and by what the user
//! does; nothing here draws or waits.

use std::sync::Arc;

use fovea_model::{AskOptions, Event as Answering, LoadProgress, Looked, Picture, Stage, Statistics, words::harmless};
use fovea_runtime::{DeviceInfo, Keep, top_k};
use serde_json::Value;

use crate::{
    engine::{About, Doing, Event, ModelAt, Planned, RunId},
    problem::Problem,
};

/// The model's state.
#[derive(Debug, Default)]
pub enum ModelState {
    /// None.
    #[default]
    None,
    /// On its way.
    Loading {
        /// Which.
        model: ModelAt,
        /// How far, once that is known.
        progress: Option<LoadProgress>,
    },
    /// There.
    Ready(Box<About>),
    /// It could not be loaded, or what it ran on is gone.
    Broken {
        /// Which.
        model: ModelAt,
        /// Why.
        problem: Problem,
    },
}

/// The picture that is asked about.
pub struct Shown {
    /// What it is called.
    pub name: String,
    /// Its pixels.
    pub picture: Arc<Picture>,
}

/// How questions are asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Whether the vision-guided sampler is on.
    pub vision: bool,
    /// Whether the text-guided sampler is on.
    pub text: bool,
    /// Its threshold; None: the model's.
    pub gamma: Option<f64>,
    /// The layer whose input it prunes; None: the model's.
    pub layer: Option<usize>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { vision: true, text: true, gamma: None, layer: None }
    }
}

impl Sampling {
    /// As a question has it.
    pub fn options(&self) -> AskOptions {
        AskOptions {
            vision: Some(self.vision),
            text: Some(self.text),
            keep: self.gamma.map(Keep::Gamma),
            layer: self.layer,
            ..AskOptions::default()
        }
    }

    /// Every token in every layer.
    pub fn full() -> Self {
        Self { vision: false, text: false, gamma: None, layer: None }
    }
}

/// How an answer stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It comes.
    Running,
    /// It is whole.
    Done,
    /// The user stopped it.
    Stopped,
    /// It failed.
    Failed(Problem),
}

/// One run of a question.
#[derive(Debug)]
pub struct Run {
    /// How it was asked.
    pub sampling: Sampling,
    /// The layer of what is looked at now: another than its own after the slider was moved.
    pub layer: Option<usize>,
    /// How it stands.
    pub progress: Progress,
    /// The answer so far.
    pub text: String,
    /// Stages that have ended, and their milliseconds.
    pub stages: Vec<(Stage, f64)>,
    /// How far a stage is that takes long.
    pub under_way: Option<fovea_model::Progress>,
    /// What was looked at.
    pub looked: Option<Arc<Looked>>,
    /// What it cost.
    pub statistics: Option<Statistics>,
    /// The whole as `fovea ask --json` tells it.
    pub report: Option<Value>,
    /// Bytes that the device's buffers took at its end.
    pub device_memory: Option<u64>,
}

impl Run {
    fn new(sampling: Sampling) -> Self {
        Self {
            sampling,
            layer: sampling.layer,
            progress: Progress::Running,
            text: String::new(),
            stages: Vec::new(),
            under_way: None,
            looked: None,
            statistics: None,
            report: None,
            device_memory: None,
        }
    }
}

/// A question, its answer, and beside it on request the answer with every token.
#[derive(Debug)]
pub struct Turn {
    /// The question.
    pub question: String,
    /// As the samplers were set.
    pub focused: Run,
    /// With every token.
    pub full: Option<Run>,
}

/// A word to the user that goes when told to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Something to know.
    Word(String),
    /// Something went wrong.
    Problem(Problem),
}

/// Everything that the window shows.
#[derive(Default)]
pub struct Session {
    /// The adapters, once listed.
    pub adapters: Option<Vec<DeviceInfo>>,
    /// The model.
    pub model: ModelState,
    /// What a checkpoint would take, while the user decides.
    pub plan: Option<Box<Planned>>,
    /// The picture.
    pub picture: Option<Shown>,
    /// Questions and answers on it.
    pub turns: Vec<Turn>,
    /// Whose tokens are shown.
    pub selected: Option<RunId>,
    /// What the engine is at for the user.
    pub busy: Option<Doing>,
    /// Whether the picture's own part is still computed ahead.
    pub preparing: bool,
    /// Words to the user.
    pub notices: Vec<Notice>,
}

impl Session {
    /// The loaded model.
    pub fn about(&self) -> Option<&About> {
        match &self.model {
            ModelState::Ready(about) => Some(about),
            _ => None,
        }
    }

    /// Whether a question can be asked now.
    pub fn can_ask(&self) -> bool {
        self.about().is_some() && self.picture.is_some() && self.busy.is_none()
    }

    /// Whether a question is being answered.
    pub fn answering(&self) -> bool {
        matches!(self.busy, Some(Doing::Answering(_)))
    }

    /// Another picture: a conversation of its own.
    pub fn show(&mut self, shown: Shown) {
        self.picture = Some(shown);
        self.turns.clear();
        self.selected = None;
    }

    /// A new question; whose answer it will be.
    pub fn ask(&mut self, question: &str, sampling: Sampling) -> RunId {
        self.turns.push(Turn { question: question.to_owned(), focused: Run::new(sampling), full: None });
        self.begin(RunId { turn: self.turns.len() - 1, full: false })
    }

    /// The same question with every token; None where there is no such question.
    pub fn compare(&mut self, turn: usize) -> Option<RunId> {
        self.turns.get_mut(turn)?.full = Some(Run::new(Sampling::full()));
        Some(self.begin(RunId { turn, full: true }))
    }

    fn begin(&mut self, run: RunId) -> RunId {
        self.busy = Some(Doing::Answering(run));
        self.selected = Some(run);
        run
    }

    /// A run.
    pub fn run(&self, id: RunId) -> Option<&Run> {
        let turn = self.turns.get(id.turn)?;
        if id.full { turn.full.as_ref() } else { Some(&turn.focused) }
    }

    fn run_mut(&mut self, id: RunId) -> Option<&mut Run> {
        let turn = self.turns.get_mut(id.turn)?;
        if id.full { turn.full.as_mut() } else { Some(&mut turn.focused) }
    }

    /// What is to be drawn: the selected run's tokens, those kept at `gamma` where one is given.
    pub fn looked(&self, gamma: Option<f64>) -> Option<Arc<Looked>> {
        let looked = self.run(self.selected?)?.looked.as_ref()?;
        match gamma.filter(|g| *g > 0.0 && *g <= 1.0 && !looked.importance.is_empty()) {
            None => Some(looked.clone()),
            Some(gamma) => {
                let kept = top_k(&looked.importance, Keep::Gamma(gamma));
                Some(Arc::new(Looked { kept, ..Looked::clone(looked) }))
            }
        }
    }

    /// What the engine tells.
    pub fn hear(&mut self, event: Event) {
        match event {
            Event::Adapters(adapters) => self.adapters = Some(adapters),
            Event::Planned(planned) => self.plan = Some(planned),
            Event::Loading(now) => {
                if let ModelState::Loading { progress, .. } = &mut self.model {
                    *progress = Some(now);
                }
            }
            Event::Loaded(about) => {
                if let Some(gone) = &about.instead_of {
                    let word = format!("{gone} is not there any more: {} is used instead.", about.device);
                    self.notices.push(Notice::Word(word));
                }
                self.notices.extend(about.notes.iter().cloned().map(Notice::Word));
                if !about.has_focus {
                    let word = "This checkpoint was not trained with the samplers: both are off, and every visual token is used. \
                        Switch the text-guided sampler on to use fewer.";
                    self.notices.push(Notice::Word(word.to_owned()));
                }
                self.model = ModelState::Ready(about);
                self.busy = None;
            }
            Event::Closed => self.model = ModelState::None,
            Event::Prepared => self.preparing = false,
            Event::Answering { run, event, report, device_memory } => {
                let Some(answer) = self.run_mut(run) else { return };
                match event {
                    Answering::Stage { stage, milliseconds } => {
                        answer.stages.push((stage, milliseconds));
                        answer.under_way = None;
                    }
                    Answering::Progress(progress) => answer.under_way = Some(progress),
                    Answering::Looked(looked) => answer.looked = Some(looked),
                    Answering::Token { text, .. } => answer.text += &harmless(&text),
                    Answering::Done(turn) => {
                        answer.statistics = Some(turn.statistics);
                        answer.progress = Progress::Done;
                        (answer.report, answer.device_memory) = (report, device_memory);
                        self.end(Doing::Answering(run));
                    }
                }
            }
            Event::Explained { run, looked } => {
                if let Some(answer) = self.run_mut(run) {
                    answer.looked = Some(looked);
                }
                self.end(Doing::Explaining(run));
            }
            Event::Failed { doing, problem } => self.fail(doing, problem),
        }
    }

    /// The engine is free again, where it was at this.
    fn end(&mut self, doing: Doing) {
        if self.busy == Some(doing) {
            self.busy = None;
        }
    }

    fn fail(&mut self, doing: Doing, problem: Problem) {
        self.end(doing);
        match doing {
            Doing::Preparing => self.preparing = false,
            Doing::Answering(run) => {
                if let Some(answer) = self.run_mut(run) {
                    answer.progress =
                        if problem.is_stop() { Progress::Stopped } else { Progress::Failed(problem.clone()) };
                }
            }
            _ => {}
        }
        let model = match &self.model {
            ModelState::Loading { model, .. } if doing == Doing::Loading => Some(model.clone()),
            ModelState::Ready(about) if problem.ends_engine() => Some(about.model.clone()),
            _ => None,
        };
        match model {
            Some(_) if problem.is_stop() => self.model = ModelState::None,
            Some(model) => self.model = ModelState::Broken { model, problem },
            // A failed answer says so itself, and what was stopped was meant to be.
            None if problem.is_stop() || matches!(doing, Doing::Answering(_)) => {}
            None => self.notices.push(Notice::Problem(problem)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> Problem {
        Problem::of(&fovea_model::Error::Runtime(fovea_runtime::Error::DeviceLost("gone".into())))
    }

    fn token(run: RunId, text: &str) -> Event {
        let event = Answering::Token { id: 1, text: text.into() };
        Event::Answering { run, event, report: None, device_memory: None }
    }

    #[test]
    fn a_stopped_answer_keeps_what_there_is_and_frees_the_engine() {
        let mut session = Session::default();
        let run = session.ask("What is it?", Sampling::default());
        assert!(session.answering());
        session.hear(token(run, "a pla"));
        session.hear(token(run, "te\u{1b}[2J"));
        session
            .hear(Event::Failed { doing: Doing::Answering(run), problem: Problem::of(&fovea_model::Error::Cancelled) });
        let answer = session.run(run).expect("a run");
        assert_eq!((answer.text.as_str(), &answer.progress), ("a plate\u{fffd}[2J", &Progress::Stopped));
        assert!(session.busy.is_none() && session.notices.is_empty());
    }

    #[test]
    fn a_late_failure_of_another_run_does_not_free_the_engine() {
        let mut session = Session::default();
        let first = session.ask("One?", Sampling::default());
        let second = session.ask("Two?", Sampling::default());
        session.hear(Event::Failed {
            doing: Doing::Answering(first),
            problem: Problem::of(&fovea_model::Error::Cancelled),
        });
        assert_eq!(session.busy, Some(Doing::Answering(second)));
        session
            .show(Shown { name: "x".into(), picture: Arc::new(Picture::from_rgb(1, 1, vec![0; 3]).expect("a pixel")) });
        session.hear(token(second, "late")); // a run of a picture that is gone
        assert!(session.turns.is_empty());
    }

    #[test]
    fn loading_that_fails_is_a_broken_model_and_loading_that_was_stopped_is_none() {
        let mut session = Session::default();
        let loading = || ModelState::Loading { model: ModelAt::Demo, progress: None };
        session.model = loading();
        session.hear(Event::Failed { doing: Doing::Loading, problem: lost() });
        assert!(matches!(&session.model, ModelState::Broken { problem, .. } if problem.code == "device-lost"));
        session.model = loading();
        session.hear(Event::Failed { doing: Doing::Loading, problem: Problem::of(&fovea_model::Error::Cancelled) });
        assert!(matches!(session.model, ModelState::None));
    }
}
