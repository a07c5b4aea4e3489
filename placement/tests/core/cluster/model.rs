//! What stores do with orders, and what they report.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_placement::core::lifecycle::Change;
use quorate_placement::core::operators::{Order, Step};
use quorate_placement::core::report::OrderRefusal;
use quorate_placement::core::tree::{Merging, PeerProgress, RegionInfo, RegionStats};
use quorate_proto::{Epoch, KeyRange, LogIndex, Peer, RegionId, Role, StoreId, Term};

use super::{Cluster, Hosted};

/// The lead that a stop gives to the version of a source.
const LEAD: u64 = 65_536;

impl Hosted {
    fn is_everywhere(&self, dead: &BTreeSet<u64>) -> bool {
        self.region.peers.iter().all(|peer| !dead.contains(&peer.store.0))
    }
}

impl Cluster {
    /// A store carries out an order, exactly at its epoch.
    pub fn obey(&mut self, store: StoreId, order: Order) {
        let behaviour = self.stores.get_mut(&store.0).unwrap();
        if let Step::Destroy { peer } = order.step {
            behaviour.destroyed.insert(peer);
            self.done.push(format!("{} {store} destroys {peer}", order.region));
            return;
        }
        let holds = behaviour.holds_all || matches!(order.step, Step::PrepareMerge { .. });
        if let (Some(held), true) = (&mut behaviour.held, holds) {
            held.push(order);
            return;
        }
        if behaviour.swallows(&order) {
            return;
        }
        self.carry_out(store, order);
    }

    /// What an order does to its region, or why nothing.
    pub fn carry_out(&mut self, store: StoreId, order: Order) {
        let behaviour = &self.stores[&store.0];
        // It was taken in meanwhile.
        let Some(hosted) = self.regions.get(&order.region) else { return };
        let refused = if hosted.region.epoch != order.epoch {
            Some("another epoch by now".to_owned())
        } else if hosted.leader != store {
            Some("not leader".to_owned())
        } else {
            let stops =
                hosted.merging.is_some() && !matches!(order.step, Step::RollbackMerge { .. });
            let stopped = stops.then(|| "stopped".to_owned());
            stopped.or_else(|| behaviour.refusal(&order.step))
        };
        if let Some(reason) = refused {
            let refusal = OrderRefusal { operator: order.operator, region: order.region, reason };
            return self.report(store.0, &[], false, vec![refusal]);
        }
        // Whoever is dead takes nothing over.
        if let Step::TransferLeader { to } = order.step
            && self.stores[&to.0].dead
        {
            return;
        }
        self.take_effect(order.clone());
        let leader = self.regions[&order.region].leader.0;
        self.report(leader, &[order.region], false, Vec::new());
    }

    /// The region stops, as an order of somebody who is not known any more said.
    pub fn stop(&mut self, source: RegionId, target: RegionId, target_epoch: Epoch) {
        let (operator, reason) = (0, String::new());
        let epoch = self.regions[&source].region.epoch;
        let step = Step::PrepareMerge { target, target_epoch };
        self.take_effect(Order { operator, region: source, epoch, reason, step });
        self.done.clear();
        self.report_all(false);
    }

    fn take_effect(&mut self, Order { region, step, .. }: Order) {
        let hosted = self.regions.get_mut(&region).unwrap();
        let epoch = &mut hosted.region.epoch;
        let said = match step {
            Step::TransferLeader { to } => {
                match hosted.region.peer_on(to).unwrap().role {
                    Role::Voter | Role::IncomingVoter => {}
                    role @ (Role::Learner | Role::DemotingVoter) => panic!("{role:?} is to lead"),
                }
                hosted.leader = to;
                hosted.term += 1;
                format!("leader {to}")
            }
            Step::Split { .. } | Step::Destroy { .. } => panic!("nobody asked for it"),
            Step::Change(change) => {
                let said = words(&change);
                apply(hosted, change);
                said
            }
            Step::PrepareMerge { target, target_epoch } => {
                epoch.version = epoch.version.max(target_epoch.version) + LEAD;
                epoch.conf_ver += 1;
                let frozen = LogIndex(hosted.last);
                hosted.merging = Some(Merging { target, target_epoch, frozen, everywhere: false });
                format!("stops for {target}")
            }
            Step::RefuseMerge => {
                epoch.version += 1;
                "refuses".to_owned()
            }
            Step::RollbackMerge { frozen, target } => {
                let merging = hosted.merging.take().expect("only what is stopped goes on");
                let proof = target.epoch;
                assert!(merging.target_epoch.is_stale_against(proof), "no newer epoch");
                assert!(!proof.is_stale_against(merging.target_epoch), "an older epoch");
                assert!(proof.version < epoch.version, "it may have been taken in");
                assert_eq!((merging.frozen, merging.target), (frozen, target.id));
                epoch.version += 1;
                "goes on".to_owned()
            }
            Step::CommitMerge { source, frozen } => {
                let taken = self.regions.remove(&source.id).unwrap();
                let hosted = self.regions.get_mut(&region).unwrap();
                let merging = taken.merging.expect("only what is stopped is taken in");
                assert_eq!((merging.target, merging.frozen), (region, frozen));
                assert_eq!(merging.target_epoch, hosted.region.epoch);
                assert_eq!(taken.region, source);
                let (a, b) = (&hosted.region.range, &source.range);
                hosted.region.range = match a.end == b.start {
                    true => KeyRange::new(a.start.clone(), b.end.clone()),
                    false => KeyRange::new(b.start.clone(), a.end.clone()),
                };
                let epoch = &mut hosted.region.epoch;
                epoch.version = epoch.version.max(source.epoch.version) + 1;
                hosted.bytes += taken.bytes;
                format!("takes {} in", source.id)
            }
        };
        self.done.push(format!("{region} {said}"));
    }
}

fn words(change: &Change) -> String {
    match change {
        Change::AddLearner { node, .. } => format!("add s{}", node.0),
        Change::EnterJoint { promote, demote } => {
            format!("enter +{} -{}", promote.len(), demote.len())
        }
        Change::LeaveJoint => "leave".to_owned(),
        Change::RemoveLearner { .. } => "remove".to_owned(),
    }
}

fn apply(hosted: &mut Hosted, change: Change) {
    let peers = &mut hosted.region.peers;
    let alone = peers.iter().filter(|peer| peer.role == Role::Voter).count() == 1;
    match change {
        Change::AddLearner { node, peer } => {
            let store = StoreId::from(node);
            let known = hosted.matched.contains_key(&peer);
            assert!(!known && peers.iter().all(|other| other.store != store));
            peers.push(Peer { id: peer, store, role: Role::Learner });
            hosted.matched.insert(peer, 0);
        }
        Change::EnterJoint { promote, demote } => {
            for peer in peers.iter_mut() {
                if promote.contains(&peer.id) {
                    assert_eq!(peer.role, Role::Learner);
                    peer.role = Role::IncomingVoter;
                } else if demote.contains(&peer.id) {
                    assert_eq!(peer.role, Role::Voter);
                    assert!(alone || peer.store != hosted.leader, "the leader is demoted");
                    peer.role = Role::DemotingVoter;
                }
            }
        }
        Change::LeaveJoint => {
            for peer in peers.iter_mut() {
                let leads = peer.store == hosted.leader;
                assert!(!leads || peer.role != Role::DemotingVoter, "the leader loses its vote");
                match peer.role {
                    Role::IncomingVoter => peer.role = Role::Voter,
                    Role::DemotingVoter => peer.role = Role::Learner,
                    Role::Voter | Role::Learner => {}
                }
            }
        }
        Change::RemoveLearner { peer } => {
            let at = peers.iter().position(|other| other.id == peer).unwrap();
            assert_eq!(peers.remove(at).role, Role::Learner);
        }
    }
    let of = |wanted: [Role; 2]| peers.iter().filter(|peer| wanted.contains(&peer.role)).count();
    let sides = (of([Role::Voter, Role::IncomingVoter]), of([Role::Voter, Role::DemotingVoter]));
    assert_eq!((sides.0 % 2, sides.1 % 2), (1, 1), "an even number of voters: {sides:?}");
    hosted.region.epoch.conf_ver += 1;
}

pub fn info(hosted: &Hosted, dead: &BTreeSet<u64>) -> RegionInfo {
    let progress = hosted.region.peers.iter().filter(|peer| peer.store != hosted.leader);
    let progress = progress.map(|peer| PeerProgress {
        peer: peer.id,
        matched: LogIndex(hosted.matched[&peer.id]),
        applied: Some(LogIndex(hosted.matched[&peer.id])),
        snapshot: None,
        queue: 0,
        silent: Duration::from_millis(if dead.contains(&peer.store.0) { 60_000 } else { 50 }),
    });
    let down = hosted.region.peers.iter().filter(|peer| dead.contains(&peer.store.0));
    RegionInfo {
        leader: hosted.region.peer_on(hosted.leader).copied(),
        term: Term(hosted.term),
        down: down.map(|peer| peer.id).collect(),
        pending: Vec::new(),
        progress: progress.collect(),
        last_index: LogIndex(hosted.last),
        merging: hosted
            .merging
            .map(|merging| Merging { everywhere: hosted.is_everywhere(dead), ..merging }),
        stats: RegionStats {
            bytes: hosted.bytes,
            keys: hosted.bytes / 100,
            written_keys: hosted.written,
            ..RegionStats::default()
        },
        led: true,
        region: hosted.region.clone(),
    }
}
