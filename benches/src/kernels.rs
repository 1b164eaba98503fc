//! Every kernel at a real size, in one run: against the same function in burn's own tensor operations on the same device,
//! and against copying the bytes that it must at least read. Where no kernels run (CUDA) the tensor operations stand alone.
//!
//! Two clocks. The host's starts before a call and stops when its result can be read: what a user waits for. The device's
//! starts with the first dispatch and stops after the last: what the kernel is to blame for. Where the host reads a count in
//! between, the device's clock would count the way there and back, and is left out.

use std::{
    error::Error,
    future::Future,
    time::{Duration, Instant},
};

use burn::tensor::{Device, Tensor, TensorData};
use fovea_runtime::{
    DeviceChoice, Error as RuntimeError, Keep, OpenDevice, Scale,
    device::settle,
    sampler_ops::{
        compact, indices, only_tensor_ops, region_pool, row_gather, runs_kernels, scale_select, text_score, top_k,
    },
};
use serde_json::json;

/// Turns of each at least, and at most; between them as many as half a second holds, for a GPU's clock rises with its load.
/// The fastest counts.
const TURNS: [usize; 2] = [5, 200];

/// 672x672 pixels: 48 x 48 patches. A region's side, the decoder's width and the thumbnail's tokens as in LLaVA-NeXT 8B.
const SIDE: usize = 48;
const WINDOW: usize = 4;
const WIDTH: usize = 4096;
const CONTEXT: usize = 576;
/// The visual tokens of that picture and a question's; heads, key heads and their width as in Llama 3 8B.
const VISUAL: usize = 2928;
const TEXT: usize = 60;
const HEADS: [usize; 3] = [32, 8, 128];
/// Layers whose keys and values are picked: no run does so, it stands for batches of short rows. And how many tokens stay.
const LAYERS: usize = 24;
const KEPT: usize = 928;

struct Row {
    kernel: &'static str,
    size: String,
    /// None where no kernels run.
    own: Option<Time>,
    tensor_ops: Time,
    copy: Option<f64>,
}

/// Seconds of one call.
#[derive(Clone, Copy)]
struct Time {
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

    /// Without the device's clock.
    fn by_host(self) -> Self {
        Self { device: None, ..self }
    }

    /// The device's time where there is one.
    fn best(self) -> f64 {
        self.device.unwrap_or(self.host)
    }
}

/// Prints a row for each kernel; `json`: all numbers on stdout.
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
    let mut row = |kernel, size: String, (own, tensor_ops): (Option<Time>, Time), bytes: usize| {
        rows.push(Row { kernel, size, own, tensor_ops, copy: open.copy_seconds(bytes as u64 * 4) });
    };
    let map_size = SIDE * SIDE * WIDTH;
    let size = format!("{SIDE}x{SIDE}x{WIDTH}, kernels 4x4, 2x2");
    let time = both(device, async || Ok(region_pool(map.clone(), WINDOW, &scales[..2])?.rows)).await?;
    row("region_pool", size, time, map_size);
    let time =
        both(device, async || Ok(scale_select(pooled.scale(0), thumbnail.clone(), weight.clone(), bias.clone())?.0));
    row("scale_select", format!("{regions} regions, {CONTEXT} context tokens"), time.await?, CONTEXT * WIDTH);
    let time = both(device, async || {
        let compacted = compact(map.clone(), &pooled, newline.clone(), choice.clone(), &scales).await?;
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

/// Seconds of one feed-forward product of the benchmark's decoder over what both samplers leave of a picture: 1236 tokens,
/// 896 x 4864. Its prefill is at least 70 times that (24 layers, 14.9 M weights each, 375 G multiplications).
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

/// Such products in that prefill, by multiplications.
const PRODUCTS: f64 = 70.0;

/// One call with the kernels (None where there are none) and with tensor operations, by turns, after one of each that is not
/// counted.
async fn both<const D: usize, F: Future<Output = Result<Tensor<D>, RuntimeError>>>(
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
        only_tensor_ops(true);
        let without = once(device, &work).await;
        only_tensor_ops(false);
        let without = without?;
        if turn > 0 {
            (own, tensor_ops) = (own.fastest(with_kernels), tensor_ops.fastest(without));
        }
    }
    Ok((has_kernels.then_some(own), tensor_ops))
}

/// The times of an operation whose middle is on the host.
fn reads_counts((own, tensor_ops): (Option<Time>, Time)) -> (Option<Time>, Time) {
    (own.map(Time::by_host), tensor_ops.by_host())
}

/// One call for the host's clock, one for the device's.
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
        let time = |time: Time| json!({"host_ms": time.host * 1e3, "device_ms": time.device.map(|s| s * 1e3)});
        let rows: Vec<_> = rows
            .iter()
            .map(|r| {
                json!({"kernel": r.kernel, "size": r.size, "own": r.own.map(time), "tensor_ops": time(r.tensor_ops),
                       "copy_ms": r.copy.map(|s| s * 1e3)})
            })
            .collect();
        println!("{}", json!({"device": open.info, "rows": rows, "product_ms": product * 1e3}));
        return Ok(());
    }
    println!("{}, {}\n", open.info, open.info.driver);
    println!("In ms: by the host's clock / by the device's.\n");
    println!("| kernel | size | kernel | tensor operations | ratio | copy of what it reads | share of copy |");
    println!("|---|---|---|---|---|---|---|");
    for Row { kernel, size, own, tensor_ops, copy } in rows {
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
        let share =
            own.zip(*copy).map_or_else(String::new, |(own, copy)| format!("{:.0} %", copy / own.best() * 100.0));
        let (own, tensor_ops) = (own.as_ref().map_or_else(String::new, cell), cell(tensor_ops));
        let copy = copy.map_or_else(String::new, |copy| format!("{:.3}", copy * 1e3));
        println!("| {kernel} | {size} | {own} | {tensor_ops} | {ratio} | {copy} | {share} |");
    }
    let samplers = rows.iter().filter(|r| r.kernel != "row_gather, KV").map(|r| r.own.unwrap_or(r.tensor_ops));
    let once: f64 = samplers.map(|time| time.host).sum();
    println!("\nBoth samplers on one picture and question, by the host's clock: {:.2} ms.", once * 1e3);
    let prefill = product * PRODUCTS;
    println!(
        "One feed-forward product of the benchmark's decoder: {:.2} ms; its prefill takes at least {PRODUCTS} times that, \
         {:.1} ms: the samplers are at most {:.2} % of it.",
        product * 1e3,
        prefill * 1e3,
        once / prefill * 100.0
    );
    Ok(())
}

fn values<const D: usize>(shape: [usize; D], seed: usize, device: &Device) -> Tensor<D> {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count).map(|i| ((i * 37 + seed * 11) % 1999) as f32 / 1000.0 - 1.0).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}
