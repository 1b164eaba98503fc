//! CUDA C++ text of a kernel: the same WGSL for NVIDIA GPUs.
//!
//! naga parses the WGSL and checks it; the text is written from its representation. `statement`
//! says when an expression is evaluated. The types and functions of WGSL are in `prelude.cuh`.
//!
//! The functions of a kernel are methods of a struct, whose members are the buffers, the parameters and the private
//! variables of one invocation. All methods are inlined, so that the members are registers.
//!
//! Only what our kernels use is supported; the rest is a [`CudaError::Unsupported`].

mod names;
mod types;
mod place;
mod expression;
mod statement;

use std::collections::{BTreeMap, HashMap, btree_map::Entry};
use std::fmt::Debug;

use naga::{
    AddressSpace, ArraySize, BuiltIn, Constant, EntryPoint, Expression, Function, GlobalVariable, Handle, Module,
    ShaderStage, Type, TypeInner,
    valid::{Capabilities, FunctionInfo, GlobalUse, ModuleInfo, ValidationFlags, Validator},
};

use names::Names;
use statement::Body;

/// The name of the kernel in a CUDA text.
pub const CUDA_ENTRY: &str = "fovea_main";

/// Why WGSL has no CUDA text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CudaError {
    /// The WGSL has an error: naga's message.
    Invalid(String),
    /// The WGSL is valid, but it has something that the translation does not support.
    Unsupported(String),
}

impl std::fmt::Display for CudaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Invalid(why) => write!(f, "CUDA text of a kernel: expected valid WGSL, got: {why}"),
            Self::Unsupported(what) => write!(
                f,
                "CUDA text of a kernel: expected WGSL that `fovea_shaders::cuda_text` supports, got {what}; \
                 write the kernel without it, or add it to the translation"
            ),
        }
    }
}

impl std::error::Error for CudaError {}

fn unsupported(what: impl Into<String>) -> CudaError {
    CudaError::Unsupported(what.into())
}

/// The name of a variant of an enum.
fn variant(value: &impl Debug) -> String {
    format!("{value:?}").chars().take_while(|c| c.is_alphanumeric()).collect()
}

/// The complete CUDA C++17 text of a kernel in WGSL, for NVRTC.
///
/// The kernel is [`CUDA_ENTRY`]. Its parameters are pointers: the storage buffers in the order of their binding
/// numbers, then the uniform block. A block has `workgroup_size` threads in one dimension, and no dynamic shared
/// memory. As in WebGPU, a buffer that the kernel writes must not overlap with another one. Workgroup
/// memory is **not** set to zero.
///
/// # Errors
/// [`CudaError::Invalid`] for an error in the WGSL, [`CudaError::Unsupported`] for what no kernel of ours uses.
pub fn cuda_text(wgsl: &str) -> Result<String, CudaError> {
    let module = naga::front::wgsl::parse_str(wgsl).map_err(|e| CudaError::Invalid(e.emit_to_string(wgsl)))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16).validate(&module);
    let info = info.map_err(|e| CudaError::Invalid(e.emit_to_string(wgsl)))?;
    let context = Context::new(&module, &info);
    context.check_layout()?;
    let kernel = context.kernel()?;
    let half = if kernel.contains("f16") { include_str!("cuda/f16.cuh") } else { "" };
    Ok([half, include_str!("cuda/prelude.cuh"), &kernel].concat())
}

/// A module, and the C++ names of what it declares.
struct Context<'a> {
    module: &'a Module,
    info: &'a ModuleInfo,
    names: Names,
    types: HashMap<Handle<Type>, String>,
    members: HashMap<Handle<Type>, Vec<String>>,
    globals: HashMap<Handle<GlobalVariable>, String>,
    functions: HashMap<Handle<Function>, String>,
}

impl<'a> Context<'a> {
    fn new(module: &'a Module, info: &'a ModuleInfo) -> Self {
        let mut names = Names::new();
        let (mut types, mut members) = (HashMap::new(), HashMap::new());
        for (handle, ty) in module.types.iter() {
            if let TypeInner::Struct { members: of_type, .. } = &ty.inner {
                let mut own = Names::new();
                let of_type = of_type.iter().map(|m| own.unique(m.name.as_deref().unwrap_or("member")));
                members.insert(handle, of_type.collect());
                types.insert(handle, names.unique(ty.name.as_deref().unwrap_or("Struct")));
            }
        }
        let globals = module.global_variables.iter();
        let globals = globals.map(|(h, g)| (h, names.unique(g.name.as_deref().unwrap_or("global")))).collect();
        let functions = module.functions.iter();
        let functions = functions.map(|(h, f)| (h, names.unique(f.name.as_deref().unwrap_or("function")))).collect();
        Self { module, info, names, types, members, globals, functions }
    }

    fn global(&self, handle: Handle<GlobalVariable>) -> Result<&str, CudaError> {
        self.globals.get(&handle).map(String::as_str).ok_or_else(|| unsupported("a variable without a name"))
    }

    fn function(&self, handle: Handle<Function>) -> Result<&str, CudaError> {
        self.functions.get(&handle).map(String::as_str).ok_or_else(|| unsupported("a function without a name"))
    }

    /// All after the prelude.
    fn kernel(&self) -> Result<String, CudaError> {
        let entry = match self.module.entry_points.as_slice() {
            [entry] if entry.stage == ShaderStage::Compute => entry,
            other => return Err(unsupported(format!("{} entry points, not one for compute", other.len()))),
        };
        let ([lanes, 1, 1], None) = (entry.workgroup_size, entry.workgroup_size_overrides) else {
            return Err(unsupported("a workgroup of more than one dimension, or of a size from outside"));
        };
        let uses = self.info.get_entry_point(0);
        let mut text = self.structs()?;
        let mut members = String::new();
        for (handle, global) in self.module.global_variables.iter().filter(|(handle, _)| !uses[*handle].is_empty()) {
            let name = self.global(handle)?;
            match global.space {
                AddressSpace::WorkGroup => text += &format!("__shared__ {} {name};\n", self.type_name(global.ty)?),
                AddressSpace::Private => {
                    let init = global.init.map_or(Ok("{}".into()), |init| self.constant_expression(init))?;
                    members += &format!("    {} {name} = {init};\n", self.type_name(global.ty)?);
                }
                _ => {}
            }
        }
        let buffers = self.buffers(uses)?;
        let pointers: String = buffers.iter().map(|b| format!("    {};\n", b.member)).collect();
        text += &format!("\nstruct Kernel {{\n{pointers}{members}\n");
        let (run, calls) = Body::new(self, &entry.function, uses).method("run")?;
        for method in self.methods(calls)?.values() {
            text += method;
            text += "\n";
        }
        text += &run;
        let parameters: Vec<_> = buffers.iter().map(|b| format!("\n    {}", b.parameter)).collect();
        let values: Vec<_> = buffers.iter().map(|b| b.value.as_str()).collect();
        text += &format!(
            "}};\n\nFOVEA_KERNEL void __launch_bounds__({lanes}) {CUDA_ENTRY}({}) {{\n    \
             Kernel kernel{{{}}};\n    kernel.run({});\n}}\n",
            parameters.join(","),
            values.join(", "),
            arguments(entry, lanes)?
        );
        Ok(text)
    }

    /// The functions that are called, directly or by others. One that is not called may write a buffer that is const.
    fn methods(&self, mut calls: Vec<Handle<Function>>) -> Result<BTreeMap<Handle<Function>, String>, CudaError> {
        let mut methods = BTreeMap::new();
        while let Some(handle) = calls.pop() {
            if let Entry::Vacant(place) = methods.entry(handle) {
                let body = Body::new(self, &self.module.functions[handle], &self.info[handle]);
                let (method, more) = body.method(self.function(handle)?)?;
                place.insert(method);
                calls.extend(more);
            }
        }
        Ok(methods)
    }

    /// The buffers in the order of the kernel's parameters.
    fn buffers(&self, info: &FunctionInfo) -> Result<Vec<Buffer>, CudaError> {
        let mut buffers = Vec::new();
        for (handle, global) in self.module.global_variables.iter() {
            let name = self.global(handle)?;
            let place = (matches!(global.space, AddressSpace::Uniform), global.binding.map_or(0, |b| b.binding));
            match global.space {
                AddressSpace::Storage { .. } => {
                    let TypeInner::Array { base, size: ArraySize::Dynamic, .. } = self.module.types[global.ty].inner
                    else {
                        return Err(unsupported(format!("the storage buffer {name}, which is no array")));
                    };
                    let written = info[handle].intersects(GlobalUse::WRITE | GlobalUse::ATOMIC);
                    let constant = if written { "" } else { "const " };
                    let pointer = format!("{constant}{}*", self.type_name(base)?);
                    buffers.push((
                        place,
                        Buffer {
                            member: format!("{pointer} {name}"),
                            parameter: format!("{pointer} __restrict__ {name}"),
                            value: name.into(),
                        },
                    ));
                }
                AddressSpace::Uniform => {
                    let ty = self.type_name(global.ty)?;
                    // A copy in registers, unless an index may select from it: then it stays in memory.
                    let copied = if self.has_array(global.ty) { "&" } else { "" };
                    buffers.push((
                        place,
                        Buffer {
                            member: format!("const {ty}{copied} {name}"),
                            parameter: format!("const {ty}* __restrict__ {name}"),
                            value: format!("*{name}"),
                        },
                    ));
                }
                AddressSpace::WorkGroup | AddressSpace::Private => {}
                space => return Err(unsupported(format!("the address space {space:?} of {name}"))),
            }
        }
        buffers.sort_by_key(|(place, _)| *place);
        Ok(buffers.into_iter().map(|(_, buffer)| buffer).collect())
    }

    fn has_array(&self, ty: Handle<Type>) -> bool {
        match &self.module.types[ty].inner {
            TypeInner::Struct { members, .. } => members.iter().any(|member| self.has_array(member.ty)),
            inner => matches!(inner, TypeInner::Array { .. }),
        }
    }

    /// A constant of the module, or an expression of constants, as a value.
    fn constant(&self, handle: Handle<Constant>) -> Result<String, CudaError> {
        self.constant_expression(self.module.constants[handle].init)
    }

    fn constant_expression(&self, handle: Handle<Expression>) -> Result<String, CudaError> {
        match self.module.global_expressions[handle] {
            Expression::Literal(literal) => expression::literal(literal),
            Expression::Constant(constant) => self.constant(constant),
            Expression::ZeroValue(ty) => Ok(format!("{}{{}}", self.type_name(ty)?)),
            Expression::Compose { ty, ref components } => {
                let components: Result<Vec<_>, _> = components.iter().map(|c| self.constant_expression(*c)).collect();
                self.compose(ty, &components?)
            }
            Expression::Splat { size, value } => Ok(expression::splat(size, &self.constant_expression(value)?)),
            ref other => Err(unsupported(format!("the expression {} in a constant", variant(other)))),
        }
    }
}

/// A buffer as a member of `Kernel`, as a parameter, and the value that the entry gives to the member.
struct Buffer {
    member: String,
    parameter: String,
    value: String,
}

/// The values of the parameters of an entry point.
fn arguments(entry: &EntryPoint, lanes: u32) -> Result<String, CudaError> {
    let arguments = entry.function.arguments.iter().map(|argument| {
        let Some(naga::Binding::BuiltIn(builtin)) = argument.binding else {
            return Err(unsupported("a parameter of the entry point that is no builtin"));
        };
        match builtin {
            BuiltIn::LocalInvocationIndex => Ok("threadIdx.x".into()),
            BuiltIn::WorkGroupId => Ok("wgsl::workgroup_id()".into()),
            BuiltIn::NumWorkGroups => Ok("wgsl::num_workgroups()".into()),
            BuiltIn::LocalInvocationId => Ok("wgsl::local_invocation_id()".into()),
            BuiltIn::GlobalInvocationId => Ok("wgsl::global_invocation_id()".into()),
            BuiltIn::WorkGroupSize => Ok(format!("vec3<u32>({lanes}u, 1u, 1u)")),
            other => Err(unsupported(format!("the builtin {other:?}"))),
        }
    });
    Ok(arguments.collect::<Result<Vec<String>, _>>()?.join(", "))
}

#[cfg(test)]
mod tests;
