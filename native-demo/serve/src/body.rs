//! Reads the body of a request within limits of size and time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant as Until,
};

use axum::{
    body::{Body, BodyDataStream},
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_LENGTH, EXPECT},
    },
};
use futures_util::StreamExt;
use tokio::time::{Duration, Instant, timeout, timeout_at};

use crate::{errors::refused, job::Problem, settings::Times};

/// How many bodies of the largest size may be read at the same time.
pub(crate) const BODIES: usize = 8;

/// How long, and how many bytes of, the rest of a refused body are read. A client that still sends would otherwise see a
/// broken connection instead of the response.
const DRAIN: (Duration, usize) = (Duration::from_secs(1), 8 << 20);

/// The memory for the bodies and downloads of all requests. One caller can use half of it.
pub(crate) struct Bodies {
    most: usize,
    used: Mutex<Used>,
}

/// Bytes in use.
#[derive(Default)]
struct Used {
    all: usize,
    callers: HashMap<String, usize>,
}

impl Bodies {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, used: Mutex::default() })
    }

    /// An empty share for a request of `caller`.
    pub(crate) fn share(self: &Arc<Self>, caller: &str) -> Share {
        Share { bodies: self.clone(), caller: caller.to_owned(), bytes: 0 }
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The memory of one request. It is free again when this is dropped.
pub(crate) struct Share {
    bodies: Arc<Bodies>,
    caller: String,
    bytes: usize,
}

impl Share {
    /// Takes more memory.
    ///
    /// # Errors
    /// 503 where there is not enough.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), Problem> {
        let mut used = self.bodies.used();
        let own = used.callers.get(&self.caller).copied().unwrap_or_default();
        if used.all + bytes > self.bodies.most || own + bytes > self.bodies.most / 2 {
            let busy = "too many requests are read at the same time; send the request again";
            return Err(Problem::server(503, "busy", busy).retry_after(1));
        }
        used.all += bytes;
        used.callers.insert(self.caller.clone(), own + bytes);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut used = self.bodies.used();
        used.all -= self.bytes;
        if let Some(own) = used.callers.get_mut(&self.caller) {
            *own -= self.bytes;
            if *own == 0 {
                used.callers.remove(&self.caller);
            }
        }
    }
}

/// A body, and its memory.
pub(crate) struct Read {
    pub(crate) bytes: Vec<u8>,
    pub(crate) share: Share,
}

/// Reads `body`: at most `most` bytes, within `times` and before `until`. Its memory is added to `share`.
///
/// # Errors
/// 413 for a body that is too large, before it is read where its length is known; 408 for a body that stalls; 503 where
/// too many bodies are read; 400 for a connection that fails.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    most: usize,
    mut share: Share,
    times: Times,
    until: Until,
) -> Result<Read, Problem> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|text| text.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > most as u64) {
        drain(headers, body).await;
        return Err(too_large(most));
    }
    let mut bytes = Vec::new();
    let mut parts = body.into_data_stream();
    let end = (Instant::now() + times.body).min(until.into());
    loop {
        let next = (Instant::now() + times.body_part).min(end);
        let part = match timeout_at(next, parts.next()).await {
            Err(_) => return Err(stalled()),
            Ok(None) => return Ok(Read { bytes, share }),
            Ok(Some(Err(why))) => {
                return Err(Problem::request("request", None, format!("the body cannot be read: {why}")));
            }
            Ok(Some(Ok(part))) => part,
        };
        // Memory is taken when the bytes arrive: a client that only announces a large body keeps no other client out.
        let more = if bytes.len() + part.len() > most { Err(too_large(most)) } else { share.take(part.len()) };
        if let Err(why) = more {
            drop((bytes, share));
            drop_rest(parts).await;
            return Err(why);
        }
        bytes.extend_from_slice(&part);
    }
}

/// Reads and drops a body, at most as much as [`DRAIN`]. A client that waits for `100 Continue` sends none.
pub(crate) async fn drain(headers: &HeaderMap, body: Body) {
    if headers.contains_key(EXPECT) {
        return;
    }
    drop_rest(body.into_data_stream()).await;
}

async fn drop_rest(mut parts: BodyDataStream) {
    let (time, mut bytes) = DRAIN;
    let rest = async {
        while let Some(Ok(part)) = parts.next().await {
            let Some(left) = bytes.checked_sub(part.len()) else { break };
            bytes = left;
        }
    };
    let _ = timeout(time, rest).await;
}

fn too_large(most: usize) -> Problem {
    let message = format!("expected a body of at most {most} bytes, got more; send smaller pictures");
    refused(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
}

fn stalled() -> Problem {
    refused(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not arrive in time; send the request again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_uses_half_of_the_memory() {
        let bodies = Bodies::new(100);
        let take = |share: &mut Share, bytes| share.take(bytes).map_err(|why| why.status);
        let (mut first, mut second, mut other) = (bodies.share("a"), bodies.share("a"), bodies.share("b"));
        assert_eq!(take(&mut first, 40), Ok(()), "(got, expected)");
        assert_eq!(take(&mut second, 11), Err(503), "(got, expected)");
        assert_eq!((take(&mut second, 10), take(&mut other, 50)), (Ok(()), Ok(())), "(got, expected)");
        assert_eq!(take(&mut bodies.share("c"), 1), Err(503), "(got, expected)");
        drop(first);
        assert_eq!(take(&mut second, 40), Ok(()), "(got, expected)");
        drop((second, other));
        let used = bodies.used();
        assert_eq!((used.all, used.callers.len()), (0, 0), "(got, expected)");
    }
}
