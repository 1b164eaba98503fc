//! Questions about one picture, and the attention overlay of the last question.
//!
//! Methods of a sight must not overlap: a call during another call throws. [`Stop`] is a separate object, so that it can be
//! used during a call.

use std::{pin::pin, sync::Arc};

use fovea_model::{
    AskOptions, Compression, Conversation, Error, Event, Looked, Messages, Model, Picture, Progress, TokenCounts,
    VisualToken,
};
use fovea_runtime::{Keep, Scale, TokenBox};
use fovea_shaders::top_k;
use futures_util::StreamExt;
use js_sys::Function;
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

use crate::{
    asked::{self, Stop},
    failure::failure,
    messages::receiving,
    report::report,
};

/// An open picture.
#[wasm_bindgen]
pub struct Sight {
    model: Arc<Model>,
    conversation: Conversation,
    looked: Option<Arc<Looked>>,
}

#[wasm_bindgen]
impl Sight {
    /// Does the work that does not depend on the question, so that the first answer comes sooner. On a GPU it also answers a
    /// question once per model, to compile all pipelines. `options` are those of [`Sight::ask`]; a question with other
    /// options may have to do some of the work itself.
    ///
    /// # Errors
    /// As [`Sight::ask`].
    pub async fn prepare(&mut self, options: String, stop: &Stop) -> Result<(), JsValue> {
        let options = asked::options(&options, stop).map_err(failure)?;
        receiving(self.get_ready(&options)).await.map_err(failure)
    }

    /// Answers a question, which is the last one of the `messages` (JSON: `[{role, content}]`). The page keeps the history.
    ///
    /// `options` is a JSON object of optional keys: `compression` (a string, spelled as on the command line),
    /// `max_new_tokens`, `temperature`, `top_p`, `seed` and `stop` (a list of texts that end the answer). `on_event` receives JSON: `{stage, milliseconds}` as stages end, `{progress: {stage, done, total}}`
    /// a few times per second in a long stage, `{looked}` once, `{token: {id, text}}` per token, and at the end `{done}`, with
    /// the keys of `fovea ask --json`.
    ///
    /// # Errors
    /// Rejects with an `Error` that has a `code`: `stopped` after [`Stop::stop`]. The sight can be used after an error.
    pub async fn ask(
        &mut self,
        messages: String,
        options: String,
        stop: &Stop,
        on_event: Function,
    ) -> Result<(), JsValue> {
        let messages = asked::messages(&messages).map_err(failure)?;
        let options = asked::options(&options, stop).map_err(failure)?;
        receiving(self.answer(&messages, &options, &on_event)).await.map_err(failure)
    }

    /// Runs the compression for a question without an answer, and returns the overlay's data as JSON (`Looked` in
    /// `fovea.d.ts`).
    ///
    /// # Errors
    /// As [`Sight::ask`].
    pub async fn look(&mut self, messages: String, options: String, stop: &Stop) -> Result<String, JsValue> {
        let messages = asked::messages(&messages).map_err(failure)?;
        let options = asked::options(&options, stop).map_err(failure)?;
        let looked = receiving(self.conversation.explain(&messages, &options)).await.map_err(failure)?;
        self.looked = Some(looked);
        self.shown().map_err(failure)
    }

    /// Prunes the tokens of the last question again, at another gamma, and returns the overlay's data as JSON. Nothing runs on
    /// the device.
    ///
    /// # Errors
    /// Throws an `Error` where gamma is out of range, or the text-guided sampler did not prune for the last question.
    pub fn keep(&mut self, gamma: f64) -> Result<String, JsValue> {
        self.kept(gamma).map_err(failure)?;
        self.shown().map_err(failure)
    }

    /// The attention overlay of the last question: the bytes of a PNG file, as `fovea ask --overlay` writes it.
    ///
    /// # Errors
    /// Throws an `Error` before the first question.
    pub fn overlay(&self) -> Result<Vec<u8>, JsValue> {
        self.drawn().map_err(failure)
    }
}

impl Sight {
    /// A picture without questions yet.
    pub fn new(model: &Arc<Model>, picture: Picture) -> Self {
        Self { model: model.clone(), conversation: Conversation::new(model, picture), looked: None }
    }

    async fn get_ready(&mut self, options: &AskOptions) -> Result<(), Error> {
        self.conversation.prepare(options).await?;
        self.conversation.warm_up(options).await
    }

    async fn answer(&mut self, messages: &Messages, options: &AskOptions, on_event: &Function) -> Result<(), Error> {
        let (question, sides) = (messages.question(), sides(self.conversation.picture()));
        let mut events = pin!(self.conversation.ask(messages, options));
        while let Some(event) = events.next().await {
            let message = match event? {
                Event::Stage { stage, milliseconds } => json!({ "stage": stage, "milliseconds": milliseconds }),
                Event::Progress(Progress { stage, done, total }) => {
                    json!({ "progress": { "stage": stage, "done": done, "total": total } })
                }
                Event::Looked(looked) => json!({ "looked": described(self.looked.insert(looked), sides) }),
                Event::Token { id, text } => json!({ "token": { "id": id, "text": text } }),
                Event::Done(turn) => json!({ "done": self.model.report(&question, &turn) }),
                _ => continue,
            };
            report(on_event, &message);
        }
        Ok(())
    }

    fn kept(&mut self, gamma: f64) -> Result<(), Error> {
        let mut looked = self.looked()?.clone();
        let mut compression: Compression = looked.compression.parse()?;
        // Without a layer the text-guided sampler prunes nothing, and there is no importance.
        let Some(text) = compression.text_mut().filter(|_| !looked.importance.is_empty()) else {
            let expected = "a question with the text-guided sampler before it".to_owned();
            return Err(Error::Option { option: "gamma", expected, got: looked.compression });
        };
        let keep = Keep::Gamma(gamma);
        text.keep = Some(keep);
        compression.check(self.model.fits())?;
        looked.kept = top_k(&looked.importance, keep);
        looked.compression = compression.to_string();
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
        fovea_overlay::png(&fovea_overlay::draw(self.conversation.picture(), self.looked()?)?)
    }

    fn shown(&self) -> Result<String, Error> {
        Ok(described(self.looked()?, sides(self.conversation.picture())).to_string())
    }
}

/// Width and height of a picture.
fn sides(picture: &Picture) -> [usize; 2] {
    [picture.width(), picture.height()]
}

/// The data of the overlay as JSON, for a picture of these sides: `Looked` in `fovea.d.ts`.
fn described(looked: &Looked, sides: [usize; 2]) -> Value {
    // Hundredths of a pixel are finer than a screen.
    let rounded = |edge: f32| (f64::from(edge) * 100.0).round() / 100.0;
    let rect = |patches: TokenBox| {
        let rect = fovea_overlay::rectangle(looked, sides[0], sides[1], patches)?;
        Some([rect.left, rect.top, rect.right, rect.bottom].map(rounded))
    };
    let with_rects = |token: &VisualToken| {
        let mut json = json!(token);
        json["rects"] = json!(token.patches.iter().filter_map(|&patches| rect(patches)).collect::<Vec<_>>());
        json
    };
    let tokens =
        TokenCounts { all: looked.grid.stock_tokens(), compressed: looked.token_count(), kept: looked.kept.len() };
    json!({
        "compression": looked.compression,
        "tokens": tokens,
        "map": [looked.grid.height, looked.grid.width],
        "window": looked.window,
        "scales": looked.scales.iter().map(Scale::to_string).collect::<Vec<_>>(),
        "choice": *looked.choice,
        "picture": sides,
        "drawn": fovea_overlay::drawn_size(sides),
        "kept": looked.kept,
        "visual_tokens": looked.tokens().iter().map(with_rects).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use fovea_model::{Grid, Origin};

    use super::*;

    /// A thumbnail of 36 patches, and 4 tokens of a map of 4 x 6 patches; the last 3 tokens are kept.
    fn looked() -> Looked {
        let mut origins: Vec<_> = (0..36).map(|patch| Origin::Thumbnail(vec![patch])).collect();
        origins.push(Origin::Map(vec![[0, 0, 1, 1]]));
        origins.push(Origin::Newline([0, 6, 1, 6]));
        origins.push(Origin::Map(vec![[1, 0, 2, 1], [3, 4, 4, 6]]));
        origins.push(Origin::Class(1));
        Looked {
            grid: Grid {
                rows: 1,
                cols: 1,
                patches: 6,
                side: 6,
                top: 1,
                cut: (4, 6),
                height: 4,
                width: 6,
                ..Grid::default()
            },
            compression: "vision-zip".into(),
            window: 4,
            scales: Arc::new(Vec::new()),
            choice: Arc::new(Vec::new()),
            origins: Arc::new(origins),
            importance: Vec::new(),
            kept: vec![37, 38, 39],
        }
    }

    #[test]
    fn a_token_has_patches_and_pixels_and_a_newline_has_no_pixels() {
        let got = described(&looked(), [600, 400]);
        assert_eq!((&got["picture"], &got["drawn"]), (&json!([600, 400]), &json!([960, 640])), "(got, expected)");
        assert_eq!(got["tokens"]["compressed"], 40, "(got, expected)");
        assert_eq!((&got["tokens"]["kept"], &got["compression"]), (&json!(3), &json!("vision-zip")), "(got, expected)");
        let token = |index: usize, part: &str, boxes: Value, rects: Value| {
            let (scale, importance, rank) = (Value::Null, Value::Null, Value::Null);
            let expected = json!({
                "index": index, "part": part, "boxes": boxes, "rects": rects, "scale": scale, "importance": importance,
                "rank": rank, "kept": index > 36,
            });
            assert_eq!(got["visual_tokens"][index], expected, "(got, expected)");
        };
        token(0, "thumbnail", json!([]), json!([]));
        token(36, "map", json!([[0, 0, 1, 1]]), json!([[0.0, 0.0, 100.0, 100.0]]));
        token(37, "newline", json!([[0, 6, 1, 6]]), json!([]));
        let rects = json!([[0.0, 100.0, 100.0, 200.0], [400.0, 300.0, 600.0, 400.0]]);
        token(38, "map", json!([[1, 0, 2, 1], [3, 4, 4, 6]]), rects);
        token(39, "class", json!([]), json!([]));
    }

    #[test]
    fn the_picture_is_at_the_top_of_the_drawing_in_the_middle() {
        // The legend is wider than the narrow pictures.
        for sides in [[600, 400], [400, 600], [40, 1000], [3000, 40], [1, 1]] {
            let white = Picture::from_rgb(sides[0], sides[1], vec![255; sides[0] * sides[1] * 3]).expect("a picture");
            let mut looked = looked();
            // Nothing is kept, and the map has no token: the picture is dark, but brighter than the background.
            (looked.origins, looked.kept) = (Arc::new(vec![Origin::Thumbnail(vec![0])]), Vec::new());
            let picture = fovea_overlay::draw(&white, &looked).expect("a drawing");
            let lit = |x: usize, y: usize| picture.rgb()[(y * picture.width() + x) * 3] > 60;
            let [width, height] = fovea_overlay::drawn_size(sides);
            let left = (picture.width() - width) / 2;
            let row: Vec<usize> = (0..picture.width()).filter(|&x| lit(x, 0)).collect();
            assert_eq!((row.first(), row.len()), (Some(&left), width), "{sides:?}");
            let middle = left + width / 2;
            assert_eq!((0..picture.height()).take_while(|&y| lit(middle, y)).count(), height, "{sides:?}");
        }
    }
}
