//! A store that serves the shared data, checks what a store checks, and obeys the script.

use std::{ops::Bound, pin::Pin};

use bytes::Bytes;
use futures::Stream;
use quorate_proto::{
    KeyRange, StoreId, limits,
    wire::{
        errorpb, kvrpcpb,
        tikvpb::{
            BatchCommandsRequest, BatchCommandsResponse,
            batch_commands_request::request::Cmd as Command,
            batch_commands_response::{Response as Entry, response::Cmd as Answer},
            tikv_server::{Tikv, TikvServer},
        },
    },
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport};

use crate::world::{Move, Shared, State};

#[derive(Clone)]
struct Store {
    id: StoreId,
    state: Shared,
}

/// What comes of one request.
enum Done {
    Answer(Answer),
    Nothing,
    Reset,
}

pub(crate) async fn serve(id: StoreId, state: Shared, listener: TcpListener) {
    transport::Server::builder()
        .add_service(TikvServer::new(Store { id, state }))
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await
        .unwrap();
}

impl Store {
    fn handle(&self, command: Command) -> Done {
        let mut state = self.state.lock().unwrap();
        state.requests += 1;
        let next = state.moves.get_mut(&self.id).and_then(|moves| moves.pop_front());
        match next {
            None => Done::Answer(self.serve(&mut state, command)),
            Some(Move::Swallow) => Done::Nothing,
            Some(Move::Reset) => Done::Reset,
            Some(Move::ApplyAndReset) => {
                self.serve(&mut state, command);
                Done::Reset
            }
            Some(Move::Refuse(error)) => Done::Answer(refuse(&command, error)),
            Some(Move::Fail(words)) => {
                let error = words.to_owned();
                Done::Answer(Answer::RawPut(kvrpcpb::RawPutResponse { region_error: None, error }))
            }
        }
    }

    fn serve(&self, state: &mut State, command: Command) -> Answer {
        match self.check(state, &command) {
            Ok(()) => bounded(command.clone(), apply(state, command)),
            Err(error) => refuse(&command, error),
        }
    }

    /// As a store does: the region, its epoch, the leader, the range.
    fn check(&self, state: &mut State, command: &Command) -> Result<(), errorpb::Error> {
        let (context, range) = shape(command);
        let led = state.regions.iter().find(|led| led.region.id.0 == context.region_id);
        let Some(led) = led else {
            let region_not_found = Some(errorpb::RegionNotFound { region_id: context.region_id });
            return Err(errorpb::Error { region_not_found, ..Default::default() });
        };
        let me = led.region.peer_on(self.id).unwrap();
        assert_eq!(context.peer.unwrap().id, me.id.0, "sent to the store of another peer");
        if context.stale_read && led.leader != Some(self.id) {
            let age = state.ages.get(&self.id).copied().unwrap_or(0);
            if age > context.stale_ms {
                let region_id = led.region.id.0;
                let data_is_not_ready =
                    Some(errorpb::DataIsNotReady { region_id, peer_id: me.id.0, safe_ts: 0 });
                return Err(errorpb::Error { data_is_not_ready, ..Default::default() });
            }
        } else if led.leader != Some(self.id) && !context.replica_read {
            let leader = led.leader.map(|store| (*led.region.peer_on(store).unwrap()).into());
            let not_leader = Some(errorpb::NotLeader { region_id: led.region.id.0, leader });
            return Err(errorpb::Error { not_leader, ..Default::default() });
        }
        if context.region_epoch != Some(led.region.epoch.into()) {
            let current_regions = state.regions.iter().map(|led| (&led.region).into()).collect();
            let epoch_not_match = Some(errorpb::EpochNotMatch { current_regions });
            return Err(errorpb::Error { epoch_not_match, ..Default::default() });
        }
        assert!(led.region.range.covers(&range), "{range} is not in {}", led.region.range);
        if context.stale_read {
            *state.stale_reads.entry(self.id).or_default() += 1;
        }
        if context.replica_read {
            *state.replica_reads.entry(self.id).or_default() += 1;
        }
        Ok(())
    }

    fn unary(&self, command: Command) -> Result<Answer, Status> {
        match self.handle(command) {
            Done::Answer(answer) => Ok(answer),
            Done::Nothing => Err(Status::deadline_exceeded("swallowed")),
            Done::Reset => Err(Status::unavailable("reset")),
        }
    }
}

/// The context, and the keys that have to be in the region.
fn shape(command: &Command) -> (kvrpcpb::Context, KeyRange) {
    fn point(key: &Bytes) -> KeyRange {
        let mut end = key.to_vec();
        end.push(0);
        KeyRange::new(key.clone(), end)
    }
    fn points(mut keys: Vec<Bytes>) -> KeyRange {
        keys.sort();
        KeyRange::new(keys[0].clone(), point(keys.last().unwrap()).end)
    }
    let (context, range) = match command {
        Command::RawGet(m) => (m.context, point(&m.key)),
        Command::RawPut(m) => (m.context, point(&m.key)),
        Command::RawDelete(m) => (m.context, point(&m.key)),
        Command::RawBatchGet(m) => (m.context, points(m.keys.clone())),
        Command::RawBatchPut(m) => {
            (m.context, points(m.pairs.iter().map(|pair| pair.key.clone()).collect()))
        }
        Command::RawBatchDelete(m) => (m.context, points(m.keys.clone())),
        Command::RawScan(m) if m.reverse => {
            (m.context, KeyRange::new(m.end_key.clone(), m.start_key.clone()))
        }
        Command::RawScan(m) => (m.context, KeyRange::new(m.start_key.clone(), m.end_key.clone())),
        Command::RawDeleteRange(m) => {
            (m.context, KeyRange::new(m.start_key.clone(), m.end_key.clone()))
        }
        Command::RawBatchScan(_) | Command::Empty(_) => panic!("the client does not send these"),
    };
    (context.unwrap(), range)
}

fn refuse(command: &Command, error: errorpb::Error) -> Answer {
    let region_error = Some(Box::new(error));
    match command {
        Command::RawGet(_) => {
            Answer::RawGet(kvrpcpb::RawGetResponse { region_error, ..Default::default() })
        }
        Command::RawPut(_) => {
            Answer::RawPut(kvrpcpb::RawPutResponse { region_error, ..Default::default() })
        }
        Command::RawDelete(_) => {
            Answer::RawDelete(kvrpcpb::RawDeleteResponse { region_error, ..Default::default() })
        }
        Command::RawBatchGet(_) => {
            Answer::RawBatchGet(kvrpcpb::RawBatchGetResponse { region_error, ..Default::default() })
        }
        Command::RawBatchPut(_) => {
            Answer::RawBatchPut(kvrpcpb::RawBatchPutResponse { region_error, ..Default::default() })
        }
        Command::RawBatchDelete(_) => Answer::RawBatchDelete(kvrpcpb::RawBatchDeleteResponse {
            region_error,
            ..Default::default()
        }),
        Command::RawScan(_) => {
            Answer::RawScan(kvrpcpb::RawScanResponse { region_error, ..Default::default() })
        }
        Command::RawDeleteRange(_) => Answer::RawDeleteRange(kvrpcpb::RawDeleteRangeResponse {
            region_error,
            ..Default::default()
        }),
        Command::RawBatchScan(_) | Command::Empty(_) => panic!("the client does not send these"),
    }
}

/// As a store does: an answer that clients could not decode is refused, never cut.
fn bounded(command: Command, answer: Answer) -> Answer {
    let pairs = match &answer {
        Answer::RawBatchGet(answer) => &answer.pairs,
        Answer::RawScan(answer) => &answer.kvs,
        _ => return answer,
    };
    let bytes: usize = pairs.iter().map(|pair| pair.key.len() + pair.value.len()).sum();
    if bytes <= limits::MAX_ANSWER_BYTES {
        return answer;
    }
    let message = "the answer is too large: ask for less".to_owned();
    let raft_entry_too_large = Some(errorpb::RaftEntryTooLarge::default());
    refuse(&command, errorpb::Error { message, raft_entry_too_large, ..Default::default() })
}

fn apply(state: &mut State, command: Command) -> Answer {
    let pair = |(key, value): (&Bytes, &Bytes)| kvrpcpb::KvPair {
        error: None,
        key: key.clone(),
        value: value.clone(),
    };
    fn bounds(start: &Bytes, end: &Bytes) -> (Bound<Bytes>, Bound<Bytes>) {
        let upper = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end.clone()) };
        (Bound::Included(start.clone()), upper)
    }
    match command {
        Command::RawGet(m) => {
            let value = state.data.get(&m.key).cloned();
            Answer::RawGet(kvrpcpb::RawGetResponse {
                not_found: value.is_none(),
                value: value.unwrap_or_default(),
                ..Default::default()
            })
        }
        Command::RawPut(m) => {
            state.applied += 1;
            state.data.insert(m.key, m.value);
            Answer::RawPut(kvrpcpb::RawPutResponse::default())
        }
        Command::RawDelete(m) => {
            state.applied += 1;
            state.data.remove(&m.key);
            Answer::RawDelete(kvrpcpb::RawDeleteResponse::default())
        }
        Command::RawBatchGet(m) => {
            let found = m.keys.iter().filter_map(|key| state.data.get_key_value(key)).map(pair);
            let pairs = found.collect();
            Answer::RawBatchGet(kvrpcpb::RawBatchGetResponse { region_error: None, pairs })
        }
        Command::RawBatchPut(m) => {
            state.applied += 1;
            state.data.extend(m.pairs.into_iter().map(|pair| (pair.key, pair.value)));
            Answer::RawBatchPut(kvrpcpb::RawBatchPutResponse::default())
        }
        Command::RawBatchDelete(m) => {
            state.applied += 1;
            m.keys.iter().for_each(|key| drop(state.data.remove(key)));
            Answer::RawBatchDelete(kvrpcpb::RawBatchDeleteResponse::default())
        }
        Command::RawScan(m) => {
            let limit = m.limit as usize;
            let mut kvs: Vec<kvrpcpb::KvPair> = match m.reverse {
                false => state
                    .data
                    .range(bounds(&m.start_key, &m.end_key))
                    .take(limit)
                    .map(pair)
                    .collect(),
                true => state
                    .data
                    .range(bounds(&m.end_key, &m.start_key))
                    .rev()
                    .take(limit)
                    .map(pair)
                    .collect(),
            };
            if m.key_only {
                kvs.iter_mut().for_each(|pair| pair.value = Bytes::new());
            }
            Answer::RawScan(kvrpcpb::RawScanResponse { region_error: None, kvs })
        }
        Command::RawDeleteRange(m) => {
            state.applied += 1;
            let range = KeyRange::new(m.start_key, m.end_key);
            state.data.retain(|key, _| !range.contains(key));
            Answer::RawDeleteRange(kvrpcpb::RawDeleteRangeResponse::default())
        }
        Command::RawBatchScan(_) | Command::Empty(_) => panic!("the client does not send these"),
    }
}

/// A unary call by way of the command of the same name.
macro_rules! unary {
    ($($call:ident: $kind:ident($request:ty) -> $response:ty),* $(,)?) => {
        #[tonic::async_trait]
        impl Tikv for Store {
            $(async fn $call(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                match self.unary(Command::$kind(request.into_inner()))? {
                    Answer::$kind(answer) => Ok(Response::new(answer)),
                    other => panic!("answered with {other:?}"),
                }
            })*

            type BatchCommandsStream =
                Pin<Box<dyn Stream<Item = Result<BatchCommandsResponse, Status>> + Send>>;

            async fn batch_commands(
                &self,
                request: Request<Streaming<BatchCommandsRequest>>,
            ) -> Result<Response<Self::BatchCommandsStream>, Status> {
                if self.state.lock().unwrap().unary_only {
                    return Err(Status::unimplemented("no streams here"));
                }
                let (answers, outgoing) = mpsc::channel(64);
                tokio::spawn(pump(self.clone(), request.into_inner(), answers));
                Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
            }
        }
    };
}

async fn pump(
    store: Store,
    mut messages: Streaming<BatchCommandsRequest>,
    answers: mpsc::Sender<Result<BatchCommandsResponse, Status>>,
) {
    while let Ok(Some(message)) = messages.message().await {
        store.state.lock().unwrap().messages += 1;
        let mut answer = BatchCommandsResponse::default();
        for (request, id) in message.requests.into_iter().zip(message.request_ids) {
            match store.handle(request.cmd.unwrap()) {
                Done::Answer(cmd) => {
                    answer.responses.push(Entry { cmd: Some(cmd) });
                    answer.request_ids.push(id);
                }
                Done::Nothing => {}
                Done::Reset => {
                    let _ = answers.send(Err(Status::unavailable("reset by the script"))).await;
                    return;
                }
            }
        }
        if !answer.request_ids.is_empty() && answers.send(Ok(answer)).await.is_err() {
            return;
        }
    }
}

unary! {
    raw_get: RawGet(kvrpcpb::RawGetRequest) -> kvrpcpb::RawGetResponse,
    raw_batch_get: RawBatchGet(kvrpcpb::RawBatchGetRequest) -> kvrpcpb::RawBatchGetResponse,
    raw_put: RawPut(kvrpcpb::RawPutRequest) -> kvrpcpb::RawPutResponse,
    raw_batch_put: RawBatchPut(kvrpcpb::RawBatchPutRequest) -> kvrpcpb::RawBatchPutResponse,
    raw_delete: RawDelete(kvrpcpb::RawDeleteRequest) -> kvrpcpb::RawDeleteResponse,
    raw_batch_delete: RawBatchDelete(kvrpcpb::RawBatchDeleteRequest) -> kvrpcpb::RawBatchDeleteResponse,
    raw_scan: RawScan(kvrpcpb::RawScanRequest) -> kvrpcpb::RawScanResponse,
    raw_delete_range: RawDeleteRange(kvrpcpb::RawDeleteRangeRequest) -> kvrpcpb::RawDeleteRangeResponse,
    raw_batch_scan: RawBatchScan(kvrpcpb::RawBatchScanRequest) -> kvrpcpb::RawBatchScanResponse,
}
