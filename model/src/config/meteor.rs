//! Input: the object `meteor` of config.json. Output: the settings of LLaVA-Meteor (arXiv 2505.11945).
//!
//! Our interpretation: the paper's method section is not public. Keys, defaults and their meaning are our choice.

use fovea_runtime::scan_ops::Discretisation;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::keys::Keys;
use crate::{
    compression::{Aggregate, Budget, Meteor, NEWLINES, Pool, Scope, THUMBNAILS},
    error::Error,
};

/// Largest number of blocks.
const MOST_BLOCKS: usize = 16;

/// In which order a block scans the patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ScanOrder {
    /// Window after window, in raster order inside each.
    Local,
    /// In raster order.
    Single,
}

/// On which side of the projector a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ScanPlace {
    /// In the width of the vision tower.
    Before,
    /// In the width of the text model.
    After,
}

/// Which patches are scanned together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ScanSequence {
    /// The thumbnail, then the map.
    Image,
    /// Each tile alone.
    Tile,
}

/// Settings of LLaVA-Meteor's fusion and selection. Our interpretation: the paper's method section is not public.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MeteorConfig {
    /// The blocks: order of the scan, and side of the projector.
    pub blocks: Vec<(ScanOrder, ScanPlace)>,
    /// Side of a window of a local scan, in patches.
    pub window: usize,
    /// States per channel, S.
    pub d_state: usize,
    /// Channels per value of a token, E / D.
    pub expand: usize,
    /// Length of the convolution before the scan, in tokens; 0: no convolution.
    pub d_conv: usize,
    /// Rank of the step sizes. None: D / 16, rounded up.
    pub dt_rank: Option<usize>,
    /// Whether the visual tokens are scanned from the last to the first, too.
    pub bidirectional: bool,
    /// How a step weights its input.
    #[serde(serialize_with = "discretisation")]
    pub discretise_b: Discretisation,
    /// Which patches are scanned together.
    pub sequence: ScanSequence,
    /// Whether scans start with the tokens of the prompt after the picture, and whether the native expert compares with them.
    pub instruction: bool,
    /// Epsilon of the norms.
    pub norm_eps: f64,
    /// The checkpoint's settings of the selection.
    #[serde(serialize_with = "selection")]
    pub selection: Meteor,
}

/// The names in config.json.
const DISCRETISATIONS: [(&str, Discretisation); 2] = [("euler", Discretisation::Euler), ("zoh", Discretisation::Zoh)];

fn discretisation<S: Serializer>(how: &Discretisation, serializer: S) -> Result<S::Ok, S::Error> {
    DISCRETISATIONS.iter().find(|(_, known)| known == how).map(|(name, _)| name).serialize(serializer)
}

fn selection<S: Serializer>(settings: &Meteor, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(settings.written())
}

impl Default for MeteorConfig {
    fn default() -> Self {
        Self {
            blocks: vec![(ScanOrder::Local, ScanPlace::Before), (ScanOrder::Single, ScanPlace::Before)],
            window: 4,
            d_state: 16,
            expand: 2,
            d_conv: 4,
            dt_rank: None,
            bidirectional: true,
            discretise_b: Discretisation::Euler,
            sequence: ScanSequence::Image,
            instruction: true,
            norm_eps: 1e-5,
            selection: Meteor::default(),
        }
    }
}

impl MeteorConfig {
    /// Rank of the step sizes of a block of width `d`, R.
    pub fn rank(&self, d: usize) -> usize {
        self.dt_rank.unwrap_or(d.div_ceil(16))
    }

    pub(super) fn from_keys(keys: &Keys) -> Result<Self, Error> {
        let default = Self::default();
        let dt_rank = keys.get("dt_rank").map(|_| keys.count("dt_rank", 1, 4096)).transpose()?;
        Ok(Self {
            blocks: blocks(keys)?.unwrap_or(default.blocks),
            window: keys.count("window", default.window, 64)?,
            d_state: keys.count("d_state", default.d_state, 64)?,
            expand: keys.count("expand", default.expand, 8)?,
            d_conv: keys.count_in("d_conv", default.d_conv, 0, 16)?,
            dt_rank,
            bidirectional: keys.flag("bidirectional", default.bidirectional)?,
            discretise_b: keys.one_of("discretise_b", default.discretise_b, &DISCRETISATIONS)?,
            sequence: keys.one_of(
                "sequence",
                default.sequence,
                &[("image", ScanSequence::Image), ("tile", ScanSequence::Tile)],
            )?,
            instruction: keys.one_of("instruction", default.instruction, &[("after_image", true), ("none", false)])?,
            norm_eps: keys.number("norm_eps", default.norm_eps, 1e-12, 1e-1)?,
            selection: read_selection(keys, default.selection)?,
        })
    }
}

/// `blocks`: a list of pairs of names, `[order, place]`.
fn blocks(keys: &Keys) -> Result<Option<Vec<(ScanOrder, ScanPlace)>>, Error> {
    let Some(value) = keys.get("blocks") else { return Ok(None) };
    let block = |value: &Value| {
        let [order, place] = value.as_array()?.as_slice() else { return None };
        let order = match order.as_str()? {
            "local" => ScanOrder::Local,
            "single" => ScanOrder::Single,
            _ => return None,
        };
        match place.as_str()? {
            "before" => Some((order, ScanPlace::Before)),
            "after" => Some((order, ScanPlace::After)),
            _ => None,
        }
    };
    let list = value.as_array().filter(|list| (1..=MOST_BLOCKS).contains(&list.len()));
    match list.and_then(|list| list.iter().map(block).collect()) {
        Some(blocks) => Ok(Some(blocks)),
        None => Err(keys.wrong(
            "blocks",
            &format!("a list of 1 to {MOST_BLOCKS} pairs of local or single, and before or after"),
            value,
        )),
    }
}

/// The keys of the selection.
fn read_selection(keys: &Keys, default: Meteor) -> Result<Meteor, Error> {
    let aggregates = [("z_sum", Aggregate::ZSum), ("rank_sum", Aggregate::RankSum), ("rank_min", Aggregate::RankMin)];
    Ok(Meteor {
        keep: keep(keys)?.unwrap_or(default.keep),
        visual_weight: keys.number("visual_weight", default.visual_weight, 0.0, 1.0)?,
        aggregate: keys.one_of("aggregate", default.aggregate, &aggregates)?,
        native_pool: keys.one_of("native_pool", default.native_pool, &[("mean", Pool::Mean), ("max", Pool::Max)])?,
        select: keys.one_of("select", default.select, &[("image", Scope::Image), ("tile", Scope::Tile)])?,
        newlines: keys.one_of("newlines", default.newlines, &NEWLINES)?,
        thumbnail: keys.one_of("thumbnail", default.thumbnail, &THUMBNAILS)?,
    })
}

/// `keep`: `{"ratio": r}` or `{"count": n}`.
fn keep(keys: &Keys) -> Result<Option<Budget>, Error> {
    let Some(value) = keys.get("keep") else { return Ok(None) };
    let ratio = value.get("ratio").and_then(Value::as_f64).filter(|&ratio| ratio > 0.0 && ratio <= 1.0);
    let count = value.get("count").and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
    let budget = match (ratio, count.filter(|&count| count > 0)) {
        (Some(ratio), None) => Some(Budget::Ratio(ratio)),
        (None, Some(count)) => Some(Budget::Count(count)),
        _ => None,
    };
    // One key only: the other one would be ignored.
    match budget.filter(|_| value.as_object().is_some_and(|object| object.len() == 1)) {
        Some(budget) => Ok(Some(budget)),
        None => Err(keys.wrong("keep", "an object with a ratio above 0 and at most 1, or a count from 1 on", value)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::compression::{Newlines, ThumbnailTokens};

    fn read(json: &Value) -> Result<MeteorConfig, Error> {
        MeteorConfig::from_keys(&Keys::new("config.json", json)?)
    }

    #[test]
    fn missing_keys_have_defaults_and_given_ones_are_read() {
        assert_eq!(read(&json!({"dt_rank": null})).expect("defaults"), MeteorConfig::default());
        let given = json!({
            "blocks": [["single", "after"]], "window": 2, "d_state": 8, "expand": 1, "d_conv": 0, "dt_rank": 3,
            "bidirectional": false, "discretise_b": "zoh", "sequence": "tile", "instruction": "none", "norm_eps": 1e-6,
            "visual_weight": 0.25, "aggregate": "rank_min", "native_pool": "max", "keep": {"count": 7}, "select": "tile",
            "newlines": "none", "thumbnail": "drop",
        });
        let expected = MeteorConfig {
            blocks: vec![(ScanOrder::Single, ScanPlace::After)],
            window: 2,
            d_state: 8,
            expand: 1,
            d_conv: 0,
            dt_rank: Some(3),
            bidirectional: false,
            discretise_b: Discretisation::Zoh,
            sequence: ScanSequence::Tile,
            instruction: false,
            norm_eps: 1e-6,
            selection: Meteor {
                keep: Budget::Count(7),
                visual_weight: 0.25,
                aggregate: Aggregate::RankMin,
                native_pool: Pool::Max,
                select: Scope::Tile,
                newlines: Newlines::None,
                thumbnail: ThumbnailTokens::Drop,
            },
        };
        assert_eq!(read(&given).expect("all keys"), expected);
        assert_eq!(
            [MeteorConfig::default().rank(1024), expected.rank(1024), MeteorConfig::default().rank(17)],
            [64, 3, 2]
        );
    }

    #[test]
    fn numbers_and_names_out_of_range_are_refused() {
        for (key, value) in [
            ("blocks", json!([])),
            ("blocks", json!([["local", "before"], ["local"]])),
            ("blocks", json!([["diagonal", "before"]])),
            ("blocks", json!(vec![["local", "before"]; 17])),
            ("window", json!(0)),
            ("window", json!(65)),
            ("d_state", json!(65)),
            ("expand", json!(9)),
            ("d_conv", json!(17)),
            ("dt_rank", json!(0)),
            ("dt_rank", json!(4097)),
            ("norm_eps", json!(0)),
            ("discretise_b", json!("exact")),
            ("visual_weight", json!(1.5)),
            ("keep", json!(0.25)),
            ("keep", json!({"ratio": 0})),
            ("keep", json!({"count": 0})),
            ("keep", json!({"ratio": 0.5, "count": 3})),
        ] {
            let why = read(&json!({key: value})).expect_err(key).to_string();
            assert!(why.starts_with(&format!("config.json: {key}: expected")), "{why}");
        }
    }
}
