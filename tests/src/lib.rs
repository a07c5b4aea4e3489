//! Simulator, checkers, process tests.

pub mod linearize;
pub mod process;
pub mod sim;
pub mod tidy;
