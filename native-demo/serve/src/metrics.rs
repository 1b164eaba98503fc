//! Counters of the server. Input: what happens. Output: Prometheus' text format, for `/metrics`.
//! Source: "Exposition formats" in the documentation of Prometheus, version 0.0.4.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use fovea_model::Turn;

use crate::queue::Queue;

/// The `Content-Type` of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of the buckets of a time, in seconds. The last one, infinity, is not in the list.
const SECONDS: [f64; 14] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// How often times were in each bucket.
#[derive(Default)]
struct Histogram {
    /// One per bound, and one above them all. Not cumulative.
    counts: [AtomicU64; SECONDS.len() + 1],
    microseconds: AtomicU64,
}

impl Histogram {
    fn observe(&self, time: Duration) {
        let bucket = SECONDS.partition_point(|bound| *bound < time.as_secs_f64());
        self.counts[bucket].fetch_add(1, Relaxed);
        self.microseconds.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// What is known of the loaded model.
struct Info {
    name: String,
    device: String,
    dtype: String,
}

/// The counters. All of them begin at 0 with the process.
#[derive(Default)]
pub struct Metrics {
    /// By route and status.
    responses: Mutex<BTreeMap<(String, u16), u64>>,
    queue: OnceLock<Arc<Queue>>,
    waited: Histogram,
    first_token: Histogram,
    answer: Histogram,
    running: AtomicBool,
    ready: AtomicBool,
    answers: AtomicU64,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    completion_tokens: AtomicU64,
    visual_all: AtomicU64,
    visual_compressed: AtomicU64,
    visual_kept: AtomicU64,
    cache_hits: AtomicU64,
    cache_misses: AtomicU64,
    cache_evictions: AtomicU64,
    cache_bytes: AtomicU64,
    cache_entries: AtomicU64,
    device_losses: AtomicU64,
    panics: AtomicU64,
    model: Mutex<Option<Info>>,
}

impl Metrics {
    /// Counters at 0.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Counts a response. `route` must be one of few names, not what a client wrote.
    pub fn response(&self, route: &str, status: u16) {
        let mut responses = lock(&self.responses);
        *responses.entry((route.to_owned(), status)).or_default() += 1;
    }

    /// The queue to report.
    pub(crate) fn watch(&self, queue: &Arc<Queue>) {
        // A second queue is not reported.
        let _ = self.queue.set(queue.clone());
    }

    /// A request began after this time in the queue.
    pub(crate) fn started(&self, waited: Duration) {
        self.waited.observe(waited);
        self.running.store(true, Relaxed);
    }

    /// No request runs any more.
    pub(crate) fn ended(&self) {
        self.running.store(false, Relaxed);
    }

    /// The first token came this time after the request.
    pub(crate) fn first_token(&self, time: Duration) {
        self.first_token.observe(time);
    }

    /// An answer is complete, this time after the request.
    pub(crate) fn answered(&self, turn: &Turn, time: Duration) {
        self.answer.observe(time);
        self.answers.fetch_add(1, Relaxed);
        let tokens = turn.statistics.tokens;
        for (counter, count) in [
            (&self.prompt_tokens, turn.prompt.text_tokens() + tokens.compressed),
            (&self.cached_tokens, turn.statistics.cached_tokens),
            (&self.completion_tokens, turn.answer_ids.len()),
            (&self.visual_all, tokens.all),
            (&self.visual_compressed, tokens.compressed),
            (&self.visual_kept, tokens.kept),
        ] {
            counter.fetch_add(count as u64, Relaxed);
        }
    }

    /// Whether the conversation of a request was kept from an earlier one.
    pub(crate) fn looked_up(&self, hit: bool) {
        let counter = if hit { &self.cache_hits } else { &self.cache_misses };
        counter.fetch_add(1, Relaxed);
    }

    /// The cache dropped `evicted` conversations, and has this much now.
    pub(crate) fn cache(&self, evicted: usize, entries: usize, bytes: u64) {
        self.cache_evictions.fetch_add(evicted as u64, Relaxed);
        self.cache_entries.store(entries as u64, Relaxed);
        self.cache_bytes.store(bytes, Relaxed);
    }

    /// The device was lost.
    pub(crate) fn lost(&self) {
        self.device_losses.fetch_add(1, Relaxed);
    }

    /// The engine panicked.
    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Relaxed);
    }

    /// A model is loaded.
    pub(crate) fn loaded(&self, name: &str, device: &str, dtype: &str) {
        let info = Info { name: name.to_owned(), device: device.to_owned(), dtype: dtype.to_owned() };
        *lock(&self.model) = Some(info);
        self.ready.store(true, Relaxed);
    }

    /// The model is closed or lost.
    pub(crate) fn unloaded(&self) {
        self.ready.store(false, Relaxed);
    }

    /// All counters in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, to: &mut String) -> fmt::Result {
        head(to, "fovea_responses_total", "counter", "Responses by route and status; 499: the client had gone.")?;
        for ((route, status), count) in &*lock(&self.responses) {
            let route = escaped(route);
            writeln!(to, "fovea_responses_total{{route=\"{route}\",status=\"{status}\"}} {count}")?;
        }
        let number = |counter: &AtomicU64| counter.load(Relaxed);
        let (waiting, bytes) = self.queue.get().map_or((0, 0), |queue| (queue.len() as u64, queue.bytes() as u64));
        let of = u64::from;
        for (name, kind, help, value) in [
            ("fovea_queue_length", "gauge", "Requests that wait for the model.", waiting),
            ("fovea_queue_bytes", "gauge", "Bytes of the requests that wait.", bytes),
            ("fovea_running", "gauge", "Requests that the model answers now.", of(self.running.load(Relaxed))),
            ("fovea_ready", "gauge", "1 if a model is loaded.", of(self.ready.load(Relaxed))),
            ("fovea_answers_total", "counter", "Complete answers.", number(&self.answers)),
            (
                "fovea_prompt_tokens_total",
                "counter",
                "Tokens of prompts, with visual tokens.",
                number(&self.prompt_tokens),
            ),
            (
                "fovea_cached_tokens_total",
                "counter",
                "Tokens of prompts whose lower layers were computed before.",
                number(&self.cached_tokens),
            ),
            ("fovea_completion_tokens_total", "counter", "Tokens of answers.", number(&self.completion_tokens)),
            ("fovea_cache_bytes", "gauge", "Bytes of the kept conversations.", number(&self.cache_bytes)),
            ("fovea_cache_entries", "gauge", "Kept conversations.", number(&self.cache_entries)),
            (
                "fovea_cache_evictions_total",
                "counter",
                "Conversations that were dropped to make room.",
                number(&self.cache_evictions),
            ),
            ("fovea_device_losses_total", "counter", "Lost devices.", number(&self.device_losses)),
            ("fovea_panics_total", "counter", "Panics of the engine.", number(&self.panics)),
        ] {
            head(to, name, kind, help)?;
            writeln!(to, "{name} {value}")?;
        }
        let name = "fovea_visual_tokens_total";
        head(to, name, "counter", "Visual tokens: without compression, into the text model, in its last layer.")?;
        for (stage, counter) in
            [("all", &self.visual_all), ("compressed", &self.visual_compressed), ("kept", &self.visual_kept)]
        {
            writeln!(to, "{name}{{stage=\"{stage}\"}} {}", number(counter))?;
        }
        let name = "fovea_cache_requests_total";
        head(to, name, "counter", "Requests whose conversation was kept (hit) or not (miss).")?;
        for (result, counter) in [("hit", &self.cache_hits), ("miss", &self.cache_misses)] {
            writeln!(to, "{name}{{result=\"{result}\"}} {}", number(counter))?;
        }
        for (name, help, histogram) in [
            ("fovea_wait_seconds", "Time in the queue.", &self.waited),
            ("fovea_first_token_seconds", "Time from the request to the first token.", &self.first_token),
            ("fovea_answer_seconds", "Time from the request to the complete answer.", &self.answer),
        ] {
            head(to, name, "histogram", help)?;
            histogram.write(to, name)?;
        }
        if let Some(Info { name, device, dtype }) = &*lock(&self.model) {
            head(to, "fovea_model_info", "gauge", "The model.")?;
            let [name, device, dtype] = [name, device, dtype].map(|text| escaped(text));
            writeln!(to, "fovea_model_info{{name=\"{name}\",device=\"{device}\",dtype=\"{dtype}\"}} 1")?;
        }
        Ok(())
    }
}

impl Histogram {
    fn write(&self, to: &mut String, name: &str) -> fmt::Result {
        let mut below = 0;
        let bounds = SECONDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&self.counts) {
            below += count.load(Relaxed);
            writeln!(to, "{name}_bucket{{le=\"{bound}\"}} {below}")?;
        }
        let seconds = self.microseconds.load(Relaxed) as f64 / 1e6;
        // The count is that of the last bucket, even while another thread adds to them.
        writeln!(to, "{name}_sum {seconds}\n{name}_count {below}")
    }
}

fn head(to: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(to, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

/// The value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_histogram_is_cumulative() {
        let metrics = Metrics::default();
        for milliseconds in [5, 10, 200, 400_000] {
            metrics.started(Duration::from_millis(milliseconds));
        }
        let text = metrics.render();
        for line in [
            "fovea_wait_seconds_bucket{le=\"0.01\"} 2",
            "fovea_wait_seconds_bucket{le=\"0.1\"} 2",
            "fovea_wait_seconds_bucket{le=\"0.25\"} 3",
            "fovea_wait_seconds_bucket{le=\"300\"} 3",
            "fovea_wait_seconds_bucket{le=\"+Inf\"} 4",
            "fovea_wait_seconds_sum 400.215",
            "fovea_wait_seconds_count 4",
            "fovea_running 1",
        ] {
            assert!(text.lines().any(|own| own == line), "expected {line:?} in\n{text}");
        }
        metrics.ended();
        assert!(metrics.render().contains("\nfovea_running 0\n"));
    }

    #[test]
    fn labels_are_escaped_and_responses_are_counted() {
        let metrics = Metrics::default();
        metrics.loaded("a \"b\"", "c\\d", "q8\nq4");
        metrics.response("/v1/models", 200);
        metrics.response("/v1/models", 200);
        metrics.response("other", 404);
        let text = metrics.render();
        for line in [
            r#"fovea_model_info{name="a \"b\"",device="c\\d",dtype="q8\nq4"} 1"#,
            r#"fovea_responses_total{route="/v1/models",status="200"} 2"#,
            r#"fovea_responses_total{route="other",status="404"} 1"#,
            "fovea_ready 1",
        ] {
            assert!(text.lines().any(|own| own == line), "expected {line:?} in\n{text}");
        }
    }

    #[test]
    fn every_sample_follows_the_help_and_the_type_of_its_metric() {
        let metrics = Metrics::default();
        metrics.loaded("name", "device", "f32");
        metrics.response("other", 500);
        metrics.cache(3, 2, 100);
        let text = metrics.render();
        assert!(text.ends_with('\n'), "the last line must end with a line break");
        let (mut current, mut kind, mut seen) = ("", "", BTreeSet::new());
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                current = help.split(' ').next().unwrap_or_default();
                assert!(seen.insert(current), "{current} is there twice");
            } else if let Some(of) = line.strip_prefix("# TYPE ") {
                let (name, of) = of.split_once(' ').expect("name and type");
                assert_eq!(name, current, "name of the type (got, expected)");
                kind = of;
            } else {
                let (sample, value) = line.rsplit_once(' ').expect("sample and value");
                assert!(value.parse::<f64>().is_ok(), "{line}: expected a number");
                let name = sample.split('{').next().unwrap_or_default();
                let base = ["_bucket", "_sum", "_count"].into_iter().find_map(|end| name.strip_suffix(end));
                let expected = if kind == "histogram" { base } else { Some(name) };
                assert_eq!(expected, Some(current), "{line}: metric (got, expected)");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}: name of a counter");
            }
        }
        assert!(seen.contains("fovea_cache_evictions_total") && text.contains("\nfovea_cache_evictions_total 3\n"));
    }
}
