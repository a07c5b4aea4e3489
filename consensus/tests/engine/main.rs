//! The storage engine: the same scripts and the same random steps on both implementations, then
//! what only a disk, or only a simulated crash, can do.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod disk;
mod memory;
mod properties;
mod scripts;
mod subject;
