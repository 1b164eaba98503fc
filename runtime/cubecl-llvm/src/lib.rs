//! A stub that replaces [CubeCL's LLVM compiler](https://crates.io/crates/cubecl-llvm) in builds with CUDA.
//!
//! cubecl-cuda 0.11 has two compilers and always builds both: CUDA C++ through NVRTC (its feature `cpp`, which our
//! feature `cuda` turns on), and PTX through LLVM. The build of the second one downloads LLVM 23 (a few hundred
//! megabytes), so it fails without a network. This stub has the names that cubecl-cuda uses; its compiler returns a
//! typed error. `[patch.crates-io]` in the workspace selects it. A program outside this workspace does not get the
//! patch, and builds with LLVM.
//!
//! Names and types follow cubecl-llvm 0.11.3 (`src/shared/base.rs`, `src/nvptx/ptx_version.rs`); the code is ours.

use std::fmt;

use cubecl_core::ir::DeviceProperties;
#[cfg(feature = "nvptx")]
use cubecl_core::ir::nvidia::SmArch;
use cubecl_core::prelude::KernelDefinition;
use cubecl_runtime::compiler::{CompilationError, Compiler};
use cubecl_runtime::kernel::BufferIOAttr;

/// The target of a compilation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LlvmTarget {
    /// PTX of NVIDIA.
    #[default]
    Nvptx,
}

/// A compiler that returns an error for each kernel.
#[derive(Clone, Debug, Default)]
pub struct PlironCompiler {
    /// Ignored.
    pub target: LlvmTarget,
}

/// The properties of a device; ignored.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// For targets other than PTX.
    pub arch: Option<()>,
    /// The generation of the GPU.
    #[cfg(feature = "nvptx")]
    pub sm_arch: Option<SmArch>,
    /// The newest PTX version that the driver loads.
    pub ptx_version: Option<nvptx::ptx_version::PtxVersion>,
    /// Whether scalars are passed as grid constants.
    pub grid_constants: bool,
}

/// A compiled kernel. This crate never makes one.
#[derive(Clone, Debug)]
pub enum PlironArtifact {
    /// PTX.
    NvptxCode(NvptxModule),
}

impl fmt::Display for PlironArtifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::NvptxCode(module) = self;
        f.write_str(&module.ir)
    }
}

/// The text of a compiled kernel, and what it needs.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// PTX, with a NUL at the end.
    pub ptx: Vec<std::ffi::c_char>,
    /// The name of the kernel.
    pub entrypoint: String,
    /// The source that it was compiled from.
    pub ir: String,
    /// Bytes of shared memory.
    pub shared_memory_size: usize,
    /// The buffers that it reads and writes.
    pub io: Vec<BufferIOAttr>,
}

impl Compiler for PlironCompiler {
    type Representation = PlironArtifact;
    type CompilationOptions = PlironOptions;

    fn compile(&mut self, _: KernelDefinition, _: &PlironOptions) -> Result<PlironArtifact, CompilationError> {
        Err(CompilationError::Generic {
            reason: "this build has no LLVM: expected cubecl-cuda's feature `cpp` (CUDA C++ through NVRTC)".into(),
            backtrace: cubecl_environment::backtrace::BackTrace::capture(),
        })
    }

    fn extension(&self) -> &'static str {
        "ll"
    }

    fn lang_tag(&self) -> &'static str {
        "llvm"
    }
}

/// PTX of NVIDIA.
pub mod nvptx {
    /// Versions of PTX.
    pub mod ptx_version {
        use std::fmt;

        /// A version of PTX. It has no values: [`PtxVersion::for_driver`] returns None.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum PtxVersion {}

        impl PtxVersion {
            /// The newest version that a driver loads. Always None: cubecl-cuda then uses the default of the compiler.
            pub fn for_driver(_driver: i32) -> Option<Self> {
                None
            }
        }

        impl fmt::Display for PtxVersion {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {}
            }
        }
    }
}

/// Changes to the properties of a device.
pub mod shared {
    /// Features that LLVM can lower.
    pub mod lowered_features {
        use super::super::DeviceProperties;

        /// A kind of GPU.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum GpuTarget {
            /// NVIDIA.
            Nvptx,
        }

        /// Changes nothing: cubecl-cuda calls this only for its LLVM compiler, which compiles nothing here.
        pub fn restrict_features(_: &mut DeviceProperties, _: GpuTarget) {}
    }
}
