//! Words to the user, each with what to do and a way to be rid of it.

use eframe::egui::{RichText, Ui};

use crate::{app::App, session::Notice};

impl App {
    pub(super) fn notices(&mut self, ui: &mut Ui) {
        ui.add_space(4.0);
        let (mut gone, mut report) = (None, false);
        for (i, notice) in self.session.notices.iter().enumerate() {
            ui.horizontal_wrapped(|ui| {
                match notice {
                    Notice::Word(text) => {
                        ui.label(text);
                    }
                    Notice::Problem(problem) => {
                        ui.label(RichText::new(&problem.what).color(ui.visuals().error_fg_color));
                        ui.label(problem.then);
                        report |= ui.button("Copy a report").clicked();
                    }
                }
                if ui.button("Dismiss").clicked() {
                    gone = Some(i);
                }
            });
        }
        if let Some(i) = gone {
            self.session.notices.remove(i);
        }
        if report {
            self.copy_report(ui.ctx());
        }
        ui.add_space(2.0);
    }
}
