//! Input: samples and modes. Output: for each mode its tokens, speed and right answers, and every single answer: the rows
//! of the paper's Table 2.

use std::{collections::BTreeMap, time::Instant};

use fovea_model::{AskOptions, Before, Conversation, Error, Method, Patches, Turn};
use fovea_terminal::failure::Failure;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{Evaluation, samples::Sample, score::Compare};

/// Tokens that answers may have: one more than the longest right one has characters, and some for articles and
/// punctuation where these do not count. A longer answer is wrong.
pub fn longest(samples: &[Sample], compare: Compare) -> usize {
    let characters = samples.iter().flat_map(|s| &s.asked).map(|a| a.answer.chars().count());
    let more = if compare == Compare::Literally { 2 } else { 8 };
    characters.max().unwrap_or(0) + more
}

/// Right answers of some questions.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Score {
    /// Share of the answers that are right.
    pub right: f64,
    /// Its standard error, `sqrt(p (1 - p) / n)`, as if questions about one picture were independent. 0 where all
    /// answers are right or all are wrong: tables then show none.
    pub standard_error: f64,
    /// Number of questions.
    pub questions: usize,
}

impl Score {
    fn of(right: &[bool]) -> Self {
        let n = right.len();
        if n == 0 {
            return Self::default();
        }
        let p = right.iter().filter(|r| **r).count() as f64 / n as f64;
        Self { right: p, standard_error: (p * (1.0 - p) / n as f64).sqrt(), questions: n }
    }
}

/// One row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its mode.
    pub mode: String,
    /// Visual tokens that enter the text model, and those that its last layer reads: means.
    pub tokens: [f64; 2],
    /// Mean of the visual tokens that a layer reads, as a share of LLaVA-NeXT's own.
    pub equivalent_share: f64,
    /// Pictures per second, each with one question and in a new conversation.
    pub samples_per_s: f64,
    /// Milliseconds to the first token of the answer: mean over the same questions.
    pub first_token_ms: f64,
    /// Bytes of the KV cache at the end of an answer: mean over all questions.
    pub kv_cache: f64,
    /// All questions.
    #[serde(flatten)]
    pub all: Score,
    /// By kind.
    pub kinds: BTreeMap<String, Score>,
    /// More keys of the JSON row, which the caller adds.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A row's name and settings.
#[derive(Clone)]
pub struct Mode {
    /// Its name.
    pub name: String,
    /// How questions are asked.
    pub options: AskOptions,
}

impl Mode {
    /// The options for the picture of this index. Random choices differ from picture to picture: pictures of one size would
    /// otherwise share one draw.
    fn on(&self, index: usize) -> AskOptions {
        let mut options = self.options.clone();
        let seed = match options.compression.as_mut().map(|compression| &mut compression.before) {
            Some(Before::Vision { random: Some(seed) }) => Some(seed),
            Some(Before::Patches(Patches { method: Method::Random(random), .. })) => Some(&mut random.seed),
            _ => None,
        };
        if let Some(seed) = seed {
            *seed = (*seed << 32) | index as u64;
        }
        options
    }
}

/// The answer to one question.
pub struct Answer {
    /// Index of its sample.
    pub sample: usize,
    /// Index of its question within the sample.
    pub question: usize,
    /// Whether it is right.
    pub right: bool,
    /// The answer and its statistics.
    pub turn: Box<Turn>,
}

/// What an evaluation has found.
pub(crate) struct Answered {
    /// One row per mode; after Ctrl-C only modes with an answer, and the speeds that were not measured are NaN (JSON: null).
    pub rows: Vec<Row>,
    /// The answers of each mode.
    pub answers: Vec<Vec<Answer>>,
    /// Whether it ran to the end; false after Ctrl-C.
    pub complete: bool,
}

impl Answered {
    /// Rows and answers of a complete evaluation.
    ///
    /// # Errors
    /// [`Error::Cancelled`] after Ctrl-C.
    pub fn whole(self) -> Result<(Vec<Row>, Vec<Vec<Answer>>), Failure> {
        if self.complete { Ok((self.rows, self.answers)) } else { Err(Error::Cancelled.into()) }
    }
}

/// Timed questions of one mode: their number, seconds of whole questions, milliseconds to their first tokens.
#[derive(Clone, Copy, Default)]
struct Times {
    questions: usize,
    seconds: f64,
    first_token_ms: f64,
}

/// Asks every question in every mode, then measures the speed on `timed` questions. Without `overlays`, [`Turn::looked`]
/// and [`Turn::pruned`] are empty. Ctrl-C ends both; the result then has what was done before.
///
/// # Errors
/// What the pictures and the device report; [`Error::Cancelled`] after Ctrl-C before the first answer.
pub(crate) async fn run(
    evaluation: &Evaluation,
    modes: &[Mode],
    timed: usize,
    overlays: bool,
) -> Result<Answered, Failure> {
    let samples = &evaluation.samples;
    let mut all: Vec<Vec<Answer>> = modes.iter().map(|_| Vec::new()).collect();
    let mut times = vec![Times::default(); modes.len()];
    let mut ended = ask(evaluation, modes, timed, overlays, &mut all).await;
    if ended.is_ok() {
        ended = measure(evaluation, modes, timed, &mut times).await;
    }
    let complete = match ended {
        Err(Failure::Model(Error::Cancelled)) if all.iter().any(|answers| !answers.is_empty()) => false,
        other => other.map(|()| true)?,
    };
    let row = |((mode, answers), times): ((&Mode, &Vec<Answer>), Times)| row(&mode.name, answers, samples, times);
    let found = modes.iter().zip(&all).zip(times).filter(|((_, answers), _)| complete || !answers.is_empty());
    Ok(Answered { rows: found.map(row).collect(), answers: all, complete })
}

/// Asks every question in every mode, and adds the answers to `all`.
async fn ask(
    evaluation: &Evaluation,
    modes: &[Mode],
    timed: usize,
    overlays: bool,
    all: &mut [Vec<Answer>],
) -> Result<(), Failure> {
    let Evaluation { model, samples, compare, .. } = evaluation;
    let mut done = 0;
    for (mode, answers) in modes.iter().zip(all) {
        for (index, sample) in samples.iter().enumerate() {
            let mut conversation = Conversation::new(model, sample.picture()?);
            let options = mode.on(index);
            for (question, asked) in sample.asked.iter().enumerate() {
                let mut turn = conversation.answer(&asked.question, &options).await?;
                if !overlays {
                    turn.looked.clear();
                    turn.pruned.clear();
                }
                let right = compare.is_right(&turn.text, &asked.answer);
                answers.push(Answer { sample: index, question, right, turn });
            }
            done += 1;
            evaluation.progress(done, (samples.len() + timed) * modes.len());
        }
    }
    Ok(())
}

/// Measures the speed on `timed` questions, each in a new conversation: the modes take turns, and each time another mode is
/// first, so that other load on the machine and the cost of a first run affect all modes equally.
async fn measure(evaluation: &Evaluation, modes: &[Mode], timed: usize, times: &mut [Times]) -> Result<(), Failure> {
    let Evaluation { model, samples, .. } = evaluation;
    let mut done = samples.len() * modes.len();
    let steps = done + timed * modes.len();
    for (i, sample) in samples.iter().cycle().take(timed).enumerate() {
        let Some(asked) = sample.asked.get(i % sample.asked.len().max(1)) else { continue };
        for turn in 0..modes.len() {
            let at = (i + turn) % modes.len();
            let options = modes[at].on(i % samples.len());
            let picture = sample.picture()?;
            let start = Instant::now();
            let turn = Conversation::new(model, picture).answer(&asked.question, &options).await?;
            times[at].seconds += start.elapsed().as_secs_f64();
            times[at].first_token_ms += turn.statistics.first_token_ms;
            times[at].questions += 1;
            done += 1;
            evaluation.progress(done, steps);
        }
    }
    Ok(())
}

fn row(mode: &str, answers: &[Answer], samples: &[Sample], times: Times) -> Row {
    let n = answers.len().max(1) as f64;
    let mean = |of: &dyn Fn(&Turn) -> f64| answers.iter().map(|a| of(&a.turn)).sum::<f64>() / n;
    let mut kinds: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for answer in answers {
        let kind = &samples[answer.sample].asked[answer.question].kind;
        kinds.entry(kind.clone()).or_default().push(answer.right);
    }
    Row {
        mode: mode.to_owned(),
        tokens: [
            mean(&|turn| turn.statistics.tokens.compressed as f64),
            mean(&|turn| turn.statistics.tokens.kept as f64),
        ],
        equivalent_share: mean(&|turn| turn.statistics.equivalent_share),
        samples_per_s: times.questions as f64 / times.seconds,
        first_token_ms: times.first_token_ms / times.questions as f64,
        kv_cache: mean(&|turn| turn.statistics.memory.kv_cache as f64),
        all: Score::of(&answers.iter().map(|a| a.right).collect::<Vec<_>>()),
        kinds: kinds.into_iter().map(|(kind, right)| (kind, Score::of(&right))).collect(),
        more: Map::new(),
    }
}
