//! Unary calls, for stores without batched streams.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use quorate_proto::wire::tikvpb::batch_commands_response::response::Cmd as Wire;
use tonic::{Code, Request, Status, transport::Channel};

use super::{Answer, Command, Outcome, TikvClient, words};

/// Sends one command as a call of its own.
pub(super) async fn call(
    mut client: TikvClient<Channel>,
    command: Command,
    deadline: Instant,
) -> Outcome {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Outcome::Expired { sent: false };
    }
    // The transport's own deadline comes a little later, so that ours decides.
    let answer = tokio::time::timeout(left, dispatch(&mut client, command, left)).await;
    match answer {
        Ok(Ok(answer)) => Outcome::Answer(answer),
        Ok(Err(status)) => {
            let reason = Arc::from(words(&status));
            match status.code() {
                // Refused before anything was done.
                Code::Unimplemented
                | Code::InvalidArgument
                | Code::PermissionDenied
                | Code::Unauthenticated => Outcome::NotSent(reason),
                Code::DeadlineExceeded => Outcome::Expired { sent: true },
                Code::Ok
                | Code::Cancelled
                | Code::Unknown
                | Code::NotFound
                | Code::AlreadyExists
                | Code::ResourceExhausted
                | Code::FailedPrecondition
                | Code::Aborted
                | Code::OutOfRange
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss => Outcome::Lost(reason),
            }
        }
        Err(_) => Outcome::Expired { sent: true },
    }
}

async fn dispatch(
    client: &mut TikvClient<Channel>,
    command: Command,
    left: Duration,
) -> Result<Answer, Status> {
    fn timed<T>(message: T, left: Duration) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(left + Duration::from_secs(1));
        request
    }
    Ok(Answer::from(match command {
        Command::RawGet(m) => Wire::RawGet(client.raw_get(timed(m, left)).await?.into_inner()),
        Command::RawBatchGet(m) => {
            Wire::RawBatchGet(client.raw_batch_get(timed(m, left)).await?.into_inner())
        }
        Command::RawPut(m) => Wire::RawPut(client.raw_put(timed(m, left)).await?.into_inner()),
        Command::RawBatchPut(m) => {
            Wire::RawBatchPut(client.raw_batch_put(timed(m, left)).await?.into_inner())
        }
        Command::RawDelete(m) => {
            Wire::RawDelete(client.raw_delete(timed(m, left)).await?.into_inner())
        }
        Command::RawBatchDelete(m) => {
            Wire::RawBatchDelete(client.raw_batch_delete(timed(m, left)).await?.into_inner())
        }
        Command::RawScan(m) => Wire::RawScan(client.raw_scan(timed(m, left)).await?.into_inner()),
        Command::RawDeleteRange(m) => {
            Wire::RawDeleteRange(client.raw_delete_range(timed(m, left)).await?.into_inner())
        }
        Command::RawBatchScan(m) => {
            Wire::RawBatchScan(client.raw_batch_scan(timed(m, left)).await?.into_inner())
        }
        Command::Empty(_) => {
            return Err(Status::unimplemented("no unary form of an empty command"));
        }
    }))
}
