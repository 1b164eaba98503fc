//! Input: a split and an index. Output: a picture, its objects, and questions about them.

use image::RgbImage;

use crate::draw;
use crate::frame::Frame;
use crate::layout::Layout;
use crate::names::{Kind, ObjectKind, PATCH, Split, TILE};
use crate::object::Object;
use crate::question::{self, Question};
use crate::random::{Purpose, Random};

/// Least number of a patch's 64 sample points that an object must cover to own the patch.
const OWNED: usize = 6;
/// Least number of types of shapes for a question about a type.
const LEAST: usize = 3;

/// A picture, its objects, and questions about them.
#[derive(Debug, Clone)]
pub struct Scene {
    seed: u64,
    frame: Frame,
    objects: Vec<Object>,
    counted: ObjectKind,
    least: usize,
    picture: RgbImage,
}

impl Scene {
    /// The scene with this index in its split. It is always the same, byte for byte.
    #[must_use]
    pub fn new(split: Split, index: u64) -> Self {
        let odd = match split {
            Split::Train => 0,
            Split::HeldOut => 1,
        };
        let seed = index.wrapping_mul(2).wrapping_add(odd);
        let mut random = Random::new(seed, Purpose::Scene);
        let layout = Layout::scene(&mut random);
        Self::drawn(seed, layout, &mut random)
    }

    /// The reading drill with this index: one tile, full of texts, with a few shapes. For training only.
    #[must_use]
    pub fn drill(index: u64) -> Self {
        let seed = index.wrapping_mul(2);
        let mut random = Random::new(seed, Purpose::Drill);
        let layout = Layout::drill(&mut random);
        Self::drawn(seed, layout, &mut random)
    }

    /// The primer with this index: two tiles with one or two texts and one or two shapes, so that few answers are possible.
    /// For training only: its answers can be guessed.
    #[must_use]
    pub fn primer(index: u64) -> Self {
        let seed = index.wrapping_mul(2);
        let mut random = Random::new(seed, Purpose::Primer);
        let layout = Layout::primer(&mut random);
        Self { least: 1, ..Self::drawn(seed, layout, &mut random) }
    }

    fn drawn(seed: u64, layout: Layout, random: &mut Random) -> Self {
        let Layout { frame, objects, counted } = layout;
        let picture = draw::draw(&frame, &objects, random);
        Self { seed, frame, objects, counted, least: LEAST, picture }
    }

    /// The picture.
    #[must_use]
    pub fn picture(&self) -> &RgbImage {
        &self.picture
    }

    /// The canvas that LLaVA-NeXT's processor chooses for the picture, in tiles (rows, columns).
    #[must_use]
    pub fn canvas(&self) -> (usize, usize) {
        self.frame.canvas
    }

    /// Position of the picture on the canvas.
    #[must_use]
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Pixels of the picture per unit (pixel of the canvas).
    #[must_use]
    pub fn scale(&self) -> f32 {
        self.frame.scale
    }

    /// Top left corner of the picture on the canvas, in units (x, y).
    #[must_use]
    pub fn offset(&self) -> (usize, usize) {
        self.frame.offset
    }

    /// The objects: the main group of three first, then shapes, then other carriers of text.
    #[must_use]
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// The type of shape that questions count.
    #[must_use]
    pub fn counted(&self) -> ObjectKind {
        self.counted
    }

    /// All questions about the scene. For scenes and primers: drills are for reading only.
    #[must_use]
    pub fn questions(&self) -> Vec<Question> {
        question::all(&self.objects, self.counted, &mut Random::new(self.seed, Purpose::Questions), self.least)
    }

    /// More questions, for training only: the number of shapes of each type except the counted one. Their answers are not
    /// balanced.
    #[must_use]
    pub fn questions_to_practise(&self) -> Vec<Question> {
        question::other_counts(&self.objects, self.counted)
    }

    /// One random question of each kind that the scene has.
    #[must_use]
    pub fn one_of_each(&self) -> Vec<Question> {
        let mut random = Random::new(self.seed, Purpose::Pick);
        let questions = self.questions();
        let mut picked = Vec::new();
        for kind in Kind::ALL {
            let of_kind: Vec<&Question> = questions.iter().filter(|question| question.kind == kind).collect();
            if !of_kind.is_empty() {
                picked.push(random.pick(&of_kind).clone());
            }
        }
        picked
    }

    /// The patch of the canvas at the centre of an object's box, (row, column).
    #[must_use]
    pub fn middle_patch(&self, object: usize) -> (usize, usize) {
        let [x0, y0, x1, y1] = self.objects[object].content_bounds();
        let patch = |low: f32, high: f32, offset: usize| ((low + high) / 2.0 + offset as f32) as usize / PATCH;
        (patch(y0, y1, self.frame.offset.1), patch(x0, x1, self.frame.offset.0))
    }

    /// The object on each patch of the whole canvas, padding included, row by row: the object that covers most of the
    /// patch's 64 sample points, if it covers at least 6.
    #[must_use]
    pub fn patch_owners(&self) -> Vec<Option<usize>> {
        let (rows, columns) = (self.frame.canvas.0 * TILE / PATCH, self.frame.canvas.1 * TILE / PATCH);
        (0..rows * columns).map(|patch| self.owner(patch / columns, patch % columns)).collect()
    }

    /// The object on one patch.
    fn owner(&self, row: usize, column: usize) -> Option<usize> {
        let x = (column * PATCH) as f32 - self.frame.offset.0 as f32;
        let y = (row * PATCH) as f32 - self.frame.offset.1 as f32;
        let side = PATCH as f32;
        let mut best: Option<(usize, usize)> = None;
        for (index, object) in self.objects.iter().enumerate() {
            let [x0, y0, x1, y1] = object.content_bounds();
            if x1 <= x || x0 >= x + side || y1 <= y || y0 >= y + side {
                continue;
            }
            let points = (0..PATCH * PATCH).filter(|point| {
                let (dx, dy) = ((point % PATCH) as f32 + 0.5, (point / PATCH) as f32 + 0.5);
                object.covers(x + dx, y + dy)
            });
            let covered = points.count();
            if covered >= OWNED && best.is_none_or(|(most, _)| covered > most) {
                best = Some((covered, index));
            }
        }
        best.map(|(_, index)| index)
    }
}
