//! Replicas that belong here and are not: they were added to their region, or it split while this
//! store was away and the log that says so is gone.
//!
//! The others keep writing to such a replica; the raft worker calls it a stranger.
//! Placement knows the region; if this store is a member and no local region covers the range any
//! more, an empty replica is hosted, which then gets a snapshot.

use std::sync::Arc;

use quorate_client::PlacementClient;
use quorate_consensus::node::Node;
use quorate_consensus::shard::Stranger;
use quorate_proto::PeerId;
use quorate_proto::wire::peer::Envelope;
use tokio::sync::mpsc;

use crate::core::directory::Conflict;
use crate::core::snapshot::parse_state;
use crate::core::{Directory, PeerAdmission, peers};
use crate::serve::Token;

/// Strangers that wait to be looked up. Beyond, they are forgotten until they are written to again.
pub(crate) const QUEUE: usize = 1_024;

/// Hosts the strangers that belong here, until the sender is gone.
pub(crate) async fn welcome(
    mut strangers: mpsc::Receiver<Stranger>,
    placement: PlacementClient,
    directory: Arc<Directory>,
    node: Arc<Node<Token>>,
) {
    while let Some(Stranger { group: id, peer, .. }) = strangers.recv().await {
        let region = match placement.get_region_by_id(id).await {
            Ok(Some(info)) => info.region,
            Ok(None) => {
                tracing::debug!(region = %id, %peer, "placement does not know the region of a stranger");
                continue;
            }
            Err(error) => {
                tracing::debug!(region = %id, %peer, %error, "cannot look up a stranger");
                continue;
            }
        };
        match directory.admit_peer(&region, peer) {
            PeerAdmission::Create(group) => {
                tracing::info!(region = %id, %peer, "a replica is missing here; it waits for a snapshot");
                node.create(*group);
            }
            PeerAdmission::Refuse(Conflict::OtherPeer { .. }) => {
                // One that was replaced while it was away. The next word to the new one finds its
                // place free.
                let old = directory.get(id).filter(|old| old.peer() < peer);
                if let Some(old) = old.filter(|old| peers::is_removed(old, &region)) {
                    tracing::info!(region = %id, %peer, "a replica was replaced by another one here");
                    node.destroy(id, old.peer());
                }
            }
            PeerAdmission::Refuse(conflict) => {
                tracing::debug!(region = %id, %peer, %conflict, "a stranger does not belong here");
            }
            PeerAdmission::Exists | PeerAdmission::Hold => {}
        }
    }
}

/// Whether a snapshot may come in: its region must fit between those that are here.
///
/// # Errors
/// Why not, for the sender, who tries again.
pub(crate) fn admit_snapshot(directory: &Directory, message: &Envelope) -> Result<(), String> {
    let state = message.snapshot.as_ref().map(|meta| meta.state.clone()).unwrap_or_default();
    let described = parse_state(state).map_err(|error| error.to_string())?;
    let region = described.region;
    if region.id.0 != message.group {
        return Err(format!("the snapshot describes {}, not r{}", region.id, message.group));
    }
    let to = PeerId(message.to_peer);
    let admitted = directory.admit_snapshot(Arc::new(region), &described.taken_in, to);
    admitted.map_err(|conflict| conflict.to_string())
}
