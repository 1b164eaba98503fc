//! The devices under test: the CPU, and the best adapter that wgpu finds, which may be a software GPU.
//!
//! Without an adapter, its tests print a line on stderr and pass. With `FOVEA_REQUIRE_ADAPTER=1` they fail, so that a
//! missing adapter is noticed on machines that should have one. Each device is opened once per process.

use std::{io::Write, sync::OnceLock};

use fovea_runtime::{DeviceChoice, OpenDevice};

/// If this variable is `1`, a missing adapter is a failure.
pub const REQUIRE: &str = "FOVEA_REQUIRE_ADAPTER";

/// The CPU.
///
/// # Panics
/// If it cannot be opened.
pub fn cpu() -> &'static OpenDevice {
    static CPU: OnceLock<OpenDevice> = OnceLock::new();
    CPU.get_or_init(|| match pollster::block_on(OpenDevice::open(&DeviceChoice::Cpu)) {
        Ok(device) => device,
        Err(e) => panic!("expected the CPU to open, got: {e}"),
    })
}

/// The best adapter that wgpu finds. Without one: prints that `what` is skipped, and returns None.
///
/// # Panics
/// If an adapter fails its self-test, or if there is none and [`REQUIRE`] is `1`.
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

/// Prints what is not tested, and why.
pub fn skip(what: &str) {
    // Not `eprintln!`: the test harness hides its output if the test passes.
    writeln!(std::io::stderr(), "SKIP {what}").ok();
}

/// All devices under test.
///
/// # Panics
/// As [`cpu`] and [`wgpu`].
pub fn all(what: &str) -> Vec<&'static OpenDevice> {
    std::iter::once(cpu()).chain(wgpu(what)).collect()
}
