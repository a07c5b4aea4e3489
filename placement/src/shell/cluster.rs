//! What every service of a member shares: the replicated state, the leader's session, and the one
//! way to read or change either.
//!
//! A **session** is one term of this member's leadership: the leader's core, its timestamps, its
//! ids. It exists from when the member has raised the ceiling of timestamps in its own term until
//! it hears that it leads no more. [`Cluster::read`] answers from it only under proof that this
//! member still leads: a lease that holds before and after, or a read index.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};
use quorate_consensus::node::clock;
use quorate_consensus::shard::{self, LeaderChange, Refusal};
use quorate_consensus::time::Instant;
use quorate_consensus::view::{GroupView, Lease};
use quorate_proto::wire::placement as wire;
use quorate_proto::{NodeId, StoreId, Term};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;

use super::machine::{Ended, Token};
use super::metrics::Metrics;
use super::raft::Raft;
use super::roster::Roster;
use crate::core::command::{Answer, Command, Member};
use crate::core::ids::{IDS_PER_ALLOCATION, IdRange};
use crate::core::leader::Leader;
use crate::core::oracle::{NoTimestamp, Oracle, Timestamp};
use crate::core::state::State;

/// How long a request waits for a leader that is just taking over.
const TAKE_OVER_PATIENCE: Duration = Duration::from_secs(3);
/// How long a request for timestamps waits for the ceiling to be raised.
const CEILING_PATIENCE: Duration = Duration::from_secs(3);
/// Metadata that names the leader's address in a refusal.
pub(crate) const LEADER_HINT: &str = "quorate-leader";

/// One term of leadership.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) leader: Leader,
    pub(crate) oracle: Oracle,
    pub(crate) ids: IdRange,
}

/// A store's stream.
pub(crate) struct StoreStream {
    /// Tells a newer stream of the same store from this one.
    pub(crate) number: u64,
    /// Where orders are pushed. Bounded; what does not fit is sent again later.
    pub(crate) orders: mpsc::Sender<Result<wire::StoreOrders, Status>>,
}

/// Shared by all services. See the module.
pub(crate) struct Cluster {
    /// This member.
    pub(crate) me: Member,
    /// Who is in the group.
    pub(crate) roster: Arc<Roster>,
    /// By what the members know each other (see ADR 11).
    pub(crate) fingerprint: u64,
    pub(crate) state: Arc<RwLock<State>>,
    pub(crate) view: Arc<GroupView>,
    pub(crate) leader: watch::Receiver<Option<LeaderChange>>,
    pub(crate) metrics: Metrics,
    /// Streams of stores that report to this member.
    pub(crate) streams: Mutex<BTreeMap<StoreId, StoreStream>>,
    /// Counts the changes of routes.
    pub(crate) routes: watch::Sender<u64>,
    /// Set once the process is told to end.
    pub(crate) stopping: watch::Sender<bool>,
    request_timeout: Duration,
    raft: OnceLock<Arc<dyn Raft>>,
    session: Mutex<Option<Session>>,
    /// The term of the session, 0 without one.
    leading: watch::Sender<Term>,
    /// The ceiling of timestamps, whenever it was raised.
    ceiling: watch::Sender<u64>,
}

/// What proves that this member leads.
enum Proof {
    Lease(Lease),
    ReadIndex,
}

impl Cluster {
    /// Without a session, and without a Raft node yet (see [`Cluster::attach`]).
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        me: Member,
        roster: Arc<Roster>,
        fingerprint: u64,
        state: Arc<RwLock<State>>,
        view: Arc<GroupView>,
        leader: watch::Receiver<Option<LeaderChange>>,
        request_timeout: Duration,
    ) -> Self {
        Self {
            me,
            roster,
            fingerprint,
            state,
            view,
            leader,
            metrics: Metrics::new(),
            streams: Mutex::new(BTreeMap::new()),
            routes: watch::Sender::new(0),
            stopping: watch::Sender::new(false),
            request_timeout,
            raft: OnceLock::new(),
            session: Mutex::new(None),
            leading: watch::Sender::new(Term(0)),
            ceiling: watch::Sender::new(0),
        }
    }

    /// Gives the services their Raft node. Called once, before any of them is served.
    pub(crate) fn attach(&self, raft: Arc<dyn Raft>) {
        assert!(self.raft.set(raft).is_ok(), "a member has one raft node");
    }

    /// The Raft node.
    ///
    /// # Errors
    /// This member is still starting.
    pub(crate) fn raft(&self) -> Result<&Arc<dyn Raft>, Status> {
        self.raft.get().ok_or_else(|| Status::unavailable("this member is starting; try again"))
    }

    /// Milliseconds since the Unix epoch by this machine's clock.
    pub(crate) fn wall_ms() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// The cluster's id; 0 until there is one.
    pub(crate) fn cluster_id(&self) -> u64 {
        self.state.read().cluster().map_or(0, |cluster| cluster.id)
    }

    /// The leader of the group as far as this member knows.
    pub(crate) fn known_leader(&self) -> Option<Member> {
        self.roster.get(NodeId(self.view.leader()?.0))
    }

    /// The refusal of a member that does not lead, with the one that does.
    pub(crate) fn not_leader(&self) -> Status {
        let me = &self.me.name;
        match self.known_leader().filter(|leader| leader.id != self.me.id) {
            Some(leader) => {
                let words = format!("{me} is not the placement leader, it is {}", leader.address);
                let mut status = Status::unavailable(words);
                if let Ok(address) = leader.address.parse() {
                    status.metadata_mut().insert(LEADER_HINT, address);
                }
                status
            }
            None => Status::unavailable(format!(
                "{me} knows no placement leader now; a majority of the members must be up; try \
                 again"
            )),
        }
    }

    /// Answers from what only the leader knows, under proof that this member leads. `answer` may
    /// be called twice, and must bear that.
    ///
    /// # Errors
    /// UNAVAILABLE where another member leads, or none.
    pub(crate) async fn read<R>(
        &self,
        mut answer: impl FnMut(&mut Session, &State) -> R,
    ) -> Result<R, Status> {
        let term = self.session_term().await?;
        for proof in [self.lease(), None] {
            let proof = match proof {
                Some(lease) => Proof::Lease(lease),
                None => {
                    self.confirm().await?;
                    Proof::ReadIndex
                }
            };
            let answered = self.with_session(term, &mut answer);
            let holds = match proof {
                Proof::Lease(lease) => self.view.still_holds(lease, clock::now()),
                Proof::ReadIndex => true,
            };
            match answered {
                Some(answered) if holds => return Ok(answered),
                Some(_) => {}
                None => return Err(self.not_leader()),
            }
        }
        Err(self.not_leader())
    }

    /// Runs `act` on the session of `term`, if it still is the one.
    pub(crate) fn with_session<R>(
        &self,
        term: Term,
        act: impl FnOnce(&mut Session, &State) -> R,
    ) -> Option<R> {
        let mut session = self.session.lock();
        let session = session.as_mut().filter(|session| session.leader.term() == term)?;
        let state = self.state.read();
        if session.leader.tree().is_empty() && !state.saved_regions().is_empty() {
            session.leader.adopt(&state);
        }
        Some(act(session, &state))
    }

    /// True where this member may answer without asking the others.
    pub(crate) fn holds_lease(&self) -> bool {
        self.lease().is_some()
    }

    fn lease(&self) -> Option<Lease> {
        let lease = self.view.lease(clock::now())?;
        if let Some(raft) = self.raft.get().filter(|_| lease.renew) {
            raft.renew_lease();
        }
        Some(lease)
    }

    /// Proves leadership by a round to a majority.
    async fn confirm(&self) -> Result<(), Status> {
        let (token, end) = Token::new();
        self.raft()?.read(token);
        match tokio::time::timeout(self.request_timeout, end).await {
            Ok(Ok(Ended::ReadAt)) => Ok(()),
            Ok(Ok(Ended::Refused(refusal))) => Err(self.refused(refusal)),
            Ok(Ok(Ended::Applied(_)) | Err(_)) | Err(_) => Err(Status::unavailable(
                "the placement leader could not confirm that it still leads; try again",
            )),
        }
    }

    /// The term of this member's session; waits for one that is about to begin.
    async fn session_term(&self) -> Result<Term, Status> {
        let mut leading = self.leading.subscribe();
        let wait = async {
            loop {
                let term = *leading.borrow_and_update();
                if !self.view.is_leader() {
                    return Err(self.not_leader());
                }
                if term == self.view.term() {
                    return Ok(term);
                }
                let mut leader = self.leader.clone();
                tokio::select! {
                    changed = leading.changed() => changed.map_err(|_| self.not_leader())?,
                    changed = leader.changed() => changed.map_err(|_| self.not_leader())?,
                    () = tokio::time::sleep(Duration::from_millis(100)) => {}
                }
            }
        };
        tokio::time::timeout(TAKE_OVER_PATIENCE, wait).await.map_err(|_| {
            Status::unavailable("the placement leader is still taking over; try again")
        })?
    }

    /// Changes the replicated state.
    ///
    /// # Errors
    /// UNAVAILABLE: certainly not done. ABORTED: nobody can say whether it is done.
    pub(crate) async fn propose(&self, command: &Command) -> Result<Answer, Status> {
        let (token, end) = Token::new();
        self.raft()?.propose(command.encode(), token);
        self.end_of_proposal(end).await
    }

    /// Changes who is in the group, by one step: Raft's configuration and the replicated list.
    ///
    /// # Errors
    /// As [`Cluster::propose`]; FAILED_PRECONDITION: a rule of Raft's stands in the way.
    pub(crate) async fn change_members(
        &self,
        members: Vec<shard::Member>,
        command: &Command,
    ) -> Result<Answer, Status> {
        let (token, end) = Token::new();
        self.raft()?.change_members(members, command.encode(), token);
        self.end_of_proposal(end).await
    }

    async fn end_of_proposal(&self, end: oneshot::Receiver<Ended>) -> Result<Answer, Status> {
        match tokio::time::timeout(self.request_timeout, end).await {
            Ok(Ok(Ended::Applied(answer))) => Ok(answer),
            Ok(Ok(Ended::Refused(refusal))) => Err(self.refused(refusal)),
            Ok(Ok(Ended::ReadAt) | Err(_)) | Err(_) => Err(self.refused(Refusal::Undetermined)),
        }
    }

    fn refused(&self, refusal: Refusal) -> Status {
        match refusal {
            Refusal::NotLeader { .. } | Refusal::NoGroup => self.not_leader(),
            Refusal::NoQuorum(_) => self.not_leader(),
            Refusal::Busy { reason } => {
                Status::unavailable(format!("placement is busy: {reason}; try again"))
            }
            Refusal::ReadTimedOut => Status::unavailable(
                "the placement leader could not confirm that it still leads; try again",
            ),
            Refusal::TooLarge { .. } => Status::invalid_argument(refusal.to_string()),
            Refusal::Members(_) => Status::failed_precondition(refusal.to_string()),
            Refusal::Undetermined => Status::aborted(
                "nobody can say whether this was done: the placement leader changed or was cut \
                 off; look before you try again",
            ),
        }
    }

    /// Begins a session.
    pub(crate) fn begin_session(&self, term: Term, oracle: Oracle, now: Instant) {
        let leader = Leader::new(term, &self.state.read(), now);
        *self.session.lock() = Some(Session { leader, oracle, ids: IdRange::default() });
        self.leading.send_replace(term);
    }

    /// Ends the session and the streams of its stores, so that they look for the next leader.
    pub(crate) fn end_session(&self) {
        self.leading.send_replace(Term(0));
        self.session.lock().take();
        self.streams.lock().clear();
    }

    /// The term of the session that is under way, 0 without one.
    pub(crate) fn leading(&self) -> watch::Receiver<Term> {
        self.leading.subscribe()
    }

    /// The ceiling was raised for the session of `term`.
    pub(crate) fn raised(&self, term: Term, ceiling_ms: u64) {
        self.with_session(term, |session, _| session.oracle.raised(ceiling_ms));
        self.ceiling.send_replace(ceiling_ms);
    }

    /// Timestamps for each of `counts`, in order.
    ///
    /// # Errors
    /// As [`Cluster::read`]; INVALID_ARGUMENT for a count out of bounds.
    pub(crate) async fn timestamps(&self, counts: &[u64]) -> Result<Vec<Timestamp>, Status> {
        let mut ceiling = self.ceiling.subscribe();
        let wait = async {
            loop {
                ceiling.borrow_and_update();
                let wall = Self::wall_ms();
                let given = self
                    .read(|session, _| {
                        let give = |count: &u64| session.oracle.allocate(*count, wall);
                        counts.iter().map(give).collect::<Result<Vec<_>, _>>()
                    })
                    .await?;
                match given {
                    Ok(timestamps) => return Ok(timestamps),
                    Err(NoTimestamp::Ceiling) => {
                        if ceiling.changed().await.is_err() {
                            return Err(self.not_leader());
                        }
                    }
                    Err(error @ NoTimestamp::Count(_)) => {
                        return Err(Status::invalid_argument(error.to_string()));
                    }
                }
            }
        };
        let given = tokio::time::timeout(CEILING_PATIENCE, wait).await;
        given.map_err(|_| Status::unavailable(NoTimestamp::Ceiling.to_string()))?
    }

    /// `count` ids that nobody else gets; the first one.
    ///
    /// # Errors
    /// As [`Cluster::propose`].
    pub(crate) async fn ids(&self, count: u64) -> Result<u64, Status> {
        loop {
            // The closure may run twice; what the first run took is lost, not given twice.
            if let Some(first) = self.read(|session, _| session.ids.take(count)).await? {
                return Ok(first);
            }
            let term = self.session_term().await?;
            let count = count.max(IDS_PER_ALLOCATION);
            if let Answer::Ids { first, count } =
                self.propose(&Command::AllocateIds { count }).await?
            {
                let range = IdRange::new(first, count);
                self.with_session(term, |session, _| session.ids.refill(range));
            }
        }
    }

    /// A route changed.
    pub(crate) fn routes_changed(&self) {
        self.routes.send_modify(|number| *number += 1);
    }
}
