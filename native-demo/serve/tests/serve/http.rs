//! What a client sends and gets.

use std::fs;

use fovea_serve::Settings;
use serde_json::{Value, json};

use crate::support::{ANSWER, CHAT, JSON, QUESTION, Running, about_rack, question};

fn content(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().expect("a text")
}

#[test]
fn an_answer_has_the_form_of_openai() {
    let server = Running::start(Settings::default());
    let reply = server.chat(&question());
    let answer = reply.expect(200);
    assert_eq!(content(&answer), ANSWER, "(got, expected)");
    assert_eq!(answer["object"], "chat.completion", "(got, expected)");
    assert_eq!(answer["model"], "fovea-demo", "(got, expected)");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop", "(got, expected)");
    let usage = &answer["usage"];
    let number = |key: &str| usage[key].as_u64().expect("a number");
    assert_eq!(number("total_tokens"), number("prompt_tokens") + number("completion_tokens"));
    assert_eq!(usage["picture_cached"], false, "(got, expected)");
    assert!(reply.header("x-request-id").is_some_and(|id| answer["id"] == format!("chatcmpl-{id}")), "{reply:?}");

    let overlay = answer["fovea"]["overlay"].as_str().expect("a path");
    let png = server.get(overlay);
    assert_eq!((png.status, png.header("content-type")), (200, Some("image/png")), "(got, expected)");
    assert!(png.body.starts_with(b"\x89PNG"), "expected a PNG file");
    assert_eq!(server.get(&format!("{overlay}?picture=1")).error(404), "not_found", "(got, expected)");
    assert_eq!(server.get(&format!("{overlay}?picture=x")).error(400), "request", "(got, expected)");
}

#[test]
fn a_stream_has_the_same_answer_in_parts() {
    let server = Running::start(Settings::default());
    let whole = server.chat(&question()).expect(200);
    let mut body = question();
    body["stream"] = json!(true);
    body["stream_options"] = json!({ "include_usage": true });
    let reply = server.chat(&body);
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream")), "(got, expected)");
    let (chunks, done) = reply.events();
    assert!(done, "expected [DONE] at the end");
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant", "(got, expected)");
    let text: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, content(&whole), "(got, expected)");
    let same = |key: &str| chunks.iter().all(|chunk| chunk[key] == chunks[0][key]);
    assert!(same("id") && same("created") && same("model"), "expected the same id in all chunks");
    let fovea: Vec<&Value> = chunks.iter().map(|chunk| &chunk["fovea"]).filter(|fovea| !fovea.is_null()).collect();
    assert_eq!(fovea.len(), 1, "chunks with the tokens that are kept (got, expected)");
    assert_eq!(fovea[0]["kept"], whole["fovea"]["kept"], "(got, expected)");
    let [.., end, usage] = chunks.as_slice() else { panic!("expected an end and the usage") };
    assert_eq!(end["choices"][0]["finish_reason"], "stop", "(got, expected)");
    assert_eq!(usage["choices"], json!([]), "(got, expected)");
    assert_eq!(usage["usage"]["completion_tokens"], whole["usage"]["completion_tokens"], "(got, expected)");
    assert_eq!(usage["usage"]["picture_cached"], true, "(got, expected)");
    let without = &chunks[..chunks.len() - 1];
    assert!(without.iter().all(|chunk| chunk.get("usage") == Some(&Value::Null)), "expected null before the usage");
}

#[test]
fn a_second_turn_uses_what_the_first_computed() {
    let server = Running::start(Settings::default());
    let first = server.chat(&question()).expect(200);
    let history = json!([
        about_rack(QUESTION),
        { "role": "assistant", "content": content(&first) },
        { "role": "user", "content": "What word is on the blue sign?" },
    ]);
    let second = server.chat(&json!({ "model": "fovea", "messages": history })).expect(200);
    assert_eq!(second["usage"]["picture_cached"], true, "(got, expected)");
    assert!(second["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64() > Some(0), "{}", second["usage"]);
    let text = json!({ "messages": [{ "role": "user", "content": "Hello" }] });
    let answer = server.chat(&text).expect(200);
    assert!(answer["fovea"].is_null(), "expected no overlay without a picture, got {answer}");
}

#[test]
fn a_wrong_request_says_what_is_wrong() {
    let server = Running::start(Settings { max_pictures: 1, max_prompt_bytes: 2000, ..Settings::default() }).ready();
    let post = |body: &str| server.send("POST", CHAT, &[JSON], body.as_bytes());
    for body in ["", "{", "[]", "{\"messages\": [}", "null", "\u{feff}{}"] {
        assert_eq!(post(body).error(400), "json", "{body:?} (got, expected)");
    }
    let message = post("{\n\"messages\": [}").json()["error"]["message"].to_string();
    assert!(message.contains("line 2 column"), "{message}");
    let many = post(&format!("{{\"messages\": [{}{{}}]}}", "{\"\":0},".repeat(50_000)));
    assert_eq!(many.error(400), "json", "(got, expected)");
    assert!(many.text().contains("at most 100000 values"), "{}", many.text());

    let text = json!({ "role": "user", "content": "Hello" });
    let twice = json!([about_rack("a")["content"][0], about_rack("a")["content"][0], { "type": "text", "text": "a" }]);
    for (body, status, code, param) in [
        (json!({}), 400, "request", "messages"),
        (json!({ "messages": [text], "n": 2 }), 400, "request", "n"),
        (json!({ "messages": [text], "model": "gpt-4o" }), 404, "model_not_found", "model"),
        (json!({ "messages": [text], "temperature": -1 }), 400, "option", "temperature"),
        (json!({ "messages": [text], "stop": vec!["a"; 17] }), 400, "option", "stop"),
        (json!({ "messages": [text], "max_tokens": 0 }), 400, "option", "max_tokens"),
        (json!({ "messages": [text], "max_tokens": 100_000 }), 400, "option", "max_tokens"),
        (json!({ "messages": [{ "role": "user", "content": twice }] }), 400, "request", "messages"),
        (
            json!({ "messages": [{ "role": "user", "content": "a".repeat(2001) }] }),
            400,
            "context_length_exceeded",
            "messages",
        ),
    ] {
        let reply = server.chat(&body);
        let error = reply.expect(status)["error"].take();
        assert_eq!((&error["code"], &error["param"]), (&json!(code), &json!(param)), "{error} (got, expected)");
    }
    let mut address = question();
    address["messages"][0]["content"][0]["image_url"]["url"] = json!("http://127.0.0.1/picture.png");
    server.chat(&address).error(400);
    let mut broken = question();
    broken["messages"][0]["content"][0]["image_url"]["url"] = json!("data:image/png;base64,AAAA");
    assert_eq!(server.chat(&broken).error(400), "picture", "(got, expected)");
}

#[test]
fn other_paths_methods_and_types_are_refused() {
    let server = Running::start(Settings::default());
    for path in
        ["/", "/v1", "/v1/none", "/v1/models/", "/v1/models/none", "/v1/models/%ff", "/v1/overlay/none", "/../x"]
    {
        server.get(path).error(404);
    }
    for (method, path, allow) in [
        ("GET", CHAT, "POST"),
        ("OPTIONS", CHAT, "POST"),
        ("TRACE", "/health", "GET"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/overlay/x", "GET"),
    ] {
        let reply = server.send(method, path, &[], b"");
        assert_eq!(reply.error(405), "method_not_allowed", "{method} {path} (got, expected)");
        assert!(reply.header("allow").is_some_and(|methods| methods.contains(allow)), "{method} {path}: {reply:?}");
    }
    let body = question().to_string();
    for kind in [("content-type", "text/plain"), ("x", "y"), ("content-type", "application/json5")] {
        let reply = server.send("POST", CHAT, &[kind], body.as_bytes());
        assert_eq!(reply.error(415), "media_type", "{kind:?} (got, expected)");
    }
    let packed = server.send("POST", CHAT, &[JSON, ("content-encoding", "gzip")], body.as_bytes());
    assert_eq!(packed.error(415), "media_type", "(got, expected)");
    let charset = ("content-type", "application/json; charset=utf-8");
    server.send("POST", CHAT, &[charset], body.as_bytes()).expect(200);
}

#[test]
fn the_other_routes_answer() {
    let server = Running::start(Settings { model_name: "org/name".to_owned(), ..Settings::default() }).ready();
    assert_eq!(server.get("/health").expect(200), json!({ "status": "ok" }), "(got, expected)");
    assert_eq!(server.get("/ready").expect(200), json!({ "status": "ready" }), "(got, expected)");
    let models = server.get("/v1/models").expect(200);
    assert_eq!(models["data"][0]["id"], "org/name", "(got, expected)");
    assert_eq!(models["data"][0]["fovea"]["context"], 2048, "(got, expected)");
    for name in ["org/name", "org%2Fname", "fovea"] {
        assert_eq!(server.get(&format!("/v1/models/{name}")).expect(200)["id"], "org/name", "{name} (got, expected)");
    }
    let head = server.send("HEAD", "/health", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0), "(got, expected)");

    let metrics = server.get("/metrics");
    assert!(metrics.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{metrics:?}");
    assert!(
        metrics.text().lines().any(|line| line.contains("/v1/models") && line.contains("200")),
        "{}",
        metrics.text()
    );
    for line in metrics.text().lines().filter(|line| !line.starts_with('#')) {
        let (_, value) = line.rsplit_once(' ').expect("a name and a value");
        assert!(value.parse::<f64>().is_ok(), "expected a number at the end of {line:?}");
    }

    let document = server.get("/openapi.json").expect(200);
    let paths = document["paths"].as_object().expect("paths");
    for path in
        [CHAT, "/v1/models", "/v1/models/{id}", "/v1/overlay/{id}", "/health", "/ready", "/metrics", "/openapi.json"]
    {
        assert!(paths.contains_key(path), "expected a description of {path}");
    }
}

#[test]
fn a_key_is_required_where_there_is_one() {
    let server = Running::start(Settings { keys: vec!["one".into(), "two".into()], ..Settings::default() });
    for key in ["Bearer three", "Bearer onetwo", "Bearer ", "one", "Basic one"] {
        let reply = server.send("GET", "/v1/models", &[("authorization", key)], b"");
        assert_eq!(reply.error(401), "invalid_api_key", "{key} (got, expected)");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"), "(got, expected)");
    }
    for path in ["/v1/models", "/v1/overlay/x", "/metrics", "/none"] {
        server.get(path).error(401);
    }
    for key in ["Bearer one", "bearer two"] {
        server.send("GET", "/v1/models", &[("authorization", key)], b"").expect(200);
    }
    for path in ["/health", "/ready", "/openapi.json"] {
        assert_ne!(server.get(path).status, 401, "{path}");
    }
}

#[test]
fn callers_do_not_learn_what_others_have_sent() {
    let server = Running::start(Settings { keys: vec!["one".into(), "two".into()], ..Settings::default() });
    let body = question().to_string();
    for (key, cached) in [("Bearer one", false), ("Bearer one", true), ("Bearer two", false), ("Bearer two", true)] {
        let answer = server.send("POST", CHAT, &[JSON, ("authorization", key)], body.as_bytes()).expect(200);
        assert_eq!(answer["usage"]["picture_cached"], cached, "{key} (got, expected)");
        let tokens = &answer["usage"]["prompt_tokens_details"]["cached_tokens"];
        assert_eq!(tokens.as_u64() > Some(0), cached, "{key}: {tokens} (got, expected)");
    }
}

#[test]
fn another_host_name_is_refused_on_loopback() {
    let server = Running::start(Settings { allow_hosts: vec!["fovea.lan".into()], ..Settings::default() });
    let get = |host: &str| server.send("GET", "/health", &[("host", host)], b"");
    for host in ["localhost", "127.0.0.1:8080", "[::1]:1", "fovea.lan:80"] {
        get(host).expect(200);
    }
    for host in ["evil.example", "localhost.evil.example", ""] {
        assert_eq!(get(host).error(403), "host", "{host:?} (got, expected)");
    }
}

#[test]
fn only_pages_of_allowed_origins_may_use_the_server() {
    let origin = "https://good.example";
    let server =
        Running::start(Settings { origins: vec![origin.into()], keys: vec!["one".into()], ..Settings::default() });
    let asks = |origin| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,content-type,x-other"),
        ];
        server.send("OPTIONS", CHAT, &headers, b"")
    };
    let allowed = asks(origin);
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (204, Some(origin)), "(got, expected)");
    let headers = Some("authorization,content-type,x-other");
    assert_eq!(allowed.header("access-control-allow-headers"), headers, "(got, expected)");
    let refused = asks("https://evil.example");
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (405, None), "(got, expected)");
    // An error is readable too.
    let reply = server.send("GET", "/v1/models", &[("origin", origin)], b"");
    reply.error(401);
    assert_eq!(reply.header("access-control-allow-origin"), Some(origin), "(got, expected)");
    assert_eq!(reply.header("vary"), Some("origin"), "(got, expected)");
    assert_eq!(server.get("/health").header("vary"), Some("origin"), "without `Origin` (got, expected)");
}

#[test]
fn the_page_is_served_with_its_types_and_policy() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("page");
    fs::create_dir(&page).expect("a folder");
    for (name, text) in
        [("index.html", "<p>"), ("a.mjs", "export {}"), ("a.wasm", "\0asm"), ("b.ts", "x"), ("none", "y")]
    {
        fs::write(page.join(name), text).expect("a file");
    }
    fs::write(folder.path().join("secret"), "secret").expect("a file");
    let server = Running::start(Settings { page: Some(page), keys: vec!["one".into()], ..Settings::default() });
    for (path, kind, text) in [
        ("/", "text/html; charset=utf-8", "<p>"),
        ("/a.mjs?report", "text/javascript; charset=utf-8", "export {}"),
        ("/a.wasm", "application/wasm", "\0asm"),
        ("/b.ts", "text/plain; charset=utf-8", "x"),
        ("/none", "application/octet-stream", "y"),
    ] {
        let reply = server.get(path);
        assert_eq!((reply.status, reply.header("content-type"), reply.text()), (200, Some(kind), text), "{path}");
        assert!(reply.header("content-security-policy").is_some_and(|policy| policy.contains("wasm-unsafe-eval")));
        assert_eq!(reply.header("cross-origin-opener-policy"), Some("same-origin"), "(got, expected)");
        assert_eq!(reply.header("cross-origin-embedder-policy"), Some("require-corp"), "(got, expected)");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "(got, expected)");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "(got, expected)");
    }
    for path in ["/../secret", "/%2e%2e/secret", "/..%2fsecret", "/missing"] {
        assert_eq!(server.get(path).error(404), "not_found", "{path} (got, expected)");
    }
    let found = server.get("/fovea-server.json").expect(200);
    assert_eq!(found, json!({ "models": ["fovea-demo"], "api": "/v1", "key": true }), "(got, expected)");
    server.get("/v1/models").error(401);
}
