//! The operations as WGSL kernels of `fovea-shaders`, where the device compiles WGSL, and on CUDA; elsewhere as tensor
//! operations.
//!
//! Each body computes the parameters of a kernel from shapes that are already checked, and launches it. Indices stay on
//! the device; the host reads only counts.

use burn::backend::{
    TensorMetadata,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use burn_wgpu::{CubeBackend, into_contiguous};
use fovea_shaders::{
    BEST_TILE, BestParams, COMPACT, COMPACT_ROWS, CompactLayout, Keep, MAX_SCALES, MAX_SCORES, MAX_WINDOW,
    PRODUCT_TILE, PoolLayout, ProductParams, REGION_POOL, ROW_GATHER, RegionPoolParams, RowGatherParams, SCALE_FOLD,
    SCALE_SELECT, ScaleFoldParams, ScaleSelectParams, SoftmaxParams, TEXT_SCORE_BEST, TEXT_SCORE_PRODUCT,
    TEXT_SCORE_SOFTMAX, TOP_K, TopKParams, Variant, one_workgroup, region_pool_chunk, text_block,
};

use super::{
    backend::SamplerOps,
    results::{CompactCounts, CompactParts, Ranked},
    tensor_ops,
};
use crate::{
    error::Error,
    launch::{empty, fits, is_software, launch, runs_kernels, spread, variant},
    read::{lost, to_the_end},
};

impl SamplerOps for CubeBackend {
    fn region_pool(map: FloatTensor<Self>, layout: PoolLayout) -> FloatTensor<Self> {
        let c = map.shape()[2];
        let down = layout.map.0.div_ceil(layout.window);
        let across = layout.map.1.div_ceil(layout.window);
        let Some(variant) = variant(&map, c).filter(|_| layout.window <= MAX_WINDOW) else {
            return tensor_ops::region_pool::<Self>(map, &layout);
        };
        let (packs, chunk) = (c as u32 / variant.pack, region_pool_chunk(layout.window, variant, is_software(&map)));
        let Some(groups) = fits([packs.div_ceil(chunk) as usize, across, down]) else {
            return tensor_ops::region_pool::<Self>(map, &layout);
        };
        let map = into_contiguous(map);
        let pooled = empty(&map, [layout.rows, c], map.dtype);
        // One pass for up to MAX_SCALES scales.
        let plans: Vec<_> = (0..layout.scales.len()).map(|scale| layout.plan(scale)).collect();
        for plans in plans.chunks(MAX_SCALES) {
            let mut scale = [[0; 4]; MAX_SCALES];
            scale[..plans.len()].copy_from_slice(plans);
            let params = RegionPoolParams {
                height: layout.map.0 as u32,
                width: layout.map.1 as u32,
                packs,
                across: across as u32,
                scales: plans.len() as u32,
                rows: layout.rows as u32,
                unused_0: 0,
                unused_1: 0,
                scale,
            };
            let constants = vec![layout.window as u32, chunk];
            launch(&REGION_POOL, variant, constants, groups, &[&map, &pooled], params);
        }
        pooled
    }

    fn scale_select(
        pooled: FloatTensor<Self>,
        thumbnail: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, IntTensor<Self>) {
        let ([regions, c], context, scales) = (pooled.shape().dims(), thumbnail.shape()[0], bias.shape()[0]);
        let one_type = [&thumbnail, &weight, &bias].into_iter().all(|x| x.dtype == pooled.dtype);
        let packs = |variant: Variant| c as u32 / variant.pack;
        let plan = variant(&pooled, c).filter(|_| one_type);
        let plan = plan.and_then(|v| fits([packs(v).div_ceil(8) as usize, scales, 1]).map(|groups| (v, groups)));
        let Some((variant, groups)) = plan else {
            return tensor_ops::scale_select::<Self>(pooled, thumbnail, weight, bias);
        };
        let [pooled, thumbnail, weight, bias] = [pooled, thumbnail, weight, bias].map(into_contiguous);
        let packs = packs(variant);
        let fold = empty(&pooled, [scales, c], DType::F32);
        let factor = (1.0 / (c as f64).sqrt()) as f32;
        let params = ScaleFoldParams { context: context as u32, packs, factor, unused_0: 0 };
        launch(&SCALE_FOLD, variant, vec![], groups, &[&thumbnail, &weight, &fold], params);
        let logits = empty(&pooled, [regions, scales], DType::F32);
        let choice = empty(&pooled, [regions], DType::I32);
        let params = ScaleSelectParams { regions: regions as u32, packs, scales: scales as u32, unused_0: 0 };
        launch(&SCALE_SELECT, variant, vec![], spread(regions), &[&pooled, &fold, &bias, &logits, &choice], params);
        (logits, choice)
    }

    async fn compact(
        map: FloatTensor<Self>,
        pooled: FloatTensor<Self>,
        newline: FloatTensor<Self>,
        choice: IntTensor<Self>,
        layout: CompactLayout,
    ) -> CompactParts<Self> {
        let (c, (height, _)) = (map.shape()[2], layout.pool.map);
        let mut params = layout.params();
        let one_type = pooled.dtype == map.dtype && newline.dtype == map.dtype && choice.dtype == DType::I32;
        let plan = variant(&map, c).filter(|_| one_type && layout.scales.len() <= MAX_SCALES);
        let plan = plan.and_then(|v| fits([params.across as usize + 1, height, 1]).map(|groups| (v, groups)));
        let Some((variant, groups)) = plan else {
            return tensor_ops::compact::<Self>(map, pooled, newline, choice, layout).await;
        };
        let [map, pooled, newline, choice] = [map, pooled, newline, choice].map(into_contiguous);
        let starts = empty(&map, [height + 1], DType::I32);
        let counts = empty(&map, [3], DType::I32);
        let lanes = vec![one_workgroup(is_software(&map))];
        launch(&COMPACT_ROWS, Variant::F32, lanes, [1, 1, 1], &[&choice, &starts, &counts], params);

        let nothing = |counts| CompactParts {
            tokens: empty(&map, [1, c], map.dtype),
            boxes: empty(&map, [1, 4], DType::I32),
            counts,
        };
        let [tokens, newlines, missing] = match read_counts::<3>(counts).await {
            Ok(counts) => counts,
            Err(e) => return nothing(Err(e)),
        };
        // All patches, and one newline per row: a larger count comes from a device that dropped its work.
        let most = height * (layout.pool.map.1 + 1);
        if tokens > most {
            return nothing(Err(lost(format!("expected at most {most} tokens, got {tokens}"))));
        }
        if missing > 0 {
            return nothing(Err(Error::NoChoice { regions: missing }));
        }
        if tokens == 0 {
            return nothing(Ok(CompactCounts::default()));
        }
        (params.packs, params.tokens) = (c as u32 / variant.pack, tokens as u32);
        let rows = empty(&map, [tokens, c], map.dtype);
        let boxes = empty(&map, [tokens, 4], DType::I32);
        let buffers = [&map, &pooled, &newline, &choice, &starts, &rows, &boxes];
        launch(&COMPACT, variant, vec![], groups, &buffers, params);
        CompactParts { tokens: rows, boxes, counts: Ok(CompactCounts { tokens, newlines }) }
    }

    fn text_score(query: FloatTensor<Self>, key: FloatTensor<Self>) -> FloatTensor<Self> {
        let [heads, text, d_head] = query.shape().dims();
        let [kv_heads, visual, _] = key.shape().dims();
        let (share, block) = (heads / kv_heads, text_block(heads, text, visual));
        let plan = variant(&query, d_head).filter(|v| v.pack == 4 && query.dtype == key.dtype);
        let plan = plan.and_then(|v| {
            let (rows, keys) = PRODUCT_TILE;
            Some((v, fits([visual.div_ceil(keys), (share * block).div_ceil(rows), kv_heads])?))
        });
        let Some((variant, groups)) = plan else {
            return tensor_ops::text_score::<Self>(query, key);
        };
        let [query, key] = [query, key].map(into_contiguous);
        let scores = empty(&query, [heads, block, visual], DType::F32);
        let lse = empty(&query, [heads, block], DType::F32);
        let importance = empty(&query, [visual], DType::F32);
        let [heads, text, visual, share] = [heads, text, visual, share].map(|n| n as u32);
        for first in (0..text).step_by(block) {
            let block = (block as u32).min(text - first);
            let factor = (1.0 / (d_head as f64).sqrt()) as f32;
            let packs = d_head as u32 / 4;
            let params = ProductParams { share, text, first, block, visual, packs, factor, unused_0: 0 };
            launch(&TEXT_SCORE_PRODUCT, variant, vec![], groups, &[&query, &key, &scores], params);
            let params = SoftmaxParams { rows: heads * block, visual, unused_0: 0, unused_1: 0 };
            let groups = spread((heads * block) as usize);
            launch(&TEXT_SCORE_SOFTMAX, Variant::F32, vec![], groups, &[&scores, &lse], params);
            let share = 1.0 / text as f32;
            let params = BestParams { heads, block, visual, first, share, unused_0: 0, unused_1: 0, unused_2: 0 };
            let groups = spread((visual as usize).div_ceil(BEST_TILE));
            launch(&TEXT_SCORE_BEST, Variant::F32, vec![], groups, &[&scores, &lse, &importance], params);
        }
        importance
    }

    async fn top_k(scores: FloatTensor<Self>, keep: Keep) -> Ranked<Self> {
        let n = scores.shape()[0];
        if !runs_kernels(&scores) || scores.dtype != DType::F32 || n > MAX_SCORES {
            return tensor_ops::top_k::<Self>(scores, keep).await;
        }
        let scores = into_contiguous(scores);
        let kept = empty(&scores, [n], DType::I32);
        let count = empty(&scores, [1], DType::I32);
        launch(&TOP_K, Variant::F32, vec![], [1, 1, 1], &[&scores, &kept, &count], TopKParams::new(n, keep));
        let count = read_counts::<1>(count).await.map(|[count]| count.min(n));
        let cut = count.as_ref().map_or(n, |&count| count.max(1));
        Ranked { kept: shorten(kept, cut), count }
    }

    fn row_gather(rows: FloatTensor<Self>, indices: IntTensor<Self>) -> FloatTensor<Self> {
        let ([batches, height, c], count) = (rows.shape().dims(), indices.shape()[0]);
        let Some(variant) = variant(&rows, c).filter(|_| indices.dtype == DType::I32) else {
            return tensor_ops::row_gather::<Self>(rows, indices);
        };
        let [rows, indices] = [rows, indices].map(into_contiguous);
        let picked = empty(&rows, [batches, count, c], rows.dtype);
        let packs = c as u32 / variant.pack;
        let total = (batches * count) as u32 * packs;
        let params = RowGatherParams { rows: height as u32, packs, count: count as u32, total };
        let groups = spread(total.div_ceil(ROW_GATHER.lanes) as usize);
        launch(&ROW_GATHER, variant, vec![], groups, &[&rows, &indices, &picked], params);
        picked
    }
}

/// The first `count` elements of a vector, without a copy.
fn shorten(x: CubeTensor, count: usize) -> CubeTensor {
    let rest = (x.shape().num_elements() - count) * x.dtype.size();
    let handle = x.handle.offset_end(rest as u64);
    CubeTensor::new_contiguous(x.client, x.device, Shape::new([count]), handle, x.dtype)
}

/// Reads a few counts back.
async fn read_counts<const N: usize>(counts: CubeTensor) -> Result<[usize; N], Error> {
    let CubeTensor { client, handle, .. } = counts;
    let read = to_the_end(async move { client.read_async(vec![handle]).await }).await.map_err(lost)?;
    let bytes = read.into_iter().next();
    let words = bytes.as_deref().map_or(&[][..], |bytes| bytes.as_chunks::<4>().0);
    if words.len() < N {
        return Err(lost(format!("expected {N} counts, got {}", words.len())));
    }
    Ok(std::array::from_fn(|i| u32::from_le_bytes(words[i]) as usize))
}
