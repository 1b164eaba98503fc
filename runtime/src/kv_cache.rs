//! Keys and values of past tokens, one pair of buffers a layer.
//!
//! Lengths are ragged: layers below the text-guided sampler hold every visual token, layers from it on the survivors.
//! Cloning shares the buffers; the first write to a shared buffer copies it. That is how several questions stand on
//! one image: each starts from a clone of the image's cache.

use burn::tensor::{DType, Device, Tensor};

/// Room added when a buffer grows, in tokens: a decoding step must not copy the whole buffer.
const GROWTH: usize = 64;

/// The cache of one layer. Buffers are (kv_heads, capacity, d_head), the first `len` positions filled.
#[derive(Clone, Debug)]
pub struct LayerCache {
    key: Tensor<3>,
    value: Tensor<3>,
    len: usize,
}

impl LayerCache {
    /// A cache that holds exactly these keys and values, (kv_heads, tokens, d_head) each, stored as `dtype`.
    pub fn new(key: Tensor<3>, value: Tensor<3>, dtype: DType) -> Self {
        let len = key.dims()[1];
        Self { key: key.cast(dtype), value: value.cast(dtype), len }
    }

    /// A cache of nothing, with room for keys and values of `shape` (kv_heads, tokens, d_head) each.
    pub fn empty(shape: &[usize; 3], dtype: DType, device: &Device) -> Self {
        Self { key: Tensor::zeros(*shape, (device, dtype)), value: Tensor::zeros(*shape, (device, dtype)), len: 0 }
    }

    /// Makes room for `tokens` more.
    pub fn reserve(&mut self, tokens: usize) {
        grow(&mut self.key, self.len, self.len + tokens);
        grow(&mut self.value, self.len, self.len + tokens);
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of both buffers.
    pub fn bytes(&self) -> u64 {
        (self.key.shape().num_elements() + self.value.shape().num_elements()) as u64 * self.key.dtype().size() as u64
    }

    /// Adds the keys and values of new tokens, (kv_heads, tokens, d_head) each.
    pub fn append(&mut self, key: Tensor<3>, value: Tensor<3>) {
        let added = key.dims()[1];
        write(&mut self.key, self.len, key);
        write(&mut self.value, self.len, value);
        self.len += added;
    }

    /// Keys and values held, (kv_heads, len, d_head) each: views of the buffers.
    pub fn read(&self) -> (Tensor<3>, Tensor<3>) {
        (self.key.clone().narrow(1, 0, self.len), self.value.clone().narrow(1, 0, self.len))
    }
}

fn write(buffer: &mut Tensor<3>, at: usize, new: Tensor<3>) {
    let new = new.cast(buffer.dtype());
    let end = at + new.dims()[1];
    if end > buffer.dims()[1] {
        grow(buffer, at, end + GROWTH);
    }
    let [heads, _, d_head] = buffer.dims();
    buffer.inplace(|room| room.slice_assign([0..heads, at..end, 0..d_head], new));
}

/// Gives a buffer room for `capacity` tokens; the first `held` stay.
fn grow(buffer: &mut Tensor<3>, held: usize, capacity: usize) {
    let [heads, before, d_head] = buffer.dims();
    if capacity <= before {
        return;
    }
    buffer.inplace(|old| {
        let grown = Tensor::zeros([heads, capacity, d_head], (&old.device(), old.dtype()));
        if held == 0 { grown } else { grown.slice_assign([0..heads, 0..held, 0..d_head], old.narrow(1, 0, held)) }
    });
}

/// The caches of all layers, from the first on; layers that have not run have none.
#[derive(Clone, Debug, Default)]
pub struct KvCache {
    /// One a layer.
    pub layers: Vec<LayerCache>,
}

impl KvCache {
    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(LayerCache::bytes).sum()
    }
}
