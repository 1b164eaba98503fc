//! Input: the objects of a scene. Output: questions about them, with answers.

use serde::{Deserialize, Serialize};

use crate::names::{Color, Kind, ObjectKind};
use crate::object::Object;
use crate::random::Random;

/// Number of objects in the main group, which come first. Only they are identified by their text in questions.
const MAIN: usize = 3;
/// Number of questions per scene whether an object exists.
const EXIST: usize = 2;

/// A question about a scene, and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The question, in lower case.
    pub question: String,
    /// The answer: one word or number, in lower case.
    pub answer: String,
    /// Its kind.
    pub kind: Kind,
    /// Indices of the objects that it is about. For a count: all objects of the type. For existence: the object, or if there
    /// is none, all objects of its type.
    pub about: Vec<usize>,
}

impl Question {
    fn new(kind: Kind, about: Vec<usize>, question: String, answer: &str) -> Self {
        Self { question, answer: answer.to_lowercase(), kind, about }
    }

    /// Index of the one object that it is about; `None` for counts and existence.
    #[must_use]
    pub fn target(&self) -> Option<usize> {
        match self.kind {
            Kind::Count | Kind::Exist => None,
            _ => self.about.first().copied(),
        }
    }
}

/// Indices of the objects of one type.
fn of_kind(objects: &[Object], kind: ObjectKind) -> Vec<usize> {
    (0..objects.len()).filter(|&index| objects[index].kind == kind).collect()
}

/// All questions that can be asked about the objects.
///
/// A scene with fewer than `least` types of shapes has no questions about types.
pub(crate) fn all(objects: &[Object], counted: ObjectKind, random: &mut Random, least: usize) -> Vec<Question> {
    let mut questions = about_texts(objects);
    questions.extend(about_shapes(objects, random, least));
    questions.push(count(objects, counted));
    for _ in 0..EXIST {
        questions.extend(exist(objects, random));
    }
    questions
}

/// The question how many shapes of one type there are.
fn count(objects: &[Object], kind: ObjectKind) -> Question {
    let counting = of_kind(objects, kind);
    let count = counting.len().to_string();
    Question::new(Kind::Count, counting, format!("how many {}s are there?", kind.name()), &count)
}

/// The same for all types except the counted one. These answers can be guessed: most are one.
pub(crate) fn other_counts(objects: &[Object], counted: ObjectKind) -> Vec<Question> {
    ObjectKind::SHAPES.into_iter().filter(|&kind| kind != counted).map(|kind| count(objects, kind)).collect()
}

/// Questions for the text of a carrier, and for the color of the carrier with a text.
fn about_texts(objects: &[Object]) -> Vec<Question> {
    let mut questions = Vec::new();
    for (index, object) in objects.iter().enumerate().filter(|(_, object)| object.kind.has_text()) {
        let (kind, what) =
            if object.kind == ObjectKind::Sign { (Kind::Word, "word") } else { (Kind::Number, "number") };
        let question = format!("what {what} is on the {} {}?", object.color.name(), object.kind.name());
        questions.push(Question::new(kind, vec![index], question, &object.text));
    }
    for (index, object) in objects.iter().enumerate().take(MAIN).filter(|(_, object)| object.kind.has_text()) {
        let question = format!("what color is the {} with {}?", object.kind.name(), object.text.to_lowercase());
        questions.push(Question::new(Kind::Whose, vec![index], question, object.color.name()));
    }
    questions
}

/// Questions for the color of a shape that is the only one of its type, and for the type of a shape with a color.
fn about_shapes(objects: &[Object], random: &mut Random, least: usize) -> Vec<Question> {
    let shapes: Vec<(usize, &Object)> =
        objects.iter().enumerate().filter(|(_, object)| !object.kind.has_text()).collect();
    let of = |kind: ObjectKind| shapes.iter().filter(|(_, shape)| shape.kind == kind).count();
    let types = ObjectKind::SHAPES.into_iter().filter(|&kind| of(kind) > 0).count();
    let mut questions = Vec::new();
    // a scene has at least three shapes, no two with the same color
    for &(index, shape) in shapes.iter().filter(|(_, shape)| of(shape.kind) == 1) {
        let question = format!("what color is the {}?", shape.kind.name());
        questions.push(Question::new(Kind::Color, vec![index], question, shape.color.name()));
    }
    // one shape per type: otherwise the most common type would be the best guess
    for kind in ObjectKind::SHAPES.into_iter().filter(|_| types >= least) {
        let of_kind: Vec<(usize, &Object)> = shapes.iter().copied().filter(|(_, shape)| shape.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        let (index, shape) = random.pick(&of_kind);
        let question = format!("what shape is {}?", shape.color.name());
        questions.push(Question::new(Kind::Shape, vec![index], question, shape.kind.name()));
    }
    questions
}

/// The question whether a shape with a color and a type exists. Color and type are both in the scene. The type and the answer
/// are chosen first, so the number of shapes of a type does not affect the answer.
fn exist(objects: &[Object], random: &mut Random) -> Option<Question> {
    let shapes: Vec<&Object> = objects.iter().filter(|object| !object.kind.has_text()).collect();
    let there = |kind: &ObjectKind| shapes.iter().any(|shape| shape.kind == *kind);
    let types: Vec<ObjectKind> = ObjectKind::SHAPES.into_iter().filter(there).collect();
    if types.len() < 2 {
        return None;
    }
    let (kind, yes) = (random.pick(&types), random.chance(0.5));
    let named: Vec<&Object> = shapes.into_iter().filter(|shape| (shape.kind == kind) == yes).collect();
    let color = random.pick(&named).color;
    let mut about = of_kind(objects, kind);
    if yes {
        about.retain(|&index| objects[index].color == color);
    }
    let article = if color == Color::Orange { "an" } else { "a" };
    let question = format!("is there {article} {} {}?", color.name(), kind.name());
    Some(Question::new(Kind::Exist, about, question, if yes { "yes" } else { "no" }))
}
