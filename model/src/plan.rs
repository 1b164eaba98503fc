//! Plans a run before anything is loaded. Input: a checkpoint and the size of a picture. Output: numbers of tokens and bytes.
//!
//! What the samplers keep depends on picture and question. So the compressed numbers are an assumption: every region has
//! the scale with the median number of tokens, and the text-guided sampler keeps half of the visual tokens.

use burn::tensor::{DType, Device};
use serde::Serialize;

use crate::{
    checkpoint::{Checkpoint, Outline},
    config::{Config, TileConfig},
    grid::{Grid, Newline, Thumbnail},
    load::{Parameter, ParameterRole},
    pace::Steps,
    storage::{LoadOptions, Storage, Stored},
};
use fovea_runtime::{
    Scale,
    device::DeviceClass,
    network_ops::{Format, rounds_inputs},
    weights::Weights,
};
use fovea_shaders::{Cell, compact, regions};

/// Number of tokens of question and answer in a plan.
pub(crate) const TEXT_TOKENS: u64 = 192;
/// The assumed share of visual tokens that the text-guided sampler keeps.
const KEPT: f64 = 0.5;
/// Most values of a matrix that products on the CPU convert to f32 at once (`PANEL` in network_ops/flex.rs).
const PANEL: usize = 1 << 24;

/// Numbers of tokens and bytes, with all tokens or compressed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Visual tokens that enter the text model.
    pub visual_tokens: u64,
    /// Visual tokens that the text-guided sampler keeps.
    pub kept_tokens: u64,
    /// Mean number of visual tokens per decoder layer, relative to all tokens of the family (Sec. 4.4).
    pub equivalent_share: f64,
    /// KV cache, in bytes.
    pub kv_cache: u64,
    /// Largest activations of one decoder layer with 192 tokens of text, in bytes.
    pub prefill_activations: u64,
}

/// The plan of one picture size and dtype.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Picture (width, height) in pixels; one that needs the most tiles if no picture is given.
    pub picture: (usize, usize),
    /// Number of tiles, with the thumbnail.
    pub tiles: u64,
    /// Weights on the device, in bytes: matrices as the plan says, vectors in f32.
    pub weight_bytes: u64,
    /// Largest activations of the vision tower, in bytes.
    pub vision_activations: u64,
    /// Feature map and thumbnail, in bytes. They are kept for further questions.
    pub features: u64,
    /// Most bytes of rows of a matrix that products on the CPU convert to f32 at once.
    pub f32_copies: u64,
    /// Peak memory on the CPU, in bytes. It computes some rows of a layer at once, so it needs less than a GPU where
    /// there are many tokens.
    pub cpu_peak: u64,
    /// Cost with every token.
    pub full: Cost,
    /// Cost with both samplers. This is an estimate: what they keep depends on picture and question.
    pub compressed: Cost,
}

impl Plan {
    /// The plan of `checkpoint` for a `picture` (width, height) in pixels, with matrices that are stored as `stored`.
    pub fn new(checkpoint: &Checkpoint, picture: Option<(usize, usize)>, stored: Stored) -> Self {
        Self::chosen(checkpoint, picture, stored, &LoadOptions::default())
    }

    /// [`Plan::new`] with cache, tower and activations as in `options`, on a device that computes in f16.
    pub fn chosen(
        checkpoint: &Checkpoint,
        picture: Option<(usize, usize)>,
        stored: Stored,
        options: &LoadOptions,
    ) -> Self {
        Self::with(checkpoint, picture, &Storage::chosen(stored, checkpoint.stored_bits() == Some(4), options, true))
    }

    /// The plan of what [`Loader`](crate::load::Loader) loads.
    pub(crate) fn with(checkpoint: &Checkpoint, picture: Option<(usize, usize)>, storage: &Storage) -> Self {
        let Checkpoint { config, tiles, extras, weights, .. } = checkpoint;
        let format = |p: &Parameter| storage.format_of(p, &|name| weights.format(name));
        Self::of(config, tiles, extras.selector, &checkpoint.needed(), &format, picture, storage)
    }

    /// [`Plan::chosen`] of a checkpoint whose weights are not open. `weights`: their headers, if they are there.
    pub fn without_weights(
        blueprint: &Outline,
        weights: Option<&Weights>,
        picture: Option<(usize, usize)>,
        stored: Stored,
        options: &LoadOptions,
    ) -> Self {
        let Outline { config, tiles, .. } = blueprint;
        let needed = blueprint.needed();
        let mixed = weights.is_some_and(|weights| stored_bits(&needed, weights) == Some(4));
        let storage = Storage::chosen(stored, mixed, options, true);
        let file = |name: &str| weights.and_then(|weights| weights.format(name));
        let format = |p: &Parameter| storage.format_of(p, &file);
        Self::of(config, tiles, false, &needed, &format, picture, &storage)
    }

    fn of(
        config: &Config,
        cut: &TileConfig,
        selector: bool,
        needed: &[Parameter],
        format: &dyn Fn(&Parameter) -> Option<Format>,
        picture: Option<(usize, usize)>,
        storage: &Storage,
    ) -> Self {
        let bytes = |p: &Parameter| match (p.role, format(p)) {
            (_, Some(format)) => (p.shape[0] as u64).saturating_mul(format.row_bytes(p.width())),
            (ParameterRole::Exact, _) => p.values().saturating_mul(4),
            _ => p.values().saturating_mul(storage.floats.size() as u64),
        };
        let weight_bytes = needed.iter().map(bytes).fold(0, u64::saturating_add);
        let (v, t) = (&config.vision, &config.text);
        let (width, height) = picture.unwrap_or_else(|| cut.largest());
        let grid = Grid::of(height, width, cut, v.tokens());
        let (tiles, places) = (grid.tiles() as u64, v.places() as u64);
        // The larger of: hidden state, its norm, two buffers of the feed-forward; five buffers and one tile's scores.
        let rows = tiles.saturating_mul(places);
        let feed_forward = product(&[rows, 2 * (v.d_model + v.d_ff) as u64]);
        let scores = product(&[places, places, v.n_heads as u64]);
        let attention = product(&[rows, 5, v.d_model as u64]).saturating_add(scores);
        let stock = grid.stock_tokens() as u64;
        let compressed = if selector { middle(config, &grid) } else { stock };
        let kept =
            if config.focus.text_layer.is_some() { (compressed as f64 * KEPT).ceil() as u64 } else { compressed };
        let value_bytes = storage.cache.size() as u64;
        let vision_activations = product(&[4, feed_forward.max(attention)]);
        let features = product(&[4, (grid.height * grid.width + grid.patches * grid.patches) as u64, t.d_model as u64]);
        let f32_copies = f32_copies(config, needed, format, storage);
        let tokens = usize::try_from(stock.saturating_add(TEXT_TOKENS)).unwrap_or(usize::MAX);
        let question = Self::question_bytes(config, tokens, Steps::CPU, value_bytes, f32_copies);
        let running = question.max(vision_activations.saturating_add(f32_copies));
        Self {
            picture: (width, height),
            tiles,
            weight_bytes,
            vision_activations,
            features,
            f32_copies,
            cpu_peak: [weight_bytes, features, running].into_iter().fold(0, u64::saturating_add),
            full: cost(config, stock, stock, stock, value_bytes),
            compressed: cost(config, stock, compressed, kept, value_bytes),
        }
    }

    /// The number of visual tokens of a picture in a stock checkpoint; and, if the text-guided sampler has a layer, that layer
    /// and the share of the work that remains if the sampler keeps half of the tokens.
    pub(crate) fn halved(
        config: &Config,
        cut: &TileConfig,
        height: usize,
        width: usize,
    ) -> (usize, Option<(usize, f64)>) {
        let stock = Grid::of(height, width, cut, config.vision.tokens()).stock_tokens();
        let kept = (stock as f64 * KEPT).ceil() as u64;
        let share = |layer| (layer, cost(config, stock as u64, stock as u64, kept, 4).equivalent_share);
        (stock, config.focus.text_layer.map(share))
    }

    /// Bytes on the host for a question, without weights and picture: the caches of `tokens` in every layer, with
    /// `value_bytes` per value; their hidden states, the largest activations of the rows of them that are computed at
    /// once, and the `f32_copies` of the plan.
    pub(crate) fn question_bytes(
        config: &Config,
        tokens: usize,
        steps: Steps,
        value_bytes: u64,
        f32_copies: u64,
    ) -> u64 {
        let t = &config.text;
        let cache = Self::cache_bytes(config, tokens, value_bytes);
        let rows = steps.rows(t.layer_work(), t.widest());
        let (tokens, rows) = (tokens as u64, rows.min(tokens) as u64);
        let [heads, kv_heads, d_head, d, d_ff] =
            [t.n_heads, t.n_kv_heads, t.d_head, t.d_model, t.d_ff].map(|n| n as u64);
        let hidden = product(&[4, 3, d, tokens]);
        let feed_forward = product(&[4, rows, 2 * d + 3 * d_ff]);
        let attention = product(&[4, rows, 2 * d + (2 * heads + 2 * kv_heads) * d_head]);
        [cache, f32_copies, hidden, feed_forward.max(attention)].into_iter().fold(0, u64::saturating_add)
    }

    /// Bytes of the caches of `tokens` in every layer, with `value_bytes` per value.
    pub(crate) fn cache_bytes(config: &Config, tokens: usize, value_bytes: u64) -> u64 {
        let t = &config.text;
        let [layers, kv_heads, d_head, tokens] = [t.n_layers, t.n_kv_heads, t.d_head, tokens].map(|n| n as u64);
        product(&[2, layers, kv_heads, d_head, value_bytes, tokens])
    }

    /// Peak memory on a device, in bytes: what loading checks.
    pub fn peak_on(&self, class: DeviceClass) -> u64 {
        if class == DeviceClass::Cpu { self.cpu_peak } else { self.peak_bytes() }
    }

    /// Peak memory on a GPU in bytes: weights, features, and the larger of vision tower and prefill with every token.
    pub fn peak_bytes(&self) -> u64 {
        let running = self.vision_activations.max(self.full.kv_cache.saturating_add(self.full.prefill_activations));
        self.weight_bytes.saturating_add(self.features).saturating_add(running)
    }
}

/// The bits per code of most values in the layers of the text model; None where most are stored as floats.
pub(crate) fn stored_bits(needed: &[Parameter], weights: &Weights) -> Option<u32> {
    let mut counts = [(None, 0), (Some(8), 0), (Some(4), 0)];
    for parameter in needed.iter().filter(|parameter| parameter.role == ParameterRole::Layer) {
        let bits = weights.format(&parameter.name).map(|format| format.bits);
        counts.iter_mut().filter(|(of, _)| *of == bits).for_each(|(_, count)| *count += parameter.values());
    }
    counts.into_iter().max_by_key(|(_, count)| *count).and_then(|(bits, _)| bits)
}

/// Most bytes in f32 that a product on the CPU makes of a matrix at once: of the largest one that is stored otherwise,
/// and whose product is not in integers. The head is not converted: it is multiplied with one row.
fn f32_copies(
    config: &Config,
    needed: &[Parameter],
    format: &dyn Fn(&Parameter) -> Option<Format>,
    storage: &Storage,
) -> u64 {
    let integers = rounds_inputs(&Device::flex());
    let (v, t) = (&config.vision, &config.text);
    // Query, key and value are one matrix, and so are gate and up.
    let tower = 3 * v.d_model;
    let text = (t.n_heads + 2 * t.n_kv_heads) * t.d_head;
    let bytes = |p: &Parameter| {
        let converted = match (p.role, format(p)) {
            (ParameterRole::Exact | ParameterRole::Table, _) => false,
            (_, Some(format)) => !(integers && storage.rounds(format)),
            (_, None) => storage.floats != DType::F32,
        };
        let joined = match p.role {
            ParameterRole::Tower if p.width() == v.d_model => tower,
            ParameterRole::Layer if p.width() == t.d_model => text,
            ParameterRole::Float if p.width() == t.d_model && config.focus.text_layer.is_some() => text,
            _ => 0,
        };
        let own = p.shape.first().map_or(0, |&rows| rows.saturating_mul(1 + usize::from(p.with.is_some())));
        let most = (PANEL / p.width().max(1)).max(1);
        let rows = if converted { own.max(joined).min(most) } else { 0 };
        product(&[4, rows as u64, p.width() as u64])
    };
    needed.iter().map(bytes).max().unwrap_or_default()
}

/// The number of visual tokens if every region has the scale with the median number of tokens.
fn middle(config: &Config, grid: &Grid) -> u64 {
    let window = config.focus.window;
    let mut order: Vec<usize> = (0..config.focus.scales.len()).collect();
    let tokens = |scale: Scale| scale.tokens(window, window).0 * scale.tokens(window, window).1;
    order.sort_by_key(|&i| tokens(config.focus.scales[i]));
    let chosen = order[order.len() / 2];
    let newlines = grid.newline == Newline::Rows;
    let tokens = |[top, left, bottom, right]: [usize; 4]| {
        let (height, width) = (bottom - top, right - left);
        let choice = vec![chosen; regions(height, width, window).len()];
        let cells = compact(height, width, window, &config.focus.scales, &choice);
        cells.iter().filter(|(_, cell)| newlines || *cell != Cell::Newline).count()
    };
    let high: usize = grid.blocks().into_iter().map(tokens).sum();
    let end = usize::from(grid.newline == Newline::End);
    let sent = config.focus.thumbnail && grid.thumbnail != Thumbnail::Own;
    let thumbnail = if sent { grid.patches * grid.patches } else { 0 };
    (thumbnail + high + end).max(1) as u64
}

/// The product of all factors, or the largest number: a config within its bounds can still need more bytes than that.
fn product(factors: &[u64]) -> u64 {
    factors.iter().copied().fold(1, u64::saturating_mul)
}

fn cost(config: &Config, stock: u64, visual: u64, kept: u64, value_bytes: u64) -> Cost {
    let t = &config.text;
    let below = config.focus.text_layer.unwrap_or(t.n_layers);
    let share = below as f64 / t.n_layers as f64;
    let per_token = product(&[2, t.n_kv_heads as u64, t.d_head as u64, value_bytes]);
    let (lower, upper) = (below as u64, (t.n_layers - below) as u64);
    let rows = visual + TEXT_TOKENS;
    // The larger of: hidden state, its norm, three buffers of the feed-forward; query, key, value and a block's scores.
    let feed_forward = product(&[rows, 2 * t.d_model as u64 + 3 * t.d_ff as u64]);
    let scores = product(&[512.min(rows), rows, t.n_heads as u64]);
    let attention = product(&[rows, 3, t.d_model as u64]).saturating_add(scores);
    Cost {
        visual_tokens: visual,
        kept_tokens: kept,
        equivalent_share: (visual as f64 - (visual - kept) as f64 * (1.0 - share)) / stock as f64,
        kv_cache: product(&[per_token, product(&[lower, rows]).saturating_add(product(&[upper, kept + TEXT_TOKENS]))]),
        prefill_activations: product(&[4, feed_forward.max(attention)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Activations, TowerType};

    #[test]
    fn the_bytes_of_a_question_equal_a_calculation_by_hand() {
        let text = serde_json::json!({
            "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "vocab_size": 32064
        });
        let config = serde_json::json!({"model_type": "llava_next", "text_config": text});
        let config = Config::from_json(&config).expect("a config");
        // 16 values of a token in one buffer.
        let four_rows = Steps::of_values(64);
        // 10 tokens in f16: caches 2 * 2 layers * 4 * 2 bytes * 10; weights as f32; three hidden states 4 * 3 * 8 * 10;
        // the feed-forward of 4 rows 4 * 4 * (2 * 8 + 3 * 16), which is more than attention, 4 * 4 * (2 * 8 + 6 * 4).
        assert_eq!(Plan::question_bytes(&config, 10, four_rows, 2, 1 << 20), 320 + (1 << 20) + 960 + 1024);
        assert_eq!(Plan::question_bytes(&config, 40, four_rows, 4, 0), 2560 + 3840 + 1024);
    }

    #[test]
    fn copies_in_f32_are_at_most_the_largest_matrix_that_is_converted() {
        let text = serde_json::json!({
            "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "vocab_size": 32064
        });
        let config = serde_json::json!({"model_type": "llava_next", "text_config": text});
        let config = Config::from_json(&config).expect("a config");
        let of = |role, shape: [usize; 2], with: Option<&str>| Parameter {
            name: "w".into(),
            shape: shape.to_vec(),
            role,
            with: with.map(str::to_owned),
        };
        let copies = |needed: &[Parameter], storage: Storage| {
            let format = |p: &Parameter| match p.role {
                ParameterRole::Layer if storage.stored == Stored::Q8 => Some(Format::Q8),
                ParameterRole::Tower if storage.tower == TowerType::Q8 => Some(Format::Q8),
                _ => None,
            };
            f32_copies(&config, needed, &format, &storage)
        };
        let [f16, q8] = [Stored::F16, Stored::Q8].map(|stored| Storage::usual(stored, false));
        let table = of(ParameterRole::Table, [1 << 20, 8], None);
        let gate = of(ParameterRole::Layer, [16, 8], Some("up"));
        let down = of(ParameterRole::Layer, [8, 16], None);
        // Gate and up are one matrix: 32 rows of 8 values. The head is multiplied with one row.
        let needed = [table, gate, down.clone()];
        assert_eq!([Storage::F32, f16, q8].map(|storage| copies(&needed, storage)), [0, 4 * 32 * 8, 4 * 32 * 8]);
        // Query, key and value are one matrix of 16 rows.
        let query = of(ParameterRole::Layer, [8, 8], None);
        assert_eq!(copies(&[query, down], f16), 4 * 16 * 8);
        // Products of integers convert nothing.
        let int8 = Storage { activations: Activations::Int8, ..q8 };
        let large = [of(ParameterRole::Layer, [1 << 22, 8], None)];
        let expected = if rounds_inputs(&Device::flex()) { 0 } else { 64 << 20 };
        assert_eq!([copies(&large, q8), copies(&large, int8)], [64 << 20, expected]);
        // A tower in q8 is converted under weights in f32 too.
        let d = config.vision.d_model;
        let tower = [of(ParameterRole::Tower, [d, d], None)];
        let q8 = Storage { tower: TowerType::Q8, ..Storage::F32 };
        let bytes = 4 * 3 * (d * d) as u64;
        assert_eq!([Storage::F32, q8].map(|storage| copies(&tower, storage)), [0, bytes.min(64 << 20)]);
    }

    #[test]
    fn the_largest_config_within_the_bounds_is_planned() {
        let json = serde_json::json!({
            "model_type": "llava_next", "image_grid_pinpoints": [[2560, 2560]],
            "vision_config": {"image_size": 256, "patch_size": 1, "hidden_size": 131072, "num_attention_heads": 131072},
            "text_config": {
                "hidden_size": 131072, "intermediate_size": 1 << 20, "num_hidden_layers": 1024, "vocab_size": 1 << 24,
                "num_attention_heads": 131072, "num_key_value_heads": 131072, "head_dim": 4096
            }
        });
        let config = Config::from_json(&json).expect("a config");
        let tiles = TileConfig::anyres(256, vec![(2560, 2560)]);
        let needed = [Parameter {
            name: "w".into(),
            shape: vec![1 << 24, 1 << 24, 1 << 24],
            role: ParameterRole::Float,
            with: None,
        }];
        let plan = Plan::of(&config, &tiles, false, &needed, &|_| None, None, &Storage::F32);
        let got = (plan.weight_bytes, plan.peak_bytes(), plan.cpu_peak);
        assert_eq!(got, (u64::MAX, u64::MAX, u64::MAX), "bytes (got, expected)");
        assert_eq!(plan.full.kv_cache, u64::MAX, "KV cache (got, expected)");
        assert!(config.text.layer_work() > 1 << 47 && config.text.widest() == 3 * 131_072 * 4096);
        assert_eq!(Plan::question_bytes(&config, usize::MAX, Steps::CPU, 4, 0), u64::MAX, "a question (got, expected)");
    }
}
