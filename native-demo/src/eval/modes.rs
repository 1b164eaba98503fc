//! Enters: a model and samples. Leaves: the paper's Table 2: each combination of the samplers with its tokens, its
//! share, its speed and how many answers were right, by kind. The same for other lists of settings, such as Table 6's.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use fovea_model::{AskOptions, Event, Model, Turn};
use futures_util::{StreamExt, pin_mut};
use serde::Serialize;

use super::{
    samples::{Asked, Sample},
    score::Compare,
};
use crate::failure::Failure;

/// Tokens that answers may have: one more than the longest right one has characters, and some for articles and punctuation
/// where these do not count. Whatever is longer is wrong.
pub fn longest(samples: &[Sample], compare: Compare) -> usize {
    let characters = samples.iter().flat_map(|s| &s.asked).map(|a| a.answer.chars().count());
    let more = if compare == Compare::Literally { 2 } else { 8 };
    characters.max().unwrap_or(0) + more
}

/// Right answers of some questions.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Score {
    /// Share of the answers that are right.
    pub exact_match: f64,
    /// Its standard error, `sqrt(p (1 - p) / n)`: as if questions about one picture told nothing of each other.
    pub standard_error: f64,
    /// How many questions.
    pub questions: usize,
}

impl Score {
    fn of(right: &[bool]) -> Self {
        let n = right.len();
        if n == 0 {
            return Self::default();
        }
        let p = right.iter().filter(|r| **r).count() as f64 / n as f64;
        Self { exact_match: p, standard_error: (p * (1.0 - p) / n as f64).sqrt(), questions: n }
    }
}

/// One row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `none`, `vision`, `text`, `both`; `every token`, `selected`, `random N`; or a setting's name.
    pub mode: String,
    /// Visual tokens that enter the text model, and those that leave the text-guided sampler: means.
    pub tokens: [f64; 2],
    /// Mean of the visual tokens that a layer sees, as a share of LLaVA-NeXT's own.
    pub equivalent_share: f64,
    /// Pictures with a question answered a second, each afresh.
    pub samples_per_s: f64,
    /// Over all questions.
    pub exact_match: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// How many questions.
    pub questions: usize,
    /// By kind.
    pub kinds: BTreeMap<String, Score>,
    /// Of the scenes' objects: the share of their map tokens that were kept, for the queried one and for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
    /// Share of the regions at each scale, by what lies on them: `background`, `shapes`, `one text`, `several texts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scales: Option<BTreeMap<String, Vec<f64>>>,
}

/// Shares of map tokens that the text-guided sampler kept, over all questions about an object. A token that lies on the
/// queried object and on another counts as the queried one's.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Kept {
    /// On the object asked about.
    pub queried: f64,
    /// On the other objects.
    pub others: f64,
    /// On nothing.
    pub background: f64,
}

/// A row's name and settings.
#[derive(Clone)]
pub struct Mode {
    /// Its name.
    pub name: String,
    /// How questions are asked.
    pub options: AskOptions,
}

/// The four rows of the paper's table.
pub fn four(max_new_tokens: usize, cancel: &fovea_model::Cancel) -> Vec<Mode> {
    let mode = |name: &str, vision, text| Mode {
        name: name.to_owned(),
        options: AskOptions {
            vision: Some(vision),
            text: Some(text),
            max_new_tokens,
            cancel: cancel.clone(),
            ..AskOptions::default()
        },
    };
    vec![mode("none", false, false), mode("vision", true, false), mode("text", false, true), mode("both", true, true)]
}

/// The paper's Table 6: every token, scales that the selector chooses, and scales drawn from three seeds. The
/// text-guided sampler is off, so that nothing else differs.
pub fn choosers(max_new_tokens: usize, cancel: &fovea_model::Cancel) -> Vec<Mode> {
    let mode = |name: String, vision, random_scales| Mode {
        name,
        options: AskOptions {
            vision: Some(vision),
            random_scales,
            text: Some(false),
            max_new_tokens,
            cancel: cancel.clone(),
            ..AskOptions::default()
        },
    };
    let chosen = [mode("every token".to_owned(), false, None), mode("selected".to_owned(), true, None)];
    chosen.into_iter().chain((0..3).map(|seed| mode(format!("random {seed}"), true, Some(seed)))).collect()
}

impl Mode {
    /// How the picture of this index is asked. Each has a draw of scales of its own: pictures of one size would else
    /// share theirs, and a seed would be one draw and not as many as there are pictures.
    fn on(&self, index: usize) -> AskOptions {
        let random_scales = self.options.random_scales.map(|seed| (seed << 32) | index as u64);
        AskOptions { random_scales, ..self.options.clone() }
    }
}

/// Every mode over every sample. Then `timed` questions are answered afresh for the speed: in every mode in turn, each
/// time another first, so that what else the machine does, and what only the first run of a size costs, meets all alike.
pub async fn run(
    model: &Arc<Model>,
    samples: &[Sample],
    modes: &[Mode],
    compare: Compare,
    timed: usize,
    mut progress: impl FnMut(usize, usize),
) -> Result<(Vec<Row>, Vec<Vec<Answer>>), Failure> {
    let steps = (samples.len() + timed) * modes.len();
    let mut done = 0;
    let mut all = Vec::new();
    for mode in modes {
        let mut answers = Vec::new();
        for (index, sample) in samples.iter().enumerate() {
            let mut conversation = model.look_at(sample.picture()?);
            let options = mode.on(index);
            for asked in &sample.asked {
                let turn = answer(&mut conversation, asked, &options).await?;
                let text = model.decode(&turn.answer_ids)?;
                let right = compare.is_right(&text, &asked.answer);
                answers.push(Answer {
                    sample: index,
                    kind: asked.kind.clone(),
                    target: asked.target,
                    text,
                    right,
                    turn,
                });
            }
            done += 1;
            progress(done, steps);
        }
        all.push(answers);
    }
    let mut seconds = vec![0.0; modes.len()];
    for (i, sample) in samples.iter().cycle().take(timed).enumerate() {
        let Some(asked) = sample.asked.get(i % sample.asked.len().max(1)) else { continue };
        for turn in 0..modes.len() {
            let at = (i + turn) % modes.len();
            let options = modes[at].on(i % samples.len());
            let picture = sample.picture()?;
            let start = Instant::now();
            answer(&mut model.look_at(picture), asked, &options).await?;
            seconds[at] += start.elapsed().as_secs_f64();
            done += 1;
            progress(done, steps);
        }
    }
    let speed = |seconds: f64| timed as f64 / seconds;
    let rows = modes.iter().zip(&all).zip(seconds).map(|((mode, answers), s)| row(mode, answers, samples, speed(s)));
    Ok((rows.collect(), all))
}

/// What came of one question.
pub struct Answer {
    /// Index of its sample.
    pub sample: usize,
    /// Its kind.
    pub kind: String,
    /// The object asked about.
    pub target: Option<usize>,
    /// The answer.
    pub text: String,
    /// Whether it is right.
    pub right: bool,
    /// Everything else.
    pub turn: Box<Turn>,
}

async fn answer(
    conversation: &mut fovea_model::Conversation,
    asked: &Asked,
    options: &AskOptions,
) -> Result<Box<Turn>, Failure> {
    let events = conversation.ask(&asked.question, options);
    pin_mut!(events);
    while let Some(event) = events.next().await {
        if let Event::Done(turn) = event? {
            return Ok(turn);
        }
    }
    Err(Failure::Panic("the answer ended early".into()))
}

fn row(mode: &Mode, answers: &[Answer], samples: &[Sample], samples_per_s: f64) -> Row {
    let n = answers.len().max(1) as f64;
    let mean = |of: &dyn Fn(&Answer) -> f64| answers.iter().map(of).sum::<f64>() / n;
    let all = Score::of(&answers.iter().map(|a| a.right).collect::<Vec<_>>());
    let mut kinds: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for answer in answers {
        kinds.entry(answer.kind.clone()).or_default().push(answer.right);
    }
    Row {
        mode: mode.name.clone(),
        tokens: [mean(&|a| a.turn.statistics.tokens.vision as f64), mean(&|a| a.turn.statistics.tokens.text as f64)],
        equivalent_share: mean(&|a| a.turn.statistics.equivalent_share),
        samples_per_s,
        exact_match: all.exact_match,
        standard_error: all.standard_error,
        questions: all.questions,
        kinds: kinds.into_iter().map(|(kind, right)| (kind, Score::of(&right))).collect(),
        kept: if mode.options.text == Some(true) { super::places::kept(answers, samples) } else { None },
        scales: if mode.options.vision == Some(true) { super::places::scales(answers, samples) } else { None },
    }
}
