//! The same model, picture and question in PyTorch eager, through `benches/reference/pytorch_eager.py`.

use std::{
    error::Error,
    path::Path,
    process::{Command, Stdio},
};

use fovea_overlay::png;
use serde_json::{Value, json};

use crate::picture::picture;

/// The question.
pub const QUESTION: &str = "What number is on the shirt of the person in the middle, and which colour has the shirt?";

/// Milliseconds per stage, from one run with two threads.
pub fn run(python: &Path, model: &Path, mode: &str, new_tokens: usize) -> Result<Value, Box<dyn Error>> {
    let image = std::env::temp_dir().join("fovea-benches.png");
    std::fs::write(&image, png(&picture()?)?)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/pytorch_eager.py");
    let output = Command::new(python)
        .arg(script)
        .args(["--question", QUESTION, "--mode", mode, "--new", &new_tokens.to_string(), "--repeat", "1", "--json"])
        .arg("--model")
        .arg(model)
        .arg("--image")
        .arg(&image)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("pytorch_eager.py failed ({}): see its output above", output.status).into());
    }
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let stages = ["image", "vision", "sampler", "prefill", "decode", "total"];
    let ms = stages.map(|s| (s.to_owned(), json!(report[format!("{s}_s")].as_f64().map(|v| v * 1e3))));
    Ok(Value::Object(ms.into_iter().collect()))
}
