//! Prepares the scenes of a step on the host. Output: tiles, labelled patches, and each picture's questions as token ids.

use fovea_model::{Error, Grid, Picture, Prompter, TileConfig, bicubic, tiles};
use fovea_scenes::{Color, Kind, Question, Scene, Split};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use rayon::prelude::*;

use crate::{
    config::{Stage, Task},
    labels::Label,
};

/// One of this many background patches gets a label: most patches are background, and there is little to learn from them.
const BACKGROUND: u64 = 6;

/// Asks for a list of all objects, in training only: the answer connects the colour, kind and text of every object.
const LIST: &str = "what is there?";

/// A picture of a batch.
pub(crate) struct Shown {
    /// Index of its first tile, the thumbnail.
    pub first_tile: usize,
    /// Its grid of tiles.
    pub grid: Grid,
    /// The object (index) of each patch of the map (Hx, Wx). The hints need it.
    pub owners: Vec<Option<usize>>,
    /// The object (index) of each patch of the thumbnail (P, P).
    pub thumbnail: Vec<Option<usize>>,
    /// Whether each object has text.
    pub has_text: Vec<bool>,
}

/// One question, from the first token after the picture to the second to last token of the answer.
pub(crate) struct Asked {
    /// Kind of the question. None for the list of all objects.
    pub kind: Option<Kind>,
    /// The objects (indices) that the question is about. The attention hint needs them.
    pub about: Vec<usize>,
    /// Token ids of question and answer, without the last one of the answer.
    pub ids: Vec<u32>,
    /// Number of `ids` that belong to the question.
    pub prompt: usize,
    /// The token after each of the last ids: those of the answer, then the stop token.
    pub answer: Vec<u32>,
}

/// A batch of scenes on the host.
pub(crate) struct Batch {
    /// Normalised pixels, (tiles, 3, S, S), flat.
    pub pixels: Vec<f32>,
    /// Number of tiles.
    pub tiles: usize,
    /// The pictures.
    pub shown: Vec<Shown>,
    /// Token ids before every picture.
    pub before: Vec<u32>,
    /// The questions of each picture.
    pub asked: Vec<Vec<Asked>>,
    /// Row of the features (tiles * P*P), and its label.
    pub labels: Vec<(usize, Label)>,
}

/// Cuts pictures into tiles and encodes questions, with the functions of inference.
pub(crate) struct Maker<'a> {
    /// How pictures are cut into tiles.
    pub tiles: &'a TileConfig,
    /// Encodes questions.
    pub prompter: &'a Prompter,
    /// Patches of a tile's side.
    pub patches: usize,
}

/// The random numbers of one step, or of one scene. They depend on the two numbers only, so that a resumed run computes the same.
pub(crate) fn dice(seed: u64, step: u64) -> ChaCha8Rng {
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    dice.set_stream(step + 1);
    dice
}

/// A uniform random number from 0 to `n` - 1.
pub(crate) fn below(dice: &mut impl Rng, n: usize) -> usize {
    (dice.next_u64() % n.max(1) as u64) as usize
}

/// A uniform random number from `least` to `most`.
pub(crate) fn between(dice: &mut impl Rng, [least, most]: [f64; 2]) -> f64 {
    least + (most - least) * ((dice.next_u64() >> 11) as f64 / (1u64 << 53) as f64)
}

/// One scene of a batch.
struct Part {
    pixels: Vec<f32>,
    tiles: usize,
    grid: Grid,
    owners: Vec<Option<usize>>,
    thumbnail: Vec<Option<usize>>,
    has_text: Vec<bool>,
    labels: Vec<(usize, Label)>,
    asked: Vec<Asked>,
}

impl Maker<'_> {
    /// A batch of single tiles without questions: only the dense labels have a loss.
    ///
    /// # Errors
    /// Those of cutting a picture into tiles.
    pub fn drill(&self, stage: &Stage, first: u64) -> Result<Batch, Error> {
        let parts: Result<Vec<Part>, Error> = (0..stage.batch as u64)
            .into_par_iter()
            .map(|i| {
                let scene = Scene::drill(first + i);
                let side = self.tiles.side;
                let picture = picture(&scene)?;
                let square = bicubic(&picture, side, side)?;
                let mut part = Part {
                    pixels: self.tiles.normalised(&square),
                    tiles: 1,
                    grid: Grid { patches: self.patches, ..Grid::default() },
                    owners: Vec::new(),
                    thumbnail: Vec::new(),
                    has_text: Vec::new(),
                    labels: Vec::new(),
                    asked: Vec::new(),
                };
                let mut dice = dice(first + i, 0);
                let middles = middles(&scene);
                for (row, owner) in scene.patch_owners().into_iter().enumerate() {
                    let at = (row / self.patches, row % self.patches);
                    let middle = owner.is_some_and(|o| middles[o] == at);
                    label(&mut part.labels, &scene, row, (owner, middle), true, &mut dice);
                }
                Ok(part)
            })
            .collect();
        Ok(self.together(parts?))
    }

    /// A batch of whole scenes with questions.
    ///
    /// # Errors
    /// Those of cutting a picture into tiles, and of the tokenizer.
    pub fn scenes(&self, stage: &Stage, first: u64) -> Result<Batch, Error> {
        let parts: Result<Vec<Part>, Error> = (0..stage.batch as u64)
            .into_par_iter()
            .map(|i| {
                let scene = match stage.task {
                    Task::Primer => Scene::primer(first + i),
                    _ => Scene::new(Split::Train, first + i),
                };
                self.scene(&scene, stage, &mut dice(first + i, 1))
            })
            .collect();
        Ok(self.together(parts?))
    }

    fn scene(&self, scene: &Scene, stage: &Stage, dice: &mut ChaCha8Rng) -> Result<Part, Error> {
        let picture = picture(scene)?;
        let cut = tiles(&picture, self.tiles)?;
        let grid = Grid::of(picture.height(), picture.width(), self.tiles, self.patches);
        let p = self.patches;
        let canvas = scene.patch_owners();
        let owner = |y: usize, x: usize| canvas.get(y * grid.cols * p + x).copied().flatten();
        let (mut labels, middles) = (Vec::new(), middles(scene));
        for y in 0..grid.rows * p {
            for x in 0..grid.cols * p {
                let owner = owner(y, x);
                let middle = owner.is_some_and(|o| middles[o] == (y, x));
                label(&mut labels, scene, grid_row(&grid, y, x), (owner, middle), true, dice);
            }
        }
        let owners: Vec<Option<usize>> = (0..grid.height)
            .flat_map(|y| (0..grid.width).map(move |x| (y, x)))
            .map(|(y, x)| owner(grid.top + y, grid.left + x))
            .collect();
        // A patch of the thumbnail belongs to the object of most map patches under it.
        let mut thumbnail = Vec::with_capacity(p * p);
        for y in 0..p {
            for x in 0..p {
                let rows = y * grid.height / p..((y + 1) * grid.height).div_ceil(p);
                let cols = x * grid.width / p..((x + 1) * grid.width).div_ceil(p);
                let mut seen = vec![0; scene.objects().len()];
                for (v, u) in rows.flat_map(|v| cols.clone().map(move |u| (v, u))) {
                    if let Some(i) = owners[v * grid.width + u] {
                        seen[i] += 1;
                    }
                }
                let most = (0..seen.len()).max_by_key(|&i| (seen[i], seen.len() - i)).filter(|&i| seen[i] > 0);
                let place = |at: usize, cut: usize, length: usize| at.saturating_sub(cut) * p / length.max(1);
                let middle = most.is_some_and(|o| {
                    let (v, u) = middles[o];
                    (place(v, grid.top, grid.height), place(u, grid.left, grid.width)) == (y, x)
                });
                label(&mut labels, scene, y * p + x, (most, middle), false, dice);
                thumbnail.push(most);
            }
        }
        let has_text = scene.objects().iter().map(|o| o.kind.has_text()).collect();
        let all = scene.questions().into_iter().chain(scene.questions_to_practise()).collect();
        let picked = pick(all, stage.questions, dice);
        let mut asked = Vec::with_capacity(picked.len() + 1);
        for q in picked {
            asked.push(Asked { kind: Some(q.kind), about: q.about, ..self.ask(&q.question, &q.answer)? });
        }
        if stage.list {
            asked.push(self.ask(LIST, &list(scene))?);
        }
        Ok(Part { pixels: cut.pixel_values, tiles: cut.count, grid, owners, thumbnail, has_text, labels, asked })
    }

    fn ask(&self, question: &str, answer: &str) -> Result<Asked, Error> {
        let prompt = self.prompter.encode(question, &[Grid::default()])?;
        let answer = self.prompter.answer_ids(answer)?;
        let mut ids = prompt.after().to_vec();
        let asked = ids.len();
        ids.extend(&answer[..answer.len() - 1]);
        Ok(Asked { kind: None, about: Vec::new(), ids, prompt: asked, answer })
    }

    fn together(&self, parts: Vec<Part>) -> Batch {
        let before = self.prompter.encode("?", &[Grid::default()]);
        let before = before.map(|p| p.ids[..p.places[0]].to_vec()).unwrap_or_default();
        let mut batch =
            Batch { pixels: Vec::new(), tiles: 0, shown: Vec::new(), before, asked: Vec::new(), labels: Vec::new() };
        for part in parts {
            let first_row = batch.tiles * self.patches * self.patches;
            batch.labels.extend(part.labels.into_iter().map(|(row, label)| (first_row + row, label)));
            batch.shown.push(Shown {
                first_tile: batch.tiles,
                grid: part.grid,
                owners: part.owners,
                thumbnail: part.thumbnail,
                has_text: part.has_text,
            });
            batch.tiles += part.tiles;
            batch.pixels.extend(part.pixels);
            batch.asked.push(part.asked);
        }
        batch
    }
}

/// Row of patch (y, x) of the canvas in the features of one picture's tiles; the thumbnail's rows come first.
pub(crate) fn grid_row(grid: &Grid, y: usize, x: usize) -> usize {
    let p = grid.patches;
    (1 + (y / p) * grid.cols + x / p) * p * p + (y % p) * p + x % p
}

fn picture(scene: &Scene) -> Result<Picture, Error> {
    let image = scene.picture();
    Picture::from_rgb(image.width() as usize, image.height() as usize, image.as_raw().clone())
}

/// The patch (row, column) of the canvas at the middle of each object.
fn middles(scene: &Scene) -> Vec<(usize, usize)> {
    (0..scene.objects().len()).map(|object| scene.middle_patch(object)).collect()
}

/// Labels a row with its object, and whether the patch is the object's middle.
fn label(
    to: &mut Vec<(usize, Label)>,
    scene: &Scene,
    row: usize,
    (owner, middle): (Option<usize>, bool),
    readable: bool,
    dice: &mut impl Rng,
) {
    match owner {
        Some(i) => to.push((row, Label::of(&scene.objects()[i], middle, readable))),
        None if dice.next_u64().is_multiple_of(BACKGROUND) => to.push((row, Label::BACKGROUND)),
        None => {}
    }
}

/// All objects in reading order, in bands as high as a region: `a red plate 47, an orange star`.
fn list(scene: &Scene) -> String {
    let mut order: Vec<usize> = (0..scene.objects().len()).collect();
    let middle = |i: usize| {
        let [x0, y0, x1, y1] = scene.objects()[i].content_bounds();
        [(y0 + y1) / 2.0, (x0 + x1) / 2.0]
    };
    order.sort_by(|&a, &b| {
        let ([ya, xa], [yb, xb]) = (middle(a), middle(b));
        (ya / 32.0).floor().total_cmp(&(yb / 32.0).floor()).then(xa.total_cmp(&xb))
    });
    let name = |i: usize| {
        let object = &scene.objects()[i];
        let article = if object.color == Color::Orange { "an" } else { "a" };
        format!("{article} {} {} {}", object.color.name(), object.kind.name(), object.text.to_lowercase())
    };
    order.into_iter().map(|i| name(i).trim_end().to_owned()).collect::<Vec<_>>().join(", ")
}

/// Picks `n` different questions; every kind has the same probability.
fn pick(mut all: Vec<Question>, n: usize, dice: &mut impl Rng) -> Vec<Question> {
    let mut picked = Vec::new();
    while picked.len() < n && !all.is_empty() {
        let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|k| all.iter().any(|q| q.kind == *k)).collect();
        let kind = kinds[below(dice, kinds.len())];
        let of_kind: Vec<usize> = (0..all.len()).filter(|&i| all[i].kind == kind).collect();
        picked.push(all.swap_remove(of_kind[below(dice, of_kind.len())]));
    }
    picked
}

/// The scale hint for a region: the finest scale for two or more texts, the middle one for one text or a shape, the coarsest for
/// background only.
pub(crate) fn wished_scale(owners: impl Iterator<Item = Option<usize>>, has_text: &[bool]) -> Wish {
    let mut texts: Vec<usize> = Vec::new();
    let mut anything = false;
    for owner in owners.flatten() {
        anything = true;
        if has_text.get(owner).copied().unwrap_or(false) && !texts.contains(&owner) {
            texts.push(owner);
        }
    }
    match texts.len() {
        0 if !anything => Wish::Coarse,
        0 | 1 => Wish::Middle,
        _ => Wish::Fine,
    }
}

/// A scale of the hint, by its fineness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Coarse,
    Middle,
    Fine,
}
