//! Several devices' reports as one page: what is held where, how closely, and whether devices decide alike.

use std::fmt::{self, Write};

use fovea_runtime::{DeviceInfo, device::DeviceClass};

use super::{
    Decision, Report,
    worst::{Worst, by_operation, by_stage},
};
use crate::{known_issues::NOW, row::Outcome};

/// A report and what to call its device: its file's name.
#[derive(Clone, Debug)]
pub struct Lane {
    /// What it is called.
    pub name: String,
    /// What it did.
    pub report: Report,
}

/// Whether a device is of a kind.
type Is = fn(&DeviceInfo) -> bool;

/// What Fovea is meant to run on, and how to tell that a report is of it.
const EXPECTED: [(&str, Is); 8] = [
    ("CPU (burn flex)", |d| d.backend == "cpu"),
    ("wgpu on Vulkan, drawn by the CPU", |d| d.backend == "vulkan" && !is_gpu(d)),
    ("wgpu on Vulkan, a GPU", |d| d.backend == "vulkan" && is_gpu(d)),
    ("wgpu on Metal", |d| d.backend == "metal"),
    ("wgpu on DX12", |d| d.backend == "dx12"),
    ("WebGPU in a browser, drawn by the CPU", |d| d.backend.contains("webgpu") && !is_gpu(d)),
    ("WebGPU in a browser, a GPU", |d| d.backend.contains("webgpu") && is_gpu(d)),
    ("CUDA", |d| d.backend == "cuda"),
];

fn is_gpu(device: &DeviceInfo) -> bool {
    matches!(device.class, DeviceClass::Discrete | DeviceClass::Integrated | DeviceClass::Virtual)
}

/// The whole page, in Markdown.
pub fn matrix(lanes: &[Lane]) -> String {
    let mut to = String::new();
    // A String takes any text.
    write(lanes, &mut to).unwrap_or_default();
    to
}

fn write(lanes: &[Lane], to: &mut String) -> fmt::Result {
    to.write_str(
        "# Conformance\n\n\
         Written by `fovea conformance --every target/conformance --fixtures tests/fixtures --out docs/conformance.md`, which\n\
         runs on the CPU and every adapter, beside the browsers' reports that `cargo test --workspace --test web` leaves\n\
         there, and those of other machines, kept in `docs/reports` and copied there before. A cell is the worst error of all cases (NMSE), never a mean; `exact`: all bits are equal; `-`: not run there.\n\n## Devices\n\n",
    )?;
    row(to, ["lane", "adapter", "driver", "platform", "path", "date", "depth", "verdict"])?;
    rule(to, 8)?;
    for Lane { name, report } in lanes {
        let (device, depth) = (&report.device, format!("{:?}", report.depth).to_lowercase());
        let adapter = device.to_string();
        let (day, verdict) = (report.day(), report.sentence());
        row(to, [name, &adapter, &device.driver, &report.platform, &report.path, &day, &depth, &verdict])?;
    }
    let never: Vec<&str> = EXPECTED
        .iter()
        .filter(|(_, is)| !lanes.iter().any(|lane| is(&lane.report.device)))
        .map(|(name, _)| *name)
        .collect();
    if !never.is_empty() {
        writeln!(to, "\nNever run: {}.", never.join("; "))?;
    }
    by_lane(to, "Operations against their f64 twins", "operation", lanes, by_operation)?;
    by_lane(to, "Stages against PyTorch's traces", "stage", lanes, by_stage)?;
    decoding(to, lanes)?;
    pairs(to, lanes)?;
    known(to, lanes)
}

/// A table with a column for each lane.
fn by_lane<'a>(
    to: &mut String,
    title: &str,
    what: &str,
    lanes: &'a [Lane],
    worst: impl Fn(&'a Report) -> Vec<Worst<'a>>,
) -> fmt::Result {
    let columns: Vec<Vec<Worst<'a>>> = lanes.iter().map(|lane| worst(&lane.report)).collect();
    let mut names: Vec<&str> = Vec::new();
    for one in columns.iter().flatten() {
        if !names.contains(&one.name.as_str()) {
            names.push(&one.name);
        }
    }
    if names.is_empty() {
        return Ok(());
    }
    writeln!(to, "\n## {title}\n")?;
    row(to, [what].into_iter().chain(lanes.iter().map(|lane| lane.name.as_str())))?;
    rule(to, lanes.len() + 1)?;
    for name in names {
        let cell = |column: &Vec<Worst<'a>>| {
            column.iter().find(|one| one.name == name).map_or_else(|| "-".to_owned(), Worst::cell)
        };
        let cells: Vec<String> = columns.iter().map(cell).collect();
        row(to, [name].into_iter().chain(cells.iter().map(String::as_str)))?;
    }
    Ok(())
}

fn decoding(to: &mut String, lanes: &[Lane]) -> fmt::Result {
    let ran: Vec<(&str, (usize, usize))> = lanes
        .iter()
        .map(|lane| (lane.name.as_str(), lane.report.agreement()))
        .filter(|(_, (_, all))| *all > 0)
        .collect();
    if ran.is_empty() {
        return Ok(());
    }
    to.write_str(
        "\n## Forced decoding\n\nThe reference's answer is fed; the most likely next token is the reference's:\n\n",
    )?;
    row(to, ["lane", "steps that agree"])?;
    rule(to, 2)?;
    for (name, (agree, all)) in ran {
        row(to, [name, format!("{agree} of {all}").as_str()])?;
    }
    Ok(())
}

/// Whether each two lanes decide alike, over the cases that both ran.
fn pairs(to: &mut String, lanes: &[Lane]) -> fmt::Result {
    let decided: Vec<&Lane> = lanes.iter().filter(|lane| !lane.report.decisions.is_empty()).collect();
    if decided.len() < 2 {
        return Ok(());
    }
    to.write_str("\n## Decisions, lane against lane\n\nCases in which both decide alike, of those that both ran:\n\n")?;
    row(to, ["lanes", "scale choices", "kept sets", "greedy tokens"])?;
    rule(to, 4)?;
    for (i, a) in decided.iter().enumerate() {
        for b in &decided[i + 1..] {
            let both: Vec<(&Decision, &Decision)> = a
                .report
                .decisions
                .iter()
                .filter_map(|x| Some((x, b.report.decisions.iter().find(|y| y.case == x.case)?)))
                .collect();
            let alike = |same: fn(&Decision, &Decision) -> bool| {
                format!("{} of {}", both.iter().filter(|(x, y)| same(x, y)).count(), both.len())
            };
            let cells = [
                format!("{}, {}", a.name, b.name),
                alike(|x, y| x.scale_choice == y.scale_choice),
                alike(|x, y| x.kept == y.kept),
                alike(|x, y| x.answer_ids == y.answer_ids),
            ];
            row(to, &cells)?;
        }
    }
    Ok(())
}

/// A line for each issue of each lane: the rows that it is about are as many as there are cases.
fn known(to: &mut String, lanes: &[Lane]) -> fmt::Result {
    let mut lines = Vec::new();
    for Lane { name, report } in lanes {
        let mut issues: Vec<(&str, usize)> = Vec::new();
        for (_, outcome) in report.outcomes() {
            let Outcome::Known { issue } = outcome else { continue };
            let issue = issue.split_once(NOW).map_or(issue.as_str(), |(issue, _)| issue);
            match issues.iter_mut().find(|(other, _)| *other == issue) {
                Some((_, rows)) => *rows += 1,
                None => issues.push((issue, 1)),
            }
        }
        lines.extend(issues.iter().map(|(issue, rows)| format!("- {name}, {rows} rows: {}", super::short(issue))));
        lines.extend(report.verdict.no_longer_seen.iter().map(|line| format!("- {name}: {line}")));
    }
    to.write_str("\n## Known issues\n\n")?;
    if lines.is_empty() {
        return to.write_str("None.\n");
    }
    lines.iter().try_for_each(|line| writeln!(to, "{}", one_line(line)))
}

fn row(to: &mut String, cells: impl IntoIterator<Item = impl AsRef<str>>) -> fmt::Result {
    for cell in cells {
        write!(to, "| {} ", one_line(cell.as_ref()).replace('|', "\\|"))?;
    }
    to.write_str("|\n")
}

fn rule(to: &mut String, columns: usize) -> fmt::Result {
    writeln!(to, "{}|", "|---".repeat(columns))
}

/// What a driver calls itself, as Markdown that means it.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn lanes_stand_side_by_side() {
        let lane = |name: &str, answer: i64, outcome| {
            let mut report = report(&[("top_k", "top_k n=3 f32", outcome)]);
            let case = "c".to_owned();
            report.decisions = vec![Decision { case, scale_choice: vec![1], kept: vec![2], answer_ids: vec![answer] }];
            Lane { name: name.into(), report }
        };
        let page = matrix(&[lane("a", 1, Outcome::Pass), lane("b|c", 2, Outcome::Fail { why: "x".into() })]);
        assert!(
            page.contains("| operation | a | b\\|c |\n|---|---|---|\n| top_k f32 | exact | exact, 1 FAIL |"),
            "{page}"
        );
        assert!(page.contains("| a, b\\|c | 1 of 1 | 1 of 1 | 0 of 1 |"), "{page}");
        assert!(page.contains("| a | llvmpipe &lt;LLVM> (vulkan) | Mesa |"), "{page}");
        let never = page.lines().find(|line| line.starts_with("Never run: ")).expect("a line about it");
        assert!(never.contains("CUDA") && never.contains("Metal") && !never.contains("Vulkan, drawn"), "{never}");
        assert!(page.ends_with("## Known issues\n\nNone.\n"), "{page}");
    }

    #[test]
    fn a_known_issue_is_one_line_however_many_rows_it_has() {
        let known = |why: &str| Outcome::Known { issue: format!("x: y{NOW}{why}") };
        let rows = [("top_k", "top_k n=3 f32", known("1")), ("top_k", "top_k n=4 f32", known("2"))];
        let page = matrix(&[Lane { name: "a".into(), report: report(&rows) }]);
        assert!(page.ends_with("## Known issues\n\n- a, 2 rows: x: y\n"), "{page}");
    }
}
