//! `fovea-web-bundle`: makes the static folder of the page, tells what it weighs, and serves it on request.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use fovea_web_bundle::{
    BundleError, CHUNK, MANIFEST, Size, build, manifest, root,
    serve::{Server, file_of},
    shrink, sizes,
};

/// Make the static folder of the page: the engine as wasm, its bindings, and the page's files.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Where the folder goes [default: target/web of the workspace].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Shrink the engine with this wasm-opt, as the npm package binaryen has it: takes minutes, and names are lost.
    #[arg(long, value_name = "FILE")]
    wasm_opt: Option<PathBuf>,
    /// Serve the folder to this machine's browsers, until stopped.
    #[arg(long, value_name = "PORT")]
    serve: Option<u16>,
    /// Instead: write into the checkpoint's folder DIR a fovea.json, by which pages that download it check every chunk.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "serve", "wasm_opt"])]
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
    let out = cli.out.clone().unwrap_or_else(|| root().join("target/web"));
    build(&out)?;
    if let Some(wasm_opt) = &cli.wasm_opt {
        shrink(&out, wasm_opt)?;
    }
    println!("{}", out.display());
    let files = sizes(&out)?;
    let all = Size {
        file: "all".into(),
        raw: files.iter().map(|s| s.raw).sum(),
        gzipped: files.iter().map(|s| s.gzipped).sum(),
    };
    println!("{:>12} {:>12}", "bytes", "gzipped");
    for Size { file, raw, gzipped } in files.iter().chain([&all]) {
        println!("{raw:>12} {gzipped:>12}  {}", file.display());
    }
    if let Some(port) = cli.serve {
        let server = Server::listen(port)?;
        for page in ["index.html", "conformance.html"] {
            println!("{}", server.url(page));
        }
        server.run(|call| file_of(&out, call));
    }
    Ok(())
}
