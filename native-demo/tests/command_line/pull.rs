//! `fovea pull` from two servers on this computer. One plays the Hugging Face hub, the other the host to which the hub
//! redirects large files. The repository is the fixture `tiny-0`, with files that Fovea does not read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::program::{fixture, program};

const ID: &str = "fixtures/tiny-0";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const WEIGHTS: &str = "model.safetensors";
const TOKEN: &str = "hf_secret";

#[derive(Clone)]
struct Request {
    method: String,
    /// With the query.
    path: String,
    /// Names in lower case.
    headers: BTreeMap<String, String>,
}

impl Request {
    fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// The first byte of the range.
    fn first(&self) -> Option<usize> {
        let range = self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?;
        Some(range.parse().expect("a number"))
    }
}

struct Reply {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// The connection closes after so many bytes of the body.
    sent: usize,
}

impl Reply {
    fn new(status: &'static str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { status, headers: Vec::new(), sent: body.len(), body }
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    fn missing() -> Self {
        Self::new("404 Not Found", "Entry not found")
    }

    /// The bytes that the request wants.
    fn file(request: &Request, bytes: &[u8]) -> Self {
        match request.first() {
            Some(first) => {
                let range = format!("bytes {first}-{}/{}", bytes.len() - 1, bytes.len());
                Self::new("206 Partial Content", &bytes[first..]).with("Content-Range", range)
            }
            None => Self::new("200 OK", bytes),
        }
    }

    /// Only the first half of the body is sent.
    fn cut(mut self) -> Self {
        self.sent /= 2;
        self
    }
}

/// A server. Its thread ends with the process of the tests.
struct Server {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn start(answer: impl Fn(&Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that closes early is no failure of the server.
                let _ = respond(stream, &answer, &log);
            }
        });
        Self { address, requests }
    }

    /// The requests since the last call.
    fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut *self.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn respond(
    mut stream: TcpStream,
    answer: &impl Fn(&Request) -> Reply,
    log: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let request = Request { method, path, headers };
    log.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
    let reply = answer(&request);
    write!(stream, "HTTP/1.1 {}\r\nContent-Length: {}\r\nConnection: close\r\n", reply.status, reply.body.len())?;
    for (name, value) in &reply.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    write!(stream, "\r\n")?;
    if request.is_head() { Ok(()) } else { stream.write_all(&reply.body[..reply.sent]) }
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// Git's name of a file.
fn blob_id(bytes: &[u8]) -> String {
    format!("{:x}", Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

/// The files of a repository by name.
type Files = BTreeMap<String, Vec<u8>>;

/// The fixture with a template in a folder. These files are downloaded.
fn read_files() -> Files {
    let mut files = Files::new();
    for entry in fs::read_dir(fixture("tiny-0")).expect("a fixture") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        files.insert(name, fs::read(&path).expect("a file"));
    }
    let template = files["chat_template.jinja"].clone();
    files.insert("additional_chat_templates/other.jinja".to_owned(), template);
    files
}

/// The same, with files that are not downloaded.
fn all_files() -> Files {
    let mut files = read_files();
    for name in [
        "README.md",
        ".gitattributes",
        "pytorch_model.bin",
        "onnx/model.onnx",
        "a.gguf",
        "x/config.json",
        "added_tokens.json",
    ] {
        files.insert(name.to_owned(), b"not read".to_vec());
    }
    files
}

/// The host of the large files; `change` may replace a response.
fn storage(files: &Files, change: impl Fn(&Request, &[u8]) -> Option<Reply> + Send + 'static) -> Server {
    let files = files.clone();
    Server::start(move |request| {
        let name = request.path.split('?').next().unwrap_or_default().trim_start_matches('/');
        let Some(bytes) = files.get(name) else { return Reply::missing() };
        change(request, bytes).unwrap_or_else(|| Reply::file(request, bytes))
    })
}

/// The hub: large files are at `storage`, small ones at another path of the hub, and one is sent at once. `change` may
/// replace a response.
fn hub(files: &Files, storage: &Server, change: impl Fn(&Request) -> Option<Reply> + Send + 'static) -> Server {
    let (files, storage) = (files.clone(), storage.address.clone());
    Server::start(move |request| change(request).unwrap_or_else(|| hub_reply(&files, &storage, request)))
}

fn hub_reply(files: &Files, storage: &str, request: &Request) -> Reply {
    let path = request.path.as_str();
    if path == format!("/api/models/{ID}/revision/main") {
        let siblings: Vec<_> = files.keys().map(|name| json!({"rfilename": name})).collect();
        return Reply::new("200 OK", json!({"id": ID, "sha": COMMIT, "siblings": siblings}).to_string());
    }
    let small = |bytes: &[u8]| Reply::file(request, bytes).with("ETag", format!("W/\"{}\"", blob_id(bytes)));
    if let Some(name) = path.strip_prefix("/api/resolve-cache/") {
        return files.get(name).map_or_else(Reply::missing, |bytes| small(bytes));
    }
    let Some(name) = path.strip_prefix(&format!("/{ID}/resolve/{COMMIT}/")) else { return Reply::missing() };
    let Some(bytes) = files.get(name) else { return Reply::missing() };
    if name.ends_with(".safetensors") || name.ends_with(".gguf") {
        return Reply::new("302 Found", "Found. Redirecting")
            .with("Location", format!("{storage}/{name}?signature=1"))
            .with("x-repo-commit", COMMIT)
            .with("x-linked-size", bytes.len())
            .with("x-linked-etag", format!("\"{}\"", sha256(bytes)));
    }
    if name == "tokenizer.json" {
        return small(bytes).with("x-repo-commit", COMMIT);
    }
    Reply::new("307 Temporary Redirect", "Redirecting").with("Location", format!("/api/resolve-cache/{name}"))
}

/// A cache, and runs of the program with it.
struct Cache(TempDir);

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Cache {
    fn empty() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn repository(&self) -> PathBuf {
        self.0.path().join("models--fixtures--tiny-0")
    }

    fn snapshot(&self) -> PathBuf {
        self.repository().join("snapshots").join(COMMIT)
    }

    fn blob(&self, name: &str) -> PathBuf {
        self.repository().join("blobs").join(name)
    }

    /// Writes a file into the folder of the files, before any run.
    fn put_blob(&self, name: &str, bytes: &[u8]) {
        fs::create_dir_all(self.blob("")).expect("a folder");
        fs::write(self.blob(name), bytes).expect("a file");
    }

    /// Runs the program. Besides `variables`, the environment has only the cache and the token.
    fn run(&self, args: &[&str], variables: &[(&str, &str)]) -> Ran {
        let mut command = program();
        for name in ["HF_HOME", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "HUGGINGFACE_HUB_CACHE", "HUGGING_FACE_HUB_TOKEN"] {
            command.env_remove(name);
        }
        for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"] {
            command.env_remove(name).env_remove(name.to_ascii_lowercase());
        }
        // No test may reach the internet: without HF_ENDPOINT in `variables`, nothing answers.
        command.env("HF_HUB_CACHE", self.0.path()).env("HF_TOKEN", TOKEN).env("HF_ENDPOINT", "http://127.0.0.1:9");
        // Not in a folder that could have one with the name of the repository.
        command.current_dir(self.0.path());
        let output = command.envs(variables.iter().copied()).args(args).output().expect("the program to start");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    fn pull(&self, hub: &Server) -> Ran {
        self.pull_files(hub, &[])
    }

    /// Downloads GGUF files.
    fn pull_files(&self, hub: &Server, names: &[&str]) -> Ran {
        let options: Vec<&str> = names.iter().flat_map(|name| ["--file", *name]).collect();
        self.run(&[&["pull", ID][..], &options].concat(), &[("HF_ENDPOINT", &hub.address)])
    }

    /// Checks that all files of the snapshot are those of the repository.
    fn expect_whole(&self, files: &Files) {
        let mut found = Files::new();
        read_folder(&self.snapshot(), "", &mut found);
        let names = |files: &Files| files.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&found), names(files), "names (got, expected)");
        for (name, bytes) in files {
            assert!(found[name] == *bytes, "{name}: expected the bytes of the repository");
        }
    }
}

fn read_folder(folder: &Path, before: &str, found: &mut Files) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = format!("{before}{}", path.file_name().and_then(|name| name.to_str()).expect("a name"));
        if path.is_dir() {
            read_folder(&path, &format!("{name}/"), found);
        } else {
            found.insert(name, fs::read(&path).expect("a file"));
        }
    }
}

impl Ran {
    fn expect(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "exit code (got, expected); stderr: {}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "expected {word:?}, got: {}", self.stderr);
        }
        if code != 0 {
            assert_eq!(self.stdout, "", "stdout of an error (got, expected)");
            let errors = self.stderr.lines().filter(|line| line.starts_with("fovea: ")).count();
            assert_eq!(errors, 1, "lines with an error (got, expected): {}", self.stderr);
        }
        assert!(!self.stderr.contains(TOKEN), "expected no token, got: {}", self.stderr);
    }
}

#[test]
fn a_checkpoint_is_downloaded_once_and_only_the_hub_gets_the_token() {
    let (files, cache) = (all_files(), Cache::empty());
    let storage = storage(&files, |_, _| None);
    let hub = hub(&files, &storage, |_| None);
    let dry = cache.run(&["pull", ID, "--dry-run"], &[("HF_ENDPOINT", &hub.address)]);
    dry.expect(0, &[]);
    for words in [WEIGHTS, "1.4 MiB", "8 files", " to download", " free on the disk", COMMIT] {
        assert!(dry.stdout.contains(words), "expected {words:?}, got: {}", dry.stdout);
    }
    assert!(!dry.stdout.contains("pytorch_model.bin"), "expected only files that are read, got: {}", dry.stdout);
    assert!(!cache.repository().exists(), "expected nothing on the disk after --dry-run");

    let ran = cache.pull(&hub);
    ran.expect(0, &["next: `fovea inspect fixtures/tiny-0`"]);
    assert_eq!(ran.stdout, format!("{}\n", cache.snapshot().display()), "stdout (got, expected)");
    cache.expect_whole(&read_files());
    let reference = fs::read_to_string(cache.repository().join("refs/main")).expect("a reference");
    assert_eq!(reference, COMMIT, "refs/main (got, expected)");
    let hash = sha256(&files[WEIGHTS]);
    assert!(cache.blob(&hash).is_file(), "expected the weights under their SHA-256");
    assert!(!cache.blob(&format!("{hash}.part")).exists(), "expected no part");
    if cfg!(unix) {
        let link = |name: &str| fs::read_link(cache.snapshot().join(name)).expect("a link");
        assert_eq!(link(WEIGHTS), Path::new("../../blobs").join(&hash), "link (got, expected)");
        let up = link("additional_chat_templates/other.jinja");
        assert!(up.starts_with("../../../blobs"), "got {}", up.display());
    }
    for (server, expected) in [(&hub, Some(format!("Bearer {TOKEN}"))), (&storage, None)] {
        let requests = server.requests();
        assert!(!requests.is_empty(), "expected requests");
        for request in requests {
            assert_eq!(
                request.headers.get("authorization"),
                expected.as_ref(),
                "{}: token (got, expected)",
                request.path
            );
        }
    }

    // Everything is in the cache.
    let ran = cache.pull(&hub);
    ran.expect(0, &["in the cache", " 0 B to download"]);
    assert_eq!(storage.requests().len(), 0, "requests of a second run for weights (got, expected)");
    let bodies = hub.requests().iter().filter(|request| !request.is_head()).count();
    assert_eq!(bodies, 1, "responses with a body: the list of files (got, expected)");
    cache.run(&["inspect", ID], &[]).expect(0, &[]);

    // Without the network: the same folder.
    let offline = cache.run(&["pull", ID], &[("HF_HUB_OFFLINE", "1"), ("HF_ENDPOINT", &hub.address)]);
    offline.expect(0, &["HF_HUB_OFFLINE"]);
    assert_eq!(offline.stdout, ran.stdout, "folder (got, expected)");
    let other = cache.run(&["pull", "org/other"], &[("HF_HUB_OFFLINE", "1"), ("HF_ENDPOINT", &hub.address)]);
    other.expect(8, &["org/other is not in the cache", "HF_HUB_OFFLINE"]);
    assert_eq!(hub.requests().len(), 0, "requests while offline (got, expected)");
    cache.run(&["inspect", "org/other@v2"], &[]).expect(3, &["`fovea pull org/other@v2`"]);
}

#[test]
fn offline_only_a_complete_snapshot_of_the_named_commit_counts() {
    let (files, cache) = (all_files(), Cache::empty());
    let storage = storage(&files, |_, _| None);
    let hub = hub(&files, &storage, |_| None);
    let offline = |args: &[&str]| cache.run(&[&["pull"][..], args].concat(), &[("HF_HUB_OFFLINE", "1")]);
    // A local folder.
    let local = cache.0.path().join(ID);
    fs::create_dir_all(&local).expect("a folder");
    fs::write(local.join("config.json"), "{}").expect("a file");
    offline(&[ID]).expect(8, &["is not in the cache"]);
    cache.pull(&hub).expect(0, &[]);
    let at = |revision: &str| format!("{ID}@{revision}");
    for name in [ID, &at(COMMIT)] {
        let ran = offline(&[name]);
        ran.expect(0, &["HF_HUB_OFFLINE"]);
        assert_eq!(ran.stdout, format!("{}\n", cache.snapshot().display()), "{name}: folder (got, expected)");
    }
    offline(&[ID, "--check"]).expect(8, &["--check", "HF_HUB_OFFLINE"]);
    for revision in ["v2", &COMMIT[..8]] {
        offline(&[&at(revision)]).expect(8, &["is not in the cache"]);
    }
    for name in ["config.json", "tokenizer.json", WEIGHTS] {
        let file = cache.snapshot().join(name);
        let moved = file.with_extension("moved");
        fs::rename(&file, &moved).expect("a file");
        offline(&[ID]).expect(8, &["is not complete", name]);
        fs::rename(&moved, &file).expect("a file");
    }
    // Shards instead of one file.
    let index = cache.snapshot().join("model.safetensors.index.json");
    fs::write(&index, json!({"weight_map": {"a": "one.safetensors"}}).to_string()).expect("a file");
    let one = cache.snapshot().join("one.safetensors");
    fs::rename(cache.snapshot().join(WEIGHTS), &one).expect("a file");
    offline(&[ID]).expect(0, &[]);
    fs::remove_file(&one).expect("a file");
    offline(&[ID]).expect(8, &["is not complete", "one.safetensors"]);
    fs::remove_file(cache.repository().join("refs/main")).expect("a reference");
    offline(&[ID]).expect(8, &["is not in the cache"]);
}

#[test]
fn seven_digits_of_a_commit_select_it_where_no_other_begins_so() {
    let (files, cache) = (all_files(), Cache::empty());
    let storage = storage(&files, |_, _| None);
    cache.pull(&hub(&files, &storage, |_| None)).expect(0, &[]);
    fs::remove_dir_all(cache.repository().join("refs")).expect("references");
    let inspect = |digits: usize| cache.run(&["inspect", &format!("{ID}@{}", &COMMIT[..digits])], &[]);
    for digits in [7, 40] {
        inspect(digits).expect(0, &[]);
    }
    inspect(6).expect(3, &["choose one of them"]);
    let other = cache.snapshot().with_file_name(format!("{}{}", &COMMIT[..10], "f".repeat(30)));
    fs::create_dir(other).expect("a folder");
    inspect(10).expect(3, &["choose one of them"]);
    inspect(11).expect(0, &[]);
}

#[test]
fn a_checkpoint_that_is_not_supported_gives_3_before_the_weights() {
    let (mut files, cache) = (all_files(), Cache::empty());
    let config = String::from_utf8(files["config.json"].clone()).expect("UTF-8");
    let other = config.replace("\"llava_next\"", "\"other_family\"");
    assert_ne!(config, other, "expected a model_type to replace");
    files.insert("config.json".to_owned(), other.into_bytes());
    let storage = storage(&files, |_, _| None);
    cache.pull(&hub(&files, &storage, |_| None)).expect(3, &["other_family"]);
    assert_eq!(storage.requests().len(), 0, "requests for weights (got, expected)");
    assert!(!cache.repository().join("refs").exists(), "expected no reference to an incomplete snapshot");
}

#[test]
fn small_files_in_the_cache_are_compared_with_their_git_id() {
    let files = all_files();
    let storage = storage(&files, |_, _| None);
    let hub = hub(&files, &storage, |_| None);
    let config = &files["config.json"];
    let wrong = vec![b' '; config.len()];
    // A wrong file, and the part of another one.
    for name in [blob_id(config), format!("{}.part", blob_id(config))] {
        let cache = Cache::empty();
        cache.put_blob(&name, if name.ends_with(".part") { &wrong[..100] } else { &wrong });
        if !name.ends_with(".part") {
            let dry = cache.run(&["pull", ID, "--dry-run"], &[("HF_ENDPOINT", &hub.address)]);
            assert!(dry.stdout.contains("wrong in the cache"), "got: {}", dry.stdout);
            assert_eq!(fs::read(cache.blob(&name)).expect("a file"), wrong, "file after --dry-run (got, expected)");
        }
        cache.pull(&hub).expect(0, &[]);
        cache.expect_whole(&read_files());
    }
}

#[test]
fn a_small_file_that_is_wrong_twice_gives_8() {
    let (files, cache) = (all_files(), Cache::empty());
    let storage = storage(&files, |_, _| None);
    let wrong = vec![b' '; files["config.json"].len()];
    let hub = hub(&files, &storage, move |request| {
        let body = !request.is_head() && request.path == "/api/resolve-cache/config.json";
        body.then(|| Reply::file(request, &wrong))
    });
    cache.pull(&hub).expect(8, &["config.json: expected the git blob id", "downloading it again", "removed"]);
    let bodies = hub.requests().iter().filter(|r| !r.is_head() && r.path.contains("cache/config.json")).count();
    assert_eq!(bodies, 2, "downloads of config.json (got, expected)");
    assert!(!cache.snapshot().join("config.json").exists(), "expected no config.json in the snapshot");
}

#[test]
fn the_part_of_a_file_without_a_known_hash_is_not_resumed() {
    let (files, cache) = (all_files(), Cache::empty());
    let storage = storage(&files, |_, _| None);
    let named = files["config.json"].clone();
    let hub = hub(&files, &storage, move |request| {
        let there = request.path == format!("/{ID}/resolve/{COMMIT}/config.json");
        there.then(|| Reply::file(request, &named).with("ETag", "\"other-name\""))
    });
    cache.put_blob("other-name.part", b"{\"another");
    cache.pull(&hub).expect(0, &[]);
    cache.expect_whole(&read_files());
    let resumed = hub.requests().iter().filter(|request| request.first().is_some()).count();
    assert_eq!(resumed, 0, "requests for a range (got, expected)");
}

#[test]
fn check_hashes_the_weights_in_the_cache_and_replaces_wrong_ones() {
    let (files, cache) = (all_files(), Cache::empty());
    let storage = storage(&files, |_, _| None);
    let hub = hub(&files, &storage, |_| None);
    cache.pull(&hub).expect(0, &[]);
    let mut wrong = files[WEIGHTS].clone();
    wrong[77_777] ^= 1;
    fs::write(cache.snapshot().join(WEIGHTS), wrong).expect("a file");
    storage.requests();
    cache.pull(&hub).expect(0, &[" 0 B to download"]);
    assert_eq!(storage.requests().len(), 0, "requests without --check (got, expected)");
    let check = || cache.run(&["pull", ID, "--check"], &[("HF_ENDPOINT", &hub.address)]);
    check().expect(0, &["wrong in the cache"]);
    cache.expect_whole(&read_files());
    assert_eq!(storage.requests().len(), 1, "requests for wrong weights (got, expected)");
    check().expect(0, &["comparing model.safetensors", " 0 B to download"]);
    assert_eq!(storage.requests().len(), 0, "requests for right weights (got, expected)");
}

#[test]
fn a_cut_download_is_resumed() {
    let (files, cache) = (all_files(), Cache::empty());
    let count = AtomicUsize::new(0);
    let storage = storage(&files, move |request, bytes| {
        (count.fetch_add(1, Ordering::Relaxed) == 0).then(|| Reply::file(request, bytes).cut())
    });
    let hub = hub(&files, &storage, |_| None);
    cache.pull(&hub).expect(0, &[]);
    cache.expect_whole(&read_files());
    let ranges: Vec<_> = storage.requests().iter().map(Request::first).collect();
    // What the client has read of the half is timing; it is not asked for again.
    assert!(matches!(ranges[..], [None, Some(first)] if first <= files[WEIGHTS].len() / 2), "got {ranges:?}");
}

#[test]
fn the_part_of_an_earlier_run_is_resumed_or_replaced() {
    let files = all_files();
    let weights = files[WEIGHTS].clone();
    for ignores_range in [false, true] {
        let storage = storage(&files, move |_, bytes| ignores_range.then(|| Reply::new("200 OK", bytes)));
        let hub = hub(&files, &storage, |_| None);
        for (part, requests) in [
            (weights[..1000].to_vec(), vec![Some(1000)]),
            // Complete: nothing is downloaded.
            (weights.clone(), vec![]),
            // Too long.
            ([weights.as_slice(), b"more"].concat(), vec![None]),
        ] {
            let cache = Cache::empty();
            cache.put_blob(&format!("{}.part", sha256(&weights)), &part);
            cache.pull(&hub).expect(0, &[]);
            cache.expect_whole(&read_files());
            let got: Vec<_> = storage.requests().iter().map(Request::first).collect();
            assert_eq!(got, requests, "ignored range {ignores_range}: first bytes (got, expected)");
        }
    }
}

#[test]
fn a_download_that_is_always_cut_gives_8_and_keeps_its_part() {
    let (files, cache) = (all_files(), Cache::empty());
    let storage = storage(&files, |request, bytes| {
        let mut reply = Reply::file(request, bytes);
        reply.sent = if request.first().is_none() { 5000 } else { 0 };
        Some(reply)
    });
    let hub = hub(&files, &storage, |_| None);
    cache.pull(&hub).expect(8, &[WEIGHTS, "cut at", "of 1.4 MiB", "the same command resumes it"]);
    assert!(!cache.snapshot().join(WEIGHTS).exists(), "expected no weights in the snapshot");
    assert!(!cache.repository().join("refs").exists(), "expected no reference to an incomplete snapshot");
    assert!(cache.blob(&format!("{}.part", sha256(&files[WEIGHTS]))).exists(), "expected a part");
}

#[test]
fn a_wrong_size_or_hash_gives_8_and_is_not_put_in_place() {
    let files = all_files();
    let flipped = |_: &Request, bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[77_777] ^= 1;
        Some(Reply::new("200 OK", bytes))
    };
    let longer = |_: &Request, bytes: &[u8]| Some(Reply::new("200 OK", [bytes, b"more"].concat()));
    let shorter = |_: &Request, bytes: &[u8]| Some(Reply::new("200 OK", &bytes[..100]));
    let size = files[WEIGHTS].len();
    let sizes = [format!("expected {size} bytes"), format!("got {}", size + 4)];
    let rows = [
        (storage(&files, flipped), ["SHA-256", "removed"]),
        (storage(&files, longer), [sizes[0].as_str(), sizes[1].as_str()]),
        (storage(&files, shorter), [sizes[0].as_str(), "got 100"]),
    ];
    for (storage, words) in &rows {
        let cache = Cache::empty();
        cache.pull(&hub(&files, storage, |_| None)).expect(8, &[words.as_slice(), &[WEIGHTS]].concat());
        assert!(!cache.snapshot().join(WEIGHTS).exists(), "{words:?}: expected no weights in the snapshot");
        assert!(!cache.blob(&sha256(&files[WEIGHTS])).exists(), "{words:?}: expected no file under the hash");
    }
}

#[test]
fn refusals_give_8_and_say_what_to_do() {
    let (files, cache) = (all_files(), Cache::empty());
    let storage = storage(&files, |_, _| None);
    let answering = |status: &'static str, wait: &'static str| {
        hub(&files, &storage, move |_| Some(Reply::new(status, "").with("Retry-After", wait)))
    };
    for (status, words) in [
        ("401 Unauthorized", ["no access to fixtures/tiny-0", "HF_TOKEN", "licence"]),
        ("403 Forbidden", ["no access to fixtures/tiny-0", "HF_TOKEN", "licence"]),
        ("404 Not Found", ["fixtures/tiny-0", "revision `main`", "private"]),
        ("429 Too Many Requests", ["note: ", "trying again in 0.0 s", "run the same command again"]),
        ("503 Service Unavailable", ["note: ", "503 Service Unavailable", "later"]),
    ] {
        let hub = answering(status, "0");
        cache.pull(&hub).expect(8, &words);
        let expected = if status.starts_with('4') && !status.starts_with("429") { 1 } else { 6 };
        assert_eq!(hub.requests().len(), expected, "{status}: requests (got, expected)");
    }
    // A pause that is too long to wait.
    cache.pull(&answering("429 Too Many Requests", "3600")).expect(8, &["wait 3600 s"]);
    // Only the weights of a gated repository are refused.
    let gated =
        hub(&files, &storage, |request| request.path.ends_with(WEIGHTS).then(|| Reply::new("403 Forbidden", "gated")));
    cache.pull(&gated).expect(8, &["HF_TOKEN", "licence", "/fixtures/tiny-0"]);
    // Only one file is missing.
    let partly = hub(&files, &storage, |request| request.path.ends_with(WEIGHTS).then(Reply::missing));
    cache.pull(&partly).expect(8, &[WEIGHTS, "does not have it"]);
    // A redirect out of http.
    for address in ["ftp://user:pa55@127.0.0.1/", "file:///etc/passwd?pa55"] {
        let ftp = hub(&files, &storage, move |_| Some(Reply::new("302 Found", "").with("Location", address)));
        let ran = cache.pull(&ftp);
        ran.expect(8, &["http or https"]);
        assert!(!ran.stderr.contains("pa55"), "expected no password, got: {}", ran.stderr);
    }
    // Another revision, and no list of files.
    let there = hub(&files, &storage, |_| None);
    let run = |name: &str| cache.run(&["pull", name], &[("HF_ENDPOINT", &there.address)]);
    run("fixtures/tiny-0@v2").expect(8, &["revision `v2`"]);
    cache.pull(&hub(&files, &storage, |_| Some(Reply::new("200 OK", "<html>")))).expect(8, &["a list of files"]);
    cache.pull(&hub(&files, &storage, |_| Some(Reply::missing().with("Location", "/")))).expect(8, &["404"]);
    // No server.
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string();
    let nobody = cache.run(&["pull", ID], &[("HF_ENDPOINT", &format!("http://{port}"))]);
    nobody.expect(8, &["cannot reach", &port, "HF_ENDPOINT"]);
    assert!(!cache.repository().exists(), "expected nothing on the disk");
}

#[test]
fn a_busy_hub_is_asked_again() {
    let (files, cache) = (all_files(), Cache::empty());
    let storage = storage(&files, |_, _| None);
    let count = AtomicUsize::new(0);
    let hub = hub(&files, &storage, move |_| {
        let busy = count.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        busy.then(|| Reply::new("429 Too Many Requests", "").with("Retry-After", "0"))
    });
    cache.pull(&hub).expect(0, &["429"]);
    cache.expect_whole(&read_files());
}

#[test]
fn names_give_2_and_incomplete_repositories_3() {
    let cache = Cache::empty();
    for name in [
        "tiny",
        "a/b/c",
        "../tiny",
        "org/a b",
        "",
        "org/tiny@a/../b",
        "org/tiny@a/b",
        "https://huggingface.co/datasets/a/b",
        "datasets/a",
    ] {
        cache.run(&["pull", name], &[]).expect(2, &["ORG/NAME"]);
    }
    cache.run(&["pull"], &[]).expect(2, &["ORG/NAME"]);
    cache.run(&["pull", ID], &[("HF_ENDPOINT", "hub")]).expect(2, &["HF_ENDPOINT", "https://"]);
    for address in ["https://user:pa55@hub.example", "https://user:pa55 @hub", "https://hub.example/?key=pa55"] {
        let ran = cache.run(&["pull", ID], &[("HF_ENDPOINT", address)]);
        ran.expect(2, &["HF_ENDPOINT", "without user name, password"]);
        assert!(!ran.stderr.contains("pa55"), "expected no password, got: {}", ran.stderr);
    }
    cache.run(&["pull", ID], &[("HF_TOKEN", "two words")]).expect(2, &["HF_TOKEN"]);
    let mut files = all_files();
    let weights = files.remove(WEIGHTS).expect("weights");
    let storage = storage(&files, |_, _| None);
    cache.pull(&hub(&files, &storage, |_| None)).expect(3, &["expected its mmproj file", "got a.gguf"]);
    files.remove("a.gguf");
    cache.pull(&hub(&files, &storage, |_| None)).expect(3, &["no weights", "got pytorch_model.bin"]);
    let index = "model.safetensors.index.json";
    for (text, word) in [
        ("{", "weight_map"),
        ("{}", "weight_map"),
        (r#"{"weight_map": {"a": "../a.safetensors"}}"#, "../a.safetensors"),
        (r#"{"weight_map": {"a": "a.bin"}}"#, "a.bin"),
        (r#"{"weight_map": {"a": "absent.safetensors"}}"#, "absent.safetensors"),
    ] {
        files.insert(index.to_owned(), text.into());
        cache.pull(&hub(&files, &storage, |_| None)).expect(3, &[index, word]);
    }
    let long = format!("{}.safetensors", "a".repeat(10_000));
    files.insert(index.to_owned(), json!({"weight_map": {"a": long}}).to_string().into());
    let ran = cache.pull(&hub(&files, &storage, |_| None));
    ran.expect(3, &["aaa..."]);
    assert!(ran.stderr.len() < 1000, "expected a short message, got {} bytes", ran.stderr.len());
    files.insert(WEIGHTS.to_owned(), weights);
    let tokenizer = files.remove("tokenizer.json").expect("a tokenizer");
    cache.pull(&hub(&files, &storage, |_| None)).expect(3, &["it has no tokenizer.json"]);
    files.insert("tokenizer.model".to_owned(), b"not read".to_vec());
    cache.pull(&hub(&files, &storage, |_| None)).expect(3, &["got only tokenizer.model", "AutoTokenizer", "llava-hf"]);
    files.insert("tokenizer.json".to_owned(), tokenizer);
    files.remove("config.json");
    cache.pull(&hub(&files, &storage, |_| None)).expect(3, &["config.json"]);
    assert!(!cache.repository().exists(), "expected nothing on the disk");
}

#[test]
fn the_shards_that_the_index_lists_are_downloaded() {
    let (mut files, mut expected, cache) = (all_files(), read_files(), Cache::empty());
    let index = json!({"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "one.safetensors"}});
    for (name, bytes) in [
        ("model.safetensors.index.json", index.to_string().into_bytes()),
        ("one.safetensors", vec![1; 100]),
        // An empty file needs no request.
        ("two.safetensors", Vec::new()),
    ] {
        files.insert(name.to_owned(), bytes.clone());
        expected.insert(name.to_owned(), bytes);
    }
    files.insert("three.safetensors".to_owned(), vec![3; 100]);
    files.remove(WEIGHTS);
    expected.remove(WEIGHTS);
    let storage = storage(&files, |_, _| None);
    cache.pull(&hub(&files, &storage, |_| None)).expect(0, &["one.safetensors"]);
    cache.expect_whole(&expected);
    let paths: Vec<String> = storage.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/one.safetensors?signature=1"], "requests (got, expected)");
}

/// A repository in GGUF.
fn gguf_files() -> Files {
    let read = |name: &str| fs::read(fixture(&format!("gguf/vicuna-0/{name}.gguf"))).expect("a fixture");
    // Bytes after the last tensor make another file of the same model.
    let longer = |name: &str| [read(name), vec![0; 32]].concat();
    let other = || b"not GGUF".to_vec();
    let files = [
        ("README.md", other()),
        ("config.json", other()),
        ("tiny.Q2_K.gguf", other()),
        ("tiny.Q4_K_M.gguf", read("text")),
        ("tiny.Q5_K_M.gguf", other()),
        ("tiny.Q8_0.gguf", longer("text")),
        ("tiny.f16-00001-of-00002.gguf", other()),
        ("mmproj-model-f16.gguf", read("mmproj")),
        ("mmproj-model-f32.gguf", longer("mmproj")),
    ];
    files.map(|(name, bytes)| (name.to_owned(), bytes)).into()
}

#[test]
fn gguf_files_are_chosen_by_name_or_quantisation() {
    let (files, cache) = (gguf_files(), Cache::empty());
    let storage = storage(&files, |_, _| None);
    let hub = hub(&files, &storage, |_| None);
    let list = ["--file NAME", "tiny.Q4_K_M.gguf", "544.8 KiB", "not supported: Q2_K", "not supported: one of several"];
    cache.pull(&hub).expect(2, &[&["expected one text model, got 5"][..], &list].concat());
    cache.pull_files(&hub, &["Q4_K"]).expect(2, &["with the name `Q4_K`, got none", "tiny.Q4_K_M.gguf"]);
    cache.pull_files(&hub, &["Q2_K"]).expect(3, &["tiny.Q2_K.gguf is not supported (Q2_K)"]);
    cache.pull_files(&hub, &["tiny.f16-00001-of-00002.gguf"]).expect(3, &["llama-gguf-split --merge"]);
    assert_eq!(storage.requests().len(), 0, "requests for files (got, expected)");
    // The header shows that a file is not what its name says.
    cache.pull_files(&hub, &["Q5_K_M"]).expect(3, &["tiny.Q5_K_M.gguf", "expected a GGUF file"]);
    assert!(!cache.repository().exists(), "expected nothing on the disk");

    let inspect = |model: &str| cache.run(&["inspect", model], &[]);
    let read =
        |names: &[&str]| -> Files { names.iter().map(|name| ((*name).to_owned(), files[*name].clone())).collect() };
    let ran = cache.pull_files(&hub, &["q4_k_m"]);
    ran.expect(0, &["mmproj-model-f16.gguf", "next: `fovea inspect fixtures/tiny-0:q4_k_m`"]);
    assert_eq!(ran.stdout, format!("{}:q4_k_m\n", cache.snapshot().display()), "stdout (got, expected)");
    cache.expect_whole(&read(&["tiny.Q4_K_M.gguf", "mmproj-model-f16.gguf"]));
    inspect(ran.stdout.trim()).expect(0, &[]);
    inspect(ID).expect(0, &[]);
    storage.requests();
    cache.pull_files(&hub, &["Q4_K_M"]).expect(0, &[" 0 B to download"]);
    assert_eq!(storage.requests().len(), 0, "requests of a second run (got, expected)");

    // A second choice: now the name of the repository is not enough.
    cache.pull_files(&hub, &["tiny.Q8_0.gguf", "mmproj-model-f32.gguf"]).expect(0, &[]);
    let four = ["tiny.Q4_K_M.gguf", "tiny.Q8_0.gguf", "mmproj-model-f16.gguf", "mmproj-model-f32.gguf"];
    cache.expect_whole(&read(&four));
    inspect(ID).expect(3, &["expected one text model, got 2", "tiny.Q4_K_M.gguf", "fixtures/tiny-0:NAME"]);
    inspect(&format!("{ID}:Q6_K")).expect(3, &["with the name `Q6_K`, got none"]);
    for files in ["Q4_K_M", "tiny.Q8_0.gguf,mmproj-model-f32.gguf"] {
        inspect(&format!("{ID}:{files}")).expect(0, &[]);
        inspect(&format!("{ID}@{COMMIT}:{files}")).expect(0, &[]);
    }
    inspect("org/other:Q8_0").expect(3, &["`fovea pull org/other --file Q8_0`"]);
    let offline = |args: &[&str]| cache.run(&[&["pull", ID][..], args].concat(), &[("HF_HUB_OFFLINE", "1")]);
    let ran = offline(&["--file", "Q8_0"]);
    ran.expect(0, &["HF_HUB_OFFLINE"]);
    assert_eq!(ran.stdout, format!("{}:Q8_0\n", cache.snapshot().display()), "stdout (got, expected)");
    offline(&[]).expect(8, &["is not complete", "expected one text model, got 2"]);
    offline(&["--file", "Q6_K"]).expect(8, &["with the name `Q6_K`, got none"]);
    cache.run(&["pull", &format!("{ID}:Q8_0")], &[]).expect(2, &["--file"]);
}

#[test]
fn the_only_text_model_in_gguf_needs_no_name() {
    let (mut files, cache) = (gguf_files(), Cache::empty());
    files.retain(|name, _| !name.starts_with("tiny.") || name == "tiny.Q8_0.gguf");
    let count = AtomicUsize::new(0);
    // The first read of a header is cut.
    let storage = storage(&files, move |request, bytes| {
        (count.fetch_add(1, Ordering::Relaxed) == 0).then(|| Reply::file(request, bytes).cut())
    });
    let refused = hub(&files, &storage, |request| {
        let header = !request.is_head() && request.path.ends_with(".Q8_0.gguf");
        header.then(|| Reply::new("403 Forbidden", "gated"))
    });
    cache.pull(&refused).expect(8, &["HF_TOKEN", "licence"]);
    assert!(!cache.repository().exists(), "expected nothing on the disk");
    let ran = cache.pull(&hub(&files, &storage, |_| None));
    ran.expect(0, &["next: `fovea inspect fixtures/tiny-0`"]);
    assert_eq!(ran.stdout, format!("{}\n", cache.snapshot().display()), "stdout (got, expected)");
    cache.run(&["inspect", ID], &[]).expect(0, &[]);
    // safetensors are downloaded where nothing is chosen.
    let (mut both, cache) = (all_files(), Cache::empty());
    both.append(&mut files);
    both.insert("config.json".to_owned(), read_files()["config.json"].clone());
    cache.pull(&hub(&both, &self::storage(&both, |_, _| None), |_| None)).expect(0, &[]);
    cache.expect_whole(&read_files());
}

#[cfg(unix)]
#[test]
fn a_disk_that_is_too_small_gives_1_before_the_download() {
    let (files, cache) = (all_files(), Cache::empty());
    let storage = storage(&files, |_, _| None);
    let hub = hub(&files, &storage, |request| {
        let reply = Reply::new("200 OK", "").with("x-linked-size", 1_u64 << 60).with("x-linked-etag", "abc");
        request.path.ends_with(WEIGHTS).then_some(reply)
    });
    cache.pull(&hub).expect(1, &["cannot write", "of free disk space, got", "HF_HOME"]);
    assert!(!cache.repository().exists(), "expected nothing on the disk");
}

#[test]
fn a_token_is_read_from_its_file() {
    let (files, cache) = (all_files(), Cache::empty());
    let hub = hub(&files, &storage(&files, |_, _| None), |_| Some(Reply::missing()));
    fs::write(cache.0.path().join("token"), "hf_from_file\n").expect("a token");
    let home = cache.0.path().to_str().expect("a path in UTF-8");
    let ran = cache.run(&["pull", ID], &[("HF_ENDPOINT", &hub.address), ("HF_HOME", home), ("HF_TOKEN", "")]);
    ran.expect(8, &["404"]);
    let tokens: Vec<_> = hub.requests().iter().map(|request| request.headers.get("authorization").cloned()).collect();
    assert_eq!(tokens, [Some("Bearer hf_from_file".to_owned())], "token (got, expected)");
}
