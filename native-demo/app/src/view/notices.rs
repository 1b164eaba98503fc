//! Notifications, each with advice and a button to dismiss it.

use eframe::egui::{RichText, Ui};

use crate::{app::App, session::Notice};

impl App {
    pub(super) fn notices(&mut self, ui: &mut Ui) {
        ui.add_space(4.0);
        let (mut dismissed, mut report) = (None, false);
        for (i, notice) in self.session.notices.iter().enumerate() {
            ui.horizontal_wrapped(|ui| {
                match notice {
                    Notice::Message(text) => {
                        ui.label(text);
                    }
                    Notice::Problem(problem) => {
                        ui.label(RichText::new(&problem.what).color(ui.visuals().error_fg_color));
                        ui.label(problem.then);
                        report |= ui.button("Copy report").clicked();
                    }
                }
                if ui.button("Dismiss").clicked() {
                    dismissed = Some(i);
                }
            });
        }
        if let Some(i) = dismissed {
            self.session.notices.remove(i);
        }
        if report {
            self.copy_report(ui.ctx());
        }
        ui.add_space(2.0);
    }
}
