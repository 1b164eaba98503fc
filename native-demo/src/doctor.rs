//! `fovea doctor`: all devices, their limits compared with what Fovea needs, and a self-test of each.

use std::io::{self, Write};

use fovea_runtime::{
    DeviceChoice, DeviceInfo, OpenDevice,
    device::{DeviceClass, adapters},
    memory,
};
use fovea_terminal::{failure::Failure, text};
use serde_json::{Value, json};

use crate::args::DoctorArgs;

/// Lists and tests every device; fails if the one that `auto` selects fails.
pub async fn run(args: DoctorArgs) -> Result<(), Failure> {
    let mut choices = vec![DeviceChoice::Cpu];
    let found = adapters().await;
    choices.extend((0..found.len()).map(DeviceChoice::WgpuIndex));
    if cfg!(feature = "cuda") {
        choices.push(DeviceChoice::Cuda(0));
    }
    let mut rows = Vec::new();
    for choice in choices {
        let listed = match choice {
            DeviceChoice::WgpuIndex(index) => found.get(index).cloned(),
            _ => None,
        };
        let opened = OpenDevice::open(&choice).await;
        let info = listed.or_else(|| opened.as_ref().ok().map(|o| o.info.clone()));
        let available = opened.as_ref().ok().and_then(OpenDevice::memory_available);
        let row = Row { choice: choice.to_string(), info, available, fault: opened.err().map(|e| e.to_string()) };
        if !args.json {
            text::out(|to| row.print(to))?;
        }
        rows.push(row);
    }
    let auto = OpenDevice::open(&DeviceChoice::Auto).await;
    let selected = auto.as_ref().map_or_else(ToString::to_string, |o| o.info.to_string());
    let available = memory::host_available();
    if args.json {
        let devices: Vec<Value> = rows.iter().map(Row::json).collect();
        let version = env!("CARGO_PKG_VERSION");
        let report = json!({"version": version, "devices": devices, "auto": selected, "host_available": available});
        text::out(|to| writeln!(to, "{report}"))?;
    } else {
        text::out(|to| writeln!(to, "auto selects: {selected}"))?;
        if let Some(have) = available {
            text::out(|to| writeln!(to, "host memory available: {}", text::bytes(have)))?;
        }
    }
    auto.map(|_| ()).map_err(Into::into)
}

struct Row {
    choice: String,
    info: Option<DeviceInfo>,
    /// Bytes of memory that can be allocated.
    available: Option<u64>,
    fault: Option<String>,
}

impl Row {
    fn print(&self, to: &mut dyn Write) -> io::Result<()> {
        let name = self.info.as_ref().map_or_else(|| self.choice.clone(), ToString::to_string);
        writeln!(to, "--device {:8} {name}", self.choice)?;
        if let Some(info) = &self.info {
            let (kind, subgroups) = (kind(info.class), yes(info.subgroups));
            if info.class == DeviceClass::Cpu {
                // `info.f16` is about shaders; `--weights f16`, `q8` and `q4` work on every CPU.
                writeln!(to, "  {kind}, weights in f32, f16, q8 and q4")?;
            } else {
                writeln!(to, "  {kind}, f16 {}, subgroups {subgroups}", yes(info.f16))?;
            }
            writeln!(to, "  driver {}", info.driver)?;
            if let Some(total) = info.memory {
                let available =
                    self.available.map_or(String::new(), |have| format!(", {} available", text::bytes(have)));
                writeln!(to, "  memory {}{available}", text::bytes(total))?;
            }
            if info.backend != "cpu" && info.backend != "cuda" {
                for (what, need, have) in info.requirements() {
                    let verdict = if have >= need { "ok  " } else { "LOW " };
                    match what.strip_suffix(", bytes") {
                        Some(what) => {
                            let (need, have) = (text::bytes(need), text::bytes(have));
                            writeln!(to, "  {verdict} {what}: needs {need}, has {have}")?;
                        }
                        None => writeln!(to, "  {verdict} {what}: needs {need}, has {have}")?,
                    }
                }
            }
        }
        match &self.fault {
            None => writeln!(to, "  ok   self-test"),
            Some(fault) => writeln!(to, "  FAIL {fault}"),
        }
    }

    fn json(&self) -> Value {
        json!({
            "choice": self.choice,
            "info": self.info,
            "memory_available": self.available,
            "ok": self.fault.is_none(),
            "fault": self.fault,
        })
    }
}

fn kind(class: DeviceClass) -> &'static str {
    match class {
        DeviceClass::Discrete => "discrete GPU",
        DeviceClass::Integrated => "integrated GPU",
        DeviceClass::Virtual => "virtual GPU",
        DeviceClass::Software => "software GPU (runs on the CPU)",
        DeviceClass::Cpu => "CPU",
        DeviceClass::Other => "GPU of unknown kind",
    }
}

fn yes(has: bool) -> &'static str {
    if has { "yes" } else { "no" }
}
