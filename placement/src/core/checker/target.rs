//! Where a replica goes.

use quorate_proto::StoreId;

use crate::core::stores::StoreState;
use crate::core::tree::RegionInfo;
use crate::core::view::ClusterView;

/// Why a store is not eligible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtered {
    /// It is not up.
    State(StoreState),
    /// It has not told yet what it leads.
    Unheard,
    /// It stops.
    Stopping,
    /// It has a replica of the region.
    HasReplica,
}

/// The store for a new replica of a region: of those that may have one, the one with the fewest
/// leaders.
///
/// # Errors
/// Why each store is not eligible.
pub fn select_target(
    view: &ClusterView,
    region: &RegionInfo,
    _replacing: Option<StoreId>,
) -> Result<StoreId, Vec<(StoreId, Filtered)>> {
    let mut filtered = Vec::new();
    let mut best: Option<(usize, StoreId)> = None;
    for (id, store) in &view.stores {
        let why = if store.state != StoreState::Up {
            Some(Filtered::State(store.state))
        } else if !store.complete {
            Some(Filtered::Unheard)
        } else if store.stopping {
            Some(Filtered::Stopping)
        } else if region.region.peer_on(*id).is_some() {
            Some(Filtered::HasReplica)
        } else {
            None
        };
        match why {
            Some(why) => filtered.push((*id, why)),
            None => {
                let candidate = (store.leads.len(), *id);
                best = Some(best.map_or(candidate, |best| best.min(candidate)));
            }
        }
    }
    best.map(|(_, store)| store).ok_or(filtered)
}

/// Stores and why each is not eligible, as one sentence for people.
pub fn in_words(filtered: &[(StoreId, Filtered)]) -> String {
    let one = |(store, why): &(StoreId, Filtered)| match why {
        Filtered::State(state) => format!("{store} is {}", state.name()),
        Filtered::Unheard => format!("{store} has not told yet what it leads"),
        Filtered::Stopping => format!("{store} is stopping"),
        Filtered::HasReplica => format!("{store} has a replica already"),
    };
    match filtered {
        [] => "there is no other store".to_owned(),
        filtered => filtered.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}
