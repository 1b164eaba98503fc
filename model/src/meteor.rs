//! LLaVA-Meteor's Flash Global Fusion (arXiv 2505.11945). Input: features of every patch before the projector, and the question.
//! Output: projected features, of which each has read the whole picture and the question.
//!
//! Our interpretation: the paper's method section is not public. "Local-to-single" is read as a scan window by window, then one
//! token by token (windows: arXiv 2403.09338; scans: Mamba, arXiv 2312.00752). A block whose last matrix is zero changes nothing.
//!
//! ```text
//! hidden (tiles, P*P, D) -> blocks before the projector -> projector -> blocks after it -> fused (tiles, P*P, C)
//! ```

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use fovea_runtime::{
    network_ops::{self, After, Weight},
    sampler_ops::{indices, row_gather},
};

use crate::{
    compression::Pool,
    config::{Config, MeteorConfig, ScanPlace, ScanSequence},
    error::Error,
    grid::Grid,
    linear::Linear,
    load::Loader,
    names::METEOR,
    pace::{Pace, Progress, Steps},
    projector::Projector,
    stage::Stage,
};

mod block;
mod order;

use block::{Block, linear};
use order::sequences;

/// LLaVA-Meteor's fusion, in our interpretation: the paper's method section is not public. All tensors are in f32.
#[derive(Module, Debug)]
pub struct MeteorFusion {
    /// (D, C): embeddings of the question's tokens in the width of the vision tower. None if no block before the projector
    /// reads them.
    instruction: Option<Linear>,
    blocks: Vec<Block>,
    #[module(skip)]
    settings: MeteorConfig,
}

/// Some rows of `x` (rows, width).
fn picked(x: Tensor<2>, at: &Tensor<1, Int>) -> Result<Tensor<2>, Error> {
    if x.device().is_autodiff() {
        // The custom operation has no gradient.
        return Ok(x.select(0, at.clone()));
    }
    Ok(row_gather(x.unsqueeze::<3>(), at.clone())?.squeeze_dim(0))
}

/// Rows divided by their length; a row of zeros stays one.
fn unit(x: Tensor<2>) -> Tensor<2> {
    let length = (x.clone() * x.clone()).sum_dim(1).sqrt().clamp_min(1e-12);
    x / length
}

/// The native expert: the cosines of every patch with the tokens of the question, pooled over these.
///
/// # Shapes
/// `fused` (n, C), `instruction` (I, C), neither empty -> (n,), f32.
///
/// # Errors
/// [`fovea_runtime::Error::Shape`] if a tensor is empty or the widths differ.
pub fn native(fused: Tensor<2>, instruction: Tensor<2>, pool: Pool) -> Result<Tensor<1>, Error> {
    let n = fused.dims()[0];
    let cosines = network_ops::linear(unit(fused), &[Weight::Float(unit(instruction))], None, None, After::Nothing)?;
    let pooled = match pool {
        Pool::Mean => cosines.mean_dim(1),
        Pool::Max => cosines.max_dim(1),
    };
    Ok(pooled.reshape([n]))
}

impl MeteorFusion {
    /// Loads the tensors `meteor.*` that the config describes; without its object `meteor`, those of the default settings.
    ///
    /// # Errors
    /// Those of [`Loader`].
    pub async fn load(load: &Loader<'_>, config: &Config) -> Result<Self, Error> {
        let settings = config.meteor.clone().unwrap_or_default();
        let (d, c) = (config.vision.d_features(), config.text.d_model);
        let before = settings.blocks.iter().any(|&(_, place)| place == ScanPlace::Before);
        let instruction = match before && settings.instruction {
            true => Some(linear(load, &format!("{METEOR}.instruction"), [d, c], false).await?),
            false => None,
        };
        let mut blocks = Vec::with_capacity(settings.blocks.len());
        for (i, &(_, place)) in settings.blocks.iter().enumerate() {
            let width = if place == ScanPlace::Before { d } else { c };
            blocks.push(Block::load(load, &format!("{METEOR}.blocks.{i}"), width, &settings).await?);
        }
        Ok(Self { instruction, blocks, settings })
    }

    /// Whether fusion and selection read the tokens after the picture.
    pub(crate) fn reads_question(&self) -> bool {
        self.settings.instruction
    }

    /// The projected features of every patch after the fusion. Patches in the padding are projected, but not fused.
    ///
    /// `instruction` are the embeddings of the tokens after the picture; None if there are none. `grid` is not shrunk.
    ///
    /// # Shapes
    /// `hidden` (tiles, P*P, D), the tiles in the order of the vision tower; `instruction` (I, C) -> (tiles, P*P, C), f32.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`fovea_runtime::Error::OutOfMemory`] if a device cannot bind what a scan needs; those of the
    /// operations.
    pub async fn fuse(
        &self,
        hidden: Tensor<3>,
        instruction: Option<Tensor<2>>,
        grid: &Grid,
        (projector, config): (&Projector, &Config),
        (steps, pace): (Steps, &Pace),
    ) -> Result<Tensor<3>, Error> {
        let words = instruction.filter(|_| self.reads_question());
        let narrow = match (&self.instruction, &words) {
            (Some(linear), Some(words)) => Some(linear.forward(words.clone())?),
            _ => None,
        };
        let hidden = self.side(ScanPlace::Before, hidden, narrow, grid, (steps, pace)).await?;
        let features = projector.forward(hidden, config, steps, pace).await?;
        self.side(ScanPlace::After, features, words, grid, (steps, pace)).await
    }

    /// The blocks on one side of the projector. With one scan of the whole picture, a block reads what the block before it made of
    /// the question; with separate tiles, every scan starts with the question itself.
    async fn side(
        &self,
        side: ScanPlace,
        x: Tensor<3>,
        mut words: Option<Tensor<2>>,
        grid: &Grid,
        (steps, pace): (Steps, &Pace),
    ) -> Result<Tensor<3>, Error> {
        let [tiles, patches, d] = x.dims();
        let (rows, device, settings) = (tiles * patches, x.device(), &self.settings);
        let mut x = x.reshape([rows, d]);
        let count = words.as_ref().map_or(0, |words| words.dims()[0]);
        for (i, (block, &(order, place))) in self.blocks.iter().zip(&settings.blocks).enumerate() {
            if place != side {
                continue;
            }
            let scans = sequences(grid, settings.sequence, order, settings.window);
            let mut parts = Vec::new();
            for scan in &scans {
                let (done, total) = (i as u64, self.blocks.len() as u64);
                pace.step(Progress { stage: Stage::Compress, done, total }).await?;
                let visual = picked(x.clone(), &indices(scan, rows, &device)?)?;
                let tokens = Tensor::cat(words.iter().cloned().chain([visual]).collect(), 0);
                let fused = block.run(tokens, count, settings.discretise_b, (steps, pace)).await?;
                if count > 0 && settings.sequence == ScanSequence::Image {
                    words = Some(fused.clone().narrow(0, 0, count));
                }
                parts.push(fused.narrow(0, count, scan.len()));
            }
            // Back to the places of the patches; those in no scan stay as they were.
            let mut from = scans.concat();
            let mut scanned = vec![false; rows];
            from.iter().for_each(|&row| scanned[row] = true);
            let others: Vec<usize> = (0..rows).filter(|&row| !scanned[row]).collect();
            if !others.is_empty() {
                parts.push(picked(x, &indices(&others, rows, &device)?)?);
                from.extend(others);
            }
            let mut back = vec![0; rows];
            from.iter().enumerate().for_each(|(at, &row)| back[row] = at);
            x = picked(Tensor::cat(parts, 0), &indices(&back, rows, &device)?)?;
        }
        Ok(x.reshape([tiles, patches, d]))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, TensorData};
    use futures_util::FutureExt;
    use serde_json::json;

    use super::*;
    use crate::load::ParameterRole;

    fn tensor(values: &[f32], columns: usize) -> Tensor<2> {
        let data = TensorData::new(values.to_vec(), [values.len() / columns, columns]);
        Tensor::from_data(data, (&Device::flex(), DType::F32))
    }

    #[test]
    fn every_tensor_has_its_name_and_shape() {
        let blocks = json!([["local", "before"], ["single", "after"]]);
        let text = json!({"vocab_size": 32064});
        let json = json!({"model_type": "llava_next", "text_config": text, "meteor": {"blocks": blocks}});
        let (config, load) = (Config::from_json(&json).expect("a config"), Loader::listing());
        assert!(MeteorFusion::load(&load, &config).now_or_never().is_some_and(|fusion| fusion.is_ok()));
        let listed = load.listed();
        // Of each block three tensors, and seven per direction.
        assert_eq!(listed.len(), 1 + 2 * (3 + 2 * 7), "(got, expected)");
        assert!(listed.iter().all(|tensor| tensor.role == ParameterRole::Exact));
        for (name, expected) in [
            ("meteor.instruction.weight", vec![1024, 4096]),
            ("meteor.blocks.0.norm.weight", vec![1024]),
            ("meteor.blocks.0.in_proj.weight", vec![4096, 1024]),
            ("meteor.blocks.0.forward.conv1d.weight", vec![2048, 1, 4]),
            ("meteor.blocks.0.backward.conv1d.bias", vec![2048]),
            ("meteor.blocks.0.backward.x_proj.weight", vec![64 + 2 * 16, 2048]),
            ("meteor.blocks.0.forward.dt_proj.weight", vec![2048, 64]),
            ("meteor.blocks.0.forward.dt_proj.bias", vec![2048]),
            ("meteor.blocks.0.forward.A_log", vec![2048, 16]),
            ("meteor.blocks.0.forward.D", vec![2048]),
            ("meteor.blocks.1.out_proj.weight", vec![4096, 8192]),
        ] {
            let shape = listed.iter().find(|tensor| tensor.name == name).map(|tensor| &tensor.shape);
            assert_eq!(shape, Some(&expected), "{name} (got, expected)");
        }
    }

    #[test]
    fn the_native_expert_pools_cosines() {
        let (fused, words) = (tensor(&[1.0, 0.0, 0.0, 2.0, 1.0, 1.0, 0.0, 0.0], 2), tensor(&[3.0, 0.0, 0.0, 1.0], 2));
        let diagonal = std::f32::consts::FRAC_1_SQRT_2;
        for (pool, expected) in [(Pool::Mean, [0.5, 0.5, diagonal, 0.0]), (Pool::Max, [1.0, 1.0, diagonal, 0.0])] {
            let got = native(fused.clone(), words.clone(), pool).expect("scores").into_data();
            let got: Vec<f32> = got.iter::<f32>().collect();
            let near = got.iter().zip(expected).all(|(g, e): (&f32, f32)| (g - e).abs() < 1e-6);
            assert!(near && got.len() == 4, "{pool:?}: expected {expected:?}, got {got:?}");
        }
    }
}
