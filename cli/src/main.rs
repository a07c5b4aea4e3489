//! The program `quorate`: all of it is in the library beside this file.

use std::process::ExitCode;

/// Frees and reuses small blocks across threads at less cost than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    quorate_cli::run()
}
