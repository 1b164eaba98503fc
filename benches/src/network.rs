//! Compares each operation of the network and the selective scan, at real sizes, with the same function in tensor
//! operations of burn on the same device, and with a read of weights, cache or inputs.

use std::{error::Error, slice::from_ref};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use fovea_runtime::{
    DeviceChoice, OpenDevice,
    kv_cache::LayerCache,
    network_ops::{
        Activation, After, Cursor, Format, Heads, Weight, attend, attend_full, embed, linear, norm, pick,
        rotate_and_store, rounds_inputs,
    },
    scan_ops::{Discretisation, selective_scan},
};
use serde_json::json;

use crate::kernels::{Row, as_json, both, print, values};

/// Widths of a decoder: 0.5 B, 1 to 2 B and 8 B parameters. Feed-forward of the first one.
const WIDTHS: [usize; 3] = [896, 2048, 4096];
const FEED_FORWARD: usize = 4864;
/// Tokens of a prefill that takes a short time also on a software GPU, and tokens in the cache.
const TOKENS: usize = 256;
const CACHED: usize = 2928;
/// Heads as in the decoder of the benchmark and as in Llama 3 8B; those of CLIP-L.
const HEADS: [Heads; 2] = [Heads { query: 14, key: 2, width: 64 }, Heads { query: 32, key: 8, width: 128 }];
const CLIP: Heads = Heads { query: 16, key: 16, width: 64 };
/// Tokens of one tile of CLIP-L/14-336.
const TILE: usize = 577;
/// Channels and states of a Mamba block as wide as CLIP-L.
const SCAN: [usize; 2] = [2048, 16];
/// Rows of an embedding, and of the largest vocabulary.
const ROWS: usize = 32_000;
const VOCABULARY: usize = 151_936;
const EPSILON: f64 = 1e-6;

/// A weight of codes.
pub fn codes([rows, width]: [usize; 2], format: Format, rounded: bool, device: &Device) -> Weight {
    let matrix = |columns: usize, word: fn(usize) -> i32| {
        let words: Vec<i32> = (0..rows * columns).map(word).collect();
        Tensor::<2, Int>::from_data(TensorData::new(words, [rows, columns]), (device, DType::I32))
    };
    let words = matrix(format.words(width), |i| (i as i32).wrapping_mul(0x9e37_79b1_u32.cast_signed()));
    let scales = matrix(format.scale_words(width), |_| 0x211f_211f); // twice 0.01 in f16
    Weight::Codes { words, scales, format, rounded }
}

/// The kernels of a product.
fn product(weight: &Weight, tokens: usize, norm: bool) -> &'static str {
    match (weight, norm) {
        _ if tokens == 1 => "gemv",
        (Weight::Codes { rounded: true, .. }, true) => "norm, round_rows, gemm_dot4",
        (Weight::Codes { rounded: true, .. }, false) => "round_rows, gemm_dot4",
        (_, true) => "norm, gemm",
        (_, false) => "gemm",
    }
}

/// Prints a row for each operation; with `json`, all numbers as JSON. `dtype`, f32 or f16, is that of weights and cache.
/// Weights of 8 and 4 bits have rows beside it.
///
/// `only`: rows whose kernels have this in their names.
pub async fn run(device: &str, dtype: &str, only: &str, json: bool) -> Result<(), Box<dyn Error>> {
    let open = OpenDevice::open(&device.parse::<DeviceChoice>()?).await?;
    let device = &open.device;
    if dtype == "f16" && !open.has_f16() {
        return Err(format!("expected a device with f16, got {}; use --weights f32", open.info).into());
    }
    let dtype = if dtype == "f16" { DType::F16 } else { DType::F32 };
    let size = dtype.size();
    // The ways to store a matrix: with its name, and its bytes per row.
    let matrices = |shape: [usize; 2]| {
        let name = if dtype == DType::F16 { "f16" } else { "f32" };
        let floats = (Weight::Float(values(shape, 1, device).cast(dtype)), name.to_owned(), shape[1] * size);
        let mut formats = vec![(Format::Q8, false), (Format::Q4, false)];
        if rounds_inputs(device) {
            formats.extend([(Format::Q8, true), (Format::Q4, true)]);
        }
        let coded = formats.into_iter().map(move |(format, rounded)| {
            let name = if rounded { format!("{format}, int8 activations") } else { format.to_string() };
            (codes(shape, format, rounded, device), name, format.row_bytes(shape[1]) as usize)
        });
        [floats].into_iter().chain(coded)
    };
    let mut rows = Vec::new();
    let mut row = |kernel, what, time, bytes| rows.push(Row::new(&open, kernel, what, time, bytes));
    let wants = |kernel: &str| kernel.contains(only);

    for width in WIDTHS {
        let gamma = values([width], 2, device);
        for (matrix, name, bytes) in matrices([width, width]) {
            for tokens in [1, TOKENS].into_iter().filter(|&tokens| wants(product(&matrix, tokens, true))) {
                let x = values([tokens, width], 3, device);
                let time = both(device, async || {
                    let after = After::Add { residual: x.clone(), factor: 1.0 };
                    linear(x.clone(), from_ref(&matrix), None, Some((gamma.clone(), EPSILON)), after)
                });
                let what = format!("{tokens} x {width}, {width} rows, + residual, {name}");
                row(product(&matrix, tokens, true), what, time.await?, width * bytes);
            }
        }
        if wants("norm") {
            let x = values([CACHED, width], 4, device);
            let time = both(device, async || norm(x.clone(), gamma.clone(), None, EPSILON)).await?;
            row("norm", format!("RMS, {CACHED} x {width}"), time, CACHED * width * 4);
        }
    }
    for (gate, name, bytes) in matrices([2 * FEED_FORWARD, WIDTHS[0]]) {
        for tokens in [1, TOKENS].into_iter().filter(|&tokens| wants(product(&gate, tokens, false))) {
            let x = values([tokens, WIDTHS[0]], 5, device);
            let gated = async || linear(x.clone(), from_ref(&gate), None, None, After::Gate(Activation::Silu));
            let time = both(device, gated).await?;
            let what = format!("{tokens} x {}, 2 x {FEED_FORWARD} rows, gated, {name}", WIDTHS[0]);
            row(product(&gate, tokens, false), what, time, 2 * FEED_FORWARD * bytes);
        }
    }
    if wants("norm") {
        let (x, affine) = (values([TILE, 1024], 6, device), values([1024], 7, device));
        let time = both(device, async || norm(x.clone(), affine.clone(), Some(affine.clone()), EPSILON)).await?;
        row("norm", format!("layer norm, {TILE} x 1024"), time, TILE * 1024 * 4);
    }

    for heads in HEADS {
        let Heads { query, key, width } = heads;
        let what = format!("{query} heads of {width}, {key} key heads");
        let cached = || values([key, CACHED, width], 8, device);
        let cache = LayerCache::new(cached(), cached(), dtype);
        let table = values([CACHED, width], 9, device);
        for tokens in [1, TOKENS] {
            let x = values([tokens, query * width], 10, device);
            let at = Cursor::new(CACHED - tokens, device);
            let factor = 1.0 / (width as f64).sqrt();
            let kernel = if tokens == 1 { "attend_split, attend_merge" } else { "flash_causal" };
            if wants(kernel) {
                let time = both(device, async || attend(x.clone(), &cache, &at, heads, factor)).await?;
                row(kernel, format!("{tokens} of {CACHED} tokens, {what}"), time, 2 * key * CACHED * width * size);
            }
            if !wants("rope_kv") {
                continue;
            }
            let qkv = values([tokens, heads.joined()], 11, device);
            let at = Cursor::new(0, device);
            // The first write copies the clone of the cache, as in the first step of an answer: so it is a small one.
            let empty = LayerCache::empty(&[key, tokens, width], dtype, device);
            let time =
                both(device, async || Ok(rotate_and_store(qkv.clone(), table.clone(), &at, empty.clone(), heads)?.0));
            row("rope_kv", format!("{tokens} x {what}"), time.await?, tokens * heads.joined() * 4);
        }
    }
    if wants("flash_full") {
        let qkv = values([TILE, CLIP.joined()], 12, device);
        let time = both(device, async || attend_full(qkv.clone(), 1, CLIP)).await?;
        let what = format!("{TILE} tokens, {} heads of {}", CLIP.query, CLIP.width);
        row("flash_full", what, time, TILE * CLIP.joined() * 4);
    }

    for (table, name, bytes) in matrices([ROWS, WIDTHS[0]]).filter(|_| wants("embed")) {
        for tokens in [1, TOKENS] {
            let ids: Vec<i32> = (0..tokens).map(|i| (i * 7919 % ROWS) as i32).collect();
            let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [tokens]), device);
            let time = both(device, async || embed(ids.clone(), tokens, from_ref(&table), 1.0)).await?;
            row("embed", format!("{tokens} of {ROWS} x {}, {name}", WIDTHS[0]), time, tokens * bytes);
        }
    }
    if wants("pick") {
        let logits = values([1, VOCABULARY], 13, device);
        let words = VOCABULARY.div_ceil(32);
        let allowed = Tensor::<1, Int>::from_data(TensorData::new(vec![-1_i32; words], [words]), device);
        let state = Cursor::words(0, 0, [0, 0], device);
        let time =
            both(device, async || Ok(pick(logits.clone(), allowed.clone(), state.clone()).await?.float())).await?;
        row("pick", format!("{VOCABULARY} logits"), time, VOCABULARY * 4);
    }

    let [channels, states] = SCAN;
    let scans = [(TILE, Discretisation::Euler), (TILE, Discretisation::Zoh), (CACHED, Discretisation::Euler)];
    for (steps, how) in scans.into_iter().filter(|_| wants("selective_scan")) {
        let (u, delta) = (values([steps, channels], 14, device), values([steps, channels], 15, device).abs() * 0.1);
        let a = (values([channels, states], 16, device) - 1.5) * 4.0;
        let (b, c, d) =
            (values([steps, states], 17, device), values([steps, states], 18, device), values([channels], 19, device));
        let time = both(device, async || {
            let (b, c, d) = (b.clone(), c.clone(), d.clone());
            selective_scan(u.clone(), delta.clone(), a.clone(), b, c, d, how)
        });
        let what = format!("{steps} steps, {channels} channels, {states} states, {how:?}");
        row("selective_scan", what, time.await?, 2 * steps * channels * 4);
    }

    if json {
        println!("{}", json!({"device": open.info, "dtype": format!("{dtype:?}"), "rows": as_json(&rows)}));
    } else {
        print(&open, &rows);
    }
    Ok(())
}
