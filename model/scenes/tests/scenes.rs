//! Checks each scene, the balance over many scenes, and that a seed always gives the same scene.

use std::collections::{BTreeMap, BTreeSet};

use fovea_scenes::{CANVASES, Color, Kind, ObjectKind, PATCH, Question, Scene, Split, TILE};

/// Number of scenes for the check of the balance.
const MANY: u64 = 700;

fn scenes(count: u64) -> impl Iterator<Item = Scene> {
    (0..count).map(|index| Scene::new(if index % 2 == 0 { Split::Train } else { Split::HeldOut }, index))
}

/// The rule of LLaVA-NeXT's processor: the canvas, and the size fitted into it, (width, height).
fn processed(width: u32, height: u32) -> ((usize, usize), (usize, usize)) {
    let (w, h) = (f64::from(width), f64::from(height));
    let mut best = (-1.0, 0.0, (0, 0), (0, 0));
    for (rows, columns) in CANVASES {
        let (canvas_w, canvas_h) = ((columns * TILE) as f64, (rows * TILE) as f64);
        let scale = (canvas_w / w).min(canvas_h / h);
        let kept = ((w * scale).floor() * (h * scale).floor()).min(w * h);
        let waste = canvas_w * canvas_h - kept;
        if kept > best.0 || (kept == best.0 && waste < best.1) {
            let fitted = ((w * scale).ceil().min(canvas_w) as usize, (h * scale).ceil().min(canvas_h) as usize);
            best = (kept, waste, (rows, columns), fitted);
        }
    }
    (best.2, best.3)
}

#[test]
fn the_processor_chooses_the_canvas_and_position_of_the_scene() {
    for scene in scenes(MANY) {
        let (width, height) = scene.picture().dimensions();
        let (canvas, fitted) = processed(width, height);
        assert_eq!(canvas, scene.canvas(), "{width} x {height}");
        assert_eq!(fitted, scene.frame().content, "{width} x {height} at {}", scene.scale());
        let padding = ((canvas.1 * TILE - fitted.0) / 2, (canvas.0 * TILE - fitted.1) / 2);
        assert_eq!(padding, scene.offset());
        for (pixels, units) in [(width, fitted.0), (height, fitted.1)] {
            assert!((pixels as f32 - units as f32 * scene.scale()).abs() < 0.01, "{pixels} pixels for {units} units");
        }
    }
}

/// Checks the objects of scenes and drills: inside the picture, without overlap, text inside one tile.
fn check_objects(scene: &Scene) {
    let (width, height) = scene.picture().dimensions();
    for (index, object) in scene.objects().iter().enumerate() {
        let [x0, y0, x1, y1] = object.bounds;
        assert!(x0 >= 0.0 && y0 >= 0.0 && x1 <= width as f32 && y1 <= height as f32, "{object:?}");
        for other in &scene.objects()[index + 1..] {
            let [u0, v0, u1, v1] = other.bounds;
            assert!(x1 <= u0 || u1 <= x0 || y1 <= v0 || v1 <= y0, "overlap: {object:?} {other:?}");
        }
        assert_eq!(object.kind.has_text(), !object.text.is_empty());
        if let Some([x0, y0, x1, y1]) = object.text_bounds() {
            let tile = |at: f32, offset: usize| (at + offset as f32).div_euclid(TILE as f32);
            assert_eq!(tile(x0 - 0.99, scene.offset().0), tile(x1 + 0.99, scene.offset().0), "{object:?}");
            assert_eq!(tile(y0 - 0.99, scene.offset().1), tile(y1 + 0.99, scene.offset().1), "{object:?}");
        }
    }
}

#[test]
fn scenes_have_the_planned_objects() {
    for scene in scenes(MANY) {
        check_objects(&scene);
        let objects = scene.objects();
        let main: Vec<_> = objects.iter().take(3).collect();
        assert!(main.iter().all(|object| object.kind == main[0].kind && object.kind.has_text()));
        let shapes = objects.iter().filter(|object| !object.kind.has_text());
        assert!((3..=5).contains(&shapes.clone().count()));
        assert_eq!(shapes.clone().map(|shape| shape.color).collect::<BTreeSet<_>>().len(), shapes.count());
        for kind in ObjectKind::ALL.into_iter().filter(|kind| kind.has_text()) {
            let group: Vec<_> = objects.iter().filter(|object| object.kind == kind).collect();
            assert_eq!(group.iter().map(|object| object.color).collect::<BTreeSet<_>>().len(), group.len());
            assert_eq!(group.iter().map(|object| &object.text).collect::<BTreeSet<_>>().len(), group.len());
        }
    }
}

#[test]
fn drills_are_one_full_tile() {
    for index in 0..300 {
        let drill = Scene::drill(index);
        check_objects(&drill);
        assert_eq!(drill.canvas(), (1, 1));
        let texts = drill.objects().iter().filter(|object| object.kind.has_text()).count();
        assert!((3..=6).contains(&texts) && (1..=3).contains(&(drill.objects().len() - texts)));
        assert_eq!(drill.patch_owners().len(), (TILE / PATCH).pow(2));
    }
}

/// The answers that are correct for the words of the question, from the objects.
fn answered(question: &Question, scene: &Scene) -> Vec<String> {
    let words: Vec<&str> = question.question.trim_end_matches('?').split(' ').collect();
    let objects = scene.objects().iter();
    let last = words.last().copied().unwrap_or_default();
    let before = words[words.len() - 2];
    match question.kind {
        Kind::Number | Kind::Word => objects
            .filter(|object| object.kind.name() == last && object.color.name() == before)
            .map(|object| object.text.to_lowercase())
            .collect(),
        Kind::Whose => objects
            .filter(|object| object.kind.name() == words[4] && object.text.to_lowercase() == last)
            .map(|object| object.color.name().to_owned())
            .collect(),
        Kind::Color => {
            objects.filter(|object| object.kind.name() == last).map(|object| object.color.name().to_owned()).collect()
        }
        Kind::Shape => objects
            .filter(|object| !object.kind.has_text() && object.color.name() == last)
            .map(|object| object.kind.name().to_owned())
            .collect(),
        Kind::Count => {
            vec![objects.filter(|object| format!("{}s", object.kind.name()) == words[2]).count().to_string()]
        }
        Kind::Exist => {
            let there = |color: &str, kind: &str| {
                scene.objects().iter().any(|object| object.color.name() == color && object.kind.name() == kind)
            };
            vec![if there(before, last) { "yes" } else { "no" }.to_owned()]
        }
    }
}

#[test]
fn each_question_has_one_correct_answer() {
    for scene in scenes(MANY) {
        for question in scene.questions() {
            assert_eq!(answered(&question, &scene), [question.answer.as_str()], "{question:?}");
            assert_eq!(question.target().is_none(), matches!(question.kind, Kind::Count | Kind::Exist));
            if question.kind == Kind::Exist {
                let words: Vec<&str> = question.question.trim_end_matches('?').split(' ').collect();
                let shapes = || scene.objects().iter().filter(|object| !object.kind.has_text());
                assert!(shapes().any(|shape| shape.color.name() == words[3]), "a color that is there");
                assert!(shapes().any(|shape| shape.kind.name() == words[4]), "a type that is there");
            }
        }
        let kinds: Vec<Kind> = scene.one_of_each().iter().map(|question| question.kind).collect();
        assert!(kinds.is_sorted() && kinds.contains(&Kind::Whose) && kinds.contains(&Kind::Count));
    }
}

/// Checks that all expected answers are equally frequent, within a tolerance in per cent.
fn even(answers: &BTreeMap<(Kind, String), usize>, kind: Kind, expected: &[&str], tolerance: f64) {
    let total: usize = answers.iter().filter(|((of, _), _)| *of == kind).map(|(_, count)| count).sum();
    for answer in expected {
        let count = answers.get(&(kind, (*answer).to_owned())).copied().unwrap_or(0);
        let (share, even) = (100.0 * count as f64 / total as f64, 100.0 / expected.len() as f64);
        println!("{:>6} {answer:<8} {share:5.1} % of {total}", kind.name());
        assert!((share - even).abs() < tolerance, "{} {answer}: {share} %", kind.name());
    }
}

#[test]
fn no_answer_can_be_guessed() {
    let (mut all, mut picked) = (BTreeMap::new(), BTreeMap::new());
    let mut canvases: BTreeMap<_, usize> = BTreeMap::new();
    for scene in scenes(MANY) {
        for (questions, answers) in [(scene.questions(), &mut all), (scene.one_of_each(), &mut picked)] {
            for question in questions {
                *answers.entry((question.kind, question.answer)).or_insert(0_usize) += 1;
            }
        }
        *canvases.entry(scene.canvas()).or_default() += 1;
    }
    let colors = Color::ALL.map(Color::name);
    let shapes: Vec<&str> = ObjectKind::ALL.into_iter().filter(|kind| !kind.has_text()).map(ObjectKind::name).collect();
    for answers in [all, picked] {
        even(&answers, Kind::Count, &["0", "1", "2", "3"], 6.0);
        even(&answers, Kind::Exist, &["yes", "no"], 6.0);
        even(&answers, Kind::Whose, &colors, 5.0);
        even(&answers, Kind::Color, &colors, 5.0);
        even(&answers, Kind::Shape, &shapes, 6.0);
        let total = |kind| answers.iter().filter(|((of, _), _)| *of == kind).map(|(_, count)| count).sum::<usize>();
        for kind in [Kind::Number, Kind::Word] {
            let most = answers.iter().filter(|((of, _), _)| *of == kind).map(|(_, count)| *count).max().unwrap_or(0);
            println!("{:>6} most frequent {most} of {}", kind.name(), total(kind));
            assert!(most * 8 < total(kind), "one {} is too frequent", kind.name());
        }
    }
    println!("canvases {canvases:?}");
    for (canvas, share) in CANVASES.into_iter().zip([60.0, 10.0, 10.0, 10.0, 10.0]) {
        let got = 100.0 * canvases.get(&canvas).copied().unwrap_or(0) as f64 / MANY as f64;
        assert!((got - share).abs() < 5.0, "canvas {canvas:?}: {got} %");
    }
}

#[test]
fn a_seed_always_gives_the_same_scene() {
    for index in [0, 1, 7, 123_456_789, u64::MAX] {
        let scene = Scene::new(Split::Train, index);
        let again = Scene::new(Split::Train, index);
        assert_eq!(scene.picture(), again.picture());
        assert_eq!(scene.questions(), again.questions());
        assert_eq!(scene.one_of_each(), again.one_of_each());
        assert_ne!(scene.picture(), Scene::new(Split::HeldOut, index).picture());
        assert_ne!(scene.picture(), Scene::new(Split::Train, index.wrapping_add(1)).picture());
        assert_eq!(Scene::drill(index).picture(), Scene::drill(index).picture());
        assert_ne!(Scene::drill(index).picture(), Scene::drill(index.wrapping_add(1)).picture());
    }
}

#[test]
fn patches_show_their_owners() {
    for scene in scenes(100) {
        let columns = scene.canvas().1 * TILE / PATCH;
        let owners = scene.patch_owners();
        assert_eq!(owners.len(), columns * scene.canvas().0 * TILE / PATCH);
        for (patch, owner) in owners.iter().enumerate().filter_map(|(patch, owner)| Some((patch, (*owner)?))) {
            let corner = [patch % columns, patch / columns].map(|at| (at * PATCH) as f32);
            let [x0, y0] = scene.frame().to_picture(corner);
            let [x1, y1] = scene.frame().to_picture(corner.map(|at| at + PATCH as f32));
            let [u0, v0, u1, v1] = scene.objects()[owner].bounds;
            assert!(x0 < u1 && u0 < x1 && y0 < v1 && v0 < y1, "patch {patch} is not where its object is");
        }
        for index in 0..scene.objects().len() {
            assert!(owners.contains(&Some(index)), "an object without a patch: {:?}", scene.objects()[index]);
        }
    }
}

#[test]
fn questions_are_lines_of_json() -> Result<(), serde_json::Error> {
    for question in Scene::new(Split::Train, 3).questions() {
        let line = serde_json::to_string(&question)?;
        assert!(line.contains(&format!("\"kind\":\"{}\"", question.kind.name())), "{line}");
        assert_eq!(serde_json::from_str::<Question>(&line)?, question);
    }
    Ok(())
}

#[test]
fn primers_hold_few_objects_and_ask_about_them() {
    for index in 0..60 {
        let scene = Scene::primer(index);
        let (rows, columns) = scene.canvas();
        assert_eq!(rows * columns, 2, "primer {index}: tiles (got, expected)");
        let texts = scene.objects().iter().filter(|object| object.kind.has_text()).count();
        let shapes = scene.objects().len() - texts;
        assert!(
            (1..=2).contains(&texts) && (1..=2).contains(&shapes),
            "primer {index}: {texts} texts, {shapes} shapes"
        );
        let questions = scene.questions();
        for kind in [Kind::Whose, Kind::Color, Kind::Shape, Kind::Count] {
            assert!(questions.iter().any(|question| question.kind == kind), "primer {index}: expected {kind:?}");
        }
        for question in questions.iter().filter(|question| question.kind == Kind::Whose) {
            let target = question.target().map(|target| scene.objects()[target].kind.has_text());
            assert_eq!(target, Some(true), "primer {index}: {} (got, expected)", question.question);
        }
    }
}
