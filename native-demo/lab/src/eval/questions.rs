//! Input: samples with several questions each. Output: which visual tokens each question keeps, and what the kept sets of two
//! questions about one picture have in common; the kept tokens as an SVG file: the paper's Fig. 8 and 9.
//!
//! The vision-guided sampler does not read the question, so all questions about a picture choose from the same tokens.

use std::{collections::BTreeMap, sync::Arc};

use fovea_eval::{Evaluation, samples::Sample};
use fovea_model::{Compression, Conversation, Looked, TextGuided, Within, bicubic};
use fovea_overlay::{bare, scale_colors};
use fovea_terminal::failure::Failure;
use serde_json::{Value, json};

use super::{
    places::{self, On, Shares},
    sheet::Sheet,
    study::Found,
};
use crate::scenes::Drawn;

/// Most pictures in the figure.
const PICTURES: usize = 3;
/// The longer side of a picture in the figure, pixels.
const SIDE: usize = 216;
/// Most characters of a question in the figure.
const CHARACTERS: usize = 38;

/// The answer to one question, and the tokens that it keeps.
struct Kept {
    /// Index of the question within the sample.
    question: usize,
    answer: String,
    right: bool,
    looked: Arc<Looked>,
    /// What each visual token shows; without a scene the part of the sequence that it belongs to.
    on: Vec<On>,
}

impl Kept {
    /// The kept tokens that show an object.
    fn on_objects(&self) -> Vec<usize> {
        let kept = self.looked.kept.iter().copied();
        kept.filter(|&token| matches!(self.on.get(token), Some(On::Queried | On::Others))).collect()
    }

    /// The overlap with what another question about the same picture keeps: of all tokens, and of those that show an object.
    fn overlaps(&self, other: &Self) -> [Option<f64>; 2] {
        // A compression before the text model that reads the question makes other tokens.
        if self.looked.origins != other.looked.origins {
            return [None; 2];
        }
        [jaccard(&self.looked.kept, &other.looked.kept), jaccard(&self.on_objects(), &other.on_objects())]
    }
}

/// The size of the intersection of two rising lists, divided by that of the union (Jaccard). None for two empty lists.
fn jaccard(one: &[usize], other: &[usize]) -> Option<f64> {
    let common = one.iter().filter(|index| other.binary_search(index).is_ok()).count();
    let all = one.len() + other.len() - common;
    (all > 0).then(|| common as f64 / all as f64)
}

/// Sums over questions.
#[derive(Clone, Default)]
struct Sums {
    questions: usize,
    tokens: usize,
    kept: usize,
    /// Sum and number of overlaps: of all tokens, and of those that show an object.
    overlaps: [(f64, usize); 2],
    shares: Shares,
}

impl Sums {
    /// One question with `kept` of its visual tokens; `on` is what each visual token shows, if that is known.
    fn add(&mut self, tokens: usize, kept: &[usize], on: Option<&[On]>) {
        self.questions += 1;
        self.tokens += tokens;
        self.kept += kept.len();
        if let Some(on) = on {
            self.shares.add(&kept.iter().filter_map(|&token| Some((*on.get(token)?, 1.0))).collect::<Vec<_>>());
        }
    }

    fn pair(&mut self, overlaps: [Option<f64>; 2]) {
        for ((sum, count), overlap) in self.overlaps.iter_mut().zip(overlaps) {
            *sum += overlap.unwrap_or(0.0);
            *count += usize::from(overlap.is_some());
        }
    }

    /// A row of means; NaN where nothing was summed. Without `objects` all tokens of the map are one kind.
    fn row(&self, setting: &str, objects: bool) -> Found {
        let mean = |sum: usize| sum as f64 / self.questions as f64;
        let [overlap, on_objects] = self.overlaps.map(|(sum, count)| sum / count as f64);
        let named = |(name, value): (&str, f64)| (name.to_owned(), value);
        let sums = [("tokens", mean(self.tokens)), ("kept", mean(self.kept)), ("overlap", overlap)];
        let mut values = Vec::from(sums.map(named));
        values.extend(objects.then(|| named(("object_overlap", on_objects))));
        values.extend(self.shares.means(objects));
        Found { setting: setting.to_owned(), values }
    }
}

/// Asks every question of every sample, and draws the first samples. Returns the rows, the facts about each question, and the
/// figure.
///
/// # Errors
/// What the pictures and the device report.
pub async fn run(evaluation: &Evaluation, drawn: &[Drawn]) -> Result<(Vec<Found>, Value, String), Failure> {
    let Evaluation { model, samples, compare, .. } = evaluation;
    let within = Within::Text(TextGuided::default());
    let compression = Compression { within, ..Compression::default_of(model.fits()) };
    let options = evaluation.mode(String::new(), compression).options;
    let (mut every, mut all, mut kinds) = (Sums::default(), Sums::default(), BTreeMap::<&str, Sums>::new());
    let (mut facts, mut figure, mut objects) = (Vec::new(), Figure::default(), false);
    for (index, sample) in samples.iter().enumerate() {
        let mut conversation = Conversation::new(model, sample.picture()?);
        let scene = drawn.get(index);
        let mut found: Vec<Kept> = Vec::new();
        for (question, asked) in sample.asked.iter().enumerate() {
            let turn = conversation.answer(&asked.question, &options).await?;
            let Some(looked) = turn.looked.first().cloned() else { continue };
            let target = scene.and_then(|scene| scene.targets[question]);
            let known = scene.and_then(|scene| places::tokens(&scene.scene, target, &looked));
            objects |= known.is_some();
            // Nothing is known of what a question about several objects should keep.
            let has_shares = known.is_none() || target.is_some();
            let on = known.unwrap_or_else(|| places::parts(&looked));
            let (tokens, shares) = (looked.token_count(), has_shares.then_some(on.as_slice()));
            every.add(tokens, &(0..tokens).collect::<Vec<_>>(), shares);
            all.add(tokens, &looked.kept, shares);
            kinds.entry(&asked.kind).or_default().add(tokens, &looked.kept, shares);
            facts.push(json!({
                "picture": sample.name, "question": asked.question, "kind": asked.kind, "answer": turn.text,
                "tokens": tokens, "kept": looked.kept.len(),
            }));
            let right = compare.is_right(&turn.text, &asked.answer);
            found.push(Kept { question, answer: turn.text, right, looked, on });
        }
        for (i, one) in found.iter().enumerate() {
            for other in &found[i + 1..] {
                let overlaps = one.overlaps(other);
                all.pair(overlaps);
                for kept in [one, other] {
                    kinds.entry(&sample.asked[kept.question].kind).or_default().pair(overlaps);
                }
            }
        }
        if index < PICTURES {
            figure.row(sample, scene, &found)?;
        }
        evaluation.progress(index + 1, samples.len());
    }
    let by_kind = kinds.iter().filter(|(kind, _)| !kind.is_empty()).map(|(kind, sums)| sums.row(kind, objects));
    let rows = [every.row("every token", objects), all.row("all questions", objects)].into_iter().chain(by_kind);
    Ok((rows.collect(), json!(facts), figure.svg()))
}

/// The figure: one row per picture, with the picture and what each question keeps of it.
#[derive(Default)]
struct Figure {
    sheet: Sheet,
    /// Height of the rows.
    height: usize,
    /// Number of columns.
    columns: usize,
}

impl Figure {
    /// Height of the title and the legend.
    const HEAD: usize = 100;

    /// Left edge of a column.
    fn column(i: usize) -> usize {
        20 + i * (SIDE + 40)
    }

    /// Adds a picture.
    fn row(&mut self, sample: &Sample, scene: Option<&Drawn>, found: &[Kept]) -> Result<(), Failure> {
        if let (0, Some(Kept { looked, .. })) = (self.height, found.first()) {
            self.legend(looked, scene.is_some());
        }
        let picture = sample.picture()?;
        let sides = [picture.width(), picture.height()];
        let size = sides.map(|side| (side * SIDE / sides[0].max(sides[1])).max(1));
        let y = Self::HEAD + self.height;
        self.sheet.text([Self::column(0), y + 20], &cut(&sample.name));
        self.sheet.image([Self::column(0), y + 50], &bicubic(&picture, size[0], size[1])?)?;
        for (i, kept) in found.iter().enumerate() {
            let Kept { question, answer, right, looked, .. } = kept;
            let (asked, x) = (&sample.asked[*question], Self::column(i + 1));
            let right = if *right { String::new() } else { format!(" (right: {})", asked.answer) };
            let counts = format!("{} of {} tokens", looked.kept.len(), looked.token_count());
            self.sheet.text([x, y + 20], &cut(&asked.question));
            self.sheet.text([x, y + 40], &format!("→ {}; {counts}", cut(&format!("{answer}{right}"))));
            // Without importance the overlay has no heat: kept tokens are bright, all others dark.
            let plain = Looked { importance: Vec::new(), ..Looked::clone(looked) };
            self.sheet.image([x, y + 50], &bicubic(&bare(&picture, &plain)?, size[0], size[1])?)?;
            if let Some((drawn, target)) = scene.and_then(|drawn| Some((drawn, drawn.targets[*question]?))) {
                let [left, top, right, bottom] = drawn.scene.objects()[target].bounds;
                let scale = size[0] as f32 / sides[0] as f32;
                let (x, y) = (x as f32, (y + 50) as f32);
                let edges = [x + left * scale, y + top * scale, x + right * scale, y + bottom * scale];
                self.sheet.frame(edges);
            }
        }
        self.columns = self.columns.max(1 + found.len());
        self.height += size[1] + 70;
        Ok(())
    }

    fn legend(&mut self, looked: &Looked, has_frames: bool) {
        self.sheet
            .text([20, 30], "Tokens that the text-guided sampler keeps for each question; the dark ones are dropped");
        if has_frames {
            self.sheet.text([20, 50], "The frame is around the queried object, where a question is about one object.");
        }
        if looked.choice.is_empty() {
            return;
        }
        self.sheet.text([20, 75], "scale of a region:");
        for (i, (scale, color)) in scale_colors(looked).into_iter().enumerate() {
            let x = 140 + 70 * i;
            self.sheet.swatch([x, 64], [12, 12], color);
            self.sheet.text([x + 18, 75], &looked.scales[scale].to_string());
        }
    }

    fn svg(self) -> String {
        self.sheet.svg([Self::column(self.columns).max(640), Self::HEAD + self.height])
    }
}

/// A text of at most [`CHARACTERS`].
fn cut(text: &str) -> String {
    match text.char_indices().nth(CHARACTERS) {
        Some(_) => text.chars().take(CHARACTERS - 1).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_are_shares_of_the_union() {
        assert_eq!(jaccard(&[1, 2, 3], &[2, 3, 4, 5]), Some(0.4));
        assert_eq!((jaccard(&[1], &[1]), jaccard(&[1], &[2]), jaccard(&[], &[2])), (Some(1.0), Some(0.0), Some(0.0)));
        assert_eq!(jaccard(&[], &[]), None);
    }

    #[test]
    fn rows_are_means() {
        let mut sums = Sums::default();
        sums.add(10, &[0, 1, 2, 3], Some(&[On::Queried, On::Queried, On::Others, On::Newline]));
        sums.add(20, &[4, 7], None);
        sums.pair([Some(0.5), None]);
        sums.pair([Some(0.25), Some(1.0)]);
        let row = sums.row("all", true);
        let expected = [15.0, 3.0, 0.375, 1.0, 0.5, 0.25, 0.0, 0.0, 0.25];
        assert_eq!(row.values.iter().map(|(_, value)| *value).collect::<Vec<_>>(), expected, "(got, expected)");
        let empty = Sums::default().row("none", false);
        assert!(empty.values.iter().all(|(_, value)| value.is_nan()), "got {empty:?}");
        assert_eq!(empty.values.len(), 6, "tokens, kept, overlap, map, thumbnail, newlines");
    }

    #[test]
    fn long_questions_are_cut() {
        let long = "ä".repeat(50);
        assert_eq!(cut(&long).chars().count(), CHARACTERS);
        assert_eq!(cut("what color is the star?"), "what color is the star?");
    }
}
