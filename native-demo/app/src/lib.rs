//! The desktop app: a window in which to ask about a picture, and to see what the model looked at.
//!
//! The way of a question: `view` (what is typed and clicked) · `app` (what comes of it) · `engine` (a thread that loads and
//! answers) · `session` (what is known) · `painter` (a thread that draws it) · `view` again. The engine computes on a device
//! of its own, so that a lost one never takes the window along.

mod app;
mod dialogs;
pub mod engine;
mod examples;
mod lens;
mod painter;
mod problem;
mod report;
mod session;
mod settings;
mod token;
mod view;

use std::path::PathBuf;

use eframe::{NativeOptions, egui};

pub use app::{App, Parts};
pub use painter::Origin;
pub use problem::Problem;
pub use session::{ModelState, Notice, Progress, Run, Sampling, Session, Shown, Turn};
pub use settings::{Settings, Theme};

use engine::{ModelAt, Wanted};

/// What to open with.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// A picture.
    pub picture: Option<PathBuf>,
    /// A model folder; None: the last one.
    pub model: Option<PathBuf>,
    /// A device; None: the last one.
    pub device: Option<Wanted>,
}

/// Opens the window, and returns when it is closed. To be called on the program's first thread.
///
/// # Errors
/// Why there is no window: no display, or nothing that can draw on it.
pub fn run(start: Start) -> Result<(), String> {
    let (mut settings, word) = Settings::read(Settings::usual_file());
    if let Some(device) = start.device {
        settings.device = device;
    }
    if let Some(folder) = start.model {
        settings.model = ModelAt::Folder(folder);
    }
    let viewport = egui::ViewportBuilder::default()
        .with_title("Fovea")
        .with_app_id("fovea")
        .with_inner_size([1180.0, 800.0])
        .with_min_inner_size([720.0, 520.0])
        .with_drag_and_drop(true);
    let options = NativeOptions { viewport, centered: true, ..NativeOptions::default() };
    let open = move |creation: &eframe::CreationContext<'_>| {
        let mut app = App::new(&creation.egui_ctx, settings);
        app.begin(word, start.picture);
        Ok::<Box<dyn eframe::App>, _>(Box::new(app))
    };
    eframe::run_native("fovea", options, Box::new(open)).map_err(|why| why.to_string())
}
