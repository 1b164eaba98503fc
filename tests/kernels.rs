//! The operations on every device: the table of `fovea-conformance`, compared with the f64 twins, and invalid inputs.
//!
//! `cargo test --workspace --test kernels -- --nocapture` prints the report.

use burn::tensor::{DType, Int, Tensor, TensorData};
use fovea_conformance::{Depth, Options, conformance, golden::Fixtures, report::text::text};
use fovea_runtime::{
    Error, Keep, OpenDevice, Scale,
    network_ops::{After, Format, Weight, embed, linear, rounds_inputs},
    read::{read_f32, read_indices},
    sampler_ops::{compact, indices, region_pool, row_gather, runs_kernels, scale_select, text_score, top_k},
    scan_ops::{Discretisation, selective_scan},
    testing::{as_on_hardware, tensor_ops_only},
};
use fovea_tests::{closeness::compare, device};
use pollster::block_on;

/// Runs the table on one device. A row may be skipped only because the device has no f16.
fn every_case(open: &OpenDevice, depth: Depth) {
    let options = Options { depth, ..Options::default() };
    let report = block_on(conformance(open, &Fixtures::default(), &options, |_| {}));
    eprintln!("{}", text(&report));
    let (verdict, counts) = (&report.verdict, report.verdict.counts);
    assert!(verdict.pass, "expected every case to pass on {}, got:\n{}", open.info, verdict.failures.join("\n"));
    assert!(
        verdict.no_longer_seen.is_empty(),
        "expected all known issues of this device to be seen, not seen: {:?}",
        verdict.no_longer_seen
    );
    assert!(counts.passed >= 150, "expected at least 150 cases that pass, got {counts:?}");
    for row in &report.kernels {
        let skipped = row.outcome.word() == "skipped";
        assert!(
            !skipped || (row.dtype == "f16" && !open.has_f16()),
            "{}: expected the row to run, got a skip",
            row.case
        );
        assert!(skipped || row.bit_identical, "{}: expected two equal runs, got different bits", row.case);
        let guarded = row.path == "tensor ops" || row.buffers_guarded > 0 || skipped;
        assert!(guarded, "{}: expected buffers between sentinels, got none", row.case);
    }
}

#[test]
fn the_table_on_the_cpu() {
    every_case(device::cpu(), Depth::Full);
}

#[test]
fn the_table_on_wgpu() {
    if let Some(open) = device::wgpu("the table") {
        assert!(runs_kernels(&open.device), "{}: expected the kernels to run there", open.info);
        every_case(open, Depth::Quick);
    }
}

/// The kernels and tiles of real GPUs, on a software GPU.
#[test]
fn the_table_on_wgpu_as_on_hardware() {
    if let Some(open) = device::wgpu("the table as on hardware") {
        let _hardware = as_on_hardware();
        every_case(open, Depth::Quick);
    }
}

/// The code path of training, of shapes without a kernel, and of devices without kernels.
#[test]
fn the_table_by_tensor_operations_on_wgpu() {
    if let Some(open) = device::wgpu("the table by tensor operations") {
        let _tensor_ops = tensor_ops_only();
        every_case(open, Depth::Quick);
    }
}

fn tensor<const D: usize>(values: &[f32], shape: [usize; D], open: &OpenDevice) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &open.device)
}

/// `D` dimensions of zeros on the CPU.
fn zeros<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    tensor(&vec![0.0; shape.iter().product()], shape, device::cpu())
}

#[test]
fn scores_computed_by_hand_keep_the_expected_tokens() {
    for open in device::all("scores computed by hand") {
        // Two heads of four channels: softmax(ln p) = p, and the better head counts. Shares: .5, .857, 1.
        let key = [0.5f32, 0.3, 0.2, 0.1, 0.7, 0.2].map(|p| [2.0 * p.ln(), 0.0, 0.0, 0.0]);
        let (query, key) = ([[1.0f32, 0.0, 0.0, 0.0]; 2].concat(), key.as_flattened());
        let score = text_score(tensor(&query, [2, 1, 4], open), tensor(key, [2, 3, 4], open)).unwrap();
        let importance = block_on(read_f32(score.clone())).unwrap();
        compare("importance", &[0.5, 0.7, 0.2], &importance).abs_within(1e-6).unwrap();
        for (gamma, expected) in [(0.85, vec![0, 1]), (0.86, vec![0, 1, 2])] {
            let kept = block_on(async { read_indices(top_k(score.clone(), Keep::Gamma(gamma)).await?).await });
            assert_eq!(kept.unwrap(), expected, "{}: gamma {gamma} (got, expected)", open.info);
        }
    }
}

#[test]
fn shapes_that_do_not_belong_together_are_typed_errors() {
    let refused = |what: String, got: Result<(), Error>| {
        assert!(matches!(got, Err(Error::Shape { .. })), "{what}: expected a typed error, got {got:?}");
    };
    let whole = Scale::new(4, 4);
    for (map, window, scales) in [
        ([0, 3, 2], 4, vec![whole]),
        ([3, 3, 2], 0, vec![whole]),
        ([3, 3, 2], 4, vec![]),
        ([3, 3, 2], 4, vec![whole, Scale::new(0, 0)]),
        ([3, 3, 2], 4, vec![Scale::new(2, 0)]),
    ] {
        let got = region_pool(zeros(map), window, &scales).map(|_| ());
        refused(format!("map {map:?}, window {window}, scales {scales:?}"), got);
    }
    for (pooled, thumbnail, weight, bias) in [
        ([2, 4], [9, 5], [3, 9], 3),
        ([2, 4], [9, 4], [3, 8], 3),
        ([2, 4], [9, 4], [2, 9], 3),
        ([2, 4], [9, 4], [3, 9], 2),
    ] {
        let got = scale_select(zeros(pooled), zeros(thumbnail), zeros(weight), zeros([bias])).map(|_| ());
        refused(format!("pooled {pooled:?}, thumbnail {thumbnail:?}, weight {weight:?}, bias {bias}"), got);
    }
    for (query, key) in [([4, 1, 8], [3, 2, 8]), ([4, 1, 8], [2, 2, 6]), ([4, 0, 8], [2, 2, 8]), ([4, 1, 8], [2, 0, 8])]
    {
        refused(format!("query {query:?}, key {key:?}"), text_score(zeros(query), zeros(key)).map(|_| ()));
    }
    refused("no score".into(), block_on(top_k(zeros([0]), Keep::Gamma(0.85))).map(|_| ()));
    for (u, delta, a, b, c, d) in [
        ([0, 2], [0, 2], [2, 4], [0, 4], [0, 4], 2),
        ([3, 2], [2, 2], [2, 4], [3, 4], [3, 4], 2),
        ([3, 2], [3, 2], [3, 4], [3, 4], [3, 4], 2),
        ([3, 2], [3, 2], [2, 4], [3, 5], [3, 4], 2),
        ([3, 2], [3, 2], [2, 4], [3, 4], [2, 4], 2),
        ([3, 2], [3, 2], [2, 4], [3, 4], [3, 4], 1),
        ([3, 2], [3, 2], [2, 0], [3, 0], [3, 0], 2),
    ] {
        let how = Discretisation::Euler;
        let got = selective_scan(zeros(u), zeros(delta), zeros(a), zeros(b), zeros(c), zeros([d]), how).map(|_| ());
        refused(format!("u {u:?}, delta {delta:?}, a {a:?}, b {b:?}, c {c:?}, d {d}"), got);
    }
}

#[test]
fn codes_that_do_not_fit_their_format_are_typed_errors() {
    let device = &device::cpu().device;
    let words = |columns: usize| Tensor::<2, Int>::zeros([2, columns], device);
    for (columns, scales, format) in [
        (8, 2, Format::Q8),                              // two words of scales for one group
        (4, 1, Format::Q8),                              // half a group
        (8, 1, Format { group: 64, ..Format::Q8 }),      // half a group
        (12, 1, Format { minimum: true, ..Format::Q4 }), // one word of scales for three groups
    ] {
        let weight = [Weight::Codes { words: words(columns), scales: words(scales), format, rounded: false }];
        let what = format!("{format}: {columns} words and {scales} words of scales");
        let refused = |op: &str, got: Result<Tensor<2>, Error>| {
            assert!(matches!(got, Err(Error::Shape { .. })), "{op}, {what}: expected a typed error, got {got:?}");
        };
        let width = columns * 32 / format.bits as usize;
        refused("linear", linear(zeros([1, width]), &weight, None, None, After::Nothing));
        refused("embed", embed(Tensor::zeros([1], device), 1, &weight, 1.0));
    }
}

/// Matrices that are joined by rows keep their formats.
#[test]
fn parts_of_different_formats_give_their_own_columns() {
    const K: usize = 128;
    for open in device::all("parts of different formats") {
        let of = |rows: usize, columns: usize, word: &dyn Fn(i32) -> i32| {
            let words: Vec<i32> = (0..(rows * columns) as i32).map(word).collect();
            Tensor::<2, Int>::from_data(TensorData::new(words, [rows, columns]), (&open.device, DType::I32))
        };
        let part = |rows: usize, format: Format| Weight::Codes {
            words: of(rows, format.words(K), &|i| i.wrapping_mul(0x4165_3a7d)),
            scales: of(rows, format.scale_words(K), &|i| 0x2400_1c00 + i),
            format,
            rounded: false,
        };
        let parts = [part(5, Format { minimum: true, ..Format::Q4 }), part(3, Format { group: 16, ..Format::Q8 })];
        for tokens in [1, 3, 12] {
            let values: Vec<f32> = (0..tokens * K).map(|i| (i % 7) as f32 - 3.0).collect();
            let x = Tensor::<2>::from_data(TensorData::new(values, [tokens, K]), &open.device);
            let run = |weight: &[Weight]| {
                let product = linear(x.clone(), weight, None, None, After::Nothing).unwrap();
                block_on(read_f32(product)).unwrap()
            };
            let (both, first, second) = (run(&parts), run(&parts[..1]), run(&parts[1..]));
            let rows = first.chunks(5).zip(second.chunks(3));
            let expected: Vec<f32> = rows.flat_map(|(first, second)| [first, second].concat()).collect();
            assert!(expected.iter().any(|x| *x != 0.0), "{}: expected products that are not zero", open.info);
            assert_eq!(both, expected, "{}: {tokens} rows (got, expected)", open.info);
        }
    }
}

#[test]
fn many_rows_are_rounded_where_a_weight_says_so() {
    for open in device::all("rounded inputs") {
        for format in [Format::Q4, Format { minimum: true, ..Format::Q8 }] {
            for tokens in [8, 9, 300] {
                check_rounding(open, format, tokens);
            }
        }
    }
}

/// Compares a product whose weight asks for rounded inputs with one that does not; and one row has an input that is not
/// finite.
fn check_rounding(open: &OpenDevice, format: Format, tokens: usize) {
    const K: usize = 128;
    let what = format!("{}, {format}, {tokens} rows", open.info);
    let of = |columns: usize, word: &dyn Fn(i32) -> i32| {
        let words: Vec<i32> = (0..(40 * columns) as i32).map(word).collect();
        Tensor::<2, Int>::from_data(TensorData::new(words, [40, columns]), (&open.device, DType::I32))
    };
    let weight = |rounded| Weight::Codes {
        words: of(format.words(K), &|i| i.wrapping_mul(0x4165_3a7d)),
        scales: of(format.scale_words(K), &|i| 0x2400_1c00 + i),
        format,
        rounded,
    };
    let run = |rounded: bool, odd: f32| {
        let mut values: Vec<f32> = (0..tokens * K).map(|i| (i as f32 * 0.37).sin()).collect();
        values[3 * K + 5] = odd;
        let x = Tensor::<2>::from_data(TensorData::new(values, [tokens, K]), &open.device);
        let product = linear(x, &[weight(rounded)], None, None, After::Nothing).unwrap();
        block_on(read_f32(product)).unwrap()
    };
    let differs = tokens > 8 && rounds_inputs(&open.device);
    assert_eq!(run(false, 0.5) != run(true, 0.5), differs, "{what}: whether inputs are rounded (got, expected)");
    for wrong in [f32::NAN, f32::INFINITY] {
        for (i, got) in run(true, wrong).chunks(40).enumerate() {
            let expected = if i == 3 { 40 } else { 0 };
            let count = got.iter().filter(|value| !value.is_finite()).count();
            assert_eq!(count, expected, "{what}, row {i}, {wrong}: results that are not finite (got, expected)");
        }
    }
}

#[test]
fn a_compaction_of_other_maps_scales_or_regions_is_a_typed_error() {
    let open = device::cpu();
    let (whole, halves) = (Scale::new(4, 4), Scale::new(2, 2));
    let map = zeros([6, 8, 2]);
    let pooled = region_pool(map.clone(), 4, &[whole]).unwrap();
    let choices = |count: usize| -> Tensor<1, Int> { indices(&vec![0; count], 1, &open.device).unwrap() };
    for (what, map, newline, regions, scales) in [
        ("another map", zeros([6, 9, 2]), 2, 4, vec![whole]),
        ("other channels", zeros([6, 8, 3]), 3, 4, vec![whole]),
        ("a longer newline", map.clone(), 3, 4, vec![whole]),
        ("a choice too few", map.clone(), 2, 3, vec![whole]),
        ("a scale that was not pooled", map.clone(), 2, 4, vec![whole, halves]),
    ] {
        let got = block_on(compact(map, &pooled, Some(zeros([newline])), choices(regions), &scales)).map(|_| ());
        assert!(matches!(got, Err(Error::Shape { .. })), "{what}: expected a typed error, got {got:?}");
    }
}

#[test]
fn indices_are_checked_before_a_device_sees_them() {
    for open in device::all("indices") {
        for (at, bound) in [(vec![0, 3], 3), (vec![usize::MAX], 3), (vec![0], 0)] {
            let got = indices(&at, bound, &open.device).map(|_| ());
            assert!(
                matches!(got, Err(Error::Shape { .. })),
                "{at:?} below {bound}: expected a typed error, got {got:?}"
            );
        }
        let rows = tensor(&[0.0; 6], [1, 3, 2], open);
        let picked = row_gather(rows, indices(&[2, 0], 3, &open.device).unwrap()).unwrap();
        assert_eq!(picked.dims(), [1, 2, 2], "{}: shape (got, expected)", open.info);
    }
    let got = row_gather(zeros([1, 0, 2]), indices(&[0], 1, &device::cpu().device).unwrap()).map(|_| ());
    assert!(matches!(got, Err(Error::Shape { .. })), "no rows: expected a typed error, got {got:?}");
}
