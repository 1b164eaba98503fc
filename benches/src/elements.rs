//! Compares the two fused activations with tensor operations of burn, at real sizes, in one run.

use std::{error::Error, time::Instant};

use burn::tensor::{Tensor, TensorData, activation};
use fovea_runtime::{
    DeviceChoice, OpenDevice,
    element_ops::{gated_silu, quick_gelu},
    read::settle,
};

/// Runs of each; the fastest one is reported.
const RUNS: usize = 7;

/// Prints a row for each activation: milliseconds of both versions, and their ratio.
pub async fn run(device: &str) -> Result<(), Box<dyn Error>> {
    let open = OpenDevice::open(&device.parse::<DeviceChoice>()?).await?;
    println!("{}\n\n| activation | shape | fused | tensor operations | ratio |\n|---|---|---|---|---|", open.info);
    // Five tiles of CLIP-L/14-336; 2928 visual tokens and 60 text tokens in the decoder of the benchmark.
    for (name, shape) in [("quick GELU", [2885, 4096]), ("gated SiLU", [2988, 4864])] {
        let gated = name == "gated SiLU";
        let mut best = [f64::INFINITY; 2];
        for _ in 0..RUNS {
            // In turn, each on tensors without another owner, as in the network.
            for (which, best) in best.iter_mut().enumerate() {
                let (x, up) = (values(shape, 1, &open), values(shape, 2, &open));
                settle(&up).await?;
                let start = Instant::now();
                let y = match (which == 0, gated) {
                    (true, true) => gated_silu(x, up)?,
                    (true, false) => quick_gelu(x),
                    (false, true) => activation::silu(x) * up,
                    (false, false) => x.clone() * activation::sigmoid(x * 1.702),
                };
                settle(&y).await?;
                *best = best.min(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        let [fused, composed] = best;
        let [rows, cols] = shape;
        println!("| {name} | {rows} x {cols} | {fused:.1} ms | {composed:.1} ms | {:.1}x |", composed / fused);
    }
    Ok(())
}

fn values([rows, cols]: [usize; 2], seed: usize, open: &OpenDevice) -> Tensor<2> {
    let values: Vec<f32> = (0..rows * cols).map(|i| ((i * 37 + seed * 11) % 1999) as f32 / 250.0 - 4.0).collect();
    Tensor::from_data(TensorData::new(values, [rows, cols]), &open.device)
}
