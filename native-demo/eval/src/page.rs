//! Input: rows. Output: text of at most 80 columns, if names are not too long.

use std::path::Path;

use fovea_model::Model;
use fovea_terminal::text;
use serde::Serialize;

use crate::{
    modes::{Answer, Row, Score},
    samples::Sample,
    score::Compare,
};

/// The model, the questions and the device.
#[derive(Clone, Debug, Serialize)]
pub struct About {
    /// The checkpoint.
    pub model: String,
    /// The questions and their source.
    pub questions: String,
    /// The device.
    pub device: String,
    /// How the matrices are stored: `f32`, `f16`, `q8` or `q4`.
    pub dtype: String,
    /// How the KV cache is stored: `f32` or `f16`.
    pub cache: &'static str,
    /// How the matrices of the vision tower are stored: `f32`, `f16` or `q8`.
    pub tower: &'static str,
    /// How the inputs of products with many rows are stored: `f32` or `int8`.
    pub activations: &'static str,
    /// How answers are compared.
    pub compared: &'static str,
}

impl About {
    pub(crate) fn new(dir: Option<&Path>, model: &Model, samples: &[Sample], source: &str, compare: Compare) -> Self {
        let questions: usize = samples.iter().map(|s| s.asked.len()).sum();
        Self {
            model: dir.map_or("the demo checkpoint".to_owned(), |dir| dir.display().to_string()),
            questions: format!(
                "{} about {}: {source}",
                text::counted(questions, "question"),
                text::counted(samples.len(), "picture")
            ),
            device: model.device().info.to_string(),
            dtype: model.dtype_name().to_owned(),
            cache: model.cache_name(),
            tower: model.tower_name(),
            activations: model.activations_name(),
            compared: compare.sentence(),
        }
    }

    /// One line for the model, the questions and the device each.
    pub(crate) fn lines(&self) -> String {
        let Self { model, questions, device, dtype, tower, activations, .. } = self;
        let tower = if *tower == "q8" { ", tower q8" } else { "" };
        let rounded = if *activations == "int8" { ", int8 activations" } else { "" };
        [model, questions, &format!("{device}, {dtype}{tower}{rounded}")].map(|line| text::line(line) + "\n").concat()
    }
}

/// A share in per cent.
pub fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// A share with its standard error, in per cent. Where all answers are right, or all are wrong, the formula gives 0,
/// which says nothing about other questions: then the share is alone.
pub fn with_error(score: &Score) -> String {
    let right = percent(score.right);
    if score.standard_error > 0.0 { format!("{right} ± {}", percent(score.standard_error)) } else { right }
}

/// The table as text: tokens, speed and right answers, and below them the right answers by kind.
pub(crate) fn table(samples: &[Sample], rows: &[Row], notes: &[String], compare: Compare) -> String {
    let slowest = rows.first().map_or(1.0, |r| r.samples_per_s);
    // After Ctrl-C some speeds are not measured.
    let speed = |text: String, speed: f64| if speed.is_nan() { "-".to_owned() } else { text };
    let cells = |r: &Row| {
        vec![
            r.mode.clone(),
            format!("{:.0}", r.tokens[0]),
            format!("{:.0}", r.tokens[1]),
            percent(r.equivalent_share),
            speed(format!("{:.1}", r.samples_per_s), r.samples_per_s),
            speed(format!("{:.2}x", r.samples_per_s / slowest), r.samples_per_s / slowest),
            with_error(&r.all),
        ]
    };
    let header = ["compression", "tokens", "kept", "equivalent %", "samples/s", "speed", "right %"];
    let header = header.map(str::to_owned).to_vec();
    let all = columns(&header, &rows.iter().map(cells).collect::<Vec<_>>());
    let by_kind = by_kind(samples, rows, |score| percent(score.right));
    let notes: String = notes.iter().map(|note| format!("{note}\n")).collect();
    format!("{all}\n{by_kind}{notes}{}\n", compare.sentence())
}

/// The right answers by kind, each as `cell` says, in the order in which kinds first occur, and an empty line. Nothing
/// where questions have no kinds.
pub fn by_kind(samples: &[Sample], rows: &[Row], cell: fn(&Score) -> String) -> String {
    let mut kinds: Vec<String> = Vec::new();
    for asked in samples.iter().flat_map(|s| &s.asked) {
        if !kinds.contains(&asked.kind) {
            kinds.push(asked.kind.clone());
        }
    }
    if kinds.iter().all(String::is_empty) {
        return String::new();
    }
    let share = |r: &Row, kind: &String| r.kinds.get(kind).map_or("-".to_owned(), cell);
    let cells = |r: &Row| -> Vec<String> {
        [r.mode.clone()].into_iter().chain(kinds.iter().map(|kind| share(r, kind))).collect()
    };
    let header: Vec<String> = ["right %".to_owned()].into_iter().chain(kinds.iter().cloned()).collect();
    columns(&header, &rows.iter().map(cells).collect::<Vec<_>>()) + "\n"
}

/// Columns padded with spaces, the first one to the left. What does not fit into 80 characters is put below, with the first
/// column again.
pub fn columns(header: &[String], body: &[Vec<String>]) -> String {
    let lines = || std::iter::once(header).chain(body.iter().map(Vec::as_slice));
    let width = |i: usize| lines().filter_map(|row| row.get(i)).map(|c| c.chars().count()).max().unwrap_or(0);
    let mut blocks: Vec<Vec<usize>> = Vec::new();
    let mut used = text::COLUMNS;
    for i in 1..header.len() {
        if used + 2 + width(i) > text::COLUMNS {
            blocks.push(vec![0]);
            used = width(0);
        }
        used += 2 + width(i);
        blocks.last_mut().into_iter().for_each(|block| block.push(i));
    }
    let cell = |row: &[String], i: usize| match i {
        0 => format!("{:<1$}", row[0], width(0)),
        _ => format!("  {:>1$}", row[i], width(i)),
    };
    let line = |row: &[String], block: &[usize]| {
        block.iter().map(|i| cell(row, *i)).collect::<String>().trim_end().to_owned() + "\n"
    };
    let blocks: Vec<String> = blocks.iter().map(|block| lines().map(|row| line(row, block)).collect()).collect();
    blocks.join("\n")
}

/// The names of the columns, then one line per wrong answer of the last mode.
pub(crate) fn wrong(samples: &[Sample], answers: &[Vec<Answer>]) -> String {
    let wrong = answers.last().into_iter().flatten().filter(|answer| !answer.right);
    let line = |answer: &Answer| {
        let sample = &samples[answer.sample];
        let asked = &sample.asked[answer.question];
        let cells = [&sample.name, &asked.kind, &asked.question, &asked.answer, &answer.turn.text];
        cells.map(|t| text::line(t.trim())).join("\t") + "\n"
    };
    "image\tkind\tquestion\texpected\tgot\n".to_owned() + &wrong.map(line).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_answers_have_no_standard_error() {
        let of = |right, standard_error| with_error(&Score { right, standard_error, questions: 4 });
        assert_eq!([of(1.0, 0.0), of(0.0, 0.0), of(0.75, 0.25)], ["100.0", "0.0", "75.0 ± 25.0"], "(got, expected)");
    }

    #[test]
    fn columns_that_do_not_fit_are_put_below() {
        let row = |first: &str, cell: &str| [vec![first.to_owned()], vec![cell.to_owned(); 9]].concat();
        let text = columns(&row("mode", "a long name"), &[row("none", "1"), row("vision", "98.3 ± 10.4")]);
        assert!(
            text.lines().all(|line| line.chars().count() <= text::COLUMNS),
            "expected lines of 80 at most, got:\n{text}"
        );
        let firsts: Vec<&str> = text.lines().map(|line| line.split_whitespace().next().unwrap_or("")).collect();
        assert_eq!(firsts, ["mode", "none", "vision", "", "mode", "none", "vision"], "first words (got, expected)");
        assert_eq!(text.matches("a long name").count(), 9, "columns (got, expected)");
    }
}
