//! Compares every case on every device with PyTorch's traces, stage by stage, and then by forced decoding.
//!
//! The bounds are in `fovea_conformance::stages`. Start at the first failed stage in data flow order: later stages
//! inherit its error.

use fovea_conformance::{Options, conformance, report::text::text};
use fovea_runtime::OpenDevice;
use fovea_tests::{
    device,
    golden::{cases, everything},
};
use pollster::block_on;

fn every_case(open: &OpenDevice) {
    let all = cases();
    assert!(all.len() >= 20, "expected at least 20 cases, got {}", all.len());
    let options = Options { runs_alone: true, ..Options::default() };
    let report = block_on(conformance(open, &everything(), &options, |_| {}));
    eprintln!("{}", text(&report));
    assert_eq!(report.decisions.len(), all.len(), "cases that ran (got, expected)");
    assert!(report.stages.len() >= 10 * all.len(), "expected at least 10 stages per case, got {}", report.stages.len());
    let (agree, steps) = report.agreement();
    assert!(steps > all.len(), "expected more than one step per answer, got {steps} steps");
    assert_eq!(agree, steps, "most likely tokens that are PyTorch's (got, expected)");
    let verdict = &report.verdict;
    assert!(verdict.pass, "expected every stage to pass on {}, got:\n{}", open.info, verdict.failures.join("\n"));
    assert!(
        verdict.no_longer_seen.is_empty(),
        "expected all known issues of this device to be seen, not seen: {:?}",
        verdict.no_longer_seen
    );
}

#[test]
fn every_stage_of_every_case_on_the_cpu() {
    every_case(device::cpu());
}

#[test]
fn every_stage_of_every_case_on_wgpu() {
    if let Some(open) = device::wgpu("every stage of every case") {
        every_case(open);
    }
}
