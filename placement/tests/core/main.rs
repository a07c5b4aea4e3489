//! Golden scripts and property tests of placement's core.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod balance;
mod cluster;
mod found;
mod labels;
mod lifecycle;
mod limits;
mod loads;
mod operators;
mod oracle;
mod own;
mod rules;
mod schedule;
mod split;
mod state;
mod support;
mod tree;
