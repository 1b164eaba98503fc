//! Numbers and text in the form that a user reads.

pub use fovea_runtime::memory::bytes;

/// A duration given in milliseconds: in ms, or in s from one second on.
pub fn duration(ms: f64) -> String {
    if ms < 1000.0 { format!("{ms:.0} ms") } else { format!("{:.2} s", ms / 1e3) }
}

/// An answer that is safe to print. Control characters other than line feed and tab can control a terminal, and those of
/// bidirectional text can change the order of a line, so U+FFFD replaces them.
pub fn harmless(text: &str) -> String {
    let is_harmful = |c: char| match c {
        '\n' | '\t' => false,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        _ => c.is_control(),
    };
    text.chars().map(|c| if is_harmful(c) { '\u{fffd}' } else { c }).collect()
}
