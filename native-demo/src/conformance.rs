//! `fovea conformance`: a report of whether a device computes correctly, and one page that compares the reports of devices.

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
use fovea_terminal::{failure::Failure, output::Output, text};
use serde_json::json;

use crate::args::ConformanceArgs;

/// Tests one device, and fails if its report does; or writes the page that compares devices.
pub async fn run(args: ConformanceArgs) -> Result<(), Failure> {
    let (Some(reports), Some(out)) = (args.every.as_ref().or(args.matrix.as_ref()), &args.out) else {
        return one_device(&args).await;
    };
    // Before anything runs: a file that can't be written is found now, not after minutes.
    let output = Output::new(out, &[])?;
    if args.every.is_some() {
        every_device(&args, reports).await?;
    }
    let lanes = lanes(reports)?;
    output.write(matrix(&lanes).as_bytes())?;
    let file = text::line(&out.display().to_string());
    text::note(&format!("wrote {file}: {}", text::counted(lanes.len(), "report")));
    Ok(())
}

/// Writes reports of the CPU, of every adapter and, in a build with it, of CUDA to `reports`. Other reports there, such as the
/// browsers', stay.
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
        // An old report must not remain for a device that cannot be opened now.
        fs::remove_file(&file).ok();
        match report(&choice, args).await {
            Ok(report) => Output::new(&file, &[])?.write(format!("{}\n", json!(report)).as_bytes())?,
            Err(Failure::Runtime(why)) => text::note(&format!("{name}: no report: {why}")),
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

async fn report(device: &DeviceChoice, args: &ConformanceArgs) -> Result<Report, Failure> {
    let fixtures = match &args.fixtures {
        Some(directory) => Fixtures::directory(directory),
        None => embedded::fixtures(),
    };
    let fixtures = fixtures.map_err(|why| Failure::Fixture(why.to_string()))?;
    let open = OpenDevice::open(device).await?;
    let options = Options {
        depth: if args.full { Depth::Full } else { Depth::Quick },
        date: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        cases: args.cases.clone(),
        ..Options::default()
    };
    let report = conformance(&open, &fixtures, &options, |line| text::note(&line)).await;
    match &args.cases {
        Some(cases) if report.kernels.is_empty() && report.stages.is_empty() && report.stopped.is_none() => {
            Err(Failure::Usage(format!("expected cases that contain `{cases}`, got none")))
        }
        _ => Ok(report),
    }
}

async fn one_device(args: &ConformanceArgs) -> Result<(), Failure> {
    let page = args.html.as_deref().map(|file| Output::new(file, &[])).transpose()?;
    let report = report(&args.device, args).await?;
    if let Some(page) = page {
        page.write(html(&report).as_bytes())?;
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
            Err(Failure::NotConformant(format!("{device}: {first} (in total {count})")))
        }
    }
}

/// The reports in a directory, each with the name of its file.
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
