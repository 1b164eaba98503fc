//! The samplers' switches and sliders, and the legend of the overlay's colors.

use eframe::egui::{Color32, Rect, RichText, Sense, Slider, Ui, pos2, vec2};
use fovea_overlay::{heat_color, scale_colors};

use crate::app::App;

impl App {
    pub(super) fn samplers(&mut self, ui: &mut Ui) {
        ui.add_space(4.0);
        let about = self.session.about();
        let (gamma, layer, layers) =
            about.map_or((0.85, None, 1), |about| (about.focus.gamma, about.focus.text_layer, about.layers));
        ui.horizontal_wrapped(|ui| {
            ui.checkbox(&mut self.overlay, "Show attention overlay");
            let selector = self.session.about().is_none_or(|about| about.selector);
            ui.add_enabled_ui(selector, |ui| ui.checkbox(&mut self.sampling.vision, "Vision-guided sampler"))
                .response
                .on_disabled_hover_text("This checkpoint has no scale selector.");
            ui.checkbox(&mut self.sampling.text, "Text-guided sampler");
        });
        ui.add_enabled_ui(self.sampling.text && self.session.about().is_some(), |ui| {
            ui.horizontal_wrapped(|ui| {
                ui.spacing_mut().slider_width = 68.0;
                let mut value = self.sampling.gamma.unwrap_or(gamma);
                let slider = Slider::new(&mut value, 0.05..=1.0).text("gamma").fixed_decimals(2);
                let what = "Keeps the fewest tokens whose summed share of the importance exceeds gamma.";
                if ui.add(slider).on_hover_text(what).changed() {
                    self.sampling.gamma = Some(value);
                }
                let mut value = self.sampling.layer.or(layer).unwrap_or(0);
                let slider = Slider::new(&mut value, 0..=layers.saturating_sub(1)).text("layer");
                if ui.add(slider).on_hover_text("Tokens are dropped at the input of this decoder layer.").changed() {
                    self.sampling.layer = Some(value);
                }
                let moved = self.sampling.gamma.is_some() || self.sampling.layer.is_some();
                if moved && ui.button("Reset to model defaults").clicked() {
                    (self.sampling.gamma, self.sampling.layer) = (None, None);
                }
            });
        });
        self.legend(ui);
    }

    fn legend(&self, ui: &mut Ui) {
        let Some(looked) = &self.canvas.looked else { return };
        ui.horizontal_wrapped(|ui| {
            let regions = looked.choice.len();
            for (index, color) in scale_colors(looked).into_iter().filter(|_| regions > 0) {
                let share = looked.choice.iter().filter(|&&c| c == index).count() as f64 / regions as f64;
                swatch(ui, color);
                ui.label(format!("{} {:.0} %", looked.scales[index], 100.0 * share));
            }
            if looked.importance.is_empty() {
                ui.label(RichText::new("all tokens kept").weak());
            }
        });
        if !looked.importance.is_empty() {
            // Not wrapped: the words stay next to their color bar.
            ui.horizontal(|ui| {
                swatch(ui, heat_color(None));
                ui.label("dropped");
                ui.label("less");
                heat(ui);
                ui.label("more important");
            });
        }
    }
}

/// The color bar from the least to the most important kept token.
fn heat(ui: &mut Ui) {
    let (rect, _) = ui.allocate_exact_size(vec2(72.0, 14.0), Sense::hover());
    let steps = 36;
    for step in 0..steps {
        let [red, green, blue] = heat_color(Some(step as f32 / (steps - 1) as f32));
        let left = rect.left() + rect.width() * step as f32 / steps as f32;
        let part = Rect::from_min_size(pos2(left, rect.top()), vec2(rect.width() / steps as f32, rect.height()));
        ui.painter().rect_filled(part, 0.0, Color32::from_rgb(red, green, blue));
    }
}

fn swatch(ui: &mut Ui, [red, green, blue]: [u8; 3]) {
    let (rect, _) = ui.allocate_exact_size(vec2(14.0, 14.0), Sense::hover());
    ui.painter().rect_filled(rect, 2.0, Color32::from_rgb(red, green, blue));
}
