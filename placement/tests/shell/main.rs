//! A placement member as a process runs it, over loopback.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod clients;
mod founding;
mod group;
mod grow;
mod merges;
mod moves;
#[path = "../../../tests/src/process/ports.rs"]
#[allow(dead_code)]
mod ports;
mod refusals;
mod stores;
mod support;
