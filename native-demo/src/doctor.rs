//! `fovea doctor`: what is there, what it has against what is needed, and whether it computes rightly.

use std::io::{self, Write};

use fovea_runtime::{DeviceChoice, DeviceInfo, OpenDevice, device::adapters, memory};
use serde_json::{Value, json};

use crate::{args::DoctorArgs, failure::Failure, text};

/// Lists every device and tests each; fails where the one that `auto` takes fails.
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
        let row = Row { choice: choice.to_string(), info, fault: opened.err().map(|e| e.to_string()) };
        if !args.json {
            text::out(|to| row.print(to))?;
        }
        rows.push(row);
    }
    let auto = OpenDevice::open(&DeviceChoice::Auto).await;
    let taken = auto.as_ref().map_or_else(ToString::to_string, |o| o.info.to_string());
    if args.json {
        let devices: Vec<Value> = rows.iter().map(Row::json).collect();
        let version = env!("CARGO_PKG_VERSION");
        let available = memory::host_available();
        let report = json!({"version": version, "devices": devices, "auto": taken, "host_available": available});
        text::out(|to| writeln!(to, "{report}"))?;
    } else {
        text::out(|to| writeln!(to, "auto takes: {taken}"))?;
        if let Some(have) = memory::host_available() {
            text::out(|to| writeln!(to, "host memory available: {}", text::bytes(have)))?;
        }
    }
    auto.map(|_| ()).map_err(Into::into)
}

struct Row {
    choice: String,
    info: Option<DeviceInfo>,
    fault: Option<String>,
}

impl Row {
    fn print(&self, to: &mut dyn Write) -> io::Result<()> {
        let name = self.info.as_ref().map_or_else(|| self.choice.clone(), ToString::to_string);
        writeln!(to, "--device {:8} {name}", self.choice)?;
        if let Some(info) = &self.info {
            let (f16, subgroups) = (yes(info.f16), yes(info.subgroups));
            writeln!(to, "  {:?}, driver {}, f16 {f16}, subgroups {subgroups}", info.class, info.driver)?;
            if info.backend != "cpu" && info.backend != "cuda" {
                for (what, need, have) in info.requirements() {
                    writeln!(to, "  {} {what}: need {need}, have {have}", if have >= need { "ok  " } else { "LOW " })?;
                }
            }
        }
        match &self.fault {
            None => writeln!(to, "  ok   self-test"),
            Some(fault) => writeln!(to, "  FAIL {fault}"),
        }
    }

    fn json(&self) -> Value {
        json!({"choice": self.choice, "info": self.info, "ok": self.fault.is_none(), "fault": self.fault})
    }
}

fn yes(has: bool) -> &'static str {
    if has { "yes" } else { "no" }
}
