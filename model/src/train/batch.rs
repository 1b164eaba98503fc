//! A step's scenes as numbers: tiles, labelled patches, and questions packed one after another behind each picture.
//!
//! Everything that says which row goes where is worked out here, on the host; the device only gathers.

use fovea_scenes::{Color, Kind, Question, Scene, Split};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use rayon::prelude::*;

use super::{
    config::{Stage, Task},
    labels::Label,
};
use crate::{error::Error, grid::Grid, picture::Picture, prompt::Prompter, tiles::TileConfig, tiles::tiles};

/// One in so many background patches is a label: most of a picture is background, and says little.
const BACKGROUND: u64 = 6;

/// Asks for everything at once. Only training does: one such answer binds every object's color, kind and text together.
const LIST: &str = "what is there?";

/// A picture's place in a batch.
pub(super) struct Shown {
    /// Its first tile, the thumbnail.
    pub first_tile: usize,
    pub grid: Grid,
    /// The object that each patch of the map (Hx, Wx) belongs to, by index. Feeds the hints.
    pub owners: Vec<Option<usize>>,
    /// The same for the thumbnail's patches (P, P).
    pub thumbnail: Vec<Option<usize>>,
    /// Whether each object carries text.
    pub has_text: Vec<bool>,
}

/// One question, from the first token after the picture to the last but one of the answer.
pub(super) struct Asked {
    /// None for the list of everything.
    pub kind: Option<Kind>,
    /// The objects that it is about, by index. Feeds the hint of where to look.
    pub about: Vec<usize>,
    pub ids: Vec<u32>,
    /// How many of `ids` are the question's.
    pub prompt: usize,
    /// What follows each of the last ids: the answer, then the stop.
    pub answer: Vec<u32>,
}

/// A batch of scenes on the host.
pub(super) struct Batch {
    /// (tiles, 3, S, S).
    pub pixels: Vec<f32>,
    pub tiles: usize,
    pub shown: Vec<Shown>,
    /// Ids before every picture.
    pub before: Vec<u32>,
    /// Each picture's questions.
    pub asked: Vec<Vec<Asked>>,
    /// Row of the features (tiles * P*P), and what it shows.
    pub labels: Vec<(usize, Label)>,
}

/// What cuts pictures and reads questions: the same as in inference.
pub(super) struct Maker<'a> {
    pub tiles: &'a TileConfig,
    pub prompter: &'a Prompter,
    /// Patches of a tile's side.
    pub patches: usize,
}

/// The random numbers of one step, or of one scene: they depend on two numbers alone, so that a run that was stopped
/// goes on as if it had not been.
pub(super) fn dice(seed: u64, step: u64) -> ChaCha8Rng {
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    dice.set_stream(step + 1);
    dice
}

/// An even draw from 0 to `n` - 1.
pub(super) fn below(dice: &mut impl Rng, n: usize) -> usize {
    (dice.next_u64() % n.max(1) as u64) as usize
}

/// An even draw from `least` to `most`.
pub(super) fn between(dice: &mut impl Rng, [least, most]: [f64; 2]) -> f64 {
    least + (most - least) * ((dice.next_u64() >> 11) as f64 / (1u64 << 53) as f64)
}

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
    /// Single tiles without questions: the labels are all that is learned from.
    pub fn drill(&self, stage: &Stage, first: u64) -> Result<Batch, Error> {
        let parts: Result<Vec<Part>, Error> = (0..stage.batch as u64)
            .into_par_iter()
            .map(|i| {
                let scene = Scene::drill(first + i);
                let side = self.tiles.side;
                let picture = picture(&scene)?;
                let square = crate::resize::bicubic(&picture, side, side)?;
                let mut part = Part {
                    pixels: self.tiles.normalised(&square),
                    tiles: 1,
                    grid: Grid { rows: 0, cols: 0, patches: self.patches, top: 0, left: 0, height: 0, width: 0 },
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

    /// Whole scenes with questions.
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
        let grid = Grid::of(picture.height(), picture.width(), &self.tiles.pinpoints, self.tiles.side, self.patches);
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
        // A patch of the thumbnail shows what most of the patches under it show.
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
        let prompt = self.prompter.encode(question)?;
        let answer = self.prompter.answer_ids(answer)?;
        let mut ids = prompt.after().to_vec();
        let asked = ids.len();
        ids.extend(&answer[..answer.len() - 1]);
        Ok(Asked { kind: None, about: Vec::new(), ids, prompt: asked, answer })
    }

    fn together(&self, parts: Vec<Part>) -> Batch {
        let before = self.prompter.encode("?").map(|p| p.before().to_vec()).unwrap_or_default();
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

/// Row of the features of one picture's tiles at patch (y, x) of its canvas; the thumbnail's come first.
pub(super) fn grid_row(grid: &Grid, y: usize, x: usize) -> usize {
    let p = grid.patches;
    (1 + (y / p) * grid.cols + x / p) * p * p + (y % p) * p + x % p
}

fn picture(scene: &Scene) -> Result<Picture, Error> {
    let image = scene.picture();
    Picture::from_rgb(image.width() as usize, image.height() as usize, image.as_raw().clone())
}

/// The patch (row, column) of the canvas that each object's middle lies in.
fn middles(scene: &Scene) -> Vec<(usize, usize)> {
    (0..scene.objects().len()).map(|object| scene.middle_patch(object)).collect()
}

/// Labels a row by the object that it shows, and whether it is its middle.
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

/// Every object in reading order, by bands of a region's height: `a red plate 47, an orange star`.
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

/// `n` of the questions, kinds drawn evenly, none twice.
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

/// The scale that the generator would pick for a region: single patches where several texts meet, pairs where there is
/// one text or a shape, the whole where there is nothing. The hint.
pub(super) fn wished_scale(owners: impl Iterator<Item = Option<usize>>, has_text: &[bool]) -> Wish {
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

/// A wished scale, by how fine it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Coarse,
    Middle,
    Fine,
}
