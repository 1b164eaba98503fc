// The activation between two linear layers. ACTIVATION: 0 none, 1 QuickGELU, 2 GELU, 3 GELU by tanh, 4 SiLU.

// The smallest exponential is 1e-35, because a larger one than f32 can hold is NaN or infinite on some devices.
fn sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + exp(min(-x, 80.0)));
}

// x Phi(x), with Phi(-z sqrt(2)) = erfc(z) / 2 (Abramowitz and Stegun 7.1.26: absolute error 1.5e-7).
fn gelu(x: f32) -> f32 {
    let z = min(abs(x) * 0.70710678, 12.0);
    let t = 1.0 / (1.0 + 0.3275911 * z);
    let erfc = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    return max(x, 0.0) - abs(x) * (0.5 * erfc * exp(-z * z));
}

fn activate(x: f32) -> f32 {
    if (ACTIVATION == 1u) {
        return x * sigmoid(1.702 * x);
    }
    if (ACTIVATION == 2u) {
        return gelu(x);
    }
    if (ACTIVATION == 3u) {
        // (1 + tanh(u)) / 2 = sigmoid(2 u)
        return x * sigmoid(1.59576912 * (x + 0.044715 * x * x * x));
    }
    if (ACTIVATION == 4u) {
        return x * sigmoid(x);
    }
    return x;
}
