//! One look at a group: what its members have become since the last one.

use quorate_proto::{NodeId, PeerId, RegionId, Role};

use super::change::{Change, Next, Severity, Stepped, Transition};
use super::group::{Group, Member};
use super::limits::Limits;
use super::observe::remember;
use super::{Aim, Record, State, next};

/// One look at a group. See the module.
pub fn step(group: &Group, records: &[Record], limits: &Limits, now_ms: u64) -> Stepped {
    if records.iter().any(|record| record.seen > group.conf_ver) {
        let next = Next::Wait("its newest configuration is not reported yet".to_owned());
        return Stepped { records: records.to_vec(), next, transitions: Vec::new() };
    }
    if group.leader.is_none() {
        // Nobody who leads has reported it: the members may be those of some time ago, and neither
        // who came nor who went can be read from them.
        let next = match records.is_empty() && !group.is_joint() {
            true => Next::Nothing,
            false => Next::Wait("the group has no leader that reports now".to_owned()),
        };
        let mut records = records.to_vec();
        records.iter_mut().for_each(|record| remember(record, limits, now_ms));
        return Stepped { records, next, transitions: Vec::new() };
    }
    let mut look = Look {
        group,
        limits,
        now_ms,
        records: records.to_vec(),
        transitions: Vec::new(),
        promoted: Vec::new(),
        newly_ready: Vec::new(),
    };
    look.observe();
    look.tell_promoted();
    let next = next::next(&mut look);
    look.settle(&next);
    Stepped { records: look.records, next, transitions: look.transitions }
}

/// The work of one look.
pub(super) struct Look<'a> {
    pub(super) group: &'a Group,
    pub(super) limits: &'a Limits,
    pub(super) now_ms: u64,
    pub(super) records: Vec<Record>,
    transitions: Vec<Transition>,
    /// Became voters: the node, and whom it replaced.
    pub(super) promoted: Vec<(NodeId, Option<NodeId>)>,
    /// Became ready with this look; what for is told once that is decided.
    newly_ready: Vec<NodeId>,
}

impl Look<'_> {
    pub(super) fn tell(
        &mut self,
        node: NodeId,
        kind: &'static str,
        severity: Severity,
        what: &str,
    ) {
        let text = format!("{} {what}", self.group.subject(node));
        self.transitions.push(Transition { group: self.group.id, node, kind, severity, text });
    }

    /// Who was chosen and is not any more is ready again; who votes is on its way no longer.
    fn settle(&mut self, next: &Next) {
        let chosen: &[PeerId] = match next {
            Next::Change(Change::EnterJoint { promote, .. }) => promote,
            Next::Change(
                Change::AddLearner { .. } | Change::LeaveJoint | Change::RemoveLearner { .. },
            )
            | Next::Nothing
            | Next::Wait(_)
            | Next::Transfer { .. } => &[],
        };
        let (group, now_ms) = (self.group, self.now_ms);
        for record in &mut self.records {
            let learns = group.on(record.node).is_some_and(|member| member.role == Role::Learner);
            if let State::Promoting { ready_ms } = record.state
                && learns
                && !chosen.contains(&record.peer)
            {
                record.enter(State::Ready { ready_ms }, "not promoted yet", now_ms);
            }
        }
        let (voters, target) = (group.voters().count(), group.target);
        for node in std::mem::take(&mut self.newly_ready) {
            let pairs = |record: &Record| {
                record.node == node && matches!(record.state, State::Pairing { .. })
            };
            let what = match self.records.iter().any(pairs) {
                true => format!("ready, waiting for a partner (voters {voters}, target {target})"),
                false => format!("ready (voters {voters}, target {target})"),
            };
            self.tell(node, "member-ready", Severity::Info, &what);
        }
        self.records.retain(|record| {
            record.state != State::Active || !matches!(record.aim, Aim::Vote { .. })
        });
    }

    pub(super) fn progress(&self, record: &Record, member: &Member) -> String {
        match member.snapshot {
            Some((sent, total)) => format!("syncing, snapshot {sent} of {total} bytes"),
            None => {
                let (matched, last) = (record.pace.matched().0, self.group.last_index.0);
                format!("syncing, match {matched} of {last}")
            }
        }
    }

    /// From syncing to ready, and back where it falls behind.
    pub(super) fn catches_up(&mut self, record: &mut Record, member: &Member) {
        let ready = record.pace.ready(member, self.group, self.limits, self.now_ms);
        if record.pace.moves() {
            record.stale = false;
        }
        match (record.state, ready) {
            (State::Syncing, Ok(())) => match record.aim {
                Aim::Learn => self.stays_a_learner(record),
                Aim::Vote { .. } | Aim::Leave { .. } => {
                    let ready_ms = record.ready_since(self.limits, self.now_ms);
                    record.enter(State::Ready { ready_ms }, String::new(), self.now_ms);
                    self.newly_ready.push(record.node);
                }
            },
            (State::Syncing, Err(why)) => {
                if !self.is_stale(record, member, &why) {
                    record.reason = why;
                }
            }
            (
                State::Ready { ready_ms }
                | State::Pairing { ready_ms, .. }
                | State::Promoting { ready_ms },
                Err(why),
            ) => {
                record.lapsed(ready_ms, self.now_ms);
                let what = format!("is not ready any more: {why}");
                record.enter(State::Syncing, why, self.now_ms);
                self.tell(record.node, "member-behind", Severity::Info, &what);
            }
            (State::Ready { ready_ms } | State::Promoting { ready_ms }, Ok(())) => {
                let over = self.now_ms.saturating_sub(ready_ms) >= self.limits.promotion_ms;
                if over && !record.held {
                    self.stands_by(record, "the promotion window is over");
                }
            }
            (State::Pairing { deadline_ms, .. }, Ok(())) => {
                if self.now_ms >= deadline_ms && !record.held {
                    self.stands_by(record, "no partner came in time");
                }
            }
            (State::StandbyLearner, Ok(())) if record.aim == Aim::Learn => {
                self.stays_a_learner(record);
            }
            (State::StandbyLearner | State::KeepAsLearner, Ok(())) => {}
            (State::StandbyLearner | State::KeepAsLearner, Err(why)) => {
                self.is_stale(record, member, &why);
            }
            // Handled by the caller.
            (
                State::Joining { .. } | State::Active | State::Zombie | State::Removed,
                Ok(()) | Err(_),
            ) => {}
        }
    }

    fn stays_a_learner(&mut self, record: &mut Record) {
        record.enter(State::KeepAsLearner, "an analytics replica", self.now_ms);
        self.tell(record.node, "member-ready", Severity::Info, "ready, stays a learner");
    }

    /// One that is behind and has not got on for too long is stale; told once.
    fn is_stale(&mut self, record: &mut Record, member: &Member, why: &str) -> bool {
        let stalled = record.pace.is_stalled(member, self.group, self.limits, self.now_ms);
        if !stalled || record.held || record.stale {
            return false;
        }
        let still = self.now_ms.saturating_sub(record.pace.moved_ms()) / 1_000;
        let reason = format!("no progress for {still} s: {why}");
        let stays = self.enter_standby(record, &reason);
        record.stale = true;
        let what = format!("is stale, {reason}{stays}");
        self.tell(record.node, "member-stale", Severity::Warning, &what);
        true
    }

    /// Says, in words, who stays because nobody takes its place any more.
    fn enter_standby(&self, record: &mut Record, why: &str) -> String {
        record.enter(State::StandbyLearner, why, self.now_ms);
        // A split left it with its aim, or it is of placement's own group: nobody pursues it.
        let pursued = record.operator != 0 && self.group.id != RegionId(0);
        match &mut record.aim {
            Aim::Vote { replacing } if !pursued => {
                let old = replacing.take();
                old.map(|old| format!(", {} stays", self.group.name(old))).unwrap_or_default()
            }
            Aim::Vote { .. } | Aim::Learn | Aim::Leave { .. } => String::new(),
        }
    }

    fn stands_by(&mut self, record: &mut Record, why: &str) {
        let stays = self.enter_standby(record, why);
        let what = format!("stands by as a learner: {why}{stays}");
        self.tell(record.node, "member-standby", Severity::Info, &what);
    }

    /// One line for all that became voters in one joint change.
    fn tell_promoted(&mut self) {
        let promoted = std::mem::take(&mut self.promoted);
        let Some((first, replaced)) = promoted.first().copied() else { return };
        let names = self.group.subjects(promoted.iter().map(|(node, _)| *node));
        let place = match replaced {
            Some(old) => format!(" in place of {}", self.group.name(old)),
            None => String::new(),
        };
        let voters = self.group.voters().count();
        let text = format!("{names} promoted{place}, voters {voters}");
        self.transitions.push(Transition {
            group: self.group.id,
            node: first,
            kind: "member-promoted",
            severity: Severity::Info,
            text,
        });
    }
}

/// Since when it is ready, if it is.
pub(super) fn ready_since(state: State) -> Option<u64> {
    match state {
        State::Ready { ready_ms }
        | State::Pairing { ready_ms, .. }
        | State::Promoting { ready_ms } => Some(ready_ms),
        State::Joining { .. }
        | State::Syncing
        | State::StandbyLearner
        | State::KeepAsLearner
        | State::Active
        | State::Zombie
        | State::Removed => None,
    }
}
