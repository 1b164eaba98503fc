//! The selective scan as WGSL kernels of `fovea-shaders`, where the device compiles WGSL, and on CUDA; else as tensor
//! operations.

use burn::backend::{TensorMetadata, tensor::FloatTensor};
use burn::tensor::DType;
use burn_wgpu::{CubeBackend, into_contiguous};
use fovea_shaders::{Discretisation, SCAN, SCAN_CARRY, SCAN_ENDS, ScanParams, Variant, scan_chunk, scan_packs};

use super::{ScanOps, tensor_ops};
use crate::launch::{empty, fits, is_software, launch, runs_kernels, spread};

impl ScanOps for CubeBackend {
    fn selective_scan(
        u: FloatTensor<Self>,
        delta: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        d: FloatTensor<Self>,
        discretisation: Discretisation,
    ) -> FloatTensor<Self> {
        let ([length, channels], states) = (u.shape().dims::<2>(), a.shape()[1]);
        let one_type = [&u, &delta, &a, &b, &c, &d].iter().all(|x| x.dtype == DType::F32);
        let chunk = scan_chunk(length, is_software(&u));
        let (across, chunks) = (channels.div_ceil(SCAN.lanes as usize), length.div_ceil(chunk));
        let Some(groups) = fits([across, chunks, 1]).filter(|_| one_type && runs_kernels(&u)) else {
            return tensor_ops::selective_scan::<Self>(u, delta, a, b, c, d, discretisation);
        };
        let [u, delta, a, b, c, d] = [u, delta, a, b, c, d].map(into_contiguous);
        let out = empty(&u, [length, channels], DType::F32);
        // States and the sum of delta at the end of each chunk but the last. A binding is not empty.
        let ends = empty(&u, [((chunks - 1) * (states + 1) * channels).max(4)], DType::F32);
        let params =
            ScanParams { length: length as u32, channels: channels as u32, states: states as u32, chunk: chunk as u32 };
        let constants = vec![scan_packs(states) as u32, u32::from(discretisation == Discretisation::Zoh)];
        if chunks > 1 {
            let but_last = [groups[0], groups[1] - 1, 1];
            launch(&SCAN_ENDS, Variant::F32, constants.clone(), but_last, &[&u, &delta, &a, &b, &ends], params);
            let carried = spread((channels * states.div_ceil(4)).div_ceil(SCAN_CARRY.lanes as usize));
            launch(&SCAN_CARRY, Variant::F32, constants.clone(), carried, &[&a, &ends], params);
        }
        launch(&SCAN, Variant::F32, constants, groups, &[&u, &delta, &a, &b, &c, &d, &ends, &out], params);
        out
    }
}
