//! Input: samples. Output: rows and a figure for one setting that is varied: the paper's Fig. 2 and 3, Tables 6 and 7.

use std::collections::BTreeMap;

use fovea_eval::{
    Evaluation,
    modes::{Mode, Row},
};
use fovea_model::{AskOptions, Before, Compression, Conversation, Error, TextGuided, Within};
use fovea_runtime::{Keep, Scale};
use fovea_terminal::failure::Failure;

use super::study::Found;
use crate::{
    chart::{self, Panel, Series, Style},
    scenes::Drawn,
};

/// Most pictures in the figure of [`scales`].
const PICTURES: usize = 24;

/// The text-guided sampler's threshold.
pub async fn gamma(evaluation: &Evaluation) -> Result<(Vec<Found>, String), Failure> {
    let all = [0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0];
    sweep(evaluation, "gamma", all.map(|g| (g, Some(Keep::Gamma(g)), None)).to_vec()).await
}

/// The layer whose input is pruned.
pub async fn layers(evaluation: &Evaluation) -> Result<(Vec<Found>, String), Failure> {
    let all = 0..evaluation.model.config().text.n_layers;
    sweep(evaluation, "layer", all.map(|layer| (layer as f64, None, Some(layer))).collect()).await
}

/// The share of the visual tokens that is kept.
pub async fn budget(evaluation: &Evaluation) -> Result<(Vec<Found>, String), Failure> {
    let all = [1.0, 0.8, 0.6, 0.4, 0.2];
    sweep(evaluation, "share kept", all.map(|share| (share, Some(Keep::Ratio(share)), None)).to_vec()).await
}

/// One row per value of a setting; the figure has the values on its x axis.
async fn sweep(
    evaluation: &Evaluation,
    label: &str,
    settings: Vec<(f64, Option<Keep>, Option<usize>)>,
) -> Result<(Vec<Found>, String), Failure> {
    let usual = Compression::default_of(evaluation.model.fits());
    let mode = |&(x, keep, layer): &(f64, Option<Keep>, Option<usize>)| {
        let within = Within::Text(TextGuided { layer, keep });
        evaluation.mode(format!("{label} {x}"), Compression { within, ..usual.clone() })
    };
    let (rows, _) = evaluation.answer(&settings.iter().map(mode).collect::<Vec<_>>()).await?;
    let series = |name: &str, of: &dyn Fn(&Row) -> f64| {
        let mut points: Vec<(f64, f64)> = settings.iter().zip(&rows).map(|((x, ..), row)| (*x, of(row))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series { name: name.to_owned(), points, errors: Vec::new() }
    };
    let panel = |title: String, series| Panel { title, x_label: label.to_owned(), style: Style::Lines, series };
    let right = series("right answers, %", &|r| 100.0 * r.all.right);
    let tokens = series("equivalent tokens, %", &|r| 100.0 * r.equivalent_share);
    let svg = chart::svg(&[
        panel(format!("Right answers and tokens by {label}"), vec![right, tokens]),
        panel(format!("Speed by {label}"), vec![series("samples/s", &|r| r.samples_per_s)]),
    ])?;
    let found = rows.iter().map(|r| Found {
        setting: r.mode.clone(),
        values: vec![
            ("right".into(), r.all.right),
            ("standard_error".into(), r.all.standard_error),
            ("equivalent_share".into(), r.equivalent_share),
            ("samples_per_s".into(), r.samples_per_s),
        ],
    });
    Ok((found.collect(), svg))
}

/// The share of the regions at each scale, picture by picture; then least, mean and most over all pictures, and by the scene's
/// main group. The text-guided sampler is off: it has no influence.
///
/// # Errors
/// [`Error::Option`] for a checkpoint without a scale selector; those of the questions.
pub async fn scales(evaluation: &Evaluation, drawn: &[Drawn]) -> Result<(Vec<Found>, String), Failure> {
    needs_selector(evaluation, "scales")?;
    let config = evaluation.model.config();
    let scales = &config.focus.scales;
    let compression = Compression { within: Within::Every, ..Compression::default_of(evaluation.model.fits()) };
    let options = AskOptions { compression: Some(compression), ..evaluation.options() };
    let mut rows: Vec<Found> = Vec::new();
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, sample) in evaluation.samples.iter().enumerate() {
        let Some(asked) = sample.asked.first() else { continue };
        let mut conversation = Conversation::new(&evaluation.model, sample.picture()?);
        let choice = conversation.explain(&asked.question, &options).await?.choice.clone();
        let share = |i| choice.iter().filter(|&&c| c == i).count() as f64 / choice.len().max(1) as f64;
        let values = scales.iter().enumerate().map(|(i, scale)| (scale.to_string(), share(i))).collect();
        let object = drawn.get(index).and_then(|drawn| drawn.scene.objects().first());
        for group in ["all"].into_iter().chain(object.map(|object| object.kind.name())) {
            groups.entry(group).or_default().push(rows.len());
        }
        rows.push(Found { setting: index.to_string(), values });
        evaluation.progress(index + 1, evaluation.samples.len());
    }
    let shown = &rows[..rows.len().min(PICTURES)];
    let series = |(i, scale): (usize, &Scale)| Series {
        name: scale.to_string(),
        points: shown.iter().enumerate().map(|(x, row): (usize, &Found)| (x as f64, row.values[i].1)).collect(),
        errors: Vec::new(),
    };
    let panel = Panel {
        title: "Share of the regions at each scale".into(),
        x_label: "picture".into(),
        style: Style::Bars,
        series: scales.iter().enumerate().map(series).collect(),
    };
    let svg = chart::svg(&[panel])?;
    let summaries: Vec<Found> = groups.iter().flat_map(|(group, members)| summary(group, members, &rows)).collect();
    rows.extend(summaries);
    Ok((rows, svg))
}

/// Least, mean and most of every value over some rows, at least one.
fn summary(group: &str, members: &[usize], rows: &[Found]) -> [Found; 3] {
    let of = |name: &str, fold: &dyn Fn(&[f64]) -> f64| {
        let column = |i: usize| members.iter().map(|&row| rows[row].values[i].1).collect::<Vec<f64>>();
        let values = rows[members[0]].values.iter().enumerate();
        let values = values.map(|(i, (scale, _))| (scale.clone(), fold(&column(i)))).collect();
        Found { setting: format!("{group}, {name}"), values }
    };
    [
        of("least", &|all| all.iter().copied().fold(f64::INFINITY, f64::min)),
        of("mean", &|all| all.iter().sum::<f64>() / all.len() as f64),
        of("most", &|all| all.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
    ]
}

fn needs_selector(evaluation: &Evaluation, study: &str) -> Result<(), Failure> {
    if evaluation.model.fits().selector {
        return Ok(());
    }
    let expected = format!("a checkpoint with a scale selector for `{study}`");
    Err(Error::Option { option: "study", expected, got: "one without".into() }.into())
}

/// The rows of Table 6: every token, selected scales, and random scales from three seeds. The text-guided sampler is off, so
/// that nothing else differs.
///
/// # Errors
/// [`Error::Option`] for a checkpoint without a scale selector.
pub fn choosers(evaluation: &Evaluation) -> Result<Vec<Mode>, Failure> {
    needs_selector(evaluation, "sampler")?;
    let mode = |name: String, before| evaluation.mode(name, Compression { before, within: Within::Every });
    let chosen =
        [mode("every token".to_owned(), Before::Every), mode("selected".to_owned(), Before::Vision { random: None })];
    let random = |seed| mode(format!("random {seed}"), Before::Vision { random: Some(seed) });
    Ok(chosen.into_iter().chain((0..3).map(random)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_least_mean_and_most() {
        let row = |a: f64| Found { setting: String::new(), values: vec![("4x4".into(), a), ("1x1".into(), 1.0 - a)] };
        let found = summary("plate", &[0, 2], &[row(0.25), row(0.0), row(0.75)]);
        let settings: Vec<&str> = found.iter().map(|row| row.setting.as_str()).collect();
        assert_eq!(settings, ["plate, least", "plate, mean", "plate, most"], "(got, expected)");
        let values = found.map(|row| [row.values[0].1, row.values[1].1]);
        assert_eq!(values, [[0.25, 0.25], [0.5, 0.5], [0.75, 0.75]], "(got, expected)");
    }
}
