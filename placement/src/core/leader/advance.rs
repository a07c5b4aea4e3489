//! One region, one step on its way.
//!
//! Everything here is derived anew from the region as reported and from its records; the only
//! memory is what is replicated. A step is handed to the operator controller once the records and
//! the operator that call for it are replicated.

use quorate_consensus::time::Instant;
use quorate_proto::{NodeId, RegionId, Role, StoreId};

use super::Leader;
use super::outcome::outcome;
use crate::core::command::PLANS_SINCE;
use crate::core::events::{News, Severity};
use crate::core::lifecycle::{
    self, Aim, Change, Group, Next, Record, ReplicaRole, State as Life, Transition,
};
use crate::core::operators::{Draft, End, Goal, Operator, Order, Step};
use crate::core::state::{State, Store};
use crate::core::tree::RegionInfo;

impl Leader {
    /// True once the cluster's form has operators and lifecycles in the log.
    pub(super) fn may_plan(state: &State) -> bool {
        state.cluster().is_some_and(|cluster| cluster.version >= PLANS_SINCE)
    }

    /// True for a region that there is no more. One that is only not known may be: routes are saved
    /// more seldom than plans, so the next leader of placement may not have heard of it yet.
    pub(super) fn is_gone(&self, state: &State, region: RegionId, now: Instant) -> bool {
        let has_told = |store: &Store| {
            self.stores.is_lost(store, now)
                || self.stores.last(store.id).is_some_and(|heard| heard.complete)
        };
        self.tree.get(region).is_none()
            && (self.evicted.contains(&region)
                || state.stores().values().all(|store| has_told(store)))
    }

    /// Looks at a region and takes it one step further.
    pub(super) fn advance(&mut self, state: &State, region: RegionId, now: Instant) {
        let now_ms = self.time_ms(now);
        // Nothing else may be done to a region that is to be taken in.
        let merges = Self::knows_merges(state) && self.advance_merge(state, region, now);
        if merges && self.tree.get(region).is_some() {
            return;
        }
        let Some(info) = self.tree.get(region).cloned() else {
            if self.is_gone(state, region, now) {
                // Merged, or split away under another id; `expire` ends its operator.
                self.members.put(region, Vec::new());
                self.evicted.remove(&region);
            }
            return;
        };
        if !Self::may_plan(state) {
            return;
        }
        let group = self.group(state, &info, now);
        self.members.learn_ids(region, state);
        let mut records = self.members.of(region).to_vec();
        self.adopt_learners(&info, &group, &mut records, now_ms);
        if records.is_empty() && !group.is_joint() && self.operators.of(region).is_none() {
            return;
        }
        let limits = state.settings().limits();
        if records.iter().any(|record| record.seen > group.conf_ver) {
            // Neither a step nor the end of an operator can be read from it.
            if self.operators.of(region).is_some_and(|operator| operator.goal.changes_members()) {
                let waits = "the region's newest configuration is not reported yet".to_owned();
                self.operators.direct(region, None, waits);
            }
            return;
        }
        let stepped = lifecycle::step(&group, &records, &limits, now_ms);
        for transition in stepped.transitions {
            self.tell_transition(transition, now_ms);
        }
        self.members.put(region, stepped.records);
        self.destroy_removed(&info, &group);
        match self.operators.of(region).cloned() {
            Some(operator) if operator.goal.changes_members() => {
                self.pursue(state, &info, &group, &operator, stepped.next, now_ms);
            }
            // A transfer or a split ends soon.
            Some(_) => {}
            None => self.initiate(&info, &group, stepped.next, now_ms),
        }
    }

    pub(super) fn tell_transition(&mut self, transition: Transition, at_ms: u64) {
        let Transition { group: region, node, kind, severity, text } = transition;
        self.history.note(region, "lifecycle", text.clone(), at_ms);
        self.journal.tell(News { at_ms, severity, kind: kind.to_owned(), text, region, node });
    }

    /// Learners without a record: those that a split made of their parent's. They go on as those
    /// of the neighbour do.
    fn adopt_learners(
        &self,
        info: &RegionInfo,
        group: &Group,
        records: &mut Vec<Record>,
        now_ms: u64,
    ) {
        if group.is_joint() || group.leader.is_none() {
            return;
        }
        let strays = group.members.iter().filter(|member| member.role == Role::Learner);
        let strays: Vec<_> = strays
            .filter(|member| records.iter().all(|record| record.node != member.node))
            .cloned()
            .collect();
        for stray in strays {
            let neighbours = [
                self.tree
                    .find(&info.region.range.end)
                    .filter(|_| !info.region.range.end.is_empty()),
                self.tree.before(&info.region.range.start),
            ];
            let known = neighbours
                .into_iter()
                .flatten()
                .flat_map(|other| self.members.of(other.region.id))
                .find(|record| record.node == stray.node);
            let aim = match known.map(|record| record.aim) {
                Some(Aim::Learn) => Aim::Learn,
                Some(Aim::Vote { replacing: Some(old) })
                    if group.on(old).is_some_and(|member| member.role == Role::Voter) =>
                {
                    let leave = Aim::Leave { replaced_by: Some(stray.node) };
                    records.retain(|record| record.node != old);
                    if let Some(voter) = group.on(old) {
                        records.push(Record::found(group, voter, leave, Life::Active, now_ms));
                    }
                    Aim::Vote { replacing: Some(old) }
                }
                // It was about to be removed; so is its copy.
                Some(Aim::Leave { .. }) => Aim::Leave { replaced_by: None },
                Some(Aim::Vote { .. }) | None => Aim::Vote { replacing: None },
            };
            records.push(Record::found(group, &stray, aim, Life::Syncing, now_ms));
        }
    }

    /// Tells stores to destroy what is left of removed replicas, each once in a term. One that was
    /// never seen in a configuration may yet appear in one, and is left alone.
    fn destroy_removed(&mut self, info: &RegionInfo, group: &Group) {
        let region = info.region.id;
        let records = self.members.of(region).to_vec();
        for record in records.iter().filter(|record| record.state == Life::Removed) {
            let key = (region, record.peer);
            if group.peer(record.peer).is_some() {
                self.destroyed.remove(&key);
            } else if record.seen != 0
                && info.region.epoch.conf_ver > record.seen
                && !self.destroyed.contains_key(&key)
            {
                let epoch = info.region.epoch;
                self.destroyed.insert(key, epoch);
                let order = Order {
                    operator: self.operators.of(region).map_or(0, |operator| operator.id),
                    region,
                    epoch,
                    reason: format!("removed: {}", record.reason),
                    step: Step::Destroy { peer: record.peer },
                };
                self.operators.destroy(StoreId::from(record.node), order);
            }
        }
    }

    /// Goes on with an operator.
    fn pursue(
        &mut self,
        state: &State,
        info: &RegionInfo,
        group: &Group,
        operator: &Operator,
        next: Next,
        now_ms: u64,
    ) {
        let region = operator.region;
        if group.leader.is_none() {
            // Whether it has come to its end cannot be read from routes that were saved.
            let waits = "the region has no leader that reports now".to_owned();
            return self.operators.direct(region, None, waits);
        }
        match outcome(&operator.goal, group, self.members.of(region), &next) {
            Some(Ok(())) => return self.finish(operator, now_ms),
            Some(Err(why)) => return self.give_up(region, End::Failed(why), now_ms),
            None => {}
        }
        if self.is_late(group, operator, now_ms) {
            return self.give_up(region, End::TimedOut, now_ms);
        }
        let is_durable = self.members.is_durable(region, state)
            && state.operators().get(&operator.id) == self.operators.of(region);
        if !is_durable {
            let waits = "what is planned is being replicated".to_owned();
            return self.operators.direct(region, None, waits);
        }
        let epoch = info.region.epoch;
        match next {
            Next::Change(change) => {
                self.operators.direct(region, Some((Step::Change(change), epoch)), String::new());
            }
            Next::Transfer { to, why } => {
                let step = Step::TransferLeader { to: StoreId::from(to) };
                self.operators.direct(region, Some((step, epoch)), why);
            }
            Next::Wait(why) => self.operators.direct(region, None, why),
            Next::Nothing => {
                self.operators.direct(region, None, "its effect is not reported yet".to_owned());
            }
        }
    }

    /// True once no learner that catches up has advanced for all the time an operator has; what
    /// others take in is no progress of the operator. A joint configuration is only ever completed.
    fn is_late(&mut self, group: &Group, operator: &Operator, now_ms: u64) -> bool {
        let time = operator.goal.time_ms();
        let records = self.members.of(operator.region).iter();
        let of = records
            .filter(|record| record.operator == operator.id && record.state == Life::Syncing);
        let progressed = of.map(|record| record.pace.progressed_ms()).max().unwrap_or(0);
        // Seldom, since each extension is replicated.
        if progressed + time / 2 > operator.deadline_ms
            && self.operators.extend(operator.region, now_ms)
        {
            return false;
        }
        now_ms >= operator.deadline_ms && !group.is_joint()
    }

    fn finish(&mut self, operator: &Operator, now_ms: u64) {
        let region = operator.region;
        let mut records = self.members.of(region).to_vec();
        for record in &mut records {
            if record.operator == operator.id {
                record.operator = 0;
            }
        }
        self.members.put(region, records);
        self.operators.end(region, End::Done, now_ms);
        self.history.note(region, &operator.by, format!("{}: done", operator.goal), now_ms);
    }

    /// Ends an operator that cannot go on: what it began goes back to what it was.
    pub(super) fn give_up(&mut self, region: RegionId, end: End, now_ms: u64) {
        let Some(operator) = self.operators.of(region).cloned() else { return };
        let what = format!("{}: {end}", operator.goal);
        if let Some(info) = self.tree.get(region)
            && operator.goal.changes_members()
        {
            let keeps = match (&operator.goal, &end) {
                // A stale learner stands by: it may catch up yet.
                (Goal::AddReplica { to, .. }, End::Failed(_)) => Some(NodeId::from(*to)),
                (_, _) => None,
            };
            let group = roles_of(info);
            let mut records = self.members.of(region).to_vec();
            for record in &mut records {
                if Some(record.node) == keeps {
                    record.operator = 0;
                }
            }
            let why = format!("operator {} was given up: {end}", operator.id);
            let records = lifecycle::cancel(&group, &records, operator.id, &why, now_ms);
            self.members.put(region, records);
        }
        self.history.note(region, &operator.by, what.clone(), now_ms);
        if end != End::Cancelled {
            let text = format!("{region} {what}");
            self.tell(Severity::Warning, "operator-failed", text, region, now_ms);
        }
        self.operators.end(region, end, now_ms);
    }

    /// What lifecycles want done while no operator is under way becomes one: a joint
    /// configuration that nobody is busy with, a pair, a zombie, what a roll-back left.
    fn initiate(&mut self, info: &RegionInfo, group: &Group, next: Next, now_ms: u64) {
        let region = info.region.id;
        let store = |node: NodeId| StoreId::from(node);
        let stores_of = |peers: &[quorate_proto::PeerId]| -> Vec<StoreId> {
            peers.iter().filter_map(|peer| group.peer(*peer)).map(|m| store(m.node)).collect()
        };
        let (by, goal) = match next {
            Next::Nothing => return,
            Next::Wait(why) => {
                if group.is_joint() {
                    self.history.note(region, "joint-checker", why, now_ms);
                }
                return;
            }
            Next::Transfer { to, .. } => {
                let Some(leader) = group.led_by() else { return };
                let (from, to) = (store(leader.node), store(to));
                ("learner-checker", Goal::TransferLeader { from, to })
            }
            Next::Change(Change::LeaveJoint) => ("joint-checker", Goal::LeaveJoint),
            Next::Change(Change::EnterJoint { promote, demote }) => {
                let (promote, demote) = (stores_of(&promote), stores_of(&demote));
                match (promote.as_slice(), demote.as_slice()) {
                    ([to], [from]) => {
                        ("learner-checker", Goal::MoveReplica { from: *from, to: *to })
                    }
                    ([], _) => ("learner-checker", Goal::Demote { stores: demote }),
                    (_, _) => ("learner-checker", Goal::Promote { stores: promote }),
                }
            }
            Next::Change(Change::RemoveLearner { peer }) => match stores_of(&[peer]).first() {
                Some(from) => ("learner-checker", Goal::RemoveReplica { from: *from }),
                None => return,
            },
            Next::Change(Change::AddLearner { node, .. }) => {
                let role = self
                    .members
                    .of(region)
                    .iter()
                    .find(|record| record.node == node)
                    .map_or(ReplicaRole::Standard, Record::role);
                ("learner-checker", Goal::AddReplica { to: store(node), role })
            }
        };
        if goal != Goal::LeaveJoint && self.operators.rests(region, now_ms) {
            return;
        }
        let reason = match &goal {
            Goal::LeaveJoint => "a joint configuration is always completed".to_owned(),
            Goal::RemoveReplica { from } => {
                let records = self.members.of(region).iter();
                let why = records
                    .filter(|record| store(record.node) == *from)
                    .map(|record| format!("{}: {}", record.state, record.reason))
                    .next();
                why.unwrap_or_default()
            }
            Goal::Promote { .. } | Goal::Demote { .. } | Goal::MoveReplica { .. } => {
                format!("ready (target {})", group.target)
            }
            Goal::TransferLeader { .. }
            | Goal::Split { .. }
            | Goal::AddReplica { .. }
            | Goal::MergeInto { .. }
            | Goal::RollBackMerge { .. } => "its lifecycle goes on".to_owned(),
        };
        let draft = Draft { region, epoch: info.region.epoch, goal, by, reason };
        let what = format!("{}: {}", draft.goal, draft.reason);
        match self.operators.begin(draft, now_ms) {
            Ok(_) => {
                self.history.note(region, by, what, now_ms);
                self.touched.insert(region);
            }
            Err(refused) => {
                self.history.note(region, by, format!("{what}; not begun: {refused}"), now_ms);
            }
        }
    }
}

/// Who is what in a region, for a roll-back: nothing else matters to it.
fn roles_of(info: &RegionInfo) -> Group {
    let member = |peer: &quorate_proto::Peer| lifecycle::Member {
        node: peer.store.into(),
        peer: peer.id,
        role: peer.role,
        matched: None,
        applied: None,
        snapshot: None,
        queue: 0,
        silent_ms: 0,
        alive: true,
        can_lead: false,
        leaves: false,
        leaders: 0,
        domain: Vec::new(),
    };
    Group {
        id: info.region.id,
        conf_ver: info.region.epoch.conf_ver,
        leader: info.leader.map(|leader| leader.id),
        last_index: info.last_index,
        committed: info.stats.commit,
        target: 0,
        members: info.region.peers.iter().map(member).collect(),
    }
}
