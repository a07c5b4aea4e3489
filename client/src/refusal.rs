//! Why a region refused a request, parsed once from the wire, and whether trying again helps.

use std::time::Duration;

use quorate_proto::{Peer, Region, StoreId, wire::errorpb};

/// A region error, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another peer leads; named where it is known.
    NotLeader(Option<Peer>),
    /// The region was split, merged or its members changed; what is there now.
    EpochNotMatch(Vec<Region>),
    /// The cached description is wrong in a way that only placement can mend.
    WrongRegion(&'static str),
    /// The store is the wrong one: its address belongs to another store by now.
    WrongStore,
    /// Overloaded; come back after this long.
    Busy(Duration),
    /// The region has lost its quorum: nothing is written until one of these stores is back.
    NoQuorum {
        /// In the store's words, which say what to do.
        reason: String,
        /// Stores that it cannot hear.
        silent: Vec<StoreId>,
    },
    /// Not ready yet: a lease, a merge, an initial state; soon.
    NotReady(&'static str),
    /// The replica is older than a stale read allows: its leader is not.
    TooOld,
    /// The command was dropped after it was proposed: it may have been applied.
    Stale,
    /// The command, or the answer to it, is larger than allowed.
    TooLarge(String),
    /// Never accepted, however often it is sent.
    Hopeless(String),
    /// An error this client does not know.
    Unknown(String),
}

impl Refusal {
    /// True where the region certainly did not apply the command and never will.
    pub(crate) fn is_definite(&self) -> bool {
        match self {
            Self::Stale | Self::Unknown(_) => false,
            Self::NotLeader(_)
            | Self::EpochNotMatch(_)
            | Self::WrongRegion(_)
            | Self::WrongStore
            | Self::Busy(_)
            | Self::NoQuorum { .. }
            | Self::NotReady(_)
            | Self::TooOld
            | Self::TooLarge(_)
            | Self::Hopeless(_) => true,
        }
    }

    /// The reason, for the words of an error.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::NotLeader(Some(peer)) => {
                format!("not the leader, {} on {} is", peer.id, peer.store)
            }
            Self::NotLeader(None) => "the region has no leader at the moment".to_owned(),
            Self::EpochNotMatch(_) => "the region has changed".to_owned(),
            Self::WrongRegion(why) | Self::NotReady(why) => (*why).to_owned(),
            Self::TooOld => "the replica is older than the read allows".to_owned(),
            Self::WrongStore => "another store answers at that address".to_owned(),
            Self::Busy(_) => "the store is busy".to_owned(),
            Self::Stale => "the command was dropped after it was proposed".to_owned(),
            Self::NoQuorum { reason: why, .. }
            | Self::TooLarge(why)
            | Self::Hopeless(why)
            | Self::Unknown(why) => why.clone(),
        }
    }
}

impl From<errorpb::Error> for Refusal {
    fn from(wire: errorpb::Error) -> Self {
        if let Some(not_leader) = wire.not_leader {
            // A peer that cannot be parsed is a hint that is not there.
            return Self::NotLeader(not_leader.leader.and_then(|peer| Peer::try_from(peer).ok()));
        }
        if let Some(changed) = wire.epoch_not_match {
            let regions = changed.current_regions.into_iter();
            return Self::EpochNotMatch(regions.filter_map(|r| Region::try_from(r).ok()).collect());
        }
        if wire.region_not_found.is_some() {
            return Self::WrongRegion("the store does not have the region");
        }
        if wire.key_not_in_region.is_some() {
            return Self::WrongRegion("the key is not in the region");
        }
        if wire.mismatch_peer_id.is_some() {
            return Self::WrongRegion("the store has another peer of the region");
        }
        if wire.store_not_match.is_some() {
            return Self::WrongStore;
        }
        // Before `server_is_busy`, which says the same to other clients.
        if let Some(lost) = wire.no_quorum {
            let silent = lost.silent_store_ids.into_iter().map(StoreId).collect();
            return Self::NoQuorum { reason: wire.message, silent };
        }
        if let Some(busy) = wire.server_is_busy {
            return Self::Busy(Duration::from_millis(busy.backoff_ms));
        }
        if wire.stale_command.is_some() {
            return Self::Stale;
        }
        if wire.read_index_not_ready.is_some() {
            return Self::NotReady("the replica cannot read yet");
        }
        if wire.proposal_in_merging_mode.is_some() {
            return Self::NotReady("the region is being merged");
        }
        if wire.data_is_not_ready.is_some() {
            return Self::TooOld;
        }
        if wire.region_not_initialized.is_some() {
            return Self::NotReady("the replica is not initialised yet");
        }
        if wire.max_timestamp_not_synced.is_some() {
            return Self::NotReady("the leader has just changed");
        }
        if let Some(large) = wire.raft_entry_too_large {
            // Some stores say it in words of their own, which know more.
            return Self::TooLarge(match wire.message.as_str() {
                "" => format!("{} bytes are too large; ask for less at once", large.entry_size),
                words => words.to_owned(),
            });
        }
        if let Some(full) = wire.disk_full {
            return Self::Hopeless(format!(
                "disk full: {}; free space or add a store",
                full.reason
            ));
        }
        Self::Unknown(wire.message)
    }
}
