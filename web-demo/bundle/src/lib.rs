//! Builds the static folder of the pages: the engine as wasm, its bindings, the pages' files, the demo model, and example
//! pictures. Any static host can serve it.
//!
//! wasm-bindgen is a library here, in the same version as in the engine, so nothing has to be installed.

mod error;
mod manifest;
mod offline;
mod relaxed;
mod sizes;
pub mod serve;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value as Json;
use wasm_bindgen_cli_support::Bindgen;

pub use error::BundleError;
pub use manifest::{CHUNK, MANIFEST, manifest};
pub use sizes::{MOST, Size, sizes, total};

/// Rust's target for the engine.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// The engine's package, and the name of its library.
const PACKAGE: [&str; 2] = ["fovea-web", "fovea_web"];

/// Bytes of the engine's stack. wasm's default of 1 MiB overflows when a matrix product is prepared inside a question.
const STACK: u32 = 8 << 20;

/// The workspace's root.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Builds the folder `out`: the pages' files, in `pkg` the engine and its bindings, in `demo` the demo model, in `pictures` the
/// examples, and the list of all of them for the page's service worker. Other files in the folder stay. The engine is compiled with a `profile` of the workspace: `dev`, or `small` for
/// publishing.
///
/// # Errors
/// [`BundleError::NoTarget`] if Rust lacks [`TARGET`]; otherwise the error of the step that failed.
pub fn build(out: &Path, profile: &str) -> Result<(), BundleError> {
    target()?;
    bind(&compile(profile)?, &out.join("pkg"))?;
    copy(&root().join("web-demo/page"), out)?;
    copy(&root().join("model/demo"), &out.join("demo"))?;
    copy(&root().join("native-demo/pictures"), &out.join("pictures"))?;
    offline::list(out)
}

/// Whether Rust has a standard library for [`TARGET`].
fn target() -> Result<(), BundleError> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--print", "target-libdir", "--target", TARGET]).current_dir(root());
    let output = rustc.output().map_err(|why| BundleError::start(&rustc, why))?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && Path::new(&folder).is_dir() { Ok(()) } else { Err(BundleError::NoTarget { folder }) }
}

/// Compiles the engine with a profile of the workspace, and returns the wasm file. Cargo's messages go to stderr.
fn compile(profile: &str) -> Result<PathBuf, BundleError> {
    let [package, library] = PACKAGE;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["rustc", "-p", package, "--profile", profile, "--target", TARGET])
        .args(["--message-format", "json-render-diagnostics"])
        .args(["--", &format!("-Clink-arg=-zstack-size={STACK}")])
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut running = cargo.spawn().map_err(|why| BundleError::start(&cargo, why))?;
    // Cargo reports the path, because its target directory is configurable.
    let mut module = None;
    for line in running.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()).map_while(Result::ok) {
        module = wasm_of(&line, library).or(module);
    }
    let status = running.wait().map_err(|why| BundleError::start(&cargo, why))?;
    if !status.success() {
        return Err(BundleError::failed(&cargo, status));
    }
    module.ok_or(BundleError::NoModule { library })
}

/// The wasm file of `library`, if this line of cargo's messages names it.
fn wasm_of(message: &str, library: &str) -> Option<PathBuf> {
    let message: Json = serde_json::from_str(message).ok()?;
    if message["reason"] != "compiler-artifact" || message["target"]["name"] != library {
        return None;
    }
    let files = message["filenames"].as_array()?.iter().filter_map(Json::as_str).map(PathBuf::from);
    files.into_iter().find(|file| file.extension().is_some_and(|e| e == "wasm"))
}

/// Writes the ES module, its types, the wasm file with its imports and exports bound, and the list of its relaxed
/// instructions.
fn bind(module: &Path, pkg: &Path) -> Result<(), BundleError> {
    // Function names are kept for backtraces. The bindings contain the path of the wasm file.
    let generate =
        || Bindgen::new().input_path(module).web(true)?.typescript(true).omit_default_module_path(false).generate(pkg);
    generate().map_err(|why| BundleError::Bind { module: module.to_owned(), why: format!("{why:#}") })?;
    relaxed::list(&bound(pkg))
}

/// The wasm file that [`bind`] writes.
fn bound(pkg: &Path) -> PathBuf {
    pkg.join(format!("{}_bg.wasm", PACKAGE[1]))
}

/// Shrinks the engine in `out` in place with binaryen's `wasm_opt`, and lists relaxed instructions and files again.
/// Backtraces then have no function names.
///
/// # Errors
/// As [`run`]; [`BundleError::Relaxed`] if browsers without relaxed SIMD could not load the result;
/// [`BundleError::File`] if a list can't be written.
pub fn shrink(out: &Path, wasm_opt: &Path) -> Result<(), BundleError> {
    let module = bound(&out.join("pkg"));
    let mut command = Command::new(wasm_opt);
    // Rust's defaults and SIMD128, which all browsers with WebGPU support; and what the page overwrites in others.
    let features = ["bulk-memory", "mutable-globals", "nontrapping-float-to-int", "reference-types", "sign-ext"];
    let vectors = ["simd", "relaxed-simd"];
    command.args(["-Oz", "--strip-debug", "--strip-producers", "--enable-multivalue"]);
    command.args(features.iter().chain(&vectors).map(|feature| format!("--enable-{feature}")));
    command.arg(&module).arg("-o").arg(&module);
    run(&mut command)?;
    relaxed::list(&module)?;
    offline::list(out)
}

/// Runs a command to its end.
///
/// # Errors
/// [`BundleError::Start`] if it does not start, [`BundleError::Failed`] if it fails.
pub fn run(command: &mut Command) -> Result<(), BundleError> {
    let status = command.status().map_err(|why| BundleError::start(command, why))?;
    if status.success() { Ok(()) } else { Err(BundleError::failed(command, status)) }
}

/// Copies a folder with its subfolders.
fn copy(from: &Path, to: &Path) -> Result<(), BundleError> {
    fs::create_dir_all(to).map_err(|why| BundleError::file(to, why))?;
    for entry in fs::read_dir(from).map_err(|why| BundleError::file(from, why))? {
        let entry = entry.map_err(|why| BundleError::file(from, why))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target)?;
        } else {
            fs::copy(&source, &target).map_err(|why| BundleError::file(&source, why))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_messages_name_the_wasm_file() {
        let artifact =
            r#"{"reason":"compiler-artifact","target":{"name":"fovea_web"},"filenames":["/t/a.d","/t/a.wasm"]}"#;
        assert_eq!(wasm_of(artifact, "fovea_web"), Some(PathBuf::from("/t/a.wasm")));
        assert_eq!(wasm_of(artifact, "another"), None);
        assert_eq!(wasm_of(r#"{"reason":"build-finished","success":true}"#, "fovea_web"), None);
        assert_eq!(wasm_of("not JSON", "fovea_web"), None);
    }
}
