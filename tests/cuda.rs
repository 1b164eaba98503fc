//! The CUDA text of every kernel, without an NVIDIA GPU: NVRTC compiles it, and on the CPU it gives the results that the
//! WGSL gave on a GPU. The test `kernels` compares those results with the twins.
//!
//! Without NVRTC or g++, a test prints a line on stderr and passes; with `FOVEA_REQUIRE_CUDA_TEXTS=1` it fails.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use burn::tensor::{DType, Int, Tensor, TensorData};
use fovea_conformance::{Depth, Options, conformance, golden::Fixtures};
use fovea_runtime::{
    OpenDevice,
    network_ops::{Activation, After, Format, Weight, linear},
    testing::{Launch, as_on_hardware, record_launches, recorded_launches},
};
use fovea_shaders::{KERNELS, cuda_text};
use fovea_tests::{
    device,
    texts::{constants, variants},
};
use half::f16;
use pollster::block_on;

/// If this variable is `1`, a missing compiler is a failure.
const REQUIRE: &str = "FOVEA_REQUIRE_CUDA_TEXTS";
/// The exit status of `nvrtc.py` without NVRTC.
const NOT_THERE: i32 = 77;
/// Launches of each text that run on the CPU.
const LAUNCHES: usize = 2;

fn skip(what: &str, why: &str) {
    assert!(std::env::var(REQUIRE).is_ok_and(|v| v == "1").eq(&false), "{REQUIRE}=1, but {what}: {why}");
    device::skip(&format!("{what}: {why}"));
}

fn here(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda").join(file)
}

fn text_of(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

#[test]
fn nvrtc_compiles_every_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut count = 0;
    for kernel in KERNELS {
        for variant in variants(kernel) {
            for constants in constants(kernel, variant) {
                let text = cuda_text(&kernel.wgsl(variant, &constants));
                let text = text.unwrap_or_else(|e| panic!("{} {variant} {constants:?}: {e}", kernel.name));
                let name = format!("{}-{variant}-{constants:?}.cu", kernel.name).replace([' ', '[', ']'], "");
                fs::write(folder.path().join(name), text).expect("a file");
                count += 1;
            }
        }
    }
    assert!(count > 400, "expected more than 400 texts, got {count}");
    let run = Command::new("python3").arg(here("nvrtc.py")).arg(folder.path()).args(["--arch", "sm_80"]).output();
    match run {
        Err(e) => skip("NVRTC", &format!("python3: {e}")),
        Ok(run) if run.status.code() == Some(NOT_THERE) => skip("NVRTC", text_of(&run).trim()),
        Ok(run) => assert!(run.status.success(), "{}", text_of(&run)),
    }
}

#[test]
fn the_cpu_gets_the_results_of_the_gpu() {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return device::skip("the CUDA texts on the CPU: they need Linux on x86-64");
    }
    let Some(open) = device::wgpu("the CUDA texts") else { return };
    if let Err(e) = Command::new("g++").arg("--version").output() {
        return skip("the CUDA texts on the CPU", &format!("g++: {e}"));
    }
    let launches = {
        let _hardware = as_on_hardware();
        record_launches(LAUNCHES);
        let options = Options { depth: Depth::Quick, ..Options::default() };
        block_on(conformance(open, &Fixtures::default(), &options, |_| {}));
        many_rows(open);
        recorded_launches()
    };
    let writes = |launch: &Launch| launch.buffers.iter().any(|buffer| buffer.before != buffer.after);
    for kernel in KERNELS {
        // A launch may write what is there: the carry of a scan with one chunk.
        let some = launches.iter().filter(|launch| launch.kernel.name == kernel.name).any(writes);
        assert!(some, "{}: expected a recorded launch that writes, got none", kernel.name);
    }
    let results = on_the_cpu(&launches);
    let mut failures = Vec::new();
    for (launch, buffers) in launches.iter().zip(&results) {
        for (i, (buffer, got)) in launch.buffers.iter().zip(buffers).enumerate() {
            if let Err(why) = compare(buffer.dtype, &buffer.after, got) {
                let Launch { kernel, variant, constants, groups, .. } = launch;
                failures.push(format!("{} {variant} {constants:?} {groups:?}, buffer {i}: {why}", kernel.name));
            }
        }
    }
    assert!(failures.is_empty(), "of {} launches:\n{}", launches.len(), failures.join("\n"));
}

/// The next of a sequence of random numbers.
fn random(state: &mut u32) -> u32 {
    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    *state
}

/// Products that are large enough for `gemm`: with floats and with codes, with and without a gate.
fn many_rows(open: &OpenDevice) {
    let (tokens, height, width) = (100, 2100, 64);
    let state = &mut 1;
    let mut values = |shape: [usize; 2]| {
        let values = (0..shape[0] * shape[1]).map(|_| (random(state) >> 8) as f32 / (1 << 23) as f32 - 1.0);
        Tensor::<2>::from_data(TensorData::new(values.collect::<Vec<f32>>(), shape), &open.device)
    };
    let (x, weight) = (values([tokens, width]), values([height, width]));
    let bias = values([1, height]).flatten::<1>(0, 1);
    let mut weights = vec![Weight::Float(weight.clone())];
    weights.extend(open.has_f16().then(|| Weight::Float(weight.cast(DType::F16))));
    for format in [Format::Q8, Format { minimum: true, ..Format::Q4 }] {
        let words = |columns: usize, word: &mut dyn FnMut() -> u32| {
            let words: Vec<i32> = (0..height * columns).map(|_| word().cast_signed()).collect();
            Tensor::<2, Int>::from_data(TensorData::new(words, [height, columns]), (&open.device, DType::I32))
        };
        let codes = words(format.words(width), &mut || random(state));
        // Twice 0.01 in f16.
        let scales = words(format.scale_words(width), &mut || 0x211f_211f);
        weights.push(Weight::Codes { words: codes, scales, format, rounded: false });
    }
    for weight in &weights {
        for after in [After::Nothing, After::Gate(Activation::Silu)] {
            let bias = matches!(after, After::Nothing).then(|| bias.clone());
            linear(x.clone(), std::slice::from_ref(weight), bias, None, after).expect("a product");
        }
    }
}

/// Runs the launches with the CUDA texts on the CPU: the content of all buffers after each.
fn on_the_cpu(launches: &[Launch]) -> Vec<Vec<Vec<u8>>> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut texts: Vec<String> = Vec::new();
    let (mut calls, mut pool, mut count) = (String::new(), Vec::new(), 0);
    for Launch { kernel, variant, constants, groups: [x, y, z], parameters, buffers } in launches {
        let text = cuda_text(&kernel.wgsl(*variant, constants)).expect("a text");
        let at = texts.iter().position(|other| *other == text).unwrap_or(texts.len());
        if at == texts.len() {
            texts.push(text);
        }
        for bytes in buffers.iter().map(|buffer| &buffer.before).chain([parameters]) {
            pool.extend((bytes.len() as u64).to_le_bytes());
            pool.extend(bytes);
        }
        let arguments: Vec<_> = (count..=count + buffers.len()).map(|i| format!("pool[{i}]")).collect();
        count += arguments.len();
        let (lanes, arguments) = (kernel.lanes(constants), arguments.join(", "));
        calls += &format!(
            "    {{ void* p[] = {{{arguments}}}; host::launch({{{x}, {y}, {z}}}, {lanes}, k{at}::fovea_main, p); }}\n"
        );
    }
    let included: String = (0..texts.len()).map(|i| format!("namespace k{i} {{\n#include \"k{i}.cu\"\n}}\n")).collect();
    let driver = fs::read_to_string(here("replay.cpp")).expect("replay.cpp");
    let program = driver.replace("// KERNELS", &included).replace("// LAUNCHES", &calls);
    for (i, text) in texts.iter().enumerate() {
        fs::write(folder.path().join(format!("k{i}.cu")), text).expect("a file");
    }
    fs::write(folder.path().join("replay.cpp"), program).expect("a file");
    fs::write(folder.path().join("pool"), pool).expect("a file");
    // The fibres of host.hpp are unknown to the checks of some distributions.
    let options = "-std=c++17 -O1 -march=native -ffp-contract=off -fno-strict-aliasing -U_FORTIFY_SOURCE \
                   -fcf-protection=none -w -o replay replay.cpp -I";
    let mut compiler = Command::new("g++");
    let compiled = compiler.args(options.split(' ')).arg(here("")).current_dir(&folder).output().expect("g++");
    assert!(compiled.status.success(), "g++: {}", text_of(&compiled));
    let run = Command::new(folder.path().join("replay")).current_dir(&folder).output().expect("the launches");
    assert!(run.status.success(), "the launches: {}", text_of(&run));
    let after = fs::read(folder.path().join("after")).expect("their buffers");
    let mut rest = &after[..];
    let mut take = |bytes: usize| rest.split_off(..bytes).expect("the bytes of all buffers").to_vec();
    let of = |launch: &Launch| {
        let buffers = launch.buffers.iter().map(|buffer| take(buffer.before.len())).collect();
        take(launch.parameters.len());
        buffers
    };
    launches.iter().map(of).collect()
}

/// Compares the bytes of a buffer: floats up to rounding, everything else exactly.
fn compare(dtype: DType, expected: &[u8], got: &[u8]) -> Result<(), String> {
    if expected.is_empty() || expected.len() != got.len() {
        return Err(format!("expected {} bytes, at least one, got {}", expected.len(), got.len()));
    }
    let floats = |bytes: &[u8]| -> Vec<f64> {
        match dtype {
            DType::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f64()).collect(),
            _ => bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        }
    };
    // Relative to the element, and to the largest one: a sum can be much smaller than what it adds.
    let [own, most] = match dtype {
        DType::F32 => [1e-5, 2e-6],
        DType::F16 => [1e-3, 2e-6],
        _ if expected == got => return Ok(()),
        other => {
            let at = expected.iter().zip(got).position(|(a, b)| a != b).unwrap_or_default();
            return Err(format!("{other:?}: expected the same bytes, got others from byte {at} on"));
        }
    };
    let (expected, got) = (floats(expected), floats(got));
    // An element that no launch writes stays NaN.
    let largest = expected.iter().filter(|x| x.is_finite()).fold(0.0f64, |most, x| most.max(x.abs()));
    for (i, (e, g)) in expected.iter().zip(&got).enumerate() {
        let bound = own * e.abs() + most * largest;
        if !(e.is_nan() && g.is_nan() || e == g || (e - g).abs() <= bound) {
            return Err(format!("element {i}: expected {e} within {bound:e}, got {g}"));
        }
    }
    Ok(())
}
