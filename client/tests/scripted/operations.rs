//! Operations on a healthy cluster of several regions.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::try_join_all;
use quorate_client::{ClientOptions, Error, KvPair, ReadOptions};
use quorate_proto::limits;

use crate::world::World;

fn pair(key: &str, value: &str) -> KvPair {
    (Bytes::from(key.to_owned()), Bytes::from(value.to_owned()))
}

#[tokio::test]
async fn put_get_delete_by_key_range() {
    let world = World::new(&["g", "p"]);
    let client = world.client().await;
    for key in ["a", "g", "m", "p", "z"] {
        assert_eq!(client.get(key).await.unwrap(), None);
        client.put(key, format!("value of {key}")).await.unwrap();
        let value = client.get(key).await.unwrap().unwrap();
        assert_eq!(value, format!("value of {key}"));
    }
    client.delete("m").await.unwrap();
    assert_eq!(client.get("m").await.unwrap(), None);
    client.put("empty", "").await.unwrap();
    assert_eq!(client.get("empty").await.unwrap(), Some(Bytes::new()), "an empty value is a value");
    assert_eq!(world.state().region_questions, 1, "one question fetches the neighbours too");
    let route = client.locate("m").await.unwrap();
    assert_eq!((route.region.id.0, route.leader.store.0), (2, 2));
    assert_eq!(route.address, world.stores[&route.leader.store].address.to_string());
}

// On one thread: how many share a message must not hang on who is scheduled when.
#[tokio::test]
async fn concurrent_operations_share_messages() {
    let world = World::new(&[]);
    let client = world.client().await;
    client.put("warm", "up").await.unwrap();
    let counted = || {
        let state = world.state();
        (state.messages, state.requests)
    };
    let before = counted();
    let puts = (0..2_000).map(|at| client.put(format!("k{at:04}"), "v"));
    try_join_all(puts).await.unwrap();
    let after = counted();
    let (messages, requests) = (after.0 - before.0, after.1 - before.1);
    assert_eq!(requests, 2_000);
    assert!(messages <= 200, "{requests} requests came in {messages} messages");
}

#[tokio::test]
async fn a_full_queue_makes_operations_wait_and_loses_none() {
    let world = World::new(&[]);
    let options = ClientOptions {
        max_queued: 3,
        max_in_flight: 2,
        batch_requests: 2,
        connections_per_store: 2,
        ..ClientOptions::default()
    };
    let client = world.client_with(options).await;
    let puts = (0..300).map(|at| client.put(format!("k{at:04}"), "v"));
    try_join_all(puts).await.unwrap();
    assert_eq!(world.state().applied, 300);
    assert_eq!(world.state().data.len(), 300);
}

#[tokio::test]
async fn scans_agree_with_a_map_across_regions_and_pages() {
    let world = World::new(&["c", "f", "f5", "k", "x"]);
    let options = ClientOptions { scan_page: 3, ..ClientOptions::default() };
    let client = world.client_with(options).await;
    let mut model: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    for first in b'a'..=b'z' {
        for second in 0..(first % 5) {
            let key = format!("{}{second}", first as char);
            model.insert(Bytes::from(key), Bytes::from(vec![first, second]));
        }
    }
    client.batch_put(model.clone().into_iter().collect()).await.unwrap();
    assert_eq!(world.state().data, model);

    let ends = ["", "b", "c", "c1", "f", "f4", "f5", "j", "x", "zz"];
    for start in ends {
        for end in ends.iter().filter(|end| end.is_empty() || **end >= start) {
            for limit in [0, 1, 4, 7, usize::MAX] {
                let (from, to) = (start.as_bytes(), end.as_bytes());
                let inside = |key: &&Bytes| key[..] >= *from && (to.is_empty() || key[..] < *to);
                let want: Vec<Bytes> = model.keys().filter(inside).take(limit).cloned().collect();
                let keys = client.scan_keys(start, *end, limit).await.unwrap();
                assert_eq!(keys, want, "[{start}, {end}) {limit}");
                let pairs = client.scan(start, *end, limit).await.unwrap();
                assert!(pairs.iter().all(|(key, value)| model[key] == *value));
                assert_eq!(pairs.len(), want.len());
                let want: Vec<Bytes> =
                    model.keys().rev().filter(inside).take(limit).cloned().collect();
                let pairs = client.reverse_scan(start, *end, limit).await.unwrap();
                let keys: Vec<Bytes> = pairs.into_iter().map(|(key, _)| key).collect();
                assert_eq!(keys, want, "reverse [{start}, {end}) {limit}");
            }
        }
    }
    let ranges = vec![(Bytes::from("y"), Bytes::new()), (Bytes::from("b"), Bytes::from("d"))];
    let both = client.batch_scan(ranges, 4).await.unwrap();
    assert_eq!(both[0], client.scan("y", "", 4).await.unwrap());
    assert_eq!(both[1], client.scan("b", "d", 4).await.unwrap());

    client.delete_range("c1", "k2").await.unwrap();
    model.retain(|key, _| key[..] < b"c1"[..] || key[..] >= b"k2"[..]);
    assert_eq!(world.state().data, model);
    client.delete_range("y", "").await.unwrap();
    client.delete_range("b", "b").await.unwrap();
    model.retain(|key, _| key[..] < b"y"[..]);
    assert_eq!(world.state().data, model);
}

#[tokio::test]
async fn answers_too_large_to_decode_are_asked_for_in_parts() {
    let world = World::new(&["k5"]);
    let client = world.client().await;
    let large = Bytes::from("x".repeat(900_000));
    let keys: Vec<Bytes> = (0..10).map(|at| Bytes::from(format!("k{at}"))).collect();
    client.batch_put(keys.iter().map(|key| (key.clone(), large.clone())).collect()).await.unwrap();
    assert_eq!(client.scan("", "", 100).await.unwrap().len(), 10);
    let pairs = client.reverse_scan("", "", 100).await.unwrap();
    assert_eq!(pairs.len(), 10);
    assert_eq!(pairs[0].0, "k9");
    let values = client.batch_get(keys).await.unwrap();
    assert!(values.iter().all(|(_, value)| *value == Some(large.clone())));
}

#[tokio::test]
async fn batches_are_cut_by_region_and_size() {
    let world = World::new(&["k2", "k5"]);
    let client = world.client().await;
    let pairs: Vec<KvPair> =
        (0..5_000).map(|at| pair(&format!("k{at:04}"), &format!("v{at}"))).collect();
    client.batch_put(pairs.clone()).await.unwrap();
    assert_eq!(world.state().data.len(), 5_000);
    assert!(world.state().applied >= 5, "parts of at most 1,024");

    let mut keys: Vec<Bytes> = pairs.iter().rev().map(|(key, _)| key.clone()).collect();
    keys.push(Bytes::from("missing"));
    keys.push(keys[0].clone());
    let values = client.batch_get(keys.clone()).await.unwrap();
    assert_eq!(values.len(), keys.len());
    for ((key, value), wanted) in values.iter().zip(&keys) {
        assert_eq!(key, wanted, "in the order asked for");
        assert_eq!(value.as_ref(), world.state().data.get(key));
    }
    client.batch_delete(keys).await.unwrap();
    assert!(world.state().data.is_empty());

    client.batch_put(vec![pair("a", "1"), pair("b", "1"), pair("a", "2")]).await.unwrap();
    assert_eq!(client.get("a").await.unwrap(), Some(Bytes::from("2")), "the last of a key counts");
    client.batch_put(Vec::new()).await.unwrap();
    assert!(client.batch_get(Vec::new()).await.unwrap().is_empty());
}

#[tokio::test]
async fn bad_arguments_are_refused_before_anything_is_sent() {
    let world = World::new(&[]);
    let client = world.client().await;
    let long = vec![b'k'; limits::MAX_KEY_BYTES + 1];
    let large = vec![0; limits::MAX_VALUE_BYTES + 1];
    let refused: Vec<Error> = vec![
        client.get("").await.unwrap_err(),
        client.put("", "v").await.unwrap_err(),
        client.put(long.clone(), "v").await.unwrap_err(),
        client.put("k", large).await.unwrap_err(),
        client.batch_put(vec![pair("a", "b"), pair("", "v")]).await.unwrap_err(),
        client.batch_get(vec![Bytes::from(long.clone())]).await.unwrap_err(),
        client.batch_delete(vec![Bytes::new()]).await.unwrap_err(),
        client.delete("").await.unwrap_err(),
        client.scan("b", "a", 1).await.unwrap_err(),
        client.delete_range("b", "a").await.unwrap_err(),
        client.locate(long).await.unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
        assert!(!error.is_retryable() && !error.is_undetermined());
    }
    assert_eq!(world.state().requests, 0);
    let key = vec![b'k'; limits::MAX_KEY_BYTES];
    client.put(key, vec![1; limits::MAX_VALUE_BYTES]).await.unwrap();
}

#[tokio::test]
async fn follower_reads_leave_the_leader_alone_while_a_replica_answers() {
    let world = World::new(&[]);
    let client = world.client().await;
    client.put("k", "v").await.unwrap();
    for _ in 0..10 {
        let value = client.get_with("k", ReadOptions::follower()).await.unwrap();
        assert_eq!(value, Some(Bytes::from("v")));
    }
    let reads = world.state().replica_reads.clone();
    let stores: Vec<u64> = reads.keys().map(|store| store.0).collect();
    assert_eq!(stores, [2, 3], "both followers, and not s1");
    assert_eq!(client.scan_with("", "", 9, ReadOptions::follower()).await.unwrap().len(), 1);
    let keys = vec![Bytes::from("k")];
    let values = client.batch_get_with(keys, ReadOptions::follower()).await.unwrap();
    assert_eq!(values[0].1, Some(Bytes::from("v")));
}

#[tokio::test]
async fn a_store_without_streams_gets_unary_calls() {
    let world = World::new(&["m"]);
    world.state().unary_only = true;
    let client = world.client().await;
    client.batch_put(vec![pair("a", "1"), pair("z", "2")]).await.unwrap();
    client.put("k", "3").await.unwrap();
    assert_eq!(client.get("k").await.unwrap(), Some(Bytes::from("3")));
    assert_eq!(client.scan("", "", 10).await.unwrap().len(), 3);
    client.delete("k").await.unwrap();
    client.delete_range("", "").await.unwrap();
    assert!(world.state().data.is_empty());
    assert_eq!(world.state().messages, 0);
}
