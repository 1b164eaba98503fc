//! `fovea-lab scenes`: held-out scenes as PNG files with a `questions.jsonl`; the same scenes as samples for `eval`.

use std::{fs, io, path::PathBuf, rc::Rc};

use clap::Args;
use fovea_eval::samples::{self, Asked, Line, Sample};
use fovea_model::Picture;
use fovea_scenes::{Question, Scene, Split};
use fovea_terminal::{failure::Failure, options, output::Output, text};

/// `fovea-lab scenes`.
#[derive(Args)]
pub struct ScenesArgs {
    /// The first held-out scene.
    #[arg(
        long,
        value_name = "S",
        default_value_t = 0,
        value_parser = options::whole::<u64>,
        allow_negative_numbers = true
    )]
    seed: u64,
    /// Number of scenes.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = options::count, allow_negative_numbers = true)]
    count: usize,
    /// The folder for pictures and `questions.jsonl`.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Where the questions of an evaluation come from.
#[derive(Args)]
pub struct Questions {
    /// A folder with pictures and a `questions.jsonl`, one {"image", "question", "answer", "kind"} per line; without it,
    /// held-out scenes.
    pub dir: Option<PathBuf>,
    /// The first held-out scene.
    #[arg(
        long,
        value_name = "S",
        default_value_t = 0,
        value_parser = options::whole::<u64>,
        allow_negative_numbers = true,
        conflicts_with = "dir"
    )]
    seed: u64,
    /// Number of held-out scenes.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100,
        value_parser = options::count,
        allow_negative_numbers = true,
        conflicts_with = "dir"
    )]
    scenes: usize,
}

impl Questions {
    /// Their source in words, the samples, and what is known of scenes: nothing for a folder.
    ///
    /// # Errors
    /// [`Failure::Questions`] for a broken folder.
    pub fn samples(&self) -> Result<(String, Vec<Sample>, Vec<Drawn>), Failure> {
        if let Some(dir) = &self.dir {
            return Ok((dir.display().to_string(), samples::folder(dir)?, Vec::new()));
        }
        let last = self.seed.wrapping_add(self.scenes as u64 - 1);
        let (samples, drawn) = held_out(self.seed, self.scenes);
        Ok((format!("held-out scenes {} to {last}", self.seed), samples, drawn))
    }
}

/// A scene, and the objects that its questions are about.
pub struct Drawn {
    /// The scene.
    pub scene: Rc<Scene>,
    /// For each question the index of its one object. None: it is about several.
    pub targets: Vec<Option<usize>>,
}

fn asked(q: Question) -> Asked {
    Asked { question: q.question, answer: q.answer, kind: q.kind.name().to_owned() }
}

/// The file name of a scene's picture.
fn file_name(index: u64) -> String {
    format!("scene-{index}.png")
}

/// `count` held-out scenes from `seed` on, with one question of each kind.
pub fn held_out(seed: u64, count: usize) -> (Vec<Sample>, Vec<Drawn>) {
    let scene = |i: u64| {
        let index = seed.wrapping_add(i);
        let scene = Rc::new(Scene::new(Split::HeldOut, index));
        let questions = scene.one_of_each();
        let targets = questions.iter().map(Question::target).collect();
        let drawn = scene.clone();
        let picture = move || -> Result<Picture, Failure> {
            let rgb = drawn.picture();
            Ok(Picture::from_rgb(rgb.width() as usize, rgb.height() as usize, rgb.as_raw().clone())?)
        };
        let asked = questions.into_iter().map(asked).collect();
        (Sample::new(file_name(index), asked, picture), Drawn { scene, targets })
    };
    (0..count as u64).map(scene).unzip()
}

/// Writes the scenes.
pub fn run(args: &ScenesArgs) -> Result<(), Failure> {
    let dir = &args.out;
    let failed = |file: &PathBuf, why: io::Error| Failure::Write { file: file.display().to_string(), why };
    fs::create_dir_all(dir).map_err(|e| failed(dir, e))?;
    let list = samples::list(dir);
    if list.exists() {
        let list = list.display();
        return Err(Failure::Usage(format!("{list} exists already; choose another folder, or delete the file first")));
    }
    let output = Output::new(&list, &[])?;
    let mut lines = String::new();
    for i in 0..args.count as u64 {
        let index = args.seed.wrapping_add(i);
        let scene = Scene::new(Split::HeldOut, index);
        let image = file_name(index);
        let file = dir.join(&image);
        scene.picture().save(&file).map_err(|e| failed(&file, io::Error::other(e)))?;
        for question in scene.one_of_each() {
            let line = Line { image: image.clone(), asked: asked(question) };
            lines += &serde_json::to_string(&line).map_err(|e| failed(&list, e.into()))?;
            lines.push('\n');
        }
    }
    output.write(lines.as_bytes())?;
    let (scenes, questions) = (text::counted(args.count, "scene"), text::counted(lines.lines().count(), "question"));
    text::note(&format!("wrote {}: {scenes}, {questions}", text::line(&dir.display().to_string())));
    Ok(())
}
