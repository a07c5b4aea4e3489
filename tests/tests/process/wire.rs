//! A client that knows only TiKV's messages, and starts as such clients do.

use quorate_tests::process::tikv::{
    Context, GetMembersRequest, GetMembersResponse, GetRegionByIdRequest, GetRegionRequest,
    GetRegionResponse, GetStoreRequest, GetStoreResponse, RawDeleteRequest, RawDeleteResponse,
    RawGetRequest, RawGetResponse, RawPutRequest, RawPutResponse, RawScanRequest, RawScanResponse,
    RegionEpoch, RequestHeader, TsoRequest, Wire,
};
use quorate_tests::process::{Cluster, Shape, eventually};

use crate::RECOVERY;

/// As much of such a client as a test needs: placement's leader, and routes asked for each time.
pub(crate) struct TikvClient {
    pd: Wire,
    header: Option<RequestHeader>,
}

impl TikvClient {
    pub(crate) async fn connect(cluster: &Cluster) -> TikvClient {
        let (mut ids, mut leader) = (Vec::new(), None);
        for address in cluster.placement_addresses() {
            let mut wire = Wire::connect(&address).await.unwrap();
            // Without a header: the id of the cluster is what it wants to know.
            let request = GetMembersRequest { header: None };
            let answer: GetMembersResponse = wire.pd("GetMembers", request).await.unwrap();
            let header = answer.header.expect("every answer has a header");
            assert_eq!(header.error, None);
            assert_eq!(answer.members.len(), 3);
            assert!(
                answer.members.iter().all(|member| member.client_urls[0].starts_with("http://"))
            );
            ids.push(header.cluster_id);
            leader = leader.or(answer.leader);
        }
        assert!(ids[0] != 0 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        let url = &leader.expect("some member knows the leader").client_urls[0];
        let pd = Wire::connect(url).await.unwrap();
        TikvClient { pd, header: Some(RequestHeader { cluster_id: ids[0] }) }
    }

    /// The way to a key: the connection to its leader, and the context of a request.
    pub(crate) async fn route(&mut self, key: &[u8]) -> (Wire, Context) {
        let request = GetRegionRequest { header: self.header.clone(), region_key: key.to_vec() };
        let found: GetRegionResponse = self.pd.pd("GetRegion", request).await.unwrap();
        assert_eq!(found.header.unwrap().error, None);
        let (region, leader) = (found.region.unwrap(), found.leader.unwrap());
        assert!(region.start_key.as_slice() <= key);
        assert!(region.end_key.is_empty() || key < region.end_key.as_slice());
        assert!(region.peers.contains(&leader));
        let by_id = GetRegionByIdRequest { header: self.header.clone(), region_id: region.id };
        let again: GetRegionResponse = self.pd.pd("GetRegionByID", by_id).await.unwrap();
        assert_eq!(again.region.as_ref(), Some(&region));
        let request = GetStoreRequest { header: self.header.clone(), store_id: leader.store_id };
        let store: GetStoreResponse = self.pd.pd("GetStore", request).await.unwrap();
        let store = store.store.expect("such clients unwrap it");
        assert_eq!((store.id, store.state), (leader.store_id, 0));
        let context = Context {
            region_id: region.id,
            region_epoch: region.region_epoch,
            peer: Some(leader),
            term: 0,
        };
        (Wire::connect(&store.address).await.unwrap(), context)
    }

    async fn put(&mut self, key: &[u8], value: &[u8]) -> RawPutResponse {
        let (mut store, context) = self.route(key).await;
        let (key, value) = (key.to_vec(), value.to_vec());
        let request = RawPutRequest { context: Some(context), key, value, cf: String::new() };
        store.kv("RawPut", request).await.unwrap()
    }

    async fn get(&mut self, key: &[u8]) -> RawGetResponse {
        let (mut store, context) = self.route(key).await;
        let request =
            RawGetRequest { context: Some(context), key: key.to_vec(), cf: String::new() };
        store.kv("RawGet", request).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tikv_client_starts_reads_and_writes() {
    let mut cluster = Cluster::start(Shape::default()).await;
    let mut client = TikvClient::connect(&cluster).await;

    // The timestamp stream is opened by every client, before anything else.
    let requests = [1u32, 10, 3].map(|count| TsoRequest { header: client.header.clone(), count });
    let mut stream = client.pd.tso(requests.to_vec()).await.unwrap();
    let mut last = 0;
    for count in [1u32, 10, 3] {
        let answer = stream.message().await.unwrap().unwrap();
        assert_eq!(answer.count, count);
        let given = answer.timestamp.unwrap();
        let highest = given.physical << 18 | given.logical;
        assert!(highest - i64::from(count) >= last, "{highest} after {last}");
        last = highest;
    }

    assert_eq!(client.put(b"one", b"1").await, RawPutResponse::default());
    let got = client.get(b"one").await;
    assert_eq!((got.region_error, got.error.as_str(), got.value), (None, "", b"1".to_vec()));
    assert!(client.get(b"two").await.not_found);
    client.put(b"empty", b"").await;
    let empty = client.get(b"empty").await;
    assert!(!empty.not_found && empty.value.is_empty(), "an empty value is a value");

    for number in 0..10 {
        client.put(format!("scan{number}").as_bytes(), b"v").await;
    }
    let (mut store, context) = client.route(b"scan").await;
    let scan = RawScanRequest {
        context: Some(context),
        start_key: b"scan".to_vec(),
        end_key: b"scao".to_vec(),
        limit: 4,
        ..RawScanRequest::default()
    };
    let page: RawScanResponse = store.kv("RawScan", scan.clone()).await.unwrap();
    let keys: Vec<&[u8]> = page.kvs.iter().map(|pair| pair.key.as_slice()).collect();
    assert_eq!(keys, [b"scan0", b"scan1", b"scan2", b"scan3"]);
    // Reversed, such clients give the upper end as the start.
    let reverse = RawScanRequest {
        start_key: b"scao".to_vec(),
        end_key: b"scan".to_vec(),
        reverse: true,
        key_only: true,
        ..scan
    };
    let page: RawScanResponse = store.kv("RawScan", reverse).await.unwrap();
    let keys: Vec<&[u8]> = page.kvs.iter().map(|pair| pair.key.as_slice()).collect();
    assert_eq!(keys, [b"scan9", b"scan8", b"scan7", b"scan6"]);
    assert!(page.kvs.iter().all(|pair| pair.value.is_empty()));

    let (mut store, context) = client.route(b"one").await;
    let request =
        RawDeleteRequest { context: Some(context), key: b"one".to_vec(), cf: String::new() };
    let deleted: RawDeleteResponse = store.kv("RawDelete", request).await.unwrap();
    assert_eq!(deleted, RawDeleteResponse::default());
    assert!(client.get(b"one").await.not_found);

    refusals(&mut cluster, &mut client).await;
}

/// What such a client learns from is there: region errors with their details, not statuses.
async fn refusals(cluster: &mut Cluster, client: &mut TikvClient) {
    let get = |context: &Context| RawGetRequest {
        context: Some(context.clone()),
        key: b"scan5".to_vec(),
        cf: String::new(),
    };
    let (mut leader, old) = client.route(b"scan5").await;

    let ids = cluster.store_ids();
    let led_by = old.peer.as_ref().unwrap().store_id;
    let other = ids.iter().position(|id| id.0 != led_by).unwrap();
    let mut follower = Wire::connect(&cluster.stores[other].address).await.unwrap();
    let answer: RawGetResponse = follower.kv("RawGet", get(&old)).await.unwrap();
    let error = answer.region_error.expect("the peer named is on another store");
    assert!(error.store_not_match.is_some() || error.not_leader.is_some(), "{error:?}");

    cluster.spread().await;
    let answer: RawGetResponse = leader.kv("RawGet", get(&old)).await.unwrap();
    let error = answer.region_error.expect("the region has split");
    let current = error.epoch_not_match.expect("the epoch is old").current_regions;
    assert!(current.iter().any(|region| region.id == old.region_id), "{current:?}");

    let epoch = Some(RegionEpoch { conf_ver: 1, version: 1 });
    let nowhere = Context { region_id: 999_999, region_epoch: epoch, ..old.clone() };
    let answer: RawGetResponse = leader.kv("RawGet", get(&nowhere)).await.unwrap();
    assert!(answer.region_error.unwrap().region_not_found.is_some());

    // The route is there for whoever asks again, as soon as the split is done.
    let found = eventually("the new route is known", RECOVERY, || async {
        let mut again = TikvClient::connect(cluster).await;
        let (_, context) = again.route(b"scan5").await;
        let same = context.region_id == old.region_id && context.region_epoch == old.region_epoch;
        if same { Err(format!("{context:?}")) } else { Ok(again.get(b"scan5").await) }
    });
    assert_eq!(found.await.value, b"v");

    let header = Some(RequestHeader { cluster_id: client.header.as_ref().unwrap().cluster_id + 1 });
    let request = GetRegionRequest { header, region_key: b"one".to_vec() };
    let answer: GetRegionResponse = client.pd.pd("GetRegion", request).await.unwrap();
    let error = answer.header.unwrap().error.expect("another cluster's id is refused");
    assert!(error.message.contains("cluster"), "{error:?}");
    assert!(answer.region.is_none());
}
