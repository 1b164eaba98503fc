//! The page in a browser: served by the test, run without a window, and heard through its own requests.
//!
//! The page needs no driver: under `?report` it posts every line of progress and its report to the server it came from.
//! A browser gets a home of its own that is gone afterwards, and never outlives the test.

use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use fovea_web_bundle::serve::{Call, Method, Reply, Server, file_of};
use serde_json::Value as Json;
use tempfile::TempDir;

/// A browser that has WebGPU in workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Browser {
    /// Chromium, or Chrome. WebGPU is drawn by its own SwiftShader, whatever the machine has.
    Chromium,
    /// Firefox, with the machine's Vulkan.
    Firefox,
}

/// Without a window, and without a sandbox, which root does not get. A GPU drawn by the CPU is slow, and not hung. What a
/// browser asks of its own accord ends at a closed port; this machine's own addresses go past any proxy.
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

/// WebGPU also on a driver that is no GPU; no pages of a first run; and requests as above.
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

/// Starts a program and ends it with all its children as soon as stdin does, however the test went away; and itself
/// where the program ends first. The shell leads a process group, which browsers stay in.
const LEASH: &str = r#"{ "$@" </dev/null; echo "it ended with status $?"; kill -KILL 0; } & read -r _; kill -KILL 0"#;

/// How often is looked whether the browser still runs.
const TICK: Duration = Duration::from_millis(200);

impl Browser {
    /// What it is called here.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chromium => "chromium",
            Self::Firefox => "firefox",
        }
    }

    /// Where it is, if it is in PATH.
    pub fn executable(self) -> Option<PathBuf> {
        let names: &[&str] = match self {
            Self::Chromium => &["chromium", "chromium-browser", "google-chrome"],
            Self::Firefox => &["firefox-esr", "firefox"],
        };
        let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH")?).collect();
        names.iter().flat_map(|name| folders.iter().map(move |f| f.join(name))).find(|file| file.is_file())
    }

    /// The command that shows `url` with all that it keeps below `home`.
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

/// What answers requests before the page's folder does; None where that is left to the folder.
pub type Before<'a> = &'a (dyn Fn(&Call) -> Option<Reply> + Sync);

/// What the page told.
enum Told {
    /// A line of progress.
    Line(String),
    /// The report, or why there is none.
    End(Result<Json, String>),
}

/// Opens an `address` in the folder `page` that asks for a report, and returns that.
///
/// One browser runs at a time: two on one CPU would each look hung. `timeout` begins when this one does.
///
/// # Errors
/// A sentence: the page's own, or that the browser did not start, ended, or took too long.
pub fn report(browser: Browser, page: &Path, address: &str, before: Before, timeout: Duration) -> Result<Json, String> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::listen(0).map_err(|e| e.to_string())?;
    let (tell, told) = channel();
    thread::scope(|scope| {
        let _stop = Stop(&server);
        scope.spawn(|| server.run(|call| answer(call, page, before, &tell)));
        let mut running = Running::start(browser, &server.url(address))?;
        running.listen(&told, timeout)
    })
}

/// The server's answer: the page's posts are taken, then whoever comes before the folder is asked, then the folder.
fn answer(call: &Call, page: &Path, before: Before, tell: &Sender<Told>) -> Reply {
    if call.method == Method::Post {
        let told = match call.path.as_str() {
            "progress" => Told::Line(call.body.clone()),
            "report" => Told::End(reported(&call.body)),
            _ => return Reply::Missing,
        };
        // Nobody listens any more once the report is there.
        let _ = tell.send(told);
        return Reply::Taken;
    }
    before(call).unwrap_or_else(|| file_of(page, call))
}

/// The report out of what the page posted.
fn reported(text: &str) -> Result<Json, String> {
    let mut end: Json = serde_json::from_str(text).map_err(|e| format!("expected a report, got {text:?}: {e}"))?;
    match end["error"].as_str() {
        Some(why) => Err(why.to_owned()),
        None if end["report"].is_null() => Err(format!("expected a report, got {text}")),
        None => Ok(end["report"].take()),
    }
}

/// Stops the server when it goes.
struct Stop<'a>(&'a Server);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// A browser that runs; gone with its children and its files when this goes.
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
            // Crash logs go to where it stands.
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

    /// Passes progress on to stderr until the end is told.
    fn listen(&mut self, told: &Receiver<Told>, timeout: Duration) -> Result<Json, String> {
        let name = self.browser.name();
        let start = Instant::now();
        let mut last = "nothing".to_owned();
        while start.elapsed() < timeout {
            match told.recv_timeout(TICK) {
                Ok(Told::Line(line)) => {
                    say(&format!("{name} {:>6.1} s  {line}", start.elapsed().as_secs_f64()));
                    last = line;
                }
                Ok(Told::End(end)) => return end,
                Err(_) => {
                    if let Ok(Some(_)) = self.leash.try_wait() {
                        return Err(format!("expected a report, but {name} ended; {}", self.words(&last)));
                    }
                }
            }
        }
        Err(format!("expected a report of {name} within {timeout:?}, got none; {}", self.words(&last)))
    }

    /// What page and browser said last.
    fn words(&self, last: &str) -> String {
        let log = fs::read(self.home.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        // Chromium looks for a desktop's bus, and complains for lines where there is none.
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("dbus")).collect();
        let tail = lines[lines.len().saturating_sub(8)..].join("\n");
        format!("the page said last: {last}; the browser:\n{tail}")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.hand.take());
        // The shell ends itself; where it doesn't, there is no group to end and no more to be done than this.
        let until = Instant::now() + Duration::from_secs(5);
        while matches!(self.leash.try_wait(), Ok(None)) && Instant::now() < until {
            thread::sleep(TICK / 10);
        }
        let _ = self.leash.kill();
        let _ = self.leash.wait();
        // Processes that were just told to die may still hold files for a moment.
        while fs::remove_dir_all(self.home.path()).is_err() && Instant::now() < until {
            thread::sleep(TICK);
        }
    }
}

/// A line for whoever waits.
fn say(line: &str) {
    // Not `eprintln!`, which the test harness swallows where the test passes.
    writeln!(io::stderr(), "{line}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_post_is_a_report_or_says_why_not() {
        assert_eq!(reported(r#"{"report": {"a": 1}}"#), Ok(serde_json::json!({"a": 1})));
        assert_eq!(reported(r#"{"error": "no GPU"}"#), Err("no GPU".to_owned()));
        assert!(reported("{}").is_err_and(|e| e.contains("expected a report")));
        assert!(reported("nonsense").is_err_and(|e| e.contains("expected a report")));
    }
}
