//! Token counts, resized pixels and decoded pixels. All are exact, except pixels of lossy picture formats.

use std::fmt::Write;

use fovea_model::{Error, Grid, Picture, TileConfig, best_resolution, bicubic};
use fovea_tests::golden::{count, fixtures, json, rows, text};
use proptest::prelude::*;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

/// The published checkpoint's canvases, (height, width).
const PUBLISHED: [(usize, usize); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];

#[test]
fn token_counts_of_every_size_are_the_reference_s() {
    let rows = rows("token_counts.json");
    assert!(rows.len() >= 1500, "expected at least 1500 sizes, got {}", rows.len());
    for row in &rows {
        let grid = Grid::of(count(row, "h"), count(row, "w"), &TileConfig::anyres(336, PUBLISHED.to_vec()), 24);
        let got = (grid.height, grid.width, grid.stock_tokens());
        let expected = (count(row, "map_h"), count(row, "map_w"), count(row, "stock"));
        assert_eq!(got, expected, "{row}: map and tokens (got, expected)");
    }
}

/// Python's `int(round(x, 7))`: rounds to seven digits, then truncates.
fn int_round_7(x: f64) -> i64 {
    let decimal = format!("{x:.7}");
    decimal.split('.').next().and_then(|whole| whole.parse().ok()).expect("a decimal")
}

/// `select_best_resolution` of Hugging Face's image_processing_utils, sizes as (height, width).
fn select_best_resolution(original: (i64, i64), possible: &[(i64, i64)]) -> (i64, i64) {
    let (original_height, original_width) = original;
    let (mut best_fit, mut max_effective, mut min_wasted) = ((0, 0), 0, i64::MAX);
    for &(height, width) in possible {
        let scale = (width as f64 / original_width as f64).min(height as f64 / original_height as f64);
        let down_width = (original_width as f64 * scale) as i64;
        let down_height = (original_height as f64 * scale) as i64;
        let effective = (down_width * down_height).min(original_width * original_height);
        let wasted = width * height - effective;
        if effective > max_effective || (effective == max_effective && wasted < min_wasted) {
            (max_effective, min_wasted, best_fit) = (effective, wasted, (height, width));
        }
    }
    best_fit
}

/// `_get_number_of_features` with `_get_unpadded_features` of Hugging Face's LlavaNextProcessor, without the class
/// token, which the feature strategy `default` removes.
fn number_of_features(original: (i64, i64), pinpoints: &[(i64, i64)], side: i64, patches: i64) -> i64 {
    let (height, width) = original;
    let (best_height, best_width) = select_best_resolution(original, pinpoints);
    let (scale_height, scale_width) = (best_height / side, best_width / side);
    let (mut current_height, mut current_width) = (patches * scale_height, patches * scale_width);
    let original_aspect_ratio = width as f64 / height as f64;
    let current_aspect_ratio = current_width as f64 / current_height as f64;
    if original_aspect_ratio > current_aspect_ratio {
        let new_height = int_round_7(height as f64 * (current_width as f64 / width as f64));
        current_height -= (current_height - new_height) / 2 * 2;
    } else {
        let new_width = int_round_7(width as f64 * (current_height as f64 / height as f64));
        current_width -= (current_width - new_width) / 2 * 2;
    }
    let (unpadded, newlines) = (current_height * current_width, current_height);
    unpadded + newlines + patches * patches
}

#[test]
fn the_reference_formula_gives_the_known_counts() {
    let pinpoints = PUBLISHED.map(|(h, w)| (h as i64, w as i64));
    for (width, height, expected) in
        [(672, 672, 2928), (1024, 768, 2340), (480, 640, 2352), (1920, 1080, 1948), (352, 748, 1876), (328, 205, 1512)]
    {
        let got = number_of_features((height, width), &pinpoints, 336, 24);
        assert_eq!(got, expected, "{width}x{height}: tokens (got, expected)");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn token_counts_follow_hugging_face_s_formula(
        height in 1usize..=4000,
        width in 1usize..=4000,
        // The published canvases, or one to six random ones; tiles of CLIP-336, of the fixtures, and of SigLIP-384.
        canvases in prop_oneof![
            Just(vec![(1usize, 2usize), (2, 1), (2, 2), (3, 1), (1, 3)]),
            prop::collection::vec((1usize..=6, 1usize..=6), 1..=6),
        ],
        (side, patches) in prop_oneof![Just((336usize, 24usize)), Just((48, 8)), Just((384, 27))],
    ) {
        let pinpoints: Vec<(usize, usize)> = canvases.iter().map(|(h, w)| (h * side, w * side)).collect();
        let signed: Vec<(i64, i64)> = pinpoints.iter().map(|&(h, w)| (h as i64, w as i64)).collect();
        let size = (height as i64, width as i64);
        let canvas = best_resolution(height, width, &pinpoints);
        prop_assert_eq!((canvas.0 as i64, canvas.1 as i64), select_best_resolution(size, &signed));
        let grid = Grid::of(height, width, &TileConfig::anyres(side, pinpoints), patches);
        let expected = number_of_features(size, &signed, side as i64, patches as i64);
        prop_assert_eq!(grid.stock_tokens() as i64, expected, "map {}x{}", grid.height, grid.width);
    }
}

/// The source pictures of `resize.json`: many edges, and values at both ends of the range.
fn pattern(width: usize, height: usize) -> Vec<u8> {
    let value = |x: usize, y: usize, c: usize| (x * 7919 + y * 104_729 + c * 1_299_709 + x * y * 31) % 65521;
    let byte = |v: usize| (if v.is_multiple_of(5) { v % 2 * 255 } else { v % 256 }) as u8;
    let places = (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..3).map(move |c| (x, y, c))));
    places.map(|(x, y, c)| byte(value(x, y, c))).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string to take text");
        hex
    })
}

#[test]
fn resized_pictures_have_the_reference_s_bytes() {
    for row in rows("resize.json") {
        let (width, height) = (count(&row, "w"), count(&row, "h"));
        let source = pattern(width, height);
        assert_eq!(sha256(&source), text(&row, "source_sha256"), "{row}: the source picture (got, expected)");
        let source = Picture::from_rgb(width, height, source).expect("a picture");
        let (to_w, to_h) = (count(&row, "to_w"), count(&row, "to_h"));
        let resized = bicubic(&source, to_w, to_h).expect("a resized picture");
        assert_eq!((resized.width(), resized.height()), (to_w, to_h), "{row}: size (got, expected)");
        let first: Vec<u64> = row["first"].as_array().expect("a list").iter().filter_map(|v| v.as_u64()).collect();
        let got: Vec<u64> = resized.rgb().iter().take(first.len()).map(|&b| b.into()).collect();
        assert_eq!(got, first, "{row}: first bytes (got, expected)");
        assert_eq!(sha256(resized.rgb()), text(&row, "sha256"), "{row}: all bytes (got, expected)");
    }
}

#[test]
fn unusual_pictures_decode_to_pillow_s_pixels() {
    let directory = fixtures().join("awkward");
    let bytes = std::fs::read(directory.join("expected.safetensors")).expect("the expected pixels");
    let pixels = SafeTensors::deserialize(&bytes).expect("the expected pixels");
    let expected = json("awkward/expected.json");
    let (mut decoded, mut failed) = (0, Vec::new());
    for (name, row) in expected.as_object().expect("an object") {
        let file = std::fs::read(directory.join(name)).unwrap_or_else(|e| panic!("expected {name}, got: {e}"));
        let got = Picture::decode(&file);
        if row["decode"] != true {
            if !matches!(&got, Err(Error::Picture(why)) if why.contains("expected")) {
                failed.push(format!(
                    "{name} ({row}): expected a typed error, got {:?}",
                    got.map(|p| (p.width(), p.height()))
                ));
            }
            continue;
        }
        decoded += 1;
        let view = pixels.tensor(name).expect("the expected pixels");
        assert_eq!(view.dtype(), Dtype::U8, "{name}: dtype of the expected pixels (got, expected)");
        let picture = match got {
            Ok(picture) => picture,
            Err(e) => {
                failed.push(format!("{name}: expected pixels, got: {e}"));
                continue;
            }
        };
        if view.shape() != [picture.height(), picture.width(), 3] {
            failed.push(format!("{name}: expected {:?}, got {}x{}", view.shape(), picture.height(), picture.width()));
            continue;
        }
        let worst = picture.rgb().iter().zip(view.data()).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
        if usize::from(worst) > count(row, "tolerance") {
            failed.push(format!("{name}: expected a difference of at most {}, got {worst}", row["tolerance"]));
        }
    }
    assert!(decoded >= 180, "expected at least 180 pictures that decode, got {decoded}");
    assert!(failed.is_empty(), "expected every picture to pass, got:\n{}", failed.join("\n"));
}
