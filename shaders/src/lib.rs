//! What Fovea's own kernels compute, each as a sequential **twin** in f64.
//!
//! A twin is written from the equation, one element after the other, and never from the code that it checks.
//! The chain of trust: the PyTorch specification checks the twin, the twin checks what runs on a device.
//! Nothing here knows a tensor library, a GPU, a file or async.
//!
//! The WGSL text of each kernel will stand beside its twin, under the same name. Today every device runs the
//! samplers as tensor operations (`fovea-runtime`, `sampler_ops`), and the twins check those.
//!
//! | twin | paper | what |
//! |---|---|---|
//! | [`region_pool`] | Sec. 3.2, `DS[s]` | max pooling of every region at one scale |
//! | [`scale_select`] | Sec. 3.2, Eq. 1 | region against thumbnail, one linear layer, argmax |
//! | [`compact`] | Sec. 3.2 | the order in which the chosen tokens and newlines come |
//! | [`text_score`] | Sec. 3.3, Eq. 7, 8 | importance of each visual token to the text |
//! | [`top_k`] | Sec. 3.3, Eq. 9 | the fewest tokens that hold a share of the importance |

mod compact;
mod region_pool;
mod scale;
mod scale_select;
mod text_score;
mod top_k;

pub use compact::{Cell, TokenBox, compact};
pub use region_pool::region_pool;
pub use scale::{Scale, regions};
pub use scale_select::{ScaleChoice, scale_select};
pub use text_score::text_score;
pub use top_k::{Keep, top_k};
