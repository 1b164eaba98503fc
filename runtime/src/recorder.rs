//! Records launches of kernels with the content of their buffers. Only tests use it: they run the kernels again elsewhere.

use std::{cell::RefCell, collections::HashMap};

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use fovea_shaders::{Kernel, Variant};

/// Bytes in the buffers of a launch that is recorded, at most.
const LARGEST: u64 = 16 << 20;

/// A launch.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The kernel.
    pub kernel: &'static Kernel,
    /// Its variant.
    pub variant: Variant,
    /// The values of its constants.
    pub constants: Vec<u32>,
    /// Workgroups per dimension.
    pub groups: [u32; 3],
    /// The bytes of the uniform block.
    pub parameters: Vec<u8>,
    /// The storage buffers, in the order of their bindings.
    pub buffers: Vec<Buffer>,
}

/// A storage buffer.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// The type of its elements.
    pub dtype: DType,
    /// Its bytes before the launch.
    pub before: Vec<u8>,
    /// Its bytes after the launch.
    pub after: Vec<u8>,
}

/// Launches of one text that are recorded.
struct Recorder {
    most: usize,
    count: HashMap<(&'static str, Variant, Vec<u32>), usize>,
    launches: Vec<Launch>,
}

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// From now on, the first `most` launches of each kernel, variant and set of constants on this thread are recorded, if
/// their buffers are small.
pub fn record_launches(most: usize) {
    RECORDER.set(Some(Recorder { most, count: HashMap::new(), launches: Vec::new() }));
}

/// Ends the recording: its launches, in their order.
pub fn recorded_launches() -> Vec<Launch> {
    RECORDER.take().map(|recorder| recorder.launches).unwrap_or_default()
}

/// The launch as it will be, if it is to be recorded.
pub(crate) fn begin(
    kernel: &'static Kernel,
    variant: Variant,
    constants: &[u32],
    groups: [u32; 3],
    buffers: &[&CubeTensor],
    parameters: &[u8],
) -> Option<Launch> {
    RECORDER.with_borrow_mut(|recorder| {
        let recorder = recorder.as_mut()?;
        let bytes: u64 = buffers.iter().map(|b| b.handle.size_in_used()).sum();
        let count = recorder.count.entry((kernel.name, variant, constants.to_vec())).or_default();
        if *count == recorder.most || bytes > LARGEST {
            return None;
        }
        *count += 1;
        let buffers = buffers.iter().map(|b| Buffer { dtype: b.dtype, before: read(b), after: Vec::new() }).collect();
        let (constants, parameters) = (constants.to_vec(), parameters.to_vec());
        Some(Launch { kernel, variant, constants, groups, parameters, buffers })
    })
}

/// Records a launch after it was given to the device.
pub(crate) fn end(launch: Option<Launch>, buffers: &[&CubeTensor]) {
    let Some(mut launch) = launch else { return };
    launch.buffers.iter_mut().zip(buffers).for_each(|(recorded, buffer)| recorded.after = read(buffer));
    RECORDER.with_borrow_mut(|recorder| recorder.iter_mut().for_each(|r| r.launches.push(launch.clone())));
}

/// The bytes of a buffer; none where the device is lost.
fn read(buffer: &CubeTensor) -> Vec<u8> {
    buffer.client.read_one(buffer.handle.clone()).map(|bytes| bytes.to_vec()).unwrap_or_default()
}
