//! `fovea app`, and `fovea` without a command: the window.

use std::env;

use fovea_app::{Start, engine::Wanted};
use fovea_runtime::{DeviceChoice, Error, device::adapters};
use fovea_terminal::failure::Failure;

use crate::args::AppArgs;

/// Opens the window. To be called on the main thread, as macOS needs it.
pub fn run(args: AppArgs) -> Result<(), Failure> {
    if let Some(DeviceChoice::Cuda(_)) = args.device {
        return Err(Failure::Usage("--device: expected auto, cpu or wgpu for the window, got cuda".into()));
    }
    if !has_display() {
        return Err(Failure::NoWindow("there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)".into()));
    }
    let device = args.device.as_ref().map(wanted).transpose()?;
    fovea_app::run(Start { picture: args.image, model: args.model, device })
        .map_err(|why| Failure::NoWindow(without_source(&why).to_owned() + &displays()))
}

/// The displays that the environment names, as a part of an error.
fn displays() -> String {
    let names = ["DISPLAY", "WAYLAND_DISPLAY"].into_iter();
    names.filter_map(|name| env::var(name).ok().map(|value| format!(" ({name} is {value:?})"))).collect()
}

/// Whether there may be a display. It is known before only for X11 and Wayland.
fn has_display() -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(not(all(unix, not(target_os = "macos")))) || is_set("DISPLAY") || is_set("WAYLAND_DISPLAY")
}

/// An error of winit without the source file in front of it: a path of the machine that compiled it.
fn without_source(why: &str) -> &str {
    why.rsplit_once(".rs:").and_then(|(_, rest)| rest.split_once(": ")).map_or(why, |(_, cause)| cause)
}

/// A choice in the form that the window stores: an adapter by name and backend.
fn wanted(choice: &DeviceChoice) -> Result<Wanted, Failure> {
    let found = |matches: &dyn Fn(usize, &str) -> bool| {
        let all = pollster::block_on(adapters());
        let hit = all.iter().enumerate().find(|(i, info)| matches(*i, &info.name)).map(|(_, info)| Wanted::of(info));
        hit.ok_or_else(|| {
            let found: Vec<String> = all.iter().enumerate().map(|(i, info)| format!("wgpu:{i} {info}")).collect();
            let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
            Failure::Runtime(Error::NoAdapter { asked: choice.to_string(), found })
        })
    };
    match choice {
        // `run` refuses CUDA.
        DeviceChoice::Auto | DeviceChoice::Cuda(_) => Ok(Wanted::Auto),
        DeviceChoice::Cpu => Ok(Wanted::Cpu),
        DeviceChoice::Wgpu => found(&|_, _| true),
        DeviceChoice::WgpuIndex(index) => found(&|i, _| i == *index),
        DeviceChoice::WgpuName(part) => found(&|_, name| name.to_lowercase().contains(&part.to_lowercase())),
    }
}

#[cfg(test)]
mod tests {
    use super::without_source;

    #[test]
    fn an_error_names_no_source_file() {
        let winit =
            "winit EventLoopError: os error at /home/a/.cargo/winit-0.30.12/src/x11/mod.rs:765: no such display";
        assert_eq!(without_source(winit), "no such display");
        assert_eq!(without_source("no GPU"), "no GPU");
    }
}
