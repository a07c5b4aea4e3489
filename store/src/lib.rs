//! The store node: many regions on one engine.
