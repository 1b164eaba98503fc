//! The start page: how to open a picture, and example pictures.

use eframe::egui::{Button, Image, RichText, Ui, vec2};

use crate::{app::App, examples::EXAMPLES};

impl App {
    pub(super) fn start(&mut self, ui: &mut Ui) {
        ui.vertical_centered(|ui| {
            ui.add_space((ui.available_height() * 0.14).min(110.0));
            ui.heading(RichText::new("Drop a picture here").size(30.0));
            ui.add_space(6.0);
            ui.label(
                "or paste one. Ask a question, and see which parts the model used. You can also drop a model folder.",
            );
            ui.add_space(14.0);
            if ui.add(Button::new(RichText::new("Open picture...").size(17.0)).min_size(vec2(180.0, 38.0))).clicked() {
                self.dialogs.picture(ui.ctx());
            }
            ui.add_space(30.0);
            ui.label("Or try an example. The demo checkpoint understands only drawn scenes like these:");
            ui.add_space(8.0);
        });
        let mut chosen = None;
        // Centred with a space: egui lays out wrapped rows from the left.
        let width: f32 = self.examples.iter().map(|(_, small)| 12.0 + small.size_vec2().x * 0.6).sum();
        ui.horizontal_wrapped(|ui| {
            ui.add_space(((ui.available_width() - width) / 2.0).max(0.0));
            for (index, small) in &self.examples {
                let Some(example) = EXAMPLES.get(*index) else { continue };
                let image = Image::new(small).fit_to_exact_size(small.size_vec2() * 0.6).alt_text(example.question);
                let button = ui.add(Button::image(image)).on_hover_text(example.question);
                if button.clicked() {
                    chosen = Some(example);
                }
            }
        });
        if let Some(example) = chosen {
            self.open_example(example);
        }
    }
}
