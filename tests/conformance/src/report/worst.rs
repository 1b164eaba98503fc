//! The worst errors per operation or stage.

use crate::{
    report::{Counts, Report},
    row::Outcome,
    stages::STAGES,
};

/// The worst errors of one operation in one type, or of one stage.
pub(super) struct Worst<'a> {
    /// The operation and type, or the stage.
    pub name: String,
    /// Number of rows per outcome.
    pub counts: Counts,
    /// The worst NMSE.
    pub nmse: f64,
    /// The worst absolute error.
    pub max_abs: f64,
    /// The case of the worst NMSE.
    pub case: &'a str,
}

impl Worst<'_> {
    /// The worst error as a short text.
    pub fn error(&self) -> String {
        let Counts { passed, failed, known, .. } = self.counts;
        match (passed + failed + known, self.max_abs == 0.0) {
            (0, _) => "-".into(),
            (_, true) => "exact".into(),
            (_, false) => format!("{:.1e}", self.nmse),
        }
    }

    /// The same, with the number of failures and known failures if there are any.
    pub fn cell(&self) -> String {
        let Counts { failed, known, .. } = self.counts;
        let mut cell = self.error();
        for (count, word) in [(failed, "FAIL"), (known, "known")] {
            if count > 0 {
                cell += &format!(", {count} {word}");
            }
        }
        cell
    }
}

/// The worst of the rows (case, NMSE, absolute error, outcome); None if there are no rows.
fn worst<'a>(name: &str, rows: impl Iterator<Item = (&'a str, f64, f64, &'a Outcome)>) -> Option<Worst<'a>> {
    let rows: Vec<_> = rows.collect();
    let counts = Counts::of(rows.iter().map(|row| row.3));
    let max_abs = rows.iter().map(|row| row.2).fold(0.0, f64::max);
    let first = *rows.first()?;
    let top = rows.into_iter().fold(first, |top, row| if row.1 > top.1 { row } else { top });
    Some(Worst { name: name.to_owned(), counts, nmse: top.1, max_abs, case: top.0 })
}

/// All operations in all types, in data flow order.
pub(super) fn by_operation(report: &Report) -> Vec<Worst<'_>> {
    let mut names: Vec<(&str, &str)> = Vec::new();
    for row in &report.kernels {
        let name = (row.op.as_str(), row.dtype.as_str());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let of = |(op, dtype): (&str, &str)| {
        let rows = report.kernels.iter().filter(|row| row.op == op && row.dtype == dtype);
        worst(&format!("{op} {dtype}"), rows.map(|row| (row.case.as_str(), row.nmse, row.max_abs, &row.outcome)))
    };
    names.into_iter().filter_map(of).collect()
}

/// All stages in data flow order, then those of compressions and runs without a trace.
pub(super) fn by_stage(report: &Report) -> Vec<Worst<'_>> {
    let of = |stage: &str| {
        let rows = report.stages.iter().filter(|row| row.stage == stage);
        worst(stage, rows.map(|row| (row.case.as_str(), row.nmse, row.max_abs, &row.outcome)))
    };
    let mut names: Vec<&str> = STAGES.iter().map(|(stage, _)| *stage).collect();
    for row in &report.stages {
        if !names.contains(&row.stage.as_str()) {
            names.push(&row.stage);
        }
    }
    names.into_iter().filter_map(of).collect()
}
