//! The report as text, for terminals and bug reports. The last line is the verdict.

use std::fmt::Write;

use fovea_runtime::device::DeviceClass;

use super::{
    Report,
    worst::{Worst, by_operation, by_stage},
};
use crate::Depth;

/// Maximum number of failures that are printed.
const MOST: usize = 20;

/// The report as text.
pub fn text(report: &Report) -> String {
    let mut to = String::new();
    // Writing to a String cannot fail.
    write(report, &mut to).unwrap_or_default();
    to
}

fn write(report: &Report, to: &mut String) -> std::fmt::Result {
    let device = &report.device;
    let depth = match report.depth {
        Depth::Quick => "quick",
        Depth::Full => "full",
    };
    let class = match device.class {
        // Its name says it already.
        DeviceClass::Cpu => String::new(),
        class => format!(", {class:?}").to_lowercase(),
    };
    let yes = |has: bool| if has { "yes" } else { "no" };
    let path = if report.path == "tensor ops" { "tensor operations" } else { report.path.as_str() };
    writeln!(to, "Fovea {} conformance, {}, {depth}", report.fovea, report.day())?;
    writeln!(to, "device   {}{class}, driver {}", plain(&device.to_string()), plain(&device.driver))?;
    writeln!(to, "         f16 {}, subgroups {}, path {path}", yes(device.f16), yes(device.subgroups))?;
    writeln!(to, "platform {}", report.platform)?;
    table(to, "operation", &by_operation(report))?;
    table(to, "stage", &by_stage(report))?;
    let (agree, steps) = report.agreement();
    if steps > 0 {
        writeln!(to, "\nforced decoding: {agree} of {steps} most likely tokens equal the reference's")?;
    }
    let flips: usize = report.kernels.iter().map(|row| row.flips).sum();
    if flips > 0 {
        writeln!(to, "{flips} choices differ from the twin's at a margin too small to decide")?;
    }
    writeln!(to)?;
    for line in report.verdict.no_longer_seen.iter().chain(report.verdict.failures.iter().take(MOST)) {
        writeln!(to, "{}", plain(line))?;
    }
    if report.verdict.failures.len() > MOST {
        writeln!(to, "and {} more failures (use --json to print all)", report.verdict.failures.len() - MOST)?;
    }
    writeln!(to, "{}", report.sentence())
}

fn table(to: &mut String, what: &str, rows: &[Worst<'_>]) -> std::fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(to, "\n{what:18} pass FAIL known skip  worst NMSE    max abs  worst case")?;
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

/// Replaces control characters, which could control the terminal, for example in a driver's name.
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
        assert!(text.contains("2023-11-14, quick\n"), "{text}");
        assert!(text.contains("llvmpipe <LLVM> (vulkan), software, driver Mesa\n         f16 yes, "), "{text}");
    }
}
