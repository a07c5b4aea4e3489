//! Histories whose verdict is known, and a second opinion on the others.
//!
//! [`Simulated`] runs clients against atomic keys: every operation gets an
//! interval and an instant in it, and the answers come from executing the
//! instants in order. Such a history is linearizable by construction.
//! [`brute_force`] tries every order, and shares nothing with the checker but
//! the model.

use quorate_tests::linearize::register::{KvInput, KvModel, KvOutput};
use quorate_tests::linearize::{Model, Operation, OperationOf};
use rand::Rng;
use rand::rngs::SmallRng;

pub(crate) type KeyOperation = Operation<KvInput, KvOutput>;

/// Clients that issue one operation at a time each.
#[derive(Clone, Copy)]
pub(crate) struct Simulated {
    pub(crate) clients: u64,
    pub(crate) operations: usize,
    /// The most ticks between invocation and return.
    pub(crate) latency: u64,
    /// The chance in percent that an outcome stays unknown.
    pub(crate) unknown: u32,
    /// Whether to mix in deletes and compare-and-sets.
    pub(crate) all_kinds: bool,
}

impl Simulated {
    /// A history of one key: puts of unique values, gets, the rest if asked for.
    pub(crate) fn run(&self, rng: &mut SmallRng) -> Vec<KeyOperation> {
        self.run_on(1, rng).into_iter().map(|(_, op)| op).collect()
    }

    /// A history of several keys, with the number of the key.
    pub(crate) fn run_on(&self, keys: usize, rng: &mut SmallRng) -> Vec<(usize, KeyOperation)> {
        let mut free_at = vec![0u64; self.clients as usize];
        // The instant of each operation; `None` for one that never takes effect.
        let mut planned: Vec<(Option<u64>, usize, KeyOperation)> = Vec::new();
        for number in 0..self.operations {
            let client = rng.random_range(0..self.clients);
            let invoke = free_at[client as usize] + rng.random_range(1..=4);
            let ret = invoke + rng.random_range(0..=self.latency);
            free_at[client as usize] = ret;
            let unknown = rng.random_range(0..100) < self.unknown;
            let instant = match unknown {
                false => Some(rng.random_range(invoke..=ret)),
                true if rng.random_bool(0.5) => None,
                true => Some(invoke + rng.random_range(0..=self.latency * 20)),
            };
            let input = self.input(number, rng);
            let ret = if unknown { u64::MAX } else { ret };
            let key = rng.random_range(0..keys);
            planned.push((instant, key, Operation { client, input, output: None, invoke, ret }));
        }

        let mut order: Vec<usize> =
            (0..planned.len()).filter(|&i| planned[i].0.is_some()).collect();
        order.sort_by_key(|&i| planned[i].0);
        let mut states: Vec<Option<Vec<u8>>> = vec![None; keys];
        for i in order {
            let (_, key, op) = &mut planned[i];
            let output = apply(&mut states[*key], &op.input);
            if op.ret != u64::MAX {
                op.output = Some(output);
            }
        }
        planned.into_iter().map(|(_, key, op)| (key, op)).collect()
    }

    fn input(&self, number: usize, rng: &mut SmallRng) -> KvInput {
        let value = unique(number);
        match rng.random_range(0..if self.all_kinds { 8 } else { 6 }) {
            0..3 => KvInput::Get,
            3..6 => KvInput::Put(value),
            6 => KvInput::Delete,
            _ if number == 0 || rng.random_bool(0.3) => KvInput::Cas { expected: None, to: value },
            _ => {
                let recent = number - rng.random_range(1..=number.min(4));
                KvInput::Cas { expected: Some(unique(recent)), to: value }
            }
        }
    }
}

/// The value that only operation `number` writes.
pub(crate) fn unique(number: usize) -> Vec<u8> {
    format!("v{number}").into_bytes()
}

/// The atomic key itself, written apart from the model that it tests.
fn apply(state: &mut Option<Vec<u8>>, input: &KvInput) -> KvOutput {
    match input {
        KvInput::Get => KvOutput::Value(state.clone()),
        KvInput::Put(value) => {
            *state = Some(value.clone());
            KvOutput::Done
        }
        KvInput::Delete => {
            *state = None;
            KvOutput::Done
        }
        KvInput::Cas { expected, to } => {
            let previous = state.clone();
            let swapped = previous == *expected;
            if swapped {
                *state = Some(to.clone());
            }
            KvOutput::Cas { swapped, previous }
        }
    }
}

/// A short history with any intervals and any answers, over three values.
pub(crate) fn arbitrary(rng: &mut SmallRng) -> Vec<KeyOperation> {
    let count = rng.random_range(1..=7);
    let span = rng.random_range(2..=24);
    let value = |rng: &mut SmallRng| vec![b'a' + rng.random_range(0..3u8)];
    let maybe = |rng: &mut SmallRng| rng.random_bool(0.8).then(|| value(rng));
    (0..count)
        .map(|client| {
            let invoke = rng.random_range(0..span);
            let known = rng.random_bool(0.8);
            let (input, output) = match rng.random_range(0..10) {
                0..4 => (KvInput::Get, KvOutput::Value(maybe(rng))),
                4..7 => (KvInput::Put(value(rng)), KvOutput::Done),
                7 => (KvInput::Delete, KvOutput::Done),
                _ => {
                    let input = KvInput::Cas { expected: maybe(rng), to: value(rng) };
                    (input, KvOutput::Cas { swapped: rng.random(), previous: maybe(rng) })
                }
            };
            let ret = if known { rng.random_range(invoke..=span) } else { u64::MAX };
            Operation { client, input, output: known.then_some(output), invoke, ret }
        })
        .collect()
}

/// Whether some order explains `ops`, by trying all of them.
pub(crate) fn brute_force(ops: &[KeyOperation]) -> bool {
    let left: Vec<&KeyOperation> = ops.iter().collect();
    orders(&KvModel::default(), &KvModel::default().initial(), &left)
}

fn orders<M: Model>(model: &M, state: &M::State, left: &[&OperationOf<M>]) -> bool {
    if left.iter().all(|op| op.output.is_none()) {
        return true;
    }
    (0..left.len()).any(|i| {
        let next = left[i];
        let too_early = left.iter().any(|op| op.output.is_some() && op.ret < next.invoke);
        let Some(after) = model.step(state, &next.input, next.output.as_ref()) else {
            return false;
        };
        let mut rest = left.to_vec();
        rest.remove(i);
        !too_early && orders(model, &after, &rest)
    })
}
