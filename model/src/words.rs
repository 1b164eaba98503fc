//! Words and numbers as people read them.

pub use fovea_runtime::memory::bytes;

/// Milliseconds, or seconds from one second on.
pub fn duration(ms: f64) -> String {
    if ms < 1000.0 { format!("{ms:.0} ms") } else { format!("{:.2} s", ms / 1e3) }
}

/// An answer as text to show: what is neither a line break, a tab nor visible could steer a terminal, and is U+FFFD.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c }).collect()
}
