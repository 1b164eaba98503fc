//! What went wrong, in words: what it was, what to do, and a code for a report.

use std::any::Any;

use fovea_model::Error;

/// An error as the window shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// As of [`Error::code`]; `panic` where the engine stopped of itself, `file` and `window` for the window's own.
    pub code: &'static str,
    /// One sentence: what was expected, what came.
    pub what: String,
    /// What to do about it.
    pub then: &'static str,
}

impl Problem {
    /// An error of the engine.
    pub fn of(error: &Error) -> Self {
        let code = error.code();
        let then = match code {
            "checkpoint" => {
                "Choose another model folder, or download this one again: a file in it is broken or missing."
            }
            "picture" => "Choose another picture: png, jpeg, webp, gif or bmp, up to 16384 pixels a side.",
            "option" => "Change the setting and ask again.",
            "too-long" => "Ask a shorter question.",
            "device" => "Choose another device, or update its driver. The CPU always works.",
            "memory" => "Close other programs, choose a smaller model, or load it in f16.",
            "device-lost" => "Open it again: the model is loaded anew, and the conversation stays.",
            "stopped" => "",
            _ => "Ask again. If it comes back, copy a report and send it to Fovea's developers.",
        };
        Self { code, what: sentence(&error.to_string()), then }
    }

    /// A panic of the engine.
    pub fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        let why = text.unwrap_or("no reason given").lines().next().unwrap_or_default();
        let what = sentence(&format!("the engine stopped: {why}"));
        Self { code: "panic", what, then: "Open it again: the model is loaded anew, and the conversation stays." }
    }

    /// The engine's thread is gone, or never was.
    pub fn engine_gone() -> Self {
        let what = "The engine's thread has ended.".into();
        Self { code: "panic", what, then: "Close the window and open it again." }
    }

    /// A file that can't be read or written.
    pub fn file(what: &str, then: &'static str) -> Self {
        Self { code: "file", what: sentence(what), then }
    }

    /// Whether what the engine held is gone.
    pub fn ends_engine(&self) -> bool {
        matches!(self.code, "device-lost" | "panic")
    }

    /// Whether the user wanted it.
    pub fn is_stop(&self) -> bool {
        self.code == "stopped"
    }
}

/// With a capital, a full stop and on one line.
fn sentence(text: &str) -> String {
    let mut out: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(first) = out.chars().next() {
        out.replace_range(..first.len_utf8(), &first.to_uppercase().to_string());
    }
    if !out.ends_with(['.', '!', '?']) {
        out.push('.');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_a_sentence_with_what_to_do() {
        let lost = Problem::of(&Error::Runtime(fovea_runtime::Error::DeviceLost("unplugged".into())));
        assert_eq!(lost.what, "The device was lost: unplugged; open it again.");
        assert!(lost.ends_engine() && lost.then.starts_with("Open it again"));
        let long = Problem::of(&Error::TooLong { need: 3000, have: 2048 });
        assert!(long.what.contains("3000") && long.what.contains("2048") && !long.ends_engine());
        assert!(Problem::of(&Error::Cancelled).is_stop());
        let panicked = Problem::panicked(&"index out\nof range");
        assert_eq!((panicked.code, panicked.what.as_str()), ("panic", "The engine stopped: index out."));
    }
}
