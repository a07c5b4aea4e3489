//! Events for those who follow them.

use std::time::Duration;

use quorate_proto::wire::placement as wire;
use tokio::sync::mpsc;
use tonic::Status;

use super::cluster::Cluster;
use super::explain;
use crate::core::events::Event;

/// Pause between two looks at events.
const PAUSE: Duration = Duration::from_millis(100);

/// Sends the kept events, then new ones as they are replicated. Ends with this leadership, so that
/// the reader goes on at the next leader, after the last number it has.
pub(super) async fn send_events(
    cluster: &Cluster,
    mut events: Vec<Event>,
    mut after: u64,
    follow: bool,
    sender: &mpsc::Sender<Result<wire::Event, Status>>,
) -> Result<(), Status> {
    let term = *cluster.leading().borrow();
    loop {
        for event in events.drain(..) {
            after = event.sequence;
            if sender.send(Ok(explain::event(event))).await.is_err() {
                return Ok(());
            }
        }
        if !follow {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = sender.closed() => return Ok(()),
        }
        if *cluster.leading().borrow() != term || *cluster.stopping.borrow() {
            return Err(cluster.not_leader());
        }
        let state = cluster.state.read();
        if state.events().last() > after {
            events = state.events().after(after, 0);
        }
    }
}
