//! The report as text, to be read in a terminal and pasted into a bug report. Its last line is the verdict.

use std::fmt::Write;

use super::{
    Report,
    worst::{Worst, by_operation, by_stage},
};

/// Most failures that are spelled out.
const MOST: usize = 20;

/// The whole text.
pub fn text(report: &Report) -> String {
    let mut to = String::new();
    // A String takes any text.
    write(report, &mut to).unwrap_or_default();
    to
}

fn write(report: &Report, to: &mut String) -> std::fmt::Result {
    let device = &report.device;
    writeln!(to, "Fovea {} conformance, {}, {:?}", report.fovea, report.day(), report.depth)?;
    writeln!(to, "device   {}, {:?}, driver {}", plain(&device.to_string()), device.class, plain(&device.driver))?;
    writeln!(to, "         f16 {}, subgroups {}, path {}", device.f16, device.subgroups, report.path)?;
    writeln!(to, "platform {}", report.platform)?;
    table(to, "operation", &by_operation(report))?;
    table(to, "stage", &by_stage(report))?;
    let (agree, steps) = report.agreement();
    if steps > 0 {
        writeln!(to, "\nforced decoding: {agree} of {steps} most likely tokens are the reference's")?;
    }
    let flips: usize = report.kernels.iter().map(|row| row.flips).sum();
    if flips > 0 {
        writeln!(to, "{flips} choices differ where the margin is too small to tell")?;
    }
    writeln!(to)?;
    for line in report.verdict.no_longer_seen.iter().chain(report.verdict.failures.iter().take(MOST)) {
        writeln!(to, "{}", plain(line))?;
    }
    if report.verdict.failures.len() > MOST {
        writeln!(to, "and {} more (all with --json)", report.verdict.failures.len() - MOST)?;
    }
    writeln!(to, "{}", report.sentence())
}

fn table(to: &mut String, what: &str, rows: &[Worst<'_>]) -> std::fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(to, "\n{what:18} pass FAIL known skip  worst NMSE    max abs  in")?;
    for Worst { name, counts, nmse, max_abs, case } in rows {
        let (passed, failed, known, skipped) = (counts.passed, counts.failed, counts.known, counts.skipped);
        let case = if *max_abs == 0.0 { "exact" } else { case };
        writeln!(
            to,
            "{name:18} {passed:4} {failed:4} {known:5} {skipped:4}  {nmse:10.1e} {max_abs:10.1e}  {}",
            plain(case)
        )?;
    }
    Ok(())
}

/// One line that steers no terminal, whatever a driver calls itself.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::tests::report, row::Outcome};

    #[test]
    fn the_last_line_is_the_verdict() {
        let rows =
            [("top_k", "top_k n=3 f32", Outcome::Pass), ("compact", "c f32", Outcome::Fail { why: "off\x1b".into() })];
        let text = text(&report(&rows));
        assert_eq!(text.lines().last(), Some("FAIL: 1 passed, 1 failed, 0 known, 0 skipped"));
        assert!(text.contains("c f32: off ") && !text.contains('\x1b'), "{text}");
        assert!(text.contains("2023-11-14") && text.contains("llvmpipe <LLVM> (vulkan)"), "{text}");
    }
}
