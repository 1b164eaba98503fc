//! Where the last panic happened, as errors report it.

use std::{panic::Location, sync::Mutex};

/// Where and why the last panic happened. A panic may pass from thread to thread, so this is not thread-local.
pub(crate) static LAST_PANIC: Mutex<Option<String>> = Mutex::new(None);

/// `at FILE:LINE: TEXT` of the panic that was caught last.
pub(crate) fn last_panic() -> String {
    let last = LAST_PANIC.lock().ok().and_then(|mut last| last.take());
    last.unwrap_or_else(|| located(None, "a panic without a message"))
}

/// `at FILE:LINE: TEXT`, with the first line of `text`.
pub(crate) fn located(at: Option<&Location>, text: &str) -> String {
    let place = at.map_or("an unknown place".to_owned(), |at| format!("{}:{}", public_path(at.file()), at.line()));
    format!("at {place}: {}", text.lines().next().unwrap_or_default())
}

/// A source file without the folders of the machine that compiled it: `native-demo/src/main.rs` for ours, which cargo
/// compiles by relative paths, and `CRATE-VERSION/src/FILE` for a dependency's.
fn public_path(file: &str) -> String {
    let file = file.replace('\\', "/");
    if !file.starts_with('/') && !file.contains(":/") {
        return file;
    }
    let folder = file.find("/src/index.").map_or(0, |at| at + "/src/".len());
    let src = file[folder..].find("/src/").map_or(file.len(), |at| folder + at);
    let start = file[..src].rfind('/').map_or(0, |at| at + 1);
    file[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_files_are_named_without_the_folders_of_the_build() {
        for (file, expected) in [
            ("native-demo/src/main.rs", "native-demo/src/main.rs"),
            (
                "/home/a/.cargo/registry/src/index.crates.io-1949cf8c/wgpu-30.0.1/src/api/src/x.rs",
                "wgpu-30.0.1/src/api/src/x.rs",
            ),
            (
                "C:\\Users\\a\\registry\\src\\index.crates.io-1949cf8c\\wgpu-30.0.1\\src\\lib.rs",
                "wgpu-30.0.1/src/lib.rs",
            ),
            ("/rustc/0123/library/core/src/option.rs", "core/src/option.rs"),
            ("/build/main.rs", "main.rs"),
        ] {
            assert_eq!(public_path(file), expected, "{file}: (got, expected)");
        }
    }
}
