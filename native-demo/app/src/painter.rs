//! Reads, draws and saves pictures in a thread of its own, so that the window never waits for a large one.

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
use fovea_model::{Looked, Picture, bicubic, overlay};

use crate::{examples::EXAMPLES, problem::Problem};

/// Where a picture comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// A file's bytes: dropped without a path, or an example.
    Bytes {
        /// What it is called.
        name: String,
        /// The file.
        bytes: Cow<'static, [u8]>,
    },
    /// Pixels, as a clipboard has them.
    Pixels(Arc<ColorImage>),
}

/// What the painter is told.
#[derive(Debug)]
pub enum Job {
    /// Read the examples, small.
    Examples,
    /// Read a picture.
    Open(Origin),
    /// Draw what was looked at over a picture; several of these become the last.
    Draw {
        /// The picture.
        picture: Arc<Picture>,
        /// What was looked at.
        looked: Arc<Looked>,
    },
    /// Write the drawing, legend and all, as `fovea ask --overlay` does.
    SavePng {
        /// Where.
        file: PathBuf,
        /// The picture.
        picture: Arc<Picture>,
        /// What was looked at.
        looked: Arc<Looked>,
    },
    /// Write text.
    SaveText {
        /// Where.
        file: PathBuf,
        /// What.
        text: String,
    },
}

/// What the painter tells.
#[derive(Debug)]
pub enum Painted {
    /// A picture was read.
    Opened {
        /// What it is called.
        name: String,
        /// Its file, where it has one.
        file: Option<PathBuf>,
        /// Its pixels.
        picture: Arc<Picture>,
        /// The same in the size that it is drawn in.
        plain: ColorImage,
    },
    /// An example of this index, small.
    Example(usize, ColorImage),
    /// A drawing is there.
    Drawn(ColorImage),
    /// A file was written.
    Saved(PathBuf),
    /// A job ended without its result.
    Failed(Problem),
}

/// The window's end.
pub struct Painter {
    jobs: Sender<Job>,
    painted: Receiver<Painted>,
}

impl Painter {
    /// Starts the thread; `wake` is called after every result.
    pub fn start(wake: impl Fn() + Send + 'static) -> Self {
        let (job_in, job_out) = channel();
        let (painted_in, painted_out) = channel();
        // Without a thread the jobs' receiver is gone, and jobs have no result.
        let _ = thread::Builder::new().name("painter".into()).spawn(move || serve(&job_out, &painted_in, &wake));
        Self { jobs: job_in, painted: painted_out }
    }

    /// Tells it to do something.
    pub fn send(&self, job: Job) {
        // A thread that is gone paints nothing, and the window goes on without.
        let _ = self.jobs.send(job);
    }

    /// What has been done since the last call.
    pub fn painted(&self) -> impl Iterator<Item = Painted> {
        self.painted.try_iter()
    }
}

fn serve(jobs: &Receiver<Job>, painted: &Sender<Painted>, wake: &impl Fn()) {
    let tell = |what| {
        // A window that has closed looks at nothing more.
        let _ = painted.send(what);
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
            if let Err(problem) = done(job, &tell) {
                tell(Painted::Failed(problem));
            }
        }
    }
}

/// Height of a small picture.
const SMALL: usize = 132;

fn done(job: Job, tell: &impl Fn(Painted)) -> Result<(), Problem> {
    let model = |error| Problem::of(&error);
    match job {
        Job::Examples => {
            for (index, example) in EXAMPLES.iter().enumerate() {
                let picture = Picture::decode(example.bytes).map_err(model)?;
                let width = (picture.width() * SMALL).div_ceil(picture.height());
                tell(Painted::Example(index, image(&bicubic(&picture, width, SMALL).map_err(model)?)));
            }
        }
        Job::Open(origin) => {
            let (name, file, picture) = opened(origin)?;
            let plain = image(&overlay::plain(&picture).map_err(model)?);
            tell(Painted::Opened { name, file, picture: Arc::new(picture), plain });
        }
        Job::Draw { picture, looked } => {
            tell(Painted::Drawn(image(&overlay::bare(&picture, &looked).map_err(model)?)));
        }
        Job::SavePng { file, picture, looked } => {
            let png = overlay::draw(&picture, &looked).and_then(|drawn| overlay::png(&drawn)).map_err(model)?;
            tell(write(file, &png)?);
        }
        Job::SaveText { file, text } => tell(write(file, text.as_bytes())?),
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
