//! Runs `fovea`, and makes broken checkpoints for it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// The program with an empty standard input, and without a display or a runtime folder, as in a container.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fovea"));
    command.stdin(Stdio::null());
    for name in ["XDG_RUNTIME_DIR", "NODEVICE_SELECT", "DISPLAY", "WAYLAND_DISPLAY"] {
        command.env_remove(name);
    }
    command
}

/// The repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file or a folder of the fixtures, as an argument.
pub fn fixture(name: &str) -> String {
    repository().join("tests/fixtures").join(name).to_str().expect("a path in UTF-8").to_owned()
}

/// The result of a run.
pub struct Ran {
    what: String,
    output: Output,
}

/// Runs to the end.
pub fn fovea(args: &[&str]) -> Ran {
    let output = program().args(args).output().expect("the program to start");
    Ran { what: format!("fovea {}", args.join(" ").chars().take(200).collect::<String>()), output }
}

/// Runs on the CPU and expects success.
pub fn on_cpu(args: &[&str]) -> Ran {
    let ran = fovea(&[args, &["--device", "cpu"]].concat());
    ran.expect_code(0);
    ran
}

impl Ran {
    /// Checks the exit code; a signal gives none.
    pub fn expect_code(&self, code: i32) {
        let (got, stderr) = (self.output.status.code(), self.stderr());
        assert_eq!(got, Some(code), "{}: exit code (got, expected); stderr: {stderr}", self.what);
    }

    pub fn stdout(&self) -> &str {
        std::str::from_utf8(&self.output.stdout).unwrap_or_else(|e| panic!("{}: expected UTF-8, got {e}", self.what))
    }

    pub fn stderr(&self) -> &str {
        std::str::from_utf8(&self.output.stderr).unwrap_or_else(|e| panic!("{}: expected UTF-8, got {e}", self.what))
    }

    /// The one JSON object on stdout.
    pub fn json(&self) -> Value {
        let text = self.stdout();
        serde_json::from_str(text).unwrap_or_else(|e| panic!("{}: expected JSON, got {e} in {text}", self.what))
    }

    /// The line on stderr that begins so.
    pub fn line(&self, start: &str) -> &str {
        let mut lines = self.stderr().lines().filter(|line| line.starts_with(start));
        match (lines.next(), lines.next()) {
            (Some(line), None) => line,
            _ => panic!("{}: expected one line with {start:?}, got: {}", self.what, self.stderr()),
        }
    }

    /// Checks that an error is one line without a backtrace or a source file, and that stdout is empty.
    pub fn expect_error(&self, code: i32, words: &[&str]) {
        self.expect_code(code);
        assert_eq!(self.stdout(), "", "{}: stdout (got, expected)", self.what);
        let stderr = self.stderr();
        let (notes, errors): (Vec<&str>, Vec<&str>) = stderr.lines().partition(|line| line.starts_with("note: "));
        let [error] = errors.as_slice() else {
            panic!("{}: expected one line besides notes ({}), got: {stderr}", self.what, notes.len())
        };
        assert!(error.starts_with("fovea: "), "{}: expected a line that names the program, got: {error}", self.what);
        for word in ["panicked", "backtrace", "RUST_BACKTRACE", "src/"] {
            assert!(!error.contains(word), "{}: expected a sentence without {word:?}, got: {error}", self.what);
        }
        for word in words {
            assert!(error.contains(word), "{}: expected {word:?} in the sentence, got: {error}", self.what);
        }
    }
}

/// A copy of a fixture's checkpoint, to break.
pub struct Broken(TempDir);

impl Broken {
    /// An unbroken copy.
    pub fn copy(name: &str) -> Self {
        let copy = Self(tempfile::tempdir().expect("a temporary folder"));
        for entry in fs::read_dir(fixture(name)).expect("a fixture's folder") {
            let path = entry.expect("an entry").path();
            fs::copy(&path, copy.0.path().join(path.file_name().expect("a name"))).expect("a copied file");
        }
        copy
    }

    /// A folder with nothing in it.
    pub fn empty() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    /// Changes the bytes of a file.
    pub fn edit(self, file: &str, edit: impl FnOnce(&mut Vec<u8>)) -> Self {
        let path = self.0.path().join(file);
        let mut bytes = fs::read(&path).expect("a file to break");
        edit(&mut bytes);
        fs::write(&path, bytes).expect("a broken file");
        self
    }

    /// Gives a tensor of `model.safetensors` another name of the same length.
    pub fn rename(self, tensor: &str, other: &str) -> Self {
        assert_eq!(tensor.len(), other.len(), "expected names of one length");
        let quoted = format!("\"{tensor}\"");
        self.edit("model.safetensors", |bytes| {
            let at = bytes.windows(quoted.len()).position(|w| w == quoted.as_bytes()).expect("the tensor's name");
            bytes[at + 1..=other.len() + at].copy_from_slice(other.as_bytes());
        })
    }

    /// Sets one value of an F32 tensor of `model.safetensors`.
    pub fn set(self, tensor: &str, index: usize, value: f32) -> Self {
        self.edit("model.safetensors", |bytes| {
            let size = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
            let header: Value = serde_json::from_slice(&bytes[8..8 + size]).expect("a header");
            let entry = &header[tensor];
            assert_eq!(entry["dtype"], "F32", "{tensor}: dtype (got, expected)");
            let start = entry["data_offsets"][0].as_u64().expect("an offset") as usize;
            let at = 8 + size + start + 4 * index;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        })
    }

    /// The folder as an argument.
    pub fn path(&self) -> &str {
        self.0.path().to_str().expect("a path in UTF-8")
    }
}
