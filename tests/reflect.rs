//! Checks the WGSL of every kernel without a GPU: it is valid within WebGPU's baseline limits, agrees with its
//! [`Kernel`] and its struct of parameters, and compiles with naga's back ends.
//!
//! Covers every kernel in every variant, of codes in six formats, and `region_pool` with every window.

use std::{collections::BTreeSet, fmt::Debug, fs, mem::offset_of, path::Path, process::Command};

use fovea_shaders::{
    AttendMergeParams, AttendSplitParams, BestParams, CompactParams, EmbedParams, FlashCausalParams, FlashFullParams,
    GemmParams, GemvParams, KERNELS, Kernel, NormParams, PickParams, ProductParams, RegionPoolParams, RopeKvParams,
    RoundRowsParams, RowGatherParams, ScaleFoldParams, ScaleSelectParams, ScanParams, SoftmaxParams, TopKParams,
};
use fovea_tests::{
    device::{REQUIRE, skip},
    texts::{constants, variants},
};
use naga::{
    AddressSpace, Module, ShaderStage, StorageAccess, TypeInner,
    back::{glsl, hlsl, msl, spv},
    proc::{BoundsCheckPolicies, BoundsCheckPolicy},
    valid::{Capabilities, ModuleInfo, ValidationFlags, Validator},
};

/// WebGPU's baseline limits: invocations per workgroup, workgroup memory in bytes, storage buffers per stage.
const MAX_INVOCATIONS: u32 = 256;
const MAX_WORKGROUP_MEMORY: u32 = 16 * 1024;
const MAX_BUFFERS: u32 = 8;

/// A struct of parameters in Rust: its size, and names and offsets of its fields.
struct Block {
    size: usize,
    fields: Vec<(&'static str, usize)>,
}

macro_rules! block {
    ($type:ident: $($field:ident),+) => {{
        // A missing field is a compile error.
        let _ = |$type { $($field: _),+ }: $type| ();
        Block { size: size_of::<$type>(), fields: vec![$((stringify!($field), offset_of!($type, $field))),+] }
    }};
}

fn block(kernel: &Kernel) -> Block {
    match kernel.name {
        "region_pool" => {
            block!(RegionPoolParams: height, width, packs, across, scales, rows, unused_0, unused_1, scale)
        }
        "scale_fold" => block!(ScaleFoldParams: context, packs, factor, unused_0),
        "scale_select" => block!(ScaleSelectParams: regions, packs, scales, unused_0),
        "compact_rows" | "compact" => {
            block!(CompactParams: height, width, window, across, scales, packs, tokens, pooled_rows, newlines, unused_0, unused_1, unused_2, scale)
        }
        "text_score_product" => {
            block!(ProductParams: share, text, first, block, visual, packs, factor, unused_0)
        }
        "text_score_softmax" => block!(SoftmaxParams: rows, visual, unused_0, unused_1),
        "text_score_best" => {
            block!(BestParams: heads, block, visual, first, share, unused_0, unused_1, unused_2)
        }
        "top_k" => block!(TopKParams: count, by_count, keep, gamma),
        "norm" => block!(NormParams: rows, packs, epsilon, unused_0),
        "rope_kv" => block!(RopeKvParams: tokens, heads, groups, half, capacity, slot, unused_0, unused_1),
        "embed" => block!(EmbedParams: tokens, packs, first, rows, factor, unused_0, unused_1, unused_2),
        "pick" => block!(PickParams: vocab, unused_0, unused_1, unused_2),
        "gemm" | "gemm_direct" | "gemm_dot4" => {
            block!(GemmParams: tokens, packs, rows, first, width, factor, unused_0, unused_1)
        }
        "round_rows" => block!(RoundRowsParams: packs, unused_0, unused_1, unused_2),
        "flash_causal" => {
            block!(FlashCausalParams: tokens, keys, heads, groups, capacity, packs, factor, unused_0)
        }
        "flash_full" => block!(FlashFullParams: tokens, heads, packs, factor),
        "attend_split" => {
            block!(AttendSplitParams: heads, groups, packs, capacity, slot, chunks, factor, unused_0)
        }
        "attend_merge" => block!(AttendMergeParams: packs, slot, chunks, keys),
        "gemv" => block!(GemvParams: packs, rows, first, epsilon, factor, unused_0, unused_1, unused_2),
        "row_gather" => block!(RowGatherParams: rows, packs, count, total),
        "selective_scan_ends" | "selective_scan_carry" | "selective_scan" => {
            block!(ScanParams: length, channels, states, chunk)
        }
        other => panic!("{other}: expected its parameters in this table"),
    }
}

/// What a kernel's WGSL must contain.
struct Promise {
    half: bool,
    lanes: u32,
    buffers: u32,
    block: Block,
}

fn equal<T: PartialEq + Debug>(what: &str, expected: T, got: T) -> Result<(), String> {
    if expected == got { Ok(()) } else { Err(format!("{what}: expected {expected:?}, got {got:?}")) }
}

fn at_most(what: &str, limit: u32, got: u32) -> Result<(), String> {
    if got <= limit { Ok(()) } else { Err(format!("{what}: expected at most {limit}, got {got}")) }
}

/// Parses and validates WGSL without optional features, except f16 if it is allowed.
fn parse(text: &str, half: bool) -> Result<(Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    let capabilities = if half { Capabilities::SHADER_FLOAT16 } else { Capabilities::empty() };
    let info = Validator::new(ValidationFlags::all(), capabilities).validate(&module);
    let info = info.map_err(|e| e.emit_to_string(text))?;
    Ok((module, info))
}

/// Checks everything that the host code relies on.
fn check(text: &str, promise: &Promise) -> Result<(Module, ModuleInfo), String> {
    let (module, info) = parse(text, promise.half)?;

    let [entry] = &module.entry_points[..] else {
        return Err(format!("entry points: expected one, got {}", module.entry_points.len()));
    };
    equal("entry point", ("main", ShaderStage::Compute), (entry.name.as_str(), entry.stage))?;
    equal("workgroup_size", [promise.lanes, 1, 1], entry.workgroup_size)?;
    equal("workgroup_size that an override sets", None, entry.workgroup_size_overrides)?;
    at_most("invocations", MAX_INVOCATIONS, promise.lanes)?;

    let mut bound = Vec::new();
    let mut memory = 0;
    for (handle, global) in module.global_variables.iter() {
        let name = global.name.as_deref().unwrap_or_default();
        let used = !info.get_entry_point(0)[handle].is_empty();
        match (global.space, &global.binding) {
            // WebGPU's definition of the size: each variable is rounded up to 16 bytes.
            (AddressSpace::WorkGroup, None) if used => {
                memory += module.types[global.ty].inner.size(module.to_ctx()).next_multiple_of(16);
            }
            (_, Some(binding)) => {
                equal(&format!("{name}: group"), 0, binding.group)?;
                equal(&format!("{name}: used"), true, used)?;
                bound.push((binding.binding, name, global));
            }
            (space, None) => equal(&format!("{name}: used, in {space:?}"), true, used)?,
        }
    }
    at_most("workgroup memory", MAX_WORKGROUP_MEMORY, memory)?;
    at_most("storage buffers", MAX_BUFFERS, promise.buffers)?;

    bound.sort_by_key(|(binding, ..)| *binding);
    equal("bindings", (0..=promise.buffers).collect(), bound.iter().map(|(binding, ..)| *binding).collect::<Vec<_>>())?;
    let (_, _, uniform) = bound.pop().ok_or("bindings: expected the uniform, got none")?;
    equal("the last binding", AddressSpace::Uniform, uniform.space)?;
    for (_, name, global) in bound {
        let access = StorageAccess::LOAD | StorageAccess::STORE;
        equal(name, AddressSpace::Storage { access }, global.space)?;
    }

    let TypeInner::Struct { members, span } = &module.types[uniform.ty].inner else {
        return Err("the uniform: expected a struct".into());
    };
    let members: Vec<_> = members.iter().map(|m| (m.name.as_deref().unwrap_or_default(), m.offset as usize)).collect();
    equal("members of the uniform and their offsets", &promise.block.fields, &members)?;
    at_most("bytes of the uniform", promise.block.size as u32, *span)?;
    Ok((module, info))
}

/// The WGSL of every kernel and variant: a name, the text, and what it must contain.
fn texts() -> Vec<(String, String, Promise)> {
    let mut texts = Vec::new();
    for kernel in KERNELS {
        for variant in variants(kernel) {
            for constants in constants(kernel, variant) {
                let (lanes, buffers) = (kernel.lanes(&constants), kernel.storage_buffers(variant));
                let promise = Promise { half: variant.half, lanes, buffers, block: block(kernel) };
                texts.push((
                    format!("{} {variant} {constants:?}", kernel.name),
                    kernel.wgsl(variant, &constants),
                    promise,
                ));
            }
        }
    }
    texts
}

fn none(failed: &[String]) {
    assert!(failed.is_empty(), "expected every text to pass, got:\n{}", failed.join("\n"));
}

#[test]
fn every_kernel_agrees_with_its_host_code() {
    for kernel in KERNELS {
        assert_eq!(kernel.parameters, block(kernel).size, "{}: bytes of parameters (got, expected)", kernel.name);
    }
    let texts = texts();
    let failed =
        texts.iter().filter_map(|(what, text, promise)| check(text, promise).err().map(|why| format!("{what}: {why}")));
    none(&failed.collect::<Vec<_>>());
}

#[test]
fn every_file_belongs_to_one_kernel() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shaders/src/wgsl");
    let files = |folder: &Path| -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name in UTF-8"));
        names.filter(|name| name.ends_with(".wgsl")).collect()
    };
    let kernels: Vec<String> = KERNELS.iter().map(|kernel| format!("{}.wgsl", kernel.name)).collect();
    let distinct: BTreeSet<String> = kernels.iter().cloned().collect();
    assert_eq!(kernels.len(), distinct.len(), "kernels with a name of their own (all, distinct)");
    assert_eq!(files(&folder), distinct, "files of shaders/src/wgsl, and kernels");
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    for kernel in KERNELS {
        let file = read(&folder.join(kernel.name).with_extension("wgsl"));
        assert_eq!(file, kernel.body, "{}: its file, and its body", kernel.name);
    }
    let texts = texts();
    for name in files(&folder.join("shared")) {
        let file = read(&folder.join("shared").join(&name));
        assert!(texts.iter().any(|(_, text, _)| text.contains(&file)), "shared/{name}: expected a kernel that has it");
    }
}

/// Whether `spirv-val` exists. If not: prints that `what` is skipped, or fails if [`REQUIRE`] is set.
fn has_spirv_val(what: &str) -> bool {
    let there = Command::new("spirv-val").arg("--version").output().is_ok_and(|out| out.status.success());
    if !there {
        let required = std::env::var(REQUIRE).is_ok_and(|v| v == "1");
        assert!(!required, "expected spirv-val in PATH, since {REQUIRE}=1");
        skip(&format!("{what}: expected spirv-val in PATH, found none"));
    }
    there
}

fn spirv_val(words: &[u32], environment: &str) -> Result<(), String> {
    let file = tempfile::NamedTempFile::new().map_err(|e| e.to_string())?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    fs::write(file.path(), bytes).map_err(|e| e.to_string())?;
    let out = Command::new("spirv-val").args(["--target-env", environment]).arg(file.path()).output();
    let out = out.map_err(|e| format!("spirv-val: {e}"))?;
    let said = [out.stdout, out.stderr].concat();
    if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said).into_owned()) }
}

/// Like browsers: every index is bounds-checked, every loop is bounded.
const CHECKED: bool = true;
/// Like the runtime, which trusts its own kernels.
const TRUSTED: bool = false;

fn policies(checked: bool) -> BoundsCheckPolicies {
    let policy = if checked { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
    BoundsCheckPolicies { index: policy, buffer: policy, image_load: policy, binding_array: policy }
}

/// The SPIR-V options that wgpu uses for Vulkan 1.0 and 1.3.
fn to_spirv(module: &Module, info: &ModuleInfo, checked: bool, version: (u8, u8)) -> Result<Vec<u32>, String> {
    let options = spv::Options {
        lang_version: version,
        flags: spv::WriterFlags::LABEL_VARYINGS,
        // An old device has no instruction for products of four bytes.
        capabilities: (version < (1, 6)).then(|| [spv::Capability::Float16].into_iter().collect()),
        bounds_check_policies: policies(checked),
        zero_initialize_workgroup_memory: if version >= (1, 4) {
            spv::ZeroInitializeWorkgroupMemoryMode::Native
        } else {
            spv::ZeroInitializeWorkgroupMemoryMode::Polyfill
        },
        force_loop_bounding: checked,
        ..spv::Options::default()
    };
    let entry = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: "main".into() };
    spv::write_vec(module, info, &options, Some(&entry)).map_err(|e| e.to_string())
}

fn to_msl(module: &Module, info: &ModuleInfo, checked: bool) -> Result<String, String> {
    let options = msl::Options {
        lang_version: (2, 4),
        bounds_check_policies: policies(checked),
        force_loop_bounding: checked,
        ..msl::Options::default()
    };
    let (text, said) =
        msl::write_string(module, info, &options, &msl::PipelineOptions::default()).map_err(|e| e.to_string())?;
    said.entry_point_names.into_iter().try_for_each(|name| name.map(|_| ()).map_err(|e| e.to_string()))?;
    Ok(text)
}

fn to_hlsl(module: &Module, info: &ModuleInfo, checked: bool, half: bool) -> Result<String, String> {
    let options = hlsl::Options {
        shader_model: if half { hlsl::ShaderModel::V6_2 } else { hlsl::ShaderModel::V6_0 },
        special_constants_binding: Some(hlsl::BindTarget { space: 1, ..hlsl::BindTarget::default() }),
        restrict_indexing: checked,
        force_loop_bounding: checked,
        ..hlsl::Options::default()
    };
    let (mut text, entry) = (String::new(), hlsl::PipelineOptions::default());
    let said = hlsl::Writer::new(&mut text, &options, &entry).write(module, info, None).map_err(|e| e.to_string())?;
    said.entry_point_names.into_iter().try_for_each(|name| name.map(|_| ()).map_err(|e| e.to_string()))?;
    Ok(text)
}

fn to_glsl(module: &Module, info: &ModuleInfo, checked: bool, version: glsl::Version) -> Result<String, String> {
    let options = glsl::Options { version, ..glsl::Options::default() };
    let entry =
        glsl::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: "main".into(), multiview: None };
    let mut text = String::new();
    let mut writer = glsl::Writer::new(&mut text, module, info, &options, &entry, policies(checked))
        .map_err(|e| format!("{version}: {e}"))?;
    writer.write().map_err(|e| format!("{version}: {e}"))?;
    Ok(text)
}

#[test]
fn every_kernel_compiles_with_every_back_end() {
    let validate = has_spirv_val("SPIR-V of the kernels");
    let one = |text: &str, half: bool| -> Result<(), String> {
        let (module, info) = parse(text, half)?;
        for (checked, version, environment) in [(CHECKED, (1, 0), "vulkan1.0"), (TRUSTED, (1, 6), "vulkan1.3")] {
            let words = to_spirv(&module, &info, checked, version).map_err(|e| format!("SPIR-V: {e}"))?;
            if validate {
                spirv_val(&words, environment).map_err(|e| format!("SPIR-V for {environment}: {e}"))?;
            }
        }
        for checked in [CHECKED, TRUSTED] {
            to_msl(&module, &info, checked).map_err(|e| format!("MSL: {e}"))?;
            to_hlsl(&module, &info, checked, half).map_err(|e| format!("HLSL: {e}"))?;
            // naga does not support f16 in GLSL, and wgpu does not offer it there.
            if !half {
                for version in [glsl::Version::new_gles(310), glsl::Version::Desktop(430)] {
                    to_glsl(&module, &info, checked, version).map_err(|e| format!("GLSL: {e}"))?;
                }
            }
        }
        Ok(())
    };
    let texts = texts();
    let failed = texts
        .iter()
        .filter_map(|(what, text, promise)| one(text, promise.half).err().map(|why| format!("{what}: {why}")));
    none(&failed.collect::<Vec<_>>());
}

/// A correct kernel.
const SOUND: &str = "
struct Params { count: u32, factor: f32, unused_0: u32, unused_1: u32 }
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;
const LANES: u32 = 64u;
var<workgroup> tile: array<f32, LANES>;
@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) lane: u32) {
    tile[lane] = x[lane];
    workgroupBarrier();
    if (lane < params.count) {
        y[lane] = tile[LANES - 1u - lane] * params.factor;
    }
}
";

#[test]
fn wrong_kernels_are_refused() {
    let promise = || Promise {
        half: false,
        lanes: 64,
        buffers: 2,
        block: Block { size: 16, fields: vec![("count", 0), ("factor", 4), ("unused_0", 8), ("unused_1", 12)] },
    };
    check(SOUND, &promise()).unwrap();
    // Name, part of the text, its replacement, words of the error.
    for (what, part, instead, words) in [
        ("no WGSL", "fn main", "function main", "expected"),
        ("no type", "y[lane] =", "y[lane] = 1i +", "i32"),
        ("a feature", "* params.factor", "* f32(f64(params.factor))", "cast"),
        ("the entry point's name", "fn main", "fn start", "entry point"),
        ("fewer lanes", "64u", "32u", "workgroup_size"),
        ("two dimensions", "size(LANES)", "size(LANES, 2)", "workgroup_size"),
        ("a size from outside", "const LANES", "override LANES", "workgroup_size"),
        ("an offset", "factor: f32", "@align(8) factor: f32", "offsets"),
        ("a member's name", "count", "counts", "offsets"),
        ("members swapped", "count: u32, factor: f32", "factor: f32, count: u32", "offsets"),
        ("a member too many", "unused_1: u32", "unused_1: u32, more: u32", "offsets"),
        ("a uniform too long", "unused_1: u32", "@size(8) unused_1: u32", "bytes of the uniform"),
        ("an unused buffer", "x[lane]", "1.0", "x: used"),
        ("an unused uniform", "params.", "Params(1u, 1.0, 0u, 0u).", "params: used"),
        ("unused workgroup memory", "const LANES", "var<workgroup> more: u32; const LANES", "more: used"),
        ("another group", "@group(0) @binding(1)", "@group(1) @binding(1)", "y: group"),
        ("a gap", "@binding(2)", "@binding(3)", "bindings"),
        ("no uniform", "var<uniform>", "var<storage, read_write>", "last binding"),
        ("a buffer to read only", "read_write> x", "read> x", "x: expected"),
        ("too much workgroup memory", "array<f32, LANES>", "array<f32, 4097>", "workgroup memory"),
    ] {
        let text = SOUND.replace(part, instead);
        assert_ne!(text, SOUND, "{what}: expected {part:?} in the text");
        let why = check(&text, &promise()).err();
        let why = why.unwrap_or_else(|| panic!("{what}: expected an error"));
        assert!(why.contains(words), "{what}: expected {words:?} in the error, got: {why}");
    }
    let halves = format!("enable f16;{}", SOUND.replace("params.factor;", "f32(f16(params.factor));"));
    check(&halves, &Promise { half: true, ..promise() }).unwrap();
    let why = check(&halves, &promise()).err().unwrap_or_default();
    assert!(why.contains("cast"), "f16 without the feature: expected a refusal, got {why:?}");
    let many = Promise { lanes: 512, ..promise() };
    let why = check(&SOUND.replace("64u", "512u"), &many).err().unwrap_or_default();
    assert!(why.contains("at most 256"), "512 lanes: expected a refusal, got {why:?}");

    if has_spirv_val("SPIR-V cut short") {
        let (module, info) = parse(SOUND, false).unwrap();
        let words = to_spirv(&module, &info, CHECKED, (1, 0)).unwrap();
        spirv_val(&words, "vulkan1.0").unwrap();
        assert!(spirv_val(&words[..words.len() - 1], "vulkan1.0").is_err(), "SPIR-V cut short: expected a refusal");
    }
}
