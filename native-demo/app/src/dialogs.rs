//! The system's dialogs for files. They run beside the window, and what was chosen comes as an event.

use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use eframe::egui;
use rfd::{AsyncFileDialog, FileHandle};

/// What was chosen.
#[derive(Debug)]
pub enum Chosen {
    /// A picture to open.
    Picture(PathBuf),
    /// A model folder to open.
    Model(PathBuf),
    /// Where the drawing goes.
    Png(PathBuf),
    /// Where the numbers go.
    Json(PathBuf),
}

/// Dialogs that are open, and what comes of them.
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
        self.wait(ctx, dialog.pick_file(), Chosen::Picture);
    }

    /// Asks for a model folder.
    pub fn model(&self, ctx: &egui::Context) {
        self.wait(ctx, AsyncFileDialog::new().set_title("Open a model folder").pick_folder(), Chosen::Model);
    }

    /// Asks where the drawing goes.
    pub fn png(&self, ctx: &egui::Context) {
        let dialog = AsyncFileDialog::new().set_title("Save what it looked at").set_file_name("looked.png");
        self.wait(ctx, dialog.add_filter("PNG", &["png"]).save_file(), Chosen::Png);
    }

    /// Asks where the numbers go.
    pub fn json(&self, ctx: &egui::Context) {
        let dialog = AsyncFileDialog::new().set_title("Save the numbers").set_file_name("answer.json");
        self.wait(ctx, dialog.add_filter("JSON", &["json"]).save_file(), Chosen::Json);
    }

    /// What was chosen since the last call.
    pub fn chosen(&self) -> impl Iterator<Item = Chosen> {
        self.chosen.try_iter()
    }

    /// The dialog is made on the window's thread, as macOS wants it, and waited for on another.
    fn wait(
        &self,
        ctx: &egui::Context,
        dialog: impl Future<Output = Option<FileHandle>> + Send + 'static,
        which: fn(PathBuf) -> Chosen,
    ) {
        let (chosen, ctx) = (self.chosen_in.clone(), ctx.clone());
        thread::spawn(move || {
            if let Some(file) = pollster::block_on(dialog) {
                let _ = chosen.send(which(file.path().to_owned()));
                ctx.request_repaint();
            }
        });
    }
}

/// Files that [`fovea_model::Picture::decode`] reads.
const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "webp", "gif", "bmp"];
