//! `fovea conformance`: whether a device computes what it should, as a report; and every device's reports as one page.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use fovea_conformance::{
    Depth, Options, conformance, embedded,
    golden::Fixtures,
    report::{
        Report,
        html::html,
        matrix::{Lane, matrix},
        text::text as as_text,
    },
};
use fovea_runtime::{DeviceChoice, OpenDevice, device::adapters};
use serde_json::json;

use crate::{args::ConformanceArgs, failure::Failure, output::Output, text};

/// Runs the table and the fixtures' cases, and fails where the verdict does; or does so on every device, for the page.
pub async fn run(args: ConformanceArgs) -> Result<(), Failure> {
    let (Some(reports), Some(out)) = (args.every.as_ref().or(args.matrix.as_ref()), &args.out) else {
        return hold(&args).await;
    };
    if args.every.is_some() {
        every_device(&args, reports).await?;
    }
    write(out, matrix(&lanes(reports)?))
}

/// Leaves a report of the CPU, of every adapter and, in a build with it, of CUDA beside those that are in `reports` already, such as the browsers'.
async fn every_device(args: &ConformanceArgs, reports: &Path) -> Result<(), Failure> {
    fs::create_dir_all(reports).map_err(|why| Failure::Write { file: reports.display().to_string(), why })?;
    let adapters = adapters().await;
    let choices = (0..adapters.len()).map(DeviceChoice::WgpuIndex);
    let cuda = cfg!(feature = "cuda").then_some(DeviceChoice::Cuda(0));
    for choice in std::iter::once(DeviceChoice::Cpu).chain(choices).chain(cuda) {
        let name = match &choice {
            DeviceChoice::WgpuIndex(index) => format!("{}-{index}", adapters[*index].backend),
            DeviceChoice::Cuda(index) => format!("cuda-{index}"),
            other => other.to_string(),
        };
        let file = reports.join(format!("{name}.json"));
        // An older one must not stand for a device that does not open any more.
        fs::remove_file(&file).ok();
        match report(&choice, args).await {
            Ok(report) => write(&file, format!("{}\n", json!(report)))?,
            Err(Failure::Runtime(why)) => text::note(&format!("{name}: no report: {why}")),
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

async fn report(device: &DeviceChoice, args: &ConformanceArgs) -> Result<Report, Failure> {
    let fixtures = match &args.fixtures {
        Some(directory) => Fixtures::directory(directory)?,
        None => embedded::fixtures()?,
    };
    let open = OpenDevice::open(device).await?;
    let options = Options {
        depth: if args.full { Depth::Full } else { Depth::Quick },
        date: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        cases: args.cases.clone(),
        ..Options::default()
    };
    Ok(conformance(&open, &fixtures, &options, |line| text::note(&line)).await)
}

async fn hold(args: &ConformanceArgs) -> Result<(), Failure> {
    let report = report(&args.device, args).await?;
    if let Some(file) = &args.html {
        write(file, html(&report))?;
    }
    if args.json {
        text::out(|to| writeln!(to, "{}", json!(report)))?;
    } else {
        text::out(|to| write!(to, "{}", as_text(&report)))?;
    }
    match report.verdict.failures.first() {
        None => Ok(()),
        Some(first) => {
            let (device, count) = (report.device, report.verdict.failures.len());
            Err(Failure::NotConformant(format!("{device}: {first} (in all {count})")))
        }
    }
}

fn write(file: &Path, content: String) -> Result<(), Failure> {
    Output::new(file, &[])?.write(content.as_bytes())
}

/// The reports of a directory, each called as its file is.
fn lanes(directory: &Path) -> Result<Vec<Lane>, Failure> {
    let failed = |path: &Path, why: String| Failure::Report { file: path.display().to_string(), why };
    let entries = fs::read_dir(directory).map_err(|e| failed(directory, e.to_string()))?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(|e| failed(directory, e.to_string()))?.path();
        if file.extension().is_some_and(|end| end == "json") {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(failed(directory, "expected reports (*.json), got none".into()));
    }
    files.sort();
    let lane = |file: &PathBuf| {
        let bytes = fs::read(file).map_err(|e| failed(file, e.to_string()))?;
        let report: Report =
            serde_json::from_slice(&bytes).map_err(|e| failed(file, format!("expected a report, got: {e}")))?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Lane { name, report })
    };
    files.iter().map(lane).collect()
}
