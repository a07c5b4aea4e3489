//! Simulator, checkers, process tests.

pub mod linearize;
