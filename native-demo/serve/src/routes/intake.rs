//! Input: the body of a request. Output: the request with the files of its pictures, checked as far as that is possible
//! without decoding them.

use std::{sync::Arc, time::Instant};

use fovea_model::Error;
use fovea_openai::{ChatRequest, RequestError, keys::quoted};
use serde_json::{Map, Value};
use tokio::{task::spawn_blocking, time::timeout_at};

use crate::{
    app::App,
    body::Share,
    errors::internal,
    job::Problem,
    pictures::{self, RemoteRules},
};

/// Most values of a body. In memory, one takes 100 times as many bytes as in JSON.
const MOST_VALUES: usize = 100_000;
/// Most texts that end an answer, and the longest one in bytes, as in [`fovea_model::AskOptions::check`].
const STOPS: (usize, usize) = (16, 256);

/// A request that has been read and checked.
pub(super) struct Asked {
    pub(super) request: ChatRequest,
    pub(super) user: Option<String>,
    /// The files, in the order of their places.
    pub(super) pictures: Vec<Arc<[u8]>>,
}

/// A picture of a request.
enum Source {
    File(Arc<[u8]>),
    Address(String),
}

/// Reads a body, and downloads the pictures that are addresses, until `until`. `share` has the memory of the body.
pub(super) async fn intake(app: &Arc<App>, bytes: Vec<u8>, share: Share, until: Instant) -> Result<Asked, Problem> {
    // Reading up to 32 MB of JSON and base64 takes too long for a thread that serves other clients. If the client
    // disconnects, that work continues, and keeps its share.
    let reader = app.clone();
    let work = spawn_blocking(move || read(&reader, bytes).map(|read| (read, share)));
    let ((request, user, sources), mut share) = work.await.map_err(|_| internal("a request was not read"))??;
    let files = timeout_at(until.into(), download(app, sources, &mut share, until));
    let pictures = files.await.map_err(|_| Problem::timeout())??;
    Ok(Asked { request, user, pictures })
}

/// Reads a body, and checks what can be checked without the pictures.
fn read(app: &App, bytes: Vec<u8>) -> Result<(ChatRequest, Option<String>, Vec<Source>), Problem> {
    let settings = &app.settings;
    if count_values(&bytes) > MOST_VALUES {
        let message = format!("expected at most {MOST_VALUES} values in the JSON, got more");
        return Err(Problem::request("json", None, message));
    }
    // serde's error names the line and the column.
    let no_json =
        |why: serde_json::Error| RequestError::new("json", None, format!("expected a JSON object, got {why}"));
    let body: Map<String, Value> = serde_json::from_slice(&bytes).map_err(no_json)?;
    drop(bytes);
    let mut request = ChatRequest::read(&body, &settings.usual)?;
    let user = body.get("user").and_then(Value::as_str).map(quoted);
    drop(body);
    app.check_model(request.model.as_deref())?;
    if request.pictures.len() > settings.max_pictures {
        let (most, got) = (settings.max_pictures, request.pictures.len());
        let message =
            format!("expected at most {most} pictures, got {got}; send fewer, or start with --max-pictures {got}");
        return Err(Problem::request("request", Some("messages"), message));
    }
    let text: usize = request.messages.0.iter().map(|message| message.text().len()).sum();
    if text > settings.max_prompt_bytes {
        let most = settings.max_prompt_bytes;
        let message = format!("expected texts of at most {most} bytes, got {text}; shorten the conversation");
        return Err(Problem::request("context_length_exceeded", Some("messages"), message));
    }
    let tokens = request.options.max_new_tokens;
    if tokens > settings.max_new_tokens {
        let most = settings.max_new_tokens;
        let message =
            format!("expected at most {most} tokens, got {tokens}; the server's --max-new-tokens sets the limit");
        return Err(Problem::request("option", Some("max_tokens"), message));
    }
    check_stops(&request.options.stop)?;
    if let Some(about) = app.engine.about() {
        request.options.check(about.fits()).map_err(|why: Error| Problem::of(&why, 0))?;
    }
    let pictures = std::mem::take(&mut request.pictures);
    let pictures = pictures.into_iter().map(source).collect::<Result<_, _>>()?;
    Ok((request, user, pictures))
}

/// An upper limit of the number of values of a JSON text: each one begins it, or follows one of `,:[{` outside of strings.
fn count_values(json: &[u8]) -> usize {
    let (mut count, mut in_string, mut escaped) = (1, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b',' | b':' | b'[' | b'{' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

/// The model is not needed for this check, which limits the memory of a request that waits for it.
fn check_stops(stops: &[String]) -> Result<(), Problem> {
    let (most, longest) = STOPS;
    if stops.len() <= most && stops.iter().all(|stop| (1..=longest).contains(&stop.len())) {
        return Ok(());
    }
    let message = format!("expected at most {most} texts of 1 to {longest} bytes for `stop`, got others");
    Err(Problem::request("option", Some("stop"), message))
}

/// The file in a data URL, or an address.
fn source(url: String) -> Result<Source, Problem> {
    match fovea_openai::data_url(&url) {
        Some(file) => Ok(Source::File(file?.into())),
        None => Ok(Source::Address(url)),
    }
}

/// The files of the pictures, in the same order: together at most as large as a body may be.
async fn download(
    app: &Arc<App>,
    sources: Vec<Source>,
    share: &mut Share,
    until: Instant,
) -> Result<Vec<Arc<[u8]>>, Problem> {
    let sent: usize = sources.iter().map(|source| if let Source::File(file) = source { file.len() } else { 0 }).sum();
    let mut left = app.settings.max_body.saturating_sub(sent);
    let mut files = Vec::with_capacity(sources.len());
    for source in sources {
        let url = match source {
            Source::File(file) => {
                files.push(file);
                continue;
            }
            Source::Address(url) => url,
        };
        let slot = app.downloads.clone().acquire_owned().await.map_err(|_| Problem::closing())?;
        let time = app.remote.time.min(until.saturating_duration_since(Instant::now()));
        let rules = RemoteRules { most_bytes: left as u64, time, ..app.remote.clone() };
        let fetched = spawn_blocking(move || {
            let file = pictures::fetch(&url, &rules);
            // Also if the client has gone, the next download begins only now.
            drop(slot);
            file
        });
        let file = fetched.await.map_err(|_| internal("a picture was not downloaded"))??;
        share.take(file.len())?;
        left = left.saturating_sub(file.len());
        files.push(file.into());
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_outside_of_strings_are_counted() {
        for (json, values) in [
            ("", 1),
            ("7", 1),
            (r#"{"a": [1, 2], "b": "x,[:{"}"#, 7),
            (r#"["\",\\", "a\"[", 1]"#, 4),
            ("[[[[[", 6),
            (r#"{"":0},"#, 4),
        ] {
            assert_eq!(count_values(json.as_bytes()), values, "{json} (got, expected)");
        }
    }

    #[test]
    fn texts_that_end_an_answer_are_few_and_short() {
        let stops = |count: usize, bytes: usize| check_stops(&vec!["a".repeat(bytes); count]);
        for good in [stops(0, 0), stops(16, 256), stops(1, 1)] {
            assert_eq!(good, Ok(()), "(got, expected)");
        }
        for wrong in [stops(17, 1), stops(1, 257), stops(1, 0)] {
            let why = wrong.expect_err("expected a refusal");
            assert_eq!((why.code, why.param.as_deref()), ("option", Some("stop")), "(got, expected)");
        }
    }
}
