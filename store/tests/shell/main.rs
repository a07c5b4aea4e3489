//! A whole store on a real engine and real sockets, with a placement that the test plays.

#![allow(clippy::unwrap_used)]

mod placement;

use std::path::Path;
use std::time::Duration;

use quorate_proto::wire::health::HealthCheckRequest;
use quorate_proto::wire::health::health_client::HealthClient;
use quorate_proto::wire::kvrpcpb::{Context, RawGetRequest, RawGetResponse, RawPutRequest};
use quorate_proto::wire::metapb;
use quorate_proto::wire::placement::order::Step;
use quorate_proto::wire::placement::{Order, SplitStep};
use quorate_proto::wire::tikvpb::BatchCommandsRequest;
use quorate_proto::wire::tikvpb::batch_commands_request::{Request, request};
use quorate_proto::wire::tikvpb::batch_commands_response::response;
use quorate_proto::wire::tikvpb::tikv_client::TikvClient;
use quorate_store::{StoreConfig, StoreError, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tonic::transport::Channel;

use self::placement::FakePlacement;

/// Nothing here takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A store on a thread of its own.
struct Running {
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<Result<(), StoreError>>,
}

impl Running {
    fn start(config: StoreConfig) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        std::thread::spawn(move || {
            let result = run(config, async {
                let _ = stopped.await;
            });
            let _ = end.send(result);
        });
        Self { stop, ended }
    }

    async fn stop(self) {
        self.stop.send(()).expect("the store runs");
        tokio::time::timeout(PATIENCE, self.ended).await.unwrap().unwrap().unwrap();
    }

    /// Why it ended by itself.
    async fn failure(self) -> String {
        let ended = tokio::time::timeout(PATIENCE, self.ended).await.unwrap().unwrap();
        ended.unwrap_err().to_string()
    }
}

fn config(data: &Path, placement: &str) -> StoreConfig {
    StoreConfig {
        listen: "127.0.0.1:0".to_owned(),
        status_address: "127.0.0.1:0".to_owned(),
        placement: vec![placement.to_owned()],
        data: data.to_owned(),
        report_interval_ms: 100,
        ..StoreConfig::default()
    }
}

async fn connect(address: &str) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
    let patience = async {
        loop {
            if let Ok(channel) = endpoint.connect().await {
                return channel;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, patience).await.unwrap()
}

async fn http(address: &str, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn context(region: &metapb::Region) -> Option<Context> {
    Some(Context {
        region_id: region.id,
        region_epoch: region.region_epoch,
        peer: region.peers.first().copied(),
        ..Context::default()
    })
}

/// Repeats a get until the region has a leader.
async fn get(
    client: &mut TikvClient<Channel>,
    region: &metapb::Region,
    key: &'static str,
) -> RawGetResponse {
    let patience = async {
        loop {
            let ask =
                RawGetRequest { context: context(region), key: key.into(), ..Default::default() };
            let answer = client.raw_get(ask).await.unwrap().into_inner();
            match &answer.region_error {
                Some(error)
                    if error.not_leader.is_some() || error.read_index_not_ready.is_some() =>
                {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                _ => return answer,
            }
        }
    };
    tokio::time::timeout(PATIENCE, patience).await.unwrap()
}

#[tokio::test]
async fn a_store_joins_serves_splits_restarts_alone_and_is_refused_by_another_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("store-1");
    let placement = FakePlacement::start(7, 1).await;
    let store = Running::start(config(&data, &placement.address));

    // It waits for the other store, then has the first region and leads it.
    let first = placement.until("the store leads its region", |known| known.regions().pop()).await;
    let join = placement.known.lock().joins.pop().unwrap();
    let mut client = TikvClient::new(connect(&join.address).await);
    let put = RawPutRequest {
        context: context(&first),
        key: "apple".into(),
        value: "red".into(),
        ..Default::default()
    };
    let answer = client.raw_put(put).await.unwrap().into_inner();
    assert_eq!((answer.region_error, answer.error.as_str()), (None, ""));
    assert_eq!(get(&mut client, &first, "apple").await.value, "red");

    // The batched stream serves the same.
    let ask = RawGetRequest { context: context(&first), key: "apple".into(), ..Default::default() };
    let message = BatchCommandsRequest {
        requests: vec![Request { cmd: Some(request::Cmd::RawGet(ask)) }],
        request_ids: vec![42],
    };
    let outbound =
        futures::StreamExt::chain(futures::stream::iter([message]), futures::stream::pending());
    let mut stream = client.batch_commands(outbound).await.unwrap().into_inner();
    let message = stream.message().await.unwrap().unwrap();
    assert_eq!(message.request_ids, [42]);
    let Some(response::Cmd::RawGet(found)) = &message.responses[0].cmd else { panic!() };
    assert_eq!(found.value, "red");

    // It can be seen from outside.
    let mut health = HealthClient::new(connect(&join.address).await);
    let answer = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.status, 1, "serving");
    assert!(http(&join.status_address, "/ready").await.starts_with("HTTP/1.1 200"));
    let page = http(&join.status_address, "/health?regions=1").await;
    assert!(page.contains("\"id\":1") && page.contains("\"is_leader\":true"), "{page}");
    let page = http(&join.status_address, "/metrics").await;
    let line = "quorate_store_requests_total{kind=\"raw_put\",outcome=\"ok\"} 1";
    assert!(page.lines().any(|found| found == line), "{page}");

    // A second process on the same folder is refused.
    let refusal = Running::start(config(&data, &placement.address)).failure().await;
    assert!(refusal.contains("in use by another process"), "{refusal}");

    // It splits on request, and placement hears of both parts.
    let keys = vec!["m".into()];
    let step = SplitStep { region_id: first.id, epoch: first.region_epoch, keys };
    let reason = "the test asks".to_owned();
    placement.order(Order { operator_id: 1, reason, step: Some(Step::Split(step)) });
    let regions = placement
        .until("both parts are reported", |known| {
            Some(known.regions()).filter(|all| all.len() == 2)
        })
        .await;
    assert_eq!((&*regions[0].end_key, &*regions[1].start_key), (&b"m"[..], &b"m"[..]));
    assert_eq!(get(&mut client, &regions[0], "apple").await.value, "red");
    let stale = get(&mut client, &first, "apple").await.region_error.unwrap();
    assert_eq!(stale.epoch_not_match.unwrap().current_regions.len(), 2);

    // It stops although a stream is open, and starts again without placement.
    store.stop().await;
    placement
        .until("it says that it stops", |known| {
            known.reports.last().is_some_and(|report| report.stopping).then_some(())
        })
        .await;
    let gone = placement.address.clone();
    placement.kill().await;
    let again = StoreConfig { listen: join.address.clone(), ..config(&data, &gone) };
    let store = Running::start(again);
    let mut client = TikvClient::new(connect(&join.address).await);
    assert_eq!(get(&mut client, &regions[0], "apple").await.value, "red");
    store.stop().await;

    let other = FakePlacement::start(8, 0).await;
    let refusal = Running::start(config(&data, &other.address)).failure().await;
    assert!(refusal.contains("belongs to cluster 7"), "{refusal}");
}

#[tokio::test]
async fn a_store_that_waits_for_placement_can_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let placement = FakePlacement::start(7, u32::MAX).await;
    let store = Running::start(config(folder.path(), &placement.address));
    let status = placement
        .until("it has joined", |known| Some(known.joins.last()?.status_address.clone()))
        .await;
    let ready = http(&status, "/ready").await;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    store.stop().await;
}
