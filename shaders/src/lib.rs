//! Fovea's own kernels: WGSL text, parameters, and a sequential **twin** in f64 as a reference.
//!
//! A twin is written from the equation, one element after the other, and not from the code that it checks. The PyTorch
//! specification, or a result calculated by hand, checks the twin; the twin checks the results of a device. This crate
//! uses no tensor library, GPU, file or async.
//!
//! The WGSL text of a kernel is in `wgsl/`, text that several kernels use in `wgsl/shared/`. Its parameters are a plain
//! struct. A [`Kernel`] has all that a host needs to launch it.
//!
//! The samplers:
//!
//! | twin | kernels | paper | result |
//! |---|---|---|---|
//! | [`region_pool`] | `region_pool` | Sec. 3.2, `DS[s]` | max pooling of each region |
//! | [`scale_select`] | `scale_fold`, `scale_select` | Sec. 3.2, Eq. 1 | region compared with thumbnail, one linear layer, argmax |
//! | [`compact`] | `compact_rows`, `compact` | Sec. 3.2 | the order of the chosen tokens and newlines |
//! | [`text_score`] | `text_score_product`, `text_score_softmax`, `text_score_best` | Sec. 3.3, Eq. 7, 8 | importance of each visual token for the text |
//! | [`top_k`] | `top_k` | Sec. 3.3, Eq. 9 | the fewest tokens with a given share of the importance |
//! | [`row_gather`] | `row_gather` | | rows by index |
//!
//! Vision tower and text model:
//!
//! | twin | kernels | result |
//! |---|---|---|
//! | [`embed`] | `embed` | rows of the embedding |
//! | [`norm`] | `norm` | RMS norm or layer norm of each row |
//! | [`linear`] | `gemv` for one row, `gemm` or `gemm_direct` for more | a linear layer with what is before and after it |
//! | [`round_rows`], then [`linear`] | `round_rows`, `gemm_dot4` | the same with inputs that are rounded to 8 bits |
//! | [`attention`] | `flash_full`, `flash_causal`; `attend_split` and `attend_merge` for one token | attention |
//! | [`rotate_and_store`] | `rope_kv` | rotated queries; keys and values in the cache |
//! | [`pick`] | `pick` | the most likely token, and the place of the next one |
//!
//! Fusion of tokens before a selection:
//!
//! | twin | kernels | result |
//! |---|---|---|
//! | [`selective_scan`] | `selective_scan_ends`, `selective_scan_carry`, `selective_scan` | a state space model |
//!
//! [`Activation`] is the twin of `wgsl/shared/activation.wgsl`, a part of the linear layers. [`dequantise`] is the twin of
//! `wgsl/shared/weight_codes.wgsl`: the kernels of `embed` and `linear` also read weights of 8 or 4 bits, see [`Format`].
//!
//! With the feature `cuda`, `cuda_text` translates the WGSL of a kernel to CUDA C++.

mod kernel;
mod codes;
mod scale;
mod region_pool;
mod scale_select;
mod compact;
mod text_score;
mod top_k;
mod row_gather;
mod activation;
mod norm;
mod linear;
mod gemm;
mod round_rows;
mod gemm_dot4;
mod attention;
mod rotary;
mod embed;
mod pick;
mod selective_scan;
#[cfg(feature = "cuda")]
mod cuda;

pub use activation::Activation;
pub use attention::{
    ATTEND_CHUNK, ATTEND_MERGE, ATTEND_SPLIT, AttendMergeParams, AttendSplitParams, FLASH_CAUSAL, FLASH_FULL,
    FlashCausalParams, FlashFullParams, FlashPlan, attend_parts, attend_share, attention, flash_plan,
};
pub use codes::{Format, dequantise};
pub use compact::{
    Cell, CompactLayout, CompactParams, FROM_MAP, KERNEL as COMPACT, Place, ROWS as COMPACT_ROWS, TokenBox, compact,
};
#[cfg(feature = "cuda")]
pub use cuda::{CUDA_ENTRY, CudaError, cuda_text};
pub use embed::{EmbedParams, KERNEL as EMBED, embed};
pub use gemm::{GEMM, GEMM_DIRECT, GemmParams, GemmPlan, gemm_plan};
pub use gemm_dot4::{GEMM_DOT4, gemm_dot4_plan};
pub use kernel::{Kernel, Variant, one_workgroup};
pub use linear::{Epilogue, GEMV, GemvParams, gemv_lanes, gemv_rows, gemv_unit, linear};
pub use norm::{KERNEL as NORM, NormParams, norm};
pub use pick::{KERNEL as PICK, PickParams, pick};
pub use region_pool::{
    KERNEL as REGION_POOL, MAX_SCALES, MAX_WINDOW, PoolLayout, RegionPoolParams, ScalePlan, region_pool,
    region_pool_chunk,
};
pub use rotary::{KERNEL as ROPE_KV, RopeKvParams, rotate_and_store};
pub use round_rows::{KERNEL as ROUND_ROWS, RoundRowsParams, round_rows};
pub use row_gather::{KERNEL as ROW_GATHER, RowGatherParams, row_gather};
pub use scale::{Scale, regions};
pub use scale_select::{
    FOLD as SCALE_FOLD, KERNEL as SCALE_SELECT, ScaleChoice, ScaleFoldParams, ScaleSelectParams, scale_select,
};
pub use selective_scan::{
    CARRY as SCAN_CARRY, Discretisation, ENDS as SCAN_ENDS, KERNEL as SCAN, ScanParams, scan_chunk, scan_packs,
    selective_scan,
};
pub use text_score::{
    BEST as TEXT_SCORE_BEST, BEST_TILE, BestParams, PRODUCT as TEXT_SCORE_PRODUCT, PRODUCT_TILE, ProductParams,
    SOFTMAX as TEXT_SCORE_SOFTMAX, SoftmaxParams, text_block, text_score,
};
pub use top_k::{KERNEL as TOP_K, Keep, MAX_SCORES, TopKParams, top_k};

/// All kernels, in the order of the data.
pub const KERNELS: [&Kernel; 26] = [
    &REGION_POOL,
    &SCALE_FOLD,
    &SCALE_SELECT,
    &COMPACT_ROWS,
    &COMPACT,
    &TEXT_SCORE_PRODUCT,
    &TEXT_SCORE_SOFTMAX,
    &TEXT_SCORE_BEST,
    &TOP_K,
    &ROW_GATHER,
    &EMBED,
    &NORM,
    &GEMV,
    &GEMM,
    &GEMM_DIRECT,
    &ROUND_ROWS,
    &GEMM_DOT4,
    &FLASH_FULL,
    &ROPE_KV,
    &FLASH_CAUSAL,
    &ATTEND_SPLIT,
    &ATTEND_MERGE,
    &PICK,
    &SCAN_ENDS,
    &SCAN_CARRY,
    &SCAN,
];
