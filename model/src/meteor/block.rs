//! One block of LLaVA-Meteor's fusion (our interpretation): a Mamba block (arXiv 2312.00752) in one or two directions. Input and
//! output: tokens of the question, then patches.
//!
//! Letters: L tokens, I of them the question's; D their width; E channels; S states per channel; R rank of the step sizes.

use burn::module::{Module, Param};
use burn::tensor::{
    DType, Tensor,
    activation::{relu, silu},
};
use fovea_runtime::{
    Error as RuntimeError,
    network_ops::After,
    read::settle,
    sampler_ops::indices,
    scan_ops::{Discretisation, selective_scan},
};

use super::picked;
use crate::{
    config::MeteorConfig,
    error::Error,
    linear::Linear,
    load::Loader,
    matrix::Part,
    norm::Norm,
    pace::{Pace, Steps},
};

/// A selective scan inside a gate and a residual connection.
#[derive(Module, Debug)]
pub(super) struct Block {
    norm: Norm,
    /// Input of the scans, then the gate, side by side.
    in_proj: Linear,
    out_proj: Linear,
    forward: Direction,
    backward: Option<Direction>,
}

/// A selective scan in one direction.
#[derive(Module, Debug)]
struct Direction {
    conv1d: Option<Convolution>,
    /// Step sizes in R values, input weights, output weights, side by side.
    x_proj: Linear,
    dt_proj: Linear,
    /// (E, S): the logarithms of the negative decay rates.
    a_log: Param<Tensor<2>>,
    /// (E,): the weights of the input in the output.
    skip: Param<Tensor<1>>,
}

/// A convolution over time, with a separate kernel for every channel.
#[derive(Module, Debug)]
struct Convolution {
    /// (E, 1, K).
    weight: Param<Tensor<3>>,
    /// (E,).
    bias: Param<Tensor<1>>,
}

/// `{name}.weight` (out, inputs), always in f32, and `{name}.bias` (out) if `bias` is set.
pub(super) async fn linear(
    load: &Loader<'_>,
    name: &str,
    [out, inputs]: [usize; 2],
    bias: bool,
) -> Result<Linear, Error> {
    let weight = vec![Part::Float(load.exact(&format!("{name}.weight"), [out, inputs]).await?)];
    let bias = if bias { Some(load.vector(&format!("{name}.bias"), out).await?) } else { None };
    Ok(Linear { weight, bias })
}

/// `ln(1 + e^x)`, by `ln(1 + t) = 2 atanh(t / (2 + t))` with `t = e^-|x|` and seven terms of the series, which reach the last bit
/// of f32. `ln` of a sum would lose small step sizes, and not every device has an exact `log1p`.
fn softplus(x: Tensor<2>) -> Tensor<2> {
    let t = x.clone().abs().neg().exp();
    let s = t.clone() / (t + 2.0);
    let square = s.clone() * s.clone();
    let first = square.clone() / 13.0 + 1.0 / 11.0;
    let series = [9.0, 7.0, 5.0, 3.0, 1.0].into_iter().fold(first, |sum, n| sum * square.clone() + 1.0 / n);
    relu(x) + s * series * 2.0
}

/// `out_t = bias + sum_j weight_j x_(t - K + 1 + j)` in every channel, with zeros before the first token.
///
/// # Shapes
/// `x` (L, E), `weight` (E, 1, K), `bias` (E,) -> (L, E).
fn causal_conv(x: Tensor<2>, weight: Tensor<3>, bias: Tensor<1>) -> Tensor<2> {
    let ([rows, e], [_, _, k]) = (x.dims(), weight.dims());
    let weight = weight.reshape([e, k]).transpose();
    let x = match k - 1 {
        0 => x,
        before => Tensor::cat(vec![Tensor::zeros([before, e], (&x.device(), DType::F32)), x], 0),
    };
    (0..k)
        .fold(bias.unsqueeze(), |sum: Tensor<2>, j| sum + x.clone().narrow(0, j, rows) * weight.clone().narrow(0, j, 1))
}

impl Direction {
    /// Loads the tensors `{name}.*` for tokens of width `d`.
    async fn load(load: &Loader<'_>, name: &str, d: usize, config: &MeteorConfig) -> Result<Self, Error> {
        let (e, s, r, k) = (config.expand * d, config.d_state, config.rank(d), config.d_conv);
        let conv1d = match k {
            0 => None,
            k => Some(Convolution {
                weight: load.exact(&format!("{name}.conv1d.weight"), [e, 1, k]).await?,
                bias: load.vector(&format!("{name}.conv1d.bias"), e).await?,
            }),
        };
        Ok(Self {
            conv1d,
            x_proj: linear(load, &format!("{name}.x_proj"), [r + 2 * s, e], false).await?,
            dt_proj: linear(load, &format!("{name}.dt_proj"), [e, r], true).await?,
            a_log: load.exact(&format!("{name}.A_log"), [e, s]).await?,
            skip: load.vector(&format!("{name}.D"), e).await?,
        })
    }

    /// With `u' = silu(conv(u))` and `(r, b, c) = W_x u'`: the selective scan of `u'` with step sizes `softplus(W_dt r + bias)`,
    /// decay rates `-exp(A_log)`, input weights b and output weights c.
    ///
    /// # Shapes
    /// (L, E) -> (L, E), f32.
    fn run(&self, u: Tensor<2>, how: Discretisation) -> Result<Tensor<2>, Error> {
        let u = silu(match &self.conv1d {
            Some(conv) => causal_conv(u, conv.weight.val(), conv.bias.val()),
            None => u,
        });
        let a_log = self.a_log.val();
        let states = a_log.dims()[1];
        let parts = self.x_proj.forward(u.clone())?;
        let rank = parts.dims()[1] - 2 * states;
        let part = |first, count| parts.clone().narrow(1, first, count);
        let delta = softplus(self.dt_proj.forward(part(0, rank))?);
        let (b, c) = (part(rank, states), part(rank + states, states));
        Ok(selective_scan(u, delta, a_log.exp().neg(), b, c, self.skip.val(), how)?)
    }
}

impl Block {
    /// Loads the tensors `{name}.*` for tokens of width `d`.
    pub async fn load(load: &Loader<'_>, name: &str, d: usize, config: &MeteorConfig) -> Result<Self, Error> {
        let e = config.expand * d;
        Ok(Self {
            norm: load.rms_norm(&format!("{name}.norm.weight"), d, config.norm_eps).await?,
            in_proj: linear(load, &format!("{name}.in_proj"), [2 * e, d], false).await?,
            out_proj: linear(load, &format!("{name}.out_proj"), [d, e], false).await?,
            forward: Direction::load(load, &format!("{name}.forward"), d, config).await?,
            backward: match config.bidirectional {
                true => Some(Direction::load(load, &format!("{name}.backward"), d, config).await?),
                false => None,
            },
        })
    }

    /// `x + W_out ((y_forward + y_backward) * silu(z))` with `(u, z) = W_in norm(x)`. The backward direction reads the question
    /// first, too, and then the patches from the last to the first: in both, the question is known before the picture.
    ///
    /// # Shapes
    /// `x` (L, D), the first `words` rows are the question's -> the same, f32.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`] if the device cannot bind (L, E) values; [`Error::Cancelled`]; those of the operations.
    pub async fn run(
        &self,
        x: Tensor<2>,
        words: usize,
        how: Discretisation,
        (steps, pace): (Steps, &Pace),
    ) -> Result<Tensor<2>, Error> {
        let ([rows, d], [e, states]) = (x.dims(), self.forward.a_log.dims());
        let (most, row) = (steps.rows(0, e as u64), 4 * e as u64);
        if rows > most {
            let what = "a scan of LLaVA-Meteor's fusion".into();
            let hint = "use a smaller picture, another --device, or another method than meteor".into();
            return Err(
                RuntimeError::OutOfMemory { what, need: rows as u64 * row, have: most as u64 * row, hint }.into()
            );
        }
        let u = self.in_proj.columns(x.clone(), &self.norm, 0..e)?;
        pace.between(steps).await?;
        let mut y = self.forward.run(u.clone(), how)?;
        if let Some(backward) = &self.backward {
            pace.between(steps).await?;
            // Its own inverse.
            let turn: Vec<usize> = (0..words).chain((words..rows).rev()).collect();
            let turn = indices(&turn, rows, &x.device())?;
            y = y + picked(backward.run(picked(u, &turn)?, how)?, &turn)?;
        }
        pace.between(steps).await?;
        let z = self.in_proj.columns(x.clone(), &self.norm, e..2 * e)?;
        let out = self.out_proj.run(y * silu(z), None, After::Add { residual: x, factor: 1.0 })?;
        if steps.waits((rows * e * (3 * d + 6 * states)) as u64) {
            settle(&out).await?;
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    fn assert_near(got: Tensor<2>, expected: &[f64], what: &str) {
        let got: Vec<f64> = got.into_data().iter::<f64>().collect();
        let near = got.len() == expected.len() && got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 2e-5);
        assert!(near, "{what}: expected {expected:?}, got {got:?}");
    }

    fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values, shape), (&Device::flex(), DType::F32))
    }

    /// `sin(1.7 i + start)`.
    fn waves<const D: usize>(shape: [usize; D], start: usize) -> Param<Tensor<D>> {
        let count: usize = shape.iter().product();
        let values = (0..count).map(|i| (i as f64 * 1.7 + start as f64).sin() as f32);
        Param::from_tensor(tensor(values.collect(), shape))
    }

    #[test]
    fn a_convolution_reads_earlier_tokens_only() {
        let conv = |x: Vec<f32>, weight: Vec<f32>, bias| {
            let (rows, k) = (x.len(), weight.len());
            causal_conv(tensor(x, [rows, 1]), tensor(weight, [1, 1, k]), tensor(vec![bias], [1]))
        };
        assert_near(conv(vec![1.0, 2.0, 3.0], vec![0.5, 0.25, 1.0], 0.0), &[1.0, 2.25, 4.0], "K 3");
        assert_near(conv(vec![1.0, 2.0, 3.0], vec![2.0], 1.0), &[3.0, 5.0, 7.0], "K 1");
        assert_near(conv(vec![1.0], vec![0.5, 0.25, 1.0], 0.0), &[1.0], "one token");
        // Two channels, each with its own kernel.
        let two = causal_conv(
            tensor(vec![1.0, 10.0, 2.0, 20.0], [2, 2]),
            tensor(vec![1.0, 0.0, 0.5, 1.0], [2, 1, 2]),
            tensor(vec![0.0, 1.0], [2]),
        );
        assert_near(two, &[0.0, 11.0, 1.0, 26.0], "two channels");
    }

    #[test]
    fn small_step_sizes_are_exact() {
        let x: Vec<f32> = (-600..600).map(|i| i as f32 / 20.0).chain([-80.0, 80.0, 1e4]).collect();
        let got = softplus(tensor(x.clone(), [1, x.len()])).into_data();
        for (x, got) in x.into_iter().zip(got.iter::<f64>()) {
            let x = f64::from(x);
            let expected = x.max(0.0) + (-x.abs()).exp().ln_1p();
            assert!((got - expected).abs() <= 4e-7 * expected, "softplus({x}): expected {expected}, got {got}");
        }
    }

    /// A block of D = 2, E = 4, S = 2, R = 1, K = 3, with a wave in every tensor.
    fn block(bidirectional: bool) -> Block {
        let linear = |shape, start| Linear { weight: vec![Part::Float(waves(shape, start))], bias: None };
        let direction = |start: usize| Direction {
            a_log: waves([4, 2], start),
            skip: waves([4], start + 1),
            conv1d: Some(Convolution { bias: waves([4], start + 2), weight: waves([4, 1, 3], start + 3) }),
            dt_proj: Linear { bias: Some(waves([4], start + 4)), ..linear([4, 1], start + 5) },
            x_proj: linear([5, 4], start + 6),
        };
        Block {
            backward: bidirectional.then(|| direction(0)),
            forward: direction(7),
            in_proj: linear([8, 2], 14),
            norm: Norm { gamma: waves([2], 15), beta: None, epsilon: 1e-5 },
            out_proj: linear([2, 4], 16),
        }
    }

    /// The values are those of a float64 implementation in PyTorch.
    #[test]
    fn a_block_scans_the_question_first_in_both_directions() {
        let (euler, zoh) = (Discretisation::Euler, Discretisation::Zoh);
        for (how, both, expected) in [
            (euler, true, [-0.877598, -1.067419, -0.858157, -0.735682, -2.595075, -3.813576, -0.934541, -0.144097]),
            (euler, false, [-0.64854, -0.525433, -0.928204, -0.809559, -2.472986, -3.314096, -1.01414, -0.243218]),
            (zoh, true, [-0.428733, -0.439995, -0.773996, -0.626252, -1.208689, -1.957239, -0.919163, -0.126954]),
            (zoh, false, [-0.295471, -0.073675, -0.833173, -0.687236, -1.345998, -2.080199, -1.000792, -0.230048]),
        ] {
            let x = tensor((0..8_u32).map(|i| (f64::from(i) * 1.7 + 0.5).sin() as f32).collect(), [4, 2]);
            let pace = Pace::default();
            let out = pollster::block_on(block(both).run(x, 1, how, (Steps::WHOLE, &pace))).expect("a block");
            assert_near(out, &expected, &format!("{how:?}, both directions: {both}"));
        }
    }

    #[test]
    fn a_scan_that_no_buffer_holds_is_refused() {
        let (x, pace) = (tensor(vec![0.0; 8], [4, 2]), Pace::default());
        let block = block(true);
        let run = block.run(x, 1, Discretisation::Euler, (Steps::of_values(12), &pace));
        let why = pollster::block_on(run).expect_err("4 x 4 values").to_string();
        assert!(why.contains("a scan of LLaVA-Meteor's fusion: needs 64 B, available 48 B"), "{why}");
    }
}
