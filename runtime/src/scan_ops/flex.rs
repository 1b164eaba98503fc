//! The selective scan on the CPU: the loop of [`crate::cpu::scan`].

use burn::backend::{Flex, TensorMetadata, tensor::FloatTensor};
use burn::tensor::DType;
use fovea_shaders::Discretisation;

use super::{ScanOps, tensor_ops};
use crate::{
    cpu::scan::{Scan, selective_scan},
    network_ops::flex::{tensor, whole},
};

impl ScanOps for Flex {
    fn selective_scan(
        u: FloatTensor<Self>,
        delta: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        d: FloatTensor<Self>,
        discretisation: Discretisation,
    ) -> FloatTensor<Self> {
        if [&u, &delta, &a, &b, &c, &d].iter().any(|x| x.dtype() != DType::F32) {
            return tensor_ops::selective_scan::<Self>(u, delta, a, b, c, d, discretisation);
        }
        let shape = u.shape().dims::<2>();
        let [u, delta, a, b, c, d] = [u, delta, a, b, c, d].map(whole);
        let mut out = vec![0.0; shape[0] * shape[1]];
        let scan = Scan {
            u: u.storage::<f32>(),
            delta: delta.storage::<f32>(),
            a: a.storage::<f32>(),
            b: b.storage::<f32>(),
            c: c.storage::<f32>(),
            d: d.storage::<f32>(),
            discretisation,
        };
        selective_scan(scan, &mut out);
        tensor(out, shape)
    }
}
