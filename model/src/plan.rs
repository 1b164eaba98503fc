//! Plans a run before anything is loaded. Input: a checkpoint and the size of a picture. Output: numbers of tokens and bytes.
//!
//! What the samplers keep depends on picture and question. So the compressed numbers are an assumption: every region has
//! the scale with the median number of tokens, and the text-guided sampler keeps half of the visual tokens.

use serde::Serialize;

use crate::{checkpoint::Checkpoint, config::Config, grid::Grid, load::is_matrix};
use fovea_runtime::Scale;
use fovea_shaders::{compact, regions};

/// Number of tokens of question and answer in a plan.
const TEXT_TOKENS: u64 = 192;
/// The assumed share of visual tokens that the text-guided sampler keeps.
const KEPT: f64 = 0.5;

/// Numbers of tokens and bytes, with all tokens or compressed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Visual tokens that enter the text model.
    pub visual_tokens: u64,
    /// Visual tokens that the text-guided sampler keeps.
    pub kept_tokens: u64,
    /// Mean number of visual tokens per decoder layer, relative to those of LLaVA-NeXT (Sec. 4.4).
    pub equivalent_share: f64,
    /// KV cache, in bytes.
    pub kv_cache: u64,
    /// Largest activations of one decoder layer with 192 tokens of text, in bytes.
    pub prefill_activations: u64,
}

/// The plan of one picture size and dtype.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Picture (width, height) in pixels; the largest canvas if no picture is given.
    pub picture: (usize, usize),
    /// Number of tiles, with the thumbnail.
    pub tiles: u64,
    /// Weights on the device, in bytes: matrices in the dtype of the plan, vectors in f32.
    pub weight_bytes: u64,
    /// Largest activations of the vision tower, in bytes.
    pub vision_activations: u64,
    /// Feature map and thumbnail, in bytes. They are kept for further questions.
    pub features: u64,
    /// Cost with every token.
    pub full: Cost,
    /// Cost with both samplers. This is an estimate: what they keep depends on picture and question.
    pub compressed: Cost,
}

impl Plan {
    /// The plan for a `picture` (width, height) in pixels, with matrices of `value_bytes` per value.
    pub fn new(checkpoint: &Checkpoint, picture: Option<(usize, usize)>, value_bytes: u64) -> Self {
        let needed = checkpoint.needed();
        let weight_bytes = needed
            .iter()
            .map(|(name, shape)| {
                let values: u64 = shape.iter().map(|&d| d as u64).product();
                values * if is_matrix(name, shape) { value_bytes } else { 4 }
            })
            .sum();
        let config = &checkpoint.config;
        let (v, t) = (&config.vision, &config.text);
        let largest = config.pinpoints.iter().max_by_key(|(h, w)| h * w).map_or((v.side, v.side), |&(h, w)| (w, h));
        let (width, height) = picture.unwrap_or(largest);
        let grid = Grid::of(height, width, &config.pinpoints, v.side, v.patches());
        let tiles = 1 + (grid.rows * grid.cols) as u64;
        let places = (v.patches() * v.patches() + 1) as u64;
        // The larger of: hidden state, its norm, two buffers of the feed-forward; five buffers and one tile's scores.
        let rows = tiles * places;
        let feed_forward = rows * (2 * v.d_model + 2 * v.d_ff) as u64;
        let attention = rows * 5 * v.d_model as u64 + places * places * v.n_heads as u64;
        let stock = grid.stock_tokens() as u64;
        let compressed = if checkpoint.selector { middle(config, &grid) } else { stock };
        let kept =
            if config.focus.text_layer.is_some() { (compressed as f64 * KEPT).ceil() as u64 } else { compressed };
        Self {
            picture: (width, height),
            tiles,
            weight_bytes,
            vision_activations: 4 * feed_forward.max(attention),
            features: 4 * (grid.height * grid.width + grid.patches * grid.patches) as u64 * t.d_model as u64,
            full: cost(config, stock, stock, stock, value_bytes),
            compressed: cost(config, stock, compressed, kept, value_bytes),
        }
    }

    /// The number of visual tokens of a picture in a stock checkpoint; and, if the text-guided sampler has a layer, that layer
    /// and the share of the work that remains if the sampler keeps half of the tokens.
    pub(crate) fn halved(config: &Config, height: usize, width: usize) -> (usize, Option<(usize, f64)>) {
        let v = &config.vision;
        let stock = Grid::of(height, width, &config.pinpoints, v.side, v.patches()).stock_tokens();
        let kept = (stock as f64 * KEPT).ceil() as u64;
        let share = |layer| (layer, cost(config, stock as u64, stock as u64, kept, 4).equivalent_share);
        (stock, config.focus.text_layer.map(share))
    }

    /// Bytes on the host for a question, without weights and picture: the caches of `tokens` in every layer, their hidden
    /// states, and the largest activations of `rows` of them at once.
    pub(crate) fn question_bytes(config: &Config, tokens: usize, rows: usize, value_bytes: u64) -> u64 {
        let t = &config.text;
        let (tokens, rows) = (tokens as u64, rows.min(tokens) as u64);
        let cache = 2 * (t.n_layers * t.n_kv_heads * t.d_head) as u64 * value_bytes * tokens;
        // The caches of one layer in f32, as its attention reads them.
        let read = 8 * (t.n_kv_heads * t.d_head) as u64 * tokens;
        let hidden = 4 * 3 * t.d_model as u64 * tokens;
        let feed_forward = 4 * rows * (2 * t.d_model + 3 * t.d_ff) as u64;
        let scores = 8 * rows.min(512) * tokens * t.n_heads as u64;
        cache + read + hidden + feed_forward.max(scores)
    }

    /// Peak memory in bytes: weights, features, and the larger of vision tower and prefill with every token.
    pub fn peak_bytes(&self) -> u64 {
        let running = self.vision_activations.max(self.full.kv_cache + self.full.prefill_activations);
        self.weight_bytes + self.features + running
    }
}

/// The number of visual tokens if every region has the scale with the median number of tokens.
fn middle(config: &Config, grid: &Grid) -> u64 {
    let window = config.focus.window;
    let mut order: Vec<usize> = (0..config.focus.scales.len()).collect();
    let tokens = |scale: Scale| scale.tokens(window, window).0 * scale.tokens(window, window).1;
    order.sort_by_key(|&i| tokens(config.focus.scales[i]));
    let choice = vec![order[order.len() / 2]; regions(grid.height, grid.width, window).len()];
    let high = compact(grid.height, grid.width, window, &config.focus.scales, &choice).len();
    let thumbnail = if config.focus.thumbnail { grid.patches * grid.patches } else { 0 };
    (thumbnail + high).max(1) as u64
}

fn cost(config: &Config, stock: u64, visual: u64, kept: u64, value_bytes: u64) -> Cost {
    let t = &config.text;
    let below = config.focus.text_layer.unwrap_or(t.n_layers);
    let share = below as f64 / t.n_layers as f64;
    let per_token = 2 * (t.n_kv_heads * t.d_head) as u64 * value_bytes;
    let (lower, upper) = (below as u64, (t.n_layers - below) as u64);
    let rows = visual + TEXT_TOKENS;
    // The larger of: hidden state, its norm, three buffers of the feed-forward; query, key, value and a block's scores.
    let feed_forward = rows * (2 * t.d_model + 3 * t.d_ff) as u64;
    let attention = rows * (3 * t.d_model) as u64 + 512.min(rows) * rows * t.n_heads as u64;
    Cost {
        visual_tokens: visual,
        kept_tokens: kept,
        equivalent_share: (visual as f64 - (visual - kept) as f64 * (1.0 - share)) / stock as f64,
        kv_cache: per_token * (lower * rows + upper * (kept + TEXT_TOKENS)),
        prefill_activations: 4 * feed_forward.max(attention),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_question_equal_a_calculation_by_hand() {
        let text = serde_json::json!({
            "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "vocab_size": 32064
        });
        let config = serde_json::json!({"model_type": "llava_next", "text_config": text});
        let config = Config::from_json(&config).expect("a config");
        // 10 tokens in f16: caches 2 * 2 layers * 4 * 2 bytes * 10; read in f32 2 * 4 * 4 * 10; three hidden states 4 * 3 * 8 * 10;
        // the feed-forward of 4 rows 4 * 4 * (2 * 8 + 3 * 16), which is more than their scores, 2 * 4 * 4 * 10 * 2.
        assert_eq!(Plan::question_bytes(&config, 10, 4, 2), 320 + 320 + 960 + 1024);
        // With 40 tokens the scores are larger.
        assert_eq!(Plan::question_bytes(&config, 40, 4, 2), 1280 + 1280 + 3840 + 2560);
    }
}
