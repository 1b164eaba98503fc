//! Fovea's own kernels: WGSL text, parameters, and a sequential **twin** in f64 as a reference.
//!
//! A twin is written from the equation, one element after the other, and not from the code that it checks. The PyTorch
//! specification checks the twin; the twin checks the results of a device. This crate uses no tensor library, GPU, file
//! or async.
//!
//! The WGSL text of a kernel is in `wgsl/`. Its parameters are a plain struct. A [`Kernel`] has all that a host needs
//! to launch it.
//!
//! | twin | kernels | paper | result |
//! |---|---|---|---|
//! | [`region_pool`] | `region_pool` | Sec. 3.2, `DS[s]` | max pooling of each region |
//! | [`scale_select`] | `scale_fold`, `scale_select` | Sec. 3.2, Eq. 1 | region compared with thumbnail, one linear layer, argmax |
//! | [`compact`] | `compact_rows`, `compact` | Sec. 3.2 | the order of the chosen tokens and newlines |
//! | [`text_score`] | `text_score_product`, `text_score_softmax`, `text_score_best` | Sec. 3.3, Eq. 7, 8 | importance of each visual token for the text |
//! | [`top_k`] | `top_k` | Sec. 3.3, Eq. 9 | the fewest tokens with a given share of the importance |
//! | [`row_gather`] | `row_gather` | | rows by index |

mod kernel;
mod scale;
mod region_pool;
mod scale_select;
mod compact;
mod text_score;
mod top_k;
mod row_gather;

pub use compact::{
    Cell, CompactLayout, CompactParams, FROM_MAP, KERNEL as COMPACT, Place, ROWS as COMPACT_ROWS, TokenBox, compact,
};
pub use kernel::{Kernel, Variant};
pub use region_pool::{
    KERNEL as REGION_POOL, MAX_SCALES, MAX_WINDOW, PoolLayout, RegionPoolParams, ScalePlan, region_pool,
    region_pool_chunk,
};
pub use row_gather::{KERNEL as ROW_GATHER, RowGatherParams, row_gather};
pub use scale::{Scale, regions};
pub use scale_select::{
    FOLD as SCALE_FOLD, KERNEL as SCALE_SELECT, ScaleChoice, ScaleFoldParams, ScaleSelectParams, scale_select,
};
pub use text_score::{
    BEST as TEXT_SCORE_BEST, BEST_TILE, BestParams, PRODUCT as TEXT_SCORE_PRODUCT, PRODUCT_TILE, ProductParams,
    SOFTMAX as TEXT_SCORE_SOFTMAX, SoftmaxParams, text_block, text_score,
};
pub use top_k::{KERNEL as TOP_K, Keep, MAX_SCORES, TopKParams, top_k};

/// All kernels, in the order of the data.
pub const KERNELS: [&Kernel; 10] = [
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
];
