//! The selective scan of a state space model (S6 of Mamba, arXiv 2312.00752).
//!
//! [`selective_scan`] checks shapes, and calls the trait [`ScanOps`]. Its default body is tensor operations, which run
//! on each backend and have gradients (`tensor_ops`). WGSL kernels replace it where the device compiles WGSL and on
//! CUDA (`kernels`), a loop on the CPU (`flex`).

use burn::backend::Dispatch;
use burn::tensor::Tensor;
pub use fovea_shaders::Discretisation;

mod backend;
mod flex;
mod kernels;
mod tensor_ops;

pub use backend::ScanOps;

use crate::error::Error;

/// `h[t] = exp(delta[t] a) h[t - 1] + drive[t]` for each channel and state, from `h = 0`; the result is
/// `y[t] = sum over states of c[t] h[t], + d u[t]`. The drive is `delta b u` or, with [`Discretisation::Zoh`],
/// `(exp(delta a) - 1) / a b u`.
///
/// The values are not checked: all finite, `delta` not negative, `a` negative. The states (L, E, S) are never stored,
/// except for gradients.
///
/// # Shapes
/// `u` and `delta` (L, E), `a` (E, S), `b` and `c` (L, S), `d` (E,) -> (L, E), f32.
///
/// # Errors
/// [`Error::Shape`] where the shapes do not match, or where one is empty.
pub fn selective_scan(
    u: Tensor<2>,
    delta: Tensor<2>,
    a: Tensor<2>,
    b: Tensor<2>,
    c: Tensor<2>,
    d: Tensor<1>,
    discretisation: Discretisation,
) -> Result<Tensor<2>, Error> {
    let ([length, channels], states) = (u.dims(), a.dims()[1]);
    let fits = delta.dims() == [length, channels]
        && a.dims() == [channels, states]
        && b.dims() == [length, states]
        && c.dims() == [length, states]
        && d.dims() == [channels];
    if !fits || [length, channels, states].contains(&0) {
        return Err(Error::Shape {
            op: "selective_scan",
            expected: "u and delta (L, E), a (E, S), b and c (L, S), d (E), none empty".into(),
            got: format!(
                "({length}, {channels}), {:?}, {:?}, {:?}, {:?}, {:?}",
                delta.dims(),
                a.dims(),
                b.dims(),
                c.dims(),
                d.dims()
            ),
        });
    }
    Ok(Tensor::from_dispatch(<Dispatch as ScanOps>::selective_scan(
        u.into_dispatch(),
        delta.into_dispatch(),
        a.into_dispatch(),
        b.into_dispatch(),
        c.into_dispatch(),
        d.into_dispatch(),
        discretisation,
    )))
}

#[cfg(all(test, feature = "train"))]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    /// Expected: differences of the twin in f64. Seven steps are chunks of two, and one step is added.
    #[test]
    fn gradients_of_all_inputs_are_those_of_the_twin() {
        let [length, channels, states] = [7, 2, 3];
        let wave = |[rows, width]: [usize; 2], seed: f64| -> Vec<f64> {
            (0..rows * width).map(|i| (7.0 * i as f64 + seed).sin()).collect()
        };
        let (of_channels, of_states) = ([length, channels], [length, states]);
        let shapes = [of_channels, of_channels, [channels, states], of_states, of_states, [1, channels]];
        let mut inputs: [Vec<f64>; 6] = std::array::from_fn(|i| wave(shapes[i], i as f64));
        // delta a from -0.01 to -2.5: with and without the series near 0.
        inputs[1].iter_mut().for_each(|x| *x = (2.0 * *x - 2.0).exp());
        inputs[2].iter_mut().for_each(|x| *x -= 1.5);
        let weights = wave(of_channels, 6.0);
        let device = Device::flex().autodiff();
        let tensor = |values: &[f64], shape: [usize; 2]| {
            let values: Vec<f32> = values.iter().map(|x| *x as f32).collect();
            Tensor::<2>::from_data(TensorData::new(values, shape), &device)
        };
        for discretisation in [Discretisation::Euler, Discretisation::Zoh] {
            let loss = |[u, delta, a, b, c, d]: &[Vec<f64>; 6]| -> f64 {
                let y = fovea_shaders::selective_scan(u, delta, a, b, c, d, discretisation);
                y.iter().zip(&weights).map(|(y, weight)| y * weight).sum()
            };
            let leaves: [Tensor<2>; 6] = std::array::from_fn(|i| tensor(&inputs[i], shapes[i]).require_grad());
            let [u, delta, a, b, c, d] = leaves.clone();
            let y = selective_scan(u, delta, a, b, c, d.reshape([channels]), discretisation).expect("a result");
            let sum = (y * tensor(&weights, of_channels)).sum();
            let got = sum.clone().inner().into_data().iter::<f64>().next().expect("a sum");
            let expected = loss(&inputs);
            assert!((got - expected).abs() < 1e-5, "{discretisation:?}: expected {expected}, got {got}");
            let gradients = sum.backward();
            for (i, leaf) in leaves.iter().enumerate() {
                let gradient = leaf.grad(&gradients).expect("a gradient").into_data();
                for (at, got) in gradient.iter::<f64>().enumerate() {
                    let moved = |by: f64| {
                        let mut inputs = inputs.clone();
                        inputs[i][at] += by;
                        loss(&inputs)
                    };
                    let expected = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                    let close = (got - expected).abs() < 1e-5 * expected.abs().max(1.0);
                    assert!(close, "{discretisation:?}: input {i}, {at}: expected {expected}, got {got}");
                }
            }
        }
    }
}
