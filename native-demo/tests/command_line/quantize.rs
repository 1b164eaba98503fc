//! `fovea quantize`: files in MLX's layout, answers that equal those of `--weights`, and refusals.

use std::{collections::BTreeSet, fs, path::Path};

use half::f16;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use crate::program::{Broken, Ran, fixture, fovea, on_cpu};

/// The layer whose queries and keys score visual tokens, in the fixture `tiny-0`.
const TEXT_LAYER: &str = "language_model.model.layers.2.self_attn.";

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn quantize(model: &str, out: &Path, more: &[&str]) -> Ran {
    fovea(&[&["quantize", model, path(out)], more].concat())
}

fn json_of(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).expect("a file")).expect("JSON")
}

fn halves(bytes: &[u8]) -> impl Iterator<Item = f64> {
    bytes.as_chunks::<2>().0.iter().map(|b| f64::from(f16::from_le_bytes(*b).to_f32()))
}

/// NMSE of MLX's codes against the F32 tensor of the same name.
fn nmse(of: &SafeTensors, original: &SafeTensors, module: &str, bits: usize, group: usize) -> f64 {
    let part = |name: &str| of.tensor(&format!("{module}.{name}")).unwrap_or_else(|e| panic!("{module}.{name}: {e}"));
    let (weight, scales, biases) = (part("weight"), part("scales"), part("biases"));
    let values = original.tensor(&format!("{module}.weight")).expect("the original");
    let [rows, width] = values.shape() else { panic!("{module}: expected a matrix") };
    assert_eq!((weight.dtype(), weight.shape()), (Dtype::U32, [*rows, width * bits / 32].as_slice()), "{module}");
    for numbers in [&scales, &biases] {
        assert_eq!((numbers.dtype(), numbers.shape()), (Dtype::F16, [*rows, width / group].as_slice()), "{module}");
    }
    // The first code is in the lowest bits.
    let codes = weight.data().iter().flat_map(|byte| match bits {
        8 => vec![*byte],
        _ => vec![byte & 15, byte >> 4],
    });
    let lines: Vec<(f64, f64)> = halves(scales.data()).zip(halves(biases.data())).collect();
    let values = values.data().as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b)));
    let (mut error, mut power) = (0.0, 0.0);
    for (at, (code, value)) in codes.zip(values).enumerate() {
        let (scale, bias) = lines[at / group];
        error += (scale * f64::from(code) + bias - value).powi(2);
        power += value.powi(2);
    }
    error / power
}

#[test]
fn files_have_mlxs_layout() {
    let (tiny, folder) = (fixture("tiny-0"), tempfile::tempdir().expect("a folder"));
    let original = fs::read(format!("{tiny}/model.safetensors")).expect("weights");
    let original = SafeTensors::deserialize(&original).expect("weights");
    for (args, bits, bound) in
        [(["--weights", "q4", "--json"].as_slice(), 4, 1e-2), (&["--weights", "Q8", "--minimum", "--json"], 8, 5e-5)]
    {
        let out = folder.path().join(args[1]);
        let ran = quantize(&tiny, &out, args);
        ran.expect_code(0);
        let bytes = fs::read(out.join("model.safetensors")).expect("weights");
        let new = SafeTensors::deserialize(&bytes).expect("weights");
        let report = ran.json();
        let listed = report["tensors"].as_array().expect("a list");
        // 7 matrices in each of 6 layers without 3 of the text-guided sampler's, the embedding and the head.
        assert_eq!(listed.len(), 6 * 7 - 3 + 2, "matrices (got, expected)");
        let mut names = BTreeSet::new();
        for tensor in listed {
            let name = tensor["name"].as_str().expect("a name");
            let module = name.strip_suffix(".weight").expect("a weight");
            let table = !name.contains(".layers.");
            let (bits, bound) = if table { (8, 5e-5) } else { (bits, bound) };
            let got = nmse(&new, &original, module, bits, 32);
            assert!(got <= bound, "{name}: expected an NMSE of at most {bound:e}, got {got:e}");
            let stated = tensor["nmse"].as_f64().expect("a number");
            assert!((stated - got).abs() <= 1e-3 * got, "{name}: NMSE: got {stated:e}, expected {got:e}");
            let minimum = if args.contains(&"--minimum") { "m" } else { "" };
            assert_eq!((&tensor["from"], &tensor["to"]), (&json!("f32"), &json!(format!("q{bits}{minimum} g32"))));
            names.extend(["weight", "scales", "biases"].map(|part| format!("{module}.{part}")));
        }
        // All other tensors are the same.
        for (name, tensor) in original.iter() {
            if names.insert(name.to_owned()) {
                let got = new.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
                assert_eq!((got.dtype(), got.shape()), (tensor.dtype(), tensor.shape()), "{name}");
                assert!(got.data() == tensor.data(), "{name}: expected the same bytes");
            }
        }
        let got: BTreeSet<String> = new.names().into_iter().map(|name| name.to_string()).collect();
        assert_eq!(got, names, "tensors (got, expected)");
        // config.json has the settings; the other files are the same.
        let config = json_of(&out.join("config.json"));
        let quantization = &config["quantization"];
        assert_eq!(quantization, &config["quantization_config"]);
        let all = json!({"group_size": 32, "bits": bits, "mode": "affine"});
        for key in ["group_size", "bits", "mode"] {
            assert_eq!(quantization[key], all[key], "{key} (got, expected)");
        }
        let head = if bits == 4 { json!({"group_size": 32, "bits": 8}) } else { Value::Null };
        assert_eq!(quantization["language_model.lm_head"], head);
        assert_eq!(quantization[format!("{TEXT_LAYER}q_proj")], json!(false));
        assert_eq!(quantization["multi_modal_projector.linear_1"], json!(false));
        for entry in fs::read_dir(&tiny).expect("the fixture") {
            let name = entry.expect("a file").file_name();
            if !["config.json", "model.safetensors"].contains(&name.to_str().expect("a name")) {
                let [old, new] = [Path::new(&tiny), &out].map(|folder| fs::read(folder.join(&name)).expect("a file"));
                assert!(old == new, "{name:?}: expected the same bytes");
            }
        }
    }
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2, "folders (got, expected)");
}

#[test]
fn a_quantised_checkpoint_answers_as_with_weights() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("q4");
    let ran = quantize(&fixture("tiny-0"), &out, &["--weights", "q4"]);
    ran.expect_code(0);
    for words in
        ["f32 -> q4 g32\n", "f32 -> q8 g32\n", "  language_model.lm_head\n", "41 of 119 tensors quantised, mean NMSE "]
    {
        assert!(ran.stdout().contains(words), "expected {words:?}, got: {}", ran.stdout());
    }
    assert!(ran.stdout().lines().all(|line| line.chars().count() <= 80), "expected 80 columns: {}", ran.stdout());
    assert!(ran.line("wrote ").ends_with("q4"), "got {}", ran.stderr());
    let picture = fixture("pictures/200x200-0.png");
    let ask = |model: &str| {
        let args = ["ask", &picture, "What number is on the shirt?", "--model", model, "--weights", "q4"];
        on_cpu(&[&args, ["--max-new-tokens", "8"].as_slice()].concat()).stdout().to_owned()
    };
    assert_eq!(ask(path(&out)), ask(&fixture("tiny-0")), "answer (got, expected)");
    // q8 does not change the file's codes, and says so.
    let args = ["ask", &picture, "?", "--model", path(&out), "--max-new-tokens", "1", "--json"];
    let q8 = on_cpu(&[&args[..], &["--weights", "q8"]].concat());
    assert_eq!(q8.json()["dtype"], "q4", "weights (got, expected)");
    let note = q8.line("note: the weights are in q4, as in the file");
    assert!(note.ends_with("--weights q8 does not change codes that a file has"), "got: {note}");
    // Where only the file's codes fit, q8 is not offered.
    let plan = fovea(&["plan", path(&out), "--json"]).json();
    assert_eq!(plan["dtypes"]["q8"], plan["dtypes"]["q4"], "the plan in q8 (got, expected)");
    let peak = plan["dtypes"]["q4"]["cpu_peak"].as_u64().expect("bytes").to_string();
    let args = [&args[..], &["--device", "cpu", "--memory", &peak]].concat();
    fovea(&[&args[..], &["--weights", "f16"]].concat()).expect_error(6, &["; use --weights q4: then it needs "]);
    fovea(&[&args[..], &["--weights", "q4"]].concat()).expect_code(0);
    // An empty folder is filled. Rows that are not whole groups stay floats.
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).expect("a folder");
    let ran = quantize(&fixture("tiny-0"), &empty, &["--weights", "q4", "--group", "128", "--minimum"]);
    ran.expect_code(0);
    // Only the 6 matrices from 128 to 64 columns have rows of 128 values.
    assert!(ran.stdout().contains("f32 -> q4m g128\n") && ran.stdout().contains("6 of 119 "), "got {}", ran.stdout());
    assert!(ran.line("note: ").contains("35 matrices stay as before"), "got {}", ran.stderr());
    fovea(&["inspect", path(&empty)]).expect_code(0);
}

#[test]
fn refusals_leave_nothing() {
    let (tiny, folder) = (fixture("tiny-0"), tempfile::tempdir().expect("a folder"));
    let out = folder.path().join("out");
    for (args, words) in [
        (vec!["--weights", "f16"], vec!["f16", "q8, q4"]),
        (vec![], vec!["--weights"]),
        (vec!["--weights", "q4", "--group", "48"], vec!["--group", "48", "32, 64, 128"]),
    ] {
        quantize(&tiny, &out, &args).expect_error(2, &words);
    }
    let full = folder.path().join("full");
    fs::create_dir(&full).expect("a folder");
    fs::write(full.join("file"), "mine").expect("a file");
    quantize(&tiny, &full, &["--weights", "q4"]).expect_error(2, &["a new or an empty folder", "which has files"]);
    quantize(&tiny, &full.join("file"), &["--weights", "q4"]).expect_error(2, &["which is a file"]);
    let missing = ["cannot write", "no/out", "does not exist; create it first"];
    quantize(&tiny, &folder.path().join("no/out"), &["--weights", "q4"]).expect_error(1, &missing);
    quantize("/no/such", &out, &["--weights", "q4"]).expect_error(3, &["/no/such"]);
    let nan = Broken::copy("tiny-0").set("language_model.lm_head.weight", 77, f32::NAN);
    quantize(nan.path(), &out, &["--weights", "q4"]).expect_error(3, &["language_model.lm_head.weight", "index 77"]);
    // The bias, 128 times the scale, is not finite in f16.
    let large = Broken::copy("tiny-0").set("language_model.lm_head.weight", 77, 1e5);
    quantize(large.path(), &out, &["--weights", "q8"]).expect_error(3, &["language_model.lm_head.weight", "65504"]);
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "files (got, expected)");
    quantize(&tiny, &out, &["--weights", "q8"]).expect_code(0);
    let again = quantize(path(&out), &folder.path().join("again"), &["--weights", "q4"]);
    again.expect_error(3, &["expected float weights, got q8 g32", "load it directly"]);
}
