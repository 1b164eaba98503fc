use super::*;

/// Two buffers, parameters and workgroup memory, before the functions of a test.
const DECLARATIONS: &str = "
struct Params { count: u32, shift: u32, offset: i32, factor: f32 }
@group(0) @binding(0) var<storage, read_write> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(2) var<uniform> params: Params;
var<private> last: u32 = 7u;
var<workgroup> tile: array<vec4<f32>, 8>;
";

/// The text after the prelude of an entry point with this body, which may use `lane`.
fn of_body(body: &str) -> Result<String, CudaError> {
    let main = "@compute @workgroup_size(64) fn main(@builtin(local_invocation_index) lane: u32)";
    of_module(&format!("{DECLARATIONS}{main} {{ {body} }}"))
}

fn of_module(wgsl: &str) -> Result<String, CudaError> {
    let text = cuda_text(wgsl)?;
    let (_, kernel) = text.split_once("using namespace wgsl;\n").expect("the prelude");
    Ok(kernel.into())
}

/// The lines of the entry's body, without indentation.
fn lines(body: &str) -> Vec<String> {
    let text = of_body(body).unwrap();
    let (_, run) = text.split_once("void run(u32 lane) {\n").expect("the entry's body");
    let (run, _) = run.split_once("\n    }\n").expect("the end of the body");
    run.lines().map(|line| line.trim().to_string()).collect()
}

#[test]
fn the_entry_has_the_buffers_by_binding_and_then_the_parameters() {
    let text = of_body("y[lane] = vec4<f32>(params.factor) + tile[last] * f32(x[lane]);").unwrap();
    assert_eq!(
        text,
        "
struct Params {
    u32 count;
    u32 shift;
    i32 offset;
    f32 factor;
};
static_assert(sizeof(Params) == 16, \"the size of Params\");

__shared__ array<vec4<f32>, 8> tile;

struct Kernel {
    const u32* x;
    vec4<f32>* y;
    const Params params;
    u32 last = 7u;

    FOVEA_FN void run(u32 lane) {
        const f32 e = params.factor;
        const u32 e_1 = last;
        const vec4<f32> e_2 = tile[e_1];
        const u32 e_3 = x[lane];
        y[lane] = wgsl::splat<4>(e) + (e_2 * wgsl::convert<f32>(e_3));
        return;
    }
};

FOVEA_KERNEL void __launch_bounds__(64) fovea_main(
    const u32* __restrict__ x,
    vec4<f32>* __restrict__ y,
    const Params* __restrict__ params) {
    Kernel kernel{x, y, *params};
    kernel.run(threadIdx.x);
}
"
    );
    assert!(text.contains(CUDA_ENTRY));
}

#[test]
fn reads_stay_before_later_writes() {
    // The old value is added, although its name is used after the write.
    assert_eq!(
        lines("let old = x[lane]; x[lane] = 5u; x[0] = old + 1u;"),
        ["const u32 old = x[lane];", "x[lane] = 5u;", "x[0u] = old + 1u;", "return;",]
    );
    // A swap, whose reads have no name.
    assert_eq!(
        lines("var a = lane; var b = 1u; let t = a; a = b; b = t; x[a] = b;")[2..],
        [
            "a = lane;",
            "const u32 t = a;",
            "const u32 e = b;",
            "a = e;",
            "b = t;",
            "const u32 e_1 = a;",
            "const u32 e_2 = b;",
            "x[e_1] = e_2;",
            "return;",
        ]
    );
    // A call may write what was read before it.
    let module = format!(
        "{DECLARATIONS}
        fn next() -> u32 {{ last += 1u; return last; }}
        @compute @workgroup_size(64) fn main() {{ x[0] = last + next() * 2u; }}"
    );
    let text = of_module(&module).unwrap();
    assert!(
        text.contains("const u32 e = last;\n        const u32 e_1 = next();\n        x[0u] = e + (e_1 * 2u);"),
        "{text}"
    );
}

#[test]
fn integers_wrap_divide_and_shift_as_in_wgsl() {
    assert_eq!(
        lines("let a = params.offset; x[0] = bitcast<u32>(-((a + 1) * a - 3));")[1..],
        ["x[0u] = wgsl::bits<u32>(wgsl::negative(wgsl::minus(wgsl::times(wgsl::plus(a, 1), a), 3)));", "return;",]
    );
    // Divisors and shifts that are constants need no check.
    assert_eq!(
        lines("x[0] = lane / params.count + lane % 8u / 3u;")[1],
        "x[0u] = wgsl::over(lane, e) + ((lane % 8u) / 3u);"
    );
    assert_eq!(
        lines("x[0] = (lane << params.shift) | (lane >> 3u);")[1],
        "x[0u] = wgsl::left(lane, e) | (lane >> 3u);"
    );
    assert_eq!(lines("x[0] = u32(params.offset / -1);")[1], "x[0u] = wgsl::convert<u32>(wgsl::over(e, -1));");
    assert_eq!(lines("x[0] = u32(params.factor);")[1], "x[0u] = wgsl::convert<u32>(e);");
    assert_eq!(
        lines("let bound = -2147483647 - 1; x[0] = u32(max(params.offset, bound));")[1],
        "x[0u] = wgsl::convert<u32>(wgsl::max(e, i32(0x80000000u)));"
    );
}

#[test]
fn components_that_an_index_selects_have_no_address_in_registers() {
    let text = lines(
        "var v = vec4<f32>(); v[lane] = params.factor; let m = mat4x4<f32>(v, v.yxzz, y[1], y[2]);
         y[0] = m[lane] * m[1][lane] * y[3][lane];",
    );
    assert_eq!(
        text[1..],
        [
            "const f32 e = params.factor;",
            "wgsl::put(v, lane, e);",
            "const vec4<f32> e_1 = v;",
            "const vec4<f32> e_2 = v;",
            "const vec4<f32> e_3 = y[1u];",
            "const vec4<f32> e_4 = y[2u];",
            "const mat4x4<f32> m = mat4x4<f32>{e_1, wgsl::swizzle<1, 0, 2, 2>(e_2), e_3, e_4};",
            "const f32 e_5 = wgsl::component(y[3u], lane);",
            "y[0u] = (wgsl::at(m, lane) * wgsl::at(m.c1, lane)) * e_5;",
            "return;",
        ]
    );
}

#[test]
fn loops_end_with_what_continues_them() {
    assert_eq!(
        lines("for (var i = lane; i < 9u; i += 2u) { if (i == 5u) { continue; } x[i] = i; }")[1..],
        [
            "i = lane;",
            "for (;;) {",
            "{",
            "const u32 e = i;",
            "if (!(e < 9u)) {",
            "break;",
            "}",
            "{",
            "const u32 e_1 = i;",
            "if (e_1 == 5u) {",
            "goto next;",
            "}",
            "const u32 e_2 = i;",
            "const u32 e_3 = i;",
            "x[e_2] = e_3;",
            "}",
            "}",
            "next:;",
            "const u32 e_4 = i;",
            "i = e_4 + 2u;",
            "}",
            "return;",
        ]
    );
    // Without `continue`, `continuing` may use the values of the body.
    assert_eq!(
        lines("var i = 0u; loop { let n = i + 2u; x[i] = n; continuing { i = n; break if n > lane; } }")[1..],
        [
            "for (;;) {",
            "const u32 e = i;",
            "const u32 n = e + 2u;",
            "const u32 e_1 = i;",
            "x[e_1] = n;",
            "i = n;",
            "if (n > lane) { break; }",
            "}",
            "return;",
        ]
    );
    // After one they are out of reach.
    let why = of_body("var i = 0u; loop { let n = i + 2u; if (n == 4u) { i = 5u; continue; } continuing { i = n; } }");
    assert!(matches!(why, Err(CudaError::Unsupported(_))), "{why:?}");
}

#[test]
fn of_a_constant_condition_one_branch_is_written() {
    assert_eq!(
        lines("const A = 2u; if (A > 3u) { x[0] = 1u; } else { x[0] = 2u; } if (A > 3u) { x[1] = 1u; } x[2] = A;"),
        ["{", "x[0u] = 2u;", "}", "x[2u] = 2u;", "return;",]
    );
    assert_eq!(
        lines("switch lane { case 1u, 2u: { x[0] = 1u; } default: {} } x[2] = lane;"),
        [
            "switch (lane) {",
            "case 1u: {",
            "}",
            "case 2u: {",
            "x[0u] = 1u;",
            "} break;",
            "default: {",
            "} break;",
            "}",
            "x[2u] = lane;",
            "return;",
        ]
    );
}

#[test]
fn atomics_and_barriers_are_those_of_cuda() {
    let wgsl = "
        @group(0) @binding(0) var<storage, read_write> x: array<u32>;
        var<workgroup> bins: array<atomic<u32>, 4>;
        @compute @workgroup_size(4) fn main(@builtin(local_invocation_index) lane: u32) {
            atomicStore(&bins[lane], 0u);
            workgroupBarrier();
            atomicAdd(&bins[lane / 2u], 1u);
            let old = atomicMax(&bins[3], lane);
            workgroupBarrier();
            x[lane] = atomicLoad(&bins[lane]) + old;
        }";
    let text = of_module(wgsl).unwrap();
    let expected = "
        wgsl::atomic_store(bins[lane], 0u);
        __syncthreads();
        atomicAdd(&bins[lane / 2u], 1u);
        const u32 old = atomicMax(&bins[3u], lane);
        __syncthreads();
        const u32 e = wgsl::atomic_load(bins[lane]);
        x[lane] = e + old;
";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn names_that_c_has_for_itself_get_another_one() {
    let text = lines("let int = lane + 1u; let NAN = int * int; x[NAN] = int;");
    assert_eq!(text[..3], ["const u32 int_1 = lane + 1u;", "const u32 NAN_1 = int_1 * int_1;", "x[NAN_1] = int_1;"]);
}

#[test]
fn f16_has_a_header_only_where_it_is_used() {
    let wgsl = |elem: &str| {
        format!(
            "enable f16; @group(0) @binding(0) var<storage, read_write> x: array<vec4<{elem}>>;
            @compute @workgroup_size(4) fn main() {{ x[0] = max(x[1], vec4<{elem}>(-2.5)); }}"
        )
    };
    let half = cuda_text(&wgsl("f16")).unwrap();
    assert!(half.contains("#include <cuda_fp16.h>") && half.contains("f16(-2.5f)"), "{half}");
    assert!(!cuda_text(&wgsl("f32")).unwrap().contains("#include"));
}

#[test]
fn what_is_not_supported_is_named() {
    let whole = |text: &str| cuda_text(text).expect_err(text);
    assert!(matches!(whole("fn main() -> u32 { return 1.5; }"), CudaError::Invalid(_)));
    let entry = "@compute @workgroup_size(64) fn main()";
    for (body, word) in [
        ("x[0] = arrayLength(&x);", "ArrayLength"),
        ("y[0] = sin(y[1]);", "Sin"),
        ("y[0].x = y[1].x % 2.0;", "%"),
        ("x[0] = u32(any(y[0] < y[1]));", "Relational"),
        ("var m = mat4x4<f32>(); m[lane] = y[0]; y[1] = m[0];", "column"),
        ("var m = mat4x4<f32>(); m[lane].x = 1.0; y[1] = m[0];", "component"),
        ("y[0] = (mat3x4<f32>(y[0], y[1], y[2]) * vec3<f32>(1.0));", "Matrix"),
    ] {
        match of_body(body).expect_err(body) {
            CudaError::Unsupported(what) => assert!(what.contains(word), "{body}: {what}"),
            other => panic!("{body}: expected a refusal, got {other}"),
        }
    }
    for (text, word) in [
        (format!("@group(0) @binding(0) var<storage, read_write> x: u32; {entry} {{ x = 1u; }}"), "no array"),
        (
            format!("@group(0) @binding(0) var<storage, read_write> x: array<vec3<f32>>; {entry} {{ x[0].x = 1.0; }}"),
            "array",
        ),
        (format!("struct S {{ a: vec3<f32>, }} var<private> s: S; {entry} {{ s.a.x = 1.0; }}"), "struct of 16 bytes"),
        (
            format!("struct S {{ a: f32, @align(16) b: f32 }} var<private> s: S; {entry} {{ s.a = 1.0; }}"),
            "b at byte 16",
        ),
        ("@compute @workgroup_size(8, 8) fn main() {}".into(), "dimension"),
        ("@fragment fn main() {}".into(), "entry points"),
        (format!("{entry} {{}} @compute @workgroup_size(1) fn other() {{}}"), "2 entry points"),
    ] {
        let error = whole(&text);
        assert!(error.to_string().contains(word), "{text}: {error}");
    }
    assert!(whole("@fragment fn main() {}").to_string().contains("expected"));
}

#[test]
fn every_kernel_has_a_text() {
    for kernel in crate::KERNELS {
        let constants = kernel.constants.iter().map(|name| match *name {
            "ROWS" | "SHARE" | "CHUNK" => 8,
            "GROUP" => 32,
            "LANES" => 64,
            "DIRECT" => 0,
            "PACKS" | "WIDTH" | "WINDOW" | "ACTIVATION" => 4,
            _ => 1,
        });
        let constants: Vec<_> = constants.collect();
        let formats = [crate::Format::Q8, crate::Format::Q4].map(crate::Variant::of_codes);
        for variant in kernel.variants.iter().chain(formats.iter().filter(|_| kernel.weight.is_some())) {
            let text = cuda_text(&kernel.wgsl(*variant, &constants));
            assert!(text.is_ok(), "{} {variant}: {:?}", kernel.name, text.err());
        }
    }
}
