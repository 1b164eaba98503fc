//! The system's file dialogs. They run in their own threads and send the chosen path to the window.
//!
//! On Linux and the BSDs a dialog needs xdg-desktop-portal or zenity. Without them rfd reports the same as for a dialog
//! that the user has closed, but at once.

use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use eframe::egui;
use rfd::{AsyncFileDialog, FileHandle};

/// What a path is chosen for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A picture to open.
    Picture,
    /// A model folder to open.
    Model,
    /// The file for the picture with its overlay.
    Png,
    /// The file for the numbers.
    Json,
}

/// The result of a dialog.
#[derive(Debug)]
pub enum Chosen {
    /// A path.
    Path(What, PathBuf),
    /// The system has no file dialogs.
    NoDialog(What),
}

/// A dialog that ends without a path before this time was not shown: no user is that fast.
const SHOWN: Duration = Duration::from_millis(700);

/// Opens dialogs, and receives the chosen paths.
pub struct Dialogs {
    chosen_in: Sender<Chosen>,
    chosen: Receiver<Chosen>,
}

impl Default for Dialogs {
    fn default() -> Self {
        let (chosen_in, chosen) = channel();
        Self { chosen_in, chosen }
    }
}

impl Dialogs {
    /// Asks for a picture.
    pub fn picture(&self, ctx: &egui::Context) {
        let dialog = AsyncFileDialog::new().set_title("Open a picture").add_filter("Pictures", &EXTENSIONS);
        self.wait(ctx, dialog.pick_file(), What::Picture);
    }

    /// Asks for a model folder.
    pub fn model(&self, ctx: &egui::Context) {
        self.wait(ctx, AsyncFileDialog::new().set_title("Open a model folder").pick_folder(), What::Model);
    }

    /// Asks for a file for the picture with its overlay.
    pub fn png(&self, ctx: &egui::Context) {
        let dialog = AsyncFileDialog::new().set_title("Save the picture with its overlay").set_file_name("looked.png");
        self.wait(ctx, dialog.add_filter("PNG", &["png"]).save_file(), What::Png);
    }

    /// Asks for a file for the numbers.
    pub fn json(&self, ctx: &egui::Context) {
        let dialog = AsyncFileDialog::new().set_title("Save the numbers").set_file_name("answer.json");
        self.wait(ctx, dialog.add_filter("JSON", &["json"]).save_file(), What::Json);
    }

    /// The paths that were chosen since the last call.
    pub fn chosen(&self) -> impl Iterator<Item = Chosen> {
        self.chosen.try_iter()
    }

    /// Waits for a dialog in another thread. macOS requires that the dialog itself is created on the window's thread.
    fn wait(&self, ctx: &egui::Context, dialog: impl Future<Output = Option<FileHandle>> + Send + 'static, what: What) {
        let (chosen, ctx) = (self.chosen_in.clone(), ctx.clone());
        thread::spawn(move || {
            let begin = Instant::now();
            let result = match pollster::block_on(dialog) {
                Some(file) => Chosen::Path(what, file.path().to_owned()),
                None if PORTAL && begin.elapsed() < SHOWN => Chosen::NoDialog(what),
                None => return,
            };
            let _ = chosen.send(result);
            ctx.request_repaint();
        });
    }
}

/// Whether rfd uses xdg-desktop-portal or zenity.
const PORTAL: bool = cfg!(all(unix, not(target_os = "macos")));

/// File name extensions of the formats that [`fovea_model::Picture::decode`] reads.
const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "webp", "gif", "bmp"];
