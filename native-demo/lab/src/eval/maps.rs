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
use fovea_model::{AskOptions, Compression, Conversation, Looked, Picture, TextGuided, Within, bicubic};
use fovea_overlay::{TokenRect, heat, png};
use fovea_terminal::failure::Failure;

use super::{
    places::{self, On},
    study::Found,
};
use crate::scenes::Drawn;

/// Most questions in the figure.
const QUESTIONS: usize = 3;
/// Most layers in the figure.
const PANELS: usize = 8;
/// The longer side of a picture in the figure, pixels.
const SIDE: usize = 216;

/// Means of shares over questions, in the order of [`On::ALL`].
#[derive(Clone, Default)]
struct Shares {
    sums: [f64; On::ALL.len()],
    questions: usize,
}

impl Shares {
    /// One question: an amount per token, and what the token shows.
    fn add(&mut self, tokens: &[(On, f64)]) {
        let all: f64 = tokens.iter().map(|(_, much)| much).sum();
        for (on, sum) in On::ALL.iter().zip(&mut self.sums) {
            *sum += tokens.iter().filter(|(what, _)| what == on).map(|(_, much)| much).sum::<f64>() / all;
        }
        self.questions += 1;
    }

    /// A row of means. Without `objects` all tokens of the map are one kind.
    fn row(&self, setting: String, objects: bool) -> Found {
        let mean = |(on, sum): (&On, &f64)| (on.name().to_owned(), sum / self.questions.max(1) as f64);
        let mut values: Vec<(String, f64)> = On::ALL.iter().zip(&self.sums).map(mean).collect();
        if !objects {
            values.drain(..2);
            values[0].0 = "map".to_owned();
        }
        Found { setting, values }
    }
}

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
        let layers = self.layers.iter().enumerate().map(|(i, s)| s.row(format!("layer {i}"), objects));
        std::iter::once(self.alike.row("all tokens alike".to_owned(), objects)).chain(layers).collect()
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
                match object.and_then(|(drawn, target)| places::tokens(&drawn.scene, target, &looked)) {
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
    let objects = known.alike.questions > 0;
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
    let mut svg = String::new();
    text(&mut svg, [20, 30], "Importance by layer (Eq. 8): one cell is one token; no layer below prunes");
    if drawn.is_some() {
        text(
            &mut svg,
            [20, 50],
            "The frame is around the queried object; the number below is its share of all importance.",
        );
    }
    legend(&mut svg, [20, 75]);
    text(&mut svg, [column(0), 130], "the picture");
    for (i, layer) in layers.iter().enumerate() {
        let usual = if usual == Some(*layer) { " (the sampler's)" } else { "" };
        text(&mut svg, [column(i + 1), 130], &format!("layer {layer}{usual}"));
    }
    let mut y = 160;
    for (q, looked) in questions {
        let Asked { question, answer, .. } = &sample.asked[*q];
        text(&mut svg, [20, y], &format!("{question} → {answer}"));
        image(&mut svg, [column(0), y + 10], &bicubic(&picture, size[0], size[1])?)?;
        let object = drawn.and_then(|drawn| Some((&drawn.scene, drawn.targets[*q]?)));
        let marked = object.map(|(scene, target)| {
            let [left, top, right, bottom] = scene.objects()[target].bounds;
            TokenRect { left, top, right, bottom }
        });
        for (i, looked) in looked.iter().enumerate() {
            image(&mut svg, [column(i + 1), y + 10], &heat::draw(&picture, looked, size, marked)?)?;
            if let Some(on) = object.and_then(|(scene, target)| places::tokens(scene, target, looked)) {
                let mut one = Shares::default();
                one.add(&scored(&on, looked));
                text(&mut svg, [column(i + 1), y + size[1] + 26], &format!("{:.0} %", 100.0 * one.sums[0]));
            }
        }
        y += size[1] + 60;
    }
    let (width, height) = (column(layers.len() + 1).max(640), y);
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{svg}</svg>\n"
    ))
}

/// Adds a line of text whose baseline begins at (x, y).
fn text(svg: &mut String, [x, y]: [usize; 2], text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    *svg += &format!("<text x=\"{x}\" y=\"{y}\">{text}</text>\n");
}

/// Adds a picture as an embedded PNG file.
fn image(svg: &mut String, [x, y]: [usize; 2], picture: &Picture) -> Result<(), Failure> {
    let (width, height, data) = (picture.width(), picture.height(), base64(&png(picture)?));
    let data = format!("data:image/png;base64,{data}");
    *svg += &format!("<image x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" href=\"{data}\"/>\n");
    Ok(())
}

/// Adds the ramp of heat: octaves around the mean.
fn legend(svg: &mut String, [x, y]: [usize; 2]) {
    text(svg, [x, y], "importance of a token, times the mean over the map");
    let octaves = heat::OCTAVES;
    for step in 0..16 * octaves as usize {
        let [r, g, b] = heat::color(2f32.powf((step as f32 + 0.5) / 8.0 - octaves as f32));
        let (x, y) = (x + 330 + 5 * step, y - 11);
        *svg += &format!("<rect x=\"{x}\" y=\"{y}\" width=\"5\" height=\"12\" fill=\"rgb({r},{g},{b})\"/>\n");
    }
    for (i, octave) in (-octaves..=octaves).enumerate() {
        let name = if octave < 0 { format!("1/{}", 1 << -octave) } else { format!("{}", 1 << octave) };
        text(svg, [x + 325 + 40 * i, y + 15], &name);
    }
}

/// Base64 with padding (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = [0, 1, 2].map(|i| u32::from(chunk.get(i).copied().unwrap_or(0)) << (16 - 8 * i)).iter().sum::<u32>();
        for i in 0..4 {
            let letter = char::from(LETTERS[(bits >> (18 - 6 * i)) as usize & 63]);
            text.push(if i <= chunk.len() { letter } else { '=' });
        }
    }
    text
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

    #[test]
    fn shares_are_means_of_shares() {
        let mut shares = Shares::default();
        shares.add(&[(On::Queried, 3.0), (On::Background, 1.0)]);
        shares.add(&[(On::Queried, 1.0), (On::Thumbnail, 1.0), (On::Newline, 2.0)]);
        let values: Vec<f64> = shares.row(String::new(), true).values.into_iter().map(|(_, v)| v).collect();
        assert_eq!(values, [0.5, 0.0, 0.125, 0.125, 0.25], "queried, others, background, thumbnail, newlines");
        let plain = shares.row(String::new(), false).values;
        assert_eq!(plain[0], ("map".to_owned(), 0.125));
        assert_eq!(plain.len(), 3);
    }

    #[test]
    fn bytes_as_base64() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text, "{bytes:?} (got, expected)");
        }
    }
}
