//! The placement driver: regions, stores, timestamps, scheduling.
