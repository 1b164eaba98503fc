//! `fovea-lab agreement`: how far a model with smaller weights agrees with the same model in f32, token by token.

use std::{io, path::PathBuf};

use clap::Args;
use fovea_model::{
    Activations, AskOptions, Conversation, Fits, LoadOptions, Looked, Model, Origin, Precision, TowerType, Turn,
};
use fovea_runtime::DeviceChoice;
use fovea_terminal::{failure::Failure, load, options, text};
use serde::Serialize;
use serde_json::json;

use crate::scenes;

/// `fovea-lab agreement`.
#[derive(Args)]
pub struct AgreementArgs {
    /// A checkpoint; without it the embedded demo checkpoint.
    #[arg(short, long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// auto, cpu, wgpu, wgpu:N, wgpu:NAME, cuda or cuda:N.
    #[arg(long, default_value = "cpu", value_parser = options::device)]
    device: DeviceChoice,
    /// What is compared with f32: some of f16, q8 and q4, with commas.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "f16,q8,q4",
        value_parser = options::named::<Precision>(["f16", "q8", "q4"])
    )]
    weights: Vec<Precision>,
    /// How the inputs of products with q8 and q4 matrices are stored: auto, f32 or int8.
    #[arg(long, default_value = "auto", ignore_case = true, value_parser = options::named::<Activations>(Activations::NAMES))]
    activations: Activations,
    /// How the matrices of the vision tower are stored: auto or q8.
    #[arg(long, default_value = "auto", ignore_case = true, value_parser = options::named::<TowerType>(TowerType::NAMES))]
    tower: TowerType,
    /// The first held-out scene.
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = options::whole::<u64>)]
    seed: u64,
    /// Number of held-out scenes, each with one question of each kind.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = options::count)]
    scenes: usize,
    /// Most tokens per answer.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = options::count)]
    new_tokens: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Sums over questions.
#[derive(Clone, Copy, Default)]
struct Sums {
    tokens: usize,
    same_token: usize,
    divergence: f64,
    regions: usize,
    same_scale: usize,
    kept_by_both: usize,
    kept_by_one: usize,
}

/// One row of the table.
#[derive(Serialize)]
struct Row {
    weights: &'static str,
    /// Bytes of the weights.
    bytes: u64,
    tokens: usize,
    /// Share of tokens for which both models have the same most likely token.
    same_token: f64,
    /// Mean of `sum_i p_i ln(p_i / q_i)`, with p in f32.
    divergence: f64,
    /// Share of regions with the same scale.
    same_scale: f64,
    /// Visual tokens that both models keep, as a share of those that at least one keeps.
    same_kept: f64,
}

/// Answers in f32, then makes each other model read the same answers, and compares.
pub async fn run(args: AgreementArgs) -> Result<(), Failure> {
    let options = AskOptions { max_new_tokens: args.new_tokens, keep_logits: true, ..AskOptions::default() };
    let open = async |precision, tower| {
        let check = |fits: Fits<'_>| options.check(fits);
        let load = LoadOptions { precision, activations: args.activations, tower, ..LoadOptions::default() };
        load::model(args.model.as_deref(), &args.device, load, &options.cancel, check).await
    };
    let reference = open(Precision::F32, TowerType::Auto).await?;
    let mut others = Vec::new();
    for precision in &args.weights {
        others.push((open(*precision, args.tower).await?, Sums::default()));
    }
    let (samples, _) = scenes::held_out(args.seed, args.scenes);
    for sample in samples {
        let ask = |model: &std::sync::Arc<Model>| Ok::<_, Failure>(Conversation::new(model, sample.picture()?));
        let mut first = ask(&reference)?;
        let mut compared = others.iter().map(|(model, _)| ask(model)).collect::<Result<Vec<_>, Failure>>()?;
        for asked in &sample.asked {
            let expected = first.answer(&asked.question, &options).await?;
            let forced = AskOptions { forced: expected.answer_ids.clone(), ..options.clone() };
            for (conversation, (_, sums)) in compared.iter_mut().zip(&mut others) {
                let got = conversation.answer(&asked.question, &forced).await?;
                sums.add(&expected, &got);
            }
        }
    }
    let rows: Vec<Row> = others.iter().map(|(model, sums)| sums.row(model)).collect();
    if args.json {
        let report = json!({"device": reference.device().info, "scenes": args.scenes, "rows": rows});
        return text::out(|to| writeln!(to, "{report}"));
    }
    text::out(|to| print(to, &rows))
}

fn print(to: &mut dyn io::Write, rows: &[Row]) -> io::Result<()> {
    writeln!(to, "compared with f32, the same answers\n")?;
    writeln!(to, "weights         MB   tokens  same token  divergence  same scale   same kept")?;
    for row in rows {
        let percent = |share: f64| format!("{:.2} %", 100.0 * share);
        let Row { weights, bytes, tokens, divergence, .. } = row;
        writeln!(
            to,
            "{weights:7}{:>11.1}{tokens:>9}{:>12}{divergence:>12.2e}{:>12}{:>12}",
            *bytes as f64 / 1e6,
            percent(row.same_token),
            percent(row.same_scale),
            percent(row.same_kept)
        )?;
    }
    Ok(())
}

impl Sums {
    fn add(&mut self, expected: &Turn, got: &Turn) {
        for (expected, got) in expected.step_logits.iter().zip(&got.step_logits) {
            self.tokens += 1;
            self.same_token += usize::from(most_likely(expected) == most_likely(got));
            self.divergence += divergence(expected, got);
        }
        for (expected, got) in expected.looked.iter().zip(&got.looked) {
            self.regions += expected.choice.len();
            self.same_scale += expected.choice.iter().zip(got.choice.iter()).filter(|(a, b)| a == b).count();
            let (a, b) = (kept(expected), kept(got));
            let both = a.iter().filter(|origin| b.contains(origin)).count();
            self.kept_by_both += both;
            self.kept_by_one += a.len() + b.len() - both;
        }
    }

    fn row(&self, model: &Model) -> Row {
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        Row {
            weights: model.dtype_name(),
            bytes: model.weight_bytes(),
            tokens: self.tokens,
            same_token: share(self.same_token, self.tokens),
            divergence: self.divergence / self.tokens.max(1) as f64,
            same_scale: share(self.same_scale, self.regions),
            same_kept: share(self.kept_by_both, self.kept_by_one),
        }
    }
}

/// The kept visual tokens, by what they are made of.
fn kept(looked: &Looked) -> Vec<&Origin> {
    looked.kept.iter().filter_map(|&index| looked.origins.get(index)).collect()
}

fn most_likely(logits: &[f32]) -> Option<usize> {
    logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0))).map(|(index, _)| index)
}

/// `sum_i p_i ln(p_i / q_i)`, where p and q are the softmax of `expected` and `got`.
fn divergence(expected: &[f32], got: &[f32]) -> f64 {
    let logs = |logits: &[f32]| {
        let top = logits.iter().copied().fold(f32::MIN, f32::max);
        let sum: f64 = logits.iter().map(|x| f64::from(x - top).exp()).sum();
        logits.iter().map(|x| f64::from(x - top) - sum.ln()).collect::<Vec<f64>>()
    };
    logs(expected).into_iter().zip(logs(got)).map(|(p, q)| p.exp() * (p - q)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_equal_a_calculation_by_hand() {
        // p = (1/4, 3/4), q = (1/2, 1/2): 1/4 ln(1/2) + 3/4 ln(3/2).
        let expected = 0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln();
        assert!((divergence(&[0.0, 3f32.ln()], &[7.0, 7.0]) - expected).abs() < 1e-7);
        assert_eq!((most_likely(&[1.0, 2.0, 2.0]), most_likely(&[])), (Some(1), None)); // the lower one of equals
    }
}
