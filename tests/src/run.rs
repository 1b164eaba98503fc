//! From checkpoint files and a picture to an answer, blocking: what every test of a whole run does.

use std::{pin::pin, sync::Arc};

use fovea_model::{AskOptions, Cancel, Checkpoint, Conversation, Error, Event, Model, Picture, Precision, Turn};
use fovea_runtime::{OpenDevice, source::Source};
use futures_util::StreamExt;

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
/// Where it does not load.
pub fn fixture(name: &str, device: &OpenDevice) -> Arc<Model> {
    fixture_as(name, device, Precision::F32)
}

/// Loads a checkpoint of the fixtures with its matrices in a chosen precision.
///
/// # Panics
/// Where it does not load.
pub fn fixture_as(name: &str, device: &OpenDevice, precision: Precision) -> Arc<Model> {
    let source = Source::directory(fixtures().join(name)).expect("a fixture's directory");
    let loaded = load_as(source, device, precision);
    loaded.unwrap_or_else(|e| panic!("{name}: expected a checkpoint that loads, got: {e}"))
}

/// A picture of the traces' cases.
///
/// # Panics
/// Where it cannot be read.
pub fn picture(file: &str) -> Picture {
    read_picture("pictures", file)
}

/// A picture of the awkward ones.
///
/// # Panics
/// Where it cannot be read.
pub fn awkward_picture(file: &str) -> Picture {
    read_picture("awkward", file)
}

fn read_picture(folder: &str, file: &str) -> Picture {
    let path = fixtures().join(folder).join(file);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("expected the picture {}, got: {e}", path.display()));
    Picture::decode(&bytes).unwrap_or_else(|e| panic!("{file}: expected a picture, got: {e}"))
}

/// Asks, and waits for the whole answer.
///
/// # Errors
/// As [`Conversation::ask`].
///
/// # Panics
/// Where the stream ends without an answer and without an error.
pub fn ask(conversation: &mut Conversation, question: &str, options: &AskOptions) -> Result<Turn, Error> {
    pollster::block_on(async {
        let mut events = pin!(conversation.ask(question, options));
        let mut turn = None;
        while let Some(event) = events.next().await {
            if let Event::Done(done) = event? {
                turn = Some(*done);
            }
        }
        Ok(turn.expect("the last event to be the whole answer"))
    })
}

/// Greedy, both samplers on, logits kept, `new` tokens at most.
pub fn options(new: usize) -> AskOptions {
    AskOptions { max_new_tokens: new, keep_logits: true, ..AskOptions::default() }
}
