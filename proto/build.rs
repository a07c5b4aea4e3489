//! Compiles `proto/*.proto` with protox, so that no protoc is needed.

use std::{error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from("proto");
    println!("cargo:rerun-if-changed=proto");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "proto"))
        .collect();
    files.sort();
    let descriptors = protox::compile(&files, [&folder])?;
    tonic_prost_build::configure()
        .bytes(".")
        // Rare and large: it would make every answer ten times the size.
        .boxed("region_error")
        .codec_path("crate::codec::Messages")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}
