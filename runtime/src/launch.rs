//! Launches a [`Kernel`] of `fovea-shaders`: a kernel, buffers and parameters in, work on the queue of the device out.

use std::{
    cell::Cell,
    sync::{PoisonError, RwLock},
};

use burn::backend::{BackendTensor, DispatchTensorKind};
use burn::tensor::{DType, Device, Shape, Tensor};
use burn_cubecl::{
    CubeDevice,
    cubecl::{
        CubeCount, CubeKernel, PrecompiledSource,
        ir::{ElemType, Scope, UIntKind, metadata::Info},
        prelude::{AddressType, ExecutionMode, KernelDefinition, KernelId, KernelMetadata, KernelSettings},
        server::{KernelArguments, MetadataBindingInfo},
    },
    tensor::CubeTensor,
};
use burn_wgpu::CubeDim;
use fovea_shaders::{Kernel, Variant};

#[cfg(not(target_family = "wasm"))]
use crate::recorder;
use crate::sentinels;

/// Largest number of workgroups in one dimension: the baseline of WebGPU.
const MAX_GROUPS: u32 = 65535;

/// A kernel in one variant, in the language of its device.
struct Text {
    kernel: &'static Kernel,
    variant: Variant,
    constants: Vec<u32>,
    /// Whether it is translated.
    #[cfg(feature = "cuda")]
    cuda: bool,
}

impl Text {
    fn dim(&self) -> CubeDim {
        CubeDim::new_1d(self.kernel.lanes(&self.constants))
    }
}

impl CubeKernel for Text {
    /// Empty: the text is in the language of the device, so nothing is compiled from a definition.
    fn define(&self) -> KernelDefinition {
        let settings = KernelSettings::new(self.dim().into(), ExecutionMode::Checked, AddressType::U32);
        KernelDefinition { body: Scope::root(settings.clone()), settings, info: Info::default() }
    }

    fn source(&self) -> Option<PrecompiledSource> {
        let wgsl = self.kernel.wgsl(self.variant, &self.constants);
        #[cfg(feature = "cuda")]
        if self.cuda {
            // An error reaches the user as the compiler's message. A test translates all kernels.
            let source = fovea_shaders::cuda_text(&wgsl).unwrap_or_else(|e| format!("#error \"{e}\""));
            return Some(PrecompiledSource { source, entrypoint_name: fovea_shaders::CUDA_ENTRY.into(), lang: "cuda" });
        }
        Some(PrecompiledSource { source: wgsl, entrypoint_name: "main".into(), lang: "wgsl" })
    }
}

impl KernelMetadata for Text {
    /// The key of the pipeline cache. It must contain all that changes the text.
    fn id(&self) -> KernelId {
        KernelId::new::<Self>().cube_dim(self.dim().into()).info((
            self.kernel.name,
            self.variant,
            self.constants.clone(),
        ))
    }

    fn address_type(&self) -> ElemType {
        UIntKind::U32.into()
    }
}

thread_local! {
    /// Turns the kernels off on this thread. Only tests and benchmarks set it.
    pub(crate) static ONLY_TENSOR_OPS: Cell<bool> = const { Cell::new(false) };
    /// Launches on a software GPU what a real one would get. Only tests set it.
    pub(crate) static AS_ON_HARDWARE: Cell<bool> = const { Cell::new(false) };
    /// The kernel that this thread launches now, for benchmarks: CubeCL sees one type for all kernels.
    pub(crate) static LAUNCHING: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Whether our kernels run on the device of this tensor: not where burn compiles to SPIR-V or MSL.
pub(crate) fn runs_kernels(x: &CubeTensor) -> bool {
    (x.client.name() == "wgpu<wgsl>" || is_cuda(x)) && !ONLY_TENSOR_OPS.get()
}

/// Whether the kernels are translated for the device of this tensor.
fn is_cuda(x: &CubeTensor) -> bool {
    cfg!(feature = "cuda") && x.client.name() == "cuda"
}

/// GPUs that have something in common.
pub(crate) struct Devices(RwLock<Vec<CubeDevice>>);

/// The software GPUs: other tile sizes are faster there.
pub(crate) static SOFTWARE: Devices = Devices(RwLock::new(Vec::new()));

/// The GPUs whose WGSL has no `dot4I8Packed`: a few browsers.
pub(crate) static WITHOUT_DOT4: Devices = Devices(RwLock::new(Vec::new()));

impl Devices {
    /// Adds a GPU.
    pub(crate) fn add(&self, device: &Device) {
        let probe = Tensor::<1>::zeros([1], device).into_dispatch().kind;
        if let DispatchTensorKind::Cube(BackendTensor::Float(probe)) = probe {
            self.0.write().unwrap_or_else(PoisonError::into_inner).push(probe.device);
        }
    }

    /// Whether this tensor's device was added.
    fn have(&self, x: &CubeTensor) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&x.device)
    }
}

/// Whether this tensor's device is a software GPU.
pub(crate) fn is_software(x: &CubeTensor) -> bool {
    !AS_ON_HARDWARE.get() && SOFTWARE.have(x)
}

/// Whether `gemm_dot4` runs on the device of this tensor.
pub(crate) fn runs_dot4(x: &CubeTensor) -> bool {
    runs_kernels(x) && !WITHOUT_DOT4.have(x)
}

/// The variant for a tensor with rows of `width` floats; None where the kernels cannot run on it.
pub(crate) fn variant(x: &CubeTensor, width: usize) -> Option<Variant> {
    if !runs_kernels(x) {
        return None;
    }
    match (x.dtype, width.is_multiple_of(4)) {
        (DType::F32, false) => Some(Variant::F32),
        (DType::F32, true) => Some(Variant::F32X4),
        (DType::F16, false) => Some(Variant::F16),
        (DType::F16, true) => Some(Variant::F16X4),
        _ => None,
    }
}

/// A new tensor on the device of `like`. Its values are undefined.
pub(crate) fn empty<const D: usize>(like: &CubeTensor, shape: [usize; D], dtype: DType) -> CubeTensor {
    let shape = Shape::new(shape);
    let bytes = shape.num_elements() * dtype.size();
    let buffer = sentinels::allocate(&like.client, bytes).unwrap_or_else(|| like.client.empty(bytes));
    CubeTensor::new_contiguous(like.client.clone(), like.device.clone(), shape, buffer, dtype)
}

/// Workgroups for `count` items: in two dimensions where one is too short.
pub(crate) fn spread(count: usize) -> [u32; 3] {
    let across = count.clamp(1, MAX_GROUPS as usize);
    [across as u32, count.div_ceil(across) as u32, 1]
}

/// The workgroups per dimension; None where one is 0 or too large to launch.
pub(crate) fn fits(groups: [usize; 3]) -> Option<[u32; 3]> {
    let fit = groups.iter().all(|&n| n > 0 && n <= MAX_GROUPS as usize);
    fit.then_some(groups.map(|n| n as u32))
}

/// Launches `kernel` over contiguous `buffers`, in the order of its bindings.
pub(crate) fn launch<P: bytemuck::Pod>(
    kernel: &'static Kernel,
    variant: Variant,
    constants: Vec<u32>,
    groups: [u32; 3],
    buffers: &[&CubeTensor],
    params: P,
) {
    let expected = (kernel.storage_buffers(variant) as usize, kernel.parameters);
    debug_assert_eq!((buffers.len(), size_of::<P>()), expected, "{}", kernel.name);
    debug_assert!(buffers.iter().all(|buffer| buffer.is_contiguous()), "{}: a buffer with gaps", kernel.name);
    let words = bytemuck::bytes_of(&params).as_chunks::<8>().0.iter().map(|w| u64::from_le_bytes(*w)).collect();
    let client = &buffers[0].client;
    #[cfg(not(target_family = "wasm"))]
    let recording = recorder::begin(kernel, variant, &constants, groups, buffers, bytemuck::bytes_of(&params));
    LAUNCHING.set(Some(kernel.name));
    client.launch(
        Box::new(Text {
            kernel,
            variant,
            constants,
            #[cfg(feature = "cuda")]
            cuda: is_cuda(buffers[0]),
        }),
        CubeCount::Static(groups[0], groups[1], groups[2]),
        KernelArguments::new()
            .with_buffers(buffers.iter().map(|b| b.handle.clone().binding()).collect())
            .with_info(MetadataBindingInfo::custom(words)),
    );
    LAUNCHING.set(None);
    #[cfg(not(target_family = "wasm"))]
    recorder::end(recording, buffers);
}
