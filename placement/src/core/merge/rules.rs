//! Which two regions may be merged, whoever asks for it.
//!
//! [`pair`] is what holds for the two as reported, and is looked at again before the source is
//! stopped; [`check`] adds what the cluster around them says. Size, age and load are the merge
//! checker's: a person may override them, and nothing here.

use std::collections::BTreeSet;

use quorate_proto::{KeyRange, RegionId, Role, StoreId, key};
use thiserror::Error;

use crate::core::stores::StoreState;
use crate::core::tree::RegionInfo;
use crate::core::view::ClusterView;

/// Why two regions cannot be merged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CannotMerge {
    /// One region.
    #[error("{0} cannot be merged into itself: name one of its neighbours")]
    Itself(RegionId),
    /// The last region.
    #[error("{0} is the cluster's last region, which is never merged")]
    Sentinel(RegionId),
    /// Another range between them.
    #[error(
        "{source_region} and {target} are no neighbours: only regions whose ranges touch are merged"
    )]
    NotNeighbours {
        /// What was to be taken in.
        source_region: RegionId,
        /// By whom.
        target: RegionId,
    },
    /// No neighbour at all.
    #[error("{0} has no neighbour that it could be merged into")]
    NoNeighbour(RegionId),
    /// Its members change.
    #[error("{0} is in a joint configuration: try again once it has left it")]
    Joint(RegionId),
    /// It is being merged already.
    #[error("{region} is stopped, to be taken in by {target}")]
    Stopped {
        /// The region.
        region: RegionId,
        /// The region that is to take it in.
        target: RegionId,
    },
    /// Nobody to send an order to.
    #[error("{0} has no leader that reports now; try again in a few seconds")]
    NoLeader(RegionId),
    /// Every replica must take part.
    #[error("{region} is not well: its replica on {store} {what}; merges wait until it is")]
    Unwell {
        /// The region.
        region: RegionId,
        /// Where the replica is.
        store: StoreId,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Missing or surplus ones.
    #[error("{region} has {voters} voters, {wanted} are wanted: merges wait until it has")]
    Voters {
        /// The region.
        region: RegionId,
        /// Voters it has.
        voters: usize,
        /// Voters it shall have.
        wanted: usize,
    },
    /// The data must be there.
    #[error(
        "{source_region} is on {here}, {target} is on {there}: regions are merged only on the same stores"
    )]
    OtherStores {
        /// What was to be taken in.
        source_region: RegionId,
        /// Where it is.
        here: String,
        /// By whom.
        target: RegionId,
        /// Where that is.
        there: String,
    },
    /// Rules change between them.
    #[error("other placement rules begin at {at}, between {source_region} and {target}")]
    OtherRules {
        /// What was to be taken in.
        source_region: RegionId,
        /// By whom.
        target: RegionId,
        /// The key at which they do.
        at: String,
    },
    /// A lifecycle is not at its end.
    #[error("a replica of {0} is on its way: see `quorate member list {0}`")]
    OnItsWay(RegionId),
}

/// Checks two regions as they are reported.
///
/// # Errors
/// The rule that stands in the way.
pub fn pair(source: &RegionInfo, target: &RegionInfo) -> Result<(), CannotMerge> {
    let (id, into) = (source.region.id, target.region.id);
    if id == into {
        return Err(CannotMerge::Itself(id));
    }
    for info in [source, target] {
        if info.is_sentinel() {
            return Err(CannotMerge::Sentinel(info.region.id));
        }
    }
    if boundary(source, target).is_none() {
        return Err(CannotMerge::NotNeighbours { source_region: id, target: into });
    }
    for info in [source, target] {
        is_well(info)?;
    }
    let (here, there) = (stores(source), stores(target));
    if here != there {
        let (here, there) = (in_words(&here), in_words(&there));
        return Err(CannotMerge::OtherStores { source_region: id, here, target: into, there });
    }
    Ok(())
}

/// Checks two regions and what is around them.
///
/// # Errors
/// The rule that stands in the way.
pub fn check(
    view: &ClusterView,
    source: &RegionInfo,
    target: &RegionInfo,
) -> Result<(), CannotMerge> {
    pair(source, target)?;
    let both = union(source, target);
    if let Some(at) = view.policy.rules.split_keys(&both).first() {
        let at = key::display(at);
        let (source_region, target) = (source.region.id, target.region.id);
        return Err(CannotMerge::OtherRules { source_region, target, at });
    }
    for info in [source, target] {
        let region = info.region.id;
        let voters = info.region.peers.iter().filter(|peer| peer.role == Role::Voter).count();
        let wanted = view.policy.rules.voters_at(&info.region.range.start) as usize;
        if voters != wanted {
            return Err(CannotMerge::Voters { region, voters, wanted });
        }
        let away = info.region.peers.iter().find(|peer| {
            view.stores.get(&peer.store).is_none_or(|store| match store.state {
                StoreState::Up => store.stopping,
                StoreState::Joining
                | StoreState::Suspect
                | StoreState::Down
                | StoreState::Leaving
                | StoreState::Left => true,
            })
        });
        if let Some(peer) = away {
            let what = "is on a store that is not up, or will not stay";
            return Err(CannotMerge::Unwell { region, store: peer.store, what });
        }
    }
    Ok(())
}

/// The key at which two neighbours touch.
pub fn boundary<'a>(one: &'a RegionInfo, other: &'a RegionInfo) -> Option<&'a [u8]> {
    let (a, b) = (&one.region.range, &other.region.range);
    if !a.end.is_empty() && a.end == b.start {
        Some(&a.end)
    } else if !b.end.is_empty() && b.end == a.start {
        Some(&b.end)
    } else {
        None
    }
}

/// Where a region has its replicas.
pub fn stores(info: &RegionInfo) -> BTreeSet<StoreId> {
    info.region.peers.iter().map(|peer| peer.store).collect()
}

fn union(one: &RegionInfo, other: &RegionInfo) -> KeyRange {
    let (a, b) = (&one.region.range, &other.region.range);
    match !a.end.is_empty() && a.end == b.start {
        true => KeyRange::new(a.start.clone(), b.end.clone()),
        false => KeyRange::new(b.start.clone(), a.end.clone()),
    }
}

fn is_well(info: &RegionInfo) -> Result<(), CannotMerge> {
    let region = info.region.id;
    if let Some(merging) = info.merging {
        return Err(CannotMerge::Stopped { region, target: merging.target });
    }
    if info.is_joint() {
        return Err(CannotMerge::Joint(region));
    }
    if !info.led || info.leader.is_none() {
        return Err(CannotMerge::NoLeader(region));
    }
    for peer in &info.region.peers {
        let store = peer.store;
        if info.down.contains(&peer.id) {
            return Err(CannotMerge::Unwell { region, store, what: "is silent" });
        }
        if info.pending.contains(&peer.id) {
            return Err(CannotMerge::Unwell { region, store, what: "is behind" });
        }
    }
    Ok(())
}

fn in_words(stores: &BTreeSet<StoreId>) -> String {
    stores.iter().map(StoreId::to_string).collect::<Vec<_>>().join("+")
}
