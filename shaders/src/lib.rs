//! What Fovea's own kernels compute, each as a sequential **twin** in f64.
//!
//! A twin is written from the equation, one element after the other, and never from the code that it checks.
//! The chain of trust: the PyTorch specification checks the twin, the twin checks what runs on a device.
//! Nothing here knows a tensor library, a GPU, a file or async.
//!
//! The WGSL text of each kernel stands beside its twin, in `wgsl/`; its parameters are a plain struct here, and what a host
//! must know to launch it is a [`Kernel`].
//!
//! | twin | shaders | paper | what |
//! |---|---|---|---|
//! | [`region_pool`] | `region_pool` | Sec. 3.2, `DS[s]` | max pooling of every region |
//! | [`scale_select`] | `scale_fold`, `scale_select` | Sec. 3.2, Eq. 1 | region against thumbnail, one linear layer, argmax |
//! | [`compact`] | `compact_rows`, `compact` | Sec. 3.2 | the order in which the chosen tokens and newlines come |
//! | [`text_score`] | `text_score_product`, `text_score_softmax`, `text_score_best` | Sec. 3.3, Eq. 7, 8 | importance of each visual token to the text |
//! | [`top_k`] | `top_k` | Sec. 3.3, Eq. 9 | the fewest tokens that hold a share of the importance |
//! | [`row_gather`] | `row_gather` | | rows picked by index |

mod compact;
mod kernel;
mod region_pool;
mod row_gather;
mod scale;
mod scale_select;
mod text_score;
mod top_k;

pub use compact::{
    Cell, CompactLayout, CompactParams, FROM_MAP, KERNEL as COMPACT, Place, ROWS as COMPACT_ROWS, TokenBox, compact,
};
pub use kernel::{KERNELS, Kernel, Variant};
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
