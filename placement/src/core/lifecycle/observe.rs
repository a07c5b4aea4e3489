//! What the members of a group have become since the last look, taken into their records.

use quorate_proto::{NodeId, Role};

use super::change::Severity;
use super::group::Member;
use super::limits::{Limits, REMEMBER_REMOVED_MS};
use super::proof::can_commit;
use super::step::{Look, ready_since};
use super::{Aim, Record, State};

impl Look<'_> {
    pub(super) fn observe(&mut self) {
        let records = std::mem::take(&mut self.records);
        for mut record in records {
            let member = self.group.on(record.node).cloned();
            let keep = match member {
                // One that was removed, or whose join was given up, and a new one in its place.
                Some(member) if record.peer != member.peer && record.state == State::Removed => {
                    false
                }
                Some(member) => {
                    record.peer = member.peer;
                    if record.seen == 0 {
                        record.seen = self.group.conf_ver;
                    }
                    self.is_there(&mut record, &member);
                    true
                }
                None if record.seen != 0 && record.seen >= self.group.conf_ver => true,
                None => self.is_not_there(&mut record),
            };
            if keep {
                self.records.push(record);
            }
        }
        self.adopt_demoted();
        self.keep_unreplaced();
    }

    /// A voter that was to be replaced, by one that stands by now or replaces another: it stays.
    fn keep_unreplaced(&mut self) {
        let replaced: Vec<NodeId> = self
            .records
            .iter()
            .filter_map(|record| match record.aim {
                Aim::Vote { replacing } => replacing,
                Aim::Learn | Aim::Leave { .. } => None,
            })
            .collect();
        let group = self.group;
        self.records.retain(|record| {
            !matches!(record.aim, Aim::Leave { replaced_by: Some(_) })
                || replaced.contains(&record.node)
                || group.on(record.node).is_none_or(|member| member.role != Role::Voter)
        });
    }

    /// A voter on its way out that nobody answers for: what demotes it was given up while the
    /// order to enter was on its way. It goes, now that another one votes in its place.
    fn adopt_demoted(&mut self) {
        let group = self.group;
        for member in group.members.iter().filter(|member| member.role == Role::DemotingVoter) {
            if self.records.iter().all(|record| record.node != member.node) {
                let leave = Aim::Leave { replaced_by: None };
                let found = Record::found(group, member, leave, State::Active, self.now_ms);
                self.records.push(found);
            }
        }
    }

    /// Returns whether the record is kept.
    fn is_not_there(&mut self, record: &mut Record) -> bool {
        match record.state {
            State::Joining { deadline_ms } if self.now_ms >= deadline_ms => {
                // An entry that was appended may still be applied. The record stays, so that the
                // learner is taken out again if it appears.
                let why = format!(
                    "not in the applied configuration after {} ms: rolled back",
                    self.limits.join_ms
                );
                record.aim = Aim::Leave { replaced_by: None };
                record.enter(State::Removed, why, self.now_ms);
                self.tell(
                    record.node,
                    "member-join-failed",
                    Severity::Warning,
                    "did not join in time, rolled back",
                );
                true
            }
            State::Joining { .. } => true,
            State::Removed => {
                if can_commit(self.group).is_err() {
                    remember(record, self.limits, self.now_ms);
                }
                let lately = self.now_ms.saturating_sub(record.since_ms) < memory_ms(self.limits);
                // What a person has cancelled is remembered until a person lets it go on.
                record.held || (record.peer.0 != 0 && lately)
            }
            State::Syncing
            | State::Ready { .. }
            | State::Pairing { .. }
            | State::Promoting { .. }
            | State::StandbyLearner
            | State::KeepAsLearner
            | State::Active
            | State::Zombie => {
                let why = match (record.state, record.aim) {
                    (State::Zombie, _) => "was a zombie",
                    (_, Aim::Leave { replaced_by: Some(_) }) => "replaced",
                    (_, Aim::Leave { replaced_by: None }) => "on request",
                    (_, Aim::Vote { .. } | Aim::Learn) => "by a change from elsewhere",
                };
                record.aim = Aim::Leave { replaced_by: None };
                record.enter(State::Removed, why, self.now_ms);
                self.tell(record.node, "member-removed", Severity::Info, "removed");
                true
            }
        }
    }

    fn is_there(&mut self, record: &mut Record, member: &Member) {
        record.pace.observe(member, self.group, self.limits, self.now_ms);
        match member.role {
            Role::Voter | Role::DemotingVoter => {
                if record.state != State::Active {
                    let replaced = match record.aim {
                        Aim::Vote { replacing } => replacing,
                        Aim::Learn | Aim::Leave { .. } => None,
                    };
                    record.enter(State::Active, String::new(), self.now_ms);
                    record.operator = 0;
                    record.former = None;
                    self.promoted.push((record.node, replaced));
                    if let Aim::Vote { replacing } = &mut record.aim {
                        *replacing = None;
                    }
                }
            }
            Role::IncomingVoter => {
                match record.aim {
                    Aim::Vote { .. } => {}
                    // It was given up while the order to enter was on its way. A joint
                    // configuration only goes forward, so it will be a voter all the same.
                    Aim::Learn | Aim::Leave { .. } => record.aim = Aim::Vote { replacing: None },
                }
                let ready_ms = ready_since(record.state).unwrap_or(self.now_ms);
                let state = State::Promoting { ready_ms };
                record.enter(state, "the joint configuration is in force", self.now_ms);
            }
            Role::Learner => self.is_learner(record, member),
        }
    }

    fn is_learner(&mut self, record: &mut Record, member: &Member) {
        match record.state {
            State::Joining { .. } => {
                record.enter(State::Syncing, String::new(), self.now_ms);
                self.tell(record.node, "member-joined", Severity::Info, "joined as learner");
                let at = self.progress(record, member);
                self.tell(record.node, "member-syncing", Severity::Info, &at);
            }
            // A compensating change takes it out again.
            State::Removed => {}
            State::Active => {
                let (state, reason) = match record.aim {
                    Aim::Leave { .. } => (State::StandbyLearner, "demoted, to be removed"),
                    Aim::Learn => (State::KeepAsLearner, "demoted on request"),
                    Aim::Vote { .. } => (State::StandbyLearner, "demoted"),
                };
                record.enter(state, reason, self.now_ms);
                self.tell(record.node, "member-demoted", Severity::Info, "demoted to learner");
            }
            State::Zombie if member.silent_ms < self.limits.zombie_ms => {
                record.enter(State::Syncing, "heard of again", self.now_ms);
                self.tell(record.node, "member-back", Severity::Info, "is back before removal");
            }
            State::Zombie => {}
            State::Syncing
            | State::Ready { .. }
            | State::Pairing { .. }
            | State::Promoting { .. }
            | State::StandbyLearner
            | State::KeepAsLearner => {
                let silent_ms = record.silent_ms(member, self.now_ms);
                if silent_ms >= self.limits.zombie_ms && !record.held {
                    let why = format!("no contact for {} s", silent_ms / 1_000);
                    record.enter(State::Zombie, why, self.now_ms);
                    self.tell(record.node, "member-zombie", Severity::Warning, "is a zombie");
                    return;
                }
                self.catches_up(record, member);
            }
        }
    }
}

/// For how long a removed member is remembered.
fn memory_ms(limits: &Limits) -> u64 {
    REMEMBER_REMOVED_MS.max(limits.join_ms.saturating_mul(3))
}

/// One that was never seen may still be added, by an order that was followed late: that lies in a log
/// for as long as the group has no leader, or no majority, and is remembered for longer. Its time
/// begins anew, but seldom: each time is replicated.
pub(super) fn remember(record: &mut Record, limits: &Limits, now_ms: u64) {
    let age_ms = now_ms.saturating_sub(record.since_ms);
    if record.state == State::Removed && record.seen == 0 && age_ms >= memory_ms(limits) / 2 {
        record.since_ms = now_ms;
    }
}
