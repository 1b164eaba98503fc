//! Enters: a model and samples. Leaves: where the importance (Eq. 8) of every decoder layer lies, as shares of it by
//! what tokens show, and as pictures: the paper's Fig. 5 and 10.
//!
//! A question goes up to the text-guided sampler once for each layer, and no further. Below the layer that is looked
//! at every visual token is there: nothing was pruned before. Layers rise, so that the picture's own way through them
//! goes on from one to the next. With more than [`PANELS`] layers the pictures show some of them, the shares all.

use std::sync::Arc;

use fovea_model::{
    AskOptions, Cancel, Conversation, Event, Looked, Model, Picture, bicubic,
    overlay::{TokenRect, heat},
};
use futures_util::{StreamExt, pin_mut};

use super::{
    places::{self, On},
    samples::{Asked, Sample},
    studies::{Found, Studied},
};
use crate::{
    chart::{self, Chart, ColourBar, GalleryRow},
    failure::Failure,
};

/// The most questions that are drawn.
const QUESTIONS: usize = 3;
/// The most layers that are drawn.
const PANELS: usize = 8;
/// The longer side of a drawn picture.
const SIDE: usize = 216;

/// Means of shares over questions, in the order of [`On::ALL`].
#[derive(Clone, Default)]
struct Shares {
    sums: [f64; On::ALL.len()],
    questions: usize,
}

impl Shares {
    /// One question: how much lies on each token, and what that shows.
    fn add(&mut self, tokens: &[(On, f64)]) {
        let all: f64 = tokens.iter().map(|(_, much)| much).sum();
        for (on, sum) in On::ALL.iter().zip(&mut self.sums) {
            *sum += tokens.iter().filter(|(what, _)| what == on).map(|(_, much)| much).sum::<f64>() / all;
        }
        self.questions += 1;
    }

    /// A row of means. Where no object is known, all tokens of the map are one kind.
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

/// One row for tokens that are all alike, and one a layer.
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
pub async fn run(
    model: &Arc<Model>,
    samples: &[Sample],
    cancel: &Cancel,
    mut progress: impl FnMut(usize, usize),
) -> Result<Studied, Failure> {
    let layers = model.config().text.n_layers;
    // Questions about one object whose place is known, and all others: counts are about several, pictures may be no
    // scenes.
    let (mut known, mut other) = (Table::new(layers), Table::new(layers));
    let shown = samples.first().map_or(Vec::new(), |first| shown(&first.asked));
    let drawn = spread(layers);
    let mut panels: Vec<Vec<Arc<Looked>>> = vec![Vec::new(); shown.len()];
    for (index, sample) in samples.iter().enumerate() {
        let mut conversation = model.look_at(sample.picture()?);
        for layer in 0..layers {
            let options = AskOptions {
                text: Some(true),
                layer: Some(layer),
                max_new_tokens: 1,
                cancel: cancel.clone(),
                ..AskOptions::default()
            };
            for (q, asked) in sample.asked.iter().enumerate() {
                let looked = look(&mut conversation, &asked.question, &options).await?;
                let scene = sample.scene.as_ref().zip(asked.target);
                match scene.and_then(|(scene, target)| places::tokens(scene, target, &looked)) {
                    Some(on) => known.add(layer, &on, &looked),
                    None => other.add(layer, &places::parts(&looked), &looked),
                }
                if let (0, true, Some(row)) = (index, drawn.contains(&layer), shown.iter().position(|s| *s == q)) {
                    panels[row].push(looked);
                }
            }
        }
        progress(index + 1, samples.len());
    }
    let objects = known.alike.questions > 0;
    let rows = if objects { known.rows(true) } else { other.rows(false) };
    let Some(first) = samples.first() else { return Err(Failure::Chart("expected a sample, got none".into())) };
    let asked: Vec<&Asked> = shown.iter().map(|q| &first.asked[*q]).collect();
    Ok(Studied::Rows(rows, figure(model, first, &asked, &drawn, &panels)?))
}

/// A question up to the text-guided sampler: what is dropped here is stopped.
async fn look(conversation: &mut Conversation, question: &str, options: &AskOptions) -> Result<Arc<Looked>, Failure> {
    let events = conversation.ask(question, options);
    pin_mut!(events);
    while let Some(event) = events.next().await {
        if let Event::Looked(looked) = event? {
            return Ok(looked);
        }
    }
    Err(Failure::Panic("the answer ended early".into()))
}

/// Which questions are drawn: those about different objects before all others, in their order.
fn shown(asked: &[Asked]) -> Vec<usize> {
    let fresh = |q: &usize| {
        let target = asked[*q].target;
        target.is_some() && asked[..*q].iter().all(|before| before.target != target)
    };
    let (mut first, rest): (Vec<usize>, Vec<usize>) = (0..asked.len()).partition(fresh);
    first.extend(rest);
    first.truncate(QUESTIONS);
    first
}

/// Which layers are drawn: all, or [`PANELS`] of them evenly from the first to the last.
fn spread(layers: usize) -> Vec<usize> {
    match layers {
        0..=PANELS => (0..layers).collect(),
        _ => (0..PANELS).map(|i| (i * (layers - 1) + (PANELS - 1) / 2) / (PANELS - 1)).collect(),
    }
}

/// The pictures: a row a question, first the picture itself and then a column a layer.
fn figure(
    model: &Model,
    sample: &Sample,
    asked: &[&Asked],
    layers: &[usize],
    panels: &[Vec<Arc<Looked>>],
) -> Result<Chart, Failure> {
    let picture = sample.picture()?;
    let (width, height) = (picture.width(), picture.height());
    let longer = width.max(height);
    let size = [width, height].map(|side| (side * SIDE / longer).max(1));
    let plain = bicubic(&picture, size[0], size[1])?;
    let panel = |p: &Picture| Chart { width: p.width() as u32, height: p.height() as u32, rgb: p.rgb().to_vec() };
    let mut rows = Vec::new();
    for (asked, looked) in asked.iter().zip(panels) {
        let object = sample.scene.as_ref().zip(asked.target);
        let marked = object.map(|(scene, target)| {
            let [left, top, right, bottom] = scene.objects()[target].bounds;
            TokenRect { left, top, right, bottom }
        });
        // Heat takes the picture's colours, which questions are about.
        let mut pictures = vec![(panel(&plain), String::new())];
        for looked in looked {
            let drawn = heat::draw(&picture, looked, size, marked)?;
            let share = object.and_then(|(scene, target)| places::tokens(scene, target, looked)).map(|on| {
                let mut one = Shares::default();
                one.add(&scored(&on, looked));
                format!("{:.0} % on it", 100.0 * one.sums[0])
            });
            pictures.push((panel(&drawn), share.unwrap_or_default()));
        }
        rows.push(GalleryRow { title: format!("{} → {}", asked.question, asked.answer), pictures });
    }
    let heading = |layer: &usize| match model.config().focus.text_layer {
        Some(usual) if usual == *layer => format!("layer {layer} (the sampler's)"),
        _ => format!("layer {layer}"),
    };
    let columns: Vec<String> = std::iter::once("the picture".to_owned()).chain(layers.iter().map(heading)).collect();
    let what = "Importance (Eq. 8) at the input of each layer, with every token below it. One cell is one token.";
    let mut notes = vec![what.to_owned()];
    if asked.iter().any(|a| a.target.is_some() && sample.scene.is_some()) {
        notes.push("The frame is around the object asked about; below, its share of all importance.".to_owned());
    }
    let title = "What the question looks at, layer by layer";
    chart::gallery(title, &notes, &bar(), &columns, &rows).map_err(Failure::Chart)
}

/// What heat means: octaves around the mean.
fn bar() -> ColourBar {
    let ends = heat::OCTAVES as f32;
    let tick = |octave: i32| {
        let name = if octave < 0 { format!("1/{}", 1 << -octave) } else { format!("{}", 1 << octave) };
        ((octave as f32 / ends + 1.0) / 2.0, name)
    };
    ColourBar {
        name: "a token's importance, times the mean of the map's".to_owned(),
        colours: (0..=96).map(|i| heat::colour(2f32.powf((i as f32 / 48.0 - 1.0) * ends))).collect(),
        ticks: (-heat::OCTAVES..=heat::OCTAVES).map(tick).collect(),
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
        let asked = |targets: &[Option<usize>]| -> Vec<Asked> {
            let one = |target: &Option<usize>| Asked {
                question: String::new(),
                answer: String::new(),
                kind: String::new(),
                target: *target,
            };
            targets.iter().map(one).collect()
        };
        assert_eq!(shown(&asked(&[Some(1), Some(1), None, Some(0), Some(4)])), [0, 3, 4]);
        assert_eq!(shown(&asked(&[None, Some(1), Some(1)])), [1, 0, 2]);
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
}
