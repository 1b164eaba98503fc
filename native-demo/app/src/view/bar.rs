//! The menu bar, and the state of the model.

use eframe::egui::{Align, Button, Layout, ProgressBar, RichText, Ui};
use fovea_model::Precision;
use fovea_overlay::words;
use fovea_runtime::{DeviceInfo, device::DeviceClass};

use crate::{
    app::App,
    engine::{ModelAt, Wanted},
    painter::Origin,
    session::ModelState,
    settings::Theme,
};

impl App {
    pub(super) fn bar(&mut self, ui: &mut Ui) {
        ui.add_space(4.0);
        ui.horizontal_wrapped(|ui| {
            ui.menu_button("Picture", |ui| self.pictures(ui));
            ui.menu_button("Model", |ui| self.models(ui));
            ui.menu_button("Device", |ui| self.devices(ui));
            ui.menu_button("View", |ui| self.themes(ui));
            ui.separator();
            self.state(ui);
        });
        ui.add_space(2.0);
    }

    fn pictures(&mut self, ui: &mut Ui) {
        if ui.add(Button::new("Open picture...").shortcut_text("Ctrl+O")).clicked() {
            self.dialogs.picture(ui.ctx());
            ui.close();
        }
        let saved =
            ui.add_enabled(self.canvas.looked.is_some(), Button::new("Save with overlay...").shortcut_text("Ctrl+S"));
        if saved.clicked() {
            self.dialogs.png(ui.ctx());
            ui.close();
        }
        if ui.add_enabled(self.numbers_json().is_some(), Button::new("Save numbers as JSON...")).clicked() {
            self.dialogs.json(ui.ctx());
            ui.close();
        }
        if self.settings.pictures.is_empty() {
            return;
        }
        ui.separator();
        for path in self.settings.pictures.clone() {
            let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
            if ui.button(name).on_hover_text(path.display().to_string()).clicked() {
                self.open(Origin::File(path));
                ui.close();
            }
        }
    }

    fn models(&mut self, ui: &mut Ui) {
        let current = self.model();
        if ui.radio(current == ModelAt::Demo, "Demo checkpoint").clicked() {
            self.load(ModelAt::Demo);
            ui.close();
        }
        for path in self.settings.models.clone() {
            let model = ModelAt::Folder(path.clone());
            let chosen = ui.radio(current == model, model.to_string()).on_hover_text(path.display().to_string());
            if chosen.clicked() {
                self.consider(path);
                ui.close();
            }
        }
        ui.separator();
        if ui.add(Button::new("Open model folder...").shortcut_text("Ctrl+Shift+O")).clicked() {
            self.dialogs.model(ui.ctx());
            ui.close();
        }
        if ui.add_enabled(self.session.about().is_some(), Button::new("Close model")).clicked() {
            self.close_model();
            ui.close();
        }
        ui.separator();
        ui.label("Weights");
        for (precision, name) in [
            (Precision::Auto, "automatic"),
            (Precision::F32, "f32"),
            (Precision::F16, "f16: half of the memory of f32"),
            (Precision::Q8, "q8: about half of f16, almost the same answers"),
            (Precision::Q4, "q4: about a third of f16, answers can differ"),
        ] {
            if ui.radio(self.precision == precision, name).clicked() {
                self.precision = precision;
                self.load(current.clone());
                ui.close();
            }
        }
    }

    fn devices(&mut self, ui: &mut Ui) {
        let current = self.settings.device.clone();
        let mut choices = vec![
            (Wanted::Auto, "the best GPU, or the CPU if there is none".to_owned()),
            (Wanted::Cpu, "works everywhere".to_owned()),
        ];
        match &self.session.adapters {
            Some(adapters) => choices.extend(adapters.iter().map(|info| (Wanted::of(info), can(info)))),
            None => {
                ui.label("Searching for adapters...");
            }
        }
        for (wanted, can) in choices {
            let text = format!("{wanted}\n{can}");
            if ui.radio(current == wanted, text).clicked() {
                self.use_device(wanted);
                ui.close();
            }
        }
    }

    fn themes(&mut self, ui: &mut Ui) {
        for (theme, name) in [(Theme::System, "System"), (Theme::Light, "Light"), (Theme::Dark, "Dark")] {
            if ui.radio(self.settings.theme == theme, name).clicked() {
                self.set_theme(ui.ctx(), theme);
                ui.close();
            }
        }
        ui.separator();
        let answer = Button::new("Copy answer").shortcut_text("Ctrl+Shift+A");
        if ui.add_enabled(!self.session.turns.is_empty(), answer).clicked() {
            self.copy_answer(ui.ctx());
            ui.close();
        }
        let report = ui.add(Button::new("Copy report").shortcut_text("Ctrl+Shift+R"));
        if report.on_hover_text("Adapters, versions, error codes; no picture, no question").clicked() {
            self.copy_report(ui.ctx());
            ui.close();
        }
    }

    /// The loaded model, or the progress of loading.
    fn state(&mut self, ui: &mut Ui) {
        match &self.session.model {
            ModelState::None => {
                ui.label("No model");
            }
            ModelState::Loading { model, progress } => {
                let (stage, share) = match progress {
                    None => ("opening", 0.0),
                    Some(at) => (at.stage.name(), at.done as f32 / at.total.max(1) as f32),
                };
                ui.label(format!("{model}: {stage}"));
                ui.add(ProgressBar::new(share).desired_width(120.0).show_percentage());
                if ui.button("Cancel").clicked() {
                    self.stop();
                }
            }
            ModelState::Broken { model, .. } => {
                ui.label(RichText::new(format!("{model} is not loaded")).color(ui.visuals().error_fg_color));
            }
            ModelState::Ready(about) => {
                let text =
                    format!("{} on {}, {}, {}", about.model, about.device, about.dtype, words::bytes(about.weights));
                ui.with_layout(Layout::left_to_right(Align::Center), |ui| ui.label(text));
            }
        }
    }
}

/// An adapter's class and capabilities.
fn can(info: &DeviceInfo) -> String {
    let class = match info.class {
        DeviceClass::Discrete => "GPU",
        DeviceClass::Integrated => "integrated GPU",
        DeviceClass::Virtual => "virtual GPU",
        DeviceClass::Software => "software GPU; the CPU device is faster",
        DeviceClass::Cpu => "CPU",
        DeviceClass::Other => "adapter",
    };
    let f16 = if info.f16 { "f16" } else { "no f16" };
    match info.requirements().iter().find(|(_, need, have)| have < need) {
        Some((what, need, have)) => format!("{class}; too small: {what}, need {need}, have {have}"),
        None => format!("{class}, {f16}, buffers up to {}", words::bytes(info.max_binding_size)),
    }
}
