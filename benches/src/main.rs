//! `cargo run --release -p siltstone-benches -- run fillrandom,readrandom`: see `--help`.

use std::process::ExitCode;

use clap::Parser;
use siltstone_benches::cli::{Cli, execute};

fn main() -> ExitCode {
    match execute(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
