//! The chain of trust: PyTorch's traces hold the f64 twins, the twins hold the operations on every device.
//!
//! Maxima and copies are exact. Products and attention are held to NMSE 1e-9: rounding to f32 gives each number a
//! relative error of about 1e-7, so an NMSE of 1e-14, and the bound leaves room for sums of some thousand terms.

use burn::tensor::{Device, Tensor, TensorData};
use fovea_runtime::{
    Error, Keep, Scale, compact,
    device::read_f32,
    regions,
    sampler_ops::{keep_by_score, region_pool, row_gather, scale_logits, text_score},
    top_k,
};
use fovea_shaders::{Cell, scale_select};
use fovea_tests::{
    checkpoint::Files,
    closeness::{compare, same_bits},
    device,
    golden::{Case, Trace, cases, count, floats, indices, json, reference},
    numbers::{Numbers, wide},
};
use pollster::block_on;

/// The paper's seven kernels.
const SEVEN: [Scale; 7] = [
    Scale::new(4, 4),
    Scale::new(2, 2),
    Scale::new(1, 1),
    Scale::new(4, 2),
    Scale::new(2, 4),
    Scale::new(2, 1),
    Scale::new(1, 2),
];

/// Products and attention in f32.
const PRODUCT: f64 = 1e-9;

fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

/// The `focus` object of a model's config, with its defaults.
fn focus(model: &str) -> (usize, Vec<Scale>, f64) {
    let config = json(&format!("{model}/config.json"));
    let focus = &config["focus"];
    let window = if focus["window"].is_null() { 4 } else { count(focus, "window") };
    let pair = |p: &serde_json::Value| Scale::new(p[0].as_u64().unwrap() as usize, p[1].as_u64().unwrap() as usize);
    let scales = match focus["scales"].as_array() {
        Some(scales) => scales.iter().map(pair).collect(),
        None => SEVEN[..3].to_vec(),
    };
    (window, scales, focus["gamma"].as_f64().unwrap_or(0.85))
}

/// The vision-guided sampler out of twins, from the reference's features: everything after them.
fn check_vision(case: &Case, trace: &Trace) -> Result<(), String> {
    let (window, scales, _) = focus(&case.model);
    let files = Files::fixture(&case.model);
    let tensors = files.tensors();
    let named = |end: &str| tensors.iter().find(|t| t.name.ends_with(end)).expect("a tensor of the samplers").floats();
    let (weight, bias) = (named("scale_selector.weight"), named("scale_selector.bias"));
    let newline = named("image_newline");
    let (shape, map) = floats(trace, "feature_map");
    let &[height, width, c] = shape else { return Err(format!("{shape:?}: expected a map of three dimensions")) };
    let (_, thumbnail) = floats(trace, "thumbnail");

    let whole = fovea_shaders::region_pool(&wide(map), [height, width, c], window, Scale::new(window, window));
    let pooled: Vec<f64> = whole.into_iter().flat_map(|(_, values)| values).collect();
    let chosen = scale_select(&pooled, &wide(thumbnail), &wide(&weight), &wide(&bias), c);
    compare("scale_logits", floats(trace, "scale_logits").1, &chosen.logits).nmse_within(PRODUCT)?;
    if chosen.choice != indices(trace, "scale_choice") {
        return Err(format!("scale_choice: expected {:?}, got {:?}", trace["scale_choice"], chosen.choice));
    }

    let cells = compact(height, width, window, &scales, &chosen.choice);
    let boxes: Vec<usize> = cells.iter().flat_map(|(b, _)| *b).collect();
    if boxes != indices(trace, "token_boxes") {
        return Err(format!("token_boxes: expected {:?}, got {boxes:?}", trace["token_boxes"]));
    }
    let at_scale: Vec<_> =
        scales.iter().map(|&s| fovea_shaders::region_pool(&wide(map), [height, width, c], window, s)).collect();
    let mut tokens = thumbnail.to_vec();
    for (_, cell) in &cells {
        match *cell {
            Cell::Newline => tokens.extend_from_slice(&newline),
            Cell::Pooled { region, row, col } => {
                let ((_, cols), values) = &at_scale[chosen.choice[region]][region];
                // A maximum of f32 numbers is one of them: nothing is lost on the way back.
                tokens.extend(values[(row * cols + col) * c..][..c].iter().map(|&v| v as f32));
            }
        }
    }
    same_bits("visual_tokens", floats(trace, "visual_tokens").1, &tokens)
}

#[test]
fn twins_of_the_vision_sampler_give_the_reference_s_tokens() {
    let vision: Vec<Case> = cases().into_iter().filter(|c| c.vision).collect();
    assert!(vision.len() >= 10, "expected at least 10 cases with the sampler, got {}", vision.len());
    let failed: Vec<String> = vision
        .iter()
        .filter_map(|case| check_vision(case, &reference(&case.name)).err().map(|why| format!("{}: {why}", case.name)))
        .collect();
    assert!(failed.is_empty(), "expected every case to pass, got:\n{}", failed.join("\n"));
}

#[test]
fn the_twin_of_top_k_keeps_the_reference_s_tokens() {
    let text: Vec<Case> = cases().into_iter().filter(|c| c.text).collect();
    assert!(text.len() >= 10, "expected at least 10 cases with the sampler, got {}", text.len());
    for case in text {
        let trace = reference(&case.name);
        let gamma = focus(&case.model).2;
        let kept = top_k(floats(&trace, "importance").1, Keep::Gamma(gamma));
        assert_eq!(kept, indices(&trace, "kept_visual"), "{}: gamma {gamma}: kept tokens (got, expected)", case.name);
    }
}

#[test]
fn the_vectors_worked_out_by_hand() {
    // Two heads, one text token, three visual ones: softmax(ln p) = p, so A = [[.5, .3, .2]], [[.1, .7, .2]]; the
    // maxima are [.5, .7, .2], whose shares in falling order sum to .5, .857, 1.
    let key: Vec<f32> = [0.5, 0.3, 0.2, 0.1, 0.7, 0.2].map(f32::ln).to_vec();
    let twin = fovea_shaders::text_score(&[1.0, 1.0], &wide(&key), [2, 2, 1, 3, 1]);
    compare("the twin", &[0.5, 0.7, 0.2], &twin).abs_within(1e-7).unwrap();
    for open in device::all("the vectors worked out by hand") {
        let (query, key) = (tensor(&[1.0, 1.0], [2, 1, 1], &open.device), tensor(&key, [2, 3, 1], &open.device));
        let score = || text_score(query.clone(), key.clone()).unwrap();
        let (kept, importance) = block_on(keep_by_score(score(), Keep::Gamma(0.85))).unwrap();
        compare("importance", &[0.5, 0.7, 0.2], &importance).abs_within(1e-6).unwrap();
        assert_eq!(kept, [0, 1], "{}: gamma .85", open.info);
        let (kept, _) = block_on(keep_by_score(score(), Keep::Gamma(0.86))).unwrap();
        assert_eq!(kept, [0, 1, 2], "{}: gamma .86", open.info);
    }
    // A 6x8 map, regions [[1x1, 2x2], [4x4, 2x2]]: 16 + 4 + 1 + 2 tokens, and rows 0 to 4 hold one.
    let cells = compact(6, 8, 4, &SEVEN[..3], &[2, 1, 0, 1]);
    let newlines = cells.iter().filter(|(_, cell)| *cell == Cell::Newline).count();
    assert_eq!((cells.len() - newlines, newlines), (23, 5), "tokens and newlines of the mixed map (got, expected)");
}

/// One map pooled at one scale on one device, against the twin.
fn check_pool(open: &fovea_runtime::OpenDevice, map: &[f32], shape: [usize; 3], window: usize, scale: Scale) {
    let [height, width, c] = shape;
    let what = format!("{}: map {shape:?}, window {window}, scale {scale}", open.info);
    let pooled = region_pool(tensor(map, shape, &open.device), window, scale).unwrap();
    let (token_rows, token_cols) = (window.div_ceil(scale.rows.min(window)), window.div_ceil(scale.cols.min(window)));
    let places = regions(height, width, window).len();
    assert_eq!(pooled.dims(), [places, token_rows, token_cols, c], "{what}: shape (got, expected)");
    let got = block_on(read_f32(pooled)).unwrap();
    let twin = fovea_shaders::region_pool(&wide(map), shape, window, scale);
    for (region, ((rows, cols), values)) in twin.iter().enumerate() {
        for row in 0..token_rows {
            for col in 0..token_cols {
                let token = &got[((region * token_rows + row) * token_cols + col) * c..][..c];
                if row < *rows && col < *cols {
                    let expected: Vec<f32> = values[(row * cols + col) * c..][..c].iter().map(|&v| v as f32).collect();
                    assert_eq!(token, expected, "{what}: region {region}, token ({row}, {col}) (got, expected)");
                } else {
                    let outside = token.iter().all(|&v| v.is_finite() && v < -1e30);
                    assert!(
                        outside,
                        "{what}: region {region}, token ({row}, {col}): expected nothing there, got {token:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn region_pool_is_the_twin_s_on_every_device() {
    // One patch; primes with partial regions either way; a column and a row; a row of regions; whole regions only.
    let shapes = [[1, 1, 1], [7, 11, 3], [24, 2, 64], [2, 24, 5], [18, 8, 31], [16, 16, 64]];
    for open in device::all("region_pool") {
        for (seed, shape) in shapes.into_iter().enumerate() {
            let map = Numbers::new(seed as u64).floats(shape.iter().product(), 4.0);
            for window in [1, 2, 3, 4, 8, 12] {
                for scale in SEVEN {
                    check_pool(open, &map, shape, window, scale);
                }
                check_pool(open, &map, shape, window, Scale::new(window, window));
            }
        }
        // All numbers far below zero: padding must never win.
        check_pool(open, &[-3e30, -2e30, -1e30], [1, 3, 1], 4, Scale::new(2, 2));
    }
}

#[test]
fn scale_logits_are_the_twin_s_on_every_device() {
    // (regions, channels, thumbnail's tokens, scales): one of each; primes; the fixtures' size; CLIP-336's; SigLIP's.
    let shapes = [(1, 1, 1, 1), (7, 5, 9, 3), (13, 31, 49, 7), (16, 64, 64, 3), (36, 127, 576, 7), (3, 64, 729, 2)];
    for open in device::all("scale_logits") {
        for (seed, (regions, c, context, scales)) in shapes.into_iter().enumerate() {
            let mut numbers = Numbers::new(100 + seed as u64);
            let (pooled, thumbnail) = (numbers.floats(regions * c, 2.0), numbers.floats(context * c, 2.0));
            let (weight, bias) = (numbers.floats(scales * context, 1.0), numbers.floats(scales, 1.0));
            let logits = scale_logits(
                tensor(&pooled, [regions, c], &open.device),
                tensor(&thumbnail, [context, c], &open.device),
                tensor(&weight, [scales, context], &open.device),
                tensor(&bias, [scales], &open.device),
            );
            let got = block_on(read_f32(logits.unwrap())).unwrap();
            let twin = scale_select(&wide(&pooled), &wide(&thumbnail), &wide(&weight), &wide(&bias), c);
            let stage = format!("{}: scale_logits {:?}", open.info, (regions, c, context, scales));
            compare(&stage, &twin.logits, &got).nmse_within(PRODUCT).unwrap();
        }
    }
}

#[test]
fn text_score_is_the_twin_s_on_every_device() {
    // (heads, key heads, text, visual, head width): one of each; one visual token; one text token; groups of 4, of 8;
    // a query head per key head; Mistral's odd width; 100 text tokens that the budget cuts into 89 and 11.
    let shapes = [
        [1, 1, 1, 1, 1],
        [8, 2, 7, 1, 8],
        [8, 2, 1, 13, 8],
        [8, 2, 7, 13, 8],
        [8, 1, 3, 97, 16],
        [4, 4, 31, 64, 16],
        [4, 2, 11, 136, 24],
        [32, 8, 5, 257, 128],
        [32, 8, 100, 2928, 8],
    ];
    for open in device::all("text_score") {
        for (seed, shape) in shapes.into_iter().enumerate() {
            let [heads, kv_heads, text, visual, d] = shape;
            let mut numbers = Numbers::new(200 + seed as u64);
            let query = numbers.floats(heads * text * d, 2.0);
            let key = numbers.floats(kv_heads * visual * d, 2.0);
            let score = text_score(
                tensor(&query, [heads, text, d], &open.device),
                tensor(&key, [kv_heads, visual, d], &open.device),
            );
            let got = block_on(read_f32(score.unwrap())).unwrap();
            let twin = fovea_shaders::text_score(&wide(&query), &wide(&key), shape);
            compare(&format!("{}: text_score {shape:?}", open.info), &twin, &got).nmse_within(PRODUCT).unwrap();
        }
        // Scores so large that a softmax without its maximum taken off would overflow.
        let key = tensor(&[200.0, 100.0, 0.0], [1, 3, 1], &open.device);
        let got = block_on(read_f32(text_score(tensor(&[1.0], [1, 1, 1], &open.device), key).unwrap())).unwrap();
        compare(&format!("{}: large scores", open.info), &[1.0, 0.0, 0.0], &got).abs_within(1e-6).unwrap();
    }
}

#[test]
fn row_gather_copies_rows_on_every_device() {
    for open in device::all("row_gather") {
        for (seed, (rows, c)) in [(1, 1), (7, 3), (64, 64), (257, 31)].into_iter().enumerate() {
            let mut numbers = Numbers::new(300 + seed as u64);
            let values = numbers.floats(rows * c, 8.0);
            // Out of order, with repeats, more than there are rows; both ends are in it.
            let at: Vec<usize> = (0..2 * rows).map(|_| numbers.below(rows)).chain([rows - 1, 0]).collect();
            let got = row_gather(tensor(&values, [rows, c], &open.device), &at).unwrap();
            let expected: Vec<f32> = at.iter().flat_map(|&i| values[i * c..][..c].to_vec()).collect();
            same_bits(&format!("{}: row_gather", open.info), &expected, &block_on(read_f32(got)).unwrap()).unwrap();
            let beyond = row_gather(tensor(&values, [rows, c], &open.device), &[0, rows]);
            assert!(matches!(beyond, Err(Error::Shape { .. })), "index {rows} of {rows}: expected a typed error");
        }
    }
}

#[test]
fn a_score_that_is_no_number_is_refused_and_one_token_always_stays() {
    for open in device::all("keep_by_score") {
        let kept = |scores: &[f32], keep| block_on(keep_by_score(tensor(scores, [scores.len()], &open.device), keep));
        assert!(matches!(kept(&[0.5, f32::NAN], Keep::Gamma(0.5)), Err(Error::Shape { .. })), "{}: NaN", open.info);
        for (keep, expected) in [
            (Keep::Gamma(1e-9), vec![1]),
            (Keep::Ratio(1e-9), vec![1]),
            (Keep::Count(1), vec![1]),
            (Keep::Count(2), vec![0, 1]),
            (Keep::Gamma(1.0), vec![0, 1, 2, 3]),
            (Keep::Ratio(0.5), vec![0, 1]),
            (Keep::Count(9), vec![0, 1, 2, 3]),
        ] {
            // The first and the third are equal: the lower index goes first.
            let (got, _) = kept(&[0.2, 0.5, 0.2, 0.1], keep).unwrap();
            assert_eq!(got, expected, "{}: {keep:?} (got, expected)", open.info);
        }
    }
}

/// `D` dimensions of zeros on the CPU.
fn zeros<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    tensor(&vec![0.0; shape.iter().product()], shape, &device::cpu().device)
}

#[test]
fn shapes_that_do_not_belong_together_are_typed_errors() {
    let refused = |what: String, got: Result<(), Error>| {
        assert!(matches!(got, Err(Error::Shape { .. })), "{what}: expected a typed error, got {got:?}");
    };
    for (map, window, scale) in [
        ([0, 3, 2], 4, SEVEN[0]),
        ([3, 3, 2], 0, SEVEN[0]),
        ([3, 3, 2], 4, Scale::new(0, 0)),
        ([3, 3, 2], 4, Scale::new(2, 0)),
    ] {
        let got = region_pool(zeros(map), window, scale).map(|_| ());
        refused(format!("map {map:?}, window {window}, scale {scale}"), got);
    }
    for (pooled, thumbnail, weight, bias) in [
        ([2, 4], [9, 5], [3, 9], 3),
        ([2, 4], [9, 4], [3, 8], 3),
        ([2, 4], [9, 4], [2, 9], 3),
        ([2, 4], [9, 4], [3, 9], 2),
    ] {
        let got = scale_logits(zeros(pooled), zeros(thumbnail), zeros(weight), zeros([bias])).map(|_| ());
        refused(format!("pooled {pooled:?}, thumbnail {thumbnail:?}, weight {weight:?}, bias {bias}"), got);
    }
    for (query, key) in [([4, 1, 8], [3, 2, 8]), ([4, 1, 8], [2, 2, 6]), ([4, 0, 8], [2, 2, 8]), ([4, 1, 8], [2, 0, 8])]
    {
        refused(format!("query {query:?}, key {key:?}"), text_score(zeros(query), zeros(key)).map(|_| ()));
    }
}

#[test]
fn fused_activations_equal_their_equations() {
    use burn::tensor::{Tensor, TensorData};
    use fovea_runtime::{
        device::read_f32,
        element_ops::{gated_silu, quick_gelu},
    };

    // More than one task's worth of values, and not a multiple of it; far enough out that both tails are flat.
    let count = 3 * (1 << 14) + 17;
    let x: Vec<f32> = (0..count).map(|i| (i as f32 / count as f32 - 0.5) * 60.0).collect();
    let up: Vec<f32> = (0..count).map(|i| ((i * 7) as f32).sin()).collect();
    let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
    let gelu: Vec<f32> = x.iter().map(|&v| (f64::from(v) * sigmoid(1.702 * f64::from(v))) as f32).collect();
    let silu: Vec<f32> =
        x.iter().zip(&up).map(|(&v, &u)| (f64::from(v) * sigmoid(f64::from(v)) * f64::from(u)) as f32).collect();
    for open in fovea_tests::device::all("fused activations") {
        let tensor = |values: &[f32]| Tensor::<1>::from_data(TensorData::new(values.to_vec(), [count]), &open.device);
        let read = |tensor| pollster::block_on(read_f32(tensor)).expect("values that can be read");
        let kept = tensor(&x);
        let got = read(quick_gelu(kept.clone()));
        fovea_tests::closeness::compare("quick_gelu", &gelu, &got).nmse_within(1e-10).unwrap();
        // In place only where nobody else holds the tensor.
        fovea_tests::closeness::same_bits("the input", &x, &read(kept)).unwrap();
        let got = read(gated_silu(tensor(&x), tensor(&up)).expect("one shape"));
        fovea_tests::closeness::compare("gated_silu", &silu, &got).nmse_within(1e-10).unwrap();
        assert!(gated_silu(tensor(&x), tensor(&up).narrow(0, 0, 1)).is_err(), "expected two shapes to be refused");
    }
}
