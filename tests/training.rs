//! Training on a GPU computes the same steps as on the CPU: the same code on two backends of burn.

use std::path::Path;

use fovea_runtime::OpenDevice;
use fovea_tests::device::{cpu, wgpu};
use fovea_train::{Step, TrainConfig, Trainer};

/// Two scenes with everything in training: dense labels, all losses, the text-guided sampler.
const RUN: &str = r#"{
  "model": "DEMO", "start": "DEMO/model.safetensors", "seed": 7, "first": 400000,
  "stages": [{
    "name": "two", "task": "scenes", "steps": 2, "batch": 2, "warmup": 1, "questions": 4,
    "rates": { RATES },
    "text": { "layers": [2, 6], "gamma": [0.7, 0.95] },
    "dense": 0.5, "balance": 0.1, "hint": 0.2, "look": 0.3
  }]
}"#;

const RATES: &str = r#""tower": 0.0001, "text": 0.001, "selector": 0.001"#;

/// The losses of the second step depend on the first update of the weights: without it they differ by more than the bound.
/// Sums in another order differ by about 1e-6; the bound allows for drivers that are less exact.
#[test]
fn steps_on_a_gpu_equal_those_on_the_cpu() {
    const BOUND: f64 = 1e-3;
    let Some(gpu) = wgpu("training") else { return };
    let (expected, got) = (steps(cpu(), RATES), steps(gpu, RATES));
    assert_eq!(got.len(), 2, "steps (got, expected)");
    for (got, expected) in got.iter().zip(&expected) {
        let losses = |s: &Step| {
            [("answers", s.answers), ("dense", s.dense), ("balance", s.balance), ("hint", s.hint), ("look", s.look)]
        };
        let all = losses(got).into_iter().zip(losses(expected));
        for ((name, got_value), (_, value)) in all.chain([(("norm", Some(got.norm)), ("norm", Some(expected.norm)))]) {
            let (Some(g), Some(e)) = (got_value, value) else { panic!("step {}: expected {name}, got none", got.step) };
            assert!((g - e).abs() <= BOUND * e.abs(), "step {}: {name}: expected {e}, got {g}", got.step);
        }
        assert_eq!(got.scales, expected.scales, "step {}: scales (got, expected)", got.step);
        assert_eq!(got.kept, expected.kept, "step {}: share kept (got, expected)", got.step);
        assert_eq!(got.kinds, expected.kinds, "step {}: right answers (got, expected)", got.step);
    }
    let still = &steps(cpu(), r#""tower": 0.0, "text": 0.0, "selector": 0.0"#)[1];
    let (Some(still), Some(moved)) = (still.answers, expected[1].answers) else { panic!("expected answers, got none") };
    assert!(
        (still - moved).abs() > 10.0 * BOUND * moved,
        "expected an update that changes the loss by more than the bound, got {moved} after {still}"
    );
}

/// Two steps at these rates.
fn steps(device: &OpenDevice, rates: &str) -> Vec<Step> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/demo").canonicalize().expect("the demo");
    let file = folder.path().join("run.json");
    // A path in JSON takes slashes everywhere.
    let run = RUN.replace("RATES", rates).replace("DEMO", &demo.to_string_lossy().replace('\\', "/"));
    std::fs::write(&file, run).expect("a file");
    pollster::block_on(async {
        let config = TrainConfig::read(&file).expect("a run");
        let mut trainer = Trainer::open(config, folder.path(), device.device.clone()).await.expect("a trainer");
        let mut steps = Vec::new();
        while let Some(step) = trainer.step().await.expect("a step") {
            steps.push(step);
        }
        steps
    })
}
