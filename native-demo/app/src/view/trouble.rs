//! Shows why there is no usable model, and what the user can do.

use eframe::egui::Ui;

use crate::{app::App, engine::Wanted, session::ModelState};

impl App {
    /// The problem and its remedies, above the picture.
    pub(super) fn trouble(&mut self, ui: &mut Ui) {
        let ModelState::Broken { model, problem } = &self.session.model else { return };
        let (model, problem) = (model.clone(), problem.clone());
        ui.group(|ui| {
            ui.set_width(ui.available_width());
            ui.colored_label(ui.visuals().error_fg_color, &problem.what);
            ui.label(problem.then);
            ui.horizontal(|ui| {
                if ui.button("Reload model").clicked() {
                    self.load(model.clone());
                }
                if ui.button("Load on the CPU").clicked() {
                    self.use_device(Wanted::Cpu);
                }
                if ui.button("Copy report").clicked() {
                    self.copy_report(ui.ctx());
                }
            });
        });
    }
}
