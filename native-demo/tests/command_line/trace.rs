//! `fovea trace`: the file has the names, dtypes, shapes and integers of PyTorch's trace.

use std::fs;

use safetensors::{Dtype, SafeTensors};

use crate::program::{fixture, on_cpu};

/// The values of one F32 stage.
fn floats(bytes: &[u8]) -> impl Iterator<Item = f64> {
    bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b)))
}

/// Each case has its `model`, `image`, `prompt` and `off` in `tests/fixtures/cases.json`.
#[test]
fn traces_equal_pytorchs() {
    let cases = fs::read_to_string(fixture("cases.json")).expect("the cases");
    let cases: Vec<serde_json::Value> = serde_json::from_str(&cases).expect("the cases as JSON");
    for name in ["tiny-both", "vicuna-none", "stock-text"] {
        let case = cases.iter().find(|c| c["case"] == name).unwrap_or_else(|| panic!("expected the case {name}"));
        let text = |key: &str| case[key].as_str().expect("a text");
        let off: Vec<&str> = case["off"].as_array().expect("a list").iter().filter_map(|o| o.as_str()).collect();
        let spec = match off.as_slice() {
            [] => "focus",
            ["vision"] => "text",
            ["text"] => "vision",
            _ => "none",
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let out = folder.path().join("trace.safetensors");
        let (model, image) = (fixture(text("model")), fixture(text("image")));
        let out_name = out.to_str().expect("a path in UTF-8");
        let args = ["trace", &image, text("prompt"), "--model", &model, "--out", out_name, "--compress", spec];
        let ran = on_cpu(&args);
        assert_eq!(ran.stdout(), "", "{name}: stdout (got, expected)");
        assert!(ran.line("wrote ").contains("trace.safetensors"), "{name}: got {}", ran.stderr());
        let got = fs::read(&out).expect("the trace");
        let expected = fs::read(fixture(&format!("traces/{name}.safetensors"))).expect("PyTorch's trace");
        compare(name, &got, &expected);
    }
}

fn compare(case: &str, got: &[u8], expected: &[u8]) {
    let got = SafeTensors::deserialize(got).unwrap_or_else(|e| panic!("{case}: expected a safetensors file, got {e}"));
    let expected = SafeTensors::deserialize(expected).expect("PyTorch's trace");
    let names = |of: &SafeTensors| {
        let mut names: Vec<String> = of.names().into_iter().map(|name| name.to_string()).collect();
        names.sort();
        names
    };
    // What Fovea adds for other compressions; `compressed` in tests/ compares it.
    let own = |name: &String| {
        let of_pruning = name.starts_with("stage");
        of_pruning || ["layer_visual", "origin_index", "origin_offsets", "token_kind"].contains(&name.as_str())
    };
    let stages: Vec<String> = names(&got).into_iter().filter(|name| !own(name)).collect();
    assert_eq!(stages, names(&expected), "{case}: stages (got, expected)");
    for (name, expected) in expected.iter() {
        let got = got.tensor(name).expect("a stage of this name");
        let signature = (got.dtype(), got.shape());
        assert_eq!(signature, (expected.dtype(), expected.shape()), "{case}: {name}: dtype, shape (got, expected)");
        match got.dtype() {
            Dtype::I64 => assert_eq!(got.data(), expected.data(), "{case}: {name}: bytes of integers (got, expected)"),
            Dtype::F32 => {
                // `stages` in tests/ checks on every device how close they are; this only checks that they are the same quantities.
                let pairs: Vec<(f64, f64)> = floats(got.data()).zip(floats(expected.data())).collect();
                let error: f64 = pairs.iter().map(|(g, e)| (g - e).powi(2)).sum();
                let size: f64 = pairs.iter().map(|(_, e)| e.powi(2)).sum();
                assert!(error <= 1e-6 * size, "{case}: {name}: expected an NMSE of at most 1e-6, got {}", error / size);
            }
            other => panic!("{case}: {name}: expected F32 or I64, got {other:?}"),
        }
    }
}
