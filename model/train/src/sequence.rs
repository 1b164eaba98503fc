//! Lays a batch out. Input: a batch, and the scale of every region or the patches that stay. Output: the text model's input, as
//! indices into a table of rows.
//!
//! The rows are, in this order: every patch's features, the pooled tokens of each kernel, the newline, and the embedding of
//! every token of the vocabulary. A sequence is the text before the picture and its visual tokens, padded to the longest of the
//! batch, then the questions one after another, padded as well.

use burn::tensor::Tensor;
use fovea_model::{Grid, parts::Slot};
use fovea_shaders::{Cell, Scale, TokenBox, compact};

use crate::batch::{Asked, Batch, Shown, Wish, grid_row, wished_scale};

/// What is added to a masked score. exp(-40) vanishes in an f32 sum. It is large enough to avoid underflow, and subnormal numbers in
/// the gradients, which are slow.
pub(crate) const FAR_BELOW: f32 = -40.0;

/// The regions of a map in raster order, as patches (y0, x0, y1, x1). The last region of a row or column ends at the edge.
pub(crate) fn regions(height: usize, width: usize, window: usize) -> Vec<TokenBox> {
    let corners = fovea_shaders::regions(height, width, window).into_iter();
    corners.map(|(y, x)| [y, x, (y + window).min(height), (x + window).min(width)]).collect()
}

/// Rows of the features under a box of the map, in raster order, padded with the first one to `count`.
pub(crate) fn rows_under(shown: &Shown, patches: usize, at: TokenBox, count: usize) -> Vec<i32> {
    let [y0, x0, y1, x1] = at;
    let first = shown.first_tile * patches * patches;
    let row = |y, x| (first + grid_row(&shown.grid, shown.grid.top + y, shown.grid.left + x)) as i32;
    let mut rows: Vec<i32> = (y0..y1).flat_map(|y| (x0..x1).map(move |x| (y, x))).map(|(y, x)| row(y, x)).collect();
    rows.resize(count, rows[0]);
    rows
}

/// The objects under a box of the map, without duplicates.
fn objects_under(shown: &Shown, [y0, x0, y1, x1]: TokenBox) -> Vec<usize> {
    let under = (y0..y1).flat_map(|y| (x0..x1).map(move |x| y * shown.grid.width + x));
    let mut objects: Vec<usize> = under.filter_map(|i| shown.owners[i]).collect();
    objects.sort_unstable();
    objects.dedup();
    objects
}

/// The row of a visual token, before the number of pooled rows is known.
enum Row {
    /// A row of the features.
    Feature(usize),
    /// A pooled token: its scale, and its number within that scale.
    Pooled(usize, usize),
    Newline,
}

/// The text model's input for a batch, as indices.
pub(crate) struct Sequences {
    /// Rows pooled for each scale of the config: (tokens, rows * cols), flat. Empty for single patches.
    pub pooled: Vec<Vec<i32>>,
    /// Index of every token's row, (scenes, prefix + text), flat.
    pub rows: Vec<i32>,
    /// Index of every token's gate, of the same shape: a region or a kept patch of the batch, or one past the last one for no gate.
    pub gates: Vec<i32>,
    /// Position of every token, of the same shape.
    pub positions: Vec<usize>,
    /// Tokens before the questions, with padding.
    pub prefix: usize,
    /// Tokens of the questions, with padding.
    pub text: usize,
    /// Tokens of each scene before the questions, without padding.
    pub lengths: Vec<usize>,
    /// Tokens before the picture.
    pub before: usize,
    /// For every position of the text: the question it belongs to; None for padding.
    pub segments: Vec<Vec<Option<usize>>>,
    /// For every position of the text: whether it belongs to a question, and not to its answer.
    pub prompts: Vec<Vec<bool>>,
    /// Positions that predict an answer's token: index into (scenes, text), flat, and the token to predict.
    pub targets: Vec<(usize, u32)>,
    /// The scene and question of every target.
    pub owners: Vec<(usize, usize)>,
    /// For every visual token of every scene: the objects that it shows.
    pub shown: Vec<Vec<Vec<usize>>>,
}

/// A padded length. There are few different ones, because libraries compile or tune a product for every shape.
fn filled(n: usize) -> usize {
    n.next_multiple_of(16)
}

/// Row of a patch in the features of one picture's tiles; None for a newline.
pub(crate) fn row_of(slot: Slot, grid: &Grid) -> Option<usize> {
    match slot {
        Slot::Thumbnail { patch } => Some(patch),
        Slot::Map { y, x } => Some(grid_row(grid, grid.top + y, grid.left + x)),
        Slot::Newline { .. } => None,
    }
}

/// The visual tokens of a batch before their rows are numbered.
#[derive(Default)]
struct Visual {
    /// For every scene its tokens: the row, and the index of the gate if there is one.
    tokens: Vec<Vec<(Row, Option<usize>)>>,
    /// For every token: the objects that it shows.
    shown: Vec<Vec<Vec<usize>>>,
    /// Rows pooled for each scale, see [`Sequences::pooled`].
    pooled: Vec<Vec<i32>>,
    /// Number of gates.
    gates: usize,
}

/// Lays a batch out of which only some patches stay, each with a gate: `kept` has those of every picture, in the order of the family's
/// own sequence. A newline follows each row of the map with a patch, as in inference.
pub(crate) fn arrange_kept(batch: &Batch, patches: usize, kept: &[Vec<Slot>]) -> Sequences {
    let mut visual = Visual::default();
    for (shown, slots) in batch.shown.iter().zip(kept) {
        let first = shown.first_tile * patches * patches;
        let (mut tokens, mut objects) = (Vec::new(), Vec::new());
        for (i, &slot) in slots.iter().enumerate() {
            let Some(row) = row_of(slot, &shown.grid) else { continue };
            tokens.push((Row::Feature(first + row), Some(visual.gates)));
            visual.gates += 1;
            let (owner, line) = match slot {
                Slot::Map { y, x } => (shown.owners[y * shown.grid.width + x], Some(y)),
                _ => (shown.thumbnail[row], None),
            };
            objects.push(owner.into_iter().collect());
            let next = match slots.get(i + 1) {
                Some(&Slot::Map { y, .. }) => Some(y),
                _ => None,
            };
            if line.is_some() && line != next {
                tokens.push((Row::Newline, None));
                objects.push(Vec::new());
            }
        }
        visual.tokens.push(tokens);
        visual.shown.push(objects);
    }
    laid_out(batch, patches, &[], visual)
}

/// Lays a batch out. `choice` has the scale of every region, picture after picture. With `thumbnail_only` the maps are left out.
pub(crate) fn arrange(
    batch: &Batch,
    patches: usize,
    window: usize,
    scales: &[Scale],
    choice: &[usize],
    thumbnail_only: bool,
) -> Sequences {
    let p2 = patches * patches;
    // A gate is a region.
    let mut visual = Visual { pooled: vec![Vec::new(); scales.len()], ..Visual::default() };
    for shown in &batch.shown {
        let thumbnail = shown.first_tile * p2;
        let mut tokens: Vec<_> = (thumbnail..thumbnail + p2).map(|row| (Row::Feature(row), None)).collect();
        let mut objects: Vec<Vec<usize>> = shown.thumbnail.iter().map(|o| o.iter().copied().collect()).collect();
        let (height, width) = (shown.grid.height, shown.grid.width);
        let count = regions(height, width, window).len();
        let chosen = &choice[visual.gates..visual.gates + count];
        let cells = if thumbnail_only { Vec::new() } else { compact(height, width, window, scales, chosen) };
        for (at, cell) in cells {
            // A newline's box is empty.
            objects.push(objects_under(shown, at));
            let Cell::Pooled { region, .. } = cell else {
                tokens.push((Row::Newline, None));
                continue;
            };
            let (s, gate) = (chosen[region], Some(visual.gates + region));
            let kernel = scales[s].rows * scales[s].cols;
            if kernel == 1 {
                tokens.push((Row::Feature(rows_under(shown, patches, at, 1)[0] as usize), gate));
            } else {
                tokens.push((Row::Pooled(s, visual.pooled[s].len() / kernel), gate));
                visual.pooled[s].extend(rows_under(shown, patches, at, kernel));
            }
        }
        visual.gates += count;
        visual.tokens.push(tokens);
        visual.shown.push(objects);
    }
    laid_out(batch, patches, scales, visual)
}

/// Numbers the rows, and adds the text.
fn laid_out(batch: &Batch, patches: usize, scales: &[Scale], visual: Visual) -> Sequences {
    let feature_rows = batch.tiles * patches * patches;
    let Visual { tokens: visual, shown, pooled, gates } = visual;
    let mut starts = Vec::with_capacity(scales.len());
    let mut next = feature_rows;
    for (list, scale) in pooled.iter().zip(scales) {
        starts.push(next);
        next += list.len() / (scale.rows * scale.cols).max(1);
    }
    let (newline, embedding, no_gate) = (next, next + 1, gates);

    let before = batch.before.len();
    let lengths: Vec<usize> = visual.iter().map(|v| before + v.len()).collect();
    let prefix = filled(lengths.iter().copied().max().unwrap_or(0));
    let text_length = |asked: &Vec<Asked>| asked.iter().map(|a| a.ids.len()).sum::<usize>();
    let text = filled(batch.asked.iter().map(text_length).max().unwrap_or(0));
    let mut s = Sequences {
        pooled,
        rows: Vec::new(),
        gates: Vec::new(),
        positions: Vec::new(),
        prefix,
        text,
        before,
        segments: Vec::new(),
        prompts: Vec::new(),
        targets: Vec::new(),
        owners: Vec::new(),
        shown,
        lengths,
    };
    for (b, (visual, asked)) in visual.iter().zip(&batch.asked).enumerate() {
        let length = s.lengths[b];
        let start = s.rows.len();
        for &id in &batch.before {
            s.rows.push((embedding + id as usize) as i32);
            s.gates.push(no_gate as i32);
        }
        for (row, gate) in visual {
            s.rows.push(match row {
                Row::Feature(row) => *row,
                Row::Pooled(scale, at) => starts[*scale] + at,
                Row::Newline => newline,
            } as i32);
            s.gates.push(gate.unwrap_or(no_gate) as i32);
        }
        s.rows.resize(start + prefix, embedding as i32);
        s.positions.extend(0..prefix);
        let (mut segments, mut prompts) = (vec![None; text], vec![false; text]);
        let mut place = 0;
        for (q, asked) in asked.iter().enumerate() {
            for (i, &id) in asked.ids.iter().enumerate() {
                s.rows.push((embedding + id as usize) as i32);
                s.positions.push(length + i);
                segments[place] = Some(q);
                prompts[place] = i < asked.prompt;
                if i + 1 >= asked.prompt {
                    s.targets.push((b * text + place, asked.answer[i + 1 - asked.prompt]));
                    s.owners.push((b, q));
                }
                place += 1;
            }
        }
        s.rows.resize(start + prefix + text, embedding as i32);
        s.positions.resize(start + prefix + text, 0);
        s.gates.resize(start + prefix + text, no_gate as i32);
        s.segments.push(segments);
        s.prompts.push(prompts);
    }
    s
}

/// The targets of the attention hint, over (scenes, questions, visual tokens), flat.
pub(crate) struct Aims {
    /// Uniform over the tokens that show an object of the question; zeros if the question is about no object.
    pub wanted: Vec<f32>,
    /// 1 for a token that shows other objects only.
    pub others: Vec<f32>,
    /// Sum of ln(number of wanted tokens) over the questions with an aim.
    pub entropy: f64,
    /// Number of questions with an aim.
    pub count: usize,
}

impl Sequences {
    /// The largest number of questions of a scene.
    pub fn questions(&self) -> usize {
        self.segments.iter().flatten().flatten().max().map_or(0, |q| q + 1)
    }

    /// The matrix that averages over the text tokens of each question: (scenes, questions, text), flat.
    pub fn averages(&self) -> Vec<f32> {
        let questions = self.questions();
        let mut all = vec![0.0; self.segments.len() * questions * self.text];
        for (b, (segments, prompts)) in self.segments.iter().zip(&self.prompts).enumerate() {
            for q in 0..questions {
                let its = |t: &usize| segments[*t] == Some(q) && prompts[*t];
                let count = (0..self.text).filter(its).count() as f32;
                for t in (0..self.text).filter(its) {
                    all[(b * questions + q) * self.text + t] = 1.0 / count;
                }
            }
        }
        all
    }

    /// Copies importance (scenes, questions, visual tokens) to the host, without padding.
    pub fn by_question(&self, importance: Tensor<3>, batch: &Batch) -> Vec<Vec<Vec<f32>>> {
        let [_, questions, visual] = importance.dims();
        let values: Vec<f32> = importance.into_data().iter::<f32>().collect();
        let of = |b: usize, q: usize| {
            let first = (b * questions + q) * visual;
            values[first..first + self.lengths[b] - self.before].to_vec()
        };
        let scenes = batch.asked.iter().enumerate();
        scenes.map(|(b, asked)| (0..asked.len()).map(|q| of(b, q)).collect()).collect()
    }

    /// The attention hint's targets for the questions of `batch`.
    pub fn aims(&self, batch: &Batch) -> Aims {
        let (questions, visual) = (self.questions(), self.prefix - self.before);
        let size = self.shown.len() * questions * visual;
        let mut aims = Aims { wanted: vec![0.0; size], others: vec![0.0; size], entropy: 0.0, count: 0 };
        for (b, (shown, asked)) in self.shown.iter().zip(&batch.asked).enumerate() {
            for (q, asked) in asked.iter().enumerate() {
                let shows = |i: &usize| shown[*i].iter().any(|o| asked.about.contains(o));
                let wanted: Vec<usize> = (0..shown.len()).filter(shows).collect();
                if wanted.is_empty() {
                    continue;
                }
                let first = (b * questions + q) * visual;
                wanted.iter().for_each(|i| aims.wanted[first + i] = 1.0 / wanted.len() as f32);
                for i in (0..shown.len()).filter(|i| !shown[*i].is_empty() && !shows(i)) {
                    aims.others[first + i] = 1.0;
                }
                aims.entropy += (wanted.len() as f64).ln();
                aims.count += 1;
            }
        }
        aims
    }

    /// What is added to the attention scores of the questions, (scenes, text, prefix + text), flat: 0 where a token may attend,
    /// [`FAR_BELOW`] where not. `kept` has the visual tokens that stay for each question; with None all stay.
    pub fn mask(&self, kept: Option<&Vec<Vec<Vec<bool>>>>) -> Vec<f32> {
        let width = self.prefix + self.text;
        let mut mask = vec![FAR_BELOW; self.lengths.len() * self.text * width];
        for (b, segments) in self.segments.iter().enumerate() {
            for (t, segment) in segments.iter().enumerate() {
                let row = &mut mask[(b * self.text + t) * width..][..width];
                // A padding token attends to itself, so that its softmax has a term.
                row[self.prefix + t] = 0.0;
                let Some(q) = *segment else { continue };
                row[..self.lengths[b]].fill(0.0);
                if let Some(kept) = kept {
                    for (j, _) in kept[b][q].iter().enumerate().filter(|(_, kept)| !**kept) {
                        row[self.before + j] = FAR_BELOW;
                    }
                }
                for u in 0..t {
                    if segments[u] == Some(q) {
                        row[self.prefix + u] = 0.0;
                    }
                }
            }
        }
        mask
    }
}

/// The scale hint: for each region of the batch, the index of the scale that it should have.
pub(crate) fn wishes(batch: &Batch, window: usize, scales: &[Scale]) -> Vec<usize> {
    let mut by_size: Vec<usize> = (0..scales.len()).collect();
    // A scale that drops its region is the coarsest.
    by_size.sort_by_key(|&i| (!scales[i].drops(), std::cmp::Reverse(scales[i].rows * scales[i].cols)));
    let (coarse, fine) = (by_size[0], by_size[by_size.len() - 1]);
    let middle = by_size[by_size.len() / 2];
    let mut all = Vec::new();
    for shown in &batch.shown {
        for [y0, x0, y1, x1] in regions(shown.grid.height, shown.grid.width, window) {
            let under = (y0..y1).flat_map(|y| (x0..x1).map(move |x| (y, x)));
            let owners = under.map(|(y, x)| shown.owners[y * shown.grid.width + x]);
            all.push(match wished_scale(owners, &shown.has_text) {
                Wish::Coarse => coarse,
                Wish::Middle => middle,
                Wish::Fine => fine,
            });
        }
    }
    all
}
