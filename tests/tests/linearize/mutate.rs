//! Mutations after which no order can explain a history.
//!
//! Each turns on the values being unique: what a read returns names the one
//! operation that wrote it.

use quorate_tests::linearize::register::{KvInput, KvOutput};
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use crate::generate::{KeyOperation, unique};

/// A named mutation; `apply` is false where the history offers no place for it.
pub(crate) struct Mutation {
    pub(crate) name: &'static str,
    pub(crate) apply: fn(&mut Vec<KeyOperation>, &mut SmallRng) -> bool,
}

pub(crate) const NEVER_WRITTEN: Mutation = Mutation {
    name: "a read of a value never written",
    apply: |history, rng| read_never_written(history, rng),
};

pub(crate) const ALL: [Mutation; 6] = [
    NEVER_WRITTEN,
    Mutation {
        name: "a read of a value overwritten before",
        apply: |history, rng| read_overwritten(history, rng),
    },
    Mutation {
        name: "a read of a value written later",
        apply: |history, rng| read_from_the_future(history, rng),
    },
    Mutation {
        name: "a read that finds nothing",
        apply: |history, rng| read_nothing(history, rng),
    },
    Mutation { name: "an acknowledged write that is lost", apply: lose_a_write },
    Mutation { name: "two swaps of one value", apply: swap_twice },
];

/// Changes the answer of a read to any value, which may well be right.
pub(crate) fn any_read(history: &mut [KeyOperation], rng: &mut SmallRng) {
    let value = rng.random_bool(0.8).then(|| unique(rng.random_range(0..history.len())));
    if let Some(i) = pick(history, rng, |op| is_read(&op.input, op.output.as_ref())) {
        history[i].output = Some(KvOutput::Value(value));
    }
}

pub(crate) fn is_read(input: &KvInput, output: Option<&KvOutput>) -> bool {
    matches!((input, output), (KvInput::Get, Some(_)))
}

pub(crate) fn never_written() -> KvOutput {
    KvOutput::Value(Some(b"never".to_vec()))
}

pub(crate) fn reads_never_written(op: &KeyOperation) -> bool {
    op.output == Some(never_written())
}

fn read_never_written(history: &mut [KeyOperation], rng: &mut SmallRng) -> bool {
    let read = pick(history, rng, |op| is_read(&op.input, op.output.as_ref()));
    read.map(|i| history[i].output = Some(never_written())).is_some()
}

/// Put, later put, later read: the read gets the first of them.
fn read_overwritten(history: &mut [KeyOperation], rng: &mut SmallRng) -> bool {
    let candidates = pairs(history, |read, put| {
        is_read(&read.input, read.output.as_ref())
            && is_put(put)
            && history
                .iter()
                .any(|over| is_put(over) && put.ret < over.invoke && over.ret < read.invoke)
    });
    change(history, rng, candidates)
}

/// Read, later write: the read gets what is not there yet.
fn read_from_the_future(history: &mut [KeyOperation], rng: &mut SmallRng) -> bool {
    let candidates = pairs(history, |read, put| {
        is_read(&read.input, read.output.as_ref())
            && written(&put.input).is_some()
            && read.ret < put.invoke
    });
    change(history, rng, candidates)
}

/// A put that is over, and no delete that may come after it.
fn read_nothing(history: &mut [KeyOperation], rng: &mut SmallRng) -> bool {
    let put_before = |read: &KeyOperation, history: &[KeyOperation]| {
        history.iter().any(|put| {
            let undone = |op: &KeyOperation| {
                op.input == KvInput::Delete && op.ret >= put.invoke && op.invoke <= read.ret
            };
            is_put(put) && put.ret < read.invoke && !history.iter().any(undone)
        })
    };
    let all = history.to_vec();
    let read =
        pick(history, rng, |op| is_read(&op.input, op.output.as_ref()) && put_before(op, &all));
    read.map(|i| history[i].output = Some(KvOutput::Value(None))).is_some()
}

/// A value that somebody read is left without a writer.
fn lose_a_write(history: &mut Vec<KeyOperation>, rng: &mut SmallRng) -> bool {
    let all = history.clone();
    let read = |value: &Vec<u8>| {
        all.iter().any(|op| op.output == Some(KvOutput::Value(Some(value.clone()))))
    };
    let write = pick(history, rng, |op| written(&op.input).is_some_and(read));
    write.map(|i| history.remove(i)).is_some()
}

/// Two clients swap the same value, which is written once.
fn swap_twice(history: &mut Vec<KeyOperation>, rng: &mut SmallRng) -> bool {
    let swapped = pick(history, rng, |op| {
        matches!(
            (&op.input, &op.output),
            (KvInput::Cas { expected: Some(_), .. }, Some(KvOutput::Cas { swapped: true, .. }),)
        )
    });
    let Some(i) = swapped else { return false };
    let mut again = history[i].clone();
    again.client += 1_000;
    if let KvInput::Cas { to, .. } = &mut again.input {
        *to = b"again".to_vec();
    }
    history.push(again);
    true
}

fn is_put(op: &KeyOperation) -> bool {
    matches!((&op.input, &op.output), (KvInput::Put(_), Some(_)))
}

fn written(input: &KvInput) -> Option<&Vec<u8>> {
    match input {
        KvInput::Put(value) | KvInput::Cas { to: value, .. } => Some(value),
        KvInput::Get | KvInput::Delete => None,
    }
}

fn pick(
    history: &[KeyOperation],
    rng: &mut SmallRng,
    fits: impl Fn(&KeyOperation) -> bool,
) -> Option<usize> {
    let fitting: Vec<usize> = (0..history.len()).filter(|&i| fits(&history[i])).collect();
    fitting.choose(rng).copied()
}

/// Pairs of indices that `fits` accepts.
fn pairs(
    history: &[KeyOperation],
    fits: impl Fn(&KeyOperation, &KeyOperation) -> bool,
) -> Vec<(usize, usize)> {
    let all = (0..history.len()).flat_map(|i| (0..history.len()).map(move |j| (i, j)));
    all.filter(|&(i, j)| fits(&history[i], &history[j])).collect()
}

/// Has the first of a random pair read what the second of it writes.
fn change(
    history: &mut [KeyOperation],
    rng: &mut SmallRng,
    candidates: Vec<(usize, usize)>,
) -> bool {
    let Some(&(read, write)) = candidates.choose(rng) else { return false };
    history[read].output = Some(KvOutput::Value(written(&history[write].input).cloned()));
    true
}
