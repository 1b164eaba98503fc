//! Devices: a [`DeviceChoice`] in, an [`OpenDevice`] that passed its self-test out.
//!
//! Data flow: `choice` (what the user wants), `info` (what an adapter is), `open` (lists, picks, opens and tests).

pub(crate) mod choice;
pub(crate) mod info;
pub(crate) mod open;

pub use choice::DeviceChoice;
pub use info::{DeviceClass, DeviceInfo};
pub use open::{OpenDevice, adapters};
