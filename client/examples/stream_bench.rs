//! What the client itself costs: gets and puts against a store that does nothing but answer,
//! each side on a thread of its own. Prints operations a second, CPU-µs per operation of either
//! side, and requests per message.
//!
//! `cargo run -p quorate-client --example stream_bench [SECONDS [CLIENTS]]`

use std::{
    fs,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use quorate_client::{Client, ClientOptions};
use quorate_proto::wire::{
    kvrpcpb, metapb,
    pdpb::{self, pd_server},
    tikvpb::{
        BatchCommandsRequest, BatchCommandsResponse,
        batch_commands_request::request::Cmd as Command,
        batch_commands_response::{Response as Entry, response::Cmd as Answer},
        tikv_server,
    },
};
use tokio::runtime::Builder;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming, transport::Server};

type Reply<T> = Result<Response<T>, Status>;
type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Both services: a cluster of one store and one region.
#[derive(Clone)]
struct Echo {
    address: String,
    messages: Arc<AtomicU64>,
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(2);
    let only = std::env::args().nth(2).and_then(|text| text.parse().ok());
    let numbers = only.map_or(vec![1, 16, 64, 256], |clients| vec![clients]);
    let messages = Arc::new(AtomicU64::new(0));
    let (started, starting) = mpsc::channel();
    let counted = Arc::clone(&messages);
    thread::spawn(move || serve(counted, &started));
    let Ok((address, server)) = starting.recv() else {
        return eprintln!("the server did not start");
    };
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return eprintln!("no runtime: {error}"),
    };
    let options = ClientOptions::default();
    let client = match runtime.block_on(Client::connect(&[address], options)) {
        Ok(client) => client,
        Err(error) => return eprintln!("{error}"),
    };
    println!("operation  clients   ops/s  client µs/op  server µs/op  requests/message");
    for write in [false, true] {
        for clients in numbers.clone() {
            let before = (messages.load(Ordering::Relaxed), cpu("self"), cpu(&server));
            let began = Instant::now();
            let operations =
                runtime.block_on(run(&client, clients, write, Duration::from_secs(seconds)));
            let took = began.elapsed().as_secs_f64();
            let count = operations as f64;
            let sent = messages.load(Ordering::Relaxed) - before.0;
            println!(
                "{:<9}  {clients:>7}  {:>6.0}  {:>12.2}  {:>12.2}  {:>16.1}",
                if write { "put" } else { "get" },
                count / took,
                (cpu("self") - before.1) * 1e6 / count,
                (cpu(&server) - before.2) * 1e6 / count,
                count / sent.max(1) as f64,
            );
        }
    }
}

/// Closed-loop clients for a while; how many operations they did.
async fn run(client: &Client, clients: usize, write: bool, time: Duration) -> u64 {
    let until = Instant::now() + time;
    let value = Bytes::from(vec![7; 256]);
    let tasks: Vec<_> = (0..clients)
        .map(|at| {
            let (client, value) = (client.clone(), value.clone());
            let key = Bytes::from(format!("user{at:012}"));
            tokio::spawn(async move {
                let mut done = 0;
                while Instant::now() < until {
                    let result = if write {
                        client.put(key.clone(), value.clone()).await
                    } else {
                        client.get(key.clone()).await.map(|_| ())
                    };
                    match result {
                        Ok(()) => done += 1,
                        Err(error) => eprintln!("{error}"),
                    }
                }
                done
            })
        })
        .collect();
    futures::future::join_all(tasks).await.into_iter().map(|done| done.unwrap_or(0)).sum()
}

/// CPU seconds of a thread: `self`, or a thread id.
fn cpu(thread: &str) -> f64 {
    let path = match thread {
        "self" => "/proc/thread-self/schedstat".to_owned(),
        id => format!("/proc/self/task/{id}/schedstat"),
    };
    let text = fs::read_to_string(path).unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|number| number.parse::<f64>().ok());
    nanoseconds.unwrap_or(0.0) / 1e9
}

fn serve(messages: Arc<AtomicU64>, started: &mpsc::Sender<(String, String)>) {
    let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        let Ok(listener) = tokio::net::TcpListener::bind("127.0.0.1:0").await else { return };
        let Ok(address) = listener.local_addr().map(|address| address.to_string()) else { return };
        let me = fs::read_link("/proc/thread-self").ok();
        let thread = me.and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
        let _ = started.send((address.clone(), thread.unwrap_or_default()));
        let echo = Echo { address, messages };
        let served = Server::builder()
            .tcp_nodelay(true)
            .initial_stream_window_size(8 * 1024 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024)
            .add_service(pd_server::PdServer::new(echo.clone()))
            .add_service(tikv_server::TikvServer::new(echo))
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await;
        if let Err(error) = served {
            eprintln!("{error}");
        }
    });
}

impl Echo {
    fn header(&self) -> Option<pdpb::ResponseHeader> {
        Some(pdpb::ResponseHeader { cluster_id: 1, error: None })
    }

    fn answer(&self, message: BatchCommandsRequest) -> BatchCommandsResponse {
        self.messages.fetch_add(1, Ordering::Relaxed);
        let value = Bytes::from_static(&[7; 256]);
        let responses = message
            .requests
            .into_iter()
            .map(|request| Entry {
                cmd: request.cmd.map(|command| match command {
                    Command::RawGet(_) => Answer::RawGet(kvrpcpb::RawGetResponse {
                        value: value.clone(),
                        ..Default::default()
                    }),
                    _ => Answer::RawPut(kvrpcpb::RawPutResponse::default()),
                }),
            })
            .collect();
        BatchCommandsResponse { responses, request_ids: message.request_ids }
    }
}

macro_rules! refuse {
    ($($call:ident($request:ty) -> $response:ty),* $(,)?) => {
        $(fn $call<'life0, 'async_trait>(
            &'life0 self,
            _: Request<$request>,
        ) -> Pin<Box<dyn Future<Output = Reply<$response>> + Send + 'async_trait>>
        where
            'life0: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(async { Err(Status::unimplemented("only streams here")) })
        })*
    };
}

#[tonic::async_trait]
impl tikv_server::Tikv for Echo {
    type BatchCommandsStream = Replies<BatchCommandsResponse>;

    async fn batch_commands(
        &self,
        request: Request<Streaming<BatchCommandsRequest>>,
    ) -> Reply<Self::BatchCommandsStream> {
        let echo = self.clone();
        let answers = request.into_inner().map(move |message| Ok(echo.answer(message?)));
        Ok(Response::new(Box::pin(answers)))
    }

    refuse! {
        raw_get(kvrpcpb::RawGetRequest) -> kvrpcpb::RawGetResponse,
        raw_batch_get(kvrpcpb::RawBatchGetRequest) -> kvrpcpb::RawBatchGetResponse,
        raw_put(kvrpcpb::RawPutRequest) -> kvrpcpb::RawPutResponse,
        raw_batch_put(kvrpcpb::RawBatchPutRequest) -> kvrpcpb::RawBatchPutResponse,
        raw_delete(kvrpcpb::RawDeleteRequest) -> kvrpcpb::RawDeleteResponse,
        raw_batch_delete(kvrpcpb::RawBatchDeleteRequest) -> kvrpcpb::RawBatchDeleteResponse,
        raw_scan(kvrpcpb::RawScanRequest) -> kvrpcpb::RawScanResponse,
        raw_delete_range(kvrpcpb::RawDeleteRangeRequest) -> kvrpcpb::RawDeleteRangeResponse,
        raw_batch_scan(kvrpcpb::RawBatchScanRequest) -> kvrpcpb::RawBatchScanResponse,
    }
}

#[tonic::async_trait]
impl pd_server::Pd for Echo {
    async fn get_members(
        &self,
        _: Request<pdpb::GetMembersRequest>,
    ) -> Reply<pdpb::GetMembersResponse> {
        let member = pdpb::Member { client_urls: vec![self.address.clone()], ..Default::default() };
        Ok(Response::new(pdpb::GetMembersResponse {
            header: self.header(),
            members: vec![member.clone()],
            leader: Some(member),
            etcd_leader: None,
        }))
    }

    async fn scan_regions(
        &self,
        _: Request<pdpb::ScanRegionsRequest>,
    ) -> Reply<pdpb::ScanRegionsResponse> {
        let peer = metapb::Peer { id: 2, store_id: 1, role: 0 };
        let region = metapb::Region {
            id: 1,
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
            peers: vec![peer],
            ..Default::default()
        };
        let region =
            pdpb::Region { region: Some(region), leader: Some(peer), ..Default::default() };
        Ok(Response::new(pdpb::ScanRegionsResponse {
            header: self.header(),
            regions: vec![region],
            ..Default::default()
        }))
    }

    async fn get_store(&self, _: Request<pdpb::GetStoreRequest>) -> Reply<pdpb::GetStoreResponse> {
        let store = metapb::Store { id: 1, address: self.address.clone(), ..Default::default() };
        let header = self.header();
        Ok(Response::new(pdpb::GetStoreResponse { header, store: Some(store), stats: None }))
    }

    type TsoStream = Replies<pdpb::TsoResponse>;

    refuse! {
        tso(Streaming<pdpb::TsoRequest>) -> Self::TsoStream,
        get_region(pdpb::GetRegionRequest) -> pdpb::GetRegionResponse,
        get_prev_region(pdpb::GetRegionRequest) -> pdpb::GetRegionResponse,
        get_region_by_id(pdpb::GetRegionByIdRequest) -> pdpb::GetRegionResponse,
        batch_scan_regions(pdpb::BatchScanRegionsRequest) -> pdpb::BatchScanRegionsResponse,
        get_all_stores(pdpb::GetAllStoresRequest) -> pdpb::GetAllStoresResponse,
        update_gc_safe_point(pdpb::UpdateGcSafePointRequest) -> pdpb::UpdateGcSafePointResponse,
        get_gc_state(pdpb::GetGcStateRequest) -> pdpb::GetGcStateResponse,
    }
}
