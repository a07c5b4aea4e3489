//! One Raft group's local peer: raft-rs's state machine with what it leaves to its user.
//!
//! [`Group`] owns the lease, the read queue, hibernation, staggered elections, the vote promise
//! and truncation. It never sends, writes or applies: [`Group::collect`] hands out what is to be
//! done, and one write at most is under way between two calls of it.
//!
//! Deliberately absent: automatic leaving of joint configurations, raft-rs's own lease reads, and
//! any clock (see `docs/ARCHITECTURE.md`).

mod asking;
mod elections;
mod fresh;
mod guard;
mod history;
mod inbox;
mod install;
mod lease;
mod log;
mod members;
mod message;
mod progress;
mod proposals;
mod quorum;
mod reads;
mod ready;
pub(crate) mod records;
mod sleep;
mod truncate;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use quorate_proto::wire::peer::Envelope;
use quorate_proto::{LogIndex, NodeId, PeerId, RegionId, Term};
use raft::{RawNode, StateRole};

use crate::engine::{Engine, EngineError};
use crate::shard::{
    Effects, Member, Merged, NewGroup, Nodes, RaftOptions, Refusal, Reply, conf_of,
};
use crate::sleepers::Sleepers;
use crate::time::Instant;
use crate::view::GroupView;
use elections::RANKS;
use fresh::Freshness;
pub use history::{durable_entries, has_records};
use install::{Installing, Staged};
use lease::LeaseClock;
use log::GroupLog;
pub(crate) use message::{MERGED, WAKE};
use proposals::Proposals;
use reads::ReadQueue;
pub use records::forget_group;
use sleep::Sleep;

/// The staged file that came with a message from another process.
pub(crate) fn staged_file(envelope: &Envelope) -> Option<String> {
    message::staged(envelope).map(|staged| staged.id)
}

/// What a message says where it tells that its group is gone.
pub(crate) fn merged(envelope: &Envelope) -> Option<Merged> {
    (envelope.kind == message::MERGED).then(|| Merged {
        group: RegionId(envelope.group),
        into: RegionId(envelope.merged_into),
        region: envelope.region.clone().unwrap_or_default(),
    })
}

/// What a group needs to know of its shard.
pub(crate) struct GroupContext<'a> {
    pub(crate) options: &'a RaftOptions,
    pub(crate) now: Instant,
    /// Which processes are alive.
    pub(crate) nodes: &'a Nodes,
    /// No votes and no campaigns before then: the process has just started and may have promised.
    pub(crate) votes_from: Instant,
    /// Placement's clock (ms), never ahead of it; 0 where it is not known.
    pub(crate) time_ms: u64,
    /// Which groups of the process sleep.
    pub(crate) sleepers: &'a Arc<Sleepers>,
}

const UNCOMMITTED: Refusal =
    Refusal::Busy { reason: "too much of this region is not committed yet" };

pub(crate) struct Group<T> {
    id: RegionId,
    peer: PeerId,
    members: Vec<Member>,
    /// Who has spoken to this peer without being among its members as it knows them, and from where.
    callers: BTreeMap<u64, NodeId>,
    node: RawNode<GroupLog>,
    view: Arc<GroupView>,
    proposals: Proposals<T>,
    reads: ReadQueue<T>,
    lease: LeaseClock,
    sleep: Sleep,
    sleepers: Arc<Sleepers>,
    fresh: Freshness,
    /// The leader last heard of (kept while there is none), and when.
    last_leader: u64,
    contact: Option<Instant>,
    /// Ticks before the first voter campaigns, and between one voter and the next; and what
    /// follows for this peer.
    election_ticks: (usize, usize),
    timeout: usize,
    /// Leadership goes to this process once its voter knows that it votes.
    offered: Option<NodeId>,
    /// Members whose process was silent when the group fell asleep.
    missed: bool,
    installing: Option<Box<Installing>>,
    incoming: Option<Staged>,
    /// Snapshots on their way: up to where each receiver will have the log.
    transfers: BTreeMap<u64, u64>,
    /// Messages that must wait for the write under way, and the number of its `Ready`.
    held: Vec<Envelope>,
    writing: Option<u64>,
    /// From the leader: every member has the log up to here.
    safe_truncate: u64,
    /// Members that have been quiet, and since when; of a leader only.
    quiet: BTreeMap<u64, Instant>,
    /// What members have applied, as each of them said last; of a leader only. Who is missing has
    /// not said so since the group woke up, or is of an older version.
    applied_there: BTreeMap<u64, u64>,
    /// When it was opened; whether the silence of its leader, and how far its members are, are
    /// published.
    opened: Instant,
    is_silent: bool,
    /// Ticks in a row at which the quorum was found lost.
    lost_ticks: u32,
    is_published: bool,
    /// When a replica without a vote asked the others last.
    asked: Instant,
    /// Term and leader as published.
    known: (u64, u64),
    pub(crate) touched: bool,
}

impl<T> Group<T> {
    pub(crate) fn open(
        new: &NewGroup,
        engine: Arc<dyn Engine>,
        incarnation: u64,
        logger: &slog::Logger,
        context: &GroupContext<'_>,
    ) -> Result<Self, EngineError> {
        let options = context.options;
        let applied = (new.applied.0.0, new.applied.1.0);
        let log = GroupLog::load(
            engine,
            new.group,
            applied,
            message::unpack_conf(conf_of(&new.members)),
        )?;
        let config = raft::Config {
            id: new.peer.0,
            election_tick: options.election_ticks,
            heartbeat_tick: options.heartbeat_ticks,
            applied: applied.0,
            max_size_per_msg: options.max_append_bytes,
            max_inflight_msgs: options.max_inflight,
            check_quorum: true,
            pre_vote: true,
            min_election_tick: options.election_ticks,
            max_election_tick: options.election_ticks + options.election_stagger_ticks * RANKS + 1,
            skip_bcast_commit: true,
            // raft-rs 0.7 appends entries to a waiting *empty* append without looking at its index:
            // after a rejected probe the follower then acknowledges entries it never got.
            batch_append: false,
            max_uncommitted_size: options.max_uncommitted_bytes,
            max_committed_size_per_ready: options.max_append_bytes * 4,
            ..raft::Config::default()
        };
        let node = RawNode::new(&config, log, logger).map_err(|error| EngineError::Corrupt {
            what: format!("raft state of {}", new.group),
            reason: error.to_string(),
        })?;
        let mut group = Self {
            id: new.group,
            peer: new.peer,
            members: new.members.clone(),
            callers: BTreeMap::new(),
            node,
            view: new.view.clone(),
            proposals: Proposals::new(),
            reads: ReadQueue::new(incarnation),
            lease: LeaseClock::new(options.lease()),
            sleep: Sleep::Awake { idle_ticks: 0 },
            sleepers: Arc::clone(context.sleepers),
            fresh: Freshness::default(),
            last_leader: 0,
            contact: None,
            election_ticks: (options.election_ticks, options.election_stagger_ticks),
            timeout: options.election_ticks,
            offered: None,
            missed: false,
            installing: None,
            incoming: None,
            transfers: BTreeMap::new(),
            held: Vec::new(),
            writing: None,
            safe_truncate: 0,
            quiet: BTreeMap::new(),
            applied_there: BTreeMap::new(),
            opened: context.now,
            asked: context.now,
            is_silent: false,
            lost_ticks: 0,
            is_published: false,
            known: (0, 0),
            touched: false,
        };
        group.view.set_applied(new.applied.0);
        group.view.set_committed(LogIndex(group.node.raft.raft_log.committed));
        group.set_timeout();
        if new.campaign || group.is_only_voter() {
            group.campaign(context);
        }
        group.publish_leader();
        Ok(group)
    }

    pub(crate) fn id(&self) -> RegionId {
        self.id
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.peer
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    pub(crate) fn is_asleep(&self) -> bool {
        self.sleep.is_asleep()
    }

    /// The processes of the other members, and of those that speak to it.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.others().map(|member| member.node).chain(self.callers.values().copied())
    }

    /// All members but this one.
    pub(crate) fn others(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.peer != self.peer)
    }

    pub(crate) fn node_of(&self, peer: u64) -> Option<NodeId> {
        let member = self.members.iter().find(|member| member.peer.0 == peer);
        member.map(|member| member.node).or_else(|| self.callers.get(&peer).copied())
    }

    /// False while it waits for its first snapshot.
    pub(crate) fn is_initialised(&self) -> bool {
        !self.members.is_empty()
    }

    /// The process that led this group when it was last heard of.
    pub(crate) fn leader_node(&self) -> Option<NodeId> {
        self.node_of(self.last_leader)
    }

    /// Queues a command; it is proposed when the shard collects.
    pub(crate) fn propose(
        &mut self,
        command: Bytes,
        token: T,
        suspends_lease: bool,
        context: &GroupContext<'_>,
        effects: &mut Effects<T>,
    ) {
        let uncommitted = self.node.raft.uncommitted_size() + self.proposals.queued_bytes();
        let bound = context.options.max_uncommitted_bytes;
        let refusal = if !self.is_leader() {
            Refusal::NotLeader { leader: self.leader() }
        } else if let Some(lost) = self.without_quorum(context) {
            Refusal::NoQuorum(lost)
        } else if command.len() > quorate_proto::limits::MAX_ENTRY_BYTES {
            Refusal::TooLarge { bytes: command.len() }
        } else if self.proposals.len() >= context.options.max_pending {
            Refusal::Busy { reason: "too many writes of this region are waiting" }
        } else if uncommitted > 0 && (uncommitted + command.len()) as u64 > bound {
            UNCOMMITTED
        } else {
            self.wake();
            self.proposals.push(command, token, suspends_lease);
            return;
        };
        effects.replies.push((token, Reply::Refused(refusal)));
    }

    /// Queues a linearizable read.
    pub(crate) fn read(&mut self, token: T, context: &GroupContext<'_>, effects: &mut Effects<T>) {
        if self.reads.len() >= context.options.max_pending {
            let refusal = Refusal::Busy { reason: "too many reads of this region are waiting" };
            effects.replies.push((token, Reply::Refused(refusal)));
            return;
        }
        if let Some(lost) = self.without_quorum(context) {
            effects.replies.push((token, Reply::Refused(Refusal::NoQuorum(lost))));
            return;
        }
        self.count_beats(context);
        self.wake();
        self.reads.push(token, context.now);
    }

    /// The lease is used and about to lapse.
    pub(crate) fn renew_lease(&mut self) {
        if self.is_leader() {
            self.wake();
            self.reads.renew();
        }
    }

    /// The state machine has applied up to `index`.
    pub(crate) fn applied(&mut self, index: u64, term: u64) {
        if index <= self.node.store().applied_index() {
            return;
        }
        let suspended = self.lease.is_suspended(self.node.store().applied_index());
        self.node.mut_store().set_applied(index, term);
        self.node.advance_apply_to(index);
        self.view.set_applied(LogIndex(index));
        self.note_fresh();
        if suspended && !self.lease.is_suspended(index) {
            self.node.skip_bcast_commit(true);
        }
    }

    /// Messages to `node` were lost.
    pub(crate) fn unreachable(&mut self, node: NodeId) {
        if self.is_leader() {
            for member in self.members.iter().filter(|member| member.node == node) {
                self.node.report_unreachable(member.peer.0);
            }
        }
    }

    /// The group goes away: whoever waits is told.
    pub(crate) fn close(&mut self, effects: &mut Effects<T>) {
        self.leave_sleepers();
        self.view.revoke();
        self.view.set_leader(Term(self.node.raft.term), None);
        let mut refuse = |token, refusal| effects.replies.push((token, Reply::Refused(refusal)));
        self.proposals.drain_queued(|token| refuse(token, Refusal::NoGroup));
        self.proposals.drain_proposed(|token| refuse(token, Refusal::Undetermined));
        self.reads.drain(|token| refuse(token, Refusal::NoGroup));
        effects.discards.extend(self.incoming.take().map(|staged| staged.id));
    }

    /// An engine error that raft-rs met.
    pub(crate) fn take_failure(&self) -> Option<EngineError> {
        self.node.store().take_failure()
    }
}
