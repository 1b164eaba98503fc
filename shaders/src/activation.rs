//! Activations between linear layers: the twin, and the codes of the kernels.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

/// An activation function, by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x sigmoid(1.702 x)` (CLIP).
    QuickGelu,
    /// `x Phi(x)`, with the cumulative distribution `Phi` of the normal distribution.
    Gelu,
    /// `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2` (SigLIP).
    GeluTanh,
    /// `x sigmoid(x)` (Llama, Qwen2).
    Silu,
}

impl Activation {
    /// All activations, in the order of their codes.
    pub const ALL: [Self; 4] = [Self::QuickGelu, Self::Gelu, Self::GeluTanh, Self::Silu];

    /// The value of the constant `ACTIVATION` of a kernel, 1 to 4; 0 is no activation.
    pub const fn code(self) -> u32 {
        self as u32 + 1
    }

    /// The function.
    pub fn apply(self, x: f64) -> f64 {
        match self {
            Self::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
            Self::Gelu => x * (1.0 + erf(x * FRAC_1_SQRT_2)) / 2.0,
            Self::GeluTanh => x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()) / 2.0,
            Self::Silu => x / (1.0 + (-x).exp()),
        }
    }
}

/// `erf(z) = 2 / sqrt(pi) exp(-z^2) sum over n of 2^n z^(2n+1) / (1 3 5 ... (2n+1))`: all terms have the same sign.
fn erf(z: f64) -> f64 {
    if z.abs() > 6.0 {
        return z.signum(); // 1 - erf(6) is 2e-17
    }
    let (mut term, mut sum, mut odd) = (z, z, 1.0);
    while term.abs() > 1e-17 * sum.abs() {
        odd += 2.0;
        term *= 2.0 * z * z / odd;
        sum += term;
    }
    FRAC_2_SQRT_PI * (-z * z).exp() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_from_tables() {
        let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-12, "expected {want}, got {got}");
        // Abramowitz and Stegun, table 7.1.
        for (z, want) in [(0.0, 0.0), (0.5, 0.520_499_877_813), (1.0, 0.842_700_792_95), (2.0, 0.995_322_265_019)] {
            near(erf(z), want);
            near(erf(-z), -want);
        }
        near(erf(7.0), 1.0);
        // sigmoid(ln 3) = 3/4.
        let x = 3f64.ln();
        near(Activation::Silu.apply(x), 0.75 * x);
        near(Activation::QuickGelu.apply(x / 1.702), 0.75 * x / 1.702);
        near(Activation::Gelu.apply(-2f64.sqrt()), -2f64.sqrt() * (1.0 - 0.842_700_792_95) / 2.0);
        // tanh(ln 3 / 2) = 1/2; x is the root of sqrt(2 / pi) (x + 0.044715 x^3) = ln 3 / 2.
        let x = 0.674_718_401_935_102_6;
        near(Activation::GeluTanh.apply(x), 0.75 * x);
    }

    #[test]
    fn no_activation_is_code_zero() {
        assert_eq!(Activation::ALL.map(Activation::code), [1, 2, 3, 4]);
        for activation in Activation::ALL {
            assert_eq!(activation.apply(0.0), 0.0);
            assert!((activation.apply(40.0) - 40.0).abs() < 1e-12 && activation.apply(-40.0).abs() < 1e-12);
        }
    }
}
