//! Around every route: the request's id and its line in the log, the `Host` header, CORS, and the API key.

use std::{
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    extract::{MatchedPath, Request, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
            ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, HOST, ORIGIN, VARY, X_CONTENT_TYPE_OPTIONS,
        },
        uri::Authority,
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use sha2::{Digest, Sha256};

use crate::{app::App, body, errors::refused, job::Problem, log::Line};

/// The header with the id of a request.
const REQUEST_ID: &str = "x-request-id";

/// A web page on the internet asks with this header for a server in a private network.
const PRIVATE_NETWORK: &str = "access-control-request-private-network";

/// The answer to [`PRIVATE_NETWORK`].
const ALLOW_PRIVATE_NETWORK: &str = "access-control-allow-private-network";

/// The address of the client. Each connection adds it to its requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Who sends a request, and its line in the log.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) client: String,
    pub(crate) line: Arc<Line>,
}

/// The SHA-256 hashes of the API keys.
#[derive(Default)]
pub(crate) struct Keys(Vec<[u8; 32]>);

impl Keys {
    pub(crate) fn new(keys: &[String]) -> Self {
        Self(keys.iter().map(|key| Sha256::digest(key.as_bytes()).into()).collect())
    }

    /// Whether requests need no key.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The index of the key in `headers`. It takes the same time for every key of the same length.
    fn find(&self, headers: &HeaderMap) -> Option<usize> {
        let value = headers.get(AUTHORIZATION)?.as_bytes();
        let (scheme, key) = value.split_at_checked(7)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return None;
        }
        let got: [u8; 32] = Sha256::digest(key.trim_ascii()).into();
        let same = |key: &[u8; 32]| key.iter().zip(&got).fold(0, |all, (a, b)| all | (a ^ b)) == 0;
        // Every key is compared.
        self.0.iter().enumerate().fold(None, |found, (i, key)| if same(key) { Some(i) } else { found })
    }

    /// The name of a client: of its key if there are several, else of its address.
    fn client(&self, key: Option<usize>, peer: Option<IpAddr>) -> String {
        match (key, peer) {
            (Some(i), _) if self.0.len() > 1 => {
                let hash: String = self.0[i][..4].iter().map(|byte| format!("{byte:02x}")).collect();
                format!("key-{hash}")
            }
            (_, Some(peer)) => match peer.to_canonical() {
                // One client has a whole /64.
                IpAddr::V6(ip) if !ip.is_loopback() => {
                    let [a, b, c, d, ..] = ip.segments();
                    format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
                }
                ip => ip.to_string(),
            },
            (_, None) => "unknown".to_owned(),
        }
    }
}

/// Handles a request with its id, its line in the log, and all checks that do not depend on the route.
pub(crate) async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let id = app.ids.next();
    let line = Arc::new(Line::begin(app.log.clone(), app.metrics.clone(), id, &request));
    let allowed = request.headers().get(ORIGIN).filter(|origin| app.allows_origin(origin)).cloned();
    let checked = check(&app, &request);
    let mut response = match checked {
        Err(why) => {
            let (parts, body) = request.into_parts();
            body::drain(&parts.headers, body).await;
            why.into_response()
        }
        Ok(_) if allowed.is_some() && is_preflight(&request) => preflight(request.headers()),
        Ok(client) => {
            line.client(&client);
            request.extensions_mut().insert(Caller { client, line: line.clone() });
            next.run(request).await
        }
    };
    line.status(response.status());
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&line.id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(origin) = allowed {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-request-id, retry-after"));
    }
    // Also without `Origin`: a cache must not give this response to a page.
    if !app.settings.origins.is_empty() {
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
    response.map(|body| Body::new(Logged { body, _line: line }))
}

/// The client's name, if the request may be handled.
fn check(app: &App, request: &Request) -> Result<String, Problem> {
    if app.loopback {
        check_host(request, &app.settings.allow_hosts)?;
    }
    let key = app.keys.find(request.headers());
    // A browser sends no key with the question whether it may send one, and none for the files of the page.
    let needs_key = match request.extensions().get::<MatchedPath>().map(MatchedPath::as_str) {
        Some("/health" | "/ready" | "/openapi.json" | "/fovea-server.json") => false,
        Some(_) => true,
        None => app.settings.page.is_none() || request.uri().path().starts_with("/v1/"),
    };
    if needs_key && key.is_none() && !app.keys.is_empty() && !is_preflight(request) {
        let message = "expected `Authorization: Bearer KEY` with a key of this server, got none or another";
        return Err(refused(StatusCode::UNAUTHORIZED, "invalid_api_key", message));
    }
    Ok(app.keys.client(key, request.extensions().get::<Peer>().map(|peer| peer.0.ip())))
}

/// A page of another host name cannot use a server on this machine: such a page may have pointed its name at 127.0.0.1.
fn check_host(request: &Request, allowed: &[String]) -> Result<(), Problem> {
    let refuse = |got: &str| {
        let message = format!("expected `Host` localhost or 127.0.0.1, got {got:?}; --allow-host adds a name");
        Err(refused(StatusCode::FORBIDDEN, "host", message))
    };
    let headers = request.headers().get_all(HOST).iter().map(|host| host.to_str().unwrap_or("?"));
    let hosts: Vec<&str> = headers.chain(request.uri().authority().map(Authority::as_str)).collect();
    if hosts.is_empty() {
        return refuse("");
    }
    hosts.iter().try_for_each(|host| if is_local(host, allowed) { Ok(()) } else { refuse(host) })
}

/// Whether a `Host` header, with or without a port, names this machine.
fn is_local(host: &str, allowed: &[String]) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    !host.contains('@')
        && (address.is_ok_and(|ip| ip.is_loopback())
            || name.eq_ignore_ascii_case("localhost")
            || allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)))
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(ORIGIN)
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a browser that asks whether a page may send a request.
fn preflight(asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    // All of them: clients in browsers send headers of their own, which are ignored.
    let wanted = asked.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let wanted = wanted.unwrap_or_else(|| HeaderValue::from_static("authorization, content-type"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted);
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    if asked.contains_key(PRIVATE_NETWORK) {
        headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
    }
    response
}

/// A response's body; its end ends the line in the log.
struct Logged {
    body: Body,
    _line: Arc<Line>,
}

impl HttpBody for Logged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        let allowed = ["fovea.lan".to_owned()];
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:80", "[::1]:8080", "[::1]", "Fovea.lan:1"] {
            assert!(is_local(host, &allowed), "{host}");
        }
        for host in
            ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "user@localhost", "10.0.0.1", "?"]
        {
            assert!(!is_local(host, &allowed), "{host}");
        }
    }

    #[test]
    fn a_key_is_found_and_names_its_client() {
        let keys = Keys::new(&["one".to_owned(), "two".to_owned()]);
        let with = |value: &'static str| HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
        for (value, found) in [
            ("Bearer one", Some(0)),
            ("bearer two", Some(1)),
            ("Bearer three", None),
            ("Bearer ", None),
            ("Bearer", None),
            ("Basic one", None),
            ("one", None),
        ] {
            assert_eq!(keys.find(&with(value)), found, "{value} (got, expected)");
        }
        assert_eq!(keys.find(&HeaderMap::new()), None);
        let peer = "192.0.2.1".parse().ok();
        assert!(
            keys.client(Some(0), peer).starts_with("key-") && keys.client(Some(0), peer) != keys.client(Some(1), peer)
        );
        assert_eq!(Keys::new(&["one".to_owned()]).client(Some(0), peer), "192.0.2.1");
        let ipv6 = |text: &str| Keys::default().client(None, text.parse().ok());
        assert_eq!(ipv6("2001:db8::1"), ipv6("2001:db8::2:1"));
        assert_eq!(ipv6("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(ipv6("::1"), "::1");
    }
}
