//! `fovea quantize`: input a checkpoint with float weights; output a folder with codes of 8 or 4 bits, in the layout of MLX.
//!
//! A matrix `X.weight` becomes `X.weight` (U32, the first code in the lowest bits), `X.scales` and `X.biases` (F16, one per
//! group); value = scale code + bias. Source: `quantize_model`, `save_model` and `save_config` of mlx-lm.

mod folder;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Seek, SeekFrom, Write},
};

use fovea_model::{Cancel, Checkpoint, Error, ParameterRole, Precision};
use fovea_runtime::{
    Error as RuntimeError, json,
    network_ops::Format,
    quantise::quantise,
    source::Source,
    weights::{Rows, Stored, StoredDtype},
};
use fovea_terminal::{failure::Failure, load, text};
use half::f16;
use serde_json::{Map, Value, json};

use self::folder::{Folder, check};
use crate::args::QuantizeArgs;

/// Values of a matrix per panel of rows.
const PANEL: usize = 4 << 20;
/// Largest file of weights, bytes, unless a single tensor is larger.
const SHARD: u64 = 5_000_000_000;
/// Largest file that is copied, bytes.
const MAX_COPIED: u64 = 128 << 20;
const CONFIG: &str = "config.json";
/// Endings of settings, vocabulary and chat templates. Weights of all formats have others.
const COPIED: [&str; 4] = [".json", ".jinja", ".model", ".txt"];
const WEIGHT: &str = ".weight";

/// A tensor of the new files.
struct Part {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: u64,
    /// The position of its first byte in its file.
    offset: u64,
}

/// A tensor of the checkpoint, and what is written for it.
struct Job {
    tensor: String,
    shape: Vec<usize>,
    /// Its stored dtype, for users.
    from: String,
    bytes: u64,
    /// None: no part of the model.
    role: Option<ParameterRole>,
    /// None: it is copied.
    format: Option<Format>,
    /// Codes, scales and biases; or the tensor as it is.
    parts: Vec<Part>,
    /// The index of its file.
    shard: usize,
}

impl Job {
    /// Whether it stays as it is because its rows are not whole groups.
    fn is_misfit(&self) -> bool {
        self.format.is_none() && matches!(self.role, Some(ParameterRole::Layer | ParameterRole::Table))
    }

    fn new_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }
}

/// Quantises; prints one line per matrix, the sizes and the error.
pub async fn run(args: QuantizeArgs) -> Result<(), Failure> {
    check(&args.out)?;
    let cancel = load::interruptible();
    let checkpoint = Checkpoint::open(load::source(Some(&args.model))?).await?;
    if !checkpoint.weights.source().contains(CONFIG) {
        let why = "expected a checkpoint in safetensors, got GGUF; use --weights q8 or q4 with it, or its original";
        return Err(Failure::Usage(why.to_owned()));
    }
    let bits = if args.weights == Precision::Q4 { 4 } else { 8 };
    let format = Format { bits, minimum: args.minimum, group: args.group };
    let mut jobs = jobs(&checkpoint, format)?;
    let misfits = jobs.iter().filter(|job| job.is_misfit()).count();
    if jobs.iter().all(|job| job.format.is_none()) {
        let hint = if format.group > 32 { "; use a smaller --group" } else { "" };
        let why = format!("expected rows of whole groups of {}, got none{hint}", format.group);
        return Err(Failure::Usage(why));
    }
    let folder = Folder::new(&args.out)?;
    let errors = write(&checkpoint, format, &mut jobs, SHARD, &folder, &cancel).await?;
    folder.finish()?;
    if args.json {
        let report = report(&args, &jobs, &errors);
        text::out(|to| writeln!(to, "{report}"))?;
    } else {
        text::out(|to| print(to, &jobs, &errors))?;
    }
    if misfits > 0 {
        let matrices = if misfits == 1 { "matrix stays" } else { "matrices stay" };
        text::note(&format!("note: {misfits} {matrices} as before: rows are not whole groups of {}", format.group));
    }
    text::note(&format!("wrote {}", text::line(&args.out.display().to_string())));
    Ok(())
}

/// All tensors of floats. Others are buffers that no model needs.
fn jobs(checkpoint: &Checkpoint, format: Format) -> Result<Vec<Job>, Failure> {
    let roles: BTreeMap<String, ParameterRole> =
        checkpoint.needed().into_iter().map(|need| (need.name, need.role)).collect();
    let mut jobs = Vec::new();
    for (tensor, entry) in checkpoint.weights.entries() {
        let Ok(stored) = &entry.stored else { continue };
        let Stored::Float(float) = stored else {
            return Err(Failure::Runtime(RuntimeError::Tensor {
                file: checkpoint.weights.file_of(entry).to_owned(),
                tensor: tensor.clone(),
                expected: "float weights".to_owned(),
                got: format!("{}; the checkpoint is quantised already, load it directly", stored.name()),
            }));
        };
        let shape: Vec<usize> = entry.shape.iter().map(|&d| d as usize).collect();
        let role = roles.get(tensor).copied();
        let width: usize = role.map_or(0, |_| shape.iter().skip(1).product());
        let format = match role {
            Some(ParameterRole::Layer) => Some(format),
            Some(ParameterRole::Table) => Some(Format { bits: 8, ..format }),
            _ => None,
        };
        let format = format.filter(|format| format.fits(width) && tensor.ends_with(WEIGHT));
        let part = |name: &str, dtype, shape: &[usize], size: u64| {
            let bytes = shape.iter().map(|&d| d as u64).product::<u64>() * size;
            Part { name: name.to_owned(), dtype, shape: shape.to_vec(), bytes, offset: 0 }
        };
        let parts = match format {
            None => {
                let dtype = match float.dtype {
                    StoredDtype::F32 => "F32",
                    StoredDtype::F16 => "F16",
                    StoredDtype::Bf16 => "BF16",
                };
                vec![part(tensor, dtype, &shape, float.dtype.size())]
            }
            Some(format) => {
                let (module, rows) = (module(tensor), shape[0]);
                let groups = [rows, width / format.group as usize];
                vec![
                    part(tensor, "U32", &[rows, format.words(width)], 4),
                    part(&format!("{module}.scales"), "F16", &groups, 2),
                    part(&format!("{module}.biases"), "F16", &groups, 2),
                ]
            }
        };
        jobs.push(Job {
            tensor: tensor.clone(),
            shape,
            from: stored.name(),
            bytes: entry.bytes(),
            role,
            format,
            parts,
            shard: 0,
        });
    }
    Ok(jobs)
}

/// The path of a tensor's module.
fn module(tensor: &str) -> &str {
    tensor.strip_suffix(WEIGHT).unwrap_or(tensor)
}

/// Distributes the tensors, in their order, over files of at most `most` bytes, and returns the names of the files.
fn shards(jobs: &mut [Job], most: u64) -> Vec<String> {
    let (mut shard, mut bytes) = (0, 0);
    for job in jobs {
        if bytes > 0 && bytes + job.new_bytes() > most {
            (shard, bytes) = (shard + 1, 0);
        }
        bytes += job.new_bytes();
        job.shard = shard;
    }
    match shard {
        0 => vec!["model.safetensors".to_owned()],
        last => (1..=last + 1).map(|i| format!("model-{i:05}-of-{:05}.safetensors", last + 1)).collect(),
    }
}

/// Writes the files of the new checkpoint; returns the squared error and the squared values of each tensor.
async fn write(
    checkpoint: &Checkpoint,
    format: Format,
    jobs: &mut [Job],
    most: u64,
    folder: &Folder,
    cancel: &Cancel,
) -> Result<Vec<[f64; 2]>, Failure> {
    let failed = |why| folder.failed(why);
    let names = shards(jobs, most);
    let bar = text::progress_bar("{bar:20} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    bar.set_length(jobs.iter().map(|job| job.bytes).sum());
    // First what is small: a mistake is found before the work.
    let source = checkpoint.weights.source();
    for name in source.files() {
        let settings = COPIED.iter().any(|ending| name.ends_with(ending)) && !name.ends_with(".index.json");
        if settings && name != CONFIG {
            folder.write(name, &source.read(name, MAX_COPIED).await?)?;
        }
    }
    let config = config(source, format, jobs).await?;
    folder.write(CONFIG, format!("{config:#}\n").as_bytes())?;
    let mut errors = Vec::new();
    for (name, jobs) in names.iter().zip(jobs.chunk_by_mut(|a, b| a.shard == b.shard)) {
        let mut file = File::create(folder.beside.join(name)).map_err(failed)?;
        file.write_all(&header(jobs)).map_err(failed)?;
        for job in jobs.iter() {
            errors.push(match job.format {
                Some(format) => matrix(checkpoint, job, format, &mut file, folder, cancel).await?,
                None => copy(checkpoint, job, &mut file, folder, cancel).await?,
            });
            bar.inc(job.bytes);
        }
    }
    bar.finish_and_clear();
    let jobs: &[Job] = jobs;
    let parts = || jobs.iter().flat_map(|job| job.parts.iter().map(move |part| (part, job.shard)));
    if names.len() > 1 {
        let size: u64 = parts().map(|(part, _)| part.bytes).sum();
        let map: Map<String, Value> = parts().map(|(part, shard)| (part.name.clone(), json!(names[shard]))).collect();
        let index = json!({"metadata": {"total_size": size}, "weight_map": map});
        folder.write("model.safetensors.index.json", format!("{index:#}\n").as_bytes())?;
    }
    Ok(errors)
}

/// The header of a safetensors file. Sets the positions of the parts: the largest types are first, so that all are aligned.
fn header(jobs: &mut [Job]) -> Vec<u8> {
    let mut parts: Vec<&mut Part> = jobs.iter_mut().flat_map(|job| &mut job.parts).collect();
    parts.sort_by_key(|part| ["U32", "F32"].iter().all(|wide| part.dtype != *wide));
    let mut entries = Map::new();
    // As PyTorch has them: the channels of a convolution are not last.
    entries.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut end = 0;
    for part in &mut parts {
        (part.offset, end) = (end, end + part.bytes);
        let entry = json!({"dtype": part.dtype, "shape": part.shape, "data_offsets": [part.offset, end]});
        entries.insert(part.name.clone(), entry);
    }
    let mut header = Value::Object(entries).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    parts.iter_mut().for_each(|part| part.offset += 8 + header.len() as u64);
    [(header.len() as u64).to_le_bytes().as_slice(), header.as_bytes()].concat()
}

/// Writes a quantised matrix; returns the sums of squared errors and of squared values.
async fn matrix(
    checkpoint: &Checkpoint,
    job: &Job,
    format: Format,
    file: &mut File,
    folder: &Folder,
    cancel: &Cancel,
) -> Result<[f64; 2], Failure> {
    let (rows, width) = (job.shape[0], job.shape[1..].iter().product::<usize>());
    let panel = (PANEL / width).max(1);
    let mut sums = [0.0; 2];
    for first in (0..rows).step_by(panel) {
        stop(cancel)?;
        let range = first..rows.min(first + panel);
        let count = range.len();
        let values = checkpoint.weights.values(&Rows { tensor: &job.tensor, shape: &job.shape, rows: range }).await?;
        let (mut words, mut scales) =
            (vec![0; count * format.words(width)], vec![0; count * format.scale_words(width)]);
        sums[0] += quantise(&values, width, format, &mut words, &mut scales);
        sums[1] += values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
        let rows_of_scales = scales.chunks(format.scale_words(width));
        let groups: Vec<[f16; 2]> = rows_of_scales.flat_map(|row| groups(row, width, format)).collect();
        if groups.iter().flatten().any(|number| !number.is_finite()) {
            return Err(Failure::Runtime(RuntimeError::Tensor {
                file: checkpoint
                    .weights
                    .entries()
                    .get(&job.tensor)
                    .map_or("", |e| checkpoint.weights.file_of(e))
                    .to_owned(),
                tensor: job.tensor.clone(),
                expected: "weights of at most 65504 in magnitude".to_owned(),
                got: "a larger one".to_owned(),
            }));
        }
        let column = |i: usize| groups.iter().flat_map(|group| group[i].to_le_bytes()).collect::<Vec<u8>>();
        let codes: Vec<u8> = words.iter().flat_map(|word| packed(*word, format).to_le_bytes()).collect();
        for (part, bytes) in job.parts.iter().zip([codes, column(0), column(1)]) {
            let row = part.bytes / rows as u64;
            let written =
                file.seek(SeekFrom::Start(part.offset + row * first as u64)).and_then(|_| file.write_all(&bytes));
            written.map_err(|why| folder.failed(why))?;
        }
    }
    Ok(sums)
}

/// A word of codes with the first one in the lowest bits.
fn packed(word: u32, format: Format) -> u32 {
    if format.bits == 8 {
        return word;
    }
    (0..8).fold(0, |packed, i| packed | (word >> (i % 4 * 8 + i / 4 * 4) & 15) << (4 * i))
}

/// The scale and the bias of each group of a row.
fn groups(row: &[u32], width: usize, format: Format) -> impl Iterator<Item = [f16; 2]> + '_ {
    let half = |word: u32, high: bool| f16::from_bits((if high { word >> 16 } else { word & 0xffff }) as u16);
    (0..width / format.group as usize).map(move |group| {
        if format.minimum {
            return [half(row[group], false), half(row[group], true)];
        }
        let scale = half(row[group / 2], group % 2 == 1);
        // The reader finds from this rule that there is no minimum.
        [scale, f16::from_f32(-(format.zero() as f32) * scale.to_f32())]
    })
}

/// Copies a tensor, byte for byte.
async fn copy(
    checkpoint: &Checkpoint,
    job: &Job,
    file: &mut File,
    folder: &Folder,
    cancel: &Cancel,
) -> Result<[f64; 2], Failure> {
    stop(cancel)?;
    let start = job.parts.first().map_or(0, |part| part.offset);
    file.seek(SeekFrom::Start(start)).map_err(|why| folder.failed(why))?;
    let mut failed = None;
    let write = |bytes: &[u8]| {
        file.write_all(bytes).map_err(|why| {
            let kind = why.kind();
            failed = Some(why);
            io::Error::from(kind)
        })
    };
    let copied = checkpoint.weights.raw(&job.tensor, write).await;
    match failed {
        Some(why) => Err(folder.failed(why)),
        None => Ok(copied.map(|()| [0.0; 2])?),
    }
}

fn stop(cancel: &Cancel) -> Result<(), Failure> {
    if cancel.is_cancelled() { Err(Error::Cancelled.into()) } else { Ok(()) }
}

/// config.json with `quantization`. Modules with another format have their own entry; those without one are `false`.
async fn config(source: &Source, format: Format, jobs: &[Job]) -> Result<Value, Failure> {
    let why = |why: String| Error::Config { key: CONFIG.to_owned(), why };
    let bytes = source.read(CONFIG, MAX_COPIED).await?;
    let mut config: Map<String, Value> =
        json::from_slice(&bytes).map_err(|e| why(format!("expected an object, got {e}")))?;
    let settings = |format: Format| json!({"group_size": format.group, "bits": format.bits});
    let mut quantization = settings(format);
    quantization["mode"] = json!("affine");
    for job in jobs {
        let is_matrix = job.shape.len() == 2 && job.role.is_some_and(|role| role != ParameterRole::Exact);
        match job.format {
            Some(own) if own != format => quantization[module(&job.tensor)] = settings(own),
            None if is_matrix => quantization[module(&job.tensor)] = json!(false),
            _ => {}
        }
    }
    config.insert("quantization_config".to_owned(), quantization.clone());
    config.insert("quantization".to_owned(), quantization);
    Ok(Value::Object(config))
}

/// The NMSE of a quantised tensor.
fn nmse([error, power]: [f64; 2]) -> f64 {
    if power > 0.0 { error / power } else { 0.0 }
}

/// The quantised matrices: their numbers of values weight the mean NMSE.
fn quantised<'a>(jobs: &'a [Job], errors: &'a [[f64; 2]]) -> impl Iterator<Item = (&'a Job, Format, f64)> {
    jobs.iter().zip(errors).filter_map(|(job, sums)| Some((job, job.format?, nmse(*sums))))
}

fn mean_nmse(jobs: &[Job], errors: &[[f64; 2]]) -> f64 {
    let sums = quantised(jobs, errors).fold([0.0; 2], |[sum, all], (job, _, nmse)| {
        let values = job.shape.iter().map(|&d| d as f64).product::<f64>();
        [sum + nmse * values, all + values]
    });
    nmse(sums)
}

fn report(args: &QuantizeArgs, jobs: &[Job], errors: &[[f64; 2]]) -> Value {
    let tensors: Vec<Value> = quantised(jobs, errors)
        .map(|(job, format, nmse)| {
            json!({"name": job.tensor, "shape": job.shape, "from": job.from, "to": format.to_string(), "nmse": nmse})
        })
        .collect();
    json!({
        "out": args.out.display().to_string(),
        "copied": jobs.len() - tensors.len(),
        "tensors": tensors,
        "bytes_before": jobs.iter().map(|job| job.bytes).sum::<u64>(),
        "bytes": jobs.iter().map(Job::new_bytes).sum::<u64>(),
        "nmse": mean_nmse(jobs, errors),
    })
}

fn print(to: &mut dyn Write, jobs: &[Job], errors: &[[f64; 2]]) -> io::Result<()> {
    // By dtype and format.
    let mut lists: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (job, format, nmse) in quantised(jobs, errors) {
        let shape = job.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        let line = format!("{shape:>13} {nmse:>8.1e}  {}", text::line(module(&job.tensor)));
        lists.entry(format!("{} -> {format}", job.from)).or_default().push(line);
    }
    for (formats, lines) in &lists {
        writeln!(to, "{formats}\n        shape     NMSE  matrix\n{}\n", lines.join("\n"))?;
    }
    let total = |of: fn(&Job) -> u64| text::bytes(jobs.iter().map(of).sum());
    let (count, all) = (lists.values().map(Vec::len).sum::<usize>(), text::counted(jobs.len(), "tensor"));
    writeln!(to, "{count} of {all} quantised, mean NMSE {:.1e}", mean_nmse(jobs, errors))?;
    writeln!(to, "{} -> {}", total(|job| job.bytes), total(Job::new_bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use fovea_model::demo;

    use super::*;

    #[test]
    fn shards_have_whole_tensors_that_are_aligned() {
        let checkpoint = pollster::block_on(Checkpoint::open(demo::source())).expect("the demo checkpoint");
        let mut jobs = jobs(&checkpoint, Format::Q4).expect("float weights");
        let most = jobs.iter().map(Job::new_bytes).sum::<u64>() / 3;
        let folder = tempfile::tempdir().expect("a folder");
        let out = Folder::new(&folder.path().join("out")).expect("a folder");
        let cancel = Cancel::default();
        pollster::block_on(write(&checkpoint, Format::Q4, &mut jobs, most, &out, &cancel)).expect("files");
        out.finish().expect("a folder");
        for part in jobs.iter().flat_map(|job| &job.parts) {
            let size = if ["U32", "F32"].contains(&part.dtype) { 4 } else { 2 };
            assert!(part.offset.is_multiple_of(size), "{}: got an offset of {}", part.name, part.offset);
        }
        let source = Source::directory(folder.path().join("out")).expect("the new folder");
        let files: Vec<&str> = source.files().filter(|name| name.ends_with(".safetensors")).collect();
        assert!(
            files.len() > 2 && files[0].ends_with(&format!("-00001-of-{:05}.safetensors", files.len())),
            "{files:?}"
        );
        for name in files {
            let bytes = source.file(name).expect("a shard").len();
            assert!(bytes < most + 100_000, "{name}: expected at most {most} bytes and a header, got {bytes}");
        }
        let again = pollster::block_on(Checkpoint::open(source)).expect("the quantised checkpoint");
        for job in &jobs {
            assert_eq!(again.weights.format(&job.tensor), job.format, "{} (got, expected)", job.tensor);
        }
    }

    #[test]
    fn a_stopped_command_leaves_nothing() {
        let checkpoint = pollster::block_on(Checkpoint::open(demo::source())).expect("the demo checkpoint");
        let mut jobs = jobs(&checkpoint, Format::Q8).expect("float weights");
        let folder = tempfile::tempdir().expect("a folder");
        let out = Folder::new(&folder.path().join("out")).expect("a folder");
        let cancel = Cancel::default();
        cancel.cancel();
        let stopped = pollster::block_on(write(&checkpoint, Format::Q8, &mut jobs, SHARD, &out, &cancel));
        drop(out);
        assert_eq!(stopped.err().map(|failure| failure.exit_code()), Some(130));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "files (got, expected)");
    }

    #[test]
    fn words_are_packed_as_in_mlx() {
        // Codes 0 to 7 in our order, and in MLX's.
        assert_eq!(packed(0x7362_5140, Format::Q4), 0x7654_3210);
        assert_eq!(packed(0x7362_5140, Format::Q8), 0x7362_5140);
    }
}
