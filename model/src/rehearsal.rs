//! Compiles the pipelines of an answer while the weights are checked. Input: the sizes of a model. Output: compiled pipelines.
//!
//! A model with the widths and types of the real one, but with few layers and only zeros, answers a question about a grey
//! picture. A pipeline depends on widths and types, and hardly on the number of tokens.

use std::pin::pin;

use fovea_runtime::device::DeviceClass;
use futures_util::future::{Either, select};

use crate::{
    answer::AskOptions, cancel::Cancel, checkpoint::Checkpoint, config::Config, conversation::Conversation,
    error::Error, load::Loader, model::Shell, network::Network, picture::Picture, storage::Rehearsal,
};

/// Fewest bytes of weights: smaller models are checked sooner than pipelines are compiled.
const LEAST: u64 = 64 << 20;
/// Layers of the text model: one below the text-guided sampler, one above it.
const LAYERS: usize = 2;
/// Rows of embedding and head: more would give the same pipelines (`gemv_rows`).
const ROWS: usize = 16_385;

/// The same architecture with few layers, and a short vocabulary.
fn short(config: &Config) -> Config {
    let mut short = config.clone();
    let (text, vision) = (&mut short.text, &mut short.vision);
    text.n_layers = text.n_layers.min(LAYERS);
    text.vocab = text.vocab.min(ROWS);
    let last = text.n_layers - 1;
    short.focus.text_layer = short.focus.text_layer.map(|layer| layer.min(last));
    // As many hidden states as before, each from a different layer.
    vision.n_used = vision.n_used.min(vision.feature_layers.len().max(1));
    let used = vision.n_used;
    vision.feature_layers = (0..vision.feature_layers.len()).map(|i| (i + 1).min(used)).collect();
    short
}

/// Answers a question about a grey picture with a short model of zeros. It needs less memory than a question to the real model.
///
/// # Errors
/// Those of [`Network::load`] and of [`Conversation::ask`].
async fn compile(shell: &Shell, checkpoint: &Checkpoint, cancel: &Cancel) -> Result<(), Error> {
    let shell =
        Shell { config: short(&shell.config), notes: Vec::new(), weight_bytes: 0, memory: None, ..shell.clone() };
    let (info, none) = (&shell.device.info, |_| ());
    let load = Loader::new(&checkpoint.weights, &shell.device.device, shell.storage, cancel, &none);
    let load = load.cut_at(info.max_binding_size.min(info.max_buffer_size)).of_zeros();
    let network = Network::load(&load, &checkpoint.names, &shell.config, checkpoint.extras).await?;
    // A few tiles: those of the largest canvas need nearly the same pipelines, but more time and memory.
    let side = shell.tiles.side;
    let picture = Picture::from_rgb(side, side, vec![128; 3 * side * side])?;
    let options = AskOptions { cancel: cancel.clone(), ..AskOptions::default() };
    Conversation::new(&shell.with(network), picture).warm_up(&options).await
}

/// The result of `checking`, which needs no device. Beside it the pipelines of an answer are compiled; an error there is ignored,
/// but the loss of the device ends both. The memory of the short model is free again before the first weight is copied.
///
/// # Errors
/// Those of `checking`.
pub(crate) async fn beside<T>(
    checking: impl Future<Output = Result<T, Error>>,
    (shell, checkpoint): (&Shell, &Checkpoint),
    rehearsal: Rehearsal,
    cancel: &Cancel,
) -> Result<T, Error> {
    let (class, whole) = (shell.device.info.class, rehearsal == Rehearsal::Always);
    let wanted = match rehearsal {
        Rehearsal::Auto => class != DeviceClass::Software && shell.weight_bytes >= LEAST,
        Rehearsal::Never => false,
        Rehearsal::Always => true,
    };
    if !wanted || class == DeviceClass::Cpu {
        return checking.await;
    }
    let checked = match select(pin!(checking), pin!(compile(shell, checkpoint, cancel))).await {
        Either::Left((checked, rest)) => {
            if whole && checked.is_ok() {
                rest.await.ok();
            }
            checked
        }
        Either::Right((_, checking)) => checking.await,
    };
    shell.device.release_unused();
    checked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo;

    fn demo_config() -> Config {
        pollster::block_on(Checkpoint::open(demo::source())).expect("the demo checkpoint").config
    }

    #[test]
    fn a_short_config_has_every_kind_of_layer() {
        let config = demo_config();
        let shortened = short(&config);
        assert_eq!((shortened.text.n_layers, shortened.focus.text_layer), (2, Some(1)), "layers (got, expected)");
        assert_eq!((shortened.vision.n_used, shortened.vision.feature_layers), (1, vec![1]), "tower (got, expected)");
        assert_eq!(shortened.text.vocab, config.text.vocab, "a small vocabulary stays (got, expected)");
    }

    #[test]
    fn odd_configs_stay_valid() {
        let mut config = demo_config();
        config.text.n_layers = 1;
        config.text.vocab = 151_936;
        config.focus.text_layer = Some(0);
        config.vision.feature_layers = vec![1, 2, 2];
        let shortened = short(&config);
        assert_eq!((shortened.text.n_layers, shortened.text.vocab), (1, ROWS), "text model (got, expected)");
        assert_eq!(shortened.focus.text_layer, Some(0), "sampler (got, expected)");
        assert_eq!(
            (shortened.vision.n_used, shortened.vision.feature_layers),
            (3, vec![1, 2, 3]),
            "tower (got, expected)"
        );
        config.focus.text_layer = None;
        config.vision.feature_layers = vec![0];
        let shortened = short(&config);
        assert_eq!((shortened.focus.text_layer, shortened.vision.n_used), (None, 1), "no sampler (got, expected)");
    }
}
