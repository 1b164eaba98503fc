//! A field for a path, on systems without file dialogs.

use std::path::PathBuf;

use eframe::egui::{Context, Id, Key, Modal, TextEdit};

use crate::{app::App, dialogs::What};

/// The id of the field.
pub fn path_id() -> Id {
    Id::unique("typed path")
}

impl App {
    pub(super) fn path_field(&mut self, ctx: &Context) {
        let Some((what, path)) = &mut self.path else { return };
        let (title, use_it) = match what {
            What::Picture => ("Open a picture", "Open"),
            What::Model => ("Open a model folder", "Open"),
            What::Png => ("Save the picture with its overlay", "Save"),
            What::Json => ("Save the numbers", "Save"),
        };
        let (mut done, mut cancel) = (false, false);
        let modal = Modal::new(Id::unique("path")).show(ctx, |ui| {
            ui.set_width(420.0);
            ui.heading(title);
            ui.add_space(4.0);
            ui.label("This system has no file dialog: xdg-desktop-portal and zenity were not found. Type the path.");
            ui.add_space(4.0);
            let label = ui.label("Path");
            let edit = TextEdit::singleline(path).id(path_id()).desired_width(f32::INFINITY);
            let field = ui.add(edit).labelled_by(label.id);
            done = field.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
            ui.add_space(6.0);
            ui.horizontal(|ui| {
                done |= ui.button(use_it).clicked();
                cancel = ui.button("Cancel").clicked();
            });
        });
        if done && !path.trim().is_empty() {
            let (what, path) = (*what, PathBuf::from(path.trim()));
            self.path = None;
            self.use_path(what, path);
        } else if cancel || modal.should_close() {
            self.path = None;
        }
    }
}
