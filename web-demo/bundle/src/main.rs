//! `fovea-web-bundle`: makes the static folder of the page, tells what it weighs, and serves it on request.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use fovea_web_bundle::{
    BundleError, CHUNK, MANIFEST, MOST, Size, build, manifest, root,
    serve::{Server, file_of},
    shrink, sizes, total,
};

/// Make the static folder of the page: the engine as wasm, its bindings, and the page's files.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Where the folder goes [default: target/page of the workspace].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Compile the engine to be small, and not to be compiled soon: the first time takes a quarter of an hour.
    #[arg(long)]
    small: bool,
    /// Shrink the engine with this wasm-opt, as the npm package binaryen has it: takes minutes, and names are lost.
    #[arg(long, value_name = "FILE")]
    wasm_opt: Option<PathBuf>,
    /// Fail where everything but weights has more bytes than this after gzip. Without it, more than 4 MB are only told.
    #[arg(long, value_name = "BYTES")]
    most: Option<u64>,
    /// Serve the folder to this machine's browsers, until stopped.
    #[arg(long, value_name = "PORT")]
    serve: Option<u16>,
    /// Instead: write into the checkpoint's folder DIR a fovea.json, by which pages that download it check every chunk.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "serve", "small", "wasm_opt", "most"])]
    manifest: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.manifest.as_deref().map_or_else(|| run(&cli), write_manifest) {
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

fn run(cli: &Cli) -> Result<(), BundleError> {
    let out = cli.out.clone().unwrap_or_else(|| root().join("target/page"));
    build(&out, if cli.small { "small" } else { "dev" })?;
    if let Some(wasm_opt) = &cli.wasm_opt {
        shrink(&out, wasm_opt)?;
    }
    println!("{}", out.display());
    weigh(&sizes(&out)?, cli.most)?;
    if let Some(port) = cli.serve {
        let server = Server::listen(port)?;
        for page in ["index.html", "conformance.html"] {
            println!("{}", server.url(page));
        }
        server.run(|call| file_of(&out, call));
    }
    Ok(())
}

/// Prints what every file weighs, and what all of them and all but the weights do.
fn weigh(files: &[Size], most: Option<u64>) -> Result<(), BundleError> {
    let all = total("all", files);
    let rest = total("all but weights", files.iter().filter(|s| !s.is_weights()));
    println!("{:>12} {:>12}", "bytes", "gzipped");
    for Size { file, raw, gzipped } in files.iter().chain([&all, &rest]) {
        println!("{raw:>12} {gzipped:>12}  {}", file.display());
    }
    let got = rest.gzipped;
    match most {
        Some(most) if got > most => Err(BundleError::Heavy { most, got }),
        None if got > MOST => {
            eprintln!("note: {}; to publish it take --small and --wasm-opt", BundleError::Heavy { most: MOST, got });
            Ok(())
        }
        _ => Ok(()),
    }
}
