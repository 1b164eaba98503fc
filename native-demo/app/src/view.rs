//! The window's layout, from top to bottom: bar, notices, trouble, picture or start page, compression and numbers; the
//! conversation is at the right.

mod bar;
mod compression;
mod methods;
mod notices;
mod numbers;
mod picture;
mod plan;
mod start;
mod talk;
mod trouble;

use eframe::egui::{CentralPanel, Panel, ScrollArea, Ui};

use crate::app::App;

/// Least width of the lower panel for two columns, in points. A slider with its words has 190.
const TWO_COLUMNS: f32 = 440.0;

fn scrolled(ui: &mut Ui, name: &str, show: impl FnOnce(&mut Ui)) {
    ScrollArea::vertical().id_salt(name).auto_shrink(false).show(ui, show);
}

impl App {
    /// The whole window.
    pub fn show(&mut self, ui: &mut Ui) {
        Panel::top("bar").show(ui, |ui| self.bar(ui));
        if !self.session.notices.is_empty() {
            Panel::top("notices").show(ui, |ui| self.notices(ui));
        }
        Panel::right("talk").default_size(390.0).min_size(300.0).show(ui, |ui| self.talk(ui));
        if self.session.picture.is_some() {
            Panel::bottom("looked").exact_size(186.0).show(ui, |ui| {
                if ui.available_width() < TWO_COLUMNS {
                    ScrollArea::vertical().id_salt("narrow").auto_shrink(false).show(ui, |ui| {
                        self.compression(ui);
                        self.numbers(ui);
                    });
                    return;
                }
                ui.columns(2, |columns| {
                    scrolled(&mut columns[0], "compression", |ui| self.compression(ui));
                    scrolled(&mut columns[1], "numbers", |ui| self.numbers(ui));
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
