//! Errors as the window shows them: a sentence, what the user can do, and a code for the report.

use std::any::Any;

use fovea_model::{Error, ErrorKind};

/// Advice when the engine has lost its model.
const REOPEN: &str = "Reload the model. The conversation is kept.";

/// Advice when a checkpoint's template refuses a conversation, such as one with a system message.
const WRONG_MESSAGES: &str =
    "Under Answer, clear the system prompt or turn off \"Remember the conversation\", and ask again.";

/// An error as the window shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The value of [`ErrorKind::name`]; `panic` if the engine panicked; `file` and `window` for errors of the window
    /// itself.
    pub code: &'static str,
    /// One sentence: what was expected, and what was found.
    pub what: String,
    /// What the user can do.
    pub then: &'static str,
}

impl Problem {
    /// An error of the engine.
    pub fn of(error: &Error) -> Self {
        let kind = error.kind();
        let then = match kind {
            ErrorKind::Checkpoint => {
                "Choose another model folder, or download this one again: a file in it is broken or missing."
            }
            ErrorKind::Picture => "Choose another picture: png, jpeg, webp, gif or bmp.",
            ErrorKind::Option => "Change the setting and ask again.",
            ErrorKind::TooLong => "Ask a shorter question, shorten the answer, or begin again.",
            ErrorKind::Device => "Choose another device, or update its driver. The CPU always works.",
            // The window has no option for the cache and the tower, which the error can name.
            ErrorKind::Memory => {
                "Close other programs, choose a smaller model, or load it in f16, q8 or q4. Options that begin with -- are \
                 those of `fovea ask`."
            }
            ErrorKind::DeviceLost => REOPEN,
            ErrorKind::Stopped => "",
            _ => "Ask again. If the error occurs again, copy a report and send it to Fovea's developers.",
        };
        Self { code: kind.name(), what: sentence(&error.to_string()), then }
    }

    /// An error of the engine while it answers a question.
    pub fn of_question(error: &Error) -> Self {
        let problem = Self::of(error);
        match error {
            // The checkpoint is loaded: its template can be used, but not with these messages.
            Error::Tokenizer { file, .. } if file == "chat template" => Self { then: WRONG_MESSAGES, ..problem },
            _ => problem,
        }
    }

    /// A panic of the engine.
    pub fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        let why = text.unwrap_or("no reason given").lines().next().unwrap_or_default();
        let what = sentence(&format!("the engine stopped: {why}"));
        Self { code: "panic", what, then: REOPEN }
    }

    /// The engine's thread has ended or could not be started.
    pub fn engine_gone() -> Self {
        let what = "The engine's thread has ended.".into();
        Self { code: "panic", what, then: "Close the window and open it again." }
    }

    /// An error while reading or writing a file.
    pub fn file(what: &str, then: &'static str) -> Self {
        Self { code: "file", what: sentence(what), then }
    }

    /// Whether the engine has lost its model and device.
    pub fn ends_engine(&self) -> bool {
        matches!(self.code, "device-lost" | "panic")
    }

    /// Whether the user stopped the run.
    pub fn is_stop(&self) -> bool {
        self.code == "stopped"
    }
}

/// Formats a text as one sentence: one line, a capital letter first, a full stop last.
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
        assert!(lost.ends_engine() && lost.then == REOPEN);
        let long = Problem::of(&Error::TooLong { need: 3000, have: 2048 });
        assert!(long.what.contains("3000") && long.what.contains("2048") && !long.ends_engine());
        assert!(Problem::of(&Error::Cancelled).is_stop());
        let refused = Error::Tokenizer { file: "chat template".into(), why: "expected no system message".into() };
        assert_eq!(Problem::of_question(&refused).then, WRONG_MESSAGES);
        assert_ne!(Problem::of(&refused).then, WRONG_MESSAGES);
        let panicked = Problem::panicked(&"index out\nof range");
        assert_eq!((panicked.code, panicked.what.as_str()), ("panic", "The engine stopped: index out."));
    }
}
