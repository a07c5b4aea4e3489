//! The placement group itself: its members come, are promoted, are replaced and go by the same
//! lifecycle as the replicas of a region.
//!
//! What a region's store reports, this leader knows itself: it leads the Raft group. So there is
//! no operator in between; a step is handed to the shell as soon as the records that call for it
//! are replicated, and derived again until it shows in the replicated list.
//!
//! How many voters are wanted follows from who joined: the smallest odd number that holds all
//! members that shall vote, at most [`MAX_VOTERS`]. So a lone newcomer waits for a partner.

use quorate_consensus::time::Instant;
use quorate_proto::{NodeId, PeerId, RegionId, Role};

use super::own_group::{group, members_after, words};
use super::standing::Standing;
use super::{Leader, MemberAction};
use crate::core::command::{
    Candidate, Command, JoiningMember, MEMBERS_SINCE, Member, MemberRefusal,
};
use crate::core::lifecycle::{
    self, Aim, CannotBe, Group, Limits, Next, Record, State as Life, Wish,
};
use crate::core::operators::Refused;
use crate::core::state::State;

/// The placement group among the groups that have lifecycles.
pub const OWN: RegionId = RegionId(0);
/// Most voters of the placement group: more would only slow it down.
pub const MAX_VOTERS: usize = 5;

/// The next step of the placement group.
#[derive(Clone, Debug, PartialEq)]
pub enum OwnStep {
    /// Raft's configuration and the replicated list, in one entry.
    Change {
        /// All members afterwards.
        members: Vec<(NodeId, Role)>,
        /// What goes with the entry.
        command: Command,
        /// What it does, in words.
        what: String,
    },
    /// Leadership goes there first.
    Transfer {
        /// To this member.
        to: NodeId,
        /// Why, in words.
        why: String,
    },
}

impl Leader {
    /// The placement group as its lifecycles see it.
    pub fn own_group(&self, state: &State, standing: &Standing) -> Group {
        group(state, standing, self.members.of(OWN), &state.settings().limits())
    }

    /// What the placement group waits for, in words; empty for nothing.
    pub fn own_waits(&self) -> &str {
        &self.own_waits
    }

    /// Looks at the placement group. Returns the next step once what calls for it is replicated.
    pub fn advance_own(
        &mut self,
        state: &State,
        standing: &Standing,
        now: Instant,
    ) -> Option<OwnStep> {
        if state.cluster().is_none_or(|cluster| cluster.version < MEMBERS_SINCE) {
            return None;
        }
        let (now_ms, limits) = (self.time_ms(now), state.settings().limits());
        self.watch_members(state, standing, now_ms);
        let mut records = self.members.of(OWN).to_vec();
        for candidate in state.waiting() {
            if records.iter().all(|record| record.node != candidate.id) {
                records.push(joining(candidate, &limits, now_ms));
            }
        }
        let seen = group(state, standing, &records, &limits);
        if let Some(replaced) = self.replace_lost(state, &seen, &records, &limits, now_ms) {
            records = replaced;
        }
        let seen = group(state, standing, &records, &limits);
        if records.is_empty() && !seen.is_joint() {
            self.own_waits.clear();
            return None;
        }
        let stepped = lifecycle::step(&seen, &records, &limits, now_ms);
        for transition in stepped.transitions {
            self.tell_transition(transition, now_ms);
        }
        self.members.put(OWN, stepped.records);
        if !self.members.is_durable(OWN, state) {
            "what is planned is being replicated".clone_into(&mut self.own_waits);
            return None;
        }
        self.own_waits.clear();
        match stepped.next {
            Next::Nothing => None,
            Next::Wait(why) => {
                self.own_waits = why;
                None
            }
            Next::Transfer { to, why } => Some(OwnStep::Transfer { to, why }),
            Next::Change(change) => {
                let members = members_after(state, &change);
                let version = state.counters().members_version;
                let command = Command::ChangeMembers { version, members: members.clone() };
                Some(OwnStep::Change { members, command, what: words(&seen, &change) })
            }
        }
    }

    /// Tells of members that fall silent, and of those that are heard again.
    fn watch_members(&mut self, state: &State, standing: &Standing, now_ms: u64) {
        let seen = self.own_group(state, standing);
        for member in &seen.members {
            let name = seen.name(member.node);
            let news = self.watch.member((member.node, &name), !member.alive, now_ms);
            news.into_iter().for_each(|news| self.journal.tell(news));
        }
        self.watch.keep_members(|member| seen.on(member).is_some());
    }

    /// A step was not taken.
    pub fn own_refused(&mut self, what: &str, why: &str, now: Instant) {
        let now_ms = self.time_ms(now);
        self.history.note(OWN, "members", format!("{what}; refused: {why}"), now_ms);
        why.clone_into(&mut self.own_waits);
    }

    /// A voter that is silent for so long that a store would be given up is replaced, if somebody
    /// is there to take its place.
    fn replace_lost(
        &self,
        state: &State,
        group: &Group,
        records: &[Record],
        limits: &Limits,
        now_ms: u64,
    ) -> Option<Vec<Record>> {
        let patience = state.settings().number("store.down_ms");
        let busy = |record: &&Record| {
            matches!(record.aim, Aim::Leave { .. }) && record.state != Life::Removed
        };
        if group.is_joint() || records.iter().any(|record| busy(&record)) {
            return None;
        }
        let lost = group.voters().find(|member| member.silent_ms >= patience)?;
        let stands_by = |record: &&Record| {
            record.aim == (Aim::Vote { replacing: None })
                && !record.held
                && group.on(record.node).is_some_and(|member| member.alive)
                && match record.state {
                    Life::Ready { .. } | Life::Pairing { .. } | Life::StandbyLearner => true,
                    Life::Joining { .. }
                    | Life::Syncing
                    | Life::Promoting { .. }
                    | Life::KeepAsLearner
                    | Life::Active
                    | Life::Zombie
                    | Life::Removed => false,
                }
        };
        let to = records.iter().find(stands_by)?.node;
        let wish = Wish::Move { from: lost.node, to };
        // What stands in the way may go.
        lifecycle::wish(group, records, &wish, 0, limits, now_ms).ok()
    }

    /// Whether that address may be a member's that joins, or moves: one who has it may be dead.
    ///
    /// # Errors
    /// A member that is alive has it, or the one that moves still runs where it was.
    pub fn may_use_member_address(
        &self,
        state: &State,
        standing: &Standing,
        joining: &JoiningMember,
        known: Option<NodeId>,
    ) -> Result<(), MemberRefusal> {
        let group = self.own_group(state, standing);
        if let Some(Member { id, address, .. }) = state.moves(joining)
            && group.on(*id).is_some_and(|member| member.alive)
        {
            return Err(MemberRefusal::StillThere { member: *id, address: address.clone() });
        }
        let others = state.members().values().filter(|member| {
            Some(member.id) != known
                && Some(member.id) != joining.id
                && member.address == joining.address
        });
        for other in others {
            if group.on(other.id).is_some_and(|member| member.alive) {
                let address = other.address.clone();
                return Err(MemberRefusal::AddressInUse { member: other.id, address });
            }
        }
        Ok(())
    }

    /// A process that waits asks again: a join that was rolled back is tried anew.
    pub fn ask_again(&mut self, state: &State, id: NodeId, now: Instant) {
        let Some(candidate) = state.waiting().find(|candidate| candidate.id == id) else { return };
        let (now_ms, limits) = (self.time_ms(now), state.settings().limits());
        let mut records = self.members.of(OWN).to_vec();
        // One that a person has cancelled is held until a person releases it.
        let gave_up = records
            .iter()
            .any(|record| record.node == id && record.state == Life::Removed && !record.held);
        if gave_up {
            records.retain(|record| record.node != id);
            records.push(joining(candidate, &limits, now_ms));
            self.members.put(OWN, records);
        }
    }

    /// Something is wanted of one member.
    ///
    /// # Errors
    /// The rule that stands in the way; nothing changes.
    pub fn change_own(
        &mut self,
        state: &State,
        standing: &Standing,
        node: NodeId,
        action: MemberAction,
        force: bool,
        now: Instant,
    ) -> Result<(), Refused> {
        if state.cluster().is_none_or(|cluster| cluster.version < MEMBERS_SINCE) {
            return Err(Refused::OldMembers);
        }
        let (now_ms, limits) = (self.time_ms(now), state.settings().limits());
        let seen = self.own_group(state, standing);
        let records = self.members.of(OWN).to_vec();
        if seen.on(node).is_none() && records.iter().all(|record| record.node != node) {
            return Err(Refused::NoMember(node));
        }
        let wish = match action {
            MemberAction::Promote => Wish::Promote { nodes: vec![node] },
            MemberAction::Demote => Wish::Demote { nodes: vec![node], force },
            MemberAction::Remove => Wish::Remove { node, force },
            MemberAction::Replace { with } => {
                let to = NodeId(with.0);
                if seen.on(to).is_none() {
                    return Err(Refused::NoMember(to));
                }
                Wish::Move { from: node, to }
            }
            MemberAction::Hold => return self.hold(OWN, node, true, now),
            MemberAction::Release => return self.hold(OWN, node, false, now),
            MemberAction::Cancel => return self.cancel_own(&seen, records, node, now_ms),
        };
        let id = self.operators.fresh_id();
        let mut what = format!("{action:?} {}", seen.name(node));
        if let Ok(partners) = lifecycle::partners(&seen, &records, &wish, &limits, now_ms)
            && !partners.is_empty()
        {
            what = format!("{what}, and {} with it: voters go in pairs", seen.names(partners));
        }
        match lifecycle::wish(&seen, &records, &wish, id, &limits, now_ms) {
            Ok(records) => {
                self.history.note(OWN, "request", what, now_ms);
                self.members.put(OWN, records);
                Ok(())
            }
            Err(why) => {
                self.history.note(OWN, "request", format!("{what}; refused: {why}"), now_ms);
                Err(match why {
                    CannotBe::NoneLeft(_) => Refused::LoneMember,
                    why => why.into(),
                })
            }
        }
    }

    /// The members that would go, or stop to vote, along with that one. Nothing changes.
    ///
    /// # Errors
    /// The rule that stands in the way.
    pub fn own_partners(
        &self,
        state: &State,
        standing: &Standing,
        node: NodeId,
        action: MemberAction,
        force: bool,
        now: Instant,
    ) -> Result<Vec<NodeId>, Refused> {
        let wish = match action {
            MemberAction::Demote => Wish::Demote { nodes: vec![node], force },
            MemberAction::Remove => Wish::Remove { node, force },
            MemberAction::Promote
            | MemberAction::Replace { .. }
            | MemberAction::Hold
            | MemberAction::Release
            | MemberAction::Cancel => return Ok(Vec::new()),
        };
        let (seen, limits) = (self.own_group(state, standing), state.settings().limits());
        let (records, now_ms) = (self.members.of(OWN), self.time_ms(now));
        Ok(lifecycle::partners(&seen, records, &wish, &limits, now_ms)?)
    }

    /// What a member is on its way to is given up, with all that goes with it.
    fn cancel_own(
        &mut self,
        group: &Group,
        mut records: Vec<Record>,
        node: NodeId,
        now_ms: u64,
    ) -> Result<(), Refused> {
        if group.is_joint() {
            return Err(CannotBe::Joint(group.title()).into());
        }
        let fresh = self.operators.fresh_id();
        let record = records.iter_mut().find(|record| record.node == node);
        let Some(record) = record.filter(|record| record.state != Life::Removed) else {
            let name = group.name(node);
            return Err(CannotBe::NotA(name, "member on its way", group.title()).into());
        };
        if record.operator == 0 {
            record.operator = fresh;
        }
        let operator = record.operator;
        let why = format!(
            "cancelled on request; `quorate member release placement/{}` lets it try again",
            node.0
        );
        let mut records = lifecycle::cancel(group, &records, operator, &why, now_ms);
        for record in records.iter_mut().filter(|record| record.node == node) {
            record.held = record.state == Life::Removed;
        }
        self.members.put(OWN, records);
        Ok(())
    }
}

fn joining(candidate: &Candidate, limits: &Limits, now_ms: u64) -> Record {
    let aim = Aim::Vote { replacing: None };
    // A member's peer has its id.
    let peer = PeerId(candidate.id.0);
    Record { peer, ..Record::joining(candidate.id, aim, limits, now_ms) }
}
