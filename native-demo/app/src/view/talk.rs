//! The conversation: questions, answers, and the field for the next question.

use eframe::egui::{
    Button, CentralPanel, Color32, EventFilter, Frame, Id, Key, Panel, RichText, ScrollArea, Stroke, TextEdit,
    TextWrapMode, Ui, containers::menu::MenuButton,
};
use fovea_model::Stage;
use fovea_overlay::words;

use super::methods::{self, in_words};
use crate::{
    app::App,
    engine::RunId,
    session::{Run, RunState},
};

/// A click in the list of answers.
enum Act {
    Select(RunId),
    Copy(RunId),
    Compare(usize),
    /// Compare with this compression from now on.
    Other(String),
}

impl App {
    pub(super) fn talk(&mut self, ui: &mut Ui) {
        Panel::bottom("question").show(ui, |ui| self.field(ui));
        CentralPanel::default().show(ui, |ui| {
            ScrollArea::vertical().auto_shrink(false).stick_to_bottom(true).show(ui, |ui| self.turns(ui));
        });
    }

    /// The field: Enter asks, Escape stops.
    fn field(&mut self, ui: &mut Ui) {
        ui.add_space(6.0);
        let hint = match () {
            () if self.session.picture.is_none() => "Open a picture first",
            () if self.session.about().is_none() => "Waiting for the model",
            () => "Ask about the picture",
        };
        let label = ui.label("Question");
        // A fixed id keeps the keyboard focus when a notification appears above; an automatic id changes with the
        // position. Without the filter egui takes the focus from the field at the start of a frame that has an Escape;
        // in a slow frame, the text and the Enter before that Escape would be lost too.
        let keys = EventFilter { horizontal_arrows: true, vertical_arrows: true, escape: true, tab: false };
        let edit = TextEdit::singleline(&mut self.question).id(Id::unique("typed question")).hint_text(hint);
        let edit = edit.event_filter(keys).desired_width(f32::INFINITY);
        let field = ui.add(edit).labelled_by(label.id);
        if std::mem::take(&mut self.to_question) {
            field.request_focus();
        }
        let entered = field.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
        let mut asked = false;
        ui.horizontal(|ui| {
            let can = self.session.can_ask() && !self.question.trim().is_empty();
            asked = ui.add_enabled_ui(can, |ui| ui.button("Ask")).inner.clicked();
            ui.add_enabled_ui(self.session.busy.is_some(), |ui| {
                if ui.button("Stop").clicked() {
                    self.stop();
                }
            });
        });
        if asked || entered {
            self.ask();
            self.to_question = true;
        }
        ui.add_space(6.0);
    }

    fn turns(&mut self, ui: &mut Ui) {
        let mut act = None;
        for (i, turn) in self.session.turns.iter().enumerate() {
            ui.add_space(4.0);
            ui.label(&turn.question);
            let [own, other] = [false, true].map(|other| RunId { turn: i, other });
            match &turn.other {
                None => self.answer(ui, own, &turn.answer, false, &mut act),
                Some(run) => ui.columns(2, |columns| {
                    self.answer(&mut columns[0], own, &turn.answer, true, &mut act);
                    self.answer(&mut columns[1], other, run, true, &mut act);
                }),
            }
        }
        match act {
            Some(Act::Select(run)) => {
                self.session.selected = Some(run);
                self.canvas.token = None;
            }
            Some(Act::Copy(run)) => {
                self.session.selected = Some(run);
                self.copy_answer(ui.ctx());
            }
            Some(Act::Compare(turn)) => self.compare(turn),
            Some(Act::Other(spec)) => self.other = spec.parse().unwrap_or_default(),
            None => {}
        }
    }

    /// One answer. `compared`: it is beside another one.
    fn answer(&self, ui: &mut Ui, id: RunId, run: &Run, compared: bool, act: &mut Option<Act>) {
        let selected = self.session.selected == Some(id);
        let line = if selected { ui.visuals().selection.stroke.color } else { Color32::TRANSPARENT };
        let frame = Frame::group(ui.style()).stroke(Stroke::new(1.5, line)).fill(ui.visuals().faint_bg_color);
        frame.show(ui, |ui| {
            ui.set_width(ui.available_width());
            if compared {
                ui.label(RichText::new(format!("With {}", in_words(&run.compression))).weak());
            }
            match &run.state {
                RunState::Running if run.text.is_empty() => {
                    let name = |stage: Stage| stage.name().replace('_', " ");
                    let at = match (run.under_way, run.stages.last()) {
                        (Some(now), _) => format!("{} {} %", name(now.stage), 100 * now.done / now.total.max(1)),
                        (None, Some((stage, _))) => name(*stage),
                        (None, None) => String::new(),
                    };
                    ui.label(RichText::new(format!("... {at}")).weak());
                }
                RunState::Failed(problem) => {
                    ui.label(RichText::new(&problem.what).color(ui.visuals().error_fg_color));
                    ui.label(problem.then);
                }
                _ => {
                    ui.label(RichText::new(run.text.trim()).size(18.0).strong());
                }
            }
            if run.state == RunState::Stopped {
                ui.label(RichText::new("Stopped.").weak());
            }
            if let Some(s) = &run.statistics {
                let (t, first) = (s.tokens, words::duration(s.first_token_ms));
                let text = format!(
                    "{} -> {} visual tokens, {:.0} % of the work, first token after {first}",
                    t.all,
                    t.kept,
                    100.0 * s.equivalent_share
                );
                ui.label(RichText::new(text).weak());
            }
            ui.horizontal_wrapped(|ui| {
                if ui.small_button("Copy").clicked() {
                    *act = Some(Act::Copy(id));
                }
                if !compared && run.state == RunState::Done {
                    let text = format!("Compare with {}", in_words(&self.other));
                    if ui.add_enabled(self.session.can_ask(), Button::new(text).small()).clicked() {
                        *act = Some(Act::Compare(id.turn));
                    }
                    MenuButton::from_button(Button::new("Compare with...").small()).ui(ui, |ui| {
                        if let Some(spec) = self.others(ui) {
                            *act = Some(Act::Other(spec));
                        }
                    });
                }
                if !selected && run.looked.is_some() && ui.small_button("Show").clicked() {
                    *act = Some(Act::Select(id));
                }
            });
        });
    }

    /// The compressions that an answer can be compared with. Returns the spelling of the one that was clicked.
    fn others(&self, ui: &mut Ui) -> Option<String> {
        let about = self.session.about()?;
        let scroll = ScrollArea::vertical().max_height(300.0);
        let listed = scroll.show(ui, |ui| {
            ui.style_mut().wrap_mode = Some(TextWrapMode::Extend);
            // The current choice, if the list does not have it because of its settings.
            let current = self.compression.to_string();
            let is_other = self.other == self.compression;
            let own =
                current.contains([':', '+']) && ui.selectable_label(is_other, in_words(&self.compression)).clicked();
            own.then_some(current).or(methods::list(ui, about, &self.other).map(str::to_owned))
        });
        if listed.inner.is_some() {
            ui.close();
        }
        listed.inner
    }
}
