//! The devices under test: the CPU always, and the best adapter that wgpu finds, a software one included.
//!
//! Where there is no adapter, its tests say so on stderr and pass; with `FOVEA_REQUIRE_ADAPTER=1` they fail, so that a
//! machine that should have one cannot lose it unnoticed. Each device is opened once a process.

use std::{io::Write, sync::OnceLock};

use fovea_runtime::{DeviceChoice, OpenDevice};

/// When this is `1`, a missing adapter is a failure.
pub const REQUIRE: &str = "FOVEA_REQUIRE_ADAPTER";

/// The CPU.
///
/// # Panics
/// Where it does not open: every test needs it.
pub fn cpu() -> &'static OpenDevice {
    static CPU: OnceLock<OpenDevice> = OnceLock::new();
    CPU.get_or_init(|| match pollster::block_on(OpenDevice::open(&DeviceChoice::Cpu)) {
        Ok(device) => device,
        Err(e) => panic!("expected the CPU to open, got: {e}"),
    })
}

/// The best adapter that wgpu finds; None where there is none, and then `what` is told to be skipped.
///
/// # Panics
/// Where an adapter is there but does not pass its self-test, or none is there and [`REQUIRE`] asks for one.
pub fn wgpu(what: &str) -> Option<&'static OpenDevice> {
    static WGPU: OnceLock<Result<OpenDevice, String>> = OnceLock::new();
    let opened = WGPU.get_or_init(|| match pollster::block_on(OpenDevice::open(&DeviceChoice::Wgpu)) {
        Ok(device) => Ok(device),
        Err(none @ fovea_runtime::Error::NoAdapter { .. }) => Err(none.to_string()),
        Err(broken) => panic!("expected the adapter to open and pass its self-test, got: {broken}"),
    });
    match opened {
        Ok(device) => Some(device),
        Err(why) => {
            let required = std::env::var(REQUIRE).is_ok_and(|v| v == "1");
            assert!(!required, "expected an adapter, since {REQUIRE}=1, got: {why}");
            skip(&format!("{what} on wgpu: {why}"));
            None
        }
    }
}

/// Says what is not tested here, and why.
pub fn skip(what: &str) {
    // Not `eprintln!`, which the test harness swallows where the test passes.
    writeln!(std::io::stderr(), "SKIP {what}").ok();
}

/// All that there are.
///
/// # Panics
/// As [`cpu`] and [`wgpu`].
pub fn all(what: &str) -> Vec<&'static OpenDevice> {
    std::iter::once(cpu()).chain(wgpu(what)).collect()
}
