//! Every case on every device, stage by stage, against the PyTorch traces.
//!
//! A failure names the first stage that is off, in the order of the data: what comes after it is off by inheritance.

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use fovea_model::{Model, trace::Value};
use fovea_runtime::OpenDevice;
use fovea_tests::{
    closeness::{compare, same_bits},
    device,
    golden::{Case, Trace, cases, reference, run_case},
    run,
};

/// What a stage is held to.
#[derive(Clone, Copy)]
enum Bound {
    /// The same bits, or the same integers.
    Exact,
    /// Normalised mean square error.
    Nmse(f64),
    /// Largest absolute error.
    Abs(f64),
}

/// Every stage in the order of the data, with its bound.
///
/// Features are held to 1e-8 (vision tower and projector, f32). `visual_tokens` are copies and maxima of them,
/// `scale_logits` one product of them, and `importance` comes out of a few layers over them: each may be off by what it
/// got, and adds less of its own (1e-9). Decisions are exact, because every case has a margin far above these errors.
/// The share is a quotient of counts, written in f32.
const STAGES: [(&str, Bound); 15] = [
    ("pixel_values", Bound::Exact),
    ("thumbnail", Bound::Nmse(1e-8)),
    ("feature_map", Bound::Nmse(1e-8)),
    ("scale_logits", Bound::Nmse(1e-8)),
    ("scale_choice", Bound::Exact),
    ("token_boxes", Bound::Exact),
    ("visual_tokens", Bound::Nmse(1e-8)),
    ("input_ids", Bound::Exact),
    ("importance", Bound::Nmse(1e-8)),
    ("kept_visual", Bound::Exact),
    ("prefill_logits", Bound::Abs(1e-3)),
    ("step_logits", Bound::Abs(1e-3)),
    ("answer_ids", Bound::Exact),
    ("token_counts", Bound::Exact),
    ("equivalent_share", Bound::Abs(1e-6)),
];

/// The worst of each stage so far: NMSE, absolute error, and the case of the latter.
type Worst = BTreeMap<&'static str, (f64, f64, String)>;

fn check(case: &Case, expected: &Trace, got: &Trace, worst: &mut Worst) -> Result<(), String> {
    let names = |trace: &Trace| trace.keys().cloned().collect::<Vec<String>>();
    if names(expected) != names(got) {
        return Err(format!("expected the stages {:?}, got {:?}", names(expected), names(got)));
    }
    if let Some(unknown) = expected.keys().find(|name| !STAGES.iter().any(|(stage, _)| stage == name)) {
        return Err(format!("expected a bound for every stage, got none for {unknown}"));
    }
    for (stage, bound) in STAGES {
        let (Some(expected), Some(got)) = (expected.get(stage), got.get(stage)) else { continue };
        match (expected, got) {
            (Value::I64 { shape: a, data: x }, Value::I64 { shape: b, data: y }) => {
                if (a, x) != (b, y) {
                    return Err(format!("{stage}: expected {a:?} {x:?}, got {b:?} {y:?}"));
                }
            }
            (Value::F32 { shape: a, data: x }, Value::F32 { shape: b, data: y }) => {
                if a != b {
                    return Err(format!("{stage}: expected the shape {a:?}, got {b:?}"));
                }
                let report = compare(stage, x, y);
                let entry = worst.entry(stage).or_insert((0.0, -1.0, String::new()));
                entry.0 = entry.0.max(report.nmse);
                if report.worst > entry.1 {
                    (entry.1, entry.2) = (report.worst, case.name.clone());
                }
                match bound {
                    Bound::Exact => same_bits(stage, x, y)?,
                    Bound::Nmse(bound) => report.nmse_within(bound)?,
                    Bound::Abs(bound) => report.abs_within(bound)?,
                }
            }
            (a, b) => return Err(format!("{stage}: expected the type of {a:?}, got {b:?}")),
        }
    }
    Ok(())
}

fn every_case(open: &OpenDevice) {
    let all = cases();
    assert!(all.len() >= 20, "expected at least 20 cases, got {}", all.len());
    let mut models: BTreeMap<String, Arc<Model>> = BTreeMap::new();
    let (mut worst, mut failed) = (Worst::new(), Vec::new());
    for case in &all {
        let model = models.entry(case.model.clone()).or_insert_with(|| run::fixture(&case.model, open));
        let checked = match run_case(model, case) {
            Ok(got) => check(case, &reference(&case.name), &got, &mut worst),
            Err(e) => Err(format!("expected a run, got: {e}")),
        };
        if let Err(why) = checked {
            let why: String = why.chars().take(600).collect();
            failed.push(format!("{} ({}, {}): {why}", case.name, case.model, case.picture));
        }
    }
    let mut table =
        format!("{}: {} cases\n{:18} {:>9} {:>9}  worst in\n", open.info, all.len(), "stage", "NMSE", "max abs");
    for (stage, (nmse, abs, case)) in &worst {
        writeln!(table, "{stage:18} {nmse:9.2e} {abs:9.2e}  {case}").expect("a string to take text");
    }
    eprintln!("{table}");
    assert!(
        failed.is_empty(),
        "expected every case to pass on {}, got {} failures:\n{}",
        open.info,
        failed.len(),
        failed.join("\n")
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
