//! Commands and stored values: what goes in comes out, and garbage is an error.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use quorate_consensus::engine::{Engine, EngineError, MemoryEngine, WriteBatch};
use quorate_proto::limits::{MAX_BATCH_ITEMS, MAX_ENTRY_BYTES, MAX_KEY_BYTES, MAX_VALUE_BYTES};
use quorate_proto::wire::command::{Command, RegionState, StoreIdent, Write};
use quorate_proto::{KeyRange, RegionId};
use quorate_store::core::command::{
    CommandError, Commands, Stamp, delete_all, delete_range, put, put_all, split,
};
use quorate_store::core::keys;

use super::world::child;

const STAMP: Stamp = Stamp { version: 3, conf_ver: 2, time_ms: 1_700_000_000_000 };

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..max)
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 1..300)
}

fn stamps() -> impl Strategy<Value = Stamp> {
    (any::<u64>(), 0..3u64, any::<u64>()).prop_map(|(version, conf_ver, time_ms)| Stamp {
        version,
        conf_ver,
        time_ms,
    })
}

proptest! {
    #[test]
    fn writes_are_encoded_as_prost_encodes_them(
        stamp in stamps(),
        pairs in vec((key(), bytes(300)), 0..5),
        gone in vec(key(), 0..5),
    ) {
        let Stamp { version, conf_ver, time_ms } = stamp;
        let stored = |value: &[u8]| Bytes::from([value, &[keys::PLAIN]].concat());
        let put = |(key, value): &(Vec<u8>, Vec<u8>)| Write {
            key: key.clone().into(),
            value: stored(value),
            delete: false,
        };
        let delete =
            |key: &Vec<u8>| Write { key: key.clone().into(), value: Bytes::new(), delete: true };
        let expected = |writes| {
            let command = Command { version, conf_ver, time_ms, writes, ..Command::default() };
            Bytes::from(command.encode_length_delimited_to_vec())
        };
        prop_assert_eq!(
            put_all(stamp, &pairs).unwrap(),
            expected(pairs.iter().map(put).collect())
        );
        prop_assert_eq!(
            delete_all(stamp, &gone).unwrap(),
            expected(gone.iter().map(delete).collect())
        );
    }

    #[test]
    fn an_entry_gives_back_its_commands_in_order(
        all in vec(vec((key(), bytes(100)), 1..4), 0..5),
    ) {
        let mut entry = Vec::new();
        for pairs in &all {
            entry.extend_from_slice(&put_all(STAMP, pairs).unwrap());
        }
        let commands: Vec<Command> =
            Commands::new(entry.into()).collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(commands.len(), all.len());
        for (command, pairs) in commands.iter().zip(&all) {
            prop_assert_eq!(command.version, STAMP.version);
            for (write, (key, value)) in command.writes.iter().zip(pairs) {
                prop_assert_eq!(&write.key, key);
                prop_assert_eq!(&keys::user_value(write.value.clone()).unwrap(), value);
            }
        }
    }

    #[test]
    fn garbage_ends_with_at_most_one_error(entry in bytes(200)) {
        let parsed: Vec<_> = Commands::new(entry.into()).collect();
        let errors = parsed.iter().filter(|command| command.is_err()).count();
        prop_assert!(errors <= 1);
        prop_assert!(errors == 0 || parsed.last().unwrap().is_err());
    }

    #[test]
    fn an_entry_cut_short_is_an_error(value in bytes(300), cut in 1..50usize) {
        let entry = put(STAMP, b"key", &value).unwrap();
        let cut = entry.slice(..entry.len() - cut.min(entry.len() - 1));
        prop_assert!(Commands::new(cut).last().unwrap().is_err());
    }

    #[test]
    fn a_stored_value_is_a_value_and_flags(stored in bytes(50)) {
        match (stored.split_last(), keys::user_value(stored.clone().into())) {
            (Some((&keys::PLAIN, value)), Ok(read)) => prop_assert_eq!(read, value),
            (_, Err(EngineError::Corrupt { .. })) => {
                prop_assert_ne!(stored.last(), Some(&keys::PLAIN));
            }
            (_, other) => prop_assert!(false, "{:?} gave {:?}", stored, other),
        }
    }

    #[test]
    fn overlap_and_cover_agree_with_the_keys(
        left in (0..8u8, 0..8u8), right in (0..8u8, 0..8u8),
    ) {
        let range = |(start, end): (u8, u8)| match start < end {
            true => KeyRange::new(vec![start], vec![end]),
            false => KeyRange::new(vec![start], vec![]),
        };
        let (left, right) = (range(left), range(right));
        let has = |range: &KeyRange, key: u8| range.contains(&[key]);
        let shared = (0..9).any(|key| has(&left, key) && has(&right, key));
        prop_assert_eq!(left.overlaps(&right), shared);
        let all = (0..9).all(|key| !has(&right, key) || has(&left, key));
        prop_assert!(!left.covers(&right) || all);
    }
}

#[test]
fn a_value_is_copied_once_and_never_when_parsed() {
    let entry = put(STAMP, b"key", &[7; 1000]).unwrap();
    let command = Commands::new(entry.clone()).next().unwrap().unwrap();
    let value = keys::user_value(command.writes[0].value.clone()).unwrap();
    let inside = entry.as_ptr_range();
    assert!(inside.contains(&command.writes[0].key.as_ptr()));
    assert!(inside.contains(&value.as_ptr()));
}

#[test]
fn every_limit_has_its_words() {
    let long = vec![b'k'; MAX_KEY_BYTES + 1];
    let large = vec![0; MAX_VALUE_BYTES + 1];
    let whole = vec![0; MAX_VALUE_BYTES];
    let many: Vec<[u8; 2]> = (0..=MAX_BATCH_ITEMS as u16).map(u16::to_be_bytes).collect();
    assert_eq!(put(STAMP, b"", b"v"), Err(CommandError::EmptyKey));
    assert_eq!(put(STAMP, &long, b"v"), Err(CommandError::KeyTooLong(long.len())));
    assert_eq!(put(STAMP, b"k", &large), Err(CommandError::ValueTooLong(large.len())));
    assert_eq!(delete_all(STAMP, &many), Err(CommandError::TooManyItems(many.len())));
    let four = [(b"a", &whole), (b"b", &whole), (b"c", &whole), (b"d", &whole)];
    let refused = put_all(STAMP, &four);
    assert!(matches!(refused, Err(CommandError::TooLarge(bytes)) if bytes > MAX_ENTRY_BYTES));
    assert_eq!(delete_range(STAMP, b"b", b"a"), Err(CommandError::EmptyRange));
    assert_eq!(delete_range(STAMP, b"a", b"a"), Err(CommandError::EmptyRange));
    assert_eq!(delete_range(STAMP, &long, b""), Err(CommandError::KeyTooLong(long.len())));
    assert_eq!(split(STAMP, vec![]), Err(CommandError::BadSplitKeys));
    let descending = vec![child(2, "n"), child(3, "m")];
    assert_eq!(split(STAMP, descending), Err(CommandError::BadSplitKeys));
    // On the limit is within it.
    assert!(put(STAMP, &long[1..], &whole).is_ok());
    assert!(put(STAMP, b"k", b"").is_ok());
    assert!(CommandError::EmptyKey.to_string().contains("at least one byte"));
}

#[test]
fn states_come_back_by_id_whatever_their_bytes() {
    let engine = MemoryEngine::new();
    let mut batch = WriteBatch::new();
    for id in [255, 256, 1, u64::MAX, 7] {
        let state = RegionState { peer_id: id, ..RegionState::default() };
        keys::put_region_state(&mut batch, RegionId(id), &state);
        keys::put_apply_state(&mut batch, RegionId(id), &Default::default());
    }
    keys::put_ident(&mut batch, &StoreIdent { store_id: 4, format: 1, ..StoreIdent::default() });
    engine.write(batch).unwrap();
    let ids = |states: Vec<(RegionId, _)>| -> Vec<u64> {
        states.into_iter().map(|(id, _): (RegionId, RegionState)| id.0).collect()
    };
    assert_eq!(ids(keys::region_states(&engine).unwrap()), [1, 7, 255, 256, u64::MAX]);
    assert_eq!(keys::apply_states(&engine).unwrap().len(), 5);
    assert_eq!(keys::read_ident(&engine).unwrap().unwrap().store_id, 4);
}

#[test]
fn a_folder_of_a_later_format_is_refused() {
    let engine = MemoryEngine::new();
    assert_eq!(keys::read_ident(&engine), Ok(None));
    let mut batch = WriteBatch::new();
    let later = keys::FORMAT + 1;
    keys::put_ident(&mut batch, &StoreIdent { format: later, ..StoreIdent::default() });
    engine.write(batch).unwrap();
    let error = keys::read_ident(&engine).unwrap_err();
    assert!(matches!(error, EngineError::Newer { found, .. } if found == later));
}
