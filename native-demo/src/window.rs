//! `fovea app`, and `fovea` without arguments: the window.

use std::{env, process::ExitCode};

use fovea_app::{Start, engine::Wanted};
use fovea_runtime::{DeviceChoice, device::adapters};

use crate::{args::AppArgs, text};

/// Whether there is something to open a window on. Only X11 and Wayland can tell beforehand.
pub fn has_display() -> bool {
    let told = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(not(all(unix, not(target_os = "macos")))) || told("DISPLAY") || told("WAYLAND_DISPLAY")
}

/// Opens the window. On the program's first thread, where macOS wants it.
pub fn run(args: AppArgs) -> ExitCode {
    let device = match args.device.map(wanted).transpose() {
        Ok(device) => device,
        Err(why) => {
            text::note(&format!("fovea: {why}"));
            return ExitCode::from(5);
        }
    };
    match fovea_app::run(Start { picture: args.image, model: args.model, device }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            text::note(&format!("fovea: no window can be opened: {}; `fovea ask` needs none", text::line(&why)));
            ExitCode::from(5)
        }
    }
}

/// A choice as the window remembers it: an adapter by name and backend.
fn wanted(choice: DeviceChoice) -> Result<Wanted, String> {
    let found = |matches: &dyn Fn(usize, &str) -> bool| {
        let all = pollster::block_on(adapters());
        let hit = all.iter().enumerate().find(|(i, info)| matches(*i, &info.name)).map(|(_, info)| Wanted::of(info));
        hit.ok_or_else(|| format!("no adapter for `{choice}`: `fovea doctor` lists those there are"))
    };
    match &choice {
        DeviceChoice::Auto => Ok(Wanted::Auto),
        DeviceChoice::Cpu => Ok(Wanted::Cpu),
        DeviceChoice::Wgpu => found(&|_, _| true),
        DeviceChoice::WgpuIndex(index) => found(&|i, _| i == *index),
        DeviceChoice::WgpuName(part) => found(&|_, name| name.to_lowercase().contains(&part.to_lowercase())),
        DeviceChoice::Cuda(_) => {
            Err("the window runs on wgpu and the CPU; `fovea ask --device cuda` runs on CUDA".into())
        }
    }
}
