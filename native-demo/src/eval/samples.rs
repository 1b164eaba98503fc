//! Enters: a seed, or a folder with a `questions.jsonl`. Leaves: pictures, each with its questions and right answers.

use std::{
    collections::HashMap,
    fs,
    io::Write,
    path::{Component, Path},
};

use fovea_model::Picture;
use fovea_scenes::{Scene, Split};
use serde::{Deserialize, Serialize};

use crate::{failure::Failure, load, text};

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

/// A picture and what is asked about it.
pub struct Sample {
    /// The picture.
    pub picture: Picture,
    /// Its questions.
    pub asked: Vec<Asked>,
    /// The scene that it was drawn from, where it was.
    pub scene: Option<Scene>,
}

/// `count` held-out scenes from `seed` on, one question of each kind that a scene offers.
pub fn scenes(seed: u64, count: usize) -> Result<Vec<Sample>, Failure> {
    (0..count as u64)
        .map(|i| {
            let scene = Scene::new(Split::HeldOut, seed.wrapping_add(i));
            let picture = scene.picture();
            let (width, height) = (picture.width() as usize, picture.height() as usize);
            let picture = Picture::from_rgb(width, height, picture.as_raw().clone())?;
            let asked = scene.one_of_each().into_iter();
            let asked = asked
                .map(|q| Asked {
                    target: q.target(),
                    question: q.question,
                    answer: q.answer,
                    kind: q.kind.name().to_owned(),
                })
                .collect();
            Ok(Sample { picture, asked, scene: Some(scene) })
        })
        .collect()
}

/// The pictures and questions of a folder. Lines about one picture need not be neighbours.
pub fn folder(dir: &Path) -> Result<Vec<Sample>, Failure> {
    let file = dir.join("questions.jsonl");
    let broken = |why: String| Failure::Questions { file: file.display().to_string(), why };
    let found = fs::metadata(&file).map_err(|e| broken(e.to_string()))?;
    if !found.is_file() || found.len() > LONGEST {
        return Err(broken(format!("expected a file of at most {LONGEST} bytes, got {}", found.len())));
    }
    let read = fs::read_to_string(&file).map_err(|e| broken(e.to_string()))?;
    let mut samples: Vec<Sample> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for (number, line) in read.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line: Line = serde_json::from_str(line).map_err(|e| broken(format!("line {}: {e}", number + 1)))?;
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
                let picture = load::picture(&dir.join(&line.image))?;
                known.insert(line.image, samples.len());
                samples.push(Sample { picture, asked: vec![asked], scene: None });
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
    let list = dir.join("questions.jsonl");
    let mut lines = fs::File::create(&list).map_err(|e| failed(&list, e))?;
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
            writeln!(lines, "{line}").map_err(|e| failed(&list, e))?;
        }
    }
    Ok(())
}
