//! Errors of parsing and rendering.

/// The reason of an error, and its line in the template.
#[derive(Debug)]
pub(super) struct Fail {
    pub(super) why: String,
    pub(super) line: Option<u32>,
}

pub(super) type Res<T> = Result<T, Fail>;

/// An error without a line.
pub(super) fn fail<T>(why: impl Into<String>) -> Res<T> {
    Err(Fail { why: why.into(), line: None })
}

impl Fail {
    /// Sets the line, if it is not known yet.
    pub(super) fn on(mut self, line: u32) -> Self {
        self.line.get_or_insert(line);
        self
    }
}

impl std::fmt::Display for Fail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "{} (line {line})", self.why),
            None => f.write_str(&self.why),
        }
    }
}
