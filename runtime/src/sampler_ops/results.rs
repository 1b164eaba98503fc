//! What the operations return that is more than tensors: tensors of a backend, with counts on the host.

use burn::backend::{
    Backend, ExtensionType,
    tensor::{FloatTensor, IntTensor},
};

use crate::error::Error;

/// Tokens in scanline order.
#[derive(ExtensionType)]
pub struct CompactParts<B: Backend> {
    /// (tokens, C); one row of undefined values where there is no token.
    pub tokens: FloatTensor<B>,
    /// (tokens, 4).
    pub boxes: IntTensor<B>,
    /// The number of tokens.
    pub counts: Result<CompactCounts, Error>,
}

/// The number of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactCounts {
    /// Tokens, newlines included.
    pub tokens: usize,
    /// The newlines among them.
    pub newlines: usize,
}

/// The indices of the tokens that are kept.
#[derive(ExtensionType)]
pub struct Ranked<B: Backend> {
    /// `count` long; one undefined index where `count` is 0 or an error.
    pub kept: IntTensor<B>,
    /// The number of indices; 0 where a score is not finite.
    pub count: Result<usize, Error>,
}
