//! The numbers of the selected answer: tokens, share of work, time per stage, speed, planned and used memory.

use eframe::egui::{RichText, Ui};
use fovea_overlay::words;

use super::methods::in_words;
use crate::{app::App, session::Run};

impl App {
    pub(super) fn numbers(&mut self, ui: &mut Ui) {
        ui.add_space(4.0);
        let run = self.session.selected.and_then(|id| self.session.run(id));
        let Some(run) = run else {
            let text =
                if self.session.preparing { "Encoding the picture..." } else { "Ask a question to see numbers." };
            ui.label(RichText::new(text).weak());
            return;
        };
        let mut rows = vec![("Compression", in_words(&run.compression))];
        self.tokens(run, &mut rows);
        times(run, &mut rows);
        self.memory(run, &mut rows);
        for (what, value) in rows {
            ui.horizontal_wrapped(|ui| {
                ui.label(RichText::new(what).weak());
                ui.label(value);
            });
        }
    }

    fn tokens(&self, run: &Run, rows: &mut Vec<(&'static str, String)>) {
        if let Some(s) = &run.statistics {
            let t = s.tokens;
            let share = 100.0 * s.equivalent_share;
            rows.push((
                "Visual tokens",
                format!("{} -> {} -> {}, {share:.1} % of the work", t.all, t.compressed, t.kept),
            ));
        }
        if let Some(reused) = run.statistics.as_ref().map(|s| s.cached_tokens).filter(|&reused| reused > 0) {
            rows.push(("Reused", format!("{reused} tokens of the prompt, from earlier questions")));
        }
        // The selection at the sliders' positions, if they were moved after the answer.
        if let (Some(shown), Some(s)) = (&self.canvas.looked, &run.statistics)
            && shown.kept.len() != s.tokens.kept
        {
            rows.push(("Shown now", format!("{} of {} kept", shown.kept.len(), shown.token_count())));
        }
    }

    fn memory(&self, run: &Run, rows: &mut Vec<(&'static str, String)>) {
        if let Some(about) = self.session.about() {
            rows.push(("Planned memory", format!("at most {}", words::bytes(about.planned))));
        }
        let Some(s) = &run.statistics else { return };
        let mut used = format!("weights {}, KV {}", words::bytes(s.memory.weights), words::bytes(s.memory.kv_cache));
        if let Some(bytes) = run.device_memory {
            used += &format!(", device {}", words::bytes(bytes));
        }
        if let Some(peak) = s.memory.host_peak {
            used += &format!(", host peak {}", words::bytes(peak));
        }
        rows.push(("Used memory", used));
    }
}

fn times(run: &Run, rows: &mut Vec<(&'static str, String)>) {
    if let Some(s) = &run.statistics {
        let speed = s.tokens_per_second.map_or_else(String::new, |speed| format!(", then {speed:.1} tokens/s"));
        rows.push(("First token", format!("{}{speed}", words::duration(s.first_token_ms))));
    }
    let stages: Vec<String> = run
        .stages
        .iter()
        .map(|(stage, ms)| format!("{} {}", stage.name().replace('_', " "), words::duration(*ms)))
        .collect();
    if !stages.is_empty() {
        rows.push(("Time per stage", stages.join(", ")));
    }
}
