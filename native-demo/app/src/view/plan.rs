//! The memory plan of a model before it is loaded: what it needs, and whether it fits.

use eframe::egui::{Context, Grid, Id, Modal, RichText};
use fovea_model::Precision;
use fovea_overlay::words;

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
                row("Vision tower activations", &|plan| plan.vision_activations);
                row("KV cache, all tokens", &|plan| plan.full.kv_cache);
                row("KV cache, both samplers", &|plan| plan.compressed.kv_cache);
                row("Peak", &fovea_model::Plan::peak_bytes);
            });
            ui.label(RichText::new("Left: matrices in f32. Right: matrices in f16.").weak());
            ui.add_space(8.0);
            let (fits, verdict) = verdict(planned);
            let color = if fits { ui.visuals().text_color() } else { ui.visuals().error_fg_color };
            ui.label(RichText::new(verdict).color(color));
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

/// Whether the plan fits into the available host memory, and a sentence. wgpu does not report a GPU's free memory.
fn verdict(planned: &Planned) -> (bool, String) {
    let Some(have) = planned.host_available else {
        return (true, "This system does not report its free memory.".into());
    };
    let (f32, f16) = (planned.f32.peak_bytes(), planned.f16.peak_bytes());
    let free = words::bytes(have);
    match () {
        () if f32 <= have => {
            (true, format!("It fits: this machine has {free} of free memory. The free memory of a GPU is unknown."))
        }
        () if f16 <= have => {
            (false, format!("Too large in f32: this machine has {free} of free memory. It fits in f16."))
        }
        () => (
            false,
            format!(
                "Too large: this machine has {free} of free memory. Use a smaller model or a machine with more memory."
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use fovea_model::{Checkpoint, Plan, Stored, demo};

    use super::*;
    use crate::engine::ModelAt;

    #[test]
    fn a_verdict_states_whether_the_model_fits() {
        let checkpoint = pollster::block_on(Checkpoint::open(demo::source())).expect("the demo");
        let [f32, f16] = [Stored::F32, Stored::F16].map(|stored| Plan::new(&checkpoint, None, stored));
        let (large, small) = (f32.peak_bytes(), f16.peak_bytes());
        let mut planned = Planned { model: ModelAt::Demo, f32, f16, host_available: None };
        for (have, fits, part) in [
            (None, true, "does not report"),
            (Some(large), true, "It fits"),
            (Some(large - 1), false, "fits in f16"),
            (Some(small - 1), false, "a smaller model"),
        ] {
            planned.host_available = have;
            let (got, text) = verdict(&planned);
            assert!(got == fits && text.contains(part), "{have:?}: {got} {text}");
        }
    }
}
