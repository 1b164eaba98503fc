//! Compares each kernel of the samplers, at a real size, with the same function in tensor operations of burn on the same
//! device, and with a read of the same number of bytes. Without kernels (CPU) only the tensor operations are measured.
//!
//! There are two clocks. Host time is from the call until the result can be read: what a user waits for. Device time is
//! from the first dispatch to the last: what the kernel itself takes. Where the host reads a count in between, device
//! time would include this round trip, so it is left out.

use std::{
    error::Error,
    future::Future,
    time::{Duration, Instant},
};

use burn::tensor::{Device, Tensor, TensorData};
use fovea_runtime::{
    DeviceChoice, Error as RuntimeError, Keep, OpenDevice, Scale,
    read::settle,
    sampler_ops::{compact, indices, region_pool, row_gather, runs_kernels, scale_select, text_score, top_k},
    testing::tensor_ops_only,
};
use serde_json::{Value, json};

use crate::bandwidth::read_seconds;

/// Fewest and most runs of each; in between as many as fit in half a second, because the clock rate of a GPU rises with
/// its load. The fastest one is reported.
const TURNS: [usize; 2] = [5, 200];

/// 672x672 pixels: 48 x 48 patches. Region, width of the decoder and tokens of the thumbnail as in LLaVA-NeXT 8B.
const SIDE: usize = 48;
const WINDOW: usize = 4;
const WIDTH: usize = 4096;
const CONTEXT: usize = 576;
/// Visual tokens of this picture, tokens of a question; heads, key heads and their width as in Llama 3 8B.
const VISUAL: usize = 2928;
const TEXT: usize = 60;
const HEADS: [usize; 3] = [32, 8, 128];
/// Layers whose keys and values are gathered (no run does this: it is a case with many short rows), and kept tokens.
const LAYERS: usize = 24;
const KEPT: usize = 928;

/// A kernel at one size.
pub struct Row {
    kernel: &'static str,
    size: String,
    /// None without kernels.
    own: Option<Time>,
    tensor_ops: Time,
    /// Seconds to read the bytes that the kernel must read.
    read: Option<f64>,
}

impl Row {
    /// A row with the times of [`both`], of a function that must read `bytes`.
    pub fn new(
        open: &OpenDevice,
        kernel: &'static str,
        size: String,
        (own, tensor_ops): (Option<Time>, Time),
        bytes: usize,
    ) -> Self {
        Self { kernel, size, own, tensor_ops, read: read_seconds(open, bytes as u64) }
    }
}

/// Seconds of one call.
#[derive(Clone, Copy)]
pub struct Time {
    host: f64,
    /// None where the device has no clock.
    device: Option<f64>,
}

impl Time {
    const NEVER: Self = Self { host: f64::INFINITY, device: None };

    fn fastest(self, other: Self) -> Self {
        let device = [self.device, other.device].into_iter().flatten().reduce(f64::min);
        Self { host: self.host.min(other.host), device }
    }

    /// Without device time.
    fn by_host(self) -> Self {
        Self { device: None, ..self }
    }

    /// Device time; host time where there is none.
    fn best(self) -> f64 {
        self.device.unwrap_or(self.host)
    }
}

/// Prints a row for each kernel; with `json`, all numbers as JSON.
pub async fn run(device: &str, json: bool) -> Result<(), Box<dyn Error>> {
    let open = OpenDevice::open(&device.parse::<DeviceChoice>()?).await?;
    let device = &open.device;
    let scales = [Scale::new(4, 4), Scale::new(2, 2), Scale::new(1, 1)];
    let map = values([SIDE, SIDE, WIDTH], 1, device);
    let pooled = region_pool(map.clone(), WINDOW, &scales[..2])?;
    let regions = pooled.layout.regions();
    let thumbnail = values([CONTEXT, WIDTH], 2, device);
    let (weight, bias) = (values([3, CONTEXT], 3, device), values([3], 4, device));
    let newline = values([WIDTH], 5, device);
    let choice: Vec<usize> = (0..regions).map(|region| region * 7 % 3).collect();
    let choice = indices(&choice, 3, device)?;
    let [heads, kv_heads, d_head] = HEADS;
    let (query, key) = (values([heads, TEXT, d_head], 6, device), values([kv_heads, VISUAL, d_head], 7, device));
    let scores = text_score(query.clone(), key.clone())?;
    let every_third: Vec<usize> = (0..KEPT).map(|i| i * 3).collect();
    let kept = indices(&every_third, VISUAL, device)?;
    let hidden = values([1, VISUAL, WIDTH], 8, device);
    let cache = values([kv_heads, VISUAL, d_head], 9, device);

    let mut rows = Vec::new();
    let mut row = |kernel, size, time, values: usize| rows.push(Row::new(&open, kernel, size, time, values * 4));
    let map_size = SIDE * SIDE * WIDTH;
    let size = format!("{SIDE}x{SIDE}x{WIDTH}, kernels 4x4, 2x2");
    let time = both(device, async || Ok(region_pool(map.clone(), WINDOW, &scales[..2])?.rows)).await?;
    row("region_pool", size, time, map_size);
    let time =
        both(device, async || Ok(scale_select(pooled.scale(0), thumbnail.clone(), weight.clone(), bias.clone())?.0));
    row("scale_select", format!("{regions} regions, {CONTEXT} context tokens"), time.await?, CONTEXT * WIDTH);
    let time = both(device, async || {
        let compacted = compact(map.clone(), &pooled, Some(newline.clone()), choice.clone(), &scales).await?;
        Ok(compacted.map_or_else(|| pooled.scale(0), |compacted| compacted.tokens))
    });
    let size = format!("{regions} regions, a third at each scale");
    row("compact", size, reads_counts(time.await?), map_size * 7 / 16);
    let size = format!("{VISUAL} visual x {TEXT} text, {heads} heads of {d_head}, {kv_heads} key heads");
    let time = both(device, async || text_score(query.clone(), key.clone()));
    row("text_score", size, time.await?, kv_heads * VISUAL * d_head);
    let time = both(device, async || Ok(top_k(scores.clone(), Keep::Gamma(0.85)).await?.float()));
    row("top_k", format!("{VISUAL} scores"), reads_counts(time.await?), VISUAL);
    let time = both(device, async || row_gather(hidden.clone(), kept.clone()));
    row("row_gather, hidden states", format!("{KEPT} of {VISUAL} rows of {WIDTH}"), time.await?, KEPT * WIDTH);
    let time = both(device, async || {
        let picked: Vec<Tensor<3>> =
            (0..2 * LAYERS).map(|_| row_gather(cache.clone(), kept.clone())).collect::<Result<_, _>>()?;
        Ok(picked.into_iter().next_back().unwrap_or_else(|| cache.clone()))
    });
    let size = format!("{LAYERS} layers' keys and values, {kv_heads} heads of {d_head}, {KEPT} of {VISUAL} rows");
    row("row_gather, KV", size, time.await?, 2 * LAYERS * kv_heads * KEPT * d_head);

    let product = product(&open).await?;
    report(&open, &rows, product, json)
}

/// Seconds of one feed-forward product in the decoder of the benchmark, 896 x 4864, for the 1236 tokens that both
/// samplers keep of a picture and a question. The prefill takes at least 70 times as long (24 layers with 14.9 M
/// weights each, 375 G multiplications).
async fn product(open: &OpenDevice) -> Result<f64, Box<dyn Error>> {
    let (x, weight) = (values([1236, 896], 10, &open.device), values([896, 4864], 11, &open.device));
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        settle(&x.clone().matmul(weight.clone())).await?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// The prefill, in units of this product, by number of multiplications.
const PRODUCTS: f64 = 70.0;

/// Times with the kernels (None where there are none) and with tensor operations. Both run in turn; the first run of
/// each is not counted.
pub async fn both<const D: usize, F: Future<Output = Result<Tensor<D>, RuntimeError>>>(
    device: &Device,
    work: impl Fn() -> F + Sync,
) -> Result<(Option<Time>, Time), Box<dyn Error>> {
    let (mut own, mut tensor_ops) = (Time::NEVER, Time::NEVER);
    let has_kernels = runs_kernels(device);
    let begin = Instant::now();
    for turn in 0..=TURNS[1] {
        if turn > TURNS[0] && begin.elapsed() > Duration::from_millis(500) {
            break;
        }
        let with_kernels = if has_kernels { once(device, &work).await? } else { Time::NEVER };
        let only = tensor_ops_only();
        let without = once(device, &work).await?;
        drop(only);
        if turn > 0 {
            (own, tensor_ops) = (own.fastest(with_kernels), tensor_ops.fastest(without));
        }
    }
    Ok((has_kernels.then_some(own), tensor_ops))
}

/// The times of an operation that reads a count on the host.
fn reads_counts((own, tensor_ops): (Option<Time>, Time)) -> (Option<Time>, Time) {
    (own.map(Time::by_host), tensor_ops.by_host())
}

/// One call for host time, one for device time.
async fn once<const D: usize, F: Future<Output = Result<Tensor<D>, RuntimeError>>>(
    device: &Device,
    work: &(impl Fn() -> F + Sync),
) -> Result<Time, Box<dyn Error>> {
    let start = Instant::now();
    settle(&work().await?).await?;
    let host = start.elapsed().as_secs_f64();
    let (result, window) = device.profile(|| pollster::block_on(work())).map_err(|e| format!("{e:?}"))?;
    settle(&result?).await?;
    let device = window.resolve().await.map(|ticks| ticks.duration().as_secs_f64());
    Ok(Time { host, device })
}

fn report(open: &OpenDevice, rows: &[Row], product: f64, json: bool) -> Result<(), Box<dyn Error>> {
    if json {
        println!("{}", json!({"device": open.info, "rows": as_json(rows), "product_ms": product * 1e3}));
        return Ok(());
    }
    print(open, rows);
    let samplers = rows.iter().filter(|r| r.kernel != "row_gather, KV").map(|r| r.own.unwrap_or(r.tensor_ops));
    let once: f64 = samplers.map(|time| time.host).sum();
    println!("\nBoth samplers on one picture and question, host time: {:.2} ms.", once * 1e3);
    let prefill = product * PRODUCTS;
    println!(
        "One feed-forward product in the decoder of the benchmark: {:.2} ms. The prefill takes at least {PRODUCTS} \
         times as long, {:.1} ms: the samplers take at most {:.2} % of it.",
        product * 1e3,
        prefill * 1e3,
        once / prefill * 100.0
    );
    Ok(())
}

/// The rows as JSON.
pub fn as_json(rows: &[Row]) -> Vec<Value> {
    let time = |time: Time| json!({"host_ms": time.host * 1e3, "device_ms": time.device.map(|s| s * 1e3)});
    let row = |r: &Row| {
        json!({"kernel": r.kernel, "size": r.size, "own": r.own.map(time), "tensor_ops": time(r.tensor_ops),
               "read_ms": r.read.map(|s| s * 1e3)})
    };
    rows.iter().map(row).collect()
}

/// Prints the rows as a table.
pub fn print(open: &OpenDevice, rows: &[Row]) {
    println!("{}, {}\n", open.info, open.info.driver);
    println!("In ms: host time / device time.\n");
    println!(
        "| kernel | size | kernel | tensor operations | ratio | read of the same bytes | share of the bandwidth |"
    );
    println!("|---|---|---|---|---|---|---|");
    for Row { kernel, size, own, tensor_ops, read } in rows {
        let cell = |time: &Time| match time.device {
            Some(device) => format!("{:.3} / {:.3}", time.host * 1e3, device * 1e3),
            None => format!("{:.3}", time.host * 1e3),
        };
        let ratio = own.map_or_else(String::new, |own| match (own.device, tensor_ops.device) {
            (Some(own_device), Some(device)) => {
                format!("{:.1}x / {:.1}x", tensor_ops.host / own.host, device / own_device)
            }
            _ => format!("{:.1}x", tensor_ops.host / own.host),
        });
        let ran = own.as_ref().unwrap_or(tensor_ops).best();
        let share = read.map_or_else(String::new, |read| format!("{:.0} %", read / ran * 100.0));
        let (own, tensor_ops) = (own.as_ref().map_or_else(String::new, cell), cell(tensor_ops));
        let read = read.map_or_else(String::new, |read| format!("{:.3}", read * 1e3));
        println!("| {kernel} | {size} | {own} | {tensor_ops} | {ratio} | {read} | {share} |");
    }
}

/// Values between -1 and 1.
pub fn values<const D: usize>(shape: [usize; D], seed: usize, device: &Device) -> Tensor<D> {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count).map(|i| ((i * 37 + seed * 11) % 1999) as f32 / 1000.0 - 1.0).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}
