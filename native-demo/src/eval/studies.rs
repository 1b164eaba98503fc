//! Enters: a model and samples. Leaves: the paper's other tables and figures on them: what one setting does.

use std::sync::Arc;

use clap::ValueEnum;
use fovea_model::{AskOptions, Cancel, Error, Model};
use fovea_runtime::Keep;
use serde::Serialize;

use super::{
    maps,
    modes::{self, Mode, Row},
    samples::Sample,
    score::Compare,
};
use crate::{
    chart::{self, Chart, Series},
    failure::Failure,
};

/// What is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Study {
    /// The text-guided sampler's threshold.
    Gamma,
    /// The layer whose input it prunes: Fig. 2.
    Layers,
    /// A fixed share of the visual tokens instead of the threshold: 100, 80, 60, 40, 20 %.
    ///
    /// The paper's Table 7 sets its budgets by a heuristic that its supplement describes (Sec. 6). That text was not
    /// available; these are fixed shares of what the vision-guided sampler leaves, the most important tokens of them.
    Budget,
    /// The scales that the vision-guided sampler picks, picture by picture: Fig. 3.
    Scales,
    /// Scales drawn evenly instead of selected, from three seeds, and every token: Table 6. The text-guided sampler is
    /// off.
    Sampler,
    /// Where the importance of each layer lies, and the first picture's as heat: Fig. 5 and 10.
    Maps,
}

impl Study {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gamma => "gamma",
            Self::Layers => "layers",
            Self::Budget => "budget",
            Self::Scales => "scales",
            Self::Sampler => "sampler",
            Self::Maps => "maps",
        }
    }
}

/// One setting's numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// The setting.
    pub setting: String,
    /// What came of it.
    pub values: Vec<(String, f64)>,
}

/// What came of a study.
pub enum Studied {
    /// One row a setting, and the figure.
    Rows(Vec<Found>, Chart),
    /// A table as that of the samplers.
    Table(Vec<Row>),
}

/// Runs a study.
pub async fn run(
    study: Study,
    model: &Arc<Model>,
    samples: &[Sample],
    compare: Compare,
    timed: usize,
    cancel: &Cancel,
    progress: impl FnMut(usize, usize),
) -> Result<Studied, Failure> {
    let max_new_tokens = modes::longest(samples, compare);
    let with = |keep: Option<Keep>, layer: Option<usize>, text: bool| AskOptions {
        text: Some(text),
        keep,
        layer,
        max_new_tokens,
        cancel: cancel.clone(),
        ..AskOptions::default()
    };
    let (label, settings): (&str, Vec<(f64, AskOptions)>) = match study {
        Study::Gamma => {
            let all = [0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0];
            ("gamma", all.map(|g| (g, with(Some(Keep::Gamma(g)), None, true))).to_vec())
        }
        Study::Layers => {
            let all = 0..model.config().text.n_layers;
            ("layer", all.map(|l| (l as f64, with(None, Some(l), true))).collect())
        }
        Study::Budget => {
            let all = [1.0, 0.8, 0.6, 0.4, 0.2];
            ("share kept", all.map(|r| (r, with(Some(Keep::Ratio(r)), None, true))).to_vec())
        }
        Study::Scales => ("", vec![(0.0, with(None, None, false))]),
        Study::Sampler => {
            if !model.has_selector() {
                let expected = "a checkpoint with a scale selector for `sampler`".to_owned();
                return Err(Error::Option { option: "study", expected, got: "one without".into() }.into());
            }
            let modes = modes::choosers(max_new_tokens, cancel);
            return Ok(Studied::Table(modes::run(model, samples, &modes, compare, timed, progress).await?.0));
        }
        Study::Maps => return maps::run(model, samples, cancel, progress).await,
    };
    let modes: Vec<Mode> =
        settings.iter().map(|(x, options)| Mode { name: format!("{label} {x}"), options: options.clone() }).collect();
    let timed = if study == Study::Scales { 1 } else { timed };
    let (rows, answers) = modes::run(model, samples, &modes, compare, timed, progress).await?;
    if study == Study::Scales {
        return scales(&answers[0], model);
    }
    let line = |name: &str, right_axis, of: &dyn Fn(&Row) -> f64| Series {
        name: name.to_owned(),
        points: settings.iter().zip(&rows).map(|((x, _), row)| (*x, of(row))).collect(),
        right_axis,
    };
    let series = [
        line("right answers, %", false, &|r| 100.0 * r.exact_match),
        line("equivalent tokens, %", false, &|r| 100.0 * r.equivalent_share),
        line("samples/s", true, &|r| r.samples_per_s),
    ];
    let title = format!("Right answers, tokens and speed by {label}");
    let chart = chart::lines(&title, label, "%", Some("samples/s"), &series).map_err(Failure::Chart)?;
    let found = rows.iter().map(|r| Found {
        setting: r.mode.clone(),
        values: vec![
            ("exact_match".into(), r.exact_match),
            ("standard_error".into(), r.standard_error),
            ("equivalent_share".into(), r.equivalent_share),
            ("samples_per_s".into(), r.samples_per_s),
        ],
    });
    Ok(Studied::Rows(found.collect(), chart))
}

fn scales(answers: &[modes::Answer], model: &Model) -> Result<Studied, Failure> {
    let names: Vec<String> = model.config().focus.scales.iter().map(|s| format!("{}x{}", s.rows, s.cols)).collect();
    let mut rows: Vec<Found> = Vec::new();
    let mut last = None;
    for answer in answers.iter().filter(|a| last.replace(a.sample) != Some(a.sample)) {
        let choice = &answer.turn.looked.choice;
        let share = |i| choice.iter().filter(|&&c| c == i).count() as f64 / choice.len().max(1) as f64;
        let values = names.iter().enumerate().map(|(i, name)| (name.clone(), share(i))).collect();
        rows.push(Found { setting: answer.sample.to_string(), values });
    }
    let shown = &rows[..rows.len().min(24)];
    let categories: Vec<String> = shown.iter().map(|r| r.setting.clone()).collect();
    let part = |(i, name): (usize, &String)| (name.clone(), shown.iter().map(|r| r.values[i].1).collect());
    let parts: Vec<(String, Vec<f64>)> = names.iter().enumerate().map(part).collect();
    let chart = chart::stacked_bars("Scales by picture", "share of the regions", &categories, &parts);
    Ok(Studied::Rows(rows, chart.map_err(Failure::Chart)?))
}
