//! What is written is read back; what is damaged is an error, never a panic.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use raft::eraftpb::{Entry, HardState};

use super::*;
use crate::engine::Op;

const GROUP: RegionId = RegionId(7);

fn put(batch: WriteBatch) -> (Bytes, Bytes) {
    match batch.into_ops().pop() {
        Some(Op::Put { cf: Cf::Raft, key, value }) => (key, value),
        other => panic!("unexpected {other:?}"),
    }
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let bytes = || vec(any::<u8>(), 0..40);
    (0..3u32, any::<u64>(), any::<u64>(), bytes(), bytes()).prop_map(
        |(kind, term, index, data, context)| {
            let mut entry = Entry { term, index, ..Entry::default() };
            entry.set_entry_type(entry_kind(kind).unwrap());
            entry.data = data.into();
            entry.context = context.into();
            entry
        },
    )
}

proptest! {
    #[test]
    fn entries_are_read_back(entry in any_entry()) {
        let mut batch = WriteBatch::new();
        put_entry(GROUP, &entry, &mut batch);
        let (key, value) = put(batch);
        prop_assert_eq!(entry_index(&key), Some(entry.index));
        prop_assert_eq!(entry_term(GROUP, &value).unwrap(), entry.term);
        prop_assert_eq!(parse_entry(GROUP, entry.index, value).unwrap(), entry);
    }

    #[test]
    fn states_are_read_back(term: u64, vote: u64, commit: u64) {
        let hard = HardState { term, vote, commit, ..HardState::default() };
        let mut batch = WriteBatch::new();
        put_hard_state(GROUP, &hard, &mut batch);
        let (key, value) = put(batch);
        prop_assert_eq!(key, hard_state_key(GROUP));
        prop_assert_eq!(parse_hard_state(GROUP, &value).unwrap(), hard);
        let mut batch = WriteBatch::new();
        put_truncated(GROUP, term, vote, &mut batch);
        let (key, value) = put(batch);
        prop_assert_eq!(key, truncated_key(GROUP));
        prop_assert_eq!(parse_truncated(GROUP, &value).unwrap(), (term, vote));
    }

    #[test]
    fn garbage_panics_nobody(bytes in vec(any::<u8>(), 0..40)) {
        let _ = parse_entry(GROUP, 1, bytes.clone().into());
        let _ = parse_hard_state(GROUP, &bytes);
        let _ = parse_truncated(GROUP, &bytes);
        let _ = entry_term(GROUP, &bytes);
        let _ = entry_index(&bytes);
    }

    #[test]
    fn a_record_that_is_cut_off_is_an_error(entry in any_entry(), cut in 0..10usize) {
        let mut batch = WriteBatch::new();
        put_entry(GROUP, &entry, &mut batch);
        let (_, value) = put(batch);
        prop_assert!(parse_entry(GROUP, entry.index, value.slice(..cut)).is_err());
    }
}

#[test]
fn a_newer_version_is_refused() {
    let mut batch = WriteBatch::new();
    put_truncated(GROUP, 1, 2, &mut batch);
    let mut value = put(batch).1.to_vec();
    value[0] += 1;
    let error = parse_truncated(GROUP, &value).unwrap_err();
    assert_eq!(
        error.to_string(),
        "r7: the truncated state record is damaged or of a newer version"
    );
}

#[test]
fn the_entries_of_a_group_lie_between_its_bounds_in_order() {
    let (start, end) = entry_bounds(GROUP);
    let keys = [
        entry_key(GROUP, 0),
        entry_key(GROUP, 255),
        entry_key(GROUP, 256),
        entry_key(GROUP, u64::MAX),
    ];
    assert!(keys.is_sorted());
    assert!(keys.iter().all(|key| start < *key && *key < end));
    assert!(hard_state_key(GROUP) < start && truncated_key(GROUP) < start);
    assert!(end < hard_state_key(RegionId(8)));
}
