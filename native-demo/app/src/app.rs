//! The window's state, and its reaction to user input and to results of the background threads.

use std::{fmt::Write, path::PathBuf, sync::Arc};

use eframe::egui::{self, Key, Modifiers, TextureHandle, TextureOptions, ViewportCommand};
use fovea_model::{AskOptions, Compression, Looked, Precision};
use fovea_runtime::Keep;

use crate::{
    dialogs::{Chosen, Dialogs},
    engine::{Command, Doing, Engine, ModelAt, RunId, Update, Wanted},
    lens::Lens,
    painter::{Job, Origin, Painted, Painter},
    problem::Problem,
    report,
    session::{ModelState, Notice, Session, Shown},
    settings::{Settings, Theme},
};

/// The window.
pub struct App {
    pub(crate) session: Session,
    pub(crate) settings: Settings,
    pub(crate) engine: Engine,
    pub(crate) painter: Painter,
    pub(crate) dialogs: Dialogs,
    /// The compression of the next question.
    pub(crate) compression: Compression,
    /// The compression that answers are compared with.
    pub(crate) other: Compression,
    /// The text in the compression's field.
    pub(crate) spec: String,
    /// The reason why that text was refused.
    pub(crate) refused: Option<String>,
    pub(crate) precision: Precision,
    /// The typed question.
    pub(crate) question: String,
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
    /// The token selected with the keyboard.
    pub token: Option<usize>,
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
            compression: Compression::none(),
            other: Compression::none(),
            spec: String::new(),
            refused: None,
            precision: Precision::Auto,
            question: String::new(),
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
    pub fn begin(&mut self, message: Option<String>, picture: Option<PathBuf>) {
        self.session.notices.extend(message.map(Notice::Message));
        self.painter.send(Job::Examples);
        self.send(Command::Adapters);
        self.load(self.settings.model.clone());
        if let Some(path) = picture {
            self.open(Origin::File(path));
        }
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

    /// Whether the selected answer's overlay is drawn.
    pub fn is_drawn(&self) -> bool {
        self.canvas.drawn.is_some() && !self.canvas.drawing
    }

    /// Processes the results of engine, painter and dialogs, and the user's input.
    pub fn receive(&mut self, ctx: &egui::Context) {
        for update in self.engine.updates().collect::<Vec<_>>() {
            let loaded = matches!(update, Update::Loaded(_));
            if let Update::Loaded(about) = &update {
                // The compression that was chosen before may not fit this checkpoint.
                (self.compression, self.other, self.refused) = (about.compression(), Compression::none(), None);
            }
            self.session.receive(update);
            if loaded {
                self.look();
            }
        }
        for painted in self.painter.painted().collect::<Vec<_>>() {
            self.receive_painted(ctx, painted);
        }
        for chosen in self.dialogs.chosen().collect::<Vec<_>>() {
            match chosen {
                Chosen::Picture(path) => self.open(Origin::File(path)),
                Chosen::Model(path) => self.consider(path),
                Chosen::Png(file) => self.save_png(file),
                Chosen::Json(file) => self.save_json(file),
            }
        }
        self.open_dropped(ctx);
        self.shortcuts(ctx);
        self.follow_layer();
        self.follow_drawing();
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
                self.session.show(Shown { name, picture });
                self.question = self.offered.take().unwrap_or_default();
                self.to_question = true;
                self.look();
            }
            Painted::Drawn(image) => {
                self.canvas.drawn = Some(ctx.load_texture("drawing", image, TextureOptions::LINEAR));
                self.canvas.drawing = false;
            }
            Painted::Example(index, image) => {
                self.examples.push((index, ctx.load_texture("example", image, TextureOptions::LINEAR)));
            }
            Painted::Saved(file) => self.session.notices.push(Notice::Message(format!("Saved {}.", file.display()))),
            Painted::Failed(problem) => self.session.notices.push(Notice::Problem(problem)),
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

    /// Opens a picture. Stops a running answer about the current one.
    pub fn open(&mut self, origin: Origin) {
        if self.session.answering() {
            self.engine.stop();
        }
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
        if let ModelAt::Folder(path) = &model {
            self.settings.add_model(path);
        }
        self.settings.model = model.clone();
        self.remember();
        self.session.plan = None;
        self.session.model = ModelState::Loading { model: model.clone(), progress: None };
        self.session.busy = Some(Doing::Loading);
        self.send(Command::Load { model, device: self.settings.device.clone(), precision: self.precision });
    }

    /// Loads the same model on another device.
    pub(crate) fn use_device(&mut self, device: Wanted) {
        self.settings.device = device;
        self.load(self.settings.model.clone());
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
            let (picture, options) = (shown.picture.clone(), options(&self.compression));
            self.session.preparing = true;
            self.send(Command::Look { picture, options });
        }
    }

    /// Asks the typed question.
    pub(crate) fn ask(&mut self) {
        let question = self.question.trim().to_owned();
        if question.is_empty() || !self.session.can_ask() {
            return;
        }
        self.question.clear();
        let run = self.session.ask(&question, self.compression.clone());
        self.send(Command::Ask { run, question, options: options(&self.compression) });
    }

    /// Uses the compression with this spelling for the next question. If it is refused, the reason is shown, and
    /// nothing else changes.
    pub(crate) fn choose(&mut self, spec: &str) {
        let Some(about) = self.session.about() else { return };
        let read = spec.parse::<Compression>().and_then(|it| it.check(about.fits()).map(|()| it));
        match read {
            Ok(compression) => (self.compression, self.refused) = (compression, None),
            Err(error) => self.refused = Some(Problem::of(&error).what),
        }
    }

    /// Asks the same question again with the other compression.
    pub(crate) fn compare(&mut self, turn: usize) {
        if !self.session.can_ask() {
            return;
        }
        if let Some(run) = self.session.compare(turn, self.other.clone()) {
            let question = self.session.turns[turn].question.clone();
            self.send(Command::Ask { run, question, options: options(&self.other) });
        }
    }

    /// Stops the answer or the loading.
    pub(crate) fn stop(&self) {
        self.engine.stop();
    }

    /// Requests the importance at another layer for the selected question when the layer slider was moved. The results
    /// of the vision tower are reused.
    fn follow_layer(&mut self) {
        let Some(layer) = self.compression.text().map(|text| text.layer) else { return };
        let Some(run) = self.session.selected.filter(|id| !id.other && self.session.can_ask()) else { return };
        let Some(turn) = self.session.turns.get_mut(run.turn) else { return };
        let mut compression = turn.answer.compression.clone();
        let Some(text) = compression.text_mut() else { return };
        if turn.answer.looked.is_none() || turn.answer.layer == layer {
            return;
        }
        (text.layer, turn.answer.layer) = (layer, layer);
        let question = turn.question.clone();
        self.session.busy = Some(Doing::Explaining(run));
        self.send(Command::Explain { run, question, options: options(&compression) });
    }

    /// Requests a new overlay when the selection, its data or the text-guided sampler's budget has changed.
    fn follow_drawing(&mut self) {
        let run = self.session.selected.filter(|&id| self.session.run(id).is_some_and(|run| run.looked.is_some()));
        let keep = self.compression.text().and_then(|text| text.keep);
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
            _ => self.canvas.drawn = None,
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
        let message = Notice::Message("The report was copied to the clipboard.".into());
        if !self.session.notices.contains(&message) {
            self.session.notices.push(message);
        }
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
            self.session.notices.push(Notice::Problem(problem));
        }
    }

    fn remember(&mut self) {
        if let Err(why) = self.settings.write() {
            let problem =
                Problem::file(&format!("cannot write the settings: {why}"), "They are lost when this window closes.");
            if !self.session.notices.contains(&Notice::Problem(problem.clone())) {
                self.session.notices.push(Notice::Problem(problem));
            }
        }
    }
}

/// The options of a question with this compression.
fn options(compression: &Compression) -> AskOptions {
    AskOptions { compression: Some(compression.clone()), ..AskOptions::default() }
}

impl eframe::App for App {
    fn logic(&mut self, ctx: &egui::Context, _: &mut eframe::Frame) {
        self.receive(ctx);
    }

    fn ui(&mut self, ui: &mut egui::Ui, _: &mut eframe::Frame) {
        self.show(ui);
    }
}
