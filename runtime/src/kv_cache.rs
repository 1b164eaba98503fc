//! Keys and values of past tokens: one pair of buffers per layer.
//!
//! Lengths differ: layers below the text-guided sampler have all visual tokens, the layers above have only the kept
//! ones. A clone shares the buffers; the first write to a shared buffer copies it. So several questions share one
//! picture: each starts with a clone of the picture's cache.

use burn::tensor::{DType, Device, Tensor};

/// Extra tokens when a buffer grows: not each decoding step must copy the whole buffer.
const GROWTH: usize = 64;

/// The cache of one layer. Buffers are (kv_heads, capacity, d_head); the first `len` positions are in use.
#[derive(Clone, Debug)]
pub struct LayerCache {
    key: Tensor<3>,
    value: Tensor<3>,
    len: usize,
}

impl LayerCache {
    /// A cache of these keys and values, (kv_heads, tokens, d_head) each, stored as `dtype`.
    pub fn new(key: Tensor<3>, value: Tensor<3>, dtype: DType) -> Self {
        let len = key.dims()[1];
        Self { key: key.cast(dtype), value: value.cast(dtype), len }
    }

    /// An empty cache with capacity for keys and values of `shape` (kv_heads, tokens, d_head) each. Rows without a token have no
    /// defined value; no operation reads them.
    pub fn empty(shape: &[usize; 3], dtype: DType, device: &Device) -> Self {
        // One dimension first: CUDA would align rows with gaps between them, and each token would copy the cache.
        let count: usize = shape.iter().product();
        let empty = || Tensor::<1>::empty([count], (device, dtype)).reshape(*shape);
        Self { key: empty(), value: empty(), len: 0 }
    }

    /// Grows the capacity for `tokens` more.
    pub fn reserve(&mut self, tokens: usize) {
        grow(&mut self.key, self.len, self.len + tokens);
        grow(&mut self.value, self.len, self.len + tokens);
    }

    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Keeps the first `tokens` tokens only; the capacity stays.
    pub fn truncate(&mut self, tokens: usize) {
        self.len = self.len.min(tokens);
    }

    /// Bytes of both buffers.
    pub fn bytes(&self) -> u64 {
        (self.key.shape().num_elements() + self.value.shape().num_elements()) as u64 * self.key.dtype().size() as u64
    }

    /// (kv_heads, capacity, d_head).
    pub fn dims(&self) -> [usize; 3] {
        self.key.dims()
    }

    /// Grows the buffers if they have no room for `tokens` more: then by some tokens more than needed.
    pub(crate) fn room_for(&mut self, tokens: usize) {
        if self.len + tokens > self.key.dims()[1] {
            self.reserve(tokens + GROWTH);
        }
    }

    /// Both buffers, (kv_heads, capacity, d_head) each. The cache gives up its own, so that they can be written in place.
    pub(crate) fn take(self) -> (Tensor<3>, Tensor<3>) {
        (self.key, self.value)
    }

    /// Both buffers, (kv_heads, capacity, d_head) each, with `len` tokens.
    pub(crate) fn of(key: Tensor<3>, value: Tensor<3>, len: usize) -> Self {
        Self { key, value, len }
    }

    /// Both buffers with their whole capacity.
    pub fn whole(&self) -> (Tensor<3>, Tensor<3>) {
        (self.key.clone(), self.value.clone())
    }
}

/// Grows a buffer to `capacity` tokens; the first `held` are kept.
fn grow(buffer: &mut Tensor<3>, held: usize, capacity: usize) {
    let [heads, before, d_head] = buffer.dims();
    if capacity <= before {
        return;
    }
    buffer.inplace(|old| {
        let grown = Tensor::<1>::zeros([heads * capacity * d_head], (&old.device(), old.dtype()));
        let grown = grown.reshape([heads, capacity, d_head]);
        if held == 0 { grown } else { grown.slice_assign([0..heads, 0..held, 0..d_head], old.narrow(1, 0, held)) }
    });
}

/// The caches of the layers, from the first one on. A layer that has not run has none.
#[derive(Clone, Debug, Default)]
pub struct KvCache {
    /// One per layer.
    pub layers: Vec<LayerCache>,
}

impl KvCache {
    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(LayerCache::bytes).sum()
    }
}
