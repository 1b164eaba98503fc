//! Names of WGSL as names of C++.

use std::collections::HashSet;

/// Words that WGSL allows as a name, and C++, CUDA or the prelude does not.
const RESERVED: &str = "
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t char32_t class co_await
    co_return co_yield compl concept const const_cast consteval constexpr constinit continue decltype default delete do
    double dynamic_cast else enum explicit export extern false float for friend goto if inline int long mutable
    namespace new noexcept not not_eq nullptr operator or or_eq private protected public register reinterpret_cast
    requires return short signed sizeof static static_assert static_cast struct switch template this thread_local throw
    true try typedef typeid typename union unsigned using virtual void volatile wchar_t while xor xor_eq linux unix
    NULL NAN INFINITY EOF assert errno signbit isnan isinf isfinite isnormal
    atomicAdd atomicSub atomicMin atomicMax atomicAnd atomicOr atomicXor atomicExch
    threadIdx blockIdx blockDim gridDim warpSize
    wgsl fovea_main Kernel kernel run f16 f32 i32 u32 vec2 vec3 vec4 mat4x4 array";

/// The names that exist already.
#[derive(Clone)]
pub struct Names(HashSet<String>);

impl Names {
    /// The words that are no names.
    pub fn new() -> Self {
        Self(RESERVED.split_whitespace().map(String::from).collect())
    }

    /// A name that does not exist yet: `wanted`, or `wanted_1` and so on.
    pub fn unique(&mut self, wanted: &str) -> String {
        let base = identifier(wanted);
        let mut name = base.clone();
        let mut count = 0;
        while !self.0.insert(name.clone()) {
            count += 1;
            name = format!("{base}_{count}");
        }
        name
    }
}

/// `name` in the letters of C++.
fn identifier(name: &str) -> String {
    let mut safe = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || c == '_' {
            safe.push(c);
        } else {
            safe += &format!("u{:x}_", c as u32);
        }
    }
    // C++ keeps names with two underscores for itself.
    while safe.contains("__") {
        safe = safe.replace("__", "_");
    }
    safe
}
