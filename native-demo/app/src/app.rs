//! The window's state, and its reaction to user input and to results of the background threads.

use std::{fmt::Write, path::PathBuf, sync::Arc};

use eframe::egui::{self, Id, Key, Modifiers, TextEdit, TextureHandle, TextureOptions, ViewportCommand};
use fovea_model::{AskOptions, Compression, Looked, Precision};
use fovea_runtime::Keep;

use crate::{
    Start,
    dialogs::{Chosen, Dialogs, What},
    engine::{About, Command, Doing, Engine, ModelAt, RunId, Update, Wanted},
    lens::Lens,
    painter::{Job, Origin, Painted, Painter},
    problem::Problem,
    report,
    session::{ModelState, Session, Shown, Topic},
    settings::{Settings, Theme},
    view::path_id,
};

/// The window.
pub struct App {
    pub(crate) session: Session,
    pub(crate) settings: Settings,
    pub(crate) engine: Engine,
    pub(crate) painter: Painter,
    pub(crate) dialogs: Dialogs,
    /// The compression of the next question.
    pub(crate) chosen: Choice,
    /// The compression that answers are compared with.
    pub(crate) other: Choice,
    pub(crate) precision: Precision,
    /// The typed question.
    pub(crate) question: String,
    /// The earlier question that the typed one replaces, with everything after it.
    pub(crate) edited: Option<usize>,
    /// Whether the typed question is asked as soon as the model is loaded.
    pub(crate) queued: bool,
    /// The questions since the start, also about other pictures, the oldest first: the arrow keys bring them back.
    pub(crate) asked: Vec<String>,
    /// The one of `asked` that is in the field.
    pub(crate) recalled: Option<usize>,
    /// What a path is typed for, and the path so far: on systems without file dialogs.
    pub(crate) path: Option<(What, String)>,
    /// Whether the question field requests the keyboard focus in the next frame.
    pub(crate) to_question: bool,
    /// Whether the attention overlay is shown.
    pub(crate) overlay: bool,
    /// The picture as it is shown.
    pub(crate) canvas: Canvas,
    /// Thumbnails of the examples: index and texture.
    pub(crate) examples: Vec<(usize, TextureHandle)>,
    /// The question of an example whose picture is still being opened.
    offered: Option<String>,
}

/// A compression that the user chooses from a list, with sliders, or as text.
#[derive(Clone, Default)]
pub(crate) struct Choice {
    pub compression: Compression,
    /// The text in its field.
    pub spec: String,
    /// The reason why that text was refused.
    pub refused: Option<String>,
}

impl Choice {
    pub fn set(&mut self, compression: Compression) {
        (self.compression, self.refused) = (compression, None);
    }

    /// Uses the compression with this spelling. If it is refused, the reason is shown, and nothing else changes.
    pub fn choose(&mut self, spec: &str, about: &About) {
        let read = spec.parse::<Compression>().and_then(|it| it.check(about.fits()).map(|()| it));
        match read {
            Ok(compression) => self.set(compression),
            Err(error) => self.refused = Some(Problem::of(&error).what),
        }
    }
}

/// The picture on the screen and its attention overlay. A new picture starts with a new canvas.
#[derive(Default)]
pub(crate) struct Canvas {
    /// Zoom and position.
    pub lens: Lens,
    /// The picture without the overlay.
    pub plain: Option<TextureHandle>,
    /// The picture with the overlay.
    pub drawn: Option<TextureHandle>,
    /// The data of the overlay that is shown or being drawn.
    pub looked: Option<Arc<Looked>>,
    /// The overlay's cache key: the run, [`Session::overlay_version`], and the text-guided sampler's budget.
    drawn_of: Option<(RunId, u64, Option<Keep>)>,
    /// Whether an overlay is being drawn.
    drawing: bool,
    /// The small overlays of compared answers: the data, and the texture when it is drawn.
    small: Vec<(Arc<Looked>, Option<TextureHandle>)>,
    /// The token selected with the keyboard.
    pub token: Option<usize>,
}

impl Canvas {
    /// The small picture with this overlay. Until the overlay is drawn, the picture without it.
    pub fn small(&self, looked: &Arc<Looked>) -> Option<&TextureHandle> {
        let drawn = self.small.iter().find(|(of, _)| Arc::ptr_eq(of, looked)).and_then(|(_, drawn)| drawn.as_ref());
        drawn.or(self.plain.as_ref())
    }
}

/// The parts that tests replace in an [`App`].
pub struct Parts {
    /// The window's handle to the engine.
    pub engine: Engine,
    /// The settings.
    pub settings: Settings,
}

impl App {
    /// A window that starts its own engine.
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
            chosen: Choice::default(),
            other: Choice::default(),
            precision: Precision::Auto,
            question: String::new(),
            edited: None,
            queued: false,
            asked: Vec::new(),
            recalled: None,
            path: None,
            to_question: true,
            overlay: true,
            canvas: Canvas::default(),
            examples: Vec::new(),
            offered: None,
        };
        app.apply_theme(ctx);
        app
    }

    /// Starts the work: lists the adapters, loads the model, opens the picture, and shows `message` where there is one.
    pub fn begin(&mut self, message: Option<String>, start: Start) {
        if let Some(message) = message {
            self.session.message(Topic::Start, message);
        }
        if let Some(device) = start.device {
            self.settings.device = device;
        }
        self.painter.send(Job::Examples);
        self.send(Command::Adapters);
        self.load(start.model.map_or_else(|| self.settings.model.clone(), ModelAt::Folder));
        if let Some(path) = start.picture {
            self.open(Origin::File(path));
        }
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The data that the window shows.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The same, mutable: tests set a state with it.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// The number of examples on the start page.
    pub fn examples_shown(&self) -> usize {
        self.examples.len()
    }

    /// Size of the picture's texture, (width, height).
    pub fn texture_size(&self) -> Option<[usize; 2]> {
        self.canvas.plain.as_ref().map(TextureHandle::size)
    }

    /// Whether the overlays of the selected answer and of compared answers are drawn.
    pub fn is_drawn(&self) -> bool {
        let canvas = &self.canvas;
        canvas.drawn.is_some() && !canvas.drawing && canvas.small.iter().all(|(_, drawn)| drawn.is_some())
    }

    /// Processes the results of engine, painter and dialogs, and the user's input.
    pub fn receive(&mut self, ctx: &egui::Context) {
        for update in self.engine.updates().collect::<Vec<_>>() {
            let loaded = matches!(update, Update::Loaded(_));
            if let Update::Loaded(about) = &update {
                // The compression that was chosen before may not fit this checkpoint.
                self.chosen.set(about.compression());
                self.other.set(Compression::none());
            }
            self.session.receive(update);
            if loaded {
                self.look();
                // Only now: a model that cannot be loaded is not the model of the next start.
                if let Some(model) = self.session.model_at().cloned() {
                    self.settings.set_model(&model);
                    self.remember();
                }
            }
        }
        self.ask_queued();
        for painted in self.painter.painted().collect::<Vec<_>>() {
            self.receive_painted(ctx, painted);
        }
        for chosen in self.dialogs.chosen().collect::<Vec<_>>() {
            match chosen {
                Chosen::Path(what, path) => self.use_path(what, path),
                Chosen::NoDialog(what) => {
                    self.type_path(what);
                    ctx.memory_mut(|memory| memory.request_focus(path_id()));
                }
            }
        }
        self.open_dropped(ctx);
        self.shortcuts(ctx);
        self.follow_layer();
        self.follow_drawing();
        self.follow_compared();
    }

    /// Asks for a path in the window. The window does this by itself where the system has no file dialogs.
    pub fn type_path(&mut self, what: What) {
        self.path = Some((what, String::new()));
    }

    /// Opens or writes what a path was chosen for.
    pub(crate) fn use_path(&mut self, what: What, path: PathBuf) {
        match what {
            What::Picture => self.open(Origin::File(path)),
            What::Model => self.consider(path),
            What::Png => self.save_png(path),
            What::Json => self.save_json(path),
        }
    }

    fn receive_painted(&mut self, ctx: &egui::Context, painted: Painted) {
        match painted {
            Painted::Opened { name, file, picture, plain } => {
                if let Some(file) = file {
                    self.settings.add_picture(&file);
                    self.remember();
                }
                ctx.send_viewport_cmd(ViewportCommand::Title(format!("{name} - Fovea")));
                let plain = ctx.load_texture("picture", plain, TextureOptions::LINEAR);
                self.canvas = Canvas { plain: Some(plain), ..Canvas::default() };
                self.session.clear(Topic::Picture);
                self.session.show(Shown { name, picture });
                let question = self.offered.take().unwrap_or_default();
                self.put_question(ctx, question, None);
                self.look();
            }
            // A late overlay belongs to a picture or a conversation that is gone.
            Painted::Drawn(_) if !self.canvas.drawing => {}
            Painted::Drawn(image) => {
                self.canvas.drawn = Some(ctx.load_texture("drawing", image, TextureOptions::LINEAR));
                self.canvas.drawing = false;
            }
            Painted::Small(looked, image) => {
                // A late overlay belongs to a comparison that is gone.
                if let Some((_, drawn)) = self.canvas.small.iter_mut().find(|(of, _)| Arc::ptr_eq(of, &looked)) {
                    *drawn = Some(ctx.load_texture("compared", image, TextureOptions::LINEAR));
                }
            }
            Painted::Example(index, image) => {
                self.examples.push((index, ctx.load_texture("example", image, TextureOptions::LINEAR)));
            }
            Painted::Saved(file) => self.session.message(Topic::Saving, format!("Saved {}.", file.display())),
            Painted::Failed(topic, problem) => self.session.problem(topic, problem),
        }
    }

    /// Opens files that were dropped on the window, and pictures that were pasted.
    fn open_dropped(&mut self, ctx: &egui::Context) {
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
                            Problem::file(&format!("cannot read the dropped file: {why}"), "Open it with the menu.");
                        self.session.problem(Topic::Picture, problem);
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
        if pressed(Modifiers::COMMAND, Key::S) && self.canvas.looked.is_some() {
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
        }
    }

    /// Opens a picture. Stops a running answer about the current one. When the picture is read, a new conversation begins.
    pub fn open(&mut self, origin: Origin) {
        if self.session.answering() {
            self.engine.stop();
        }
        let origin = match origin {
            Origin::File(path) => Origin::File(absolute(path)),
            other => other,
        };
        self.painter.send(Job::Open(origin));
    }

    /// Opens an example, and fills in its question.
    pub(crate) fn open_example(&mut self, example: &'static crate::examples::Example) {
        self.offered = Some(example.question.to_owned());
        self.open(Origin::Bytes { name: example.name.to_owned(), bytes: example.bytes.into() });
    }

    /// Requests the memory plan of a model folder. The user sees the plan before the model is loaded.
    pub(crate) fn consider(&mut self, folder: PathBuf) {
        self.send(Command::Plan(ModelAt::Folder(folder)));
    }

    /// Loads a model; it replaces the current one.
    pub(crate) fn load(&mut self, model: ModelAt) {
        let model = match model {
            ModelAt::Folder(path) => ModelAt::Folder(absolute(path)),
            ModelAt::Demo => ModelAt::Demo,
        };
        self.session.clear(Topic::Plan);
        self.session.plan = None;
        self.session.model = ModelState::Loading { model: model.clone(), progress: None };
        self.session.busy = Some(Doing::Loading);
        self.send(Command::Load { model, device: self.settings.device.clone(), precision: self.precision });
    }

    /// The current model; if there is none, the one of the next start.
    pub(crate) fn model(&self) -> ModelAt {
        self.session.model_at().unwrap_or(&self.settings.model).clone()
    }

    /// Loads the same model on another device.
    pub(crate) fn use_device(&mut self, device: Wanted) {
        self.settings.device = device;
        self.remember();
        self.load(self.model());
    }

    /// Closes the model and frees its memory.
    pub(crate) fn close_model(&mut self) {
        self.send(Command::Close);
        self.session.model = ModelState::None;
    }

    /// Starts a conversation about the picture; the engine computes in advance what every question needs. While the
    /// model is loading this does nothing; it is called again when the model is loaded.
    fn look(&mut self) {
        if let Some(shown) = self.session.picture.as_ref().filter(|_| self.session.about().is_some()) {
            let (picture, options) = (shown.picture.clone(), self.options(&self.chosen.compression));
            self.session.preparing = true;
            self.send(Command::Look { picture, options });
        }
    }

    /// The options of a question with this compression.
    fn options(&self, compression: &Compression) -> AskOptions {
        AskOptions { compression: Some(compression.clone()), ..self.settings.answer.options() }
    }

    /// Asks the typed question, or queues it while the model is loading.
    pub(crate) fn ask(&mut self) {
        let question = self.question.trim().to_owned();
        if question.is_empty() {
            return;
        }
        if !self.session.can_ask() {
            let is_loading = matches!(self.session.model, ModelState::Loading { .. });
            self.queued = is_loading && self.session.picture.is_some();
            return;
        }
        self.question.clear();
        if let Some(turn) = self.edited {
            self.session.keep_turns(turn);
        }
        self.ask_next(question);
    }

    /// Asks the queued question if the model is loaded, and forgets it if loading has failed.
    fn ask_queued(&mut self) {
        if self.queued && !matches!(self.session.model, ModelState::Loading { .. }) {
            self.queued = false;
            if self.session.can_ask() {
                self.ask();
            }
        }
    }

    /// Asks a question after everything that was said.
    fn ask_next(&mut self, question: String) {
        (self.edited, self.recalled) = (None, None);
        // The system prompt may have been typed just now.
        self.remember();
        let messages = self.session.messages(&question, &self.settings.answer);
        let run = self.session.ask(&question, messages.clone(), self.chosen.compression.clone());
        if self.asked.last() != Some(&question) {
            self.asked.push(question);
        }
        self.send(Command::Ask { run, messages, options: self.options(&self.chosen.compression) });
    }

    /// Asks the last question again, with the current settings. A sampled answer gets another seed, so that it differs.
    pub(crate) fn regenerate(&mut self) {
        let last = self.session.turns.len().saturating_sub(1);
        let Some(turn) = self.session.turns.get(last).filter(|_| self.session.can_ask()) else { return };
        let question = turn.question.clone();
        self.session.keep_turns(last);
        let answer = &mut self.settings.answer;
        if answer.temperature > 0.0 {
            answer.seed = answer.seed.wrapping_add(1);
        }
        self.ask_next(question);
    }

    /// Begins a new conversation about the same picture.
    pub(crate) fn begin_again(&mut self) {
        if self.session.answering() {
            self.engine.stop();
        }
        self.session.keep_turns(0);
        self.edited = None;
        self.to_question = true;
    }

    /// Puts a question into the field. `edited` is the earlier question that it replaces.
    pub(crate) fn put_question(&mut self, ctx: &egui::Context, question: String, edited: Option<usize>) {
        (self.question, self.edited, self.recalled, self.queued) = (question, edited, None, false);
        self.to_question = true;
        // Without a stored position the cursor is at the end.
        TextEdit::store_state(ctx, Self::question_id(), Default::default());
    }

    /// Whether the field has a question that was brought back, as it was asked.
    pub(crate) fn recalls(&self) -> bool {
        self.recalled.is_some_and(|at| self.asked.get(at) == Some(&self.question))
    }

    /// Puts the previous or the next one of the questions that were asked into the field.
    pub(crate) fn recall(&mut self, ctx: &egui::Context, older: bool) {
        let shown = self.recalled.filter(|_| self.recalls());
        let at = if older { shown.unwrap_or(self.asked.len()).checked_sub(1) } else { shown.map(|at| at + 1) };
        if let Some(at) = at {
            let question = self.asked.get(at).cloned().unwrap_or_default();
            self.put_question(ctx, question, self.edited);
            self.recalled = Some(at);
        }
    }

    /// The id of the question's field. A fixed id keeps the keyboard focus when a notification appears above; an automatic
    /// id changes with the position.
    pub(crate) fn question_id() -> Id {
        Id::unique("typed question")
    }

    /// Asks the same question again with the other compression.
    pub(crate) fn compare(&mut self, turn: usize) {
        if !self.session.can_ask() {
            return;
        }
        if let Some(run) = self.session.compare(turn, self.other.compression.clone()) {
            let messages = self.session.turns[turn].messages.clone();
            self.send(Command::Ask { run, messages, options: self.options(&self.other.compression) });
        }
    }

    /// Stops the answer or the loading.
    pub(crate) fn stop(&self) {
        self.engine.stop();
    }

    /// Requests the importance at another layer for the selected question when the layer slider was moved. The results
    /// of the vision tower are reused.
    fn follow_layer(&mut self) {
        let Some(layer) = self.chosen.compression.text().map(|text| text.layer) else { return };
        let Some(run) = self.session.selected.filter(|id| !id.other && self.session.can_ask()) else { return };
        let Some(turn) = self.session.turns.get_mut(run.turn) else { return };
        let mut compression = turn.answer.compression.clone();
        let Some(text) = compression.text_mut() else { return };
        if turn.answer.looked.is_none() || turn.answer.layer == layer {
            return;
        }
        (text.layer, turn.answer.layer) = (layer, layer);
        let messages = turn.messages.clone();
        self.session.busy = Some(Doing::Explaining(run));
        self.send(Command::Explain { run, messages, options: self.options(&compression) });
    }

    /// Requests a new overlay when the selection, its data or the text-guided sampler's budget has changed.
    fn follow_drawing(&mut self) {
        let run = self.session.selected.filter(|&id| self.session.run(id).is_some_and(|run| run.looked.is_some()));
        let keep = self.chosen.compression.text().and_then(|text| text.keep);
        let of = run.map(|id| (id, self.session.overlay_version, keep));
        if of == self.canvas.drawn_of {
            return;
        }
        self.canvas.drawn_of = of;
        self.canvas.looked = self.session.looked(keep);
        match (&self.canvas.looked, &self.session.picture) {
            (Some(looked), Some(shown)) => {
                self.canvas.drawing = true;
                self.painter.send(Job::Draw { picture: shown.picture.clone(), looked: looked.clone() });
            }
            _ => (self.canvas.drawn, self.canvas.drawing) = (None, false),
        }
    }

    /// Requests the small overlays of compared answers. Each is the one that the answer was made with.
    fn follow_compared(&mut self) {
        let Some(shown) = &self.session.picture else { return };
        let compared = self.session.turns.iter().filter_map(|turn| Some([&turn.answer, turn.other.as_ref()?]));
        let wanted: Vec<_> = compared.flatten().filter_map(|run| run.looked.as_ref()).collect();
        let small = &mut self.canvas.small;
        small.retain(|(of, _)| wanted.iter().any(|looked| Arc::ptr_eq(of, looked)));
        for looked in wanted {
            if !small.iter().any(|(of, _)| Arc::ptr_eq(of, looked)) {
                self.painter.send(Job::Small { picture: shown.picture.clone(), looked: looked.clone() });
                small.push((looked.clone(), None));
            }
        }
    }

    /// Copies the selected answer, or the last one if none is selected.
    pub(crate) fn copy_answer(&mut self, ctx: &egui::Context) {
        let last = self.session.turns.len().checked_sub(1).map(|turn| RunId { turn, other: false });
        if let Some(run) = self.session.selected.or(last).and_then(|id| self.session.run(id)) {
            ctx.copy_text(run.text.trim().to_owned());
        }
    }

    /// Copies a report that contains neither the picture nor the prompt.
    pub(crate) fn copy_report(&mut self, ctx: &egui::Context) {
        ctx.copy_text(report::text(&self.session));
        self.session.message(Topic::Report, "The report was copied to the clipboard.".into());
    }

    fn save_png(&mut self, file: PathBuf) {
        if let (Some(looked), Some(shown)) = (&self.canvas.looked, &self.session.picture) {
            self.painter.send(Job::SavePng { file, picture: shown.picture.clone(), looked: looked.clone() });
        }
    }

    fn save_json(&mut self, file: PathBuf) {
        if let Some(text) = self.numbers_json() {
            self.painter.send(Job::SaveText { file, text });
        }
    }

    /// The selected answers' numbers as JSON, one object per line.
    pub(crate) fn numbers_json(&self) -> Option<String> {
        let turn = self.session.turns.get(self.session.selected?.turn)?;
        let runs = std::iter::once(&turn.answer).chain(&turn.other);
        let mut text = String::new();
        for report in runs.filter_map(|run| run.report.as_ref()) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{report}");
        }
        (!text.is_empty()).then_some(text)
    }

    /// Applies and remembers a theme.
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
            // egui's text and error colors have a contrast below 4.5 in some places.
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

    fn send(&mut self, command: Command) {
        if let Err(problem) = self.engine.send(command) {
            self.session.busy = None;
            self.session.problem(Topic::Model, problem);
        }
    }

    /// Writes the settings file.
    pub(crate) fn remember(&mut self) {
        match self.settings.write() {
            Ok(()) => self.session.clear(Topic::Settings),
            Err(why) => {
                let then = "They are lost when this window closes.";
                let problem = Problem::file(&format!("cannot write the settings: {why}"), then);
                self.session.problem(Topic::Settings, problem);
            }
        }
    }
}

/// The path for the settings: a relative one would depend on the folder of the next start.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

impl eframe::App for App {
    fn logic(&mut self, ctx: &egui::Context, _: &mut eframe::Frame) {
        self.receive(ctx);
    }

    fn ui(&mut self, ui: &mut egui::Ui, _: &mut eframe::Frame) {
        self.show(ui);
    }
}
