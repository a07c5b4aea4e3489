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
    /// Of all regions, in the order of the events.
    promoted: Vec<Promoted>,
}

/// Learners became voters, as an event tells it once the configuration is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Promoted {
    /// Of which region.
    pub(super) region: RegionId,
    /// How many at once.
    pub(super) together: usize,
    /// Voters afterwards.
    pub(super) voters: usize,
}

impl Promoted {
    /// From words such as `r7 s4+s5 promoted, voters 5`.
    fn read(event: &Event) -> Option<Self> {
        let (who, rest) = event.text.split_once(" promoted")?;
        let together = who.rsplit(' ').next()?.split('+').count();
        let voters = rest.rsplit_once("voters ")?.1.parse().ok()?;
        Some(Self { region: RegionId(event.region_id), together, voters })
    }
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
        Self { events, task, said: BTreeSet::new(), promoted: Vec::new() }
    }

    /// Says what happened to the members of a region since the last look.
    pub(super) fn tell(&mut self, stage: &Stage, region: RegionId) {
        while let Ok(event) = self.events.try_recv() {
            if event.kind == "member-promoted" {
                self.promoted.extend(Promoted::read(&event));
            }
            if event.region_id == region.get() && event.kind.starts_with("member-") {
                stage.screen.say(&event.text);
                self.said.insert(event.kind);
            }
        }
    }

    /// All promotions so far.
    pub(super) fn promoted(&self) -> &[Promoted] {
        &self.promoted
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promotions_are_read_from_their_events() {
        let read = |text: &str| {
            let event = Event { text: text.to_owned(), region_id: 7, ..Event::default() };
            Promoted::read(&event).map(|promoted| (promoted.together, promoted.voters))
        };
        assert_eq!(read("r7 s4+s5 promoted, voters 5"), Some((2, 5)));
        assert_eq!(read("r7 s4 promoted in place of s2, voters 3"), Some((1, 3)));
        assert_eq!(read("r7 s4 ready, waiting for a partner (voters 3, target 5)"), None);
    }
}
