//! The methods of compression for the user: a compression in words, and the list of the methods that fit a model.

use eframe::egui::{RichText, Ui};
use fovea_model::{Compression, METHODS, MethodRow, Place};

use crate::engine::About;

/// The row of the list that has no row in [`METHODS`]: name, title and what it does.
const NONE: (&str, &str, &str) = ("none", "All tokens", "Every visual token passes every layer");
/// The same for both samplers of FocusLLaVA.
const FOCUS: (&str, &str, &str) = (
    "focus",
    "FocusLLaVA",
    "Both samplers: few tokens where the picture has no detail or the question does not need it",
);

/// The titles of a compression's methods.
pub fn titles(compression: &Compression) -> String {
    parts(compression, |title, _| title.to_owned())
}

/// A compression in words, with the settings that differ from the defaults, such as `FastV (layer=3)`.
pub fn in_words(compression: &Compression) -> String {
    if compression.is_none() {
        return "all tokens".to_owned();
    }
    parts(compression, |title, settings| {
        if settings.is_empty() { title.to_owned() } else { format!("{title} ({})", settings.replace(',', ", ")) }
    })
}

fn parts(compression: &Compression, words: impl Fn(&str, &str) -> String) -> String {
    let part = |spec: &str| {
        let (name, settings) = spec.split_once(':').unwrap_or((spec, ""));
        let of_both = [NONE, FOCUS].into_iter().find(|row| row.0 == name).map(|row| row.1);
        let title = of_both.or_else(|| METHODS.iter().find(|row| row.name == name).map(|row| row.title));
        words(title.unwrap_or(name), settings)
    };
    compression.to_string().split('+').map(part).collect::<Vec<_>>().join(" + ")
}

/// The methods that fit a model, in groups. Returns the spelling of the one that was clicked.
pub fn list(ui: &mut Ui, about: &About, current: &Compression) -> Option<&'static str> {
    let current = current.to_string();
    let mut clicked = None;
    let mut row = |ui: &mut Ui, (name, title, about): (&'static str, &str, &str), source: &str| {
        let is_current = current.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'));
        let what = if source.is_empty() { about.to_owned() } else { format!("{about} ({source})") };
        if ui.selectable_label(is_current && !current.contains('+'), title).on_hover_text(what).clicked() {
            clicked = Some(name);
        }
    };
    let rows = Compression::fitting(about.fits());
    let group = |row: &MethodRow| match (row.name, row.place) {
        ("vision" | "text", _) => 0,
        (_, Place::Before) => 1,
        (_, Place::Within) => 2,
    };
    let headings = ["Samplers of FocusLLaVA", "Before the text model", "Inside the text model"];
    for (index, heading) in headings.into_iter().enumerate() {
        let mut own = rows.iter().filter(|row| group(row) == index).peekable();
        if own.peek().is_some() {
            ui.label(RichText::new(heading).weak());
        }
        if index == 0 && about.selector {
            row(ui, FOCUS, "");
        }
        for method in own {
            row(ui, (method.name, method.title, method.about), method.source);
        }
    }
    ui.separator();
    row(ui, NONE, "");
    clicked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compression_in_words() {
        for (spec, named, words) in [
            ("none", "All tokens", "all tokens"),
            ("vision+text", "FocusLLaVA", "FocusLLaVA"),
            ("fastv", "FastV", "FastV"),
            ("fastv:keep=.25,layer=3", "FastV", "FastV (layer=3, keep=0.25)"),
            ("div-prune+fastv:layer=3", "DivPrune + FastV", "DivPrune + FastV (layer=3)"),
        ] {
            let compression = spec.parse().expect(spec);
            assert_eq!((titles(&compression).as_str(), in_words(&compression).as_str()), (named, words), "{spec}");
        }
    }
}
