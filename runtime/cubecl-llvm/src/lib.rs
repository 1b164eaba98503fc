//! Stands in for [CubeCL's LLVM compiler](https://crates.io/crates/cubecl-llvm) in a build with CUDA.
//!
//! cubecl-cuda 0.11 has two ways from a kernel to the GPU, and always compiles both: CUDA C++ through NVRTC (its feature `cpp`,
//! which the feature `cuda` turns on), and LLVM's PTX. The second one's crate downloads LLVM 23 when it is built, a few
//! hundred megabytes, and no build without a network can. This crate has the names that cubecl-cuda uses and refuses to
//! compile, with a typed error; `[patch.crates-io]` in the workspace puts it in the other's place. A program that depends
//! on our crates from elsewhere does not get the patch, and builds with LLVM.
//!
//! Names and shapes after cubecl-llvm 0.11.3 (`src/shared/base.rs`, `src/nvptx/ptx_version.rs`); the code is ours.

use std::fmt;

use cubecl_core::ir::DeviceProperties;
#[cfg(feature = "nvptx")]
use cubecl_core::ir::nvidia::SmArch;
use cubecl_core::prelude::KernelDefinition;
use cubecl_runtime::compiler::{CompilationError, Compiler};
use cubecl_runtime::kernel::BufferIOAttr;

/// What a kernel would be compiled for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LlvmTarget {
    /// NVIDIA's PTX.
    #[default]
    Nvptx,
}

/// Refuses every kernel.
#[derive(Clone, Debug, Default)]
pub struct PlironCompiler {
    /// Not looked at.
    pub target: LlvmTarget,
}

/// What cubecl-cuda says of a device; not looked at.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// Of other targets than PTX.
    pub arch: Option<()>,
    /// The GPU's generation.
    #[cfg(feature = "nvptx")]
    pub sm_arch: Option<SmArch>,
    /// The newest PTX that the driver loads.
    pub ptx_version: Option<nvptx::ptx_version::PtxVersion>,
    /// How scalars are passed.
    pub grid_constants: bool,
}

/// A compiled kernel, of which there is none.
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

/// A compiled kernel's text and needs.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// PTX, ended by NUL.
    pub ptx: Vec<std::ffi::c_char>,
    /// The kernel's name.
    pub entrypoint: String,
    /// What it was compiled from.
    pub ir: String,
    /// Bytes of shared memory.
    pub shared_memory_size: usize,
    /// Which buffers it reads and writes.
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

/// NVIDIA's PTX.
pub mod nvptx {
    /// Its versions.
    pub mod ptx_version {
        use std::fmt;

        /// A version of PTX. There is none: [`PtxVersion::for_driver`] gives None.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum PtxVersion {}

        impl PtxVersion {
            /// The newest that a driver loads: always None, which cubecl-cuda takes as "the compiler's default".
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

/// What cubecl-cuda asks of a device's properties.
pub mod shared {
    /// What LLVM would lower.
    pub mod lowered_features {
        use super::super::DeviceProperties;

        /// A GPU whose properties are narrowed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum GpuTarget {
            /// NVIDIA's.
            Nvptx,
        }

        /// Leaves them: cubecl-cuda calls it for the LLVM way alone, which compiles nothing here.
        pub fn restrict_features(_: &mut DeviceProperties, _: GpuTarget) {}
    }
}
