//! Pipelines that are compiled while the weights are checked: the first answer then compiles almost none.
//!
//! wgpu-core writes a record of `log` for each pipeline. The device is closed and opened again between the two counts, so that
//! none is left of the first one.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use fovea_model::{Cancel, Checkpoint, Conversation, LoadOptions, Model, Precision, Rehearsal, demo};
use fovea_runtime::{DeviceChoice, OpenDevice};
use fovea_tests::{
    device::wgpu,
    run::{options, picture},
};
use pollster::block_on;

static PIPELINES: AtomicUsize = AtomicUsize::new(0);

struct Counter;

impl log::Log for Counter {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("wgpu_core")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) && record.args().to_string().starts_with("Device::create_compute_pipeline") {
            PIPELINES.fetch_add(1, Relaxed);
        }
    }

    fn flush(&self) {}
}

/// Pipelines that the first answer compiles on a new device; the answer; and the memory of the device after loading.
fn first_answer(rehearsal: Rehearsal) -> (usize, String, Option<u64>) {
    let device = block_on(OpenDevice::open(&DeviceChoice::Wgpu)).expect("an adapter that opened once to open again");
    let checkpoint = block_on(Checkpoint::open(demo::source())).expect("the demo checkpoint");
    let load = LoadOptions { precision: Precision::F32, rehearsal, ..LoadOptions::default() };
    let model = block_on(Model::load(checkpoint, device.clone(), load, &Cancel::default(), |_| ()));
    let (model, memory) = (model.expect("the demo model"), device.memory_in_use());
    let before = PIPELINES.load(Relaxed);
    let mut conversation = Conversation::new(&model, picture("200x200-0.png"));
    let answer = block_on(conversation.answer("what number is on the red plate?", &options(2))).expect("an answer");
    device.close();
    (PIPELINES.load(Relaxed) - before, answer.text, memory)
}

#[test]
fn the_first_answer_after_a_rehearsal_compiles_almost_nothing() {
    if wgpu("pipelines").is_none() {
        return;
    }
    log::set_logger(&Counter).expect("the only logger");
    log::set_max_level(log::LevelFilter::Trace);
    let (cold, expected, memory) = first_answer(Rehearsal::Never);
    let (warm, answer, after) = first_answer(Rehearsal::Always);
    assert_eq!(answer, expected, "the answer after a rehearsal (got, expected)");
    assert!(cold > 20, "expected that the first answer compiles pipelines, got {cold}");
    // A product of another number of tokens can have another tile.
    assert!(5 * warm <= cold, "pipelines of the first answer: expected at most a fifth of {cold}, got {warm}");
    let (Some(memory), Some(after)) = (memory, after) else { panic!("expected the memory of a GPU, got none") };
    assert!(10 * after <= 11 * memory, "memory after loading: expected about {memory} bytes, got {after}");
}
