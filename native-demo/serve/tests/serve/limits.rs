//! Clients that are slow, send too much or disconnect; a full queue; loading and stopping.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::mpsc::Sender,
    time::{Duration, Instant},
};

use fovea_serve::{Settings, Times, engine::Opener};
use fovea_terminal::failure::Failure;
use serde_json::json;

use crate::support::{CHAT, JSON, Reply, Running, gated, head, long_stream, opener, question};

/// A short time limit.
const SHORT: Duration = Duration::from_millis(200);

/// Much longer than [`SHORT`], and much shorter than the usual limits.
const SOON: Duration = Duration::from_secs(5);

fn start(settings: Settings) -> (Running, Sender<()>) {
    let (opener, gate) = gated();
    (Running::with(settings, opener).unwrap_or_else(|why| panic!("{why}")), gate)
}

/// A server that never gets its model, with short limits where `times` has them.
fn waiting(times: Times) -> (Running, Sender<()>) {
    start(Settings { times, ..Settings::default() })
}

#[test]
fn slow_headers_are_cut() {
    let (server, _gate) = waiting(Times { headers: SHORT, ..Times::default() });
    for sent in ["", "GET /health HTTP/1.1\r\nhost: localhost\r\n"] {
        let begin = Instant::now();
        let mut stream = server.connect();
        stream.write_all(sent.as_bytes()).expect("a part of a request");
        assert!(Reply::read(stream).status != 200, "{sent:?}");
        assert!(begin.elapsed() < SOON, "{sent:?}: closed after {:?}", begin.elapsed());
    }
}

#[test]
fn a_body_that_stalls_is_cut() {
    let (server, _gate) = waiting(Times { body_part: SHORT, ..Times::default() });
    let chunked = ("transfer-encoding", "chunked");
    let length = ("content-length", "1000");
    for (header, part) in [(length, "{"), (chunked, "3e8\r\n{")] {
        let begin = Instant::now();
        let mut stream = server.connect();
        let request = head("POST", CHAT, &[JSON, header], 0) + part;
        stream.write_all(request.as_bytes()).expect("a part of a request");
        assert_eq!(Reply::read(stream).error(408), "timeout", "{header:?} (got, expected)");
        assert!(begin.elapsed() < SOON, "{header:?}: closed after {:?}", begin.elapsed());
    }
}

#[test]
fn a_body_ends_with_the_time_of_its_answer() {
    let (server, _gate) = waiting(Times { answer: SHORT, ..Times::default() });
    let begin = Instant::now();
    let mut stream = server.connect();
    let request = head("POST", CHAT, &[JSON, ("content-length", "1000")], 0) + "{";
    stream.write_all(request.as_bytes()).expect("a part of a request");
    assert_eq!(Reply::read(stream).error(408), "timeout", "(got, expected)");
    assert!(begin.elapsed() < SOON, "closed after {:?}", begin.elapsed());
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let (server, _gate) = start(Settings { max_body: 10_000, ..Settings::default() });
    let body = vec![b' '; 100_000];
    assert_eq!(server.send("POST", CHAT, &[JSON], &body).error(413), "too_large", "(got, expected)");
    // Before anything of it is sent.
    let huge = ("content-length", "1000000000000");
    let reply = server.send("POST", CHAT, &[JSON, huge, ("expect", "100-continue")], b"");
    assert_eq!(reply.error(413), "too_large", "(got, expected)");
    let mut stream = server.connect();
    let request = head("POST", CHAT, &[JSON, ("transfer-encoding", "chunked")], 0);
    let chunks = ["186a0\r\n".as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    stream.write_all(request.as_bytes()).expect("a head");
    stream.write_all(&chunks).expect("a body");
    assert_eq!(Reply::read(stream).error(413), "too_large", "(got, expected)");
}

#[test]
fn a_full_queue_refuses_and_a_client_that_disconnects_makes_room() {
    let (server, gate) = start(Settings { queue: 1, ..Settings::default() });
    let first = server.begin_chat(&question());
    server.until("the queue is full", |server| has_metric(server, "fovea_queue_length", 1.0));
    let refused = server.chat(&question());
    refused.error(429);
    assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok()), "{refused:?}");
    drop(first);
    let ask = || {
        let stream = server.begin_chat(&question());
        stream.set_read_timeout(Some(SHORT)).expect("a time limit");
        stream
    };
    // Until the server has seen that the first client is gone, the second one is refused too.
    let (begin, mut second) = (Instant::now(), ask());
    while is_answered(&second) {
        assert!(begin.elapsed() < SOON, "expected room in the queue");
        second = ask();
    }
    drop(gate);
    second.set_read_timeout(Some(Duration::from_secs(120))).expect("a time limit");
    Reply::read(second).expect(200);
}

/// Whether a metric has this value.
fn has_metric(server: &Running, name: &str, value: f64) -> bool {
    let metrics = server.get("/metrics");
    metrics.text().lines().any(|line| {
        let sample = line.split_once(' ').filter(|(own, _)| *own == name);
        sample.and_then(|(_, number)| number.parse::<f64>().ok()) == Some(value)
    })
}

/// Whether the server has sent something.
fn is_answered(stream: &TcpStream) -> bool {
    match stream.peek(&mut [0]) {
        Ok(_) => true,
        Err(why) => ![ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&why.kind()),
    }
}

#[test]
fn a_request_that_waits_too_long_is_refused() {
    let (server, _gate) = waiting(Times { answer: SHORT, ..Times::default() });
    let begin = Instant::now();
    let reply = server.chat(&question());
    assert_eq!(reply.error(504), "timeout", "(got, expected)");
    assert_eq!(reply.header("x-should-retry"), Some("false"), "(got, expected)");
    assert!(begin.elapsed() >= SHORT && begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[test]
fn a_client_that_leaves_a_stream_stops_its_answer() {
    let server = Running::start(Settings::default()).ready();
    let mut stream = server.begin_chat(&long_stream());
    let mut first = [0; 16];
    stream.read_exact(&mut first).expect("the beginning of a reply");
    drop(stream);
    server.until("no answer runs", |server| has_metric(server, "fovea_running", 0.0));
    server.chat(&question()).expect(200);
}

#[test]
fn more_connections_than_allowed_are_refused() {
    let (server, _gate) = start(Settings { max_connections: 1, ..Settings::default() });
    let mut first = server.connect();
    first.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("a request");
    first.read_exact(&mut [0; 12]).expect("a reply");
    let reply = Reply::read(server.connect());
    assert!([0, 503].contains(&reply.status), "{reply:?}");
    drop(first);
    server.until("there is room again", |server| server.get("/health").status == 200);
}

#[test]
fn a_server_is_ready_when_its_model_is_loaded() {
    let (server, gate) = waiting(Times::default());
    assert_eq!(server.get("/ready").expect(503), json!({ "status": "loading" }), "(got, expected)");
    let early = server.begin_chat(&question());
    drop(gate);
    Reply::read(early).expect(200);
    assert_eq!(server.get("/ready").expect(200), json!({ "status": "ready" }), "(got, expected)");
}

#[test]
fn a_model_that_is_not_loaded_ends_the_server() {
    let failing: Opener = Box::new(|| Err(Failure::NotWhole("it is a test".to_owned())));
    let server = Running::with(Settings::default(), failing).unwrap_or_else(|why| panic!("{why}"));
    let why = server.ended().expect_err("expected a failure");
    assert_eq!((why.exit_code(), why.to_string().contains("it is a test")), (3, true), "{why} (got, expected)");
}

#[test]
fn an_answer_that_runs_ends_before_the_server() {
    let times = Times { shutdown: Duration::from_secs(120), ..Times::default() };
    let mut server = Running::start(Settings { times, ..Settings::default() }).ready();
    let mut stream = server.begin_chat(&long_stream());
    let mut beginning = [0; 12];
    stream.read_exact(&mut beginning).expect("the beginning of a reply");
    assert_eq!(&beginning, b"HTTP/1.1 200", "(got, expected)");
    server.stop();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("the rest of a reply");
    assert!(rest.contains("data: [DONE]"), "expected the whole answer, got the end {:?}", rest.lines().last());
    let address = server.address;
    server.ended().unwrap_or_else(|why| panic!("{why}"));
    assert!(TcpStream::connect(address).is_err(), "expected a closed port");
}

#[test]
fn a_request_that_waits_is_refused_when_the_server_stops() {
    let (mut server, gate) = waiting(Times::default());
    let waiting = server.begin_chat(&question());
    server.until("it waits", |server| has_metric(server, "fovea_queue_length", 1.0));
    server.stop();
    assert_eq!(Reply::read(waiting).error(503), "closing", "(got, expected)");
    drop(gate);
    server.ended().unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let open = Settings { host: "0.0.0.0".to_owned(), ..Settings::default() };
    let why = Running::with(open, opener()).map(|_| ()).expect_err("expected a refusal");
    assert!(why.exit_code() == 2 && why.to_string().contains("--api-key-file"), "{why}");

    let (server, _gate) = waiting(Times::default());
    let same = Settings { port: server.address.port(), ..Settings::default() };
    let why = Running::with(same, opener()).map(|_| ()).expect_err("expected a refusal");
    assert!(why.exit_code() == 2 && why.to_string().contains("another program uses it"), "{why}");
}
