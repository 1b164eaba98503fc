//! Blocking helpers for tests of whole runs: checkpoint files and a picture in, an answer out.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use fovea_model::{AskOptions, Cancel, Checkpoint, Compression, Conversation, Error, Model, Picture, Precision, Turn};
use fovea_runtime::{OpenDevice, source::Source};
use futures_util::{Stream, task::noop_waker};

use crate::golden::fixtures;

/// Opens a checkpoint.
///
/// # Errors
/// As [`Checkpoint::open`].
pub fn open(source: Source) -> Result<Checkpoint, Error> {
    pollster::block_on(Checkpoint::open(source))
}

/// Opens and loads a checkpoint in f32.
///
/// # Errors
/// As [`Checkpoint::open`] and [`Model::load`].
pub fn load(source: Source, device: &OpenDevice) -> Result<Arc<Model>, Error> {
    load_as(source, device, Precision::F32)
}

fn load_as(source: Source, device: &OpenDevice, precision: Precision) -> Result<Arc<Model>, Error> {
    let checkpoint = open(source)?;
    pollster::block_on(Model::load(checkpoint, device.clone(), precision, &Cancel::default(), |_| {}))
}

/// Loads a checkpoint of the fixtures.
///
/// # Panics
/// If it does not load.
pub fn fixture(name: &str, device: &OpenDevice) -> Arc<Model> {
    fixture_as(name, device, Precision::F32)
}

/// Loads a checkpoint of the fixtures with its matrices in a given precision.
///
/// # Panics
/// If it does not load.
pub fn fixture_as(name: &str, device: &OpenDevice, precision: Precision) -> Arc<Model> {
    let source = Source::directory(fixtures().join(name)).expect("a fixture's directory");
    let loaded = load_as(source, device, precision);
    loaded.unwrap_or_else(|e| panic!("{name}: expected the checkpoint to load, got: {e}"))
}

/// A picture of the golden cases.
///
/// # Panics
/// If it cannot be read.
pub fn picture(file: &str) -> Picture {
    read_picture("pictures", file)
}

/// A picture of `fixtures/awkward`.
///
/// # Panics
/// If it cannot be read.
pub fn awkward_picture(file: &str) -> Picture {
    read_picture("awkward", file)
}

fn read_picture(folder: &str, file: &str) -> Picture {
    let path = fixtures().join(folder).join(file);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("expected the picture {}, got: {e}", path.display()));
    Picture::decode(&bytes).unwrap_or_else(|e| panic!("{file}: expected a picture, got: {e}"))
}

/// Asks, and waits for the complete answer.
///
/// # Errors
/// As [`Conversation::ask`].
pub fn ask(conversation: &mut Conversation, question: &str, options: &AskOptions) -> Result<Turn, Error> {
    pollster::block_on(conversation.answer(question, options)).map(|turn| *turn)
}

/// Greedy decoding, the checkpoint's own compression, logits kept, at most `new` tokens.
pub fn options(new: usize) -> AskOptions {
    AskOptions { max_new_tokens: new, keep_logits: true, ..AskOptions::default() }
}

/// As [`options`], with the compression `spec`.
///
/// # Panics
/// If `spec` is not a compression.
pub fn compressed(spec: &str, new: usize) -> AskOptions {
    let compression = spec.parse::<Compression>();
    let compression = compression.unwrap_or_else(|e| panic!("{spec}: expected a compression, got: {e}"));
    AskOptions { compression: Some(compression), ..options(new) }
}

/// More polls than any question of the tests needs.
pub const ENOUGH: usize = 10_000;

/// Polls `events` at most `most` times. Returns whether the stream ended, and its error.
pub fn poll<T>(mut events: Pin<&mut impl Stream<Item = Result<T, Error>>>, most: usize) -> (bool, Option<Error>) {
    let waker = noop_waker();
    let mut context = Context::from_waker(&waker);
    for _ in 0..most {
        match events.as_mut().poll_next(&mut context) {
            Poll::Ready(None) => return (true, None),
            Poll::Ready(Some(Err(e))) => return (true, Some(e)),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
    }
    (false, None)
}
