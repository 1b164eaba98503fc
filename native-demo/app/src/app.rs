//! The window's state, and what comes of what the user does.

use std::{fmt::Write, path::PathBuf, sync::Arc};

use eframe::egui::{self, Key, Modifiers, TextureHandle, TextureOptions, ViewportCommand};
use fovea_model::{Looked, Precision};

use crate::{
    dialogs::{Chosen, Dialogs},
    engine::{Command, Doing, Engine, Event, ModelAt, RunId, Wanted},
    lens::Lens,
    painter::{Job, Origin, Painted, Painter},
    problem::Problem,
    report,
    session::{ModelState, Notice, Sampling, Session, Shown},
    settings::{Settings, Theme},
};

/// The window.
pub struct App {
    pub(crate) session: Session,
    pub(crate) settings: Settings,
    pub(crate) engine: Engine,
    pub(crate) painter: Painter,
    pub(crate) dialogs: Dialogs,
    /// How the next question is asked.
    pub(crate) sampling: Sampling,
    pub(crate) precision: Precision,
    /// What is typed.
    pub(crate) question: String,
    /// Whether the question's field is to take the keyboard.
    pub(crate) to_question: bool,
    pub(crate) lens: Lens,
    /// Whether the drawing lies over the picture.
    pub(crate) overlay: bool,
    /// The picture, and the drawing of what was looked at.
    pub(crate) plain: Option<TextureHandle>,
    pub(crate) drawn: Option<TextureHandle>,
    /// Small pictures of the examples.
    pub(crate) examples: Vec<(usize, TextureHandle)>,
    /// What is drawn, or on its way to be.
    pub(crate) looked: Option<Arc<Looked>>,
    /// What it was made of: a run, its looked's place in memory, gamma's bits.
    drawn_of: Option<(RunId, usize, Option<u64>)>,
    /// Whether another drawing is on its way.
    drawing: bool,
    /// The token that the keyboard is on.
    pub(crate) token: Option<usize>,
    /// A question that came with an example, to be put once its picture is there.
    offered: Option<String>,
}

/// Threads for an [`App`] that tests play themselves.
pub struct Parts {
    /// The engine's end.
    pub engine: Engine,
    /// The settings.
    pub settings: Settings,
}

impl App {
    /// A window with an engine of its own.
    pub fn new(ctx: &egui::Context, settings: Settings) -> Self {
        let wake = ctx.clone();
        let engine = Engine::start(move || wake.request_repaint());
        Self::with(ctx, Parts { engine, settings })
    }

    /// A window with a given engine.
    pub fn with(ctx: &egui::Context, Parts { engine, settings }: Parts) -> Self {
        let wake = ctx.clone();
        let painter = Painter::start(move || wake.request_repaint());
        let app = Self {
            session: Session::default(),
            settings,
            engine,
            painter,
            dialogs: Dialogs::default(),
            sampling: Sampling::default(),
            precision: Precision::Auto,
            question: String::new(),
            to_question: true,
            lens: Lens::default(),
            overlay: true,
            plain: None,
            drawn: None,
            examples: Vec::new(),
            looked: None,
            drawn_of: None,
            drawing: false,
            token: None,
            offered: None,
        };
        app.apply_theme(ctx);
        app
    }

    /// What happens at the start: adapters are listed, the model is loaded, the picture opened.
    pub fn begin(&mut self, word: Option<String>, picture: Option<PathBuf>) {
        self.session.notices.extend(word.map(Notice::Word));
        self.painter.send(Job::Examples);
        self.tell(Command::Adapters);
        self.load(self.settings.model.clone());
        if let Some(path) = picture {
            self.open(Origin::File(path));
        }
    }

    /// What the window shows.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The same, for tests that put it into a state.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// How many examples are shown at the start.
    pub fn examples_shown(&self) -> usize {
        self.examples.len()
    }

    /// The picture's size as it is drawn, (width, height).
    pub fn texture_size(&self) -> Option<[usize; 2]> {
        self.plain.as_ref().map(TextureHandle::size)
    }

    /// Whether what is to be seen of the selected answer is drawn.
    pub fn is_drawn(&self) -> bool {
        self.drawn.is_some() && !self.drawing
    }

    /// Takes in what engine, painter and dialogs have for the window.
    pub fn take_in(&mut self, ctx: &egui::Context) {
        for event in self.engine.heard().collect::<Vec<_>>() {
            let loaded = matches!(event, Event::Loaded(_));
            if let Event::Loaded(about) = &event {
                // A stock checkpoint gives stock answers until the user switches a sampler on.
                (self.sampling.vision, self.sampling.text) = (about.has_focus, about.has_focus);
            }
            self.session.hear(event);
            if loaded {
                self.look();
            }
        }
        for painted in self.painter.painted().collect::<Vec<_>>() {
            self.take_painted(ctx, painted);
        }
        for chosen in self.dialogs.chosen().collect::<Vec<_>>() {
            match chosen {
                Chosen::Picture(path) => self.open(Origin::File(path)),
                Chosen::Model(path) => self.consider(path),
                Chosen::Png(file) => self.save_png(file),
                Chosen::Json(file) => self.save_json(file),
            }
        }
        self.take_dropped(ctx);
        self.shortcuts(ctx);
        self.follow_layer();
        self.follow_drawing();
    }

    fn take_painted(&mut self, ctx: &egui::Context, painted: Painted) {
        match painted {
            Painted::Opened { name, file, picture, plain } => {
                if let Some(file) = file {
                    self.settings.add_picture(&file);
                    self.remember();
                }
                ctx.send_viewport_cmd(ViewportCommand::Title(format!("{name} - Fovea")));
                self.plain = Some(ctx.load_texture("picture", plain, TextureOptions::LINEAR));
                (self.drawn, self.drawn_of, self.looked, self.token) = (None, None, None, None);
                self.lens = Lens::default();
                self.session.show(Shown { name, picture });
                self.question = self.offered.take().unwrap_or_default();
                self.to_question = true;
                self.look();
            }
            Painted::Drawn(image) => {
                self.drawn = Some(ctx.load_texture("drawing", image, TextureOptions::LINEAR));
                self.drawing = false;
            }
            Painted::Example(index, image) => {
                self.examples.push((index, ctx.load_texture("example", image, TextureOptions::LINEAR)));
            }
            Painted::Saved(file) => self.session.notices.push(Notice::Word(format!("Saved {}.", file.display()))),
            Painted::Failed(problem) => self.session.notices.push(Notice::Problem(problem)),
        }
    }

    /// Files that were dropped on the window, and pictures that were pasted.
    fn take_dropped(&mut self, ctx: &egui::Context) {
        let (dropped, pasted) = ctx.input(|input| {
            let pasted = input.events.iter().find_map(|event| match event {
                egui::Event::PasteImage(image) => Some(image.clone()),
                _ => None,
            });
            (input.raw.dropped_files.clone(), pasted)
        });
        for file in dropped {
            let path = file.path().to_owned();
            let of_a_model = path.extension().is_some_and(|e| e == "json" || e == "safetensors");
            match path.parent() {
                _ if path.is_dir() => self.consider(path),
                Some(folder) if of_a_model => self.consider(folder.to_owned()),
                _ if path.is_file() => self.open(Origin::File(path)),
                _ => match file.bytes() {
                    Ok(bytes) => self.open(Origin::Bytes { name: path.display().to_string(), bytes: bytes.into() }),
                    Err(why) => {
                        let problem =
                            Problem::file(&format!("cannot read what was dropped: {why}"), "Open it instead.");
                        self.session.notices.push(Notice::Problem(problem));
                    }
                },
            }
        }
        if let Some(pixels) = pasted {
            self.open(Origin::Pixels(pixels));
        }
    }

    fn shortcuts(&mut self, ctx: &egui::Context) {
        let pressed = |modifiers, key| ctx.input_mut(|input| input.consume_key(modifiers, key));
        let shifted = Modifiers::COMMAND | Modifiers::SHIFT;
        if pressed(shifted, Key::O) {
            self.dialogs.model(ctx);
        } else if pressed(Modifiers::COMMAND, Key::O) {
            self.dialogs.picture(ctx);
        }
        if pressed(shifted, Key::A) {
            self.copy_answer(ctx);
        }
        if pressed(shifted, Key::R) {
            self.copy_report(ctx);
        }
        if pressed(Modifiers::COMMAND, Key::S) && self.looked.is_some() {
            self.dialogs.png(ctx);
        }
        if pressed(Modifiers::COMMAND, Key::L) {
            self.to_question = true;
        }
        if pressed(Modifiers::COMMAND, Key::Q) {
            ctx.send_viewport_cmd(ViewportCommand::Close);
        }
        if self.session.busy.is_some() && pressed(Modifiers::NONE, Key::Escape) {
            self.engine.stop();
            // Escape also takes the keyboard from the field.
            self.to_question = true;
        }
    }

    /// Opens a picture. An answer on the one before is stopped.
    pub fn open(&mut self, origin: Origin) {
        if self.session.answering() {
            self.engine.stop();
        }
        self.painter.send(Job::Open(origin));
    }

    /// Opens an example, and puts its question.
    pub(crate) fn open_example(&mut self, example: &'static crate::examples::Example) {
        self.offered = Some(example.question.to_owned());
        self.open(Origin::Bytes { name: example.name.to_owned(), bytes: example.bytes.into() });
    }

    /// Asks what a model folder would take; it is loaded when the user has seen that.
    pub(crate) fn consider(&mut self, folder: PathBuf) {
        self.tell(Command::Plan(ModelAt::Folder(folder)));
    }

    /// Loads a model in the place of another.
    pub(crate) fn load(&mut self, model: ModelAt) {
        if let ModelAt::Folder(path) = &model {
            self.settings.add_model(path);
        }
        self.settings.model = model.clone();
        self.remember();
        self.session.plan = None;
        self.session.model = ModelState::Loading { model: model.clone(), progress: None };
        self.session.busy = Some(Doing::Loading);
        self.tell(Command::Load { model, device: self.settings.device.clone(), precision: self.precision });
    }

    /// Loads the same model on another device.
    pub(crate) fn use_device(&mut self, device: Wanted) {
        self.settings.device = device;
        self.load(self.settings.model.clone());
    }

    /// Gives the model's memory back.
    pub(crate) fn close_model(&mut self) {
        self.tell(Command::Close);
        self.session.model = ModelState::None;
    }

    /// Turns the engine to the picture, and lets it compute ahead what the next question would wait for. Where the model is
    /// still on its way, that comes when it is there.
    fn look(&mut self) {
        if let Some(shown) = self.session.picture.as_ref().filter(|_| self.session.about().is_some()) {
            let (picture, options) = (shown.picture.clone(), self.sampling.options());
            self.session.preparing = true;
            self.tell(Command::Look { picture, options });
        }
    }

    /// Asks what is typed.
    pub(crate) fn ask(&mut self) {
        let question = self.question.trim().to_owned();
        if question.is_empty() || !self.session.can_ask() {
            return;
        }
        self.question.clear();
        let run = self.session.ask(&question, self.sampling);
        self.tell(Command::Ask { run, question, options: self.sampling.options() });
    }

    /// Asks the same once more, with every token.
    pub(crate) fn compare(&mut self, turn: usize) {
        if !self.session.can_ask() {
            return;
        }
        if let Some(run) = self.session.compare(turn) {
            let question = self.session.turns[turn].question.clone();
            self.tell(Command::Ask { run, question, options: Sampling::full().options() });
        }
    }

    /// Stops the answer, or loading.
    pub(crate) fn stop(&self) {
        self.engine.stop();
    }

    /// Shows another layer's importance for the selected question where the slider was moved. The picture's own part is
    /// not computed again.
    fn follow_layer(&mut self) {
        let Some(run) = self.session.selected.filter(|_| self.session.can_ask() && self.sampling.text) else { return };
        let layer = self.sampling.layer;
        let Some(turn) = self.session.turns.get_mut(run.turn).filter(|_| !run.full) else { return };
        if turn.focused.looked.is_none() || !turn.focused.sampling.text || turn.focused.layer == layer {
            return;
        }
        turn.focused.layer = layer;
        let (question, sampling) = (turn.question.clone(), Sampling { layer, ..turn.focused.sampling });
        self.session.busy = Some(Doing::Explaining(run));
        self.tell(Command::Explain { run, question, options: sampling.options() });
    }

    /// Has drawn what is to be seen, where that has changed.
    fn follow_drawing(&mut self) {
        let looked = self.session.selected.and_then(|id| Some((id, self.session.run(id)?.looked.clone()?)));
        let of = looked.map(|(id, looked)| (id, Arc::as_ptr(&looked) as usize, self.sampling.gamma.map(f64::to_bits)));
        if of == self.drawn_of {
            return;
        }
        self.drawn_of = of;
        self.looked = self.session.looked(self.sampling.gamma);
        match (&self.looked, &self.session.picture) {
            (Some(looked), Some(shown)) => {
                self.drawing = true;
                self.painter.send(Job::Draw { picture: shown.picture.clone(), looked: looked.clone() });
            }
            _ => self.drawn = None,
        }
    }

    /// Copies the selected answer, else the last.
    pub(crate) fn copy_answer(&mut self, ctx: &egui::Context) {
        let last = self.session.turns.len().checked_sub(1).map(|turn| RunId { turn, full: false });
        if let Some(run) = self.session.selected.or(last).and_then(|id| self.session.run(id)) {
            ctx.copy_text(run.text.trim().to_owned());
        }
    }

    /// Copies a report without picture and prompt.
    pub(crate) fn copy_report(&mut self, ctx: &egui::Context) {
        ctx.copy_text(report::text(&self.session));
        let word = Notice::Word("The report is in the clipboard.".into());
        if !self.session.notices.contains(&word) {
            self.session.notices.push(word);
        }
    }

    fn save_png(&mut self, file: PathBuf) {
        if let (Some(looked), Some(shown)) = (&self.looked, &self.session.picture) {
            self.painter.send(Job::SavePng { file, picture: shown.picture.clone(), looked: looked.clone() });
        }
    }

    fn save_json(&mut self, file: PathBuf) {
        if let Some(text) = self.numbers_json() {
            self.painter.send(Job::SaveText { file, text });
        }
    }

    /// The selected answers' numbers as JSON, an object a line.
    pub(crate) fn numbers_json(&self) -> Option<String> {
        let turn = self.session.turns.get(self.session.selected?.turn)?;
        let runs = std::iter::once(&turn.focused).chain(&turn.full);
        let mut text = String::new();
        for report in runs.filter_map(|run| run.report.as_ref()) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{report}");
        }
        (!text.is_empty()).then_some(text)
    }

    /// Light, dark, or as the system has it.
    pub(crate) fn set_theme(&mut self, ctx: &egui::Context, theme: Theme) {
        self.settings.theme = theme;
        self.apply_theme(ctx);
        self.remember();
    }

    fn apply_theme(&self, ctx: &egui::Context) {
        for (theme, mut visuals, [red, green, blue]) in [
            (egui::Theme::Dark, egui::Visuals::dark(), [255, 128, 112]),
            (egui::Theme::Light, egui::Visuals::light(), [168, 28, 20]),
        ] {
            // Text that can be read and errors that do not glare; egui's own are below a contrast of 4.5 in places.
            let dark = theme == egui::Theme::Dark;
            visuals.override_text_color = Some(egui::Color32::from_gray(if dark { 216 } else { 32 }));
            visuals.weak_text_color = Some(egui::Color32::from_gray(if dark { 160 } else { 92 }));
            visuals.error_fg_color = egui::Color32::from_rgb(red, green, blue);
            ctx.set_visuals_of(theme, visuals);
        }
        ctx.set_theme(match self.settings.theme {
            Theme::System => egui::ThemePreference::System,
            Theme::Light => egui::ThemePreference::Light,
            Theme::Dark => egui::ThemePreference::Dark,
        });
    }

    fn tell(&mut self, command: Command) {
        if let Err(problem) = self.engine.send(command) {
            self.session.busy = None;
            self.session.notices.push(Notice::Problem(problem));
        }
    }

    fn remember(&mut self) {
        if let Err(why) = self.settings.write() {
            let problem =
                Problem::file(&format!("cannot write the settings: {why}"), "They are lost with this window.");
            if !self.session.notices.contains(&Notice::Problem(problem.clone())) {
                self.session.notices.push(Notice::Problem(problem));
            }
        }
    }
}

impl eframe::App for App {
    fn logic(&mut self, ctx: &egui::Context, _: &mut eframe::Frame) {
        self.take_in(ctx);
    }

    fn ui(&mut self, ui: &mut egui::Ui, _: &mut eframe::Frame) {
        self.show(ui);
    }
}
