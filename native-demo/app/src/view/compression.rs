//! The compression of the next question: method, settings and spelling. And the legend of the overlay's colors.

use eframe::egui::{
    Align, Color32, ComboBox, Id, Key, Layout, Rect, RichText, Sense, Slider, SliderClamping, TextEdit, Ui, pos2, vec2,
};
use fovea_model::{Budget, Compression, Looked, METHODS, Origin, TextGuided};
use fovea_overlay::{has_merged, heat_color, merged_color, scale_colors};
use fovea_runtime::Keep;

use super::methods;
use crate::{
    app::{App, Choice},
    engine::About,
};

/// What a budget's slider does.
const BUDGET: &str = "How many tokens are kept: a share of them, or a number.";

impl App {
    pub(super) fn compression(&mut self, ui: &mut Ui) {
        ui.add_space(4.0);
        ui.horizontal_wrapped(|ui| ui.checkbox(&mut self.overlay, "Show attention overlay"));
        ui.add_enabled_ui(self.session.about().is_some(), |ui| {
            self.method(ui);
            let about = self.session.about();
            if let Some(about) = about {
                sliders(ui, &mut self.chosen, about);
            }
            spelling(ui, "As text", &mut self.chosen, about);
        });
        self.legend(ui);
    }

    fn method(&mut self, ui: &mut Ui) {
        let mut clicked = None;
        ui.horizontal_wrapped(|ui| {
            let label = ui.label("Compression");
            let current = &self.chosen.compression;
            let list = ComboBox::from_id_salt("method").selected_text(methods::titles(current)).height(400.0);
            let list = list.width(120.0).truncate().show_ui(ui, |ui| {
                clicked = self.session.about().and_then(|about| methods::list(ui, about, current));
                if clicked.is_some() {
                    ui.close();
                }
            });
            list.response.labelled_by(label.id);
            let usual = self.session.about().map(About::compression).filter(|usual| usual != current);
            if let Some(usual) = usual
                && ui.button("Reset to model defaults").clicked()
            {
                self.chosen.set(usual);
            }
        });
        if let (Some(spec), Some(about)) = (clicked, self.session.about()) {
            self.chosen.choose(spec, about);
        }
    }

    fn legend(&self, ui: &mut Ui) {
        let Some(looked) = &self.canvas.looked else { return };
        let pruned = !looked.importance.is_empty();
        ui.horizontal_wrapped(|ui| {
            let regions = looked.choice.len();
            for (index, color) in scale_colors(looked).into_iter().filter(|_| regions > 0) {
                let share = looked.choice.iter().filter(|&&c| c == index).count() as f64 / regions as f64;
                swatch(ui, color);
                ui.label(format!("{} {:.0} %", looked.scales[index], 100.0 * share));
            }
            let merged = has_merged(looked);
            if merged {
                swatch(ui, merged_color());
                ui.label("merged");
            }
            if !pruned && !covers(looked) {
                swatch(ui, heat_color(None));
                ui.label("dropped");
            } else if !pruned && !merged {
                ui.label(RichText::new("all tokens kept").weak());
            }
        });
        if pruned {
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

/// The settings that have a slider. Those of the text-guided sampler for the next question also change the overlay that is
/// shown.
pub(super) fn sliders(ui: &mut Ui, choice: &mut Choice, about: &About) {
    let mut changed = false;
    // Two sliders side by side, or one below the other: egui does not wrap them.
    let beside = ui.available_width() > 350.0;
    let layout = if beside { Layout::left_to_right(Align::Center) } else { Layout::top_down(Align::Min) };
    let height = if beside { ui.spacing().interact_size.y } else { 0.0 };
    ui.allocate_ui_with_layout(vec2(ui.available_width(), height), layout, |ui| {
        ui.spacing_mut().slider_width = 68.0;
        for (name, mut keep) in budgets(&choice.compression) {
            if budget(ui, &mut keep)
                && let Some(with) = with_budget(&choice.compression, name, keep)
            {
                (choice.compression, changed) = (with, true);
            }
        }
        if let Some(text) = choice.compression.text_mut() {
            changed |= text_guided(ui, text, about);
        }
    });
    if changed {
        choice.refused = None;
    }
}

/// The compression as text: Enter uses it. `name` is the field's label, and different for each field.
pub(super) fn spelling(ui: &mut Ui, name: &str, choice: &mut Choice, about: Option<&About>) {
    // A fixed id keeps the keyboard focus when a slider appears above.
    let id = Id::unique(("typed compression", name));
    if choice.refused.is_none() && !ui.memory(|memory| memory.has_focus(id)) {
        choice.spec = choice.compression.to_string();
    }
    ui.horizontal_wrapped(|ui| {
        let label = ui.label(name);
        let edit = TextEdit::singleline(&mut choice.spec).id(id).desired_width(f32::INFINITY);
        let field = ui.add(edit).on_hover_text("As in fovea ask --compress. Enter uses it.").labelled_by(label.id);
        if let Some(about) = about
            && field.lost_focus()
            && ui.input(|input| input.key_pressed(Key::Enter))
        {
            choice.choose(&choice.spec.clone(), about);
        }
    });
    if let Some(why) = &choice.refused {
        ui.horizontal_wrapped(|ui| ui.colored_label(ui.visuals().error_fg_color, why));
    }
}

/// The budgets `keep` of a compression's methods, each with the method's name. Which methods have one follows from their
/// default spelling in [`METHODS`]; the text-guided sampler has a separate slider.
fn budgets(compression: &Compression) -> Vec<(&'static str, Budget)> {
    let budget = |spec: &str| {
        let keep = spec.split_once(':')?.1.split(',').find_map(|setting| setting.strip_prefix("keep="))?;
        // With a point it is a ratio.
        if keep.contains('.') { keep.parse().ok().map(Budget::Ratio) } else { keep.parse().ok().map(Budget::Count) }
    };
    let spelling = compression.to_string();
    let own = spelling.split('+').filter_map(|spec| {
        let row = METHODS.iter().find(|row| spec.split(':').next() == Some(row.name))?;
        let usual = budget(row.default)?;
        Some((row.name, budget(spec).unwrap_or(usual)))
    });
    own.collect()
}

/// The compression with another budget of the method `name`.
fn with_budget(compression: &Compression, name: &str, keep: Budget) -> Option<Compression> {
    let spelling = compression.to_string();
    let parts = spelling.split('+').map(|spec| {
        let (own, settings) = spec.split_once(':').unwrap_or((spec, ""));
        if own != name {
            return spec.to_owned();
        }
        let others = settings.split(',').filter(|setting| !setting.is_empty() && !setting.starts_with("keep="));
        let settings: Vec<String> = others.map(str::to_owned).chain([format!("keep={keep}")]).collect();
        format!("{name}:{}", settings.join(","))
    });
    parts.collect::<Vec<_>>().join("+").parse().ok()
}

/// The slider of a budget: a ratio or a count. Returns whether it was moved.
fn budget(ui: &mut Ui, keep: &mut Budget) -> bool {
    // An existing value beyond the slider's ends is not changed.
    let slider = match keep {
        Budget::Ratio(ratio) => Slider::new(ratio, 0.05..=1.0).fixed_decimals(2),
        Budget::Count(count) => Slider::new(count, 1..=1024).logarithmic(true),
    };
    let slider = slider.clamping(SliderClamping::Edits).text("keep");
    ui.add(slider).on_hover_text(BUDGET).changed()
}

/// The sliders of the text-guided sampler. Returns whether one was moved.
fn text_guided(ui: &mut Ui, text: &mut TextGuided, about: &About) -> bool {
    let (usual, layers) = (&about.config.focus, about.config.text.n_layers);
    let mut own = text.keep.unwrap_or(Keep::Gamma(usual.gamma));
    let slider = match &mut own {
        Keep::Gamma(gamma) => Slider::new(gamma, 0.05..=1.0).fixed_decimals(2).text("gamma"),
        Keep::Ratio(ratio) => Slider::new(ratio, 0.05..=1.0).fixed_decimals(2).text("keep"),
        Keep::Count(count) => Slider::new(count, 1..=1024).logarithmic(true).text("keep"),
    };
    let what = match text.keep {
        None | Some(Keep::Gamma(_)) => "Keeps the fewest tokens whose summed share of the importance exceeds gamma.",
        Some(_) => BUDGET,
    };
    let budget = ui.add(slider.clamping(SliderClamping::Edits)).on_hover_text(what).changed();
    if budget {
        text.keep = Some(own);
    }
    let mut value = text.layer.or(usual.text_layer).unwrap_or(0);
    let slider = Slider::new(&mut value, 0..=layers.saturating_sub(1)).text("layer");
    let layer = ui.add(slider).on_hover_text("Tokens are dropped at the input of this decoder layer.").changed();
    if layer {
        text.layer = Some(value);
    }
    budget || layer
}

/// Whether every patch of the map is in a token.
fn covers(looked: &Looked) -> bool {
    let patches = |origin: &Origin| -> usize {
        match origin {
            Origin::Map(boxes) => boxes.iter().map(|[y0, x0, y1, x1]| (y1 - y0) * (x1 - x0)).sum(),
            _ => 0,
        }
    };
    looked.origins.iter().map(patches).sum::<usize>() >= looked.grid.height * looked.grid.width
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_follows_from_the_spelling_and_changes_only_itself() {
        let read = |spec: &str| spec.parse::<Compression>().expect(spec);
        assert!(budgets(&read("focus")).is_empty() && budgets(&read("hired")).is_empty());
        assert_eq!(budgets(&read("fastv")), [("fastv", Budget::Ratio(0.5))]);
        let both = read("random:seed=7+fastv:keep=64,layer=3");
        assert_eq!(budgets(&both), [("random", Budget::Ratio(0.25)), ("fastv", Budget::Count(64))]);
        assert_eq!(
            with_budget(&both, "random", Budget::Ratio(1.0)),
            Some(read("random:keep=1.0,seed=7+fastv:keep=64,layer=3"))
        );
    }
}
