//! Reads, draws and saves pictures in a separate thread, so that the window never waits for a large picture.

use std::{
    borrow::Cow,
    fs,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use eframe::egui::ColorImage;
use fovea_model::{Looked, Picture, bicubic};

use crate::{examples::EXAMPLES, problem::Problem, session::Topic};

/// The source of a picture.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// A file's bytes: an example, or a dropped file without a path.
    Bytes {
        /// Its name.
        name: String,
        /// The file's contents.
        bytes: Cow<'static, [u8]>,
    },
    /// Pixels from the clipboard.
    Pixels(Arc<ColorImage>),
}

/// A job for the painter.
#[derive(Debug)]
pub enum Job {
    /// Read the examples and make thumbnails.
    Examples,
    /// Read a picture.
    Open(Origin),
    /// Draw the attention overlay on a picture. If several of these jobs are waiting, only the last one is done.
    Draw {
        /// The picture.
        picture: Arc<Picture>,
        /// The token selection.
        looked: Arc<Looked>,
    },
    /// Draw the attention overlay on a small picture, for an answer that is compared.
    Small {
        /// The picture.
        picture: Arc<Picture>,
        /// The token selection.
        looked: Arc<Looked>,
    },
    /// Save the picture with its overlay and legend, as `fovea ask --overlay` does.
    SavePng {
        /// The file to write.
        file: PathBuf,
        /// The picture.
        picture: Arc<Picture>,
        /// The token selection.
        looked: Arc<Looked>,
    },
    /// Save a text.
    SaveText {
        /// The file to write.
        file: PathBuf,
        /// The text.
        text: String,
    },
}

/// A result of the painter.
#[derive(Debug)]
pub enum Painted {
    /// A picture was read.
    Opened {
        /// Its name.
        name: String,
        /// Its file, if it has one.
        file: Option<PathBuf>,
        /// Its pixels.
        picture: Arc<Picture>,
        /// The same at the size of the texture.
        plain: ColorImage,
    },
    /// Index and thumbnail of an example.
    Example(usize, ColorImage),
    /// An overlay was drawn.
    Drawn(ColorImage),
    /// A small overlay of this token selection was drawn.
    Small(Arc<Looked>, ColorImage),
    /// A file was written.
    Saved(PathBuf),
    /// A job failed.
    Failed(Topic, Problem),
}

/// The window's handle to the painter.
pub struct Painter {
    jobs: Sender<Job>,
    painted: Receiver<Painted>,
}

impl Painter {
    /// Starts the thread. It calls `wake` after every result.
    pub fn start(wake: impl Fn() + Send + 'static) -> Self {
        let (job_in, job_out) = channel();
        let (painted_in, painted_out) = channel();
        // If the thread cannot be started, jobs have no result.
        let _ = thread::Builder::new().name("painter".into()).spawn(move || serve(&job_out, &painted_in, &wake));
        Self { jobs: job_in, painted: painted_out }
    }

    /// Sends a job.
    pub fn send(&self, job: Job) {
        // If the thread has ended, the window continues without pictures.
        let _ = self.jobs.send(job);
    }

    /// The results since the last call.
    pub fn painted(&self) -> impl Iterator<Item = Painted> {
        self.painted.try_iter()
    }
}

fn serve(jobs: &Receiver<Job>, painted: &Sender<Painted>, wake: &impl Fn()) {
    let send = |result| {
        // An error means that the window has closed.
        let _ = painted.send(result);
        wake();
    };
    while let Ok(first) = jobs.recv() {
        let mut waiting = vec![first];
        waiting.extend(jobs.try_iter());
        let last_drawing = waiting.iter().rposition(|job| matches!(job, Job::Draw { .. }));
        for (i, job) in waiting.into_iter().enumerate() {
            if matches!(job, Job::Draw { .. }) && last_drawing != Some(i) {
                continue;
            }
            let topic = match job {
                Job::Examples | Job::Open(_) => Topic::Picture,
                Job::Draw { .. } | Job::Small { .. } => Topic::Question,
                Job::SavePng { .. } | Job::SaveText { .. } => Topic::Saving,
            };
            if let Err(problem) = run(job, &send) {
                send(Painted::Failed(topic, problem));
            }
        }
    }
}

/// Height of an example's thumbnail in pixels.
const SMALL: usize = 132;
/// Longer side of a small overlay in pixels.
const COMPARED: usize = 320;

fn run(job: Job, send: &impl Fn(Painted)) -> Result<(), Problem> {
    let model = |error| Problem::of(&error);
    match job {
        Job::Examples => {
            for (index, example) in EXAMPLES.iter().enumerate() {
                let picture = Picture::decode(example.bytes).map_err(model)?;
                let width = (picture.width() * SMALL).div_ceil(picture.height());
                send(Painted::Example(index, image(&bicubic(&picture, width, SMALL).map_err(model)?)));
            }
        }
        Job::Open(origin) => {
            let (name, file, picture) = opened(origin)?;
            let plain = image(&fovea_overlay::plain(&picture).map_err(model)?);
            send(Painted::Opened { name, file, picture: Arc::new(picture), plain });
        }
        Job::Draw { picture, looked } => {
            send(Painted::Drawn(image(&fovea_overlay::bare(&picture, &looked).map_err(model)?)));
        }
        Job::Small { picture, looked } => {
            let drawn = fovea_overlay::bare(&picture, &looked).map_err(model)?;
            let longer = drawn.width().max(drawn.height());
            let [width, height] = [drawn.width(), drawn.height()].map(|side| (side * COMPARED).div_ceil(longer));
            send(Painted::Small(looked, image(&bicubic(&drawn, width, height).map_err(model)?)));
        }
        Job::SavePng { file, picture, looked } => {
            let drawn = fovea_overlay::draw(&picture, &looked).map_err(model)?;
            let png = fovea_overlay::png(&drawn).map_err(model)?;
            send(write(file, &png)?);
        }
        Job::SaveText { file, text } => send(write(file, text.as_bytes())?),
    }
    Ok(())
}

fn opened(origin: Origin) -> Result<(String, Option<PathBuf>, Picture), Problem> {
    let decoded = |bytes: &[u8]| Picture::decode(bytes).map_err(|error| Problem::of(&error));
    match origin {
        Origin::File(path) => {
            let name = path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into());
            let bytes = fs::read(&path).map_err(|why| {
                Problem::file(&format!("cannot read the picture {name}: {why}"), "Choose another picture.")
            })?;
            Ok((name, Some(path), decoded(&bytes)?))
        }
        Origin::Bytes { name, bytes } => Ok((name, None, decoded(&bytes)?)),
        Origin::Pixels(pixels) => {
            let rgb = pixels.pixels.iter().flat_map(|p| [p.r(), p.g(), p.b()]).collect();
            let picture = Picture::from_rgb(pixels.width(), pixels.height(), rgb);
            Ok(("Pasted picture".into(), None, picture.map_err(|error| Problem::of(&error))?))
        }
    }
}

fn image(picture: &Picture) -> ColorImage {
    ColorImage::from_rgb([picture.width(), picture.height()], picture.rgb())
}

fn write(file: PathBuf, bytes: &[u8]) -> Result<Painted, Problem> {
    match fs::write(&file, bytes) {
        Ok(()) => Ok(Painted::Saved(file)),
        Err(why) => {
            Err(Problem::file(&format!("cannot write {}: {why}", file.display()), "Choose another place to save."))
        }
    }
}
