//! The data that the window shows: model, picture and conversation. Updates of the engine and user input change it.
//! Nothing here draws or blocks.

use std::sync::Arc;

use fovea_model::{
    Compression, Event, FinishReason, LoadProgress, Looked, Message, Messages, Picture, Stage, Statistics,
};
use fovea_overlay::words::harmless;
use fovea_runtime::{DeviceInfo, Keep};
use fovea_shaders::top_k;
use serde_json::Value;

use crate::{
    engine::{About, Doing, ModelAt, Planned, RunId, Update},
    problem::Problem,
    settings::AnswerSettings,
};

/// State of the model.
#[derive(Debug, Default)]
pub enum ModelState {
    /// No model.
    #[default]
    None,
    /// Loading.
    Loading {
        /// The checkpoint.
        model: ModelAt,
        /// Progress, once it is known.
        progress: Option<LoadProgress>,
    },
    /// Loaded.
    Ready(Box<About>),
    /// Loading failed, or the device was lost.
    Broken {
        /// The checkpoint.
        model: ModelAt,
        /// The reason.
        problem: Problem,
    },
}

/// The current picture.
pub struct Shown {
    /// Its name.
    pub name: String,
    /// Its pixels.
    pub picture: Arc<Picture>,
}

/// State of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Streaming.
    Running,
    /// Complete.
    Done,
    /// Stopped by the user.
    Stopped,
    /// Failed.
    Failed(Problem),
}

/// One answer to a question.
#[derive(Debug)]
pub struct Run {
    /// Its compression.
    pub compression: Compression,
    /// The text-guided sampler's layer in the overlay that is shown. It differs from the one in `compression` after the
    /// slider was moved.
    pub layer: Option<usize>,
    /// Its state.
    pub state: RunState,
    /// The answer so far.
    pub text: String,
    /// The number of tokens after which a complete answer was cut; None: the model ended it.
    pub cut_at: Option<usize>,
    /// Completed stages, and their times in milliseconds.
    pub stages: Vec<(Stage, f64)>,
    /// Progress of the current stage, if it takes long.
    pub under_way: Option<fovea_model::Progress>,
    /// The token selection.
    pub looked: Option<Arc<Looked>>,
    /// The token selection at another layer, if the layer slider was moved after the answer.
    pub explained: Option<Arc<Looked>>,
    /// Token counts, times and memory.
    pub statistics: Option<Statistics>,
    /// The object that `fovea ask --json` prints.
    pub report: Option<Value>,
    /// Size of the device's buffers at the end, in bytes.
    pub device_memory: Option<u64>,
}

impl Run {
    fn new(compression: Compression) -> Self {
        Self {
            layer: compression.text().and_then(|text| text.layer),
            compression,
            state: RunState::Running,
            text: String::new(),
            cut_at: None,
            stages: Vec::new(),
            under_way: None,
            looked: None,
            explained: None,
            statistics: None,
            report: None,
            device_memory: None,
        }
    }

    /// The answer as later questions are asked with it. None: it is not part of the conversation, because it failed, has
    /// no text, or is not complete.
    fn said(&self) -> Option<&str> {
        let ended = matches!(self.state, RunState::Done | RunState::Stopped);
        Some(self.text.trim()).filter(|text| ended && !text.is_empty())
    }
}

/// A question, its answer, and on request the answer with another compression.
#[derive(Debug)]
pub struct Exchange {
    /// The question.
    pub question: String,
    /// What was asked: the messages from the first one to the question.
    pub messages: Messages,
    /// The answer with the chosen compression.
    pub answer: Run,
    /// The answer with another compression, for comparison.
    pub other: Option<Run>,
}

/// What a notification is about. It disappears when it is out of date: when a newer attempt succeeds or is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// The start of the window. Such a notification stays until it is dismissed.
    Start,
    /// Opening a picture.
    Picture,
    /// Planning the memory of a model.
    Plan,
    /// The model: a failed load, or notes on the loaded one.
    Model,
    /// What is computed for a picture and its questions.
    Question,
    /// Saving a file.
    Saving,
    /// Writing the settings.
    Settings,
    /// Copying a report.
    Report,
}

/// A notification that the user can dismiss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Information.
    Message(Topic, String),
    /// An error.
    Problem(Topic, Problem),
}

impl Notice {
    fn topic(&self) -> Topic {
        match self {
            Self::Message(topic, _) | Self::Problem(topic, _) => *topic,
        }
    }
}

/// All data that the window shows.
#[derive(Default)]
pub struct Session {
    /// The adapters, once listed.
    pub adapters: Option<Vec<DeviceInfo>>,
    /// The model.
    pub model: ModelState,
    /// The memory plan of a checkpoint, while the user decides whether to load it.
    pub plan: Option<Box<Planned>>,
    /// The picture.
    pub picture: Option<Shown>,
    /// The conversation about the picture: questions and answers, the oldest first.
    pub turns: Vec<Exchange>,
    /// The answer whose tokens are shown.
    pub selected: Option<RunId>,
    /// The engine's current activity, if it blocks new questions.
    pub busy: Option<Doing>,
    /// Whether the engine is still computing in advance for the picture.
    pub preparing: bool,
    /// Notifications.
    pub notices: Vec<Notice>,
    /// Counts changes of [`Run::looked`] and [`Run::explained`], for caches.
    pub overlay_version: u64,
}

impl Session {
    /// The loaded model.
    pub fn about(&self) -> Option<&About> {
        match &self.model {
            ModelState::Ready(about) => Some(about),
            _ => None,
        }
    }

    /// The checkpoint that is loaded, being loaded, or could not be loaded.
    pub fn model_at(&self) -> Option<&ModelAt> {
        match &self.model {
            ModelState::None => None,
            ModelState::Loading { model, .. } | ModelState::Broken { model, .. } => Some(model),
            ModelState::Ready(about) => Some(&about.model),
        }
    }

    /// Removes the notifications about `topic`.
    pub fn clear(&mut self, topic: Topic) {
        self.notices.retain(|notice| notice.topic() != topic);
    }

    /// Shows a problem. It replaces the notifications about the same topic.
    pub fn problem(&mut self, topic: Topic, problem: Problem) {
        self.clear(topic);
        self.notices.push(Notice::Problem(topic, problem));
    }

    /// Shows a message. It replaces the notifications about the same topic.
    pub fn message(&mut self, topic: Topic, text: String) {
        self.clear(topic);
        self.notices.push(Notice::Message(topic, text));
    }

    /// Whether a question can be asked now.
    pub fn can_ask(&self) -> bool {
        self.about().is_some() && self.picture.is_some() && self.busy.is_none()
    }

    /// Whether a question is being answered.
    pub fn answering(&self) -> bool {
        matches!(self.busy, Some(Doing::Answering(_)))
    }

    /// Shows another picture. This begins a new conversation.
    pub fn show(&mut self, shown: Shown) {
        self.picture = Some(shown);
        self.keep_turns(0);
    }

    /// Keeps only the first `count` questions of the conversation.
    pub fn keep_turns(&mut self, count: usize) {
        self.turns.truncate(count);
        self.selected = self.selected.filter(|run| run.turn < count);
    }

    /// The messages of the next question: the system message, what was said if it is remembered, and the question.
    /// A question without an answer is left out, because templates expect questions and answers in turn.
    pub fn messages(&self, question: &str, settings: &AnswerSettings) -> Messages {
        let mut messages = Messages::default();
        let system = settings.system.trim();
        if !system.is_empty() {
            messages.push(Message::system(system));
        }
        let earlier = if settings.remember { &self.turns[..] } else { &[] };
        for turn in earlier {
            if let Some(answer) = turn.answer.said() {
                messages.push(Message::user(&turn.question));
                messages.push(Message::assistant(answer));
            }
        }
        messages.push(Message::user(question));
        messages
    }

    /// Adds a question; returns the id of its answer. `messages` are those of [`Session::messages`].
    pub fn ask(&mut self, question: &str, messages: Messages, compression: Compression) -> RunId {
        let answer = Run::new(compression);
        self.turns.push(Exchange { question: question.to_owned(), messages, answer, other: None });
        self.begin(RunId { turn: self.turns.len() - 1, other: false })
    }

    /// Asks a question again with another compression; None if there is no such question.
    pub fn compare(&mut self, turn: usize, compression: Compression) -> Option<RunId> {
        self.turns.get_mut(turn)?.other = Some(Run::new(compression));
        Some(self.begin(RunId { turn, other: true }))
    }

    fn begin(&mut self, run: RunId) -> RunId {
        self.clear(Topic::Question);
        self.busy = Some(Doing::Answering(run));
        self.selected = Some(run);
        run
    }

    /// The answer with this id.
    pub fn run(&self, id: RunId) -> Option<&Run> {
        let turn = self.turns.get(id.turn)?;
        if id.other { turn.other.as_ref() } else { Some(&turn.answer) }
    }

    fn run_mut(&mut self, id: RunId) -> Option<&mut Run> {
        let turn = self.turns.get_mut(id.turn)?;
        if id.other { turn.other.as_mut() } else { Some(&mut turn.answer) }
    }

    /// The data of the overlay: the selected answer's tokens. If `keep` is given and the text-guided sampler made the
    /// answer, the kept tokens are computed with it. An answer for comparison stays as it is.
    pub fn looked(&self, keep: Option<Keep>) -> Option<Arc<Looked>> {
        let id = self.selected?;
        let run = self.run(id)?;
        let looked = run.explained.as_ref().or(run.looked.as_ref())?;
        let text = !id.other && run.compression.text().is_some() && !looked.importance.is_empty();
        match keep.filter(|_| text) {
            None => Some(looked.clone()),
            Some(keep) => {
                let kept = top_k(&looked.importance, keep);
                Some(Arc::new(Looked { kept, ..Looked::clone(looked) }))
            }
        }
    }

    /// Applies an update of the engine.
    pub fn receive(&mut self, update: Update) {
        match update {
            Update::Adapters(adapters) => self.adapters = Some(adapters),
            Update::Planned(planned) => {
                self.clear(Topic::Plan);
                self.plan = Some(planned);
            }
            Update::Loading(now) => {
                if let ModelState::Loading { progress, .. } = &mut self.model {
                    *progress = Some(now);
                }
            }
            Update::Loaded(about) => {
                self.clear(Topic::Model);
                if let Some(missing) = &about.instead_of {
                    let message = format!("{missing} was not found; using {}.", about.device);
                    self.notices.push(Notice::Message(Topic::Model, message));
                }
                self.notices.extend(about.notes.iter().cloned().map(|note| Notice::Message(Topic::Model, note)));
                if about.compression().is_none() {
                    let message = "This checkpoint was not trained with FocusLLaVA's samplers, so all visual tokens are \
                        used. Choose a compression to use fewer tokens.";
                    self.notices.push(Notice::Message(Topic::Model, message.to_owned()));
                }
                self.model = ModelState::Ready(about);
                self.busy = None;
            }
            Update::Closed => self.model = ModelState::None,
            Update::Prepared => {
                self.preparing = false;
                self.clear(Topic::Question);
            }
            Update::Answering { run, event, report, device_memory } => {
                // Also if the answer's conversation was cleared: the engine is free.
                if matches!(event, Event::Done(_)) {
                    self.end(Doing::Answering(run));
                }
                let Some(answer) = self.run_mut(run) else { return };
                match event {
                    Event::Stage { stage, milliseconds } => {
                        answer.stages.push((stage, milliseconds));
                        answer.under_way = None;
                    }
                    Event::Progress(progress) => answer.under_way = Some(progress),
                    Event::Looked(looked) => {
                        answer.looked = Some(looked);
                        self.overlay_version += 1;
                    }
                    Event::Token { text, .. } => answer.text += &harmless(&text),
                    Event::Done(turn) => {
                        answer.cut_at = (turn.finish_reason == FinishReason::Length).then_some(turn.answer_ids.len());
                        answer.statistics = Some(turn.statistics);
                        answer.state = RunState::Done;
                        (answer.report, answer.device_memory) = (report, device_memory);
                    }
                    _ => {}
                }
            }
            Update::Explained { run, looked } => {
                self.clear(Topic::Question);
                if let Some(answer) = self.run_mut(run) {
                    answer.explained = Some(looked);
                    self.overlay_version += 1;
                }
                self.end(Doing::Explaining(run));
            }
            Update::Failed { doing, problem } => self.fail(doing, problem),
        }
    }

    /// Marks the engine as free if `doing` is its current activity.
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
                    answer.state =
                        if problem.is_stop() { RunState::Stopped } else { RunState::Failed(problem.clone()) };
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
            // A failed answer shows its problem itself, and a stop by the user is no problem.
            None if problem.is_stop() || matches!(doing, Doing::Answering(_)) => {}
            None => {
                let topic = match doing {
                    Doing::Planning => Topic::Plan,
                    Doing::Preparing | Doing::Explaining(_) => Topic::Question,
                    _ => Topic::Model,
                };
                self.problem(topic, problem);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> Problem {
        Problem::of(&fovea_model::Error::Runtime(fovea_runtime::Error::DeviceLost("gone".into())))
    }

    fn ask(session: &mut Session, question: &str) -> RunId {
        let messages = session.messages(question, &AnswerSettings::default());
        session.ask(question, messages, Compression::focus())
    }

    fn token(run: RunId, text: &str) -> Update {
        let event = Event::Token { id: 1, text: text.into() };
        Update::Answering { run, event, report: None, device_memory: None }
    }

    #[test]
    fn a_stopped_answer_keeps_its_text_and_frees_the_engine() {
        let mut session = Session::default();
        let run = ask(&mut session, "What is it?");
        assert!(session.answering());
        session.receive(token(run, "a pla"));
        session.receive(token(run, "te\u{1b}[2J"));
        session.receive(Update::Failed {
            doing: Doing::Answering(run),
            problem: Problem::of(&fovea_model::Error::Cancelled),
        });
        let answer = session.run(run).expect("a run");
        assert_eq!((answer.text.as_str(), &answer.state), ("a plate\u{fffd}[2J", &RunState::Stopped));
        assert!(session.busy.is_none() && session.notices.is_empty());
    }

    #[test]
    fn a_question_is_asked_with_what_was_said() {
        let mut session = Session::default();
        let stopped = Problem::of(&fovea_model::Error::Cancelled);
        let failed = Problem::of(&fovea_model::Error::TooLong { need: 2, have: 1 });
        // The second answer is stopped before its first word, and the third one fails.
        for (question, answer, end) in [("One?", " a", &stopped), ("Two?", "", &stopped), ("Three?", "b", &failed)] {
            let run = ask(&mut session, question);
            session.receive(token(run, answer));
            session.receive(Update::Failed { doing: Doing::Answering(run), problem: end.clone() });
        }
        let mut settings = AnswerSettings { system: " Be short. ".into(), ..AnswerSettings::default() };
        let [system, question] = [Message::system("Be short."), Message::user("Four?")];
        let said = vec![system.clone(), Message::user("One?"), Message::assistant("a"), question.clone()];
        assert_eq!(session.messages("Four?", &settings), Messages(said));
        settings.remember = false;
        assert_eq!(session.messages("Four?", &settings), Messages(vec![system, question]));
        session.keep_turns(1);
        assert_eq!((session.turns.len(), session.selected), (1, None));
    }

    #[test]
    fn a_problem_replaces_what_was_shown_about_its_topic() {
        let mut session = Session::default();
        session.message(Topic::Start, "Hello.".into());
        let [first, second] = ["one", "two"].map(|name| Problem::file(name, ""));
        session.problem(Topic::Picture, first);
        session.problem(Topic::Picture, second.clone());
        let hello = Notice::Message(Topic::Start, "Hello.".into());
        assert_eq!(session.notices, [hello.clone(), Notice::Problem(Topic::Picture, second)]);
        session.clear(Topic::Picture);
        assert_eq!(session.notices, [hello]);
    }

    #[test]
    fn a_late_failure_of_another_run_does_not_free_the_engine() {
        let mut session = Session::default();
        let first = ask(&mut session, "One?");
        let second = ask(&mut session, "Two?");
        session.receive(Update::Failed {
            doing: Doing::Answering(first),
            problem: Problem::of(&fovea_model::Error::Cancelled),
        });
        assert_eq!(session.busy, Some(Doing::Answering(second)));
        session
            .show(Shown { name: "x".into(), picture: Arc::new(Picture::from_rgb(1, 1, vec![0; 3]).expect("a pixel")) });
        session.receive(token(second, "late")); // a run of the previous picture
        assert!(session.turns.is_empty() && session.selected.is_none());
    }

    #[test]
    fn failed_loading_gives_a_broken_model_and_stopped_loading_none() {
        let mut session = Session::default();
        let loading = || ModelState::Loading { model: ModelAt::Demo, progress: None };
        session.model = loading();
        session.receive(Update::Failed { doing: Doing::Loading, problem: lost() });
        assert!(matches!(&session.model, ModelState::Broken { problem, .. } if problem.code == "device-lost"));
        session.model = loading();
        session.receive(Update::Failed { doing: Doing::Loading, problem: Problem::of(&fovea_model::Error::Cancelled) });
        assert!(matches!(session.model, ModelState::None));
    }
}
