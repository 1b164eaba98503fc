//! What is wrong with the model: what happened, and ways on. The window goes on without it.

use eframe::egui::Ui;

use crate::{app::App, engine::Wanted, session::ModelState};

impl App {
    /// What is wrong with the model, over the picture: what happened, and ways on.
    pub(super) fn trouble(&mut self, ui: &mut Ui) {
        let ModelState::Broken { model, problem } = &self.session.model else { return };
        let (model, problem) = (model.clone(), problem.clone());
        ui.group(|ui| {
            ui.set_width(ui.available_width());
            ui.colored_label(ui.visuals().error_fg_color, &problem.what);
            ui.label(problem.then);
            ui.horizontal(|ui| {
                if ui.button("Open it again").clicked() {
                    self.load(model.clone());
                }
                if ui.button("Open it on the CPU").clicked() {
                    self.use_device(Wanted::Cpu);
                }
                if ui.button("Copy a report").clicked() {
                    self.copy_report(ui.ctx());
                }
            });
        });
    }
}
