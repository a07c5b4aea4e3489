//! The store node: many regions on one engine.
//!
//! [`core`] decides and is plain values; the rest of this crate is the shell that runs it.

pub mod core;
