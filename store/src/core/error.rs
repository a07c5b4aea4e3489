//! Why a region refuses a request, in our words and in those of TiKV's clients.

use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::view::LostQuorum;
use quorate_proto::wire::{errorpb, metapb};
use quorate_proto::{Peer, PeerId, Region, RegionId, StoreId, key};
use thiserror::Error;

/// A refusal that means: certainly not done. Travels as `region_error` of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RegionError {
    /// The request names another store.
    #[error("this is {actual}, not {asked}: look the region up again")]
    StoreNotMatch {
        /// The store asked for.
        asked: StoreId,
        /// This store.
        actual: StoreId,
    },
    /// This store has no replica of the region.
    #[error("{0} is not on this store: look it up again")]
    RegionNotFound(RegionId),
    /// This store's replica is another one than asked for.
    #[error("{asked} is not on this store, {actual} is: look the region up again")]
    MismatchPeer {
        /// The replica asked for.
        asked: PeerId,
        /// The one here.
        actual: PeerId,
    },
    /// The replica here has no data yet.
    #[error("{0} has no data on this store yet: ask another replica")]
    NotInitialized(RegionId),
    /// The region was split or merged since the client looked it up.
    #[error("{} is at version {} now: look it up again", current[0].id, current[0].epoch.version)]
    EpochNotMatch {
        /// The region as it is, then its neighbours that were split off since. Never empty.
        current: Vec<Arc<Region>>,
    },
    /// The key lies outside.
    #[error("{} is not in {} {}: look the key up again", key::display(key), region.id, region.range)]
    KeyNotInRegion {
        /// The key.
        key: Bytes,
        /// The region.
        region: Arc<Region>,
    },
    /// Another replica leads the region.
    #[error("not leader of {region}, {}", hint(leader))]
    NotLeader {
        /// The region.
        region: RegionId,
        /// Who leads it, where known.
        leader: Option<Peer>,
    },
    /// No majority of the voters can be heard: nothing is written until one more is back.
    #[error(
        "{region} has lost its quorum: {} of its {voters} voters are silent ({}); start those \
         stores again, or wait until one is back; stale reads go on",
        silent.len(), stores(silent)
    )]
    NoQuorum {
        /// The region.
        region: RegionId,
        /// How many voters there are.
        voters: usize,
        /// The stores of those that are silent.
        silent: Vec<StoreId>,
    },
    /// The client saw a term that is long past.
    #[error("the term of the request is long past: send it again")]
    StaleCommand,
    /// A bound was reached.
    #[error("{0}; try again later")]
    Busy(&'static str),
    /// A stale read of a replica that is older than the read allows, or does not know its age.
    #[error("{peer} of {region} is older than asked for: ask the leader")]
    DataIsNotReady {
        /// The region.
        region: RegionId,
        /// The replica.
        peer: PeerId,
        /// Up to when it has everything, milliseconds by placement's clock; 0: it cannot tell.
        fresh_ms: u64,
    },
    /// A read that cannot be confirmed now.
    #[error("the leader of {0} could not confirm the read in time: send it again")]
    ReadNotReady(RegionId),
    /// The command does not fit into a log entry.
    #[error("a command of {bytes} bytes does not fit into a log entry: send less at once")]
    EntryTooLarge {
        /// The region.
        region: RegionId,
        /// Its size in bytes.
        bytes: usize,
    },
    /// The answer does not fit into a message.
    #[error(
        "the answer is over {limit} bytes, more than clients decode: ask for fewer keys, or for \
         keys only"
    )]
    AnswerTooLarge {
        /// The region.
        region: RegionId,
        /// The bound, in bytes.
        limit: usize,
    },
    /// A scan or batch asks for more items than allowed.
    #[error("{items} items in one request are more than {limit}: ask for fewer")]
    TooManyItems {
        /// The region.
        region: RegionId,
        /// Asked for.
        items: usize,
        /// The bound.
        limit: usize,
    },
    /// The region is stopped: its neighbour is about to take it in.
    #[error("{0} is being merged with its neighbour: wait a moment, then look it up again")]
    Merging(RegionId),
    /// A step of a merge that does not fit the region.
    #[error("{region} cannot be merged like that: {reason}")]
    BadMerge {
        /// The region.
        region: RegionId,
        /// What is wrong.
        reason: &'static str,
    },
    /// A change of peers that does not fit the region.
    #[error("the replicas of {region} cannot change like that: {reason}")]
    BadPeers {
        /// The region.
        region: RegionId,
        /// Which rule stands in the way.
        reason: String,
    },
    /// A split that does not fit the region.
    #[error("{region} cannot be split like that: {reason}")]
    BadSplit {
        /// The region.
        region: RegionId,
        /// What is wrong.
        reason: &'static str,
    },
}

fn hint(leader: &Option<Peer>) -> String {
    match leader {
        Some(peer) => format!("try {}", peer.store),
        None => "which has none at the moment: try again".to_owned(),
    }
}

fn stores(stores: &[StoreId]) -> String {
    stores.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// How long another client than ours waits before it asks a region without a quorum again.
const NO_QUORUM_BACKOFF_MS: u64 = 1_000;

impl RegionError {
    /// The refusal of a region that has lost its quorum.
    pub fn no_quorum(region: RegionId, lost: &LostQuorum) -> Self {
        let silent = lost.silent.iter().copied().map(StoreId::from).collect();
        Self::NoQuorum { region, voters: lost.voters, silent }
    }

    /// As TiKV's clients read it. What they show to their user without a retry goes as
    /// `raft_entry_too_large`, since nothing else is both shown and not retried by all of them.
    pub fn to_wire(&self) -> errorpb::Error {
        let mut error = errorpb::Error { message: self.to_string(), ..Default::default() };
        match self {
            RegionError::StoreNotMatch { asked, actual } => {
                error.store_not_match = Some(errorpb::StoreNotMatch {
                    request_store_id: asked.0,
                    actual_store_id: actual.0,
                });
            }
            RegionError::RegionNotFound(region) => {
                error.region_not_found = Some(errorpb::RegionNotFound { region_id: region.0 });
            }
            RegionError::MismatchPeer { asked, actual } => {
                error.mismatch_peer_id = Some(errorpb::MismatchPeerId {
                    request_peer_id: asked.0,
                    store_peer_id: actual.0,
                });
            }
            RegionError::NotInitialized(region) => {
                error.region_not_initialized =
                    Some(errorpb::RegionNotInitialized { region_id: region.0 });
            }
            RegionError::EpochNotMatch { current } => {
                let current_regions = current.iter().map(|region| region.as_ref().into()).collect();
                error.epoch_not_match = Some(errorpb::EpochNotMatch { current_regions });
            }
            RegionError::KeyNotInRegion { key, region } => {
                error.key_not_in_region = Some(errorpb::KeyNotInRegion {
                    key: key.clone(),
                    region_id: region.id.0,
                    start_key: region.range.start.clone(),
                    end_key: region.range.end.clone(),
                });
            }
            RegionError::NotLeader { region, leader } => {
                error.not_leader = Some(errorpb::NotLeader {
                    region_id: region.0,
                    leader: leader.map(metapb::Peer::from),
                });
            }
            RegionError::NoQuorum { region, silent, .. } => {
                error.server_is_busy = Some(errorpb::ServerIsBusy {
                    reason: error.message.clone(),
                    backoff_ms: NO_QUORUM_BACKOFF_MS,
                });
                error.no_quorum = Some(errorpb::NoQuorum {
                    region_id: region.0,
                    silent_store_ids: silent.iter().map(|store| store.0).collect(),
                });
            }
            RegionError::StaleCommand => error.stale_command = Some(errorpb::StaleCommand {}),
            RegionError::Busy(reason) => {
                let reason = (*reason).to_owned();
                error.server_is_busy = Some(errorpb::ServerIsBusy { reason, backoff_ms: 0 });
            }
            RegionError::DataIsNotReady { region, peer, fresh_ms } => {
                error.data_is_not_ready = Some(errorpb::DataIsNotReady {
                    region_id: region.0,
                    peer_id: peer.0,
                    // As a timestamp of TiKV's: the low bits count within a millisecond.
                    safe_ts: *fresh_ms << 18,
                });
            }
            RegionError::ReadNotReady(region) => {
                error.read_index_not_ready = Some(errorpb::ReadIndexNotReady {
                    reason: error.message.clone(),
                    region_id: region.0,
                });
            }
            RegionError::EntryTooLarge { region, bytes: size }
            | RegionError::AnswerTooLarge { region, limit: size }
            | RegionError::TooManyItems { region, items: size, .. } => {
                error.raft_entry_too_large = Some(errorpb::RaftEntryTooLarge {
                    region_id: region.0,
                    entry_size: *size as u64,
                });
            }
            RegionError::Merging(region) => {
                error.proposal_in_merging_mode =
                    Some(errorpb::ProposalInMergingMode { region_id: region.0 });
            }
            RegionError::BadSplit { .. }
            | RegionError::BadPeers { .. }
            | RegionError::BadMerge { .. } => {}
        }
        error
    }
}
