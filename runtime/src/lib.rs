//! Devices, weights, custom operations, the KV cache and memory: everything under the network.
//!
//! This is the only crate that names `burn-wgpu` or `wgpu`. It knows nothing of layers, tokens or images.
//!
//! Read in the order in which a run meets them:
//! [`device`] (open one, prove it; `watch` hears of its loss) · [`hub_cache`] (where a checkpoint is) · [`source`] (files,
//! without reading them whole) · [`json`] (settings, as Python reads them) ·
//! [`weights`] (safetensors, checked, tensor by tensor) · [`sampler_ops`] (the operations that Fovea exists for; `launch`
//! brings their kernels to a GPU) · [`element_ops`] · [`kv_cache`] · [`memory`] · [`sentinels`] (for the conformance
//! suite).

#[cfg(feature = "cuda")]
mod cuda;
pub mod device;
pub mod element_ops;
mod error;
pub mod hub_cache;
pub mod json;
pub mod kv_cache;
mod launch;
pub mod memory;
pub mod sampler_ops;
pub mod sentinels;
pub mod source;
mod watch;
pub mod weights;

pub use device::{DeviceChoice, DeviceInfo, OpenDevice};
pub use error::Error;
pub use fovea_shaders::{Cell, Keep, Scale, TokenBox, compact, regions, top_k};
