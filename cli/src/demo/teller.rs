//! Events of the demo's cluster, as they come.

use std::collections::BTreeSet;

use quorate_client::PlacementClient;
use quorate_proto::RegionId;
use quorate_proto::wire::placement::{Event, EventsRequest};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

use super::stage::Stage;
use crate::admin::events;

/// Listens until it is dropped.
pub(super) struct Teller {
    events: UnboundedReceiver<Event>,
    task: JoinHandle<()>,
    said: BTreeSet<String>,
}

impl Teller {
    /// From now on.
    pub(super) fn listen(placement: &PlacementClient) -> Self {
        let (sender, events) = unbounded_channel();
        let placement = placement.clone();
        let task = tokio::spawn(async move {
            let request = EventsRequest { follow: true, after: 0, limit: 1 };
            // Where nobody tells any more, the demo goes on without the words.
            let _ =
                events::follow(&placement, request, |event| Ok(sender.send(event.clone()).is_ok()))
                    .await;
        });
        Self { events, task, said: BTreeSet::new() }
    }

    /// Says what happened to the members of a region since the last look.
    pub(super) fn tell(&mut self, stage: &Stage, region: RegionId) {
        while let Ok(event) = self.events.try_recv() {
            if event.region_id == region.get() && event.kind.starts_with("member-") {
                stage.screen.say(&event.text);
                self.said.insert(event.kind);
            }
        }
    }

    /// True once that kind of event was said.
    pub(super) fn has_said(&self, kind: &str) -> bool {
        self.said.contains(kind)
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.task.abort();
    }
}
