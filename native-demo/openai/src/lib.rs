//! OpenAI's chat completions, without a network: `fovea batch` and `fovea serve` read requests and write answers with it.
//!
//! | module | input → output |
//! |---|---|
//! | [`keys`] | a JSON object → typed values, or an error that names the key |
//! | [`settings()`] | the keys of sampling, length and compression → [`AskOptions`](fovea_model::AskOptions) |
//! | [`ChatRequest`] | the body of a request → messages, urls of pictures, options |
//! | [`data_url()`] | a data URL → bytes |
//! | [`usage`], [`completion`], [`chunk`] | a [`Turn`](fovea_model::Turn) → JSON |
//! | [`RequestError`], [`error_body`] | why a request is refused |
//!
//! Source: OpenAI's API reference, "Chat Completions". A key that could change the answer, and is not supported, is an error.
//!
//! ```
//! # use fovea_model::AskOptions;
//! # use fovea_openai::{ChatRequest, RequestError};
//! let body = serde_json::json!({"max_tokens": 8, "messages": [
//!     {"role": "system", "content": "Answer with one word."},
//!     {"role": "user", "content": [
//!         {"type": "image_url", "image_url": {"url": "sign.png"}},
//!         {"type": "text", "text": "What is on the sign?"},
//!     ]},
//! ]});
//! let request = ChatRequest::read(body.as_object().unwrap(), &AskOptions::default())?;
//! assert_eq!(request.pictures, ["sign.png"]);
//! assert_eq!(request.messages.question(), "What is on the sign?");
//! assert_eq!(request.options.max_new_tokens, 8);
//! # Ok::<(), RequestError>(())
//! ```

pub mod keys;
mod settings;
mod request;
mod data_url;
mod answer;
mod error;

pub use answer::{chunk, completion, usage};
pub use data_url::data_url;
pub use error::{RequestError, error_body};
pub use request::{ChatRequest, MOST_PICTURES};
pub use settings::settings;
