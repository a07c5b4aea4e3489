//! A state machine of numbers: each command stores one under its group. A change of members is a
//! command that begins with [`MEMBERS`].

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use quorate_consensus::engine::{Cf, Direction, Engine, EngineError, Reader, WriteBatch};
use quorate_consensus::node::{Installed, Machine, Outcome, Progress, Replies, SnapshotSource};
use quorate_consensus::shard::{
    ApplyTask, Install, LeaderChange, Member, Outgoing, Reconfigured, Reply, Stranger, forget_group,
};
use quorate_proto::{LogIndex, NodeId, PeerId, RegionId, Role, Term};
use tokio::sync::oneshot;

#[derive(Debug)]
pub(crate) enum Answer {
    Applied,
    Reply(Reply),
}

pub(crate) type Token = oneshot::Sender<Answer>;

pub(crate) struct Numbers {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) members: HashMap<RegionId, Vec<Member>>,
    /// Bytes that each number takes beside itself.
    pub(crate) padding: usize,
}

/// What no number begins with.
const MEMBERS: [u8; 8] = [0xff; 8];

/// The command that changes the members.
pub(crate) fn change_members(members: &[Member]) -> Bytes {
    let mut command = MEMBERS.to_vec();
    for member in members {
        let role = match member.role {
            Role::Voter => 0u64,
            Role::Learner => 1,
            Role::IncomingVoter => 2,
            Role::DemotingVoter => 3,
        };
        for number in [member.peer.0, member.node.0, role] {
            command.extend_from_slice(&number.to_be_bytes());
        }
    }
    command.into()
}

fn members_in(command: &[u8]) -> Option<Vec<Member>> {
    let rest = command.strip_prefix(&MEMBERS)?;
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
    let member = |bytes: &[u8]| Member {
        peer: PeerId(number(&bytes[..8])),
        node: NodeId(number(&bytes[8..16])),
        role: [Role::Voter, Role::Learner, Role::IncomingVoter, Role::DemotingVoter]
            [number(&bytes[16..]) as usize],
    };
    Some(rest.chunks_exact(24).map(member).collect())
}

/// What is applied of a group; 5 and 5 for a fresh one.
pub(crate) fn applied(
    reader: &dyn Reader,
    group: RegionId,
) -> Result<(LogIndex, Term), EngineError> {
    let stored = reader.get(Cf::Meta, &group.0.to_be_bytes())?;
    let number = |at: usize| {
        stored.as_ref().map_or(5, |s| u64::from_be_bytes(s[at..at + 8].try_into().unwrap()))
    };
    Ok((LogIndex(number(0)), Term(number(8))))
}

fn put_applied(group: RegionId, index: LogIndex, term: Term, batch: &mut WriteBatch) {
    let mut value = index.0.to_be_bytes().to_vec();
    value.extend_from_slice(&term.0.to_be_bytes());
    batch.put(Cf::Meta, group.0.to_be_bytes().to_vec(), value);
}

pub(crate) fn count(reader: &dyn Reader, group: RegionId) -> usize {
    let mut count = 0;
    let (start, end) = (group.0.to_be_bytes(), (group.0 + 1).to_be_bytes());
    reader
        .scan(Cf::Data, &start, &end, Direction::Forward, &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    count
}

/// What a group holds, as one number.
pub(crate) fn checksum(reader: &dyn Reader, group: RegionId) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    let (start, end) = (group.0.to_be_bytes(), (group.0 + 1).to_be_bytes());
    reader
        .scan(Cf::Data, &start, &end, Direction::Forward, &mut |key, value| {
            hasher.update(key);
            hasher.update(value);
            ControlFlow::Continue(())
        })
        .unwrap();
    hasher.finalize()
}

impl Machine for Numbers {
    type Token = Token;

    fn apply(&mut self, tasks: Vec<ApplyTask<Token>>) -> Result<Outcome, EngineError> {
        let mut outcome = Outcome::default();
        let mut batch = WriteBatch::new();
        let mut answers = Vec::new();
        for task in tasks {
            let (mut index, mut term) = applied(&*self.engine, task.group)?;
            for entry in task.entries {
                assert_eq!(entry.index, index.next(), "entries come without a gap");
                (index, term) = (entry.index, entry.term);
                answers.extend(entry.tokens);
                if let Some(members) = members_in(&entry.data) {
                    self.members.insert(task.group, members.clone());
                    outcome.reconfigured.push(Reconfigured { group: task.group, members });
                    continue;
                }
                for command in entry.data.chunks_exact(8) {
                    let mut key = task.group.0.to_be_bytes().to_vec();
                    key.extend_from_slice(command);
                    let mut value = index.0.to_be_bytes().to_vec();
                    value.resize(8 + self.padding, 7);
                    batch.put(Cf::Data, key, value);
                }
            }
            put_applied(task.group, index, term, &mut batch);
            outcome.progress.push(Progress { group: task.group, index, term });
        }
        self.engine.write(batch)?;
        for token in answers {
            let _ = token.send(Answer::Applied);
        }
        Ok(outcome)
    }

    fn snapshot(&mut self, group: RegionId) -> Result<Option<SnapshotSource>, EngineError> {
        let (index, term) = applied(&*self.engine, group)?;
        Ok(Some(SnapshotSource {
            index,
            term,
            members: self.members[&group].clone(),
            start: Bytes::copy_from_slice(&group.0.to_be_bytes()),
            end: Bytes::copy_from_slice(&(group.0 + 1).to_be_bytes()),
            state: change_members(&self.members[&group]),
            reader: self.engine.snapshot(),
        }))
    }

    fn install(&mut self, install: Install) -> Result<Installed, EngineError> {
        let group = install.group;
        self.members.insert(group, members_in(&install.state).unwrap());
        self.engine.write_synced(install.batch)?;
        let (start, end) = (group.0.to_be_bytes(), (group.0 + 1).to_be_bytes());
        self.engine.ingest(&install.id, &start, &end)?;
        let mut batch = WriteBatch::new();
        put_applied(group, install.index, install.term, &mut batch);
        self.engine.write_synced(batch)?;
        self.engine.discard_staged(&install.id)?;
        Ok(Installed { members: self.members[&group].clone(), merged: Vec::new() })
    }

    fn destroy(&mut self, group: RegionId, _peer: PeerId) -> Result<(), EngineError> {
        let mut batch = WriteBatch::new();
        batch.delete(Cf::Meta, group.0.to_be_bytes().to_vec());
        let (start, end) = (group.0.to_be_bytes(), (group.0 + 1).to_be_bytes());
        batch.delete_range(Cf::Data, start.to_vec(), end.to_vec());
        forget_group(group, &mut batch);
        self.engine.write_synced(batch)
    }
}

/// Hears of peers that are missing.
pub(crate) struct Answers(pub(crate) mpsc::SyncSender<Stranger>);

impl Replies<Token> for Answers {
    fn reply(&self, token: Token, reply: Reply) {
        let _ = token.send(Answer::Reply(reply));
    }
    fn leader_changed(&self, _: LeaderChange) {}
    fn stranger(&self, stranger: Stranger) -> Option<Outgoing> {
        let _ = self.0.try_send(stranger);
        None
    }
}
