//! `fovea-lab train`: trains, and writes to its folder the state, a log (`log.csv`) and curves of it (`curves.svg`).

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use fovea_runtime::OpenDevice;
use fovea_scenes::Kind;
use fovea_terminal::{failure::Failure, load, options, output::Output, text};
use fovea_train::{Stage, Step, TrainConfig, Trainer};

use crate::chart::{self, Panel, Series, Style};

/// Steps per line on stderr and per row of the log, which are their means.
const WINDOW: usize = 50;

/// `fovea-lab train`.
#[derive(Args)]
pub struct TrainArgs {
    /// The run as JSON: model, seed and stages.
    config: PathBuf,
    /// The folder for the run's state and log.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Also write a checkpoint in the published layout whenever the state is saved.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// auto, cpu, wgpu, wgpu:N, wgpu:NAME, cuda or cuda:N; or libtorch, where the build has it.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Minutes between two saved states.
    #[arg(long, value_name = "M", default_value_t = 3.0, allow_negative_numbers = true)]
    every: f64,
    /// Stop after this many steps, with a saved state.
    #[arg(long, value_name = "N", value_parser = options::count, allow_negative_numbers = true)]
    steps: Option<usize>,
}

/// Trains until the end of the last stage, `--steps` or Ctrl-C.
pub async fn run(args: TrainArgs) -> Result<(), Failure> {
    let config = TrainConfig::read(&args.config)?;
    if let Some(out) = &args.out {
        // Before anything runs: a folder that can't be written is found now, not at the first save.
        fs::create_dir_all(out).map_err(|why| Failure::Write { file: out.display().to_string(), why })?;
        drop(Output::new(&out.join("config.json"), &[])?);
    }
    let device = match args.device.as_str() {
        #[cfg(feature = "libtorch")]
        "libtorch" => fovea_train::libtorch(),
        choice => OpenDevice::open(&options::device(choice).map_err(Failure::Usage)?).await?.device,
    };
    let mut trainer = Trainer::open(config, &args.dir, device).await?;
    if trainer.begun_at_random() > 0 {
        text::note(&format!(
            "{} tensors are not in the file to start from, and start with random values",
            trainer.begun_at_random()
        ));
    }
    let cancel = load::interruptible();
    let minutes = if args.every.is_nan() { 0.05 } else { args.every.clamp(0.05, 1e6) };
    let every = Duration::from_secs_f64(minutes * 60.0);
    let (mut saved, mut steps) = (Instant::now(), 0);
    if let Some(next) = trainer.next() {
        forget(&args.dir, trainer.stages(), next)?;
    }
    let mut recent = Recent::new();
    while let Some(step) = trainer.step().await? {
        steps += 1;
        recent.add(step);
        let ended = trainer.next().is_none_or(|(_, step)| step == 0);
        let stop = cancel.is_cancelled() || args.steps.is_some_and(|most| steps >= most);
        if recent.count == WINDOW || ended || stop {
            recent.report(trainer.stages(), &args.dir)?;
            recent = Recent::new();
        }
        if stop || ended || saved.elapsed() > every {
            trainer.save()?;
            if let Some(out) = &args.out {
                trainer.export(out).await?;
            }
            curves(&args.dir)?;
            saved = Instant::now();
        }
        if stop {
            break;
        }
    }
    if let (0, Some(out)) = (steps, &args.out) {
        trainer.export(out).await?;
    }
    Ok(())
}

/// Sums over the last steps.
struct Recent {
    since: Instant,
    count: usize,
    last: Step,
    /// Answers, dense, balance, hint, look, norm, kept: sum and count.
    sums: [(f64, f64); 7],
    scales: Vec<f64>,
    labels: [(usize, usize); 4],
    kinds: Vec<(usize, usize)>,
}

/// The panels of the curves: title, and columns of the log.
const PANELS: [(&str, &[&str]); 4] = [
    ("losses", &["answers", "dense", "hint", "look"]),
    ("dense labels right, %", &["kind_label", "color_label", "number_label", "word_label"]),
    ("answers right, %", &["number", "word", "whose", "color", "shape", "count", "exist"]),
    ("balance loss, share kept", &["balance", "kept"]),
];

/// Removes rows from the log whose steps a killed run did not save, and which will be repeated.
fn forget(dir: &Path, stages: &[Stage], (stage, step): (usize, usize)) -> Result<(), Failure> {
    let file = dir.join("log.csv");
    let Ok(log) = fs::read_to_string(&file) else { return Ok(()) };
    let saved = |line: &&str| {
        let mut cells = line.split(',');
        let (name, at) = (cells.next(), cells.next().and_then(|at| at.parse::<usize>().ok()));
        let Some(index) = stages.iter().position(|s| Some(s.name.as_str()) == name) else {
            return name == Some("stage");
        };
        index < stage || index == stage && at.is_some_and(|at| at <= step)
    };
    let kept: String = log.lines().filter(saved).map(|line| line.to_owned() + "\n").collect();
    Output::new(&file, &[])?.write(kept.as_bytes())
}

/// Draws the log: one point per row. Steps are counted over all stages.
fn curves(dir: &Path) -> Result<(), Failure> {
    let Ok(log) = fs::read_to_string(dir.join("log.csv")) else { return Ok(()) };
    let mut lines = log.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let Some(head) = lines.next() else { return Ok(()) };
    let (mut rows, mut before, mut last) = (Vec::new(), 0.0, ("", 0.0));
    for row in lines.filter(|row| row.len() == head.len()) {
        let step: f64 = row[1].parse().unwrap_or(0.0);
        if row[0] != last.0 {
            before += last.1;
        }
        last = (row[0], step);
        rows.push((before + step, row));
    }
    let series = |name: &&str| {
        let at = head.iter().position(|h| h == name);
        let point = |(x, row): &(f64, Vec<&str>)| Some((*x, row.get(at?)?.parse().ok()?));
        Series { name: (*name).to_owned(), points: rows.iter().filter_map(point).collect(), errors: Vec::new() }
    };
    let panel = |(title, names): (&str, &[&str])| Panel {
        title: title.to_owned(),
        x_label: "step".to_owned(),
        style: Style::Lines,
        series: names.iter().map(series).filter(|s| !s.points.is_empty()).collect(),
    };
    let panels: Vec<Panel> = PANELS.map(panel).into_iter().filter(|p| !p.series.is_empty()).collect();
    if panels.is_empty() {
        return Ok(());
    }
    Output::new(&dir.join("curves.svg"), &[])?.write(chart::svg(&panels)?.as_bytes())
}

fn percent((right, all): (usize, usize)) -> String {
    if all == 0 { String::new() } else { format!("{:.1}", 100.0 * right as f64 / all as f64) }
}

impl Recent {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            count: 0,
            last: Step::default(),
            sums: [(0.0, 0.0); 7],
            scales: Vec::new(),
            labels: [(0, 0); 4],
            kinds: vec![(0, 0); Kind::ALL.len()],
        }
    }

    fn add(&mut self, step: Step) {
        let values = [step.answers, step.dense, step.balance, step.hint, step.look, Some(step.norm), step.kept];
        for (sum, value) in self.sums.iter_mut().zip(values) {
            if let Some(value) = value {
                *sum = (sum.0 + value, sum.1 + 1.0);
            }
        }
        self.scales.resize(step.scales.len(), 0.0);
        self.scales.iter_mut().zip(&step.scales).for_each(|(sum, v)| *sum += v);
        let add = |sum: &mut (usize, usize), v: &(usize, usize)| *sum = (sum.0 + v.0, sum.1 + v.1);
        self.labels.iter_mut().zip(&step.labels).for_each(|(sum, v)| add(sum, v));
        self.kinds.iter_mut().zip(&step.kinds).for_each(|(sum, v)| add(sum, v));
        self.count += 1;
        self.last = step;
    }

    /// Writes a note to stderr and one row to the log.
    fn report(&self, stages: &[Stage], dir: &Path) -> Result<(), Failure> {
        let stage = &stages[self.last.stage];
        let rate = self.count as f64 / self.since.elapsed().as_secs_f64();
        let mean = |(sum, n): (f64, f64)| if n > 0.0 { format!("{:.4}", sum / n) } else { String::new() };
        let means = self.sums.map(mean);
        let left: usize = stage.steps.saturating_sub(self.last.step + 1)
            + stages[self.last.stage + 1..].iter().map(|s| s.steps).sum::<usize>();
        let scales: Vec<String> = self.scales.iter().map(|s| format!("{:.2}", s / self.count as f64)).collect();
        let labels = self.labels.map(percent);
        let kinds: Vec<String> = self.kinds.iter().map(|k| percent(*k)).collect();
        let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        let minutes = (left as f64 / rate / 60.0).ceil();
        // What the stage does not measure has no value.
        let named = |names: &[&str], values: &[String]| {
            let pairs = names.iter().zip(values).filter(|(_, value)| !value.is_empty());
            pairs.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(" ")
        };
        let mut parts = vec![
            format!("{} {}/{}", stage.name, self.last.step + 1, stage.steps),
            format!("{:.1}/s, about {minutes} min left", rate * stage.batch as f64),
            named(
                &["answers", "dense", "hint", "look", "norm", "kept"],
                &[0, 1, 3, 4, 5, 6].map(|i: usize| means[i].clone()),
            ),
            named(&["scales"], &[scales.join(" ")]),
            named(&["kind label", "color label", "number label", "word label"], &labels),
            named(&names, &kinds),
        ];
        parts.retain(|part| !part.is_empty());
        text::note(&text::wrapped(&parts));
        let file = dir.join("log.csv");
        let failed = |why| Failure::Write { file: file.display().to_string(), why };
        let fresh = !file.exists();
        let mut log = OpenOptions::new().create(true).append(true).open(&file).map_err(failed)?;
        if fresh {
            let head =
                "stage,step,answers,dense,balance,hint,look,norm,kept,kind_label,color_label,number_label,word_label";
            writeln!(log, "{head},{},scales", names.join(",")).map_err(failed)?;
        }
        writeln!(
            log,
            "{},{},{},{},{},{}",
            stage.name,
            self.last.step + 1,
            means.join(","),
            labels.join(","),
            kinds.join(","),
            scales.join(" ")
        )
        .map_err(failed)
    }
}
