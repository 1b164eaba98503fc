//! The conversation: questions and answers, and the field for the next question.

use eframe::egui::{
    Button, CentralPanel, Color32, Event, EventFilter, Frame, Image, Key, KeyboardShortcut, Margin, Modifiers, Panel,
    Popup, PopupCloseBehavior, RichText, ScrollArea, Stroke, TextEdit, Ui, vec2,
};
use fovea_model::Stage;
use fovea_overlay::words;

use super::{
    compression::{sliders, spelling},
    methods::{self, in_words},
    scrolled_up_to,
};
use crate::{
    app::{App, Choice},
    engine::RunId,
    session::{Exchange, Run, RunState},
};

/// A click in the list of questions and answers.
enum Act {
    Select(RunId),
    Copy(RunId),
    Edit(usize),
    Regenerate,
    Compare(usize),
}

/// Points by which questions are indented at the left and answers at the right.
const INDENT: i8 = 32;
/// Greatest size of the picture above an answer that is compared, in points.
const PICTURE: [f32; 2] = [320.0, 240.0];
/// A new line in a question. Enter alone asks.
const NEW_LINE: KeyboardShortcut = KeyboardShortcut::new(Modifiers::SHIFT, Key::Enter);

impl App {
    pub(super) fn talk(&mut self, ui: &mut Ui) {
        Panel::bottom("question").show(ui, |ui| {
            ui.add_space(6.0);
            self.answer_settings(ui);
            self.field(ui);
            ui.add_space(6.0);
        });
        CentralPanel::default().show(ui, |ui| {
            ScrollArea::vertical().auto_shrink(false).stick_to_bottom(true).show(ui, |ui| self.turns(ui));
        });
    }

    /// The field: Enter asks, Shift+Enter begins a new line, Escape stops, the vertical arrow keys bring questions back.
    fn field(&mut self, ui: &mut Ui) {
        if self.edited.is_some() {
            ui.horizontal_wrapped(|ui| {
                ui.label("Ask replaces the earlier question and everything after it.");
                if ui.small_button("Cancel edit").clicked() {
                    self.put_question(ui.ctx(), String::new(), None);
                }
            });
        }
        if self.queued {
            ui.label(RichText::new("The question is asked when the model is loaded.").weak());
        }
        let hint = match () {
            () if self.session.picture.is_none() => "Open a picture first",
            () if self.session.about().is_none() => "Waiting for the model",
            () if self.session.turns.is_empty() => "Ask about the picture",
            () => "Ask the next question",
        };
        let id = Self::question_id();
        if ui.memory(|memory| memory.has_focus(id)) {
            for (key, older) in [(Key::ArrowUp, true), (Key::ArrowDown, false)] {
                // The keys move the cursor, unless the field is empty or has a question that was brought back.
                let recalls = self.question.is_empty() || self.recalls();
                if recalls && ui.input_mut(|input| input.consume_key(Modifiers::NONE, key)) {
                    self.recall(ui.ctx(), older);
                }
            }
        }
        let label = ui.label("Question");
        // Without the filter egui takes the focus from the field at the start of a frame that has an Escape; in a slow
        // frame, the text and the Enter before that Escape would be lost too.
        let keys = EventFilter { horizontal_arrows: true, vertical_arrows: true, escape: true, tab: false };
        let to_question = std::mem::take(&mut self.to_question);
        let had_focus = ui.memory(|memory| memory.has_focus(id));
        let mut entered = false;
        scrolled_up_to(ui, "question", 0.2, |ui| {
            let edit = TextEdit::multiline(&mut self.question).id(id).hint_text(hint).desired_rows(2);
            let edit = edit.event_filter(keys).return_key(NEW_LINE).desired_width(f32::INFINITY);
            let field = ui.add(edit).labelled_by(label.id);
            if to_question {
                field.request_focus();
            }
            if field.changed() {
                self.queued = false;
            }
            // An Escape in the same frame has already taken the focus.
            let focused = had_focus || field.has_focus();
            entered = focused && ui.input(|input| input.events.iter().any(is_enter));
        });
        let mut asked = false;
        ui.horizontal_wrapped(|ui| {
            let can = self.session.can_ask() && !self.question.trim().is_empty();
            asked = ui.add_enabled_ui(can, |ui| ui.button("Ask")).inner.clicked();
            ui.add_enabled_ui(self.session.busy.is_some(), |ui| {
                if ui.button("Stop").clicked() {
                    self.stop();
                }
            });
            let begin = ui.add_enabled(!self.session.turns.is_empty(), Button::new("Begin again"));
            if begin.on_hover_text("A new conversation about the same picture").clicked() {
                self.begin_again();
            }
        });
        if asked || entered {
            self.ask();
            self.to_question = true;
        }
    }

    fn turns(&mut self, ui: &mut Ui) {
        let (mut act, mut other) = (None, self.other.clone());
        if self.session.turns.is_empty() {
            self.new_conversation(ui);
        }
        for (i, turn) in self.session.turns.iter().enumerate() {
            ui.add_space(4.0);
            self.question_bubble(ui, i, turn, &mut act);
            ui.add_space(4.0);
            let [first, second] = [false, true].map(|other| RunId { turn: i, other });
            match &turn.other {
                None => self.answer(ui, first, &turn.answer, &mut act, &mut other),
                Some(run) => ui.columns(2, |columns| {
                    self.answer(&mut columns[0], first, &turn.answer, &mut act, &mut other);
                    self.answer(&mut columns[1], second, run, &mut act, &mut other);
                }),
            }
        }
        self.other = other;
        match act {
            Some(Act::Select(run)) => {
                self.session.selected = Some(run);
                self.canvas.token = None;
            }
            Some(Act::Copy(run)) => {
                self.session.selected = Some(run);
                self.copy_answer(ui.ctx());
            }
            Some(Act::Edit(turn)) => {
                let question = self.session.turns[turn].question.clone();
                self.put_question(ui.ctx(), question, Some(turn));
            }
            Some(Act::Regenerate) => self.regenerate(),
            Some(Act::Compare(turn)) => self.compare(turn),
            None => {}
        }
    }

    /// What the place of the conversation shows before the first question.
    fn new_conversation(&self, ui: &mut Ui) {
        let Some(shown) = &self.session.picture else { return };
        let how = if self.settings.answer.remember {
            "Each question is asked with the earlier questions and answers."
        } else {
            "Each question is asked alone."
        };
        let text = format!("New conversation about {}. {how} Another picture begins a new conversation.", shown.name);
        ui.label(RichText::new(text).weak());
    }

    fn question_bubble(&self, ui: &mut Ui, index: usize, turn: &Exchange, act: &mut Option<Act>) {
        let frame =
            Frame::group(ui.style()).stroke(Stroke::NONE).fill(ui.visuals().selection.bg_fill.gamma_multiply(0.4));
        frame.outer_margin(Margin { left: INDENT, ..Margin::ZERO }).show(ui, |ui| {
            ui.set_width(ui.available_width());
            ui.label(&turn.question);
            let edit = ui.small_button("Edit").on_hover_text("Ask replaces this question and everything after it");
            if edit.clicked() {
                *act = Some(Act::Edit(index));
            }
        });
    }

    /// One answer. If it is compared, its picture is above it. `other`: the compression to compare it with.
    fn answer(&self, ui: &mut Ui, id: RunId, run: &Run, act: &mut Option<Act>, other: &mut Choice) {
        let compared = self.session.turns[id.turn].other.is_some();
        let selected = self.session.selected == Some(id);
        let line = if selected { ui.visuals().selection.stroke.color } else { Color32::TRANSPARENT };
        let frame = Frame::group(ui.style()).stroke(Stroke::new(1.5, line)).fill(ui.visuals().faint_bg_color);
        let right = if compared { 0 } else { INDENT };
        frame.outer_margin(Margin { right, ..Margin::ZERO }).show(ui, |ui| {
            ui.set_width(ui.available_width());
            if compared {
                let with = in_words(&run.compression);
                ui.label(RichText::new(format!("With {with}")).weak());
                self.small_picture(ui, run, &with);
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
                RunState::Done if run.text.trim().is_empty() => {
                    ui.label(RichText::new("The model gave an empty answer.").weak());
                }
                _ => {
                    ui.label(RichText::new(run.text.trim()).size(16.0));
                }
            }
            if run.state == RunState::Stopped {
                ui.label(RichText::new("Stopped.").weak());
            }
            if let Some(tokens) = run.cut_at {
                let text = format!("Cut after {tokens} tokens. Length under Answer allows more.");
                ui.label(RichText::new(text).weak());
            }
            if let Some(s) = &run.statistics {
                let (t, first) = (s.tokens, words::duration(s.first_token_ms));
                let text = format!(
                    "{} -> {} visual tokens, {} of the work, first token after {first}",
                    t.all,
                    t.kept,
                    words::percent(s.equivalent_share)
                );
                ui.label(RichText::new(text).weak());
            }
            ui.horizontal_wrapped(|ui| self.answer_buttons(ui, id, run, act, other));
        });
    }

    /// The picture with the overlay of a compared answer.
    fn small_picture(&self, ui: &mut Ui, run: &Run, with: &str) {
        let (Some(shown), Some(looked), true) = (&self.session.picture, &run.looked, self.overlay) else { return };
        if let Some(texture) = self.canvas.small(looked) {
            let most = vec2(ui.available_width().min(PICTURE[0]), PICTURE[1]);
            let image = Image::new(texture).fit_to_exact_size(most);
            ui.add(image.alt_text(format!("Attention overlay of {} with {with}", shown.name)));
        }
    }

    fn answer_buttons(&self, ui: &mut Ui, id: RunId, run: &Run, act: &mut Option<Act>, other: &mut Choice) {
        let can_ask = self.session.can_ask();
        if ui.small_button("Copy").clicked() {
            *act = Some(Act::Copy(id));
        }
        let is_last = id.turn + 1 == self.session.turns.len() && !id.other;
        if is_last && run.state != RunState::Running {
            let again = ui.add_enabled(can_ask, Button::new("Regenerate").small());
            let what = "Asks again with the current settings. Above temperature 0 it uses the next seed.";
            if again.on_hover_text(what).clicked() {
                *act = Some(Act::Regenerate);
            }
        }
        if !id.other && run.state == RunState::Done {
            let button = ui.add_enabled(can_ask, Button::new("Compare with...").small());
            let popup = Popup::from_toggle_button_response(&button);
            popup.close_behavior(PopupCloseBehavior::CloseOnClickOutside).show(|ui| {
                if self.others(ui, other) {
                    *act = Some(Act::Compare(id.turn));
                    ui.close();
                }
            });
        }
        if self.session.selected != Some(id) && run.looked.is_some() && ui.small_button("Show").clicked() {
            *act = Some(Act::Select(id));
        }
    }

    /// Chooses the compression that an answer is compared with. Returns whether to compare.
    fn others(&self, ui: &mut Ui, other: &mut Choice) -> bool {
        let Some(about) = self.session.about() else { return false };
        ui.set_width(260.0);
        let list = ScrollArea::vertical().max_height(180.0).auto_shrink([false, true]);
        if let Some(spec) = list.show(ui, |ui| methods::list(ui, about, &other.compression)).inner {
            other.choose(spec, about);
        }
        ui.separator();
        sliders(ui, other, about);
        spelling(ui, "Other compression as text", other, Some(about));
        let compare = Button::new(format!("Compare with {}", in_words(&other.compression)));
        ui.add_enabled(self.session.can_ask(), compare).clicked()
    }
}

/// Whether an event asks the question: Enter without Shift.
fn is_enter(event: &Event) -> bool {
    matches!(event, Event::Key { key: Key::Enter, pressed: true, modifiers, .. } if !modifiers.shift)
}
