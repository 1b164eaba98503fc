//! Runs a page in a headless browser, which the test serves, and receives its report.
//!
//! No driver is needed: with `?report` the page imports `web-demo/checks/report/report.js`, which posts progress and the report to
//! the server. The browser has a temporary profile, and ends with the test at the latest.

use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use fovea_web_bundle::{
    root,
    serve::{Method, Reply, Request, Server, file_of},
};
use serde_json::Value as Json;
use tempfile::TempDir;

/// A browser with WebGPU in workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Browser {
    /// Chromium or Chrome, with its own software GPU (SwiftShader).
    Chromium,
    /// Firefox, with the machine's Vulkan driver.
    Firefox,
}

/// Headless, and without a sandbox, which does not work for root. The watchdog is off because a software GPU is slow. The proxy
/// is a closed port, so the browser's own requests fail; requests to this machine bypass it.
const CHROMIUM: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--disable-gpu-watchdog",
    "--disable-dev-shm-usage",
    "--proxy-server=127.0.0.1:9",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
];

/// WebGPU also on a software GPU; no first-run pages; and the proxy as above.
const FIREFOX: &str = r#"
user_pref("dom.webgpu.enabled", true);
user_pref("gfx.webgpu.ignore-blocklist", true);
user_pref("dom.ipc.processHangMonitor", false);
user_pref("network.proxy.type", 1);
user_pref("network.proxy.http", "127.0.0.1");
user_pref("network.proxy.http_port", 9);
user_pref("network.proxy.ssl", "127.0.0.1");
user_pref("network.proxy.ssl_port", 9);
user_pref("network.proxy.failover_direct", false);
user_pref("network.dns.disablePrefetch", true);
user_pref("network.http.speculative-parallel-limit", 0);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("network.trr.mode", 5);
user_pref("app.normandy.enabled", false);
user_pref("app.update.disabledForTesting", true);
user_pref("browser.aboutwelcome.enabled", false);
user_pref("browser.preonboarding.enabled", false);
user_pref("browser.safebrowsing.update.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.homepage_override.mstone", "ignore");
user_pref("browser.startup.page", 0);
user_pref("datareporting.healthreport.uploadEnabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("extensions.update.enabled", false);
user_pref("media.gmp-manager.updateEnabled", false);
user_pref("termsofuse.bypassNotification", true);
user_pref("toolkit.telemetry.enabled", false);
user_pref("toolkit.telemetry.unified", false);
"#;

/// Starts a program, and kills it with all its children when stdin closes, which happens however the test ends. If the program
/// ends first, the shell ends, too. The shell leads a process group, in which the browser's processes stay.
const LEASH: &str = r#"{ "$@" </dev/null; echo "it ended with status $?"; kill -KILL 0; } & read -r _; kill -KILL 0"#;

/// Interval of the checks whether the browser still runs.
const TICK: Duration = Duration::from_millis(200);

impl Browser {
    /// The name in messages and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chromium => "chromium",
            Self::Firefox => "firefox",
        }
    }

    /// The executable, if it is in PATH.
    pub fn executable(self) -> Option<PathBuf> {
        let names: &[&str] = match self {
            Self::Chromium => &["chromium", "chromium-browser", "google-chrome"],
            Self::Firefox => &["firefox-esr", "firefox"],
        };
        let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH")?).collect();
        names.iter().flat_map(|name| folders.iter().map(move |f| f.join(name))).find(|file| file.is_file())
    }

    /// The command that opens `url`, with all files below `home`.
    fn command(self, home: &Path, url: &str) -> Result<Vec<String>, String> {
        let program = self.executable().ok_or_else(|| format!("expected {} in PATH, found none", self.name()))?;
        let mut words = vec![program.display().to_string()];
        let profile = home.join("profile");
        match self {
            Self::Chromium => {
                words.extend(CHROMIUM.iter().map(ToString::to_string));
                words.push(format!("--user-data-dir={}", profile.display()));
            }
            Self::Firefox => {
                fs::write(profile.join("user.js"), FIREFOX).map_err(|e| format!("{}: {e}", profile.display()))?;
                words.extend(["--headless", "--no-remote", "--profile"].map(str::to_owned));
                words.push(profile.display().to_string());
            }
        }
        words.push(url.to_owned());
        Ok(words)
    }
}

/// Answers requests before the page's folder does; None leaves a request to the folder.
pub type Before<'a> = &'a (dyn Fn(&Request) -> Option<Reply> + Sync);

/// A message of the page.
enum Message {
    /// A line of progress.
    Line(String),
    /// The report, or an error.
    End(Result<Json, String>),
}

/// Opens an `address` with `?report` in the folder `page`, and returns the page's report.
///
/// `timeout` begins when the browser starts. Browsers that run at the same time share the cores.
///
/// # Errors
/// A sentence: from the page, or that the browser did not start, ended early, or took too long.
pub fn report(browser: Browser, page: &Path, address: &str, before: Before, timeout: Duration) -> Result<Json, String> {
    let server = Server::listen(0).map_err(|e| e.to_string())?;
    let (sender, messages) = channel();
    thread::scope(|scope| {
        let _stop = Stop(&server);
        scope.spawn(|| server.run(|request| answer(request, page, before, &sender)));
        let mut running = Running::start(browser, &server.url(address))?;
        running.listen(&messages, timeout)
    })
}

/// The server's response: to the page's posts, then from `before`, the tests' own scripts, and the page's folder.
fn answer(request: &Request, page: &Path, before: Before, sender: &Sender<Message>) -> Reply {
    if request.method == Method::Post {
        let message = match request.path.as_str() {
            "progress" => Message::Line(request.body.clone()),
            "report" => Message::End(reported(&request.body)),
            _ => return Reply::Missing,
        };
        // Fails after the report, when nothing receives any more.
        let _ = sender.send(message);
        return Reply::Empty;
    }
    before(request).unwrap_or_else(|| match file_of(&root().join("web-demo/checks/report"), request) {
        Reply::File(script) if script.is_file() => Reply::File(script),
        _ => file_of(page, request),
    })
}

/// Reads the posted report.
fn reported(text: &str) -> Result<Json, String> {
    let mut end: Json = serde_json::from_str(text).map_err(|e| format!("expected a report, got {text:?}: {e}"))?;
    match end["error"].as_str() {
        Some(why) => Err(why.to_owned()),
        None if end["report"].is_null() => Err(format!("expected a report, got {text}")),
        None => Ok(end["report"].take()),
    }
}

/// Stops the server when dropped.
struct Stop<'a>(&'a Server);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// A running browser. Dropping this ends it with its children, and deletes its files.
struct Running {
    browser: Browser,
    leash: Child,
    hand: Option<ChildStdin>,
    home: TempDir,
}

impl Running {
    fn start(browser: Browser, url: &str) -> Result<Self, String> {
        let failed = |why: io::Error| format!("expected to start {}, got: {why}", browser.name());
        let home = tempfile::tempdir().map_err(failed)?;
        for folder in ["profile", "tmp"] {
            fs::create_dir(home.path().join(folder)).map_err(failed)?;
        }
        let log = File::create(home.path().join("log")).map_err(failed)?;
        let mut leash = Command::new("sh");
        leash
            .args(["-c", LEASH, "sh"])
            .args(browser.command(home.path(), url)?)
            .envs(["HOME", "XDG_RUNTIME_DIR"].map(|name| (name, home.path())))
            .env("TMPDIR", home.path().join("tmp"))
            .env("MOZ_CRASHREPORTER_DISABLE", "1")
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_DATA_HOME")
            // Crash logs are written to the current directory.
            .current_dir(home.path())
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log);
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut leash, 0);
        let mut leash = leash.spawn().map_err(failed)?;
        let hand = leash.stdin.take();
        Ok(Self { browser, leash, hand, home })
    }

    /// Prints progress to stderr, until the report arrives.
    fn listen(&mut self, messages: &Receiver<Message>, timeout: Duration) -> Result<Json, String> {
        let name = self.browser.name();
        let start = Instant::now();
        let mut last = "nothing".to_owned();
        while start.elapsed() < timeout {
            match messages.recv_timeout(TICK) {
                Ok(Message::Line(line)) => {
                    say(&format!("{name} {:>6.1} s  {line}", start.elapsed().as_secs_f64()));
                    last = line;
                }
                Ok(Message::End(end)) => return end,
                Err(_) => {
                    if let Ok(Some(_)) = self.leash.try_wait() {
                        return Err(format!("expected a report, but {name} ended; {}", self.words(&last)));
                    }
                }
            }
        }
        Err(format!("expected a report of {name} within {timeout:?}, got none; {}", self.words(&last)))
    }

    /// The last messages of the page and the browser, for an error.
    fn words(&self, last: &str) -> String {
        let log = fs::read(self.home.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        // Without a desktop bus, Chromium prints many lines about it.
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("dbus")).collect();
        let tail = lines[lines.len().saturating_sub(8)..].join("\n");
        format!("the page's last line: {last}; the browser's last lines:\n{tail}")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.hand.take());
        // The closed stdin ends the shell and its group. If it does not, at least the shell is killed.
        let until = Instant::now() + Duration::from_secs(5);
        while matches!(self.leash.try_wait(), Ok(None)) && Instant::now() < until {
            thread::sleep(TICK / 10);
        }
        let _ = self.leash.kill();
        let _ = self.leash.wait();
        // Killed processes may still write files for a moment.
        while fs::remove_dir_all(self.home.path()).is_err() && Instant::now() < until {
            thread::sleep(TICK);
        }
    }
}

/// Prints a line to stderr.
fn say(line: &str) {
    // Not `eprintln!`, whose output the test harness hides if the test passes.
    writeln!(io::stderr(), "{line}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_post_is_a_report_or_an_error() {
        assert_eq!(reported(r#"{"report": {"a": 1}}"#), Ok(serde_json::json!({"a": 1})));
        assert_eq!(reported(r#"{"error": "no GPU"}"#), Err("no GPU".to_owned()));
        assert!(reported("{}").is_err_and(|e| e.contains("expected a report")));
        assert!(reported("nonsense").is_err_and(|e| e.contains("expected a report")));
    }
}
