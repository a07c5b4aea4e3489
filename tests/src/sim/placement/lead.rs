//! What a placement leader does: takes over, keeps time, makes the first regions, plans, answers.

use quorate_placement::core::command::{self, Command, MAX_SAVED_REGIONS};
use quorate_placement::core::leader::{Leader, MemberAction};
use quorate_placement::core::lifecycle::ReplicaRole;
use quorate_placement::core::operators::{Goal, Order};
use quorate_placement::core::oracle::Oracle;
use quorate_placement::core::report::Report;
use quorate_placement::core::split;
use quorate_placement::core::state::StoreLife;
use quorate_proto::wire::placement as wire;
use quorate_proto::{NodeId, Role, StoreId, Term};

use super::{Asked, MEMBERS, MemberRole, Session, Waiting, own};
use crate::sim::messages::{Ask, Told};
use crate::sim::mutant::Mutant;
use crate::sim::process::role::Host;

/// Orders of one message.
const ORDERS: usize = 64;

impl MemberRole {
    /// Lets time pass; every 50 ms.
    pub(crate) fn duty(&mut self, host: &mut Host<'_>) {
        let term = self.view.term();
        if host.cx.knobs.growth {
            self.doubt(host);
        }
        if !self.view.is_leader() {
            return;
        }
        if self.session.is_none() {
            return self.take_over(term, host);
        }
        let (wall, now) = (self.wall_ms(host), host.now);
        let mut commands = Vec::new();
        if self.state.initial_regions().is_none() && self.state.missing_stores() == 0 {
            commands.push((Command::Bootstrap, Waiting::Own));
        }
        self.proposed += 1;
        let saves = self.proposed.is_multiple_of(20);
        let MemberRole { session, state, .. } = self;
        let Some(session) = session.as_mut().filter(|session| session.leader.term() == term) else {
            return;
        };
        if session.leader.tree().is_empty() {
            session.leader.adopt(state);
        }
        if let Some(ceiling_ms) = session.oracle.wants(wall)
            && !session.raising
        {
            session.raising = true;
            commands.push((Command::ExtendTime { ceiling_ms }, Waiting::Raise(term)));
        }
        if saves {
            let regions = session.leader.to_save(MAX_SAVED_REGIONS);
            if !regions.is_empty() {
                commands.push((Command::SaveRegions(regions), Waiting::Own));
            }
        }
        let mut proposals = session.leader.to_propose(state, now);
        for (store, life) in proposals.iter().filter_map(own::life_in) {
            if life == StoreLife::Left
                && let Some(known) = state.stores().get(&store)
            {
                let given_up = session.leader.stores().is_lost(known, now);
                host.cx.checks.leaves(store, given_up);
            }
        }
        if host.cx.is(Mutant::LeftWhileListed) {
            proposals.extend(own::careless_leavers(state));
        }
        proposals.extend(own::missing_settings(state, &host.cx.knobs));
        commands.extend(proposals.into_iter().map(|command| (command, Waiting::Own)));
        let due = session.leader.tick(state, now);
        let mut orders = Vec::new();
        for store in due {
            orders.push((NodeId::from(store), session.leader.orders_for(store, ORDERS, now)));
        }
        for (command, waiting) in commands {
            self.propose(&command, waiting, host);
        }
        for (store, orders) in orders {
            note_orders(store, &orders, host);
            let orders = orders.into_iter().map(Into::into).collect();
            let told = Told::Orders(wire::StoreOrders { orders, ..Default::default() });
            self.respond(store, 0, told, host);
        }
        if host.cx.knobs.growth {
            self.change_members(host);
        }
    }

    fn take_over(&mut self, term: Term, host: &mut Host<'_>) {
        if self.taking_over == Some(term) {
            return;
        }
        if self.state.cluster().is_none() {
            self.proposed += 1;
            if self.proposed % 10 == 1 {
                let command = self.initialize(host);
                self.propose(&command, Waiting::Own, host);
            }
            return;
        }
        self.taking_over = Some(term);
        let wall = self.wall_ms(host);
        let ceiling_ms = Oracle::first_ceiling(self.state.counters().time_ceiling_ms, wall);
        self.propose(&Command::ExtendTime { ceiling_ms }, Waiting::TakeOver(term), host);
    }

    fn initialize(&self, host: &Host<'_>) -> Command {
        let member = |number: u64| command::Member {
            id: NodeId(MEMBERS + number),
            name: format!("m{number}"),
            address: own::address(NodeId(MEMBERS + number), 0),
            role: Role::Voter,
        };
        let knobs = &host.cx.knobs;
        Command::Initialize {
            cluster_id: 7,
            members: (1..=knobs.members).map(member).collect(),
            initial_stores: knobs.stores as u32,
            replicas: knobs.replicas,
            // Before that form of the cluster, nobody plans.
            version: if knobs.planned {
                command::CLUSTER_VERSION
            } else {
                command::PLANS_SINCE - 1
            },
        }
    }

    pub(crate) fn begin_session(
        &mut self,
        term: Term,
        previous_ms: u64,
        ceiling_ms: u64,
        host: &mut Host<'_>,
    ) {
        self.taking_over = None;
        if !self.view.is_leader() || self.view.term() != term {
            return;
        }
        let wall = self.wall_ms(host);
        let oracle = match host.cx.is(Mutant::TimestampsByClock) {
            true => Oracle::new(0, u64::MAX >> 20, wall),
            false => Oracle::new(previous_ms, ceiling_ms, wall),
        };
        let leader = Leader::new(term, &self.state, host.now);
        self.session = Some(Session { leader, oracle, ids: Default::default(), raising: false });
        host.cx.note(format_args!("{} leads placement in {term}", host.node));
    }

    /// The answer to a request; nothing where a command has to be applied first. May be called
    /// again for one request.
    pub(crate) fn answer(&mut self, asked: &mut Asked, host: &mut Host<'_>) -> Option<Told> {
        let (term, wall, now) = (self.view.term(), self.wall_ms(host), host.now);
        let MemberRole { session, state, view, id: me, .. } = self;
        let Some(session) = session.as_mut().filter(|session| session.leader.term() == term) else {
            return Some(Told::NotLeader(None));
        };
        Some(match &mut asked.ask {
            Ask::Join(joining) => {
                let store = state.has_joined(joining)?;
                Told::Joined {
                    store,
                    regions: state.initial_regions().map(<[_]>::to_vec),
                    cluster: state.cluster().map_or(0, |cluster| cluster.id),
                }
            }
            Ask::Report(report) => {
                return Some(self.report(report.clone(), host));
            }
            Ask::Timestamp => match session.oracle.allocate(1, wall) {
                Ok(timestamp) => Told::Timestamp(timestamp.composed()),
                Err(error) => Told::Refused(error.to_string()),
            },
            Ask::Region(key) => Told::Region(
                session.leader.tree().find(key).map(|info| (info.region.clone(), info.leader)),
            ),
            Ask::RegionById(id) => Told::Region(
                session.leader.tree().get(*id).map(|info| (info.region.clone(), info.leader)),
            ),
            Ask::SplitIds { region, count } => {
                let known = session.leader.tree().get(region.id);
                if known.is_some_and(|known| region.epoch.is_stale_against(known.region.epoch)) {
                    return Some(Told::Refused("the region is known in a newer epoch".to_owned()));
                }
                let each = 1 + region.peers.len() as u64;
                let first = session.ids.take(each * *count as u64)?;
                Told::Ids(ids_of(first, each, *count))
            }
            Ask::Split(keys) => match split::plan(session.leader.tree(), keys) {
                Ok(drafts) => {
                    for draft in drafts {
                        // A region that is busy is split another time.
                        let _ = session.leader.split(draft, now);
                    }
                    Told::Done
                }
                Err(refusal) => Told::Refused(refusal.to_string()),
            },
            Ask::Merge { region } => match session.leader.merge(state, *region, None, now) {
                Ok(_) => Told::Done,
                Err(refusal) => Told::Refused(refusal.to_string()),
            },
            Ask::Replica { region, add, remove } => {
                let role = ReplicaRole::Standard;
                let goal = match (*add, *remove) {
                    (Some(to), Some(from)) => Goal::MoveReplica { from, to },
                    (Some(to), None) => Goal::AddReplica { to, role },
                    (None, Some(from)) => Goal::RemoveReplica { from },
                    (None, None) => return Some(Told::Done),
                };
                match session.leader.change_replica(state, *region, goal, false, now) {
                    Ok(_) => Told::Done,
                    Err(refusal) => Told::Refused(refusal.to_string()),
                }
            }
            Ask::RemoveStore { store, cancel, dead } => {
                match session.leader.remove_store(state, *store, *cancel, *dead, now) {
                    Ok(_) => return None,
                    Err(refusal) => Told::Refused(refusal.to_string()),
                }
            }
            Ask::JoinMember(joining) => {
                let standing = own::standing(*me, view, now);
                return own::join(&mut session.leader, state, &standing, joining, now);
            }
            Ask::ReplaceMember { member, with } => {
                let standing = own::standing(*me, view, now);
                let action = MemberAction::Replace { with: StoreId(with.0) };
                match session.leader.change_own(state, &standing, *member, action, false, now) {
                    Ok(()) => Told::Done,
                    Err(refusal) => Told::Refused(refusal.to_string()),
                }
            }
            Ask::Transfer { region, to } => match session.leader.transfer(*region, *to, now) {
                Ok(_) => Told::Done,
                Err(refusal) => Told::Refused(refusal.to_string()),
            },
        })
    }

    fn report(&mut self, wire: wire::StoreReport, host: &mut Host<'_>) -> Told {
        let report = match Report::try_from(wire) {
            Ok(report) => report,
            Err(error) => {
                let node = host.node;
                host.cx.checks.fail(|| format!("{node} got a bad report: {error}"));
                return Told::Refused(error.to_string());
            }
        };
        let (store, sequence, term) = (report.store, report.sequence, self.view.term());
        let (wall, now) = (self.wall_ms(host), host.now);
        let Some(known) = self.state.stores().get(&store).cloned() else {
            return Told::Refused("not known to this cluster; join first".to_owned());
        };
        if report.incarnation != known.incarnation {
            return Told::Refused("started anew since; join again".to_owned());
        }
        let Some(session) = self.session_of(term) else { return Told::NotLeader(None) };
        let heard = session.leader.stores().last(store);
        if !report.full && heard.is_none_or(|heard| !heard.complete) {
            // A stream ends with the term in which it was opened.
            return Told::NotLeader(Some(host.node));
        }
        let reported = session.leader.report(&known, report, now);
        let time_ms = session.oracle.clock_ms(wall);
        let orders = session.leader.orders_for(store, ORDERS, now);
        note_orders(NodeId::from(store), &orders, host);
        let orders = orders.into_iter().map(Into::into).collect();
        if reported.activate {
            self.propose(&Command::ActivateStore(store), Waiting::Own, host);
        }
        Told::Orders(wire::StoreOrders { sequence, time_ms, orders, ..Default::default() })
    }
}

fn note_orders(to: NodeId, orders: &[Order], host: &mut Host<'_>) {
    for Order { region, step, reason, .. } in orders {
        host.cx.note(format_args!("placement orders {to}: {region} {step:?}: {reason}"));
    }
}

/// Ids for new regions from a range of ids: a region's, then those of its peers.
fn ids_of(first: u64, each: u64, count: usize) -> Vec<wire::SplitIds> {
    let ids = |number: u64| {
        let region_id = first + number * each;
        wire::SplitIds { region_id, peer_ids: (region_id + 1..region_id + each).collect() }
    };
    (0..count as u64).map(ids).collect()
}
