//! The operations as WGSL kernels of `fovea-shaders`, where the device compiles WGSL, and on CUDA; elsewhere as tensor
//! operations.
//!
//! Each body computes the parameters of a kernel from shapes that are already checked, and launches it.

use burn::backend::{
    TensorMetadata,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use burn_wgpu::{CubeBackend, into_contiguous};
use fovea_shaders::{
    ATTEND_CHUNK, ATTEND_MERGE, ATTEND_SPLIT, AttendMergeParams, AttendSplitParams, EMBED, EmbedParams, FLASH_CAUSAL,
    FLASH_FULL, FlashCausalParams, FlashFullParams, FlashPlan, Format, GEMV, GemmParams, GemmPlan, GemvParams, NORM,
    NormParams, PICK, PickParams, ROPE_KV, ROUND_ROWS, RopeKvParams, RoundRowsParams, Variant, attend_parts,
    attend_share, flash_plan, gemm_dot4_plan, gemm_plan, gemv_lanes, gemv_rows, gemv_unit, one_workgroup,
};

use super::{
    AttendPlan, EmbedPlan, FEW_ROWS, Heads, LinearPlan, Maybe, NetworkOps, Operand, StorePlan,
    tensor_ops::{self, Extra},
};
use crate::launch::{empty, fits, is_software, launch, runs_dot4, runs_kernels, spread, variant};

impl NetworkOps for CubeBackend {
    fn embed(ids: IntTensor<Self>, table: Operand<Self>, out: Maybe<Self>, plan: EmbedPlan) -> FloatTensor<Self> {
        let Some((variant, [rows, width])) = matrix(&table).filter(|_| ids.dtype == DType::I32) else {
            return tensor_ops::embed::<Self>(ids, table, &plan);
        };
        let (ids, (table, scales)) = (into_contiguous(ids), buffers(table));
        let out = out.take().map_or_else(|| empty(&table, [plan.tokens, width], DType::F32), own);
        let params = EmbedParams {
            tokens: plan.tokens as u32,
            packs: width as u32 / variant.pack,
            first: plan.first as u32,
            rows: rows as u32,
            factor: plan.factor as f32,
            unused_0: 0,
            unused_1: 0,
            unused_2: 0,
        };
        let groups = spread(params.invocations().div_ceil(EMBED.lanes as usize));
        let bound: Vec<_> = [&ids, &table, &out].into_iter().chain(&scales).collect();
        launch(&EMBED, variant, vec![], groups, &bound, params);
        out
    }

    fn norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, beta: Maybe<Self>, epsilon: f64) -> FloatTensor<Self> {
        let [rows, c] = x.shape().dims();
        let beta = beta.take();
        let Some(variant) = variant(&x, c).filter(|v| !v.half && gamma.dtype == DType::F32) else {
            return tensor_ops::norm::<Self>(x, gamma, beta, epsilon);
        };
        let (x, gamma, layer) = (into_contiguous(x), into_contiguous(gamma), u32::from(beta.is_some()));
        let beta = beta.map_or_else(|| nothing(&x), into_contiguous);
        let out = empty(&x, [rows, c], DType::F32);
        let packs = c as u32 / variant.pack;
        let params = NormParams { rows: rows as u32, packs, epsilon: epsilon as f32, unused_0: 0 };
        launch(&NORM, variant, vec![layer], spread(rows), &[&x, &gamma, &beta, &out], params);
        out
    }

    fn linear(
        x: FloatTensor<Self>,
        weight: Operand<Self>,
        bias: Maybe<Self>,
        gamma: Maybe<Self>,
        residual: Maybe<Self>,
        out: Maybe<Self>,
        plan: LinearPlan,
    ) -> FloatTensor<Self> {
        let [tokens, width] = x.shape().dims();
        let (gamma, extra) = (gamma.take(), Extra { bias: bias.take(), residual: residual.take(), out: out.take() });
        // Several rows have passed the norm before.
        let plain = tokens == 1 || gamma.is_none();
        let fit = |variant: Variant| plain && x.dtype == DType::F32 && (tokens == 1 || variant.pack == 4);
        let Some((variant, [all_rows, _])) = matrix(&weight).filter(|(variant, _)| fit(*variant)) else {
            return tensor_ops::linear::<Self>(x, weight, gamma, extra, &plan);
        };
        let rows = if plan.gated { all_rows / 2 } else { all_rows };
        let (software, activation) = (is_software(&x), plan.activation.map_or(0, |f| f.code()));
        let flags = |x: &Option<CubeTensor>| u32::from(x.is_some());
        let (has_norm, has_bias, has_residual) = (flags(&gamma), flags(&extra.bias), flags(&extra.residual));
        let options = [has_bias, has_residual, activation, u32::from(plan.gated)];
        let rounded = match &weight {
            Operand::Codes(.., format, true) if tokens > FEW_ROWS && runs_dot4(&x) => Some(*format),
            _ => None,
        };
        let GemmPlan { kernel, constants, groups } = match rounded {
            Some(_) => gemm_dot4_plan(tokens, rows, options),
            None => gemm_plan(tokens, rows, options, software),
        };
        // One row goes to gemv, whose workgroups may fill two dimensions.
        let Some(groups) = (if tokens == 1 { Some([1; 3]) } else { fits(groups) }) else {
            return tensor_ops::linear::<Self>(x, weight, gamma, extra, &plan);
        };
        let (x, (weight, scales)) = (into_contiguous(x), buffers(weight));
        let given = |tensor: Option<CubeTensor>| tensor.map_or_else(|| nothing(&x), into_contiguous);
        let (gamma, bias, residual) = (given(gamma), given(extra.bias), given(extra.residual));
        let out = extra.out.map_or_else(|| empty(&x, [tokens, plan.width], DType::F32), own);
        let (packs, first, factor) = (width as u32 / variant.pack, plan.first as u32, plan.factor as f32);
        let (gate, rows) = (u32::from(plan.gated), rows as u32);
        if tokens == 1 {
            let per = gemv_rows(all_rows, software);
            let unit = variant.codes.map_or(1, |format| gemv_unit(width, format.bits, software));
            let lanes = gemv_lanes(software);
            let constants = vec![has_norm, has_bias, has_residual, activation, gate, per, unit, lanes];
            let epsilon = plan.epsilon as f32;
            let params = GemvParams { packs, rows, first, epsilon, factor, unused_0: 0, unused_1: 0, unused_2: 0 };
            let groups = spread(rows.div_ceil(per >> gate) as usize);
            let bound: Vec<_> = [&x, &gamma, &weight, &bias, &residual, &out].into_iter().chain(&scales).collect();
            launch(&GEMV, variant, constants, groups, &bound, params);
            return out;
        }
        let params = GemmParams {
            tokens: tokens as u32,
            packs,
            rows,
            first,
            width: plan.width as u32,
            factor,
            unused_0: 0,
            unused_1: 0,
        };
        let (x, x_groups) = match rounded {
            Some(format) => round_rows(&x, format),
            None => (x, None),
        };
        let bound = [&x, &weight, &bias, &residual, &out].into_iter().chain(&x_groups).chain(&scales);
        launch(kernel, variant, constants, groups, &bound.collect::<Vec<_>>(), params);
        out
    }

    fn rotate_and_store(
        qkv: FloatTensor<Self>,
        table: FloatTensor<Self>,
        state: IntTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        plan: StorePlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (Heads { query: heads, key: groups, width: d }, tokens) = (plan.heads, qkv.shape()[0]);
        let one_type = qkv.dtype == DType::F32 && state.dtype == DType::I32 && key.dtype == value.dtype;
        let Some(variant) = variant(&key, d / 2).filter(|_| one_type) else {
            return tensor_ops::rotate_and_store::<Self>(qkv, table, key, value, &plan);
        };
        let [qkv, table] = [qkv, table].map(into_contiguous);
        let [key, value] = [key, value].map(own);
        let query = empty(&qkv, [tokens, heads * d], DType::F32);
        let params = RopeKvParams {
            tokens: tokens as u32,
            heads: heads as u32,
            groups: groups as u32,
            half: (d / 2) as u32 / variant.pack,
            capacity: key.shape()[1] as u32,
            slot: plan.slot,
            unused_0: 0,
            unused_1: 0,
        };
        let at = spread(params.invocations().div_ceil(ROPE_KV.lanes as usize));
        launch(&ROPE_KV, variant, vec![], at, &[&qkv, &table, &state, &query, &key, &value], params);
        (query, key, value)
    }

    fn attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        state: IntTensor<Self>,
        plan: AttendPlan,
    ) -> FloatTensor<Self> {
        let (Heads { query: heads, key: groups, width: d }, [tokens, columns]) = (plan.heads, query.shape().dims());
        let (rows, software) = (tokens * heads / groups, is_software(&query));
        let one_type = query.dtype == DType::F32 && state.dtype == DType::I32 && key.dtype == value.dtype;
        let chosen = variant(&key, d).filter(|v| v.pack == 4 && one_type);
        let Some((variant, flash)) = chosen.zip(flash_plan(rows, groups, d, software)) else {
            return tensor_ops::attend::<Self>(query, key, value, &plan);
        };
        let [query, key, value] = [query, key, value].map(into_contiguous);
        let out = empty(&query, [tokens, columns], DType::F32);
        let (capacity, factor) = (key.shape()[1], plan.factor as f32);
        let packs = d as u32 / 4;
        if tokens > 1 {
            let FlashPlan { constants, blocks } = flash;
            let Some(at) = fits([blocks, groups, 1]) else {
                return tensor_ops::attend::<Self>(query, key, value, &plan);
            };
            let params = FlashCausalParams {
                tokens: tokens as u32,
                keys: plan.keys as u32,
                heads: heads as u32,
                groups: groups as u32,
                capacity: capacity as u32,
                packs,
                factor,
                unused_0: 0,
            };
            launch(&FLASH_CAUSAL, variant, constants, at, &[&query, &key, &value, &out], params);
            return out;
        }
        // Rows for all chunks of the buffers, so that the parameters are the same for each token; only chunks with keys run.
        let (chunks, share) = (capacity.div_ceil(ATTEND_CHUNK), attend_share(heads / groups));
        let split = fits([plan.keys.div_ceil(ATTEND_CHUNK), groups, heads / groups / share]);
        let Some((at, merge)) = split.zip(fits([heads, 1, 1])) else {
            return tensor_ops::attend::<Self>(query, key, value, &plan);
        };
        let parts = empty(&query, [attend_parts(heads, chunks, d)], DType::F32);
        let params = AttendSplitParams {
            heads: heads as u32,
            groups: groups as u32,
            packs,
            capacity: capacity as u32,
            slot: plan.slot,
            chunks: chunks as u32,
            factor,
            unused_0: 0,
        };
        let buffers = [&query, &key, &value, &state, &parts];
        launch(&ATTEND_SPLIT, variant, vec![share as u32], at, &buffers, params);
        let params = AttendMergeParams { packs, slot: plan.slot, chunks: chunks as u32, keys: ATTEND_CHUNK as u32 };
        launch(&ATTEND_MERGE, Variant::F32, vec![], merge, &[&parts, &state, &out], params);
        out
    }

    fn attend_full(qkv: FloatTensor<Self>, tiles: usize, heads: Heads) -> FloatTensor<Self> {
        let Heads { query: h, width: d, .. } = heads;
        let rows = qkv.shape()[0];
        let chosen = variant(&qkv, d).filter(|v| *v == Variant::F32X4);
        let plan = flash_plan(rows / tiles, h * tiles, d, is_software(&qkv));
        let plan = chosen.zip(plan).and_then(|(v, plan)| Some((v, fits([plan.blocks, h, tiles])?, plan.constants)));
        let Some((variant, at, constants)) = plan else {
            return tensor_ops::attend_full::<Self>(qkv, tiles, heads);
        };
        let qkv = into_contiguous(qkv);
        let out = empty(&qkv, [rows, h * d], DType::F32);
        let factor = (1.0 / (d as f64).sqrt()) as f32;
        let params = FlashFullParams { tokens: (rows / tiles) as u32, heads: h as u32, packs: d as u32 / 4, factor };
        launch(&FLASH_FULL, variant, constants, at, &[&qkv, &out], params);
        out
    }

    fn pick(
        logits: FloatTensor<Self>,
        allowed: IntTensor<Self>,
        state: IntTensor<Self>,
    ) -> impl Future<Output = IntTensor<Self>> {
        let one_type = logits.dtype == DType::F32 && [&allowed, &state].iter().all(|x| x.dtype == DType::I32);
        let on_device = (one_type && runs_kernels(&logits)).then(|| {
            let (logits, allowed, state) =
                (into_contiguous(logits.clone()), into_contiguous(allowed.clone()), into_contiguous(state.clone()));
            let next = empty(&logits, [4], DType::I32);
            let vocab = logits.shape()[1] as u32;
            let params = PickParams { vocab, unused_0: 0, unused_1: 0, unused_2: 0 };
            let lanes = vec![one_workgroup(is_software(&logits))];
            launch(&PICK, Variant::F32, lanes, [1, 1, 1], &[&logits, &allowed, &state, &next], params);
            next
        });
        async move {
            match on_device {
                Some(state) => state,
                None => tensor_ops::pick::<Self>(logits, allowed, state).await,
            }
        }
    }
}

/// The variant, rows and width of a weight; None where the kernels cannot run on it.
fn matrix(weight: &Operand<CubeBackend>) -> Option<(Variant, [usize; 2])> {
    match weight {
        Operand::Float(values) => {
            let dims: [usize; 2] = values.shape().dims();
            Some((variant(values, dims[1])?, dims))
        }
        Operand::Codes(words, scales, format, _) => {
            let [rows, count] = words.shape().dims();
            let width = count * 32 / format.bits as usize;
            let one_type = [words, scales].iter().all(|x| x.dtype == DType::I32);
            let fit = runs_kernels(words) && one_type && format.fits(width);
            fit.then(|| (Variant::of_codes(*format), [rows, width]))
        }
        Operand::Product(_) => None,
    }
}

/// The buffers of a weight: floats, or codes and scales.
fn buffers(weight: Operand<CubeBackend>) -> (CubeTensor, Option<CubeTensor>) {
    match weight {
        Operand::Float(values) | Operand::Product(values) => (into_contiguous(values), None),
        Operand::Codes(words, scales, ..) => (into_contiguous(words), Some(into_contiguous(scales))),
    }
}

/// Contiguous rows, rounded to 8 bits: words of four codes; and the scale and the sum of codes of each group.
fn round_rows(x: &CubeTensor, format: Format) -> (CubeTensor, Option<CubeTensor>) {
    let [tokens, width] = x.shape().dims();
    let codes = empty(x, [tokens, width / 4], DType::I32);
    let groups = empty(x, [tokens, 2 * width / format.group as usize], DType::I32);
    let packs = (tokens * width / 4) as u32;
    let params = RoundRowsParams { packs, unused_0: 0, unused_1: 0, unused_2: 0 };
    let at = spread(packs.div_ceil(ROUND_ROWS.lanes) as usize);
    launch(&ROUND_ROWS, Variant::F32X4, vec![format.group], at, &[x, &codes, &groups], params);
    (codes, Some(groups))
}

/// A buffer for a binding that a kernel does not read. A binding must not be used twice in one launch.
fn nothing(like: &CubeTensor) -> CubeTensor {
    empty(like, [4], DType::F32)
}

/// The tensor in a buffer that no other tensor shares and whose rows follow each other, so that a kernel can write it.
fn own(x: CubeTensor) -> CubeTensor {
    if !x.is_contiguous() {
        return into_contiguous(x); // a copy
    }
    if x.can_mut() {
        return x;
    }
    let CubeTensor { client, device, dtype, .. } = x.clone();
    let shape = x.shape();
    // The copy of a tensor of several dimensions has gaps between its rows on CUDA.
    let flat = Shape::new([shape.num_elements()]);
    let copy = CubeTensor::new_contiguous(client.clone(), device.clone(), flat, x.handle.clone(), dtype).copy();
    CubeTensor::new_contiguous(client, device, shape, copy.handle, dtype)
}
