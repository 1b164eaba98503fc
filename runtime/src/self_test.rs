//! The self-test of a device: small computations with results known by hand.
//!
//! A device is used only after it passed: a driver that miscompiles a kernel must not answer questions. Each operation
//! of the samplers and of the network runs once, before anything depends on it.

use std::time::Instant;

use burn::tensor::{DType, Device, Tensor, TensorData, activation};
use fovea_shaders::{Keep, Scale};

use crate::{
    device::info::DeviceInfo,
    error::Error,
    kv_cache::LayerCache,
    network_ops::{self, After, Cursor, Heads, Weight},
    read::read_f32,
    sampler_ops,
};

/// The error of a value, relative to those above 1.
const BOUND: f32 = 1e-5;

/// Tests `device`: a softmax, then each operation of the samplers and of the network.
///
/// # Errors
/// [`Error::SelfTest`] where a result is wrong, [`Error::DeviceLost`] where the device does not answer.
pub(crate) async fn run(device: &Device, info: &DeviceInfo) -> Result<(), Error> {
    let start = (!cfg!(target_family = "wasm")).then(Instant::now); // wasm has no such clock
    // One of burn's own operations. Its products are tested only where our kernels do not run, see `network`: a question
    // needs them for odd widths only, and they take long to compile.
    let logs = Tensor::<2>::from_data(TensorData::from([[1f32.ln(), 2f32.ln(), 5f32.ln()]]), device);
    expect(info, "softmax", &[0.125, 0.25, 0.625], activation::softmax(logs, 1)).await?;
    let map: Vec<f32> = (0..12).map(|i| i as f32).collect(); // (2, 3, 2)
    let map = Tensor::<3>::from_data(TensorData::new(map, [2, 3, 2]), device);
    // Window 2 over 2 x 3 patches: two regions, of 2 x 2 and 2 x 1 patches.
    let scales = [Scale::new(2, 2), Scale::new(1, 1)];
    let pooled = sampler_ops::region_pool(map.clone(), 2, &scales[..1])?;
    expect(info, "region_pool", &[8.0, 9.0, 10.0, 11.0], pooled.rows.clone()).await?;
    // Regions (8, 9), (10, 11) . thumbnail (2, 0), (0, 2) / sqrt 2 = sqrt 2 (8, 9), sqrt 2 (10, 11).
    let two = std::f32::consts::SQRT_2;
    let tensor = |rows: [[f32; 2]; 2]| Tensor::<2>::from_data(TensorData::from(rows), device);
    let bias = Tensor::<1>::from_data(TensorData::from([0.0, -19.0 * two / 2.0]), device);
    let (logits, choice) = sampler_ops::scale_select(
        pooled.rows.clone(),
        tensor([[2.0, 0.0], [0.0, 2.0]]),
        tensor([[-1.0, 0.0], [0.0, 0.0]]),
        bias,
    )?;
    expect(info, "scale_select", &[-8.0 * two, -9.5 * two, -10.0 * two, -9.5 * two], logits).await?;
    // The first region as one token, the second patch by patch; a newline after each row of patches.
    let newline = Tensor::<1>::from_data(TensorData::from([-1.0, -2.0]), device);
    let compacted = sampler_ops::compact(map, &pooled, Some(newline), choice, &scales).await?;
    let tokens = compacted.map_or_else(|| tensor([[f32::NAN; 2]; 2]), |compacted| compacted.tokens);
    expect(info, "compact", &[8.0, 9.0, 4.0, 5.0, -1.0, -2.0, 10.0, 11.0, -1.0, -2.0], tokens).await?;
    // Two heads of four channels, one text token: softmax(ln p) = p, and the best head counts.
    let key = [0.5f32, 0.3, 0.2, 0.1, 0.7, 0.2].map(|p| [2.0 * p.ln(), 0.0, 0.0, 0.0]);
    let key = Tensor::<3>::from_data(TensorData::new(key.as_flattened().to_vec(), [2, 3, 4]), device);
    let query = Tensor::<3>::from_data(TensorData::new([[1.0f32, 0.0, 0.0, 0.0]; 2].concat(), [2, 1, 4]), device);
    let scores = sampler_ops::text_score(query, key.clone())?;
    expect(info, "text_score", &[0.5, 0.7, 0.2], scores.clone()).await?;
    // Cumulative shares in falling order: .5, .857, 1.
    let kept = sampler_ops::top_k(scores, Keep::Gamma(0.85)).await?;
    expect(info, "top_k", &[0.0, 1.0], kept.clone().float()).await?;
    let rows = sampler_ops::row_gather(key.narrow(2, 0, 1) * 0.5, kept)?;
    expect(info, "row_gather", &[0.5f32, 0.3, 0.1, 0.7].map(f32::ln), rows).await?;
    network(device, info).await?;
    tracing::debug!(device = %info, ms = ?start.map(|start| start.elapsed().as_millis()), "self-test passed");
    Ok(())
}

/// Each operation of the network, on heads and rows of four numbers.
async fn network(device: &Device, info: &DeviceInfo) -> Result<(), Error> {
    let rows = |values: &[f32], width: usize| {
        Tensor::<2>::from_data(TensorData::new(values.to_vec(), [values.len() / width, width]), device)
    };
    let x = rows(&[1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 1.0, 0.0], 4);
    let weight = [Weight::Float(rows(&[1.0, 1.0, 1.0, 1.0, 1.0, -1.0, 1.0, -1.0], 4))];
    let embedded = network_ops::embed(Cursor::words(1, 0, [0, 0], device), 1, &[Weight::Float(x.clone())], 2.0)?;
    expect(info, "embed", &[0.0, 0.0, 2.0, 0.0], embedded).await?;
    // mean(x^2) of the rows: 7.5 and 0.25.
    let gamma = Tensor::<1>::from_data(TensorData::from([1.0, 1.0, 1.0, 2.0]), device);
    let normed = network_ops::norm(x.clone(), gamma, None, 0.0)?;
    let expected = [1.0, 2.0, 3.0, 8.0].map(|v: f32| v / 7.5f32.sqrt());
    expect(info, "norm", &[&expected[..], &[0.0, 0.0, 2.0, 0.0]].concat(), normed).await?;
    let product = network_ops::linear(x.clone(), &weight, None, None, After::Nothing)?;
    expect(info, "linear, two rows", &[10.0, -2.0, 1.0, 1.0], product).await?;
    let add = After::Add { residual: rows(&[10.0, 20.0], 2), factor: 0.5 };
    let product = network_ops::linear(x.narrow(0, 0, 1), &weight, None, None, add)?;
    expect(info, "linear, one row", &[15.0, 19.0], product).await?;
    // One head. The second token is rotated by a quarter: its query and key move to the second half, so that its products with
    // both keys are 0 and ln 3, and its weights 1/4 and 3/4.
    let heads = Heads { query: 1, key: 1, width: 4 };
    let (zero, log) = ([0.0; 3], 3f32.ln());
    let token = |query: f32, key: f32, value: f32| [[query].as_slice(), &zero, &[key], &zero, &[value], &zero].concat();
    let qkv = rows(&[token(1.0, 1.0, 8.0), token(log, 1.0, 16.0)].concat(), 12);
    let table = rows(&[1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0], 4);
    let cache = LayerCache::empty(&[1, 2, 4], DType::F32, device);
    let (query, cache) = network_ops::rotate_and_store(qkv, table, &Cursor::new(0, device), cache, heads)?;
    expect(info, "rotate_and_store", &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, log, 0.0], query.clone()).await?;
    let seen = network_ops::attend(query.clone(), &cache, &Cursor::new(0, device), heads, 1.0)?;
    expect(info, "attend, two tokens", &[8.0, 0.0, 0.0, 0.0, 14.0, 0.0, 0.0, 0.0], seen).await?;
    let seen = network_ops::attend(query.narrow(0, 1, 1), &cache, &Cursor::new(1, device), heads, 1.0)?;
    expect(info, "attend, one token", &[14.0, 0.0, 0.0, 0.0], seen).await?;
    // Scores over sqrt(4): 0 and ln 3 for the first token, 0 and 0 for the second.
    let qkv = rows(&[token(2.0, 0.0, 8.0), token(0.0, log, 16.0)].concat(), 12);
    let seen = network_ops::attend_full(qkv, 1, heads)?;
    expect(info, "attend_full", &[14.0, 0.0, 0.0, 0.0, 12.0, 0.0, 0.0, 0.0], seen).await?;
    let allowed = Tensor::from_data(TensorData::from([0b101i32]), device);
    let next = network_ops::pick(rows(&[1.0, 4.0, 3.0], 3), allowed, Cursor::words(0, -1, [4, 6], device)).await?;
    expect(info, "pick", &[2.0, 0.0, 5.0, 7.0], next.float()).await
}

/// Compares the values of `got` with `expected`.
async fn expect<const D: usize>(
    info: &DeviceInfo,
    what: &'static str,
    expected: &[f32],
    got: Tensor<D>,
) -> Result<(), Error> {
    let got = read_f32(got).await?;
    let wrong = |expected, got| Err(Error::SelfTest { device: info.to_string(), what, expected, got });
    if got.len() != expected.len() {
        return wrong(expected.len() as f32, got.len() as f32);
    }
    for (got, expected) in got.into_iter().zip(expected.iter().copied()) {
        // Not `>`: a NaN must fail.
        if !matches!((got - expected).abs(), error if error < BOUND * expected.abs().max(1.0)) {
            return wrong(expected, got);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    /// The result of a future that is ready at once: on the CPU none waits.
    fn now<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("expected a ready future, got one that waits"),
        }
    }

    #[test]
    fn a_device_that_computes_wrongly_is_a_typed_error_and_the_cpu_passes() {
        let (device, info) = (Device::flex(), DeviceInfo::cpu());
        let wrong = |values: [f32; 2]| {
            let tensor = Tensor::<1>::from_data(TensorData::from(values), &device);
            now(expect(&info, "x", &[1.0, 2.0], tensor))
        };
        assert!(wrong([1.0, 2.0]).is_ok());
        for values in [[1.0, 2.001], [f32::NAN, 2.0], [1.0, f32::INFINITY]] {
            let error = wrong(values).unwrap_err();
            assert!(matches!(error, Error::SelfTest { what: "x", .. }), "expected a failed self-test, got: {error}");
        }
        let passed = now(run(&device, &info));
        assert!(passed.is_ok(), "expected the CPU to pass, got: {passed:?}");
    }
}
