//! Talking to placement: joining, reporting, taking orders. All of it through the SDK's client.

mod join;
mod orders;
mod report;
mod sample;

pub(crate) use self::join::Joiner;
pub(crate) use self::orders::Orders;
#[cfg(test)]
pub(crate) use self::orders::{Dropped, Order};
pub(crate) use self::report::{Heartbeats, Nudge};

use std::time::{Duration, Instant};

use quorate_client::{Error, PlacementClient, PlacementOptions};

/// Shortest and longest pause between attempts to reach placement.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How often somebody is told that placement cannot be reached.
const COMPLAINT: Duration = Duration::from_secs(5);

/// Pauses between attempts, growing; and a line in the log now and then.
#[derive(Debug)]
pub(crate) struct Patience {
    pause: Duration,
    complained: Option<Instant>,
}

impl Patience {
    /// Fresh.
    pub(crate) fn new() -> Self {
        Self { pause: PAUSES.0, complained: None }
    }

    /// It worked: the next trouble starts anew.
    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }

    /// Waits before the next attempt.
    pub(crate) async fn wait(&mut self, trouble: &str) {
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAINT) {
            tracing::warn!("{trouble}; trying again");
            self.complained = Some(Instant::now());
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSES.1);
    }
}

/// True where asking again leads nowhere: somebody has to change something.
pub(crate) fn is_final(error: &Error) -> bool {
    match error {
        Error::Refused { .. } | Error::WrongCluster { .. } | Error::InvalidArgument(_) => true,
        Error::Undetermined { .. }
        | Error::Timeout { .. }
        | Error::Unavailable { .. }
        | Error::NoQuorum { .. }
        | Error::Partial { .. } => false,
    }
}

/// A client, once any member of placement answers: one of those that the store was given, or of
/// those that were `learnt` before it was started. Ends only with one.
pub(crate) async fn connect(given: &[String], learnt: &[String]) -> PlacementClient {
    let mut all = given.to_vec();
    all.extend(learnt.iter().filter(|address| !given.contains(address)).cloned());
    let mut patience = Patience::new();
    let mut members: &[String] = &all;
    loop {
        let error = match PlacementClient::connect(members, PlacementOptions::default()).await {
            Ok(client) => return client,
            Err(error) => error,
        };
        members = match &error {
            // An address that was learnt may be another cluster's by now.
            Error::WrongCluster { .. } if members.len() > given.len() => given,
            Error::WrongCluster { .. }
            | Error::Undetermined { .. }
            | Error::Timeout { .. }
            | Error::InvalidArgument(_)
            | Error::Unavailable { .. }
            | Error::NoQuorum { .. }
            | Error::Refused { .. }
            | Error::Partial { .. } => &all,
        };
        patience.wait(&format!("placement cannot be reached: {error}")).await;
    }
}

#[cfg(test)]
mod tests;
