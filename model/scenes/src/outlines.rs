//! Input: a type of object and its text. Output: its outlines at the origin, in units, without position and color.

use tiny_skia::{FillRule, Path, PathBuilder, Rect, Transform};

use crate::letters::{FACES, Setting, outline};
use crate::names::ObjectKind;
use crate::random::Random;

/// The tan of half of 12 degrees: squares and triangles are not tilted further.
const TILT: f32 = 0.105;
/// The points of a star of radius 1, sine and cosine of multiples of 36 degrees, the first one up.
const STAR: [[f32; 2]; 10] = [
    [0.0, -1.0],
    [0.587_785, -0.809_017],
    [0.951_057, -0.309_017],
    [0.951_057, 0.309_017],
    [0.587_785, 0.809_017],
    [0.0, 1.0],
    [-0.587_785, 0.809_017],
    [-0.951_057, 0.309_017],
    [-0.951_057, -0.309_017],
    [-0.587_785, -0.809_017],
];

/// The region that an object covers.
#[derive(Debug, Clone)]
pub(crate) enum Silhouette {
    /// A disc: centre and radius.
    Disc([f32; 2], f32),
    /// The union of polygons.
    Polygons(Vec<Vec<[f32; 2]>>),
}

impl Silhouette {
    /// Whether a point is covered.
    pub(crate) fn covers(&self, point: [f32; 2]) -> bool {
        match self {
            Self::Disc(centre, radius) => {
                let (dx, dy) = (point[0] - centre[0], point[1] - centre[1]);
                dx * dx + dy * dy <= radius * radius
            }
            Self::Polygons(polygons) => polygons.iter().any(|polygon| inside(polygon, point)),
        }
    }
}

/// Whether a ray from the point to the right crosses the polygon an odd number of times.
fn inside(polygon: &[[f32; 2]], [x, y]: [f32; 2]) -> bool {
    let mut odd = false;
    for (index, &[x0, y0]) in polygon.iter().enumerate() {
        let [x1, y1] = polygon[(index + 1) % polygon.len()];
        if (y0 > y) != (y1 > y) && x < x0 + (y - y0) / (y1 - y0) * (x1 - x0) {
            odd = !odd;
        }
    }
    odd
}

/// The outlines of an object with its top left corner at the origin.
#[derive(Debug, Clone)]
pub(crate) struct Outlines {
    /// Width and height.
    pub(crate) size: [f32; 2],
    /// The part in the color of the object.
    pub(crate) body: Path,
    /// The pole of a sign: grey, behind the body.
    pub(crate) pole: Option<Rect>,
    /// A line on the body: the inner border of a plate or a sign, or the collar of a shirt.
    pub(crate) trim: Option<Path>,
    /// The text.
    pub(crate) glyphs: Option<Path>,
    /// The box of the text, (x0, y0, x1, y1).
    pub(crate) text_box: Option<[f32; 4]>,
    /// The region that it covers.
    pub(crate) silhouette: Silhouette,
}

/// A closed polygon's path.
fn polygon(points: &[[f32; 2]]) -> Option<Path> {
    let mut path = PathBuilder::new();
    let (first, rest) = points.split_first()?;
    path.move_to(first[0], first[1]);
    for point in rest {
        path.line_to(point[0], point[1]);
    }
    path.close();
    path.finish()
}

/// A rectangle with round corners.
pub(crate) fn rounded(x0: f32, y0: f32, x1: f32, y1: f32, radius: f32) -> Option<Path> {
    let mut path = PathBuilder::new();
    path.move_to(x0 + radius, y0);
    path.line_to(x1 - radius, y0);
    path.quad_to(x1, y0, x1, y0 + radius);
    path.line_to(x1, y1 - radius);
    path.quad_to(x1, y1, x1 - radius, y1);
    path.line_to(x0 + radius, y1);
    path.quad_to(x0, y1, x0, y1 - radius);
    path.line_to(x0, y0 + radius);
    path.quad_to(x0, y0, x0 + radius, y0);
    path.close();
    path.finish()
}

/// A rectangle's corners.
fn corners(x0: f32, y0: f32, x1: f32, y1: f32) -> Vec<[f32; 2]> {
    vec![[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
}

/// The style of a group of carriers: one setting for all texts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    /// The setting of the text.
    setting: Setting,
    /// Whether objects are low, for stacks.
    low: bool,
}

impl Style {
    /// A style; `low` for stacks.
    pub(crate) fn new(random: &mut Random, low: bool) -> Self {
        let cap = if low { random.within(7.5, 8.6) } else { random.within(7.5, 10.0) };
        let pitch = random.within(5.7, 7.0);
        Self { setting: Setting { face: random.below(FACES), cap, pitch, gap: random.within(0.1, 0.5) }, low }
    }
}

impl Outlines {
    /// A carrier with its text, or a shape, which has none. `None` only for degenerate outlines, which do not occur here.
    pub(crate) fn new(random: &mut Random, kind: ObjectKind, text: &str, style: Style) -> Option<Self> {
        match kind {
            ObjectKind::Plate => Self::board(random, text, style, false),
            ObjectKind::Sign => Self::board(random, text, style, true),
            ObjectKind::Shirt => Self::shirt(random, text, style),
            _ => Self::shape(random, kind),
        }
    }

    /// A plate, or with a pole a sign.
    fn board(random: &mut Random, text: &str, style: Style, pole: bool) -> Option<Self> {
        let (glyphs, [text_w, text_h]) = outline(text, style.setting);
        let margin = if style.low { random.within(1.9, 2.2) } else { random.within(2.1, 3.2) };
        let (w, h) = ((text_w + 2.0 * margin + random.within(0.4, 2.0)).max(12.0), text_h + 2.0 * margin);
        let at = [(w - text_w) / 2.0, (h - text_h) / 2.0];
        let glyphs = glyphs?.transform(Transform::from_translate(at[0], at[1]))?;
        let radius = if pole { random.within(0.5, 1.5) } else { random.within(1.5, 3.5) };
        let mut silhouette = vec![corners(0.0, 0.0, w, h)];
        let (mut size, mut post) = ([w, h], None);
        if pole {
            let (long, wide) = (if style.low { 2.0 } else { random.within(4.0, 8.0) }, random.within(1.8, 2.6));
            let x = w * random.within(0.4, 0.6) - wide / 2.0;
            post = Rect::from_ltrb(x, h - 1.0, x + wide, h + long);
            silhouette.push(corners(x, h, x + wide, h + long));
            size[1] += long;
        }
        Some(Self {
            size,
            body: rounded(0.0, 0.0, w, h, radius)?,
            pole: post,
            trim: rounded(0.6, 0.6, w - 0.6, h - 0.6, (radius - 0.6).max(0.2)),
            glyphs: Some(glyphs),
            text_box: Some([at[0], at[1], at[0] + text_w, at[1] + text_h]),
            silhouette: Silhouette::Polygons(silhouette),
        })
    }

    /// A T-shirt: body, sleeves and collar.
    fn shirt(random: &mut Random, text: &str, style: Style) -> Option<Self> {
        let (glyphs, [text_w, text_h]) = outline(text, style.setting);
        // a shirt with one digit has the width of a shirt with two
        let body = (2.0 * style.setting.pitch + random.within(2.4, 3.6)).max(text_w + 2.4);
        let (sleeve, drop) = (random.within(4.2, 5.4), random.within(4.4, 5.6));
        let (w, h) = (body + 2.0 * sleeve, text_h + drop + random.within(3.2, 4.6));
        let (left, right, middle) = (sleeve, w - sleeve, w / 2.0);
        let (neck, cuff) = (body * 0.22, random.within(5.6, 7.0));
        let points = [
            [middle - neck, 0.0],
            [middle, 2.2],
            [middle + neck, 0.0],
            [right - 0.5, 0.6],
            [w, cuff],
            [w - 2.6, cuff + 3.2],
            [right, cuff + 1.2],
            [right, h],
            [left, h],
            [left, cuff + 1.2],
            [2.6, cuff + 3.2],
            [0.0, cuff],
            [left + 0.5, 0.6],
        ];
        let mut collar = PathBuilder::new();
        collar.move_to(middle - neck, 0.3);
        collar.quad_to(middle, 4.2, middle + neck, 0.3);
        let at = [(w - text_w) / 2.0, drop];
        Some(Self {
            size: [w, h],
            body: polygon(&points)?,
            pole: None,
            trim: collar.finish(),
            glyphs: Some(glyphs?.transform(Transform::from_translate(at[0], at[1]))?),
            text_box: Some([at[0], at[1], at[0] + text_w, at[1] + text_h]),
            silhouette: Silhouette::Polygons(vec![points.to_vec()]),
        })
    }

    /// A shape without text.
    fn shape(random: &mut Random, kind: ObjectKind) -> Option<Self> {
        let unit: Vec<[f32; 2]> = match kind {
            ObjectKind::Square => corners(-1.0, -1.0, 1.0, 1.0),
            ObjectKind::Triangle => vec![[0.0, -1.0], [0.866_025, 0.5], [-0.866_025, 0.5]],
            ObjectKind::Star => {
                let inner = random.within(0.40, 0.48);
                let radius = |index: usize| if index.is_multiple_of(2) { 1.0 } else { inner };
                STAR.iter().enumerate().map(|(index, [x, y])| [x * radius(index), y * radius(index)]).collect()
            }
            _ => {
                let radius = random.within(5.5, 10.0);
                return Some(Self::plain(
                    [2.0 * radius; 2],
                    PathBuilder::from_circle(radius, radius, radius)?,
                    Silhouette::Disc([radius; 2], radius),
                ));
            }
        };
        // sine and cosine from the tangent of half the angle: basic arithmetic gives the same bits on every machine
        let tilt = if kind == ObjectKind::Star { random.within(-0.32, 0.32) } else { random.within(-TILT, TILT) };
        let (sin, cos) = (2.0 * tilt / (1.0 + tilt * tilt), (1.0 - tilt * tilt) / (1.0 + tilt * tilt));
        let turned: Vec<[f32; 2]> = unit.iter().map(|[x, y]| [x * cos - y * sin, x * sin + y * cos]).collect();
        let bound = |axis: usize, pick: fn(f32, f32) -> f32| turned.iter().map(|p| p[axis]).fold(turned[0][axis], pick);
        let (x0, y0, x1, y1) = (bound(0, f32::min), bound(1, f32::min), bound(0, f32::max), bound(1, f32::max));
        let (small, large) = match kind {
            ObjectKind::Square => (11.0, 18.0),
            ObjectKind::Triangle => (12.5, 21.0),
            _ => (14.0, 22.0),
        };
        let scale = random.within(small, large) / (x1 - x0).max(y1 - y0);
        let points: Vec<[f32; 2]> = turned.iter().map(|[x, y]| [(x - x0) * scale, (y - y0) * scale]).collect();
        let size = [(x1 - x0) * scale, (y1 - y0) * scale];
        Some(Self::plain(size, polygon(&points)?, Silhouette::Polygons(vec![points])))
    }

    /// Outlines without text.
    fn plain(size: [f32; 2], body: Path, silhouette: Silhouette) -> Self {
        Self { size, body, pole: None, trim: None, glyphs: None, text_box: None, silhouette }
    }
}

/// The fill rule: holes of digits have the opposite direction.
pub(crate) const RULE: FillRule = FillRule::Winding;
