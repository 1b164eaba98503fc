//! `fovea-lab compare`: every method of compression at several budgets. Input: pictures with questions. Output: right answers,
//! equivalent tokens, time to the first token and KV cache, as a table, as JSON and as a figure.

use std::path::PathBuf;

use clap::{Args, builder::PossibleValuesParser};
use fovea_eval::{Evaluation, Settings, modes::Row, page};
use fovea_model::{Compression, Error, Fits, METHODS};
use fovea_terminal::{failure::Failure, options, text};
use serde_json::{Map, Value, json};

use crate::{
    chart::{self, Panel, Series, Style},
    scenes::Questions,
};

/// `fovea-lab compare`.
#[derive(Args)]
pub struct CompareArgs {
    #[command(flatten)]
    questions: Questions,
    #[command(flatten)]
    settings: Settings,
    /// The methods, with commas; without it all. No compression is always the first row.
    #[arg(
        long,
        value_name = "METHODS",
        value_delimiter = ',',
        ignore_case = true,
        value_parser = PossibleValuesParser::new(names())
    )]
    methods: Vec<String>,
    /// Budgets of every method, with commas, each from 0.01 to 1; without it each method has its own list.
    ///
    /// It is gamma for focus and text, and for the other methods the share of the tokens that they keep.
    #[arg(long, value_name = "BUDGETS", value_delimiter = ',', value_parser = budget, allow_negative_numbers = true)]
    budgets: Vec<f64>,
    /// Also draw the right answers over the equivalent tokens, one line per method.
    #[arg(long, value_name = "FILE.svg")]
    figure: Option<PathBuf>,
}

/// The name of the row without compression.
const NONE: &str = "none";
/// The name of the vision-guided and the text-guided sampler together.
const FOCUS: &str = "focus";

/// The names of all methods, in the order of the rows.
fn names() -> impl Iterator<Item = &'static str> {
    [FOCUS].into_iter().chain(METHODS.iter().map(|row| row.name))
}

fn budget(text: &str) -> Result<f64, String> {
    let within = text.parse().ok().filter(|budget| (0.01..=1.0).contains(budget));
    within.ok_or_else(|| "expected a number from 0.01 to 1".to_owned())
}

/// The settings of a method for its budgets, from few tokens to many. `side` is the number of patches along a tile's side.
fn specs(method: &str, budgets: &[f64], side: usize) -> Vec<String> {
    let usual: &[f64] = match method {
        FOCUS | "text" => &[0.5, 0.7, 0.85, 0.95],
        // Every fourth, third and second patch in both directions.
        "stride" => &[0.0625, 0.111, 0.25],
        "heuristic" => &[0.2, 0.4, 0.6, 0.8],
        _ => &[0.1, 0.2, 0.3, 0.4, 0.6, 0.8],
    };
    let spec = |budget: &f64| match method {
        "vision" => method.to_owned(),
        FOCUS | "text" => format!("{method}:gamma={budget}"),
        "hired" => format!("{method}:rate={budget}"),
        "stride" => {
            let step = (1.0 / budget).sqrt().round();
            format!("{method}:rows={step},cols={step}")
        }
        // The paper's 54 dominant tokens of 64, of a tile of this model.
        "vision-zip" => {
            let all = (budget * (side * side) as f64).round().max(2.0);
            let contextual = (all * 10.0 / 64.0).round().max(1.0);
            format!("{method}:dominant={},contextual={contextual}", all - contextual)
        }
        "pyramid-drop" => format!("{method}:ratios={budget:.4}/{:.4}/{:.4}", budget.powi(2), budget.powi(3).max(1e-4)),
        _ => format!("{method}:keep={budget:?}"),
    };
    let budgets = if budgets.is_empty() { usual } else { budgets };
    let mut specs: Vec<String> = budgets.iter().map(spec).collect();
    // Several budgets may give the same settings.
    specs.dedup();
    specs
}

/// What is compared.
#[derive(Default)]
struct Plan {
    /// Names of methods, and their settings.
    points: Vec<(&'static str, Compression)>,
    /// Methods that do not fit the checkpoint, and why.
    skipped: Vec<(&'static str, String)>,
}

impl Plan {
    /// All budgets of the selected methods; without any, of all methods.
    fn new(methods: &[String], budgets: &[f64], model: Fits<'_>) -> Result<Self, Error> {
        let mut plan = Self { points: vec![(NONE, Compression::none())], skipped: Vec::new() };
        let selected =
            |name: &&str| methods.is_empty() || methods.iter().any(|method| method.eq_ignore_ascii_case(name));
        for method in names().filter(selected) {
            for spec in specs(method, budgets, model.config.vision.patches()) {
                let compression: Compression = spec.parse()?;
                if let Err(why) = compression.check(model) {
                    plan.skipped.push((method, options::reason(why)));
                    break;
                }
                plan.points.push((method, compression));
            }
        }
        match plan.skipped.first() {
            Some((method, why)) if plan.points.len() == 1 => {
                let expected = format!("a method that fits this checkpoint ({why})");
                Err(Error::Option { option: "methods", expected, got: (*method).to_owned() })
            }
            _ => Ok(plan),
        }
    }
}

/// Compares, and prints one row per method and budget.
pub async fn run(args: CompareArgs) -> Result<(), Failure> {
    let CompareArgs { questions, settings, methods, mut budgets, figure } = args;
    budgets.sort_by(f64::total_cmp);
    let figure = chart::file(figure.as_deref(), &settings.read_files(questions.dir.as_deref()))?;
    let (source, samples, _) = questions.samples()?;
    let mut plan = Plan::default();
    let check = |fits: Fits<'_>| {
        plan = Plan::new(&methods, &budgets, fits)?;
        Ok::<_, Error>(())
    };
    let evaluation = Evaluation::open(&settings, samples, &source, check).await?;
    let mode = |(_, compression): &(&str, Compression)| evaluation.mode(compression.to_string(), compression.clone());
    let mut rows = evaluation.rows(&plan.points.iter().map(mode).collect::<Vec<_>>()).await?;
    for (row, (method, _)) in rows.iter_mut().zip(&plan.points) {
        row.more.insert("method".to_owned(), json!(method));
    }
    let skipped: Map<String, Value> =
        plan.skipped.iter().map(|(method, why)| ((*method).to_owned(), json!(why))).collect();
    let more = [("study", json!("compare")), ("skipped", Value::Object(skipped))];
    evaluation.print(&more, &rows, || table(&evaluation, &rows, &plan.skipped))?;
    match figure {
        Some(file) => file.write(chart::svg(&[panel(&plan, &rows)])?.as_bytes()),
        None => Ok(()),
    }
}

/// The rows as text: tokens, time, memory and right answers, then the right answers by kind, then what was skipped.
fn table(evaluation: &Evaluation, rows: &[Row], skipped: &[(&str, String)]) -> String {
    let header = ["compression", "equivalent %", "tokens", "kept", "first token", "KV cache", "right %"];
    let cells = |r: &Row| {
        vec![
            r.mode.clone(),
            page::percent(r.equivalent_share),
            format!("{:.0}", r.tokens[0]),
            format!("{:.0}", r.tokens[1]),
            text::duration(r.first_token_ms),
            text::bytes(r.kv_cache as u64),
            page::with_error(&r.all),
        ]
    };
    let all = page::columns(&header.map(str::to_owned), &rows.iter().map(cells).collect::<Vec<_>>());
    let by_kind = page::by_kind(&evaluation.samples, rows, page::with_error);
    let skipped: String = skipped.iter().map(|(method, why)| format!("skipped {method}: {why}\n")).collect();
    format!("{all}\n{by_kind}{skipped}{}\n", evaluation.compare.sentence())
}

/// Right answers over equivalent tokens: one series per method.
fn panel(plan: &Plan, rows: &[Row]) -> Panel {
    let series = |method: &str| {
        let own = plan.points.iter().zip(rows).filter(|((name, _), _)| *name == method);
        let mut own: Vec<&Row> = own.map(|(_, row)| row).collect();
        own.sort_by(|a, b| a.equivalent_share.total_cmp(&b.equivalent_share));
        let title = match method {
            NONE => "no compression",
            FOCUS => "FocusLLaVA (both samplers)",
            _ => METHODS.iter().find(|row| row.name == method).map_or(method, |row| row.title),
        };
        Series {
            name: title.to_owned(),
            points: own.iter().map(|row| (100.0 * row.equivalent_share, 100.0 * row.all.right)).collect(),
            errors: own.iter().map(|row| 100.0 * row.all.standard_error).collect(),
        }
    };
    Panel {
        title: "Right answers, %".to_owned(),
        x_label: "equivalent tokens, %".to_owned(),
        style: Style::Marks,
        series: [NONE].into_iter().chain(names()).map(series).filter(|series| !series.points.is_empty()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_budget_of_every_method_can_be_read() {
        for method in names() {
            for budgets in [&[0.0; 0][..], &[0.01, 0.25, 0.5, 1.0]] {
                let specs = specs(method, budgets, 24);
                assert!(!specs.is_empty(), "{method}: expected settings");
                for spec in specs {
                    let read = spec.parse::<Compression>();
                    assert!(read.is_ok(), "{spec}: {read:?}");
                }
            }
        }
        assert_eq!(specs("vision-zip", &[1.0 / 9.0], 24), ["vision-zip:dominant=54,contextual=10"]);
        assert_eq!(specs("stride", &[], 24), [4, 3, 2].map(|step| format!("stride:rows={step},cols={step}")));
        assert_eq!(specs("vision", &[0.1, 0.2], 8), ["vision"]);
        assert_eq!(specs("pyramid-drop", &[0.5], 8), ["pyramid-drop:ratios=0.5000/0.2500/0.1250"]);
    }

    #[test]
    fn budgets_are_numbers_up_to_1() {
        assert_eq!((budget(".5"), budget("1")), (Ok(0.5), Ok(1.0)));
        assert!(["0", "1.5", "-1", "NaN", "half"].iter().all(|text| budget(text).is_err()));
    }
}
