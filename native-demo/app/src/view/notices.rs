//! Notifications, each with advice and a button to dismiss it.

use eframe::egui::{RichText, Ui};

use super::scrolled_up_to;
use crate::{app::App, session::Notice};

impl App {
    pub(super) fn notices(&mut self, ui: &mut Ui) {
        ui.add_space(4.0);
        let (mut dismissed, mut report) = (None, false);
        let one = |ui: &mut Ui, notice: &Notice, report: &mut bool| {
            match notice {
                Notice::Message(_, text) => {
                    ui.label(text);
                }
                Notice::Problem(_, problem) => {
                    ui.label(RichText::new(&problem.what).color(ui.visuals().error_fg_color));
                    ui.label(problem.then);
                    *report |= ui.button("Copy report").clicked();
                }
            }
            ui.button("Dismiss").clicked()
        };
        scrolled_up_to(ui, "notices", 0.2, |ui| {
            for (i, notice) in self.session.notices.iter().enumerate() {
                if ui.horizontal_wrapped(|ui| one(ui, notice, &mut report)).inner {
                    dismissed = Some(i);
                }
            }
        });
        if let Some(i) = dismissed {
            self.session.notices.remove(i);
        }
        if report {
            self.copy_report(ui.ctx());
        }
        ui.add_space(2.0);
    }
}
