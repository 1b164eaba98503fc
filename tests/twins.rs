//! Compares the f64 twins with PyTorch's traces. The test `kernels` compares the operations of every device with the
//! twins.
//!
//! Maxima and copies are exact. The bound for products is NMSE 1e-9: PyTorch computes them in f32, with a relative
//! error of about 1e-7 per number (NMSE 1e-14), and sums of some thousand terms add to it.

use fovea_model::{Grid, Outline, Thumbnail};
use fovea_runtime::{Keep, Scale};
use fovea_shaders::{
    Cell, Epilogue, Format, compact, dequantise, embed, linear, region_pool, scale_select, text_score, top_k,
};
use fovea_tests::{
    checkpoint::{Files, Stored},
    closeness::{compare, same_bits},
    golden::{Case, Trace, cases, count, floats, indices, json, reference},
    numbers::wide,
    run::picture,
};
use pollster::block_on;

/// Bound for products, which the reference computes in f32.
const PRODUCT: f64 = 1e-9;

/// Default scales of a config without scales.
const DEFAULT: [Scale; 3] = [Scale::new(4, 4), Scale::new(2, 2), Scale::new(1, 1)];

/// The `focus` object of a model's config, with its defaults.
fn focus(model: &str) -> (usize, Vec<Scale>, f64) {
    let config = json(&format!("{model}/config.json"));
    let focus = &config["focus"];
    let window = if focus["window"].is_null() { 4 } else { count(focus, "window") };
    let pair = |p: &serde_json::Value| Scale::new(p[0].as_u64().unwrap() as usize, p[1].as_u64().unwrap() as usize);
    let scales = match focus["scales"].as_array() {
        Some(scales) => scales.iter().map(pair).collect(),
        None => DEFAULT.to_vec(),
    };
    (window, scales, focus["gamma"].as_f64().unwrap_or(0.85))
}

/// The vision-guided sampler, made of twins, on the reference's features.
fn check_vision(case: &Case, trace: &Trace) -> Result<(), String> {
    let (window, scales, _) = focus(&case.model);
    let files = Files::fixture(&case.model);
    let tensors = files.tensors();
    let named = |end: &str| tensors.iter().find(|t| t.name.ends_with(end)).map(Stored::floats);
    let layer = |end: &str| wide(&named(end).expect("a tensor of the sampler"));
    let (weight, bias) = (layer("scale_selector.weight"), layer("scale_selector.bias"));
    let newline = named("image_newline");
    let (shape, map) = floats(trace, "feature_map");
    let &[height, width, c] = shape else { return Err(format!("{shape:?}: expected a map of three dimensions")) };
    let (_, thumbnail) = floats(trace, "thumbnail");
    let outline = block_on(Outline::open(&files.source())).map_err(|e| e.to_string())?;
    let image = picture(&case.picture);
    let grid = Grid::of(image.height(), image.width(), &outline.tiles, outline.config.vision.tokens());
    if (grid.height, grid.width) != (height, width) {
        return Err(format!("expected a map of {height}x{width}, got {}x{}", grid.height, grid.width));
    }

    let (mut logits, mut choice, mut boxes, mut tokens) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for [top, left, bottom, right] in grid.blocks() {
        let (rows, cols) = (bottom - top, right - left);
        let block: Vec<f32> =
            (top..bottom).flat_map(|y| &map[(y * width + left) * c..(y * width + right) * c]).copied().collect();
        let at = |scale| region_pool(&wide(&block), [rows, cols, c], window, scale);
        let pooled: Vec<f64> = at(Scale::new(window, window)).into_iter().flat_map(|(_, values)| values).collect();
        let chosen = scale_select(&pooled, &wide(thumbnail), &weight, &bias, c);
        let at_scale: Vec<_> = scales.iter().map(|&scale| at(scale)).collect();
        for ([y0, x0, y1, x1], cell) in compact(rows, cols, window, &scales, &chosen.choice) {
            match (cell, &newline) {
                (Cell::Newline, None) => continue,
                (Cell::Newline, Some(newline)) => tokens.extend_from_slice(newline),
                (Cell::Pooled { region, row, col }, _) => {
                    let ((_, cols), values) = &at_scale[chosen.choice[region]][region];
                    // A maximum of f32 numbers is one of them, so this conversion is exact.
                    tokens.extend(values[(row * cols + col) * c..][..c].iter().map(|&v| v as f32));
                }
            }
            boxes.extend([top + y0, left + x0, top + y1, left + x1]);
        }
        logits.extend(chosen.logits);
        choice.extend(chosen.choice);
    }
    compare("scale_logits", floats(trace, "scale_logits").1, &logits).nmse_within(PRODUCT)?;
    if choice != indices(trace, "scale_choice") {
        return Err(format!("scale_choice: expected {:?}, got {choice:?}", trace["scale_choice"]));
    }
    if boxes != indices(trace, "token_boxes") {
        return Err(format!("token_boxes: expected {:?}, got {boxes:?}", trace["token_boxes"]));
    }
    let tokens = match grid.thumbnail {
        Thumbnail::First => [thumbnail, tokens.as_slice()].concat(),
        Thumbnail::Last => [tokens.as_slice(), thumbnail].concat(),
        Thumbnail::Own => tokens,
    };
    same_bits("visual_tokens", floats(trace, "visual_tokens").1, &tokens)
}

#[test]
fn twins_of_the_vision_sampler_give_the_reference_s_tokens() {
    let vision: Vec<Case> = cases().into_iter().filter(|c| c.compression.samples_vision()).collect();
    assert!(vision.len() >= 10, "expected at least 10 cases with the sampler, got {}", vision.len());
    let failed: Vec<String> = vision
        .iter()
        .filter_map(|case| check_vision(case, &reference(&case.name)).err().map(|why| format!("{}: {why}", case.name)))
        .collect();
    assert!(failed.is_empty(), "expected every case to pass, got:\n{}", failed.join("\n"));
}

#[test]
fn the_twin_of_top_k_keeps_the_reference_s_tokens() {
    // If the default layer is beyond the last layer, there are no scores.
    let text: Vec<(Case, Trace)> = cases()
        .into_iter()
        .filter(|case| case.compression.text().is_some())
        .map(|case| {
            let trace = reference(&case.name);
            (case, trace)
        })
        .filter(|(_, trace)| trace.contains_key("importance"))
        .collect();
    assert!(text.len() >= 10, "expected at least 10 cases with the sampler, got {}", text.len());
    for (case, trace) in text {
        let gamma = focus(&case.model).2;
        let kept = top_k(floats(&trace, "importance").1, Keep::Gamma(gamma));
        assert_eq!(kept, indices(&trace, "kept_visual"), "{}: gamma {gamma}: kept tokens (got, expected)", case.name);
    }
}

#[test]
fn examples_computed_by_hand() {
    // Two heads, one text token, three visual tokens: softmax(ln p) = p, so A = [[.5, .3, .2]], [[.1, .7, .2]]. The
    // maxima are
    // [.5, .7, .2]; their cumulative shares in descending order are .5, .857, 1.
    let key: Vec<f32> = [0.5, 0.3, 0.2, 0.1, 0.7, 0.2].map(f32::ln).to_vec();
    let importance = text_score(&[1.0, 1.0], &wide(&key), [2, 2, 1, 3, 1]);
    compare("importance", &[0.5, 0.7, 0.2], &importance).abs_within(1e-7).unwrap();
    let importance: Vec<f32> = importance.into_iter().map(|s| s as f32).collect();
    assert_eq!(top_k(&importance, Keep::Gamma(0.85)), [0, 1], "gamma .85 (got, expected)");
    assert_eq!(top_k(&importance, Keep::Gamma(0.86)), [0, 1, 2], "gamma .86 (got, expected)");
    // A 6x8 map, regions [[1x1, 2x2], [4x4, 2x2]]: 16 + 4 + 1 + 2 tokens; rows 0 to 4 contain tokens.
    let cells = compact(6, 8, 4, &DEFAULT, &[2, 1, 0, 1]);
    let newlines = cells.iter().filter(|(_, cell)| *cell == Cell::Newline).count();
    assert_eq!((cells.len() - newlines, newlines), (23, 5), "tokens and newlines of the mixed map (got, expected)");
    // Two rows of 32 codes of 4 bits: 9 with scale 0.5 and 6 with scale -2 are (9 - 8) / 2 = 0.5 and -2 (6 - 8) = 4.
    let (scale, other) = (0x3800, 0xc000);
    let words = [[0x9999_9999; 4], [0x6666_6666; 4]].concat();
    let weight = dequantise(&words, &[scale, other], 32, Format::Q4);
    assert_eq!(embed(&[1, 0], &weight, 32, 2.0), [[8.0; 32], [1.0; 32]].concat(), "rows of codes (got, expected)");
    let product = linear(&[3.0; 32], &weight, [1, 32], None, None, Epilogue::Nothing);
    assert_eq!(product, [48.0, 384.0], "a product with codes (got, expected)");
}
