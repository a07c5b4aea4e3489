//! Simulator, checkers, process tests.
