//! A report to copy: adapter, versions, counts and error codes, and neither picture nor prompt nor path.

use std::fmt::Write;

use fovea_model::words;
use fovea_runtime::{DeviceInfo, memory};

use crate::{
    engine::{About, ModelAt},
    problem::Problem,
    session::{ModelState, Notice, Progress, Session},
};

/// The report as text.
pub fn text(session: &Session) -> String {
    let mut out = format!(
        "Fovea {} (burn 0.22, wgpu 30, egui 0.37)\nsystem: {} {}, {} threads\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
        std::thread::available_parallelism().map_or(1, usize::from),
    );
    let mut line = |what: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{what}: {value}");
    };
    if let Some(have) = memory::host_available() {
        line("host memory available", words::bytes(have));
    }
    for info in session.adapters.iter().flatten() {
        line("adapter", adapter(info));
    }
    match &session.model {
        ModelState::None => line("model", "none".into()),
        ModelState::Loading { model, .. } => line("model", format!("{}, loading", kind(model))),
        ModelState::Broken { model, problem } => line("model", format!("{}, {}", kind(model), problem.code)),
        ModelState::Ready(about) => loaded(about, &mut line),
    }
    let count = |is: fn(&Progress) -> bool| session.turns.iter().filter(|turn| is(&turn.focused.progress)).count();
    let whole = count(|progress| *progress == Progress::Done);
    let stopped = count(|progress| *progress == Progress::Stopped);
    let failed = count(|progress| matches!(progress, Progress::Failed(_)));
    line("answers", format!("{whole} whole, {stopped} stopped, {failed} failed"));
    let mut codes: Vec<&str> = session.notices.iter().filter_map(code).collect();
    codes.extend(session.turns.iter().filter_map(|turn| match &turn.focused.progress {
        Progress::Failed(problem) => Some(problem.code),
        _ => None,
    }));
    if !codes.is_empty() {
        line("errors", codes.join(", "));
    }
    out
}

fn code(notice: &Notice) -> Option<&'static str> {
    match notice {
        Notice::Problem(Problem { code, .. }) => Some(code),
        Notice::Word(_) => None,
    }
}

/// A folder's name is the user's own.
fn kind(model: &ModelAt) -> &'static str {
    match model {
        ModelAt::Demo => "demo checkpoint",
        ModelAt::Folder(_) => "a folder",
    }
}

fn loaded(about: &About, line: &mut impl FnMut(&str, String)) {
    let selector = if about.selector { "scale selector" } else { "no scale selector" };
    line(
        "model",
        format!("{}, {} layers, {selector}, weights {}", kind(&about.model), about.layers, words::bytes(about.weights)),
    );
    line("device", format!("{}, matrices in {}", adapter(&about.device), about.dtype));
}

fn adapter(info: &DeviceInfo) -> String {
    let has = |what: bool, name: &str| if what { name.to_owned() } else { format!("no {name}") };
    format!("{info}, {}, {}, {}", info.driver, has(info.f16, "f16"), has(info.subgroups, "subgroups"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Sampling;

    #[test]
    fn neither_picture_nor_prompt_nor_path_is_in_it() {
        let mut session = Session::default();
        session.ask("Who is my secret friend?", Sampling::default());
        let model = ModelAt::Folder("/home/me/private".into());
        let lost = fovea_model::Error::Runtime(fovea_runtime::Error::DeviceLost("private words".into()));
        session.model = ModelState::Broken { model, problem: Problem::of(&lost) };
        session.notices.push(Notice::Problem(Problem::file("cannot read /home/me/private.png", "")));
        let text = text(&session);
        assert!(text.contains("a folder, device-lost") && text.contains("errors: file"), "{text}");
        for private in ["secret", "private", "/home"] {
            assert!(!text.contains(private), "{private} in {text}");
        }
    }
}
