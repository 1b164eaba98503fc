//! Devices: a [`DeviceChoice`] in, an [`OpenDevice`] that passed its self-test out.
//!
//! Data flow: `choice` (what the user wants), `info` and `gpu_memory` (what an adapter is and has), `open` (lists, picks,
//! opens and tests).

pub(crate) mod choice;
#[cfg(not(target_family = "wasm"))]
mod gpu_memory;
pub(crate) mod info;
pub(crate) mod open;

pub use choice::DeviceChoice;
pub use info::{DeviceClass, DeviceInfo};
pub use open::{OpenDevice, adapters};
