//! What the refusal of a placement member means for the call.

use std::sync::Arc;

use tonic::{Code, Status};

use crate::{Error, lane::words, stores::bare};

/// The metadata by which a member that does not lead names the one that does.
const LEADER_HINT: &str = "quorate-leader";

/// Why an attempt failed, and what to do about it.
pub(super) enum Failure {
    /// Another member leads; named.
    Elsewhere(Arc<str>, String),
    /// The leader is not known, or not there: look for it.
    Lost(String),
    /// The leader is there and not ready: wait.
    NotReady(String),
    /// It will not be otherwise.
    Final(Error),
}

/// Decides about the answer of the member at `leader`.
pub(super) fn judge(operation: &'static str, leader: &str, status: &Status) -> Failure {
    let last = format!("{leader}: {}", words(status));
    let hint = status.metadata().get(LEADER_HINT).and_then(|hint| hint.to_str().ok());
    match status.code() {
        Code::Unavailable => match hint.map(bare).filter(|hint| *hint != leader) {
            Some(hint) => Failure::Elsewhere(Arc::from(hint), last),
            None => Failure::Lost(last),
        },
        Code::Unknown | Code::Cancelled | Code::DeadlineExceeded | Code::Internal | Code::Ok => {
            Failure::Lost(last)
        }
        Code::Aborted | Code::ResourceExhausted => Failure::NotReady(last),
        Code::InvalidArgument => {
            Failure::Final(Error::InvalidArgument(status.message().to_owned()))
        }
        Code::Unimplemented => Failure::Final(Error::Refused {
            operation,
            reason: format!("{leader} does not know this call; update the placement members"),
        }),
        Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::DataLoss
        | Code::Unauthenticated => {
            Failure::Final(Error::Refused { operation, reason: status.message().to_owned() })
        }
    }
}
