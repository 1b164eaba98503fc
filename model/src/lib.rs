//! LLaVA-NeXT with FocusLLaVA's two samplers: from a checkpoint directory and a picture to an answer.
//!
//! ```no_run
//! # async fn run() -> Result<(), fovea_model::Error> {
//! use fovea_model::{AskOptions, Cancel, Checkpoint, Event, Model, Picture, Precision};
//! use fovea_runtime::{DeviceChoice, OpenDevice, source::Source};
//! use futures_util::{StreamExt, pin_mut};
//!
//! let device = OpenDevice::open(&DeviceChoice::Auto).await?;
//! let checkpoint = Checkpoint::open(Source::directory("path/to/checkpoint")?).await?;
//! let model = Model::load(checkpoint, device, Precision::Auto, &Cancel::default(), |_| {}).await?;
//! let picture = Picture::decode(&std::fs::read("picture.png").unwrap())?;
//! let mut conversation = model.look_at(picture);
//! let options = AskOptions::default();
//! let answer = conversation.ask("What number is on the shirt?", &options);
//! pin_mut!(answer);
//! while let Some(event) = answer.next().await {
//!     if let Event::Token { text, .. } = event? {
//!         print!("{text}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The way of the data is in [`focus`]'s functions; each stage has a file of its own, in this order:
//! `checkpoint` `quantised` `config` `generation` `names` `load` · `picture` `resize` `tiles` `grid` · `vision` `projector` · `vision_sampler` ·
//! `prompt` (and the crate `fovea-templates`) · `pace` · `rope` `attention` `decoder` · `text_sampler` · `pick` · `conversation` `answer` · `overlay` `trace`.
//! Nothing here blocks, and nothing knows WGSL.

mod answer;
mod attention;
mod cancel;
mod checkpoint;
mod config;
mod conversation;
mod decoder;
pub mod demo;
mod error;
pub mod focus;
mod generation;
mod grid;
mod inspect;
mod linear;
mod load;
mod model;
mod names;
pub mod overlay;
mod pace;
mod pick;
mod picture;
mod plan;
mod projector;
mod prompt;
mod quantised;
mod quiet;
mod resize;
mod rope;
mod text_sampler;
mod tiles;
pub mod trace;
#[cfg(feature = "train")]
pub mod train;
mod vision;
mod vision_sampler;
pub mod words;

pub use answer::{AskOptions, Event, Looked, MemoryBytes, Stage, Statistics, TokenCounts, Turn};
pub use cancel::Cancel;
pub use checkpoint::{Blueprint, Checkpoint};
pub use config::{Activation, Config, FocusConfig, RopeScaling, TextConfig, VisionConfig};
pub use conversation::Conversation;
pub use error::Error;
pub use generation::Generation;
pub use grid::Grid;
pub use inspect::{Inspection, inspect};
pub use model::{LoadProgress, Model, Precision};
pub use names::{Names, Naming};
pub use pace::Progress;
pub use pick::Pick;
pub use picture::Picture;
pub use plan::{Load, Plan};
pub use prompt::{Prompt, Prompter};
pub use resize::bicubic;
pub use tiles::{TileConfig, Tiles, best_resolution, tiles};
