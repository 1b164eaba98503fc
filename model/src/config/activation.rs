//! The nonlinearities that published checkpoints use.

use serde::Serialize;

/// A nonlinearity.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
    /// `x * Phi(x)` with the exact normal distribution function Phi.
    Gelu,
    /// `x * sigmoid(x)`.
    Silu,
}

pub(super) const ACTIVATIONS: [(&str, Activation); 3] =
    [("quick_gelu", Activation::QuickGelu), ("gelu", Activation::Gelu), ("silu", Activation::Silu)];
