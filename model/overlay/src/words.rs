//! Numbers and text in the form that a user reads.

pub use fovea_runtime::memory::{apart, bytes};

/// A duration given in milliseconds: in ms, or in s from one second on.
pub fn duration(ms: f64) -> String {
    if ms < 1000.0 { format!("{ms:.0} ms") } else { format!("{:.2} s", ms / 1e3) }
}

/// A share in per cent, without decimals. A small one is not 0: `<1 %`.
pub fn percent(share: f64) -> String {
    if share > 0.0 && share < 0.005 { "<1 %".to_owned() } else { format!("{:.0} %", 100.0 * share) }
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

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn a_small_share_is_not_0() {
        let texts = [0.0, 1e-4, 0.0049, 0.006, 0.24, 1.0].map(percent);
        assert_eq!(texts, ["0 %", "<1 %", "<1 %", "1 %", "24 %", "100 %"], "(got, expected)");
    }
}
