//! A TiKV client that sends everything on its batched stream, as the Go client does.

use quorate_tests::process::tikv::batch::{
    Answer, Ask, Batches, Empty, KeyRange, MOST, RawBatchDeleteRequest, RawBatchGetRequest,
    RawBatchPutRequest, RawBatchScanRequest, RawDeleteRangeRequest,
};
use quorate_tests::process::tikv::{
    Context, KvPair, RawDeleteRequest, RawDeleteResponse, RawGetRequest, RawPutRequest,
    RawPutResponse, RawScanRequest, RegionEpoch,
};
use quorate_tests::process::{Cluster, Shape};

use crate::wire::TikvClient;

fn key(number: usize) -> Vec<u8> {
    format!("batch/{number:04}").into_bytes()
}

fn value(number: usize) -> Vec<u8> {
    format!("value {number}").into_bytes()
}

fn put(context: &Context, key: Vec<u8>, value: Vec<u8>) -> Ask {
    Ask::Put(RawPutRequest { context: Some(context.clone()), key, value, cf: String::new() })
}

fn get(context: &Context, key: Vec<u8>) -> Ask {
    Ask::Get(RawGetRequest { context: Some(context.clone()), key, cf: String::new() })
}

fn keys_of(pairs: &[KvPair]) -> Vec<Vec<u8>> {
    pairs.iter().map(|pair| pair.key.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tikv_client_batches_mixed_requests() {
    let cluster = Cluster::start(Shape::default()).await;
    let mut client = TikvClient::connect(&cluster).await;
    let (mut store, context) = client.route(b"batch/").await;
    let mut stream = store.batches().await.unwrap();

    // Three full messages at once, before any answer is read.
    for message in 0..3 {
        let numbers = message * MOST..(message + 1) * MOST;
        stream.send(numbers.map(|number| put(&context, key(number), value(number))).collect());
    }
    let answers = stream.answers().await.unwrap();
    assert_eq!(answers.len(), 3 * MOST);
    for (id, answer) in answers {
        assert_eq!(answer, Answer::Put(RawPutResponse::default()), "{id}");
    }
    mixed(&mut stream, &context).await;
    what_the_writes_left(&mut stream, &context).await;
    refusals(&mut stream, &context).await;

    // A stream of its own to another client, at the same time.
    let mut second = store.batches().await.unwrap();
    let id = second.send(vec![get(&context, key(1))])[0];
    stream.send(vec![get(&context, key(2))]);
    assert!(
        matches!(&second.answers().await.unwrap()[&id], Answer::Get(got) if got.value == value(1))
    );
    stream.answers().await.unwrap();
}

/// Every kind in one message of 128: reads of what was written, writes elsewhere.
async fn mixed(stream: &mut Batches, context: &Context) {
    let some = || Some(context.clone());
    let cf = String::new;
    let mut asks: Vec<Ask> = (0..MOST - 10).map(|number| get(context, key(number))).collect();
    asks.push(Ask::BatchGet(RawBatchGetRequest {
        context: some(),
        keys: vec![key(5), b"batch/none".to_vec(), key(3)],
        cf: cf(),
    }));
    let pairs = (900..910).map(|number| KvPair { key: key(number), value: value(number) });
    asks.push(Ask::BatchPut(RawBatchPutRequest {
        context: some(),
        pairs: pairs.collect(),
        cf: cf(),
    }));
    asks.push(Ask::Delete(RawDeleteRequest { context: some(), key: key(300), cf: cf() }));
    asks.push(Ask::BatchDelete(RawBatchDeleteRequest {
        context: some(),
        keys: vec![key(301), key(302)],
        cf: cf(),
    }));
    asks.push(Ask::DeleteRange(RawDeleteRangeRequest {
        context: some(),
        start_key: key(310),
        end_key: key(320),
        cf: cf(),
    }));
    let scan = RawScanRequest {
        context: some(),
        start_key: key(10),
        end_key: key(14),
        limit: 100,
        ..RawScanRequest::default()
    };
    asks.push(Ask::Scan(scan.clone()));
    let (start_key, end_key) = (scan.end_key.clone(), scan.start_key.clone());
    asks.push(Ask::Scan(RawScanRequest { start_key, end_key, reverse: true, limit: 2, ..scan }));
    let ranges = [(20, 22), (40, 60)]
        .map(|(start, end)| KeyRange { start_key: key(start), end_key: key(end) });
    asks.push(Ask::BatchScan(RawBatchScanRequest {
        context: some(),
        ranges: ranges.to_vec(),
        each_limit: 3,
    }));
    asks.push(Ask::Empty(Empty { test_id: 77 }));
    asks.push(get(context, b"batch/none".to_vec()));
    assert_eq!(asks.len(), MOST);
    let ids = stream.send(asks);
    let mut answers = stream.answers().await.unwrap();
    for (number, id) in ids.iter().enumerate().take(MOST - 10) {
        let found = matches!(&answers[id], Answer::Get(got) if got.value == value(number));
        assert!(found, "{number}: {:?}", answers[id]);
    }
    let rest: Vec<Answer> = ids[MOST - 10..].iter().map(|id| answers.remove(id).unwrap()).collect();
    let [
        batch_get,
        batch_put,
        delete,
        batch_delete,
        delete_range,
        scan,
        reverse,
        scans,
        empty,
        none,
    ] = rest.try_into().unwrap();
    assert!(
        matches!(&batch_get, Answer::BatchGet(got)
            if keys_of(&got.pairs) == [key(5), key(3)] && got.pairs[0].value == value(5)),
        "those that are there, in the order asked: {batch_get:?}"
    );
    assert_eq!(batch_put, Answer::BatchPut(RawPutResponse::default()));
    assert_eq!(delete, Answer::Delete(RawDeleteResponse::default()));
    assert_eq!(batch_delete, Answer::BatchDelete(RawDeleteResponse::default()));
    assert_eq!(delete_range, Answer::DeleteRange(RawDeleteResponse::default()));
    let pairs = |answer: &Answer| match answer {
        Answer::Scan(page) | Answer::BatchScan(page) => keys_of(&page.kvs),
        other => panic!("{other:?}"),
    };
    assert_eq!(pairs(&scan), [key(10), key(11), key(12), key(13)]);
    assert_eq!(pairs(&reverse), [key(13), key(12)]);
    assert_eq!(pairs(&scans), [key(20), key(21), key(40), key(41), key(42)]);
    assert_eq!(empty, Answer::Empty(Empty { test_id: 77 }));
    assert!(matches!(&none, Answer::Get(got) if got.not_found && got.error.is_empty()), "{none:?}");
}

/// The writes of the mixed message are there, and nothing else has changed.
async fn what_the_writes_left(stream: &mut Batches, context: &Context) {
    let gone = [300, 301, 302, 310, 315, 319];
    let there = [299, 303, 309, 320, 900, 909];
    let asks = gone.iter().chain(&there).map(|number| get(context, key(*number))).collect();
    let ids = stream.send(asks);
    let answers = stream.answers().await.unwrap();
    let found = |id: &u64| match &answers[id] {
        Answer::Get(got) => (!got.not_found).then(|| got.value.clone()),
        other => panic!("{other:?}"),
    };
    for (number, id) in gone.iter().chain(&there).zip(&ids) {
        let wanted = there.contains(number).then(|| value(*number));
        assert_eq!(found(id), wanted, "{number}");
    }
}

/// A request that is refused does not touch its neighbours in the message.
async fn refusals(stream: &mut Batches, context: &Context) {
    let epoch = RegionEpoch { conf_ver: 1, version: 1_000 };
    let nowhere = Context { region_id: 999_999, ..context.clone() };
    let stale = Context { region_epoch: Some(epoch), ..context.clone() };
    let ids = stream.send(vec![
        put(context, b"batch/first".to_vec(), b"1".to_vec()),
        get(&nowhere, key(1)),
        put(&stale, b"batch/stale".to_vec(), b"2".to_vec()),
        put(context, Vec::new(), b"3".to_vec()),
        put(context, b"batch/last".to_vec(), b"4".to_vec()),
    ]);
    let answers = stream.answers().await.unwrap();
    let answers: Vec<&Answer> = ids.iter().map(|id| &answers[id]).collect();
    let taken = Answer::Put(RawPutResponse::default());
    assert_eq!((answers[0], answers[4]), (&taken, &taken));
    let not_found = |answer: &Answer| match answer {
        Answer::Get(got) => got.region_error.as_ref().is_some_and(|e| e.region_not_found.is_some()),
        _ => false,
    };
    assert!(not_found(answers[1]), "{:?}", answers[1]);
    let Answer::Put(stale) = answers[2] else { panic!("{:?}", answers[2]) };
    let error = stale.region_error.as_ref().expect("another epoch is refused");
    assert!(error.epoch_not_match.is_some(), "{error:?}");
    let Answer::Put(empty) = answers[3] else { panic!("{:?}", answers[3]) };
    assert!(empty.region_error.is_none() && empty.error.contains("empty"), "{empty:?}");

    let ids = stream.send(
        ["batch/first", "batch/stale", "batch/last"].map(|key| get(context, key.into())).to_vec(),
    );
    let answers = stream.answers().await.unwrap();
    let there = |id: &u64| matches!(&answers[id], Answer::Get(got) if !got.not_found);
    assert_eq!([there(&ids[0]), there(&ids[1]), there(&ids[2])], [true, false, true]);
}
