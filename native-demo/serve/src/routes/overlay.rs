//! `GET /v1/overlay/{id}`: the attention overlay of an answer, as PNG. `?picture=N` selects a picture, from 0.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, RawQuery, State, rejection::PathRejection},
    http::{
        HeaderName, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
};
use tokio::task::spawn_blocking;

use crate::{
    app::App,
    errors::{internal, refused},
    job::Problem,
};

/// A PNG file.
type Png = ([(HeaderName, &'static str); 2], Bytes);

/// The overlay of one picture.
pub(crate) async fn overlay(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Png, Problem> {
    let kept = id.ok().and_then(|Path(id)| app.engine.overlay(&id));
    let Some(kept) = kept else {
        let message = "expected the id of a recent answer about a picture; older ones are not kept";
        return Err(refused(StatusCode::NOT_FOUND, "not_found", message));
    };
    let picture = picture_of(query.as_deref())?;
    let slot = app.drawings.clone().acquire_owned().await.map_err(|_| Problem::closing())?;
    let engine = app.engine.clone();
    let drawn = spawn_blocking(move || {
        let drawn = kept.png(picture);
        engine.trim_overlays();
        // Also if the client has gone, the next drawing begins only now.
        drop(slot);
        drawn
    });
    let drawn = drawn.await.map_err(|_| internal("an overlay was not drawn"))??;
    // Only this client may keep it: it shows the client's picture.
    let headers = [(CONTENT_TYPE, "image/png"), (CACHE_CONTROL, "private, max-age=3600")];
    Ok((headers, Bytes::from_owner(drawn)))
}

/// The value of `picture`; 0 without it.
fn picture_of(query: Option<&str>) -> Result<usize, Problem> {
    let pairs = query.unwrap_or_default().split('&');
    let picture = pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == "picture");
    let number = picture.map_or(Ok(0), |(_, value)| value.parse());
    let wrong = "expected the number of a picture, from 0, got another text";
    number.map_err(|_| Problem::request("request", Some("picture"), wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_is_a_number() {
        for (query, picture) in [(None, Ok(0)), (Some(""), Ok(0)), (Some("a=1&picture=2"), Ok(2)), (Some("x"), Ok(0))] {
            assert_eq!(picture_of(query), picture, "{query:?} (got, expected)");
        }
        for query in ["picture=", "picture=-1", "picture=a"] {
            assert_eq!(picture_of(Some(query)).map_err(|why| why.status), Err(400), "{query}");
        }
    }
}
