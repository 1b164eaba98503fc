//! The system's file dialogs. They run in their own threads and send the chosen path to the window.

use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use eframe::egui;
use rfd::{AsyncFileDialog, FileHandle};

/// A chosen path.
#[derive(Debug)]
pub enum Chosen {
    /// A picture to open.
    Picture(PathBuf),
    /// A model folder to open.
    Model(PathBuf),
    /// The file for the picture with its overlay.
    Png(PathBuf),
    /// The file for the numbers.
    Json(PathBuf),
}

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
        self.wait(ctx, dialog.pick_file(), Chosen::Picture);
    }

    /// Asks for a model folder.
    pub fn model(&self, ctx: &egui::Context) {
        self.wait(ctx, AsyncFileDialog::new().set_title("Open a model folder").pick_folder(), Chosen::Model);
    }

    /// Asks for a file for the picture with its overlay.
    pub fn png(&self, ctx: &egui::Context) {
        let dialog = AsyncFileDialog::new().set_title("Save the picture with its overlay").set_file_name("looked.png");
        self.wait(ctx, dialog.add_filter("PNG", &["png"]).save_file(), Chosen::Png);
    }

    /// Asks for a file for the numbers.
    pub fn json(&self, ctx: &egui::Context) {
        let dialog = AsyncFileDialog::new().set_title("Save the numbers").set_file_name("answer.json");
        self.wait(ctx, dialog.add_filter("JSON", &["json"]).save_file(), Chosen::Json);
    }

    /// The paths that were chosen since the last call.
    pub fn chosen(&self) -> impl Iterator<Item = Chosen> {
        self.chosen.try_iter()
    }

    /// Waits for a dialog in another thread. macOS requires that the dialog itself is created on the window's thread.
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

/// File name extensions of the formats that [`fovea_model::Picture::decode`] reads.
const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "webp", "gif", "bmp"];
