//! Random steps give equal answers on both engines.

use bytes::Bytes;
use proptest::prelude::*;
use quorate_consensus::engine::{Cf, Direction, Reader, WriteBatch};

use crate::subject::{Subject, collect};

/// One change of a batch, with keys from a small space so that they meet.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Put(Cf, Vec<u8>, Vec<u8>),
    Delete(Cf, Vec<u8>),
    DeleteRange(Cf, Vec<u8>, Vec<u8>),
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Change>, bool),
    Get(Cf, Vec<Vec<u8>>),
    Scan(Cf, Vec<u8>, Vec<u8>, bool, usize),
    Snapshot,
    ScanSnapshot(usize, Cf, Vec<u8>, Vec<u8>, bool),
    Release(usize),
    Ingest(std::collections::BTreeSet<Vec<u8>>, Vec<u8>, Vec<u8>),
    Flush,
    Restart,
}

fn family() -> impl Strategy<Value = Cf> {
    prop_oneof![1 => Just(Cf::Raft), 1 => Just(Cf::Meta), 4 => Just(Cf::Data)]
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0), Just(b'a'), Just(b'b'), Just(0xff)], 0..4)
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..4)
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        5 => (family(), key(), value()).prop_map(|(cf, key, value)| Change::Put(cf, key, value)),
        2 => (family(), key()).prop_map(|(cf, key)| Change::Delete(cf, key)),
        1 => (family(), key(), key()).prop_map(|(cf, start, end)| Change::DeleteRange(cf, start, end)),
    ]
}

pub(crate) fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(change(), 0..8)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (changes(), any::<bool>()).prop_map(|(changes, sync)| Step::Write(changes, sync)),
        4 => (family(), prop::collection::vec(key(), 0..5)).prop_map(|(cf, keys)| Step::Get(cf, keys)),
        6 => (family(), key(), key(), any::<bool>(), 1_usize..20)
            .prop_map(|(cf, start, end, reverse, limit)| Step::Scan(cf, start, end, reverse, limit)),
        2 => Just(Step::Snapshot),
        4 => (0_usize..4, family(), key(), key(), any::<bool>())
            .prop_map(|(slot, cf, start, end, reverse)| Step::ScanSnapshot(slot, cf, start, end, reverse)),
        1 => (0_usize..4).prop_map(Step::Release),
        3 => (prop::collection::btree_set(key(), 0..6), key(), key())
            .prop_map(|(keys, start, end)| Step::Ingest(keys, start, end)),
        1 => Just(Step::Flush),
        1 => Just(Step::Restart),
    ]
}

pub(crate) fn to_batch(changes: &[Change]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for change in changes {
        match change.clone() {
            Change::Put(cf, key, value) => batch.put(cf, key, value),
            Change::Delete(cf, key) => batch.delete(cf, key),
            Change::DeleteRange(cf, start, end) if !end.is_empty() => {
                batch.delete_range(cf, start, end);
            }
            Change::DeleteRange(..) => {}
        }
    }
    batch
}

/// Runs the steps and returns what was answered.
fn run(mut subject: Subject, steps: &[Step]) -> Vec<String> {
    let mut answers = Vec::new();
    let mut snapshots: Vec<Box<dyn Reader + Send>> = Vec::new();
    let direction = |reverse| if reverse { Direction::Reverse } else { Direction::Forward };
    for step in steps {
        let engine = subject.engine();
        match step {
            Step::Write(changes, false) => engine.write(to_batch(changes)).unwrap(),
            Step::Write(changes, true) => engine.write_synced(to_batch(changes)).unwrap(),
            Step::Get(cf, keys) => {
                let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
                let values = engine.multi_get(*cf, &keys).unwrap();
                let single: Vec<Option<Bytes>> =
                    keys.iter().map(|key| engine.get(*cf, key).unwrap()).collect();
                assert_eq!(values, single);
                answers.push(format!("{values:?}"));
            }
            Step::Scan(cf, start, end, reverse, limit) => answers.push(format!(
                "{:?}",
                collect(engine.as_ref(), *cf, (start, end), direction(*reverse), *limit)
            )),
            Step::Snapshot => snapshots.push(engine.snapshot()),
            Step::ScanSnapshot(slot, cf, start, end, reverse) => {
                let Some(snapshot) = snapshots.get(*slot) else { continue };
                let direction = direction(*reverse);
                let seen = collect(snapshot.as_ref(), *cf, (start, end), direction, usize::MAX);
                answers.push(format!("{seen:?}"));
            }
            Step::Release(slot) if *slot < snapshots.len() => drop(snapshots.remove(*slot)),
            Step::Release(_) => {}
            Step::Ingest(keys, start, end) => {
                let mut stage = engine.stage("file").unwrap();
                let inside = |key: &&Vec<u8>| *key >= start && (end.is_empty() || *key < end);
                for key in keys.iter().filter(inside) {
                    stage.put(key, b"ingested").unwrap();
                }
                answers.push(format!("{:?}", stage.finish().unwrap()));
                if end.is_empty() || start < end {
                    engine.ingest("file", start, end).unwrap();
                }
            }
            Step::Flush => {
                if let Subject::Rocks { engine: Some(engine), .. } = &subject {
                    engine.flush().unwrap();
                }
            }
            Step::Restart => {
                drop(engine);
                snapshots.clear();
                subject.restart();
            }
        }
    }
    for cf in Cf::ALL {
        let engine = subject.engine();
        let all = collect(engine.as_ref(), cf, (b"", b""), Direction::Forward, usize::MAX);
        answers.push(format!("{all:?} {}", engine.approximate_size(cf, b"", b"").unwrap()));
    }
    answers
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn both_engines_answer_the_same(steps in prop::collection::vec(step(), 1..60)) {
        prop_assert_eq!(run(Subject::memory(), &steps), run(Subject::rocks(), &steps));
    }
}
