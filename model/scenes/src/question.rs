//! Enters: a scene's objects. Leaves: the questions about them, with their answers.

use serde::{Deserialize, Serialize};

use crate::names::{Color, Kind, ObjectKind};
use crate::object::Object;
use crate::random::Random;

/// How many objects the main group has, which come first; only they are asked for by their text.
const MAIN: usize = 3;
/// How many questions of existence a scene has.
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
    /// The objects that it is about, by index: all of the type that is counted; where it asks whether something is there,
    /// that, or all of its type where it is not.
    pub about: Vec<usize>,
}

impl Question {
    fn new(kind: Kind, about: Vec<usize>, question: String, answer: &str) -> Self {
        Self { question, answer: answer.to_lowercase(), kind, about }
    }

    /// The one object that it is about, by index; `None` where it counts, or asks whether something is there.
    #[must_use]
    pub fn target(&self) -> Option<usize> {
        match self.kind {
            Kind::Count | Kind::Exist => None,
            _ => self.about.first().copied(),
        }
    }
}

/// The objects of one type, by index.
fn of_kind(objects: &[Object], kind: ObjectKind) -> Vec<usize> {
    (0..objects.len()).filter(|&index| objects[index].kind == kind).collect()
}

/// All questions that can be asked about the objects.
///
/// `least`: types of shapes that there are at least, where a type is asked for.
pub(crate) fn all(objects: &[Object], counted: ObjectKind, random: &mut Random, least: usize) -> Vec<Question> {
    let mut questions = about_texts(objects);
    questions.extend(about_shapes(objects, random, least));
    questions.push(count(objects, counted));
    for _ in 0..EXIST {
        questions.extend(exist(objects, random));
    }
    questions
}

/// How many shapes of one type there are.
fn count(objects: &[Object], kind: ObjectKind) -> Question {
    let counting = of_kind(objects, kind);
    let count = counting.len().to_string();
    Question::new(Kind::Count, counting, format!("how many {}s are there?", kind.name()), &count)
}

/// How many shapes there are of each type but the counted one. Their numbers can be guessed: one is the rule.
pub(crate) fn other_counts(objects: &[Object], counted: ObjectKind) -> Vec<Question> {
    ObjectKind::SHAPES.into_iter().filter(|&kind| kind != counted).map(|kind| count(objects, kind)).collect()
}

/// What stands on what, and what it stands on.
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

/// The colors of shapes that are the only ones of their type, and the types of shapes, by their color.
fn about_shapes(objects: &[Object], random: &mut Random, least: usize) -> Vec<Question> {
    let shapes: Vec<(usize, &Object)> =
        objects.iter().enumerate().filter(|(_, object)| !object.kind.has_text()).collect();
    let of = |kind: ObjectKind| shapes.iter().filter(|(_, shape)| shape.kind == kind).count();
    let types = ObjectKind::SHAPES.into_iter().filter(|&kind| of(kind) > 0).count();
    let mut questions = Vec::new();
    // a scene has three shapes at least, and no two of one color
    for &(index, shape) in shapes.iter().filter(|(_, shape)| of(shape.kind) == 1) {
        let question = format!("what color is the {}?", shape.kind.name());
        questions.push(Question::new(Kind::Color, vec![index], question, shape.color.name()));
    }
    // one shape a type, or the commonest type would be the best guess
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

/// Whether there is a shape of a color and a type, both of which are there. Type and coin fall first: the type that has
/// most shapes is asked for no more often than another, so how many there are says nothing about the answer.
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
