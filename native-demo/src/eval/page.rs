//! Enters: rows. Leaves: a page of text, and the table as a picture.

use fovea_model::Model;
use fovea_scenes::Kind;
use serde::Serialize;

use super::{
    modes::{Answer, Row},
    samples::Sample,
    score::Compare,
};
use crate::{
    args::EvalArgs,
    chart::{self, Chart},
    failure::Failure,
    text,
};

/// What was asked of what, on what.
#[derive(Clone, Debug, Serialize)]
pub struct About {
    /// The checkpoint.
    pub model: String,
    /// The questions' source.
    pub questions: String,
    /// The device.
    pub device: String,
    /// What matrices are kept in.
    pub dtype: String,
    /// How answers are compared.
    pub compared: &'static str,
}

impl About {
    /// Of one evaluation.
    pub fn of(args: &EvalArgs, model: &Model, samples: &[Sample]) -> Self {
        let asked: usize = samples.iter().map(|s| s.asked.len()).sum();
        let from = match &args.dir {
            Some(dir) => dir.display().to_string(),
            None => format!("held-out scenes {} to {}", args.seed, args.seed.wrapping_add(args.scenes as u64 - 1)),
        };
        Self {
            model: args.model.as_ref().map_or("the demo checkpoint".to_owned(), |m| m.display().to_string()),
            questions: format!("{asked} questions about {} pictures: {from}", samples.len()),
            device: model.device().info.to_string(),
            dtype: model.dtype_name(),
            compared: if args.exact { Compare::Literally } else { Compare::Vqa }.sentence(),
        }
    }

    fn line(&self) -> String {
        format!("{} | {} | {} {}", self.model, self.questions, self.device, self.dtype)
    }
}

fn percent(p: f64) -> String {
    format!("{:.1}", 100.0 * p)
}

fn with_error(p: f64, error: f64) -> String {
    format!("{:.1} ± {:.1}", 100.0 * p, 100.0 * error)
}

/// Kinds of question that occur, the generator's own first.
fn kinds(rows: &[Row]) -> Vec<String> {
    let mut kinds: Vec<String> = Kind::ALL.iter().map(|k| k.name().to_owned()).collect();
    for row in rows {
        kinds.extend(row.kinds.keys().filter(|k| !kinds.contains(k)).cloned().collect::<Vec<_>>());
    }
    kinds.retain(|k| rows.iter().any(|r| r.kinds.contains_key(k)));
    kinds
}

fn cells(rows: &[Row]) -> (Vec<String>, Vec<Vec<String>>) {
    let kinds = kinds(rows);
    let fixed = ["samplers", "visual tokens", "after text", "equivalent %", "samples/s", "speed", "right %"];
    let header = fixed.iter().map(|c| (*c).to_owned()).chain(kinds.iter().cloned()).collect();
    let slowest = rows.first().map_or(1.0, |r| r.samples_per_s);
    let body = rows
        .iter()
        .map(|r| {
            let mut cells = vec![
                r.mode.clone(),
                format!("{:.0}", r.tokens[0]),
                format!("{:.0}", r.tokens[1]),
                percent(r.equivalent_share),
                format!("{:.1}", r.samples_per_s),
                format!("{:.2}x", r.samples_per_s / slowest),
                with_error(r.exact_match, r.standard_error),
            ];
            let of =
                |k: &String| r.kinds.get(k).map_or("-".to_owned(), |s| with_error(s.exact_match, s.standard_error));
            cells.extend(kinds.iter().map(of));
            cells
        })
        .collect();
    (header, body)
}

/// Columns filled up with blanks, the first to the left.
fn columns(header: &[String], body: &[Vec<String>]) -> String {
    let width = |i: usize| {
        let all = std::iter::once(header).chain(body.iter().map(Vec::as_slice));
        all.filter_map(|row| row.get(i)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(&widths).enumerate().map(|(i, (cell, &width))| match i {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    std::iter::once(header).chain(body.iter().map(Vec::as_slice)).map(line).collect()
}

fn notes(rows: &[Row]) -> Vec<String> {
    let mut notes = Vec::new();
    for row in rows {
        if let Some(kept) = &row.kept {
            notes.push(format!(
                "{}: kept of the queried object {} %, of the others {} %, of the background {} %",
                row.mode,
                percent(kept.queried),
                percent(kept.others),
                percent(kept.background)
            ));
        }
    }
    if let Some((row, scales)) = rows.iter().find_map(|r| r.scales.as_ref().map(|s| (r, s))) {
        let of = |(on, shares): (&String, &Vec<f64>)| {
            format!("{on} {}", shares.iter().map(|s| percent(*s)).collect::<Vec<_>>().join("/"))
        };
        let all: Vec<String> = scales.iter().map(of).collect();
        notes.push(format!("{}: regions at each scale, in the config's order, %: {}", row.mode, all.join(", ")));
    }
    notes
}

/// The table as text.
pub fn table(about: &About, rows: &[Row]) -> String {
    let (header, body) = cells(rows);
    let notes: String = notes(rows).into_iter().map(|n| n + "\n").collect();
    format!("{}\n\n{}\n{notes}{}\n", about.line(), columns(&header, &body), about.compared)
}

/// The table as a picture.
pub fn chart(title: &str, about: &About, rows: &[Row]) -> Result<Chart, Failure> {
    let (header, body) = cells(rows);
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let mut notes = notes(rows);
    notes.insert(0, about.line());
    notes.push(about.compared.to_owned());
    chart::table(title, &notes, &header, &body).map_err(Failure::Chart)
}

/// A study's rows as text: its first column is a name, all others numbers.
pub fn studied(about: &About, rows: &[super::studies::Found]) -> String {
    let Some(first) = rows.first() else { return about.line() + "\n" };
    let header: Vec<String> =
        std::iter::once("setting".to_owned()).chain(first.values.iter().map(|(name, _)| name.clone())).collect();
    let body: Vec<Vec<String>> = rows
        .iter()
        .map(|r| std::iter::once(r.setting.clone()).chain(r.values.iter().map(|(_, v)| format!("{v:.3}"))).collect())
        .collect();
    format!("{}\n\n{}", about.line(), columns(&header, &body))
}

/// What was answered wrong with both samplers on, a line each.
pub fn wrong(samples: &[Sample], answers: &[Vec<Answer>]) -> String {
    let Some(last) = answers.last() else { return String::new() };
    let mut asked = samples.iter().enumerate().flat_map(|(i, s)| s.asked.iter().map(move |a| (i, a)));
    let mut lines = String::new();
    for answer in last {
        let Some((i, asked)) = asked.next() else { break };
        if !answer.right {
            let cells = [&answer.kind, &asked.question, &asked.answer, &answer.text].map(|t| text::line(t.trim()));
            lines += &format!("{i}\t{}\n", cells.join("\t"));
        }
    }
    lines
}
