//! Input: random numbers. Output: a canvas, the size of the picture, and its position on the canvas.

use crate::names::{CANVASES, TILE};
use crate::random::Random;

/// The scales, in pixels of the picture per unit. 1, the scale without resizing, is twice as likely as the others.
const SCALES: [f32; 6] = [1.0, 1.0, 1.5, 2.0, 2.5, 3.0];
/// The scales of reading drills and primers.
const DRILL_SCALES: [f32; 4] = [1.0, 1.0, 1.5, 2.0];

/// Position of a picture on its canvas. Units are canvas pixels.
///
/// The sides of the content are even whole numbers of units. So the picture has whole pixels at every scale, and equal
/// padding on both sides: pixel = (unit - offset) * scale, exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    /// The canvas in tiles, (rows, columns).
    pub canvas: (usize, usize),
    /// Size of the content in units, (width, height).
    pub content: (usize, usize),
    /// Top left corner of the content on the canvas, in units (x, y).
    pub offset: (usize, usize),
    /// Pixels of the picture per unit.
    pub scale: f32,
}

impl Frame {
    /// A frame for a scene: 60 % have the square canvas.
    pub(crate) fn scene(random: &mut Random) -> Self {
        let canvas = if random.chance(0.6) { CANVASES[0] } else { random.pick(&CANVASES[1..]) };
        let mut scale = random.pick(&SCALES);
        let full = (canvas.1 * TILE, canvas.0 * TILE);
        if random.chance(0.3) {
            return Self::new(canvas, full, scale);
        }
        // the processor would choose a larger canvas for an enlarged picture that does not fill its two tiles
        if canvas.0 * canvas.1 == 2 {
            scale = 1.0;
        }
        let share = random.within(0.75, 1.0);
        let shrunk = |side: usize| ((side as f32 * share / 2.0) as usize) * 2;
        let narrow = if canvas.0 == canvas.1 { random.chance(0.5) } else { canvas.0 > canvas.1 };
        let content = if narrow { (shrunk(full.0), full.1) } else { (full.0, shrunk(full.1)) };
        let frame = Self::new(canvas, content, scale);
        if frame.is_chosen() { frame } else { Self::new(canvas, full, scale) }
    }

    /// The largest frame: two by two tiles, filled.
    pub(crate) fn largest(scale: f32) -> Self {
        Self::new(CANVASES[0], (2 * TILE, 2 * TILE), scale)
    }

    /// A frame for a primer: two tiles, filled.
    pub(crate) fn primer(random: &mut Random) -> Self {
        let canvas = random.pick(&[(1, 2), (2, 1)]);
        Self::new(canvas, (canvas.1 * TILE, canvas.0 * TILE), random.pick(&DRILL_SCALES))
    }

    /// A frame for a reading drill: one tile, filled.
    pub(crate) fn drill(random: &mut Random) -> Self {
        Self::new((1, 1), (TILE, TILE), random.pick(&DRILL_SCALES))
    }

    /// Centres the content on the canvas.
    fn new(canvas: (usize, usize), content: (usize, usize), scale: f32) -> Self {
        let offset = ((canvas.1 * TILE - content.0) / 2, (canvas.0 * TILE - content.1) / 2);
        Self { canvas, content, offset, scale }
    }

    /// The picture's size in pixels, (width, height).
    #[must_use]
    pub fn pixels(&self) -> (u32, u32) {
        let pixels = |units: usize| (units as f32 * self.scale).round() as u32;
        (pixels(self.content.0), pixels(self.content.1))
    }

    /// The picture's pixel at a point of the canvas.
    #[must_use]
    pub fn to_picture(&self, canvas_point: [f32; 2]) -> [f32; 2] {
        [(canvas_point[0] - self.offset.0 as f32) * self.scale, (canvas_point[1] - self.offset.1 as f32) * self.scale]
    }

    /// Whether LLaVA-NeXT's processor chooses this canvas for the picture and fits the picture without stretching. The
    /// processor prefers most pixels kept, then least waste, then the first canvas.
    pub(crate) fn is_chosen(&self) -> bool {
        let (width, height) = self.pixels();
        let (width, height) = (f64::from(width), f64::from(height));
        let (mut most, mut least, mut chosen) = (0, u64::MAX, false);
        for canvas in CANVASES {
            let (canvas_w, canvas_h) = ((canvas.1 * TILE) as f64, (canvas.0 * TILE) as f64);
            let scale = (canvas_w / width).min(canvas_h / height);
            let kept = ((width * scale) as u64 * (height * scale) as u64).min((width * height) as u64);
            let waste = (canvas_w * canvas_h) as u64 - kept;
            if kept > most || (kept == most && waste < least) {
                (most, least) = (kept, waste);
                let fitted = ((width * scale).ceil().min(canvas_w), (height * scale).ceil().min(canvas_h));
                chosen = canvas == self.canvas && fitted == (self.content.0 as f64, self.content.1 as f64);
            }
        }
        chosen
    }
}
