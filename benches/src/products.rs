//! Times the products of linear layers by wall time, as ggml's Vulkan backend is timed by `peers/ggml_products.cpp`:
//! several products of one matrix in a row, then one wait. With that program, both are measured in turn.

use std::{error::Error, path::Path, process::Command, slice::from_ref, time::Instant};

use burn::tensor::{DType, Device};
use fovea_runtime::{
    DeviceChoice, OpenDevice,
    network_ops::{After, Format, Weight, linear},
    read::settle,
};

use crate::{kernels::values, network::codes};

/// Columns and rows: the widths of 0.5 B, 1 to 2 B and 8 B decoders, and the feed-forward of the first one.
const SIZES: [[usize; 2]; 4] = [[896, 896], [2048, 2048], [4096, 4096], [896, 9728]];
const TOKENS: [usize; 2] = [1, 256];
/// Runs of each; the fastest one is reported. One more before them compiles.
const RUNS: usize = 5;

/// The ways to store a matrix: our name and ggml's.
const TYPES: [[&str; 2]; 4] = [["f32", "f32"], ["f16", "f16"], ["q8", "q8_0"], ["q4", "q4_0"]];

/// Prints a row for each size and type. `ggml` is the compiled program.
pub async fn run(device: &str, ggml: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let open = OpenDevice::open(&device.parse::<DeviceChoice>()?).await?;
    println!("{}, {}\n", open.info, open.info.driver);
    println!("| tokens | columns x rows | weight | ms | ggml, ms | ratio |\n|---|---|---|---|---|---|");
    for tokens in TOKENS {
        for [width, rows] in SIZES {
            for [name, of_ggml] in TYPES.into_iter().filter(|[name, _]| *name != "f16" || open.has_f16()) {
                let own = product(&open.device, [width, rows], tokens, name).await? * 1e3;
                let peer = ggml.map(|program| ask(program, [tokens, width, rows], of_ggml)).transpose()?;
                let (peer, ratio) = match peer {
                    Some(ms) => (format!("{ms:.2}"), format!("{:.2}x", ms / own)),
                    None => Default::default(),
                };
                println!("| {tokens} | {width} x {rows} | {name} | {own:.2} | {peer} | {ratio} |");
            }
        }
    }
    Ok(())
}

/// Seconds of one product.
async fn product(device: &Device, [width, rows]: [usize; 2], tokens: usize, name: &str) -> Result<f64, Box<dyn Error>> {
    let count = if tokens == 1 { 16 } else { 2 };
    let shape = [rows, width];
    let weight = match name {
        "q8" => codes(shape, Format::Q8, false, device),
        "q4" => codes(shape, Format::Q4, false, device),
        "f16" => Weight::Float(values(shape, 1, device).cast(DType::F16)),
        _ => Weight::Float(values(shape, 1, device)),
    };
    let x = values([tokens, width], 2, device);
    let mut best = f64::INFINITY;
    for run in 0..=RUNS {
        let start = Instant::now();
        let mut last = None;
        for _ in 0..count {
            last = Some(linear(x.clone(), from_ref(&weight), None, None, After::Nothing)?);
        }
        if let Some(result) = &last {
            settle(result).await?;
        }
        if run > 0 {
            best = best.min(start.elapsed().as_secs_f64() / count as f64);
        }
    }
    Ok(best)
}

/// Milliseconds of the same product in ggml.
fn ask(program: &Path, [tokens, width, rows]: [usize; 3], weight: &str) -> Result<f64, Box<dyn Error>> {
    let numbers = [tokens, width, rows].map(|number| number.to_string());
    let out =
        Command::new(program).args(numbers).arg(weight).output().map_err(|e| format!("{}: {e}", program.display()))?;
    let said = String::from_utf8_lossy(&out.stdout);
    let unlike =
        || format!("{}: expected milliseconds, got {said}{}", program.display(), String::from_utf8_lossy(&out.stderr));
    Ok(said.trim().parse().map_err(|_| unlike())?)
}
