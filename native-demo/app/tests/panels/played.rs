//! A window with a simulated engine.

use std::{
    io::Write,
    sync::{Arc, mpsc::Receiver, mpsc::Sender},
    time::{Duration, Instant},
};

use egui_kittest::{Harness, HarnessBuilder, SnapshotOptions};
use fovea_app::{
    App, Parts, Session, Settings, Start, Theme,
    engine::{About, Command, Engine, ModelAt, Update},
};
use fovea_model::{Cancel, Checkpoint, Grid, Looked, Origin, TileConfig, demo};
use fovea_runtime::{DeviceInfo, Scale, device::DeviceClass};
use fovea_shaders::{Cell, compact};

/// The window's state in a harness. The app is created in the first frame, because it needs egui's context.
pub struct Window {
    parts: Option<Parts>,
    app: Option<App>,
}

/// A harness, and the engine's ends of the channels.
pub struct Played {
    pub harness: Harness<'static, Window>,
    pub commands: Receiver<(Command, Cancel)>,
    pub updates: Sender<Update>,
}

/// Whether there is an adapter to draw on. Without one: fails if `FOVEA_REQUIRE_ADAPTER` is set.
pub fn can_draw() -> bool {
    let there = !pollster::block_on(fovea_runtime::device::adapters()).is_empty();
    assert!(there || std::env::var_os("FOVEA_REQUIRE_ADAPTER").is_none(), "expected an adapter to draw on, found none");
    there
}

impl Played {
    /// A window of 1180 x 800 points.
    pub fn new(theme: Theme) -> Self {
        Self::starting(theme, Start::default())
    }

    /// The same, with a picture or a model at the start.
    pub fn starting(theme: Theme, start: Start) -> Self {
        let (engine, commands, updates) = Engine::wired();
        let parts = Parts { engine, settings: Settings { theme, ..Settings::default() } };
        let builder = Harness::builder().with_size([1180.0, 800.0]).with_max_steps(64).with_render_cursor(false);
        let builder: HarnessBuilder<Window> = if can_draw() { builder.wgpu() } else { builder };
        let harness = builder.build_ui_state(
            move |ui, window: &mut Window| {
                if let Some(parts) = window.parts.take() {
                    let app = window.app.insert(App::with(ui.ctx(), parts));
                    app.begin(None, start.clone());
                }
                if let Some(app) = &mut window.app {
                    app.receive(ui.ctx());
                    app.show(ui);
                }
            },
            Window { parts: Some(parts), app: None },
        );
        Self { harness, commands, updates }
    }

    /// The app.
    pub fn app(&mut self) -> &mut App {
        self.harness.state_mut().app.as_mut().expect("an app after the first frame")
    }

    /// The data that the window shows.
    pub fn session(&mut self) -> &mut Session {
        self.app().session_mut()
    }

    /// Draws frames until `there` returns true.
    pub fn until(&mut self, what: &str, mut there: impl FnMut(&mut Self) -> bool) {
        let begin = Instant::now();
        while !there(self) {
            assert!(begin.elapsed() < Duration::from_secs(60), "expected {what} within a minute");
            self.harness.step();
            std::thread::sleep(Duration::from_millis(5));
        }
        self.harness.run_steps(3);
    }

    /// The next command other than `Adapters` and `Plan`.
    pub fn command(&mut self) -> (Command, Cancel) {
        let mut found = None;
        self.until("a command", |window| {
            found = window.commands.try_iter().find(|(c, _)| !matches!(c, Command::Adapters | Command::Plan(_)));
            found.is_some()
        });
        found.expect("a command")
    }

    /// Sends an update to the window, and draws some frames.
    pub fn receive(&mut self, update: Update) {
        self.updates.send(update).expect("the window's receiver");
        self.harness.run_steps(4);
    }

    /// Completes the loading of the model.
    pub fn load(&mut self) {
        let (command, _) = self.command();
        assert!(matches!(command, Command::Load { .. }), "expected Load first, got {command:?}");
        self.receive(Update::Adapters(vec![gpu(), software()]));
        self.receive(Update::Loaded(Box::new(about())));
    }

    /// Opens a picture, and expects the command to look at it.
    pub fn open_plates(&mut self) {
        self.open_plates_unseen();
        let (command, _) = self.command();
        assert!(matches!(command, Command::Look { .. }), "expected Look, got {command:?}");
        self.receive(Update::Prepared);
    }

    /// Opens a picture while there is no model.
    pub fn open_plates_unseen(&mut self) {
        self.app().open(fovea_app::Origin::Bytes { name: "plates.png".into(), bytes: plates_png().into() });
        self.until("a picture", |window| window.shows("plates.png"));
    }

    /// Whether the picture with this name is shown.
    pub fn shows(&mut self, name: &str) -> bool {
        self.session().picture.as_ref().is_some_and(|shown| shown.name == name)
    }

    /// Whether the overlay is drawn.
    pub fn is_drawn(&mut self) -> bool {
        self.app().is_drawn()
    }

    /// Compares the window with its snapshot. Without an adapter it prints a line.
    pub fn snapshot(&mut self, name: &str) {
        if !can_draw() {
            // Not `println!`: the test harness hides its output if the test passes.
            writeln!(std::io::stderr(), "SKIP snapshot {name}: no adapter").ok();
            return;
        }
        // Drivers round a few pixels along edges differently.
        let options = SnapshotOptions::new().max_failed_pixels(40);
        self.harness.snapshot_options(name, &options);
    }
}

/// The picture as a file.
pub fn plates_png() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    plates().write_to(&mut bytes, image::ImageFormat::Png).expect("a PNG");
    bytes.into_inner()
}

/// Plates of flat colors on a wall, so that the snapshots compress well.
fn plates() -> image::RgbImage {
    let plates =
        [([30, 40, 110, 60], [214, 60, 52]), ([170, 90, 70, 110], [52, 98, 210]), ([50, 210, 90, 70], [60, 160, 84])];
    image::RgbImage::from_fn(280, 326, |x, y| {
        let on = |&([left, top, width, height], _): &([u32; 4], [u8; 3])| {
            (left..left + width).contains(&x) && (top..top + height).contains(&y)
        };
        image::Rgb(plates.iter().find(|plate| on(plate)).map_or([208, 206, 200], |plate| plate.1))
    })
}

fn adapter(name: &str, class: DeviceClass, f16: bool) -> DeviceInfo {
    DeviceInfo {
        name: name.into(),
        backend: "vulkan".into(),
        driver: "1.0".into(),
        class,
        f16,
        subgroups: true,
        max_buffer_size: 4 << 30,
        max_binding_size: 2 << 30,
        max_storage_buffers: 16,
        max_workgroup_storage: 32 << 10,
        max_workgroup_invocations: 1024,
        memory: None,
    }
}

/// An invented GPU.
pub fn gpu() -> DeviceInfo {
    adapter("Example GPU", DeviceClass::Discrete, true)
}

fn software() -> DeviceInfo {
    adapter("llvmpipe", DeviceClass::Software, false)
}

/// The loaded demo checkpoint.
pub fn about() -> About {
    About {
        model: ModelAt::Demo,
        device: gpu(),
        dtype: "f16".into(),
        config: pollster::block_on(Checkpoint::open(demo::source())).expect("the demo").config,
        selector: true,
        meteor: false,
        notes: Vec::new(),
        weights: 4_900_000,
        planned: 19_000_000,
        instead_of: None,
    }
}

/// A token selection for a picture of 280 x 326 pixels: regions at all three scales, importance rising along the map.
pub fn looked(text: bool) -> Looked {
    let pinpoints = [(128, 128), (64, 128), (128, 64), (64, 192), (192, 64)];
    let grid = Grid::of(326, 280, &TileConfig::anyres(64, pinpoints.to_vec()), 8);
    let scales = vec![Scale::new(4, 4), Scale::new(2, 2), Scale::new(1, 1)];
    let regions = grid.height.div_ceil(4) * grid.width.div_ceil(4);
    let choice: Vec<usize> = (0..regions).map(|i| i % 3).collect();
    let cells = compact(grid.height, grid.width, 4, &scales, &choice).into_iter();
    let map = cells.map(|(patches, cell)| match cell {
        Cell::Newline => Origin::Newline(patches),
        _ => Origin::Map(vec![patches]),
    });
    let origins: Vec<_> = (0..64).map(|patch| Origin::Thumbnail(vec![patch])).chain(map).collect();
    let count = origins.len();
    Looked {
        grid,
        compression: if text { "focus" } else { "vision" }.into(),
        window: 4,
        scales: Arc::new(scales),
        choice: Arc::new(choice),
        origins: Arc::new(origins),
        importance: if text { (0..count).map(|i| i as f32 / (count * count) as f32).collect() } else { Vec::new() },
        kept: (0..count).filter(|i| !text || i % 2 == 0).collect(),
    }
}
