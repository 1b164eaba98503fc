//! Tests of the server over TCP, with the demo checkpoint on the CPU.
//!
//! | module | tests |
//! |---|---|
//! | `http` | answers, streams, several turns, errors, keys, the `Host` header, CORS, the page, all other routes |
//! | `limits` | clients that are slow, send too much, or disconnect; a full queue; loading; stopping |
//! | `support` | starts a server, and is its client |
//!
//! Expected answers are from `native-demo/pictures/questions.jsonl`.

mod http;
mod limits;
mod support;
