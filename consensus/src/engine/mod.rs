//! The storage engine: reads, and batches that leave as data.
