//! The nonlinearities that published checkpoints use, by the names in their configs.

use fovea_runtime::network_ops::Activation;
use serde::Serializer;

pub(super) const ACTIVATIONS: [(&str, Activation); 4] = [
    ("quick_gelu", Activation::QuickGelu),
    ("gelu", Activation::Gelu),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("silu", Activation::Silu),
];

/// Writes an activation as its name.
pub(super) fn name<S: Serializer>(activation: &Activation, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match activation {
        Activation::QuickGelu => "quick_gelu",
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_tanh",
        Activation::Silu => "silu",
    })
}
