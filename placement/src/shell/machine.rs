//! The replicated state machine on the apply thread, and who waits for its answers.

use std::sync::Arc;

use parking_lot::RwLock;
use prost::Message;
use quorate_consensus::engine::{Engine, EngineError, WriteBatch};
use quorate_consensus::node::{Installed, Machine, Outcome, Progress, SnapshotSource};
use quorate_consensus::shard::{self, ApplyTask, Install, Reconfigured, Refusal};
use quorate_proto::wire::placement_state as wire;
use quorate_proto::{PeerId, RegionId};
use tokio::sync::oneshot;

use super::disk::{self, Applied};
use super::roster::Roster;
use crate::core::command::{Answer, CLUSTER_VERSION, Command, Member};
use crate::core::state::State;

/// The one group that placement is.
pub(crate) const GROUP: RegionId = RegionId(0);

/// How a request to the group ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The command was applied.
    Applied(Answer),
    /// A read may be served from the state as it is now.
    ReadAt,
    /// It was not done, or nobody can say.
    Refused(Refusal),
}

/// Who waits for the end of a request. Dropping it means: nobody can say.
#[derive(Debug)]
pub(crate) struct Token(oneshot::Sender<Ended>);

impl Token {
    /// A token and where its end arrives.
    pub(crate) fn new() -> (Self, oneshot::Receiver<Ended>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Tells whoever still waits.
    pub(crate) fn end(self, ended: Ended) {
        // Whoever gave up waiting needs no answer.
        let _ = self.0.send(ended);
    }
}

/// The state machine. See the module.
pub(crate) struct StateMachine {
    engine: Arc<dyn Engine>,
    state: Arc<RwLock<State>>,
    roster: Arc<Roster>,
    applied: Applied,
}

impl StateMachine {
    /// From what the folder held. `state` and `roster` are shared with those who read them.
    pub(crate) fn new(
        engine: Arc<dyn Engine>,
        state: Arc<RwLock<State>>,
        roster: Arc<Roster>,
        applied: Applied,
    ) -> Self {
        Self { engine, state, roster, applied }
    }

    /// Takes the replicated list over. False where it is the one that is known.
    fn take_members(&mut self) -> bool {
        let members: Vec<Member> = self.state.read().members().values().cloned().collect();
        let differs = members != self.applied.members;
        self.applied.members = members;
        differs
    }

    fn members(&self) -> Vec<shard::Member> {
        self.applied.members.iter().map(Member::raft).collect()
    }
}

impl Machine for StateMachine {
    type Token = Token;

    fn apply(&mut self, tasks: Vec<ApplyTask<Token>>) -> Result<Outcome, EngineError> {
        let mut batch = WriteBatch::new();
        let mut answers = Vec::new();
        let mut reconfigured = Vec::new();
        let mut moved = false;
        for task in tasks {
            assert_eq!(task.group, GROUP, "placement hosts one group only");
            for entry in task.entries {
                assert_eq!(entry.index, self.applied.index.next(), "entries come without a gap");
                let mut data = entry.data;
                let mut tokens = entry.tokens.into_iter();
                while !data.is_empty() {
                    let command = Command::decode(&mut data).map_err(|error| {
                        let during = format!("applying entry {} of placement's log", entry.index);
                        EngineError::Fatal { during, reason: error.to_string() }
                    })?;
                    let (answer, records) = self.state.write().apply(command);
                    batch.append(records);
                    if answer == Answer::MembersChanged {
                        self.take_members();
                        reconfigured.push(Reconfigured { group: GROUP, members: self.members() });
                    }
                    if matches!(answer, Answer::MemberJoined(_)) {
                        // One that is a member already may have moved.
                        moved |= self.take_members();
                    }
                    if let Some(token) = tokens.next() {
                        answers.push((token, answer));
                    }
                }
                self.applied.index = entry.index;
                self.applied.term = entry.term;
            }
        }
        disk::put_applied(&self.applied, &mut batch);
        self.engine.write(batch)?;
        if moved || !reconfigured.is_empty() {
            self.roster.set(self.applied.members.clone());
        }
        for (token, answer) in answers {
            token.end(Ended::Applied(answer));
        }
        let Applied { index, term, .. } = self.applied;
        let progress = vec![Progress { group: GROUP, index, term }];
        Ok(Outcome { progress, reconfigured, ..Outcome::default() })
    }

    fn snapshot(&mut self, group: RegionId) -> Result<Option<SnapshotSource>, EngineError> {
        if group != GROUP {
            return Ok(None);
        }
        let members = self.applied.members.iter().map(Into::into).collect();
        let version = self.state.read().cluster().map_or(1, |cluster| cluster.version);
        let state = wire::SnapshotState { version, members };
        Ok(Some(SnapshotSource {
            index: self.applied.index,
            term: self.applied.term,
            members: self.members(),
            start: bytes::Bytes::new(),
            end: bytes::Bytes::new(),
            state: state.encode_to_vec().into(),
            reader: self.engine.snapshot(),
        }))
    }

    fn install(&mut self, install: Install) -> Result<Installed, EngineError> {
        let bad = |reason: String| EngineError::Fatal {
            during: "installing a snapshot of placement's state".to_owned(),
            reason,
        };
        let state =
            wire::SnapshotState::decode(install.state).map_err(|error| bad(error.to_string()))?;
        if state.version > CLUSTER_VERSION {
            return Err(bad(format!(
                "it has version {}, this program knows up to {CLUSTER_VERSION}: start a newer one",
                state.version
            )));
        }
        let members = state.members.into_iter().map(Member::try_from).collect::<Result<_, _>>();
        let members: Vec<Member> = members.map_err(|error| bad(error.to_string()))?;
        let applied = Applied { index: install.index, term: install.term, members };
        disk::install(self.engine.as_ref(), &install.id, &applied, install.batch)?;
        let loaded = State::load(self.engine.as_ref())?;
        self.state.write().replace(loaded);
        self.roster.set(applied.members.clone());
        self.applied = applied;
        Ok(Installed { members: self.members(), merged: Vec::new() })
    }

    fn destroy(&mut self, _group: RegionId, _peer: PeerId) -> Result<(), EngineError> {
        // The folder stays as it is, and says so at the next start; the process ends.
        self.roster.leave();
        Ok(())
    }
}
