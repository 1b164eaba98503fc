//! The desktop app: ask questions about a picture, and see which parts of it the model used.
//!
//! Data flow of a question: `view` (user input) · `app` (reaction to it) · `engine` (a thread that loads models and
//! answers) · `session` (the data to show) · `painter` (a thread that draws the overlay) · `view` again. Engine and
//! window use separate devices, so the window stays open when the engine's device is lost.

mod settings;
mod view;
mod dialogs;
mod examples;
mod app;
pub mod engine;
mod problem;
mod session;
mod painter;
mod lens;
mod token;
mod report;

use std::path::PathBuf;

use eframe::{NativeOptions, egui};

pub use app::{App, Parts};
pub use dialogs::What;
pub use painter::Origin;
pub use problem::Problem;
pub use session::{Exchange, ModelState, Notice, Run, RunState, Session, Shown, Topic};
pub use settings::{AnswerSettings, Settings, Theme};

use engine::Wanted;

/// What to open at the start.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// A picture.
    pub picture: Option<PathBuf>,
    /// A model folder; None: the last used model.
    pub model: Option<PathBuf>,
    /// A device; None: the last used device.
    pub device: Option<Wanted>,
}

/// Opens the window, and returns when it is closed. Call it on the program's main thread.
///
/// # Errors
/// The reason why no window can be opened: no display, or no way to draw on it.
pub fn run(start: Start) -> Result<(), String> {
    let (settings, message) = Settings::read(Settings::usual_file());
    let viewport = egui::ViewportBuilder::default()
        .with_title("Fovea")
        .with_app_id("fovea")
        .with_inner_size([1180.0, 800.0])
        .with_min_inner_size([640.0, 480.0])
        .with_drag_and_drop(true);
    let options = NativeOptions { viewport, centered: true, ..NativeOptions::default() };
    let open = move |creation: &eframe::CreationContext<'_>| {
        let mut app = App::new(&creation.egui_ctx, settings);
        app.begin(message, start);
        Ok::<Box<dyn eframe::App>, _>(Box::new(app))
    };
    eframe::run_native("fovea", options, Box::new(open)).map_err(|why| why.to_string())
}
