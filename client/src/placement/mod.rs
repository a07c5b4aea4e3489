//! The client of the placement service.
//!
//! Any member answers who the leader is; everything else is the leader's. The client finds it by
//! `GetMembers` over all addresses it knows, follows the hint `quorate-leader` that a member sends
//! with its refusal, and tries again, with pauses, until the call's deadline ([`leader`]). Members
//! that join later are learnt within [`LEARN_EVERY`].
//! Timestamps of many callers share one stream ([`tso`]).

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use quorate_proto::{Peer, Region};

use crate::{Error, Result, client::DEFAULT_DEADLINE};

mod calls;
mod judge;
mod leader;
mod manage;
mod regions;
mod tso;

use leader::Core;

/// How often the leader is asked who the members are.
pub const LEARN_EVERY: Duration = Duration::from_secs(3);

/// How a [`PlacementClient`] behaves.
#[derive(Clone, Debug)]
pub struct PlacementOptions {
    /// How long one call may take in all, with its retries. Default: 10 s.
    pub deadline: Duration,
    /// How long a connection may take to open. Default: 1 s.
    pub connect_timeout: Duration,
    /// How long a connection may be silent before it is probed; a probe not answered for as long
    /// again closes it. Default: 2 s.
    pub keepalive: Duration,
}

impl Default for PlacementOptions {
    fn default() -> Self {
        Self {
            deadline: DEFAULT_DEADLINE,
            connect_timeout: Duration::from_secs(1),
            keepalive: Duration::from_secs(2),
        }
    }
}

/// A region as placement knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// Its description.
    pub region: Region,
    /// Its last known leader.
    pub leader: Option<Peer>,
}

/// A moment, strictly increasing over the cluster's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Milliseconds since the Unix epoch.
    pub physical_ms: u64,
    /// Counts within one millisecond; below 2¹⁸.
    pub logical: u64,
}

impl Timestamp {
    /// As one number, in the same order: `physical_ms << 18 | logical`.
    pub const fn as_u64(self) -> u64 {
        (self.physical_ms << 18) | self.logical
    }
}

/// See the module. Cheap to clone; all clones share connections. It belongs to the tokio runtime
/// it was connected on.
#[derive(Clone)]
pub struct PlacementClient {
    core: Arc<Core>,
    tso: tso::Queue,
}

impl PlacementClient {
    /// Connects to the members at `endpoints` (HOST:PORT each); one that answers is enough. Keeps
    /// trying until the deadline, so that a cluster that is just starting is waited for.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no address, or one that is none; [`Error::Unavailable`] where
    /// nobody answers; [`Error::WrongCluster`] where two answer for different clusters.
    pub async fn connect(endpoints: &[String], options: PlacementOptions) -> Result<Self> {
        if endpoints.is_empty() {
            return Err(Error::InvalidArgument(
                "no placement address; give HOST:PORT of at least one placement member".to_owned(),
            ));
        }
        let deadline = Instant::now() + options.deadline;
        let core = Arc::new(Core::new(endpoints, options)?);
        core.greet(deadline).await?;
        let tso = tso::Queue::start(Arc::downgrade(&core));
        core.runtime().spawn(learn(Arc::downgrade(&core)));
        Ok(Self { core, tso })
    }

    /// The cluster's id; 0 until the cluster has one.
    pub fn cluster_id(&self) -> u64 {
        self.core.cluster_id()
    }

    /// HOST:PORT of every member known: those given, and those learnt from the members.
    pub fn endpoints(&self) -> Vec<String> {
        self.core.endpoints()
    }

    /// HOST:PORT of the members as one of them named them last, without those that have left since.
    /// For whoever wants to find placement again after a restart. Empty until one has answered.
    pub fn known_members(&self) -> Vec<String> {
        self.core.members()
    }

    /// HOST:PORT of the member that is believed to lead.
    pub fn leader_address(&self) -> Option<String> {
        self.core.leader().map(|leader| leader.to_string())
    }

    /// A timestamp greater than every one that was returned before this call began, anywhere.
    ///
    /// # Errors
    /// [`Error::Timeout`] where placement gave none within the deadline.
    pub async fn timestamp(&self) -> Result<Timestamp> {
        self.tso.next(self.core.options().deadline).await
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.core.options().deadline
    }
}

/// Learns of members that join, for as long as a client is there.
async fn learn(core: Weak<Core>) {
    loop {
        tokio::time::sleep(LEARN_EVERY).await;
        let Some(core) = core.upgrade() else { return };
        core.learn().await;
    }
}
