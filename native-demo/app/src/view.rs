//! The window's layout, from top to bottom: bar, notices, trouble, picture or start page, samplers and numbers; the
//! conversation is at the right.

mod bar;
mod notices;
mod numbers;
mod picture;
mod plan;
mod samplers;
mod start;
mod talk;
mod trouble;

use eframe::egui::{CentralPanel, Panel, Ui};

use crate::app::App;

impl App {
    /// The whole window.
    pub fn show(&mut self, ui: &mut Ui) {
        Panel::top("bar").show(ui, |ui| self.bar(ui));
        if !self.session.notices.is_empty() {
            Panel::top("notices").show(ui, |ui| self.notices(ui));
        }
        Panel::right("talk").default_size(390.0).min_size(300.0).show(ui, |ui| self.talk(ui));
        if self.session.picture.is_some() {
            Panel::bottom("looked").exact_size(150.0).show(ui, |ui| {
                ui.columns(2, |columns| {
                    self.samplers(&mut columns[0]);
                    self.numbers(&mut columns[1]);
                });
            });
        }
        CentralPanel::default().show(ui, |ui| {
            self.trouble(ui);
            if self.session.picture.is_some() { self.picture(ui) } else { self.start(ui) }
        });
        self.plan(ui.ctx());
    }
}
