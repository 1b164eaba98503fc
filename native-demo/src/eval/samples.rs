//! Enters: a seed, or a folder with a `questions.jsonl`. Leaves: pictures, each with its questions and right answers.

use std::{
    collections::HashMap,
    fs,
    path::{Component, Path, PathBuf},
};

use fovea_model::Picture;
use fovea_scenes::{Scene, Split};
use serde::{Deserialize, Serialize};

use crate::{failure::Failure, load, output::Output, text};

/// Longest `questions.jsonl` that is read, bytes.
const LONGEST: u64 = 64 << 20;

/// One line of `questions.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// The picture's file, within the folder.
    pub image: String,
    /// The question.
    pub question: String,
    /// The one right answer.
    pub answer: String,
    /// What kind of question it is.
    #[serde(default)]
    pub kind: String,
}

/// A question about a picture.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The question.
    pub question: String,
    /// The right answer.
    pub answer: String,
    /// Its kind.
    pub kind: String,
    /// The object that is asked about, by index, where the picture is a scene.
    pub target: Option<usize>,
}

/// A picture and what is asked about it. The picture is drawn or read when it is needed: one at a time is in memory.
pub struct Sample {
    /// Its file, where it has one.
    file: Option<PathBuf>,
    /// Its questions.
    pub asked: Vec<Asked>,
    /// The scene that it was drawn from, where it was.
    pub scene: Option<Scene>,
}

impl Sample {
    /// The picture.
    ///
    /// # Errors
    /// Where its file can't be read, or is no picture.
    pub fn picture(&self) -> Result<Picture, Failure> {
        match (&self.file, &self.scene) {
            (Some(file), _) => load::picture(file),
            (None, Some(scene)) => {
                let picture = scene.picture();
                let (width, height) = (picture.width() as usize, picture.height() as usize);
                Ok(Picture::from_rgb(width, height, picture.as_raw().clone())?)
            }
            (None, None) => Err(Failure::Panic("a sample without a picture".into())),
        }
    }
}

/// `count` held-out scenes from `seed` on, one question of each kind that a scene offers.
pub fn scenes(seed: u64, count: usize) -> Result<Vec<Sample>, Failure> {
    (0..count as u64)
        .map(|i| {
            let scene = Scene::new(Split::HeldOut, seed.wrapping_add(i));
            let asked = scene.one_of_each().into_iter();
            let asked = asked
                .map(|q| Asked {
                    target: q.target(),
                    question: q.question,
                    answer: q.answer,
                    kind: q.kind.name().to_owned(),
                })
                .collect();
            Ok(Sample { file: None, asked, scene: Some(scene) })
        })
        .collect()
}

/// The file with a folder's questions.
pub fn list(dir: &Path) -> PathBuf {
    dir.join("questions.jsonl")
}

/// The pictures and questions of a folder. Lines about one picture need not be neighbours. Every picture is decoded once and
/// dropped again, so that a broken one is found before hours of work.
pub fn folder(dir: &Path) -> Result<Vec<Sample>, Failure> {
    let file = list(dir);
    let broken = |why: String| Failure::Questions { file: file.display().to_string(), why };
    let found = fs::metadata(&file).map_err(|e| broken(e.to_string()))?;
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
        if line.question.trim().is_empty() {
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
        let kind = text::line(&line.kind);
        let asked = Asked { question: line.question, answer: line.answer, kind, target: None };
        match known.get(&line.image) {
            Some(&index) => samples[index].asked.push(asked),
            None => {
                let sample = Sample { file: Some(dir.join(&line.image)), asked: vec![asked], scene: None };
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

/// Writes `count` held-out scenes from `seed` on as PNG files, and their questions.
pub fn write(seed: u64, count: usize, dir: &Path) -> Result<(), Failure> {
    let failed = |file: &Path, why: std::io::Error| Failure::Write { file: file.display().to_string(), why };
    fs::create_dir_all(dir).map_err(|e| failed(dir, e))?;
    let list = list(dir);
    if list.exists() {
        let list = list.display();
        return Err(Failure::Usage(format!("{list} is there already; choose another folder, or delete it first")));
    }
    let output = Output::new(&list, &[])?;
    let mut lines = String::new();
    for i in 0..count as u64 {
        let index = seed.wrapping_add(i);
        let scene = Scene::new(Split::HeldOut, index);
        let image = format!("scene-{index}.png");
        let file = dir.join(&image);
        scene.picture().save(&file).map_err(|e| failed(&file, std::io::Error::other(e)))?;
        for q in scene.one_of_each() {
            let kind = q.kind.name().to_owned();
            let line = Line { image: image.clone(), question: q.question, answer: q.answer, kind };
            let line = serde_json::to_string(&line).map_err(|e| failed(&list, e.into()))?;
            lines += &line;
            lines.push('\n');
        }
    }
    output.write(lines.as_bytes())
}
