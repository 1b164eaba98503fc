//! Models of the LLaVA family with FocusLLaVA's two token samplers: from a checkpoint and pictures to an answer.
//! Weights are floats, or codes of 8 or 4 bits ([`Precision`], [`LoadOptions`]).
//!
//! ```no_run
//! # async fn run() -> Result<(), fovea_model::Error> {
//! use fovea_model::{AskOptions, Cancel, Checkpoint, Conversation, Model, Picture, Precision};
//! use fovea_runtime::{DeviceChoice, OpenDevice, source::Source};
//!
//! let device = OpenDevice::open(&DeviceChoice::Auto).await?;
//! let checkpoint = Checkpoint::open(Source::directory("path/to/checkpoint")?).await?;
//! let model = Model::load(checkpoint, device, Precision::Auto, &Cancel::default(), |_| {}).await?;
//! let picture = Picture::decode(&std::fs::read("picture.png").unwrap())?;
//! let mut conversation = Conversation::new(&model, picture);
//! let answer = conversation.answer("What number is on the shirt?", &AskOptions::default()).await?;
//! println!("{}", answer.text);
//! # Ok(())
//! # }
//! ```
//!
//! The modules below are in the order of the data flow; `src/focus.rs` shows all of it in one file. No function blocks, and
//! no module depends on WGSL.

// The files of a checkpoint, without the values of its weights.
mod error;
mod json_files;
mod quantised;
mod config;
mod conversations;
mod original;
mod generation;
mod chat_template;
mod quiet;
mod messages;
mod prompt;
mod names;
pub mod gguf;
mod checkpoint;
mod inspect;
#[cfg(feature = "demo")]
pub mod demo;

// Which visual tokens the text model reads.
mod grid;
mod compression;

// A model on a device.
mod cancel;
mod stage;
mod pace;
mod storage;
mod load;
mod plan;
mod fit;
mod model;

// A picture to tiles.
mod picture;
mod resize;
mod tiles;

// The network.
mod norm;
mod matrix;
mod linear;
mod taps;
mod vision;
mod projector;
mod vision_sampler;
mod meteor;
mod rope;
mod decoder;
mod network;
mod focus;
mod compress;
mod decode;

// A question to an answer.
mod pick;
mod ending;
mod answer;
mod looked;
mod conversation;
mod rehearsal;
pub mod trace;

pub use answer::{AskOptions, Event, FinishReason, MemoryBytes, Pruned, Statistics, TokenCounts, Turn};
pub use cancel::Cancel;
pub use checkpoint::{Blueprint, Checkpoint, Outline};
pub use compression::{
    Aggregate, Before, Budget, BudgetMap, CdPruner, Compression, DivPrune, FastV, FasterVlm, Fits, Heuristic, Hired,
    METHODS, Merge, Meteor, Method, MethodRow, Newlines, Patches, Place, Pool, Positions, PyramidDrop, RandomPatches,
    Relevance, Scope, Stride, TextGuided, ThumbnailTokens, VisionZip, Within,
};
pub use config::{
    Activation, Config, Cut, FocusConfig, Layout, MeteorConfig, Multipliers, ProjectorKind, RopeScaling, ScanOrder,
    ScanPlace, ScanSequence, TextConfig, TileConfig, VisionConfig,
};
pub use conversation::Conversation;
pub use error::{Error, ErrorKind};
pub use generation::Generation;
pub use grid::{Blocks, Fit, Grid, Newline, Thumbnail};
pub use inspect::{Inspection, NotUsed, inspect};
pub use load::{Parameter, ParameterRole};
pub use looked::{Looked, Origin, TokenPart, VisualToken};
pub use messages::{Message, Messages, Part, Role};
pub use model::{LoadProgress, LoadStage, Model};
pub use names::{Names, Naming};
pub use pace::Progress;
pub use pick::Pick;
pub use picture::Picture;
pub use plan::{Cost, Plan};
pub use prompt::{Prompt, Prompter};
pub use resize::{Kernel, bicubic, resize, resize_part};
pub use stage::Stage;
pub use storage::{Activations, CacheType, LoadOptions, Precision, Rehearsal, Stored, TowerType};
pub use tiles::{Tiles, best_resolution, tiles};

/// Parts of the network, for fovea-train. Not a stable API.
#[doc(hidden)]
pub mod parts {
    pub use crate::{
        compression::{Slot, Stock},
        decoder::{Decoder, DecoderLayer},
        linear::Linear,
        load::Loader,
        matrix::Part,
        meteor::native,
        names::{METEOR, SELECTOR},
        network::{Extras, Network},
        norm::Norm,
        pace::{Pace, Steps},
        projector::Projector,
        rope::{Rope, Rotation},
        storage::Storage,
        taps::{Taps, Wanted},
        vision::VisionTower,
        vision_sampler::ScaleSelector,
    };
}
