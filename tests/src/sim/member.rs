//! A placement member's services: the real state, leader, oracle and ids behind simulated
//! requests.
//!
//! The counterpart of `placement/src/shell`: a session is one term of leadership; every answer
//! from it is given under proof that the member still leads, a lease that holds before and after,
//! or a read index.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use quorate_consensus::engine::{Cf, Engine, EngineError, MemoryEngine, Reader, WriteBatch};
use quorate_consensus::node::{Outcome, Progress, SnapshotSource};
use quorate_consensus::shard::{
    self, ApplyTask, Install, LeaderChange, Member, NewGroup, Plane, Refusal, Reply,
};
use quorate_consensus::view::{GroupView, Lease};
use quorate_placement::core::command::{self, Answer, Command};
use quorate_placement::core::ids::IdRange;
use quorate_placement::core::leader::Leader;
use quorate_placement::core::oracle::Oracle;
use quorate_placement::core::state::State;
use quorate_proto::limits::INITIAL_INDEX;
use quorate_proto::wire::placement_state as wire;
use quorate_proto::{LogIndex, NodeId, PeerId, RegionId, Role, Term};

use super::agenda::MS;
use super::checks::data_hash;
use super::cx::Cx;
use super::messages::{Ask, Body, Token, Told};
use super::role::Host;

/// Placement's only group.
pub(super) const GROUP: RegionId = RegionId(0);
/// First node id of members.
pub(super) const MEMBERS: u64 = 100;

const APPLIED: &[u8] = b"applied";
const INSTALLING: &[u8] = b"installing";

/// One term of leadership.
pub(super) struct Session {
    pub(super) leader: Leader,
    pub(super) oracle: Oracle,
    pub(super) ids: IdRange,
    pub(super) raising: bool,
}

/// See the module.
pub(super) struct MemberRole {
    id: NodeId,
    engine: MemoryEngine,
    pub(super) state: State,
    applied: (LogIndex, Term),
    pub(super) view: Arc<GroupView>,
    pub(super) session: Option<Session>,
    /// The term it is taking over in.
    pub(super) taking_over: Option<Term>,
    pub(super) proposed: u64,
    waiting: BTreeMap<u64, Waiting>,
    jobs: BTreeMap<u64, Job>,
    next: u64,
    /// What its wall clock is ahead of its monotonic one, in milliseconds.
    wall_offset: u64,
}

/// Who asked what.
pub(super) struct Asked {
    pub(super) from: NodeId,
    pub(super) call: u64,
    pub(super) ask: Ask,
}

/// Whoever waits for a token.
pub(super) enum Waiting {
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
}

enum Job {
    Prove(Box<Asked>),
    Answer(Box<Asked>, Option<Lease>),
    Confirm(Box<Asked>, Option<Lease>, Box<Told>),
}

/// The members of a world.
pub(super) fn group(count: u64) -> Vec<Member> {
    let member = |id| Member { peer: PeerId(id), node: NodeId(id), role: Role::Voter };
    (MEMBERS + 1..=MEMBERS + count).map(member).collect()
}

impl MemberRole {
    pub(super) fn start(
        id: NodeId,
        disk: &MemoryEngine,
        cx: &mut Cx,
    ) -> Result<(Self, Vec<NewGroup>), EngineError> {
        if let Some(mark) = disk.get(Cf::Meta, INSTALLING)? {
            let mark = decode::<wire::Installing>(&mark)?;
            finish_install(disk, &mark)?;
        }
        let applied = match disk.get(Cf::Meta, APPLIED)? {
            Some(applied) => decode::<wire::Applied>(&applied)?,
            None => {
                wire::Applied { index: INITIAL_INDEX, term: INITIAL_INDEX, members: Vec::new() }
            }
        };
        let applied = (LogIndex(applied.index), Term(applied.term));
        let view = GroupView::new(GROUP, PeerId(id.0));
        let role = Self {
            id,
            engine: disk.clone(),
            state: State::load(disk)?,
            applied,
            view: Arc::clone(&view),
            session: None,
            taking_over: None,
            proposed: 0,
            waiting: BTreeMap::new(),
            jobs: BTreeMap::new(),
            next: 0,
            // Wall clocks of different machines are seconds apart, and jump.
            wall_offset: 1_700_000_000_000 + cx.within((0, 10_000)),
        };
        let members = group(cx.knobs.members);
        let peer = PeerId(id.0);
        let group = NewGroup { group: GROUP, peer, members, applied, view, campaign: false };
        Ok((role, vec![group]))
    }

    /// The member's wall clock, in milliseconds since the Unix epoch.
    pub(super) fn wall_ms(&self, host: &Host<'_>) -> u64 {
        self.wall_offset + host.now.0 / MS
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Proposes a command.
    pub(super) fn propose(&mut self, command: &Command, waiting: Waiting, host: &mut Host<'_>) {
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
        let slow = host.cx.chance(0.05);
        let after = host.cx.within((0, if slow { 20 * MS } else { MS / 20 }));
        host.job(after, number);
    }

    pub(super) fn respond(&self, to: NodeId, call: u64, told: Told, host: &mut Host<'_>) {
        host.cx.send(host.node, to, Plane::Control, Body::Told { call, told });
    }

    fn not_leader(&self) -> Told {
        let leader = self.view.leader().filter(|leader| leader.0 != self.id.0);
        Told::NotLeader(leader.map(|leader| NodeId(leader.0)))
    }

    /// Somebody asks.
    pub(super) fn asked(&mut self, asked: Asked, host: &mut Host<'_>) {
        self.go_on(Job::Prove(Box::new(asked)), host);
    }

    /// The next step of a request.
    pub(super) fn job(&mut self, job: u64, host: &mut Host<'_>) {
        let Some(job) = self.jobs.remove(&job) else { return };
        match job {
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
            Ask::SplitIds { .. } => {
                let count = quorate_placement::core::ids::IDS_PER_ALLOCATION;
                self.propose(&Command::AllocateIds { count }, Waiting::Ids(term, asked), host);
            }
            Ask::Report(_)
            | Ask::Timestamp
            | Ask::Region(_)
            | Ask::RegionById(_)
            | Ask::Split(_)
            | Ask::Transfer { .. } => {
                let told = self.not_leader();
                self.respond(asked.from, asked.call, told, host);
            }
        }
    }

    /// The end of something that was asked of the group.
    pub(super) fn reply(&mut self, token: Token, reply: Reply, host: &mut Host<'_>) {
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
            (
                Waiting::Asked(_)
                | Waiting::Ids(..)
                | Waiting::TakeOver(_)
                | Waiting::Raise(_)
                | Waiting::Own,
                Reply::ReadAt(_),
            ) => {
                let node = host.node;
                host.cx.checks.fail(|| format!("{node} got a read index for a command"));
            }
        }
    }

    pub(super) fn apply(
        &mut self,
        tasks: Vec<ApplyTask<Token>>,
        host: &mut Host<'_>,
    ) -> Result<Outcome, EngineError> {
        let mut batch = WriteBatch::new();
        let mut answers = Vec::new();
        for entry in tasks.into_iter().flat_map(|task| task.entries) {
            let node = host.node;
            if entry.index != self.applied.0.next() {
                host.cx.checks.fail(|| format!("{node} was handed {} out of turn", entry.index));
            }
            let mut data = entry.data;
            let mut tokens = entry.tokens.into_iter();
            while !data.is_empty() {
                let command = Command::decode(&mut data).map_err(|error| corrupt(&error))?;
                let (answer, records) = self.state.apply(command);
                batch.append(records);
                answers.extend(tokens.next().map(|token| (token, answer)));
            }
            self.applied = (entry.index, entry.term);
        }
        let (index, term) = self.applied;
        let applied = wire::Applied { index: index.0, term: term.0, members: Vec::new() };
        batch.put(Cf::Meta, APPLIED, applied.encode_to_vec());
        self.engine.write(batch)?;
        host.cx.checks.state(host.node, GROUP, index.0, data_hash(host.disk)?);
        for (token, answer) in answers {
            self.applied_for(token, answer, host);
        }
        let progress = vec![Progress { group: GROUP, index, term }];
        Ok(Outcome { progress, ..Outcome::default() })
    }

    fn applied_for(&mut self, token: Token, answer: Answer, host: &mut Host<'_>) {
        let Some(waiting) = self.waiting.remove(&token.0) else { return };
        match (waiting, answer) {
            (Waiting::TakeOver(term), Answer::Time { previous_ms, ceiling_ms }) => {
                self.begin_session(term, previous_ms, ceiling_ms, host);
            }
            (Waiting::Raise(term), Answer::Time { ceiling_ms, .. }) => {
                if let Some(session) = self.session_of(term) {
                    session.oracle.raised(ceiling_ms);
                    session.raising = false;
                }
            }
            (Waiting::Ids(term, asked), Answer::Ids { first, count }) => {
                if let Some(session) = self.session_of(term) {
                    session.ids.refill(IdRange::new(first, count));
                }
                self.go_on(Job::Prove(asked), host);
            }
            (Waiting::Asked(asked), Answer::Joined(_)) => {
                // Now it has joined: the answer is the one to a store that asks again.
                self.go_on(Job::Prove(asked), host);
            }
            (Waiting::Asked(asked), Answer::JoinRefused(refusal)) => {
                self.respond(asked.from, asked.call, Told::Refused(refusal.to_string()), host);
            }
            (
                Waiting::Own
                | Waiting::TakeOver(_)
                | Waiting::Raise(_)
                | Waiting::Ids(..)
                | Waiting::Asked(_)
                | Waiting::Proof(_),
                Answer::Done
                | Answer::Initialized(_)
                | Answer::Joined(_)
                | Answer::JoinRefused(_)
                | Answer::Bootstrapped(_)
                | Answer::Ids { .. }
                | Answer::Time { .. }
                | Answer::SafePoint(_),
            ) => {}
        }
    }

    /// The session of that term, if it still is the one.
    pub(super) fn session_of(&mut self, term: Term) -> Option<&mut Session> {
        self.session.as_mut().filter(|session| session.leader.term() == term)
    }

    pub(super) fn leader_changed(&mut self, change: LeaderChange) {
        if !change.is_local
            || self.session.as_ref().is_some_and(|session| session.leader.term() != change.term)
        {
            self.session = None;
        }
        self.taking_over = None;
    }

    pub(super) fn snapshot(&self) -> Option<SnapshotSource> {
        let members = group_of(&self.state).unwrap_or_default();
        Some(SnapshotSource {
            index: self.applied.0,
            term: self.applied.1,
            members,
            start: Bytes::new(),
            end: Bytes::new(),
            state: Bytes::new(),
            reader: self.engine.snapshot(),
        })
    }

    pub(super) fn install(
        &mut self,
        install: Install,
        host: &mut Host<'_>,
    ) -> Result<Vec<Member>, EngineError> {
        let (index, term) = (install.index, install.term);
        let applied = wire::Applied { index: index.0, term: term.0, members: Vec::new() };
        let mark = wire::Installing { file: install.id, applied: Some(applied) };
        let mut batch = install.batch;
        batch.put(Cf::Meta, INSTALLING, mark.encode_to_vec());
        self.engine.write_synced(batch)?;
        finish_install(&self.engine, &mark)?;
        self.state.replace(State::load(&self.engine)?);
        self.applied = (index, term);
        host.cx.checks.state(host.node, GROUP, index.0, data_hash(host.disk)?);
        Ok(group(host.cx.knobs.members))
    }
}

fn group_of(state: &State) -> Option<Vec<Member>> {
    let members: Vec<Member> = state.members().values().map(command::Member::voter).collect();
    (!members.is_empty()).then_some(members)
}

fn finish_install(engine: &MemoryEngine, mark: &wire::Installing) -> Result<(), EngineError> {
    engine.ingest(&mark.file, b"", b"")?;
    let mut batch = WriteBatch::new();
    batch.put(Cf::Meta, APPLIED, mark.applied.clone().unwrap_or_default().encode_to_vec());
    batch.delete(Cf::Meta, INSTALLING);
    engine.write_synced(batch)?;
    engine.discard_staged(&mark.file)
}

fn decode<M: Message + Default>(bytes: &Bytes) -> Result<M, EngineError> {
    M::decode(bytes.clone()).map_err(|error| corrupt(&error))
}

fn corrupt(reason: &dyn std::fmt::Display) -> EngineError {
    EngineError::Corrupt { what: "placement".to_owned(), reason: reason.to_string() }
}
