//! A change of who replicates a region: one step, in the batch that says it is applied.
//!
//! A replica that applies its own removal stops there. Its stored state still says `Serving`, but
//! of a region that it is no peer of: from then on it serves nobody, and a store that finds such a
//! state at its start goes on with the removal ([`Applier::destroy`]). Its range stays taken until
//! its data is gone, so that nothing that comes in meanwhile is removed with it.
//!
//! [`Applier::destroy`]: super::Applier::destroy

use std::sync::Arc;

use quorate_consensus::shard::{Reconfigured, check_members};
use quorate_proto::wire::command::ChangePeers;
use quorate_proto::{Epoch, Peer, Region};

use super::{Change, Slot, Work};
use crate::core::directory::{Directory, members};
use crate::core::error::RegionError;
use crate::core::keys;

impl<T> Work<T> {
    pub(super) fn change_peers(
        &mut self,
        slot: &mut Slot,
        conf_ver: u64,
        change: ChangePeers,
    ) -> Result<(), RegionError> {
        if conf_ver != slot.region.epoch.conf_ver {
            return Err(RegionError::EpochNotMatch { current: vec![Arc::clone(&slot.region)] });
        }
        let after = Arc::new(region_after(&slot.region, change)?);
        // Also where this replica is not among them: see the module.
        slot.region = Arc::clone(&after);
        keys::put_region_state(&mut self.batch, after.id, &slot.state());
        self.changes.push(Change::Peers(after));
        Ok(())
    }
}

/// The region with other peers, one configuration later.
fn region_after(region: &Region, change: ChangePeers) -> Result<Region, RegionError> {
    let peers: Result<Vec<Peer>, _> = change.peers.into_iter().map(Peer::try_from).collect();
    let peers = peers
        .map_err(|reason| RegionError::BadPeers { region: region.id, reason: reason.to_owned() })?;
    let epoch = Epoch { conf_ver: region.epoch.conf_ver + 1, ..region.epoch };
    let after = Region { id: region.id, range: region.range.clone(), epoch, peers };
    check_members(&members(region), &members(&after))
        .map_err(|rule| RegionError::BadPeers { region: region.id, reason: rule.to_string() })?;
    Ok(after)
}

/// The batch is written: everybody may know. False where the local replica was removed.
pub(super) fn publish(
    slot: &Slot,
    directory: &Directory,
    region: Arc<Region>,
    reconfigured: &mut Vec<Reconfigured>,
) -> bool {
    let stays = region.peer(slot.local.peer()).is_some();
    reconfigured.push(Reconfigured { group: region.id, members: members(&region) });
    directory.change_peers(&slot.local, region);
    stays
}
