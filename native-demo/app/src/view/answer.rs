//! The settings of an answer: what is remembered, the system prompt, and how tokens are chosen.

use eframe::egui::{CollapsingHeader, DragValue, Grid, Id, Response, TextEdit, Ui};

use super::scrolled_up_to;
use crate::app::App;

impl App {
    /// A section that is closed at the start. A finished change is written to the settings file.
    pub(super) fn answer_settings(&mut self, ui: &mut Ui) {
        let section = CollapsingHeader::new("Answer").show(ui, |ui| {
            let mut is_changed = false;
            scrolled_up_to(ui, "answer", 0.25, |ui| is_changed = self.answer_fields(ui));
            is_changed
        });
        if section.body_returned == Some(true) {
            self.remember();
        }
    }

    /// Returns whether a change is finished.
    fn answer_fields(&mut self, ui: &mut Ui) -> bool {
        let answer = &mut self.settings.answer;
        let remember = ui.checkbox(&mut answer.remember, "Remember the conversation");
        let what = "Each question is asked with the earlier questions and answers. Off: each question is asked alone.";
        let mut is_changed = remember.on_hover_text(what).changed();

        let label = ui.label("System prompt");
        // A fixed id keeps the keyboard focus when a notification appears.
        let system = TextEdit::multiline(&mut answer.system).id(Id::unique("typed system prompt")).hint_text("None");
        let system = ui.add(system.desired_rows(2).desired_width(f32::INFINITY)).labelled_by(label.id);
        is_changed |=
            is_finished(&system.on_hover_text("Instructions before the conversation. Not every model has them."));

        let mut number = |ui: &mut Ui, name: &str, what: &str, value: DragValue<'_>| {
            let label = ui.label(name);
            is_changed |= is_finished(&ui.add(value).labelled_by(label.id).on_hover_text(what));
        };
        Grid::new("answer").num_columns(4).show(ui, |ui| {
            let value = DragValue::new(&mut answer.temperature).range(0.0..=2.0).speed(0.01).max_decimals(2);
            number(ui, "Temperature", "0: the most likely token. Higher: more random.", value);
            let value = DragValue::new(&mut answer.top_p).range(0.01..=1.0).speed(0.01).max_decimals(2);
            let what = "Only the most likely tokens with this total probability. No effect at temperature 0.";
            number(ui, "Top-p", what, value);
            ui.end_row();
            let what = "The same seed gives the same answer. No effect at temperature 0.";
            number(ui, "Seed", what, DragValue::new(&mut answer.seed));
            let value = DragValue::new(&mut answer.max_new_tokens).range(1..=1 << 15);
            number(ui, "Length", "Largest number of tokens of an answer.", value);
            ui.end_row();
        });
        is_changed
    }
}

/// Whether the user has finished a change: by a drag, by leaving the field, or by an assistive technology.
fn is_finished(field: &Response) -> bool {
    field.drag_stopped() || field.lost_focus() || (field.changed() && !field.dragged() && !field.has_focus())
}
