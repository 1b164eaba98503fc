//! Shows why there is no usable model, and what the user can do.

use eframe::egui::Ui;

use crate::{
    app::App,
    engine::{ModelAt, Wanted},
    session::ModelState,
};

impl App {
    /// The problem and its remedies, above the picture.
    pub(super) fn trouble(&mut self, ui: &mut Ui) {
        let ModelState::Broken { model, problem } = &self.session.model else { return };
        let (model, problem) = (model.clone(), problem.clone());
        ui.group(|ui| {
            ui.set_width(ui.available_width());
            ui.colored_label(ui.visuals().error_fg_color, &problem.what);
            ui.label(problem.then);
            ui.horizontal_wrapped(|ui| {
                if ui.button("Reload model").clicked() {
                    self.load(model.clone());
                }
                if ui.button("Load on the CPU").clicked() {
                    self.use_device(Wanted::Cpu);
                }
                if model != ModelAt::Demo && ui.button("Use the demo").clicked() {
                    self.load(ModelAt::Demo);
                }
                if ui.button("Copy report").clicked() {
                    self.copy_report(ui.ctx());
                }
            });
        });
    }
}
