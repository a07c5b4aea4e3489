//! The SDK: routing, batching, retries.
