//! Questions about one picture, and what was looked at for the last of them.
//!
//! A method that is under way holds its sight, and another one on it throws: whoever calls them lets one end before the
//! next begins. [`Stop`] is apart, so that it can be told meanwhile.

use std::{pin::pin, sync::Arc};

use fovea_model::{AskOptions, Conversation, Error, Event, Looked, Model, Picture, TokenCounts, overlay};
use fovea_runtime::{Keep, Scale, top_k};
use futures_util::StreamExt;
use js_sys::Function;
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

use crate::{
    asked::{self, Stop},
    engine::tell,
    failure::failure,
    hearing::hearing,
};

/// A picture that can be asked about.
#[wasm_bindgen]
pub struct Sight {
    model: Arc<Model>,
    conversation: Conversation,
    looked: Option<Arc<Looked>>,
}

#[wasm_bindgen]
impl Sight {
    /// Answers a question.
    ///
    /// `options` is a JSON object; each key may be left out: `vision` and `text` (whether these samplers are on), `gamma`,
    /// `layer`, `max_new_tokens`. `on_event` is told, as JSON, `{stage, milliseconds}` as stages end, `{looked}` once,
    /// `{token: {id, text}}`, and `{done}` last, with the keys of `fovea ask --json`.
    ///
    /// # Errors
    /// Rejects with an `Error` that has a `code`; `stopped` where `stop` says so. Then the picture can be asked again.
    pub async fn ask(
        &mut self,
        question: String,
        options: String,
        stop: &Stop,
        on_event: Function,
    ) -> Result<(), JsValue> {
        let options = asked::options(&options, stop).map_err(failure)?;
        hearing(self.answer(&question, &options, &on_event)).await.map_err(failure)
    }

    /// The same up to what is looked at, which it returns as JSON; the answer is left out.
    ///
    /// # Errors
    /// As [`Sight::ask`].
    pub async fn look(&mut self, question: String, options: String, stop: &Stop) -> Result<String, JsValue> {
        let options = asked::options(&options, stop).map_err(failure)?;
        hearing(self.see(&question, &options)).await.map_err(failure)?;
        self.shown().map_err(failure)
    }

    /// What would have been kept at another gamma, by the importance that the last question gave: what is looked at then,
    /// as JSON. Nothing runs on the device.
    ///
    /// # Errors
    /// Throws an `Error` where gamma is out of range, or the last question had no text-guided sampler.
    pub fn keep(&mut self, gamma: f64) -> Result<String, JsValue> {
        self.kept(gamma).map_err(failure)?;
        self.shown().map_err(failure)
    }

    /// What was looked at last, drawn over the picture: the bytes of a PNG file, as `fovea ask --overlay` writes it.
    ///
    /// # Errors
    /// Throws an `Error` where nothing was asked yet.
    pub fn overlay(&self) -> Result<Vec<u8>, JsValue> {
        self.drawn().map_err(failure)
    }
}

impl Sight {
    /// `picture`, before the first question.
    pub fn new(model: &Arc<Model>, picture: Picture) -> Self {
        Self { model: model.clone(), conversation: model.look_at(picture), looked: None }
    }

    async fn answer(&mut self, question: &str, options: &AskOptions, on_event: &Function) -> Result<(), Error> {
        let mut events = pin!(self.conversation.ask(question, options));
        while let Some(event) = events.next().await {
            let told = match event? {
                Event::Stage { stage, milliseconds } => json!({ "stage": stage, "milliseconds": milliseconds }),
                Event::Looked(looked) => json!({ "looked": described(self.looked.insert(looked)) }),
                Event::Token { id, text } => json!({ "token": { "id": id, "text": text } }),
                Event::Done(turn) => json!({ "done": self.model.report(question, &turn)? }),
            };
            tell(on_event, &told);
        }
        Ok(())
    }

    async fn see(&mut self, question: &str, options: &AskOptions) -> Result<(), Error> {
        let mut events = pin!(self.conversation.ask(question, options));
        while let Some(event) = events.next().await {
            if let Event::Looked(looked) = event? {
                self.looked = Some(looked);
                break;
            }
        }
        Ok(())
    }

    fn kept(&mut self, gamma: f64) -> Result<(), Error> {
        let keep = Keep::Gamma(gamma);
        AskOptions { keep: Some(keep), ..AskOptions::default() }.check(self.model.config().text.n_layers)?;
        let mut looked = self.looked()?.clone();
        if looked.importance.is_empty() {
            let expected = "a question with the text-guided sampler on before it".to_owned();
            return Err(Error::Option { option: "gamma", expected, got: "one with it off".into() });
        }
        looked.kept = top_k(&looked.importance, keep);
        self.looked = Some(Arc::new(looked));
        Ok(())
    }

    fn looked(&self) -> Result<&Looked, Error> {
        self.looked.as_deref().ok_or_else(|| Error::Option {
            option: "overlay",
            expected: "a question about this picture before it".into(),
            got: "none".into(),
        })
    }

    fn drawn(&self) -> Result<Vec<u8>, Error> {
        overlay::png(&overlay::draw(self.conversation.picture(), self.looked()?)?)
    }

    fn shown(&self) -> Result<String, Error> {
        Ok(described(self.looked()?).to_string())
    }
}

/// What was looked at: counts of tokens, the scale of every region, patches and importance of every token, and which stay.
fn described(looked: &Looked) -> Value {
    let tokens = TokenCounts {
        stock: looked.grid.stock_tokens(),
        vision: looked.thumbnail + looked.boxes.len(),
        text: looked.kept.len(),
    };
    json!({
        "tokens": tokens,
        "map": [looked.grid.height, looked.grid.width],
        "window": looked.window,
        "scales": looked.scales.iter().map(Scale::to_string).collect::<Vec<_>>(),
        "choice": *looked.choice,
        "thumbnail": looked.thumbnail,
        "boxes": *looked.boxes,
        "importance": looked.importance,
        "kept": looked.kept,
    })
}
