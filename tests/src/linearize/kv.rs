//! Histories over many keys.
//!
//! A history over independent objects is linearizable exactly if its part on
//! each object is. So [`check_kv`] cuts it by key, and no key pays for the
//! concurrency of another.
//!
//! Batches and scans are cut as well, by [`parts`] and [`scanned`]: each key of
//! them becomes an operation of its own over the same interval. That demands of
//! a batch only what the raw API promises, atomicity a key. A history that is
//! to prove a batch atomic as a whole needs another model.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use super::register::{KvInput, KvModel, KvOutput, show};
use super::{DEFAULT_BUDGET, Illegal, Operation, Verdict, check_within};

/// One operation on one key.
pub type KvOperation = Operation<KeyedInput, KvOutput>;

/// What a client asks, and of which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedInput {
    /// The key.
    pub key: Vec<u8>,
    /// What is asked of it.
    pub input: KvInput,
}

impl KeyedInput {
    /// `input` for `key`.
    pub fn new(key: impl Into<Vec<u8>>, input: KvInput) -> KeyedInput {
        KeyedInput { key: key.into(), input }
    }
}

/// What [`check_kv`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum KvVerdict {
    /// The history of every key is linearizable.
    Linearizable,
    /// The history of this key is not, and it is the first such key.
    Illegal {
        /// The key.
        key: Vec<u8>,
        /// Why; the indices are those of the whole history.
        why: Illegal,
    },
    /// The budget ran out on these keys, and no other key is at fault.
    Unknown {
        /// The keys, in order.
        keys: Vec<Vec<u8>>,
    },
}

impl fmt::Display for KvVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KvVerdict::Linearizable => write!(f, "linearizable"),
            KvVerdict::Illegal { key, why } => {
                write!(f, "key {} is not linearizable\n{}", show(key), why.explanation)
            }
            KvVerdict::Unknown { keys } => {
                let keys: Vec<String> = keys.iter().map(|key| show(key)).collect();
                write!(f, "undecided within the budget: keys {}", keys.join(", "))
            }
        }
    }
}

/// Checks a history in which every key is absent at first.
///
/// Spends at most [`DEFAULT_BUDGET`] model steps a key.
///
/// # Panics
/// As [`check`](super::check).
pub fn check_kv(history: &[KvOperation]) -> KvVerdict {
    check_kv_within(history, DEFAULT_BUDGET)
}

/// [`check_kv`] with a budget of the caller's choice, in model steps a key.
///
/// # Panics
/// As [`check`](super::check).
pub fn check_kv_within(history: &[KvOperation], budget: u64) -> KvVerdict {
    let mut by_key: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
    for (i, op) in history.iter().enumerate() {
        by_key.entry(&op.input.key).or_default().push(i);
    }

    let mut undecided = Vec::new();
    for (key, mut indices) in by_key {
        let seen = seen_values(indices.iter().map(|&i| &history[i]));
        indices.retain(|&i| history[i].output.is_some() || may_matter(&history[i], &seen));
        let ops: Vec<_> = indices.iter().map(|&i| without_key(&history[i])).collect();
        match check_within(&KvModel::default(), &ops, budget) {
            Verdict::Linearizable => {}
            Verdict::Unknown { .. } => undecided.push(key.to_vec()),
            Verdict::Illegal(mut why) => {
                why.prefix.iter_mut().for_each(|i| *i = indices[*i]);
                why.stuck = indices[why.stuck];
                return KvVerdict::Illegal { key: key.to_vec(), why };
            }
        }
    }
    if undecided.is_empty() {
        KvVerdict::Linearizable
    } else {
        KvVerdict::Unknown { keys: undecided }
    }
}

/// Cuts a batch into one operation a key, over the interval of the batch.
///
/// The output holds the answer to each input, in their order, or is `None` when
/// the outcome of the batch is unknown. A missing answer counts as unknown.
pub fn parts(
    batch: Operation<Vec<KeyedInput>, Vec<KvOutput>>,
) -> impl Iterator<Item = KvOperation> {
    let Operation { client, input, output, invoke, ret } = batch;
    let mut answers = output.unwrap_or_default().into_iter();
    input.into_iter().map(move |input| {
        let output = answers.next();
        let ret = if output.is_some() { ret } else { u64::MAX };
        Operation { client, input, output, invoke, ret }
    })
}

/// A scan as gets: what it returned, and the keys it passed over as absent.
///
/// `keys` are the keys that the test ever writes and that lie in the range that
/// the scan covered. A scan that stopped at its limit covered its range only up
/// to the last key it returned. The result is input to [`parts`].
pub fn scanned(
    keys: &BTreeSet<Vec<u8>>,
    returned: &[(Vec<u8>, Vec<u8>)],
) -> (Vec<KeyedInput>, Vec<KvOutput>) {
    let mut values: BTreeMap<&[u8], Option<&[u8]>> =
        keys.iter().map(|key| (key.as_slice(), None)).collect();
    // A key that nobody writes must not be lost: it is a violation by itself.
    values.extend(returned.iter().map(|(key, value)| (key.as_slice(), Some(value.as_slice()))));
    values
        .into_iter()
        .map(|(key, value)| {
            let answer = KvOutput::Value(value.map(<[u8]>::to_vec));
            (KeyedInput::new(key, KvInput::Get), answer)
        })
        .unzip()
}

/// The values that some answer names or some compare-and-set expects.
fn seen_values<'a>(ops: impl Iterator<Item = &'a KvOperation>) -> HashSet<&'a [u8]> {
    let named = |op: &'a KvOperation| {
        let expected = match &op.input.input {
            KvInput::Cas { expected, .. } => expected.as_deref(),
            KvInput::Get | KvInput::Put(_) | KvInput::Delete => None,
        };
        let answered = match &op.output {
            Some(KvOutput::Value(value) | KvOutput::Cas { previous: value, .. }) => {
                value.as_deref()
            }
            Some(KvOutput::Done) | None => None,
        };
        [expected, answered].into_iter().flatten()
    };
    ops.flat_map(named).collect()
}

/// Whether an operation of unknown outcome can explain anything.
///
/// While the key holds a value that nobody saw and no compare-and-set expects,
/// no answer can be explained but that of the next write, which would be the
/// same without it. Tests under faults lose many writes, and most for good.
fn may_matter(lost: &KvOperation, seen: &HashSet<&[u8]>) -> bool {
    match &lost.input.input {
        KvInput::Get => false,
        KvInput::Delete => true,
        KvInput::Put(value) | KvInput::Cas { to: value, .. } => seen.contains(value.as_slice()),
    }
}

fn without_key(op: &KvOperation) -> Operation<KvInput, KvOutput> {
    Operation {
        client: op.client,
        input: op.input.input.clone(),
        output: op.output.clone(),
        invoke: op.invoke,
        ret: op.ret,
    }
}
