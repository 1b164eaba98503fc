//! The memory plan of a model before it is loaded: what it needs, and whether it fits.

use eframe::egui::{Context, Grid, Id, Modal, RichText};
use fovea_model::{Plan, Precision, Stored};
use fovea_overlay::words;

use crate::{app::App, engine::Planned};

/// What can be offered instead of f32: all of [`Stored::ALL`] after it.
const SMALLER: [Precision; 3] = [Precision::F16, Precision::Q8, Precision::Q4];

impl App {
    pub(super) fn plan(&mut self, ctx: &Context) {
        let Some(planned) = &self.session.plan else { return };
        let (mut load, mut cancel) = (None, false);
        let (smaller, verdict) = verdict(planned);
        let modal = Modal::new(Id::unique("plan")).show(ctx, |ui| {
            ui.set_width(600.0);
            ui.heading(planned.model.to_string());
            ui.add_space(6.0);
            Grid::new("plan").num_columns(5).spacing([20.0, 4.0]).show(ui, |ui| {
                ui.label("Weights in");
                for stored in Stored::ALL {
                    ui.monospace(stored.name());
                }
                ui.end_row();
                let mut row = |what: &str, of: &dyn Fn(&Plan) -> u64| {
                    ui.label(what);
                    for plan in &planned.plans {
                        ui.monospace(words::bytes(of(plan)));
                    }
                    ui.end_row();
                };
                row("Weights", &|plan| plan.weight_bytes);
                row("Vision tower activations", &|plan| plan.vision_activations);
                row("KV cache, all tokens", &|plan| plan.full.kv_cache);
                row("KV cache, both samplers", &|plan| plan.compressed.kv_cache);
                row("Peak on a GPU", &Plan::peak_bytes);
                row("Peak on the CPU", &|plan| plan.cpu_peak);
            });
            ui.add_space(8.0);
            let color = if fits(planned, 0) { ui.visuals().text_color() } else { ui.visuals().error_fg_color };
            ui.label(RichText::new(verdict).color(color));
            ui.add_space(10.0);
            ui.horizontal(|ui| {
                if ui.button("Load").clicked() {
                    load = Some(self.precision);
                }
                if ui.button(format!("Load in {}", smaller.name())).clicked() {
                    load = Some(smaller);
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

/// Whether a plan, by its index, fits into the available host memory. wgpu does not report a GPU's free memory.
fn fits(planned: &Planned, index: usize) -> bool {
    planned.host_available.is_none_or(|have| {
        let plan = &planned.plans[index];
        // Some GPUs share the memory of the host.
        plan.cpu_peak.max(plan.peak_bytes()) <= have
    })
}

/// What to offer instead of f32: the most exact that fits, else the smallest. And a sentence about the available host memory.
fn verdict(planned: &Planned) -> (Precision, String) {
    // Codes of 4 bits in the file stay so in q8.
    let same = |index: usize| planned.plans.get(index + 1) == Some(&planned.plans[index]);
    let mut smaller = (1..).zip(SMALLER).filter(|&(index, _)| !same(index));
    let fitting = smaller.find(|&(index, _)| fits(planned, index)).map(|(_, precision)| precision);
    let offered = fitting.unwrap_or(Precision::Q4);
    let Some(have) = planned.host_available else {
        return (offered, "This system does not report its free memory.".into());
    };
    let free = words::bytes(have);
    let sentence = match fitting {
        _ if fits(planned, 0) => {
            format!("It fits: this machine has {free} of free memory. The free memory of a GPU is unknown.")
        }
        Some(smaller) => {
            format!("Too large in f32: this machine has {free} of free memory. It fits in {}.", smaller.name())
        }
        None => format!(
            "Too large: this machine has {free} of free memory. Use a smaller model or a machine with more memory."
        ),
    };
    (offered, sentence)
}

#[cfg(test)]
mod tests {
    use fovea_model::{Checkpoint, demo};

    use super::*;
    use crate::engine::ModelAt;

    #[test]
    fn a_verdict_offers_the_most_exact_that_fits() {
        let checkpoint = pollster::block_on(Checkpoint::open(demo::source())).expect("the demo");
        let plans = Stored::ALL.map(|stored| Plan::new(&checkpoint, None, stored));
        let [f32, f16, q8, q4] = plans.each_ref().map(|plan| plan.cpu_peak.max(plan.peak_bytes()));
        let mut planned = Planned { model: ModelAt::Demo, plans, host_available: None };
        for (have, offered, part) in [
            (None, Precision::F16, "does not report"),
            (Some(f32), Precision::F16, "It fits"),
            (Some(f32 - 1), Precision::F16, "fits in f16"),
            (Some(f16 - 1), Precision::Q8, "fits in q8"),
            (Some(q8 - 1), Precision::Q4, "fits in q4"),
            (Some(q4 - 1), Precision::Q4, "a smaller model"),
        ] {
            planned.host_available = have;
            let (got, text) = verdict(&planned);
            assert!(got == offered && text.contains(part), "{have:?}: {got:?} {text}");
        }
        // A file with codes of 4 bits has them in q8 too.
        planned.plans[2] = planned.plans[3].clone();
        planned.host_available = Some(f16 - 1);
        let (got, text) = verdict(&planned);
        assert!(got == Precision::Q4 && text.contains("fits in q4"), "{got:?} {text}");
    }
}
