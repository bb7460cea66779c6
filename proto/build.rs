//! Generates the services' code. The compiler for the `.proto` files is a crate: nothing has to be installed.

use std::error::Error;
use std::path::Path;

/// Where the `.proto` files are.
const DIRECTORY: &str = "proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={DIRECTORY}");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(DIRECTORY)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    // The order of a directory is the system's.
    files.sort();
    let descriptors = protox::compile(&files, [Path::new(DIRECTORY)])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
