//! Catches the panic of a library on untrusted input and returns its message.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `work`.
///
/// # Errors
/// The message of a panic. The panic hook receives it as well.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_else(|| "a panic".into())
    })
}
