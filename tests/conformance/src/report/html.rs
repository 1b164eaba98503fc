//! The report as one self-contained HTML file, without scripts, fonts and network access.

use std::fmt::{self, Write};

use super::{
    Report,
    worst::{Worst, by_operation, by_stage},
};
use crate::row::Outcome;

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --bad: #c62828; --good: #2e7d32; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; --good: #81c784; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
.verdict { font-size: 1.25rem; font-weight: 600; }
.FAIL { color: var(--bad); font-weight: 600; }
.PASS, .pass { color: var(--good); }
div { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .875rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); }
code { font: .8125rem ui-monospace, monospace; }
summary { cursor: pointer; margin: 1rem 0; }
";

/// A text, escaped for HTML.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c if c.is_control() => f.write_char(' ')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// The HTML file.
pub fn html(report: &Report) -> String {
    let mut to = String::new();
    // Writing to a String cannot fail.
    write(report, &mut to).unwrap_or_default();
    to
}

fn write(report: &Report, to: &mut String) -> fmt::Result {
    let device = &report.device;
    let name = device.to_string();
    let word = if report.verdict.pass { "PASS" } else { "FAIL" };
    write!(
        to,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{word}: Fovea on {}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>Fovea conformance</h1>\n\
         <p class=\"verdict {word}\">{}</p>\n",
        Escaped(&name),
        Escaped(&report.sentence())
    )?;
    let facts = [
        ("Device", name),
        ("Kind", format!("{:?}", device.class)),
        ("Driver", device.driver.clone()),
        ("f16, subgroups", format!("{}, {}", device.f16, device.subgroups)),
        ("Path", report.path.clone()),
        ("Platform", report.platform.clone()),
        ("Fovea", report.fovea.clone()),
        ("Date", report.day()),
        ("Depth", format!("{:?}", report.depth)),
    ];
    begin(to, &["", ""])?;
    for (key, value) in facts {
        cells(to, "", &[key, &value])?;
    }
    end(to)?;
    list(to, "Failures", &report.verdict.failures)?;
    list(to, "Known issues that are no longer seen", &report.verdict.no_longer_seen)?;
    worst(to, "Operations, compared with their f64 twins", "operation", &by_operation(report))?;
    worst(to, "Stages, compared with PyTorch", "stage", &by_stage(report))?;
    let (agree, steps) = report.agreement();
    if steps > 0 {
        writeln!(to, "<p>Forced decoding: {agree} of {steps} most likely tokens equal the reference's.</p>")?;
    }
    kernels(report, to)?;
    stages(report, to)?;
    to.write_str("</body>\n</html>\n")
}

fn list(to: &mut String, title: &str, lines: &[String]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(to, "<h2>{}</h2>\n<ul>", Escaped(title))?;
    for line in lines {
        writeln!(to, "<li><code>{}</code></li>", Escaped(line))?;
    }
    writeln!(to, "</ul>")
}

fn worst(to: &mut String, title: &str, what: &str, rows: &[Worst<'_>]) -> fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(to, "<h2>{}</h2>", Escaped(title))?;
    begin(to, &[what, "passed", "failed", "known", "skipped", "worst NMSE", "max abs", "worst case"])?;
    for Worst { name, counts, nmse, max_abs, case } in rows {
        let numbers = [counts.passed, counts.failed, counts.known, counts.skipped].map(|count| count.to_string());
        let [passed, failed, known, skipped] = &numbers;
        let class = if counts.failed > 0 { "FAIL" } else { "" };
        let case = if *max_abs == 0.0 { "exact" } else { case };
        let (nmse, max_abs) = (format!("{nmse:.1e}"), format!("{max_abs:.1e}"));
        cells(to, class, &[name, passed, failed, known, skipped, &nmse, &max_abs, case])?;
    }
    end(to)
}

fn kernels(report: &Report, to: &mut String) -> fmt::Result {
    if report.kernels.is_empty() {
        return Ok(());
    }
    writeln!(to, "<details>\n<summary>All {} operation cases</summary>", report.kernels.len())?;
    let heads = ["case", "purpose", "path", "outcome", "NMSE", "max abs", "guarded", "equal runs", "ms", "tolerance"];
    begin(to, &heads)?;
    for row in &report.kernels {
        let numbers = [format!("{:.1e}", row.nmse), format!("{:.1e}", row.max_abs), row.buffers_guarded.to_string()];
        let (twice, ms) = (if row.bit_identical { "yes" } else { "no" }, format!("{:.0}", row.milliseconds));
        let outcome = describe(&row.outcome);
        let [nmse, max_abs, guarded] = &numbers;
        let all = [&row.case, &row.why, &row.path, &outcome, nmse, max_abs, guarded, twice, &ms, &row.tolerance];
        cells(to, row.outcome.word(), &all)?;
    }
    end(to)?;
    writeln!(to, "</details>")
}

fn stages(report: &Report, to: &mut String) -> fmt::Result {
    if report.stages.is_empty() {
        return Ok(());
    }
    writeln!(to, "<details>\n<summary>All {} stages of whole runs</summary>", report.stages.len())?;
    begin(to, &["case", "checkpoint", "stage", "outcome", "NMSE", "max abs", "tolerance"])?;
    for row in &report.stages {
        let (nmse, max_abs, outcome) =
            (format!("{:.1e}", row.nmse), format!("{:.1e}", row.max_abs), describe(&row.outcome));
        cells(to, row.outcome.word(), &[&row.case, &row.model, &row.stage, &outcome, &nmse, &max_abs, &row.tolerance])?;
    }
    end(to)?;
    writeln!(to, "</details>")
}

fn describe(outcome: &Outcome) -> String {
    format!("{} {}", outcome.word(), super::short(outcome.sentence()))
}

fn begin(to: &mut String, heads: &[&str]) -> fmt::Result {
    to.write_str("<div><table>\n")?;
    if heads.iter().any(|head| !head.is_empty()) {
        to.write_str("<tr>")?;
        for head in heads {
            write!(to, "<th>{}</th>", Escaped(head))?;
        }
        to.write_str("</tr>\n")?;
    }
    Ok(())
}

fn cells(to: &mut String, class: &str, texts: &[&str]) -> fmt::Result {
    write!(to, "<tr class=\"{}\">", Escaped(class))?;
    for text in texts {
        write!(to, "<td>{}</td>", Escaped(text))?;
    }
    to.write_str("</tr>\n")
}

fn end(to: &mut String) -> fmt::Result {
    to.write_str("</table></div>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn all_external_text_is_escaped() {
        let html =
            html(&report(&[("top_k", "<script>alert('1')</script> & \"more\"", Outcome::Fail { why: "<b>".into() })]));
        assert!(!html.contains("<script") && !html.contains("<b>") && !html.contains("<LLVM>"), "{html}");
        assert!(html.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; &quot;more&quot;"), "{html}");
        assert!(html.contains("FAIL: 0 passed, 1 failed") && html.ends_with("</html>\n"), "{html}");
    }
}
