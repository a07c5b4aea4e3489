//! A placement member's services: the real state, leader, oracle and ids behind simulated
//! requests.
//!
//! The counterpart of `placement/src/shell`: a session is one term of leadership; every answer
//! from it is given under proof that the member still leads, a lease that holds before and after,
//! or a read index. [`own`] changes placement's own group.

mod lead;
mod machine;
mod own;

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_consensus::engine::{EngineError, MemoryEngine};
use quorate_consensus::shard::{self, LeaderChange, Member, NewGroup, Refusal, Reply};
use quorate_consensus::view::{GroupView, Lease};
use quorate_placement::core::command::Command;
use quorate_placement::core::ids::IdRange;
use quorate_placement::core::leader::Leader;
use quorate_placement::core::oracle::Oracle;
use quorate_placement::core::state::State;
use quorate_proto::{LogIndex, NodeId, PeerId, RegionId, Role, Term};

use self::own::Own;
pub(crate) use self::own::joining_member;
use crate::sim::agenda::MS;
use crate::sim::chance::{Concern, Lane};
use crate::sim::cx::Cx;
use crate::sim::messages::{Ask, Body, Token, Told};
use crate::sim::mutant::Mutant;
use crate::sim::process::role::Host;

/// Placement's only group.
pub(crate) const GROUP: RegionId = RegionId(0);
/// First node id of members: stores, which get theirs from placement, stay below.
pub(crate) const MEMBERS: u64 = 100_000;

/// One term of leadership.
pub(crate) struct Session {
    pub(crate) leader: Leader,
    pub(crate) oracle: Oracle,
    pub(crate) ids: IdRange,
    pub(crate) raising: bool,
}

/// See the module.
pub(crate) struct MemberRole {
    id: NodeId,
    engine: MemoryEngine,
    pub(crate) state: State,
    applied: (LogIndex, Term),
    pub(crate) view: Arc<GroupView>,
    pub(crate) session: Option<Session>,
    /// The term it is taking over in.
    pub(crate) taking_over: Option<Term>,
    pub(crate) proposed: u64,
    waiting: BTreeMap<u64, Waiting>,
    jobs: BTreeMap<u64, Job>,
    next: u64,
    /// What its wall clock is ahead of its monotonic one, in milliseconds.
    wall_offset: u64,
    own: Own,
}

/// Who asked what.
pub(crate) struct Asked {
    pub(crate) from: NodeId,
    pub(crate) call: u64,
    pub(crate) ask: Ask,
}

/// Whoever waits for a token.
pub(crate) enum Waiting {
    /// A command of the leader's own; what it becomes is seen when it is applied.
    Own,
    /// The first raise of the ceiling in that term.
    TakeOver(Term),
    /// A later one.
    Raise(Term),
    /// More ids, for whoever asked.
    Ids(Term, Box<Asked>),
    /// A command for whoever asked.
    Asked(Box<Asked>),
    /// Proof of leadership for whoever asked.
    Proof(Box<Asked>),
    /// A step of placement's own group in that term, in words.
    Step(Term, String),
}

enum Job {
    Prove(Box<Asked>),
    Answer(Box<Asked>, Option<Lease>),
    Confirm(Box<Asked>, Option<Lease>, Box<Told>),
}

/// The members that a world begins with.
pub(crate) fn founders(count: u64) -> Vec<Member> {
    let member = |id| Member { peer: PeerId(id), node: NodeId(id), role: Role::Voter };
    (MEMBERS + 1..=MEMBERS + count).map(member).collect()
}

impl MemberRole {
    pub(crate) fn start(
        id: NodeId,
        disk: &MemoryEngine,
        cx: &mut Cx,
    ) -> Result<(Self, Vec<NewGroup>), EngineError> {
        let joins = cx.grown.contains_key(&id);
        let applied = machine::recover(disk, joins)?;
        let view = GroupView::new(GROUP, PeerId(id.0));
        let state = State::load(disk)?;
        let mut members = machine::group_of(&state);
        if members.is_empty() && !joins {
            members = founders(cx.knobs.members);
        }
        let role = Self {
            id,
            engine: disk.clone(),
            state,
            applied,
            view: Arc::clone(&view),
            session: None,
            taking_over: None,
            proposed: 0,
            waiting: BTreeMap::new(),
            jobs: BTreeMap::new(),
            next: 0,
            // Wall clocks of different machines are seconds apart, and jump.
            wall_offset: 1_700_000_000_000 + cx.within(Concern::Services(id), (0, 10_000)),
            own: Own::default(),
        };
        let Some(members) = own::begin(id, members, cx) else { return Ok((role, Vec::new())) };
        let peer = PeerId(id.0);
        let group = NewGroup { group: GROUP, peer, members, applied, view, campaign: false };
        Ok((role, vec![group]))
    }

    /// The member's wall clock, in milliseconds since the Unix epoch.
    pub(crate) fn wall_ms(&self, host: &Host<'_>) -> u64 {
        self.wall_offset + host.now.0 / MS
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Proposes a command.
    pub(crate) fn propose(&mut self, command: &Command, waiting: Waiting, host: &mut Host<'_>) {
        let number = self.number();
        self.waiting.insert(number, waiting);
        host.mail.push(shard::Event::Propose {
            group: GROUP,
            command: command.encode(),
            token: Token(number),
            suspends_lease: false,
        });
    }

    fn go_on(&mut self, job: Job, host: &mut Host<'_>) {
        let number = self.number();
        self.jobs.insert(number, job);
        let services = Concern::Services(host.node);
        let slow = host.cx.chance(services, 0.05);
        let after = host.cx.within(services, (0, if slow { 20 * MS } else { MS / 20 }));
        host.job(after, number);
    }

    pub(crate) fn respond(&self, to: NodeId, call: u64, told: Told, host: &mut Host<'_>) {
        host.cx.send(host.node, to, Lane::Services, Body::Told { call, told });
    }

    fn not_leader(&self) -> Told {
        let leader = self.view.leader().filter(|leader| leader.0 != self.id.0);
        Told::NotLeader(leader.map(|leader| NodeId(leader.0)))
    }

    /// Somebody asks.
    pub(crate) fn asked(&mut self, asked: Asked, host: &mut Host<'_>) {
        self.go_on(Job::Prove(Box::new(asked)), host);
    }

    /// The next step of a request.
    pub(crate) fn job(&mut self, job: u64, host: &mut Host<'_>) {
        let Some(job) = self.jobs.remove(&job) else { return };
        match job {
            Job::Prove(asked) if host.cx.is(Mutant::UnprovenPlacement) => {
                self.go_on(Job::Answer(asked, None), host);
            }
            Job::Prove(asked) => match self.view.lease(host.now) {
                Some(lease) => {
                    if lease.renew {
                        host.mail.push(shard::Event::RenewLease { group: GROUP });
                    }
                    self.go_on(Job::Answer(asked, Some(lease)), host);
                }
                None => self.prove(asked, host),
            },
            Job::Answer(mut asked, lease) => match self.answer(&mut asked, host) {
                Some(told) => self.go_on(Job::Confirm(asked, lease, Box::new(told)), host),
                None => self.begin(asked, host),
            },
            Job::Confirm(asked, lease, told) => {
                let holds = lease.is_none_or(|lease| self.view.still_holds(lease, host.now));
                if holds {
                    self.respond(asked.from, asked.call, *told, host);
                } else {
                    self.prove(asked, host);
                }
            }
        }
    }

    fn prove(&mut self, asked: Box<Asked>, host: &mut Host<'_>) {
        if self.session.is_none() {
            let told = self.not_leader();
            return self.respond(asked.from, asked.call, told, host);
        }
        let number = self.number();
        self.waiting.insert(number, Waiting::Proof(asked));
        host.mail.push(shard::Event::Read { group: GROUP, token: Token(number) });
    }

    /// What needs a command first.
    fn begin(&mut self, asked: Box<Asked>, host: &mut Host<'_>) {
        let term = self.view.term();
        match &asked.ask {
            Ask::Join(joining) => {
                let command = Command::JoinStore(joining.clone());
                self.propose(&command, Waiting::Asked(asked), host);
            }
            Ask::JoinMember(joining) => {
                let command = Command::JoinMember(joining.clone());
                self.propose(&command, Waiting::Asked(asked), host);
            }
            Ask::RemoveStore { store, cancel, dead } => {
                let (store, cancel, dead) = (*store, *cancel, *dead);
                let MemberRole { session, state, .. } = self;
                let session = session.as_mut().filter(|session| session.leader.term() == term);
                let removed = session.map(|session| {
                    session.leader.remove_store(state, store, cancel, dead, host.now)
                });
                match removed {
                    Some(Ok((command, _))) => self.propose(&command, Waiting::Asked(asked), host),
                    Some(Err(_)) | None => {
                        let told = self.not_leader();
                        self.respond(asked.from, asked.call, told, host);
                    }
                }
            }
            Ask::SplitIds { .. } => {
                let count = quorate_placement::core::ids::IDS_PER_ALLOCATION;
                self.propose(&Command::AllocateIds { count }, Waiting::Ids(term, asked), host);
            }
            Ask::Report(_)
            | Ask::Timestamp
            | Ask::Region(_)
            | Ask::RegionById(_)
            | Ask::Split(_)
            | Ask::Merge { .. }
            | Ask::Transfer { .. }
            | Ask::ReplaceMember { .. }
            | Ask::Replica { .. } => {
                let told = self.not_leader();
                self.respond(asked.from, asked.call, told, host);
            }
        }
    }

    /// The end of something that was asked of the group.
    pub(crate) fn reply(&mut self, token: Token, reply: Reply, host: &mut Host<'_>) {
        let Some(waiting) = self.waiting.remove(&token.0) else {
            let node = host.node;
            host.cx.checks.fail(|| format!("{node} answered {token:?} twice"));
            return;
        };
        match (waiting, reply) {
            (Waiting::Proof(asked), Reply::ReadAt(_)) => {
                self.go_on(Job::Answer(asked, None), host);
            }
            (Waiting::Proof(asked), Reply::Refused(_)) => {
                let told = self.not_leader();
                self.respond(asked.from, asked.call, told, host);
            }
            (Waiting::Asked(asked) | Waiting::Ids(_, asked), Reply::Refused(refusal)) => {
                let told = match refusal {
                    Refusal::Undetermined => Told::Undetermined,
                    Refusal::NotLeader { .. }
                    | Refusal::NoGroup
                    | Refusal::NoQuorum(_)
                    | Refusal::Busy { .. }
                    | Refusal::TooLarge { .. }
                    | Refusal::Members(_)
                    | Refusal::ReadTimedOut => self.not_leader(),
                };
                self.respond(asked.from, asked.call, told, host);
            }
            (Waiting::TakeOver(_), Reply::Refused(_)) => self.taking_over = None,
            (Waiting::Raise(_), Reply::Refused(_)) => {
                if let Some(session) = &mut self.session {
                    session.raising = false;
                }
            }
            (Waiting::Own, Reply::Refused(_)) => {}
            (Waiting::Step(term, what), Reply::Refused(refusal)) => {
                self.not_stepped(term, &what, &refusal.to_string(), host.now);
            }
            (
                Waiting::Asked(_)
                | Waiting::Ids(..)
                | Waiting::TakeOver(_)
                | Waiting::Raise(_)
                | Waiting::Step(..)
                | Waiting::Own,
                Reply::ReadAt(_),
            ) => {
                let node = host.node;
                host.cx.checks.fail(|| format!("{node} got a read index for a command"));
            }
        }
    }

    /// The session of that term, if it still is the one.
    pub(crate) fn session_of(&mut self, term: Term) -> Option<&mut Session> {
        self.session.as_mut().filter(|session| session.leader.term() == term)
    }

    pub(crate) fn leader_changed(&mut self, change: LeaderChange) {
        if !change.is_local
            || self.session.as_ref().is_some_and(|session| session.leader.term() != change.term)
        {
            self.session = None;
        }
        self.taking_over = None;
        self.own.deposed();
    }
}
