//! Input: random numbers. Output: a frame, and the objects with their positions in it.

use crate::frame::Frame;
use crate::names::{Color, ObjectKind, TILE, WORDS};
use crate::object::Object;
use crate::outlines::{Outlines, Style};
use crate::random::Random;

/// Number of random positions that are tried for one object.
const TRIES: usize = 48;
/// Number of layouts that are tried in the planned frame, before a scene gets the largest frame.
const LAYOUTS: usize = 24;
/// Least distance between an object and the border of the picture, in units.
const BORDER: f32 = 1.0;

/// A frame with its objects.
pub(crate) struct Layout {
    /// Position of the picture on the canvas.
    pub(crate) frame: Frame,
    /// The objects, the main group first.
    pub(crate) objects: Vec<Object>,
    /// The type of shape that questions count.
    pub(crate) counted: ObjectKind,
}

/// The content of a scene. It is decided before the layout, so that lack of room does not bias the answers.
struct Plan {
    main: ObjectKind,
    stacked: bool,
    counted: ObjectKind,
    shapes: Vec<ObjectKind>,
}

impl Plan {
    fn new(random: &mut Random) -> Self {
        let main = random.pick(&ObjectKind::CARRIERS);
        let stacked = main != ObjectKind::Shirt && random.chance(0.5);
        let types = random.shuffled(&ObjectKind::SHAPES);
        let (counted, others) = (types[0], &types[1..]);
        let count = random.below(4);
        let total = (count + 1).max(3 + random.below(3));
        let mut shapes = vec![counted; count];
        // one of each other type first, so that many types are unique
        shapes.extend((0..total - count).map(|index| others[index % others.len()]));
        Self { main, stacked, counted, shapes }
    }
}

/// A number without a leading zero.
fn number(random: &mut Random, digits: usize) -> String {
    let low = if digits <= 1 { 0 } else { 10_usize.pow(digits as u32 - 1) };
    (low + random.below(10_usize.pow(digits as u32) - low)).to_string()
}

/// A random text for a carrier.
fn text(random: &mut Random, kind: ObjectKind) -> String {
    match kind {
        ObjectKind::Plate => {
            let digits = match random.below(100) {
                0..15 => 1,
                15..45 => 2,
                45..75 => 3,
                _ => 4,
            };
            number(random, digits)
        }
        ObjectKind::Shirt => {
            let digits = if random.chance(0.35) { 1 } else { 2 };
            number(random, digits)
        }
        ObjectKind::Sign => random.pick(&WORDS).to_owned(),
        _ => String::new(),
    }
}

/// Carriers of one type with different colors and different texts, without positions.
fn group(random: &mut Random, kind: ObjectKind, count: usize, style: Style) -> Option<Vec<Object>> {
    let colors = random.shuffled(&Color::ALL);
    let mut group: Vec<Object> = Vec::new();
    while group.len() < count {
        let text = text(random, kind);
        if group.iter().all(|other| other.text != text) {
            let outlines = Outlines::new(random, kind, &text, style)?;
            group.push(Object::new(random, kind, colors[group.len() % colors.len()], text, outlines));
        }
    }
    Some(group)
}

/// The objects placed so far in a frame.
struct Placing {
    frame: Frame,
    placed: Vec<Object>,
}

impl Placing {
    fn new(frame: Frame) -> Self {
        Self { frame, placed: Vec::new() }
    }

    /// A random position for a box; `None` where it is larger than the content. Half of the positions are on the pixel grid
    /// of the picture.
    fn spot(&self, random: &mut Random, size: [f32; 2]) -> Option<[f32; 2]> {
        let room = [self.frame.content.0 as f32 - size[0] - BORDER, self.frame.content.1 as f32 - size[1] - BORDER];
        if room[0] < BORDER || room[1] < BORDER {
            return None;
        }
        let at = room.map(|room| random.within(BORDER, room));
        let scale = self.frame.scale;
        Some(if random.chance(0.5) { at.map(|x| ((x * scale).floor() / scale).max(BORDER)) } else { at })
    }

    /// Whether an object has enough room at its position.
    fn fits(&self, object: &Object) -> bool {
        object.text_in_one_tile(self.frame.offset, TILE) && self.placed.iter().all(|other| !object.crowds(other))
    }

    /// Places an object at a random position. False where no room was found.
    fn scatter(&mut self, random: &mut Random, mut object: Object) -> bool {
        for _ in 0..TRIES {
            let Some(at) = self.spot(random, object.outlines.size) else { return false };
            object.at = at;
            if self.fits(&object) {
                self.placed.push(object);
                return true;
            }
        }
        false
    }

    /// Places objects one below the other. False where no room was found.
    fn stack(&mut self, random: &mut Random, mut objects: Vec<Object>) -> bool {
        let gaps: Vec<f32> = objects.iter().map(|_| random.within(1.5, 2.0)).collect();
        let wide = objects.iter().map(|object| object.outlines.size[0]).fold(0.0, f32::max);
        let high = objects.iter().zip(&gaps).map(|(object, gap)| object.outlines.size[1] + gap).sum::<f32>();
        let high = high - gaps.last().copied().unwrap_or(0.0);
        let align = random.pick(&[0.0, 0.0, 0.5, 1.0]);
        for _ in 0..TRIES {
            let Some([x, mut y]) = self.spot(random, [wide, high]) else { return false };
            for (object, gap) in objects.iter_mut().zip(&gaps) {
                object.at = [x + align * (wide - object.outlines.size[0]), y];
                y += object.outlines.size[1] + gap;
            }
            if objects.iter().all(|object| self.fits(object)) {
                self.placed.append(&mut objects);
                return true;
            }
        }
        false
    }

    /// Places the shapes, no two with the same color. False where no room was found.
    fn shapes(&mut self, random: &mut Random, kinds: &[ObjectKind], style: Style) -> bool {
        let colors = random.shuffled(&Color::ALL);
        kinds.iter().zip(colors).all(|(&kind, color)| {
            // another size may fit where this one does not
            (0..3).any(|_| {
                let Some(outlines) = Outlines::new(random, kind, "", style) else { return false };
                let object = Object::new(random, kind, color, String::new(), outlines);
                self.scatter(random, object)
            })
        })
    }

    /// The objects, with their boxes in pixels.
    fn finish(mut self) -> Vec<Object> {
        for object in &mut self.placed {
            object.bounds = object.content_bounds().map(|x| x * self.frame.scale);
        }
        self.placed
    }
}

impl Layout {
    /// A scene. Layouts are tried until one succeeds. Every eighth one swaps stacked and scattered, and after [`LAYOUTS`]
    /// of them the frame is the largest one, where nearly every layout succeeds.
    pub(crate) fn scene(random: &mut Random) -> Self {
        let plan = Plan::new(random);
        let frame = Frame::scene(random);
        let mut layouts = 0;
        loop {
            let frame = if layouts < LAYOUTS { frame } else { Frame::largest(frame.scale) };
            // the first layouts follow the plan
            let stacked = plan.stacked != (layouts % 8 == 7);
            if let Some(objects) = plan.place(random, frame, stacked) {
                return Self { frame, objects, counted: plan.counted };
            }
            layouts += 1;
        }
    }

    /// A primer: two tiles, one or two texts of one type of carrier, one or two shapes of different types.
    pub(crate) fn primer(random: &mut Random) -> Self {
        loop {
            let frame = Frame::primer(random);
            let kind = random.pick(&ObjectKind::CARRIERS);
            let types = random.shuffled(&ObjectKind::SHAPES);
            let (texts, shapes) = (1 + random.below(2), 1 + random.below(2));
            let style = Style::new(random, false);
            let mut placing = Placing::new(frame);
            let Some(group) = group(random, kind, texts, style) else { continue };
            let placed = group.into_iter().all(|object| placing.scatter(random, object));
            if placed && placing.shapes(random, &types[..shapes], style) {
                return Self { frame, objects: placing.finish(), counted: random.pick(&types) };
            }
        }
    }

    /// A reading drill: one tile with as many texts as possible and a few shapes.
    pub(crate) fn drill(random: &mut Random) -> Self {
        let frame = Frame::drill(random);
        loop {
            if let Some(objects) = drill(random, frame) {
                return Self { frame, objects, counted: ObjectKind::Circle };
            }
        }
    }
}

impl Plan {
    /// One attempt at the plan.
    fn place(&self, random: &mut Random, frame: Frame, stacked: bool) -> Option<Vec<Object>> {
        let mut placing = Placing::new(frame);
        let low = stacked && self.main != ObjectKind::Shirt;
        let style = Style::new(random, low);
        let main = group(random, self.main, 3, style)?;
        let placed = if low {
            placing.stack(random, main)
        } else {
            main.into_iter().all(|object| placing.scatter(random, object))
        };
        if !placed || !placing.shapes(random, &self.shapes, style) {
            return None;
        }
        // another type of carrier gets the remaining room
        let others: Vec<_> = ObjectKind::CARRIERS.into_iter().filter(|&kind| kind != self.main).collect();
        let (kind, count) = (random.pick(&others), random.below(3));
        let style = Style::new(random, false);
        for object in group(random, kind, count, style)? {
            placing.scatter(random, object);
        }
        Some(placing.finish())
    }
}

/// One attempt at a reading drill. `None` where there was room for fewer than three texts or no shape.
fn drill(random: &mut Random, frame: Frame) -> Option<Vec<Object>> {
    let mut placing = Placing::new(frame);
    if random.chance(0.4) {
        let kind = random.pick(&[ObjectKind::Plate, ObjectKind::Sign]);
        let style = Style::new(random, true);
        let stacked = group(random, kind, 3, style)?;
        placing.stack(random, stacked);
    }
    let most = 4 + random.below(3);
    let shapes = 1 + random.below(3);
    for _ in 0..4 * most {
        if placing.placed.len() >= most {
            break;
        }
        let (kind, low) = (random.pick(&ObjectKind::CARRIERS), random.chance(0.5));
        let style = Style::new(random, low);
        for object in group(random, kind, 1, style)? {
            placing.scatter(random, object);
        }
    }
    let texts = placing.placed.len();
    if texts < 3 {
        return None;
    }
    for _ in 0..2 * shapes {
        if placing.placed.len() < texts + shapes {
            let (kind, color) = (random.pick(&ObjectKind::SHAPES), random.pick(&Color::ALL));
            let style = Style::new(random, false);
            let outlines = Outlines::new(random, kind, "", style)?;
            let object = Object::new(random, kind, color, String::new(), outlines);
            placing.scatter(random, object);
        }
    }
    (placing.placed.len() > texts).then(|| placing.finish())
}
