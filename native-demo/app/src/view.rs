//! The window's layout, from top to bottom: bar, notices, trouble, picture or start page, compression and numbers; the
//! conversation is at the right. What needs more space than it has gets a scroll bar.

mod answer;
mod bar;
mod compression;
mod methods;
mod notices;
mod numbers;
mod path;
mod picture;
mod plan;
mod start;
mod talk;
mod trouble;

pub use self::path::path_id;

use eframe::egui::{CentralPanel, Panel, ScrollArea, Ui};

use crate::app::App;

/// Least width of the lower panel for two columns, in points. A slider with its words has 190.
const TWO_COLUMNS: f32 = 440.0;
/// A window of less width, in points, is divided into halves.
const NARROW: f32 = 860.0;

/// Fills the space, with a scroll bar if the content needs more.
fn scrolled(ui: &mut Ui, name: &str, show: impl FnOnce(&mut Ui)) {
    ScrollArea::vertical().id_salt(name).auto_shrink(false).show(ui, show);
}

/// Takes the height of its content, up to a share of the window's height; beyond that it has a scroll bar.
fn scrolled_up_to(ui: &mut Ui, name: &str, share: f32, show: impl FnOnce(&mut Ui)) {
    let height = share * ui.ctx().content_rect().height();
    // A panel has the height of its content, so the space that it has now is no limit.
    let area = ScrollArea::vertical().id_salt(name).max_height(height).min_scrolled_height(height);
    area.auto_shrink([false, true]).show(ui, show);
}

impl App {
    /// The whole window.
    pub fn show(&mut self, ui: &mut Ui) {
        Panel::top("bar").show(ui, |ui| self.bar(ui));
        if !self.session.notices.is_empty() {
            Panel::top("notices").show(ui, |ui| self.notices(ui));
        }
        // egui remembers a panel's last size. The narrow panel is a separate one, so that the wide one gets its size back.
        let width = ui.available_width();
        let talk = if width < NARROW {
            Panel::right("narrow talk").exact_size(0.5 * width).resizable(false)
        } else {
            Panel::right("talk").default_size(390.0).min_size(300.0).max_size(width - 300.0)
        };
        talk.show(ui, |ui| self.talk(ui));
        if self.session.picture.is_some() {
            Panel::bottom("looked").exact_size(186.0).show(ui, |ui| {
                if ui.available_width() < TWO_COLUMNS {
                    scrolled(ui, "narrow", |ui| {
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
            if self.session.picture.is_some() {
                self.picture(ui);
            } else {
                scrolled(ui, "start", |ui| self.start(ui));
            }
        });
        self.plan(ui.ctx());
        self.path_field(ui.ctx());
    }
}
