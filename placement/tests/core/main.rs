//! Golden scripts and property tests of placement's core.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod balance;
mod cluster;
mod lifecycle;
mod operators;
mod oracle;
mod split;
mod state;
mod support;
mod tree;
