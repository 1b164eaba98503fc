//! AdamW for groups of parameters. The norm of the gradient is clipped over all groups together.

use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Gradients, Tensor};
use fovea_model::Error;

use crate::{config::Rates, network::Trained};

/// Largest norm of the gradient.
const CLIP: f64 = 1.0;
/// Weight decay of matrices. Vectors, the selector and decay rates of a scan have none.
const DECAY: f32 = 0.05;

/// The optimisers: vision tower with the dense heads; projector, newline and text model; scale selector; LLaVA-Meteor's fusion, if
/// the network has it.
pub(crate) struct Optimisers {
    groups: Vec<(Vec<ParamId>, ModuleOptimizer)>,
}

/// Gradients of one step per group.
pub(crate) struct Clipped {
    groups: Vec<GradientsParams>,
    /// Norm of the gradient before clipping.
    pub norm: f64,
}

/// Files of the optimisers' moments.
const FILES: [&str; 4] = ["tower.bpk", "text.bpk", "selector.bpk", "meteor.bpk"];

impl Optimisers {
    /// Optimisers without moments, for the parameters of `network`.
    pub fn new(network: &Trained) -> Self {
        let adam = |decay: f32| {
            AdamWConfig::new().with_beta_1(0.9).with_beta_2(0.98).with_epsilon(1e-8).with_weight_decay(decay).build()
        };
        let mut ids = Ids { path: Vec::new(), all: Vec::new() };
        network.visit(&mut ids);
        let of = |group: usize| {
            let ids: Vec<_> = ids.all.iter().filter(|(path, ..)| group_of(path) == group).collect();
            let decays = ids.iter().filter(|(path, _, rank)| *rank > 1 && group != 2 && !path.ends_with("a_log"));
            let matrices = decays.map(|(_, id, _)| *id).collect();
            let optimiser = ModuleOptimizer::from(adam(0.0));
            let optimiser = optimiser.with_group(ParamGroup::from_ids(matrices), adam(DECAY), None);
            (ids.iter().map(|(_, id, _)| *id).collect(), optimiser)
        };
        let count = if network.network.meteor.is_some() { 4 } else { 3 };
        Self { groups: (0..count).map(of).collect() }
    }

    /// The gradients per group, scaled so that their norm over all groups with a learning rate above 0 is at most [`CLIP`].
    ///
    /// # Errors
    /// [`Error::Training`] if the norm is not finite.
    pub fn gradients(&self, network: &Trained, mut grads: Gradients, rates: [f64; 4]) -> Result<Clipped, Error> {
        let mut groups: Vec<GradientsParams> = Vec::with_capacity(self.groups.len());
        for ((ids, _), rate) in self.groups.iter().zip(rates) {
            let learns = if rate > 0.0 { ids.as_slice() } else { &[] };
            groups.push(GradientsParams::from_params(&mut grads, network, learns));
        }
        let mut norm = Norm { grads: &groups, sum: None };
        network.visit(&mut norm);
        let norm = norm.sum.map_or(0.0, |s| s.into_data().iter::<f64>().next().unwrap_or(f64::NAN)).sqrt();
        if !norm.is_finite() {
            return Err(Error::Training(format!("expected a finite gradient, got a norm of {norm}; try lower rates")));
        }
        if norm > CLIP {
            network.visit(&mut Scaled { grads: &mut groups, by: CLIP / norm });
        }
        Ok(Clipped { groups, norm })
    }

    /// Makes one step, and returns the network.
    pub fn step(&mut self, mut network: Trained, gradients: Clipped, rates: [f64; 4]) -> Trained {
        for (((_, optimiser), grads), rate) in self.groups.iter_mut().zip(gradients.groups).zip(rates) {
            if !grads.is_empty() {
                network = optimiser.step(rate, network, grads);
            }
        }
        network
    }

    /// Writes the moments to `dir`.
    ///
    /// # Errors
    /// [`Error::Training`] if a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        for ((_, optimiser), file) in self.groups.iter().zip(FILES) {
            optimiser.save(dir.join(file)).map_err(|e| Error::Training(format!("{file} cannot be written: {e:?}")))?;
        }
        Ok(())
    }

    /// Reads the moments that [`Self::save`] wrote to `dir`.
    ///
    /// # Errors
    /// [`Error::Training`] if a file cannot be read.
    pub fn load(self, dir: &Path) -> Result<Self, Error> {
        let mut groups = Vec::with_capacity(self.groups.len());
        for ((ids, optimiser), file) in self.groups.into_iter().zip(FILES) {
            let optimiser = optimiser.load(dir.join(file));
            groups.push((ids, optimiser.map_err(|e| Error::Training(format!("{file} cannot be read: {e:?}")))?));
        }
        Ok(Self { groups })
    }
}

/// Learning rates in the order of the groups.
pub(crate) fn rates(rates: Rates, share: f64) -> [f64; 4] {
    [rates.tower, rates.text, rates.selector, rates.meteor].map(|rate| rate * share)
}

fn group_of(path: &str) -> usize {
    let path = path.strip_prefix("network.").unwrap_or(path);
    match path.split('.').next() {
        Some("tower" | "heads") => 0,
        Some("selector") => 2,
        Some("meteor") => 3,
        _ => 1,
    }
}

struct Ids {
    path: Vec<String>,
    all: Vec<(String, ParamId, usize)>,
}

impl ModuleVisitor for Ids {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.all.push((self.path.join("."), param.id, D));
    }
}

struct Norm<'a> {
    grads: &'a [GradientsParams],
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for Norm<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(grad) = self.grads.iter().find_map(|g| g.get::<D>(param.id)) else { return };
        let square = grad.square().sum();
        self.sum = Some(match self.sum.take() {
            Some(sum) => sum + square,
            None => square,
        });
    }
}

struct Scaled<'a> {
    grads: &'a mut [GradientsParams],
    by: f64,
}

impl ModuleVisitor for Scaled<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        for grads in self.grads.iter_mut() {
            if let Some(grad) = grads.remove::<D>(param.id) {
                grads.register(param.id, grad * self.by);
            }
        }
    }
}
