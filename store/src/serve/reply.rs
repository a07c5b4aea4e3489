//! Answers in the words of the wire protocol.
//!
//! A region's refusal travels as `region_error`, a request that we do not take as the text
//! `error`. The answers of reads of many keys have no such text: there, as TiKV does it, the first
//! pair carries the error.

use bytes::Bytes;
use prost::Message;
use quorate_proto::wire::tikvpb::batch_commands_response::response::Cmd as Response;
use quorate_proto::wire::{errorpb, kvrpcpb};

use crate::budget::Room;
use crate::kind::Kind;

/// Bytes that an answer takes beside its keys and values; generous.
const OVERHEAD: usize = 48;

/// The answer to a write that is applied. Reads are answered with what was read.
pub(super) fn done(kind: Kind) -> Response {
    match kind {
        Kind::Put => Response::RawPut(kvrpcpb::RawPutResponse::default()),
        Kind::BatchPut => Response::RawBatchPut(kvrpcpb::RawBatchPutResponse::default()),
        Kind::Delete => Response::RawDelete(kvrpcpb::RawDeleteResponse::default()),
        Kind::BatchDelete => Response::RawBatchDelete(kvrpcpb::RawBatchDeleteResponse::default()),
        Kind::DeleteRange => Response::RawDeleteRange(kvrpcpb::RawDeleteRangeResponse::default()),
        Kind::Get => value(None),
        Kind::BatchGet => pairs(kind, Vec::new()),
        Kind::Scan | Kind::BatchScan => pairs(kind, Vec::new()),
    }
}

/// The answer to a read of one key.
pub(super) fn value(value: Option<Bytes>) -> Response {
    let not_found = value.is_none();
    let value = value.unwrap_or_default();
    Response::RawGet(kvrpcpb::RawGetResponse { value, not_found, ..Default::default() })
}

/// The answer to a read of several keys.
pub(super) fn pairs(kind: Kind, pairs: Vec<kvrpcpb::KvPair>) -> Response {
    wire_pairs(kind, pairs, None)
}

/// A region's refusal.
pub(super) fn region_error(kind: Kind, error: errorpb::Error) -> Response {
    let region_error = Some(Box::new(error));
    match kind {
        Kind::Get => {
            Response::RawGet(kvrpcpb::RawGetResponse { region_error, ..Default::default() })
        }
        Kind::Put => {
            Response::RawPut(kvrpcpb::RawPutResponse { region_error, ..Default::default() })
        }
        Kind::BatchPut => Response::RawBatchPut(kvrpcpb::RawBatchPutResponse {
            region_error,
            ..Default::default()
        }),
        Kind::Delete => {
            Response::RawDelete(kvrpcpb::RawDeleteResponse { region_error, ..Default::default() })
        }
        Kind::BatchDelete => Response::RawBatchDelete(kvrpcpb::RawBatchDeleteResponse {
            region_error,
            ..Default::default()
        }),
        Kind::DeleteRange => Response::RawDeleteRange(kvrpcpb::RawDeleteRangeResponse {
            region_error,
            ..Default::default()
        }),
        Kind::BatchGet | Kind::Scan | Kind::BatchScan => wire_pairs(kind, Vec::new(), region_error),
    }
}

/// A request that is not taken: sending it again does not help.
pub(super) fn invalid(kind: Kind, error: String) -> Response {
    match kind {
        Kind::Get => Response::RawGet(kvrpcpb::RawGetResponse { error, ..Default::default() }),
        Kind::Put => Response::RawPut(kvrpcpb::RawPutResponse { error, ..Default::default() }),
        Kind::BatchPut => {
            Response::RawBatchPut(kvrpcpb::RawBatchPutResponse { error, ..Default::default() })
        }
        Kind::Delete => {
            Response::RawDelete(kvrpcpb::RawDeleteResponse { error, ..Default::default() })
        }
        Kind::BatchDelete => Response::RawBatchDelete(kvrpcpb::RawBatchDeleteResponse {
            error,
            ..Default::default()
        }),
        Kind::DeleteRange => Response::RawDeleteRange(kvrpcpb::RawDeleteRangeResponse {
            error,
            ..Default::default()
        }),
        Kind::BatchGet | Kind::Scan | Kind::BatchScan => {
            let error = Some(kvrpcpb::KeyError { abort: error });
            wire_pairs(kind, vec![kvrpcpb::KvPair { error, ..Default::default() }], None)
        }
    }
}

fn wire_pairs(
    kind: Kind,
    pairs: Vec<kvrpcpb::KvPair>,
    region_error: Option<Box<errorpb::Error>>,
) -> Response {
    match kind {
        Kind::BatchGet => {
            Response::RawBatchGet(kvrpcpb::RawBatchGetResponse { region_error, pairs })
        }
        Kind::BatchScan => {
            Response::RawBatchScan(kvrpcpb::RawBatchScanResponse { region_error, kvs: pairs })
        }
        Kind::Scan
        | Kind::Get
        | Kind::Put
        | Kind::BatchPut
        | Kind::Delete
        | Kind::BatchDelete
        | Kind::DeleteRange => {
            Response::RawScan(kvrpcpb::RawScanResponse { region_error, kvs: pairs })
        }
    }
}

/// Lets the answer's own bytes keep `room`: it is free again when the transport has encoded the
/// answer, or when nobody wants it any more. An answer without keys and values needs none.
pub(super) fn hold(response: &mut Response, mut room: Room) {
    room.shrink(weight(response));
    let first = match response {
        Response::RawGet(answer) => Some(&mut answer.value),
        Response::RawBatchGet(answer) => first_key(&mut answer.pairs),
        Response::RawScan(answer) => first_key(&mut answer.kvs),
        Response::RawBatchScan(answer) => first_key(&mut answer.kvs),
        Response::RawPut(_)
        | Response::RawBatchPut(_)
        | Response::RawDelete(_)
        | Response::RawBatchDelete(_)
        | Response::RawDeleteRange(_)
        | Response::Empty(_) => None,
    };
    if let Some(bytes) = first {
        let data = std::mem::take(bytes);
        *bytes = Bytes::from_owner(Held { data, _room: room });
    }
}

fn first_key(pairs: &mut [kvrpcpb::KvPair]) -> Option<&mut Bytes> {
    pairs.first_mut().map(|pair| &mut pair.key)
}

/// Bytes of an answer, with the room for all of it.
struct Held {
    data: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// Roughly how many bytes an answer takes on the wire, from above.
pub(super) fn weight(response: &Response) -> usize {
    let error =
        |error: &Option<Box<errorpb::Error>>| error.as_ref().map_or(0, |error| error.encoded_len());
    let many = |pairs: &[kvrpcpb::KvPair]| -> usize {
        pairs.iter().map(|pair| pair.key.len() + pair.value.len() + 16).sum()
    };
    OVERHEAD
        + match response {
            Response::RawGet(answer) => answer.value.len() + error(&answer.region_error),
            Response::RawBatchGet(answer) => many(&answer.pairs) + error(&answer.region_error),
            Response::RawScan(answer) => many(&answer.kvs) + error(&answer.region_error),
            Response::RawBatchScan(answer) => many(&answer.kvs) + error(&answer.region_error),
            Response::RawPut(answer) => error(&answer.region_error),
            Response::RawBatchPut(answer) => error(&answer.region_error),
            Response::RawDelete(answer) => error(&answer.region_error),
            Response::RawBatchDelete(answer) => error(&answer.region_error),
            Response::RawDeleteRange(answer) => error(&answer.region_error),
            Response::Empty(_) => 0,
        }
}
