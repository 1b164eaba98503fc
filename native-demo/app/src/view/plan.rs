//! Before a model is loaded: what it takes, whether it fits, and if not, what would.

use eframe::egui::{Context, Grid, Id, Modal, RichText};
use fovea_model::{Precision, words};

use crate::{app::App, engine::Planned};

impl App {
    pub(super) fn plan(&mut self, ctx: &Context) {
        let Some(planned) = &self.session.plan else { return };
        let (mut load, mut cancel) = (None, false);
        let modal = Modal::new(Id::unique("plan")).show(ctx, |ui| {
            ui.set_width(430.0);
            ui.heading(planned.model.to_string());
            ui.add_space(6.0);
            Grid::new("plan").num_columns(3).spacing([24.0, 4.0]).show(ui, |ui| {
                let mut row = |what: &str, of: &dyn Fn(&fovea_model::Plan) -> u64| {
                    ui.label(what);
                    ui.monospace(words::bytes(of(&planned.f32)));
                    ui.monospace(words::bytes(of(&planned.f16)));
                    ui.end_row();
                };
                row("Weights", &|plan| plan.weight_bytes);
                row("Vision tower at work", &|plan| plan.vision_activations);
                row("KV cache, every token", &|plan| plan.full.kv_cache);
                row("KV cache, both samplers", &|plan| plan.compressed.kv_cache);
                row("At most at once", &fovea_model::Plan::peak_bytes);
            });
            ui.label(RichText::new("Left with matrices in f32, right in f16.").weak());
            ui.add_space(8.0);
            let (fits, verdict) = verdict(planned);
            let colour = if fits { ui.visuals().text_color() } else { ui.visuals().error_fg_color };
            ui.label(RichText::new(verdict).color(colour));
            ui.add_space(10.0);
            ui.horizontal(|ui| {
                if ui.button("Load").clicked() {
                    load = Some(self.precision);
                }
                if ui.button("Load in f16").clicked() {
                    load = Some(Precision::F16);
                }
                cancel |= ui.button("Cancel").clicked();
            });
        });
        let model = planned.model.clone();
        if let Some(precision) = load {
            self.precision = precision;
            self.load(model);
        } else if cancel || modal.should_close() {
            self.session.plan = None;
        }
    }
}

/// Whether the plan fits into what the host has free, and a sentence. What a GPU has free, wgpu does not tell.
fn verdict(planned: &Planned) -> (bool, String) {
    let Some(have) = planned.host_available else {
        return (true, "This system does not tell how much memory is free.".into());
    };
    let (f32, f16) = (planned.f32.peak_bytes(), planned.f16.peak_bytes());
    let free = words::bytes(have);
    match () {
        () if f32 <= have => {
            (true, format!("It fits: {free} are free on this machine. A GPU does not tell what it has."))
        }
        () if f16 <= have => {
            (false, format!("Too large with matrices in f32: {free} are free on this machine. In f16 it fits."))
        }
        () => (false, format!("Too large: {free} are free. A smaller model would fit, or a machine with more memory.")),
    }
}

#[cfg(test)]
mod tests {
    use fovea_model::{Checkpoint, Plan, demo};

    use super::*;
    use crate::engine::ModelAt;

    #[test]
    fn a_verdict_tells_whether_it_fits_and_what_would() {
        let checkpoint = pollster::block_on(Checkpoint::open(demo::source())).expect("the demo");
        let [f32, f16] = [4, 2].map(|bytes| Plan::new(&checkpoint, None, bytes));
        let (large, small) = (f32.peak_bytes(), f16.peak_bytes());
        let mut planned = Planned { model: ModelAt::Demo, f32, f16, host_available: None };
        for (have, fits, part) in [
            (None, true, "does not tell"),
            (Some(large), true, "It fits"),
            (Some(large - 1), false, "In f16"),
            (Some(small - 1), false, "A smaller model"),
        ] {
            planned.host_available = have;
            let (got, text) = verdict(&planned);
            assert!(got == fits && text.contains(part), "{have:?}: {got} {text}");
        }
    }
}
