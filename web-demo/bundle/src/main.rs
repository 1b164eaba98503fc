//! `fovea-web-bundle`: builds the static folder of the page, prints the sizes of its files, and can serve it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use clap::Parser;
use fovea_web_bundle::{
    BundleError, CHUNK, MANIFEST, MOST, Size, build, manifest, root, run,
    serve::{Server, file_of},
    shrink, sizes, total,
};

/// Build the static folder of the page: the engine as wasm, its bindings, and the page's files.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// The folder [default: target/page of the workspace].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Compile a small engine for publishing: the first build takes a quarter of an hour.
    #[arg(long)]
    small: bool,
    /// Shrink the engine with this wasm-opt (npm package binaryen): takes minutes, and removes function names.
    #[arg(long, value_name = "FILE")]
    wasm_opt: Option<PathBuf>,
    /// Fail if all files but the weights exceed this size after gzip [default: a note above 4 MB].
    #[arg(long, value_name = "BYTES")]
    most: Option<u64>,
    /// Serve the folder on this port of 127.0.0.1, until stopped.
    #[arg(long, value_name = "PORT")]
    serve: Option<u16>,
    /// Serve the folder as it is, without building it.
    #[arg(long, requires = "serve")]
    built: bool,
    /// Instead: write fovea.json into the checkpoint folder DIR, so that pages can verify every downloaded chunk.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "serve", "small", "wasm_opt", "most"])]
    manifest: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.manifest.as_deref().map_or_else(|| build_or_serve(&cli), write_manifest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fovea-web-bundle: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_manifest(folder: &Path) -> Result<(), BundleError> {
    let path = folder.join(MANIFEST);
    let text = manifest(folder, CHUNK)?.to_string();
    fs::write(&path, text).map_err(|why| BundleError::File { path: path.clone(), why })?;
    println!("{}", path.display());
    Ok(())
}

fn build_or_serve(cli: &Cli) -> Result<(), BundleError> {
    let out = cli.out.clone().unwrap_or_else(|| root().join("target/page"));
    let Some(port) = cli.serve else { return bundle(cli, &out) };
    if !cli.built {
        bundle_apart(cli, &out)?;
    }
    let server = Server::listen(port)?;
    for page in ["index.html", "conformance.html"] {
        println!("{}", server.url(page));
    }
    server.run(|request| file_of(&out, request));
    Ok(())
}

/// [`bundle`] in another process: wasm-bindgen needs 1.7 GB, most of which the allocator would keep while this one serves.
fn bundle_apart(cli: &Cli, out: &Path) -> Result<(), BundleError> {
    let program = env::current_exe().map_err(|why| BundleError::Start { command: "fovea-web-bundle".into(), why })?;
    let mut command = Command::new(program);
    command.arg("--out").arg(out).args(cli.small.then_some("--small"));
    if let Some(wasm_opt) = &cli.wasm_opt {
        command.arg("--wasm-opt").arg(wasm_opt);
    }
    if let Some(most) = cli.most {
        command.args(["--most", &most.to_string()]);
    }
    run(&mut command)
}

/// Builds the folder and prints the sizes of its files.
fn bundle(cli: &Cli, out: &Path) -> Result<(), BundleError> {
    build(out, if cli.small { "small" } else { "dev" })?;
    if let Some(wasm_opt) = &cli.wasm_opt {
        shrink(out, wasm_opt)?;
    }
    println!("{}", out.display());
    print_sizes(&sizes(out)?, cli.most)
}

/// Prints the size of every file, of all files, and of all but the weights.
fn print_sizes(files: &[Size], most: Option<u64>) -> Result<(), BundleError> {
    let all = total("all", files);
    let rest = total("all but weights", files.iter().filter(|s| !s.is_weights()));
    println!("{:>12} {:>12}", "bytes", "gzipped");
    for Size { file, raw, gzipped } in files.iter().chain([&all, &rest]) {
        println!("{raw:>12} {gzipped:>12}  {}", file.display());
    }
    let got = rest.gzipped;
    match most {
        Some(most) if got > most => Err(BundleError::TooLarge { most, got }),
        None if got > MOST => {
            eprintln!(
                "note: {}; to publish the page, use --small and --wasm-opt",
                BundleError::TooLarge { most: MOST, got }
            );
            Ok(())
        }
        _ => Ok(()),
    }
}
