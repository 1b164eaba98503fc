//! Devices, weights, operations of samplers and network, KV cache and memory: everything below the network.
//!
//! Only this crate names `burn-wgpu` or `wgpu`. It knows nothing about layers, tokens or pictures.
//!
//! The modules in the order of the data:
//!
//! - A device: [`device`] opens and tests one; [`memory`] is what the host has left.
//! - A checkpoint: [`hub_cache`] finds its folder, [`source`] reads its files, [`json`] its settings, [`gguf`] settings and
//!   tensors in one file, [`weights`] its tensors, as floats or codes; [`quantise`] turns floats into codes.
//! - Computation: [`network_ops`], whose weights can be divided between [`helpers`], [`kv_cache`], [`sampler_ops`] and
//!   [`scan_ops`]; [`read`] brings results back to the host.

mod error;

pub mod device;
#[cfg(feature = "cuda")]
mod cuda;
mod watch;
pub mod memory;

pub mod hub_cache;
pub mod source;
pub mod json;
pub mod gguf;
pub mod quantise;
pub mod weights;

pub mod kv_cache;
mod cpu;
pub mod network_ops;
pub mod helpers;
pub mod sampler_ops;
pub mod scan_ops;
mod launch;
#[cfg(not(target_family = "wasm"))]
mod recorder;
mod sentinels;
pub mod read;
mod self_test;

#[doc(hidden)]
pub mod testing;

#[cfg(target_arch = "wasm32")]
pub use cpu::use_relaxed_simd;
pub use device::{DeviceChoice, DeviceInfo, OpenDevice};
pub use error::Error;
pub use fovea_shaders::{Cell, Keep, Scale, TokenBox};
