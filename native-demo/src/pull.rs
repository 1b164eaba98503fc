//! `fovea pull`: downloads a checkpoint from the Hugging Face hub into its cache, where `--model ORG/NAME` finds it.

mod files;
mod hub;
mod store;

use std::{
    cell::Cell,
    env,
    io::{Error, ErrorKind},
    rc::Rc,
};

use fovea_model::{Checkpoint, Outline};
use fovea_runtime::{
    hub_cache::{self, Repository},
    source::{ReadAt, Source},
};
use fovea_terminal::{failure::Failure, text};

use self::{
    hub::{Hub, OnHub, Remote},
    store::{State, Store},
};
use crate::args::PullArgs;

/// A file of the checkpoint.
struct Wanted {
    file: Remote,
    state: State,
}

impl Wanted {
    /// Bytes to download.
    fn missing(&self) -> u64 {
        match self.state {
            State::Whole => 0,
            State::Wrong => self.file.size,
            State::Missing(bytes) => bytes,
        }
    }

    /// Bytes of disk space to download it. A wrong file is removed first.
    fn space(&self) -> u64 {
        if self.state == State::Wrong { 0 } else { self.missing() }
    }
}

/// Downloads what is missing or wrong, and prints the folder of the files; with `--dry-run` prints what it would
/// download.
pub fn run(args: &PullArgs) -> Result<(), Failure> {
    let repository = &args.repository;
    if offline() {
        return without_network(args);
    }
    let cache = hub_cache::cache();
    let unknown = "the cache of the Hugging Face hub is not known: set HF_HOME or HOME";
    let cache = cache.ok_or_else(|| Failure::Usage(unknown.to_owned()))?;
    let hub = Rc::new(Hub::new(repository)?);
    let info = hub.info()?;
    let store = Store::new(cache, hub.repo(), &info.sha, args.check);
    let wanted = |name: &String| -> Result<Wanted, Failure> {
        let file = hub.file(&info.sha, name)?;
        Ok(Wanted { state: store.state(&file), file })
    };
    let files: Vec<Wanted> = files::needed(&hub, &info, &args.files)?.iter().map(wanted).collect::<Result<_, _>>()?;
    let free = store.free_space();
    let overview = overview(repository, &info.sha, &files, free);
    if args.dry_run {
        return text::out(|to| writeln!(to, "{overview}"));
    }
    text::note(&overview);
    let space = total(files.iter().map(Wanted::space));
    if let Some(free) = free.filter(|free| *free < space) {
        let [space, free] = text::apart(space, free);
        let why = format!(
            "expected {space} of free disk space, got {free}; delete something, or set HF_HOME to a folder on another \
             disk"
        );
        let file = store.folder().display().to_string();
        return Err(Failure::Write { file, why: Error::new(ErrorKind::StorageFull, why) });
    }
    let (settings, weights) = files.split_at(files.partition_point(|wanted| !files::is_weights(&wanted.file.name)));
    download(&hub, &store, settings)?;
    // An architecture that is not supported is an error before the large files are downloaded.
    if !settings.is_empty() {
        pollster::block_on(Outline::open(&Source::directory(store.folder())?))?;
    } else if weights.iter().any(|wanted| wanted.missing() > 0) {
        check_headers(&hub, &info.sha, weights)?;
    }
    download(&hub, &store, weights)?;
    store.name_revision(hub.repo().revision())?;
    let chosen = chosen(args);
    text::out(|to| writeln!(to, "{}{chosen}", store.folder().display()))?;
    text::note(&format!("next: `fovea inspect {repository}{chosen}`"));
    Ok(())
}

/// What follows the name of the checkpoint in `--model`, so that it opens the GGUF files of `--file`.
fn chosen(args: &PullArgs) -> String {
    if args.files.is_empty() { String::new() } else { format!(":{}", args.files.join(",")) }
}

/// Opens the checkpoint of two GGUF files on the hub. Only their headers are downloaded.
fn check_headers(hub: &Rc<Hub>, commit: &str, files: &[Wanted]) -> Result<(), Failure> {
    let failure = Rc::new(Cell::new(None));
    let named = |Wanted { file, .. }: &Wanted| {
        let (name, failure) = (file.name.clone(), failure.clone());
        let on_hub = OnHub { hub: hub.clone(), commit: commit.to_owned(), name, size: file.size, failure };
        (file.name.clone(), Box::new(on_hub) as Box<dyn ReadAt>)
    };
    let source = Source::from_files(&hub.repo().url(), files.iter().map(named));
    let opened = pollster::block_on(Checkpoint::open(source));
    match failure.take() {
        Some(failure) => Err(failure),
        None => Ok(opened.map(drop)?),
    }
}

/// Downloads into the cache, with one progress bar for all files that are not complete.
fn download(hub: &Hub, store: &Store, files: &[Wanted]) -> Result<(), Failure> {
    let bar = text::progress_bar("{msg:20!} {bar:14} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    bar.set_length(total(files.iter().filter(|wanted| wanted.missing() > 0).map(|wanted| wanted.file.size)));
    let mut before = 0;
    for wanted in files {
        let (file, missing) = (&wanted.file, wanted.missing());
        let size = if missing > 0 { file.size } else { 0 };
        bar.set_message(file.name.clone());
        bar.set_position(before + size - missing);
        // What an earlier run has downloaded does not count for the speed.
        bar.reset_eta();
        store.fetch(hub, file, wanted.state, |bytes| bar.set_position(before + bytes))?;
        before += size;
    }
    bar.finish_and_clear();
    Ok(())
}

/// The files with their sizes, what is in the cache, and the free disk space.
fn overview(repository: &Repository, commit: &str, files: &[Wanted], free: Option<u64>) -> String {
    let mut lines = vec![format!("{repository}, commit {commit}")];
    let widest = files.iter().map(|wanted| wanted.file.name.len()).max().unwrap_or(0);
    for Wanted { file, state } in files {
        let there = match *state {
            State::Whole => "  in the cache".to_owned(),
            State::Wrong => "  wrong in the cache: it is downloaded again".to_owned(),
            State::Missing(missing) if missing < file.size => format!("  {} missing", text::bytes(missing)),
            State::Missing(_) => String::new(),
        };
        lines.push(format!("  {:widest$}  {:>10}{there}", file.name, text::bytes(file.size)));
    }
    lines.push(format!(
        "{} in {}, {} to download, {} free on the disk",
        text::bytes(total(files.iter().map(|wanted| wanted.file.size))),
        text::counted(files.len(), "file"),
        text::bytes(total(files.iter().map(Wanted::missing))),
        free.map_or("unknown".to_owned(), text::bytes)
    ));
    lines.join("\n")
}

/// The sum of sizes, which a server can choose freely.
fn total(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.fold(0, u64::saturating_add)
}

/// Whether `HF_HUB_OFFLINE` is set, in the words that `huggingface_hub` accepts.
fn offline() -> bool {
    let value = env::var("HF_HUB_OFFLINE").unwrap_or_default().to_ascii_uppercase();
    ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
}

/// Prints the folder in the cache, if it has what a checkpoint needs; nothing is compared with the hub.
fn without_network(args: &PullArgs) -> Result<(), Failure> {
    let repository = &args.repository;
    let refused = |why: String| {
        Err(Failure::Network(format!("{why}, and HF_HUB_OFFLINE is set; remove this variable to download")))
    };
    if args.check {
        return refused("--check compares with the hub".to_owned());
    }
    let Some(folder) = hub_cache::exact_snapshot(repository) else {
        return refused(format!("{repository} is not in the cache"));
    };
    if let Some(why) = files::missing(&folder, &args.files) {
        return refused(format!("{repository} is not complete in the cache: {why}"));
    }
    text::note("note: HF_HUB_OFFLINE is set: the files are not compared with the hub");
    text::out(|to| writeln!(to, "{}{}", folder.display(), chosen(args)))
}
