//! The model as one module with gradients: the same parts that inference runs, and the heads of the dense labels.

use std::cell::Cell;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::nn::LayerNorm;
use burn::tensor::{DType, Device, Tensor, TensorData};
use fovea_runtime::{source::Source, weights::Weights};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::borrow::Cow;

use super::labels::HEAD;
use crate::{
    cancel::Cancel,
    config::Config,
    decoder::Decoder,
    error::Error,
    linear::Linear,
    load::Loader,
    names::{Names, SELECTOR},
    projector::Projector,
    vision::VisionTower,
    vision_sampler::ScaleSelector,
};

/// Everything that is trained.
#[derive(Module, Debug)]
pub(super) struct Network {
    pub tower: VisionTower,
    pub projector: Projector,
    pub newline: Param<Tensor<1>>,
    pub selector: ScaleSelector,
    pub decoder: Decoder,
    pub heads: DenseHeads,
}

/// What reads the dense labels off the vision tower's features; only training has it.
#[derive(Module, Debug)]
pub(super) struct DenseHeads {
    pub norm: LayerNorm,
    pub linear: Linear,
}

const HEADS: &str = "dense_heads";

/// A tensor of a checkpoint, on the host.
pub(super) struct Stored {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Network {
    /// A network of `stored` tensors, ready to be trained on `device`, parameters numbered in their order.
    pub async fn load(weights: &Weights, config: &Config, device: &Device) -> Result<Self, Error> {
        let names = Names::detect(weights, config.text.tied)?;
        let cancel = Cancel::default();
        let load = Loader {
            weights,
            device,
            dtype: DType::F32,
            done: Cell::new(0),
            total: 0,
            progress: &|_, _| {},
            cancel: &cancel,
        };
        let d = config.vision.d_model;
        let network = Self {
            tower: VisionTower::load(&load, &names, config).await?,
            projector: Projector::load(&load, &names, config).await?,
            newline: load.vector(names.newline, config.text.d_model).await?,
            selector: ScaleSelector::load(&load, config).await?,
            decoder: Decoder::load(&load, &names, config).await?,
            heads: DenseHeads {
                norm: load.layer_norm(&format!("{HEADS}.norm"), d, config.vision.epsilon).await?,
                linear: load.linear(&format!("{HEADS}.linear"), HEAD, d, true).await?,
            },
        };
        Ok(network.map(&mut Numbered { next: 0 }))
    }

    /// Every tensor under its name in a checkpoint of the hub's layout, in f32.
    pub fn stored(&self, config: &Config) -> Vec<Stored> {
        let mut all = Collected { path: Vec::new(), found: Vec::new() };
        self.visit(&mut all);
        let names = Names::hub();
        all.found
            .into_iter()
            .map(|(path, mut shape, values)| {
                let name = checkpoint_name(&path, &names);
                if name == names.vision("embeddings.patch_embedding.weight") {
                    shape = vec![config.vision.d_model, 3, config.vision.patch, config.vision.patch];
                }
                Stored { name, shape, values }
            })
            .collect()
    }
}

/// Whether only training has a use for a tensor.
pub(super) fn only_for_training(name: &str) -> bool {
    name.starts_with(HEADS)
}

/// The first weights: normal draws whose spread keeps the size of what flows through, norms of one, biases of zero.
pub(super) fn first_weights(config: &Config, seed: u64) -> Vec<Stored> {
    let names = Names::hub();
    let d = config.vision.d_model;
    let mut needed = names.needed(config, true);
    needed.push((format!("{HEADS}.norm.weight"), vec![d]));
    needed.push((format!("{HEADS}.norm.bias"), vec![d]));
    needed.push((format!("{HEADS}.linear.weight"), vec![HEAD, d]));
    needed.push((format!("{HEADS}.linear.bias"), vec![HEAD]));
    let depth = (2.0 * config.text.n_layers as f64).sqrt();
    let tower_depth = (2.0 * config.vision.n_used as f64).sqrt();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    needed
        .into_iter()
        .map(|(name, shape)| {
            if name.ends_with("position_embedding.weight") {
                return Stored { values: waves(config.vision.patches(), d), name, shape };
            }
            let fan_in: usize = shape[1..].iter().product();
            let plain = (fan_in as f64).powf(-0.5);
            let ends = |end: &str| name.ends_with(end);
            let spread = match shape.len() {
                1 if name == names.newline || ends("class_embedding") => 0.02,
                1 => 0.0,
                // Small, so that every scale is picked at first.
                _ if name.starts_with(SELECTOR) => 1e-3,
                _ if ends("embed_tokens.weight") => 0.1,
                // What adds to the residual stream starts smaller, the deeper the stack.
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

/// Sines and cosines of a patch's row and column at falling frequencies, the class token's place zero: from such a start
/// neighbours find each other soon (as in MAE, arXiv 2111.06377; amplitude and frequencies are our choice).
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

/// A standard normal draw (Box and Muller).
fn normal(random: &mut impl Rng) -> f64 {
    let uniform = |r: &mut dyn FnMut() -> u64| (r() >> 11) as f64 / (1u64 << 53) as f64;
    let mut next = || random.next_u64();
    let (a, b) = (1.0 - uniform(&mut next), uniform(&mut next));
    (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

/// A file of weights to start from, in f32. Tensors that it has not, has in another shape, or whose names begin as one of
/// `anew`, are the first weights: a finished checkpoint, which lacks the heads of the dense labels, can be trained on, and
/// a part can be built anew. Also how many of them there are.
///
/// # Errors
/// [`Error::Training`] where the file is broken, or no tensor of it has the name and shape of one of the model's.
pub(super) fn completed(
    bytes: Vec<u8>,
    config: &Config,
    seed: u64,
    anew: &[String],
) -> Result<(Vec<u8>, usize), Error> {
    let broken = |why: String| Error::Training(format!("the weights to start from: {why}"));
    let file = SafeTensors::deserialize(&bytes).map_err(|e| broken(e.to_string()))?;
    let mut all = first_weights(config, seed);
    if let Some(none) = anew.iter().find(|a| !all.iter().any(|t| t.name.starts_with(a.as_str()))) {
        return Err(broken(format!("expected `anew` to begin names of tensors, got {none:?}")));
    }
    let (mut left, needed) = (all.len(), all.len());
    for tensor in all.iter_mut().filter(|t| !anew.iter().any(|a| t.name.starts_with(a.as_str()))) {
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
        return Err(broken("expected tensors of this model under the names of the hub, got none".into()));
    }
    Ok((safetensors(&all, false)?, left))
}

/// A safetensors file of `tensors`.
pub(super) fn safetensors(tensors: &[Stored], half: bool) -> Result<Vec<u8>, Error> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|t| match half {
            true => t.values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
            false => t.values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        })
        .collect();
    let dtype = if half { Dtype::F16 } else { Dtype::F32 };
    let failed = |e: safetensors::SafeTensorError| Error::Training(format!("the weights cannot be written: {e}"));
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|(t, b)| Ok((t.name.clone(), TensorView::new(dtype, t.shape.clone(), b)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(failed)?;
    safetensors::serialize(views, None).map_err(failed)
}

/// `bytes` of a safetensors file as an open checkpoint.
pub(super) async fn open(bytes: Vec<u8>) -> Result<Weights, Error> {
    let file = ("model.safetensors".to_owned(), Cow::Owned(bytes));
    Ok(Weights::open(Source::memory("the weights in training", [file])).await?)
}

/// `tower.layers.0.q_proj.weight` -> the name that checkpoints have it under.
fn checkpoint_name(path: &str, names: &Names) -> String {
    let (part, rest) = path.split_once('.').unwrap_or((path, ""));
    // burn's norms have gamma and beta, checkpoints weight and bias.
    let rest = rest.replace(".gamma", ".weight").replace(".beta", ".bias");
    let layer = rest.strip_prefix("layers.").and_then(|r| r.split_once('.')).map(|(i, r)| (i.to_owned(), r.to_owned()));
    let attention = |r: &str| ["q_proj", "k_proj", "v_proj", "o_proj", "out_proj"].iter().any(|p| r.starts_with(p));
    let feed_forward = |r: &str| ["gate_proj", "up_proj", "down_proj", "fc1", "fc2"].iter().any(|p| r.starts_with(p));
    let within = |r: &str| match () {
        () if attention(r) => format!("self_attn.{r}"),
        () if feed_forward(r) => format!("mlp.{r}"),
        () => r.to_owned(),
    };
    match (part, layer) {
        ("tower", Some((i, r))) => names.vision(&format!("encoder.layers.{i}.{}", within(&r))),
        ("tower", None) => match rest.as_str() {
            "class_embedding" => names.vision("embeddings.class_embedding"),
            "patch_embedding" => names.vision("embeddings.patch_embedding.weight"),
            "position_embedding" => names.vision("embeddings.position_embedding.weight"),
            other => names.vision(other),
        },
        ("projector", _) => format!("multi_modal_projector.{rest}"),
        ("newline", _) => names.newline.to_owned(),
        ("selector", _) => format!("{SELECTOR}.{rest}"),
        ("decoder", Some((i, r))) => names.text(&format!("layers.{i}.{}", within(&r))),
        ("decoder", None) => match rest.as_str() {
            "embed_tokens" => names.embedding(),
            "lm_head" => names.head(),
            other => names.text(other),
        },
        _ => format!("{HEADS}.{rest}"),
    }
}

/// Gives parameters ids that are the same in every run, so that an optimiser's record finds them again.
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

struct Collected {
    path: Vec<String>,
    found: Vec<(String, Vec<usize>, Vec<f32>)>,
}

impl ModuleVisitor for Collected {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        let shape = tensor.dims().to_vec();
        let data: TensorData = tensor.into_data();
        // f32 throughout: training never keeps a parameter in another type.
        self.found.push((self.path.join("."), shape, data.try_into_vec().unwrap_or_default()));
    }
}
