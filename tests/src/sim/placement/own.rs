//! Placement's own group: processes that join it, steps that its leader takes, members that were
//! taken out.
//!
//! The counterpart of `placement/src/shell/{membership,start}.rs`.

use quorate_consensus::shard::{self, Member};
use quorate_consensus::time::Instant;
use quorate_consensus::view::GroupView;
use quorate_placement::core::command::{Command, JoiningMember, MemberRefusal};
use quorate_placement::core::leader::{Leader, OwnStep, Standing};
use quorate_placement::core::state::{State, StoreLife};
use quorate_proto::{NodeId, Role, StoreId, Term};

use super::{GROUP, MEMBERS, MemberRole, Waiting};
use crate::sim::agenda::MS;
use crate::sim::chance::Lane;
use crate::sim::cx::Cx;
use crate::sim::knobs::Knobs;
use crate::sim::messages::{Ask, Body, Token, Told};
use crate::sim::mutant::Mutant;
use crate::sim::process::role::Host;

/// Duties between two looks of the leader at its group, and of others at whether they belong to it.
const LOOK: u64 = 4;
const DOUBT: u64 = 20;
/// How long a transfer of leadership may take to show.
const TRANSFER: u64 = 2_000 * MS;

/// What a member is about with its own group.
#[derive(Debug, Default)]
pub(super) struct Own {
    duties: u64,
    /// A step is being replicated.
    stepping: bool,
    /// A transfer of leadership has its time until then.
    transferring: Option<(Instant, String)>,
    /// The member that was asked last, and the one that leads, as it said.
    asked: Option<NodeId>,
    hint: Option<NodeId>,
    call: u64,
}

impl Own {
    /// The step was taken.
    pub(super) fn stepped(&mut self) {
        self.stepping = false;
    }

    /// This member leads no more, or anew.
    pub(super) fn deposed(&mut self) {
        self.stepping = false;
        self.transferring = None;
    }
}

/// Where a member is reached.
pub(super) fn address(member: NodeId, data_id: u64) -> String {
    match member.0 > MEMBERS {
        true => format!("m{}:1", member.0 - MEMBERS),
        false => format!("p{data_id}:1"),
    }
}

/// What a process says of itself that asks to be a member, or whether it still is one.
pub(crate) fn joining_member(id: Option<NodeId>, cluster_id: u64, data_id: u64) -> JoiningMember {
    let address = address(id.unwrap_or_default(), data_id);
    JoiningMember { cluster_id, id, name: String::new(), address, data_id }
}

/// The group that a member starts in; `None` where it was taken out, and ends.
pub(super) fn begin(id: NodeId, mut members: Vec<Member>, cx: &mut Cx) -> Option<Vec<Member>> {
    if !members.is_empty() && members.iter().all(|member| member.node != id) {
        if !cx.checks.lives.is_retired(id) {
            cx.checks.fail(|| format!("{id} finds a group without it: {members:?}"));
        }
        cx.ended.push(id);
        return None;
    }
    if cx.is(Mutant::MemberVotesEarly) {
        for member in members.iter_mut().filter(|member| member.role == Role::Learner) {
            member.role = Role::Voter;
        }
    }
    cx.checks.told_members(id, &members);
    Some(members)
}

/// What placement's leader knows of the others.
pub(super) fn standing(me: NodeId, view: &GroupView, now: Instant) -> Standing {
    // Of a snapshot on its way nothing is known but that it is.
    Standing::of(me, view, |_| None, now)
}

/// A process asks to become a member, or whether it still is one; nothing where that has to be
/// replicated first.
pub(super) fn join(
    leader: &mut Leader,
    state: &State,
    standing: &Standing,
    joining: &JoiningMember,
    now: Instant,
) -> Option<Told> {
    let known = match state.may_join_group(joining) {
        Ok(known) => known,
        Err(gone @ (MemberRefusal::Left(_) | MemberRefusal::Unknown(_))) => {
            return Some(Told::NoMember(gone.to_string()));
        }
        Err(
            refusal @ (MemberRefusal::NotInitialized
            | MemberRefusal::WrongCluster { .. }
            | MemberRefusal::OldVersion
            | MemberRefusal::AddressInUse { .. }
            | MemberRefusal::Moved { .. }
            | MemberRefusal::StillThere { .. }
            | MemberRefusal::TooMany
            | MemberRefusal::Incomplete(_)),
        ) => return Some(Told::Refused(refusal.to_string())),
    };
    if let Err(refusal) = leader.may_use_member_address(state, standing, joining, known) {
        return Some(Told::Refused(refusal.to_string()));
    }
    let member = known?;
    leader.ask_again(state, member, now);
    Some(Told::MemberJoined { member, data_id: joining.data_id })
}

/// What a command makes of a store.
pub(super) fn life_in(command: &Command) -> Option<(StoreId, StoreLife)> {
    match command {
        Command::ChangeStore { store, life } => Some((*store, *life)),
        Command::Initialize { .. }
        | Command::JoinStore(_)
        | Command::ActivateStore(_)
        | Command::Bootstrap
        | Command::AllocateIds { .. }
        | Command::ExtendTime { .. }
        | Command::SaveRegions(_)
        | Command::RaiseSafePoint(_)
        | Command::SavePlan(_)
        | Command::ChangeSettings(_)
        | Command::JoinMember(_)
        | Command::ChangeMembers { .. } => None,
    }
}

/// A mutant: whoever leaves is said to have left.
pub(super) fn careless_leavers(state: &State) -> Vec<Command> {
    let leaving = state.stores().values().filter(|store| match store.life {
        StoreLife::Leaving { .. } => true,
        StoreLife::Joining | StoreLife::Active | StoreLife::Left => false,
    });
    let left = |store: StoreId| Command::ChangeStore { store, life: StoreLife::Left };
    leaving.map(|store| left(store.id)).collect()
}

/// The settings of this world, unless placement has them.
pub(super) fn missing_settings(state: &State, knobs: &Knobs) -> Option<Command> {
    let has = state.settings().number("store.down_ms") == knobs.down_ms;
    let wanted = knobs.down_ms > 0 && state.cluster().is_some() && !has;
    wanted.then(|| Command::ChangeSettings(knobs.settings()))
}

impl MemberRole {
    /// The leader takes its group one step further.
    pub(super) fn change_members(&mut self, host: &mut Host<'_>) {
        let (term, now) = (self.view.term(), host.now);
        if let Some((until, _)) = &self.own.transferring {
            if now < *until {
                return;
            }
            if let Some((_, what)) = self.own.transferring.take() {
                self.not_stepped(term, &what, "it was not taken", now);
            }
        }
        if self.own.stepping || !self.own.duties.is_multiple_of(LOOK) {
            return;
        }
        let standing = standing(self.id, &self.view, now);
        let MemberRole { session, state, .. } = self;
        let Some(session) = session.as_mut().filter(|session| session.leader.term() == term) else {
            return;
        };
        match session.leader.advance_own(state, &standing, now) {
            None => {}
            Some(OwnStep::Transfer { to, why }) => {
                host.cx.note(format_args!("{} hands placement to {to}: {why}", host.node));
                host.mail.push(shard::Event::TransferLeader { group: GROUP, to });
                let what = format!("transfer leadership to placement-{}", to.0);
                self.own.transferring = Some((Instant(now.0 + TRANSFER), what));
            }
            Some(OwnStep::Change { members, command, what }) => {
                host.cx.note(format_args!("{} wants to {what}", host.node));
                let peer = |(id, role): &(NodeId, Role)| {
                    quorate_placement::core::command::Member::peer(*id, *role)
                };
                let members = members.iter().map(peer).collect();
                let number = self.number();
                self.waiting.insert(number, Waiting::Step(term, what));
                self.own.stepping = true;
                let (group, command, token) = (GROUP, command.encode(), Token(number));
                host.mail.push(shard::Event::ChangeMembers { group, members, command, token });
            }
        }
    }

    /// A step was not taken.
    pub(super) fn not_stepped(&mut self, term: Term, what: &str, why: &str, now: Instant) {
        self.own.stepped();
        if let Some(session) = self.session_of(term) {
            session.leader.own_refused(what, why, now);
        }
    }

    /// A member that hears no leader asks another one whether it still belongs to the group.
    pub(super) fn doubt(&mut self, host: &mut Host<'_>) {
        self.own.duties += 1;
        let is_led = self.view.leader().is_some() && self.view.silent_since().is_none();
        if is_led || !self.own.duties.is_multiple_of(DOUBT) {
            return;
        }
        let mut to = match self.own.hint.take() {
            Some(leader) => leader,
            None => host.cx.next_member(self.own.asked.unwrap_or(self.id)),
        };
        if to == self.id {
            to = host.cx.next_member(to);
        }
        self.own.asked = Some(to);
        let data_id = host.cx.grown.get(&self.id).copied().unwrap_or_default();
        let cluster_id = self.state.cluster().map_or(0, |cluster| cluster.id);
        let joining = joining_member(Some(self.id), cluster_id, data_id);
        self.own.call = self.number();
        let (call, ask) = (self.own.call, Box::new(Ask::JoinMember(joining)));
        host.cx.send(host.node, to, Lane::Services, Body::Ask { call, ask });
    }

    /// The other one answers.
    pub(crate) fn told(&mut self, call: u64, told: &Told, host: &mut Host<'_>) {
        if call != self.own.call {
            return;
        }
        match told {
            Told::NoMember(words) => {
                let node = host.node;
                if !host.cx.checks.lives.is_retired(node) {
                    host.cx.checks.fail(|| format!("{node} is a member, and is told: {words}"));
                }
                host.end();
            }
            Told::NotLeader(leader) => self.own.hint = *leader,
            Told::Joined { .. }
            | Told::MemberJoined { .. }
            | Told::Orders(_)
            | Told::Ids(_)
            | Told::Timestamp(_)
            | Told::Region(_)
            | Told::Done
            | Told::Refused(_)
            | Told::Undetermined => {}
        }
    }
}
