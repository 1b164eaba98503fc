//! Input: samples. Output: where the importance (Eq. 8) at every decoder layer is, as shares by what tokens show, and as heat
//! maps in an SVG file: the paper's Fig. 5 and 10.
//!
//! Each question runs up to the text-guided sampler once per layer. Nothing is pruned below that layer, so every visual token
//! is there. Layers are in rising order, so that the picture's prefix is extended and not computed again. The figure has at most
//! [`PANELS`] layers, the rows have all.

use std::sync::Arc;

use fovea_eval::{
    Evaluation,
    samples::{Asked, Sample},
};
use fovea_model::{AskOptions, Compression, Conversation, Looked, TextGuided, Within, bicubic};
use fovea_overlay::{TokenRect, heat};
use fovea_terminal::failure::Failure;

use super::{
    places::{self, On, Shares},
    sheet::Sheet,
    study::Found,
};
use crate::scenes::Drawn;

/// Most questions in the figure.
const QUESTIONS: usize = 3;
/// Most layers in the figure.
const PANELS: usize = 8;
/// The longer side of a picture in the figure, pixels.
const SIDE: usize = 216;

/// The importance of every visual token, and what the token shows.
fn scored(on: &[On], looked: &Looked) -> Vec<(On, f64)> {
    on.iter().copied().zip(looked.importance.iter().map(|score| f64::from(*score))).collect()
}

/// One row for equal importance of all tokens, and one row per layer.
struct Table {
    alike: Shares,
    layers: Vec<Shares>,
}

impl Table {
    fn new(layers: usize) -> Self {
        Self { alike: Shares::default(), layers: vec![Shares::default(); layers] }
    }

    fn add(&mut self, layer: usize, on: &[On], looked: &Looked) {
        self.layers[layer].add(&scored(on, looked));
        if layer == 0 {
            self.alike.add(&on.iter().map(|on| (*on, 1.0)).collect::<Vec<_>>());
        }
    }

    fn rows(&self, objects: bool) -> Vec<Found> {
        let row = |setting: String, shares: &Shares| Found { setting, values: shares.means(objects) };
        let layers = self.layers.iter().enumerate().map(|(i, shares)| row(format!("layer {i}"), shares));
        std::iter::once(row("all tokens alike".to_owned(), &self.alike)).chain(layers).collect()
    }
}

/// Asks every question of every sample for the importance at every layer, and draws the first sample's.
pub async fn run(evaluation: &Evaluation, drawn: &[Drawn]) -> Result<(Vec<Found>, String), Failure> {
    let Evaluation { model, samples, cancel, .. } = evaluation;
    let layers = model.config().text.n_layers;
    let usual = Compression::default_of(model.fits());
    // Questions about one object whose place is known, and all others: those that count, and those about a folder's pictures.
    let (mut known, mut other) = (Table::new(layers), Table::new(layers));
    let targets = |sample: usize, questions: usize| match drawn.get(sample) {
        Some(drawn) => drawn.targets.clone(),
        None => vec![None; questions],
    };
    let shown = samples.first().map_or(Vec::new(), |first| shown(&targets(0, first.asked.len())));
    let columns = spread(layers);
    let mut panels: Vec<Vec<Arc<Looked>>> = vec![Vec::new(); shown.len()];
    for (index, sample) in samples.iter().enumerate() {
        let mut conversation = Conversation::new(model, sample.picture()?);
        let targets = targets(index, sample.asked.len());
        for layer in 0..layers {
            let within = Within::Text(TextGuided { layer: Some(layer), keep: None });
            let options = AskOptions {
                compression: Some(Compression { within, ..usual.clone() }),
                max_new_tokens: 1,
                cancel: cancel.clone(),
                ..AskOptions::default()
            };
            for (q, asked) in sample.asked.iter().enumerate() {
                let looked = conversation.explain(&asked.question, &options).await?;
                let object = drawn.get(index).zip(targets[q]);
                match object.and_then(|(drawn, target)| places::tokens(&drawn.scene, Some(target), &looked)) {
                    Some(on) => known.add(layer, &on, &looked),
                    None => other.add(layer, &places::parts(&looked), &looked),
                }
                if let (0, true, Some(row)) = (index, columns.contains(&layer), shown.iter().position(|s| *s == q)) {
                    panels[row].push(looked);
                }
            }
        }
        evaluation.progress(index + 1, samples.len());
    }
    let objects = !known.alike.is_empty();
    let rows = if objects { known.rows(true) } else { other.rows(false) };
    let Some(first) = samples.first() else { return Err(Failure::Chart("expected a sample, got none".into())) };
    let questions: Vec<(usize, Vec<Arc<Looked>>)> = shown.into_iter().zip(panels).collect();
    let usual = model.config().focus.text_layer;
    Ok((rows, figure(first, drawn.first(), &questions, &columns, usual)?))
}

/// The questions of the figure, by their targets: first those about different objects, then the others, in their order.
fn shown(targets: &[Option<usize>]) -> Vec<usize> {
    let fresh = |q: &usize| targets[*q].is_some() && !targets[..*q].contains(&targets[*q]);
    let (mut first, rest): (Vec<usize>, Vec<usize>) = (0..targets.len()).partition(fresh);
    first.extend(rest);
    first.truncate(QUESTIONS);
    first
}

/// The layers of the figure: all, or [`PANELS`] of them at even distances from the first to the last.
fn spread(layers: usize) -> Vec<usize> {
    match layers {
        0..=PANELS => (0..layers).collect(),
        _ => (0..PANELS).map(|i| (i * (layers - 1) + (PANELS - 1) / 2) / (PANELS - 1)).collect(),
    }
}

/// The figure: one row per question, with the picture and one heat map per layer. `usual` is the sampler's own layer.
fn figure(
    sample: &Sample,
    drawn: Option<&Drawn>,
    questions: &[(usize, Vec<Arc<Looked>>)],
    layers: &[usize],
    usual: Option<usize>,
) -> Result<String, Failure> {
    let picture = sample.picture()?;
    let sides = [picture.width(), picture.height()];
    let size = sides.map(|side| (side * SIDE / sides[0].max(sides[1])).max(1));
    let column = |i: usize| 20 + i * (size[0].max(120) + 16);
    let mut sheet = Sheet::default();
    sheet.text([20, 30], "Importance by layer (Eq. 8): one cell is one token; no layer below prunes");
    if drawn.is_some() {
        sheet.text([20, 50], "The frame is around the queried object; the number below is its share of importance.");
    }
    legend(&mut sheet, [20, 75]);
    sheet.text([column(0), 130], "the picture");
    for (i, layer) in layers.iter().enumerate() {
        let usual = if usual == Some(*layer) { " (the sampler's)" } else { "" };
        sheet.text([column(i + 1), 130], &format!("layer {layer}{usual}"));
    }
    let mut y = 160;
    for (q, looked) in questions {
        let Asked { question, answer, .. } = &sample.asked[*q];
        sheet.text([20, y], &format!("{question} → {answer}"));
        sheet.image([column(0), y + 10], &bicubic(&picture, size[0], size[1])?)?;
        let object = drawn.and_then(|drawn| Some((&drawn.scene, drawn.targets[*q]?)));
        let marked = object.map(|(scene, target)| {
            let [left, top, right, bottom] = scene.objects()[target].bounds;
            TokenRect { left, top, right, bottom }
        });
        for (i, looked) in looked.iter().enumerate() {
            sheet.image([column(i + 1), y + 10], &heat::draw(&picture, looked, size, marked)?)?;
            if let Some(on) = object.and_then(|(scene, target)| places::tokens(scene, Some(target), looked)) {
                let mut one = Shares::default();
                one.add(&scored(&on, looked));
                sheet.text([column(i + 1), y + size[1] + 26], &format!("{:.0} %", 100.0 * one.means(true)[0].1));
            }
        }
        y += size[1] + 60;
    }
    Ok(sheet.svg([column(layers.len() + 1).max(640), y]))
}

/// Adds the ramp of heat: octaves around the mean.
fn legend(sheet: &mut Sheet, [x, y]: [usize; 2]) {
    sheet.text([x, y], "importance of a token, times the mean over the map");
    let octaves = heat::OCTAVES;
    for step in 0..16 * octaves as usize {
        let color = heat::color(2f32.powf((step as f32 + 0.5) / 8.0 - octaves as f32));
        sheet.swatch([x + 330 + 5 * step, y - 11], [5, 12], color);
    }
    for (i, octave) in (-octaves..=octaves).enumerate() {
        let name = if octave < 0 { format!("1/{}", 1 << -octave) } else { format!("{}", 1 << octave) };
        sheet.text([x + 325 + 40 * i, y + 15], &name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_and_questions_are_spread() {
        assert_eq!(spread(3), [0, 1, 2]);
        assert_eq!(spread(8), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(spread(32), [0, 4, 9, 13, 18, 22, 27, 31]);
        assert_eq!(shown(&[Some(1), Some(1), None, Some(0), Some(4)]), [0, 3, 4]);
        assert_eq!(shown(&[None, Some(1), Some(1)]), [1, 0, 2]);
        assert_eq!(shown(&[]), [0; 0]);
    }
}
