//! Start, loading, planning, and errors.

use egui_kittest::kittest::Queryable;
use fovea_app::{
    ModelState, Origin, Problem, Start, Theme, What,
    engine::{About, Command, Doing, ModelAt, Planned, Update, Wanted},
};
use fovea_model::{Checkpoint, Error, LoadProgress, LoadStage, Plan, Stored, demo};
use fovea_runtime::Error as RuntimeError;

use super::played::{Played, about, plates_png};

fn failed(doing: Doing, error: impl Into<Error>) -> Update {
    Update::Failed { doing, problem: Problem::of(&error.into()) }
}

#[test]
fn examples_are_shown_while_the_model_loads() {
    let mut window = Played::new(Theme::Dark);
    window.until("five examples", |window| window.app().examples_shown() == 5);
    let (command, cancel) = window.command();
    assert!(
        matches!(&command, Command::Load { model: ModelAt::Demo, device: Wanted::Auto, .. }),
        "expected the demo checkpoint first, got {command:?}"
    );
    window.receive(Update::Loading(LoadProgress { stage: LoadStage::Loading, done: 40, total: 100 }));
    window.snapshot("start");
    window.harness.get_by_label("Cancel").click();
    window.harness.run_steps(2);
    assert!(cancel.is_cancelled(), "expected Cancel to stop loading");
    window.receive(failed(Doing::Loading, Error::Cancelled));
    assert!(matches!(window.session().model, ModelState::None));
    // An example fills in its question.
    window.harness.get_by_label("What word is on the blue sign?").click();
    window.until("a picture", |window| window.session().picture.is_some());
    assert_eq!(window.harness.get_by_label("Question").value().as_deref(), Some("What word is on the blue sign?"));
}

#[test]
fn the_window_stays_open_when_the_device_is_lost() {
    let mut window = Played::new(Theme::Dark);
    window.load();
    window.open_plates();
    window.receive(failed(Doing::Preparing, RuntimeError::DeviceLost("Unknown: device removed".into())));
    assert!(matches!(&window.session().model, ModelState::Broken { problem, .. } if problem.code == "device-lost"));
    window.snapshot("lost");
    window.harness.get_by_label("Reload model").click();
    let (command, _) = window.command();
    assert!(matches!(command, Command::Load { model: ModelAt::Demo, .. }), "expected Load, got {command:?}");
    window.receive(Update::Loaded(Box::new(about())));
    let (command, _) = window.command();
    assert!(matches!(command, Command::Look { .. }), "expected Look at the same picture, got {command:?}");
}

#[test]
fn without_an_adapter_the_cpu_is_offered() {
    let mut window = Played::new(Theme::Light);
    window.command();
    window.open_plates_unseen();
    let none = RuntimeError::NoAdapter { asked: "wgpu".into(), found: "none".into() };
    window.receive(failed(Doing::Loading, none));
    window.snapshot("no_adapter");
    window.harness.get_by_label("Load on the CPU").click();
    let (command, _) = window.command();
    assert!(matches!(command, Command::Load { device: Wanted::Cpu, .. }), "expected Load on the CPU, got {command:?}");
}

#[test]
fn a_broken_model_names_the_file_and_gives_advice() {
    let mut window = Played::new(Theme::Dark);
    window.command();
    window.open_plates_unseen();
    let why = "expected a whole number above 0, got -3".to_owned();
    window.receive(failed(
        Doing::Loading,
        Error::Config { key: "config.json: text_config.num_hidden_layers".into(), why },
    ));
    window.snapshot("broken_model");
    assert!(window.harness.query_by_label_contains("num_hidden_layers").is_some());
}

#[test]
fn the_plan_states_whether_the_model_fits() {
    let mut window = Played::new(Theme::Dark);
    window.load();
    let checkpoint = pollster::block_on(Checkpoint::open(demo::source())).expect("the demo");
    let plans = Stored::ALL.map(|stored| Plan::new(&checkpoint, None, stored));
    let model = ModelAt::Folder("/models/llava-next-8b".into());
    window.receive(Update::Planned(Box::new(Planned { model, plans, host_available: Some(1 << 20) })));
    window.until("five examples", |window| window.app().examples_shown() == 5);
    window.harness.run_steps(30); // the dialog has faded in
    window.snapshot("plan");
    assert!(window.harness.query_by_label_contains("Too large: this machine has 1.0 MiB of free memory").is_some());
    assert!(window.harness.query_by_label("Load in q4").is_some(), "expected the smallest where nothing fits");
    window.harness.get_by_label("Load").click();
    let (command, _) = window.command();
    assert!(matches!(&command, Command::Load { model: ModelAt::Folder(_), .. }), "expected Load, got {command:?}");
}

#[test]
fn a_huge_picture_is_shown_small_and_one_too_large_is_refused() {
    let mut window = Played::new(Theme::Dark);
    window.load();
    let mut png = std::io::Cursor::new(Vec::new());
    let stripes = image::RgbImage::from_fn(12_000, 700, |x, y| image::Rgb([(x / 47) as u8, (y / 3) as u8, 90]));
    stripes.write_to(&mut png, image::ImageFormat::Png).expect("a PNG");
    window.app().open(Origin::Bytes { name: "panorama.png".into(), bytes: png.into_inner().into() });
    window.until("a picture", |window| window.session().picture.is_some());
    assert_eq!(window.app().texture_size(), Some([1600, 93]));
    window.snapshot("huge");
    let mut bmp = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(1, 17_000).write_to(&mut bmp, image::ImageFormat::Bmp).expect("a BMP");
    window.app().open(Origin::Bytes { name: "needle.bmp".into(), bytes: bmp.into_inner().into() });
    window.until("a notice", |window| !window.session().notices.is_empty());
    let words = window.harness.query_all_by_label_contains("16384").count();
    assert!(words > 0, "expected the size limit in the notification");
    assert!(window.shows("panorama.png"));
    window.open_plates_unseen();
    assert!(window.session().notices.is_empty(), "expected no problem of the picture before");
}

#[test]
fn a_model_that_cannot_be_loaded_is_not_the_one_of_the_next_start() {
    let start = Start { model: Some("no/such/folder".into()), ..Start::default() };
    let mut window = Played::starting(Theme::Dark, start);
    let (command, _) = window.command();
    let Command::Load { model, .. } = command else { panic!("expected Load, got {command:?}") };
    assert!(matches!(&model, ModelAt::Folder(path) if path.is_absolute()), "expected an absolute path, got {model:?}");
    let why = "expected a checkpoint, got no such directory".to_owned();
    window.receive(failed(Doing::Loading, Error::Config { key: "no/such/folder".into(), why }));
    let settings = window.app().settings();
    assert_eq!((&settings.model, settings.models.len()), (&ModelAt::Demo, 0), "(got, expected)");
    window.until("five examples", |window| window.app().examples_shown() == 5);
    window.snapshot("no_model");
    window.harness.get_by_label("Use the demo").click();
    let (command, _) = window.command();
    assert!(matches!(command, Command::Load { model: ModelAt::Demo, .. }), "expected the demo, got {command:?}");
    // One that was loaded is.
    window.receive(Update::Loaded(Box::new(About { model: model.clone(), ..about() })));
    assert_eq!(window.app().settings().model, model, "(got, expected)");
}

#[test]
fn without_a_file_dialog_a_path_is_typed() -> std::io::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("plates.png");
    std::fs::write(&file, plates_png())?;
    let mut window = Played::new(Theme::Light);
    window.load();
    window.until("five examples", |window| window.app().examples_shown() == 5);
    window.app().type_path(What::Picture);
    window.harness.run_steps(30); // the dialog has faded in
    window.snapshot("path");
    window.harness.get_by_label("Path").set_text_value_accesskit(&file.to_string_lossy());
    window.harness.run_steps(2);
    window.harness.get_by_label("Open").click();
    window.until("a picture", |window| window.shows("plates.png"));
    assert_eq!(window.app().settings().pictures, [file]);
    Ok(())
}
