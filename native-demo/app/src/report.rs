//! The report that a user can copy: adapters, versions, counts and error codes; no picture, prompt or path.

use std::fmt::Write;

use fovea_overlay::words;
use fovea_runtime::{DeviceInfo, memory};

use crate::{
    engine::{About, ModelAt},
    problem::Problem,
    session::{ModelState, Notice, RunState, Session},
};

/// The report as text.
pub fn text(session: &Session) -> String {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut out = format!(
        "Fovea {} (burn 0.22, wgpu 30, egui 0.37)\nsystem: {} {}, {threads} thread{}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
        if threads == 1 { "" } else { "s" },
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
    let count = |is: fn(&RunState) -> bool| session.turns.iter().filter(|turn| is(&turn.answer.state)).count();
    let complete = count(|state| *state == RunState::Done);
    let stopped = count(|state| *state == RunState::Stopped);
    let failed = count(|state| matches!(state, RunState::Failed(_)));
    line("answers", format!("{complete} complete, {stopped} stopped, {failed} failed"));
    let mut codes: Vec<&str> = session.notices.iter().filter_map(code).collect();
    codes.extend(session.turns.iter().filter_map(|turn| match &turn.answer.state {
        RunState::Failed(problem) => Some(problem.code),
        _ => None,
    }));
    if !codes.is_empty() {
        line("errors", codes.join(", "));
    }
    out
}

fn code(notice: &Notice) -> Option<&'static str> {
    match notice {
        Notice::Problem(_, Problem { code, .. }) => Some(code),
        Notice::Message(..) => None,
    }
}

/// The kind of checkpoint. A folder's name is private.
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
        format!(
            "{}, {} layers, {selector}, weights {}",
            kind(&about.model),
            about.config.text.n_layers,
            words::bytes(about.weights)
        ),
    );
    line("device", format!("{}, matrices in {}", adapter(&about.device), about.dtype));
}

fn adapter(info: &DeviceInfo) -> String {
    let has = |what: bool, name: &str| if what { name.to_owned() } else { format!("no {name}") };
    format!("{info}, {}, {}, {}", info.driver, has(info.f16, "f16"), has(info.subgroups, "subgroups"))
}

#[cfg(test)]
mod tests {
    use fovea_model::Compression;

    use super::*;
    use crate::{session::Topic, settings::AnswerSettings};

    #[test]
    fn a_report_contains_no_picture_prompt_or_path() {
        let mut session = Session::default();
        let settings = AnswerSettings { system: "You are a secret.".into(), ..AnswerSettings::default() };
        let question = "Who is my secret friend?";
        session.ask(question, session.messages(question, &settings), Compression::none());
        let model = ModelAt::Folder("/home/me/private".into());
        let lost = fovea_model::Error::Runtime(fovea_runtime::Error::DeviceLost("private words".into()));
        session.model = ModelState::Broken { model, problem: Problem::of(&lost) };
        session.problem(Topic::Picture, Problem::file("cannot read /home/me/private.png", ""));
        let text = text(&session);
        assert!(text.contains("a folder, device-lost") && text.contains("errors: file"), "{text}");
        for private in ["secret", "private", "/home"] {
            assert!(!text.contains(private), "{private} in {text}");
        }
    }
}
