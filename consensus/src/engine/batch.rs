//! A write batch as plain data: what cores return and engines write.
//!
//! Keys and values are [`Bytes`], so building one copies nothing that is shared already.

use bytes::Bytes;

use super::Cf;

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put {
        /// Where.
        cf: Cf,
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Removes a key; nothing happens where there is none.
    Delete {
        /// Where.
        cf: Cf,
        /// The key.
        key: Bytes,
    },
    /// Removes all keys of `[start, end)`.
    DeleteRange {
        /// Where.
        cf: Cf,
        /// First key.
        start: Bytes,
        /// First key beyond. Never empty: a batch has no unbounded ranges.
        end: Bytes,
    },
}

impl Op {
    /// Bytes of keys and values.
    fn bytes(&self) -> usize {
        match self {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete { key, .. } => key.len(),
            Op::DeleteRange { start, end, .. } => start.len() + end.len(),
        }
    }
}

/// Changes that become visible and durable together, applied in the order they were added.
#[derive(Default, Clone, Debug, PartialEq)]
pub struct WriteBatch {
    ops: Vec<Op>,
    bytes: usize,
}

impl WriteBatch {
    /// An empty batch. Does not allocate.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for `ops` changes.
    pub fn with_capacity(ops: usize) -> Self {
        Self { ops: Vec::with_capacity(ops), bytes: 0 }
    }

    /// Sets a key.
    pub fn put(&mut self, cf: Cf, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.push(Op::Put { cf, key: key.into(), value: value.into() });
    }

    /// Removes a key.
    pub fn delete(&mut self, cf: Cf, key: impl Into<Bytes>) {
        self.push(Op::Delete { cf, key: key.into() });
    }

    /// Removes all keys of `[start, end)`; an `end` at or below `start` removes nothing.
    ///
    /// # Panics
    /// `end` is empty.
    pub fn delete_range(&mut self, cf: Cf, start: impl Into<Bytes>, end: impl Into<Bytes>) {
        let (start, end) = (start.into(), end.into());
        assert!(!end.is_empty(), "a range of a batch has an end");
        if start < end {
            self.push(Op::DeleteRange { cf, start, end });
        }
    }

    /// Adds all changes of `other` after those of this batch.
    pub fn append(&mut self, mut other: WriteBatch) {
        if self.ops.is_empty() {
            *self = other;
            return;
        }
        self.bytes += other.bytes;
        self.ops.append(&mut other.ops);
    }

    /// How many changes it has.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// True without changes.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Removes all changes and keeps the memory.
    pub fn clear(&mut self) {
        self.ops.clear();
        self.bytes = 0;
    }

    /// The changes, in order.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The changes, in order, taken out of the batch.
    pub fn into_ops(self) -> Vec<Op> {
        self.ops
    }

    fn push(&mut self, op: Op) {
        self.bytes += op.bytes();
        self.ops.push(op);
    }
}

impl Extend<Op> for WriteBatch {
    /// # Panics
    /// A range without an end.
    fn extend<I: IntoIterator<Item = Op>>(&mut self, ops: I) {
        for op in ops {
            match op {
                Op::DeleteRange { cf, start, end } => self.delete_range(cf, start, end),
                Op::Put { .. } | Op::Delete { .. } => self.push(op),
            }
        }
    }
}
