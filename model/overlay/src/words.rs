//! Numbers and text in the form that a user reads.

pub use fovea_runtime::memory::bytes;

/// A duration given in milliseconds: in ms, or in s from one second on.
pub fn duration(ms: f64) -> String {
    if ms < 1000.0 { format!("{ms:.0} ms") } else { format!("{:.2} s", ms / 1e3) }
}

/// An answer that is safe to print. Control characters other than line feed and tab can control a terminal, so U+FFFD
/// replaces them.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c }).collect()
}
