//! What a group's worker publishes for other threads: leadership, lease, progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use quorate_proto::{LogIndex, NodeId, PeerId, RegionId, Term};

use crate::time::Instant;

/// Atomic state of one local peer: written by the worker that owns the group, read by anybody.
///
/// A lease read takes a [`Lease`] first, reads the engine, and asks [`GroupView::still_holds`]
/// with a fresh clock afterwards: between the two, leadership may have gone, the process may
/// have been paused, or the region may have been split.
#[derive(Debug)]
pub struct GroupView {
    group: RegionId,
    peer: PeerId,
    term: AtomicU64,
    leader: AtomicU64,
    lease_until: AtomicU64,
    renew_at: AtomicU64,
    generation: AtomicU64,
    committed: AtomicU64,
    applied: AtomicU64,
    asleep: AtomicU64,
    everywhere: AtomicU64,
    kept_awake: AtomicBool,
    /// Locked for a claim that counts, about ten times a second, and for a stale read.
    age: Mutex<(Fresh, Slept)>,
    /// Since when its leader is silent; 0: it is not.
    silent_since: AtomicU64,
    /// Looked at only where a request is refused anyway.
    lost_quorum: Mutex<Option<Arc<LostQuorum>>>,
    /// Taken about once a tick, by the worker; readers look at it now and then.
    replication: Mutex<Option<Box<Replication>>>,
}

/// How far the other members of a group are, as its leader knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replication {
    /// Where the leader's log ends.
    pub last: LogIndex,
    /// Up to where it is committed.
    pub committed: LogIndex,
    /// All members but the leader.
    pub peers: Vec<PeerProgress>,
}

/// How far one member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerProgress {
    /// The member.
    pub peer: PeerId,
    /// Last entry known to be durable there.
    pub matched: LogIndex,
    /// Last entry applied there, as it said last. `None` where it has not said so since the leader
    /// leads or the group woke up: one of an older version never does.
    pub applied: Option<LogIndex>,
    /// True while a snapshot is on its way there.
    pub snapshot: bool,
    /// Since when nothing was heard of it, or of its process; within about a second.
    pub silent_since: Option<Instant>,
}

/// Committed entries that a member has not applied yet; 0 where it does not say.
pub fn unapplied(committed: LogIndex, applied: Option<LogIndex>) -> u64 {
    applied.map_or(0, |applied| committed.0.saturating_sub(applied.0))
}

impl Replication {
    /// Committed entries that the member has not applied yet; 0 where it does not say.
    pub fn unapplied(&self, peer: &PeerProgress) -> u64 {
        unapplied(self.committed, peer.applied)
    }
}

/// Why nothing can be committed in a group: too many of its voters' processes are silent, and have
/// been for longer than any election takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostQuorum {
    /// Voters on the side of the configuration that lacks a majority.
    pub voters: usize,
    /// The processes of those that are silent.
    pub silent: Vec<NodeId>,
}

/// Up to which moment a replica has everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fresh {
    /// By placement's clock, milliseconds since the Unix epoch; 0: nothing is known.
    pub time_ms: u64,
    /// When that was heard, by the local clock: it is at least as old.
    pub heard: Instant,
}

/// When a peer slept last, counted in comparisons of the process's
/// [`Sleepers`](crate::sleepers::Sleepers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slept {
    /// The process of its leader then.
    pub leader: NodeId,
    /// The first comparison that has seen it asleep.
    pub since: u64,
    /// The first one that may not have any more; `u64::MAX` while it sleeps, 0 where it never did.
    pub until: u64,
}

impl Slept {
    /// True where that comparison has seen it asleep.
    pub fn was_seen_by(&self, round: u64) -> bool {
        (self.since..self.until).contains(&round)
    }
}

/// Proof that at some moment the local peer could serve linearizable reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    generation: u64,
    /// True where it lapses soon: send [`crate::shard::Event::RenewLease`]. Set for one caller
    /// per lapse only.
    pub renew: bool,
}

impl GroupView {
    /// A view of a peer that knows nothing yet.
    pub fn new(group: RegionId, peer: PeerId) -> Arc<Self> {
        Arc::new(Self {
            group,
            peer,
            term: AtomicU64::new(0),
            leader: AtomicU64::new(0),
            lease_until: AtomicU64::new(0),
            renew_at: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            asleep: AtomicU64::new(0),
            everywhere: AtomicU64::new(0),
            kept_awake: AtomicBool::new(false),
            age: Mutex::default(),
            silent_since: AtomicU64::new(0),
            lost_quorum: Mutex::new(None),
            replication: Mutex::new(None),
        })
    }
    /// The group.
    pub fn group(&self) -> RegionId {
        self.group
    }
    /// The local peer.
    pub fn peer(&self) -> PeerId {
        self.peer
    }
    /// The peer's term.
    pub fn term(&self) -> Term {
        Term(self.term.load(Ordering::Acquire))
    }
    /// Who leads the group, where known.
    pub fn leader(&self) -> Option<PeerId> {
        match self.leader.load(Ordering::Acquire) {
            0 => None,
            leader => Some(PeerId(leader)),
        }
    }
    /// True where the local peer leads.
    pub fn is_leader(&self) -> bool {
        self.leader() == Some(self.peer)
    }
    /// Last index known to be committed.
    pub fn committed(&self) -> LogIndex {
        LogIndex(self.committed.load(Ordering::Acquire))
    }
    /// Last index applied.
    pub fn applied(&self) -> LogIndex {
        LogIndex(self.applied.load(Ordering::Acquire))
    }
    /// True where the group sleeps (no ticks, no heartbeats of its own).
    pub fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::Relaxed) != 0
    }
    /// Up to where every member, learners included, durably has the log, as of the last tick; only
    /// of a leader that has applied an entry of its own term, otherwise 0. To compare it with an
    /// entry, find out first that the entry is applied here: what was published before may count
    /// entries that others have replaced.
    pub fn everywhere(&self) -> LogIndex {
        LogIndex(self.everywhere.load(Ordering::Acquire))
    }
    /// True where the group must not fall asleep.
    pub fn is_kept_awake(&self) -> bool {
        self.kept_awake.load(Ordering::Acquire)
    }
    /// The state machine wants the group kept awake from now on, or does not any more: it has
    /// something to hear of the others, or to say to them. One that sleeps is not woken.
    pub fn keep_awake(&self, awake: bool) {
        self.kept_awake.store(awake, Ordering::Release);
    }
    /// Up to which moment the local peer has all that was acknowledged, as far as its leader told.
    pub fn fresh(&self) -> Fresh {
        self.age.lock().0
    }
    /// The same, and when it slept last.
    pub fn age(&self) -> (Fresh, Slept) {
        *self.age.lock()
    }
    /// Since when the leader is silent, for a peer that is awake and does not lead. `None` also
    /// where that is not long yet (some two seconds).
    pub fn silent_since(&self) -> Option<Instant> {
        match self.silent_since.load(Ordering::Relaxed) {
            0 => None,
            since => Some(Instant(since)),
        }
    }
    /// Why nothing can be committed, where that is known: the local peer has heard of no leader for
    /// some two seconds, and the processes that it can hear are no majority. `None` while an election
    /// is merely under way.
    pub fn lost_quorum(&self) -> Option<Arc<LostQuorum>> {
        self.lost_quorum.lock().clone()
    }
    /// How far the other members are, as of the last tick. Only where the local peer leads, and
    /// not all of them are settled: there is a learner, a joint configuration is in force, or some
    /// member lags or is silent.
    pub fn replication(&self) -> Option<Replication> {
        self.replication.lock().as_deref().cloned()
    }
    /// The lease, if it is valid at `now` and all that is known to be committed is applied here:
    /// a follower may have applied it already and shown it to somebody.
    pub fn lease(&self, now: Instant) -> Option<Lease> {
        let generation = self.generation.load(Ordering::Acquire);
        let until = self.lease_until.load(Ordering::Acquire);
        if now.0 >= until || self.applied() < self.committed() {
            return None;
        }
        let at = self.renew_at.load(Ordering::Relaxed);
        let renew = now.0 >= at
            && self
                .renew_at
                .compare_exchange(at, u64::MAX, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        Some(Lease { generation, renew })
    }
    /// True where `lease` still holds at `now`, read after the data was read.
    pub fn still_holds(&self, lease: Lease, now: Instant) -> bool {
        std::sync::atomic::fence(Ordering::SeqCst);
        now.0 < self.lease_until.load(Ordering::Acquire)
            && self.generation.load(Ordering::Acquire) == lease.generation
    }

    /// Owner only: a lease that lasts until `until`; `renew_at` is when a reader should ask for more.
    pub fn grant(&self, until: Instant, renew_at: Instant) {
        self.renew_at.store(renew_at.0, Ordering::Relaxed);
        self.lease_until.store(until.0, Ordering::Release);
    }
    /// Owner only: no lease from now on, and those handed out are void.
    pub fn revoke(&self) {
        self.lease_until.store(0, Ordering::Release);
        self.generation.fetch_add(1, Ordering::AcqRel);
        std::sync::atomic::fence(Ordering::SeqCst);
    }
    /// Owner only: term and leader.
    pub fn set_leader(&self, term: Term, leader: Option<PeerId>) {
        self.term.store(term.0, Ordering::Release);
        self.leader.store(leader.map_or(0, PeerId::get), Ordering::Release);
    }
    /// Owner only: commit index.
    pub fn set_committed(&self, index: LogIndex) {
        self.committed.store(index.0, Ordering::Release);
    }
    /// Owner only: applied index.
    pub fn set_applied(&self, index: LogIndex) {
        self.applied.store(index.0, Ordering::Release);
    }
    /// Owner only: up to where every member has the log.
    pub fn set_everywhere(&self, index: LogIndex) {
        self.everywhere.store(index.0, Ordering::Release);
    }
    /// Owner only: since when the leader is silent.
    pub fn set_silent_since(&self, since: Option<Instant>) {
        self.silent_since.store(since.map_or(0, |since| since.0.max(1)), Ordering::Relaxed);
    }
    /// Owner only: whether the quorum is lost.
    pub fn set_lost_quorum(&self, lost: Option<LostQuorum>) {
        *self.lost_quorum.lock() = lost.map(Arc::new);
    }
    /// Owner only: how far the others are.
    pub fn set_replication(&self, replication: Option<Replication>) {
        *self.replication.lock() = replication.map(Box::new);
    }
    /// Owner only: it falls asleep, or wakes up.
    pub fn set_slept(&self, slept: Slept) {
        self.asleep.store(u64::from(slept.until == u64::MAX), Ordering::Relaxed);
        self.age.lock().1 = slept;
    }
    /// Owner only: all that was acknowledged at `time_ms` is applied here, as was heard then.
    pub fn set_fresh(&self, time_ms: u64, heard: Instant) {
        let mut age = self.age.lock();
        if time_ms > age.0.time_ms {
            age.0 = Fresh { time_ms, heard };
        }
    }
}
