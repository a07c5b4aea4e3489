//! What a placement member applies, and its snapshots: the real state behind a simulated disk.
//!
//! The counterpart of `placement/src/shell/machine.rs`.

use bytes::Bytes;
use prost::Message;
use quorate_consensus::engine::{Cf, Engine, EngineError, MemoryEngine, Reader, WriteBatch};
use quorate_consensus::node::{Outcome, Progress, SnapshotSource};
use quorate_consensus::shard::{ApplyTask, Install, Member, Reconfigured};
use quorate_placement::core::command::{self, Answer, Command};
use quorate_placement::core::ids::IdRange;
use quorate_placement::core::state::State;
use quorate_proto::limits::INITIAL_INDEX;
use quorate_proto::wire::placement_state as wire;
use quorate_proto::{KeyRange, LogIndex, Term};

use super::{GROUP, Job, MemberRole, Waiting, own};
use crate::sim::checks::data_hash;
use crate::sim::messages::{Token, Told};
use crate::sim::process::role::Host;

const APPLIED: &[u8] = b"applied";
const INSTALLING: &[u8] = b"installing";

/// What a disk has applied; ends an installation that was interrupted. One that `joins` knows nothing
/// before its first snapshot.
pub(super) fn recover(disk: &MemoryEngine, joins: bool) -> Result<(LogIndex, Term), EngineError> {
    if let Some(mark) = disk.get(Cf::Meta, INSTALLING)? {
        let mark = decode::<wire::Installing>(&mark)?;
        finish_install(disk, &mark)?;
    }
    Ok(match disk.get(Cf::Meta, APPLIED)? {
        Some(applied) => {
            let applied = decode::<wire::Applied>(&applied)?;
            (LogIndex(applied.index), Term(applied.term))
        }
        None if joins => (LogIndex(0), Term(0)),
        None => (LogIndex(INITIAL_INDEX), Term(INITIAL_INDEX)),
    })
}

impl MemberRole {
    pub(crate) fn apply(
        &mut self,
        tasks: Vec<ApplyTask<Token>>,
        host: &mut Host<'_>,
    ) -> Result<Outcome, EngineError> {
        let mut batch = WriteBatch::new();
        let mut answers = Vec::new();
        let mut reconfigured = Vec::new();
        for entry in tasks.into_iter().flat_map(|task| task.entries) {
            let node = host.node;
            if entry.index != self.applied.0.next() {
                host.cx.checks.fail(|| format!("{node} was handed {} out of turn", entry.index));
            }
            let is_new = host.cx.checks.is_new_to_placement(entry.index.0);
            let mut data = entry.data;
            let mut tokens = entry.tokens.into_iter();
            while !data.is_empty() {
                let command = Command::decode(&mut data).map_err(|error| corrupt(&error))?;
                let life = own::life_in(&command);
                if let Command::SavePlan(plan) = &command
                    && is_new
                {
                    for news in &plan.events.news {
                        host.cx.note(format_args!("placement tells: {}", news.text));
                    }
                }
                let (answer, records) = self.state.apply(command);
                batch.append(records);
                if let Some((store, life)) = life.filter(|_| is_new && answer == Answer::Done) {
                    host.cx.note(format_args!("{store} is {life:?}"));
                    host.cx.checks.life(store, life);
                }
                if answer == Answer::MembersChanged {
                    let members = group_of(&self.state);
                    if is_new {
                        host.cx.checks.placement_changed(&members);
                    }
                    host.cx.checks.told_members(host.node, &members);
                    reconfigured.push(Reconfigured { group: GROUP, members });
                }
                answers.extend(tokens.next().map(|token| (token, answer)));
            }
            self.applied = (entry.index, entry.term);
        }
        let (index, term) = self.applied;
        let applied = wire::Applied { index: index.0, term: term.0, members: Vec::new() };
        batch.put(Cf::Meta, APPLIED, applied.encode_to_vec());
        self.engine.write(batch)?;
        self.check_state(host)?;
        for (token, answer) in answers {
            self.applied_for(token, answer, host);
        }
        let progress = vec![Progress { group: GROUP, index, term }];
        Ok(Outcome { progress, reconfigured, ..Outcome::default() })
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
            (Waiting::Asked(asked), Answer::Joined(_) | Answer::MemberJoined(_)) => {
                // Now it has joined: the answer is the one to a store that asks again.
                self.go_on(Job::Prove(asked), host);
            }
            (Waiting::Asked(asked), Answer::JoinRefused(refusal)) => {
                self.respond(asked.from, asked.call, Told::Refused(refusal.to_string()), host);
            }
            (Waiting::Asked(asked), Answer::MemberRefused(refusal)) => {
                self.respond(asked.from, asked.call, Told::Refused(refusal.to_string()), host);
            }
            (Waiting::Asked(asked), Answer::Refused(words)) => {
                self.respond(asked.from, asked.call, Told::Refused(words), host);
            }
            (Waiting::Asked(asked), Answer::Done) => {
                self.respond(asked.from, asked.call, Told::Done, host);
            }
            (Waiting::Step(term, what), Answer::Refused(why)) => {
                self.not_stepped(term, &what, &why, host.now);
            }
            (Waiting::Step(..), Answer::MembersChanged) => self.own.stepped(),
            (
                Waiting::Own
                | Waiting::TakeOver(_)
                | Waiting::Raise(_)
                | Waiting::Ids(..)
                | Waiting::Asked(_)
                | Waiting::Step(..)
                | Waiting::Proof(_),
                Answer::Done
                | Answer::Initialized(_)
                | Answer::Joined(_)
                | Answer::JoinRefused(_)
                | Answer::Bootstrapped(_)
                | Answer::Ids { .. }
                | Answer::Time { .. }
                | Answer::SafePoint(_)
                | Answer::Refused(_)
                | Answer::MemberJoined(_)
                | Answer::MemberRefused(_)
                | Answer::MembersChanged
                | Answer::BadSetting(_),
            ) => {}
        }
    }

    pub(crate) fn snapshot(&self) -> Option<SnapshotSource> {
        let members = group_of(&self.state);
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

    pub(crate) fn install(
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
        self.check_state(host)?;
        let members = group_of(&self.state);
        host.cx.checks.told_members(host.node, &members);
        Ok(members)
    }

    /// What this member has applied is compared with what the others had there.
    fn check_state(&self, host: &mut Host<'_>) -> Result<(), EngineError> {
        let hash = data_hash(host.disk, &KeyRange::default())?;
        host.cx.checks.state(host.node, GROUP, self.applied.0.0, hash);
        Ok(())
    }
}

/// The members of placement as that state has them.
pub(super) fn group_of(state: &State) -> Vec<Member> {
    state.members().values().map(command::Member::raft).collect()
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
