//! The model as one module with gradients: the modules of inference, and the heads of the dense labels. It loads and stores their
//! weights under the names of the hub.

use std::{borrow::Cow, collections::VecDeque};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use fovea_model::{
    Cancel, Config, Error, Names, Parameter,
    parts::{Extras, Linear, Loader, METEOR, Network, Norm, SELECTOR, Storage},
};
use fovea_runtime::{source::Source, weights::Weights};
use futures_util::FutureExt;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{batch::between, labels::HEAD};

/// All parameters of a run.
#[derive(Module, Debug)]
pub(crate) struct Trained {
    /// The network of inference.
    pub network: Network,
    /// The heads of the dense labels.
    pub heads: DenseHeads,
}

/// Predicts the dense labels from the vision tower's features. Only training has it.
#[derive(Module, Debug)]
pub(crate) struct DenseHeads {
    /// Normalises the features.
    pub norm: Norm,
    /// From the vision tower's width to [`HEAD`] logits.
    pub linear: Linear,
}

/// Prefix of the dense heads' names.
const HEADS: &str = "dense_heads";

/// A tensor of a checkpoint, on the host.
pub(crate) struct Stored {
    /// Its name in the hub's layout.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values, flat.
    pub values: Vec<f32>,
}

impl DenseHeads {
    async fn load(load: &Loader<'_>, config: &Config) -> Result<Self, Error> {
        let d = config.vision.d_model;
        Ok(Self {
            norm: load.layer_norm(&format!("{HEADS}.norm"), d, config.vision.epsilon).await?,
            linear: load.linear(&format!("{HEADS}.linear"), HEAD, d, true).await?,
        })
    }
}

impl Trained {
    /// Loads a network for training on `device`. The ids of its parameters are their numbers.
    ///
    /// # Errors
    /// Those of [`Loader`] and [`Names::detect`].
    pub async fn load(weights: &Weights, config: &Config, device: &Device) -> Result<Self, Error> {
        let names = Names::detect(weights, config.text.tied)?;
        let cancel = Cancel::default();
        let trained =
            Self::parts(&Loader::new(weights, device, Storage::F32, &cancel, &|_| {}), &names, config).await?;
        Ok(trained.map(&mut Numbered { next: 0 }))
    }

    async fn parts(load: &Loader<'_>, names: &Names, config: &Config) -> Result<Self, Error> {
        Ok(Self {
            network: Network::load(load, names, config, extras(config)).await?,
            heads: DenseHeads::load(load, config).await?,
        })
    }

    /// All tensors with their names in the hub's layout, in f32. Blocks until they are copied from the device.
    pub fn stored(&self, config: &Config) -> Vec<Stored> {
        let mut values = Collected { found: VecDeque::new() };
        self.visit(&mut values);
        // The visitor and the loader go through the fields in the same order. Joined matrices are one field: their values are those
        // of the stored tensors, one after the other.
        let mut rest = Vec::new();
        let mut next = |count: usize| {
            while rest.len() < count {
                let Some(found) = values.found.pop_front() else { break };
                rest.extend(found);
            }
            let after = rest.split_off(count.min(rest.len()));
            std::mem::replace(&mut rest, after)
        };
        let of = |Parameter { name, shape, .. }| {
            let values = next(shape.iter().product());
            Stored { name, shape, values }
        };
        parameters(config).into_iter().map(of).collect()
    }
}

/// The modules of a run that its family does not have. LLaVA-Meteor's fusion is there if the config has its settings.
fn extras(config: &Config) -> Extras {
    Extras { selector: true, meteor: config.meteor.is_some() }
}

/// Every tensor of a run, in the order of the modules' fields, with its name in the hub's layout.
fn parameters(config: &Config) -> Vec<Parameter> {
    let listing = Loader::listing();
    // A dry run reads nothing, so it never waits and never fails.
    let _ = Trained::parts(&listing, &Names::hub(), config).now_or_never();
    listing.listed()
}

/// Whether a tensor is used in training only.
pub(crate) fn only_for_training(name: &str) -> bool {
    name.starts_with(HEADS)
}

/// Random weights to start from: normally distributed matrices that keep the size of activations, scales of norms 1, biases 0; for
/// the fusion of LLaVA-Meteor see [`first_of_scan`].
pub(crate) fn first_weights(config: &Config, seed: u64) -> Vec<Stored> {
    let names = Names::hub();
    let d = config.vision.d_model;
    let depth = (2.0 * config.text.n_layers as f64).sqrt();
    let tower_depth = (2.0 * config.vision.n_used as f64).sqrt();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    parameters(config)
        .into_iter()
        .map(|Parameter { name, shape, .. }| {
            if name.ends_with("position_embedding.weight") {
                return Stored { values: waves(config.vision.patches(), d), name, shape };
            }
            if let Some(values) = first_of_scan(&name, &shape, &mut random) {
                return Stored { name, shape, values };
            }
            let fan_in: usize = shape[1..].iter().product();
            let plain = (fan_in as f64).powf(-0.5);
            let ends = |end: &str| name.ends_with(end);
            let spread = match shape.len() {
                1 if name == names.newline || ends("class_embedding") => 0.02,
                1 => 0.0,
                // Small, so that every scale is chosen at first.
                _ if name.starts_with(SELECTOR) => 1e-3,
                _ if ends("embed_tokens.weight") => 0.1,
                // Matrices that add to the residual stream start smaller in a deeper stack (as in GPT-2).
                _ if ends("o_proj.weight") || ends("down_proj.weight") => plain / depth,
                _ if ends("out_proj.weight") || ends("fc2.weight") => plain / tower_depth,
                _ => plain,
            };
            let norm = shape.len() == 1 && ["norm.weight", "norm1.weight", "norm2.weight"].iter().any(|e| ends(e));
            let level = if norm { 1.0 } else { 0.0 };
            let count = shape.iter().product();
            let values = (0..count).map(|_| (level + spread * normal(&mut random)) as f32).collect();
            Stored { name, shape, values }
        })
        .collect()
}

/// Values of LLaVA-Meteor's fusion to start from; None for tensors that start as all others do. `W_out` is 0, so that every block
/// changes nothing at first. As in Mamba (arXiv 2312.00752), the decay rates of a channel are -1 to -S, the step sizes
/// `softplus(bias)` are log-uniform from 0.001 to 0.1, and D is 1.
fn first_of_scan(name: &str, shape: &[usize], random: &mut impl Rng) -> Option<Vec<f32>> {
    let count: usize = shape.iter().product();
    let end = name.strip_prefix(METEOR)?;
    if end.ends_with(".out_proj.weight") {
        return Some(vec![0.0; count]);
    }
    if end.ends_with(".D") {
        return Some(vec![1.0; count]);
    }
    if end.ends_with(".A_log") {
        let states = shape[shape.len() - 1];
        return Some((0..count).map(|i| ((i % states + 1) as f32).ln()).collect());
    }
    let inverse_softplus = |x: f64| x + (-(-x).exp_m1()).ln();
    end.ends_with(".dt_proj.bias").then(|| {
        let mut step = || between(random, [1e-3f64.ln(), 1e-1f64.ln()]).exp();
        (0..count).map(|_| inverse_softplus(step()) as f32).collect()
    })
}

/// Position embeddings to start from: sines and cosines of a patch's row and column at falling frequencies, zeros for the class
/// token. With them the tower learns quickly which patches are neighbours (as in MAE, arXiv 2111.06377; amplitude and frequencies
/// are our choice).
fn waves(patches: usize, d: usize) -> Vec<f32> {
    let mut values = vec![0.0; d];
    let quarter = (d / 4).max(1);
    for at in 0..patches * patches {
        values.extend((0..d).map(|i| {
            let along = if i < 2 * quarter { at / patches } else { at % patches };
            let angle = along as f64 * (patches as f64 * 4.0).powf(-((i % quarter) as f64) / quarter as f64);
            0.5 * (if (i / quarter).is_multiple_of(2) { angle.sin() } else { angle.cos() }) as f32
        }));
    }
    values
}

/// A random number with the standard normal distribution (Box and Muller).
fn normal(random: &mut impl Rng) -> f64 {
    let uniform = |r: &mut dyn FnMut() -> u64| (r() >> 11) as f64 / (1u64 << 53) as f64;
    let mut next = || random.next_u64();
    let (a, b) = (1.0 - uniform(&mut next), uniform(&mut next));
    (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

/// Completes a file of weights, in f32, and returns how many tensors start at random: those that the file does not have or has in
/// another shape, and those whose names start with one of `random`. So a finished checkpoint, which has no dense heads, can be
/// trained further, and a part can be trained from scratch.
///
/// # Errors
/// [`Error::Training`] if the file is broken, if no tensor has a name and shape of the model, or if an entry of `random` fits no
/// name.
pub(crate) fn completed(
    bytes: Vec<u8>,
    config: &Config,
    seed: u64,
    random: &[String],
) -> Result<(Vec<u8>, usize), Error> {
    let broken = |why: String| Error::Training(format!("the weights to start from: {why}"));
    let file = SafeTensors::deserialize(&bytes).map_err(|e| broken(e.to_string()))?;
    let mut all = first_weights(config, seed);
    if let Some(none) = random.iter().find(|a| !all.iter().any(|t| t.name.starts_with(a.as_str()))) {
        return Err(broken(format!("expected entries of `random` that start the name of a tensor, got {none:?}")));
    }
    let (mut left, needed) = (all.len(), all.len());
    for tensor in all.iter_mut().filter(|t| !random.iter().any(|a| t.name.starts_with(a.as_str()))) {
        let Ok(view) = file.tensor(&tensor.name) else { continue };
        if view.shape() != tensor.shape {
            continue;
        }
        left -= 1;
        let name = &tensor.name;
        tensor.values = match view.dtype() {
            Dtype::F32 => view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::F16 => view.data().as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
            Dtype::BF16 => view.data().as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
            other => return Err(broken(format!("expected floats in `{name}`, got {other:?}"))),
        };
    }
    if left == needed {
        return Err(broken("expected tensors of this model with the names of the hub, got none".into()));
    }
    Ok((safetensors(&all, false)?, left))
}

/// A safetensors file of `tensors`, in f16 if `half`, else in f32. The fusion of LLaVA-Meteor is always in f32.
pub(crate) fn safetensors(tensors: &[Stored], half: bool) -> Result<Vec<u8>, Error> {
    let in_f16 = |t: &Stored| half && !t.name.starts_with(METEOR);
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|t| match in_f16(t) {
            true => t.values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
            false => t.values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        })
        .collect();
    let dtype = |t: &Stored| if in_f16(t) { Dtype::F16 } else { Dtype::F32 };
    let failed = |e: safetensors::SafeTensorError| Error::Training(format!("the weights cannot be written: {e}"));
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|(t, b)| Ok((t.name.clone(), TensorView::new(dtype(t), t.shape.clone(), b)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(failed)?;
    safetensors::serialize(views, None).map_err(failed)
}

/// Opens the `bytes` of a safetensors file.
pub(crate) async fn open(bytes: Vec<u8>) -> Result<Weights, Error> {
    let file = ("model.safetensors".to_owned(), Cow::Owned(bytes));
    Ok(Weights::open(Source::memory("the weights in training", [file])).await?)
}

/// Gives parameters ids that are the same in every run, so that an optimiser's saved moments fit their parameters.
struct Numbered {
    next: u64,
}

impl ModuleMapper for Numbered {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (_, tensor, mapper) = param.consume();
        self.next += 1;
        let param = Param::from_mapped_value(ParamId::from(self.next), tensor, mapper);
        param.set_require_grad(true)
    }
}

/// Collects the values of every parameter.
struct Collected {
    found: VecDeque<Vec<f32>>,
}

impl ModuleVisitor for Collected {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let data: TensorData = param.val().into_data();
        // In training every parameter is f32.
        self.found.push_back(data.try_into_vec().unwrap_or_default());
    }
}
