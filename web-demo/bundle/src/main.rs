//! `fovea-web-bundle`: makes the static folder of the page, tells what it weighs, and serves it on request.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use fovea_web_bundle::{
    BundleError, Size, build, root,
    serve::{Server, file_of},
    sizes,
};

/// Make the static folder of the page: the engine as wasm, its bindings, and the page's files.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Where the folder goes [default: target/web of the workspace].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Serve the folder to this machine's browsers, until stopped.
    #[arg(long, value_name = "PORT")]
    serve: Option<u16>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fovea-web-bundle: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), BundleError> {
    let out = cli.out.clone().unwrap_or_else(|| root().join("target/web"));
    build(&out)?;
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
        println!("{}", server.url("conformance.html"));
        server.run(|call| file_of(&out, call));
    }
    Ok(())
}
