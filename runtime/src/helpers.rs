//! Rows of weights in helpers: threads with memory of their own, such as the workers of a page.
//!
//! A page cannot give threads one wasm memory: the standard library and wgpu would have to be built for it. So each helper
//! runs the same module in its own memory, and holds some rows of each large matrix. For a product it gets the inputs
//! and returns its columns, while this thread computes those of the rows that stayed here:
//!
//! ```text
//! weight (rows, K) -> rows here | rows of helper 0 | rows of helper 1 ...
//! x (T, K) -> every helper -> columns of each -> y (T, rows)
//! ```
//!
//! Each row is multiplied as it would be here, so results do not depend on the number of helpers, except where burn's own
//! product chooses its order by the number of rows.
//!
//! A request is eight words and a body (`Request`).

use std::{
    collections::HashMap,
    fmt,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use burn::backend::{BackendTensor, DispatchTensorKind, Flex, tensor::FloatTensor};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use fovea_shaders::Format;
use half::f16;

use crate::{
    error::Error,
    network_ops::{After, Weight, flex::whole, linear},
};

/// Fewest values of a matrix that is divided: a message costs about as much as a product of this size.
const LEAST: usize = 1 << 16;

/// Threads with memory of their own, which hold rows of weights.
pub trait Helpers: Send + Sync {
    /// How many there are.
    fn count(&self) -> usize;
    /// Most bytes of a request, and of a reply.
    fn room(&self) -> usize;
    /// Sends a request, in two pieces that follow each other, to a helper that has replied to all earlier ones.
    ///
    /// # Errors
    /// A sentence.
    fn send(&self, helper: usize, head: &[u8], body: &[u8]) -> Result<(), String>;
    /// Waits for the reply; its length must be that of `reply`.
    ///
    /// # Errors
    /// A sentence: that of the helper, if it failed.
    fn receive(&self, helper: usize, reply: &mut [u8]) -> Result<(), String>;
}

static REGISTERED: OnceLock<Arc<dyn Helpers>> = OnceLock::new();

/// Registers the helpers of this process: models that are loaded on the CPU afterwards use them. Returns false if there were
/// some already.
pub fn register(helpers: Box<dyn Helpers>) -> bool {
    REGISTERED.set(helpers.into()).is_ok()
}

/// One exchange at a time: a helper answers the requests of one thread.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The helpers of this process, if there are some.
pub fn registered() -> Option<Arc<dyn Helpers>> {
    REGISTERED.get().cloned()
}

/// What is done with a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Products.
    Products,
    /// Products, and lookups of rows: all rows stay here too.
    Both,
}

/// Rows of a weight: some here, the others in helpers.
#[derive(Clone)]
pub struct Shared {
    here: Option<Box<Weight>>,
    away: Vec<Away>,
    /// All rows, for lookups.
    all: Option<Box<Weight>>,
    width: usize,
}

/// Some rows of a matrix of a helper.
#[derive(Clone)]
struct Away {
    matrix: Arc<Matrix>,
    rows: Range<usize>,
}

/// A matrix that a helper holds until this is dropped.
struct Matrix {
    helpers: Arc<dyn Helpers>,
    helper: usize,
    id: u32,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let away: Vec<_> = self.away.iter().map(|away| (away.matrix.helper, &away.rows)).collect();
        f.debug_struct("Shared").field("here", &self.here).field("away", &away).finish_non_exhaustive()
    }
}

impl Drop for Matrix {
    fn drop(&mut self) {
        // If a helper has failed, its memory ends with it.
        let _ = self.ask(&Request::Free { id: self.id }, &[], &mut []);
    }
}

impl Matrix {
    fn send(&self, request: &Request, body: &[u8]) -> Result<(), Error> {
        self.helpers.send(self.helper, bytemuck::cast_slice(&request.words()), body).map_err(Error::DeviceLost)
    }

    fn receive(&self, reply: &mut [u8]) -> Result<(), Error> {
        self.helpers.receive(self.helper, reply).map_err(Error::DeviceLost)
    }

    fn ask(&self, request: &Request, body: &[u8], reply: &mut [u8]) -> Result<(), Error> {
        let _turn = turn();
        self.send(request, body)?;
        self.receive(reply)
    }

    /// Copies rows to a helper.
    fn of(helpers: &Arc<dyn Helpers>, helper: usize, weight: &Weight) -> Result<Self, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let layout = Layout::of(weight);
        let matrix = Self { helpers: helpers.clone(), helper, id: NEXT.fetch_add(1, Ordering::Relaxed) };
        for chunk in bytes_of(weight)?.chunks(helpers.room() - HEAD) {
            matrix.ask(&Request::Store { id: matrix.id, layout }, chunk, &mut [])?;
        }
        Ok(matrix)
    }
}

impl Shared {
    /// Divides the rows between this thread and `helpers`; the weight itself, where it is too small. `weight` is on the CPU.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] where a helper fails.
    pub fn divide(weight: Weight, helpers: &Arc<dyn Helpers>, with: Use) -> Result<Weight, Error> {
        let [height, width] = weight.dims();
        let threads = helpers.count() + 1;
        let values = height.saturating_mul(width);
        if threads == 1 || height < threads || values < LEAST || helpers.room() < HEAD + 4 * width.max(height) {
            return Ok(weight);
        }
        // Whole panels of products in integers (32 rows) are faster.
        let step = if height >= 64 * threads { 32 } else { 1 };
        let cut = |i: usize| if i == threads { height } else { height * i / threads / step * step };
        let mut away = Vec::with_capacity(helpers.count());
        for helper in 0..helpers.count() {
            let rows = cut(helper + 1)..cut(helper + 2);
            let matrix = Matrix::of(helpers, helper, &weight.rows(rows.clone()))?;
            away.push(Away { matrix: Arc::new(matrix), rows: 0..rows.len() });
        }
        // A copy: a view would keep all rows.
        let here = weight.rows(0..cut(1));
        let here = Some(Box::new(Layout::of(&here).weight(&bytes_of(&here)?)));
        let all = (with == Use::Both).then(|| Box::new(weight));
        Ok(Weight::Shared(Self { here, away, all, width }))
    }

    /// Rows, and values per row.
    pub(crate) fn dims(&self) -> [usize; 2] {
        let here = self.here.as_ref().map_or(0, |here| here.dims()[0]);
        [here + self.away.iter().map(|away| away.rows.len()).sum::<usize>(), self.width]
    }

    /// All rows, if they are here too.
    pub(crate) fn all(&self) -> Option<&Weight> {
        self.all.as_deref()
    }

    /// Some of the rows, for products.
    pub(crate) fn rows(&self, range: Range<usize>) -> Self {
        let mut first = 0;
        let mut within = |count: usize| {
            let rows = range.start.clamp(first, first + count) - first..range.end.clamp(first, first + count) - first;
            first += count;
            rows
        };
        let here = self.here.as_ref().and_then(|here| {
            let rows = within(here.dims()[0]);
            (!rows.is_empty()).then(|| Box::new(here.rows(rows)))
        });
        let away = self.away.iter().filter_map(|away| {
            let rows = within(away.rows.len());
            let rows = away.rows.start + rows.start..away.rows.start + rows.end;
            (!rows.is_empty()).then(|| Away { matrix: away.matrix.clone(), rows })
        });
        Self { here, away: away.collect(), all: None, width: self.width }
    }

    /// `x W^T`.
    ///
    /// # Shapes
    /// `x` (T, K), f32 -> (T, rows), f32.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] where a helper fails.
    pub(crate) fn product(&self, x: Tensor<2>) -> Result<Tensor<2>, Error> {
        let ([tokens, width], [height, _], device) = (x.dims(), self.dims(), x.device());
        let most = self.away.iter().map(|away| away.rows.len()).fold(width, usize::max);
        let room = self.away.first().map_or(usize::MAX, |away| (away.matrix.helpers.room() - HEAD) / 4 / most);
        // Even parts: a short last one would be multiplied in another way.
        let room = tokens.div_ceil(tokens.div_ceil(room));
        let mut out = vec![0.0; tokens * height];
        for first in (0..tokens).step_by(room) {
            let count = room.min(tokens - first);
            let x = if count == tokens { x.clone() } else { x.clone().narrow(0, first, count) };
            self.some(x, &mut out[first * height..][..count * height])?;
        }
        Ok(Tensor::from_data(TensorData::new(out, [tokens, height]), (&device, DType::F32)))
    }

    /// [`Shared::product`] of as many rows as there is room for.
    fn some(&self, x: Tensor<2>, out: &mut [f32]) -> Result<(), Error> {
        let ([tokens, _], [height, _]) = (x.dims(), self.dims());
        let values = flex(x.clone())?;
        let _turn = turn();
        let sent = self.away.iter().map(|away| {
            let (first, count) = (away.rows.start as u32, away.rows.len() as u32);
            let request = Request::Product { id: away.matrix.id, first, count, tokens: tokens as u32 };
            away.matrix.send(&request, bytemuck::cast_slice(values.storage::<f32>()))
        });
        let sent: Vec<Result<(), Error>> = sent.collect();
        let mut first = 0;
        let mut put = |columns: &[f32]| {
            let count = columns.len() / tokens;
            for (out, columns) in out.chunks_exact_mut(height).zip(columns.chunks_exact(count)) {
                out[first..first + count].copy_from_slice(columns);
            }
            first += count;
        };
        let mut result = self.here.iter().try_for_each(|here| {
            let y = flex(linear(x.clone(), &[(**here).clone()], None, None, After::Nothing)?)?;
            put(y.storage::<f32>());
            Ok(())
        });
        let mut columns = Vec::new();
        // Every reply is received, also after an error: the next exchange begins with free helpers.
        for (away, sent) in self.away.iter().zip(sent) {
            columns.resize(tokens * away.rows.len(), 0.0);
            let received = sent.and_then(|()| away.matrix.receive(bytemuck::cast_slice_mut(&mut columns)));
            put(&columns);
            result = Result::and(result, received);
        }
        result
    }
}

/// A contiguous tensor of the CPU.
fn flex(x: Tensor<2>) -> Result<FloatTensor<Flex>, Error> {
    match x.into_dispatch().kind {
        DispatchTensorKind::Flex(BackendTensor::Float(x)) => Ok(whole(x)),
        _ => Err(elsewhere()),
    }
}

/// The bytes of a weight on the CPU: values, or codes, then scales.
fn bytes_of(weight: &Weight) -> Result<Vec<u8>, Error> {
    let ints = |x: &Tensor<2, Int>| match x.clone().into_dispatch().kind {
        DispatchTensorKind::Flex(BackendTensor::Int(x)) => Ok(whole(x)),
        _ => Err(elsewhere()),
    };
    match weight {
        Weight::Float(values) => Ok(flex(values.clone())?.bytes().to_vec()),
        Weight::Codes { words, scales, .. } => Ok([ints(words)?.bytes(), ints(scales)?.bytes()].concat()),
        Weight::Shared(_) => Err(elsewhere()),
    }
}

/// The error of rows that are not in this memory.
fn elsewhere() -> Error {
    Error::Shape { op: "helpers", expected: "tensors of the CPU".into(), got: "others".into() }
}

/// Bytes before the body of a request.
const HEAD: usize = 32;

/// How rows are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    rows: u32,
    width: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    F32,
    F16,
    Codes(Format, bool),
}

impl Layout {
    fn of(weight: &Weight) -> Self {
        let [rows, width] = weight.dims().map(|count| count as u32);
        let kind = match weight {
            Weight::Codes { format, rounded, .. } => Kind::Codes(*format, *rounded),
            Weight::Float(values) if values.dtype() == DType::F16 => Kind::F16,
            Weight::Float(_) | Weight::Shared(_) => Kind::F32,
        };
        Self { rows, width, kind }
    }

    /// Bytes of codes or values, and of scales.
    fn bytes(self) -> [usize; 2] {
        let (rows, width) = (self.rows as usize, self.width as usize);
        let [values, scales] = match self.kind {
            Kind::F32 => [4 * width, 0],
            Kind::F16 => [2 * width, 0],
            Kind::Codes(format, _) => [4 * format.words(width), 4 * format.scale_words(width)],
        };
        [rows.saturating_mul(values), rows.saturating_mul(scales)]
    }

    /// Three words.
    fn words(self) -> [u32; 3] {
        let kind = match self.kind {
            Kind::F32 => 0,
            Kind::F16 => 1,
            Kind::Codes(Format { bits, minimum, group }, rounded) => {
                2 | u32::from(minimum) << 2 | u32::from(rounded) << 3 | bits << 8 | group << 16
            }
        };
        [self.rows, self.width, kind]
    }

    fn of_words([rows, width, kind]: [u32; 3]) -> Option<Self> {
        let kind = match kind & 3 {
            0 => Kind::F32,
            1 => Kind::F16,
            2 => {
                let format = Format { bits: kind >> 8 & 255, minimum: kind & 4 != 0, group: kind >> 16 };
                let known = [4, 8].contains(&format.bits) && format.group.is_power_of_two();
                (known && format.fits(width as usize)).then_some(Kind::Codes(format, kind & 8 != 0))?
            }
            _ => return None,
        };
        Some(Self { rows, width, kind })
    }

    /// The weight of all bytes.
    fn weight(self, bytes: &[u8]) -> Weight {
        let device = Device::flex();
        let [rows, width] = [self.rows, self.width].map(|count| count as usize);
        let ints = |bytes: &[u8]| -> Tensor<2, Int> {
            let words: Vec<i32> = bytemuck::pod_collect_to_vec(bytes);
            let shape = [rows, words.len() / rows.max(1)];
            Tensor::from_data(TensorData::new(words, shape), (&device, DType::I32))
        };
        match self.kind {
            Kind::F32 => {
                let values: Vec<f32> = bytemuck::pod_collect_to_vec(bytes);
                Weight::Float(Tensor::from_data(TensorData::new(values, [rows, width]), (&device, DType::F32)))
            }
            Kind::F16 => {
                let values: Vec<f16> = bytemuck::pod_collect_to_vec(bytes);
                Weight::Float(Tensor::from_data(TensorData::new(values, [rows, width]), (&device, DType::F16)))
            }
            Kind::Codes(format, rounded) => {
                let (words, scales) = bytes.split_at(self.bytes()[0]);
                Weight::Codes { words: ints(words), scales: ints(scales), format, rounded }
            }
        }
    }
}

/// What a helper is asked. A request is eight words: the operation, the matrix, and five numbers; then a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// The body has more bytes of a matrix. No reply.
    Store { id: u32, layout: Layout },
    /// The body is `x` (tokens, K), f32. The reply is the product with `count` rows of a matrix: (tokens, count), f32.
    Product { id: u32, first: u32, count: u32, tokens: u32 },
    /// The matrix is no longer needed. No reply.
    Free { id: u32 },
}

impl Request {
    fn words(self) -> [u32; HEAD / 4] {
        match self {
            Self::Store { id, layout } => {
                let [rows, width, kind] = layout.words();
                [0, id, rows, width, kind, 0, 0, 0]
            }
            Self::Product { id, first, count, tokens } => [1, id, first, count, tokens, 0, 0, 0],
            Self::Free { id } => [2, id, 0, 0, 0, 0, 0, 0],
        }
    }

    fn of_words([operation, id, a, b, c, ..]: [u32; HEAD / 4]) -> Option<Self> {
        match operation {
            0 => Some(Self::Store { id, layout: Layout::of_words([a, b, c])? }),
            1 => Some(Self::Product { id, first: a, count: b, tokens: c }),
            2 => Some(Self::Free { id }),
            _ => None,
        }
    }
}

/// What a helper does: one per helper.
#[derive(Default)]
pub struct Helper {
    /// Bytes of matrices that are not yet complete.
    begun: HashMap<u32, Vec<u8>>,
    matrices: HashMap<u32, Weight>,
}

impl Helper {
    /// Answers a request of [`Shared`].
    ///
    /// # Errors
    /// [`Error::Shape`] if it is not such a request.
    pub fn serve(&mut self, request: &[u8]) -> Result<Vec<u8>, Error> {
        let unknown = |what: String| Error::Shape { op: "helper", expected: "a request".into(), got: what };
        let (head, body) = request.split_at_checked(HEAD).ok_or_else(|| unknown(format!("{} bytes", request.len())))?;
        let words = std::array::from_fn(|i| u32::from_le_bytes(std::array::from_fn(|b| head[4 * i + b])));
        let asked = Request::of_words(words).ok_or_else(|| unknown(format!("{words:?}")))?;
        match asked {
            Request::Store { id, layout } => {
                let [first, second] = layout.bytes();
                let total = first.saturating_add(second);
                let bytes = self.begun.entry(id).or_default();
                bytes.extend_from_slice(body);
                if bytes.len() > total {
                    return Err(unknown(format!("{} bytes for {layout:?}", bytes.len())));
                }
                if bytes.len() == total {
                    self.matrices.insert(id, layout.weight(bytes));
                    self.begun.remove(&id);
                }
                Ok(Vec::new())
            }
            Request::Product { id, first, count, tokens } => {
                let [from, count, tokens] = [first, count, tokens].map(|count| count as usize);
                let weight = self.matrices.get(&id).ok_or_else(|| unknown(format!("{asked:?}: no such matrix")))?;
                let [rows, width] = weight.dims();
                let within = from.checked_add(count).is_some_and(|end| end <= rows);
                let whole = tokens.checked_mul(width * 4) == Some(body.len());
                if !(within && whole) || count == 0 || tokens == 0 {
                    return Err(unknown(format!("{asked:?} with {} bytes for {rows} rows of {width}", body.len())));
                }
                let weight = if count == rows { weight.clone() } else { weight.rows(from..from + count) };
                let values: Vec<f32> = bytemuck::pod_collect_to_vec(body);
                let x = Tensor::from_data(TensorData::new(values, [tokens, width]), (&Device::flex(), DType::F32));
                let y = flex(linear(x, &[weight], None, None, After::Nothing)?)?;
                Ok(bytemuck::cast_slice(y.storage::<f32>()).to_vec())
            }
            Request::Free { id } => {
                self.begun.remove(&id);
                self.matrices.remove(&id);
                Ok(Vec::new())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// Helpers in threads of this process: where their requests go, and their replies come from.
    struct Threads(Vec<Mutex<Ends>>);

    type Ends = (Sender<Vec<u8>>, Receiver<Result<Vec<u8>, String>>);

    const ROOM: usize = 1 << 14;

    impl Threads {
        fn start(count: usize) -> Arc<dyn Helpers> {
            let threads = (0..count).map(|_| {
                let (to, requests) = channel::<Vec<u8>>();
                let (replies, from) = channel();
                std::thread::spawn(move || {
                    let mut helper = Helper::default();
                    for request in requests {
                        let reply = helper.serve(&request).map_err(|why| why.to_string());
                        assert!(
                            request.len() <= ROOM && reply.as_ref().is_ok_and(|r| r.len() <= ROOM) || reply.is_err()
                        );
                        if replies.send(reply).is_err() {
                            return;
                        }
                    }
                });
                Mutex::new((to, from))
            });
            Arc::new(Self(threads.collect()))
        }
    }

    impl Helpers for Threads {
        fn count(&self) -> usize {
            self.0.len()
        }

        fn room(&self) -> usize {
            ROOM
        }

        fn send(&self, helper: usize, head: &[u8], body: &[u8]) -> Result<(), String> {
            let thread = self.0[helper].lock().unwrap_or_else(PoisonError::into_inner);
            thread.0.send([head, body].concat()).map_err(|why| why.to_string())
        }

        fn receive(&self, helper: usize, reply: &mut [u8]) -> Result<(), String> {
            let thread = self.0[helper].lock().unwrap_or_else(PoisonError::into_inner);
            reply.copy_from_slice(&thread.1.recv().map_err(|why| why.to_string())??);
            Ok(())
        }
    }

    /// A weight of `rows` rows of 256 values: f32, f16, or codes.
    fn weight(rows: usize, kind: Kind) -> Weight {
        let layout = Layout { rows: rows as u32, width: 256, kind };
        let values = |count: usize| (0..count).map(|i| ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0);
        let [first, second] = layout.bytes();
        let scales: Vec<f16> = values(second / 2).map(f16::from_f32).collect();
        let mut bytes = match kind {
            Kind::F32 => bytemuck::pod_collect_to_vec(&values(first / 4).collect::<Vec<f32>>()),
            Kind::F16 => bytemuck::pod_collect_to_vec(&values(first / 2).map(f16::from_f32).collect::<Vec<f16>>()),
            Kind::Codes(..) => (0..first).map(|i| (i * 131 % 251) as u8).collect::<Vec<u8>>(),
        };
        bytes.extend_from_slice(bytemuck::cast_slice(&scales));
        layout.weight(&bytes)
    }

    fn values(x: Tensor<2>) -> Vec<f32> {
        flex(x).expect("on the CPU").storage::<f32>().to_vec()
    }

    const KINDS: [Kind; 5] = [
        Kind::F32,
        Kind::F16,
        Kind::Codes(Format::Q8, false),
        Kind::Codes(Format::Q4, true),
        Kind::Codes(Format { bits: 4, minimum: true, group: 64 }, false),
    ];

    #[test]
    fn shared_rows_give_the_same_product() {
        for (helpers, rows) in [(1, 256), (3, 401)] {
            let helpers = Threads::start(helpers);
            for kind in KINDS {
                let weight = weight(rows, kind);
                let shared = Shared::divide(weight.clone(), &helpers, Use::Products).expect("helpers");
                assert!(matches!(&shared, Weight::Shared(_)) && shared.dims() == [rows, 256], "{kind:?}: {shared:?}");
                for tokens in [1, 3, 70] {
                    let x: Vec<f32> = (0..tokens * 256).map(|i| (i as f32 * 0.37).sin()).collect();
                    let x = Tensor::from_data(TensorData::new(x, [tokens, 256]), (&Device::flex(), DType::F32));
                    for range in [0..rows, 5..130, 130..131, 200..rows] {
                        let of = |weight: &Weight| {
                            let part = weight.rows(range.clone());
                            values(linear(x.clone(), &[part], None, None, After::Nothing).expect("a product"))
                        };
                        let (expected, got) = (of(&weight), of(&shared));
                        let close = |(e, g): (&f32, &f32)| (e - g).abs() <= 1e-4 * (1.0 + e.abs());
                        let same = expected.len() == got.len() && expected.iter().zip(&got).all(close);
                        assert!(same, "{kind:?}, {tokens} tokens, rows {range:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_follows_a_product_is_the_same() {
        let helpers = Threads::start(2);
        let device = Device::flex();
        let weight = weight(300, Kind::F32);
        let shared = Shared::divide(weight.clone(), &helpers, Use::Products).expect("helpers");
        let of =
            |values: Vec<f32>, shape| Tensor::<2>::from_data(TensorData::new(values, shape), (&device, DType::F32));
        let x = of((0..5 * 256).map(|i| (i as f32 * 0.11).cos()).collect(), [5, 256]);
        let residual = of((0..5 * 300).map(|i| i as f32 * 0.01).collect(), [5, 300]);
        let bias = Tensor::<1>::from_data(TensorData::new(vec![0.5f32; 300], [300]), (&device, DType::F32));
        let gamma = Tensor::<1>::from_data(TensorData::new(vec![1.5f32; 256], [256]), (&device, DType::F32));
        for after in [
            After::Nothing,
            After::Add { residual, factor: 0.5 },
            After::Activate(fovea_shaders::Activation::Gelu),
            After::Gate(fovea_shaders::Activation::Silu),
        ] {
            for tokens in [1, 5] {
                let after = match &after {
                    After::Add { residual, factor } => {
                        After::Add { residual: residual.clone().narrow(0, 0, tokens), factor: *factor }
                    }
                    other => other.clone(),
                };
                let x = x.clone().narrow(0, 0, tokens);
                let of = |weight: &Weight| {
                    let rms = Some((gamma.clone(), 1e-5));
                    let y = linear(x.clone(), std::slice::from_ref(weight), Some(bias.clone()), rms, after.clone());
                    values(y.expect("a product"))
                };
                let (expected, got) = (of(&weight), of(&shared));
                let close = |(e, g): (&f32, &f32)| (e - g).abs() <= 1e-4 * (1.0 + e.abs());
                assert!(expected.len() == got.len() && expected.iter().zip(&got).all(close), "{after:?}");
            }
        }
    }

    #[test]
    fn tables_can_still_be_read() {
        let helpers = Threads::start(1);
        let table = weight(400, Kind::Codes(Format::Q8, false));
        let ids: Tensor<1, Int> = Tensor::from_data([399, 0, 200], &Device::flex());
        let rows = |table: &Weight| crate::network_ops::embed(ids.clone(), 3, std::slice::from_ref(table), 1.0);
        let both = Shared::divide(table.clone(), &helpers, Use::Both).expect("helpers");
        assert_eq!(values(rows(&both).expect("rows")), values(rows(&table).expect("rows")));
        let products = Shared::divide(table, &helpers, Use::Products).expect("helpers");
        let why = rows(&products).expect_err("rows that are not here").to_string();
        assert!(why.contains("embed"), "{why}");
    }

    #[test]
    fn small_matrices_stay_and_failures_are_errors() {
        let helpers = Threads::start(2);
        let small = Shared::divide(weight(200, Kind::F32), &helpers, Use::Products).expect("helpers");
        assert!(matches!(small, Weight::Float(_)), "{small:?}");
        let mut helper = Helper::default();
        let layout = Layout::of(&weight(2, Kind::F32));
        let ask = |helper: &mut Helper, request: Request, body: &[u8]| {
            helper.serve(&[bytemuck::cast_slice(&request.words()), body].concat()).map_err(|why| why.to_string())
        };
        assert_eq!(ask(&mut helper, Request::Store { id: 1, layout }, &[0; 2048]), Ok(Vec::new()));
        assert_eq!(
            ask(&mut helper, Request::Product { id: 1, first: 0, count: 2, tokens: 1 }, &[0; 1024]),
            Ok(vec![0; 8])
        );
        for (request, body) in [
            (Request::Product { id: 2, first: 0, count: 2, tokens: 1 }, 1024),
            (Request::Product { id: 1, first: 1, count: 2, tokens: 1 }, 1024),
            (Request::Product { id: 1, first: u32::MAX, count: 2, tokens: 1 }, 1024),
            (Request::Product { id: 1, first: 0, count: 2, tokens: 2 }, 1024),
            (Request::Store { id: 3, layout }, 2049),
        ] {
            let why = ask(&mut helper, request, &vec![0; body]).expect_err("a bad request");
            assert!(why.contains("helper: expected a request"), "{why}");
        }
        assert!(helper.serve(&[1, 2, 3]).is_err() && helper.serve(&[255; HEAD]).is_err());
    }
}
