//! Simulator, checkers, process tests.

pub mod linearize;
pub mod sim;
pub mod tidy;
