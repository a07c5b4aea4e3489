//! What is wanted of a group's members, checked first, as records.
//!
//! A wish never changes a configuration: it leaves records, and the machine goes on from them.

use std::collections::BTreeSet;

use quorate_proto::{NodeId, PeerId, Role};
use thiserror::Error;

use super::batch::safe_batch;
use super::group::{Group, Member};
use super::limits::Limits;
use super::proof::{NoProof, can_commit, proof};
use super::{Aim, Record, ReplicaRole, State};

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A new member.
    Add {
        /// Its process.
        node: NodeId,
        /// What for.
        role: ReplicaRole,
    },
    /// One member in place of another.
    Move {
        /// Which goes.
        from: NodeId,
        /// Which comes, or is a learner already.
        to: NodeId,
    },
    /// A member goes; a voter with a partner.
    Remove {
        /// Which one.
        node: NodeId,
        /// Also where fewer voters than wanted stay.
        force: bool,
    },
    /// Learners become voters.
    Promote {
        /// Which ones.
        nodes: Vec<NodeId>,
    },
    /// Voters become learners.
    Demote {
        /// Which ones.
        nodes: Vec<NodeId>,
        /// Also where fewer voters than wanted stay.
        force: bool,
    },
}

/// Why a wish cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CannotBe {
    /// One of them at a time.
    #[error("{0} is being completed from a joint configuration; try again once that is done")]
    Joint(String),
    /// A member already.
    #[error("{0} has a replica of {1} already")]
    There(String, String),
    /// No member.
    #[error("{0} has no replica of {1}")]
    NotThere(String, String),
    /// A member of another kind.
    #[error("{0} is no {1} of {2}")]
    NotA(String, &'static str, String),
    /// Somebody must vote.
    #[error(
        "no voter of {0} would be left: move the last one to another store, or raise `replicas` to 3 \
         first"
    )]
    NoneLeft(String),
    /// Rule 9.
    #[error(
        "{title} has {voters} voters and {target} are wanted: a voter goes only in exchange for \
         another one, or when it is forced"
    )]
    Needed {
        /// The group.
        title: String,
        /// Now.
        voters: usize,
        /// Wanted.
        target: usize,
    },
    /// Rule 5.
    #[error(
        "with {voters} voters and a target of {target}, {candidates} learners cannot be promoted: \
         the number of voters stays odd, so {needs}"
    )]
    Unpaired {
        /// Voters now.
        voters: usize,
        /// Wanted.
        target: usize,
        /// Learners to promote.
        candidates: usize,
        /// What would help.
        needs: &'static str,
    },
    /// Nobody that could go with it.
    #[error("no other voter of {0} can go with it, and an even number never stays")]
    NoPartner(String),
    /// Rule 8.
    #[error(transparent)]
    NoProof(#[from] NoProof),
}

/// The records after a wish of `operator`.
///
/// # Errors
/// The rule that stands in the way; nothing changes.
pub fn wish(
    group: &Group,
    records: &[Record],
    wish: &Wish,
    operator: u64,
    limits: &Limits,
    now_ms: u64,
) -> Result<Vec<Record>, CannotBe> {
    if group.is_joint() {
        return Err(CannotBe::Joint(group.title()));
    }
    can_commit(group)?;
    let mut work = Work { group, records: records.to_vec(), operator, limits, now_ms };
    match wish {
        Wish::Add { node, role } => work.add(*node, *role)?,
        Wish::Move { from, to } => work.exchange(*from, *to)?,
        Wish::Remove { node, force } => work.remove(*node, *force)?,
        Wish::Promote { nodes } => work.promote(nodes)?,
        Wish::Demote { nodes, force } => work.demote(nodes, *force)?,
    }
    Ok(work.records)
}

struct Work<'a> {
    group: &'a Group,
    records: Vec<Record>,
    operator: u64,
    limits: &'a Limits,
    now_ms: u64,
}

impl Work<'_> {
    fn member(&self, node: NodeId) -> Result<&Member, CannotBe> {
        let (name, title) = (self.group.name(node), self.group.title());
        self.group.on(node).ok_or(CannotBe::NotThere(name, title))
    }

    fn record(&mut self, node: NodeId) -> Option<&mut Record> {
        self.records.iter_mut().find(|record| record.node == node)
    }

    /// Puts a record in the place of the one that the node may have.
    fn put(&mut self, mut record: Record) {
        record.operator = self.operator;
        self.records.retain(|other| other.node != record.node);
        self.records.push(record);
    }

    fn add(&mut self, node: NodeId, role: ReplicaRole) -> Result<(), CannotBe> {
        let joins = self
            .records
            .iter()
            .any(|record| record.node == node && matches!(record.state, State::Joining { .. }));
        if self.group.on(node).is_some() || joins {
            return Err(CannotBe::There(self.group.name(node), self.group.title()));
        }
        let aim = match role {
            ReplicaRole::Standard => Aim::Vote { replacing: None },
            ReplicaRole::Analytics => Aim::Learn,
        };
        self.put(Record::joining(node, aim, self.limits, self.now_ms));
        Ok(())
    }

    fn exchange(&mut self, from: NodeId, to: NodeId) -> Result<(), CannotBe> {
        let old = self.member(from)?.clone();
        let votes = old.role == Role::Voter;
        let learns = self.record(from).map(|record| record.aim) == Some(Aim::Learn);
        let aim = match (votes, learns) {
            (true, _) => Aim::Vote { replacing: Some(from) },
            (false, true) => Aim::Learn,
            (false, false) => Aim::Vote { replacing: None },
        };
        let now_ms = self.now_ms;
        match self.group.on(to).map(|member| member.role) {
            None => self.put(Record::joining(to, aim, self.limits, now_ms)),
            // A standby learner is the first choice when a voter must be replaced.
            Some(Role::Learner) if votes => {
                let stands_by = self
                    .record(to)
                    .filter(|record| matches!(record.aim, Aim::Vote { replacing: None }));
                let Some(record) = stands_by else {
                    return Err(CannotBe::There(self.group.name(to), self.group.title()));
                };
                record.aim = aim;
                record.held = false;
                record.enter(State::Syncing, "checked anew to replace a voter", now_ms);
                record.pace.restart(now_ms);
            }
            Some(Role::Learner | Role::Voter | Role::IncomingVoter | Role::DemotingVoter) => {
                return Err(CannotBe::There(self.group.name(to), self.group.title()));
            }
        }
        let leave = Aim::Leave { replaced_by: Some(to) };
        let state = if votes { State::Active } else { State::StandbyLearner };
        self.put(Record::found(self.group, &old, leave, state, now_ms));
        Ok(())
    }

    fn remove(&mut self, node: NodeId, force: bool) -> Result<(), CannotBe> {
        let old = self.member(node)?.clone();
        let leave = Aim::Leave { replaced_by: None };
        if old.role != Role::Voter {
            match self.record(node) {
                Some(record) => record.aim = leave,
                None => {
                    let found =
                        Record::found(self.group, &old, leave, State::StandbyLearner, self.now_ms);
                    self.put(found);
                }
            }
            return Ok(());
        }
        let voters = self.group.voters().count();
        if voters == 1 {
            return Err(CannotBe::NoneLeft(self.group.title()));
        }
        let mut going = vec![old];
        if voters % 2 == 1 {
            going.push(self.partner(&going[0])?);
        }
        self.check_fewer(&going, force)?;
        for member in going {
            self.put(Record::found(self.group, &member, leave, State::Active, self.now_ms));
        }
        Ok(())
    }

    /// Who goes with a voter that goes: a dead one, one that goes anyway, then one whose place is
    /// taken by others too, and never the leader.
    fn partner(&self, with: &Member) -> Result<Member, CannotBe> {
        let group = self.group;
        let twins = |member: &Member| {
            let same = |other: &&Member| {
                other.peer != member.peer
                    && other.peer != with.peer
                    && other.domain.iter().any(|label| member.domain.contains(label))
            };
            group.voters().filter(same).count()
        };
        let leaves = |member: &Member| {
            self.records
                .iter()
                .any(|record| record.node == member.node && matches!(record.aim, Aim::Leave { .. }))
        };
        let others = group.voters().filter(|member| {
            member.peer != with.peer
                && Some(member.peer) != group.leader
                && self.proves(&[with.peer, member.peer])
        });
        let best = others.min_by_key(|member| {
            (member.alive, !leaves(member), usize::MAX - twins(member), member.node)
        });
        best.cloned().ok_or_else(|| CannotBe::NoPartner(group.title()))
    }

    /// Whether these may go at once, once the leader is none of them.
    fn proves(&self, going: &[PeerId]) -> bool {
        let leaderless = Group { leader: None, ..self.group.clone() };
        proof(&leaderless, &[], going).is_ok()
    }

    fn check_fewer(&self, going: &[Member], force: bool) -> Result<(), CannotBe> {
        let (voters, target) = (self.group.voters().count(), self.group.target);
        let peers: Vec<PeerId> = going.iter().map(|member| member.peer).collect();
        let leaderless = Group { leader: None, ..self.group.clone() };
        proof(&leaderless, &[], &peers)?;
        if voters - going.len() < target && !force {
            return Err(CannotBe::Needed { title: self.group.title(), voters, target });
        }
        Ok(())
    }

    fn promote(&mut self, nodes: &[NodeId]) -> Result<(), CannotBe> {
        let (voters, target) = (self.group.voters().count(), self.group.target);
        for node in nodes {
            if self.member(*node)?.role != Role::Learner {
                let (name, title) = (self.group.name(*node), self.group.title());
                return Err(CannotBe::NotA(name, "learner", title));
            }
        }
        let mut candidates: BTreeSet<NodeId> = nodes.iter().copied().collect();
        candidates.extend(self.records.iter().filter(|record| is_waiting(record)).map(|r| r.node));
        if safe_batch(voters, candidates.len(), target) == 0 {
            return Err(CannotBe::Unpaired {
                voters,
                target,
                candidates: candidates.len(),
                needs: match voters >= target {
                    true => "raise `replicas` first",
                    false => "add another learner first",
                },
            });
        }
        for node in nodes {
            let member = self.member(*node)?.clone();
            let (now_ms, aim) = (self.now_ms, Aim::Vote { replacing: None });
            let operator = self.operator;
            match self.record(*node) {
                Some(record) => {
                    record.former = Some(record.aim);
                    record.operator = operator;
                    record.aim = aim;
                    record.held = false;
                    if record.state == State::KeepAsLearner || record.state == State::StandbyLearner
                    {
                        record.enter(State::Syncing, "checked anew on request", now_ms);
                        record.pace.restart(now_ms);
                    }
                }
                None => {
                    let found = Record::found(self.group, &member, aim, State::Syncing, now_ms);
                    // Nobody knows what it was for. It is not removed because of that.
                    self.put(Record { former: Some(Aim::Learn), ..found });
                }
            }
        }
        Ok(())
    }

    fn demote(&mut self, nodes: &[NodeId], force: bool) -> Result<(), CannotBe> {
        let mut going = Vec::new();
        for node in &nodes.iter().copied().collect::<BTreeSet<_>>() {
            let member = self.member(*node)?;
            if member.role != Role::Voter {
                let (name, title) = (self.group.name(*node), self.group.title());
                return Err(CannotBe::NotA(name, "voter", title));
            }
            going.push(member.clone());
        }
        let voters = self.group.voters().count();
        if voters <= going.len() {
            return Err(CannotBe::NoneLeft(self.group.title()));
        }
        if (voters - going.len()).is_multiple_of(2)
            && let Some(first) = going.first().cloned()
        {
            going.push(self.partner(&first)?);
        }
        self.check_fewer(&going, force)?;
        for member in going {
            self.put(Record::found(self.group, &member, Aim::Learn, State::Active, self.now_ms));
        }
        Ok(())
    }
}

/// A learner that shall vote and has not been promoted yet.
fn is_waiting(record: &Record) -> bool {
    matches!(record.aim, Aim::Vote { replacing: None })
        && match record.state {
            State::Ready { .. }
            | State::Pairing { .. }
            | State::Promoting { .. }
            | State::StandbyLearner => true,
            State::Joining { .. }
            | State::Syncing
            | State::KeepAsLearner
            | State::Active
            | State::Zombie
            | State::Removed => false,
        }
}
