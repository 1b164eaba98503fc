//! Input: a folder with a `questions.jsonl`. Output: pictures, each with its questions and right answers.

use std::{
    collections::HashMap,
    fs,
    path::{Component, Path, PathBuf},
};

use fovea_model::Picture;
use fovea_terminal::{failure::Failure, load, text};
use serde::{Deserialize, Serialize};

/// Longest `questions.jsonl` that is read, bytes.
const LONGEST: u64 = 64 << 20;

/// One line of `questions.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// The picture's file, within the folder.
    pub image: String,
    /// The question and its answer.
    #[serde(flatten)]
    pub asked: Asked,
}

/// A question about a picture.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asked {
    /// The question.
    pub question: String,
    /// The one right answer.
    pub answer: String,
    /// Its kind, for a score by kind.
    #[serde(default)]
    pub kind: String,
}

/// A picture and its questions. The picture is read or drawn each time it is needed, so that one is in memory at a time.
pub struct Sample {
    /// The picture's file, within the folder.
    pub name: String,
    /// Its questions.
    pub asked: Vec<Asked>,
    picture: Box<dyn Fn() -> Result<Picture, Failure>>,
}

impl Sample {
    /// A sample whose picture comes from `picture`.
    pub fn new(name: String, asked: Vec<Asked>, picture: impl Fn() -> Result<Picture, Failure> + 'static) -> Self {
        Self { name, asked, picture: Box::new(picture) }
    }

    /// The picture.
    ///
    /// # Errors
    /// Its file can't be read, or is no picture.
    pub fn picture(&self) -> Result<Picture, Failure> {
        (self.picture)()
    }
}

/// The file with a folder's questions.
pub fn list(dir: &Path) -> PathBuf {
    dir.join("questions.jsonl")
}

/// The pictures and questions of a folder. Lines about one picture need not be adjacent. Every picture is decoded once, so
/// that a broken one is found before hours of work.
///
/// # Errors
/// [`Failure::Questions`] with the line that is wrong.
pub fn folder(dir: &Path) -> Result<Vec<Sample>, Failure> {
    let file = list(dir);
    let broken = |why: String| Failure::Questions { file: file.display().to_string(), why };
    let found = fs::metadata(&file)
        .map_err(|e| broken(format!("{e}; expected a folder with pictures and a questions.jsonl")))?;
    if !found.is_file() || found.len() > LONGEST {
        return Err(broken(format!("expected a file of at most {LONGEST} bytes, got {}", found.len())));
    }
    let read = fs::read_to_string(&file).map_err(|e| broken(e.to_string()))?;
    let mut samples: Vec<Sample> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for (number, line) in
        read.trim_start_matches('\u{feff}').lines().enumerate().filter(|(_, line)| !line.trim().is_empty())
    {
        let line: Line = serde_json::from_str(line).map_err(|e| broken(format!("line {}: {e}", number + 1)))?;
        if line.asked.question.trim().is_empty() {
            return Err(broken(format!("line {}: expected a question, got an empty one", number + 1)));
        }
        let plain = Path::new(&line.image).components().all(|c| matches!(c, Component::Normal(_)));
        if !plain {
            return Err(broken(format!(
                "line {}: expected a picture within the folder, got {:?}",
                number + 1,
                line.image
            )));
        }
        let asked = Asked { kind: text::line(&line.asked.kind), ..line.asked };
        match known.get(&line.image) {
            Some(&index) => samples[index].asked.push(asked),
            None => {
                let file = dir.join(&line.image);
                let sample = Sample::new(line.image.clone(), vec![asked], move || load::picture(&file));
                sample.picture().map_err(|why| broken(format!("line {}: {why}", number + 1)))?;
                known.insert(line.image, samples.len());
                samples.push(sample);
            }
        }
    }
    if samples.is_empty() {
        return Err(broken("expected at least one question, got none".into()));
    }
    Ok(samples)
}
